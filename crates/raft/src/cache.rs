//! The log in memory, as the consensus library reads it.
//!
//! Owns the entries from the compaction point on, the hard state and the membership. Everything
//! in it is already durable; [`crate::log`] is the durable copy.
//!
//! Entries behind a snapshot are for peers that lag. A member without peers forgets what it has
//! applied sooner than that ([`EntryCache::forget_applied`]). A peer that is added later gets a
//! snapshot, which is asked for if none goes far enough ([`EntryCache::wants_snapshot`]).

use std::cell::Cell;
use std::collections::VecDeque;

use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{Error, GetEntriesContext, RaftState, Storage, StorageError};

use crate::log::Position;

/// Bytes that an entry takes in a message besides its data, at most: four tags and numbers.
const ENTRY_OVERHEAD_BYTES: u64 = 32;

/// Entries behind a compaction point.
pub(crate) struct EntryCache {
    /// What the first entry follows.
    base: Position,
    entries: VecDeque<Entry>,
    /// Of all entries, as [`size`] counts them.
    bytes: u64,
    hard_state: HardState,
    conf_state: ConfState,
    /// Newest snapshot on disk; its data is not here.
    snapshot: SnapshotMetadata,
    /// A peer was to get a snapshot, and the newest one ends before the first entry that is left.
    wants_snapshot: Cell<bool>,
}

/// Bytes of an entry in a message, at most.
fn size(entry: &Entry) -> u64 {
    entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES
}

impl EntryCache {
    pub(crate) fn new(
        base: Position,
        entries: VecDeque<Entry>,
        hard_state: HardState,
        snapshot: SnapshotMetadata,
    ) -> Self {
        let conf_state = snapshot.get_conf_state().clone();
        let bytes = entries.iter().map(size).sum();
        EntryCache {
            base,
            entries,
            bytes,
            hard_state,
            conf_state,
            snapshot,
            wants_snapshot: Cell::new(false),
        }
    }

    pub(crate) fn last(&self) -> Position {
        self.entries.back().map_or(self.base, |entry| Position {
            index: entry.index,
            term: entry.term,
        })
    }

    pub(crate) fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        self.entries.get(self.slot(index)?).map(|entry| entry.term)
    }

    /// Takes entries; they replace whatever stands at their indices and behind.
    pub(crate) fn append(&mut self, entries: &[Entry]) {
        let Some(first) = entries.first() else { return };
        let last = self.last().index;
        let above_base = first.index > self.base.index && first.index <= last + 1;
        assert!(above_base, "entry {} does not follow {last}", first.index);
        let kept = (first.index - self.base.index - 1) as usize;
        let replaced: u64 = self.entries.range(kept..).map(size).sum();
        self.entries.truncate(kept);
        self.entries.extend(entries.iter().cloned());
        self.bytes = self.bytes - replaced + entries.iter().map(size).sum::<u64>();
    }

    pub(crate) fn set_hard_state(&mut self, state: HardState) {
        self.hard_state = state;
    }

    pub(crate) fn hard_state(&self) -> &HardState {
        &self.hard_state
    }

    pub(crate) fn set_conf_state(&mut self, state: ConfState) {
        self.conf_state = state;
    }

    pub(crate) fn conf_state(&self) -> &ConfState {
        &self.conf_state
    }

    pub(crate) fn set_snapshot(&mut self, metadata: SnapshotMetadata) {
        self.snapshot = metadata;
        self.wants_snapshot.set(false);
    }

    /// Whether a peer waits for a newer snapshot than there is.
    pub(crate) fn wants_snapshot(&self) -> bool {
        self.wants_snapshot.get()
    }

    /// Takes note that there will be none for now. The next message to the peer asks again.
    pub(crate) fn snapshot_failed(&mut self) {
        self.wants_snapshot.set(false);
    }

    /// Starts over behind a snapshot that came from the leader.
    pub(crate) fn install(&mut self, metadata: SnapshotMetadata) {
        self.base = Position {
            index: metadata.index,
            term: metadata.term,
        };
        self.entries.clear();
        self.bytes = 0;
        self.wants_snapshot.set(false);
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.hard_state.term = self.hard_state.term.max(metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
        self.snapshot = metadata;
    }

    /// Forgets entries up to and including `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while self.forget_first(index) {}
    }

    /// Forgets the oldest entries up to and including `applied`, until those that are left take
    /// `keep` bytes at most. Only for entries that nobody asks for: a member has no peers, or a
    /// snapshot covers them.
    pub(crate) fn forget_applied(&mut self, applied: u64, keep: u64) {
        while self.bytes > keep && self.forget_first(applied) {}
    }

    /// Forgets the first entry, unless it is behind `index`.
    fn forget_first(&mut self, index: u64) -> bool {
        let is_first = |entry: &mut Entry| entry.index <= index;
        let Some(entry) = self.entries.pop_front_if(is_first) else {
            return false;
        };
        self.bytes -= size(&entry);
        self.base = Position {
            index: entry.index,
            term: entry.term,
        };
        true
    }

    fn slot(&self, index: u64) -> Option<usize> {
        usize::try_from(index.checked_sub(self.base.index + 1)?).ok()
    }
}

