//! What a service spec must be, in the order in which it is checked: the first failure is the
//! answer (spec 21.6).
//!
//! The checks of SwarmKit come with its texts. Checks that it lacks (numbers of enums, ranges,
//! missing parts) stand where the field is looked at, and say in their text what is allowed.

use std::sync::Arc;

use swarm_api::v1;
use swarm_store::{By, Root};
use swarm_types::Network;
use swarm_types::spec::{self, ServiceMode};
use v1::update_config::{FailureAction, UpdateOrder};

use crate::refusal::{Refusal, rules};
use crate::request::known;

mod container;
pub(crate) mod duration;
mod endpoint;
mod later;
mod native;
mod references;
mod task;

pub use container::HEALTH_NANOS_MIN;
pub use endpoint::ENDPOINT_BYTES_MAX;
pub(crate) use later::not_implemented_yet;
pub(crate) use native::check as native;
pub(crate) use references::exist as references_exist;
pub use task::{CPU_NANOS_MIN, MEMORY_BYTES_MIN};

/// Bytes of a service's name at most, as it becomes a DNS label.
pub const NAME_BYTES_MAX: usize = 63;
/// Replicas of one service at most: as many tasks as a whole cluster is measured with. Beyond it
/// one typing mistake would fill the store before anybody could take it back.
pub const REPLICAS_MAX: u64 = 1_000_000;

rules! {
    NAME_MISSING: InvalidArgument, "meta: name must be provided";
    NAME_INVALID: InvalidArgument, "name must be valid as a DNS name component";
    NAME_TOO_LONG: InvalidArgument, "name must be 63 characters or fewer";
    REPLICAS_NEGATIVE: InvalidArgument, "Number of replicas must be non-negative";
    REPLICAS_TOO_MANY: InvalidArgument,
        "Number of replicas must be at most {} in one service, {} were asked for; split the \
         service";
    CONCURRENT_NEGATIVE: InvalidArgument, "Maximum concurrent jobs must not be negative";
    COMPLETIONS_NEGATIVE: InvalidArgument, "Total completed jobs must not be negative";
    MODE_MISSING: InvalidArgument, "Unrecognized service mode";
    JOB_WITH_UPDATE: InvalidArgument, "Jobs may not have an update config";
    DELAY_NEGATIVE: InvalidArgument, "TaskSpec: {}-delay cannot be negative";
    MONITOR_NEGATIVE: InvalidArgument, "TaskSpec: {}-monitor cannot be negative";
    FAILURE_RATIO: InvalidArgument,
        "TaskSpec: {}-maxfailureratio cannot be less than 0 or bigger than 1";
    INGRESS_ATTACHED: InvalidArgument,
        "Service cannot be explicitly attached to the ingress network \"{}\"";
    NETWORK_UNKNOWN: NotFound, "network {} not found";
    NETWORK_LATER: Unimplemented,
        "ServiceSpec: network {} is not implemented yet; attach to the predefined networks host or \
         bridge, or to none";
}

/// Checks everything about the spec that does not depend on the cluster.
pub(crate) fn service_spec(spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    check_name(name(spec.annotations.as_ref()))?;
    match &spec.task {
        Some(template) => task::check(template, spec.annotations.as_ref())?,
        // An absent message is an empty one.
        None => task::check(&v1::TaskSpec::default(), None)?,
    }
    let mode = check_mode(spec)?;
    match mode {
        ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob => {
            if spec.update.is_some() {
                return Err(JOB_WITH_UPDATE.plain());
            }
        }
        ServiceMode::Replicated { .. } | ServiceMode::Global => {
            check_update("update", spec.update.as_ref())?;
        }
    }
    check_update("rollback", spec.rollback.as_ref())?;
    endpoint::check(spec.endpoint.as_ref())
}

