//! Whether a task is what its service would make now (spec 4.4, seen from the other side: not
//! "dirty").
//!
//! The updater of the orchestrator asks the same question to decide what to replace; here it
//! answers the `up_to_date` filter, and refuses updates that would need an updater.

use swarm_types::constraint::{self, Constraint};
use swarm_types::{Node, Service, Task, TaskState, spec};

/// Whether the task need not be replaced for the service; `node` is where it is assigned, if it is
/// and the node still exists.
pub(crate) fn is_task_up_to_date(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    reason_to_replace(service, task, node).is_none()
}

/// The first part of the template, or the endpoint, for which the task would have to be replaced.
pub(crate) fn reason_to_replace(
    service: &Service,
    task: &Task,
    node: Option<&Node>,
) -> Option<&'static str> {
    if service.spec_version.is_some() && service.spec_version == task.spec_version {
        return None;
    }
    let mut differences = spec::template_differences(service.spec.task(), &task.spec);
    if differences == [spec::PLACEMENT]
        && node.is_some_and(|node| satisfies_constraints(service, node))
    {
        return None;
    }
    if has_its_image(task) {
        differences.retain(|part| *part != spec::PULL_OPTIONS);
    }
    differences.first().copied().or_else(|| {
        let endpoint = task.endpoint.as_deref()?;
        (service.spec.endpoint != endpoint.spec).then_some("endpoint")
    })
}

/// New registry credentials matter only to a task that has yet to pull its image.
fn has_its_image(task: &Task) -> bool {
    task.is_live() && (TaskState::Ready..=TaskState::Running).contains(&task.state())
}

/// A constraint that does not parse was stored by another program; it counts as none at all.
fn satisfies_constraints(service: &Service, node: &Node) -> bool {
    let expressions = spec::constraints(service.spec.task());
    match Constraint::parse_all(expressions) {
        Ok(constraints) => constraint::matches_all(&constraints, node),
        Err(_) => true,
    }
}

#[cfg(test)]
mod tests;
