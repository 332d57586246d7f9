use swarm_executor::ExecError;
use swarm_types::state::ALL;

use super::*;

/// One row for each observed state, one column for each desired state, in the order of the states:
/// new, pending, assigned, accepted, preparing, ready, starting, running, complete, shutdown,
/// failed, rejected, remove, orphaned. Taken from the specification row by row, not from the code.
const TABLE: &str = "
new       -  A  A  A  A  A  A  A  A  S  S  S  S  S
pending   -  -  A  A  A  A  A  A  A  S  S  S  S  S
assigned  -  -  -  A  A  A  A  A  A  S  S  S  S  S
accepted  -  -  -  -  G  G  G  G  G  S  S  S  S  S
preparing -  -  -  -  P  P  P  P  P  S  S  S  S  S
ready     -  -  -  -  -  -  T  T  T  S  S  S  S  S
starting  -  -  -  -  -  -  R  R  R  S  S  S  S  S
running   -  -  -  -  -  -  -  W  W  S  S  S  S  S
complete  -  -  -  -  -  -  -  -  -  -  -  -  -  -
shutdown  -  -  -  -  -  -  -  -  -  -  -  -  -  -
failed    -  -  -  -  -  -  -  -  -  -  -  -  -  -
rejected  -  -  -  -  -  -  -  -  -  -  -  -  -  -
remove    -  -  -  -  -  -  -  -  -  -  -  -  -  -
orphaned  -  -  -  -  -  -  -  -  -  -  -  -  -  -
";

fn letter(step: Step) -> &'static str {
    match step {
        Step::Nothing => "-",
        Step::Advance {
            state: TaskState::Accepted,
            message: "accepted",
        } => "A",
        Step::Advance {
            state: TaskState::Preparing,
            message: "preparing",
        } => "G",
        Step::Advance {
            state: TaskState::Starting,
            message: "starting",
        } => "T",
        Step::Advance { .. } => "?",
        Step::Run(Operation::Prepare) => "P",
        Step::Run(Operation::Start) => "R",
        Step::Run(Operation::Wait) => "W",
        Step::Run(Operation::Shutdown) => "S",
        Step::Run(
            Operation::Update | Operation::Terminate | Operation::Remove | Operation::Close,
        ) => "?",
    }
}

