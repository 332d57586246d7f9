//! Explains a task.

use swarm_api::ext;
use swarm_orchestrator::restart::NoRestart;
use swarm_orchestrator::slot::{Standing, newest, standing};
use swarm_store::Root;
use swarm_types::{Task, TaskState, Timestamp};

use crate::cause::{cause, failures, replica};
use crate::finding::{Code, Finding, Object, answer};
use crate::words::{error, node_named, task_name, times};
use crate::{place, revive};

pub(crate) fn explain(view: &Root, now: Timestamp, task: &Task) -> ext::WhyResponse {
    let name = task_name(view, task);
    let mut findings: Vec<Finding> = Vec::new();
    if let Some(mut finding) = cause(view, now, task) {
        place::detail(view, now, task, &mut finding);
        findings.push(finding);
    }
    findings.extend(history(view, task));
    findings.extend(succession(view, task));
    let headline = headline(view, task, &name, findings.first());
    let is_waiting = task.is_live() && !task.is_terminal() && task.state() != TaskState::Running;
    let object = Object {
        kind: "task",
        id: task.id.to_string(),
        name,
    };
    answer(object, headline, findings, is_waiting)
}

fn headline(view: &Root, task: &Task, name: &str, first: Option<&Finding>) -> String {
    match first {
        Some(first) if task.state() != TaskState::Running || first.code != Code::Failing => {
            format!("Task {name} is {}: {}.", task.state(), first.text)
        }
        Some(_) | None => {
            let place = task.node_id.as_ref();
            let place = place.map_or_else(String::new, |id| {
                format!(" on node {}", node_named(view, id))
            });
            format!("Task {name} is {}{place}.", task.state())
        }
    }
}

/// The failures of the tasks before it.
fn history(view: &Root, task: &Task) -> Option<Finding> {
    let mut before = replica(view, task);
    before.retain(|other| other.id != task.id && other.meta.created_at <= task.meta.created_at);
    let (count, last) = failures(&before)?;
    let count = count.max(usize::try_from(task.failures_before).unwrap_or(usize::MAX));
    let text = format!(
        "tasks before it in the same slot failed {}, the last with: {}",
        times(count),
        error(last)
    );
    let finding = Finding::new(Code::Failing, text).since(last.status().effective_time());
    Some(finding.about(&last.id))
}

/// What becomes of the replica of a task that ended or is not wanted any more.
fn succession(view: &Root, task: &Task) -> Option<Finding> {
    if task.is_live() && !task.is_terminal() {
        return None;
    }
    let Some(service) = task.service_id.as_ref().and_then(|id| view.service(id)) else {
        return Some(Finding::new(
            Code::Effect,
            "its service was removed, so nothing follows it",
        ));
    };
    let tasks = replica(view, task);
    let live = tasks
        .iter()
        .find(|other| other.is_live() && other.id != task.id);
    if let Some(next) = live {
        let text = format!("task {} took its place, and is {}", next.id, next.state());
        let step = format!("swarmctl why {}", next.id);
        return Some(Finding::new(Code::Effect, text).about(&next.id).step(step));
    }
    match standing(service, &tasks) {
        Standing::Spent(why) => {
            let last = newest(&tasks)?;
            let finding = Finding::new(Code::GaveUp, format!("nothing takes its place: {why}"));
            let finding = finding.since(last.status().effective_time());
            Some(match why {
                NoRestart::Completed => finding,
                NoRestart::Never | NoRestart::AttemptsUsed { .. } => {
                    finding.step(revive::step(view, service, last, &tasks))
                }
            })
        }
        Standing::Filled | Standing::Dead => Some(Finding::new(
            Code::BeingReplaced,
            "the orchestrator is about to replace it",
        )),
        Standing::Empty => Some(Finding::new(
            Code::Effect,
            "its slot was removed, as when a service is scaled down",
        )),
    }
}
