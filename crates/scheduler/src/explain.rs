//! On demand: how every node stands for one task, and what the nearest one lacks. A pure question
//! to a view; the scheduler itself does not ask it.

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::conditions::{self, Condition, Kind};
use swarm_types::constraint::{Constraint, Seen};
use swarm_types::engine::Engine;
use swarm_types::native::IMAGE_HOST;
use swarm_types::resources;
use swarm_types::{Node, NodeId, Task, TaskState, Timestamp};

use crate::cluster::Cluster;
use crate::failures::{FAILURE_WINDOW, Failures};
use crate::filter::{Counts, Filter};
use crate::load::NodeView;
use crate::node_log::NodeIx;
use crate::requirements::{Pipeline, Requirements, is_ready};

/// How the cluster stands for a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The node that the task came with, if it has no choice.
    pub preassigned: Option<NodeId>,
    /// Nodes that were judged.
    pub nodes: u64,
    /// Nodes on which the task could run.
    pub fitting: u64,
    /// Filters that rejected nodes, the busiest first. Each node counts once, for the first filter
    /// that rejects it.
    pub rejected: Vec<Rejection>,
    /// The node that lacks the fewest things; among equals the one that is preferred otherwise. It
    /// lacks nothing if some node fits. `None` if there are no nodes.
    pub nearest: Option<Nearest>,
    /// Nodes that come last because tasks of this spec keep failing there, with how often.
    pub avoided: Vec<(NodeId, u32)>,
}

/// What one filter says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The filter.
    pub filter: Filter,
    /// How many nodes it rejected.
    pub nodes: u64,
    /// The same as users read it.
    pub text: String,
}

/// A node with what it lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Nearest {
    /// The node.
    pub node: NodeId,
    /// Its host name; empty if it never registered.
    pub hostname: String,
    /// What it lacks, in words.
    pub missing: Vec<String>,
}

/// Judges every node for a task as if it had none yet; for a task that came with its node, that
/// node alone.
pub fn explain(view: &Root, task: &Task, now: Timestamp) -> Report {
    let cluster = Cluster::build_without(view, &task.id);
    let failures = recent_failures(view, task, now);
    let pipeline = Pipeline::new(Requirements::of(task).into());
    let preassigned = (task.state() <= TaskState::Pending)
        .then(|| task.node_id.clone())
        .flatten();
    let places: Vec<NodeIx> = match &preassigned {
        Some(node) => cluster.find(node).into_iter().collect(),
        None => cluster.all().collect(),
    };
    let mut report = Report {
        preassigned,
        nodes: 0,
        fitting: 0,
        rejected: Vec::new(),
        nearest: None,
        avoided: Vec::new(),
    };
    let mut counts = Counts::default();
    let mut nearest = None;
    for node in places.into_iter().filter_map(|ix| cluster.view(ix, None)) {
        let service_tasks = node.active_of(&task.service_id);
        let verdict = pipeline.verdict(pipeline.fixed(node.node), &node, service_tasks);
        let failures = failures.rank(&node.node.id, task.service_id.as_ref(), task.spec_version);
        report.nodes += 1;
        report.fitting += u64::from(verdict.is_none());
        counts.change(None, verdict);
        if failures > 0 {
            report.avoided.push((node.node.id.clone(), failures));
        }
        let lacks = missing(&pipeline, &node, service_tasks).len();
        let rank = (lacks, failures, service_tasks, node.active(), &node.node.id);
        if nearest.as_ref().is_none_or(|(best, _)| rank < *best) {
            nearest = Some((rank, node));
        }
    }
    report.rejected = rejections(&counts);
    report.nearest = nearest.map(|((_, _, service_tasks, ..), node)| Nearest {
        node: node.node.id.clone(),
        hostname: node.node.hostname().to_owned(),
        missing: missing(&pipeline, &node, service_tasks)
            .iter()
            .map(Missing::words)
            .collect(),
    });
    report.avoided.sort();
    report
}

fn rejections(counts: &Counts) -> Vec<Rejection> {
    counts
        .sorted()
        .into_iter()
        .map(|(filter, nodes)| Rejection {
            filter,
            nodes,
            text: filter.text(nodes),
        })
        .collect()
}

/// The failures that the store still shows: those of tasks that were not pruned yet.
fn recent_failures(view: &Root, task: &Task, now: Timestamp) -> Failures {
    let mut failures = Failures::default();
    let Some(service) = &task.service_id else {
        return failures;
    };
    for other in view.tasks_of_service(service) {
        let failed = matches!(other.state(), TaskState::Failed | TaskState::Rejected);
        let at = other.status().effective_time().unwrap_or(Timestamp::EPOCH);
        if let Some(node) = &other.node_id
            && failed
            && now.saturating_since(at) < FAILURE_WINDOW
        {
            failures.note(at, node, (service.clone(), other.spec_version));
        }
    }
    failures
}

