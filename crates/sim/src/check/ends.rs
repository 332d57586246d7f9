//! Whether the cluster is as the specs say. Used after faults have ended.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::constraint::{Constraint, matches_all};
use swarm_types::{Node as NodeObject, NodeState, Service, Task, TaskState, spec};
use v1::node_spec::Availability;

use super::{commits, placement};
use crate::node::Node;
use crate::node::dependencies::check_end;
use crate::time::Instant;

/// `Ok` when everything is as it should be, else what is still missing.
pub(crate) fn converged(view: &Root, nodes: &[Node], at: Instant) -> Result<(), String> {
    check_trust(view, nodes)?;
    check_nodes(view, nodes)?;
    for task in view.all::<Task>() {
        check_task(view, task)?;
    }
    for service in view.all::<Service>() {
        check_service(view, service)
            .map_err(|missing| format!("service {}: {missing}", service.spec.name()))?;
    }
    for node in nodes {
        check_machine(view, node, at)?;
    }
    Ok(())
}

/// Every machine has joined, and the root is at rest.
fn check_trust(view: &Root, nodes: &[Node]) -> Result<(), String> {
    if let Some(node) = nodes
        .iter()
        .find(|node| node.identity.certificate.is_none())
    {
        return Err(format!("{} has not joined", node.ix));
    }
    let root_ca = view.cluster().and_then(|cluster| cluster.root_ca.as_ref());
    if root_ca.is_some_and(|root_ca| root_ca.root_rotation.is_some()) {
        return Err("the root still rotates".to_owned());
    }
    Ok(())
}

fn check_nodes(view: &Root, nodes: &[Node]) -> Result<(), String> {
    for node in view.all::<NodeObject>() {
        let has_agent = nodes
            .iter()
            .any(|own| own.id == node.id && own.agent.is_some());
        let expected = if has_agent {
            NodeState::Ready
        } else {
            NodeState::Down
        };
        if node.status.state != expected {
            let state = node.status.state.name();
            return Err(format!("node {} {} is {state}", node.id, node.hostname()));
        }
    }
    let lost = nodes
        .iter()
        .find(|node| node.agent.is_some() && view.node(&node.id).is_none());
    match lost {
        Some(node) => Err(format!("{} is not registered", node.ix)),
        None => Ok(()),
    }
}

fn check_task(view: &Root, task: &Arc<Task>) -> Result<(), String> {
    let (id, state, desired) = (&task.id, task.state(), task.desired_state());
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    if service.is_none() {
        return Err(format!(
            "task {id} ({state}, wanted {desired}) has no service any more"
        ));
    }
    if desired == TaskState::Remove {
        return Err(format!("task {id} ({state}) is to be removed"));
    }
    let may_run = (TaskState::Assigned..=TaskState::Running).contains(&state);
    if !task.is_live() && may_run {
        return Err(format!("task {id} ({state}) has not stopped"));
    }
    if task.is_live() && task.is_terminal() {
        return Err(format!("task {id} ({state}) is not replaced"));
    }
    if task.is_live() && state < TaskState::Assigned {
        return check_waiting(view, task);
    }
    if task.is_live() && (state != TaskState::Running || desired != TaskState::Running) {
        return Err(format!("task {id} is {state}, wanted {desired}"));
    }
    check_history(view, task)
}

/// A task that waits has a reason, and nobody would take it.
fn check_waiting(view: &Root, task: &Task) -> Result<(), String> {
    let err = &task.status().err;
    if err.is_empty() {
        return Err(format!(
            "task {} is {} and does not say why",
            task.id,
            task.state()
        ));
    }
    if task.state() == TaskState::New {
        return Ok(());
    }
    let taker = match &task.node_id {
        Some(node) => view
            .node(node)
            .filter(|node| placement::fits(view, task, node)),
        None => view
            .all::<NodeObject>()
            .find(|node| placement::fits(view, task, node)),
    };
    match taker {
        Some(node) => Err(format!(
            "task {} waits ({err}), but {} would take it",
            task.id,
            node.hostname()
        )),
        None => Ok(()),
    }
}

