//! What stands between a peer's message and the consensus library.
//!
//! Owns the list of what is acceptable from another manager, given a few facts about this one.
//! The library trusts its input and ends the process on some of what a broken or hostile peer can
//! send; whatever would do that is refused here, with a reason.

use raft::eraftpb;
use swarm_api::raftpb::{ConfState, EntryType, Message, MessageType, Snapshot};

use crate::convert::decode_conf_change;

/// Context of a vote request that follows a transfer of leadership; the only context in use.
const TRANSFER_CONTEXT: &[u8] = b"CampaignTransfer";

/// What the checks need to know about this member.
pub(crate) struct Facts {
    pub(crate) own_id: u64,
    pub(crate) term: u64,
    pub(crate) last_index: u64,
    /// Bytes that an entry may carry.
    pub(crate) entry_bytes_max: usize,
    /// What this member, as leader, knows of the sender's log: index up to which it agrees.
    pub(crate) sender_matched: Option<u64>,
    pub(crate) sender: Sender,
}

/// Whether the sender may speak at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// In the membership, or vouched for by the transport.
    Known,
    /// Neither.
    Unknown,
}

/// Why a message was not stepped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// A number that no version of the protocol uses.
    #[error("raft message has unknown type {0}")]
    UnknownType(i32),
    /// Known, but nothing that one manager sends to another here.
    #[error("raft message of type {0:?} is not accepted from a peer")]
    NotForPeers(MessageType),
    /// For somebody else.
    #[error("raft message is for member {to:x}, this is {own:x}")]
    WrongRecipient {
        /// To whom.
        to: u64,
        /// Own id.
        own: u64,
    },
    /// From nobody, from this member itself, or from a stranger.
    #[error("raft message is from {0:x}, which is not another member")]
    UnknownSender(u64),
    /// Between members every message has a term.
    #[error("raft message of type {0:?} has no term")]
    NoTerm(MessageType),
    /// An entry that could not be in a log.
    #[error("raft message carries a bad entry at place {place}: {what}")]
    BadEntry {
        /// Which of the entries, from 0.
        place: usize,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Entries, or a snapshot, in a message that has none.
    #[error("raft message of type {0:?} carries more than it may")]
    Surplus(MessageType),
    /// A snapshot that could not have been taken.
    #[error("raft message carries a bad snapshot: {0}")]
    BadSnapshot(&'static str),
    /// The leader believes that entries are here which are not: this log was lost.
    #[error(
        "leader says that entry {commit} is committed here, but the log ends at {last}: this \
         manager has lost its log and must be removed and joined again"
    )]
    LogLost {
        /// What the leader says.
        commit: u64,
        /// End of the log.
        last: u64,
    },
    /// The sender confirms entries that this leader never sent.
    #[error("peer confirms entry {index}, but the log ends at {last}")]
    BeyondLog {
        /// What the peer says.
        index: u64,
        /// End of the log.
        last: u64,
    },
    /// A late rejection; acting on it would make the leader forget what the peer confirmed.
    #[error("rejection of entry {index} is stale: the peer has confirmed {matched}")]
    StaleRejection {
        /// Rejected index.
        index: u64,
        /// Confirmed index.
        matched: u64,
    },
    /// A write is being retried; the library must not be touched meanwhile.
    #[error("raft is stalled by a failed write and drops messages")]
    Stalled,
    /// The library itself refused.
    #[error("raft refused the message: {0}")]
    Refused(String),
}

/// Checks a message; the library's name of its type when it may be stepped.
pub(crate) fn check(
    message: &Message,
    facts: &Facts,
) -> Result<eraftpb::MessageType, MessageError> {
    let number = message.r#type.unwrap_or_default();
    let wire = MessageType::try_from(number).map_err(|_| MessageError::UnknownType(number))?;
    let kind = accepted(wire)?;
    if message.to() != facts.own_id {
        return Err(MessageError::WrongRecipient {
            to: message.to(),
            own: facts.own_id,
        });
    }
    let from = message.from();
    if from == 0 || from == facts.own_id || facts.sender == Sender::Unknown {
        return Err(MessageError::UnknownSender(from));
    }
    if message.term() == 0 {
        return Err(MessageError::NoTerm(wire));
    }
    let append = wire == MessageType::MsgApp;
    let snapshot = wire == MessageType::MsgSnap;
    if (!append && !message.entries.is_empty())
        || (!snapshot && message.snapshot.is_some())
        || !message.responses.is_empty()
    {
        return Err(MessageError::Surplus(wire));
    }
    if append {
        check_entries(message, facts)?;
    } else if snapshot {
        check_snapshot(message.term(), message.snapshot.as_ref())?;
    } else if wire == MessageType::MsgHeartbeat {
        check_heartbeat(message, facts)?;
    } else if wire == MessageType::MsgAppResp {
        check_append_response(message, facts)?;
    }
    Ok(kind)
}

