//! Specs of services, and what they share with tasks.

use serde::Serialize;
use swarm_api::v1;
use swarm_types::resources;
use swarm_types::spec::container;
use v1::service_spec::Mode;

use super::payloads::ReferenceView;
use super::{AnnotationsView, Map, enum_name, nanos};

/// `ServiceSpec`.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceSpecView {
    annotations: AnnotationsView,
    task: TaskSpecView,
    mode: &'static str,
    replicas: Option<u64>,
    update: Option<UpdateConfigView>,
    rollback: Option<UpdateConfigView>,
    endpoint: Option<EndpointSpecView>,
}

impl ServiceSpecView {
    pub(super) fn of(wire: &v1::ServiceSpec) -> Self {
        let (mode, replicas) = match &wire.mode {
            Some(Mode::Replicated(mode)) => ("replicated", Some(mode.replicas)),
            Some(Mode::Global(_)) => ("global", None),
            Some(Mode::ReplicatedJob(_)) => ("replicated_job", None),
            Some(Mode::GlobalJob(_)) => ("global_job", None),
            None => ("", None),
        };
        Self {
            annotations: AnnotationsView::of(wire.annotations.as_ref()),
            task: TaskSpecView::of(wire.task.as_ref()),
            mode,
            replicas,
            update: wire.update.as_ref().map(UpdateConfigView::of),
            rollback: wire.rollback.as_ref().map(UpdateConfigView::of),
            endpoint: wire.endpoint.as_ref().map(EndpointSpecView::of),
        }
    }
}

#[derive(Debug, Serialize)]
struct UpdateConfigView {
    parallelism: u64,
    delay_nanos: Option<i64>,
    failure_action: String,
    monitor_nanos: Option<i64>,
    max_failure_ratio: f32,
    order: String,
}

impl UpdateConfigView {
    fn of(wire: &v1::UpdateConfig) -> Self {
        use v1::update_config::{FailureAction, UpdateOrder};
        Self {
            parallelism: wire.parallelism,
            delay_nanos: nanos(wire.delay.as_ref()),
            failure_action: enum_name(wire.failure_action, |action: FailureAction| {
                action.as_str_name()
            }),
            monitor_nanos: nanos(wire.monitor.as_ref()),
            max_failure_ratio: wire.max_failure_ratio,
            order: enum_name(wire.order, |order: UpdateOrder| order.as_str_name()),
        }
    }
}

#[derive(Debug, Serialize)]
struct EndpointSpecView {
    mode: String,
    ports: Vec<PortView>,
}

impl EndpointSpecView {
    fn of(wire: &v1::EndpointSpec) -> Self {
        use v1::endpoint_spec::ResolutionMode;
        Self {
            mode: enum_name(wire.mode, |mode: ResolutionMode| mode.as_str_name()),
            ports: PortView::all(&wire.ports),
        }
    }
}

/// `PortConfig`.
#[derive(Debug, Serialize)]
pub(crate) struct PortView {
    name: String,
    pub(crate) protocol: String,
    target_port: u32,
    published_port: u32,
    publish_mode: String,
}

impl PortView {
    pub(crate) fn all(wire: &[v1::PortConfig]) -> Vec<Self> {
        wire.iter().map(Self::of).collect()
    }

    fn of(wire: &v1::PortConfig) -> Self {
        use v1::port_config::{Protocol, PublishMode};
        Self {
            name: wire.name.clone(),
            protocol: enum_name(wire.protocol, |protocol: Protocol| protocol.as_str_name()),
            target_port: wire.target_port,
            published_port: wire.published_port,
            publish_mode: enum_name(wire.publish_mode, |mode: PublishMode| mode.as_str_name()),
        }
    }

    /// As the table shows it: `name:80/tcp:8080`.
    pub(crate) fn text(&self) -> String {
        let protocol = self.protocol.to_lowercase();
        let published = match self.published_port {
            0 => String::new(),
            port => format!(":{port}"),
        };
        let name = match self.name.as_str() {
            "" => String::new(),
            name => format!("{name}:"),
        };
        let mode = self.publish_mode.to_lowercase();
        format!("{name}{}/{protocol}{published} ({mode})", self.target_port)
    }
}

/// `TaskSpec`.
#[derive(Debug, Serialize)]
pub(crate) struct TaskSpecView {
    container: Option<ContainerView>,
    resources: ResourcesView,
    restart: Option<RestartView>,
    placement: PlacementView,
    log_driver: Option<LogDriverView>,
    force_update: u64,
}

impl TaskSpecView {
    pub(super) fn of(wire: Option<&v1::TaskSpec>) -> Self {
        let wire = wire.cloned().unwrap_or_default();
        let resources = wire.resources.clone().unwrap_or_default();
        Self {
            container: container(&wire).map(ContainerView::of),
            resources: ResourcesView {
                limits: resources.limits.as_ref().map(AmountsView::of),
                reservations: resources.reservations.as_ref().map(AmountsView::of),
            },
            restart: wire.restart.as_ref().map(RestartView::of),
            placement: PlacementView::of(wire.placement.unwrap_or_default()),
            log_driver: wire.log_driver.as_ref().map(LogDriverView::of),
            force_update: wire.force_update,
        }
    }
}

