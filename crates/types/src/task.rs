//! A task: one run of one replica. It is created, moves forward, ends, and is never restarted.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use swarm_api::v1;

use crate::id::{NodeId, ServiceId, TaskId};
use crate::objects::{Meta, Slot, Version};
use crate::state::{StateRegression, TaskState};
use crate::text::Text;
use crate::time::Timestamp;

/// The message of a task whose node was removed; users see it, and it is SwarmKit's.
pub const LEFT_BEHIND: &str = "Task belonged to a node that has been deleted";

/// A task. Who writes what: the orchestrator creates it and owns the desired state; the allocator
/// owns the networks, the endpoint and the step to PENDING; the scheduler owns the node, the
/// volumes, the claimed generic resources and the step to ASSIGNED; from then on the agent owns the
/// status.
///
/// What hardly changes is in the [`TaskBody`], which the versions of a task share: a task is
/// written four times on its way to RUNNING, and most of these writes change its status alone.
/// Fields of the body are read and written as if they were fields of the task; writing one copies
/// the body if another version shares it.
#[derive(Clone, Debug, PartialEq)]
pub struct Task {
    /// The id.
    pub id: TaskId,
    /// Version and times of the stored object.
    pub meta: Meta,
    /// The node, once one was chosen.
    pub node_id: Option<NodeId>,
    body: Arc<TaskBody>,
    status: TaskStatus,
    desired_state: TaskState,
    /// How many tasks of the replica failed before it, whether they are still stored or not; 0 for
    /// tasks that others or older builds made.
    pub failures_before: u32,
}

/// In the message of a status: between what happened and what the spec asked for and the node could
/// not give.
pub const WARNINGS_MARK: &str = "; warning: ";

/// The part of a task that its versions share.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskBody {
    /// The user's spec, shared by all tasks of one service and version.
    pub spec: Arc<v1::TaskSpec>,
    /// The version of the service's spec from which `spec` was taken.
    pub spec_version: Option<Version>,
    /// The service; `None` for network attachments and other tasks without a service.
    pub service_id: Option<ServiceId>,
    /// The number of the replica; 0 for tasks of global services.
    pub slot: Slot,
    /// The task's own name and labels; absent on tasks that an orchestrator made.
    pub annotations: Option<Box<v1::Annotations>>,
    /// Name and labels of the service, shared.
    pub service_annotations: Arc<v1::Annotations>,
    /// Network attachments with their addresses.
    pub networks: Arc<[v1::NetworkAttachment]>,
    /// The service's endpoint as of the allocation.
    pub endpoint: Option<Arc<v1::Endpoint>>,
    /// The log driver that applies.
    pub log_driver: Option<Arc<v1::Driver>>,
    /// What the scheduler claimed of the node's generic resources.
    pub assigned_generic_resources: Vec<v1::GenericResource>,
    /// The iteration of the job to which this task belongs.
    pub job_iteration: Option<Version>,
    /// Cluster volumes chosen by the scheduler.
    pub volumes: Vec<v1::VolumeAttachment>,
}

impl Deref for Task {
    type Target = TaskBody;
    fn deref(&self) -> &TaskBody {
        &self.body
    }
}

impl DerefMut for Task {
    fn deref_mut(&mut self) -> &mut TaskBody {
        Arc::make_mut(&mut self.body)
    }
}

/// What is known about the progress of a task.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct TaskStatus {
    /// When the state was reached, by the clock of whoever reported it.
    pub timestamp: Option<Timestamp>,
    /// The observed state.
    pub state: TaskState,
    /// What is going on, in words.
    pub message: Text,
    /// What went wrong; empty if nothing did.
    pub err: Text,
    /// Process id, container id and exit code.
    pub container: Option<Box<v1::ContainerStatus>>,
    /// Ports opened on the host.
    pub ports: Option<Box<v1::PortStatus>>,
    /// The manager that stored this status.
    pub applied_by: Option<NodeId>,
    /// When it was stored, by the manager's clock: the only time here that may be compared.
    pub applied_at: Option<Timestamp>,
}

impl TaskStatus {
    /// A status with a state, a time and a message.
    pub fn new(state: TaskState, at: Timestamp, message: impl Into<Text>) -> Self {
        Self {
            timestamp: Some(at),
            state,
            message: message.into(),
            ..Self::default()
        }
    }

    /// The manager's time of this status if it has one, else the reporter's (spec 4.6).
    pub fn effective_time(&self) -> Option<Timestamp> {
        self.applied_at.or(self.timestamp)
    }
}

impl TaskBody {
    fn is_same(&self, other: &Self) -> bool {
        fn same<T: PartialEq + ?Sized>(a: &Arc<T>, b: &Arc<T>) -> bool {
            Arc::ptr_eq(a, b) || a == b
        }
        fn same_optional<T: PartialEq>(a: Option<&Arc<T>>, b: Option<&Arc<T>>) -> bool {
            match (a, b) {
                (Some(a), Some(b)) => same(a, b),
                (None, None) => true,
                (Some(_), None) | (None, Some(_)) => false,
            }
        }
        self.service_id == other.service_id
            && self.slot == other.slot
            && self.spec_version == other.spec_version
            && self.job_iteration == other.job_iteration
            && same(&self.spec, &other.spec)
            && same(&self.service_annotations, &other.service_annotations)
            && self.annotations == other.annotations
            && same(&self.networks, &other.networks)
            && same_optional(self.endpoint.as_ref(), other.endpoint.as_ref())
            && same_optional(self.log_driver.as_ref(), other.log_driver.as_ref())
            && self.assigned_generic_resources == other.assigned_generic_resources
            && self.volumes == other.volumes
    }
}

