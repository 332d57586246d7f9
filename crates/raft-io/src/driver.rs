//! The thread that owns a [`Member`] and its log, and the async handle to it.
//!
//! Owns time (ticks), the queue of proposals, group commit, the answer to each proposer, and the
//! thread that writes snapshots. What may happen in which order is decided in `swarm-raft`; what
//! an entry means, behind [`Apply`].
//!
//! One pass of the thread: take what is queued, propose it all, make it durable with one write and
//! one sync, send messages, apply what is committed, answer the proposers.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use swarm_api::raftpb;
use swarm_raft::disk::Disk;
use swarm_raft::log::{IdentityError, LogError};
use swarm_raft::member::{Bootstrap, MemberConfig, MemberStart, OpenError, Recovery};
use swarm_raft::seal::Keyring;
use swarm_raft::snapshot::file_name;
use swarm_raft::{Identity, Member, Position, Refusal, Role};
use swarm_rt::{Clock, OsIds};
use tokio::sync::{Semaphore, watch};

use crate::disk::RealDisk;
use crate::keys::{self, KeyError, KeyKeeper};
use crate::state_dir::{StateDir, StateDirError};

mod handle;
mod snapshots;
#[cfg(test)]
mod tests;
mod worker;

pub use handle::{Handle, Pending};
use worker::Worker;

/// SwarmKit's tick.
pub const TICK_DEFAULT: Duration = Duration::from_secs(1);

/// Bytes of proposals that wait or are under way at most. Whoever comes later waits for room.
pub const QUEUE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A proposal counts as a multiple of this, so the number of proposals is bounded as well.
const QUEUE_UNIT_BYTES: usize = 4 * 1024;

/// Proposals that wait or are under way at most.
pub const QUEUE_PROPOSALS_MAX: usize = QUEUE_BYTES_MAX / QUEUE_UNIT_BYTES;

/// Messages of peers that wait at most; later ones are dropped, as a network may drop them.
pub const QUEUE_MESSAGES_MAX: usize = 4096;

/// Room for the few inputs that are not counted: stop, snapshot done, new policy.
const QUEUE_CONTROL_MAX: usize = 64;

/// What the replicated state must be able to do. All calls come from one thread, in log order.
pub trait Apply: Send + 'static {
    /// Takes a committed entry. It must not fail: what cannot be applied is skipped alike by every
    /// member.
    fn apply(&mut self, at: Position, data: &Bytes, origin: Origin);

    /// Takes a committed change of the manager set. Consensus has already adopted it.
    fn conf_change(&mut self, at: Position, change: &raftpb::ConfChange);

    /// A proposal made here was refused, and all that were submitted after it in its epoch will be.
    /// Those before it are under way as ever. Called before anything later is applied, and before
    /// the proposers are told.
    fn refused(&mut self, data: &Bytes);

    /// All proposals made here were lost: whether they will be applied is open. Called before
    /// anything later is applied, and before the proposers are told.
    fn dropped(&mut self);

    /// Freezes the state and returns it as pieces, which another thread will pull.
    fn snapshot(&mut self) -> SnapshotPieces;

    /// Replaces the state by what an earlier [`Apply::snapshot`] returned, up to `at`. An error
    /// ends the member: its state is unknown.
    fn restore(
        &mut self,
        at: Position,
        pieces: &mut dyn Iterator<Item = Result<Vec<u8>, LogError>>,
    ) -> Result<(), RestoreError>;
}

/// A frozen state in pieces of any size.
pub type SnapshotPieces = Box<dyn Iterator<Item = Bytes> + Send>;

/// Why a state could not be restored.
pub type RestoreError = Box<dyn std::error::Error + Send + Sync>;

/// Where a committed entry comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Proposed through this handle in this run; the proposer is answered after the call.
    Local,
    /// From the log at the start, or from another member.
    Log,
}

/// Where messages to peers go. Losing some is allowed.
pub trait Transport: Send + 'static {
    /// Sends in order. Must not block.
    fn send(&mut self, messages: Vec<raftpb::Message>);
}

