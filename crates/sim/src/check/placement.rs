//! Placement by brute force: every filter again, written without looking at the scheduler.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::{Commit, Root};
use swarm_types::conditions;
use swarm_types::constraint::{Constraint, matches_all};
use swarm_types::{AnyObject, Node, NodeState, Service, Task, TaskState, resources, spec};
use v1::generic_resource::Resource;
use v1::node_spec::Availability;
use v1::port_config::PublishMode;

use crate::invariants::{ADDRESSES, Checked, ELIGIBLE, PORTS, RESOURCES, ensure};
use crate::manager::replica::Author;

/// Checks assignments and published ports of a commit.
pub(super) fn check(author: Author, root: &Root, commit: &Commit) -> Checked {
    let (mut has_services, mut has_others) = (false, false);
    for change in &commit.changes {
        has_others |= matches!(change.object, AnyObject::Task(_) | AnyObject::Node(_));
        let AnyObject::Task(task) = &change.object else {
            has_services |= matches!(change.object, AnyObject::Service(_));
            continue;
        };
        let Some(AnyObject::Task(old)) = &change.old else {
            continue;
        };
        let is_assigned = old.state() < TaskState::Assigned
            && (TaskState::Assigned..=TaskState::Running).contains(&task.state());
        if is_assigned {
            check_assignment(root, task)?;
        }
    }
    if has_services && author.name() == "allocator" {
        check_ports(root)?;
    }
    if (has_services || has_others) && author.name() == "allocator" {
        check_addresses(root)?;
    }
    Ok(())
}

fn check_assignment(root: &Root, task: &Task) -> Checked {
    let node = task.node_id.as_ref().and_then(|id| root.node(id));
    let told = |reason: &str| {
        let node = node.map(|node| (&node.id, node.hostname()));
        format!(
            "task {} of {:?} on {node:?}: {reason}",
            task.id, task.service_id
        )
    };
    let Some(found) = node else {
        return ensure(false, ELIGIBLE, || told("there is no such node"));
    };
    let reason = refusal(task, found);
    ensure(reason.is_none(), ELIGIBLE, || {
        told(reason.unwrap_or_default())
    })?;
    let reason = shortage(root, task, found);
    ensure(reason.is_none(), RESOURCES, || {
        told(reason.unwrap_or_default())
    })
}

/// Whether the node would take a task that waits.
pub(crate) fn fits(root: &Root, task: &Task, node: &Node) -> bool {
    refusal(task, node).is_none() && shortage(root, task, node).is_none()
}

/// Why the node is not for this task, whatever else runs on it.
fn refusal(task: &Task, node: &Node) -> Option<&'static str> {
    if node.status.state != NodeState::Ready {
        return Some("it is not READY");
    }
    if node.availability() != Availability::Active {
        return Some("it is not ACTIVE");
    }
    if conditions::refuse_tasks(node) {
        return Some("its disk takes no record of a task");
    }
    let constraints = Constraint::parse_all(spec::constraints(&task.spec)).unwrap_or_default();
    if !matches_all(&constraints, node) {
        return Some("a constraint does not hold");
    }
    let platforms = task
        .spec
        .placement
        .as_ref()
        .map_or(&[][..], |own| &own.platforms);
    let has = node
        .description
        .as_ref()
        .and_then(|own| own.platform.as_ref());
    let is_native = |platform: &v1::Platform| {
        has.is_some_and(|own| {
            own.os == platform.os
                && (own.architecture == platform.architecture || platform.architecture.is_empty())
        })
    };
    if !platforms.is_empty() && !platforms.iter().any(is_native) {
        return Some("it has another platform");
    }
    None
}

/// What the node has too little of, with this task on it.
fn shortage(root: &Root, task: &Task, node: &Node) -> Option<&'static str> {
    let holds = |other: &&Arc<Task>| {
        other.id != task.id && (TaskState::Assigned..=TaskState::Running).contains(&other.state())
    };
    let others: Vec<_> = root.tasks_on_node(&node.id).filter(holds).collect();
    let all = || others.iter().map(|other| &***other).chain([task]);
    let described = node
        .description
        .as_ref()
        .and_then(|own| own.resources.clone());
    let has = described.unwrap_or_default();
    let sum = |read: fn(&v1::Resources) -> i64| -> i64 {
        all()
            .filter_map(|task| spec::reservations(&task.spec))
            .map(read)
            .sum()
    };
    let own = spec::reservations(&task.spec).cloned().unwrap_or_default();
    if own.nano_cpus > 0 && sum(|own| own.nano_cpus) > has.nano_cpus {
        return Some("too little processor time");
    }
    if own.memory_bytes > 0 && sum(|own| own.memory_bytes) > has.memory_bytes {
        return Some("too little memory");
    }
    if let Some(reason) = generic_shortage(task, &others, &own, &has) {
        return Some(reason);
    }
    let taken: BTreeSet<_> = others.iter().flat_map(|other| host_ports(other)).collect();
    if host_ports(task).iter().any(|port| taken.contains(port)) {
        return Some("a host port is taken");
    }
    let max = task
        .spec
        .placement
        .as_ref()
        .map_or(0, |own| own.max_replicas);
    let count = all()
        .filter(|other| other.service_id == task.service_id)
        .filter(|other| other.desired_state() <= TaskState::Complete)
        .count() as u64;
    (max > 0 && count > max).then_some("too many replicas of the service")
}

