//! Takes tasks from NEW to PENDING once what they need is allocated (spec 19.5).
//!
//! Two kinds of keys: a task by its id, and one pass over all services whose ports are not settled,
//! as services compete for numbers. The pass puts the reason on the tasks that have to wait, and it
//! runs again when a port is freed, a service changes, or the ingress network comes or goes.
//! SwarmKit waits up to five minutes for that, and says nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, TRANSACTION_CHANGES_MAX, Write, WriteSet};
use swarm_types::{
    AnyObject, Network, Service, ServiceId, Task, TaskId, TaskState, TaskStatus, Text, Timestamp,
};

use crate::ports::{Ingress, Occupancy, allocate, is_settled};

/// The message of a task that is ready for the scheduler.
pub const PENDING_MESSAGE: &str = "pending task scheduling";
/// The error of a task whose spec attaches it to a network.
pub const NETWORKS_ERR: &str =
    "networks are not supported yet; remove the networks from the service spec";
/// How the error of a task begins whose service has to wait for its ports.
pub const PORTS_ERR_PREFIX: &str = "service ports could not be allocated: ";

/// What one decision is about. Services come first: their tasks wait for them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// All services whose ports are not settled.
    Services,
    /// One task.
    Task(TaskId),
}

/// The loop that allocates. It keeps no cache: what is taken is read off the stored services, and
/// only when some service waits for ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Allocator;

