//! The consensus core: proposals, messages and ticks in; work for the disk, the network and the
//! state machine out.
//!
//! Owns the one place where the consensus library is called, the election timeouts, and the rule
//! that nothing leaves before it is durable. Does no I/O: between [`Core::ready`] and
//! [`Core::advance`] the caller makes the work durable.

use std::collections::BTreeSet;

use prost::Message as _;
use raft::{RawNode, StateRole, Storage as _, eraftpb};
use swarm_api::raftpb;

use crate::cache::EntryCache;
use crate::checks::{self, Facts, MessageError, Sender};
use crate::convert;
use crate::log::{HardState, Position};
use crate::mix::Mix;
use crate::snapshot::SnapshotMeta;

mod propose;
mod refusal;
mod start;
#[cfg(test)]
mod tests;
mod work;

pub use refusal::Refusal;
use start::cache_from;
pub use start::{
    APPLIED_BYTES_ALONE_DEFAULT, CoreConfig, ELECTION_TICKS_DEFAULT, HEARTBEAT_TICKS_DEFAULT,
    PROPOSAL_BYTES_MAX, Restored, StartError, bootstrap,
};
pub use work::{Advanced, Committed, Payload, Ready, Role, SnapshotOutcome};

/// Bytes proposed and not yet committed at most. Bounds the memory of a leader that has lost its
/// followers; when full, proposals are refused until commits make room.
pub const MAX_UNCOMMITTED_BYTES: u64 = 64 * 1024 * 1024;

/// Bytes of entries handed out for applying at a time at most. Bounds a pass of a long replay.
const MAX_COMMITTED_BYTES_PER_PASS: u64 = 16 * 1024 * 1024;

/// Bytes of entries kept behind a snapshot at most, however few they are.
const BYTES_BEHIND_SNAPSHOT_MAX: u64 = 64 * 1024 * 1024;

/// Bytes of entries in one append message: SwarmKit's value. A larger entry travels alone.
const MAX_BYTES_PER_MESSAGE: u64 = 65535;

/// Append messages under way to one peer at most: SwarmKit's value.
const MAX_INFLIGHT_MESSAGES: usize = 256;

/// Room above the proposal limit for entries of peers, whose limit may be another.
const ENTRY_BYTES_SLACK: usize = 1024 * 1024;

/// The consensus state machine of one member.
pub struct Core {
    raw: RawNode<EntryCache>,
    config: CoreConfig,
    peers: BTreeSet<u64>,
    pending: Option<(Ready, raft::Ready)>,
}

impl Core {
    /// Starts from what was recovered.
    pub fn new(config: CoreConfig, restored: Restored) -> Result<Self, StartError> {
        let (cache, applied) = cache_from(restored)?;
        let library = raft::Config {
            id: config.raft_id,
            election_tick: config.election_ticks,
            heartbeat_tick: config.heartbeat_ticks,
            applied,
            max_size_per_msg: MAX_BYTES_PER_MESSAGE,
            max_inflight_msgs: MAX_INFLIGHT_MESSAGES,
            check_quorum: true,
            pre_vote: false,
            max_uncommitted_size: MAX_UNCOMMITTED_BYTES,
            max_committed_size_per_ready: MAX_COMMITTED_BYTES_PER_PASS,
            ..raft::Config::default()
        };
        if config.raft_id == 0 {
            return Err(StartError("the raft id is 0".to_owned()));
        }
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let raw = RawNode::new(&library, cache, &logger)
            .map_err(|error| StartError(error.to_string()))?;
        let mut core = Core {
            raw,
            config,
            peers: BTreeSet::new(),
            pending: None,
        };
        core.spread_election();
        Ok(core)
    }

    /// One tick of the clock. Returns whether it counted: time stands still while a write is
    /// being retried.
    pub fn tick(&mut self) -> bool {
        if self.pending.is_some() {
            return false;
        }
        self.raw.tick();
        self.spread_election();
        true
    }

    /// Lets another id speak although it is not in the membership this member knows: a leader
    /// elected by a newer membership. The transport vouches for it.
    pub fn allow_peer(&mut self, id: u64) {
        self.peers.insert(id);
    }

    /// Takes the word from an id that is not in the membership.
    pub fn forbid_peer(&mut self, id: u64) {
        self.peers.remove(&id);
    }

    /// Takes a message from a peer.
    pub fn step(&mut self, mut message: raftpb::Message) -> Result<(), MessageError> {
        if self.pending.is_some() {
            return Err(MessageError::Stalled);
        }
        let kind = checks::check(&message, &self.facts(message.from()))?;
        checks::strip(&mut message);
        let result = self.raw.step(convert::message_in(message, kind));
        self.spread_election();
        result.map_err(|error| MessageError::Refused(error.to_string()))
    }

