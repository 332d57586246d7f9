//! Questions to a user's spec, answered from the wire message without changing it.
//!
//! Unknown enum numbers are refused at the edge, by `swarm-control-api`; where one arrives here all
//! the same (written by a newer manager), each function says which safe side it takes.

use std::time::Duration;

use swarm_api::v1;
use v1::service_spec::Mode;
use v1::task_spec::Runtime;

use crate::defaults;
use crate::time::duration_from_wire;

/// How many tasks a service wants, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceMode {
    /// So many replicas, anywhere.
    Replicated {
        /// How many.
        replicas: u64,
    },
    /// One task on each eligible node.
    Global,
    /// So many completions.
    ReplicatedJob {
        /// At most so many at a time.
        max_concurrent: u64,
        /// So many in all.
        total_completions: u64,
    },
    /// One completion on each eligible node.
    GlobalJob,
}

/// The mode; `None` if the message has none, which validation refuses.
pub fn mode(spec: &v1::ServiceSpec) -> Option<ServiceMode> {
    Some(match spec.mode.as_ref()? {
        Mode::Replicated(wire) => ServiceMode::Replicated {
            replicas: wire.replicas,
        },
        Mode::Global(_) => ServiceMode::Global,
        Mode::ReplicatedJob(wire) => ServiceMode::ReplicatedJob {
            max_concurrent: wire.max_concurrent,
            total_completions: wire.total_completions,
        },
        Mode::GlobalJob(_) => ServiceMode::GlobalJob,
    })
}

/// The replica count of a replicated service; `None` for every other mode.
pub fn replicas(spec: &v1::ServiceSpec) -> Option<u64> {
    match mode(spec) {
        Some(ServiceMode::Replicated { replicas }) => Some(replicas),
        Some(ServiceMode::Global | ServiceMode::ReplicatedJob { .. } | ServiceMode::GlobalJob)
        | None => None,
    }
}

/// Whether the mode is global (not a job).
pub fn is_global(spec: &v1::ServiceSpec) -> bool {
    mode(spec) == Some(ServiceMode::Global)
}

/// The container part of a task spec, if that is its runtime.
pub fn container(spec: &v1::TaskSpec) -> Option<&v1::ContainerSpec> {
    match spec.runtime.as_ref()? {
        Runtime::Container(container) => Some(container),
        Runtime::Attachment(_) | Runtime::Generic(_) => None,
    }
}

/// When to replace a task that ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartCondition {
    /// Never.
    None,
    /// Only after an error.
    OnFailure,
    /// Always.
    Any,
}

/// A restart policy with defaults filled in (spec 2.1 and 10.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestartPolicy {
    /// When.
    pub condition: RestartCondition,
    /// How long to wait before the replacement starts.
    pub delay: Duration,
    /// How many replacements at most; 0 means no limit.
    pub max_attempts: u64,
    /// Only replacements within this time count; `None` means all do.
    pub window: Option<Duration>,
}

/// The restart policy of a task: a missing message means ANY after 5 s; inside a present one only
/// the delay has a default, so an unset condition means NONE. An unknown condition counts as ANY,
/// which keeps a service alive.
pub fn restart_policy(spec: &v1::TaskSpec) -> RestartPolicy {
    let Some(wire) = &spec.restart else {
        return RestartPolicy {
            condition: RestartCondition::Any,
            delay: defaults::RESTART_DELAY,
            max_attempts: 0,
            window: None,
        };
    };
    use v1::restart_policy::RestartCondition as Wire;
    RestartPolicy {
        condition: match Wire::try_from(wire.condition) {
            Ok(Wire::None) => RestartCondition::None,
            Ok(Wire::OnFailure) => RestartCondition::OnFailure,
            Ok(Wire::Any) | Err(_) => RestartCondition::Any,
        },
        delay: wire
            .delay
            .as_ref()
            .and_then(duration_from_wire)
            .unwrap_or(defaults::RESTART_DELAY),
        max_attempts: wire.max_attempts,
        window: wire
            .window
            .as_ref()
            .and_then(duration_from_wire)
            .filter(|window| !window.is_zero()),
    }
}

/// CPU, memory and generic resources that a task reserves.
pub fn reservations(spec: &v1::TaskSpec) -> Option<&v1::Resources> {
    spec.resources.as_ref()?.reservations.as_ref()
}

/// Placement constraints; empty if there are none.
pub fn constraints(spec: &v1::TaskSpec) -> &[String] {
    spec.placement
        .as_ref()
        .map_or(&[], |placement| &placement.constraints)
}

/// How long a task has between the stop signal and the kill.
pub fn stop_grace_period(spec: &v1::ContainerSpec) -> Duration {
    spec.stop_grace_period
        .as_ref()
        .and_then(duration_from_wire)
        .unwrap_or(defaults::STOP_GRACE_PERIOD)
}

/// Networks that a task of this spec attaches to, by target.
pub fn network_targets(spec: &v1::TaskSpec) -> impl Iterator<Item = &str> {
    spec.networks.iter().map(|network| network.target.as_str())
}

