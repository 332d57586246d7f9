//! What has to be on disk, collected into batches.
//!
//! Order: a batch is complete on disk, in the order of its operations, before
//! [`crate::Agent::handle_persisted`] is called for it; only then do the operations and reports
//! that depend on it go out. A shell may write several tasks in one disk transaction.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::{Task, TaskId, TaskStatus};

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
}

#[derive(Debug, Default)]
struct Entry {
    delete: bool,
    task: Option<Arc<Task>>,
    status: Option<TaskStatus>,
    unassign: bool,
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

    /// The next batch; `None` while one is being written.
    pub(crate) fn poll(&mut self) -> Option<PersistBatch> {
        if self.taken != self.durable || self.open.is_empty() {
            return None;
        }
        self.taken += 1;
        let mut ops = Vec::new();
        for (id, entry) in std::mem::take(&mut self.open) {
            if entry.delete {
                ops.push(PersistOp::Delete(id.clone()));
            }
            ops.extend(entry.task.map(PersistOp::PutTask));
            let status = entry.status;
            ops.extend(status.map(|status| PersistOp::PutStatus(id.clone(), status)));
            if entry.unassign {
                ops.push(PersistOp::Unassign(id));
            }
        }
        Some(PersistBatch {
            sequence: self.taken,
            ops,
        })
    }

    /// A batch is on disk. False if it is not the one that was taken last.
    pub(crate) fn handle_persisted(&mut self, sequence: u64) -> bool {
        let is_expected = sequence == self.taken && self.durable < sequence;
        if is_expected {
            self.durable = sequence;
        }
        is_expected
    }
}