fn check_history(view: &Root, task: &Task) -> Result<(), String> {
    let limit = view
        .cluster()
        .and_then(|cluster| cluster.spec.orchestration.as_ref())
        .map_or(5, |own| own.task_history_retention_limit);
    let limit = usize::try_from(limit).unwrap_or(usize::MAX).max(1);
    let kept = commits::replica(view, task).len();
    if kept > limit {
        return Err(format!(
            "the replica of task {} has {kept} tasks, {limit} are kept",
            task.id
        ));
    }
    Ok(())
}

fn check_service(view: &Root, service: &Service) -> Result<(), String> {
    if spec::is_global(&service.spec) {
        return view
            .all::<NodeObject>()
            .try_for_each(|node| check_global(view, service, node));
    }
    let want = spec::replicas(&service.spec).unwrap_or(0);
    let mut slots: BTreeMap<_, usize> = BTreeMap::new();
    for task in view.tasks_of_service(&service.id) {
        *slots.entry(task.slot).or_default() += usize::from(task.is_live());
    }
    let have = slots.len() as u64;
    if let Some((slot, live)) = slots.iter().find(|(_, live)| **live != 1) {
        return Err(format!("slot {slot} has {live} live tasks"));
    }
    if have != want {
        return Err(format!("{have} of {want} replicas"));
    }
    check_places(view, service)
}

fn check_places(view: &Root, service: &Service) -> Result<(), String> {
    for task in view
        .tasks_of_service(&service.id)
        .filter(|task| task.is_live())
    {
        let Some(node) = task.node_id.as_ref().and_then(|id| view.node(id)) else {
            continue;
        };
        if node.availability() == Availability::Drain {
            return Err(format!("task {} is on a drained node", task.id));
        }
        if node.availability() == Availability::Active && !is_fit(service, node) {
            return Err(format!("task {} is on a node that does not fit", task.id));
        }
    }
    Ok(())
}

fn is_fit(service: &Service, node: &NodeObject) -> bool {
    let constraints = spec::constraints(service.spec.task());
    matches_all(
        &Constraint::parse_all(constraints).unwrap_or_default(),
        node,
    )
}

fn check_global(view: &Root, service: &Service, node: &NodeObject) -> Result<(), String> {
    let live = view
        .tasks_on_node(&node.id)
        .filter(|task| task.service_id.as_ref() == Some(&service.id) && task.is_live())
        .count();
    let is_right = match node.availability() {
        Availability::Drain => live == 0,
        Availability::Pause => live <= 1,
        Availability::Active => {
            let is_wanted = node.status.state == NodeState::Ready && is_fit(service, node);
            live == usize::from(is_wanted)
        }
    };
    if is_right {
        return Ok(());
    }
    Err(format!("{live} live tasks on {}", node.hostname()))
}

/// What runs is what the store says, and the agent knows no more than that.
fn check_machine(view: &Root, node: &Node, at: Instant) -> Result<(), String> {
    let Some(agent) = &node.agent else {
        return Ok(());
    };
    let is_running = |task: &&Arc<Task>| task.state() == TaskState::Running;
    let stored: BTreeSet<_> = view
        .tasks_on_node(&node.id)
        .filter(is_running)
        .map(|task| task.id.clone())
        .collect();
    let running = node.machine.running(at.as_timestamp());
    if stored != running {
        let missing: Vec<_> = stored.difference(&running).collect();
        let extra: Vec<_> = running.difference(&stored).collect();
        return Err(format!(
            "{}: missing processes {missing:?}, extra {extra:?}",
            node.ix
        ));
    }
    let assigned = |id: &&swarm_types::TaskId| {
        let task = view.task(id);
        task.is_none_or(|task| task.node_id.as_ref() != Some(&node.id))
    };
    let lines = node.publications.len();
    if lines > 0 {
        return Err(format!(
            "{} still publishes for {lines} subscriptions",
            node.ix
        ));
    }
    let live = view.tasks_on_node(&node.id).filter(is_running);
    let live: Vec<&Task> = live.map(|task| &**task).collect();
    check_end(agent, &live).map_err(|text| format!("{}: {text}", node.ix))?;
    match agent.known_tasks().iter().find(assigned) {
        Some(task) => Err(format!("{} still has task {task}", node.ix)),
        None => Ok(()),
    }
}
