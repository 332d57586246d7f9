//! A cluster of processes in a temporary directory, and how to wait for it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use swarm_api::v1;
use swarm_rt::net::{self, Address};
use tonic::Status;
use tonic::transport::Channel;
use v1::control_client::ControlClient;

use crate::daemon::Daemon;
use crate::processes;

/// Longest wait for anything; only reached when a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// Ports of tests: below those that the system hands out by itself, so that nobody takes the port
/// of a daemon that is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;
/// How far apart the ports of two test processes begin.
const PORT_STRIDE: u32 = 40;

/// Looks again and again until there is an answer; fails with the last reason why not.
pub(crate) async fn until<T>(what: &str, mut look: impl AsyncFnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        let reason = match tokio::time::timeout(DEADLINE, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(reason)) => reason,
            Err(_) => "the look itself takes too long".to_owned(),
        };
        assert!(start.elapsed() < DEADLINE, "not in time: {what}; {reason}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// The first of so many free ports in a row.
pub(crate) fn free_ports(count: u16) -> u16 {
    static TAKEN: AtomicU16 = AtomicU16::new(0);
    let width = u32::from(PORTS.end - PORTS.start);
    loop {
        let taken = u32::from(TAKEN.fetch_add(count, Ordering::Relaxed));
        let offset = (std::process::id() * PORT_STRIDE + taken) % (width - u32::from(count));
        let first = PORTS.start + u16::try_from(offset).unwrap();
        if (first..first + count).all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok()) {
            return first;
        }
    }
}

/// A task that runs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Running {
    pub(crate) slot: u64,
    pub(crate) task: String,
    pub(crate) node: String,
    pub(crate) pid: i32,
}

/// Manager and workers. Dropping it kills everything that it started.
#[derive(Debug)]
pub(crate) struct Cluster {
    pub(crate) workers: Vec<Daemon>,
    pub(crate) manager: Daemon,
    directory: Arc<Directory>,
    address: String,
    client: ControlClient<Channel>,
    is_finished: bool,
}

/// A temporary directory; what has to do with it ends with it.
#[derive(Debug)]
pub(crate) struct Directory(tempfile::TempDir);

impl Directory {
    pub(crate) fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("swarmd-it-")
                .tempdir()
                .unwrap(),
        )
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// The arguments of a manager that only manages.
    pub(crate) fn manager(&self, address: &str) -> Vec<String> {
        let state = self.path().join("manager");
        let socket = self.path().join("control.sock");
        let mut words = words(&["--hostname", "manager", "--availability", "drain", "-d"]);
        words.push(text(&state));
        words.push("--listen-control-api".to_owned());
        words.push(text(&socket));
        words.extend(["--listen-remote-api".to_owned(), address.to_owned()]);
        words.extend([
            "--plugins-dir".to_owned(),
            text(&self.path().join("plugins")),
        ]);
        words
    }

    /// The arguments of a worker that joins.
    pub(crate) fn worker(&self, name: &str, address: &str, token: &str) -> Vec<String> {
        let mut words = self.known_worker(name);
        words.extend(["--join-addr".to_owned(), address.to_owned()]);
        words.extend(["--join-token".to_owned(), token.to_owned()]);
        words
    }

    /// The arguments of a worker that has joined before.
    pub(crate) fn known_worker(&self, name: &str) -> Vec<String> {
        let mut words = words(&["--hostname", name, "-d"]);
        words.push(text(&self.path().join(name)));
        words
    }

    pub(crate) fn client(&self) -> ControlClient<Channel> {
        let socket = Address::Unix(self.path().join("control.sock"));
        ControlClient::new(net::dial(&socket).unwrap())
            .max_encoding_message_size(usize::MAX)
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        processes::kill_all(self.path());
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_str()
        .expect("temporary directories are text")
        .to_owned()
}

impl Cluster {
    /// Starts a manager and workers, and waits until all of them have joined.
    pub(crate) async fn start(workers: usize) -> Self {
        Self::start_in(Directory::new(), workers).await
    }

    /// The same in a directory that was prepared.
    pub(crate) async fn start_in(directory: Directory, workers: usize) -> Self {
        let mut cluster = Self::start_manager(directory).await;
        cluster.add_workers(workers).await;
        cluster
    }

    /// Starts workers and waits until they have joined.
    pub(crate) async fn add_workers(&mut self, count: usize) {
        if count == 0 {
            return;
        }
        let token = self.tokens().await.worker;
        for number in 1..=count {
            self.add_worker(&format!("worker-{number}"), &token);
        }
        for worker in &mut self.workers {
            worker.ready().await;
        }
    }

    async fn start_manager(directory: Directory) -> Self {
        Self::start_manager_with(directory, &[]).await
    }