fn generic_shortage(
    task: &Task,
    others: &[&Arc<Task>],
    own: &v1::Resources,
    has: &v1::Resources,
) -> Option<&'static str> {
    let held = || {
        others
            .iter()
            .flat_map(|other| &other.assigned_generic_resources)
    };
    for wanted in &own.generic {
        let Some(Resource::DiscreteResourceSpec(wanted)) = &wanted.resource else {
            continue;
        };
        let total = resources::amount_of(&has.generic, &wanted.kind);
        // A unit that the node has lost is held in vain and takes nobody's place.
        let is_there = |held: &&v1::GenericResource| {
            let is_named = matches!(held.resource, Some(Resource::NamedResourceSpec(_)));
            !is_named || has.generic.contains(held)
        };
        let used = held().filter(is_there);
        let used: i64 = used.map(|held| amount(held, &wanted.kind)).sum();
        if used + wanted.value > total {
            return Some("too few generic resources");
        }
        let claimed: i64 = task
            .assigned_generic_resources
            .iter()
            .map(|held| amount(held, &wanted.kind))
            .sum();
        if task.state() >= TaskState::Assigned && claimed != wanted.value {
            return Some("it did not get the generic resources that it reserves");
        }
    }
    for unit in &task.assigned_generic_resources {
        let is_named = matches!(unit.resource, Some(Resource::NamedResourceSpec(_)));
        if is_named && (held().any(|held| held == unit) || !has.generic.contains(unit)) {
            return Some("a named resource is given twice or does not exist");
        }
    }
    None
}

fn amount(entry: &v1::GenericResource, kind: &str) -> i64 {
    match &entry.resource {
        Some(Resource::DiscreteResourceSpec(own)) if own.kind == kind => own.value,
        Some(Resource::NamedResourceSpec(own)) if own.kind == kind => 1,
        Some(Resource::DiscreteResourceSpec(_) | Resource::NamedResourceSpec(_)) | None => 0,
    }
}

fn host_ports(task: &Task) -> Vec<(i32, u32)> {
    published(task.endpoint.as_deref(), PublishMode::Host)
}

fn published(endpoint: Option<&v1::Endpoint>, mode: PublishMode) -> Vec<(i32, u32)> {
    let ports = endpoint.map_or(&[][..], |endpoint| &endpoint.ports);
    ports
        .iter()
        .filter(|port| port.publish_mode == mode as i32 && port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
        .collect()
}

fn check_ports(root: &Root) -> Checked {
    let mut taken = BTreeSet::new();
    for service in root.all::<Service>() {
        for port in published(service.endpoint.as_deref(), PublishMode::Ingress) {
            ensure(taken.insert(port), PORTS, || {
                format!("{port:?} of {} is another's already", service.spec.name())
            })?;
        }
    }
    Ok(())
}

fn check_addresses(root: &Root) -> Checked {
    let of = |attachments: &[v1::NetworkAttachment]| -> Vec<(String, String)> {
        let pairs = attachments.iter().flat_map(|attachment| {
            let network = attachment.network.clone().unwrap_or_default().id;
            let addresses = attachment.addresses.clone();
            addresses.into_iter().map(move |it| (network.clone(), it))
        });
        pairs.collect()
    };
    let services = root.all::<Service>().flat_map(|service| {
        let endpoint = service.endpoint.as_deref().cloned().unwrap_or_default();
        let vips = endpoint.virtual_ips.into_iter();
        vips.map(|vip| (vip.network_id, vip.addr))
    });
    let tasks = root.all::<Task>().filter(|task| !task.is_terminal());
    let tasks = tasks.flat_map(|task| of(&task.networks));
    let nodes = root.all::<Node>().flat_map(|node| of(&node.attachments));
    let mut taken = BTreeSet::new();
    for held in services.chain(tasks).chain(nodes) {
        ensure(!taken.contains(&held), ADDRESSES, || {
            format!("{held:?} has two holders")
        })?;
        taken.insert(held);
    }
    Ok(())
}
