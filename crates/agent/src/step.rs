//! The step function: what to do next for a task, and what a result means (spec 6.3).
//!
//! Pure functions of states. Refuses to own: retries, deadlines, order on disk.

use swarm_api::v1;
use swarm_executor::{ErrorClass, ExecError, Operation, Report};
use swarm_types::task::WARNINGS_MARK;
use swarm_types::{TaskState, TaskStatus, Text, Timestamp};

/// Longest error text in a status, in bytes; the rest is cut off. Bounds what a talkative program
/// can put into the store.
pub const ERROR_BYTES_MAX: usize = 4096;

/// What to do next for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something changes.
    Nothing,
    /// Go on to a state; there is nothing to be done for it.
    Advance {
        /// The state.
        state: TaskState,
        /// What the status says then.
        message: &'static str,
    },
    /// Run an operation.
    Run(Operation),
}

/// The next step of a task in state `state` that is wanted in state `desired`.
pub fn step(state: TaskState, desired: TaskState) -> Step {
    let advance = |state, message| Step::Advance { state, message };
    if desired >= TaskState::Shutdown {
        return if state >= TaskState::Complete {
            Step::Nothing
        } else {
            Step::Run(Operation::Shutdown)
        };
    }
    if state > desired {
        return Step::Nothing;
    }
    match state {
        TaskState::Preparing => Step::Run(Operation::Prepare),
        TaskState::Starting => Step::Run(Operation::Start),
        TaskState::Running => Step::Run(Operation::Wait),
        _ if state >= desired => Step::Nothing,
        TaskState::New | TaskState::Pending | TaskState::Assigned => {
            advance(TaskState::Accepted, "accepted")
        }
        TaskState::Accepted => advance(TaskState::Preparing, "preparing"),
        TaskState::Ready => advance(TaskState::Starting, "starting"),
        TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Remove
        | TaskState::Orphaned => Step::Nothing,
    }
}

/// What the result of an operation means for its task.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Conclusion {
    pub(crate) status: TaskStatus,
    /// Whether the operation is to be repeated after a pause.
    pub(crate) retry: bool,
}

/// Judges the result of an operation. Where it was a success, the status is the next one of the
/// table; a passing error leaves the state; any other ends the task.
pub(crate) fn conclude(
    status: &TaskStatus,
    operation: Operation,
    report: &Report,
    now: Timestamp,
) -> Conclusion {
    let mut next = status.clone();
    let mut retry = false;
    match report
        .result
        .as_ref()
        .map_err(|error| (error, error.class()))
    {
        Ok(()) | Err((_, ErrorClass::Done)) => succeed(&mut next, operation, &report.warnings),
        Err((_, ErrorClass::Cancelled)) => retry = true,
        Err((error, ErrorClass::Retry)) => {
            next.err = bounded(error.to_string());
            retry = true;
        }
        Err((error, ErrorClass::Fatal)) => fail(&mut next, error),
    }
    if next.state >= TaskState::Starting {
        attach(&mut next, report);
    }
    stamp(&mut next, status, now);
    Conclusion {
        status: next,
        retry,
    }
}

/// The status after a step without an operation.
pub(crate) fn advanced(
    status: &TaskStatus,
    state: TaskState,
    message: &'static str,
    now: Timestamp,
) -> TaskStatus {
    let mut next = status.clone();
    next.state = state;
    next.message = message.into();
    next.err = Text::EMPTY;
    stamp(&mut next, status, now);
    next
}

/// The status of a task that cannot go on for a reason of the agent's own.
pub(crate) fn failed(status: &TaskStatus, reason: &str, now: Timestamp) -> TaskStatus {
    let mut next = status.clone();
    fail(&mut next, &ExecError::fatal(reason));
    stamp(&mut next, status, now);
    next
}

/// An error text that fits a status.
pub(crate) fn bounded(mut text: String) -> Text {
    const MARK: &str = " [cut]";
    if text.len() > ERROR_BYTES_MAX {
        text.truncate(text.floor_char_boundary(ERROR_BYTES_MAX - MARK.len()));
        text.push_str(MARK);
    }
    text.into()
}

fn succeed(next: &mut TaskStatus, operation: Operation, warnings: &[String]) {
    let (state, message) = match operation {
        Operation::Prepare => (TaskState::Ready, "prepared"),
        Operation::Start => (TaskState::Running, "started"),
        Operation::Wait => (TaskState::Complete, "finished"),
        Operation::Shutdown | Operation::Terminate => (TaskState::Shutdown, "shutdown"),
        // They do not move a task.
        Operation::Update | Operation::Remove | Operation::Close => return,
    };
    next.state = state;
    next.err = Text::EMPTY;
    next.message = if operation == Operation::Start && !warnings.is_empty() {
        bounded(format!("{message}{WARNINGS_MARK}{}", warnings.join("; ")))
    } else {
        message.into()
    };
}

fn fail(next: &mut TaskStatus, error: &ExecError) {
    if let ExecError::RuntimeUnsupported { .. } = error {
        next.message = "resolving controller failed".into();
    }
    next.err = bounded(error.to_string());
    next.state = if next.state < TaskState::Starting {
        TaskState::Rejected
    } else {
        TaskState::Failed
    };
}

fn attach(next: &mut TaskStatus, report: &Report) {
    if let Some(container) = &report.container {
        next.container = Some(Box::new(container.clone()));
    }
    if let Some(ports) = &report.ports {
        next.ports = Some(Box::new(ports.clone()));
    }
    let exit_code = report.result.as_ref().err().and_then(ExecError::exit_code);
    if let Some(exit_code) = exit_code {
        let container: &mut v1::ContainerStatus = next.container.get_or_insert_default();
        container.exit_code = exit_code;
    }
}

/// The time says when something else changed.
fn stamp(next: &mut TaskStatus, before: &TaskStatus, now: Timestamp) {
    if next != before {
        next.timestamp = Some(now);
    }
}

#[cfg(test)]
mod tests;