    /// A manager whose first start has more arguments.
    pub(crate) async fn start_manager_with(directory: Directory, more: &[&str]) -> Self {
        let address = format!("127.0.0.1:{}", free_ports(1));
        let mut arguments = directory.manager(&address);
        arguments.extend(words(more));
        let mut manager = start("manager", &directory, &arguments);
        manager.ready().await;
        Self {
            workers: Vec::new(),
            manager,
            client: directory.client(),
            directory: Arc::new(directory),
            address,
            is_finished: false,
        }
    }

    /// Starts a worker with this name, which joins with this token.
    pub(crate) fn add_worker(&mut self, name: &str, token: &str) {
        let arguments = self.directory.worker(name, &self.address, token);
        self.workers.push(start(name, &self.directory, &arguments));
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    pub(crate) fn state(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    /// Where agents reach the manager.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("control.sock")
    }

    /// A client of the control socket; it connects again whenever the connection broke.
    pub(crate) fn client(&self) -> ControlClient<Channel> {
        self.client.clone()
    }

    /// Creates a service; its id.
    pub(crate) async fn create(&self, spec: v1::ServiceSpec) -> String {
        self.try_create(spec).await.unwrap()
    }

    pub(crate) async fn try_create(&self, spec: v1::ServiceSpec) -> Result<String, Status> {
        let request = v1::CreateServiceRequest { spec: Some(spec) };
        let created = self.client().create_service(request).await?;
        Ok(created
            .into_inner()
            .service
            .expect("it is in the answer")
            .id)
    }

    pub(crate) async fn service(&self, id: &str) -> v1::Service {
        let request = v1::GetServiceRequest {
            service_id: id.to_owned(),
            ..Default::default()
        };
        let found = self.client().get_service(request).await.unwrap();
        found.into_inner().service.expect("it is in the answer")
    }

    /// Changes the number of replicas.
    pub(crate) async fn scale(&self, id: &str, replicas: u64) {
        let service = self.service(id).await;
        let mut spec = service.spec.expect("services have specs");
        let replicated = v1::ReplicatedService { replicas };
        spec.mode = Some(v1::service_spec::Mode::Replicated(replicated));
        let request = v1::UpdateServiceRequest {
            service_id: id.to_owned(),
            service_version: service.meta.and_then(|meta| meta.version),
            spec: Some(spec),
            ..Default::default()
        };
        self.client().update_service(request).await.unwrap();
    }

    pub(crate) async fn remove(&self, id: &str) {
        let service_id = id.to_owned();
        let request = v1::RemoveServiceRequest { service_id };
        self.client().remove_service(request).await.unwrap();
    }

    pub(crate) async fn tasks(&self) -> Result<Vec<v1::Task>, Status> {
        let mut client = self.client();
        let listed = client.list_tasks(v1::ListTasksRequest::default());
        Ok(listed.await?.into_inner().tasks)
    }

    pub(crate) async fn services(&self) -> Result<BTreeSet<String>, Status> {
        let mut client = self.client();
        let listed = client.list_services(v1::ListServicesRequest::default());
        let services = listed.await?.into_inner().services;
        Ok(services.into_iter().map(|service| service.id).collect())
    }

    /// The nodes by host name.
    pub(crate) async fn nodes(&self) -> Result<BTreeMap<String, v1::Node>, Status> {
        let mut client = self.client();
        let listed = client.list_nodes(v1::ListNodesRequest::default());
        let named = |node: v1::Node| {
            let name = node
                .description
                .as_ref()
                .map(|description| description.hostname.clone());
            (name.unwrap_or_default(), node)
        };
        Ok(listed
            .await?
            .into_inner()
            .nodes
            .into_iter()
            .map(named)
            .collect())
    }

    /// Changes the spec of a node.
    pub(crate) async fn set_availability(
        &self,
        name: &str,
        availability: v1::node_spec::Availability,
    ) {
        let node = self
            .nodes()
            .await
            .unwrap()
            .remove(name)
            .expect("the node exists");
        let mut spec = node.spec.expect("nodes have specs");
        spec.availability = availability as i32;
        let request = v1::UpdateNodeRequest {
            node_id: node.id,
            node_version: node.meta.and_then(|meta| meta.version),
            spec: Some(spec),
        };
        self.client().update_node(request).await.unwrap();
    }

    /// The cluster object.
    pub(crate) async fn object(&self) -> v1::Cluster {
        until("the cluster is listed", async || {
            let mut client = self.client();
            let listed = client.list_clusters(v1::ListClustersRequest::default());
            let listed = listed.await.map_err(|status| status.to_string())?;
            let first = listed.into_inner().clusters.into_iter().next();
            first.ok_or_else(|| "there is no cluster".to_owned())
        })
        .await
    }

    /// The join tokens.
    pub(crate) async fn tokens(&self) -> v1::JoinTokens {
        let root = self.object().await.root_ca.expect("clusters have roots");
        root.join_tokens.expect("clusters have join tokens")
    }

    /// Changes the cluster object.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut v1::ClusterSpec)) {
        self.try_change(change).await.unwrap();
    }

