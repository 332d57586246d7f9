//! What an operator could do about a task that finds no node, tried before it is proposed: each
//! change is made to a copy of a node, and the scheduler is asked about that copy.
//!
//! Does not own the search for the nearest node, nor the words for what cannot be tried (a machine
//! that would have to be bought).

use std::sync::Arc;

use swarm_api::v1::node_spec::Availability;
use swarm_ca::advice;
use swarm_store::Root;
use swarm_types::conditions;
use swarm_types::constraint::{Constraint, Operator, can_name_label, suffix};
use swarm_types::weights::MANAGER_WEIGHT_LABEL;
use swarm_types::{Node, NodeId, NodeState, Task, Timestamp, spec};

use crate::words::{node_arg, quoted};

/// Nodes that are tried for one task; the others are like them, or the answer takes too long.
const NODES_TRIED_MAX: usize = 100;
/// Nodes that next steps name.
const NODES_NAMED_MAX: usize = 3;
const NODE_LABEL: &str = "node.labels.";

/// Whether a task would find a place on this node as it is, with the tasks that are there.
fn fits(view: &Root, now: Timestamp, task: &Task, node: &Node) -> bool {
    judge(now, task, node, || {
        let others = view.tasks_on_node(&node.id);
        others
            .filter(|other| other.id != task.id)
            .cloned()
            .collect()
    })
}

/// Whether a node, were it ready, well and empty, has as much as the task reserves.
pub(crate) fn is_large_enough(now: Timestamp, task: &Task, node: &Node) -> bool {
    let mut node = node.clone();
    node.status.state = NodeState::Ready;
    Arc::make_mut(&mut node.spec).availability = Availability::Active as i32;
    if let Some(description) = &mut node.description {
        conditions::clear(Arc::make_mut(description));
    }
    let mut task = task.clone();
    Arc::make_mut(&mut task.spec).placement = None;
    judge(now, &task, &node, Vec::new)
}

/// Two constraints on a label that no node can satisfy at once.
pub(crate) fn contradiction(constraints: &[Constraint]) -> Option<(&Constraint, &Constraint)> {
    let wants = |it: &&Constraint| {
        it.operator() == Operator::Equal && suffix(it.key(), NODE_LABEL).is_some()
    };
    constraints.iter().filter(wants).find_map(|one| {
        let others = constraints.iter().filter(|it| it.key() == one.key());
        let mut against = others.filter(|it| match it.operator() {
            Operator::Equal => !it.value().eq_ignore_ascii_case(one.value()),
            Operator::NotEqual => it.value().eq_ignore_ascii_case(one.value()),
        });
        Some((one, against.next()?))
    })
}

/// Asks the scheduler about a world of one node.
fn judge(
    now: Timestamp,
    task: &Task,
    node: &Node,
    others: impl FnOnce() -> Vec<Arc<Task>>,
) -> bool {
    let mut world = Root::default().begin(now);
    let mut is_made = world.create(node.clone()).is_ok();
    for other in others() {
        is_made &= world.create((*other).clone()).is_ok();
    }
    let (world, _) = world.finish();
    is_made && swarm_scheduler::explain(&world, task, now).fitting > 0
}

/// What would have to be done to a node, in the words that an operator types.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Repair {
    steps: Vec<String>,
    /// Whether somebody has to go to a machine.
    needs_machine: bool,
    /// Whether it says of the node what it did not say of itself.
    relabels: bool,
    /// Whether another node lacks less.
    is_farther: bool,
}

impl Repair {
    /// The smaller the easier.
    fn effort(&self) -> (bool, usize, bool, bool) {
        (
            self.needs_machine,
            self.steps.len(),
            self.relabels,
            self.is_farther,
        )
    }
}