/// One thing that a node lacks.
enum Missing<'a> {
    Readiness(&'a Node),
    Condition(Condition<'a>),
    Cpus {
        needed: i128,
        free: i128,
    },
    Memory {
        needed: i128,
        free: i128,
    },
    Generic {
        kind: &'a str,
        needed: i64,
        free: i64,
    },
    NamedReservation,
    Plugin {
        kind: &'a str,
        name: &'a str,
    },
    Constraint(&'a Constraint, &'a Node),
    Platform(&'a Pipeline, &'a Node),
    /// What the image needs.
    Engine(Engine),
    HostPort {
        protocol: i32,
        port: u32,
    },
    Replicas {
        most: u64,
        have: u64,
    },
    ClusterVolume,
}

fn missing<'a>(
    pipeline: &'a Pipeline,
    node: &NodeView<'a>,
    service_tasks: u64,
) -> Vec<Missing<'a>> {
    let needs = &pipeline.needs;
    let mut missing = Vec::new();
    if !is_ready(node.node) {
        missing.push(Missing::Readiness(node.node));
    }
    let refuses = |condition: &Condition<'_>| condition.kind.is_some_and(Kind::refuses_tasks);
    let conditions = conditions::of_node(node.node).filter(refuses);
    missing.extend(conditions.map(Missing::Condition));
    let (needed, free) = (i128::from(needs.nano_cpus), node.free_nano_cpus());
    if needed > 0 && needed > free {
        missing.push(Missing::Cpus { needed, free });
    }
    let (needed, free) = (i128::from(needs.memory_bytes), node.free_memory());
    if needed > 0 && needed > free {
        missing.push(Missing::Memory { needed, free });
    }
    missing.extend(missing_generic(pipeline, node));
    for (kind, name) in pipeline.missing_plugins(node.node) {
        missing.push(Missing::Plugin { kind, name });
    }
    for constraint in &pipeline.constraints {
        if !constraint.matches(node.node) {
            missing.push(Missing::Constraint(constraint, node.node));
        }
    }
    if !pipeline.has_platform(node.node) {
        missing.push(Missing::Platform(pipeline, node.node));
    }
    if let Some(needed) = needs.engine.filter(|_| !pipeline.has_engine(node.node)) {
        missing.push(Missing::Engine(needed));
    }
    for port in needs.ports.iter().filter(|port| node.is_port_used(**port)) {
        missing.push(Missing::HostPort {
            protocol: port.protocol,
            port: port.port,
        });
    }
    if needs.max_replicas > 0 && service_tasks >= needs.max_replicas {
        missing.push(Missing::Replicas {
            most: needs.max_replicas,
            have: service_tasks,
        });
    }
    if needs.has_cluster_volume {
        missing.push(Missing::ClusterVolume);
    }
    missing
}

fn missing_generic<'a>(pipeline: &'a Pipeline, node: &NodeView<'a>) -> Vec<Missing<'a>> {
    let needs = &pipeline.needs;
    let mut missing = Vec::new();
    if needs.is_generic_malformed {
        missing.push(Missing::NamedReservation);
    }
    if needs.generic.is_empty() {
        return missing;
    }
    let mut free = node.free_generic();
    for (kind, needed) in &needs.generic {
        let wanted = resources::discrete(kind.clone(), *needed);
        let left = resources::amount_of(&free, kind);
        if *needed > 0 && resources::claim(&mut free, &[wanted]).is_empty() {
            missing.push(Missing::Generic {
                kind,
                needed: *needed,
                free: left,
            });
        }
    }
    missing
}

