//! The manager's store over its log, as `swarm-raft-io` drives them, with a simulated disk.
//!
//! The order of calls is that of `raft-io`: a transaction is staged and handed to the log's thread
//! in one step; the thread proposes what is queued, syncs once, applies, and only then tells.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use swarm_api::v1;
use swarm_leader::Origin;
use swarm_raft::log::prepare_spare;
use swarm_raft::member::{Bootstrap, DriveError, OpenError};
use swarm_raft::seal::{DataKey, Keyring};
use swarm_raft::simdisk::SimDisk;
use swarm_raft::snapshot::{SnapshotTicket, SnapshotWriter};
use swarm_raft::{Identity, Member, MemberConfig, MemberStart, Payload, Refusal};
use swarm_reconcile::Outcome;
use swarm_store::{
    Commit, ENTRY_BYTES_MAX, HistoryLimits, Pipeline, Root, Staged, Store, Transaction, WriteSet,
    read_snapshot, write_snapshot,
};
use swarm_types::{Timestamp, Version};

use crate::random::Random;
use crate::settings::Settings;

/// Proposals taken before a sync, as in `raft-io`.
const BATCH_INPUTS_MAX: usize = 1024;

/// On whose behalf something is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Author {
    /// The first objects.
    Seed,
    /// A loop or the dispatcher.
    Leader(Origin, &'static str),
    /// The user, with the name of the action.
    User(&'static str),
    /// A node that asks for a certificate, by the number of its call.
    Issue(u64),
    /// A write of before the start, found in the log.
    Log,
}

impl Author {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Leader(_, name) => name,
            Self::User(name) => name,
            Self::Issue(_) => "issue",
            Self::Log => "log",
        }
    }
}

/// An entry that was applied, for the checkers.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) author: Author,
    pub(crate) bytes: Bytes,
    pub(crate) before: Root,
    pub(crate) root: Root,
    pub(crate) commit: Arc<Commit>,
}

#[derive(Debug)]
struct Proposal {
    epoch: u64,
    data: Bytes,
    author: Author,
}

/// Whom an outcome is for, and what is known of it already.
#[derive(Debug)]
struct Told {
    author: Author,
    refused: Vec<usize>,
    oversize: Vec<usize>,
}

impl Told {
    fn all(author: Author) -> Self {
        Self {
            author,
            refused: Vec::new(),
            oversize: Vec::new(),
        }
    }

    fn committed(self, version: Version) -> (Author, Outcome) {
        let outcome = Outcome::committed(version, self.refused, self.oversize);
        (self.author, outcome)
    }
}

/// Why the process has to end.
#[derive(Debug)]
pub(crate) struct LogFailed(pub(crate) String);

/// The replicated store of one life of the manager.
pub(crate) struct Replica {
    pub(crate) store: Store,
    pipeline: Pipeline,
    member: Member<SimDisk>,
    disk: SimDisk,
    queue: VecDeque<Proposal>,
    /// Who proposed the entry at an index.
    proposed: BTreeMap<u64, Author>,
    waiting: BTreeMap<u64, Told>,
    /// Who was refused on a head of which this commit was the newest part.
    refused: BTreeMap<u64, Vec<Told>>,
    epoch: u64,
    is_stalled: bool,
    snapshot: Option<(SnapshotTicket, Vec<u8>)>,
    /// What was applied and not yet checked.
    pub(crate) applied: Vec<Entry>,
    /// Outcomes not yet told.
    pub(crate) outcomes: VecDeque<(Author, Outcome)>,
    /// Entries of the log that fitted the store no more, and refusals of the log.
    pub(crate) skipped: Vec<String>,
}

