//! Why a proposal was not taken.

/// Why a proposal was not taken. Nothing has happened and nothing will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Only the leader proposes.
    #[error("this manager is not the leader of the cluster{}", leader_hint(*.leader))]
    NotLeader {
        /// Id of the leader, if one is known.
        leader: Option<u64>,
    },
    /// Larger than a log entry may be.
    #[error(
        "proposal of {size} bytes is larger than the limit of {limit} bytes: split the change or \
         make the objects in it smaller"
    )]
    TooLarge {
        /// Size in bytes.
        size: usize,
        /// Limit in bytes.
        limit: usize,
    },
    /// An empty entry is what a new leader writes; it cannot be told from a proposal.
    #[error("proposal is empty")]
    Empty,
    /// Too much is proposed and not committed.
    #[error(
        "{uncommitted} bytes are proposed and not yet committed, the limit is {limit}: try again \
         when a majority of managers is reachable"
    )]
    Backlog {
        /// Bytes waiting.
        uncommitted: usize,
        /// Limit in bytes.
        limit: u64,
    },
    /// Leadership is being handed over.
    #[error("leadership is being transferred to another manager: try again")]
    Transferring,
    /// One membership change at a time.
    #[error("another change of the manager set is under way: try again")]
    ConfChangePending,
    /// The disk is full; the text is the disk's.
    #[error("the disk of the raft log is full ({0}): free space on it, then try again")]
    DiskFull(String),
    /// The log cannot be written any more; the text says why.
    #[error("the raft log has stopped: {0}")]
    LogStopped(String),
}

fn leader_hint(leader: Option<u64>) -> String {
    leader.map_or_else(String::new, |id| format!(", member {id:x} is"))
}
