//! Fake tasks, operation by operation.

use super::*;
use crate::fake::script::tests::spec;

const MS: Duration = Duration::from_millis(1);

fn fake(words: &[&str]) -> FakeTask {
    FakeTask::new(
        Arc::new(Task::new("t".parse().unwrap(), Arc::new(spec(words)))),
        42,
    )
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(ms)
}

/// Begins an operation without randomness.
fn begin(task: &mut FakeTask, operation: Operation, ms: i64) -> Begun {
    task.begin(operation, at(ms), &mut || {
        panic!("this script must not draw")
    })
}

fn started(words: &[&str]) -> FakeTask {
    let mut task = fake(words);
    assert_eq!(
        begin(&mut task, Operation::Prepare, 0).completes_at,
        Some(at(10))
    );
    assert_eq!(
        begin(&mut task, Operation::Start, 10).completes_at,
        Some(at(20))
    );
    task
}

#[test]
fn a_task_runs_for_its_time_and_reports_its_code() {
    let mut task = started(&["fake.run=100ms", "fake.exit=3"]);
    assert!(!task.is_running(at(19)));
    assert!(task.is_running(at(20)));
    assert!(task.is_running(at(119)));
    assert!(!task.is_running(at(120)));
    let begun = begin(&mut task, Operation::Wait, 30);
    assert_eq!(begun.completes_at, Some(at(120)));
    assert_eq!(begun.outcome.result.unwrap_err().exit_code(), Some(3));
    assert_eq!(begun.outcome.container.unwrap().exit_code, 3);
}

#[test]
fn a_start_reports_the_process() {
    let mut task = fake(&[]);
    begin(&mut task, Operation::Prepare, 0);
    let begun = begin(&mut task, Operation::Start, 10);
    assert_eq!(begun.outcome.result, Ok(()));
    assert_eq!(
        begun.outcome.container.map(|container| container.pid),
        Some(42)
    );
}

#[test]
fn repeated_work_is_named_as_such() {
    let mut task = started(&[]);
    let again = begin(&mut task, Operation::Prepare, 30);
    assert_eq!(again.outcome.result, Err(ExecError::AlreadyPrepared));
    let again = begin(&mut task, Operation::Start, 30);
    assert_eq!(again.outcome.result, Err(ExecError::AlreadyStarted));
    assert!(task.is_running(at(30)));
}

#[test]
fn another_operation_cancels_the_one_under_way() {
    let mut task = fake(&[]);
    begin(&mut task, Operation::Prepare, 0);
    begin(&mut task, Operation::Start, 10);
    begin(&mut task, Operation::Shutdown, 15);
    assert!(!task.is_running(at(1000)));
    // Without interruption it comes true by itself: the agent may be dead.
    let mut task = fake(&[]);
    begin(&mut task, Operation::Prepare, 0);
    begin(&mut task, Operation::Start, 10);
    assert!(task.is_running(at(1000)));
}

#[test]
fn a_killed_process_ends_the_wait_with_137() {
    let mut task = started(&[]);
    assert_eq!(begin(&mut task, Operation::Wait, 20).completes_at, None);
    task.kill(at(50));
    let begun = begin(&mut task, Operation::Wait, 50);
    assert_eq!(begun.completes_at, Some(at(50)));
    assert_eq!(begun.outcome.result.unwrap_err().exit_code(), Some(137));
}

#[test]
fn rejections_and_bad_scripts_fail_prepare() {
    let begun = begin(&mut fake(&["fake.reject=no"]), Operation::Prepare, 0);
    assert_eq!(begun.outcome.result, Err(ExecError::fatal("no")));
    let begun = begin(&mut fake(&["fake.run=soon"]), Operation::Prepare, 0);
    assert!(
        begun
            .outcome
            .result
            .unwrap_err()
            .to_string()
            .contains("fake.run=soon")
    );
}

#[test]
fn passing_trouble_passes_after_its_attempts() {
    let mut task = fake(&["fake.temporary=prepare:2"]);
    for _ in 0..2 {
        let result = begin(&mut task, Operation::Prepare, 0).outcome.result;
        assert_eq!(result.unwrap_err().class(), crate::ErrorClass::Retry);
    }
    assert_eq!(
        begin(&mut task, Operation::Prepare, 0).outcome.result,
        Ok(())
    );
}

#[test]
fn a_hanging_operation_never_ends_and_has_no_effect() {
    let mut task = fake(&["fake.hang=start"]);
    begin(&mut task, Operation::Prepare, 0);
    assert_eq!(begin(&mut task, Operation::Start, 10).completes_at, None);
    assert!(!task.is_running(at(10_000)));
}

#[test]
fn chances_and_jitter_come_from_the_draw_alone() {
    let run = |number: u64| {
        let mut task = fake(&["fake.fail=prepare:25", "fake.jitter=4ms"]);
        task.begin(Operation::Prepare, at(0), &mut || number)
    };
    assert!(run(24).outcome.result.is_err());
    let begun = run(25);
    assert_eq!(begun.outcome.result, Ok(()));
    assert_eq!(
        begun.completes_at,
        Some(at(10).saturating_add(Duration::from_nanos(25)))
    );
    let begun = run(u64::try_from((4 * MS).as_nanos()).unwrap() - 1 + 100 * 4_000_000);
    assert!(begun.completes_at.unwrap() < at(14));
}

#[test]
fn memory_limit_is_reported_as_such() {
    let mut task = started(&["fake.run=1ms", "fake.oom=true"]);
    let result = begin(&mut task, Operation::Wait, 30).outcome.result;
    let message = String::new();
    assert_eq!(
        result,
        Err(ExecError::Exited {
            code: 137,
            oom: true,
            message
        })
    );
}

#[test]
fn a_removed_task_cannot_start() {
    let mut task = started(&[]);
    begin(&mut task, Operation::Remove, 30);
    assert!(task.is_removed(at(30)));
    assert!(!task.is_running(at(30)));
    assert!(
        begin(&mut task, Operation::Start, 31)
            .outcome
            .result
            .is_err()
    );
}
