//! An agent against two managers by script, over real connections.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarm_api::v1::dispatcher_server::{Dispatcher, DispatcherServer};
use swarm_ca::csr;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::root::new_root;
use swarm_executor::{BoxFuture, LogOptions, LogStream, Recovery};
use swarm_rt::metrics::Metrics;
use swarm_rt::tls::{self, NodeTls};
use swarm_rt::{OnError, Tasks, net};
use swarm_types::{TaskState, TaskStatus, Timestamp, convert, time};
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::update_task_status_request::TaskStatusUpdate;

use super::*;

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(86_400);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}

/// A cluster's root.
struct Authority {
    root_pem: String,
    signer: Signer,
}

impl Authority {
    fn new() -> Self {
        let (root_pem, key) = new_root(Clock::new().now());
        let signer = Signer::new(&root_pem, &key, "").unwrap();
        Self { root_pem, signer }
    }

    fn tls(&self, node: &str, role: v1::NodeRole) -> NodeTls {
        let key_pem = csr::new_key();
        let request = csr::request(&key_pem).unwrap();
        let subject = Subject {
            node: node.parse().unwrap(),
            cluster: "c".parse().unwrap(),
            role,
        };
        let now = Clock::new().now();
        let chain = self
            .signer
            .sign(request.as_bytes(), &subject, DAY, now, [1; 20]);
        NodeTls {
            chain_pem: chain.unwrap(),
            key_pem,
            root_pem: self.root_pem.clone(),
        }
    }
}

/// What a manager hears and says.
type Said = Result<v1::SessionMessage, Status>;

/// A session that an agent opened.
struct Opened {
    request: v1::SessionRequest,
    said: mpsc::Sender<Said>,
}

type Assignments = mpsc::Sender<Result<v1::AssignmentsMessage, Status>>;

struct Script {
    opened: mpsc::Sender<Opened>,
    /// Assignments streams that stay open; one for each session.
    assignments: Arc<Mutex<Vec<Assignments>>>,
    updates: mpsc::Sender<Vec<TaskStatusUpdate>>,
}

#[tonic::async_trait]
impl Dispatcher for Script {
    async fn session(
        &self,
        request: Request<v1::SessionRequest>,
    ) -> Result<Response<BoxStream<v1::SessionMessage>>, Status> {
        let (said, saying) = mpsc::channel(8);
        let request = request.into_inner();
        self.opened.send(Opened { request, said }).await.unwrap();
        Ok(Response::new(Box::pin(ReceiverStream::new(saying))))
    }

    async fn heartbeat(
        &self,
        _: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let period = Some(time::duration_to_wire(DAY));
        Ok(Response::new(v1::HeartbeatResponse { period }))
    }

    async fn update_task_status(
        &self,
        request: Request<v1::UpdateTaskStatusRequest>,
    ) -> Result<Response<v1::UpdateTaskStatusResponse>, Status> {
        let updates = request.into_inner().updates;
        self.updates.send(updates).await.unwrap();
        Ok(Response::new(v1::UpdateTaskStatusResponse {}))
    }

    async fn assignments(
        &self,
        _: Request<v1::AssignmentsRequest>,
    ) -> Result<Response<BoxStream<v1::AssignmentsMessage>>, Status> {
        let (sender, messages) = mpsc::channel(1);
        let first = v1::AssignmentsMessage {
            r#type: Type::Complete as i32,
            results_in: "1".to_owned(),
            ..Default::default()
        };
        sender.try_send(Ok(first)).unwrap();
        self.assignments.lock().unwrap().push(sender);
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }
}

struct Manager {
    address: String,
    updates: mpsc::Receiver<Vec<TaskStatusUpdate>>,
    assignments: Arc<Mutex<Vec<Assignments>>>,
    opened: mpsc::Receiver<Opened>,
    _tasks: Tasks,
}

