//! Subscriptions that do not follow: they end, always, and say what is missing.

use std::time::Duration;

use swarm_types::TaskState;

use super::rig::{Rig, selector, task};
use crate::PUBLISH_DEADLINE;

fn two_nodes() -> Rig {
    let mut rig = Rig::new(vec![
        task("t1", "n1", TaskState::Running),
        task("t2", "n2", TaskState::Complete),
        task("t3", "n3", TaskState::Starting),
        task("t4", "", TaskState::Pending),
    ]);
    for node in ["n1", "n2", "n3"] {
        rig.listen(node);
    }
    rig
}

#[test]
fn it_ends_when_every_node_with_a_task_that_ran_has_closed() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    assert_eq!(rig.take_told("n3"), "", "its task has not run yet");
    let first = rig.publish("n1", &id);
    let second = rig.publish("n2", &id);
    rig.end(first, Ok(()));
    assert_eq!(rig.verdict(&id), None);
    rig.end(second, Ok(()));
    assert_eq!(rig.verdict(&id).unwrap(), "");
    assert_eq!(
        (rig.take_told("n1"), rig.take_told("n2")),
        ("+".to_owned(), "+".to_owned()),
        "nodes that closed by themselves need no word"
    );
    rig.assert_nothing_left();
}

#[test]
fn several_services_are_one_subscription_on_the_nodes_of_each() {
    let mut of_db = task("d1", "n2", TaskState::Running);
    of_db.service_id = Some("db".parse().unwrap());
    let mut of_other = task("o1", "n3", TaskState::Running);
    of_other.service_id = Some("other".parse().unwrap());
    let web = task("t1", "n1", TaskState::Running);
    let mut rig = Rig::new(vec![web, of_db, of_other]);
    // The third service is on a node that is not there, and nobody misses it.
    for node in ["n1", "n2"] {
        rig.listen(node);
    }
    let id = rig.subscribe(selector(&["web", "db"], &[], &[]), false);
    let first = rig.publish("n1", &id);
    rig.end(first, Ok(()));
    assert_eq!(rig.verdict(&id), None, "the other service is still heard");
    let second = rig.publish("n2", &id);
    rig.end(second, Ok(()));
    assert_eq!(rig.verdict(&id).unwrap(), "");
    rig.assert_nothing_left();
}

#[test]
fn it_ends_at_once_when_nothing_has_run() {
    let mut rig = Rig::new(vec![task("t1", "", TaskState::Pending)]);
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    assert_eq!(rig.verdict(&id).unwrap(), "");
    rig.assert_nothing_left();
}

#[test]
fn a_node_that_does_not_listen_is_named_and_waited_for_by_nobody() {
    let mut rig = two_nodes();
    rig.disconnect("n1");
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    assert_eq!(rig.verdict(&id), None, "the other node is still heard");
    let second = rig.publish("n2", &id);
    rig.end(second, Ok(()));
    assert_eq!(rig.verdict(&id).unwrap(), "node n1 is not available");
}

#[test]
fn nodes_named_by_id_are_counted_like_others() {
    // The Go leader panics here.
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&[], &["n1", "gone"], &[]), false);
    assert_eq!(rig.verdict(&id), None);
    let first = rig.publish("n1", &id);
    rig.end(first, Ok(()));
    assert_eq!(rig.verdict(&id).unwrap(), "node gone is not available");
    rig.assert_nothing_left();
}

#[test]
fn a_task_named_by_id_that_has_no_node_is_missing() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&[], &[], &["t4", "t1"]), false);
    let first = rig.publish("n1", &id);
    rig.end(first, Ok(()));
    assert_eq!(rig.verdict(&id).unwrap(), "task t4 has not been scheduled");
}

#[test]
fn a_node_that_goes_away_in_the_middle_is_named() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    let publisher = rig.publish("n1", &id);
    let second = rig.publish("n2", &id);
    rig.end(second, Ok(()));
    rig.disconnect("n2");
    rig.disconnect("n1");
    assert_eq!(
        rig.verdict(&id).unwrap(),
        "node n1 disconnected unexpectedly",
        "the other node had ended its part before"
    );
    // The end of its stream is noticed later and changes nothing.
    rig.end(publisher, Err("broken pipe"));
    assert_eq!(rig.ends.len(), 1);
    rig.assert_nothing_left();
}

#[test]
fn a_stream_that_breaks_is_named_with_the_reason() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    let first = rig.publish("n1", &id);
    let second = rig.publish("n2", &id);
    rig.end(first, Err("broken pipe"));
    rig.end(second, Ok(()));
    assert_eq!(
        rig.verdict(&id).unwrap(),
        "node n1 stopped publishing: broken pipe"
    );
    assert_eq!(rig.take_told("n1"), "+-");
}

#[test]
fn a_node_that_listens_and_never_publishes_ends_by_its_deadline() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    let second = rig.publish("n2", &id);
    rig.pass(PUBLISH_DEADLINE - Duration::from_millis(1));
    rig.end(second, Ok(()));
    assert_eq!(rig.verdict(&id), None);
    assert_eq!(
        rig.broker.poll_timeout(),
        Some(rig.now.saturating_add(Duration::from_millis(1)))
    );
    rig.pass(Duration::from_millis(1));
    assert_eq!(
        rig.verdict(&id).unwrap(),
        "node n1 did not begin to publish within 10 s"
    );
    assert_eq!(rig.take_told("n1"), "+-");
    rig.assert_nothing_left();
    let late = rig.try_publish("n1", &id).unwrap_err();
    assert_eq!(late.message, "unknown subscription ID");
}

#[test]
fn a_node_may_publish_for_as_long_as_it_likes() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&[], &["n1"], &[]), false);
    let first = rig.publish("n1", &id);
    rig.pass(100 * PUBLISH_DEADLINE);
    rig.end(first, Ok(()));
    assert_eq!(rig.verdict(&id).unwrap(), "");
}

#[test]
fn a_client_that_goes_away_ends_the_work_of_the_nodes() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    rig.publish("n1", &id);
    rig.broker.handle_unsubscribe(&id);
    rig.flush();
    assert_eq!(rig.take_told("n1"), "+-");
    assert_eq!(rig.take_told("n2"), "+-");
    assert!(rig.ends.is_empty(), "nobody is there to be told");
    rig.assert_nothing_left();
}

#[test]
fn many_reasons_are_counted_rather_than_listed() {
    let mut rig = Rig::new(Vec::new());
    let nodes: Vec<String> = (100..125).map(|n| format!("n{n}")).collect();
    let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
    let id = rig.subscribe(selector(&[], &nodes, &[]), false);
    let verdict = rig.verdict(&id).unwrap();
    assert!(
        verdict.ends_with("node n119 is not available, 5 more"),
        "{verdict}"
    );
}

#[test]
fn a_node_that_was_cut_off_for_a_moment_goes_on_but_what_was_under_way_is_missing() {
    let mut rig = two_nodes();
    let id = rig.subscribe(selector(&[], &["n1"], &[]), false);
    let broken = rig.publish("n1", &id);
    // It is back before the manager noticed that it was away.
    let before = rig.listeners["n1"];
    rig.listen("n1");
    assert_eq!(rig.replaced, [before]);
    let again = rig.publish("n1", &id);
    rig.end(broken, Err("broken pipe"));
    rig.broker.handle_listener_closed(before);
    assert_eq!(rig.verdict(&id), None);
    rig.end(again, Ok(()));
    assert_eq!(
        rig.verdict(&id).unwrap(),
        "node n1 began to publish anew, lines may be missing"
    );
}
