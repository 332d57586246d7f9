//! What the scheduler says about a task that has no node, and what would give it one.

use swarm_api::ext;
use swarm_scheduler::{Filter, Report};
use swarm_store::Root;
use swarm_types::conditions;
use swarm_types::constraint::Constraint;
use swarm_types::engine::Engine;
use swarm_types::{Node, NodeId, Task, Timestamp, spec};

use crate::finding::{Code, Finding};
use crate::trial;
use crate::words::{node_arg, node_named, quoted, with_other_tasks};

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
    finding.steps.extend(steps(view, now, task, &report));
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
        Filter::Disk => "disk",
        Filter::Plugin => "plugin",
        Filter::Constraint => "constraint",
        Filter::Platform => "platform",
        Filter::Engine => "engine",
        Filter::HostPort => "host_port",
        Filter::MaxReplicas => "max_replicas",
        Filter::Volumes => "volumes",
    }
}

/// What would give the task a node. What can be done to a node was tried; of the rest only that is
/// proposed which the numbers of the nodes do not rule out.
fn steps(view: &Root, now: Timestamp, task: &Task, report: &Report) -> Vec<String> {
    let constraints = Constraint::parse_all(spec::constraints(&task.spec)).unwrap_or_default();
    if let Some(step) = unsatisfiable(view, task, &constraints) {
        return vec![step];
    }
    let nearest = report.nearest.as_ref().map(|nearest| &nearest.node);
    let mut steps = trial::repairs(view, now, task, nearest);
    let has_repair = !steps.is_empty();
    for rejection in &report.rejected {
        match rejection.filter {
            // All that can be done to such nodes was tried.
            Filter::Ready => {}
            Filter::Resource => steps.push(reserve(view, now, task, report)),
            Filter::Disk => {
                let only = report.preassigned.as_ref();
                let troubled = troubled(view, only).map(|node| node_arg(view, node));
                steps.extend(troubled.map(|node| format!("swarmctl why {node}")));
            }
            Filter::Plugin => steps.push("install the plugin on a node".to_owned()),
            Filter::Constraint if has_repair => {}
            Filter::Constraint => steps.extend(add_fitting(view, report, &constraints)),
            Filter::Platform => steps.push("add a node of the wanted platform".to_owned()),
            Filter::Engine => steps.push(run_image(view, task)),
            Filter::HostPort => steps.push(
                "run at most one task for each node, or publish another port; a host port serves \
                 one task of a node"
                    .to_owned(),
            ),
            Filter::MaxReplicas => steps.push(scale_down(view, task)),
            Filter::Volumes => steps.push(
                "mount a directory of the node instead; cluster volumes are not implemented yet"
                    .to_owned(),
            ),
        }
    }
    if steps.is_empty() && !is_any_large_enough(view, now, task, report) {
        steps.push(reserve(view, now, task, report));
    } else if steps.is_empty() && report.preassigned.is_none() {
        let fitting = add_fitting(view, report, &constraints);
        steps.push(
            fitting.unwrap_or_else(|| "start `swarmd --join-addr` on another machine".to_owned()),
        );
    }
    steps
}

/// Nodes that take no tasks because of a condition.
fn troubled<'a>(view: &'a Root, only: Option<&'a NodeId>) -> impl Iterator<Item = &'a Node> {
    view.all::<Node>()
        .map(|node| &**node)
        .filter(move |node| only.is_none_or(|id| *id == node.id))
        .filter(|node| conditions::refuse_tasks(node))
        .take(NODES_NAMED_MAX)
}

fn is_any_large_enough(view: &Root, now: Timestamp, task: &Task, report: &Report) -> bool {
    let only = report.preassigned.as_ref();
    view.all::<Node>()
        .filter(|node| only.is_none_or(|id| *id == node.id))
        .any(|node| trial::is_large_enough(now, task, node))
}

/// What brings a node that can run the image.
fn run_image(view: &Root, task: &Task) -> String {
    let needed = spec::container(&task.spec).map(Engine::for_container);
    match needed {
        Some(Engine::Docker) => format!(
            "join a Docker Engine with the command of `swarmctl cluster join-token worker`, or \
             name a program of the nodes: {}",
            with_other_tasks(view, task, "--image host -- PROGRAM")
        ),
        Some(Engine::Native) | None => "start `swarmd --join-addr` on another machine".to_owned(),
    }
}

/// What helps against resources that are short: which, depends on whether a node could ever hold
/// the task.
fn reserve(view: &Root, now: Timestamp, task: &Task, report: &Report) -> String {
    let less = with_other_tasks(
        view,
        task,
        "and smaller --cpu-reservation, --memory-reservation or --generic-resources",
    );
    let is_possible = is_any_large_enough(view, now, task, report);
    match (is_possible, &report.preassigned) {
        (true, None) => format!("free resources, add a node, or reserve less: {less}"),
        (true, Some(_)) => format!("free resources on the node, or reserve less: {less}"),
        (false, None) => format!(
            "add a larger node, or reserve less, since no node has so much even when nothing \
             else runs there: {less}"
        ),
        (false, Some(_)) => format!("reserve less, since the node never has so much: {less}"),
    }
}

/// The number of tasks that have a place under the limit for each node.
fn scale_down(view: &Root, task: &Task) -> String {
    let placed = task.service_id.as_ref().map_or(0, |service| {
        let tasks = view.tasks_of_service(service);
        tasks
            .filter(|task| task.is_live() && task.node_id.is_some())
            .count()
    });
    format!(
        "add a node, or run only as many tasks as have a place: swarmctl service update {} \
         --replicas {placed}",
        task.service_annotations.name
    )
}

/// Constraints that no node can ever satisfy, and how to get others.
fn unsatisfiable(view: &Root, task: &Task, constraints: &[Constraint]) -> Option<String> {
    let unknown = constraints.iter().find_map(|it| Some((it, it.meant()?)));
    if let Some((constraint, meant)) = unknown {
        let right = format!(
            "{meant}{}{}",
            constraint.operator().symbol(),
            constraint.value()
        );
        return Some(format!(
            "no node can match {constraint}, for there is no key {}; did you mean {meant}? {}",
            constraint.key(),
            with_other_tasks(view, task, &format!("--constraint {}", quoted(&right)))
        ));
    }
    let (one, other) = trial::contradiction(constraints)?;
    Some(format!(
        "no node can match both {one} and {other}: {}",
        with_other_tasks(view, task, "--constraint ONE-OF-THEM")
    ))
}

/// What another node would have to be like, where no change of the labels that are there helps.
fn add_fitting(view: &Root, report: &Report, constraints: &[Constraint]) -> Option<String> {
    let nearest = view.node(&report.nearest.as_ref()?.node)?;
    let unmatched: Vec<String> = constraints
        .iter()
        .filter(|constraint| !constraint.matches(nearest))
        .map(ToString::to_string)
        .collect();
    let is_free = report.preassigned.is_none() && !unmatched.is_empty();
    is_free.then(|| format!("add a node for which {} holds", unmatched.join(" and ")))
}