impl Replica {
    /// Opens the log and replays it; everything in it is in `applied` afterwards.
    pub(crate) fn open(
        disk: &SimDisk,
        settings: &Settings,
        salts: Random,
        first_id: u64,
    ) -> Result<(Self, Version), OpenError> {
        let config = MemberConfig {
            segment_bytes: settings.segment_bytes,
            snapshot_interval: settings.snapshot_interval,
            entries_for_slow_followers: 5,
            applied_bytes_alone: 0,
            seed: settings.options.seed,
            ..MemberConfig::default()
        };
        let (member, _) = Member::open(disk.clone(), config, start(salts))?;
        let mut root = Root::default();
        if let Some(mut reader) = member.read_snapshot()? {
            let mut bytes = Vec::new();
            while let Some(chunk) = reader.next_chunk()? {
                bytes.extend(chunk);
            }
            if let Ok((restored, _)) = read_snapshot(&bytes) {
                root = restored;
            }
        }
        let from = root.version();
        let mut replica = Self {
            store: Store::new(root.clone(), HistoryLimits::default()),
            pipeline: Pipeline::new(root, first_id),
            member,
            disk: disk.clone(),
            queue: VecDeque::new(),
            proposed: BTreeMap::new(),
            waiting: BTreeMap::new(),
            refused: BTreeMap::new(),
            epoch: 0,
            is_stalled: false,
            snapshot: None,
            applied: Vec::new(),
            outcomes: VecDeque::new(),
            skipped: Vec::new(),
        };
        match replica.drive() {
            Ok(()) => Ok((replica, from)),
            Err(DriveError::Retry(error) | DriveError::Fatal(error)) => Err(OpenError::Log(error)),
        }
    }

    pub(crate) fn leads(&self) -> bool {
        self.member.core().leads_with_all_applied()
    }

