//! The intake of task statuses.

use swarm_api::v1;
use swarm_types::{NodeState, TaskState, TaskStatus, Timestamp, convert};
use v1::update_task_status_request::TaskStatusUpdate;

use super::rig::{MS, Rig, node, node_id, task, task_id};
use crate::{Code, DispatchError, UPDATE_BATCH_DELAY, UPDATE_BATCH_ITEMS};

fn update(name: &str, state: TaskState, message: &'static str) -> TaskStatusUpdate {
    let status = TaskStatus::new(state, Timestamp::from_millis(5), message);
    TaskStatusUpdate {
        task_id: name.into(),
        status: Some(convert::task_status_to_wire(&status)),
    }
}

/// Node `n` in session with tasks `a` and `b`, and task `foreign` on another node.
fn rig() -> (Rig, String) {
    let nodes = vec![node("n", NodeState::Down), node("m", NodeState::Down)];
    let mut rig = Rig::new(nodes);
    let session = rig.registered("n").session.to_string();
    rig.commit(|tx| {
        for (name, node) in [("a", "n"), ("b", "n"), ("foreign", "m")] {
            tx.create(task(name, node, TaskState::Assigned)).unwrap();
        }
    });
    (rig, session)
}

fn report(
    rig: &mut Rig,
    session: &str,
    updates: Vec<TaskStatusUpdate>,
) -> Result<(), DispatchError> {
    rig.dispatcher
        .handle_task_statuses(rig.now, &node_id("n"), session, updates, &rig.view)
}

#[test]
fn a_status_is_written_with_the_leaders_stamp_after_the_batch_delay() {
    let (mut rig, session) = rig();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "started")],
    )
    .unwrap();
    rig.wait(UPDATE_BATCH_DELAY - MS);
    assert_eq!(rig.transaction(), None);
    rig.wait(MS);
    let batch = rig.transaction().unwrap();
    assert_eq!(rig.transaction(), None, "one batch at a time");
    rig.apply(&batch.sets, &[]);
    let status = rig.view.task(&task_id("a")).unwrap().status().clone();
    assert_eq!(status.state, TaskState::Running);
    assert_eq!(&*status.message, "started");
    assert_eq!(status.timestamp, Some(Timestamp::from_millis(5)));
    assert_eq!(status.applied_by, Some(node_id("leader")));
    assert_eq!(status.applied_at, Some(rig.now));
}

#[test]
fn an_equal_status_is_not_written_again_and_a_changed_message_is() {
    let (mut rig, session) = rig();
    let started = || vec![update("a", TaskState::Running, "started")];
    report(&mut rig, &session, started()).unwrap();
    assert_eq!(rig.flush(), 1);
    report(&mut rig, &session, started()).unwrap();
    assert_eq!(rig.flush(), 0);
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "healthy")],
    )
    .unwrap();
    assert_eq!(rig.flush(), 1);
}

#[test]
fn a_state_never_goes_back_whether_it_is_stored_or_still_queued() {
    let (mut rig, session) = rig();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "started")],
    )
    .unwrap();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Preparing, "late")],
    )
    .unwrap();
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.task_state("a"), TaskState::Running);
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Preparing, "later")],
    )
    .unwrap();
    assert_eq!(rig.flush(), 0);
}

#[test]
fn what_has_ended_does_not_end_in_another_way() {
    let (mut rig, session) = rig();
    for (state, message, is_written) in [
        (TaskState::Failed, "it fell over", 1),
        (TaskState::Rejected, "it was never here", 0),
        // Words may still change.
        (TaskState::Failed, "it was pushed", 1),
    ] {
        let updates = vec![update("a", state, message)];
        report(&mut rig, &session, updates).unwrap();
        assert_eq!(rig.flush(), is_written, "{state}");
        assert_eq!(rig.task_state("a"), TaskState::Failed);
    }
}

#[test]
fn the_last_of_several_reports_wins() {
    let (mut rig, session) = rig();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "one")],
    )
    .unwrap();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "two")],
    )
    .unwrap();
    assert_eq!(rig.flush(), 1);
    let task = rig.view.task(&task_id("a")).unwrap();
    assert_eq!(&*task.status().message, "two");
}

#[test]
fn a_foreign_task_fails_the_whole_call() {
    let (mut rig, session) = rig();
    let updates = vec![
        update("a", TaskState::Running, "started"),
        update("foreign", TaskState::Running, "started"),
    ];
    let error = report(&mut rig, &session, updates).unwrap_err();
    assert_eq!(error.code, Code::PermissionDenied);
    assert_eq!(error.message, "cannot update a task not assigned this node");
    assert_eq!(rig.flush(), 0);
}

