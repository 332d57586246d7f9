//! Refuses updates that would have to replace running tasks, as long as there is no updater.
//!
//! Everything else takes effect without one: the orchestrator follows the number of replicas, and
//! makes every new task from the newest spec.

use swarm_store::Root;
use swarm_types::Service;

use crate::refusal::{Refusal, rules};
use crate::up_to_date::reason_to_replace;

rules! {
    ROLLING_UPDATE_UNIMPLEMENTED: Unimplemented,
        "UpdateService: rolling updates are not implemented yet, and a change of {} would replace \
         task {} of service {}; remove the service and create it again, or scale it to 0 before \
         the change";
}

/// Refuses if a live task of the service would have to be replaced for the updated one.
pub(super) fn refuse_replacements(
    root: &Root,
    stored: &Service,
    updated: &Service,
) -> Result<(), Refusal> {
    let live = root
        .tasks_of_service(&stored.id)
        .filter(|task| task.is_live() && !task.is_terminal());
    for task in live {
        let node = task.node_id.as_ref().and_then(|id| root.node(id));
        // A task of a service that had no ports does not carry them, so a comparison with the task
        // alone would miss ports that are new.
        let reason = reason_to_replace(updated, task, node.map(|node| &**node))
            .or_else(|| ports_differ(stored, updated).then_some("endpoint.ports"));
        if let Some(reason) = reason {
            return Err(ROLLING_UPDATE_UNIMPLEMENTED.refuse(&[&reason, &task.id, &stored.id]));
        }
    }
    Ok(())
}

fn ports_differ(stored: &Service, updated: &Service) -> bool {
    let ports = |service: &Service| {
        let endpoint = service.spec.endpoint.as_ref();
        endpoint.map_or_else(Vec::new, |endpoint| endpoint.ports.clone())
    };
    ports(stored) != ports(updated)
}
