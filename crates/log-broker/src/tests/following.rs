//! Subscriptions that follow: they take in what comes, and never end by themselves.

use std::sync::Arc;

use swarm_types::TaskState;

use super::rig::{Rig, change, selector, task, task_id};
use crate::PUBLISH_DEADLINE;

#[test]
fn a_node_joins_when_a_task_is_assigned_to_it() {
    let mut rig = Rig::new(vec![task("t1", "", TaskState::Pending)]);
    rig.listen("n1");
    rig.listen("n2");
    let id = rig.subscribe(selector(&["web"], &[], &[]), true);
    assert_eq!(rig.take_told("n1"), "");
    rig.commit(|transaction| {
        change(transaction, task("t1", "n1", TaskState::Assigned));
    });
    assert_eq!(rig.take_told("n1"), "+");
    let publisher = rig.publish("n1", &id);
    // A second task on the same node is the agent's business.
    rig.commit(|transaction| {
        transaction
            .create(task("t2", "n1", TaskState::Assigned))
            .unwrap();
    });
    assert_eq!(
        (rig.take_told("n1"), rig.take_told("n2")),
        Default::default()
    );
    rig.end(publisher, Ok(()));
    rig.pass(100 * PUBLISH_DEADLINE);
    assert!(rig.ends.is_empty() && rig.notices.is_empty());
    rig.broker.handle_unsubscribe(&id);
    rig.flush();
    assert_eq!(rig.take_told("n1"), "-");
    rig.assert_nothing_left();
}

#[test]
fn tasks_of_other_services_change_nothing() {
    let mut other = task("t2", "n1", TaskState::Assigned);
    other.service_id = Some("db".parse().unwrap());
    let mut rig = Rig::new(vec![task("t1", "", TaskState::Pending)]);
    rig.listen("n1");
    rig.subscribe(selector(&["web"], &[], &[]), true);
    rig.commit(|transaction| transaction.create(other.clone()).unwrap());
    assert_eq!(rig.take_told("n1"), "");
    // With both services, it is one of ours.
    rig.subscribe(selector(&["web", "db"], &[], &[]), true);
    assert_eq!(rig.take_told("n1"), "+");
    rig.listen("n2");
    let mut second = task("t3", "n2", TaskState::Assigned);
    second.service_id.clone_from(&other.service_id);
    rig.commit(|transaction| transaction.create(second).unwrap());
    assert_eq!(rig.take_told("n2"), "+");
}

#[test]
fn a_follower_hears_of_nodes_that_are_not_there() {
    let mut rig = Rig::new(vec![task("t1", "n1", TaskState::Running)]);
    let id = rig.subscribe(selector(&["web"], &[], &[]), true);
    let texts = |rig: &mut Rig| -> Vec<String> {
        let notices = std::mem::take(&mut rig.notices);
        assert!(notices.iter().all(|(to, _)| *to == id));
        notices.into_iter().map(|(_, text)| text).collect()
    };
    assert_eq!(texts(&mut rig), ["node n1 is not available\n"]);
    // It is asked as soon as it is there, and missed again when it goes.
    rig.listen("n1");
    assert_eq!(rig.take_told("n1"), "+");
    rig.publish("n1", &id);
    rig.disconnect("n1");
    assert_eq!(texts(&mut rig), ["node n1 disconnected unexpectedly\n"]);
    rig.listen("n1");
    assert_eq!(rig.take_told("n1"), "+");
    rig.pass(100 * PUBLISH_DEADLINE);
    assert!(
        texts(&mut rig).is_empty(),
        "its tasks may have nothing to say"
    );
    let publisher = rig.publish("n1", &id);
    rig.end(publisher, Err("disk on fire"));
    assert_eq!(
        texts(&mut rig),
        ["node n1 stopped publishing: disk on fire\n"]
    );
    rig.disconnect("n1");
    assert!(texts(&mut rig).is_empty(), "that it is missing was said");
    assert!(rig.ends.is_empty());
}

#[test]
fn tasks_that_were_missed_are_found_after_a_lag() {
    let mut rig = Rig::new(vec![
        task("t1", "", TaskState::Pending),
        task("t2", "", TaskState::Pending),
    ]);
    rig.listen("n1");
    rig.subscribe(selector(&[], &[], &["t1", "t2"]), true);
    let mut transaction = rig.view.begin(rig.now);
    change(&mut transaction, task("t1", "n1", TaskState::Assigned));
    transaction
        .delete(swarm_types::Kind::Task, task_id("t2").as_id())
        .unwrap();
    rig.view = Arc::new(transaction.finish().0);
    let view = Arc::clone(&rig.view);
    rig.broker.handle_lag(rig.now, &view);
    rig.flush();
    assert_eq!(rig.take_told("n1"), "+");
}

#[test]
fn a_slow_listener_is_told_one_thing_at_a_time_and_nothing_of_what_is_over() {
    let mut rig = Rig::new(vec![task("t1", "n1", TaskState::Running)]);
    let listener = rig.broker.handle_listen(rig.now, "n1".parse().unwrap());
    let mut open = Vec::new();
    for _ in 0..3 {
        let request = swarm_api::v1::SubscribeLogsRequest {
            selector: Some(selector(&["web"], &[], &[])),
            options: Some(super::rig::options(true)),
        };
        let id = request_id(&mut rig, request, open.len());
        open.push(id);
    }
    let first = rig.broker.poll_output();
    assert!(matches!(first, Some(crate::Output::Tell { .. })));
    assert_eq!(rig.broker.poll_output(), None, "one message is under way");
    rig.broker.handle_unsubscribe(&open[1]);
    rig.broker.handle_sent(listener);
    rig.flush();
    assert_eq!(rig.told.len(), 1, "the second was over before it was told");
}

fn request_id(
    rig: &mut Rig,
    request: swarm_api::v1::SubscribeLogsRequest,
    number: usize,
) -> crate::SubscriptionId {
    struct One(u8);
    impl swarm_types::IdSource for One {
        fn next_id(&mut self) -> swarm_types::Id {
            swarm_types::Id::from_random([self.0; 17])
        }
    }
    let mut ids = One(u8::try_from(number).unwrap());
    rig.broker
        .handle_subscribe(rig.now, request, &rig.view, &mut ids)
        .unwrap()
}