impl Manager {
    async fn start(authority: &Authority) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let tasks = Tasks::new(Shutdown::new());
        let own = Credentials::new(authority.tls("m", v1::NodeRole::Manager)).unwrap();
        let limits = tls::Limits::default();
        let listening = tls::listen(&tasks, listener, &own, limits, Metrics::new(), Vec::new());
        let (sender, opened) = mpsc::channel(8);
        let assignments = Arc::default();
        let (told, updates) = mpsc::channel(64);
        let script = Script {
            updates: told,
            opened: sender,
            assignments: Arc::clone(&assignments),
        };
        let router = net::server().add_service(DispatcherServer::new(script));
        let incoming = listening.others;
        tasks.spawn("manager", OnError::Log, async move {
            Ok(router.serve_with_incoming(incoming).await?)
        });
        Self {
            address,
            updates,
            assignments,
            opened,
            _tasks: tasks,
        }
    }

    /// Gives or takes a task, as the step after that many others.
    async fn assign(&self, step: u32, task: &Task, action: AssignmentAction) {
        let change = v1::AssignmentChange {
            assignment: Some(v1::Assignment {
                item: Some(Item::Task(convert::task_to_wire(task))),
            }),
            action: action as i32,
        };
        let message = v1::AssignmentsMessage {
            r#type: Type::Incremental as i32,
            applies_to: step.to_string(),
            results_in: (step + 1).to_string(),
            changes: vec![change],
        };
        let open = async {
            loop {
                let open = self.assignments.lock().unwrap().last().cloned();
                match open {
                    Some(open) => break open,
                    None => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            }
        };
        within(open).await.send(Ok(message)).await.unwrap();
    }

    async fn opened(&mut self) -> Opened {
        within(self.opened.recv()).await.unwrap()
    }
}

impl Opened {
    /// Says that these are all managers.
    async fn say(&self, session: &str, managers: &[&str]) {
        let managers = managers.iter().map(|addr| v1::WeightedPeer {
            peer: Some(v1::Peer {
                node_id: format!("at {addr}"),
                addr: (*addr).to_owned(),
            }),
            weight: 10,
        });
        let message = v1::SessionMessage {
            session_id: session.to_owned(),
            managers: managers.collect(),
            ..Default::default()
        };
        self.said.send(Ok(message)).await.unwrap();
    }

    fn description(&self) -> &v1::NodeDescription {
        self.request.description.as_ref().unwrap()
    }
}

/// An executor without tasks.
struct Idle;

fn unused<T: Send + 'static>() -> BoxFuture<'static, Result<T, ExecError>> {
    Box::pin(async { Err(ExecError::fatal("not played")) })
}

impl Executor for Idle {
    fn describe(&self) -> BoxFuture<'_, Result<v1::NodeDescription, ExecError>> {
        Box::pin(async {
            Ok(v1::NodeDescription {
                hostname: "the machine's".to_owned(),
                ..Default::default()
            })
        })
    }
    fn configure<'a>(&'a self, _: &'a v1::Node) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async { Ok(()) })
    }
    fn controller(&self, _: Arc<Task>) -> BoxFuture<'_, Result<Arc<dyn Controller>, ExecError>> {
        unused()
    }
    fn recover<'a>(
        &'a self,
        _: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        Box::pin(async { Ok(Recovery::default()) })
    }
    fn logs(
        &self,
        _: Arc<Task>,
        _: LogOptions,
    ) -> BoxFuture<'_, Result<Box<dyn LogStream>, ExecError>> {
        unused()
    }
}

struct Running {
    credentials: Credentials,
    told: watch::Receiver<Told>,
    _directory: tempfile::TempDir,
    ended: JoinSet<Result<(), Removed>>,
}

impl Running {
    /// Waits until the agent has heard which managers there are.
    async fn heard(&mut self) {
        let heard = self.told.wait_for(|told| !told.managers.is_empty());
        within(heard).await.unwrap();
    }
}

