//! The dumb twin: the same rules, read from the specification and computed by looking at every task
//! of the cluster each time.

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::conditions;
use swarm_types::constraint::{self, Constraint};
use swarm_types::engine::Engine;
use swarm_types::resources;
use swarm_types::{Node, NodeId, NodeState, Task, TaskId, TaskState, spec};
use v1::generic_resource::Resource;

/// Tasks that use a node.
fn users<'a>(root: &'a Root, node: &'a NodeId) -> impl Iterator<Item = &'a Task> {
    root.all::<Task>().map(|task| &**task).filter(move |task| {
        task.node_id.as_ref() == Some(node)
            && task.state() > TaskState::Pending
            && task.state() <= TaskState::Running
    })
}

fn is_active(task: &Task) -> bool {
    task.desired_state() <= TaskState::Complete
}

pub(crate) fn active_of(root: &Root, node: &NodeId, like: &Task) -> usize {
    users(root, node)
        .filter(|task| is_active(task) && task.service_id == like.service_id)
        .count()
}

fn host_ports(task: &Task) -> Vec<(i32, u32)> {
    let ports = task.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    ports
        .filter(|port| port.publish_mode == v1::port_config::PublishMode::Host as i32)
        .filter(|port| port.published_port != 0)
        .map(|port| (port.protocol, port.published_port))
        .collect()
}

fn reserved(task: &Task) -> (i64, i64) {
    spec::reservations(&task.spec).map_or((0, 0), |wire| (wire.nano_cpus, wire.memory_bytes))
}

fn described(node: &Node) -> v1::Resources {
    let description = node.description.as_deref().cloned().unwrap_or_default();
    description.resources.unwrap_or_default()
}

fn free_generic(root: &Root, node: &Node) -> resources::Resources {
    let mut free = described(node).generic;
    for task in users(root, &node.id) {
        resources::consume(&mut free, &task.assigned_generic_resources);
    }
    free
}

/// Whether a task could be placed on a node; volumes aside.
pub(crate) fn fits(root: &Root, node: &Node, task: &Task) -> bool {
    is_static_fit(node, task) && is_dynamic_fit(root, node, task)
}

fn is_static_fit(node: &Node, task: &Task) -> bool {
    use v1::node_spec::Availability;
    let placement = task.spec.placement.clone().unwrap_or_default();
    let constraints = Constraint::parse_all(&placement.constraints).unwrap_or_default();
    let platform = node
        .description
        .as_ref()
        .and_then(|description| description.platform.clone());
    let needed = spec::container(&task.spec).map(Engine::for_container);
    node.status.state == NodeState::Ready
        && needed.is_none_or(|needed| Engine::of(node).is_none_or(|own| own == needed))
        && node.availability() == Availability::Active
        && !conditions::refuse_tasks(node)
        && constraint::matches_all(&constraints, node)
        && (placement.platforms.is_empty()
            || platform.is_some_and(|own| placement.platforms.iter().any(|one| is_same(one, &own))))
}

fn is_same(wanted: &v1::Platform, own: &v1::Platform) -> bool {
    let name = |text: &str| text.replace("x86_64", "amd64").replace("aarch64", "arm64");
    let fits = |wanted: &str, own: &str| wanted.is_empty() || wanted == own;
    fits(&name(&wanted.architecture), &name(&own.architecture)) && fits(&wanted.os, &own.os)
}

fn is_dynamic_fit(root: &Root, node: &Node, task: &Task) -> bool {
    let (cpus, memory) = reserved(task);
    let resources = described(node);
    let used = users(root, &node.id).map(reserved);
    let (used_cpus, used_memory) = used.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let free = free_generic(root, node);
    let generic = spec::reservations(&task.spec).map_or(&[][..], |wire| &wire.generic);
    let max = task
        .spec
        .placement
        .as_ref()
        .map_or(0, |placement| placement.max_replicas);
    let taken: Vec<_> = users(root, &node.id).flat_map(host_ports).collect();
    (cpus == 0 || cpus <= resources.nano_cpus - used_cpus)
        && (memory == 0 || memory <= resources.memory_bytes - used_memory)
        && generic
            .iter()
            .all(|entry| resources::is_enough(&free, entry) == Ok(true))
        && host_ports(task).iter().all(|port| !taken.contains(port))
        && (max == 0 || (active_of(root, &node.id, task) as u64) < max)
}

