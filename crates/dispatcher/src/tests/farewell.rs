//! What a node hears when it is removed.

use swarm_types::{Kind, NodeState, TaskState};

use super::assignments::{open, rig, texts};
use super::rig::{MS, Rig, node, node_id};
use crate::{Code, FAREWELL_TIMEOUT};

const REMOVED: &str = "Permission denied: node n was removed from swarm";

fn remove(rig: &mut Rig) {
    rig.commit(|tx| tx.delete(Kind::Node, node_id("n").as_id()).unwrap());
}

fn ends() -> Vec<String> {
    vec![format!("end {REMOVED}"); 2]
}

#[test]
fn a_removed_node_is_told_to_drop_its_tasks_before_its_streams_end() {
    let mut rig = rig(&[("a", TaskState::Running), ("b", TaskState::Assigned)]);
    remove(&mut rig);
    assert_eq!(texts(&mut rig), ["incremental 1>2 -a -b"]);
    rig.wait(FAREWELL_TIMEOUT - MS);
    assert_eq!(texts(&mut rig), Vec::<String>::new(), "it reads");
    rig.wait(MS);
    assert_eq!(texts(&mut rig), ends());
    let status = rig.dispatcher.status();
    assert_eq!((status.sessions, status.streams), (0, 0));
    let beat = rig.heartbeat("n", "").unwrap_err();
    assert_eq!(beat.code, Code::NotFound);
}

#[test]
fn a_node_that_was_told_nothing_yet_hears_that_it_has_nothing() {
    let mut rig = Rig::new(vec![node("n", NodeState::Down)]);
    rig.registered("n");
    open(&mut rig);
    remove(&mut rig);
    assert_eq!(texts(&mut rig), ["complete >1"]);
    rig.wait(FAREWELL_TIMEOUT);
    assert_eq!(texts(&mut rig), ends());
}

#[test]
fn a_message_that_is_under_way_comes_first() {
    let mut rig = rig(&[("a", TaskState::Running)]);
    let session = rig
        .dispatcher
        .session_of(&node_id("n"))
        .unwrap()
        .to_string();
    let stream = rig
        .dispatcher
        .handle_assignments_open(&node_id("n"), &session)
        .unwrap();
    let mut polled = || rig.dispatcher.poll_message(&rig.view);
    assert!(polled().is_some(), "the end of the stream before it");
    assert!(polled().is_some(), "the complete message");
    remove(&mut rig);
    assert_eq!(rig.dispatcher.poll_message(&rig.view), None);
    rig.dispatcher.handle_sent(stream);
    assert_eq!(texts(&mut rig), ["incremental 1>2 -a"]);
}

#[test]
fn who_does_not_listen_or_hangs_up_leaves_nothing_behind() {
    let mut rig = rig(&[("a", TaskState::Running)]);
    let session = rig
        .dispatcher
        .session_of(&node_id("n"))
        .unwrap()
        .to_string();
    let stream = rig
        .dispatcher
        .handle_assignments_open(&node_id("n"), &session)
        .unwrap();
    drop(rig.messages());
    remove(&mut rig);
    rig.dispatcher.handle_disconnect(stream);
    assert_eq!(texts(&mut rig), [format!("end {REMOVED}")]);
    assert_eq!(rig.dispatcher.status().streams, 0);

    let mut rig = Rig::new(vec![node("n", NodeState::Down)]);
    rig.registered("n");
    remove(&mut rig);
    assert_eq!(texts(&mut rig), [format!("end {REMOVED}")]);
    assert_eq!(rig.dispatcher.status().streams, 0);
}

#[test]
fn the_end_of_a_term_does_not_wait_for_farewells() {
    let mut rig = rig(&[("a", TaskState::Running)]);
    remove(&mut rig);
    rig.dispatcher.handle_stop(&rig.view);
    assert_eq!(texts(&mut rig), ends());
}