impl Task {
    /// A task in state NEW that wants to run, with nothing else set.
    pub fn new(id: TaskId, spec: Arc<v1::TaskSpec>) -> Self {
        let body = TaskBody {
            spec,
            ..TaskBody::default()
        };
        Self::with_body(id, body)
    }

    /// A task in state NEW that wants to run.
    pub fn with_body(id: TaskId, body: TaskBody) -> Self {
        Self {
            id,
            meta: Meta::default(),
            node_id: None,
            body: Arc::new(body),
            status: TaskStatus::default(),
            desired_state: TaskState::Running,
            failures_before: 0,
        }
    }

    /// A task as it was received, whatever its states; for decoders and test worlds.
    #[must_use]
    pub fn with_states(mut self, status: TaskStatus, desired: TaskState) -> Self {
        self.status = status;
        self.desired_state = desired;
        self
    }

    /// The status.
    pub fn status(&self) -> &TaskStatus {
        &self.status
    }

    /// The observed state.
    pub fn state(&self) -> TaskState {
        self.status.state
    }

    /// The desired state.
    pub fn desired_state(&self) -> TaskState {
        self.desired_state
    }

    /// Replaces the status; the state may stay or go forward.
    ///
    /// # Errors
    /// [`StateRegression`] when the new state is earlier (I-TASK-1); the task is unchanged.
    pub fn advance(&mut self, status: TaskStatus) -> Result<(), StateRegression> {
        if status.state < self.status.state {
            return Err(StateRegression {
                from: self.status.state,
                to: status.state,
            });
        }
        self.status = status;
        Ok(())
    }

    /// Sets the desired state; it may stay or go forward.
    ///
    /// # Errors
    /// [`StateRegression`] when the wanted state is earlier (I-TASK-2); the task is unchanged.
    pub fn set_desired(&mut self, desired: TaskState) -> Result<(), StateRegression> {
        if desired < self.desired_state {
            return Err(StateRegression {
                from: self.desired_state,
                to: desired,
            });
        }
        self.desired_state = desired;
        Ok(())
    }

    /// Whether the task is still wanted: desired RUNNING or earlier (spec: "live").
    pub fn is_live(&self) -> bool {
        self.desired_state <= TaskState::Running
    }

    /// Whether the task has ended for good.
    pub fn is_terminal(&self) -> bool {
        self.status.state.is_terminal()
    }

    /// Whether it ended in a failure of its own, or was refused by its node.
    pub fn has_failed(&self) -> bool {
        matches!(self.state(), TaskState::Failed | TaskState::Rejected)
    }

    /// Whether two versions of a task share their body, which tells that nothing in it changed. It
    /// may have changed or not when they do not.
    pub fn shares_body(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.body, &other.body)
    }

    /// Whether two versions of a task differ at most in status and metadata: then a node has
    /// nothing to do (spec 5.7, 6.3). Shared parts cost one comparison of pointers.
    pub fn is_same_assignment(&self, other: &Self) -> bool {
        self.id == other.id
            && self.desired_state == other.desired_state
            && self.node_id == other.node_id
            && (self.shares_body(other) || self.body.is_same(&other.body))
    }

    /// The container part of the spec, if the task runs one.
    pub fn container(&self) -> Option<&v1::ContainerSpec> {
        crate::spec::container(&self.spec)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task() -> Task {
        Task::new("t".parse().unwrap(), Arc::default())
    }

    #[test]
    fn observed_state_may_repeat_or_advance_but_not_go_back() {
        let mut task = task();
        let status = |state| TaskStatus::new(state, Timestamp::EPOCH, "");
        task.advance(status(TaskState::Running)).unwrap();
        task.advance(status(TaskState::Running)).unwrap();
        let refusal = task.advance(status(TaskState::Starting)).unwrap_err();
        assert_eq!(refusal.to, TaskState::Starting);
        assert_eq!(task.state(), TaskState::Running);
        task.advance(status(TaskState::Complete)).unwrap();
    }

    #[test]
    fn desired_state_may_repeat_or_advance_but_not_go_back() {
        let mut task = task();
        task.set_desired(TaskState::Shutdown).unwrap();
        task.set_desired(TaskState::Shutdown).unwrap();
        assert!(task.set_desired(TaskState::Running).is_err());
        assert_eq!(task.desired_state(), TaskState::Shutdown);
    }

    #[test]
    fn status_and_metadata_do_not_make_another_assignment() {
        let (task, mut other) = (task(), task());
        other.meta.version = Version(7);
        other
            .advance(TaskStatus::new(TaskState::Running, Timestamp::EPOCH, "up"))
            .unwrap();
        assert!(task.is_same_assignment(&other));
        other.set_desired(TaskState::Shutdown).unwrap();
        assert!(!task.is_same_assignment(&other));
        let mut moved = task.clone();
        moved.node_id = Some("n".parse().unwrap());
        assert!(!task.is_same_assignment(&moved));
    }

    #[test]
    fn a_stored_task_stays_small() {
        // A million of them must fit a gigabyte together with all indices.
        assert!(size_of::<Task>() <= 208, "{}", size_of::<Task>());
        assert!(size_of::<TaskBody>() <= 168, "{}", size_of::<TaskBody>());
    }
}
