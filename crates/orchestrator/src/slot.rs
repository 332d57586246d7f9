//! The identity of a replica, its tasks, and how the replica stands (spec 4.6, 4.8, 10.5).
//!
//! Everything here is read off the stored tasks. Does not own what to do about it.

use std::sync::Arc;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::dirty::is_dirty;
use swarm_types::spec::{ServiceMode, mode};
use swarm_types::{NodeId, Service, ServiceId, Slot, Task, TaskState, Timestamp};

use crate::restart::{NoRestart, no_restart};

/// The identity by which tasks count as runs of the same replica: a slot number for replicated
/// services, a node for global ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tuple {
    /// A replica with a number.
    Slot(ServiceId, Slot),
    /// The replica of a global service on a node.
    Node(ServiceId, NodeId),
}

impl Tuple {
    /// The tuple of a task; `None` for tasks without a service, of jobs, and for those of a global
    /// service that have no node.
    pub fn of(service: &Service, task: &Task) -> Option<Self> {
        match mode(&service.spec)? {
            ServiceMode::Replicated { .. } => Some(Self::Slot(service.id.clone(), task.slot)),
            ServiceMode::Global => Some(Self::Node(service.id.clone(), task.node_id.clone()?)),
            ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => None,
        }
    }

    /// The service.
    pub fn service(&self) -> &ServiceId {
        match self {
            Self::Slot(service, _) | Self::Node(service, _) => service,
        }
    }

    /// Its tasks, in the order of their ids.
    pub fn tasks<'a>(&self, view: &'a Root) -> Vec<&'a Arc<Task>> {
        let tasks: Vec<_> = match self {
            Self::Slot(service, slot) => view.tasks_in_slot(service, *slot).collect(),
            Self::Node(service, node) => view
                .tasks_on_node(node)
                .filter(|task| task.service_id.as_ref() == Some(service))
                .collect(),
        };
        #[cfg(test)]
        crate::world::count_reads(tasks.len());
        tasks
    }
}

/// How a replica stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It has no task, or only such as are to be removed.
    Empty,
    /// It has a task that is wanted, which may be about to be replaced.
    Filled,
    /// Its last task ended and must not be started again; it still counts as a replica.
    Spent(NoRestart),
    /// It has only old tasks, and policy wants a new one.
    Dead,
}

impl Standing {
    /// Whether it counts as one of the replicas that a service has.
    pub fn is_replica(self) -> bool {
        match self {
            Self::Filled | Self::Spent(_) => true,
            Self::Empty | Self::Dead => false,
        }
    }
}

/// How the replica with these tasks stands (spec 10.5). Tasks that are to be removed do not count:
/// they are the reaper's. An update of the service makes what gave up run again.
pub fn standing(service: &Service, tasks: &[&Arc<Task>]) -> Standing {
    if tasks.iter().any(|task| task.is_live()) {
        return Standing::Filled;
    }
    let Some(last) = newest(tasks) else {
        return Standing::Empty;
    };
    // What gave up did so with its spec; another one is another chance. No node: there is nothing
    // that could stay where it is.
    if is_rolling_back(service) || is_dirty(service, last, None) {
        return Standing::Dead;
    }
    no_restart(last, tasks).map_or(Standing::Dead, Standing::Spent)
}

/// The task that was created last among those that are not to be removed. The manager's time of
/// creation decides, as times of states come from different clocks; ties go to the larger id.
pub fn newest<'a>(tasks: &[&'a Arc<Task>]) -> Option<&'a Arc<Task>> {
    tasks
        .iter()
        .filter(|task| task.desired_state() < TaskState::Remove)
        .max_by_key(|task| (task.meta.created_at, &task.id))
        .copied()
}

/// Whether the service is on its way back to its previous spec.
pub fn is_rolling_back(service: &Service) -> bool {
    let started = v1::update_status::UpdateState::RollbackStarted as i32;
    service
        .update_status
        .as_ref()
        .is_some_and(|status| status.state == started)
}

/// The order of task history (spec 4.6): time of the status, none first; ties by creation and id.
pub fn history_key(task: &Task) -> (Option<Timestamp>, Timestamp, &swarm_types::TaskId) {
    let status = task.status();
    (status.effective_time(), task.meta.created_at, &task.id)
}

/// Whether the task has stopped for good, or never got so far that a node could run it.
pub fn is_over(task: &Task) -> bool {
    task.is_terminal() || (task.state() < TaskState::Assigned && !task.is_live())
}
