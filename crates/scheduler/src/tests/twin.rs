//! The dumb twin: the same rules, read from the specification and computed by looking at every task
//! of the cluster each time.

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::constraint::{self, Constraint};
use swarm_types::resources;
use swarm_types::{Node, NodeId, NodeState, Task, TaskState, spec};
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
    node.status.state == NodeState::Ready
        && node.availability() == Availability::Active
        && constraint::matches_all(&constraints, node)
        && (placement.platforms.is_empty()
            || platform.is_some_and(|own| placement.platforms.contains(&own)))
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

/// What must hold in every state of a cluster: no resource is given away twice.
#[track_caller]
pub(crate) fn check_cluster(root: &Root) {
    for node in root.all::<Node>() {
        let assigned = |task: &&Task| task.state() == TaskState::Assigned;
        if users(root, &node.id).filter(assigned).count() == 0 {
            continue;
        }
        let used = users(root, &node.id).map(reserved);
        let (cpus, memory) = used.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
        let resources = described(node);
        // A test may overload a node by hand; the scheduler must not add to it then.
        let adds = |read: fn(&Task) -> i64| {
            users(root, &node.id)
                .filter(assigned)
                .any(|task| read(task) > 0)
        };
        assert!(
            cpus <= resources.nano_cpus || !adds(|task| reserved(task).0),
            "CPUs of {} are oversubscribed",
            node.id
        );
        assert!(
            memory <= resources.memory_bytes || !adds(|task| reserved(task).1),
            "memory of {} is oversubscribed",
            node.id
        );
        check_shared(root, node);
    }
}

#[track_caller]
fn check_shared(root: &Root, node: &Node) {
    let mut ports = BTreeMap::new();
    let mut units = BTreeMap::new();
    let mut amounts: BTreeMap<&str, i64> = BTreeMap::new();
    for task in users(root, &node.id) {
        for port in host_ports(task) {
            *ports.entry(port).or_insert(0) += 1;
        }
        for entry in &task.assigned_generic_resources {
            match entry.resource.as_ref().unwrap() {
                Resource::NamedResourceSpec(unit) => {
                    *units
                        .entry((unit.kind.clone(), unit.value.clone()))
                        .or_insert(0) += 1;
                }
                Resource::DiscreteResourceSpec(amount) => {
                    *amounts.entry(&amount.kind).or_default() += amount.value;
                }
            }
        }
    }
    assert!(
        ports.values().all(|count| *count == 1),
        "{}: {ports:?}",
        node.id
    );
    assert!(
        units.values().all(|count| *count == 1),
        "{}: {units:?}",
        node.id
    );
    let generic = described(node).generic;
    for (kind, amount) in amounts {
        assert!(
            amount <= resources::amount_of(&generic, kind),
            "{}: {kind}",
            node.id
        );
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
                active_of(root, &node.id, task),
                active(node),
                node.id.clone(),
            )
        })
        .map(|node| node.id.clone())
}
