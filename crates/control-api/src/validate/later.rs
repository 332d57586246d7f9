//! What a valid spec may say that this program cannot do yet.
//!
//! Each entry goes away with the issue that implements it. Until then it is refused: a spec that is
//! stored and not followed is worse than one that is refused.

use swarm_api::v1;
use swarm_types::spec::{self, ServiceMode};
use v1::mount::Type;

use crate::refusal::{Refusal, rules};

rules! {
    NOT_YET: Unimplemented, "ServiceSpec: {} is not implemented yet; {}";
}

/// Templates in the sense of SwarmKit begin with this.
const TEMPLATE: &str = "{{";

/// Refuses the first part that is not implemented, by name, with the way out.
pub(crate) fn not_implemented_yet(spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let task = spec.task.as_ref();
    let found = job(spec)
        .or_else(|| (!spec.networks.is_empty()).then_some(("networks", NO_NETWORKS)))
        .or_else(|| task.and_then(part_of_task));
    match found {
        Some((field, way_out)) => Err(NOT_YET.refuse(&[&field, &way_out])),
        None => Ok(()),
    }
}

/// A field, and what to do instead.
type Part = (&'static str, &'static str);

const NO_NETWORKS: &str = "leave it empty, tasks use the network of their node";

fn job(spec: &v1::ServiceSpec) -> Option<Part> {
    let way_out = "use mode replicated or global with restart condition none";
    match spec::mode(spec)? {
        ServiceMode::ReplicatedJob { .. } => Some(("mode replicated_job", way_out)),
        ServiceMode::GlobalJob => Some(("mode global_job", way_out)),
        ServiceMode::Replicated { .. } | ServiceMode::Global => None,
    }
}

fn part_of_task(task: &v1::TaskSpec) -> Option<Part> {
    if !task.networks.is_empty() {
        return Some(("task.networks", NO_NETWORKS));
    }
    let is_payload = |reference: &v1::ResourceReference| {
        use v1::ResourceType::{Config, Secret};
        [Secret as i32, Config as i32].contains(&reference.resource_type)
    };
    if !task.resource_references.iter().all(is_payload) {
        return Some((
            "a resource reference to a task or volume",
            "refer to secrets and configs only",
        ));
    }
    part_of_container(spec::container(task)?)
}

fn part_of_container(container: &v1::ContainerSpec) -> Option<Part> {
    let mut mounts = container.mounts.iter();
    if mounts.any(|mount| mount.r#type == Type::Cluster as i32) {
        return Some(("a mount of type CLUSTER", "use a mount of type BIND"));
    }
    templated_field(container).map(|field| (field, "write the value without {{ }}"))
}

/// The first field with a template. The fields are those that SwarmKit expands on the worker.
fn templated_field(container: &v1::ContainerSpec) -> Option<&'static str> {
    let has_template = |text: &String| text.contains(TEMPLATE);
    if container.env.iter().any(has_template) {
        return Some("a template in task.container.env");
    }
    if has_template(&container.hostname) {
        return Some("a template in task.container.hostname");
    }
    let mut mounts = container.mounts.iter();
    mounts
        .any(|mount| mount_texts(mount).any(has_template))
        .then_some("a template in task.container.mounts")
}

fn mount_texts(mount: &v1::Mount) -> impl Iterator<Item = &String> {
    let options = mount.volume_options.as_ref();
    let labels = options.map(|options| options.labels.values());
    let driver = options.and_then(|options| options.driver_config.as_ref());
    let driver_options = driver.map(|driver| driver.options.values());
    [&mount.source, &mount.target]
        .into_iter()
        .chain(labels.into_iter().flatten())
        .chain(driver_options.into_iter().flatten())
}

#[cfg(test)]
mod tests;