/// Drops what must not reach the library although the message is fine.
pub(crate) fn strip(message: &mut Message) {
    message.vote = None;
    // Any other context would be taken for a read request that nobody made.
    if message.context.as_deref() != Some(TRANSFER_CONTEXT) {
        message.context = None;
    }
}

fn accepted(wire: MessageType) -> Result<eraftpb::MessageType, MessageError> {
    match wire {
        MessageType::MsgApp => Ok(eraftpb::MessageType::MsgAppend),
        MessageType::MsgAppResp => Ok(eraftpb::MessageType::MsgAppendResponse),
        MessageType::MsgVote => Ok(eraftpb::MessageType::MsgRequestVote),
        MessageType::MsgVoteResp => Ok(eraftpb::MessageType::MsgRequestVoteResponse),
        MessageType::MsgSnap => Ok(eraftpb::MessageType::MsgSnapshot),
        MessageType::MsgHeartbeat => Ok(eraftpb::MessageType::MsgHeartbeat),
        MessageType::MsgHeartbeatResp => Ok(eraftpb::MessageType::MsgHeartbeatResponse),
        MessageType::MsgTimeoutNow => Ok(eraftpb::MessageType::MsgTimeoutNow),
        // Proposals are made at the leader and never forwarded; pre-vote, read index and the
        // storage messages are not in use; the rest is local to a member.
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgProp
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp
        | MessageType::MsgPreVote
        | MessageType::MsgPreVoteResp
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp
        | MessageType::MsgForgetLeader => Err(MessageError::NotForPeers(wire)),
    }
}

fn check_entries(message: &Message, facts: &Facts) -> Result<(), MessageError> {
    let mut term = message.log_term();
    for (place, entry) in message.entries.iter().enumerate() {
        let bad = |what| MessageError::BadEntry { place, what };
        let index = message.index().checked_add(place as u64 + 1);
        if index != Some(entry.index()) || entry.index() == u64::MAX {
            return Err(bad("its index does not follow"));
        }
        if entry.term() == 0 || entry.term() < term || entry.term() > message.term() {
            return Err(bad("its term does not follow"));
        }
        term = entry.term();
        let data = entry.data.as_deref().unwrap_or_default();
        if data.len() > facts.entry_bytes_max {
            return Err(bad("it is larger than any proposal may be"));
        }
        match EntryType::try_from(entry.r#type.unwrap_or_default()) {
            Ok(EntryType::EntryNormal) => {}
            Ok(EntryType::EntryConfChange) if decode_conf_change(data).is_some() => {}
            Ok(EntryType::EntryConfChange) => return Err(bad("its conf change is malformed")),
            Ok(EntryType::EntryConfChangeV2) => return Err(bad("joint changes are not in use")),
            Err(_) => return Err(bad("its type is unknown")),
        }
    }
    Ok(())
}

fn check_snapshot(term: u64, snapshot: Option<&Snapshot>) -> Result<(), MessageError> {
    let bad = |what| Err(MessageError::BadSnapshot(what));
    let Some(metadata) = snapshot.and_then(|snapshot| snapshot.metadata.as_ref()) else {
        return bad("it is absent");
    };
    if metadata.index() == 0 || metadata.index() == u64::MAX {
        return bad("its index is impossible");
    }
    if metadata.term() == 0 || metadata.term() > term {
        return bad("its term is impossible");
    }
    match &metadata.conf_state {
        Some(state) => check_conf_state(state),
        None => bad("it has no membership"),
    }
}

fn check_conf_state(state: &ConfState) -> Result<(), MessageError> {
    let bad = |what| Err(MessageError::BadSnapshot(what));
    if !state.voters_outgoing.is_empty() || !state.learners_next.is_empty() || state.auto_leave() {
        return bad("its membership is a joint one");
    }
    if state.voters.is_empty() {
        return bad("its membership has no voter");
    }
    let mut ids: Vec<u64> = state
        .voters
        .iter()
        .chain(&state.learners)
        .copied()
        .collect();
    ids.sort_unstable();
    if ids[0] == 0 || ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return bad("an id in its membership is zero or there twice");
    }
    Ok(())
}

fn check_heartbeat(message: &Message, facts: &Facts) -> Result<(), MessageError> {
    // Of an older term: answered by the library without a look at the commit index.
    if message.term() >= facts.term && message.commit() > facts.last_index {
        return Err(MessageError::LogLost {
            commit: message.commit(),
            last: facts.last_index,
        });
    }
    Ok(())
}

fn check_append_response(message: &Message, facts: &Facts) -> Result<(), MessageError> {
    let Some(matched) = facts.sender_matched else {
        return Ok(());
    };
    let (index, last) = (message.index(), facts.last_index);
    if message.term() != facts.term {
        return Ok(());
    }
    if !message.reject() {
        if index > last {
            return Err(MessageError::BeyondLog { index, last });
        }
        return Ok(());
    }
    // The library's next index would fall to or below what the peer has confirmed.
    if index <= matched || message.reject_hint() < matched {
        return Err(MessageError::StaleRejection { index, matched });
    }
    Ok(())
}
