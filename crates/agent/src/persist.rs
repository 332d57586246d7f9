//! What has to be on disk, collected into batches.
//!
//! Order: a batch is complete on disk, in the order of its operations, before
//! [`crate::Agent::handle_persisted`] is called for it; only then do the operations and reports
//! that depend on it go out. A shell may write several tasks in one disk transaction.
//!
//! A batch that could not be written comes back by [`crate::Agent::handle_persist_failed`]; what
//! was in it goes into the next one, after a pause.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::{Task, TaskId, TaskStatus, Timestamp};

/// The pause after the first write that failed; it doubles.
pub const PERSIST_RETRY_BASE: Duration = Duration::from_secs(1);
/// The longest such pause: so long a disk that has room again may go unnoticed, and so long a new
/// task may wait for its rejection.
pub const PERSIST_RETRY_MAX: Duration = Duration::from_secs(5);
/// How long writes have to fail before tasks that were never recorded are given back. A disk that
/// is full for a moment costs no task.
pub const RECORD_PATIENCE: Duration = Duration::from_secs(5);

/// A change of the local task database.
#[derive(Clone, Debug, PartialEq)]
pub enum PersistOp {
    /// Stores a task and marks it as assigned. Its status is stored apart.
    PutTask(Arc<Task>),
    /// Stores the status of a task.
    PutStatus(TaskId, TaskStatus),
    /// Marks a task as no longer assigned; it stays until it is removed for good.
    Unassign(TaskId),
    /// Drops a task and its status.
    Delete(TaskId),
}

/// Changes that are written together.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistBatch {
    /// Names the batch; grows by one.
    pub sequence: u64,
    /// In this order.
    pub ops: Vec<PersistOp>,
}

/// What the local database has of a task when the agent starts.
#[derive(Clone, Debug, PartialEq)]
pub struct PersistedTask {
    /// The task; the status inside it is not used.
    pub task: Task,
    /// The status.
    pub status: TaskStatus,
    /// False if [`PersistOp::Unassign`] was stored.
    pub is_assigned: bool,
}

/// Collects changes, at most one entry for each task, so it is bounded by the number of tasks.
#[derive(Debug, Default)]
pub(crate) struct Persist {
    open: BTreeMap<TaskId, Entry>,
    /// The number of the batch that was taken last.
    taken: u64,
    /// The number of the batch that is on disk.
    durable: u64,
    /// What is in the batch under way; `None` between batches.
    under_way: Option<BTreeMap<TaskId, Entry>>,
    trouble: Option<Trouble>,
}

/// Writes fail.
#[derive(Debug)]
struct Trouble {
    since: Timestamp,
    cause: String,
    attempts: u32,
    /// The next try is not due yet.
    is_paused: bool,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    delete: bool,
    task: Option<Arc<Task>>,
    status: Option<TaskStatus>,
    unassign: bool,
}

impl Entry {
    /// This one, and then what came after it.
    fn followed_by(self, later: Self) -> Self {
        if later.delete {
            return later;
        }
        Self {
            delete: self.delete,
            // A task that was taken and given again is assigned.
            unassign: later.unassign || self.unassign && later.task.is_none(),
            task: later.task.or(self.task),
            status: later.status.or(self.status),
        }
    }
}

impl Persist {
    /// Collects a task. Returns the number of the batch that will hold it.
    pub(crate) fn put_task(&mut self, task: &Arc<Task>) -> u64 {
        let entry = self.open.entry(task.id.clone()).or_default();
        entry.task = Some(Arc::clone(task));
        entry.unassign = false;
        self.taken + 1
    }

    /// Collects a status; as above.
    pub(crate) fn put_status(&mut self, id: &TaskId, status: &TaskStatus) -> u64 {
        let entry = self.open.entry(id.clone()).or_default();
        entry.status = Some(status.clone());
        self.taken + 1
    }

    /// Collects that a task is no longer assigned; as above.
    pub(crate) fn unassign(&mut self, id: &TaskId) -> u64 {
        self.open.entry(id.clone()).or_default().unassign = true;
        self.taken + 1
    }

    /// Collects that a task is gone.
    pub(crate) fn delete(&mut self, id: &TaskId) {
        let entry = Entry {
            delete: true,
            ..Entry::default()
        };
        self.open.insert(id.clone(), entry);
    }

    /// Whether a batch is on disk.
    pub(crate) fn is_durable(&self, sequence: u64) -> bool {
        sequence <= self.durable
    }

    /// Forgets a task that was never on disk.
    pub(crate) fn forget(&mut self, id: &TaskId) {
        self.open.remove(id);
    }

    /// Whether writes have failed for so long that nobody should wait for them; why.
    pub(crate) fn trouble(&self, now: Timestamp) -> Option<&str> {
        let trouble = self.trouble.as_ref()?;
        let is_over = now.saturating_since(trouble.since) >= RECORD_PATIENCE;
        is_over.then_some(&*trouble.cause)
    }

    /// Whether the last write failed.
    pub(crate) fn is_failing(&self) -> bool {
        self.trouble.is_some()
    }

    /// The next batch; `None` while one is being written, and in the pause after a failure. After
    /// a failure it may be empty: only a write tells whether the disk takes writes again.
    pub(crate) fn poll(&mut self) -> Option<PersistBatch> {
        let is_due = match &self.trouble {
            Some(trouble) => !trouble.is_paused,
            None => !self.open.is_empty(),
        };
        if self.under_way.is_some() || !is_due {
            return None;
        }
        self.taken += 1;
        let entries = std::mem::take(&mut self.open);
        let mut ops = Vec::new();
        for (id, entry) in &entries {
            if entry.delete {
                ops.push(PersistOp::Delete(id.clone()));
            }
            ops.extend(entry.task.clone().map(PersistOp::PutTask));
            let status = entry.status.clone();
            ops.extend(status.map(|status| PersistOp::PutStatus(id.clone(), status)));
            if entry.unassign {
                ops.push(PersistOp::Unassign(id.clone()));
            }
        }
        self.under_way = Some(entries);
        Some(PersistBatch {
            sequence: self.taken,
            ops,
        })
    }

    /// A batch is on disk. False if it is not the one that was taken last.
    pub(crate) fn handle_persisted(&mut self, sequence: u64) -> bool {
        let is_expected = sequence == self.taken && self.under_way.is_some();
        if is_expected {
            self.under_way = None;
            self.durable = sequence;
            self.trouble = None;
        }
        is_expected
    }

    /// A batch could not be written: what was in it goes into the next one. Returns the pause
    /// before that; `None` if it is not the batch that was taken last.
    pub(crate) fn handle_failed(
        &mut self,
        now: Timestamp,
        sequence: u64,
        cause: &str,
    ) -> Option<Duration> {
        if sequence != self.taken {
            return None;
        }
        for (id, earlier) in self.under_way.take()? {
            let later = self.open.remove(&id).unwrap_or_default();
            self.open.insert(id, earlier.followed_by(later));
        }
        let trouble = self.trouble.get_or_insert_with(|| Trouble {
            since: now,
            cause: String::new(),
            attempts: 0,
            is_paused: true,
        });
        cause.clone_into(&mut trouble.cause);
        trouble.is_paused = true;
        let doubled = PERSIST_RETRY_BASE.saturating_mul(1 << trouble.attempts.min(16));
        trouble.attempts = trouble.attempts.saturating_add(1);
        Some(doubled.min(PERSIST_RETRY_MAX))
    }

    /// The pause is over.
    pub(crate) fn resume(&mut self) {
        if let Some(trouble) = &mut self.trouble {
            trouble.is_paused = false;
        }
    }
}
