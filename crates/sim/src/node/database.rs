//! The task database of a node.

use std::collections::BTreeMap;

use swarm_agent::{PersistOp, PersistedTask};
use swarm_types::{Task, TaskId};

/// One transaction of the task database.
pub(super) fn write(disk: &mut BTreeMap<TaskId, PersistedTask>, ops: Vec<PersistOp>) {
    for op in ops {
        match op {
            PersistOp::PutTask(task) => {
                let status = task.status().clone();
                let entry = disk
                    .entry(task.id.clone())
                    .or_insert_with(|| PersistedTask {
                        task: Task::clone(&task),
                        status,
                        is_assigned: true,
                    });
                entry.task = Task::clone(&task);
                entry.is_assigned = true;
            }
            PersistOp::PutStatus(id, status) => {
                if let Some(entry) = disk.get_mut(&id) {
                    entry.status = status;
                }
            }
            PersistOp::Unassign(id) => {
                if let Some(entry) = disk.get_mut(&id) {
                    entry.is_assigned = false;
                }
            }
            PersistOp::Delete(id) => drop(disk.remove(&id)),
        }
    }
}