/// An agent that knows one manager to begin with.
async fn start(authority: &Authority, manager: &Manager, hostname: Option<&str>) -> Running {
    start_with(authority, manager, hostname, Arc::new(Idle)).await
}

async fn start_with(
    authority: &Authority,
    manager: &Manager,
    hostname: Option<&str>,
    executor: Arc<dyn Executor>,
) -> Running {
    let directory = tempfile::tempdir().unwrap();
    let credentials = Credentials::new(authority.tls("w", v1::NodeRole::Worker)).unwrap();
    let config = Config {
        node: "w".parse().unwrap(),
        hostname: hostname.map(str::to_owned),
        database: directory.path().join("tasks.db"),
        remotes: Remotes::new([manager.address.clone()]),
        credentials: credentials.clone(),
    };
    let runner = Runner::open(config, executor, Clock::new());
    let runner = runner.await.unwrap();
    let told = runner.told();
    let mut running = JoinSet::new();
    running.spawn(runner.run(Shutdown::new()));
    Running {
        credentials,
        told,
        _directory: directory,
        ended: running,
    }
}

#[tokio::test]
async fn managers_that_a_session_does_not_name_are_dialled_no_more() {
    let authority = Authority::new();
    let mut first = Manager::start(&authority).await;
    let mut second = Manager::start(&authority).await;
    let mut running = start(&authority, &first, None).await;
    let session = first.opened().await;
    session.say("one", &[&second.address]).await;
    running.heard().await;
    // The first one still answers at its address, and nobody asks.
    session
        .said
        .send(Err(Status::aborted("node must disconnect")))
        .await
        .unwrap();
    let session = second.opened().await;
    assert_eq!(session.request.session_id, "one");
    // An empty list says nothing.
    session.say("two", &[]).await;
    drop(session);
    let session = second.opened().await;
    assert_eq!(session.request.session_id, "two");
    assert!(first.opened.try_recv().is_err());
}

#[tokio::test]
async fn a_new_root_is_reported_in_a_new_session_with_the_same_id() {
    let (authority, next) = (Authority::new(), Authority::new());
    let mut manager = Manager::start(&authority).await;
    let mut running = start(&authority, &manager, Some("by flag")).await;
    let session = manager.opened().await;
    session.say("one", &[&manager.address]).await;
    running.heard().await;
    let description = session.description();
    assert_eq!(description.hostname, "by flag");
    let tls_info = description.tls_info.clone().unwrap();
    assert_eq!(tls_info.trust_root, authority.root_pem);
    let both = format!("{}{}", authority.root_pem, next.root_pem);
    running.credentials.update_root(&both).unwrap();
    let session = manager.opened().await;
    assert_eq!(session.request.session_id, "one");
    let told = session.description().tls_info.clone().unwrap();
    assert_eq!(told.trust_root, both);
    assert_eq!(told.cert_issuer_public_key, tls_info.cert_issuer_public_key);
}

/// An executor whose preparations do not heed for a while that they are cut off, and whose
/// removals say whether one is still there.
#[derive(Clone)]
struct Heedless {
    panics: bool,
    begun: mpsc::Sender<()>,
    removed: mpsc::Sender<bool>,
    is_preparing: Arc<AtomicBool>,
}

/// Says that a preparation is gone.
struct Preparing(Arc<AtomicBool>);

impl Drop for Preparing {
    fn drop(&mut self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

impl Executor for Heedless {
    fn describe(&self) -> BoxFuture<'_, Result<v1::NodeDescription, ExecError>> {
        Idle.describe()
    }
    fn configure<'a>(&'a self, _: &'a v1::Node) -> BoxFuture<'a, Result<(), ExecError>> {
        Box::pin(async { Ok(()) })
    }
    fn controller(&self, _: Arc<Task>) -> BoxFuture<'_, Result<Arc<dyn Controller>, ExecError>> {
        let controller: Arc<dyn Controller> = Arc::new(self.clone());
        Box::pin(async { Ok(controller) })
    }
    fn recover<'a>(
        &'a self,
        _: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        Box::pin(async { Ok(Recovery::default()) })
    }
}

