//! When registered nodes miss their heartbeats: a wheel whose cost does not grow with nodes.
//!
//! A heartbeat moves a node's deadline, which the session holds, and touches nothing here: a node
//! stays in its slot until the slot is due, and moves on to that of its deadline then. So the wheel
//! is touched about once in three heartbeats, and there are as many slots as tenths of a second in
//! the longest deadline, however many nodes there are. Refuses to own what it means to be late.

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

/// A node's deadline, and where the wheel has the node.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    at: Timestamp,
    slot: Slot,
}

/// Slots with the nodes to be looked at. A node that has moved to an earlier slot, or is not
/// registered any more, is still in its old one, where it does not count.
#[derive(Debug, Default)]
pub(crate) struct Wheel {
    slots: BTreeMap<Slot, Vec<NodeId>>,
}

impl Wheel {
    /// Sets the deadline of a node which had none.
    pub(crate) fn watch(&mut self, node: &NodeId, at: Timestamp) -> Expiry {
        let slot = Slot::of(at);
        self.slots.entry(slot).or_default().push(node.clone());
        Expiry { at, slot }
    }

    /// Moves the deadline of a node.
    pub(crate) fn renew(&mut self, node: &NodeId, expiry: &mut Expiry, at: Timestamp) {
        // Only an earlier deadline needs another slot. It cannot become earlier without end: every
        // such move is to a slot before the one that the node was in.
        if Slot::of(at) < expiry.slot {
            *expiry = self.watch(node, at);
        }
        expiry.at = at;
    }

    /// Takes the nodes of a slot that is due. Each has to be [`Wheel::check`]ed.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<(Slot, Vec<NodeId>)> {
        let first = self.slots.first_entry()?;
        (first.key().time() <= now).then(|| first.remove_entry())
    }

    /// Whether a node that was in a slot which is due has missed its deadline. One that has not
    /// moves on.
    pub(crate) fn check(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        due: Slot,
        expiry: &mut Expiry,
    ) -> bool {
        if expiry.slot != due {
            return false;
        }
        if expiry.at <= now {
            return true;
        }
        *expiry = self.watch(node, expiry.at);
        false
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

    /// Nodes that are late at a time, with the deadlines of all.
    fn late(wheel: &mut Wheel, expiries: &mut BTreeMap<NodeId, Expiry>, now: i64) -> Vec<String> {
        let mut late = Vec::new();
        while let Some((slot, nodes)) = wheel.pop_due(at(now)) {
            for node in nodes {
                let Some(expiry) = expiries.get_mut(&node) else {
                    continue;
                };
                if wheel.check(at(now), &node, slot, expiry) {
                    expiries.remove(&node);
                    late.push(node.to_string());
                }
            }
        }
        late
    }

    #[test]
    fn a_node_is_late_at_the_first_step_from_its_deadline_on_and_not_before() {
        let (mut wheel, mut expiries) = (Wheel::default(), BTreeMap::new());
        for (name, deadline) in [("a", 1_000), ("b", 1_001)] {
            let node: NodeId = name.parse().unwrap();
            expiries.insert(node.clone(), wheel.watch(&node, at(deadline)));
        }
        assert_eq!(wheel.next(), Some(at(1_000)));
        assert!(late(&mut wheel, &mut expiries, 999).is_empty());
        assert_eq!(late(&mut wheel, &mut expiries, 1_000), ["a"]);
        assert!(late(&mut wheel, &mut expiries, 1_099).is_empty());
        assert_eq!(late(&mut wheel, &mut expiries, 1_100), ["b"]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn a_deadline_may_move_to_both_sides() {
        let (mut wheel, mut expiries) = (Wheel::default(), BTreeMap::new());
        let node: NodeId = "n".parse().unwrap();
        let mut expiry = wheel.watch(&node, at(5_000));
        wheel.renew(&node, &mut expiry, at(9_000));
        expiries.insert(node.clone(), expiry);
        assert!(late(&mut wheel, &mut expiries, 8_999).is_empty());
        wheel.renew(&node, expiries.get_mut(&node).unwrap(), at(7_000));
        assert_eq!(wheel.next(), Some(at(7_000)));
        wheel.renew(&node, expiries.get_mut(&node).unwrap(), at(20_000));
        assert!(late(&mut wheel, &mut expiries, 19_999).is_empty());
        assert_eq!(late(&mut wheel, &mut expiries, 20_000), ["n"]);
    }

    #[test]
    fn heartbeats_do_not_make_the_wheel_grow() {
        let mut wheel = Wheel::default();
        let node: NodeId = "n".parse().unwrap();
        let mut expiry = wheel.watch(&node, at(15_000));
        for beat in 0..10_000 {
            // A node that beats much too often; three times a jittered period each time.
            wheel.renew(&node, &mut expiry, at(13_500 + beat * 7_919 % 3_000));
        }
        let entries: usize = wheel.slots.values().map(Vec::len).sum();
        assert!(
            entries <= 16,
            "one for each step that the first is early at most: {entries}"
        );
    }
}
