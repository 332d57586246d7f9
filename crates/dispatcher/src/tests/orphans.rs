//! Tasks of nodes that are lost for a day.

use std::sync::Arc;
use std::time::Duration;

use swarm_types::{NodeState, TaskState, Timestamp};

use super::rig::{MS, Rig, config, node, node_id, task, task_id};
use crate::{Dispatcher, NODE_DOWN_PERIOD, SessionExtras};

const PERIOD: Duration = Duration::from_secs(5);

fn rig() -> Rig {
    Rig::new(vec![node("n", NodeState::Down)])
}

/// A term with one node that is DOWN since `rig.now` and has a task in each of these states.
fn lost_node(states: &[TaskState]) -> Rig {
    let mut rig = rig();
    let tasks: Vec<_> = states
        .iter()
        .map(|state| task(state.name(), "n", *state))
        .collect();
    rig.commit(|tx| {
        for task in tasks {
            tx.create(task).unwrap();
        }
    });
    rig
}

fn written_at(rig: &Rig) -> Timestamp {
    rig.view.node(&node_id("n")).unwrap().meta.updated_at
}

#[test]
fn tasks_of_a_lost_node_are_orphaned_after_a_day_and_not_before() {
    let mut rig = lost_node(&[
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Running,
        TaskState::Complete,
    ]);
    let lost_for = rig.now.saturating_since(written_at(&rig));
    rig.wait(NODE_DOWN_PERIOD - lost_for - MS);
    assert!(rig.dispatcher.poll_timeout().unwrap().at == rig.now.saturating_add(MS));
    rig.wait(MS);
    assert_eq!(rig.flush(), 2);
    let due = written_at(&rig).saturating_add(NODE_DOWN_PERIOD);
    let orphan = rig.view.task(&task_id("running")).unwrap();
    assert!(orphan.status().applied_at.unwrap() >= due);
    assert_eq!(orphan.status().applied_by, Some(node_id("leader")));
    assert_eq!(rig.task_state("assigned"), TaskState::Orphaned);
    assert_eq!(rig.task_state("running"), TaskState::Orphaned);
    assert_eq!(rig.task_state("pending"), TaskState::Pending);
    assert_eq!(rig.task_state("complete"), TaskState::Complete);
}

#[test]
fn the_orphan_timer_is_due_exactly_a_day_after_the_loss() {
    let mut rig = lost_node(&[TaskState::Running]);
    let wake = rig.dispatcher.poll_timeout().unwrap();
    assert_eq!(wake.why, "the tasks of a lost node are orphaned");
    assert_eq!(wake.at, written_at(&rig).saturating_add(NODE_DOWN_PERIOD));
    // A user's change of the node does not give it another day.
    let mut stored = rig.view.node(&node_id("n")).unwrap().as_ref().clone();
    Arc::make_mut(&mut stored.spec).availability = 2;
    rig.wait(NODE_DOWN_PERIOD / 2);
    rig.commit(|tx| tx.update(stored).unwrap());
    assert_eq!(rig.dispatcher.poll_timeout(), Some(wake));
}

#[test]
fn a_disconnected_node_is_a_lost_one() {
    let mut rig = lost_node(&[TaskState::Running]);
    let due = written_at(&rig).saturating_add(NODE_DOWN_PERIOD);
    let mut stored = rig.view.node(&node_id("n")).unwrap().as_ref().clone();
    stored.status.state = NodeState::Disconnected;
    rig.commit(|tx| tx.update(stored).unwrap());
    let wake = rig.dispatcher.poll_timeout().unwrap();
    assert_eq!(wake.at, due);
    rig.wait(NODE_DOWN_PERIOD);
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.task_state("running"), TaskState::Orphaned);
}

#[test]
fn a_new_leader_does_not_start_the_day_anew() {
    let mut rig = lost_node(&[TaskState::Running]);
    let due = written_at(&rig).saturating_add(NODE_DOWN_PERIOD);
    rig.wait(NODE_DOWN_PERIOD / 2);
    let new = || Dispatcher::new(rig.now, &rig.view, config(), SessionExtras::default());
    assert_eq!(new().poll_timeout().unwrap().at, due);
    // Nor does one that comes after the day is over wait any longer.
    rig.now = due;
    rig.dispatcher = Dispatcher::new(rig.now, &rig.view, config(), SessionExtras::default());
    rig.wait(Duration::ZERO);
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.task_state("running"), TaskState::Orphaned);
}

