//! The log in memory, as the consensus library reads it.
//!
//! Owns the entries from the compaction point on, the hard state and the membership. Everything
//! in it is already durable; [`crate::log`] is the durable copy.

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
    hard_state: HardState,
    conf_state: ConfState,
    /// Newest snapshot on disk; its data is not here.
    snapshot: SnapshotMetadata,
}

impl EntryCache {
    pub(crate) fn new(
        base: Position,
        entries: VecDeque<Entry>,
        hard_state: HardState,
        snapshot: SnapshotMetadata,
    ) -> Self {
        let conf_state = snapshot.get_conf_state().clone();
        EntryCache {
            base,
            entries,
            hard_state,
            conf_state,
            snapshot,
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
        self.entries
            .truncate((first.index - self.base.index - 1) as usize);
        self.entries.extend(entries.iter().cloned());
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
    }

    /// Starts over behind a snapshot that came from the leader.
    pub(crate) fn install(&mut self, metadata: SnapshotMetadata) {
        self.base = Position {
            index: metadata.index,
            term: metadata.term,
        };
        self.entries.clear();
        self.hard_state.commit = self.hard_state.commit.max(metadata.index);
        self.hard_state.term = self.hard_state.term.max(metadata.term);
        self.conf_state = metadata.get_conf_state().clone();
        self.snapshot = metadata;
    }

    /// Forgets entries up to and including `index`.
    pub(crate) fn compact(&mut self, index: u64) {
        while self
            .entries
            .front()
            .is_some_and(|entry| entry.index <= index)
        {
            if let Some(entry) = self.entries.pop_front() {
                self.base = Position {
                    index: entry.index,
                    term: entry.term,
                };
            }
        }
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
            total = total.saturating_add(entry.data.len() as u64 + ENTRY_OVERHEAD_BYTES);
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
        if self.snapshot.index == 0 || self.snapshot.index < request_index {
            return Err(Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        }
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(self.snapshot.clone());
        Ok(snapshot)
    }
}
