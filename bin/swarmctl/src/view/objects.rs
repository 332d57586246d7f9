//! The objects themselves, and the answer of `why`.

use serde::Serialize;
use swarm_api::{ext, v1};
use swarm_types::{conditions, resources};

use super::spec::{AmountsView, LogDriverView, PortView, ServiceSpecView, TaskSpecView};
use super::{AnnotationsView, Map, MetaView, enum_name, nanos, task_state, time};
use crate::lookup::replica_name;

/// A node.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    id: String,
    meta: MetaView,
    spec: NodeSpecView,
    description: Option<DescriptionView>,
    status: NodeStatusView,
    manager_status: Option<ManagerStatusView>,
    role: String,
}

#[derive(Debug, Serialize)]
struct NodeSpecView {
    annotations: AnnotationsView,
    desired_role: String,
    membership: String,
    availability: String,
}

#[derive(Debug, Serialize)]
struct DescriptionView {
    hostname: String,
    platform: PlatformView,
    resources: Option<AmountsView>,
    engine_version: String,
    engine_labels: Map,
    plugins: Vec<PluginView>,
    conditions: Vec<ConditionView>,
}

#[derive(Debug, Serialize)]
struct PlatformView {
    architecture: String,
    os: String,
}

#[derive(Debug, Serialize)]
struct PluginView {
    r#type: String,
    name: String,
}

/// What is wrong with a node, or cannot be had on it.
#[derive(Debug, Serialize)]
struct ConditionView {
    kind: String,
    text: String,
}

#[derive(Debug, Serialize)]
struct NodeStatusView {
    state: String,
    message: String,
    addr: String,
}

#[derive(Debug, Serialize)]
struct ManagerStatusView {
    raft_id: String,
    addr: String,
    leader: bool,
    reachability: String,
}

impl From<&v1::Node> for NodeView {
    fn from(wire: &v1::Node) -> Self {
        use v1::raft_member_status::Reachability;
        let spec = wire.spec.clone().unwrap_or_default();
        let status = wire.status.clone().unwrap_or_default();
        let role = |number| enum_name(number, |role: v1::NodeRole| role.as_str_name());
        Self {
            id: wire.id.clone(),
            meta: MetaView::of(wire.meta.as_ref()),
            spec: NodeSpecView {
                annotations: AnnotationsView::of(spec.annotations.as_ref()),
                desired_role: role(spec.desired_role),
                membership: enum_name(spec.membership, |it: v1::node_spec::Membership| {
                    it.as_str_name()
                }),
                availability: enum_name(spec.availability, |it: v1::node_spec::Availability| {
                    it.as_str_name()
                }),
            },
            description: wire.description.as_ref().map(DescriptionView::of),
            status: NodeStatusView {
                state: enum_name(status.state, |state: v1::node_status::State| {
                    state.as_str_name()
                }),
                message: status.message,
                addr: status.addr,
            },
            manager_status: wire.manager_status.as_ref().map(|manager| {
                ManagerStatusView {
                    // A JSON number would lose digits in many readers.
                    raft_id: format!("{:x}", manager.raft_id),
                    addr: manager.addr.clone(),
                    leader: manager.leader,
                    reachability: enum_name(manager.reachability, |it: Reachability| {
                        it.as_str_name()
                    }),
                }
            }),
            role: role(wire.role),
        }
    }
}

impl DescriptionView {
    fn of(wire: &v1::NodeDescription) -> Self {
        let platform = wire.platform.clone().unwrap_or_default();
        let engine = wire.engine.clone().unwrap_or_default();
        let plugins = engine.plugins.into_iter();
        let plugins = plugins.filter(|plugin| !conditions::is_condition(plugin));
        let plugins = plugins.map(|plugin| PluginView {
            r#type: plugin.r#type,
            name: plugin.name,
        });
        Self {
            hostname: wire.hostname.clone(),
            platform: PlatformView {
                architecture: platform.architecture,
                os: platform.os,
            },
            resources: wire.resources.as_ref().map(AmountsView::of),
            plugins: plugins.collect(),
            conditions: conditions::of(wire)
                .map(|condition| ConditionView {
                    kind: condition.name.to_owned(),
                    text: condition.text.to_owned(),
                })
                .collect(),
            engine_version: engine.engine_version,
            engine_labels: engine.labels,
        }
    }
}