#[derive(Debug, Serialize)]
struct ContainerView {
    image: String,
    labels: Map,
    command: Vec<String>,
    args: Vec<String>,
    env: Vec<String>,
    dir: String,
    user: String,
    groups: Vec<String>,
    hostname: String,
    tty: bool,
    open_stdin: bool,
    mounts: Vec<MountView>,
    secrets: Vec<ReferenceView>,
    configs: Vec<ReferenceView>,
    stop_signal: String,
    stop_grace_period_nanos: Option<i64>,
    init: Option<bool>,
    ulimits: Vec<UlimitView>,
    capability_add: Vec<String>,
    capability_drop: Vec<String>,
    oom_score_adj: i64,
}

impl ContainerView {
    fn of(wire: &v1::ContainerSpec) -> Self {
        let wire = wire.clone();
        Self {
            stop_grace_period_nanos: nanos(wire.stop_grace_period.as_ref()),
            mounts: wire.mounts.iter().map(MountView::of).collect(),
            secrets: wire.secrets.iter().map(ReferenceView::of_secret).collect(),
            configs: wire.configs.iter().map(ReferenceView::of_config).collect(),
            ulimits: wire.ulimits.iter().map(UlimitView::of).collect(),
            image: wire.image,
            labels: wire.labels,
            command: wire.command,
            args: wire.args,
            env: wire.env,
            dir: wire.dir,
            user: wire.user,
            groups: wire.groups,
            hostname: wire.hostname,
            tty: wire.tty,
            open_stdin: wire.open_stdin,
            stop_signal: wire.stop_signal,
            init: wire.init,
            capability_add: wire.capability_add,
            capability_drop: wire.capability_drop,
            oom_score_adj: wire.oom_score_adj,
        }
    }
}

#[derive(Debug, Serialize)]
struct UlimitView {
    name: String,
    soft: i64,
    hard: i64,
}

impl UlimitView {
    fn of(wire: &v1::container_spec::Ulimit) -> Self {
        Self {
            name: wire.name.clone(),
            soft: wire.soft,
            hard: wire.hard,
        }
    }
}

#[derive(Debug, Serialize)]
struct MountView {
    r#type: String,
    source: String,
    target: String,
    readonly: bool,
}

impl MountView {
    fn of(wire: &v1::Mount) -> Self {
        Self {
            r#type: enum_name(wire.r#type, |kind: v1::mount::Type| kind.as_str_name()),
            source: wire.source.clone(),
            target: wire.target.clone(),
            readonly: wire.readonly,
        }
    }
}

#[derive(Debug, Serialize)]
struct ResourcesView {
    limits: Option<AmountsView>,
    reservations: Option<AmountsView>,
}

/// `Resources`.
#[derive(Debug, Serialize)]
pub(super) struct AmountsView {
    nano_cpus: i64,
    memory_bytes: i64,
    /// As in `--generic-resources`.
    generic: String,
}

impl AmountsView {
    pub(super) fn of(wire: &v1::Resources) -> Self {
        Self {
            nano_cpus: wire.nano_cpus,
            memory_bytes: wire.memory_bytes,
            generic: resources::to_text(&wire.generic),
        }
    }
}

#[derive(Debug, Serialize)]
struct RestartView {
    condition: String,
    delay_nanos: Option<i64>,
    max_attempts: u64,
    window_nanos: Option<i64>,
}

impl RestartView {
    fn of(wire: &v1::RestartPolicy) -> Self {
        use v1::restart_policy::RestartCondition;
        Self {
            condition: enum_name(wire.condition, |condition: RestartCondition| {
                condition.as_str_name()
            }),
            delay_nanos: nanos(wire.delay.as_ref()),
            max_attempts: wire.max_attempts,
            window_nanos: nanos(wire.window.as_ref()),
        }
    }
}

#[derive(Debug, Serialize)]
struct PlacementView {
    constraints: Vec<String>,
    spread_over: Vec<String>,
    max_replicas: u64,
}

impl PlacementView {
    fn of(wire: v1::Placement) -> Self {
        use v1::placement_preference::Preference;
        let spread = wire.preferences.into_iter().filter_map(|preference| {
            preference
                .preference
                .map(|Preference::Spread(spread)| spread.spread_descriptor)
        });
        Self {
            spread_over: spread.collect(),
            constraints: wire.constraints,
            max_replicas: wire.max_replicas,
        }
    }
}

/// `Driver` of logs.
#[derive(Debug, Serialize)]
pub(crate) struct LogDriverView {
    name: String,
    options: Map,
}

impl LogDriverView {
    pub(crate) fn of(wire: &v1::Driver) -> Self {
        Self {
            name: wire.name.clone(),
            options: wire.options.clone(),
        }
    }

    /// As the table shows it: the name, then the options by name.
    pub(crate) fn text(&self) -> String {
        let options: Vec<String> = self
            .options
            .iter()
            .map(|(key, value)| format!(" {key}={value}"))
            .collect();
        format!("{}{}", self.name, options.concat())
    }
}
