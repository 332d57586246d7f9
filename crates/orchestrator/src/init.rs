//! Tasks whose service is gone (spec 4.7 and the first step of 5): they are asked to leave.
//!
//! One loop does it for services of every mode. The other steps of SwarmKit's task initialisation
//! need no code: delays, attempts and failed tasks are read off the store by loops that do not
//! know whether they just started. Deleting is the reaper's.

use std::collections::{BTreeMap, BTreeSet};

use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Change, Root};
use swarm_types::{AnyObject, ServiceId, Task, TaskId, TaskState};

use crate::plan::Plan;

/// The loop for tasks without their service. Its keys are the ids of services that are gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Init {
    /// What is left to do: tasks not yet asked to leave, by the service that is gone. Without it
    /// each step would walk over the tasks that were asked before.
    left: BTreeMap<ServiceId, BTreeSet<TaskId>>,
}

impl Reconciler for Init {
    type Key = ServiceId;
    const NAME: &'static str = "task-init";

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<ServiceId>) {
        match &change.object {
            AnyObject::Service(service) => self.look_at_service(view, &service.id, dirty),
            AnyObject::Task(task) => self.look_at_task(view, task, dirty),
            AnyObject::Node(_)
            | AnyObject::Network(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {}
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<ServiceId>) {
        self.left.clear();
        for task in view.all::<Task>() {
            self.look_at_task(view, task, dirty);
        }
    }

    fn cache_drift(&self, view: &Root) -> Option<String> {
        swarm_reconcile::drift_from_resync(self, view)
    }

    fn reconcile(&self, view: &Root, key: &ServiceId, _: &mut Ctx<'_>) -> Step {
        let mut plan = Plan::default();
        for id in self.left.get(key).into_iter().flatten() {
            let Some(task) = view.task(id).filter(|task| is_left(view, task)) else {
                continue;
            };
            if !plan.set_desired(task, TaskState::Remove) {
                break;
            }
        }
        plan.finish()
    }
}

impl Init {
    fn look_at_service(&mut self, view: &Root, id: &ServiceId, dirty: &mut BTreeSet<ServiceId>) {
        if view.service(id).is_some() {
            self.left.remove(id);
            return;
        }
        for task in view.tasks_of_service(id) {
            self.look_at_task(view, task, dirty);
        }
    }

    fn look_at_task(&mut self, view: &Root, task: &Task, dirty: &mut BTreeSet<ServiceId>) {
        let Some(service) = &task.service_id else {
            return;
        };
        // Cheap first: nearly all tasks have their service, and a task does not change services.
        let is_gone = view.service(service).is_none();
        if is_gone && view.task(&task.id).is_some_and(|task| is_left(view, task)) {
            let left = self.left.entry(service.clone()).or_default();
            left.insert(task.id.clone());
            dirty.insert(service.clone());
        } else if let Some(left) = self.left.get_mut(service) {
            left.remove(&task.id);
            if left.is_empty() {
                self.left.remove(service);
            }
        }
    }
}

/// Whether a task has a service that is gone, and nobody told it yet.
fn is_left(view: &Root, task: &Task) -> bool {
    let service = task.service_id.as_ref();
    task.desired_state() < TaskState::Remove && service.is_some_and(|id| view.service(id).is_none())
}

#[cfg(test)]
mod tests;
