//! Commits that were made but wait for their place in the log.
//!
//! The writer does not wait for one commit to become durable before it makes the next: each
//! transaction starts from the head, which is the published root plus everything that waits. When
//! the log gives a commit back, it is published; when the log refuses one, everything made after it
//! was built on sand and is dropped with it.

use std::collections::VecDeque;
use std::sync::Arc;

use prost::Message;
use swarm_types::convert::Interner;
use swarm_types::{Timestamp, Version};

use crate::encode::{DecodeError, decode_commit};
use crate::error::StoreError;
use crate::root::Root;
use crate::transaction::{Commit, Transaction};
use crate::write::WriteSet;

/// Commits that may wait at most; beyond that the writer has to wait.
pub const PIPELINE_COMMITS_MAX: usize = 1_024;

/// The head of the store and what waits between it and the published root.
#[derive(Debug)]
pub struct Pipeline {
    published: Root,
    head: Root,
    waiting: VecDeque<Waiting>,
    epoch: u64,
    next_id: u64,
    interner: Interner,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    root: Root,
    commit: Arc<Commit>,
}

/// A commit on its way to the log.
#[derive(Debug)]
pub struct Staged {
    /// The proposal's id, by which it is recognised when it comes back.
    pub id: u64,
    /// Proposals of an earlier epoch than the log's newest refusal must be refused too.
    pub epoch: u64,
    /// What goes into the log.
    pub bytes: Vec<u8>,
    /// The version that the commit leads to.
    pub version: Version,
}

/// What became of write sets that were to be written together.
#[derive(Debug)]
pub struct Packed {
    /// What goes to the log; `None` when there is nothing to write.
    pub staged: Option<Staged>,
    /// The sets at these positions were not applied and are to be looked at again: what they touch
    /// had changed, or they did not fit beside the others.
    pub refused: Vec<usize>,
    /// The sets at these positions do not fit an entry of the log, not even alone.
    pub oversize: Vec<usize>,
}

/// Bytes of an entry beside its changes at most: an id, a version and a time.
const ENVELOPE_BYTES_MAX: usize = 64;

/// A log entry that became the newest version.
#[derive(Debug)]
pub struct Applied {
    /// The root to publish.
    pub root: Root,
    /// What changed.
    pub commit: Arc<Commit>,
    /// The proposal's id if it was made here and still waited.
    pub own: Option<u64>,
}