/// Ids of secrets that a task of this spec uses, from the container and from plain references.
pub fn secret_ids(spec: &v1::TaskSpec) -> impl Iterator<Item = &str> {
    let container = container(spec).map_or(&[][..], |container| &container.secrets);
    container
        .iter()
        .map(|reference| reference.secret_id.as_str())
        .chain(resource_ids(spec, v1::ResourceType::Secret))
}

/// Ids of configs that a task of this spec uses, from the container and from plain references.
pub fn config_ids(spec: &v1::TaskSpec) -> impl Iterator<Item = &str> {
    let container = container(spec).map_or(&[][..], |container| &container.configs);
    container
        .iter()
        .map(|reference| reference.config_id.as_str())
        .chain(resource_ids(spec, v1::ResourceType::Config))
}

/// Ids in the plain references of one type.
pub fn resource_ids(spec: &v1::TaskSpec, wanted: v1::ResourceType) -> impl Iterator<Item = &str> {
    spec.resource_references
        .iter()
        .filter(move |reference| reference.resource_type == wanted as i32)
        .map(|reference| reference.resource_id.as_str())
}

/// How [`template_differences`] calls the placement, which alone does not make a task outdated
/// while its node satisfies the new one (spec 4.4).
pub const PLACEMENT: &str = "task.placement";
/// How [`template_differences`] calls the registry credentials, which do not matter to a task that
/// has its image (spec 4.4).
pub const PULL_OPTIONS: &str = "task.container.pull_options";

/// The parts in which two task templates differ, by the names of their fields; empty if they are
/// equal. Parts of the container are named one by one.
pub fn template_differences(a: &v1::TaskSpec, b: &v1::TaskSpec) -> Vec<&'static str> {
    let mut parts = Vec::new();
    // Tasks share the template with their service, so this is the usual case.
    if std::ptr::eq(a, b) || a == b {
        return parts;
    }
    match (container(a), container(b)) {
        (Some(a), Some(b)) => container_differences(a, b, &mut parts),
        (Some(_), None) | (None, Some(_)) | (None, None) if a.runtime != b.runtime => {
            parts.push("task.runtime");
        }
        (Some(_), None) | (None, Some(_)) | (None, None) => {}
    }
    let rest = [
        ("task.resources", a.resources != b.resources),
        ("task.restart", a.restart != b.restart),
        (PLACEMENT, a.placement != b.placement),
        ("task.log_driver", a.log_driver != b.log_driver),
        ("task.networks", a.networks != b.networks),
        ("task.force_update", a.force_update != b.force_update),
        (
            "task.resource_references",
            a.resource_references != b.resource_references,
        ),
    ];
    parts.extend(
        rest.iter()
            .filter(|(_, differ)| *differ)
            .map(|(name, _)| *name),
    );
    parts
}

fn container_differences(
    a: &v1::ContainerSpec,
    b: &v1::ContainerSpec,
    parts: &mut Vec<&'static str>,
) {
    macro_rules! compare {
        ($($field:ident),* $(,)?) => {$(
            if a.$field != b.$field {
                parts.push(concat!("task.container.", stringify!($field)));
            }
        )*};
    }
    compare!(
        image,
        labels,
        command,
        args,
        env,
        dir,
        user,
        mounts,
        stop_grace_period,
        pull_options,
        groups,
        secrets,
        tty,
        hostname,
        dns_config,
        healthcheck,
        hosts,
        open_stdin,
        read_only,
        stop_signal,
        configs,
        privileges,
        init,
        isolation,
        pids_limit,
        sysctls,
        capability_add,
        capability_drop,
        ulimits,
        oom_score_adj,
    );
    // A field that is new to the message and missing above must not pass for equal.
    if parts.is_empty() && a != b {
        parts.push("task.container");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(change: impl FnOnce(&mut v1::TaskSpec, &mut v1::ContainerSpec)) -> v1::TaskSpec {
        let mut task = v1::TaskSpec::default();
        let mut container = v1::ContainerSpec::default();
        change(&mut task, &mut container);
        task.runtime = Some(Runtime::Container(container));
        task
    }

    #[test]
    fn equal_templates_have_no_differences() {
        let same = || template(|_, container| container.image = "a".to_owned());
        assert_eq!(template_differences(&same(), &same()), [""; 0]);
    }

    #[test]
    fn differences_are_named_one_by_one() {
        let before = template(|_, _| {});
        let after = template(|task, container| {
            container.image = "b".to_owned();
            container.pull_options = Some(v1::container_spec::PullOptions::default());
            task.placement = Some(v1::Placement::default());
            task.force_update = 1;
        });
        let parts = template_differences(&before, &after);
        assert_eq!(
            parts,
            [
                "task.container.image",
                PULL_OPTIONS,
                PLACEMENT,
                "task.force_update"
            ]
        );
        assert_eq!(template_differences(&after, &before), parts);
    }

    #[test]
    fn another_runtime_is_a_difference() {
        let container = template(|_, _| {});
        let none = v1::TaskSpec::default();
        assert_eq!(template_differences(&container, &none), ["task.runtime"]);
    }
}
