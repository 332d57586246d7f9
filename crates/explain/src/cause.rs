//! What one task waits for, or how it ended. The text is a phrase that goes after the task's name.
//!
//! Cheap for each task: the scheduler is asked afterwards, once for all tasks with the same phrase
//! (`place`).

use std::sync::Arc;

use swarm_orchestrator::restart::{self, Verdict, WAITS_FOR_DELAY};
use swarm_orchestrator::slot::{Tuple, newest};
use swarm_store::Root;
use swarm_types::task::WARNINGS_MARK;
use swarm_types::{NodeState, Task, TaskState, Timestamp};

use crate::finding::{Code, Finding};
use crate::words::{error, node_arg, node_name, node_named, times, with_other_tasks};
use crate::{dependency, health};

/// Why a task is not running; `None` if it is, and nothing is wrong with it.
pub(crate) fn cause(view: &Root, now: Timestamp, task: &Task) -> Option<Finding> {
    let replica = replica(view, task);
    let finding = if task.is_terminal() {
        ended_early(view, now, task, &replica).unwrap_or_else(|| ended(task))
    } else if !task.is_live() {
        stopping(view, task)
    } else if let Some(finding) = lost_place(view, task) {
        finding
    } else {
        waiting(view, now, task, &replica)?
    };
    Some(match finding.since {
        Some(_) => finding,
        None => finding.since(task.status().effective_time()),
    })
}

/// The tasks of a replica, or the task alone if it belongs to none.
pub(crate) fn replica<'a>(view: &'a Root, task: &Task) -> Vec<&'a Arc<Task>> {
    let service = task.service_id.as_ref().and_then(|id| view.service(id));
    let tuple = service.and_then(|service| Tuple::of(service, task));
    match tuple {
        Some(tuple) => tuple.tasks(view),
        None => view.task(&task.id).into_iter().collect(),
    }
}

/// The failures of a replica: how many there were, and the last one that is left.
pub(crate) fn failures<'a>(replica: &[&'a Arc<Task>]) -> Option<(usize, &'a Arc<Task>)> {
    let failed: Vec<&Arc<Task>> = replica
        .iter()
        .filter(|task| task.has_failed() && task.desired_state() < TaskState::Remove)
        .copied()
        .collect();
    let last = newest(&failed)?;
    Some((failed.len().max(counted(replica)), last))
}

/// The failures that a replica has counted, also those of which no task is left.
fn counted(replica: &[&Arc<Task>]) -> usize {
    let counted = newest(replica).map_or(0, |last| {
        last.failures_before
            .saturating_add(u32::from(last.has_failed()))
    });
    usize::try_from(counted).unwrap_or(usize::MAX)
}

/// A task that ended during its own start delay is replaced when the delay is over.
fn ended_early(
    view: &Root,
    now: Timestamp,
    task: &Task,
    replica: &[&Arc<Task>],
) -> Option<Finding> {
    match restart::verdict(view, task, replica, now) {
        Verdict::Wait { until, why } if task.is_live() => {
            Some(held_back(view, task, replica, until, why))
        }
        Verdict::Wait { .. }
        | Verdict::Keep
        | Verdict::Start
        | Verdict::Replace(_)
        | Verdict::GiveUp(..) => None,
    }
}

fn ended(task: &Task) -> Finding {
    let error = error(task);
    match task.state() {
        TaskState::Complete => Finding::new(Code::Completed, "its program ended successfully"),
        TaskState::Failed => Finding::new(Code::Failed, format!("failed: {error}")),
        TaskState::Rejected => Finding::new(Code::Failed, format!("rejected by its node: {error}")),
        TaskState::Orphaned => {
            Finding::new(Code::Orphaned, format!("given up with its node: {error}"))
        }
        TaskState::New
        | TaskState::Pending
        | TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting
        | TaskState::Running
        | TaskState::Shutdown
        | TaskState::Remove => Finding::new(Code::Stopped, "was stopped"),
    }
}

fn stopping(view: &Root, task: &Task) -> Finding {
    let Some(node) = &task.node_id else {
        return Finding::new(Code::Stopping, "asked to stop before it had a node");
    };
    let name = node_named(view, node);
    let finding = match view.node(node) {
        Some(lost) if lost.status.state == NodeState::Down => Finding::new(
            Code::Stopping,
            format!("asked to stop, but node {name} is down and cannot confirm it"),
        )
        .since(Some(lost.state_since()))
        .step(format!("swarmctl why {}", node_arg(view, lost))),
        Some(_) => Finding::new(
            Code::Stopping,
            format!("asked to stop; node {name} has not confirmed it yet"),
        ),
        None => Finding::new(Code::NodeGone, format!("node {name} was removed")),
    };
    finding.about(node)
}

/// A live task on a node where it cannot stay, or which the manager has not heard of.
fn lost_place(view: &Root, task: &Task) -> Option<Finding> {
    let id = task.node_id.as_ref()?;
    let name = node_named(view, id);
    let finding = match (restart::trouble(view, task), view.node(id)) {
        (Some(restart::Cause::NodeDown), Some(node)) => Finding::new(
            Code::NodeDown,
            format!("node {name} is down; a replacement is on its way"),
        )
        .since(Some(node.state_since())),
        (Some(restart::Cause::NodeDrained), _) => Finding::new(
            Code::NodeDrained,
            format!("node {name} is drained; a replacement is on its way"),
        ),
        (Some(restart::Cause::NodeGone), _) => Finding::new(
            Code::NodeGone,
            format!("node {name} was removed; a replacement is on its way"),
        ),
        (None, Some(node)) if has_silent_node(task, node) => Finding::new(
            Code::NodeUnknown,
            format!(
                "node {} is {} and has not answered yet",
                node_name(node),
                node.status.state.name()
            ),
        )
        .since(Some(node.state_since())),
        (Some(restart::Cause::Ended | restart::Cause::NodeDown) | None, _) => return None,
    };
    let node = view.node(id).map(|node| node_arg(view, node));
    // Of a node that is gone nothing can be asked.
    let step = node.map(|node| format!("swarmctl why {node}"));
    Some(finding.about(id).steps(step))
}

