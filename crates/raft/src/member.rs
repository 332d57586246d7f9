//! One member of the consensus group: core, log and snapshots in the only safe order.
//!
//! Owns recovery (what of a directory counts), the order "persist, then send and apply", when
//! snapshots are due, and what they allow to forget. Still does no I/O of its own: the disk is an
//! argument, so the simulator runs exactly this code.
//!
//! The caller's loop: [`Member::tick`], [`Member::step`] and [`Member::propose`] as things happen,
//! then [`Member::drive`] until it returns `None`, applying all that each call hands out before
//! the next. After a [`DriveError::Retry`] only `drive` may be called, later.

use bytes::Bytes;
use swarm_api::raftpb;

use crate::checks::MessageError;
use crate::consensus::{
    self, Committed, Core, CoreConfig, Payload, Ready, Refusal, Restored, Role, SnapshotOutcome,
    StartError,
};
use crate::disk::{Disk, DiskError};
use crate::log::{
    self, Identity, Log, LogError, LogOptions, Position, SEGMENT_BYTES_DEFAULT, StartPoint,
    TornTail,
};
use crate::seal::{Keyring, SaltSource};
use crate::snapshot::SnapshotMeta;

mod opening;
mod snapshots;
#[cfg(test)]
mod tests;

use opening::{
    is_unborn, name_the_file, newest_snapshot, remove_unfinished, settle_identity, settle_log,
};
use snapshots::{InFlight, Rekeying};

/// Applied entries between snapshots, as in SwarmKit.
pub const SNAPSHOT_INTERVAL_DEFAULT: u64 = 10_000;

/// Bytes of applied entries between snapshots: 1 GiB. Ten thousand large entries are 15 GiB of log.
pub const SNAPSHOT_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;

/// Entries kept behind a snapshot for followers that lag, as in SwarmKit.
pub const ENTRIES_FOR_SLOW_FOLLOWERS_DEFAULT: u64 = 500;

/// How a member behaves.
#[derive(Clone, Debug)]
pub struct MemberConfig {
    /// Bytes in a log segment.
    pub segment_bytes: u64,
    /// Applied entries after which a snapshot is due; 0 means never.
    pub snapshot_interval: u64,
    /// Bytes of applied entries after which a snapshot is due, however few they are.
    pub snapshot_bytes: u64,
    /// Snapshots kept besides the newest.
    pub keep_old_snapshots: u64,
    /// Entries kept behind a snapshot for followers that lag.
    pub entries_for_slow_followers: u64,
    /// Ticks without a leader before an election, at least.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Bytes in one proposal at most.
    pub proposal_bytes_max: usize,
    /// Bytes of applied entries kept in memory as long as there are no peers, at most.
    pub applied_bytes_alone: u64,
    /// Spreads election timeouts.
    pub seed: u64,
}

impl Default for MemberConfig {
    fn default() -> Self {
        MemberConfig {
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            snapshot_interval: SNAPSHOT_INTERVAL_DEFAULT,
            snapshot_bytes: SNAPSHOT_BYTES_DEFAULT,
            keep_old_snapshots: 0,
            entries_for_slow_followers: ENTRIES_FOR_SLOW_FOLLOWERS_DEFAULT,
            election_ticks: consensus::ELECTION_TICKS_DEFAULT,
            heartbeat_ticks: consensus::HEARTBEAT_TICKS_DEFAULT,
            proposal_bytes_max: consensus::PROPOSAL_BYTES_MAX,
            applied_bytes_alone: consensus::APPLIED_BYTES_ALONE_DEFAULT,
            seed: 0,
        }
    }
}

/// Bytes that an entry adds to the log; what is beside its data does not count.
fn payload_bytes(entry: &Committed) -> u64 {
    match &entry.payload {
        Payload::Data(data) => data.len() as u64,
        Payload::Empty | Payload::ConfChange(_) => 0,
    }
}

/// What a fresh directory becomes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bootstrap {
    /// A new group with this member as its only voter; the bytes describe it to members that join
    /// later.
    Alone {
        /// Context of the first membership change.
        context: Bytes,
    },
    /// A member without entries, waiting for the leader of an existing group.
    Join,
}

/// Who this member is and how its files are sealed.
pub struct MemberStart {
    /// Ids for a fresh directory. An existing one keeps its own raft id; its cluster id must be
    /// this one, unless either is empty.
    pub identity: Identity,
    /// Keys at rest.
    pub keys: Keyring,
    /// Fresh salts.
    pub salts: SaltSource,
    /// What to do with a fresh directory.
    pub bootstrap: Bootstrap,
}

/// What was found at the start, for the operator's log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the directory was empty.
    pub fresh: bool,
    /// The end of the log that was never acknowledged and is ignored.
    pub truncated: Option<TornTail>,
    /// Snapshots that could not be read; an older one and the log make up for them.
    pub skipped_snapshots: Vec<LogError>,
    /// The snapshot that the state machine must be restored from before anything else.
    pub snapshot: Option<Position>,
    /// Last entry in the log.
    pub last: Position,
}

