//! Tasks, statuses and descriptions that are too large, nodes that report too much, and nodes that
//! were removed with more tasks than fit one transaction.

use std::time::Duration;

use swarm_api::v1;
use swarm_store::{ENTRY_BYTES_MAX, SET_BYTES_MAX, TRANSACTION_BYTES_MAX, Write};
use swarm_types::{Kind, LEFT_BEHIND, NodeState, Task, TaskState, TaskStatus, Timestamp, convert};
use v1::update_task_status_request::TaskStatusUpdate;

use super::rig::{Rig, config, node, node_id, task, task_id};
use crate::{
    Code, Dispatcher, RATE_LIMIT_COUNT, RATE_LIMIT_PERIOD, REFRESH_BURST_BYTES,
    REFRESH_BYTES_PER_SECOND, SessionExtras, SessionOpen, UPDATE_BATCH_DELAY,
};

/// A task of so many bytes.
fn large(name: &str, node: &str, bytes: usize) -> Task {
    let mut task = task(name, node, TaskState::Assigned);
    task.annotations = Some(Box::new(v1::Annotations {
        name: "x".repeat(bytes),
        ..Default::default()
    }));
    task
}

fn rig(tasks: Vec<Task>) -> (Rig, String) {
    let mut rig = Rig::new(vec![node("n", NodeState::Down)]);
    let session = rig.registered("n").session.to_string();
    rig.commit(|tx| {
        for task in tasks {
            tx.create(task).unwrap();
        }
    });
    (rig, session)
}

fn report(rig: &mut Rig, session: &str, name: &str, state: TaskState, message: &str) {
    let status = TaskStatus::new(state, Timestamp::from_millis(5), message.to_owned());
    let updates = vec![TaskStatusUpdate {
        task_id: name.into(),
        status: Some(convert::task_status_to_wire(&status)),
    }];
    rig.dispatcher
        .handle_task_statuses(rig.now, &node_id("n"), session, updates, &rig.view)
        .unwrap();
}

/// Lets seconds pass in which the node is heard.
fn stay(rig: &mut Rig, session: &str, seconds: u64) {
    for _ in 0..seconds {
        rig.heartbeat("n", session).unwrap();
        rig.wait(Duration::from_secs(1));
    }
}

/// Commits everything, and checks that each batch fits.
fn flush(rig: &mut Rig) -> Vec<usize> {
    rig.wait(UPDATE_BATCH_DELAY);
    let mut batches = Vec::new();
    while let Some(batch) = rig.transaction() {
        let writes = batch.sets.iter().flat_map(|set| &set.0);
        let bytes: usize = writes.map(Write::bytes).sum();
        let is_alone = batch.sets.len() == 1 && bytes <= SET_BYTES_MAX;
        assert!(bytes <= TRANSACTION_BYTES_MAX || is_alone, "{bytes} bytes");
        batches.push(rig.apply(&batch.sets, &[]));
        assert!(batches.len() < 100, "it never ends: {batches:?}");
    }
    batches
}

#[test]
fn statuses_of_large_tasks_are_packed_with_the_one_that_is_added() {
    let names: Vec<String> = (0..12).map(|number| format!("t{number}")).collect();
    let tasks = names.iter().map(|name| large(name, "n", 524_000)).collect();
    let (mut rig, session) = rig(tasks);
    for name in &names {
        report(&mut rig, &session, name, TaskState::Running, "started");
    }
    assert_eq!(flush(&mut rig), [2, 2, 2, 2, 2, 2]);
    assert!(
        names
            .iter()
            .all(|name| rig.task_state(name) == TaskState::Running)
    );
}

#[test]
fn a_task_that_no_entry_holds_is_given_up_and_the_others_go_on() {
    let huge = large("b-huge", "n", ENTRY_BYTES_MAX);
    let (mut rig, session) = rig(vec![
        task("a", "n", TaskState::Assigned),
        huge,
        task("c", "n", TaskState::Assigned),
    ]);
    for name in ["a", "b-huge", "c"] {
        report(&mut rig, &session, name, TaskState::Running, "started");
    }
    assert_eq!(flush(&mut rig), [2]);
    assert_eq!(rig.task_state("c"), TaskState::Running);
    let notices = rig.dispatcher.take_notices();
    assert_eq!(notices.oversize.len(), 1);
    let given_up = &notices.oversize[0];
    assert_eq!(
        (given_up.kind, given_up.id.to_string()),
        (Kind::Task, "b-huge".to_owned())
    );
    assert!(given_up.bytes > ENTRY_BYTES_MAX);
    // Never again by itself.
    assert_eq!(rig.dispatcher.status().statuses_queued, 0);
    stay(&mut rig, &session, 60);
    assert_eq!(rig.transaction(), None);
    assert!(rig.dispatcher.take_notices().oversize.is_empty());
}

#[test]
fn a_task_with_room_for_its_state_alone_gets_that() {
    let (mut rig, session) = rig(vec![large("t", "n", SET_BYTES_MAX - 4_000)]);
    let long = "m".repeat(6_000);
    report(&mut rig, &session, "t", TaskState::Failed, &long);
    assert_eq!(flush(&mut rig), [1]);
    let stored = rig.view.task(&task_id("t")).unwrap();
    assert_eq!(stored.state(), TaskState::Failed);
    assert!(stored.status().message.len() < 100);
    assert!(rig.dispatcher.take_notices().oversize.is_empty());
}

