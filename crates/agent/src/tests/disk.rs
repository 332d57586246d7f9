//! A disk that does not take writes.

use std::time::Duration;

use swarm_executor::Operation;
use swarm_types::conditions::{self, Kind};
use swarm_types::{TaskState, Timestamp};
use v1::assignments_message::Type;

use super::rig::{Rig, id, put, remove, task};
use crate::{
    Call, NodeAction, PERSIST_RETRY_BASE, PERSIST_RETRY_MAX, RECORD_PATIENCE, REPORT_DELAY,
};
use swarm_api::v1;

const FULL: &str = "no space left on device";

impl Rig {
    /// Lets the write that is due fail.
    fn fail_write(&mut self) {
        let batch = self.agent.poll_persist().expect("a batch to write");
        self.agent
            .handle_persist_failed(self.now, batch.sequence, FULL);
    }

    /// Lets writes fail for longer than anybody waits.
    fn fail_for_long(&mut self) {
        let begun = self.now;
        self.fail_write();
        while self.now.saturating_since(begun) < RECORD_PATIENCE {
            self.wait(PERSIST_RETRY_MAX);
            self.fail_write();
        }
    }

    /// Answers the request to describe the node; whether there was one.
    fn is_asked_for_description(&mut self) -> bool {
        let mut is_asked = false;
        while let Some(action) = self.agent.poll_node_action() {
            is_asked |= action == NodeAction::Describe;
        }
        is_asked
    }

    fn described_disk(&mut self) -> Option<bool> {
        self.calls().into_iter().find_map(|call| match call {
            Call::OpenSession { description, .. } => {
                Some(conditions::has(&description, Kind::Disk))
            }
            Call::OpenAssignments { .. }
            | Call::ListenSubscriptions
            | Call::Heartbeat { .. }
            | Call::UpdateTaskStatus { .. }
            | Call::Close { .. } => None,
        })
    }

    /// The reports that go out now, without any write.
    fn reported_unwritten(&mut self) -> Vec<(String, i32, String)> {
        let mut found = Vec::new();
        for call in self.calls() {
            if let Call::UpdateTaskStatus { updates, .. } = call {
                for update in updates {
                    let status = update.status.unwrap();
                    found.push((update.task_id, status.state, status.err));
                }
            }
        }
        found
    }
}

fn assigned(rig: &mut Rig, tasks: &[&str]) {
    let changes = tasks
        .iter()
        .map(|name| put(&task(name, TaskState::Running)));
    rig.assign(Type::Complete, "", "1", changes.collect());
}

#[test]
fn a_task_that_cannot_be_recorded_is_given_back_with_the_cause() {
    let mut rig = Rig::connected();
    assigned(&mut rig, &["a"]);
    rig.fail_write();
    assert_eq!(rig.state("a"), TaskState::Preparing, "not at once");
    assert_eq!(rig.agent.poll_persist(), None, "there is a pause");
    rig.wait(PERSIST_RETRY_BASE);
    rig.fail_for_long();
    assert_eq!(rig.state("a"), TaskState::Rejected);
    rig.wait(REPORT_DELAY);
    let reported = rig.reported_unwritten();
    assert_eq!(reported.len(), 1, "{reported:?}");
    let (task, state, error) = &reported[0];
    assert_eq!(
        (&**task, *state),
        ("a", TaskState::Rejected.to_wire() as i32)
    );
    assert!(
        error.contains("cannot record") && error.contains(FULL),
        "{error}"
    );
    assert_eq!(rig.agent.poll_operation(rig.now), None);
    // The managers take it away; nothing of it is left, and nothing has to be written for that.
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    assert!(rig.agent.is_empty());
    rig.wait(PERSIST_RETRY_MAX);
    let probe = rig.agent.poll_persist().expect("a look at the disk");
    assert_eq!(probe.ops, []);
    rig.agent.handle_persisted(rig.now, probe.sequence);
    assert_eq!(rig.agent.poll_persist(), None);
}