impl Controller for Heedless {
    fn update(&self, _: Arc<Task>) -> BoxFuture<'_, Result<(), ExecError>> {
        unused()
    }
    fn provide(&self, _: Dependencies) {}
    fn prepare(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.is_preparing.store(true, Ordering::SeqCst);
            let _preparing = Preparing(Arc::clone(&self.is_preparing));
            self.begun.send(()).await.unwrap();
            assert!(!self.panics, "as it was told");
            #[expect(clippy::disallowed_methods, reason = "a thread that stands still")]
            std::thread::sleep(Duration::from_millis(500));
            std::future::pending().await
        })
    }
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        unused()
    }
    fn wait(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        unused()
    }
    fn shutdown(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        unused()
    }
    fn terminate(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        unused()
    }
    fn remove(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            let is_preparing = self.is_preparing.load(Ordering::SeqCst);
            self.removed.send(is_preparing).await.unwrap();
            Ok(())
        })
    }
    fn close(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async { Ok(()) })
    }
    fn container_status(&self) -> BoxFuture<'_, Result<Option<v1::ContainerStatus>, ExecError>> {
        Box::pin(async { Ok(None) })
    }
    fn port_status(&self) -> BoxFuture<'_, Result<Option<v1::PortStatus>, ExecError>> {
        Box::pin(async { Ok(None) })
    }
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
}

/// An agent with such an executor and a task that it prepares.
struct Preparation {
    manager: Manager,
    task: Task,
    removals: mpsc::Receiver<bool>,
    running: Running,
    session: Opened,
}

impl Preparation {
    async fn start(panics: bool) -> Self {
        let authority = Authority::new();
        let mut manager = Manager::start(&authority).await;
        let (begun, mut preparing) = mpsc::channel(1);
        let (removed, removals) = mpsc::channel(1);
        let executor = Heedless {
            panics,
            begun,
            removed,
            is_preparing: Arc::default(),
        };
        let running = start_with(&authority, &manager, None, Arc::new(executor)).await;
        let session = manager.opened().await;
        session.say("one", &[&manager.address]).await;
        let status = TaskStatus::new(TaskState::Assigned, Timestamp::from_millis(1), "assigned");
        let task = Task::new("t1".parse().unwrap(), Arc::default());
        let task = task.with_states(status, TaskState::Running);
        manager.assign(1, &task, AssignmentAction::Update).await;
        within(preparing.recv()).await.unwrap();
        Self {
            manager,
            task,
            removals,
            running,
            session,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn an_operation_begins_when_the_one_that_was_cut_off_for_it_is_gone() {
    let mut world = Preparation::start(false).await;
    let (manager, task) = (&world.manager, &world.task);
    manager.assign(2, task, AssignmentAction::Remove).await;
    assert_eq!(within(world.removals.recv()).await, Some(false));
}

#[tokio::test]
async fn a_task_whose_operation_panicked_fails() {
    let mut world = Preparation::start(true).await;
    loop {
        let updates = within(world.manager.updates.recv()).await.unwrap();
        let statuses = updates.into_iter().filter_map(|update| update.status);
        let mut rejected = statuses.filter(|it| it.state() == v1::TaskState::Rejected);
        if let Some(status) = rejected.next() {
            assert!(status.err.contains("the executor panicked"), "{status:?}");
            break;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_node_that_was_removed_ends_its_tasks_and_then_itself() {
    let mut world = Preparation::start(false).await;
    let text = "Permission denied: node w was removed from swarm";
    let said = Err(Status::permission_denied(text));
    world.session.said.send(said).await.unwrap();
    assert_eq!(within(world.removals.recv()).await, Some(false));
    let ended = within(world.running.ended.join_next()).await;
    assert_eq!(ended.unwrap().unwrap(), Err(Removed));
}