#[test]
fn unknown_tasks_and_missing_statuses_are_skipped() {
    let (mut rig, session) = rig();
    let none = TaskStatusUpdate {
        task_id: "a".into(),
        status: None,
    };
    let updates = vec![
        none,
        update("unknown", TaskState::Running, ""),
        update("", TaskState::Running, ""),
        update("b", TaskState::Accepted, "accepted"),
    ];
    report(&mut rig, &session, updates).unwrap();
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.task_state("b"), TaskState::Accepted);
}

#[test]
fn malformed_states_are_refused() {
    let (mut rig, session) = rig();
    let mut unknown = update("a", TaskState::Running, "");
    unknown.status.as_mut().unwrap().state = 513;
    let remove = update("a", TaskState::Remove, "");
    for bad in [unknown, remove] {
        let error = report(&mut rig, &session, vec![bad]).unwrap_err();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains("task a"), "{error}");
    }
}

#[test]
fn only_the_current_session_may_report() {
    let (mut rig, _) = rig();
    let error = report(&mut rig, "other", vec![]).unwrap_err();
    assert_eq!(error.message, "session invalid");
}

#[test]
fn a_refused_status_is_repeated_and_the_others_are_not() {
    let (mut rig, session) = rig();
    let updates = vec![
        update("a", TaskState::Running, ""),
        update("b", TaskState::Running, ""),
    ];
    report(&mut rig, &session, updates).unwrap();
    rig.wait(UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    assert_eq!(batch.sets.len(), 2);
    rig.apply(&batch.sets, &[0]);
    let batch = rig.transaction().unwrap();
    assert_eq!(batch.sets.len(), 1);
    rig.apply(&batch.sets, &[]);
    assert_eq!(rig.task_state("a"), TaskState::Running);
    assert_eq!(rig.transaction(), None);
}

#[test]
fn a_report_that_comes_while_the_one_before_is_written_is_not_lost() {
    let (mut rig, session) = rig();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Starting, "")],
    )
    .unwrap();
    rig.wait(UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "")],
    )
    .unwrap();
    rig.apply(&batch.sets, &[0]);
    rig.flush();
    assert_eq!(rig.task_state("a"), TaskState::Running);
}

#[test]
fn the_next_batch_waits_for_the_result_of_the_one_before() {
    let (mut rig, session) = rig();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "")],
    )
    .unwrap();
    rig.wait(UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    report(
        &mut rig,
        &session,
        vec![update("b", TaskState::Running, "")],
    )
    .unwrap();
    rig.wait(UPDATE_BATCH_DELAY);
    assert_eq!(rig.transaction(), None);
    rig.apply(&batch.sets, &[0]);
    assert_eq!(rig.transaction().unwrap().sets.len(), 2);
}

#[test]
fn a_full_batch_does_not_wait_and_is_cut_into_transactions() {
    let (mut rig, session) = rig();
    let names: Vec<String> = (0..UPDATE_BATCH_ITEMS).map(|n| format!("t{n}")).collect();
    rig.commit(|tx| {
        for name in &names {
            tx.create(task(name, "n", TaskState::Assigned)).unwrap();
        }
    });
    let mut updates: Vec<_> = names
        .iter()
        .map(|name| update(name, TaskState::Running, "started"))
        .collect();
    let last = updates.pop().unwrap();
    report(&mut rig, &session, updates).unwrap();
    assert_eq!(rig.transaction(), None);
    report(&mut rig, &session, vec![last]).unwrap();
    let batch = rig.transaction().unwrap();
    assert_eq!(batch.sets.len(), swarm_store::TRANSACTION_CHANGES_MAX);
    let written = rig.apply(&batch.sets, &[]);
    assert_eq!(written + rig.flush(), UPDATE_BATCH_ITEMS);
}

#[test]
fn a_deleted_task_is_dropped_from_the_queue() {
    let (mut rig, session) = rig();
    report(
        &mut rig,
        &session,
        vec![update("a", TaskState::Running, "")],
    )
    .unwrap();
    let id = task_id("a");
    rig.commit(|tx| tx.delete(swarm_types::Kind::Task, id.as_id()).unwrap());
    assert_eq!(rig.flush(), 0);
    assert_eq!(rig.dispatcher.status().statuses_queued, 0);
}