#[test]
fn a_disk_that_is_full_for_a_moment_costs_no_task() {
    let mut rig = Rig::connected();
    assigned(&mut rig, &["a"]);
    rig.fail_write();
    rig.wait(PERSIST_RETRY_BASE);
    rig.pass(Operation::Prepare);
    rig.pass(Operation::Start);
    assert_eq!(rig.state("a"), TaskState::Running);
    rig.sync();
    assert_eq!(rig.disk[&id("a")].status, rig.status("a"));
}

#[test]
fn what_failed_is_written_with_what_came_meanwhile() {
    let mut rig = Rig::connected();
    assigned(&mut rig, &["a", "b"]);
    rig.fail_write();
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![
            put(&task("b", TaskState::Shutdown)),
            put(&task("c", TaskState::Running)),
        ],
    );
    rig.wait(PERSIST_RETRY_BASE);
    rig.sync();
    let stored: Vec<_> = rig
        .disk
        .values()
        .map(|own| own.task.desired_state())
        .collect();
    assert_eq!(
        stored,
        [TaskState::Running, TaskState::Shutdown, TaskState::Running]
    );
}

#[test]
fn the_node_says_so_in_its_description_and_takes_it_back() {
    let mut rig = Rig::connected();
    rig.is_asked_for_description();
    assigned(&mut rig, &["a"]);
    rig.fail_for_long();
    assert!(rig.is_asked_for_description());
    rig.describe("host");
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.described_disk(), Some(true));
    rig.hear("s2");
    rig.calls();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("b", TaskState::Running))],
    );
    rig.sync();
    rig.describe("host");
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.described_disk(), Some(false));
}

#[test]
fn a_full_disk_keeps_no_task_from_ending() {
    let mut rig = Rig::connected();
    assigned(&mut rig, &["a"]);
    rig.pass(Operation::Prepare);
    rig.pass(Operation::Start);
    rig.sync();
    let wait = rig.agent.poll_operation(rig.now).unwrap();
    assert_eq!(wait.operation, Operation::Wait);
    rig.wait(REPORT_DELAY);
    let [(report, _)] = &rig.reported()[..] else {
        panic!("one report");
    };
    rig.reply(crate::Reply::StatusesTaken(*report, Ok(())));
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![put(&task("a", TaskState::Shutdown))],
    );
    rig.fail_write();
    for expected in [Operation::Update, Operation::Shutdown] {
        let operation = rig.agent.poll_operation(rig.now).unwrap();
        assert_eq!(operation.operation, expected);
        rig.finish(&operation, &super::rig::ok());
    }
    rig.wait(REPORT_DELAY);
    let reported = rig.reported_unwritten();
    let states: Vec<i32> = reported.iter().map(|(_, state, _)| *state).collect();
    assert_eq!(states, [TaskState::Shutdown.to_wire() as i32]);
    rig.wait(PERSIST_RETRY_BASE);
    rig.sync();
    assert_eq!(rig.disk[&id("a")].status.state, TaskState::Shutdown);
}

#[test]
fn a_recorded_task_that_is_taken_away_goes_although_nothing_can_be_written() {
    let mut rig = Rig::connected();
    assigned(&mut rig, &["a"]);
    rig.pass(Operation::Prepare);
    rig.pass(Operation::Start);
    rig.sync();
    let wait = rig.agent.poll_operation(rig.now).unwrap();
    assert_eq!(wait.operation, Operation::Wait);
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    rig.fail_write();
    for expected in [Operation::Shutdown, Operation::Remove] {
        let operation = rig.agent.poll_operation(rig.now).unwrap();
        assert_eq!(operation.operation, expected);
        rig.finish(&operation, &super::rig::ok());
    }
    assert!(rig.agent.is_empty());
    assert!(rig.disk.contains_key(&id("a")), "until it can be deleted");
    rig.wait(PERSIST_RETRY_MAX);
    rig.sync();
    assert!(rig.disk.is_empty());
}

#[test]
fn a_stale_failure_changes_nothing() {
    let mut rig = Rig::connected();
    assigned(&mut rig, &["a"]);
    rig.sync();
    rig.agent
        .handle_persist_failed(Timestamp::from_millis(1_000_000_000), 1, FULL);
    rig.pass(Operation::Prepare);
}
