//! The task template: resources, restart policy, placement, references, runtime.

use swarm_api::v1;
use swarm_types::constraint::Constraint;
use swarm_types::{resources, template};
use v1::restart_policy::RestartCondition;
use v1::task_spec::Runtime;

use super::{container, duration, references};
use crate::refusal::{Refusal, rules};
use crate::request::known;

/// The least CPU that may be limited or reserved: a thousandth of a core, in billionths of one.
pub const CPU_NANOS_MIN: i64 = 1_000_000;
/// The least memory that may be limited or reserved: 4 MiB.
pub const MEMORY_BYTES_MIN: i64 = 4 * 1024 * 1024;
/// Bytes in the kind of a generic runtime at least.
const RUNTIME_KIND_BYTES_MIN: usize = 3;

rules! {
    CPU_TOO_LITTLE: InvalidArgument, "invalid cpu value {}: Must be at least 0.001";
    MEMORY_TOO_LITTLE: InvalidArgument, "invalid memory value {}: Must be at least 4MiB";
    GENERIC_RESERVATION: InvalidArgument, "TaskSpec: {}";
    GENERIC_WITHOUT_KIND: InvalidArgument, "TaskSpec: a generic resource has no kind; name it";
    RESTART_DELAY_NEGATIVE: InvalidArgument, "TaskSpec: restart-delay cannot be negative";
    RESTART_WINDOW_NEGATIVE: InvalidArgument, "TaskSpec: restart-window cannot be negative";
    /// SwarmKit lets this error escape without a code; scripts saw it as Unknown.
    CONSTRAINT: Unknown, "{}";
    PREFERENCE_EMPTY: InvalidArgument,
        "TaskSpec: placement preference number {} is of no known kind; use spread";
    TEMPLATE: InvalidArgument, "{}";
    RUNTIME_MISSING: InvalidArgument, "TaskSpec: missing runtime";
    RUNTIME_UNIMPLEMENTED: Unimplemented, "RuntimeSpec: unimplemented runtime in service spec";
    RUNTIME_KIND: InvalidArgument, "Generic runtime: Invalid name \"{}\"";
    RUNTIME_RESERVED: InvalidArgument, "Generic runtime: \"{}\" is a reserved name";
    PAYLOAD_MISSING: InvalidArgument, "Generic runtime is missing payload";
    PAYLOAD_TYPE_MISSING: InvalidArgument, "Generic runtime is missing payload type";
    PAYLOAD_EMPTY: InvalidArgument, "Generic runtime has an empty payload";
}

/// `service` has the labels that templates may use.
pub(super) fn check(spec: &v1::TaskSpec, service: Option<&v1::Annotations>) -> Result<(), Refusal> {
    if let Some(requirements) = &spec.resources {
        check_resources(requirements.limits.as_ref())?;
        check_resources(requirements.reservations.as_ref())?;
    }
    check_restart(spec.restart.as_ref())?;
    check_placement(spec.placement.as_ref())?;
    if let Some(Runtime::Container(container)) = &spec.runtime {
        references::check_secrets(container)?;
        references::check_configs(container)?;
        references::check_collisions(container)?;
    }
    references::check_resources(spec)?;
    match &spec.runtime {
        None => Err(RUNTIME_MISSING.plain()),
        Some(Runtime::Attachment(_)) => Err(RUNTIME_UNIMPLEMENTED.plain()),
        // Judged as a task would have it: two mounts may only collide once they are expanded.
        Some(Runtime::Container(container)) => {
            let expanded = template::task::rehearse(container, service);
            container::check(&expanded.map_err(|error| TEMPLATE.refuse(&[&error]))?)
        }
        Some(Runtime::Generic(generic)) => check_generic(generic),
    }
}

fn check_resources(resources: Option<&v1::Resources>) -> Result<(), Refusal> {
    let Some(resources) = resources else {
        return Ok(());
    };
    if resources.nano_cpus != 0 && resources.nano_cpus < CPU_NANOS_MIN {
        return Err(CPU_TOO_LITTLE.refuse(&[&cores(resources.nano_cpus)]));
    }
    if resources.memory_bytes != 0 && resources.memory_bytes < MEMORY_BYTES_MIN {
        return Err(MEMORY_TOO_LITTLE.refuse(&[&resources.memory_bytes]));
    }
    let mut generic = resources.generic.iter();
    if generic.any(|resource| resources::kind(resource).is_empty()) {
        return Err(GENERIC_WITHOUT_KIND.plain());
    }
    resources::check_reservation(&resources.generic)
        .map_err(|error| GENERIC_RESERVATION.refuse(&[&error]))
}

/// Billionths of a core as cores, the way Go's `%g` prints them: with an exponent when it is below
/// -4 or above 5.
fn cores(nanos: i64) -> String {
    let text = format!("{:e}", nanos as f64 / 1e9);
    let Some((mantissa, exponent)) = text.split_once('e') else {
        return text;
    };
    match exponent.parse::<i32>() {
        Ok(exponent @ ..-4) => format!("{mantissa}e-{:02}", exponent.abs()),
        Ok(exponent @ 6..) => format!("{mantissa}e+{exponent:02}"),
        Ok(_) | Err(_) => format!("{}", nanos as f64 / 1e9),
    }
}

fn check_restart(policy: Option<&v1::RestartPolicy>) -> Result<(), Refusal> {
    let Some(policy) = policy else {
        return Ok(());
    };
    let delay = duration::checked("restart", "delay", policy.delay.as_ref())?;
    if delay.is_some_and(|nanos| nanos < 0) {
        return Err(RESTART_DELAY_NEGATIVE.plain());
    }
    let window = duration::checked("restart", "window", policy.window.as_ref())?;
    if window.is_some_and(|nanos| nanos < 0) {
        return Err(RESTART_WINDOW_NEGATIVE.plain());
    }
    known::<RestartCondition>("TaskSpec.restart.condition", policy.condition)?;
    Ok(())
}

fn check_placement(placement: Option<&v1::Placement>) -> Result<(), Refusal> {
    let Some(placement) = placement else {
        return Ok(());
    };
    Constraint::parse_all(&placement.constraints).map_err(|error| CONSTRAINT.refuse(&[&error]))?;
    let mut preferences = placement.preferences.iter();
    match preferences.position(|preference| preference.preference.is_none()) {
        Some(index) => Err(PREFERENCE_EMPTY.refuse(&[&(index + 1)])),
        None => Ok(()),
    }
}

fn check_generic(runtime: &v1::GenericRuntimeSpec) -> Result<(), Refusal> {
    let kind = &runtime.kind;
    if kind.len() < RUNTIME_KIND_BYTES_MIN {
        return Err(RUNTIME_KIND.refuse(&[kind]));
    }
    // The names of the built-in runtimes, as list filters use them.
    if ["container", "attachment"].contains(&kind.to_lowercase().as_str()) {
        return Err(RUNTIME_RESERVED.refuse(&[kind]));
    }
    let payload = runtime
        .payload
        .as_ref()
        .ok_or_else(|| PAYLOAD_MISSING.plain())?;
    if payload.type_url.is_empty() {
        return Err(PAYLOAD_TYPE_MISSING.plain());
    }
    if payload.value.is_empty() {
        return Err(PAYLOAD_EMPTY.plain());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
