//! Rejects tasks whose node no longer fits them (spec 12): labels, role, platform or resources of
//! the node changed after they were placed. The service's loop replaces them.
//!
//! Difference from SwarmKit: a task whose generic resource is gone does not end the check, the
//! tasks after it are looked at too.

use std::collections::BTreeSet;
use std::fmt;

use swarm_api::v1;
use swarm_api::v1::node_spec::Availability;
use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, Write};
use swarm_types::constraint::{Constraint, matches_all};
use swarm_types::resources::{Resources, consume, has_resource};
use swarm_types::{AnyObject, Node, NodeId, Task, TaskState, TaskStatus, Timestamp, spec};

use crate::plan::Plan;

/// The status message of a rejected task.
pub const MESSAGE: &str = "task rejected by constraint enforcer";
/// The error in its status.
pub const ERR: &str = "assigned node no longer meets constraints";

/// The loop that enforces placement on nodes that changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConstraintEnforcer;

/// Why a task does not fit its node any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// A placement constraint does not hold.
    Constraint,
    /// It reserves more memory than the tasks before it leave.
    Memory,
    /// It reserves more processor time than the tasks before it leave.
    Cpu,
    /// A generic resource that it was given is gone.
    Generic,
}

impl fmt::Display for Misfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Constraint => "the node does not satisfy the placement constraints",
            Self::Memory => "the node has too little memory left",
            Self::Cpu => "the node has too few processors left",
            Self::Generic => "the node lost a generic resource that the task uses",
        })
    }
}

impl Reconciler for ConstraintEnforcer {
    type Key = NodeId;
    const NAME: &'static str = "constraint-enforcer";

    fn observe(&mut self, change: &Change, _: &Root, dirty: &mut BTreeSet<NodeId>) {
        let AnyObject::Node(node) = &change.object else {
            return;
        };
        let is_same = match &change.old {
            Some(AnyObject::Node(old)) => is_same_place(old, node),
            Some(_) | None => false,
        };
        if change.action != Action::Remove && !is_same {
            dirty.insert(node.id.clone());
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<NodeId>) {
        dirty.extend(view.all::<Node>().map(|node| node.id.clone()));
    }

    fn reconcile(&self, view: &Root, key: &NodeId, ctx: &mut Ctx<'_>) -> Step {
        let mut plan = Plan::default();
        for (task, _) in misfits(view, key) {
            if !reject(task, ctx.now, &mut plan) {
                break;
            }
        }
        plan.finish()
    }
}

/// Whether nothing differs from which a misfit could come; heartbeats change none of it.
fn is_same_place(old: &Node, new: &Node) -> bool {
    old.spec == new.spec
        && old.description == new.description
        && old.role == new.role
        && old.status.addr == new.status.addr
}

/// The tasks on an ACTIVE node that it can no longer hold, in the order of their ids; other nodes
/// are the business of the service loops.
pub fn misfits<'a>(view: &'a Root, id: &NodeId) -> Vec<(&'a Task, Misfit)> {
    let Some(node) = view.node(id) else {
        return Vec::new();
    };
    if node.availability() != Availability::Active {
        return Vec::new();
    }
    let mut room = Room::of(node);
    let held = |task: &&Task| {
        (TaskState::Assigned..=TaskState::Complete).contains(&task.desired_state())
            && task.state() < TaskState::Complete
    };
    view.tasks_on_node(id)
        .map(|task| &**task)
        .filter(held)
        .filter_map(|task| Some((task, judge(view, node, task, &mut room)?)))
        .collect()
}

fn judge(view: &Root, node: &Node, task: &Task, room: &mut Room) -> Option<Misfit> {
    // A service's constraints may have changed after the task was made, which keeps the task.
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    let constraints = service.map_or(&task.spec, |service| service.spec.task());
    let constraints = Constraint::parse_all(spec::constraints(constraints)).unwrap_or_default();
    if !matches_all(&constraints, node) {
        return Some(Misfit::Constraint);
    }
    room.take(task)
}

/// What the tasks before leave of a node.
struct Room {
    memory: i64,
    cpu: i64,
    generic: Resources,
}

impl Room {
    fn of(node: &Node) -> Self {
        let resources = node
            .description
            .as_ref()
            .and_then(|description| description.resources.as_ref());
        let of = |read: fn(&v1::Resources) -> i64| resources.map_or(0, read);
        Self {
            memory: of(|resources| resources.memory_bytes),
            cpu: of(|resources| resources.nano_cpus),
            generic: resources.map_or_else(Vec::new, |resources| resources.generic.clone()),
        }
    }

    /// Takes what the task needs, or nothing and says what is missing.
    fn take(&mut self, task: &Task) -> Option<Misfit> {
        let reserved = spec::reservations(&task.spec);
        let memory = reserved.map_or(0, |reserved| reserved.memory_bytes);
        let cpu = reserved.map_or(0, |reserved| reserved.nano_cpus);
        if memory > self.memory {
            return Some(Misfit::Memory);
        }
        if cpu > self.cpu {
            return Some(Misfit::Cpu);
        }
        let assigned = &task.assigned_generic_resources;
        if !assigned
            .iter()
            .all(|wanted| has_resource(&self.generic, wanted))
        {
            return Some(Misfit::Generic);
        }
        self.memory -= memory;
        self.cpu -= cpu;
        consume(&mut self.generic, assigned);
        None
    }
}

fn reject(task: &Task, now: Timestamp, plan: &mut Plan) -> bool {
    let mut status = TaskStatus {
        err: ERR.into(),
        applied_at: Some(now),
        ..task.status().clone()
    };
    status.state = TaskState::Rejected;
    status.timestamp = Some(now);
    status.message = MESSAGE.into();
    let mut task = task.clone();
    match task.advance(status) {
        Ok(()) => plan.push([Write::update(task)]),
        Err(_) => {
            debug_assert!(false, "I-TASK-1: only tasks below COMPLETE are rejected");
            true
        }
    }
}

#[cfg(test)]
mod tests;