    /// Whether a pass of the log's thread has anything to do.
    pub(crate) fn has_work(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Applies write sets, each or not, and hands the transaction to the log.
    pub(crate) fn submit(
        &mut self,
        now: Timestamp,
        sets: Vec<WriteSet>,
        author: Author,
        is_refused: bool,
    ) {
        let packed = self.pipeline.pack(now, sets, ENTRY_BYTES_MAX);
        let told = Told {
            author,
            refused: packed.refused,
            oversize: packed.oversize,
        };
        match packed.staged {
            Some(staged) => self.hand_over(staged, told, is_refused),
            None => {
                if let Some(id) = self.pipeline.last_waiting() {
                    self.refused.entry(id).or_default().push(told);
                    return;
                }
                let version = self.pipeline.published().version();
                self.outcomes.push_back(told.committed(version));
            }
        }
    }

    /// Runs a transaction of a user; `false` when the user was refused.
    pub(crate) fn write<E>(
        &mut self,
        now: Timestamp,
        author: Author,
        write: impl FnOnce(&mut Transaction) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut transaction = self.pipeline.begin(now);
        write(&mut transaction)?;
        if transaction.is_empty() {
            let version = self.pipeline.published().version();
            let refused = Vec::new();
            let outcome = Outcome::Committed { version, refused };
            self.outcomes.push_back((author, outcome));
        } else {
            let staged = self.pipeline.stage(transaction);
            if staged.bytes.len() > ENTRY_BYTES_MAX {
                self.pipeline.unstage(&staged);
                self.outcomes.push_back((author, Outcome::Failed));
            } else {
                self.hand_over(staged, Told::all(author), false);
            }
        }
        Ok(())
    }

    fn hand_over(&mut self, mut staged: Staged, told: Told, is_refused: bool) {
        if is_refused {
            self.pipeline.unstage(&staged);
            self.outcomes.push_back((told.author, Outcome::Failed));
            return;
        }
        let data = Bytes::from(std::mem::take(&mut staged.bytes));
        let author = told.author;
        self.waiting.insert(staged.id, told);
        self.queue.push_back(Proposal {
            epoch: staged.epoch,
            data,
            author,
        });
    }

    /// One pass of the log's thread. `refuses` says which proposals fail for no reason.
    pub(crate) fn pass(&mut self, mut refuses: impl FnMut() -> bool) -> Result<(), LogFailed> {
        for _ in 0..BATCH_INPUTS_MAX {
            let Some(proposal) = self.queue.pop_front() else {
                break;
            };
            self.propose(proposal, refuses())?;
        }
        self.settle()
    }

    /// Syncs and applies, if the disk allows it by now.
    pub(crate) fn settle(&mut self) -> Result<(), LogFailed> {
        match self.drive() {
            Ok(()) => {}
            Err(DriveError::Retry(error)) => {
                if !self.is_stalled {
                    self.skipped.push(format!("the log is stalled: {error:?}"));
                }
                self.is_stalled = true;
            }
            Err(DriveError::Fatal(error)) => return Err(LogFailed(error.to_string())),
        }
        if let Some(size) = self.member.spare_due() {
            // Without it a rotation writes the zeros itself.
            let _ = prepare_spare(&mut self.disk, size);
        }
        Ok(())
    }

    pub(crate) fn tick(&mut self) -> Result<(), LogFailed> {
        self.member.tick();
        self.settle()
    }

    fn propose(&mut self, proposal: Proposal, is_refused: bool) -> Result<(), LogFailed> {
        if proposal.epoch < self.epoch {
            return Ok(());
        }
        let data = proposal.data.clone();
        let taken = if self.is_stalled || is_refused {
            Err(Refusal::DiskFull("refused".to_owned()))
        } else {
            self.member.propose(data)
        };
        match taken {
            Ok(at) => {
                self.proposed.insert(at.index, proposal.author);
            }
            Err(refusal) => {
                self.epoch = self.epoch.max(proposal.epoch + 1);
                self.refused(&proposal.data);
                if let Refusal::LogStopped(why) = refusal {
                    return Err(LogFailed(why));
                }
            }
        }
        Ok(())
    }

    /// A proposal and what was built on it will never be published.
    fn refused(&mut self, data: &[u8]) {
        for id in self.pipeline.drop_from(data) {
            if let Some(waiting) = self.waiting.remove(&id) {
                self.outcomes.push_back((waiting.author, Outcome::Failed));
            }
            for told in self.refused.remove(&id).into_iter().flatten() {
                self.outcomes.push_back((told.author, Outcome::Failed));
            }
        }
    }

    fn drive(&mut self) -> Result<(), DriveError> {
        while let Some(output) = self.member.drive()? {
            self.is_stalled = false;
            for entry in output.committed {
                let author = self.proposed.remove(&entry.at.index).unwrap_or(Author::Log);
                if let Payload::Data(data) = entry.payload
                    && !data.is_empty()
                {
                    self.apply(author, data);
                }
            }
        }
        Ok(())
    }

    fn apply(&mut self, author: Author, data: Bytes) {
        let before = self.pipeline.published().clone();
        let applied = match self.pipeline.applied(&data) {
            Ok(applied) => applied,
            Err(error) => {
                self.skipped.push(format!("{}: {error}", author.name()));
                return;
            }
        };
        let waiting = applied.own.and_then(|id| self.waiting.remove(&id));
        let refused = applied.own.and_then(|id| self.refused.remove(&id));
        let published = applied.root.version();
        self.applied.push(Entry {
            author,
            bytes: data,
            before,
            root: applied.root.clone(),
            commit: Arc::clone(&applied.commit),
        });
        self.store.publish(applied.root, applied.commit);
        self.store.fan_out();
        for told in waiting.into_iter().chain(refused.into_iter().flatten()) {
            self.outcomes.push_back(told.committed(published));
        }
    }

    /// Freezes the state for a snapshot if one is due.
    pub(crate) fn begin_snapshot(&mut self) -> bool {
        if self.is_stalled || self.snapshot.is_some() || !self.member.snapshot_due() {
            return false;
        }
        let Some(ticket) = self.member.begin_snapshot() else {
            return false;
        };
        let bytes = write_snapshot(self.pipeline.published(), v1::ClusterSnapshot::default());
        self.snapshot = Some((ticket, bytes));
        true
    }

    /// Writes the snapshot that was begun.
    pub(crate) fn write_snapshot(&mut self) -> Result<(), LogFailed> {
        let Some((ticket, bytes)) = self.snapshot.take() else {
            return Ok(());
        };
        let written = SnapshotWriter::begin(self.disk.clone(), &ticket).and_then(|mut writer| {
            writer.push(&bytes)?;
            writer.finish()
        });
        if written.is_err() {
            self.member.fail_snapshot();
            return Ok(());
        }
        match self.member.finish_snapshot(&ticket.meta) {
            Ok(()) => Ok(()),
            Err(DriveError::Retry(_)) => {
                self.member.fail_snapshot();
                Ok(())
            }
            Err(DriveError::Fatal(error)) => Err(LogFailed(error.to_string())),
        }
    }

    /// Ends in good order.
    pub(crate) fn close(self) {
        // A log that cannot be closed is found as it is at the next start.
        let _ = self.member.close();
    }
}

fn start(mut salts: Random) -> MemberStart {
    MemberStart {
        identity: Identity::new("sim", 1).expect("both ids are well formed"),
        keys: Keyring::new(DataKey::new([7; 32])),
        salts: Box::new(move || {
            let mut salt = [0; 16];
            salt[..8].copy_from_slice(&salts.next().to_le_bytes());
            salt[8..].copy_from_slice(&salts.next().to_le_bytes());
            salt
        }),
        bootstrap: Bootstrap::Alone {
            context: Bytes::from_static(b"sim"),
        },
    }
}
