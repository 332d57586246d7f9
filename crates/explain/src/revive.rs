//! What starts a replica again that policy gave up.

use std::sync::Arc;

use swarm_api::v1;
use swarm_orchestrator::slot::{Standing, standing};
use swarm_store::Root;
use swarm_types::{Service, ServiceSpec, Task, Version, convert, spec};

/// The gentlest way that was seen to help on a copy: an update where nothing else runs, the removal
/// of the task where it alone is in the way, and else all anew.
pub(crate) fn step(view: &Root, service: &Service, last: &Task, tasks: &[&Arc<Task>]) -> String {
    let name = service.spec.name();
    let mut of_service = view.tasks_of_service(&service.id);
    // An update that would replace live tasks is refused.
    let is_updatable = !of_service.any(|task| task.is_live() && !task.is_terminal());
    if is_updatable && starts(standing(&forced(service), tasks)) {
        return format!(
            "swarmctl service update {name} --force, which starts it again; so does any update \
             that changes its tasks"
        );
    }
    let rest: Vec<&Arc<Task>> = tasks
        .iter()
        .filter(|it| it.id != last.id)
        .copied()
        .collect();
    if starts(standing(service, &rest)) {
        return format!(
            "swarmctl task rm {}, which starts it again and forgets this run",
            last.id
        );
    }
    match spec::replicas(&service.spec) {
        Some(replicas) => format!(
            "swarmctl service update {name} --replicas 0, then swarmctl service update {name} \
             --replicas {replicas}, which starts all of its tasks again"
        ),
        None => format!("remove service {name}, and create it again"),
    }
}

/// Whether a replica that stands so gets another task.
fn starts(standing: Standing) -> bool {
    match standing {
        Standing::Empty | Standing::Dead => true,
        Standing::Filled | Standing::Spent(_) => false,
    }
}

/// The service after `update --force`.
fn forced(service: &Service) -> Service {
    let mut forced = service.clone();
    let mut wire: v1::ServiceSpec = convert::service_to_wire(service).spec.unwrap_or_default();
    let task = wire.task.get_or_insert_default();
    task.force_update = task.force_update.wrapping_add(1);
    forced.spec = ServiceSpec::new(wire);
    forced.spec_version = Some(Version(service.meta.version.0));
    forced
}