/// A service, with how many of its tasks run.
#[derive(Debug, Serialize)]
pub(crate) struct ServiceView {
    id: String,
    meta: MetaView,
    spec: ServiceSpecView,
    spec_version: Option<u64>,
    ports: Vec<PortView>,
    update_status: Option<UpdateStatusView>,
    status: StatusView,
}

#[derive(Debug, Serialize)]
struct StatusView {
    desired_tasks: u64,
    running_tasks: u64,
}

#[derive(Debug, Serialize)]
struct UpdateStatusView {
    state: String,
    started_at: Option<String>,
    completed_at: Option<String>,
    message: String,
}

impl ServiceView {
    pub(crate) fn new(wire: &v1::Service, running: u64, desired: u64) -> Self {
        use v1::update_status::UpdateState;
        let spec = wire.spec.clone().unwrap_or_default();
        let endpoint = wire.endpoint.as_ref();
        Self {
            id: wire.id.clone(),
            meta: MetaView::of(wire.meta.as_ref()),
            spec: ServiceSpecView::of(&spec),
            spec_version: wire.spec_version.as_ref().map(|version| version.index),
            ports: endpoint.map_or_else(Vec::new, |endpoint| PortView::all(&endpoint.ports)),
            update_status: wire.update_status.as_ref().map(|status| UpdateStatusView {
                state: enum_name(status.state, |state: UpdateState| state.as_str_name()),
                started_at: time(status.started_at.as_ref()),
                completed_at: time(status.completed_at.as_ref()),
                message: status.message.clone(),
            }),
            status: StatusView {
                desired_tasks: desired,
                running_tasks: running,
            },
        }
    }
}

/// A task.
#[derive(Debug, Serialize)]
pub(crate) struct TaskView {
    id: String,
    /// `service.slot`; not a field of the message, but what people call it.
    name: String,
    meta: MetaView,
    spec: TaskSpecView,
    spec_version: Option<u64>,
    service_id: String,
    slot: u64,
    node_id: String,
    status: TaskStatusView,
    desired_state: String,
    assigned_generic_resources: String,
}

#[derive(Debug, Serialize)]
struct TaskStatusView {
    timestamp: Option<String>,
    state: String,
    message: String,
    err: String,
    container: Option<ContainerStatusView>,
    ports: Vec<PortView>,
}

#[derive(Debug, Serialize)]
struct ContainerStatusView {
    container_id: String,
    pid: i32,
    exit_code: i32,
}

impl From<&v1::Task> for TaskView {
    fn from(wire: &v1::Task) -> Self {
        let status = wire.status.clone().unwrap_or_default();
        let ports = status.port_status.as_ref();
        Self {
            id: wire.id.clone(),
            name: replica_name(wire),
            meta: MetaView::of(wire.meta.as_ref()),
            spec: TaskSpecView::of(wire.spec.as_ref()),
            spec_version: wire.spec_version.as_ref().map(|version| version.index),
            service_id: wire.service_id.clone(),
            slot: wire.slot,
            node_id: wire.node_id.clone(),
            desired_state: task_state(wire.desired_state),
            assigned_generic_resources: resources::to_text(&wire.assigned_generic_resources),
            status: TaskStatusView {
                timestamp: time(status.timestamp.as_ref()),
                state: task_state(status.state),
                ports: ports.map_or_else(Vec::new, |ports| PortView::all(&ports.ports)),
                container: status.runtime_status.map(|runtime| {
                    let v1::task_status::RuntimeStatus::Container(container) = runtime;
                    ContainerStatusView {
                        container_id: container.container_id,
                        pid: container.pid,
                        exit_code: container.exit_code,
                    }
                }),
                message: status.message,
                err: status.err,
            },
        }
    }
}

/// A cluster. Of its root CA only the join tokens are shown, as in the table.
#[derive(Debug, Serialize)]
pub(crate) struct ClusterView {
    id: String,
    meta: MetaView,
    spec: ClusterSpecView,
    join_tokens: Option<JoinTokensView>,
}

