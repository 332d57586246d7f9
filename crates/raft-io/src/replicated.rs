//! The replicated store: transactions go in, become proposals, and are published when the log has
//! them.
//!
//! This is the only place that knows both the store and the log. Readers never wait: they take the
//! published view. Writers start from the head, so a second write need not wait for the first to
//! become durable, and writes that come together share one sync.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use swarm_raft::Refusal;
use swarm_raft::member::Recovery;
use swarm_raft::seal::DataKey;
use swarm_reconcile::Outcome;
use swarm_rt::Clock;
use swarm_store::{
    HistoryLimits, PIPELINE_COMMITS_MAX, Pipeline, Root, Store, Transaction, View, WriteSet,
};
use swarm_types::ClusterId;
use tokio::sync::Semaphore;

use crate::driver::{
    self, Applied, Handle, NoPeers, Options, Pending, ProposeError, RekeyError, Stopped,
};
use crate::keys::{self, KeeperError, KeyKeeper, KeySet};
use crate::state_dir::{StateDir, StateDirError};

mod machine;
#[cfg(test)]
mod tests;

use machine::{Machine, Shared, Told, Writer};

/// Writes of clients that may be under way; the loops need a few places of their own.
const WRITES_MAX: usize = PIPELINE_COMMITS_MAX / 2;

/// Settings of log and consensus.
#[derive(Clone, Debug)]
pub struct ReplicatedConfig {
    /// The member's own settings.
    pub member: swarm_raft::MemberConfig,
    /// Time between ticks.
    pub tick: std::time::Duration,
}

impl Default for ReplicatedConfig {
    fn default() -> Self {
        Self {
            member: swarm_raft::MemberConfig::default(),
            tick: driver::TICK_DEFAULT,
        }
    }
}

/// Why the replicated store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The state directory is not usable.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The log is not usable.
    #[error(transparent)]
    Start(#[from] driver::StartError),
    /// The thread that opened it is gone.
    #[error("opening the log was cancelled")]
    Cancelled,
}

/// Attempts at a write whose base keeps being refused. Each takes a refusal of somebody else's
/// write in the same few milliseconds, so a second one is rare.
const WRITE_TRIES_MAX: usize = 8;

/// Why a write did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError<E> {
    /// The transaction itself was refused.
    #[error("the write was refused")]
    Refused(#[source] E),
    /// It does not fit a log entry.
    #[error("the write is too large for the log: {reason}; split it, or make the objects smaller")]
    TooLarge {
        /// Size and limit, in words.
        reason: String,
    },
    /// The manager's disk is full. Nothing was written.
    #[error(
        "the manager's disk is full, so nothing can be written; reads still work; free space in \
         the state directory and try again"
    )]
    DiskFull,
    /// The manager's disk became full while the write was under way.
    #[error(
        "the manager's disk is full, and whether this write will be applied when there is room \
         again is open; reads still work; free space in the state directory, then look"
    )]
    Stalled,
    /// This manager does not lead. Nothing was written.
    #[error("this manager does not lead")]
    NotLeader,
    /// Leadership was lost while the write was under way.
    #[error(
        "this manager lost leadership while the write was under way: whether it will be applied \
         is open; look at the object before trying again"
    )]
    LostLeadership,
    /// Too much is under way. Nothing was written.
    #[error("too many writes are under way; try again later")]
    Busy,
    /// The manager stops, or its log has failed.
    #[error(
        "the manager is stopping: whether the write will be applied after its next start is open"
    )]
    Stopped,
}

impl<E> WriteError<E> {
    fn of(error: &ProposeError) -> Self {
        match error {
            ProposeError::Refused(refusal) => Self::refused_by_log(refusal),
            ProposeError::LostLeadership => Self::LostLeadership,
            ProposeError::Busy | ProposeError::Superseded => Self::Busy,
            ProposeError::Stopped => Self::Stopped,
        }
    }

    fn refused_by_log(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::TooLarge { .. } => Self::TooLarge {
                reason: refusal.to_string(),
            },
            Refusal::DiskFull(_) => Self::DiskFull,
            Refusal::NotLeader { .. } => Self::NotLeader,
            // A commit always has bytes, so `Empty` does not happen.
            Refusal::Backlog { .. }
            | Refusal::Transferring
            | Refusal::ConfChangePending
            | Refusal::Empty => Self::Busy,
            Refusal::LogStopped(_) => Self::Stopped,
        }
    }
}

/// Told how a transaction ended.
type Done = Box<dyn FnOnce(Outcome) + Send>;

