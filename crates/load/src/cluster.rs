//! The cluster as a client of the control socket sees it, and the service of the method.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use swarm_api::v1;

use crate::manager::deadline;
use crate::transport::{self, Connection};

/// How long a manager may take to answer for the first time.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two attempts to reach a manager that starts.
const START_RETRY: Duration = Duration::from_millis(50);
/// How long any call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// A client.
pub(crate) struct Cluster {
    connection: Connection,
}

/// Answers `Control.$method`.
macro_rules! control {
    ($self:ident, $method:literal, $request:expr) => {{
        let request = $request;
        let path = concat!("/docker.swarmkit.v1.Control/", $method);
        let call = $self.connection.channel.call(path, &request, CALL_TIMEOUT);
        call.await.context($method)
    }};
}

impl Cluster {
    /// Connects as soon as the manager answers.
    ///
    /// # Errors
    /// When it does not within [`START_TIMEOUT`], with the last reason.
    pub(crate) async fn connect(socket: &Path) -> anyhow::Result<Self> {
        let deadline = deadline(START_TIMEOUT);
        loop {
            let reason = match transport::control(socket).await {
                Ok(connection) => {
                    let cluster = Self { connection };
                    match cluster.cluster().await {
                        Ok(_) => return Ok(cluster),
                        Err(error) => error,
                    }
                }
                Err(status) => status.into(),
            };
            if std::time::Instant::now() > deadline {
                return Err(reason.context("the manager does not answer"));
            }
            tokio::time::sleep(START_RETRY).await;
        }
    }

    /// The cluster object.
    ///
    /// # Errors
    /// As the manager gives them; the same for all below.
    pub(crate) async fn cluster(&self) -> anyhow::Result<v1::Cluster> {
        let answer: v1::ListClustersResponse =
            control!(self, "ListClusters", v1::ListClustersRequest::default())?;
        let first = answer.clusters.into_iter().next();
        first.context("the manager has no cluster yet")
    }

    /// The token with which workers join; empty where there are none.
    pub(crate) async fn worker_token(&self) -> anyhow::Result<String> {
        let tokens = self
            .cluster()
            .await?
            .root_ca
            .and_then(|root| root.join_tokens);
        Ok(tokens.map(|tokens| tokens.worker).unwrap_or_default())
    }

    /// All nodes.
    pub(crate) async fn nodes(&self) -> anyhow::Result<Vec<v1::Node>> {
        let answer: v1::ListNodesResponse =
            control!(self, "ListNodes", v1::ListNodesRequest::default())?;
        Ok(answer.nodes)
    }

    /// Creates the service of the method with so many replicas.
    pub(crate) async fn create_service(&self, name: &str, replicas: u64) -> anyhow::Result<String> {
        let request = v1::CreateServiceRequest {
            spec: Some(service(name, replicas)),
        };
        let answer: v1::CreateServiceResponse = control!(self, "CreateService", request)?;
        Ok(answer.service.context("CreateService: no service")?.id)
    }

    /// Removes a service.
    pub(crate) async fn remove_service(&self, service: &str) -> anyhow::Result<()> {
        let request = v1::RemoveServiceRequest {
            service_id: service.to_owned(),
        };
        let _: v1::RemoveServiceResponse = control!(self, "RemoveService", request)?;
        Ok(())
    }

    /// How many tasks of a service run.
    pub(crate) async fn running(&self, service: &str) -> anyhow::Result<u64> {
        let request = v1::ListServiceStatusesRequest {
            services: vec![service.to_owned()],
        };
        let answer: v1::ListServiceStatusesResponse =
            control!(self, "ListServiceStatuses", request)?;
        let status = answer
            .statuses
            .first()
            .context("ListServiceStatuses: no status")?;
        Ok(status.running_tasks)
    }

    /// All tasks of a service.
    pub(crate) async fn tasks(&self, service: &str) -> anyhow::Result<Vec<v1::Task>> {
        let request = v1::ListTasksRequest {
            filters: Some(v1::list_tasks_request::Filters {
                service_ids: vec![service.to_owned()],
                ..Default::default()
            }),
        };
        let answer: v1::ListTasksResponse = control!(self, "ListTasks", request)?;
        Ok(answer.tasks)
    }

    /// Drains a node.
    pub(crate) async fn drain(&self, node: &v1::Node) -> anyhow::Result<()> {
        let mut spec = node.spec.clone().unwrap_or_default();
        spec.availability = v1::node_spec::Availability::Drain as i32;
        let request = v1::UpdateNodeRequest {
            node_id: node.id.clone(),
            node_version: node.meta.and_then(|meta| meta.version),
            spec: Some(spec),
        };
        let _: v1::UpdateNodeResponse = control!(self, "UpdateNode", request)?;
        Ok(())
    }

    /// Changes the heartbeat period.
    pub(crate) async fn set_period(&self, period: Duration) -> anyhow::Result<()> {
        let cluster = self.cluster().await?;
        let mut spec = cluster.spec.unwrap_or_default();
        let period = swarm_types::time::duration_to_wire(period);
        spec.dispatcher = Some(v1::DispatcherConfig {
            heartbeat_period: Some(period),
        });
        let request = v1::UpdateClusterRequest {
            cluster_id: cluster.id,
            cluster_version: cluster.meta.and_then(|meta| meta.version),
            spec: Some(spec),
            ..Default::default()
        };
        let _: v1::UpdateClusterResponse = control!(self, "UpdateCluster", request)?;
        Ok(())
    }
}

/// The service of the method: an image by digest, a command of two words, three variables, a label
/// on each level, restarted always and at once, nothing else.
fn service(name: &str, replicas: u64) -> v1::ServiceSpec {
    let label = |key: &str| [(key.to_owned(), "load".to_owned())].into();
    let container = v1::ContainerSpec {
        image: format!("registry.example/load@sha256:{}", "5eed".repeat(16)),
        labels: label("example.container"),
        command: vec!["sleep".to_owned(), "infinity".to_owned()],
        env: ["MODE=load", "REGION=one", "VERBOSE=no"]
            .map(str::to_owned)
            .into(),
        ..Default::default()
    };
    v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: name.to_owned(),
            labels: label("example.service"),
            ..Default::default()
        }),
        task: Some(v1::TaskSpec {
            restart: Some(v1::RestartPolicy {
                condition: v1::restart_policy::RestartCondition::Any as i32,
                delay: Some(Default::default()),
                ..Default::default()
            }),
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas,
        })),
        ..Default::default()
    }
}

/// Whether the manager counts the node as READY.
pub(crate) fn is_ready(node: &v1::Node) -> bool {
    let ready = v1::node_status::State::Ready as i32;
    let status = node.status.as_ref();
    status.is_some_and(|status| status.state == ready)
}

/// Whether the task was reported RUNNING.
pub(crate) fn is_running(task: &v1::Task) -> bool {
    let running = v1::TaskState::Running as i32;
    let status = task.status.as_ref();
    status.is_some_and(|status| status.state == running)
}

/// Whether the node is to run nothing.
pub(crate) fn is_drained(node: &v1::Node) -> bool {
    let drain = v1::node_spec::Availability::Drain as i32;
    node.spec
        .as_ref()
        .is_some_and(|spec| spec.availability == drain)
}
