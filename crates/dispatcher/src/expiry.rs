//! When registered nodes are looked at: a wheel whose cost does not grow with nodes.
//!
//! A heartbeat moves a node's deadline, which `pulse` holds, and touches nothing here: a node stays
//! in its slot until the slot is due, and moves on then. So the wheel is touched about once in
//! three heartbeats, and there are as many slots as tenths of a second in the longest deadline,
//! however many nodes there are.
//!
//! Nobody tells the wheel of a heartbeat, so a node's slot must not be later than the earliest
//! deadline that one may set: [`Wheel::watch`] takes that as its second bound. Refuses to own what
//! it means to be late.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_types::{NodeId, Timestamp};

/// Deadlines are looked at in steps of this; a node is lost that much late at most.
pub(crate) const SLOT: Duration = Duration::from_millis(100);

/// A step of the wheel, counted from the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Slot(i64);

impl Slot {
    /// The first step at or after a deadline.
    fn of(at: Timestamp) -> Self {
        let step = i64::try_from(SLOT.as_nanos()).unwrap_or(i64::MAX);
        let nanos = at.as_nanos();
        let rest = nanos.rem_euclid(step);
        Self(nanos.div_euclid(step) + i64::from(rest > 0))
    }

    fn time(self) -> Timestamp {
        let step = i64::try_from(SLOT.as_nanos()).unwrap_or(i64::MAX);
        Timestamp::from_nanos(self.0.saturating_mul(step))
    }
}

/// Slots with the nodes to be looked at. A node that has moved to an earlier slot, or is not
/// registered any more, is still in its old one, where it does not count.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    slots: BTreeMap<Slot, Vec<NodeId>>,
}

impl Wheel {
    /// Has a node looked at when its deadline has come, or when the earliest one has that a
    /// heartbeat from now on may set.
    pub(crate) fn watch(
        &mut self,
        node: &NodeId,
        deadline: Timestamp,
        earliest: Timestamp,
    ) -> Slot {
        let slot = Slot::of(deadline.min(earliest));
        self.slots.entry(slot).or_default().push(node.clone());
        slot
    }

    /// Has a node looked at in time for an earlier deadline than before.
    pub(crate) fn hasten(&mut self, node: &NodeId, slot: &mut Slot, earliest: Timestamp) {
        if Slot::of(earliest) < *slot {
            *slot = self.watch(node, earliest, earliest);
        }
    }

    /// Takes the nodes of a slot that is due. Those which have moved to another one do not count.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Slot, Vec<NodeId>)> {
        let first = self.slots.first_entry()?;
        (first.key().time() <= now).then(|| first.remove_entry())
    }

    /// When a slot is due next.
    pub(crate) fn next(&self) -> Option<Timestamp> {
        self.slots.first_key_value().map(|(slot, _)| slot.time())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn nodes(due: Option<(Slot, Vec<NodeId>)>) -> Vec<String> {
        let nodes = due.map(|(_, nodes)| nodes).unwrap_or_default();
        nodes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_node_is_looked_at_in_the_first_step_from_its_deadline_on_and_not_before() {
        let mut wheel = Wheel::default();
        for (name, deadline) in [("a", 1_000), ("b", 1_001)] {
            wheel.watch(&name.parse().unwrap(), at(deadline), at(9_000));
        }
        assert_eq!(wheel.next(), Some(at(1_000)));
        assert!(wheel.pop_due(at(999)).is_none());
        assert_eq!(nodes(wheel.pop_due(at(1_000))), ["a"]);
        assert!(wheel.pop_due(at(1_099)).is_none());
        assert_eq!(nodes(wheel.pop_due(at(1_100))), ["b"]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_node_is_looked_at_before_a_heartbeat_can_make_it_late() {
        let mut wheel = Wheel::default();
        let node: NodeId = "n".parse().unwrap();
        let mut slot = wheel.watch(&node, at(16_500), at(13_500));
        assert_eq!(wheel.next(), Some(at(13_500)));
        // A later bound changes nothing, an earlier one does.
        wheel.hasten(&node, &mut slot, at(14_000));
        assert_eq!(slot, Slot::of(at(13_500)));
        wheel.hasten(&node, &mut slot, at(3_000));
        assert_eq!(slot, Slot::of(at(3_000)));
        assert_eq!(nodes(wheel.pop_due(at(3_000))), ["n"]);
        let (left, _) = wheel.pop_due(at(13_500)).unwrap();
        assert_ne!(left, slot, "what is left behind does not count");
    }
}
