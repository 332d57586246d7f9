//! Checks on each commit: states, transitions, who may write what, one live task per replica.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_store::{Action, Change, Commit, Root};
use swarm_types::{
    AnyObject, Cluster, Network, Node, NodeState, Service, Slot, Task, TaskId, TaskState,
    Timestamp, spec,
};

use crate::invariants::{
    Checked, DELETION, DESIRED, ENDED, NODE_SET, ONE_LIVE, OWNER, SERVICE_EXISTS, STATE,
    STOP_FIRST, TRANSITION, TYPE_OK, ensure,
};
use crate::manager::replica::Author;

/// How long a replacement waits at least for the task before it (control-plane spec 10.4).
const OLD_TASK_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it waits beyond the grace period of that task.
const OLD_TASK_MARGIN: Duration = Duration::from_secs(20);

/// Checks a commit by its author.
pub(super) fn check(
    author: Author,
    before: &Root,
    root: &Root,
    commit: &Commit,
    given_up: &BTreeSet<TaskId>,
) -> Checked {
    for change in &commit.changes {
        let is_known = author != Author::Log;
        match (&change.object, &change.old) {
            (AnyObject::Task(task), old) => {
                let old = old.as_ref().and_then(as_task);
                check_task(author, before, root, change.action, (old, task))?;
                if change.action != Action::Remove {
                    check_replica(root, old, task, commit.at, given_up)?;
                }
            }
            (AnyObject::Node(node), old) if is_known => {
                let old = match old {
                    Some(AnyObject::Node(old)) => Some(&**old),
                    Some(_) | None => None,
                };
                check_node(author, change, old, node)?;
            }
            (AnyObject::Service(service), old) if is_known => {
                let old = match old {
                    Some(AnyObject::Service(old)) => Some(&**old),
                    Some(_) | None => None,
                };
                check_service(author, change, old, service)?;
            }
            (AnyObject::Network(network), Some(AnyObject::Network(old)))
                if author.name() == "allocator" =>
            {
                check_network(old, network)?;
            }
            (AnyObject::Cluster(cluster), Some(AnyObject::Cluster(old)))
                if author.name() == "network-keys" =>
            {
                check_keys(old, cluster)?;
            }
            (AnyObject::Cluster(cluster), Some(AnyObject::Cluster(old)))
                if author.name() == "ca" =>
            {
                check_root(old, cluster)?;
            }
            (object, _) if is_known => {
                let may = matches!(author, Author::User(_) | Author::Seed);
                ensure(may, OWNER, || format!("{} wrote {object:?}", author.name()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn as_task(object: &AnyObject) -> Option<&Arc<Task>> {
    match object {
        AnyObject::Task(task) => Some(task),
        AnyObject::Node(_)
        | AnyObject::Service(_)
        | AnyObject::Network(_)
        | AnyObject::Cluster(_)
        | AnyObject::Secret(_)
        | AnyObject::Resource(_)
        | AnyObject::Extension(_)
        | AnyObject::Config(_)
        | AnyObject::Volume(_) => None,
    }
}

fn check_task(
    author: Author,
    before: &Root,
    root: &Root,
    action: Action,
    (old, task): (Option<&Arc<Task>>, &Arc<Task>),
) -> Checked {
    if action == Action::Remove {
        return check_deletion(author, before, task);
    }
    check_type(task)?;
    match old {
        None => check_created(author, root, task)?,
        Some(old) => {
            check_forward(old, task)?;
            if author != Author::Log {
                check_owner(author, old, task)?;
                check_transition(author, old, task)?;
            }
        }
    }
    Ok(())
}

/// TypeOK and the invariants of the TLA+ model for one task.
fn check_type(task: &Task) -> Checked {
    let (state, desired) = (task.state(), task.desired_state());
    let is_wish = matches!(
        desired,
        TaskState::Ready | TaskState::Running | TaskState::Shutdown | TaskState::Remove
    );
    ensure(is_wish, TYPE_OK, || {
        format!("task {} is to be {desired}", task.id)
    })?;
    ensure(state != TaskState::Remove, TYPE_OK, || {
        format!("task {} is in a state that is only ever desired", task.id)
    })?;
    // A task that came to no node may end there: stopped by the scheduler, or removed.
    let has_place = task.node_id.is_some() || state < TaskState::Assigned || task.is_terminal();
    ensure(has_place, NODE_SET, || {
        format!("task {} is {state} without a node", task.id)
    })
}

fn check_forward(old: &Task, task: &Task) -> Checked {
    ensure(task.state() >= old.state(), STATE, || {
        format!(
            "task {} went from {} to {}",
            task.id,
            old.state(),
            task.state()
        )
    })?;
    ensure(task.desired_state() >= old.desired_state(), DESIRED, || {
        let (from, to) = (old.desired_state(), task.desired_state());
        format!("task {} was to be {from}, now {to}", task.id)
    })?;
    ensure(
        old.node_id.is_none() || old.node_id == task.node_id,
        NODE_SET,
        || {
            format!(
                "task {} moved from {:?} to {:?}",
                task.id, old.node_id, task.node_id
            )
        },
    )?;
    ensure(
        !old.is_terminal() || old.state() == task.state(),
        ENDED,
        || {
            format!(
                "task {} ended as {}, now {}",
                task.id,
                old.state(),
                task.state()
            )
        },
    )
}

fn check_created(author: Author, root: &Root, task: &Task) -> Checked {
    let service = task.service_id.as_ref().and_then(|id| root.service(id));
    ensure(service.is_some(), SERVICE_EXISTS, || {
        format!("task {} was made for {:?}", task.id, task.service_id)
    })?;
    ensure(task.state() == TaskState::New, TRANSITION, || {
        format!("task {} began as {}", task.id, task.state())
    })?;
    let is_fit = match author.name() {
        "replicated" => task.slot != Slot(0) && task.node_id.is_none(),
        "global" => task.slot == Slot(0) && task.node_id.is_some(),
        _ => author == Author::Log,
    };
    ensure(is_fit, OWNER, || format!("{} made {task:?}", author.name()))
}

/// The author may have changed only the fields that it owns: with those put back, nothing differs.
fn check_owner(author: Author, old: &Task, task: &Task) -> Checked {
    let mut expected = old.clone();
    expected.meta = task.meta;
    let (mut status, mut desired) = (old.status().clone(), old.desired_state());
    match author.name() {
        "task-init" | "replicated" | "global" => desired = task.desired_state(),
        "allocator" => {
            status = task.status().clone();
            expected.endpoint.clone_from(&task.endpoint);
            expected.networks.clone_from(&task.networks);
        }
        "scheduler" => {
            status = task.status().clone();
            expected.node_id.clone_from(&task.node_id);
            expected.volumes.clone_from(&task.volumes);
            let assigned = &task.assigned_generic_resources;
            expected.assigned_generic_resources.clone_from(assigned);
        }
        "constraint-enforcer" | "dispatcher" | "user remove node" => {
            status = task.status().clone();
        }
        _ => {}
    }
    let expected = expected.with_states(status, desired);
    ensure(expected == *task, OWNER, || {
        format!("{} turned {old:#?} into {task:#?}", author.name())
    })
}

/// The transitions of the TLA+ model, with what the code of SwarmKit does beside them.
fn check_transition(author: Author, old: &Task, task: &Task) -> Checked {
    use TaskState::{Assigned, New, Orphaned, Pending, Rejected, Running, Shutdown};
    let (from, to) = (old.state(), task.state());
    if from == to {
        return Ok(());
    }
    let may = match author.name() {
        "allocator" => (from, to) == (New, Pending),
        "scheduler" => (from, to) == (Pending, Assigned) || (from <= Pending && to == Shutdown),
        "constraint-enforcer" => from <= Running && to == Rejected,
        "dispatcher" => from >= Assigned && from <= Running && to > Assigned,
        "user remove node" => from <= Running && to == Orphaned,
        _ => false,
    };
    ensure(may, TRANSITION, || {
        format!(
            "{} moved task {} from {from} to {to}",
            author.name(),
            task.id
        )
    })
}

fn check_deletion(author: Author, before: &Root, task: &Task) -> Checked {
    let is_safe = task.state() < TaskState::Assigned || task.is_terminal();
    let is_node_gone = task
        .node_id
        .as_ref()
        .is_some_and(|id| before.node(id).is_none());
    let may = match author.name() {
        "task-reaper" | "replicated" => is_safe,
        "global" => is_safe || is_node_gone,
        "user remove task" => true,
        _ => author == Author::Log,
    };
    ensure(may, DELETION, || {
        format!(
            "{} deleted task {} in {}",
            author.name(),
            task.id,
            task.state()
        )
    })
}

/// The tasks of the replica to which a task belongs.
pub(super) fn replica<'a>(root: &'a Root, task: &Task) -> Vec<&'a Arc<Task>> {
    let Some(service) = &task.service_id else {
        return Vec::new();
    };
    match (task.slot, &task.node_id) {
        (Slot(0), Some(node)) => root
            .tasks_on_node(node)
            .filter(|other| other.service_id.as_ref() == Some(service))
            .collect(),
        (slot, _) => root.tasks_in_slot(service, slot).collect(),
    }
}

/// Whether a task need not wait for this one before it any more: it waited long enough, or the
/// manager's clock went back and nobody knows how long.
pub(super) fn need_not_wait(task: &Task, old: &Task, at: Timestamp) -> bool {
    let created = task.meta.created_at;
    let grace = old.container().map(spec::stop_grace_period);
    let needs = grace.unwrap_or_default().saturating_add(OLD_TASK_MARGIN);
    created > at || at.saturating_since(created) >= OLD_TASK_TIMEOUT.max(needs)
}

fn check_replica(
    root: &Root,
    old: Option<&Arc<Task>>,
    task: &Task,
    at: Timestamp,
    given_up: &BTreeSet<TaskId>,
) -> Checked {
    if !task.is_live() {
        return Ok(());
    }
    let tasks = replica(root, task);
    let live = tasks
        .iter()
        .filter(|other| other.is_live() && !other.is_terminal());
    let live: Vec<_> = live.map(|task| task.id.to_string()).collect();
    ensure(live.len() <= 1, ONE_LIVE, || {
        format!("live at once: {}", live.join(", "))
    })?;
    let is_started = task.desired_state() == TaskState::Running
        && old.is_none_or(|old| old.desired_state() < TaskState::Running);
    if !is_started {
        return Ok(());
    }
    let may_run = |other: &&&Arc<Task>| {
        let node = other.node_id.as_ref().and_then(|id| root.node(id));
        other.id != task.id
            && other.desired_state() == TaskState::Shutdown
            && !given_up.contains(&other.id)
            && !need_not_wait(task, other, at)
            && (TaskState::Assigned..=TaskState::Running).contains(&other.state())
            && node.is_some_and(|node| node.status.state != NodeState::Down)
    };
    let blocker = tasks.iter().find(may_run);
    ensure(blocker.is_none(), STOP_FIRST, || {
        let states = blocker.map(|other| (other.id.clone(), other.state()));
        format!("task {} may start while {states:?} may still run", task.id)
    })
}

fn check_node(author: Author, change: &Change, old: Option<&Node>, node: &Node) -> Checked {
    let may = match (author.name(), change.action, old) {
        ("seed" | "issue", Action::Create, _) => true,
        ("ca" | "issue", Action::Update, Some(old)) => {
            let mut expected = old.clone();
            expected.meta = node.meta;
            expected.certificate.clone_from(&node.certificate);
            expected == *node
        }
        ("user remove node", Action::Remove, _) => true,
        ("dispatcher", Action::Update, Some(old)) => {
            let mut expected = old.clone();
            expected.meta = node.meta;
            expected.status.clone_from(&node.status);
            expected.description.clone_from(&node.description);
            expected == *node
        }
        ("allocator", Action::Update, Some(old)) => {
            let mut expected = old.clone();
            expected.meta = node.meta;
            expected.attachments.clone_from(&node.attachments);
            expected == *node
        }
        ("user availability" | "user label", Action::Update, Some(old)) => {
            let mut expected = old.clone();
            expected.meta = node.meta;
            expected.spec.clone_from(&node.spec);
            expected == *node
        }
        _ => false,
    };
    ensure(may, OWNER, || {
        format!(
            "{} {:?} turned {old:#?} into {node:#?}",
            author.name(),
            change.action
        )
    })
}

/// The certificate authority ends a rotation, and touches nothing else.
fn check_root(old: &Cluster, cluster: &Cluster) -> Checked {
    let mut expected = old.clone();
    expected.meta = cluster.meta;
    expected.root_ca.clone_from(&cluster.root_ca);
    let rotation = old
        .root_ca
        .as_ref()
        .and_then(|it| it.root_rotation.as_ref());
    let ends = rotation
        .zip(cluster.root_ca.as_ref())
        .is_some_and(|(rotation, root_ca)| {
            root_ca.root_rotation.is_none()
                && root_ca.ca_cert == rotation.ca_cert
                && root_ca.ca_key == rotation.ca_key
        });
    ensure(ends && expected == *cluster, OWNER, || {
        format!("ca turned {old:#?} into {cluster:#?}")
    })
}

/// The allocator sets a network up, once.
fn check_network(old: &Network, network: &Network) -> Checked {
    let mut expected = old.clone();
    expected.meta = network.meta;
    expected.driver_state.clone_from(&network.driver_state);
    expected.ipam.clone_from(&network.ipam);
    let is_first = old.driver_state.is_none() && network.driver_state.is_some();
    ensure(is_first && expected == *network, OWNER, || {
        format!("allocator turned {old:#?} into {network:#?}")
    })
}

/// Only the keys of the network and their clock are the key loop's.
fn check_keys(old: &Cluster, cluster: &Cluster) -> Checked {
    let mut expected = old.clone();
    expected.meta = cluster.meta;
    expected
        .network_bootstrap_keys
        .clone_from(&cluster.network_bootstrap_keys);
    expected.encryption_key_lamport_clock = cluster.encryption_key_lamport_clock;
    ensure(expected == *cluster, OWNER, || {
        format!("network-keys turned {old:#?} into {cluster:#?}")
    })
}

fn check_service(
    author: Author,
    change: &Change,
    old: Option<&Service>,
    service: &Service,
) -> Checked {
    let may = match (author.name(), change.action, old) {
        ("user create", Action::Create, _) | ("user remove", Action::Remove, _) => true,
        ("allocator", Action::Update, Some(old)) => {
            let mut expected = old.clone();
            expected.meta = service.meta;
            expected.endpoint.clone_from(&service.endpoint);
            expected == *service
        }
        ("user scale", Action::Update, Some(old)) => {
            let mut expected = service.clone();
            expected.endpoint.clone_from(&old.endpoint);
            expected == *service
        }
        _ => false,
    };
    ensure(may, OWNER, || {
        format!(
            "{} {:?} turned {old:#?} into {service:#?}",
            author.name(),
            change.action
        )
    })
}
