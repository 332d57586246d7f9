//! The calls to one manager: opened for one attempt at a session, ended with it.

use std::sync::Arc;

use swarm_agent::{AgentRpc, Call, Epoch, RPC_TIMEOUT, Reply, RpcError};
use swarm_api::v1;
use swarm_api::v1::dispatcher_client::DispatcherClient;
use swarm_api::v1::log_broker_client::LogBrokerClient;
use swarm_rt::net::{self, Address};
use swarm_rt::tls::{self, Credentials, Security, ServerName};
use swarm_types::{Timestamp, time};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};

/// The gRPC code for "cannot be reached".
const UNAVAILABLE: i32 = 14;

/// Where to publish.
#[derive(Clone, Debug)]
pub(crate) struct LogClient {
    pub(crate) client: LogBrokerClient<Channel>,
    pub(crate) epoch: Epoch,
    pub(crate) address: String,
}

/// What the manager said.
#[derive(Debug)]
pub(crate) enum Heard {
    Session(Epoch, Box<v1::SessionMessage>),
    /// Its clock, as it answered.
    Time(Timestamp),
    Assignments(Epoch, v1::AssignmentsMessage),
    Subscription(Epoch, v1::SubscriptionMessage),
    Reply(Epoch, Reply),
    /// The publishing stream of a log subscription ended.
    Published(String, Epoch, Result<(), RpcError>),
}

/// Everything that is open for one attempt. Dropping it ends all calls.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) epoch: Epoch,
    pub(crate) address: Address,
    client: DispatcherClient<Channel>,
    logs: LogBrokerClient<Channel>,
    heard: mpsc::Sender<Heard>,
    /// At most five calls: session, assignments, log subscriptions, heartbeat, status report.
    calls: JoinSet<()>,
}

impl Attempt {
    /// Prepares a connection; it opens with the first call.
    pub(crate) fn new(
        epoch: Epoch,
        address: Address,
        credentials: &Credentials,
        heard: mpsc::Sender<Heard>,
    ) -> Result<Self, RpcError> {
        let channel = dial(&address, credentials)
            .map_err(|error| RpcError::new(UNAVAILABLE, format!("{address}: {error}")))?;
        let logs = LogBrokerClient::new(channel.clone())
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX);
        let client = DispatcherClient::new(channel)
            .max_decoding_message_size(net::CLIENT_RECEIVE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        Ok(Self {
            epoch,
            address,
            client,
            logs,
            heard,
            calls: JoinSet::new(),
        })
    }

    /// For the publishing streams of this attempt. They live on when the attempt ends, until the
    /// connection does.
    pub(crate) fn logs(&self) -> LogClient {
        LogClient {
            client: self.logs.clone(),
            epoch: self.epoch,
            address: self.address.to_string(),
        }
    }

    /// Makes a call; what comes of it arrives as [`Heard`].
    pub(crate) fn make(&mut self, rpc: AgentRpc) {
        while self.calls.try_join_next().is_some() {}
        let (epoch, client) = (self.epoch, self.client.clone());
        let heard = self.heard.clone();
        let address = Arc::new(self.address.to_string());
        match rpc.call {
            Call::OpenSession {
                description,
                previous_session,
            } => {
                let request = v1::SessionRequest {
                    description: Some(*description),
                    session_id: previous_session,
                };
                let request = Request::new(request);
                self.calls
                    .spawn(session(client, request, epoch, address, heard));
            }
            Call::ListenSubscriptions => {
                let request = Request::new(v1::ListenSubscriptionsRequest {});
                let client = self.logs.clone();
                self.calls
                    .spawn(subscriptions(client, request, epoch, address, heard));
            }
            Call::OpenAssignments { session } => {
                let request = Request::new(v1::AssignmentsRequest {
                    session_id: session,
                });
                self.calls
                    .spawn(assignments(client, request, epoch, address, heard));
            }
            Call::Heartbeat { session } => {
                let request = Request::new(v1::HeartbeatRequest {
                    session_id: session,
                });
                self.calls
                    .spawn(heartbeat(client, request, epoch, address, heard));
            }
            Call::UpdateTaskStatus {
                session,
                report,
                updates,
            } => {
                let request = v1::UpdateTaskStatusRequest {
                    session_id: session,
                    updates,
                };
                let request = Request::new(request);
                self.calls
                    .spawn(statuses(client, request, (epoch, report), address, heard));
            }
            Call::Close { .. } => self.calls.abort_all(),
        }
    }
}

fn dial(
    address: &Address,
    credentials: &Credentials,
) -> Result<Channel, Box<dyn std::error::Error + Send + Sync>> {
    match address {
        Address::Tcp(address) => {
            let security = Security::Node(credentials.clone(), ServerName::Manager);
            Ok(tls::dial(address, &security)?)
        }
        Address::Unix(_) => Ok(net::dial(address)?),
    }
}