impl Missing<'_> {
    fn words(&self) -> String {
        match self {
            Self::Readiness(node) => readiness(node),
            Self::Condition(condition) => condition.text.to_owned(),
            Self::Cpus { needed, free } => {
                let unit = if *needed == NANOS_PER_CPU {
                    "CPU"
                } else {
                    "CPUs"
                };
                format!("needs {} {unit}, {} available", cpus(*needed), cpus(*free))
            }
            Self::Memory { needed, free } => {
                let (needed, free) = memory(*needed, *free);
                format!("needs {needed} of memory, {free} available")
            }
            Self::Generic { kind, needed, free } => {
                format!("needs {needed} of generic resource {kind}, {free} available")
            }
            Self::NamedReservation => {
                "generic resources are reserved by name, which no node can satisfy; \
                 reserve an amount"
                    .to_owned()
            }
            Self::Plugin { kind, name } => format!("lacks the {kind} plugin {name:?}"),
            Self::Constraint(constraint, node) => {
                format!("constraint {constraint}: {}", seen(constraint, node))
            }
            Self::Platform(pipeline, node) => platforms(pipeline, node),
            Self::Engine(Engine::Native) => {
                format!("node is a Docker Engine, and image {IMAGE_HOST:?} runs on `swarmd` only")
            }
            Self::Engine(Engine::Docker) => {
                format!("node runs image {IMAGE_HOST:?} only; a container needs a Docker Engine")
            }
            Self::HostPort { protocol, port } => {
                format!("host port {port}/{} is in use", protocol_name(*protocol))
            }
            Self::Replicas { most, have } => {
                let tasks = if *have == 1 { "task" } else { "tasks" };
                format!("has {have} {tasks} of the service, at most {most} per node are allowed")
            }
            Self::ClusterVolume => "no cluster volume is available to mount".to_owned(),
        }
    }
}

fn readiness(node: &Node) -> String {
    use v1::node_spec::Availability;
    let availability = match node.availability() {
        Availability::Active => return format!("node is {}", node.status.state.name()),
        Availability::Pause => "paused",
        Availability::Drain => "drained",
    };
    if node.status.state == swarm_types::NodeState::Ready {
        format!("node is {availability}")
    } else {
        format!("node is {} and {availability}", node.status.state.name())
    }
}

fn seen(constraint: &Constraint, node: &Node) -> String {
    let key = constraint.key();
    let name = match key.split_once(".labels.").or_else(|| key.split_once('.')) {
        Some((scope, name)) if key.len() > scope.len() + name.len() + 1 => format!("label {name}"),
        Some((_, name)) => name.to_owned(),
        None => key.to_owned(),
    };
    match constraint.seen(node) {
        Seen::Value(value) => format!("{name} is {value:?}"),
        Seen::NoLabel => format!("{name} is not set"),
        Seen::NodeId => format!("id is \"{}\"", node.id),
        Seen::UnknownKey => format!("there is no key {key}"),
    }
}

fn platforms(pipeline: &Pipeline, node: &Node) -> String {
    let wanted: Vec<String> = pipeline
        .needs
        .platforms
        .iter()
        .map(|(architecture, os)| platform(os, architecture))
        .collect();
    let wanted = wanted.join(" or ");
    match node
        .description
        .as_ref()
        .and_then(|description| description.platform.as_ref())
    {
        Some(own) => {
            let own = platform(&own.os, &own.architecture);
            format!("needs platform {wanted}, node is {own}")
        }
        None => format!("needs platform {wanted}, node has not told its own"),
    }
}

fn platform(os: &str, architecture: &str) -> String {
    let or_any = |text: &str| {
        if text.is_empty() {
            "*".to_owned()
        } else {
            text.to_owned()
        }
    };
    format!("{}/{}", or_any(os), or_any(architecture))
}

fn protocol_name(protocol: i32) -> String {
    use v1::port_config::Protocol;
    match Protocol::try_from(protocol) {
        Ok(Protocol::Tcp) => "tcp".to_owned(),
        Ok(Protocol::Udp) => "udp".to_owned(),
        Ok(Protocol::Sctp) => "sctp".to_owned(),
        Err(_) => format!("protocol {protocol}"),
    }
}

const NANOS_PER_CPU: i128 = 1_000_000_000;

/// Exact, without trailing zeros.
fn cpus(nanos: i128) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let per_cpu = NANOS_PER_CPU.unsigned_abs();
    let text = format!("{sign}{}.{:09}", nanos / per_cpu, nanos % per_cpu);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Rounded to one decimal, or exact where the two would look the same.
fn memory(needed: i128, free: i128) -> (String, String) {
    let (rounded_needed, rounded_free) = (bytes(needed), bytes(free));
    if rounded_needed == rounded_free {
        (format!("{needed} bytes"), format!("{free} bytes"))
    } else {
        (rounded_needed, rounded_free)
    }
}

fn bytes(amount: i128) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let sign = if amount < 0 { "-" } else { "" };
    let amount = amount.unsigned_abs();
    let Some((power, unit)) = (1u32..)
        .zip(UNITS)
        .take_while(|(power, _)| amount >> (10 * power) > 0)
        .last()
    else {
        return format!("{sign}{amount} bytes");
    };
    let tenths = (amount * 10) >> (10 * power);
    let text = format!("{sign}{}.{}", tenths / 10, tenths % 10);
    format!("{} {unit}", text.trim_end_matches(".0"))
}
