//! The async side: what the rest of the manager holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError};

use bytes::Bytes;
use swarm_api::raftpb;
use swarm_raft::seal::DataKey;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};

use super::worker::{Input, Proposal};
use super::{
    Applied, ProposeError, QUEUE_PROPOSALS_MAX, QUEUE_UNIT_BYTES, RekeyError, Status, Stopped,
};

/// A handle to the thread; clones share it. The thread does not end when handles are dropped.
#[derive(Clone, Debug)]
pub struct Handle {
    pub(super) inputs: SyncSender<Input>,
    pub(super) status: watch::Receiver<Status>,
    pub(super) applied: Arc<AtomicU64>,
    pub(super) proposals: Arc<Semaphore>,
    pub(super) messages: Arc<Semaphore>,
    pub(super) raft_id: u64,
}

/// A proposal under way.
#[derive(Debug)]
pub struct Pending {
    reply: oneshot::Receiver<Result<Applied, ProposeError>>,
}

impl Pending {
    /// Waits for the outcome. There is no limit: a leader without a majority has none until it
    /// steps down. Dropping the wait does not take the proposal back.
    pub async fn wait(self) -> Result<Applied, ProposeError> {
        self.reply.await.unwrap_or(Err(ProposeError::Stopped))
    }
}

impl Handle {
    /// Proposes data and waits until it is applied here. Waits for room in the queue first; the
    /// caller sets the limit for the whole wait.
    pub async fn propose(&self, data: Bytes) -> Result<Applied, ProposeError> {
        let permit = Arc::clone(&self.proposals)
            .acquire_many_owned(units(&data))
            .await;
        let permit = permit.map_err(|_| ProposeError::Stopped)?;
        self.queue(data, None, permit)?.wait().await
    }

    /// Queues a proposal without waiting. Calls from one thread are proposed in their order.
    ///
    /// `epoch` orders proposals that build on each other: once one is refused or lost, all of its
    /// epoch and before are refused, also those already queued.
    pub fn submit(&self, data: Bytes, epoch: u64) -> Result<Pending, ProposeError> {
        let permit = Arc::clone(&self.proposals).try_acquire_many_owned(units(&data));
        let permit = permit.map_err(|_| ProposeError::Busy)?;
        self.queue(data, Some(epoch), permit)
    }

    /// Hands a peer's message to the thread. Dropped when too many wait, as a network drops.
    pub fn step(&self, message: raftpb::Message) {
        match Arc::clone(&self.messages).try_acquire_owned() {
            Ok(permit) => {
                // A thread that has ended needs no message.
                drop(self.inputs.try_send(Input::Step(Box::new(message), permit)));
            }
            Err(_) => tracing::debug!("dropped a raft message: too many wait"),
        }
    }

    /// Changes the live snapshot settings: interval, old snapshots to keep, entries to keep for
    /// slow followers.
    pub fn set_snapshot_policy(
        &self,
        interval: u64,
        keep_old: u64,
        slow_followers: u64,
    ) -> Result<(), ProposeError> {
        self.send(Input::Policy {
            interval,
            keep_old,
            slow_followers,
        })
    }

    /// Seals everything from now on under another data key, and waits until no file needs an older
    /// one. That takes a snapshot, and one entry more than the last snapshot has.
    pub async fn rekey(&self, key: DataKey) -> Result<(), RekeyError> {
        let (reply, done) = oneshot::channel();
        self.send(Input::Rekey(key, reply))
            .map_err(|_| RekeyError::Stopped)?;
        done.await.unwrap_or(Err(RekeyError::Stopped))
    }

    /// The member's state and its changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// Index of the last entry applied here.
    pub fn applied(&self) -> u64 {
        self.applied.load(Ordering::Acquire)
    }

    /// Own id in the group.
    pub fn raft_id(&self) -> u64 {
        self.raft_id
    }

    /// Waits until this member leads with everything applied. The caller sets the limit.
    pub async fn wait_ready(&self) -> Result<(), ProposeError> {
        let mut status = self.status.clone();
        let settled = status
            .wait_for(|status| status.ready || status.stopped.is_some())
            .await;
        match settled {
            Ok(status) if status.stopped.is_none() => Ok(()),
            Ok(_) | Err(_) => Err(ProposeError::Stopped),
        }
    }

    /// Ends the thread after everything queued so far, and waits for its end. The state directory
    /// is free when this returns.
    pub async fn stop(&self) -> Stopped {
        let (reply, done) = oneshot::channel();
        if self.send(Input::Stop(reply)).is_ok() && done.await.is_ok() {
            return Stopped::Asked;
        }
        let mut status = self.status.clone();
        match status.wait_for(|status| status.stopped.is_some()).await {
            Ok(status) => status.stopped.clone().unwrap_or(Stopped::Asked),
            Err(_) => Stopped::Failed("the raft thread ended in a panic".to_owned()),
        }
    }

    fn queue(
        &self,
        data: Bytes,
        epoch: Option<u64>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Pending, ProposeError> {
        let (reply, receiver) = oneshot::channel();
        self.send(Input::Propose(Proposal {
            data,
            epoch,
            reply,
            permit,
        }))?;
        Ok(Pending { reply: receiver })
    }

    fn send(&self, input: Input) -> Result<(), ProposeError> {
        self.inputs.try_send(input).map_err(|error| match error {
            // Permits keep proposals below the size of the queue.
            TrySendError::Full(_) => ProposeError::Busy,
            TrySendError::Disconnected(_) => ProposeError::Stopped,
        })
    }
}

/// Units of the queue that a proposal takes. One that is larger than the queue is refused by its
/// size later; here it takes the whole queue.
fn units(data: &Bytes) -> u32 {
    let units = data
        .len()
        .div_ceil(QUEUE_UNIT_BYTES)
        .clamp(1, QUEUE_PROPOSALS_MAX);
    u32::try_from(units).expect("the queue has fewer than 2^32 units")
}
