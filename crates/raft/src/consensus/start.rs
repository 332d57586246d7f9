//! What a core starts from: settings, recovered state, and the state of a group of one.

use std::collections::VecDeque;

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;
use swarm_api::raftpb;

use crate::cache::EntryCache;
use crate::convert;
use crate::log::{Entry, EntryKind, HardState, Position};
use crate::snapshot::SnapshotMeta;

/// Ticks without a leader before an election, at least. With a tick of one second this is
/// SwarmKit's 10 to 19 seconds.
pub const ELECTION_TICKS_DEFAULT: usize = 10;

/// Ticks between heartbeats of a leader.
pub const HEARTBEAT_TICKS_DEFAULT: usize = 1;

/// Bytes in one proposal at most: 1.5 MiB, as in SwarmKit.
pub const PROPOSAL_BYTES_MAX: usize = 3 * 512 * 1024;

/// Bytes of applied entries that a member without peers keeps in memory. Enough for a second
/// manager of a small cluster to be sent the log from its beginning, without a snapshot.
pub const APPLIED_BYTES_ALONE_DEFAULT: u64 = 256 * 1024;

/// How a core behaves.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    /// Own id in the group, not 0.
    pub raft_id: u64,
    /// Ticks without a leader before an election, at least; the true number is up to twice that.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Spreads election timeouts; members of a group need different seeds or ids.
    pub seed: u64,
    /// Bytes in one proposal at most.
    pub proposal_bytes_max: usize,
    /// Bytes of applied entries kept in memory as long as there are no peers, at most.
    pub applied_bytes_alone: u64,
}

impl CoreConfig {
    /// The defaults for a member.
    pub fn new(raft_id: u64, seed: u64) -> Self {
        CoreConfig {
            raft_id,
            election_ticks: ELECTION_TICKS_DEFAULT,
            heartbeat_ticks: HEARTBEAT_TICKS_DEFAULT,
            seed,
            proposal_bytes_max: PROPOSAL_BYTES_MAX,
            applied_bytes_alone: APPLIED_BYTES_ALONE_DEFAULT,
        }
    }
}

/// What a core starts from.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// What the first entry follows.
    pub base: Position,
    /// Entries in order, without gaps. Some may be older than the snapshot.
    pub entries: VecDeque<Entry>,
    /// Term, vote, commit index.
    pub hard_state: HardState,
    /// Newest snapshot, already given to the state machine.
    pub snapshot: Option<SnapshotMeta>,
}

/// The state of a group of one that was never started: its first entry adds the member itself,
/// at index 1 and term 1, committed. Members that join later learn of it from there.
pub fn bootstrap(raft_id: u64, context: Bytes) -> Restored {
    let mut change = raftpb::ConfChange {
        id: Some(0),
        node_id: Some(raft_id),
        context: Some(context),
        ..Default::default()
    };
    change.set_type(raftpb::ConfChangeType::AddNode);
    let entry = Entry {
        at: Position { index: 1, term: 1 },
        kind: EntryKind::ConfChange,
        data: change.encode_to_vec().into(),
    };
    Restored {
        entries: VecDeque::from([entry]),
        hard_state: HardState {
            term: 1,
            vote: 0,
            commit: 1,
        },
        ..Restored::default()
    }
}

/// Why a core could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("consensus state does not fit together: {0}")]
pub struct StartError(pub(super) String);

/// Checks that the parts fit, and returns them with the index that is already applied.
pub(super) fn cache_from(restored: Restored) -> Result<(EntryCache, u64), StartError> {
    let Restored {
        base,
        entries,
        hard_state,
        snapshot,
    } = restored;
    let (applied, metadata) = match snapshot {
        Some(meta) => {
            let conf = raftpb::ConfState::decode(meta.membership.as_slice())
                .map_err(|error| StartError(format!("membership in the snapshot: {error}")))?;
            let conf = convert::conf_state_in(&conf);
            (meta.at.index, convert::snapshot_metadata(meta.at, conf))
        }
        None => (0, eraftpb::SnapshotMetadata::default()),
    };
    let mut index = base.index;
    for entry in &entries {
        index += 1;
        if entry.at.index != index {
            return Err(StartError(format!(
                "entry {} stands at {index}",
                entry.at.index
            )));
        }
    }
    if applied < base.index || hard_state.commit < applied || hard_state.commit > index {
        return Err(StartError(format!(
            "log begins after {}, snapshot at {applied}, committed {}, log ends at {index}",
            base.index, hard_state.commit
        )));
    }
    let entries = entries.into_iter().map(convert::entry_to_library).collect();
    let state = convert::hard_state_to_library(hard_state);
    Ok((EntryCache::new(base, entries, state, metadata), applied))
}