#[test]
fn an_edit_of_a_lost_node_does_not_start_the_day_anew_with_a_new_leader() {
    let mut rig = Rig::new(vec![node("n", NodeState::Ready)]);
    rig.commit(|tx| {
        tx.create(task("running", "n", TaskState::Running)).unwrap();
    });
    // It never comes back to this leader, so it is DOWN after its grace.
    let end = rig.now.saturating_add(Duration::from_secs(60));
    while rig.view.node(&node_id("n")).unwrap().status.state != NodeState::Down {
        assert!(rig.now < end, "{:?}", rig.view.node(&node_id("n")));
        rig.wait(Duration::from_secs(1));
        rig.flush();
    }
    let since = written_at(&rig);
    rig.wait(NODE_DOWN_PERIOD / 2);
    let mut stored = rig.view.node(&node_id("n")).unwrap().as_ref().clone();
    Arc::make_mut(&mut stored.spec).availability = 2;
    rig.commit(|tx| tx.update(stored).unwrap());
    assert!(written_at(&rig) > since);
    let new = Dispatcher::new(rig.now, &rig.view, config(), SessionExtras::default());
    let due = new.poll_timeout().unwrap().at;
    assert_eq!(due, since.saturating_add(NODE_DOWN_PERIOD));
}

#[test]
fn one_conflict_concerns_one_orphan_and_is_repeated() {
    let mut rig = rig();
    let names: Vec<String> = (0..450).map(|n| format!("t{n}")).collect();
    rig.commit(|tx| {
        for name in &names {
            tx.create(task(name, "n", TaskState::Running)).unwrap();
        }
    });
    rig.wait(NODE_DOWN_PERIOD + crate::UPDATE_BATCH_DELAY);
    rig.wait(crate::UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    assert_eq!(batch.sets.len(), 200);
    assert_eq!(rig.apply(&batch.sets, &[7]), 199);
    assert_eq!(rig.flush(), 251);
    for name in &names {
        assert_eq!(rig.task_state(name), TaskState::Orphaned, "{name}");
    }
}

#[test]
fn a_refused_orphan_is_repeated_although_nothing_else_changes() {
    let mut rig = lost_node(&[TaskState::Running]);
    rig.wait(NODE_DOWN_PERIOD);
    rig.wait(crate::UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    assert_eq!(rig.apply(&batch.sets, &[0]), 0);
    let batch = rig.transaction().unwrap();
    assert_eq!(rig.apply(&batch.sets, &[]), 1);
    assert_eq!(rig.task_state("running"), TaskState::Orphaned);
}

#[test]
fn a_node_that_comes_back_in_time_keeps_its_tasks() {
    let mut rig = lost_node(&[TaskState::Running]);
    rig.wait(NODE_DOWN_PERIOD / 2);
    let session = rig.registered("n").session.to_string();
    let end = rig.now.saturating_add(NODE_DOWN_PERIOD);
    while rig.now < end {
        rig.wait(PERIOD * 2);
        rig.heartbeat("n", &session).unwrap();
    }
    assert_eq!(rig.flush(), 0);
    assert_eq!(rig.task_state("running"), TaskState::Running);
}

#[test]
fn a_node_that_comes_back_before_its_orphans_are_written_keeps_its_tasks() {
    let mut rig = lost_node(&[TaskState::Running]);
    rig.wait(NODE_DOWN_PERIOD);
    // The day is over, and the batch has not gone out.
    rig.open("n", "").unwrap();
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.node_state("n"), NodeState::Ready);
    assert_eq!(rig.task_state("running"), TaskState::Running);
}

#[test]
fn a_task_that_reaches_an_overdue_node_late_is_orphaned_as_well() {
    let mut rig = lost_node(&[]);
    rig.wait(NODE_DOWN_PERIOD);
    assert_eq!(rig.flush(), 0);
    rig.commit(|tx| tx.create(task("late", "n", TaskState::Assigned)).unwrap());
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.task_state("late"), TaskState::Orphaned);
}