/// The store of a manager. Clones share it.
#[derive(Clone)]
pub struct ReplicatedStore {
    shared: Arc<Shared>,
    handle: Handle,
    clock: Clock,
    keeper: Arc<dyn KeyKeeper>,
    writes: Arc<Semaphore>,
    entry_bytes_max: usize,
}

impl std::fmt::Debug for ReplicatedStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReplicatedStore")
            .field("handle", &self.handle)
            .finish_non_exhaustive()
    }
}

impl ReplicatedStore {
    /// Opens the log in a directory and replays it; returns when everything in it is applied.
    ///
    /// # Errors
    /// [`OpenError`]: the directory is in use, or the log is damaged, or of another cluster.
    pub async fn open(
        directory: &Path,
        config: ReplicatedConfig,
        cluster: &ClusterId,
        clock: Clock,
        first_id: u64,
        keeper: Arc<dyn KeyKeeper>,
    ) -> Result<Self, OpenError> {
        let state = StateDir::open(directory)?;
        let start = {
            let keeper = Arc::clone(&keeper);
            move |options, machine| driver::start(state, keeper.as_ref(), options, machine, NoPeers)
        };
        Self::open_with(config, cluster, clock, first_id, keeper, start).await
    }

    /// The same on whatever log `start` opens.
    async fn open_with<F>(
        config: ReplicatedConfig,
        cluster: &ClusterId,
        clock: Clock,
        first_id: u64,
        keeper: Arc<dyn KeyKeeper>,
        start: F,
    ) -> Result<Self, OpenError>
    where
        F: FnOnce(Options, Machine) -> Result<(Handle, Recovery), driver::StartError>
            + Send
            + 'static,
    {
        let shared = Arc::new(Shared {
            store: Store::new(Root::default(), HistoryLimits::default()),
            writer: Mutex::new(Writer {
                pipeline: Pipeline::new(Root::default(), first_id),
                waiting: BTreeMap::new(),
                refused: BTreeMap::new(),
            }),
        });
        let mut options = Options::alone(&cluster.to_string());
        let entry_bytes_max = config.member.proposal_bytes_max;
        options.member = config.member;
        options.tick = config.tick;
        let machine = Machine {
            shared: Arc::clone(&shared),
        };
        let started = tokio::task::spawn_blocking(move || start(options, machine));
        let (handle, _) = started.await.map_err(|_| OpenError::Cancelled)??;
        Ok(Self {
            shared,
            handle,
            clock,
            keeper,
            writes: Arc::new(Semaphore::new(WRITES_MAX)),
            entry_bytes_max,
        })
    }

    /// The newest published version.
    pub fn view(&self) -> View {
        self.shared.store.view()
    }

    /// The published store: views, subscriptions, history.
    pub fn store(&self) -> &Store {
        &self.shared.store
    }