    /// The next work, or the same again until [`Core::advance`]. `None`: nothing to do.
    pub fn ready(&mut self) -> Option<&Ready> {
        if self.pending.is_none() && self.raw.has_ready() {
            let library = self.raw.ready();
            self.pending = Some((self.describe(&library), library));
        }
        self.pending.as_ref().map(|(ready, _)| ready)
    }

    /// Declares the work of [`Core::ready`] durable. All that comes out must be applied before the
    /// core is touched again. Does nothing without work.
    pub fn advance(&mut self) -> Advanced {
        let Some((ready, mut library)) = self.pending.take() else {
            return Advanced::default();
        };
        let snapshot = library.snapshot().get_metadata().clone();
        let cache = self.raw.mut_store();
        if snapshot.index > 0 {
            cache.install(snapshot);
        }
        cache.append(library.entries());
        cache.set_hard_state(convert::hard_state_to_library(ready.hard_state));
        let mut messages = library.take_messages();
        messages.extend(library.take_persisted_messages());
        let mut committed = library.take_committed_entries();
        let mut light = self.raw.advance_append(library);
        if let Some(commit) = light.commit_index() {
            let mut state = self.raw.store().hard_state().clone();
            state.commit = commit;
            self.raw.mut_store().set_hard_state(state);
        }
        messages.extend(light.take_messages());
        committed.extend(light.take_committed_entries());
        let committed = committed
            .into_iter()
            .map(|entry| self.adopt(entry))
            .collect();
        self.raw.advance_apply();
        if self.is_alone() {
            let applied = self.raw.raft.raft_log.applied();
            let keep = self.config.applied_bytes_alone;
            self.raw.mut_store().forget_applied(applied, keep);
        }
        self.spread_election();
        let messages = messages.into_iter().map(convert::message_out).collect();
        Advanced {
            messages,
            committed,
        }
    }

    /// The only voter needs nobody's vote: it becomes leader at once instead of after a timeout.
    pub fn campaign_if_alone(&mut self) {
        if !self.is_only_voter() || self.pending.is_some() || self.role() == Role::Leader {
            return;
        }
        // Refused while membership changes wait to be applied; tried again at the next pass.
        drop(self.raw.campaign());
        self.spread_election();
    }

    /// Hands leadership to another member; nothing happens on a member that does not lead.
    pub fn transfer_leader(&mut self, to: u64) {
        if self.pending.is_none() {
            self.raw.transfer_leader(to);
            self.spread_election();
        }
    }

    /// Tells a leader that a peer could not be reached.
    pub fn report_unreachable(&mut self, id: u64) {
        if self.pending.is_none() {
            self.raw.report_unreachable(id);
        }
    }

    /// Tells a leader what became of a snapshot that it sent.
    pub fn report_snapshot(&mut self, id: u64, outcome: SnapshotOutcome) {
        if self.pending.is_none() {
            self.raw.report_snapshot(
                id,
                match outcome {
                    SnapshotOutcome::Delivered => raft::SnapshotStatus::Finish,
                    SnapshotOutcome::Failed => raft::SnapshotStatus::Failure,
                },
            );
        }
    }

    /// Notes a snapshot that is durable, for peers that need one, and forgets entries up to and
    /// including `forget`.
    pub fn compact(&mut self, meta: &SnapshotMeta, forget: u64) {
        let conf = raftpb::ConfState::decode(meta.membership.as_slice()).unwrap_or_default();
        let forget = forget.min(meta.at.index);
        let metadata = convert::snapshot_metadata(meta.at, convert::conf_state_in(&conf));
        let cache = self.raw.mut_store();
        cache.set_snapshot(metadata);
        cache.compact(forget);
        // A peer that needs more than these gets the snapshot.
        cache.forget_applied(meta.at.index, BYTES_BEHIND_SNAPSHOT_MAX);
    }

    /// Whether a peer waits for a snapshot that goes further than the newest one.
    pub fn wants_snapshot(&self) -> bool {
        self.raw.store().wants_snapshot()
    }

    /// Takes note that a snapshot could not be written. Peers that wait for it ask again.
    pub fn snapshot_failed(&mut self) {
        self.raw.mut_store().snapshot_failed();
    }

    /// Whether this member leads.
    pub fn is_leader(&self) -> bool {
        self.role() == Role::Leader
    }

    /// Whether this member leads and has applied an entry of its own term: everything that any
    /// leader before it acknowledged is applied.
    pub fn leads_with_all_applied(&self) -> bool {
        self.is_leader() && self.raw.raft.apply_to_current_term()
    }

    /// Own role.
    pub fn role(&self) -> Role {
        match self.raw.raft.state {
            StateRole::Follower => Role::Follower,
            StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
            StateRole::Leader => Role::Leader,
        }
    }

    /// Current term.
    pub fn term(&self) -> u64 {
        self.raw.raft.term
    }

