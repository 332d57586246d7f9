//! How data and changes of membership get into the log of a leader.

use bytes::Bytes;
use prost::Message as _;
use raft::{Raft, StateRole, eraftpb};
use swarm_api::raftpb;

use super::{Core, MAX_UNCOMMITTED_BYTES, Refusal};
use crate::cache::EntryCache;
use crate::convert;
use crate::log::{Entry, EntryKind, Position};

impl Core {
    /// Proposes data. Returns where it will stand if this leader stays; it is committed when an
    /// entry with exactly that position is handed out, and lost when another term's is.
    pub fn propose(&mut self, data: Bytes) -> Result<Position, Refusal> {
        if data.is_empty() {
            return Err(Refusal::Empty);
        }
        let (size, limit) = (data.len(), self.config.proposal_bytes_max);
        if size > limit {
            return Err(Refusal::TooLarge { size, limit });
        }
        self.propose_entry(EntryKind::Normal, data)
    }

    /// Proposes an entry without data, as a new leader does. It changes nothing but the index.
    pub fn propose_nothing(&mut self) -> Result<Position, Refusal> {
        self.propose_entry(EntryKind::Normal, Bytes::new())
    }

    /// Proposes a change of membership. One at a time.
    pub fn propose_conf_change(
        &mut self,
        change: &raftpb::ConfChange,
    ) -> Result<Position, Refusal> {
        if self.raw.raft.has_pending_conf() {
            return Err(Refusal::ConfChangePending);
        }
        self.check_proposable()?;
        let raft = &mut self.raw.raft;
        let entry = Entry {
            at: Position::default(),
            kind: EntryKind::ConfChange,
            data: change.encode_to_vec().into(),
        };
        // Past the part of the library that reads changes in its own numbers, which are not those
        // on the wire; see `convert::conf_change_in`.
        if !raft.append_entry(&mut [convert::entry_to_library(entry)]) {
            return Err(backlog(raft));
        }
        let index = raft.raft_log.last_index();
        raft.pending_conf_index = index;
        raft.bcast_append();
        let term = raft.term;
        Ok(Position { index, term })
    }

    /// Whether this member takes proposals at all.
    fn check_proposable(&self) -> Result<(), Refusal> {
        let raft = &self.raw.raft;
        if raft.state != StateRole::Leader {
            return Err(Refusal::NotLeader {
                leader: Some(raft.leader_id).filter(|id| *id != 0),
            });
        }
        if raft.lead_transferee.is_some() {
            return Err(Refusal::Transferring);
        }
        if self.pending.is_some() {
            return Err(Refusal::DiskFull("a write is being retried".to_owned()));
        }
        if raft.prs().get(raft.id).is_none() {
            // Removed, and not yet deposed.
            return Err(Refusal::NotLeader { leader: None });
        }
        Ok(())
    }

    fn propose_entry(&mut self, kind: EntryKind, data: Bytes) -> Result<Position, Refusal> {
        self.check_proposable()?;
        let raft = &mut self.raw.raft;
        let mut message = eraftpb::Message::default();
        message.set_msg_type(eraftpb::MessageType::MsgPropose);
        message.from = raft.id;
        let entry = Entry {
            at: Position::default(),
            kind,
            data,
        };
        message.set_entries(vec![convert::entry_to_library(entry)].into());
        if raft.step(message).is_err() {
            return Err(backlog(raft));
        }
        Ok(Position {
            index: raft.raft_log.last_index(),
            term: raft.term,
        })
    }
}

fn backlog(raft: &Raft<EntryCache>) -> Refusal {
    let (uncommitted, limit) = (raft.uncommitted_size(), MAX_UNCOMMITTED_BYTES);
    Refusal::Backlog { uncommitted, limit }
}
