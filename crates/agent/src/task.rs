//! One task on this node: what was assigned, how far it is, which operation is under way.
//!
//! Refuses to own: disk, reports and timers, which the agent has for all tasks together.

use std::sync::Arc;
use std::time::Duration;

use swarm_executor::{ErrorClass, Operation, Report};
use swarm_types::{Task, TaskId, TaskState, TaskStatus, Timestamp, spec};

use crate::step::{self, Conclusion, Step, step};

/// The pause before a failed operation is repeated; it doubles each time (SwarmKit: always 1 s).
pub const RETRY_BASE: Duration = Duration::from_secs(1);
/// The longest such pause.
pub const RETRY_MAX: Duration = Duration::from_secs(30);
/// A shutdown may take so long beyond the grace period of the task; then it is terminated.
pub const SHUTDOWN_MARGIN: Duration = Duration::from_secs(10);
/// A termination, a removal or an update may take so long before it is given up and repeated.
pub const CLEANUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Of a task that was given back before it was on the disk.
const NEVER_RECORDED: u64 = u64::MAX;

/// Names one run of an operation. A later one on the same task replaces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId(pub u64);

/// An operation to run. If another one is under way for the task, drop it first: that cancels it,
/// and its result is not wanted any more.
#[derive(Clone, Debug, PartialEq)]
pub struct TaskOperation {
    /// The task.
    pub task_id: TaskId,
    /// To be handed back with the result.
    pub op: OpId,
    /// What to do. The first operation on a task, whichever it is, makes its controller; a
    /// successful [`Operation::Remove`] closes it.
    pub operation: Operation,
    /// The task as it was assigned last.
    pub task: Arc<Task>,
}

/// The state of one task.
#[derive(Debug)]
pub(crate) struct Machine {
    task: Arc<Task>,
    is_assigned: bool,
    /// The disk batch that holds the latest change.
    pub(crate) needs: u64,
    /// The disk batch that records the task at all; 0 for one from the disk.
    pub(crate) recorded_by: u64,
    running: Option<(OpId, Operation)>,
    /// Whether the executor may know the task.
    is_begun: bool,
    /// Whether the executor does not know the latest version of the task.
    needs_update: bool,
    /// Terminate instead of shutting down.
    is_forced: bool,
    /// No longer assigned, and the executor confirmed that nothing runs.
    is_ended: bool,
    is_paused: bool,
    attempts: u32,
    /// Assigned again while it was being removed.
    returned: Option<Arc<Task>>,
}

/// What the agent has to do after something happened to a task.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Effects {
    pub(crate) status_changed: bool,
    pub(crate) pause: Option<Duration>,
    pub(crate) removed: bool,
    /// The task is assigned again, in another version perhaps.
    pub(crate) reassigned: bool,
}

impl Machine {
    /// A task that was just assigned.
    pub(crate) fn new(task: Task) -> Self {
        Self::with(task, true, false)
    }

    /// A task from the disk; the executor may know it.
    pub(crate) fn recovered(task: Task, is_assigned: bool) -> Self {
        Self::with(task, is_assigned, true)
    }

    fn with(task: Task, is_assigned: bool, is_begun: bool) -> Self {
        Self {
            task: Arc::new(task),
            is_assigned,
            needs: 0,
            recorded_by: 0,
            running: None,
            is_begun,
            needs_update: false,
            is_forced: false,
            is_ended: false,
            is_paused: false,
            attempts: 0,
            returned: None,
        }
    }

    pub(crate) fn task(&self) -> &Arc<Task> {
        &self.task
    }

    pub(crate) fn status(&self) -> &TaskStatus {
        self.task.status()
    }

    pub(crate) fn is_assigned(&self) -> bool {
        self.is_assigned
    }

    /// Takes the steps that need no operation. True if the status changed.
    pub(crate) fn advance(&mut self, now: Timestamp) -> bool {
        let mut changed = false;
        while self.is_assigned && self.running.is_none() {
            match step(self.task.state(), self.task.desired_state()) {
                Step::Advance { state, message } => {
                    let next = step::advanced(self.status(), state, message, now);
                    changed |= self.apply(next);
                }
                Step::Nothing | Step::Run(_) => break,
            }
        }
        changed
    }

