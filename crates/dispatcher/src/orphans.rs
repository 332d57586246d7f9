//! When the tasks of a lost node count as orphaned, and the write that says so. The tasks of a
//! removed node count at once: those that were not written together with the removal.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_store::Root;
use swarm_types::{LEFT_BEHIND, Node, NodeId, NodeState, Task, TaskState, TaskStatus, Timestamp};

/// A node must be lost for so long before its tasks are given up (spec 5.8).
pub const NODE_DOWN_PERIOD: Duration = Duration::from_secs(24 * 3600);

/// Nodes that are lost for longer than [`NODE_DOWN_PERIOD`].
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    overdue: BTreeSet<NodeId>,
    /// Removed nodes that left tasks behind.
    gone: BTreeSet<NodeId>,
    /// Those of both whose tasks have to be looked at.
    dirty: BTreeSet<NodeId>,
}

impl Orphans {
    /// The time is up for a node.
    pub(crate) fn handle_overdue(&mut self, node: &NodeId) {
        self.overdue.insert(node.clone());
        self.dirty.insert(node.clone());
    }

    /// A node was removed; it may have left tasks.
    pub(crate) fn handle_removed(&mut self, view: &Root, node: &NodeId) {
        if view.tasks_on_node(node).any(|task| is_left_behind(task)) {
            self.gone.insert(node.clone());
            self.dirty.insert(node.clone());
        } else {
            self.gone.remove(node);
        }
    }

    /// Whether the time is up for a node.
    pub(crate) fn is_overdue(&self, node: &NodeId) -> bool {
        self.overdue.contains(node)
    }

    /// A node is back, or gone for good.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.overdue.remove(node);
        self.gone.remove(node);
        self.dirty.remove(node);
    }

    /// A task of this node changed, or a write about one was refused.
    pub(crate) fn look_again(&mut self, node: &NodeId) {
        if self.overdue.contains(node) || self.gone.contains(node) {
            self.dirty.insert(node.clone());
        }
    }

    /// Takes one node to look at.
    pub(crate) fn pop(&mut self) -> Option<NodeId> {
        self.dirty.pop_first()
    }

    /// Whether there is a node to look at.
    pub(crate) fn is_idle(&self) -> bool {
        self.dirty.is_empty()
    }
}

/// When the time of a lost node is up, whoever leads and whatever else is changed about the node.
pub(crate) fn deadline(node: &Node) -> Option<Timestamp> {
    is_lost(node).then(|| node.state_since().saturating_add(NODE_DOWN_PERIOD))
}

/// Whether nobody can tell how the tasks of a node are doing.
pub(crate) fn is_lost(node: &Node) -> bool {
    match node.status.state {
        NodeState::Down | NodeState::Disconnected => true,
        NodeState::Unknown | NodeState::Ready => false,
    }
}

/// The task as an orphan; `None` when its state says that it is none.
pub(crate) fn orphaned(task: &Task, now: Timestamp, leader: Option<&NodeId>) -> Option<Task> {
    if !(TaskState::Assigned..=TaskState::Running).contains(&task.state()) {
        return None;
    }
    let mut orphan = task.clone();
    let status = TaskStatus {
        state: TaskState::Orphaned,
        applied_by: leader.cloned(),
        applied_at: Some(now),
        ..task.status().clone()
    };
    orphan.advance(status).ok()?;
    Some(orphan)
}

/// A task of a removed node as an orphan; `None` when it has ended.
pub(crate) fn left_behind(task: &Task, now: Timestamp, _: Option<&NodeId>) -> Option<Task> {
    if !is_left_behind(task) {
        return None;
    }
    let mut orphan = task.clone();
    orphan
        .advance(TaskStatus::new(TaskState::Orphaned, now, LEFT_BEHIND))
        .ok()?;
    Some(orphan)
}

/// Whether nobody will ever say more of a task whose node is gone. Tasks that have ended stay as
/// they are.
pub(crate) fn is_left_behind(task: &Task) -> bool {
    task.state() < TaskState::Complete
}