#[test]
fn every_combination_of_observed_and_desired_state_takes_the_step_of_the_table() {
    let rows: Vec<&str> = TABLE.trim().lines().collect();
    assert_eq!(rows.len(), ALL.len());
    for (row, state) in rows.into_iter().zip(ALL) {
        let mut words = row.split_whitespace();
        assert_eq!(words.next(), Some(state.name()));
        for (expected, desired) in words.zip(ALL) {
            let found = letter(step(state, desired));
            assert_eq!(found, expected, "observed {state}, desired {desired}");
        }
    }
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

fn before(state: TaskState) -> TaskStatus {
    TaskStatus {
        err: "old".into(),
        ..TaskStatus::new(state, at(1), "message")
    }
}

fn concluded(state: TaskState, operation: Operation, result: Result<(), ExecError>) -> Conclusion {
    conclude(&before(state), operation, &Report::new(result), at(2))
}

#[test]
fn success_moves_on_and_clears_the_error() {
    for (state, operation, next, message) in [
        (
            TaskState::Preparing,
            Operation::Prepare,
            TaskState::Ready,
            "prepared",
        ),
        (
            TaskState::Starting,
            Operation::Start,
            TaskState::Running,
            "started",
        ),
        (
            TaskState::Running,
            Operation::Wait,
            TaskState::Complete,
            "finished",
        ),
        (
            TaskState::Running,
            Operation::Shutdown,
            TaskState::Shutdown,
            "shutdown",
        ),
        (
            TaskState::Assigned,
            Operation::Terminate,
            TaskState::Shutdown,
            "shutdown",
        ),
    ] {
        let done = concluded(state, operation, Ok(()));
        assert_eq!(done.status, TaskStatus::new(next, at(2), message));
        assert!(!done.retry);
    }
    for (state, operation, error, next, message) in [
        (
            TaskState::Preparing,
            Operation::Prepare,
            ExecError::AlreadyPrepared,
            TaskState::Ready,
            "prepared",
        ),
        (
            TaskState::Starting,
            Operation::Start,
            ExecError::AlreadyStarted,
            TaskState::Running,
            "started",
        ),
    ] {
        let repeated = concluded(state, operation, Err(error));
        assert_eq!(repeated.status, TaskStatus::new(next, at(2), message));
        assert!(!repeated.retry);
    }
}

#[test]
fn a_fatal_error_rejects_before_starting_and_fails_from_there_on() {
    for (state, ended) in [
        (TaskState::Preparing, TaskState::Rejected),
        (TaskState::Ready, TaskState::Rejected),
        (TaskState::Starting, TaskState::Failed),
        (TaskState::Running, TaskState::Failed),
    ] {
        let done = concluded(state, Operation::Wait, Err(ExecError::fatal("broken")));
        assert_eq!(done.status.state, ended);
        assert_eq!(&*done.status.err, "broken");
        assert_eq!(&*done.status.message, "message");
        assert!(!done.retry);
    }
    for (state, operation, ended) in [
        (
            TaskState::Preparing,
            Operation::Prepare,
            TaskState::Rejected,
        ),
        (TaskState::Starting, Operation::Start, TaskState::Failed),
        (TaskState::Running, Operation::Wait, TaskState::Failed),
    ] {
        let unsupported = ExecError::RuntimeUnsupported {
            reason: "attachment".into(),
        };
        let done = concluded(state, operation, Err(unsupported));
        assert_eq!(&*done.status.message, "resolving controller failed");
        assert_eq!(&*done.status.err, "unsupported runtime: attachment");
        assert_eq!(done.status.state, ended);
    }
}

#[test]
fn passing_trouble_keeps_the_state_and_shows_the_error_and_a_cancellation_shows_nothing() {
    let done = concluded(
        TaskState::Preparing,
        Operation::Prepare,
        Err(ExecError::temporary("disk full")),
    );
    assert!(done.retry);
    assert_eq!(done.status.state, TaskState::Preparing);
    assert_eq!(&*done.status.err, "disk full");
    assert_eq!(done.status.timestamp, Some(at(2)));
    let cancelled = ExecError::Cancelled {
        operation: "prepare",
        reason: "deadline".into(),
    };
    let done = concluded(TaskState::Preparing, Operation::Prepare, Err(cancelled));
    assert!(done.retry);
    assert_eq!(done.status, before(TaskState::Preparing));
}

#[test]
fn the_process_is_shown_from_starting_on_and_the_exit_code_comes_from_the_error() {
    let container = v1::ContainerStatus {
        container_id: "c".into(),
        pid: 7,
        exit_code: 0,
    };
    let mut report = Report::new(Err(ExecError::Exited {
        code: 3,
        oom: false,
        message: String::new(),
    }));
    report.container = Some(container.clone());
    let done = conclude(&before(TaskState::Running), Operation::Wait, &report, at(2));
    let shown = done.status.container.unwrap();
    assert_eq!((shown.pid, shown.exit_code), (7, 3));
    assert_eq!(done.status.state, TaskState::Failed);

    let mut early = Report::new(Err(ExecError::temporary("not yet")));
    early.container = Some(container);
    let done = conclude(
        &before(TaskState::Preparing),
        Operation::Prepare,
        &early,
        at(2),
    );
    assert_eq!(done.status.container, None);
}

#[test]
fn warnings_of_the_executor_end_in_the_message_of_a_started_task() {
    let mut report = Report::new(Ok(()));
    report.warnings = vec!["no memory limit".into(), "no cpu limit".into()];
    let done = conclude(
        &before(TaskState::Starting),
        Operation::Start,
        &report,
        at(2),
    );
    assert_eq!(
        &*done.status.message,
        "started; warning: no memory limit; no cpu limit"
    );
}

#[test]
fn error_texts_are_cut_at_the_limit_and_not_below_it() {
    let whole = "x".repeat(ERROR_BYTES_MAX);
    assert_eq!(&*bounded(whole.clone()), whole);
    let cut = bounded("é".repeat(ERROR_BYTES_MAX));
    assert!(cut.len() <= ERROR_BYTES_MAX && cut.ends_with(" [cut]"));
}