pub(crate) fn rpc_error(address: &str, status: &Status) -> RpcError {
    let reason = std::error::Error::source(status).map_or_else(
        || status.message().to_owned(),
        |source| swarm_rt::chain(source).to_string(),
    );
    RpcError::new(status.code() as i32, format!("manager {address}: {reason}"))
}

async fn session(
    mut client: DispatcherClient<Channel>,
    request: Request<v1::SessionRequest>,
    epoch: Epoch,
    address: Arc<String>,
    heard: mpsc::Sender<Heard>,
) {
    let opened = client.session(request).await;
    if let Ok(answer) = &opened
        && let Some(time) = manager_time(answer.metadata())
    {
        tell(&heard, Heard::Time(time)).await;
    }
    let opened = opened.map(tonic::Response::into_inner);
    let ended = follow(opened, &heard, |message| {
        Heard::Session(epoch, Box::new(message))
    })
    .await;
    tell(
        &heard,
        Heard::Reply(epoch, Reply::SessionEnded(rpc_error(&address, &ended))),
    )
    .await;
}

/// Managers of SwarmKit do not say.
fn manager_time(answer: &MetadataMap) -> Option<Timestamp> {
    let text = answer.get(time::MANAGER_TIME_HEADER)?.to_str().ok()?;
    text.parse().ok().map(Timestamp::from_nanos)
}

async fn assignments(
    mut client: DispatcherClient<Channel>,
    request: Request<v1::AssignmentsRequest>,
    epoch: Epoch,
    address: Arc<String>,
    heard: mpsc::Sender<Heard>,
) {
    let opened = client
        .assignments(request)
        .await
        .map(tonic::Response::into_inner);
    let ended = follow(opened, &heard, |message| Heard::Assignments(epoch, message)).await;
    tell(
        &heard,
        Heard::Reply(epoch, Reply::AssignmentsEnded(rpc_error(&address, &ended))),
    )
    .await;
}

async fn subscriptions(
    mut client: LogBrokerClient<Channel>,
    request: Request<v1::ListenSubscriptionsRequest>,
    epoch: Epoch,
    address: Arc<String>,
    heard: mpsc::Sender<Heard>,
) {
    let opened = client
        .listen_subscriptions(request)
        .await
        .map(tonic::Response::into_inner);
    let ended = follow(opened, &heard, |message| {
        Heard::Subscription(epoch, message)
    })
    .await;
    tell(
        &heard,
        Heard::Reply(
            epoch,
            Reply::SubscriptionsEnded(rpc_error(&address, &ended)),
        ),
    )
    .await;
}

/// Hands on every message of a stream; returns how the stream ended.
async fn follow<T>(
    opened: Result<Streaming<T>, Status>,
    heard: &mpsc::Sender<Heard>,
    wrap: impl Fn(T) -> Heard,
) -> Status {
    let mut stream = match opened {
        Ok(stream) => stream,
        Err(status) => return status,
    };
    loop {
        match stream.message().await {
            Ok(Some(message)) => tell(heard, wrap(message)).await,
            Ok(None) => return Status::unavailable("the manager ended the stream"),
            Err(status) => return status,
        }
    }
}

async fn heartbeat(
    mut client: DispatcherClient<Channel>,
    request: Request<v1::HeartbeatRequest>,
    epoch: Epoch,
    address: Arc<String>,
    heard: mpsc::Sender<Heard>,
) {
    let answer = limited(client.heartbeat(request)).await;
    let period = answer.and_then(|answer| {
        let period = answer
            .into_inner()
            .period
            .as_ref()
            .and_then(time::duration_from_wire);
        period.ok_or_else(|| Status::internal("the heartbeat answer has no valid period"))
    });
    let reply = Reply::Heartbeat(period.map_err(|status| rpc_error(&address, &status)));
    tell(&heard, Heard::Reply(epoch, reply)).await;
}

async fn statuses(
    mut client: DispatcherClient<Channel>,
    request: Request<v1::UpdateTaskStatusRequest>,
    (epoch, report): (Epoch, u64),
    address: Arc<String>,
    heard: mpsc::Sender<Heard>,
) {
    let taken = limited(client.update_task_status(request)).await;
    let taken = taken
        .map(drop)
        .map_err(|status| rpc_error(&address, &status));
    tell(
        &heard,
        Heard::Reply(epoch, Reply::StatusesTaken(report, taken)),
    )
    .await;
}

async fn limited<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(RPC_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// Fails only when the agent is gone, and nobody has to be told then.
pub(crate) async fn tell(heard: &mpsc::Sender<Heard>, what: Heard) {
    drop(heard.send(what).await);
}