/// The transport of a group of one.
#[derive(Debug, Default)]
pub struct NoPeers;

impl Transport for NoPeers {
    fn send(&mut self, messages: Vec<raftpb::Message>) {
        tracing::warn!(
            count = messages.len(),
            "dropped raft messages: no transport to peers"
        );
    }
}

/// How the thread runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The member's own settings.
    pub member: MemberConfig,
    /// Time between ticks.
    pub tick: Duration,
    /// Id of the cluster, empty if not known; an existing log of another cluster is refused.
    pub cluster_id: String,
    /// What a fresh directory becomes.
    pub bootstrap: Bootstrap,
}

impl Options {
    /// Defaults for a manager that starts a cluster, or restarts in one.
    pub fn alone(cluster_id: &str) -> Self {
        Options {
            member: MemberConfig::default(),
            tick: TICK_DEFAULT,
            cluster_id: cluster_id.to_owned(),
            bootstrap: Bootstrap::Alone {
                context: Bytes::new(),
            },
        }
    }
}

/// The state of the member as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Own role.
    pub role: Role,
    /// Current term.
    pub term: u64,
    /// The leader, if known.
    pub leader: Option<u64>,
    /// Leads, and has applied everything that any leader before acknowledged: from here on reads
    /// are complete and proposals make sense.
    pub ready: bool,
    /// Index of the newest durable snapshot; 0 when there is none.
    pub snapshot: u64,
    /// Why writes are refused for now: the disk is full.
    pub disk_full: Option<String>,
    /// Set at the end, never unset.
    pub stopped: Option<Stopped>,
}

/// How the thread ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// As asked.
    Asked,
    /// The log failed or the state could not be restored. The process should end.
    Failed(String),
}

/// A proposal that was applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Where it stands in the log.
    pub at: Position,
}

/// Why a proposal was not applied, as far as is known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// It was not taken. Nothing has happened.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// It was made on top of one that was refused or lost. Nothing has happened.
    #[error("an earlier proposal that this one builds on was not applied")]
    Superseded,
    /// The queue is full. Nothing has happened.
    #[error(
        "{QUEUE_BYTES_MAX} bytes or {QUEUE_PROPOSALS_MAX} proposals wait for the raft log: try \
         again later"
    )]
    Busy,
    /// It was taken, and then another leader took over. It may or may not be applied later.
    #[error("this manager lost leadership while the proposal was under way: its outcome is open")]
    LostLeadership,
    /// The thread has ended. If the proposal was taken, it may be applied after a restart.
    #[error("the raft member of this manager has stopped")]
    Stopped,
}

