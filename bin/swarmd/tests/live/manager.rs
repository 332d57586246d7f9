//! Our manager on a machine, and a client of its control socket.

use std::path::{Path, PathBuf};

use swarm_api::v1;
use swarm_rt::net::{self, Address};
use tonic::Status;
use tonic::transport::Channel;
use v1::control_client::ControlClient;

use crate::lab::{Lab, address};
use crate::machine::{Machine, Running};
use crate::program;
use crate::wait::until;

/// The program under test.
pub(crate) const SWARMD: &str = env!("CARGO_BIN_EXE_swarmd");
/// Where managers listen when nobody says otherwise: at this port of every address.
const PORT: u16 = 4242;

/// Dropping it, or its machine, ends it.
#[derive(Debug)]
pub(crate) struct Manager {
    daemon: Option<Running>,
    log: PathBuf,
    words: Vec<String>,
    socket: PathBuf,
    remote: String,
}

impl Manager {
    /// Starts a manager that takes no tasks, on the machine with this number.
    pub(crate) async fn start(lab: &Lab, machine: &Machine, number: u8) -> Self {
        let directory = lab.path(machine.name());
        let (socket, state) = (directory.join("control.sock"), directory.join("state"));
        let remote = format!("{}:{PORT}", address(number));
        let words = [
            SWARMD,
            "--hostname",
            machine.name(),
            "--availability",
            "drain",
            "--state-dir",
            state.to_str().unwrap(),
            "--listen-control-api",
            socket.to_str().unwrap(),
        ];
        let mut manager = Self {
            daemon: None,
            log: directory.join("swarmd.log"),
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            socket,
            remote,
        };
        manager.start_again(machine).await;
        manager
    }

    /// Starts it with the state that it has, and waits until it answers.
    pub(crate) async fn start_again(&mut self, machine: &Machine) {
        let words: Vec<&str> = self.words.iter().map(String::as_str).collect();
        let mut daemon = machine.spawn(&self.log, &words, &[]);
        until("the manager answers", async || {
            daemon.check()?;
            self.cluster().await.map(|_| ())
        })
        .await;
        self.daemon = Some(daemon);
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.daemon.take().unwrap().kill().await;
    }

    /// `host:port` for those who join.
    pub(crate) fn remote(&self) -> &str {
        &self.remote
    }

    pub(crate) fn channel(&self) -> Channel {
        net::dial(&Address::Unix(self.socket.clone())).unwrap()
    }