#[derive(Debug, Serialize)]
struct ClusterSpecView {
    annotations: AnnotationsView,
    task_history_retention_limit: i64,
    heartbeat_period_nanos: Option<i64>,
    node_cert_expiry_nanos: Option<i64>,
    external_cas: Vec<ExternalCaView>,
    log_driver: Option<LogDriverView>,
    auto_lock_managers: bool,
}

#[derive(Debug, Serialize)]
struct ExternalCaView {
    protocol: String,
    url: String,
}

#[derive(Debug, Serialize)]
struct JoinTokensView {
    worker: String,
    manager: String,
}

impl ClusterView {
    /// With join tokens only where the table has them.
    pub(crate) fn new(wire: &v1::Cluster, with_tokens: bool) -> Self {
        use v1::external_ca::CaProtocol;
        let spec = wire.spec.clone().unwrap_or_default();
        let ca = spec.ca_config.unwrap_or_default();
        let root = wire.root_ca.as_ref().filter(|_| with_tokens);
        let tokens = root.and_then(|root| root.join_tokens.as_ref());
        let external = ca.external_cas.iter().map(|external| ExternalCaView {
            protocol: enum_name(external.protocol, |it: CaProtocol| it.as_str_name()),
            url: external.url.clone(),
        });
        let dispatcher = spec.dispatcher.unwrap_or_default();
        Self {
            id: wire.id.clone(),
            meta: MetaView::of(wire.meta.as_ref()),
            join_tokens: tokens.map(|tokens| JoinTokensView {
                worker: tokens.worker.clone(),
                manager: tokens.manager.clone(),
            }),
            spec: ClusterSpecView {
                annotations: AnnotationsView::of(spec.annotations.as_ref()),
                task_history_retention_limit: spec
                    .orchestration
                    .unwrap_or_default()
                    .task_history_retention_limit,
                heartbeat_period_nanos: nanos(dispatcher.heartbeat_period.as_ref()),
                node_cert_expiry_nanos: nanos(ca.node_cert_expiry.as_ref()),
                external_cas: external.collect(),
                log_driver: spec
                    .task_defaults
                    .and_then(|defaults| defaults.log_driver)
                    .map(|driver| LogDriverView::of(&driver)),
                auto_lock_managers: spec
                    .encryption_config
                    .is_some_and(|config| config.auto_lock_managers),
            },
        }
    }
}

/// The answer of `why`.
#[derive(Debug, Serialize)]
pub(crate) struct WhyView {
    object_kind: String,
    object_id: String,
    object_name: String,
    headline: String,
    reasons: Vec<ReasonView>,
    waiting_since: Option<String>,
    next_retry: Option<String>,
    next_steps: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ReasonView {
    code: String,
    text: String,
    since: Option<String>,
    filter_counts: Vec<FilterCountView>,
    nearest: Option<NearestView>,
    object_id: String,
}

#[derive(Debug, Serialize)]
struct FilterCountView {
    filter: String,
    nodes: u64,
    text: String,
}

#[derive(Debug, Serialize)]
struct NearestView {
    node_id: String,
    hostname: String,
    missing: Vec<String>,
}

impl From<ext::WhyResponse> for WhyView {
    fn from(wire: ext::WhyResponse) -> Self {
        Self {
            waiting_since: time(wire.waiting_since.as_ref()),
            next_retry: time(wire.next_retry.as_ref()),
            object_kind: wire.object_kind,
            object_id: wire.object_id,
            object_name: wire.object_name,
            headline: wire.headline,
            reasons: wire.reasons.into_iter().map(ReasonView::from).collect(),
            next_steps: wire.next_steps,
        }
    }
}

impl From<ext::Reason> for ReasonView {
    fn from(wire: ext::Reason) -> Self {
        let counts = wire.filter_counts.into_iter().map(|count| FilterCountView {
            filter: count.filter,
            nodes: count.nodes,
            text: count.text,
        });
        Self {
            since: time(wire.since.as_ref()),
            filter_counts: counts.collect(),
            nearest: wire.nearest.map(|nearest| NearestView {
                node_id: nearest.node_id,
                hostname: nearest.hostname,
                missing: nearest.missing,
            }),
            code: wire.code,
            text: wire.text,
            object_id: wire.object_id,
        }
    }
}