/// Why a log entry was not applied. Every member of the group sees the same and skips it.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// It is not a commit.
    #[error("the log entry is not a commit")]
    Decode(#[from] DecodeError),
    /// It does not fit the store.
    #[error("the commit of the log entry does not fit the store")]
    Store(#[from] StoreError),
}

/// Only the first field of a proposal, so that an own entry need not be decoded again.
#[derive(Clone, PartialEq, Message)]
struct ProposalId {
    #[prost(uint64, tag = "1")]
    id: u64,
}

impl Pipeline {
    /// Starts from the published root. Ids count up from `first_id`, which the shell draws at
    /// random so that two members do not use the same.
    pub fn new(root: Root, first_id: u64) -> Self {
        Self {
            published: root.clone(),
            head: root,
            waiting: VecDeque::new(),
            epoch: 0,
            next_id: first_id.max(1),
            interner: Interner::new(),
        }
    }

    /// Starts a transaction on the head.
    pub fn begin(&self, now: Timestamp) -> Transaction {
        self.head.begin(now)
    }

    /// The root that the next transaction starts from.
    pub fn head(&self) -> &Root {
        &self.head
    }

    /// The newest root that the log has confirmed.
    pub fn published(&self) -> &Root {
        &self.published
    }

    /// Whether the writer has to wait before it stages another commit.
    pub fn is_full(&self) -> bool {
        self.waiting.len() >= PIPELINE_COMMITS_MAX
    }

    /// The newest commit that waits, by its proposal's id.
    pub fn last_waiting(&self) -> Option<u64> {
        self.waiting.back().map(|waiting| waiting.id)
    }

    /// How many commits wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Applies write sets, each or not, and turns them into a proposal of at most `bytes_max`
    /// bytes. When they are more, those in front are taken and the rest is refused, but for a set
    /// that does not fit alone: whoever sent it must not send it again.
    pub fn pack(&mut self, now: Timestamp, sets: Vec<WriteSet>, bytes_max: usize) -> Packed {
        let mut transaction = self.begin(now);
        let (mut refused, mut applied) = (Vec::new(), Vec::with_capacity(sets.len()));
        for (position, set) in sets.into_iter().enumerate() {
            match transaction.apply_owned(set) {
                Ok(()) => applied.push((position, transaction.len())),
                Err(_) => refused.push(position),
            }
        }
        let mut oversize = Vec::new();
        let mut bytes = transaction.encoded(self.next_id);
        if bytes.len() > bytes_max {
            oversize = cut(&mut transaction, &applied, bytes_max, &mut refused);
            bytes = transaction.encoded(self.next_id);
        }
        let staged = (!transaction.is_empty()).then(|| self.stage_encoded(transaction, bytes));
        Packed {
            staged,
            refused,
            oversize,
        }
    }

    /// Turns a transaction that was begun on this head into a proposal.
    pub fn stage(&mut self, transaction: Transaction) -> Staged {
        let bytes = transaction.encoded(self.next_id);
        self.stage_encoded(transaction, bytes)
    }

    fn stage_encoded(&mut self, transaction: Transaction, bytes: Vec<u8>) -> Staged {
        let (root, commit) = transaction.finish();
        assert!(
            commit.version == self.head.version().next(),
            "I-STORE-2: a commit follows the head that it was begun on"
        );
        let id = self.next_id;
        self.next_id = self.next_id.wrapping_add(1).max(1);
        let version = commit.version;
        self.head = root.clone();
        self.waiting.push_back(Waiting {
            id,
            root,
            commit: Arc::new(commit),
        });
        Staged {
            id,
            epoch: self.epoch,
            bytes,
            version,
        }
    }

    /// Takes a committed log entry.
    ///
    /// # Errors
    /// [`ApplyError`] when the entry is no commit that fits; the store is unchanged.
    pub fn applied(&mut self, data: &[u8]) -> Result<Applied, ApplyError> {
        let id = ProposalId::decode(data).map_err(DecodeError::from)?.id;
        if self.waiting.front().is_some_and(|waiting| waiting.id == id) {
            let waiting = self.waiting.pop_front().expect("was there above");
            self.published = waiting.root.clone();
            return Ok(Applied {
                root: waiting.root,
                commit: waiting.commit,
                own: Some(id),
            });
        }
        // Someone else's entry: what waits was made on another past.
        self.drop_waiting();
        let (_, commit) = decode_commit(data, &self.published, &mut self.interner)?;
        let root = self.published.apply(&commit)?;
        self.published = root.clone();
        self.head = root.clone();
        Ok(Applied {
            root,
            commit: Arc::new(commit),
            own: None,
        })
    }

    /// Takes back the newest staged commit, which never reached the log.
    pub fn unstage(&mut self, staged: &Staged) {
        if self
            .waiting
            .back()
            .is_some_and(|waiting| waiting.id == staged.id)
        {
            self.waiting.pop_back();
            let before = self
                .waiting
                .back()
                .map_or(&self.published, |waiting| &waiting.root);
            self.head = before.clone();
        }
    }

    /// The log refused a proposal: it and what was made after it are dropped. What was made before
    /// it is under way as ever. Returns the ids of what was dropped, in order.
    pub fn drop_from(&mut self, data: &[u8]) -> Vec<u64> {
        let id = ProposalId::decode(data).map(|proposal| proposal.id);
        let found = |waiting: &Waiting| id.as_ref().is_ok_and(|id| waiting.id == *id);
        // One that does not wait was dropped before, with all that was built on it.
        let Some(first) = self.waiting.iter().position(found) else {
            return Vec::new();
        };
        let dropped = self.waiting.split_off(first);
        let before = self.waiting.back();
        self.head = before
            .map_or(&self.published, |waiting| &waiting.root)
            .clone();
        self.epoch += 1;
        dropped.iter().map(|waiting| waiting.id).collect()
    }

    /// Leadership is gone: nothing of what waits is known to be published ever.
    /// Returns the new epoch.
    pub fn drop_waiting(&mut self) -> u64 {
        if !self.waiting.is_empty() {
            self.waiting.clear();
            self.epoch += 1;
        }
        self.head = self.published.clone();
        self.epoch
    }

    /// Starts over from a root, after a snapshot was received.
    pub fn reset(&mut self, root: Root) {
        self.waiting.clear();
        self.epoch += 1;
        self.interner = Interner::new();
        self.published = root.clone();
        self.head = root;
    }
}

/// Keeps as many of the applied sets, from the front, as fit. Each is given with its position and
/// the number of changes after it. Adds the others to `refused`, and returns those that would not
/// fit alone.
fn cut(
    transaction: &mut Transaction,
    applied: &[(usize, usize)],
    bytes_max: usize,
    refused: &mut Vec<usize>,
) -> Vec<usize> {
    let lens = transaction.change_lens();
    let room = bytes_max.saturating_sub(ENVELOPE_BYTES_MAX);
    let (mut left, mut keep, mut is_cut) = (room, 0, false);
    let mut oversize = Vec::new();
    let mut before = 0;
    for (position, end) in applied {
        let bytes: usize = lens[before..*end].iter().sum();
        before = *end;
        if bytes > room {
            oversize.push(*position);
            is_cut = true;
        } else if is_cut || bytes > left {
            refused.push(*position);
            is_cut = true;
        } else {
            left -= bytes;
            keep = *end;
        }
    }
    transaction.undo(keep);
    refused.sort_unstable();
    oversize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::write::Write;
    use swarm_types::{Task, TaskId, TaskState};

    fn create(pipeline: &mut Pipeline, id: &str) -> Staged {
        let mut transaction = pipeline.begin(Timestamp::from_millis(7));
        transaction
            .create(Task::new(id.parse().unwrap(), Arc::default()))
            .unwrap();
        pipeline.stage(transaction)
    }

    fn id(text: &str) -> TaskId {
        text.parse().unwrap()
    }

    #[test]
    fn commits_are_published_in_order_and_the_head_runs_ahead() {
        let mut pipeline = Pipeline::new(Root::default(), 100);
        let first = create(&mut pipeline, "a");
        let second = create(&mut pipeline, "b");
        assert!(pipeline.head().task(&id("b")).is_some());
        assert!(pipeline.published().task(&id("a")).is_none());
        let applied = pipeline.applied(&first.bytes).unwrap();
        assert_eq!(applied.own, Some(first.id));
        assert!(applied.root.task(&id("a")).is_some() && applied.root.task(&id("b")).is_none());
        assert_eq!(
            pipeline.applied(&second.bytes).unwrap().own,
            Some(second.id)
        );
        assert_eq!(pipeline.waiting(), 0);
    }

    #[test]
    fn a_foreign_entry_drops_what_waits() {
        let mut other = Pipeline::new(Root::default(), 900);
        let theirs = create(&mut other, "x");
        let mut pipeline = Pipeline::new(Root::default(), 100);
        let ours = create(&mut pipeline, "a");
        let applied = pipeline.applied(&theirs.bytes).unwrap();
        assert_eq!(applied.own, None);
        assert!(pipeline.head().task(&id("a")).is_none());
        assert!(pipeline.head().task(&id("x")).is_some());
        assert!(create(&mut pipeline, "c").epoch > ours.epoch);
    }

    #[test]
    fn a_replica_that_replays_the_entries_has_the_same_objects() {
        let mut leader = Pipeline::new(Root::default(), 1);
        let mut replica = Pipeline::new(Root::default(), 2);
        let mut entries = vec![create(&mut leader, "a").bytes];
        let mut transaction = leader.begin(Timestamp::from_millis(9));
        let mut task = (**transaction.task(&id("a")).unwrap()).clone();
        task.set_desired(TaskState::Shutdown).unwrap();
        transaction.update(task).unwrap();
        entries.push(leader.stage(transaction).bytes);
        for entry in &entries {
            replica.applied(entry).unwrap();
        }
        assert_eq!(replica.published().version(), leader.head().version());
        assert_eq!(
            replica.published().task(&id("a")),
            leader.head().task(&id("a"))
        );
    }

    #[test]
    fn a_commit_that_never_reached_the_log_is_taken_back_alone() {
        let mut pipeline = Pipeline::new(Root::default(), 1);
        let first = create(&mut pipeline, "a");
        let second = create(&mut pipeline, "b");
        pipeline.unstage(&first);
        assert_eq!(pipeline.waiting(), 2, "only the newest can be taken back");
        pipeline.unstage(&second);
        assert!(pipeline.head().task(&id("a")).is_some());
        assert!(pipeline.head().task(&id("b")).is_none());
        let third = create(&mut pipeline, "c");
        assert_eq!(third.version, second.version);
    }

    #[test]
    fn a_refused_proposal_goes_with_those_after_it_and_without_those_before() {
        let mut pipeline = Pipeline::new(Root::default(), 1);
        let before = create(&mut pipeline, "a");
        let refused = create(&mut pipeline, "b");
        let after = create(&mut pipeline, "c");
        let dropped = pipeline.drop_from(&refused.bytes);
        assert_eq!(dropped, [refused.id, after.id]);
        assert!(pipeline.head().task(&id("a")).is_some());
        assert!(pipeline.head().task(&id("b")).is_none());
        let next = create(&mut pipeline, "d");
        assert!(next.epoch > after.epoch);
        assert_eq!(next.version, refused.version);
        // Refused as well, since it is of the same epoch; it was dropped already.
        assert_eq!(pipeline.drop_from(&after.bytes), []);
        assert_eq!(pipeline.drop_from(b"\xff\xff"), []);
        let applied = pipeline.applied(&before.bytes).unwrap();
        assert_eq!(applied.own, Some(before.id));
        let applied = pipeline.applied(&next.bytes).unwrap();
        assert_eq!(applied.own, Some(next.id));
        assert!(applied.root.task(&id("a")).is_some() && applied.root.task(&id("d")).is_some());
    }

    #[test]
    fn an_entry_that_does_not_fit_changes_nothing() {
        let mut other = Pipeline::new(Root::default(), 900);
        let entry = create(&mut other, "x").bytes;
        let mut pipeline = Pipeline::new(Root::default(), 100);
        pipeline.applied(&entry).unwrap();
        let before = pipeline.published().version();
        assert!(matches!(
            pipeline.applied(&entry),
            Err(ApplyError::Store(_))
        ));
        assert!(matches!(
            pipeline.applied(b"\xff\xff"),
            Err(ApplyError::Decode(_))
        ));
        assert_eq!(pipeline.published().version(), before);
    }

    fn large(id: &str, bytes: usize) -> WriteSet {
        let mut task = Task::new(id.parse().unwrap(), Arc::default());
        task.annotations = Some(Box::new(swarm_api::v1::Annotations {
            name: "x".repeat(bytes),
            ..Default::default()
        }));
        WriteSet(vec![Write::create(task)])
    }

    #[test]
    fn sets_that_do_not_fit_together_are_written_one_after_the_other() {
        let mut pipeline = Pipeline::new(Root::default(), 1);
        let now = Timestamp::from_millis(7);
        let sets = [large("a", 400), large("b", 400), large("c", 400)];
        let packed = pipeline.pack(now, sets.to_vec(), 1_100);
        assert_eq!((packed.refused, packed.oversize), (vec![2], vec![]));
        assert!(packed.staged.unwrap().bytes.len() <= 1_100);
        assert!(pipeline.head().task(&id("b")).is_some());
        assert!(pipeline.head().task(&id("c")).is_none());
        let packed = pipeline.pack(now, sets[2..].to_vec(), 1_100);
        assert_eq!((packed.refused, packed.oversize), (vec![], vec![]));
        assert!(pipeline.head().task(&id("c")).is_some());
    }

    #[test]
    fn a_set_that_does_not_fit_alone_is_named_and_the_others_are_written() {
        let mut pipeline = Pipeline::new(Root::default(), 1);
        let now = Timestamp::from_millis(7);
        let sets = vec![large("a", 100), large("huge", 2_000), large("b", 100)];
        let packed = pipeline.pack(now, sets, 1_000);
        assert_eq!((packed.refused, packed.oversize), (vec![2], vec![1]));
        let first = packed.staged.unwrap();
        assert!(pipeline.head().task(&id("a")).is_some());
        assert!(pipeline.head().task(&id("huge")).is_none());
        let packed = pipeline.pack(now, vec![large("huge", 2_000)], 1_000);
        assert!(packed.staged.is_none() && packed.oversize == [0]);
        // What was cut left nothing behind.
        let next = create(&mut pipeline, "b");
        for staged in [first, next] {
            assert_eq!(
                pipeline.applied(&staged.bytes).unwrap().own,
                Some(staged.id)
            );
        }
        let mut replica = Pipeline::new(Root::default(), 9);
        let sets = vec![large("a", 100), large("huge", 2_000)];
        let staged = replica.pack(now, sets, 1_000).staged.unwrap();
        let mut other = Pipeline::new(Root::default(), 20);
        other.applied(&staged.bytes).unwrap();
        assert_eq!(
            other.published().task(&id("a")),
            replica.head().task(&id("a"))
        );
    }
}