/// Refuses networks that a service cannot be attached to: ingress, because the allocator does so;
/// those of users, because they are not implemented yet; and what does not exist. SwarmKit takes
/// the last, and the service then runs without it.
pub(crate) fn networks(root: &Root, spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let of_task = spec.task.iter().flat_map(|task| &task.networks);
    for config in of_task.chain(&spec.networks) {
        let target = &config.target;
        let network = find_network(root, target)?;
        if network.spec.ingress || root.ingress_network().is_some_and(|it| it.id == network.id) {
            return Err(INGRESS_ATTACHED.refuse(&[&swarm_types::networks::name(&network)]));
        }
        if !swarm_types::networks::is_predefined(&network.spec) {
            return Err(NETWORK_LATER.refuse(&[target]));
        }
    }
    Ok(())
}

/// The network with this id, or else with this name.
fn find_network(root: &Root, target: &str) -> Result<Arc<Network>, Refusal> {
    let by_id = target.parse().ok().and_then(|id| root.get::<Network>(&id));
    if let Some(network) = by_id {
        return Ok(Arc::clone(network));
    }
    let named = root.find::<Network>(&By::Name(target.to_owned()))?;
    let network = named.into_iter().next();
    network.ok_or_else(|| NETWORK_UNKNOWN.refuse(&[&target]))
}

/// The name; an absent message has none.
pub(crate) fn name(annotations: Option<&v1::Annotations>) -> &str {
    annotations.map_or("", |annotations| &annotations.name)
}

/// Letters, digits, hyphens and underscores, with a letter or digit at both ends.
fn check_name(name: &str) -> Result<(), Refusal> {
    let bytes = name.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return Err(NAME_MISSING.plain());
    };
    let is_inner = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let has_ends = first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric();
    if !has_ends || !bytes.iter().all(is_inner) {
        return Err(NAME_INVALID.plain());
    }
    if bytes.len() > NAME_BYTES_MAX {
        return Err(NAME_TOO_LONG.plain());
    }
    Ok(())
}

fn check_mode(spec: &v1::ServiceSpec) -> Result<ServiceMode, Refusal> {
    let mode = spec::mode(spec).ok_or_else(|| MODE_MISSING.plain())?;
    // Go clients hold these numbers as signed, so a negative one arrives as a huge one.
    let is_negative = |number: u64| i64::try_from(number).is_err();
    match mode {
        ServiceMode::Replicated { replicas } => {
            if is_negative(replicas) {
                return Err(REPLICAS_NEGATIVE.plain());
            }
            if replicas > REPLICAS_MAX {
                return Err(REPLICAS_TOO_MANY.refuse(&[&REPLICAS_MAX, &replicas]));
            }
        }
        ServiceMode::ReplicatedJob {
            max_concurrent,
            total_completions,
        } => {
            if is_negative(max_concurrent) {
                return Err(CONCURRENT_NEGATIVE.plain());
            }
            if is_negative(total_completions) {
                return Err(COMPLETIONS_NEGATIVE.plain());
            }
        }
        ServiceMode::Global | ServiceMode::GlobalJob => {}
    }
    Ok(mode)
}

/// Checks an update or rollback config; SwarmKit never looks at the second.
fn check_update(which: &str, config: Option<&v1::UpdateConfig>) -> Result<(), Refusal> {
    let Some(config) = config else {
        return Ok(());
    };
    if duration::checked(which, "delay", config.delay.as_ref())?.is_some_and(|nanos| nanos < 0) {
        return Err(DELAY_NEGATIVE.refuse(&[&which]));
    }
    let monitor = duration::checked(which, "monitor", config.monitor.as_ref())?;
    if monitor.is_some_and(|nanos| nanos < 0) {
        return Err(MONITOR_NEGATIVE.refuse(&[&which]));
    }
    // Not a number is in no range.
    if !(0.0..=1.0).contains(&config.max_failure_ratio) {
        return Err(FAILURE_RATIO.refuse(&[&which]));
    }
    known::<FailureAction>(
        &format!("ServiceSpec.{which}.failure_action"),
        config.failure_action,
    )?;
    known::<UpdateOrder>(&format!("ServiceSpec.{which}.order"), config.order)?;
    Ok(())
}

#[cfg(test)]
pub(crate) fn all_rules() -> Vec<crate::refusal::Rule> {
    [
        RULES,
        container::RULES,
        duration::RULES,
        endpoint::RULES,
        later::RULES,
        native::RULES,
        references::RULES,
        task::RULES,
    ]
    .concat()
}

#[cfg(test)]
mod tests;
