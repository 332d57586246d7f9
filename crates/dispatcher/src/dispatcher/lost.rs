//! Which nodes are lost: those that missed their heartbeats, and those that did not come back to a
//! new leader.

use swarm_types::{NodeId, Timestamp};

use super::Dispatcher;
use crate::config::period_min;
use crate::error::DispatchError;
use crate::expiry::Slot;
use crate::nodes::{HEARTBEAT_FAILURE, NodeIntent, UNKNOWN_HEARTBEAT_FAILURE};
use crate::pulse::{Look, deadline};

impl Dispatcher {
    /// The earliest deadline that a heartbeat from now on may set.
    pub(super) fn deadline_min(&self, now: Timestamp) -> Timestamp {
        deadline(now, period_min(self.pulses.period()))
    }

    /// Looks whether a node has missed its heartbeats. One that has not is looked at again later.
    pub(super) fn look(&mut self, now: Timestamp, due: Slot, node: &NodeId) {
        let earliest = self.deadline_min(now);
        let Some(session) = self.sessions.get_mut(node).filter(|own| own.slot == due) else {
            return;
        };
        match session.pulse.look(now) {
            Look::Late => self.lose(now, node),
            Look::Alive(until) => session.slot = self.wheel.watch(node, until, earliest),
        }
    }

    /// Ends a registration.
    pub(super) fn unregister(&mut self, node: &NodeId) {
        self.end_streams(node, &DispatchError::node_not_registered());
        self.sessions.remove(node);
        self.pulses.end(node);
        self.registrations.clear(node);
    }

    fn lose(&mut self, now: Timestamp, node: &NodeId) {
        self.unregister(node);
        let message = HEARTBEAT_FAILURE;
        self.intake
            .put_node(now, node.clone(), NodeIntent::Down { message });
    }

    pub(super) fn give_up(&mut self, now: Timestamp, node: NodeId) {
        self.awaited.remove(&node);
        let message = UNKNOWN_HEARTBEAT_FAILURE;
        self.intake
            .put_node(now, node, NodeIntent::Down { message });
    }
}