    pub(crate) async fn try_change(
        &self,
        change: impl FnOnce(&mut v1::ClusterSpec),
    ) -> Result<(), Status> {
        let cluster = self.object().await;
        let mut spec = cluster.spec.expect("clusters have specs");
        change(&mut spec);
        let request = v1::UpdateClusterRequest {
            cluster_id: cluster.id,
            cluster_version: cluster.meta.and_then(|meta| meta.version),
            spec: Some(spec),
            rotation: None,
        };
        self.client().update_cluster(request).await.map(drop)
    }

    /// Makes nodes beat, and be missed, faster than by default.
    pub(crate) async fn beat_fast(&self) {
        let period = swarm_types::time::duration_to_wire(Duration::from_secs(1));
        self.change(|spec| spec.dispatcher.get_or_insert_default().heartbeat_period = Some(period))
            .await;
    }

    /// Waits until exactly so many tasks of a service run, each with one live process and in a slot
    /// of its own, and nothing else of the service does. Fails at once when two processes share a
    /// slot.
    pub(crate) async fn converged(&self, service: &str, replicas: usize) -> BTreeSet<Running> {
        let what = format!("{replicas} replicas of {service} run");
        until(&what, async || self.look(service, replicas).await).await
    }

    async fn look(&self, service: &str, replicas: usize) -> Result<BTreeSet<Running>, String> {
        self.assert_one_per_slot();
        let tasks = self.tasks().await.map_err(|status| status.to_string())?;
        let of_service = || tasks.iter().filter(|task| name_of(task) == service);
        let running: BTreeSet<Running> = of_service().filter_map(running).collect();
        let slots: BTreeSet<u64> = running.iter().map(|task| task.slot).collect();
        let pids: BTreeSet<i32> = running.iter().map(|task| task.pid).collect();
        let live = processes::programs(self.path(), service);
        if running.len() == replicas && slots.len() == replicas && pids == live {
            return Ok(running);
        }
        let states: Vec<String> = of_service().map(describe).collect();
        Err(format!(
            "live processes {live:?}, tasks:\n{}",
            states.join("\n")
        ))
    }

    /// Fails when two tasks of one slot have a process at the same time.
    pub(crate) fn assert_one_per_slot(&self) {
        for (slot, tasks) in processes::slots(&processes::of(self.path())) {
            assert!(
                tasks.len() <= 1,
                "{slot:?} has several processes: {tasks:?}"
            );
        }
    }

    /// Kills every process of the cluster, tasks and shims included, as a power cut does.
    pub(crate) fn kill_machine(&mut self) {
        self.manager.kill();
        for worker in &mut self.workers {
            worker.kill();
        }
        processes::kill_all(self.path());
    }

    /// Removes all services, stops everything and checks that nothing runs any more. Returns the
    /// files, to look at.
    pub(crate) async fn finish(mut self) -> Arc<Directory> {
        for id in self.services().await.unwrap() {
            self.remove(&id).await;
        }
        until("all tasks are gone", async || {
            let tasks = self.tasks().await.map_err(|status| status.to_string())?;
            match tasks.is_empty() {
                true => Ok(()),
                false => Err(tasks.iter().map(describe).collect::<Vec<_>>().join("\n")),
            }
        })
        .await;
        for daemon in self.workers.iter_mut().chain([&mut self.manager]) {
            let status = daemon.stop().await;
            assert!(status.success(), "{status}: {}", daemon.log());
        }
        let left = processes::of(self.path());
        assert!(left.is_empty(), "left behind: {left:#?}");
        self.is_finished = true;
        Arc::clone(&self.directory)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let is_failing = std::thread::panicking();
        assert!(
            self.is_finished || is_failing,
            "call `finish` at the end of the test"
        );
    }
}

pub(crate) fn start(name: &str, directory: &Directory, arguments: &[String]) -> Daemon {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    Daemon::start(name, directory.path(), &words)
}

/// The name of a task's service.
pub(crate) fn name_of(task: &v1::Task) -> &str {
    task.service_annotations
        .as_ref()
        .map_or("", |annotations| &annotations.name)
}

fn running(task: &v1::Task) -> Option<Running> {
    let status = task.status.as_ref()?;
    let wanted = v1::TaskState::Running as i32;
    if status.state != wanted || task.desired_state != wanted {
        return None;
    }
    let Some(v1::task_status::RuntimeStatus::Container(container)) = &status.runtime_status else {
        return None;
    };
    Some(Running {
        slot: task.slot,
        task: task.id.clone(),
        node: task.node_id.clone(),
        pid: container.pid,
    })
}

/// A task in words, for failures.
pub(crate) fn describe(task: &v1::Task) -> String {
    let status = task.status.clone().unwrap_or_default();
    format!(
        "  {} slot {} node {}: {:?}, wanted {:?}; {} {}",
        task.id,
        task.slot,
        task.node_id,
        status.state(),
        task.desired_state(),
        status.message,
        status.err
    )
}
