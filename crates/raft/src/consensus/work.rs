//! What a core hands out, and the words it describes itself with.

use bytes::Bytes;
use swarm_api::raftpb;

use crate::log::{Entry, HardState, Position};
use crate::snapshot::SnapshotMeta;

/// Work that must be durable before [`Core::advance`](super::Core::advance).
#[derive(Clone, Debug)]
pub struct Ready {
    /// Current term, vote and commit index.
    pub hard_state: HardState,
    /// Entries to append; they replace what stands at their indices and behind.
    pub entries: Vec<Entry>,
    /// A snapshot from the leader that replaces everything.
    pub snapshot: Option<(SnapshotMeta, Bytes)>,
    /// Whether anything would be lost by not writing. Without it only the commit index moved,
    /// which is found again.
    pub must_sync: bool,
}

/// What may happen now that the work is durable.
#[derive(Debug, Default)]
pub struct Advanced {
    /// To send, in order.
    pub messages: Vec<raftpb::Message>,
    /// To apply, in order.
    pub committed: Vec<Committed>,
}

/// One committed entry.
#[derive(Clone, Debug, PartialEq)]
pub struct Committed {
    /// Where it stands.
    pub at: Position,
    /// What it says.
    pub payload: Payload,
}

/// What a committed entry says.
#[derive(Clone, Debug, PartialEq)]
pub enum Payload {
    /// Nothing: a leader's first entry.
    Empty,
    /// Data of the state machine.
    Data(Bytes),
    /// A change of membership. The core has already adopted it.
    ConfChange(raftpb::ConfChange),
}

/// The role of a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Follows a leader or waits for one.
    Follower,
    /// Asks for votes.
    Candidate,
    /// Proposes.
    Leader,
}

/// What became of a snapshot on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The peer has it.
    Delivered,
    /// It was lost.
    Failed,
}
