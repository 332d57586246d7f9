//! Explains a node: whether it takes tasks, what it has, and what its state means for them.

use swarm_api::v1::node_spec::Availability;
use swarm_api::{ext, v1};
use swarm_ca::{advice, policy};
use swarm_store::Root;
use swarm_types::conditions::{self, Kind};
use swarm_types::{Node, NodeId, NodeState, TaskState, Timestamp, networks};

use crate::finding::{Code, Finding, Object, answer};
use crate::trial;
use crate::words::{count, node_arg, node_name, several};

pub(crate) fn explain(
    view: &Root,
    now: Timestamp,
    own: Option<&NodeId>,
    node: &Node,
) -> ext::WhyResponse {
    let name = node_name(node);
    let arg = node_arg(view, node);
    let tasks = Tasks::of(view, node);
    let mut findings: Vec<Finding> = Vec::new();
    findings.extend(connection(node, &arg));
    findings.extend(availability(node, &arg));
    findings.extend(conditions(node, Weight::Refuses));
    let is_waiting = !findings.is_empty();
    let headline = match findings.first() {
        None => format!("Node {name} takes tasks; {} on it.", tasks.text()),
        Some(_) => {
            let states: Vec<String> = findings.iter().map(|it| it.text.clone()).collect();
            format!(
                "Node {name} takes no new tasks: it {}; {} on it.",
                states.join(", and it "),
                tasks.text()
            )
        }
    };
    findings.extend(effect(node, &tasks));
    findings.extend(conditions(node, Weight::Told));
    // It takes tasks all the same, until the day when it cannot connect.
    findings.extend(promoted(node, own, &arg));
    findings.extend(unsigned(node));
    findings.extend(certificate(node, now));
    findings.extend(remark(node));
    findings.extend(addresses(view, node));
    findings.extend(labels(node, &arg));
    let object = Object {
        kind: "node",
        id: node.id.to_string(),
        name,
    };
    answer(object, headline, findings, is_waiting)
}

/// What is on a node.
struct Tasks {
    running: u64,
    on_the_way: u64,
    stopping: u64,
}

impl Tasks {
    fn of(view: &Root, node: &Node) -> Self {
        let mut tasks = Self {
            running: 0,
            on_the_way: 0,
            stopping: 0,
        };
        for task in view
            .tasks_on_node(&node.id)
            .filter(|task| !task.is_terminal())
        {
            if !task.is_live() {
                tasks.stopping += 1;
            } else if task.state() == TaskState::Running {
                tasks.running += 1;
            } else {
                tasks.on_the_way += 1;
            }
        }
        tasks
    }

    fn text(&self) -> String {
        let verb = if self.running == 1 { "runs" } else { "run" };
        let mut text = format!("{} {verb}", count(self.running, "task"));
        for (number, what) in [
            (self.on_the_way, "starting"),
            (self.stopping, "asked to stop"),
        ] {
            if number > 0 {
                text.push_str(&format!(", {number} {what}"));
            }
        }
        text
    }
}

fn connection(node: &Node, name: &str) -> Option<Finding> {
    let message = match node.status.message.as_str() {
        "" => String::new(),
        message => format!(" ({message})"),
    };
    let finding = match node.status.state {
        NodeState::Ready => return None,
        NodeState::Down => Finding::new(Code::NodeDown, format!("is DOWN{message}"))
            .step(advice::start_again(node, name))
            .steps(removal(node, name)),
        NodeState::Unknown => Finding::new(
            Code::NodeUnknown,
            format!("is UNKNOWN until its agent reports to this manager{message}"),
        ),
        NodeState::Disconnected => Finding::new(
            Code::NodeUnknown,
            format!("is DISCONNECTED; its agent is about to report again{message}"),
        ),
    };
    Some(finding.since(Some(node.state_since())))
}

/// The command that removes a lost node; a manager has to be demoted before.
fn removal(node: &Node, name: &str) -> Option<String> {
    let manager = v1::NodeRole::Manager;
    let is_manager = node.role == manager || node.spec.desired_role == manager as i32;
    (!is_manager).then(|| format!("swarmctl node rm {name}, if it never comes back"))
}

/// Labels that look as if they could steer placement and cannot.
fn labels(node: &Node, name: &str) -> Option<Finding> {
    let labels = trial::unnameable_labels(node);
    if labels.is_empty() {
        return None;
    }
    let text = format!(
        "has {} that no constraint can ask for: a name needs letters, digits and \"-_.\", a value \
         must not be empty nor have other signs than :-_.*()?+[]\\^$|/ and spaces",
        several("label", &labels)
    );
    let step =
        format!("swarmctl node update {name} --label NAME=VALUE for each label that it shall have");
    Some(Finding::new(Code::Remark, text).step(step))
}

