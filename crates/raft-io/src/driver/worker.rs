//! The raft thread itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use swarm_api::raftpb;
use swarm_raft::disk::Disk;
use swarm_raft::log::prepare_spare;
use swarm_raft::member::{DriveError, Output};
use swarm_raft::seal::DataKey;
use swarm_raft::{Committed, Member, Payload, Refusal};
use swarm_rt::Clock;
use tokio::sync::{OwnedSemaphorePermit, oneshot, watch};

use super::snapshots::{Job, Outcome};
use super::{Applied, Apply, Origin, ProposeError, RekeyError, Status, Stopped, Transport};
use crate::state_dir::StateDir;

/// Bytes proposed before they are made durable together. Large enough to spread the cost of a
/// sync, small enough that the first of a batch does not wait long for the last.
const BATCH_BYTES_MAX: usize = 1024 * 1024;

/// Inputs taken before the next sync.
const BATCH_INPUTS_MAX: usize = 1024;

/// What the thread is told.
pub(super) enum Input {
    Propose(Proposal),
    Step(Box<raftpb::Message>, OwnedSemaphorePermit),
    SnapshotDone(Outcome),
    Policy {
        interval: u64,
        keep_old: u64,
        slow_followers: u64,
    },
    Rekey(DataKey, RekeyReply),
    Stop(oneshot::Sender<()>),
}

type RekeyReply = oneshot::Sender<Result<(), RekeyError>>;

/// A proposal in the queue.
pub(super) struct Proposal {
    pub(super) data: Bytes,
    pub(super) epoch: Option<u64>,
    pub(super) reply: Reply,
    /// Room in the queue, given back with the answer.
    pub(super) permit: OwnedSemaphorePermit,
}

type Reply = oneshot::Sender<Result<Applied, ProposeError>>;

/// A proposal in the log that is not yet applied.
struct Waiter {
    term: u64,
    epoch: Option<u64>,
    reply: Reply,
    _permit: OwnedSemaphorePermit,
}

/// What connects the thread with the world.
pub(super) struct Wiring<D> {
    pub(super) disk: D,
    pub(super) inputs: Receiver<Input>,
    /// For the snapshot thread to report back.
    pub(super) sender: SyncSender<Input>,
    pub(super) status: watch::Sender<Status>,
    pub(super) applied: Arc<AtomicU64>,
    pub(super) clock: Clock,
    pub(super) tick: Duration,
    /// Held until the thread ends.
    pub(super) held: Option<StateDir>,
}

pub(super) struct Worker<D, A, T> {
    member: Member<D>,
    apply: A,
    transport: T,
    wiring: Wiring<D>,
    /// By index in the log.
    waiters: BTreeMap<u64, Waiter>,
    /// Proposals of earlier epochs are refused.
    epoch: u64,
    /// A write that did not fit on the disk is waiting to be repeated; the disk's words.
    stalled: Option<String>,
    snapshot: Option<Job>,
    /// Who waits until no file needs an older data key.
    rekeying: Option<RekeyReply>,
    /// Prepares the next log segment.
    spare: Option<JoinHandle<()>>,
    next_tick: Duration,
}

/// Whether the loop goes on.
enum Next {
    Continue,
    Stop(oneshot::Sender<()>),
}

