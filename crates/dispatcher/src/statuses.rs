//! Checks reported task statuses before anything of them is taken over.

use swarm_store::Root;
use swarm_types::{NodeId, TaskId, TaskState, convert};

use swarm_api::v1::update_task_status_request::TaskStatusUpdate;

use crate::bounds::{CutStatus, cut_status};
use crate::error::DispatchError;
use crate::intake::Report;

/// The statuses that concern the caller's tasks, each of a size that may be stored, and what was
/// cut off. Updates without a status and of unknown tasks are
/// skipped: the agent reports until the manager takes them, also of tasks deleted meanwhile.
pub(crate) fn check(
    node: &NodeId,
    updates: Vec<TaskStatusUpdate>,
    view: &Root,
) -> Result<(Vec<Report>, Vec<CutStatus>), DispatchError> {
    let (mut checked, mut cuts) = (Vec::with_capacity(updates.len()), Vec::new());
    for update in updates {
        let (Some(status), Ok(id)) = (update.status, update.task_id.parse::<TaskId>()) else {
            continue;
        };
        let Some(stored) = view.task(&id) else {
            continue;
        };
        if stored.node_id.as_ref() != Some(node) {
            return Err(DispatchError::foreign_task());
        }
        let mut status = convert::task_status_from_wire(id.as_id(), status)
            .map_err(|error| DispatchError::invalid_status(error.to_string()))?;
        if status.state == TaskState::Remove {
            let text = format!("task {id}: \"remove\" is a desired state; report how it ended");
            return Err(DispatchError::invalid_status(text));
        }
        cuts.extend(cut_status(node, stored, &mut status));
        checked.push(Report {
            node: node.clone(),
            is_step: status.state > stored.state(),
            task: id,
            status,
        });
    }
    Ok((checked, cuts))
}
