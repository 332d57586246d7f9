//! Whether a task still agrees with its service (control-plane spec 4.4).
//!
//! Lives here because both the service loops and the `up_to_date` filter of the API ask. Does not
//! own what follows from it: replacing a task that differs is the updater's.

use swarm_api::v1;
use v1::task_spec::Runtime;

use crate::constraint::{Constraint, matches_all};
use crate::objects::{Node, Service};
use crate::spec;
use crate::state::TaskState;
use crate::task::Task;

/// Whether the task was made from something else than the service wants now.
///
/// `node` is the node of the task, if it has one that exists. A change of placement alone does not
/// count while that node satisfies the constraints; a change of credentials for the image does not
/// count once the image is there. Mode, labels and update configuration of the service never count.
pub fn is_dirty(service: &Service, task: &Task, node: Option<&Node>) -> bool {
    if service.spec_version.is_some() && service.spec_version == task.spec_version {
        return false;
    }
    let (wanted, made) = (&**service.spec.task(), &*task.spec);
    if let Some(node) = node
        && differs_in_placement_only(wanted, made)
        && satisfies(wanted, node)
    {
        return false;
    }
    let differs = if has_its_image(task) {
        without_pull_options(wanted.clone()) != without_pull_options(made.clone())
    } else {
        wanted != made
    };
    let endpoint = task.endpoint.as_deref();
    differs || endpoint.is_some_and(|endpoint| endpoint.spec != service.spec.endpoint)
}

fn differs_in_placement_only(wanted: &v1::TaskSpec, made: &v1::TaskSpec) -> bool {
    if wanted.placement == made.placement {
        return false;
    }
    let made = v1::TaskSpec {
        placement: wanted.placement.clone(),
        ..made.clone()
    };
    made == *wanted
}

/// Constraints that do not parse count as none.
fn satisfies(wanted: &v1::TaskSpec, node: &Node) -> bool {
    let constraints = Constraint::parse_all(spec::constraints(wanted)).unwrap_or_default();
    matches_all(&constraints, node)
}

fn has_its_image(task: &Task) -> bool {
    task.is_live() && (TaskState::Ready..=TaskState::Running).contains(&task.state())
}

fn without_pull_options(mut spec: v1::TaskSpec) -> v1::TaskSpec {
    if let Some(Runtime::Container(container)) = &mut spec.runtime {
        container.pull_options = None;
    }
    spec
}

#[cfg(test)]
mod tests;
