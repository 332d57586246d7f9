//! Keeps one task of each global service on every eligible node (spec 7 and 10).
//!
//! A key is a service on a node, so that a change of a node costs as many decisions as there are
//! global services, and each reads the tasks of that node only.
//!
//! Differences from SwarmKit: a task that an operator removed is created again, as for replicated
//! services and as SwarmKit does after a change of leader; a node that stops matching the
//! constraints loses its task here as well as through the constraint enforcer; policies are those
//! of the task's own service. Tasks made from an older spec are left alone: replacing them is a
//! rolling update.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use swarm_api::v1::node_spec::Availability;
use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, Write};
use swarm_types::constraint::{Constraint, matches_all};
use swarm_types::engine::can_run;
use swarm_types::{AnyObject, Node, NodeId, Service, ServiceId, Task, TaskId, TaskState, spec};

use crate::plan::Plan;
use crate::replicated::reconcile_replica;
use crate::restart::{concerns_replica, is_down, may_still_run, trouble};
use crate::slot::{Standing, Tuple, is_rolling_back, standing};
use crate::task::{Place, Template};

/// A service on a node; without a node, the tasks of the service that have none.
pub type Key = (ServiceId, Option<NodeId>);

/// The loop for global services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Global {
    /// All global services, so that a node's change need not walk over the others.
    services: BTreeSet<ServiceId>,
}

/// Whether a node has a task of a service, or why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eligibility {
    /// It has one.
    Eligible,
    /// It keeps the one it has, gets none, and a task that ends is not replaced.
    Paused,
    /// Drained by the user.
    Drained,
    /// Missed its heartbeats.
    Down,
    /// Does not satisfy the placement constraints.
    Unfit,
    /// What runs its tasks cannot run the image.
    OtherEngine,
}

impl fmt::Display for Eligibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Eligible => "the node is eligible",
            Self::Paused => "the node is paused",
            Self::Drained => "the node is drained",
            Self::Down => "the node is down",
            Self::Unfit => "the node does not satisfy the placement constraints",
            Self::OtherEngine => "the node cannot run the image",
        })
    }
}

/// Judges a node for a global service. Constraints that do not parse count as none; validation
/// refuses them at the edge.
pub fn eligibility(service: &Service, node: &Node) -> Eligibility {
    if is_down(node) {
        return Eligibility::Down;
    }
    let constraints = spec::constraints(service.spec.task());
    let constraints = Constraint::parse_all(constraints).unwrap_or_default();
    match node.availability() {
        Availability::Drain => Eligibility::Drained,
        Availability::Active | Availability::Pause if !matches_all(&constraints, node) => {
            Eligibility::Unfit
        }
        Availability::Active | Availability::Pause if !can_run(service.spec.task(), node) => {
            Eligibility::OtherEngine
        }
        Availability::Pause => Eligibility::Paused,
        Availability::Active => Eligibility::Eligible,
    }
}

