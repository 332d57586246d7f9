//! Deadlines by key, with the earliest at hand.
//!
//! Refuses to own a clock: "now" is an argument.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Timestamp;

/// One deadline per key; every operation costs O(log n). Deadlines that fall together come out in
/// the order of their keys.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_time: BTreeSet<(Timestamp, K)>,
    by_key: BTreeMap<K, Timestamp>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self {
            by_time: BTreeSet::new(),
            by_key: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord> Timers<K> {
    /// No deadlines.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the deadline of a key, in place of the one it had.
    pub fn set(&mut self, key: K, at: Timestamp) {
        if let Some(old) = self.by_key.insert(key.clone(), at) {
            self.by_time.remove(&(old, key.clone()));
        }
        self.by_time.insert((at, key));
    }

    /// Takes back the deadline of a key, if it has one.
    pub fn clear(&mut self, key: &K) {
        if let Some(at) = self.by_key.remove(key) {
            self.by_time.remove(&(at, key.clone()));
        }
    }

    /// The deadline of a key.
    pub fn get(&self, key: &K) -> Option<Timestamp> {
        self.by_key.get(key).copied()
    }

    /// The earliest deadline and its key.
    pub fn next(&self) -> Option<(Timestamp, &K)> {
        self.by_time.first().map(|(at, key)| (*at, key))
    }

    /// Takes the earliest key whose deadline is `now` or earlier.
    pub fn pop_due(&mut self, now: Timestamp) -> Option<K> {
        if self.by_time.first()?.0 > now {
            return None;
        }
        let (_, key) = self.by_time.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }

    /// How many deadlines there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_at_their_deadline_and_not_before() {
        let at = Timestamp::from_millis;
        let mut timers = Timers::new();
        timers.set("b", at(10));
        timers.set("a", at(10));
        timers.set("c", at(30));
        timers.set("c", at(20));
        timers.set("d", at(5));
        timers.clear(&"d");
        assert_eq!(timers.next(), Some((at(10), &"a")));
        assert_eq!(timers.pop_due(at(9)), None);
        assert_eq!(timers.pop_due(at(10)), Some("a"));
        assert_eq!(timers.pop_due(at(10)), Some("b"));
        assert_eq!(timers.pop_due(at(19)), None);
        assert_eq!(timers.get(&"c"), Some(at(20)));
        assert_eq!(timers.pop_due(at(20)), Some("c"));
        assert!(timers.is_empty());
    }
}
