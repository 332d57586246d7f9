//! Fields of a task that ask for what a plain process on the node cannot have: those of its spec,
//! which the manager knows too, and what the cluster adds to them.

use swarm_api::v1;
use swarm_types::{Task, native};

/// One text for every field that is set and cannot be honoured.
pub(super) fn unsupported(task: &Task, container: &v1::ContainerSpec) -> Vec<String> {
    let mut problems = native::unsupported(&task.spec, container);
    let attached = task.networks.len();
    let is_on_host = task.networks.iter().all(native::is_host_network);
    if !is_on_host || attached < task.spec.networks.len() {
        problems.push(
            "networks: not supported here but for \"host\"; use the network of the node".to_owned(),
        );
    }
    if !task.volumes.is_empty() {
        problems.push("volumes: not supported here; use paths of the node itself".to_owned());
    }
    problems
}

/// What the cluster adds to the spec and has no use here, in words for the status of the task.
pub(super) fn unused(task: &Task) -> Option<String> {
    let driver = task.log_driver.as_deref()?;
    if driver.name.is_empty() || task.spec.log_driver.is_some() {
        return None;
    }
    Some(format!(
        "the log driver {:?} of the cluster is not used here: output is captured by the node",
        driver.name
    ))
}