    /// The operation that may begin, if one is needed and none is under way.
    pub(crate) fn next(&self) -> Option<Operation> {
        if self.running.is_some() || self.is_paused {
            return None;
        }
        let shutdown = if self.is_forced {
            Operation::Terminate
        } else {
            Operation::Shutdown
        };
        if !self.is_assigned {
            let started = TaskState::Starting..=TaskState::Running;
            let may_run = started.contains(&self.task.state()) && !self.is_ended;
            return Some(if may_run { shutdown } else { Operation::Remove });
        }
        match step(self.task.state(), self.task.desired_state()) {
            Step::Nothing | Step::Advance { .. } => None,
            Step::Run(_) if self.needs_update => Some(Operation::Update),
            Step::Run(Operation::Shutdown) => Some(shutdown),
            Step::Run(operation) => Some(operation),
        }
    }

    /// Begins an operation. Returns how long it may take; `None` where only the task itself knows:
    /// preparing, starting and running take as long as they take, and an update ends the wait.
    pub(crate) fn begin(&mut self, op: OpId, operation: Operation) -> Option<Duration> {
        self.running = Some((op, operation));
        self.is_begun = true;
        match operation {
            Operation::Shutdown => {
                let grace = self.task.container().map(spec::stop_grace_period);
                Some(grace.unwrap_or_default().saturating_add(SHUTDOWN_MARGIN))
            }
            Operation::Update | Operation::Terminate | Operation::Remove => Some(CLEANUP_TIMEOUT),
            Operation::Prepare | Operation::Start | Operation::Wait | Operation::Close => None,
        }
    }

    /// Takes a task from the managers. True if it is news. The status stays: it is ours.
    pub(crate) fn assign(&mut self, task: Task) -> bool {
        if !self.is_assigned && self.is_begun {
            self.returned = Some(Arc::new(task));
            return false;
        }
        let is_back = !self.is_assigned;
        let is_older = task.desired_state() < self.task.desired_state();
        if !is_back && (is_older || self.task.is_same_assignment(&task)) {
            return false;
        }
        let desired = task.desired_state().max(self.task.desired_state());
        self.task = Arc::new(task.with_states(self.status().clone(), desired));
        self.is_assigned = true;
        self.restart();
        self.needs_update = self.is_begun && !self.task.is_terminal();
        true
    }

    /// The managers took the task away. True if it was assigned.
    pub(crate) fn unassign(&mut self) -> bool {
        self.returned = None;
        let was_assigned = std::mem::replace(&mut self.is_assigned, false);
        if was_assigned {
            // A task that the executor has not heard of can be given back as if nothing was.
            self.restart();
        }
        was_assigned
    }

    /// The pause is over.
    pub(crate) fn resume(&mut self) {
        self.is_paused = false;
    }

    /// Gives back a task that could not be recorded; nothing was done for it. True if the status
    /// changed.
    pub(crate) fn refuse(&mut self, reason: &str, now: Timestamp) -> bool {
        self.recorded_by = NEVER_RECORDED;
        self.needs = 0;
        self.restart();
        let status = step::failed(self.status(), reason, now);
        !self.task.is_terminal() && self.apply(status)
    }

    /// Whether nothing of the task is on the disk, nor on its way there.
    pub(crate) fn is_never_recorded(&self) -> bool {
        self.recorded_by == NEVER_RECORDED
    }

    /// Takes the result of an operation; `None` if it is not the one under way.
    pub(crate) fn finish(&mut self, op: OpId, report: &Report, now: Timestamp) -> Option<Effects> {
        let (running, operation) = self.running?;
        if running != op {
            return None;
        }
        self.running = None;
        if self.is_assigned {
            return Some(self.finish_assigned(operation, report, now));
        }
        let is_done = match &report.result {
            Ok(()) => true,
            Err(error) => error.class() == ErrorClass::Done,
        };
        Some(match (operation, is_done) {
            (Operation::Remove, true) => self.finish_removal(now),
            (_, true) => {
                self.is_ended = true;
                self.attempts = 0;
                Effects::default()
            }
            (_, false) => {
                self.is_forced = true;
                self.pause()
            }
        })
    }