fn certificate(node: &Node, now: Timestamp) -> Option<Finding> {
    let warning = swarm_ca::expiry::warning(node, now)?;
    Some(Finding::new(Code::Certificate, warning.text).step(warning.next_step))
}

/// Which conditions are meant.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Weight {
    /// Those for which it takes no tasks.
    Refuses,
    /// All others.
    Told,
}

/// What the node says is wrong with it, or cannot be had on it.
fn conditions(node: &Node, weight: Weight) -> impl Iterator<Item = Finding> {
    let weight_of = |kind: Option<Kind>| match kind.is_some_and(Kind::refuses_tasks) {
        true => Weight::Refuses,
        false => Weight::Told,
    };
    conditions::of_node(node)
        .filter(move |condition| weight_of(condition.kind) == weight)
        .map(|condition| {
            let text = format!("says: {}: {}", condition.name, condition.text);
            let finding = Finding::new(Code::Condition, text);
            match condition.kind.filter(|kind| kind.is_trouble()) {
                Some(kind) => finding.step(kind.way_out()),
                None => finding,
            }
        })
}

/// A node that is wanted as a manager and is none.
fn promoted(node: &Node, own: Option<&NodeId>, name: &str) -> Option<Finding> {
    let warning = policy::promoted(node, own)?;
    Some(Finding::new(Code::Remark, warning).step(format!("swarmctl node demote {name}")))
}

/// A certificate that was asked for and is not signed, with the reason.
fn unsigned(node: &Node) -> Option<Finding> {
    use swarm_api::v1::issuance_status::State;
    let status = node.certificate.as_ref()?.status.as_ref()?;
    let is_waiting = matches!(status.state(), State::Pending | State::Renew);
    if !is_waiting || status.err.is_empty() {
        return None;
    }
    let text = format!("waits for its certificate to be signed: {}", status.err);
    Some(Finding::new(Code::Certificate, text).step(
        "swarmctl cluster ca status, which names who signs; the manager tries again every 10 s",
    ))
}

/// A manager that a changed unlock key has not reached.
pub(crate) fn unsealed(error: &str) -> Finding {
    let text = format!(
        "its key file is not sealed as the cluster wants it, and opens with the unlock key of \
         before: {error}"
    );
    let step = "repair what the reason names; the manager tries again twice a minute";
    Finding::new(Code::Unsealed, text).step(step)
}

fn availability(node: &Node, name: &str) -> Option<Finding> {
    let finding = match node.availability() {
        Availability::Active => return None,
        Availability::Pause => Finding::new(Code::NodePaused, "is paused"),
        Availability::Drain => Finding::new(Code::NodeDrained, "is drained"),
    };
    Some(finding.step(format!("swarmctl node activate {name}")))
}

/// What its manager has to say about a node that is there.
fn remark(node: &Node) -> Option<Finding> {
    let message = node.status.message.as_str();
    let is_there = node.status.state == NodeState::Ready && !message.is_empty();
    is_there.then(|| Finding::new(Code::Remark, message))
}

/// What the state means for tasks.
fn effect(node: &Node, tasks: &Tasks) -> Option<Finding> {
    let text = match (node.status.state, node.availability()) {
        (NodeState::Down, _) if tasks.stopping > 0 => {
            "its tasks are replaced on other nodes; when it comes back it stops those that it \
             still runs"
        }
        (NodeState::Down, _) => "its tasks are replaced on other nodes",
        (_, Availability::Drain) => {
            "its tasks are stopped and replaced on other nodes; it gets none until it is activated"
        }
        (_, Availability::Pause) => "it keeps its tasks and gets no more until it is activated",
        (NodeState::Unknown | NodeState::Disconnected, Availability::Active) => {
            "it keeps its tasks; if it does not report in time it counts as down"
        }
        (NodeState::Ready, Availability::Active) => return None,
    };
    Some(Finding::new(Code::Effect, text))
}

/// A node that could take part in the ingress network has no address on it: all are taken, as the
/// allocator gives one at once when there is one.
fn addresses(view: &Root, node: &Node) -> Option<Finding> {
    let ingress = view.ingress_network()?;
    let config = ingress.ipam.as_ref()?.configs.first()?;
    if !networks::has_overlay(node) || !node.attachments.is_empty() {
        return None;
    }
    let text = format!(
        "has no address on network {:?}, tasks with ingress ports fail on it: all of {} are taken",
        networks::name(ingress),
        config.subnet
    );
    let step = "remove tasks, services or nodes, or start a cluster with a larger subnet size";
    Some(Finding::new(Code::Allocation, text).step(step))
}