    pub(crate) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(self.channel()).max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
    }

    pub(crate) async fn cluster(&self) -> Result<v1::Cluster, String> {
        let request = v1::ListClustersRequest::default();
        let list = self.control().list_clusters(request).await;
        let list = list.map_err(|status| status.to_string())?.into_inner();
        list.clusters
            .into_iter()
            .next()
            .ok_or_else(|| "there is no cluster object".to_owned())
    }

    /// What a worker joins with.
    pub(crate) async fn worker_token(&self) -> String {
        until("there is a join token", async || {
            let root = self.cluster().await?.root_ca.unwrap_or_default();
            let tokens = root.join_tokens.unwrap_or_default();
            if tokens.worker.is_empty() {
                Err("it is empty".to_owned())
            } else {
                Ok(tokens.worker)
            }
        })
        .await
    }

    /// Sets how often nodes beat, so that a lost one is noticed soon.
    pub(crate) async fn beat_every(&self, seconds: i64) {
        until("the heartbeat period is set", async || {
            let cluster = self.cluster().await?;
            let mut spec = cluster.spec.unwrap();
            let period = Some(swarm_api::prost_types::Duration { seconds, nanos: 0 });
            spec.dispatcher.get_or_insert_default().heartbeat_period = period;
            let request = v1::UpdateClusterRequest {
                cluster_id: cluster.id,
                cluster_version: cluster.meta.and_then(|meta| meta.version),
                spec: Some(spec),
                ..Default::default()
            };
            let updated = self.control().update_cluster(request).await;
            updated.map(|_| ()).map_err(|status| status.to_string())
        })
        .await;
    }

    pub(crate) async fn nodes(&self) -> Result<Vec<v1::Node>, Status> {
        let request = v1::ListNodesRequest::default();
        let nodes = self.control().list_nodes(request).await?;
        Ok(nodes.into_inner().nodes)
    }

    /// The node with this host name in this state.
    pub(crate) async fn node_in(
        &self,
        hostname: &str,
        state: v1::node_status::State,
    ) -> Result<v1::Node, String> {
        let nodes = self.nodes().await.map_err(|status| status.to_string())?;
        let is_it = |node: &&v1::Node| {
            let named = node
                .description
                .as_ref()
                .is_some_and(|it| it.hostname == hostname);
            named && node.status.as_ref().map(|it| it.state) == Some(state as i32)
        };
        let node = nodes.iter().find(is_it);
        node.cloned()
            .ok_or_else(|| format!("{hostname} is not {state:?} among {:?}", states(&nodes)))
    }

    /// The same, waiting for it.
    pub(crate) async fn node(&self, hostname: &str, state: v1::node_status::State) -> v1::Node {
        let what = format!("{hostname} is {state:?}");
        until(&what, async || self.node_in(hostname, state).await).await
    }

    pub(crate) async fn set_availability(
        &self,
        hostname: &str,
        availability: v1::node_spec::Availability,
    ) {
        let node = self.node(hostname, v1::node_status::State::Ready).await;
        let mut spec = node.spec.unwrap();
        spec.availability = availability as i32;
        let request = v1::UpdateNodeRequest {
            node_id: node.id,
            node_version: node.meta.and_then(|meta| meta.version),
            spec: Some(spec),
        };
        self.control().update_node(request).await.unwrap();
    }

    pub(crate) async fn remove_node(&self, id: &str, force: bool) {
        let node_id = id.to_owned();
        let request = v1::RemoveNodeRequest { node_id, force };
        self.control().remove_node(request).await.unwrap();
    }

    /// Runs the client, which is built beside the daemon; what it prints.
    pub(crate) async fn ctl(&self, words: &[&str]) -> Result<String, String> {
        let client = Path::new(SWARMD).with_file_name("swarmctl");
        if !client.exists() {
            return Err(format!(
                "{} is missing: build swarmctl too",
                client.display()
            ));
        }
        let mut command = tokio::process::Command::new(client);
        program::run(command.args(words).env("SWARM_SOCKET", &self.socket)).await
    }

    /// The id of the service with this name.
    pub(crate) async fn id_of(&self, service: &str) -> String {
        let request = v1::ListServicesRequest::default();
        let listed = self.control().list_services(request).await.unwrap();
        let services = listed.into_inner().services;
        let named = |it: &&v1::Service| {
            let annotations = it.spec.as_ref().and_then(|spec| spec.annotations.as_ref());
            annotations.is_some_and(|annotations| annotations.name == service)
        };
        services.iter().find(named).unwrap().id.clone()
    }

    /// Creates a service; its id.
    pub(crate) async fn create(&self, spec: v1::ServiceSpec) -> String {
        let request = v1::CreateServiceRequest { spec: Some(spec) };
        let created = self.control().create_service(request).await.unwrap();
        created.into_inner().service.unwrap().id
    }

    pub(crate) async fn service(&self, id: &str) -> v1::Service {
        let request = v1::GetServiceRequest {
            service_id: id.to_owned(),
            ..Default::default()
        };
        let found = self.control().get_service(request).await.unwrap();
        found.into_inner().service.unwrap()
    }

    pub(crate) async fn scale(&self, id: &str, replicas: u64) {
        let service = self.service(id).await;
        let mut spec = service.spec.unwrap();
        let replicated = v1::ReplicatedService { replicas };
        spec.mode = Some(v1::service_spec::Mode::Replicated(replicated));
        let request = v1::UpdateServiceRequest {
            service_id: id.to_owned(),
            service_version: service.meta.and_then(|meta| meta.version),
            spec: Some(spec),
            ..Default::default()
        };
        self.control().update_service(request).await.unwrap();
    }

    pub(crate) async fn remove(&self, id: &str) {
        let service_id = id.to_owned();
        let request = v1::RemoveServiceRequest { service_id };
        self.control().remove_service(request).await.unwrap();
    }

    /// All tasks of a service.
    pub(crate) async fn tasks(&self, service: &str) -> Result<Vec<v1::Task>, String> {
        let filters = v1::list_tasks_request::Filters {
            service_ids: vec![service.to_owned()],
            ..Default::default()
        };
        let request = v1::ListTasksRequest {
            filters: Some(filters),
        };
        let tasks = self.control().list_tasks(request).await;
        let tasks = tasks.map_err(|status| status.to_string())?;
        Ok(tasks.into_inner().tasks)
    }

    /// Waits until exactly so many tasks of a service are wanted and all of them run.
    pub(crate) async fn running(&self, service: &str, count: usize) -> Vec<v1::Task> {
        until(&format!("{count} tasks run"), async || {
            let tasks = self.tasks(service).await?;
            let wanted = tasks
                .iter()
                .filter(|task| task.desired_state == v1::TaskState::Running as i32);
            let running: Vec<v1::Task> = wanted
                .clone()
                .filter(|task| state(task) == v1::TaskState::Running)
                .cloned()
                .collect();
            if wanted.count() == count && running.len() == count {
                Ok(running)
            } else {
                Err(tasks.iter().map(line).collect::<Vec<_>>().join("\n"))
            }
        })
        .await
    }

    pub(crate) fn log(&self) -> String {
        self.daemon.as_ref().map_or_else(String::new, Running::log)
    }
}

pub(crate) fn state(task: &v1::Task) -> v1::TaskState {
    let status = task.status.clone().unwrap_or_default();
    v1::TaskState::try_from(status.state).unwrap()
}

/// A task in one line, for failures.
fn line(task: &v1::Task) -> String {
    let status = task.status.clone().unwrap_or_default();
    format!(
        "{} desired {} is {:?}: {} {}",
        task.id,
        task.desired_state,
        state(task),
        status.message,
        status.err
    )
}

fn states(nodes: &[v1::Node]) -> Vec<(String, i32)> {
    let state = |node: &v1::Node| node.status.as_ref().map_or(0, |status| status.state);
    nodes
        .iter()
        .map(|node| {
            let name = node.description.clone().unwrap_or_default().hostname;
            (name, state(node))
        })
        .collect()
}
