//! A manager that stood still takes nobody for lost because of that.

use std::time::Duration;

use swarm_types::NodeState;

use super::rig::{MS, Rig, node};
use crate::expiry::SLOT;
use crate::{NODE_BATCH_DELAY, PARDONS_MAX, STANDSTILL_MIN};

const PERIOD: Duration = Duration::from_secs(5);
/// From a standstill on a node has three of the longest periods.
const PARDON: Duration = Duration::from_millis(3 * 5_500);

/// A manager with two nodes in session, which have just been heard.
fn rig() -> (Rig, [String; 2]) {
    let nodes = vec![node("a", NodeState::Down), node("b", NodeState::Down)];
    let mut rig = Rig::new(nodes);
    let sessions = ["a", "b"].map(|name| {
        let session = rig.registered(name).session.to_string();
        rig.heartbeat(name, &session).unwrap();
        session
    });
    (rig, sessions)
}

fn lost(rig: &mut Rig) -> usize {
    let ended = rig.ends();
    assert!(ended.iter().all(|why| why == "node not registered"));
    ended.len()
}

#[test]
fn a_node_whose_heartbeat_waits_unread_when_the_manager_goes_on_is_not_lost() {
    let (mut rig, [session, _]) = rig();
    rig.wait(PERIOD);
    rig.stand_still(PERIOD * 4);
    assert_eq!(rig.dispatcher.poll_standstill(), Some(PERIOD * 3));
    assert_eq!(rig.dispatcher.poll_standstill(), None, "it is told once");
    assert_eq!(lost(&mut rig), 0);
    rig.heartbeat("a", &session).unwrap();
    // The other one is gone, and that is noticed.
    rig.wait(PARDON / 2);
    rig.heartbeat("a", &session).unwrap();
    rig.wait(PARDON / 2 - MS);
    assert_eq!(lost(&mut rig), 0);
    rig.wait(SLOT);
    assert_eq!(lost(&mut rig), 1);
    rig.flush();
    assert_eq!(rig.node_state("a"), NodeState::Ready);
    assert_eq!(rig.node_state("b"), NodeState::Down);
}

#[test]
fn a_standstill_counts_although_no_deadline_passed_in_it() {
    let (mut rig, _) = rig();
    // The wheel looks at the nodes after thirteen and a half seconds.
    rig.stand_still(PERIOD * 5 / 2);
    rig.wait(PERIOD * 3 - MS);
    assert_eq!(lost(&mut rig), 0);
    rig.wait(PERIOD);
    assert_eq!(lost(&mut rig), 2);
}

#[test]
fn a_call_that_is_a_little_late_is_no_standstill() {
    for (late, is_one) in [(STANDSTILL_MIN - MS, false), (STANDSTILL_MIN, true)] {
        let (mut rig, _) = rig();
        rig.wait(PERIOD * 2);
        let due = rig.dispatcher.poll_timeout().unwrap().at;
        rig.stand_still(due.saturating_since(rig.now) + late);
        assert_eq!(
            rig.dispatcher.poll_standstill().is_some(),
            is_one,
            "{late:?}"
        );
    }
}

#[test]
fn a_manager_that_always_stands_still_notices_in_the_end_who_is_gone() {
    let (mut rig, [session, _]) = rig();
    for round in 0..PARDONS_MAX {
        rig.stand_still(PERIOD * 4);
        assert_eq!(lost(&mut rig), 0, "{round}");
        if round + 1 < PARDONS_MAX {
            rig.heartbeat("a", &session).unwrap();
        }
    }
    rig.stand_still(PERIOD * 4);
    assert_eq!(lost(&mut rig), 1, "the one that was never heard");
    rig.heartbeat("a", &session).unwrap();
}

#[test]
fn nodes_that_are_to_come_back_to_a_new_leader_have_their_whole_time_after_a_standstill() {
    let mut rig = Rig::new(vec![node("a", NodeState::Ready)]);
    for round in 0..PARDONS_MAX {
        rig.stand_still(PERIOD * 10);
        rig.wait(PERIOD * 6);
        rig.flush();
        assert_eq!(rig.node_state("a"), NodeState::Unknown, "{round}");
    }
    rig.stand_still(PERIOD * 10);
    rig.flush();
    assert_eq!(rig.node_state("a"), NodeState::Down);
    rig.registered("a");
}

#[test]
fn a_registration_that_was_written_while_the_manager_stood_still_counts() {
    let mut rig = Rig::new(vec![node("a", NodeState::Down)]);
    rig.open("a", "").unwrap();
    rig.wait(NODE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    // The commit is known only when the dispatcher was called.
    rig.stand_still(PERIOD * 4);
    rig.apply(&batch.sets, &[]);
    assert_eq!(rig.ends(), Vec::<String>::new());
    assert_eq!(rig.node_state("a"), NodeState::Ready);
}

#[test]
fn nobody_is_called_for_a_standstill_when_there_are_no_nodes() {
    let rig = Rig::new(Vec::new());
    assert_eq!(rig.dispatcher.poll_timeout(), None);
}
