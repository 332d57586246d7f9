//! An agent against two managers by script, over real connections.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;

use swarm_api::v1::dispatcher_server::{Dispatcher, DispatcherServer};
use swarm_ca::csr;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::root::new_root;
use swarm_executor::{BoxFuture, LogOptions, LogStream, Recovery};
use swarm_rt::metrics::Metrics;
use swarm_rt::tls::{self, NodeTls};
use swarm_rt::{OnError, Tasks, net};
use swarm_types::time;
use tokio::net::TcpListener;
use tokio_stream::wrappers::ReceiverStream;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status};

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

struct Script {
    opened: mpsc::Sender<Opened>,
    /// Assignments streams that stay open; one for each session.
    assignments: Mutex<Vec<mpsc::Sender<Result<v1::AssignmentsMessage, Status>>>>,
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

    async fn assignments(
        &self,
        _: Request<v1::AssignmentsRequest>,
    ) -> Result<Response<BoxStream<v1::AssignmentsMessage>>, Status> {
        let (sender, messages) = mpsc::channel(1);
        let first = v1::AssignmentsMessage {
            r#type: v1::assignments_message::Type::Complete as i32,
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
        let script = Script {
            opened: sender,
            assignments: Mutex::default(),
        };
        let router = net::server().add_service(DispatcherServer::new(script));
        let incoming = listening.others;
        tasks.spawn("manager", OnError::Log, async move {
            Ok(router.serve_with_incoming(incoming).await?)
        });
        Self {
            address,
            opened,
            _tasks: tasks,
        }
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
    _running: JoinSet<()>,
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
    let directory = tempfile::tempdir().unwrap();
    let credentials = Credentials::new(authority.tls("w", v1::NodeRole::Worker)).unwrap();
    let config = Config {
        node: "w".parse().unwrap(),
        hostname: hostname.map(str::to_owned),
        database: directory.path().join("tasks.db"),
        remotes: Remotes::new([manager.address.clone()]),
        credentials: credentials.clone(),
    };
    let runner = Runner::open(config, Arc::new(Idle), Clock::new());
    let runner = runner.await.unwrap();
    let told = runner.told();
    let mut running = JoinSet::new();
    running.spawn(runner.run(Shutdown::new()));
    Running {
        credentials,
        told,
        _directory: directory,
        _running: running,
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