/// Commands after which the task fits some node; those that take the least. Empty if nothing that
/// can be done to a node helps. `nearest` is the node that lacks the least.
pub(crate) fn repairs(
    view: &Root,
    now: Timestamp,
    task: &Task,
    nearest: Option<&NodeId>,
) -> Vec<String> {
    let only = task.node_id.as_ref();
    let nodes = view
        .all::<Node>()
        .filter(|node| only.is_none_or(|id| *id == node.id));
    let mut found: Vec<Repair> = nodes
        .take(NODES_TRIED_MAX)
        .filter_map(|node| {
            let mut repair = repair(view, now, task, node)?;
            repair.is_farther = nearest != Some(&node.id);
            Some(repair)
        })
        .collect();
    // Stable, so that equals stay in the order of nodes.
    found.sort_by_key(Repair::effort);
    let Some(best) = found.first() else {
        return Vec::new();
    };
    // One node with one command is as good as another; of the rest one proposal is enough.
    let shown = if best.steps.len() == 1 && !best.relabels {
        NODES_NAMED_MAX
    } else {
        1
    };
    let kind = |repair: &Repair| (repair.needs_machine, repair.steps.len(), repair.relabels);
    let best = kind(best);
    let equal = found.into_iter().take_while(|repair| kind(repair) == best);
    equal.take(shown).flat_map(|repair| repair.steps).collect()
}

/// What makes the task fit this node; `None` if nothing does.
fn repair(view: &Root, now: Timestamp, task: &Task, stored: &Node) -> Option<Repair> {
    let mut node = stored.clone();
    let mut repair = Repair {
        steps: Vec::new(),
        needs_machine: false,
        relabels: false,
        is_farther: false,
    };
    let name = node_arg(view, stored);
    if node.status.state != NodeState::Ready {
        node.status.state = NodeState::Ready;
        repair.needs_machine = true;
        repair
            .steps
            .push(advice::start_again(stored, &format!("node {name}")));
    }
    if node.availability() != Availability::Active {
        Arc::make_mut(&mut node.spec).availability = Availability::Active as i32;
        repair.steps.push(format!("swarmctl node activate {name}"));
    }
    let constraints = Constraint::parse_all(spec::constraints(&task.spec)).ok()?;
    if relabel(&mut node, &constraints) {
        repair.relabels = true;
        let labels = labels_of(&node);
        repair
            .steps
            .push(format!("swarmctl node update {name}{labels}"));
    }
    (!repair.steps.is_empty() && fits(view, now, task, &node)).then_some(repair)
}

/// Gives the node the labels that constraints ask for, and takes those away that they forbid.
/// Whether that changed any.
fn relabel(node: &mut Node, constraints: &[Constraint]) -> bool {
    let mut is_changed = false;
    for constraint in constraints {
        let Some(label) = suffix(constraint.key(), NODE_LABEL) else {
            continue;
        };
        if constraint.matches(node) {
            continue;
        }
        let spec = Arc::make_mut(&mut node.spec);
        let labels = &mut spec.annotations.get_or_insert_default().labels;
        match constraint.operator() {
            Operator::Equal => {
                labels.insert(label.to_owned(), constraint.value().to_owned());
            }
            Operator::NotEqual => {
                labels.remove(label);
            }
        }
        is_changed = true;
    }
    is_changed
}

/// The flags that give a node its labels. All of them, since the command replaces them; but for the
/// weight of a manager, which it keeps.
fn labels_of(node: &Node) -> String {
    let annotations = node.spec.annotations.as_ref();
    let labels = annotations.into_iter().flat_map(|it| &it.labels);
    let flags: String = labels
        .filter(|(key, _)| *key != MANAGER_WEIGHT_LABEL)
        .map(|(key, value)| format!(" --label {}", quoted(&format!("{key}={value}"))))
        .collect();
    match flags.as_str() {
        // The command needs one; this one says nothing.
        "" => " --label unlabelled=true".to_owned(),
        _ => flags,
    }
}

/// The labels of a node that no constraint can ask for, as `name="value"`.
pub(crate) fn unnameable_labels(node: &Node) -> Vec<String> {
    let annotations = node.spec.annotations.as_ref();
    let labels = annotations.into_iter().flat_map(|it| &it.labels);
    labels
        .filter(|(name, value)| !can_name_label(name, value))
        .map(|(name, value)| format!("{name}={value:?}"))
        .collect()
}