    /// Runs a transaction on the head and waits until it is durable and published.
    ///
    /// The transaction runs again when an earlier write, on which it was built, was refused. A
    /// caller that goes away does not take the write back.
    ///
    /// # Errors
    /// [`WriteError`]; unless it says that the outcome is open, nothing was written.
    pub async fn write<T, E>(
        &self,
        mut write: impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<T, WriteError<E>> {
        let _place = self
            .writes
            .acquire()
            .await
            .map_err(|_| WriteError::Stopped)?;
        for _ in 0..WRITE_TRIES_MAX {
            let (value, pending) = self.begin_write(&mut write)?;
            let Some(pending) = pending else {
                return Ok(value);
            };
            match self.settle(pending).await? {
                Err(ProposeError::Superseded) => {}
                Err(error) => return Err(WriteError::of(&error)),
                Ok(_) => return Ok(value),
            }
        }
        Err(WriteError::Busy)
    }

    /// Waits for a write, but not for a disk that is full.
    async fn settle<E>(
        &self,
        pending: Pending,
    ) -> Result<Result<Applied, ProposeError>, WriteError<E>> {
        let mut status = self.handle.status();
        tokio::select! {
            biased;
            outcome = pending.wait() => Ok(outcome),
            // When the thread is gone, the outcome tells.
            Ok(_) = status.wait_for(|status| status.disk_full.is_some()) => {
                Err(WriteError::Stalled)
            }
        }
    }

    fn begin_write<T, E>(
        &self,
        write: &mut impl FnMut(&mut Transaction) -> Result<T, E>,
    ) -> Result<(T, Option<Pending>), WriteError<E>> {
        let mut writer = self.shared.writer();
        let mut transaction = writer.pipeline.begin(self.clock.now());
        let value = write(&mut transaction).map_err(WriteError::Refused)?;
        if transaction.is_empty() {
            return Ok((value, None));
        }
        let staged = writer.pipeline.stage(transaction);
        let (size, limit) = (staged.bytes.len(), self.entry_bytes_max);
        if size > limit {
            // Taken back here: if the log refused it, it would refuse all that follow as well.
            writer.pipeline.unstage(&staged);
            let reason = Refusal::TooLarge { size, limit }.to_string();
            return Err(WriteError::TooLarge { reason });
        }
        let pending = writer.propose(&self.handle, staged, None);
        let pending = pending.map_err(|error| WriteError::of(&error))?;
        Ok((value, Some(pending)))
    }

    /// Applies write sets, each or not, in one transaction on the head; tells `done` when it is
    /// durable and published, or will never be. Sets that are all refused are told so when the
    /// commits on which they failed are published. Does not wait.
    pub fn submit(&self, sets: Vec<WriteSet>, done: impl FnOnce(Outcome) + Send + 'static) {
        let mut writer = self.shared.writer();
        let now = self.clock.now();
        let packed = writer.pipeline.pack(now, sets, self.entry_bytes_max);
        let told = Told {
            refused: packed.refused,
            oversize: packed.oversize,
            done: Box::new(done),
        };
        let Some(staged) = packed.staged else {
            if let Some(id) = writer.pipeline.last_waiting() {
                writer.refused.entry(id).or_default().push(told);
                return;
            }
            let version = writer.pipeline.published().version();
            drop(writer);
            told.committed(version);
            return;
        };
        // The outcome is told when the entry is applied, or dropped.
        drop(writer.propose(&self.handle, staged, Some(told)));
    }

    /// Waits until this manager leads and everything before is applied. Cancel safe.
    ///
    /// # Errors
    /// When the log has stopped.
    pub async fn leadership_gained(&self) -> Result<(), LogStopped> {
        self.handle.wait_ready().await.map_err(|_| self.stopped())
    }

    /// Waits until this manager no longer leads, or its log has stopped. Cancel safe.
    pub async fn leadership_lost(&self) {
        let mut status = self.handle.status();
        // An error means that the thread is gone, which is a loss as well.
        drop(
            status
                .wait_for(|status| !status.ready || status.stopped.is_some())
                .await,
        );
    }

    /// Seals log and snapshots under a new data key, and waits until the old one opens nothing that
    /// is still there. A change that was cut short, also by the end of the process, goes on where
    /// it was. Cancel safe.
    ///
    /// # Errors
    /// [`RekeyError`]; the keeper has both keys then, and the call can be made again.
    pub async fn rotate_data_key(&self) -> Result<(), RekeyError> {
        let pending = self.with_keeper(begin_rotation).await?;
        self.handle.rekey(pending.clone()).await?;
        self.with_keeper(move |keeper| keeper.save(&KeySet::settled(pending)))
            .await
    }

    /// Keys are files.
    async fn with_keeper<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn KeyKeeper) -> Result<T, KeeperError> + Send + 'static,
    ) -> Result<T, RekeyError> {
        let keeper = Arc::clone(&self.keeper);
        let done = tokio::task::spawn_blocking(move || work(keeper.as_ref())).await;
        done.map_err(|_| RekeyError::Stopped)?
            .map_err(RekeyError::Keeper)
    }

    /// This member's id in the Raft group.
    pub fn raft_id(&self) -> u64 {
        self.handle.raft_id()
    }

    /// Closes the log after everything queued so far.
    ///
    /// # Errors
    /// When the log had failed before.
    pub async fn close(&self) -> Result<(), LogStopped> {
        match self.handle.stop().await {
            Stopped::Asked => Ok(()),
            Stopped::Failed(reason) => Err(LogStopped { reason }),
        }
    }

    fn stopped(&self) -> LogStopped {
        let status = self.handle.status();
        let reason = match &status.borrow().stopped {
            Some(Stopped::Failed(reason)) => reason.clone(),
            Some(Stopped::Asked) | None => "it was closed".to_owned(),
        };
        LogStopped { reason }
    }
}

/// The key of the change that is under way, or a new one, which is kept before it is used.
fn begin_rotation(keeper: &dyn KeyKeeper) -> Result<DataKey, KeeperError> {
    let kept = keeper.load()?.ok_or("the data key is gone")?;
    if let Some(pending) = kept.pending {
        return Ok(pending);
    }
    let pending = keys::new_key();
    keeper.save(&KeySet {
        current: kept.current,
        pending: Some(pending.clone()),
    })?;
    Ok(pending)
}

/// The log does not work any more; the manager has to stop.
#[derive(Debug, thiserror::Error)]
#[error("the manager's log has stopped: {reason}")]
pub struct LogStopped {
    reason: String,
}
