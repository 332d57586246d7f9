//! What becomes of sessions and heartbeats when the leader changes.

use std::sync::Arc;
use std::time::Duration;

use swarm_types::{NodeState, SessionId};

use super::rig::{MIDDLE, MS, Rig, config, node, node_id};
use crate::{Code, DispatchError, Dispatcher, Pulses, SessionExtras};

const PERIOD: Duration = Duration::from_secs(5);
/// How long nodes have to come back (spec 5.3).
const GRACE: Duration = Duration::from_secs(30);

/// The heartbeats of the term before.
struct Former {
    pulses: Pulses,
    dispatcher: Dispatcher,
    session: String,
}

impl Former {
    fn beat(&self, rig: &Rig) -> Result<Duration, DispatchError> {
        let node = node_id("n");
        self.pulses
            .beat(rig.now, &node, &self.session, &mut || MIDDLE)
    }
}

/// A node in session, and then another leader, which has written it UNKNOWN and serves.
fn after_a_change(is_stopped: bool) -> (Rig, Former) {
    let mut rig = Rig::new(vec![node("n", NodeState::Down)]);
    let session = rig.registered("n").session.to_string();
    rig.heartbeat("n", &session).unwrap();
    let (view, extras) = (Arc::clone(&rig.view), SessionExtras::default());
    let next = Dispatcher::new(rig.now, &view, config(), extras);
    let mut dispatcher = std::mem::replace(&mut rig.dispatcher, next);
    let pulses = dispatcher.pulses().clone();
    if is_stopped {
        dispatcher.handle_stop(&view);
    }
    let former = Former {
        pulses,
        dispatcher,
        session,
    };
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.node_state("n"), NodeState::Unknown);
    rig.dispatcher.handle_serving(rig.now, &mut || MIDDLE);
    (rig, former)
}

#[test]
fn a_session_of_the_former_term_is_refused_and_does_not_come_back() {
    let (mut rig, former) = after_a_change(true);
    for _ in 0..3 {
        let refused = rig.heartbeat("n", &former.session).unwrap_err();
        assert_eq!(
            (refused.code, &*refused.message),
            (Code::NotFound, "node not registered")
        );
        assert_eq!(former.beat(&rig).unwrap_err().code, Code::Aborted);
        assert_eq!(rig.dispatcher.session_of(&node_id("n")), None);
        rig.wait(PERIOD);
    }
    assert_eq!(rig.node_state("n"), NodeState::Unknown);
    let next = rig.open("n", &former.session).unwrap().session;
    assert_ne!(next.to_string(), former.session);
    let refused = rig.heartbeat("n", &former.session).unwrap_err();
    assert_eq!(refused.message, "session invalid");
}

#[test]
fn heartbeats_that_are_refused_win_no_time() {
    let (mut rig, former) = after_a_change(true);
    let end = rig.now.saturating_add(GRACE);
    while rig.now < end.saturating_sub(PERIOD) {
        rig.wait(PERIOD / 2);
        assert!(rig.heartbeat("n", &former.session).is_err());
        assert_eq!(rig.transaction(), None);
    }
    rig.wait(end.saturating_since(rig.now) - MS);
    assert!(rig.heartbeat("n", &former.session).is_err());
    assert_eq!(rig.dispatcher.status().nodes_queued, 0);
    rig.wait(MS);
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.node_state("n"), NodeState::Down);
}

#[test]
fn a_node_that_comes_back_in_the_last_moment_has_three_periods_from_then_on() {
    let (mut rig, former) = after_a_change(true);
    rig.wait(GRACE - MS);
    rig.open("n", &former.session).unwrap();
    let registered_at = rig.now;
    rig.flush();
    assert_eq!(rig.node_state("n"), NodeState::Ready);
    let until = registered_at.saturating_add(PERIOD * 3);
    rig.wait(until.saturating_since(rig.now) - MS);
    assert!(rig.dispatcher.session_of(&node_id("n")).is_some());
    // Slots of the wheel are a tenth of a second wide.
    rig.wait(crate::expiry::SLOT);
    assert_eq!(rig.dispatcher.session_of(&node_id("n")), None);
    rig.flush();
    assert_eq!(rig.node_state("n"), NodeState::Down);
}

/// A leader that does not know yet that it is none answers for its own term: nothing of that
/// reaches the next one.
#[test]
fn a_heartbeat_to_the_former_leader_says_nothing_to_the_next_one() {
    let (mut rig, mut former) = after_a_change(false);
    let end = rig.now.saturating_add(GRACE);
    while rig.now < end {
        assert!(former.beat(&rig).is_ok());
        rig.wait(PERIOD);
        former.dispatcher.handle_timeout(rig.now);
        assert!(former.dispatcher.session_of(&node_id("n")).is_some());
    }
    rig.flush();
    assert_eq!(rig.node_state("n"), NodeState::Down);
}

#[test]
fn a_stopped_dispatcher_loses_nobody() {
    let (mut rig, mut former) = after_a_change(true);
    let view = Arc::clone(&rig.view);
    rig.wait(GRACE * 2);
    former.dispatcher.handle_timeout(rig.now);
    assert_eq!(former.dispatcher.poll_timeout(), None);
    assert_eq!(former.dispatcher.poll_transaction(&view, rig.now), None);
}

/// The same id in two terms, which only a broken source of ids gives.
#[test]
fn a_term_ends_its_own_sessions_only() {
    let (mut rig, former) = after_a_change(true);
    let session: SessionId = former.session.parse().unwrap();
    let node = node_id("n");
    let until = rig.now.saturating_add(PERIOD);
    rig.dispatcher.pulses().begin(&node, session, until);
    former.pulses.stop();
    former.pulses.end(&node);
    assert!(rig.heartbeat("n", &former.session).is_ok());
    assert_eq!(former.beat(&rig).unwrap_err().code, Code::Aborted);
}
