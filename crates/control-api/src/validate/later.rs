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

/// Refuses the first part that is not implemented, by name, with the way out.
pub(crate) fn not_implemented_yet(spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let task = spec.task.as_ref();
    let found = job(spec).or_else(|| task.and_then(part_of_task));
    match found {
        Some((field, way_out)) => Err(NOT_YET.refuse(&[&field, &way_out])),
        None => Ok(()),
    }
}

/// A field, and what to do instead.
type Part = (&'static str, &'static str);

fn job(spec: &v1::ServiceSpec) -> Option<Part> {
    let way_out = "use mode replicated or global with restart condition none";
    match spec::mode(spec)? {
        ServiceMode::ReplicatedJob { .. } => Some(("mode replicated_job", way_out)),
        ServiceMode::GlobalJob => Some(("mode global_job", way_out)),
        ServiceMode::Replicated { .. } | ServiceMode::Global => None,
    }
}

fn part_of_task(task: &v1::TaskSpec) -> Option<Part> {
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
    mounts
        .any(|mount| mount.r#type == Type::Cluster as i32)
        .then_some(("a mount of type CLUSTER", "use a mount of type BIND"))
}

#[cfg(test)]
mod tests;
