//! A fake machine: fake tasks by id, alive whether or not an agent is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::{Task, TaskId, Timestamp};

use super::Draw;
use super::task::{Begun, FakeTask};
use crate::contract::{Operation, Recovery};

/// All tasks of one fake machine. Keep it when the agent crashes; replace it when the machine does.
#[derive(Debug, Clone, Default)]
pub struct FakeNode {
    tasks: BTreeMap<TaskId, FakeTask>,
    pid_last: i32,
}

impl FakeNode {
    /// Begins an operation on a task, which is made if the node does not have it. See
    /// [`FakeTask::begin`].
    pub fn begin(
        &mut self,
        task: &Arc<Task>,
        operation: Operation,
        now: Timestamp,
        draw: &mut dyn Draw,
    ) -> Begun {
        let fake = self.tasks.entry(task.id.clone()).or_insert_with(|| {
            self.pid_last += 1;
            FakeTask::new(task.clone(), self.pid_last)
        });
        if operation == Operation::Update {
            fake.update(task.clone());
        }
        fake.begin(operation, now, draw)
    }

    /// The task, if the node has it.
    pub fn task(&self, id: &TaskId) -> Option<&FakeTask> {
        self.tasks.get(id)
    }

    /// Kills the process of a task; nothing happens when it has none.
    pub fn kill(&mut self, id: &TaskId, now: Timestamp) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.kill(now);
        }
    }

    /// The tasks whose processes run, for checkers.
    pub fn running(&self, now: Timestamp) -> BTreeSet<TaskId> {
        let running = self.tasks.iter().filter(|(_, task)| task.is_running(now));
        running.map(|(id, _)| id.clone()).collect()
    }

    /// See [`crate::Executor::recover`].
    pub fn recover(&mut self, known: &BTreeSet<TaskId>, now: Timestamp) -> Recovery {
        let mut recovery = Recovery::default();
        self.tasks.retain(|id, task| {
            if task.is_removed(now) {
                return false;
            }
            let found = match (known.contains(id), task.is_running(now)) {
                (false, _) => &mut recovery.removed,
                (true, true) => &mut recovery.running,
                (true, false) => &mut recovery.idle,
            };
            found.insert(id.clone());
            known.contains(id)
        });
        recovery
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(id: &str) -> Arc<Task> {
        Arc::new(Task::new(id.parse().unwrap(), Arc::default()))
    }

    #[test]
    fn recovery_keeps_known_tasks_and_removes_the_others() {
        let mut node = FakeNode::default();
        let [a, b, c] = [task("a"), task("b"), task("c")];
        let at = Timestamp::from_millis;
        for task in [&a, &b, &c] {
            node.begin(task, Operation::Prepare, at(0), &mut || 0);
        }
        node.begin(&a, Operation::Start, at(10), &mut || 0);
        node.begin(&b, Operation::Start, at(10), &mut || 0);
        assert_eq!(node.running(at(20)), [a.id.clone(), b.id.clone()].into());
        let recovery = node.recover(&[a.id.clone(), c.id.clone()].into(), at(20));
        assert_eq!(recovery.running, [a.id.clone()].into());
        assert_eq!(recovery.idle, [c.id.clone()].into());
        assert_eq!(recovery.removed, [b.id.clone()].into());
        assert_eq!(node.running(at(20)), [a.id.clone()].into());
        assert!(node.task(&b.id).is_none());
        node.kill(&a.id, at(21));
        assert!(node.running(at(21)).is_empty());
    }
}