impl Storage for EntryCache {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::new(
            self.hard_state.clone(),
            self.conf_state.clone(),
        ))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let from = self
            .slot(low)
            .ok_or(Error::Store(StorageError::Compacted))?;
        let to = self.slot(high).filter(|to| *to <= self.entries.len());
        let to = to.ok_or(Error::Store(StorageError::Unavailable))?;
        let limit = max_size.into().unwrap_or(u64::MAX);
        let mut total = 0_u64;
        let mut found = Vec::new();
        for entry in self.entries.range(from..to) {
            total = total.saturating_add(size(entry));
            // One entry is handed out whatever its size, so that progress is possible.
            if total > limit && !found.is_empty() {
                break;
            }
            found.push(entry.clone());
        }
        Ok(found)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let unknown = if index < self.base.index {
            StorageError::Compacted
        } else {
            StorageError::Unavailable
        };
        self.term_at(index).ok_or(Error::Store(unknown))
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.last().index)
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        // What follows the snapshot must be here.
        let needed = request_index.max(self.base.index).max(1);
        if self.snapshot.index < needed {
            self.wants_snapshot.set(true);
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(self.snapshot.clone());
        Ok(snapshot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mix::Mix;

    fn entries(from: u64, term: u64, sizes: &[usize]) -> Vec<Entry> {
        let entry = |(index, size): (u64, &usize)| {
            let mut entry = Entry::default();
            (entry.index, entry.term, entry.data) = (index, term, vec![0; *size].into());
            entry
        };
        (from..).zip(sizes).map(entry).collect()
    }

    fn cache() -> EntryCache {
        let nothing = (HardState::default(), SnapshotMetadata::default());
        EntryCache::new(Position::default(), VecDeque::new(), nothing.0, nothing.1)
    }

    #[test]
    fn applied_entries_are_forgotten_from_the_front_until_the_rest_is_small() {
        let mut cache = cache();
        cache.append(&entries(1, 1, &[100; 10]));
        let each = 100 + ENTRY_OVERHEAD_BYTES;
        cache.forget_applied(6, 8 * each);
        assert_eq!(cache.first_index(), Ok(3), "no more than it takes");
        cache.forget_applied(6, 0);
        assert_eq!(cache.first_index(), Ok(7), "nothing that is not applied");
        assert_eq!((cache.term(6), cache.last_index()), (Ok(1), Ok(10)));
        let asked = GetEntriesContext::empty(false);
        assert_eq!(
            cache.entries(6, 8, None, asked),
            Err(Error::Store(StorageError::Compacted))
        );
        cache.forget_applied(10, 0);
        assert_eq!((cache.first_index(), cache.last_index()), (Ok(11), Ok(10)));
        assert_eq!(cache.term(10), Ok(1));
    }

    #[test]
    fn a_snapshot_that_ends_before_the_entries_is_of_no_use() {
        let mut cache = cache();
        cache.append(&entries(1, 1, &[10; 10]));
        let at = |index| SnapshotMetadata {
            index,
            term: 1,
            ..Default::default()
        };
        cache.set_snapshot(at(4));
        assert!(cache.snapshot(0, 2).is_ok() && !cache.wants_snapshot());
        cache.forget_applied(5, 0);
        assert!(!cache.wants_snapshot(), "nobody has asked yet");
        let missing = Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        assert_eq!(cache.snapshot(0, 2).unwrap_err(), missing);
        assert!(cache.wants_snapshot());
        cache.set_snapshot(at(5));
        assert!(cache.snapshot(0, 2).is_ok() && !cache.wants_snapshot());
    }

    #[test]
    fn bytes_are_those_of_the_entries_whatever_happens() {
        for seed in 0..50 {
            let mut mix = Mix::new(seed);
            let mut cache = cache();
            for term in 1..60 {
                let (base, last) = (cache.base.index, cache.last().index);
                match mix.below(6) {
                    0 => cache.compact(base + mix.below(4)),
                    1 => cache.forget_applied(base + mix.below(9), mix.below(500)),
                    2 if mix.below(5) == 0 => cache.install(SnapshotMetadata {
                        index: last + mix.below(3),
                        term,
                        ..Default::default()
                    }),
                    _ => {
                        let from = base + 1 + mix.below(last - base + 1);
                        let sizes: Vec<usize> =
                            (0..mix.below(5)).map(|_| mix.below(90) as usize).collect();
                        cache.append(&entries(from, term, &sizes));
                    }
                }
                let expected: u64 = cache.entries.iter().map(size).sum();
                assert_eq!(cache.bytes, expected, "seed {seed}, term {term}");
                let first = cache.entries.front().map(|entry| entry.index);
                assert_eq!(first.unwrap_or(cache.base.index + 1), cache.base.index + 1);
            }
        }
    }
}