#[test]
fn a_status_is_cut_at_the_door_and_counted() {
    let (mut rig, session) = rig(vec![task("t", "n", TaskState::Assigned)]);
    let long = "m".repeat(2_000_000);
    report(&mut rig, &session, "t", TaskState::Running, &long);
    let notices = rig.dispatcher.take_notices();
    assert_eq!((notices.cuts_count, notices.cuts.len()), (1, 1));
    assert_eq!(
        notices.cuts[0].to_string(),
        "node n reports of task t a message of 2000000 bytes, of which at most 8192 are kept"
    );
    assert_eq!(flush(&mut rig), [1]);
    assert_eq!(rig.task_state("t"), TaskState::Running);
}

#[test]
fn a_node_that_reports_the_same_state_again_and_again_is_slowed_and_its_steps_are_not() {
    let bytes = 100_000;
    let tasks = ["flood", "other"].map(|name| large(name, "n", bytes));
    let (mut rig, session) = rig(tasks.into());
    report(&mut rig, &session, "flood", TaskState::Running, "started");
    flush(&mut rig);
    let mut written = 0;
    let seconds = 60;
    for round in 0..seconds * 5 {
        rig.heartbeat("n", &session).unwrap();
        let text = format!("round {round}");
        report(&mut rig, &session, "flood", TaskState::Running, &text);
        rig.wait(Duration::from_millis(100));
        written += flush(&mut rig).iter().sum::<usize>();
    }
    let paid = REFRESH_BURST_BYTES + seconds * REFRESH_BYTES_PER_SECOND;
    let most = usize::try_from(paid).unwrap() / bytes + 2;
    assert!(
        written > 2 && written <= most,
        "{written} of at most {most}"
    );
    // Another state does not wait, whatever was reported before.
    report(&mut rig, &session, "other", TaskState::Running, "started");
    report(
        &mut rig,
        &session,
        "flood",
        TaskState::Failed,
        "it fell over",
    );
    flush(&mut rig);
    assert_eq!(rig.task_state("other"), TaskState::Running);
    assert_eq!(rig.task_state("flood"), TaskState::Failed);
    // What waited comes out in the end, and nothing is left.
    report(
        &mut rig,
        &session,
        "other",
        TaskState::Running,
        "the last word",
    );
    stay(&mut rig, &session, 60);
    flush(&mut rig);
    let stored = rig.view.task(&task_id("other")).unwrap();
    assert_eq!(stored.status().message.as_str(), "the last word");
    assert_eq!(rig.dispatcher.status().statuses_queued, 0);
}

fn describe(rig: &mut Rig, session: &str, hostname: String) -> Result<(), crate::DispatchError> {
    let open = SessionOpen {
        node: &node_id("n"),
        description: Some(v1::NodeDescription {
            hostname,
            ..Default::default()
        }),
        addr: "10.0.0.1",
        arrived: "",
        previous_session: session,
    };
    let draw = &mut || super::rig::MIDDLE;
    rig.dispatcher
        .handle_session(rig.now, open, &rig.view, &mut rig.ids, draw)
        .map(drop)
}

#[test]
fn a_description_that_is_too_large_is_refused_with_the_part() {
    let (mut rig, _) = rig(vec![]);
    let error = describe(&mut rig, "", "x".repeat(1_600_000)).unwrap_err();
    assert_eq!(error.code, Code::ResourceExhausted);
    assert_eq!(
        error.message,
        "node n describes itself with 1600000 bytes of host name, at most 255 are taken; make the \
         node say less, then let it try again"
    );
}

#[test]
fn a_node_that_describes_itself_anew_all_the_time_is_told_to_wait() {
    let (mut rig, session) = rig(vec![]);
    for round in 0..RATE_LIMIT_COUNT {
        describe(&mut rig, &session, format!("name-{round}")).unwrap();
    }
    let error = describe(&mut rig, &session, "one-more".to_owned()).unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    // Who says nothing new costs nothing.
    let last = format!("name-{}", RATE_LIMIT_COUNT - 1);
    describe(&mut rig, &session, last).unwrap();
    rig.heartbeat("n", &session).unwrap();
    rig.wait(RATE_LIMIT_PERIOD / 2);
    rig.heartbeat("n", &session).unwrap();
    rig.wait(RATE_LIMIT_PERIOD / 2 + Duration::from_millis(1));
    describe(&mut rig, &session, "later".to_owned()).unwrap();
}

/// A store with 1,000 tasks on a node that is gone.
fn left_behind() -> Rig {
    let (mut rig, _) = rig(vec![task("done", "n", TaskState::Complete)]);
    rig.commit(|tx| {
        for number in 0..1_000 {
            tx.create(task(&format!("t{number}"), "n", TaskState::Running))
                .unwrap();
        }
        let id = node_id("n");
        tx.delete(Kind::Node, id.as_id()).unwrap();
    });
    rig
}

fn check_orphaned(rig: &Rig) {
    for task in rig
        .view
        .all::<Task>()
        .filter(|task| task.id != task_id("done"))
    {
        assert_eq!(task.state(), TaskState::Orphaned, "{}", task.id);
        assert_eq!(task.status().message.as_str(), LEFT_BEHIND);
    }
    assert_eq!(rig.task_state("done"), TaskState::Complete);
}

#[test]
fn tasks_that_a_removed_node_left_are_orphaned_in_pieces() {
    let mut rig = left_behind();
    assert_eq!(flush(&mut rig), [200, 200, 200, 200, 200]);
    check_orphaned(&rig);
}

#[test]
fn a_new_leader_goes_on_with_what_a_removed_node_left() {
    let mut rig = left_behind();
    let extras = SessionExtras::default();
    rig.dispatcher = Dispatcher::new(rig.now, &rig.view, config(), extras);
    rig.dispatcher
        .handle_serving(rig.now, &mut || super::rig::MIDDLE);
    rig.wait(UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    // One is lost to somebody else's write, and looked at again.
    rig.apply(&batch.sets, &[7]);
    flush(&mut rig);
    check_orphaned(&rig);
    assert_eq!(rig.transaction(), None);
}
