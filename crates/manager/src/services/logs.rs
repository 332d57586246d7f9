//! `Logs` for clients and `LogBroker` for nodes: hand calls to the broker's task, and carry lines
//! from publishers to the queue of their subscriber.

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_log_broker::{BrokerError, Code, PUBLISH_SILENCE_MAX, Publication};
use swarm_rt::net::{self, Caller};
use swarm_types::NodeId;
use tokio::sync::oneshot;
use tonic::codegen::BoxStream;
use tonic::{Request, Response, Status, Streaming};

use super::Services;
use crate::gate::READY_WAIT_MAX;
use crate::logs::{Intake, LogCall};
use crate::streams::NodeStream;

/// How long a publisher may go on when nobody wants its lines any more. It is told to close at the
/// same time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the broker's task.
async fn ask<T>(
    services: &Services,
    call: LogCall,
    reply: oneshot::Receiver<T>,
) -> Result<T, Status> {
    // SwarmKit's text. The gate was open, so this manager lost its leadership a moment ago.
    let gone = || Status::unknown("broker is not running");
    services.gate.pass().await?;
    services.logs.send(call).await.map_err(|_| gone())?;
    match tokio::time::timeout(READY_WAIT_MAX, reply).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(_)) | Err(_) => Err(gone()),
    }
}

pub(crate) struct Logs(pub(crate) Arc<Services>);

#[tonic::async_trait]
impl v1::logs_server::Logs for Logs {
    async fn subscribe_logs(
        &self,
        request: Request<v1::SubscribeLogsRequest>,
    ) -> Result<Response<BoxStream<v1::SubscribeLogsMessage>>, Status> {
        let (reply, answer) = oneshot::channel();
        let request = Box::new(request.into_inner());
        let opened = ask(&self.0, LogCall::Subscribe { request, reply }, answer).await?;
        let lines = opened.map_err(|error| status_of(&error))?;
        Ok(Response::new(Box::pin(lines)))
    }
}

pub(crate) struct LogBroker(pub(crate) Arc<Services>);

impl LogBroker {
    /// The stream on which a node hears of subscriptions.
    pub(super) async fn open_subscriptions(
        &self,
        request: &Request<v1::ListenSubscriptionsRequest>,
    ) -> Result<NodeStream<v1::SubscriptionMessage>, Status> {
        let node = self.node(&net::caller(request))?;
        let (reply, answer) = oneshot::channel();
        ask(&self.0, LogCall::Listen { node, reply }, answer).await
    }

    /// Who calls. A node that does not name itself on the control socket is the manager's own.
    fn node(&self, caller: &Caller) -> Result<NodeId, Status> {
        match caller.node() {
            Some(node) => Ok(node.clone()),
            None if caller.is_local() => Ok(self.0.own_node.clone()),
            None => Err(Status::permission_denied(
                "Permission denied: the call does not say which node makes it",
            )),
        }
    }
}

#[tonic::async_trait]
impl v1::log_broker_server::LogBroker for LogBroker {
    async fn listen_subscriptions(
        &self,
        request: Request<v1::ListenSubscriptionsRequest>,
    ) -> Result<Response<BoxStream<v1::SubscriptionMessage>>, Status> {
        let stream = self.open_subscriptions(&request).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<v1::PublishLogsMessage>>,
    ) -> Result<Response<v1::PublishLogsResponse>, Status> {
        let node = self.node(&net::caller(&request))?;
        let mut stream = request.into_inner();
        // However long it takes: a node may follow tasks that are quiet.
        let Some(first) = stream.message().await? else {
            return Ok(Response::new(v1::PublishLogsResponse {}));
        };
        let publication = Publication::open(node, &first).map_err(|error| status_of(&error))?;
        let (reply, answer) = oneshot::channel();
        let call = LogCall::Publish {
            publication: Box::new(publication.clone()),
            reply,
        };
        let accepted = ask(&self.0, call, answer).await?;
        let intake = accepted.map_err(|error| status_of(&error))?;
        carry(&publication, intake, first, &mut stream).await?;
        Ok(Response::new(v1::PublishLogsResponse {}))
    }
}

/// What comes of waiting for the next message.
enum Next {
    Message(v1::PublishLogsMessage),
    /// The node half-closed its stream, or nobody wants lines.
    End,
    Unwanted,
    Silent,
}

/// Carries lines until the node closes, or something is wrong with them.
async fn carry(
    publication: &Publication,
    intake: Intake,
    first: v1::PublishLogsMessage,
    stream: &mut Streaming<v1::PublishLogsMessage>,
) -> Result<(), Status> {
    let mut message = first;
    loop {
        if let Err(error) = publication.check(&message) {
            intake.end(Err(error.to_string()));
            return Err(status_of(&error));
        }
        if !message.messages.is_empty() && !intake.put(message.messages).await {
            return drain(intake, stream).await;
        }
        if message.close {
            intake.end(Ok(()));
            return Ok(());
        }
        match next(&intake, stream).await {
            Ok(Next::Message(next)) => message = next,
            Ok(Next::End) => {
                intake.end(Ok(()));
                return Ok(());
            }
            Ok(Next::Unwanted) => return drain(intake, stream).await,
            Ok(Next::Silent) => {
                let seconds = PUBLISH_SILENCE_MAX.as_secs();
                let text = format!("it was silent for {seconds} s");
                intake.end(Err(text.clone()));
                return Err(Status::deadline_exceeded(text));
            }
            Err(status) => {
                intake.end(Err(reason(&status)));
                return Err(status);
            }
        }
    }
}

async fn next(
    intake: &Intake,
    stream: &mut Streaming<v1::PublishLogsMessage>,
) -> Result<Next, Status> {
    let silence = async {
        match intake.follow {
            true => std::future::pending().await,
            false => tokio::time::sleep(PUBLISH_SILENCE_MAX).await,
        }
    };
    tokio::select! {
        // What has arrived comes before the end of a time in which this manager may have stood
        // still.
        biased;
        message = stream.message() => Ok(message?.map_or(Next::End, Next::Message)),
        () = intake.unwanted() => Ok(Next::Unwanted),
        () = silence => Ok(Next::Silent),
    }
}

/// Nobody wants the lines: lets the node close in order, which it was told to.
async fn drain(
    intake: Intake,
    stream: &mut Streaming<v1::PublishLogsMessage>,
) -> Result<(), Status> {
    intake.end(Ok(()));
    let drained = async {
        while let Ok(Some(message)) = stream.message().await {
            if message.close {
                break;
            }
        }
    };
    // A node that does not heed loses its stream.
    drop(tokio::time::timeout(DRAIN_TIMEOUT, drained).await);
    Ok(())
}

/// Why a stream broke, in words.
fn reason(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => swarm_rt::chain(source).to_string(),
        None => status.message().to_owned(),
    }
}

/// A refusal of the broker as a gRPC status.
pub(crate) fn status_of(error: &BrokerError) -> Status {
    let code = match error.code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Aborted => tonic::Code::Aborted,
        Code::Unknown => tonic::Code::Unknown,
    };
    Status::new(code, error.message.clone())
}