/// Whether the task needs an answer of a node that is silent. One that runs is believed to run on.
fn has_silent_node(task: &Task, node: &swarm_types::Node) -> bool {
    node.status.state != NodeState::Ready
        && (TaskState::Assigned..TaskState::Running).contains(&task.state())
}

fn waiting(view: &Root, now: Timestamp, task: &Task, replica: &[&Arc<Task>]) -> Option<Finding> {
    let complaint = task.status().err.as_str();
    let has_no_place = task.state() <= TaskState::Pending && !complaint.is_empty();
    if !has_no_place
        && task.desired_state() < TaskState::Running
        && let Verdict::Wait { until, why } = restart::verdict(view, task, replica, now)
    {
        return Some(held_back(view, task, replica, until, why));
    }
    Some(match task.state() {
        TaskState::New if complaint.is_empty() => {
            Finding::new(Code::BeingAllocated, "waiting for the allocator")
        }
        TaskState::New => Finding::new(Code::Allocation, complaint.to_owned())
            .steps(allocation_steps(view, task, complaint)),
        TaskState::Pending if complaint.is_empty() => {
            Finding::new(Code::BeingPlaced, "waiting for the scheduler")
        }
        TaskState::Pending => Finding::new(
            Code::NoSuitableNode,
            format!("waiting for a node: {complaint}"),
        ),
        TaskState::Running if complaint.is_empty() => return warned(task),
        TaskState::Running => Finding::new(Code::Remark, format!("running, but: {complaint}")),
        TaskState::Assigned
        | TaskState::Accepted
        | TaskState::Preparing
        | TaskState::Ready
        | TaskState::Starting => dependency::missing(view, task)
            .or_else(|| health::awaited(view, task))
            .unwrap_or_else(|| at_work(view, task)),
        TaskState::Complete
        | TaskState::Shutdown
        | TaskState::Failed
        | TaskState::Rejected
        | TaskState::Remove
        | TaskState::Orphaned => return None,
    })
}

/// What gives a service what the allocator could not, by the allocator's words.
fn allocation_steps(view: &Root, task: &Task, complaint: &str) -> Vec<String> {
    if complaint.contains("ingress network is missing") {
        return vec![format!(
            "publish through the nodes that run a task: {}",
            with_other_tasks(view, task, "--ports NAME:TARGET:PUBLISHED")
        )];
    }
    if complaint.starts_with("no address is left") {
        // The words end with the way out.
        return Vec::new();
    }
    vec![
        format!(
            "choose other published ports: {}",
            with_other_tasks(view, task, "--ports NAME:TARGET:PUBLISHED")
        ),
        "remove the service that has them".to_owned(),
    ]
}

/// What a running task asked for and its node could not give.
fn warned(task: &Task) -> Option<Finding> {
    let message = task.status().message.as_str();
    let (_, warnings) = message.split_once(WARNINGS_MARK)?;
    Some(Finding::new(
        Code::Remark,
        format!("running, but: {warnings}"),
    ))
}

/// A replacement that has to wait: for its delay, or for the task before it.
fn held_back(
    view: &Root,
    task: &Task,
    replica: &[&Arc<Task>],
    until: Timestamp,
    why: &'static str,
) -> Finding {
    let finding = if why == WAITS_FOR_DELAY {
        match failures(replica) {
            Some((count, last)) => Finding::new(
                Code::RestartDelay,
                format!(
                    "in restart delay after failing {}: {}",
                    times(count),
                    error(last)
                ),
            )
            .about(&last.id)
            .step(format!("swarmctl task inspect {}", last.id)),
            None => Finding::new(Code::RestartDelay, "in restart delay"),
        }
    } else {
        let old = replica.iter().find(|old| {
            old.id != task.id && !old.is_live() && !old.is_terminal() && old.node_id.is_some()
        });
        let node = old.and_then(|old| old.node_id.as_ref());
        let place = node.map_or_else(String::new, |id| {
            format!(" on node {}", node_named(view, id))
        });
        let finding = Finding::new(
            Code::OldTaskStopping,
            format!("waiting for the task before it to stop{place}"),
        );
        match old {
            Some(old) => finding.about(&old.id),
            None => finding,
        }
    };
    finding.since(Some(task.meta.created_at)).retry(until)
}

fn at_work(view: &Root, task: &Task) -> Finding {
    let place = task.node_id.as_ref().map_or_else(String::new, |node| {
        format!(" on node {}", node_named(view, node))
    });
    let status = task.status();
    let detail = match (status.err.as_str(), status.message.as_str()) {
        ("", "") => String::new(),
        ("", text) | (text, _) => format!(": {text}"),
    };
    let finding = Finding::new(Code::OnNode, format!("{}{place}{detail}", task.state()));
    match &task.node_id {
        Some(node) => finding.about(node),
        None => finding,
    }
}
