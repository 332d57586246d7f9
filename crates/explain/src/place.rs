//! What the scheduler says about a task that has no node, and what would give it one.

use swarm_api::ext;
use swarm_api::v1::node_spec::Availability;
use swarm_scheduler::{Filter, Report};
use swarm_store::Root;
use swarm_types::constraint::{Constraint, Operator};
use swarm_types::{Node, NodeId, NodeState, Task, Timestamp, spec};

use crate::finding::{Code, Finding};
use crate::words::{node_name, node_named};

/// Nodes that next steps name.
const NODES_NAMED_MAX: usize = 3;

/// Adds to a finding about a waiting task how the nodes stand, the nearest one, and next steps.
pub(crate) fn detail(view: &Root, now: Timestamp, task: &Task, finding: &mut Finding) {
    if !matches!(finding.code, Code::NoSuitableNode | Code::BeingPlaced) {
        return;
    }
    let report = swarm_scheduler::explain(view, task, now);
    if report.fitting > 0 {
        finding.code = Code::BeingPlaced;
        finding.text = format!(
            "about to be placed: {} now",
            match report.fitting {
                1 => "1 node fits".to_owned(),
                nodes => format!("{nodes} nodes fit"),
            }
        );
        return;
    }
    finding.code = Code::NoSuitableNode;
    if report.nodes == 0 {
        finding.text = "waiting for a node: there is none".to_owned();
        finding
            .steps
            .push("start `swarmd --join-addr` on another machine".to_owned());
        return;
    }
    let texts: Vec<&str> = report.rejected.iter().map(|it| it.text.as_str()).collect();
    let nodes = match (&report.preassigned, report.nodes) {
        (Some(id), _) => format!("it needs node {}, which does not fit", node_named(view, id)),
        (None, 1) => "the only node does not fit".to_owned(),
        (None, nodes) => format!("none of {nodes} nodes fits"),
    };
    finding.text = format!("waiting for a node: {nodes} ({})", texts.join("; "));
    finding.filter_counts = counts(&report);
    finding.nearest = report.nearest.as_ref().map(|nearest| ext::NearestNode {
        node_id: nearest.node.to_string(),
        hostname: nearest.hostname.clone(),
        missing: nearest.missing.clone(),
    });
    finding.steps.extend(steps(view, task, &report));
}

fn counts(report: &Report) -> Vec<ext::FilterCount> {
    let count = |rejection: &swarm_scheduler::Rejection| ext::FilterCount {
        filter: filter_name(rejection.filter).to_owned(),
        nodes: rejection.nodes,
        text: rejection.text.clone(),
    };
    report.rejected.iter().map(count).collect()
}

fn filter_name(filter: Filter) -> &'static str {
    match filter {
        Filter::Ready => "ready",
        Filter::Resource => "resource",
        Filter::Plugin => "plugin",
        Filter::Constraint => "constraint",
        Filter::Platform => "platform",
        Filter::HostPort => "host_port",
        Filter::MaxReplicas => "max_replicas",
        Filter::Volumes => "volumes",
    }
}

fn steps(view: &Root, task: &Task, report: &Report) -> Vec<String> {
    let service = task.service_annotations.name.as_str();
    let mut steps = Vec::new();
    for rejection in &report.rejected {
        match rejection.filter {
            Filter::Ready => steps.extend(make_ready(view, report.preassigned.as_ref())),
            Filter::Resource => steps.push(
                "free resources, add a node, or reserve less (--cpu-reservation, \
                 --memory-reservation, --generic-resources)"
                    .to_owned(),
            ),
            Filter::Plugin => steps.push("install the plugin on a node".to_owned()),
            Filter::Constraint => steps.extend(satisfy_constraint(view, task, report)),
            Filter::Platform => steps.push("add a node of the wanted platform".to_owned()),
            Filter::HostPort => steps.push(
                "run at most one task for each node, or publish another port; a host port serves \
                 one task of a node"
                    .to_owned(),
            ),
            Filter::MaxReplicas => steps.push(format!(
                "add a node, raise --replicas-max-per-node, or scale down: \
                 swarmctl service update {service} --replicas N"
            )),
            Filter::Volumes => steps.push(
                "mount a directory of the node instead; cluster volumes are not implemented yet"
                    .to_owned(),
            ),
        }
    }
    steps
}

/// Commands for nodes that somebody paused or drained; else a hint about those that are lost.
fn make_ready(view: &Root, only: Option<&NodeId>) -> Vec<String> {
    let nodes = || {
        view.all::<Node>()
            .filter(|node| only.is_none_or(|id| *id == node.id))
    };
    let ready = |node: &&std::sync::Arc<Node>| node.status.state == NodeState::Ready;
    let closed = nodes()
        .filter(ready)
        .filter(|node| node.availability() != Availability::Active);
    let steps: Vec<String> = closed
        .take(NODES_NAMED_MAX)
        .map(|node| format!("swarmctl node activate {}", node_name(node)))
        .collect();
    if !steps.is_empty() {
        return steps;
    }
    let lost = nodes().filter(|node| !ready(node)).take(NODES_NAMED_MAX);
    lost.map(|node| format!("start `swarmd` on node {} again", node_name(node)))
        .collect()
}

/// The command that labels the nearest node as a constraint wants it. It repeats the labels that
/// the node has, since the command replaces all of them.
fn satisfy_constraint(view: &Root, task: &Task, report: &Report) -> Option<String> {
    let nearest = view.node(&report.nearest.as_ref()?.node)?;
    let constraints = Constraint::parse_all(spec::constraints(&task.spec)).ok()?;
    let constraint = constraints.iter().find(|it| !it.matches(nearest))?;
    let label = constraint.key().strip_prefix("node.labels.");
    let label = label.filter(|label| !label.is_empty() && constraint.operator() == Operator::Equal);
    let Some(label) = label else {
        return Some(format!("add a node for which {constraint} holds"));
    };
    let annotations = nearest.spec.annotations.clone().unwrap_or_default();
    let mut labels = annotations.labels;
    labels.insert(label.to_owned(), constraint.value().to_owned());
    let labels: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!(" --label {key}={value}"))
        .collect();
    let name = node_name(nearest);
    Some(format!("swarmctl node update {name}{}", labels.concat()))
}
