//! The container part of a task template.

use std::collections::BTreeSet;

use swarm_api::v1;
use v1::container_spec::Isolation;
use v1::mount::bind_options::Propagation;
use v1::mount::{Consistency, Type};
use v1::privileges::app_armor_opts::AppArmorMode;
use v1::privileges::seccomp_opts::SeccompMode;

use super::duration;
use crate::image;
use crate::refusal::{Refusal, rules};
use crate::request::known;

/// The shortest duration in a health check that is not zero: one millisecond, in nanoseconds.
pub const HEALTH_NANOS_MIN: i64 = 1_000_000;

rules! {
    IMAGE_MISSING: InvalidArgument, "ContainerSpec: image reference must be provided";
    IMAGE_INVALID: InvalidArgument, "ContainerSpec: \"{}\" is not a valid repository/tag";
    MOUNT_TWICE: InvalidArgument, "ContainerSpec: duplicate mount point: {}";
    HEALTH_TOO_SHORT: InvalidArgument,
        "ContainerSpec: {} in HealthConfig cannot be less than 1ms";
    RETRIES_NEGATIVE: InvalidArgument,
        "ContainerSpec: Retries in HealthConfig cannot be negative";
    GRACE_NEGATIVE: InvalidArgument, "ContainerSpec: stop-grace-period cannot be negative";
}

pub(super) fn check(container: &v1::ContainerSpec) -> Result<(), Refusal> {
    check_image(&container.image)?;
    check_mounts(&container.mounts)?;
    check_health(container.healthcheck.as_ref())?;
    let grace = container.stop_grace_period.as_ref();
    let grace = duration::checked("ContainerSpec", "stop_grace_period", grace)?;
    if grace.is_some_and(|nanos| nanos < 0) {
        return Err(GRACE_NEGATIVE.plain());
    }
    known::<Isolation>("ContainerSpec.isolation", container.isolation)?;
    check_privileges(container.privileges.as_ref())
}

fn check_image(reference: &str) -> Result<(), Refusal> {
    if reference.is_empty() {
        return Err(IMAGE_MISSING.plain());
    }
    if !image::is_reference(reference) {
        return Err(IMAGE_INVALID.refuse(&[&reference]));
    }
    Ok(())
}

fn check_mounts(mounts: &[v1::Mount]) -> Result<(), Refusal> {
    let mut targets = BTreeSet::new();
    for mount in mounts {
        known::<Type>("ContainerSpec.mounts.type", mount.r#type)?;
        known::<Consistency>("ContainerSpec.mounts.consistency", mount.consistency)?;
        if let Some(options) = &mount.bind_options {
            let field = "ContainerSpec.mounts.bind_options.propagation";
            known::<Propagation>(field, options.propagation)?;
        }
        if !targets.insert(&mount.target) {
            return Err(MOUNT_TWICE.refuse(&[&mount.target]));
        }
    }
    Ok(())
}

fn check_health(health: Option<&v1::HealthConfig>) -> Result<(), Refusal> {
    let Some(health) = health else {
        return Ok(());
    };
    let durations = [
        ("Interval", &health.interval),
        ("Timeout", &health.timeout),
        ("StartPeriod", &health.start_period),
        ("StartInterval", &health.start_interval),
    ];
    for (field, wire) in durations {
        let nanos = duration::checked("HealthConfig", field, wire.as_ref())?;
        if nanos.is_some_and(|nanos| nanos != 0 && nanos < HEALTH_NANOS_MIN) {
            return Err(HEALTH_TOO_SHORT.refuse(&[&field]));
        }
    }
    if health.retries < 0 {
        return Err(RETRIES_NEGATIVE.plain());
    }
    Ok(())
}

fn check_privileges(privileges: Option<&v1::Privileges>) -> Result<(), Refusal> {
    let Some(privileges) = privileges else {
        return Ok(());
    };
    if let Some(seccomp) = &privileges.seccomp {
        known::<SeccompMode>("ContainerSpec.privileges.seccomp.mode", seccomp.mode)?;
    }
    if let Some(apparmor) = &privileges.apparmor {
        known::<AppArmorMode>("ContainerSpec.privileges.apparmor.mode", apparmor.mode)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