impl Reconciler for Allocator {
    type Key = Key;
    const NAME: &'static str = "allocator";

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Key>) {
        match &change.object {
            AnyObject::Service(service) => observe_service(change, service, view, dirty),
            AnyObject::Task(task) => mark_task(view, task, dirty),
            AnyObject::Network(network) => {
                if network.spec.ingress || was_ingress(change) {
                    dirty.insert(Key::Services);
                }
            }
            AnyObject::Node(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {}
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Key>) {
        dirty.insert(Key::Services);
        for task in view.all::<Task>() {
            mark_task(view, task, dirty);
        }
    }

    fn reconcile(&self, view: &Root, key: &Key, ctx: &mut Ctx<'_>) -> Step {
        let mut step = Step::default();
        match key {
            Key::Services => settle_services(view, ctx.now, &mut step),
            Key::Task(id) => step.writes.extend(allocate_task(view, id, ctx.now)),
        }
        step
    }
}

/// Whether a task waits for the allocator at all.
pub fn is_waiting(task: &Task) -> bool {
    task.state() == TaskState::New && task.desired_state() <= TaskState::Complete
}

fn observe_service(change: &Change, service: &Service, view: &Root, dirty: &mut BTreeSet<Key>) {
    let old = match &change.old {
        Some(AnyObject::Service(old)) => Some(&**old),
        Some(_) | None => None,
    };
    let is_removed = change.action == Action::Remove;
    let is_endpoint_new = old.is_none_or(|old| old.endpoint != service.endpoint);
    // Whoever waits for a number that is free from now on gets his turn.
    let frees = is_removed || old.is_some_and(|old| old.endpoint.is_some() && is_endpoint_new);
    if (frees && service_or_old_has_ports(old, service)) || (!is_removed && !is_settled(service)) {
        dirty.insert(Key::Services);
    }
    let is_networked = old.is_some_and(|old| has_networks(old) != has_networks(service));
    if !is_removed && (is_endpoint_new || is_networked || old.is_some_and(|old| !is_settled(old))) {
        for task in view.tasks_of_service(&service.id) {
            mark_task(view, task, dirty);
        }
    }
}

fn service_or_old_has_ports(old: Option<&Service>, service: &Service) -> bool {
    [old, Some(service)]
        .into_iter()
        .flatten()
        .filter_map(|service| service.endpoint.as_deref())
        .any(|endpoint| !endpoint.ports.is_empty())
}

fn was_ingress(change: &Change) -> bool {
    match &change.old {
        Some(AnyObject::Network(old)) => old.spec.ingress,
        Some(_) | None => false,
    }
}

/// Marks a task that waits: itself, or the pass when its service is not settled.
fn mark_task(view: &Root, task: &Task, dirty: &mut BTreeSet<Key>) {
    if !is_waiting(task) {
        return;
    }
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    dirty.insert(match service {
        Some(service) if !is_settled(service) => Key::Services,
        Some(_) | None => Key::Task(task.id.clone()),
    });
}

/// The write that brings a waiting task on, or says why it waits; `None`: nothing to do.
fn allocate_task(view: &Root, id: &TaskId, now: Timestamp) -> Option<Write> {
    let task = view.task(id).filter(|task| is_waiting(task))?;
    let service = match &task.service_id {
        // A service that is gone takes its tasks along.
        Some(id) => Some(view.service(id)?),
        None => None,
    };
    let is_networked = !task.spec.networks.is_empty()
        || service.is_some_and(|service| has_service_networks(service));
    if is_networked {
        return with_reason(task, NETWORKS_ERR.into(), now);
    }
    if service.is_some_and(|service| !is_settled(service)) {
        return None;
    }
    let mut task = (**task).clone();
    if let Some(endpoint) = service.and_then(|service| service.endpoint.as_ref()) {
        task.endpoint = Some(Arc::clone(endpoint));
    }
    let status = TaskStatus::new(TaskState::Pending, now, PENDING_MESSAGE);
    task.advance(status).ok()?;
    Some(Write::update(task))
}

/// The networks of a service by its template, or by the deprecated list when that is empty.
fn has_networks(service: &Service) -> bool {
    !service.spec.task().networks.is_empty() || has_service_networks(service)
}

fn has_service_networks(service: &Service) -> bool {
    !service.spec.networks.is_empty()
}

/// The write that puts a reason on a waiting task; `None` when it is there already.
fn with_reason(task: &Task, err: Text, now: Timestamp) -> Option<Write> {
    if task.status().err == err {
        return None;
    }
    let mut task = task.clone();
    let status = TaskStatus {
        timestamp: Some(now),
        err,
        ..task.status().clone()
    };
    task.advance(status).ok()?;
    Some(Write::update(task))
}

/// Gives every unsettled service its endpoint, or its waiting tasks the reason why not. The queue
/// cuts what is too large for a transaction; whatever is left out is found again.
fn settle_services(view: &Root, now: Timestamp, step: &mut Step) {
    let unsettled: Vec<_> = view
        .all::<Service>()
        .filter(|service| !is_settled(service))
        .collect();
    if unsettled.is_empty() {
        return;
    }
    let mut occupancy = Occupancy::of(view);
    let ingress = view
        .ingress_network()
        .map_or(Ingress::Missing, |_: &Arc<Network>| Ingress::Present);
    for service in unsettled {
        match allocate(service, &occupancy, ingress) {
            Ok(endpoint) => {
                let ports = endpoint
                    .as_ref()
                    .map_or(&[][..], |endpoint| &endpoint.ports);
                occupancy.replace(service, ports);
                let mut service = (**service).clone();
                service.endpoint = endpoint.map(Arc::new);
                push(step, Write::update(service));
            }
            Err(error) => {
                let err = Text::from(format!("{PORTS_ERR_PREFIX}{error}"));
                explain(view, &service.id, &err, now, step);
            }
        }
        if step.more {
            return;
        }
    }
}

fn explain(view: &Root, service: &ServiceId, err: &Text, now: Timestamp, step: &mut Step) {
    for task in view
        .tasks_of_service(service)
        .filter(|task| is_waiting(task))
    {
        if let Some(write) = with_reason(task, err.clone(), now) {
            push(step, write);
        }
        if step.more {
            return;
        }
    }
}

/// Each write is refused by itself: services and tasks are written by others too.
fn push(step: &mut Step, write: Write) {
    if step.sets.len() < TRANSACTION_CHANGES_MAX {
        step.sets.push(WriteSet(vec![write]));
    } else {
        step.more = true;
    }
}

#[cfg(test)]
mod tests;