    /// The leader of the term, if known.
    pub fn leader_id(&self) -> Option<u64> {
        Some(self.raw.raft.leader_id).filter(|id| *id != 0)
    }

    /// Own id.
    pub fn raft_id(&self) -> u64 {
        self.config.raft_id
    }

    /// Term, vote and commit index, as far as they are durable or need not be.
    pub fn hard_state(&self) -> HardState {
        convert::hard_state_from_library(self.raw.store().hard_state())
    }

    /// Position of the last entry handed out for applying.
    pub fn applied(&self) -> Position {
        let index = self.raw.raft.raft_log.applied();
        Position {
            index,
            term: self.raw.store().term_at(index).unwrap_or(0),
        }
    }

    /// Position of the last durable entry.
    pub fn last(&self) -> Position {
        self.raw.store().last()
    }

    /// Ids of voters, sorted.
    pub fn voters(&self) -> Vec<u64> {
        let mut voters = self.raw.store().conf_state().voters.clone();
        voters.sort_unstable();
        voters
    }

    /// The membership that is in force here.
    pub fn conf_state(&self) -> raftpb::ConfState {
        convert::conf_state_out(self.raw.store().conf_state())
    }

    /// What a snapshot taken now is of.
    pub fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta {
            at: self.applied(),
            membership: self.conf_state().encode_to_vec(),
        }
    }

    /// Entries kept in memory, for tests and metrics.
    pub fn cached_entries(&self) -> u64 {
        let first = self.raw.store().first_index().unwrap_or(0);
        (self.last().index + 1).saturating_sub(first)
    }

    fn is_only_voter(&self) -> bool {
        self.raw.store().conf_state().voters == [self.config.raft_id]
    }

    /// Whether nobody else is to have the log: no voter, no learner, none that is on its way out.
    fn is_alone(&self) -> bool {
        let conf = self.raw.store().conf_state();
        let others = [&conf.learners, &conf.voters_outgoing, &conf.learners_next];
        self.is_only_voter() && others.into_iter().all(Vec::is_empty)
    }

    fn facts(&self, from: u64) -> Facts {
        let raft = &self.raw.raft;
        let progress = raft.prs().get(from);
        let known = progress.is_some() || self.peers.contains(&from);
        Facts {
            own_id: self.config.raft_id,
            term: raft.term,
            last_index: raft.raft_log.last_index(),
            entry_bytes_max: self.config.proposal_bytes_max + ENTRY_BYTES_SLACK,
            sender_matched: progress
                .filter(|_| raft.state == StateRole::Leader)
                .map(|progress| progress.matched),
            sender: if known {
                Sender::Known
            } else {
                Sender::Unknown
            },
        }
    }

    fn describe(&self, library: &raft::Ready) -> Ready {
        let state = library
            .hs()
            .unwrap_or_else(|| self.raw.store().hard_state());
        let snapshot = library.snapshot();
        Ready {
            hard_state: convert::hard_state_from_library(state),
            entries: library
                .entries()
                .iter()
                .map(convert::entry_from_library)
                .collect(),
            snapshot: (snapshot.get_metadata().index > 0)
                .then(|| (convert::snapshot_meta(snapshot), snapshot.data.clone())),
            must_sync: library.must_sync(),
        }
    }

    /// Turns a committed entry into what the caller applies; adopts membership changes.
    fn adopt(&mut self, entry: eraftpb::Entry) -> Committed {
        let at = Position {
            index: entry.index,
            term: entry.term,
        };
        let payload = match entry.entry_type {
            eraftpb::EntryType::EntryNormal if entry.data.is_empty() => Payload::Empty,
            eraftpb::EntryType::EntryNormal => Payload::Data(entry.data),
            eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
                match convert::decode_conf_change(&entry.data) {
                    Some(change) => {
                        self.adopt_conf_change(&change);
                        Payload::ConfChange(change)
                    }
                    None => Payload::Empty,
                }
            }
        };
        Committed { at, payload }
    }

    fn adopt_conf_change(&mut self, change: &raftpb::ConfChange) {
        let Some(change) = convert::conf_change_in(change) else {
            return;
        };
        // Refused only for what leaves no voter; then every member refuses it alike.
        if let Ok(state) = self.raw.apply_conf_change(&change) {
            self.raw.mut_store().set_conf_state(state);
        }
    }

    /// Replaces the library's own random election timeout, which it draws at every change of term
    /// or role, by a function of seed, id and term. It is never used inside the call that draws it.
    fn spread_election(&mut self) {
        let id = self.config.raft_id;
        let mut mix = Mix::new(self.config.seed ^ id.rotate_left(32) ^ self.raw.raft.term);
        let least = self.config.election_ticks;
        let extra = mix.below(least as u64) as usize;
        self.raw.raft.set_randomized_election_timeout(least + extra);
    }
}