impl Reconciler for Global {
    type Key = Key;
    const NAME: &'static str = "global";

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Key>) {
        match &change.object {
            AnyObject::Service(service) => self.observe_service(change, service, view, dirty),
            AnyObject::Task(task) => self.observe_task(change, task, dirty),
            AnyObject::Node(node) => self.observe_node(change, node, view, dirty),
            AnyObject::Network(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {}
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Key>) {
        self.services.clear();
        for service in view.all::<Service>() {
            if spec::is_global(&service.spec) {
                self.services.insert(service.id.clone());
                mark_everywhere(view, &service.id, dirty);
            }
        }
    }

    fn cache_drift(&self, view: &Root) -> Option<String> {
        swarm_reconcile::drift_from_resync(self, view)
    }

    fn reconcile(&self, view: &Root, (id, node): &Key, ctx: &mut Ctx<'_>) -> Step {
        let mut plan = Plan::default();
        if let Some(service) = view.service(id)
            && spec::is_global(&service.spec)
        {
            match node {
                None => shut_down_unplaced(view, id, &mut plan),
                Some(node) => reconcile_node(view, service, node, ctx, &mut plan),
            }
        }
        plan.finish()
    }
}

impl Global {
    fn observe_service(
        &mut self,
        change: &Change,
        service: &Service,
        view: &Root,
        dirty: &mut BTreeSet<Key>,
    ) {
        // The view may be ahead of the change: what exists is what it says.
        let Some(service) = view.service(&service.id) else {
            self.services.remove(&service.id);
            return;
        };
        if !spec::is_global(&service.spec) {
            return;
        }
        let is_new = self.services.insert(service.id.clone());
        // Endpoints and progress of updates come and go without a task being concerned.
        let is_same = |old: &Service| {
            old.spec == service.spec && is_rolling_back(old) == is_rolling_back(service)
        };
        if let Some(AnyObject::Service(old)) = &change.old
            && !is_new
            && is_same(old)
        {
            return;
        }
        mark_everywhere(view, &service.id, dirty);
    }

    fn observe_task(&self, change: &Change, task: &Task, dirty: &mut BTreeSet<Key>) {
        let Some(service) = &task.service_id else {
            return;
        };
        let old = match &change.old {
            Some(AnyObject::Task(old)) => Some(&**old),
            Some(_) | None => None,
        };
        let is_concerned = change.action == Action::Remove || concerns_replica(old, task);
        if is_concerned && self.services.contains(service) {
            dirty.insert((service.clone(), task.node_id.clone()));
        }
    }

    fn observe_node(&self, change: &Change, node: &Node, view: &Root, dirty: &mut BTreeSet<Key>) {
        if let Some(AnyObject::Node(old)) = &change.old
            && !may_change_eligibility(old, node)
        {
            return;
        }
        if change.action != Action::Remove {
            let key = |service: &ServiceId| (service.clone(), Some(node.id.clone()));
            dirty.extend(self.services.iter().map(key));
            return;
        }
        for task in view.tasks_on_node(&node.id) {
            if let Some(service) = &task.service_id
                && self.services.contains(service)
            {
                dirty.insert((service.clone(), Some(node.id.clone())));
            }
        }
    }
}

/// Whether anything differs that eligibility is read from; heartbeats change none of it.
fn may_change_eligibility(old: &Node, new: &Node) -> bool {
    is_down(old) != is_down(new)
        || old.spec != new.spec
        || old.role != new.role
        || old.description != new.description
        || old.status.addr != new.status.addr
}

fn mark_everywhere(view: &Root, id: &ServiceId, dirty: &mut BTreeSet<Key>) {
    let nodes = view.all::<Node>().map(|node| Some(node.id.clone()));
    let of_tasks = view.tasks_of_service(id).map(|task| task.node_id.clone());
    dirty.extend(nodes.chain(of_tasks).map(|node| (id.clone(), node)));
}

fn reconcile_node(
    view: &Root,
    service: &Service,
    node: &NodeId,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let tuple = Tuple::Node(service.id.clone(), node.clone());
    let tasks = tuple.tasks(view);
    let Some(node) = view.node(node) else {
        // Nobody is left who could report how they end.
        delete_all(&tasks, plan);
        return;
    };
    match eligibility(service, node) {
        Eligibility::Drained
        | Eligibility::Down
        | Eligibility::Unfit
        | Eligibility::OtherEngine => {
            shut_down(tasks.iter().filter(|task| task.is_live()), plan);
        }
        Eligibility::Paused => {
            let ended = |task: &&&Arc<Task>| task.is_live() && task.is_terminal();
            if tasks.iter().any(|task| ended(&task)) {
                shut_down(tasks.iter().filter(ended), plan);
            } else {
                reconcile_replica(view, service, &tuple, ctx, plan);
            }
        }
        Eligibility::Eligible if shut_down_extra(view, &tasks, plan) => {}
        Eligibility::Eligible => match standing(service, &tasks) {
            Standing::Filled => reconcile_replica(view, service, &tuple, ctx, plan),
            Standing::Spent(_) => {}
            Standing::Empty | Standing::Dead => {
                let is_blocked = tasks.iter().any(|old| may_still_run(view, old));
                create(view, service, node, is_blocked, ctx, plan);
            }
        },
    }
}

/// Creates a task that starts at once, or, where an older one is still stopping (a drained node
/// that was activated again), like a replacement: when that one has ended. SwarmKit runs both at
/// once.
fn create(
    view: &Root,
    service: &Service,
    node: &Node,
    is_blocked: bool,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let template = Template::new(service, view.cluster().map(|cluster| &**cluster));
    let id = TaskId::new(ctx.ids.next_id());
    let place = Place::Node(node.id.clone());
    let desired = if is_blocked {
        TaskState::Ready
    } else {
        TaskState::Running
    };
    let task = template.task(id, &place, desired, ctx.now);
    // Made for this version of the spec and of the node, or not at all.
    plan.push([
        Write::require(service),
        Write::require(node),
        Write::create(task),
    ]);
}

/// Leaves one live task: one without trouble if there is, of those the oldest. Whether there was
/// more than one.
fn shut_down_extra(view: &Root, tasks: &[&Arc<Task>], plan: &mut Plan) -> bool {
    let mut live: Vec<_> = tasks.iter().filter(|task| task.is_live()).collect();
    live.sort_by_key(|task| {
        (
            trouble(view, task).is_some(),
            task.meta.created_at,
            &task.id,
        )
    });
    shut_down(live.iter().skip(1).copied(), plan);
    live.len() > 1
}

fn shut_down<'a>(tasks: impl Iterator<Item = &'a &'a Arc<Task>>, plan: &mut Plan) {
    for task in tasks {
        if !plan.set_desired(task, TaskState::Shutdown) {
            return;
        }
    }
}

fn shut_down_unplaced(view: &Root, id: &ServiceId, plan: &mut Plan) {
    let tasks: Vec<_> = view
        .tasks_of_service(id)
        .filter(|task| task.node_id.is_none() && task.is_live())
        .collect();
    shut_down(tasks.iter(), plan);
}

fn delete_all(tasks: &[&Arc<Task>], plan: &mut Plan) {
    for task in tasks {
        if !plan.push([Write::delete(&***task)]) {
            return;
        }
    }
}

#[cfg(test)]
mod tests;