/// What must hold of a task that was just placed: its node passes every filter, and nothing that it
/// takes was given away before.
#[track_caller]
pub(crate) fn check_placed(root: &Root, id: &TaskId) {
    let task = root.task(id).unwrap();
    let node = root.node(task.node_id.as_ref().unwrap()).unwrap();
    assert!(is_static_fit(node, task), "{} does not fit {id}", node.id);
    let used = users(root, &node.id).map(reserved);
    let (cpus, memory) = used.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
    let resources = described(node);
    let (own_cpus, own_memory) = reserved(task);
    let holds = |own: i64, used: i64, all: i64| own == 0 || used <= all;
    assert!(
        holds(own_cpus, cpus, resources.nano_cpus),
        "CPUs of {}",
        node.id
    );
    assert!(
        holds(own_memory, memory, resources.memory_bytes),
        "memory of {}",
        node.id
    );
    let ports: Vec<_> = users(root, &node.id).flat_map(host_ports).collect();
    for port in host_ports(task) {
        let holders = ports.iter().filter(|other| **other == port).count();
        assert_eq!(holders, 1, "port {port:?} of {}", node.id);
    }
    let max = task
        .spec
        .placement
        .as_ref()
        .map_or(0, |placement| placement.max_replicas);
    assert!(
        max == 0 || active_of(root, &node.id, task) as u64 <= max,
        "replicas on {}",
        node.id
    );
    check_generic(root, node, task);
}

#[track_caller]
fn check_generic(root: &Root, node: &Node, task: &Task) {
    let wanted = spec::reservations(&task.spec).map_or(&[][..], |wire| &wire.generic);
    for entry in wanted {
        let kind = resources::kind(entry);
        let own = resources::amount_of(&task.assigned_generic_resources, kind);
        assert_eq!(
            own,
            resources::amount_of(wanted, kind),
            "{kind} of {}",
            task.id
        );
    }
    let held: Vec<&v1::GenericResource> = users(root, &node.id)
        .flat_map(|task| &task.assigned_generic_resources)
        .collect();
    for entry in &task.assigned_generic_resources {
        match entry.resource.as_ref().unwrap() {
            Resource::NamedResourceSpec(_) => {
                let holders = held.iter().filter(|other| **other == entry).count();
                assert_eq!(holders, 1, "{entry:?} of {}", node.id);
                assert!(
                    described(node).generic.contains(entry),
                    "{entry:?} of {}",
                    node.id
                );
            }
            Resource::DiscreteResourceSpec(amount) => {
                let of_kind = held.iter().filter_map(|other| match &other.resource {
                    Some(Resource::DiscreteResourceSpec(other)) if other.kind == amount.kind => {
                        Some(other.value)
                    }
                    _ => None,
                });
                let all = resources::amount_of(&described(node).generic, &amount.kind);
                assert!(
                    of_kind.sum::<i64>() <= all,
                    "{} of {}",
                    amount.kind,
                    node.id
                );
            }
        }
    }
}

/// The node that a task of a spread service goes to next: down the levels of labels by the fewest
/// tasks of the service among branches that have a fitting node, then by the order of nodes.
pub(crate) fn best(root: &Root, task: &Task, levels: &[&str]) -> Option<NodeId> {
    let label =
        |node: &Node, label: &str| constraint::node_label(node, label).unwrap_or("").to_owned();
    let mut nodes: Vec<&Node> = root.all::<Node>().map(|node| &**node).collect();
    for level in levels {
        let mut branches: BTreeMap<String, Vec<&Node>> = BTreeMap::new();
        for node in nodes {
            branches.entry(label(node, level)).or_default().push(node);
        }
        let usable = branches
            .into_iter()
            .filter(|(_, nodes)| nodes.iter().any(|node| fits(root, node, task)));
        let tasks = |nodes: &[&Node]| -> usize {
            nodes
                .iter()
                .map(|node| active_of(root, &node.id, task))
                .sum()
        };
        nodes = usable
            .min_by_key(|(label, nodes)| (tasks(nodes), label.clone()))?
            .1;
    }
    let active = |node: &Node| users(root, &node.id).filter(|task| is_active(task)).count();
    nodes
        .into_iter()
        .filter(|node| fits(root, node, task))
        .min_by_key(|node| {
            (
                conditions::repel_tasks(node),
                active_of(root, &node.id, task),
                active(node),
                node.id.clone(),
            )
        })
        .map(|node| node.id.clone())
}