/// Why the data key was not changed. What was written under the new one stays readable: both are
/// kept.
#[derive(Debug, thiserror::Error)]
pub enum RekeyError {
    /// The keeper of keys could not.
    #[error("the keys cannot be kept")]
    Keeper(#[source] keys::KeeperError),
    /// There is no room for another file.
    #[error("the disk of the raft log is full: {0}")]
    DiskFull(String),
    /// Another change is under way, or the thread has ended.
    #[error("the raft member is busy or has stopped")]
    Stopped,
}

/// Why the thread could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The directory is not usable.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The data key is not usable.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The ids are malformed.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// Log or snapshots are not usable.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The log failed during replay.
    #[error("the raft log failed during replay: {0}")]
    Replay(String),
    /// The state could not be restored from the snapshot.
    #[error("the state cannot be restored from the snapshot {}", file_name(*.at))]
    Restore {
        /// Which snapshot.
        at: Position,
        /// What the state said.
        source: RestoreError,
    },
    /// No thread could be made.
    #[error("cannot start the raft thread")]
    Thread(#[source] std::io::Error),
}

/// Opens the log of a state directory, brings `apply` to the state that it holds, and starts the
/// thread. Blocks for as long as reading takes. The directory stays held until the thread ends.
pub fn start<A: Apply, T: Transport>(
    state: StateDir,
    keeper: &dyn KeyKeeper,
    options: Options,
    apply: A,
    transport: T,
) -> Result<(Handle, Recovery), StartError> {
    let raft_dir = state.raft_dir()?;
    let keys = keys::load_or_create(&raft_dir, keeper)?;
    let disk = RealDisk::new(&raft_dir);
    start_on(disk, keys, Some(state), options, apply, transport)
}

/// As [`start`], on any disk.
pub fn start_on<D, A, T>(
    disk: D,
    keys: Keyring,
    held: Option<StateDir>,
    options: Options,
    mut apply: A,
    transport: T,
) -> Result<(Handle, Recovery), StartError>
where
    D: Disk + Clone + Send + 'static,
    A: Apply,
    T: Transport,
{
    let mut random = OsIds::new();
    // Uniform in [1, 2^63]; used only if the directory has no id yet.
    let raft_id = (random.next_u64() >> 1) + 1;
    let mut config = options.member;
    config.seed ^= random.next_u64();
    let start = MemberStart {
        identity: Identity::new(&options.cluster_id, raft_id)?,
        keys,
        salts: Box::new(move || {
            let mut salt = [0; 16];
            salt[..8].copy_from_slice(&random.next_u64().to_le_bytes());
            salt[8..].copy_from_slice(&random.next_u64().to_le_bytes());
            salt
        }),
        bootstrap: options.bootstrap,
    };
    let (member, recovery) = Member::open(disk.clone(), config, start)?;
    report(&recovery);
    restore(&member, &mut apply)?;
    let (sender, inputs) =
        mpsc::sync_channel(QUEUE_PROPOSALS_MAX + QUEUE_MESSAGES_MAX + QUEUE_CONTROL_MAX);
    let (status, watched) = watch::channel(worker::status_of(&member, None, None));
    let applied = Arc::new(AtomicU64::new(member.core().applied().index));
    let handle = Handle {
        inputs: sender.clone(),
        status: watched,
        applied: Arc::clone(&applied),
        proposals: Arc::new(Semaphore::new(QUEUE_PROPOSALS_MAX)),
        messages: Arc::new(Semaphore::new(QUEUE_MESSAGES_MAX)),
        raft_id: member.identity().raft_id(),
    };
    let mut worker = Worker::new(
        member,
        apply,
        transport,
        worker::Wiring {
            disk,
            inputs,
            sender,
            status,
            applied,
            clock: Clock::new(),
            tick: options.tick,
            held,
        },
    );
    worker.replay().map_err(StartError::Replay)?;
    std::thread::Builder::new()
        .name("raft".to_owned())
        .spawn(move || worker.run())
        .map_err(StartError::Thread)?;
    Ok((handle, recovery))
}

/// Gives the state machine the newest snapshot.
fn restore<D: Disk + Clone, A: Apply>(member: &Member<D>, apply: &mut A) -> Result<(), StartError> {
    let Some(mut reader) = member.read_snapshot().map_err(OpenError::Log)? else {
        return Ok(());
    };
    let at = reader.meta().at;
    let mut pieces = std::iter::from_fn(|| reader.next_chunk().transpose());
    apply
        .restore(at, &mut pieces)
        .map_err(|source| StartError::Restore { at, source })
}

/// Tells the operator what the start has found.
fn report(recovery: &Recovery) {
    if let Some(torn) = &recovery.truncated {
        tracing::warn!(
            file = torn.file,
            offset = torn.offset,
            bytes = torn.bytes,
            "ignored the torn end of the raft log: nothing says that it was acknowledged"
        );
    }
    for error in &recovery.skipped_snapshots {
        tracing::error!(
            error = %swarm_rt::chain(error),
            "a raft snapshot cannot be read: an older one and the log are used"
        );
    }
    tracing::info!(
        fresh = recovery.fresh,
        snapshot = recovery.snapshot.map_or(0, |at| at.index),
        last = recovery.last.index,
        "raft log opened"
    );
}