    /// The operation under way took too long; `None` if there is none.
    pub(crate) fn time_out(&mut self, now: Timestamp) -> Option<Effects> {
        let (_, operation) = self.running.take()?;
        Some(match operation {
            Operation::Shutdown => {
                self.is_forced = true;
                Effects::default()
            }
            Operation::Update => {
                self.needs_update = false;
                self.note("updating the task took too long", now)
            }
            Operation::Terminate
            | Operation::Remove
            | Operation::Prepare
            | Operation::Start
            | Operation::Wait
            | Operation::Close => self.pause(),
        })
    }

    fn finish_assigned(
        &mut self,
        operation: Operation,
        report: &Report,
        now: Timestamp,
    ) -> Effects {
        let failure = match &report.result {
            Ok(()) => None,
            Err(error) => Some((error.class(), error)),
        };
        match (operation, failure) {
            (Operation::Update, failure) => {
                // A change that cannot be applied must not keep the task from being shut down.
                self.needs_update = false;
                match failure {
                    None | Some((ErrorClass::Done | ErrorClass::Cancelled, _)) => {
                        Effects::default()
                    }
                    Some((ErrorClass::Retry | ErrorClass::Fatal, error)) => {
                        self.note(&error.to_string(), now)
                    }
                }
            }
            (Operation::Shutdown, Some((ErrorClass::Fatal, error))) => {
                // The task may still run, so it is not over yet.
                self.is_forced = true;
                self.note(&error.to_string(), now)
            }
            (_, _) => self.conclude(operation, report, now),
        }
    }

    fn conclude(&mut self, operation: Operation, report: &Report, now: Timestamp) -> Effects {
        let Conclusion { status, retry } = step::conclude(self.status(), operation, report, now);
        let is_further = status.state != self.task.state();
        let mut effects = Effects {
            status_changed: self.apply(status),
            ..Effects::default()
        };
        if retry {
            effects.pause = self.pause().pause;
        } else if is_further {
            self.attempts = 0;
        }
        effects
    }

    fn finish_removal(&mut self, now: Timestamp) -> Effects {
        let Some(task) = self.returned.take() else {
            return Effects {
                removed: true,
                ..Effects::default()
            };
        };
        // What was removed cannot go on: the managers have to make a new task.
        let reason = "the task was taken from this node and given back while it was being removed";
        let status = if self.task.is_terminal() {
            self.status().clone()
        } else {
            step::failed(self.status(), reason, now)
        };
        let desired = task.desired_state();
        self.task = Arc::new(Task::clone(&task).with_states(status, desired));
        self.is_assigned = true;
        self.is_begun = false;
        self.is_ended = false;
        Effects {
            status_changed: true,
            reassigned: true,
            ..Effects::default()
        }
    }

    fn note(&mut self, error: &str, now: Timestamp) -> Effects {
        let mut status = self.status().clone();
        status.err = step::bounded(error.to_owned());
        status.timestamp = Some(now);
        Effects {
            status_changed: self.apply(status),
            ..Effects::default()
        }
    }

    fn pause(&mut self) -> Effects {
        let doubled = RETRY_BASE.saturating_mul(1 << self.attempts.min(16));
        self.attempts = self.attempts.saturating_add(1);
        self.is_paused = true;
        Effects {
            pause: Some(doubled.min(RETRY_MAX)),
            ..Effects::default()
        }
    }

    /// Cancels what is under way.
    fn restart(&mut self) {
        self.running = None;
        self.is_paused = false;
        self.attempts = 0;
    }

    /// True if the status changed.
    fn apply(&mut self, status: TaskStatus) -> bool {
        if status == *self.task.status() {
            return false;
        }
        // The step function never goes back; if it did, the status would stay as it is (I-TASK-1).
        Arc::make_mut(&mut self.task).advance(status).is_ok()
    }
}