impl<D, A, T> Worker<D, A, T>
where
    D: Disk + Clone + Send + 'static,
    A: Apply,
    T: Transport,
{
    pub(super) fn new(member: Member<D>, apply: A, transport: T, wiring: Wiring<D>) -> Self {
        let next_tick = wiring.clock.monotonic() + wiring.tick;
        Worker {
            member,
            apply,
            transport,
            wiring,
            waiters: BTreeMap::new(),
            epoch: 0,
            stalled: None,
            snapshot: None,
            rekeying: None,
            spare: None,
            next_tick,
        }
    }

    /// Applies what the log holds, before anyone looks.
    pub(super) fn replay(&mut self) -> Result<(), String> {
        self.drive()?;
        self.publish(None);
        Ok(())
    }

    /// The life of the thread.
    pub(super) fn run(mut self) {
        let end = loop {
            match self.pass() {
                Ok(Next::Continue) => {}
                Ok(Next::Stop(reply)) => break Ok(reply),
                Err(error) => break Err(error),
            }
        };
        self.finish(end);
    }

    fn pass(&mut self) -> Result<Next, String> {
        let mut next = Next::Continue;
        let (mut bytes, mut count) = (0, 0);
        let mut input = self.wait()?;
        while let Some(taken) = input {
            match taken {
                Input::Stop(reply) => {
                    next = Next::Stop(reply);
                    break;
                }
                Input::Propose(proposal) => {
                    bytes += proposal.data.len();
                    self.propose(proposal)?;
                }
                Input::Step(message, _permit) => self.step(*message),
                Input::SnapshotDone(outcome) => self.snapshot_done(outcome)?,
                Input::Rekey(key, reply) => self.rekey(key, reply)?,
                Input::Policy {
                    interval,
                    keep_old,
                    slow_followers,
                } => {
                    self.member
                        .set_snapshot_policy(interval, keep_old, slow_followers);
                }
            }
            count += 1;
            if bytes >= BATCH_BYTES_MAX || count >= BATCH_INPUTS_MAX {
                break;
            }
            input = self.wiring.inputs.try_recv().ok();
        }
        let ticked = self.tick();
        if ticked {
            self.check_held()?;
        }
        // A full disk is asked again once per tick, not once per input.
        if self.stalled.is_none() || ticked {
            self.drive()?;
            self.snapshot_if_due();
            self.spare_if_due();
        }
        self.publish(None);
        Ok(next)
    }

    /// The next input, or `None` when it is time for a tick.
    fn wait(&self) -> Result<Option<Input>, String> {
        let now = self.wiring.clock.monotonic();
        match self
            .wiring
            .inputs
            .recv_timeout(self.next_tick.saturating_sub(now))
        {
            Ok(input) => Ok(Some(input)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err("the queue is gone".to_owned()),
        }
    }

    /// One tick if it is time. Ticks missed while the disk was slow are not made up for: a burst
    /// of them would look like a silent leader.
    fn tick(&mut self) -> bool {
        let now = self.wiring.clock.monotonic();
        if now < self.next_tick {
            return false;
        }
        self.next_tick = now + self.wiring.tick;
        self.member.tick();
        true
    }

    /// Fails when the state directory is not there any more: a start would not find what is
    /// written.
    fn check_held(&self) -> Result<(), String> {
        let held = self.wiring.held.as_ref();
        let checked = held.map_or(Ok(()), StateDir::check);
        checked.map_err(|error| error.to_string())
    }

    /// Fails when the log cannot be written any more: a member that went on would lead a group
    /// that takes nothing.
    fn propose(&mut self, proposal: Proposal) -> Result<(), String> {
        let Proposal {
            data,
            epoch,
            reply,
            permit,
        } = proposal;
        if epoch.is_some_and(|epoch| epoch < self.epoch) {
            answer(reply, Err(ProposeError::Superseded));
            return Ok(());
        }
        let result = match &self.stalled {
            Some(message) => Err(Refusal::DiskFull(message.clone())),
            None => self.member.propose(data.clone()),
        };
        match result {
            Ok(at) => {
                let waiter = Waiter {
                    term: at.term,
                    epoch,
                    reply,
                    _permit: permit,
                };
                let before = self.waiters.insert(at.index, waiter);
                assert!(before.is_none(), "two proposals at {at}");
            }
            Err(refusal) => {
                self.fence(epoch);
                self.apply.refused(&data);
                let stopped = if let Refusal::LogStopped(why) = &refusal {
                    Err(why.clone())
                } else {
                    Ok(())
                };
                answer(reply, Err(refusal.into()));
                return stopped;
            }
        }
        Ok(())
    }

    fn step(&mut self, message: raftpb::Message) {
        if let Err(error) = self.member.step(message) {
            tracing::debug!(error = %swarm_rt::chain(&error), "raft message refused");
        }
    }

    /// Begins to seal under another key. One change at a time has somebody who waits for it.
    fn rekey(&mut self, key: DataKey, reply: RekeyReply) -> Result<(), String> {
        let begun = match &self.stalled {
            Some(words) => Err(words.clone()),
            None => match self.member.rekey(key) {
                Ok(()) => Ok(()),
                Err(DriveError::Retry(error)) => Err(swarm_rt::chain(&error).to_string()),
                Err(DriveError::Fatal(error)) => return Err(swarm_rt::chain(&error).to_string()),
            },
        };
        match begun {
            Ok(()) => self.rekeying = Some(reply),
            // Whoever no longer waits need not be told.
            Err(words) => drop(reply.send(Err(RekeyError::DiskFull(words)))),
        }
        Ok(())
    }

    /// Everything of this epoch and before builds on what is lost.
    fn fence(&mut self, epoch: Option<u64>) {
        if let Some(epoch) = epoch {
            self.epoch = self.epoch.max(epoch + 1);
        }
    }

    /// Persists and applies until there is nothing left to do.
    fn drive(&mut self) -> Result<(), String> {
        loop {
            match self.member.drive() {
                Ok(Some(output)) => {
                    self.recover_from_stall();
                    self.take(output)?;
                }
                Ok(None) => return Ok(()),
                Err(DriveError::Retry(error)) => {
                    let text = swarm_rt::chain(&error).to_string();
                    if self.stalled.is_none() {
                        tracing::error!(error = text, "the raft log has to wait");
                    }
                    self.stalled = Some(text);
                    return Ok(());
                }
                Err(DriveError::Fatal(error)) => return Err(swarm_rt::chain(&error).to_string()),
            }
        }
    }

    fn recover_from_stall(&mut self) {
        if self.stalled.take().is_some() {
            tracing::info!("the raft log can be written again");
        }
    }

    fn take(&mut self, output: Output) -> Result<(), String> {
        if !output.messages.is_empty() {
            self.transport.send(output.messages);
        }
        self.check_leadership();
        if let Some((meta, data)) = output.installed {
            let mut pieces = std::iter::once(Ok(data.to_vec()));
            self.apply
                .restore(meta.at, &mut pieces)
                .map_err(|error| format!("snapshot of the leader at {}: {error}", meta.at))?;
        }
        for entry in output.committed {
            self.apply_entry(entry);
        }
        Ok(())
    }

    /// Whoever loses leadership does not know what becomes of its proposals.
    fn check_leadership(&mut self) {
        let core = self.member.core();
        let leads = core.is_leader().then(|| core.term());
        if self
            .waiters
            .values()
            .any(|waiter| Some(waiter.term) != leads)
        {
            self.lose_waiters(&ProposeError::LostLeadership);
        }
    }

    fn lose_waiters(&mut self, error: &ProposeError) {
        let waiters = std::mem::take(&mut self.waiters);
        if waiters.is_empty() {
            return;
        }
        let newest = waiters.values().filter_map(|waiter| waiter.epoch).max();
        self.fence(newest);
        self.apply.dropped();
        for waiter in waiters.into_values() {
            answer(waiter.reply, Err(error.clone()));
        }
    }

    fn apply_entry(&mut self, entry: Committed) {
        let at = entry.at;
        let waiter = self.waiters.remove(&at.index);
        let own = waiter.as_ref().is_some_and(|waiter| waiter.term == at.term);
        assert!(
            waiter.is_none() || own,
            "the entry at {at} is not the one proposed there"
        );
        match entry.payload {
            Payload::Empty => {}
            Payload::Data(data) => {
                let origin = if own { Origin::Local } else { Origin::Log };
                self.apply.apply(at, &data, origin);
            }
            Payload::ConfChange(change) => self.apply.conf_change(at, &change),
        }
        self.wiring.applied.store(at.index, Ordering::Release);
        if let Some(waiter) = waiter {
            answer(waiter.reply, Ok(Applied { at }));
        }
    }

    fn snapshot_if_due(&mut self) {
        if self.stalled.is_some() || !self.member.snapshot_due() {
            return;
        }
        let Some(ticket) = self.member.begin_snapshot() else {
            return;
        };
        let pieces = self.apply.snapshot();
        let sender = self.wiring.sender.clone();
        let done = move |outcome| {
            // Fails only when the thread has ended.
            drop(sender.send(Input::SnapshotDone(outcome)));
        };
        match Job::start(self.wiring.disk.clone(), ticket, pieces, done) {
            Ok(job) => self.snapshot = Some(job),
            Err(error) => {
                tracing::warn!(%error, "cannot start a thread for a raft snapshot");
                self.member.fail_snapshot();
            }
        }
    }

    /// Zeros for the next segment are written beside the work. Without them a rotation writes
    /// them itself, so failing is not worth a word to the operator.
    fn spare_if_due(&mut self) {
        let Some(size) = self.member.spare_due() else {
            return;
        };
        if self
            .spare
            .as_ref()
            .is_some_and(|thread| !thread.is_finished())
        {
            return;
        }
        let mut disk = self.wiring.disk.clone();
        let work = move || {
            if let Err(error) = prepare_spare(&mut disk, size) {
                tracing::debug!(%error, "no spare log segment");
            }
        };
        self.spare = std::thread::Builder::new()
            .name("raft-spare".to_owned())
            .spawn(work)
            .ok();
    }

    fn snapshot_done(&mut self, outcome: Outcome) -> Result<(), String> {
        self.snapshot = None;
        let error = match outcome {
            Outcome::Written(meta, bytes) => match self.member.finish_snapshot(&meta) {
                Ok(()) => {
                    tracing::info!(index = meta.at.index, bytes, "raft snapshot written");
                    if !self.member.is_rekeying()
                        && let Some(reply) = self.rekeying.take()
                    {
                        drop(reply.send(Ok(())));
                    }
                    return Ok(());
                }
                Err(DriveError::Retry(error)) => swarm_rt::chain(&error).to_string(),
                Err(DriveError::Fatal(error)) => return Err(swarm_rt::chain(&error).to_string()),
            },
            Outcome::Failed(error) => error.to_string(),
            Outcome::Abandoned => "given up".to_owned(),
        };
        tracing::warn!(
            error,
            "raft snapshot failed, the log keeps growing until one succeeds"
        );
        self.member.fail_snapshot();
        Ok(())
    }

    fn publish(&self, stopped: Option<Stopped>) {
        let now = status_of(&self.member, self.stalled.clone(), stopped);
        self.wiring.status.send_if_modified(|status| {
            let changed = *status != now;
            *status = now;
            changed
        });
    }

    fn finish(mut self, end: Result<oneshot::Sender<()>, String>) {
        if let Some(job) = self.snapshot.take() {
            job.abandon();
        }
        if let Some(Err(_)) = self.spare.take().map(JoinHandle::join) {
            tracing::error!("the thread that prepared a log segment ended in a panic");
        }
        self.lose_waiters(&ProposeError::Stopped);
        let stopped = match &end {
            Ok(_) => Stopped::Asked,
            Err(error) => {
                tracing::error!(error, "the raft member has failed");
                Stopped::Failed(error.clone())
            }
        };
        self.publish(Some(stopped));
        let Worker { member, wiring, .. } = self;
        if end.is_ok()
            && let Err(error) = member.close()
        {
            tracing::warn!(error = %swarm_rt::chain(&error), "the raft log was not closed cleanly");
        }
        // Frees the directory and refuses what is still queued, then tells the one who asked.
        drop(wiring);
        if let Ok(reply) = end {
            // Whoever no longer waits need not be told.
            let _: Result<(), ()> = reply.send(());
        }
    }
}

/// Whoever no longer waits needs no answer.
fn answer(reply: Reply, result: Result<Applied, ProposeError>) {
    drop(reply.send(result));
}

pub(super) fn status_of<D: Disk + Clone>(
    member: &Member<D>,
    disk_full: Option<String>,
    stopped: Option<Stopped>,
) -> Status {
    let core = member.core();
    Status {
        role: core.role(),
        term: core.term(),
        leader: core.leader_id(),
        ready: core.leads_with_all_applied() && stopped.is_none(),
        snapshot: member.newest_snapshot().index,
        disk_full,
        stopped,
    }
}
