//! The orderings of nodes that are kept: those of groups which were looked at last.

use std::collections::BTreeMap;

use crate::candidates::{Candidates, Facts};
use crate::cluster::GroupKey;
use crate::node_log::NodeLog;

/// Entries over all orderings, one for each node in each of them: about 200 MB. Beyond that, those
/// used longest ago are dropped; they are built again when they are needed.
const ENTRIES_MAX: usize = 2_000_000;

/// Orderings by group.
#[derive(Debug)]
pub(crate) struct Pool {
    entries_max: usize,
    kept: BTreeMap<GroupKey, (u64, Candidates)>,
    by_use: BTreeMap<u64, GroupKey>,
    uses: u64,
    entries: usize,
}

impl Default for Pool {
    fn default() -> Self {
        Self::with_bound(ENTRIES_MAX)
    }
}

impl Pool {
    /// A pool of at most so many entries, but for what one transaction needs.
    pub(crate) fn with_bound(entries_max: usize) -> Self {
        Self {
            entries_max,
            kept: BTreeMap::new(),
            by_use: BTreeMap::new(),
            uses: 0,
            entries: 0,
        }
    }

    /// The up-to-date ordering for a group.
    pub(crate) fn refresh(
        &mut self,
        key: &GroupKey,
        facts: Facts<'_>,
        log: &NodeLog,
    ) -> &Candidates {
        let candidates = match self.take(key) {
            Some(mut candidates) => {
                candidates.catch_up(facts, log);
                candidates
            }
            None => Candidates::build(key, facts, log),
        };
        self.uses += 1;
        self.entries += candidates.weight();
        self.by_use.insert(self.uses, key.clone());
        let kept = (self.uses, candidates);
        &self.kept.entry(key.clone()).insert_entry(kept).into_mut().1
    }

    fn take(&mut self, key: &GroupKey) -> Option<Candidates> {
        let (used, candidates) = self.kept.remove(key)?;
        self.by_use.remove(&used);
        self.entries -= candidates.weight();
        Some(candidates)
    }

    /// The ordering for a group, if it is kept.
    pub(crate) fn get(&self, key: &GroupKey) -> Option<&Candidates> {
        self.kept.get(key).map(|(_, candidates)| candidates)
    }

    /// The number of the last use.
    pub(crate) fn now(&self) -> u64 {
        self.uses
    }

    /// Drops what was used longest ago until the rest is within the bound, but nothing used after
    /// `since`. Says whether it is within the bound.
    pub(crate) fn shrink(&mut self, since: u64) -> bool {
        while self.entries > self.entries_max {
            match self.by_use.first_key_value() {
                Some((used, key)) if *used <= since => {
                    let key = key.clone();
                    self.take(&key);
                }
                Some(_) | None => return false,
            }
        }
        true
    }

    /// Compares each ordering, once it has caught up, with a fresh one.
    #[cfg(test)]
    pub(crate) fn check(&self, facts: Facts<'_>, log: &NodeLog) {
        for (key, (_, candidates)) in &self.kept {
            let mut candidates = candidates.clone();
            candidates.catch_up(facts, log);
            let fresh = Candidates::build(key, facts, log);
            assert_eq!(candidates.shape(), fresh.shape());
        }
    }

    /// Drops the ordering for a group.
    pub(crate) fn forget(&mut self, key: &GroupKey) {
        self.take(key);
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        *self = Self::with_bound(self.entries_max);
    }
}