/// Why a member could not start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The files cannot be read, or not trusted.
    #[error("raft state cannot be opened")]
    Log(#[from] LogError),
    /// The parts do not fit.
    #[error("raft state is inconsistent")]
    State(#[from] StartError),
}

impl From<DiskError> for OpenError {
    fn from(error: DiskError) -> Self {
        OpenError::Log(LogError::Disk(error))
    }
}

/// Why no progress was made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DriveError {
    /// The write can be tried again when there is space. Nothing is lost.
    #[error("the raft log cannot be written for now")]
    Retry(#[source] LogError),
    /// The member must stop.
    #[error("the raft log has failed")]
    Fatal(#[source] LogError),
}

/// One pass of work that is durable.
#[derive(Debug, Default)]
pub struct Output {
    /// To send, in order.
    pub messages: Vec<raftpb::Message>,
    /// A state that replaces the state machine's, before anything else is applied.
    pub installed: Option<(SnapshotMeta, Bytes)>,
    /// To apply, in order.
    pub committed: Vec<Committed>,
}

/// A member of the group.
pub struct Member<D> {
    core: Core,
    log: Log<D>,
    disk: D,
    config: MemberConfig,
    identity: Identity,
    keys: Keyring,
    newest_snapshot: Position,
    /// Bytes of the entries that were applied since the newest snapshot began.
    applied_bytes: u64,
    /// A snapshot that is being written.
    in_flight: Option<InFlight>,
    /// A change of the data key that is under way.
    rekeying: Option<Rekeying>,
    /// After a failure: not before this index is applied.
    snapshot_not_before: u64,
    /// Records and bytes proposed and not yet in the log.
    queued: (usize, usize),
}

impl<D: Disk + Clone> Member<D> {
    /// Opens a directory, repairs what may be repaired, and starts a new segment.
    pub fn open(
        mut disk: D,
        config: MemberConfig,
        start: MemberStart,
    ) -> Result<(Self, Recovery), OpenError> {
        remove_unfinished(&mut disk)?;
        let found = log::recover(&mut disk, &start.keys)?;
        let (meta, skipped) = newest_snapshot(&disk, &start.keys)?;
        let identity = settle_identity(&start.identity, found.as_ref(), meta.as_ref())?;
        let meta = meta.map(|(meta, _)| meta);
        let fresh = found.is_none() && meta.is_none();
        if let Some(damage) = skipped.first().filter(|_| fresh) {
            // Not a fresh directory, but one of which only damage is left.
            return Err(damage.clone().into());
        }
        let mut recovery = Recovery {
            fresh,
            truncated: found.as_ref().and_then(|found| found.truncated.clone()),
            skipped_snapshots: skipped,
            snapshot: meta.as_ref().map(|meta| meta.at),
            last: Position::default(),
        };
        let settled = settle_log(found.as_ref(), meta);
        let (restored, reset) = settled
            .map_err(|error| name_the_file(error, &recovery.skipped_snapshots, found.as_ref()))?;
        let last = restored
            .entries
            .back()
            .map_or(restored.base, |entry| entry.at);
        let point = StartPoint {
            last,
            snapshot: restored.snapshot.as_ref().map(|meta| meta.at),
            hard_state: restored.hard_state,
            reset,
        };
        let options = LogOptions {
            segment_bytes: config.segment_bytes,
            identity: identity.clone(),
            keys: start.keys.clone(),
            salts: start.salts,
        };
        let mut log = Log::start(disk.clone(), options, found.as_ref(), point)?;
        let restored = begin(&mut log, restored, start.bootstrap)?;
        recovery.last = log.last();
        let newest_snapshot = recovery.snapshot.unwrap_or_default();
        let core = Core::new(core_config(&config, &identity), restored)?;
        let member = Member {
            core,
            log,
            disk,
            config,
            identity,
            keys: start.keys,
            newest_snapshot,
            applied_bytes: 0,
            in_flight: None,
            rekeying: None,
            snapshot_not_before: 0,
            queued: (0, 0),
        };
        Ok((member, recovery))
    }

    /// One tick of the clock.
    pub fn tick(&mut self) {
        self.core.tick();
        self.tick_rekeying();
    }

    /// Takes a message from a peer.
    pub fn step(&mut self, message: raftpb::Message) -> Result<(), MessageError> {
        self.core.step(message)
    }

    /// Proposes data; see [`Core::propose`]. Space for it is reserved first, so a full disk is a
    /// refusal and not a stop.
    pub fn propose(&mut self, data: Bytes) -> Result<Position, Refusal> {
        let (records, bytes) = (self.queued.0 + 1, self.queued.1 + data.len());
        if self.core.is_leader() && data.len() <= self.config.proposal_bytes_max {
            self.log.reserve(records, bytes).map_err(refusal)?;
        }
        let at = self.core.propose(data)?;
        self.queued = (records, bytes);
        Ok(at)
    }

    /// Proposes a change of membership; see [`Core::propose_conf_change`].
    pub fn propose_conf_change(
        &mut self,
        change: &raftpb::ConfChange,
    ) -> Result<Position, Refusal> {
        self.log
            .reserve(self.queued.0 + 1, self.queued.1 + 1024)
            .map_err(refusal)?;
        self.core.propose_conf_change(change)
    }

    /// Makes the next pass of work durable and hands out what follows from it. `None` when there
    /// is nothing to do.
    pub fn drive(&mut self) -> Result<Option<Output>, DriveError> {
        self.core.campaign_if_alone();
        let Some(ready) = self.core.ready() else {
            return Ok(None);
        };
        let ready = ready.clone();
        self.persist(&ready).map_err(drive_error)?;
        self.queued = (0, 0);
        let done = self.core.advance();
        self.applied_bytes += done.committed.iter().map(payload_bytes).sum::<u64>();
        let mut messages = done.messages;
        for message in &mut messages {
            self.fill_snapshot(message).map_err(DriveError::Fatal)?;
        }
        Ok(Some(Output {
            messages,
            installed: ready.snapshot,
            committed: done.committed,
        }))
    }

    /// The size of a spare log segment that should be prepared now, on any thread; see
    /// [`log::prepare_spare`]. Leaving it out makes rotations slower and nothing else.
    pub fn spare_due(&mut self) -> Option<u64> {
        self.log.spare_due()
    }

    /// Writes down the commit index, so that the next start has less to find out again.
    pub fn close(mut self) -> Result<(), LogError> {
        self.log.append(Some(self.core.hard_state()), &[])
    }

    /// Changes what may change while running: interval, snapshots and entries to keep.
    pub fn set_snapshot_policy(&mut self, interval: u64, keep_old: u64, slow_followers: u64) {
        self.config.snapshot_interval = interval;
        self.config.keep_old_snapshots = keep_old;
        self.config.entries_for_slow_followers = slow_followers;
    }

    /// The consensus state, to look at.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// Lets a peer speak; see [`Core::allow_peer`].
    pub fn allow_peer(&mut self, id: u64) {
        self.core.allow_peer(id);
    }

    /// See [`Core::forbid_peer`].
    pub fn forbid_peer(&mut self, id: u64) {
        self.core.forbid_peer(id);
    }

    /// See [`Core::transfer_leader`].
    pub fn transfer_leader(&mut self, to: u64) {
        self.core.transfer_leader(to);
    }

    /// See [`Core::report_unreachable`].
    pub fn report_unreachable(&mut self, id: u64) {
        self.core.report_unreachable(id);
    }

    /// See [`Core::report_snapshot`].
    pub fn report_snapshot(&mut self, id: u64, outcome: SnapshotOutcome) {
        self.core.report_snapshot(id, outcome);
    }

    /// Whose member this is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Own role.
    pub fn role(&self) -> Role {
        self.core.role()
    }

    /// Newest durable snapshot; index 0 when there is none.
    pub fn newest_snapshot(&self) -> Position {
        self.newest_snapshot
    }

    fn persist(&mut self, ready: &Ready) -> Result<(), LogError> {
        if let Some((meta, data)) = &ready.snapshot {
            self.install(meta, data)?;
        }
        if !ready.must_sync {
            // Only the commit index moved. It is found again from the entries.
            return Ok(());
        }
        self.log.append(Some(ready.hard_state), &ready.entries)
    }
}

/// Makes a member out of nothing a group of its own, if it is to be one.
fn begin<D: Disk>(
    log: &mut Log<D>,
    restored: Restored,
    bootstrap: Bootstrap,
) -> Result<Restored, LogError> {
    match bootstrap {
        // Also when a first start was cut short after it made an empty log.
        Bootstrap::Alone { context } if is_unborn(&restored) => {
            let mut first = consensus::bootstrap(log.identity().raft_id(), context);
            if restored.entries.is_empty() {
                log.append(None, first.entries.make_contiguous())?;
            } else {
                first.entries = restored.entries;
            }
            log.append(Some(first.hard_state), &[])?;
            Ok(first)
        }
        Bootstrap::Alone { .. } | Bootstrap::Join => Ok(restored),
    }
}

fn core_config(config: &MemberConfig, identity: &Identity) -> CoreConfig {
    CoreConfig {
        raft_id: identity.raft_id(),
        election_ticks: config.election_ticks,
        heartbeat_ticks: config.heartbeat_ticks,
        seed: config.seed,
        proposal_bytes_max: config.proposal_bytes_max,
        applied_bytes_alone: config.applied_bytes_alone,
    }
}

fn refusal(error: LogError) -> Refusal {
    match error.disk() {
        Some(cause) if cause.passes() => Refusal::DiskFull(cause.to_string()),
        Some(cause) => Refusal::LogStopped(cause.to_string()),
        None => Refusal::LogStopped(error.to_string()),
    }
}

fn drive_error(error: LogError) -> DriveError {
    if error.passes() {
        DriveError::Retry(error)
    } else {
        DriveError::Fatal(error)
    }
}
