//! A manager in this process, and nodes that do what the test says.

use swarm_api::v1;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use v1::dispatcher_client::DispatcherClient;
use v1::log_broker_client::LogBrokerClient;
use v1::logs_client::LogsClient;

use crate::Manager;
use crate::tests::{local, remote, start, within};

pub(super) struct World {
    pub(super) manager: Manager,
    directory: tempfile::TempDir,
}

/// A node with one connection, as agents have.
#[derive(Clone)]
pub(super) struct Node {
    name: &'static str,
    channel: Channel,
}

/// A publishing stream.
pub(super) struct Publisher {
    pub(super) messages: mpsc::Sender<v1::PublishLogsMessage>,
    pub(super) answer: tokio::task::JoinSet<Result<Response<v1::PublishLogsResponse>, Status>>,
}

pub(super) type Lines = Streaming<v1::SubscribeLogsMessage>;
pub(super) type Subscriptions = Streaming<v1::SubscriptionMessage>;

impl World {
    pub(super) async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let manager = start(directory.path()).await;
        Self { manager, directory }
    }

    pub(super) fn node(&self, name: &'static str) -> Node {
        Node {
            name,
            channel: remote(&self.manager, name),
        }
    }

    pub(super) async fn subscribe(&self, nodes: &[&str], follow: bool) -> Lines {
        self.try_subscribe(nodes, follow).await.unwrap()
    }

    pub(super) async fn try_subscribe(
        &self,
        nodes: &[&str],
        follow: bool,
    ) -> Result<Lines, Status> {
        let mut client = LogsClient::new(local(self.directory.path()));
        let request = v1::SubscribeLogsRequest {
            selector: Some(v1::LogSelector {
                node_ids: nodes.iter().map(|&node| node.to_owned()).collect(),
                ..Default::default()
            }),
            options: Some(v1::LogSubscriptionOptions {
                follow,
                ..Default::default()
            }),
        };
        let opened = within(client.subscribe_logs(request)).await?;
        Ok(opened.into_inner())
    }

    pub(super) async fn stop(self) {
        within(self.manager.stop()).await.unwrap();
    }
}

impl Node {
    fn request<T>(&self, message: T) -> Request<T> {
        Request::new(message)
    }

    pub(super) async fn listen(&self) -> Subscriptions {
        let mut client = LogBrokerClient::new(self.channel.clone());
        let request = self.request(v1::ListenSubscriptionsRequest {});
        let opened = within(client.listen_subscriptions(request)).await;
        opened.unwrap().into_inner()
    }

    /// Opens a stream that holds `room` messages before it sends them.
    pub(super) fn publish(&self, room: usize) -> Publisher {
        let (messages, received) = mpsc::channel(room);
        let mut client = LogBrokerClient::new(self.channel.clone());
        let request = self.request(ReceiverStream::new(received));
        let mut answer = tokio::task::JoinSet::new();
        answer.spawn(async move { client.publish_logs(request).await });
        Publisher { messages, answer }
    }

    /// Registers; the id of the session, which lives as long as the stream.
    pub(super) async fn session(&self) -> (String, Streaming<v1::SessionMessage>) {
        let mut client = DispatcherClient::new(self.channel.clone());
        let request = v1::SessionRequest {
            description: Some(v1::NodeDescription {
                hostname: "host".to_owned(),
                ..Default::default()
            }),
            session_id: String::new(),
        };
        let opened = within(client.session(self.request(request))).await;
        let mut stream = opened.unwrap().into_inner();
        let first = within(stream.message()).await.unwrap().unwrap();
        (first.session_id, stream)
    }

    pub(super) async fn beat(&self, session: &str) {
        let mut client = DispatcherClient::new(self.channel.clone());
        let request = v1::HeartbeatRequest {
            session_id: session.to_owned(),
        };
        client.heartbeat(self.request(request)).await.unwrap();
    }

    pub(super) fn line(&self, text: &str) -> v1::LogMessage {
        v1::LogMessage {
            context: Some(v1::LogContext {
                node_id: self.name.to_owned(),
                task_id: "t1".to_owned(),
                ..Default::default()
            }),
            stream: v1::LogStream::Stdout as i32,
            data: text.to_owned().into(),
            ..Default::default()
        }
    }
}

impl Publisher {
    pub(super) async fn put(&self, id: &str, lines: Vec<v1::LogMessage>) {
        let message = v1::PublishLogsMessage {
            subscription_id: id.to_owned(),
            messages: lines,
            close: false,
        };
        within(self.messages.send(message)).await.unwrap();
    }

    pub(super) async fn close(&self, id: &str) {
        let message = v1::PublishLogsMessage {
            subscription_id: id.to_owned(),
            messages: Vec::new(),
            close: true,
        };
        within(self.messages.send(message)).await.unwrap();
    }

    pub(super) async fn answer(&mut self) -> Result<(), Status> {
        let answer = within(self.answer.join_next()).await;
        answer.unwrap().unwrap().map(drop)
    }
}

/// The next subscription that a node hears of.
pub(super) async fn heard(listener: &mut Subscriptions) -> v1::SubscriptionMessage {
    let message = within(listener.message()).await;
    message.unwrap().expect("the stream stays open")
}

/// All lines up to the end, and how it ended.
pub(super) async fn all(mut lines: Lines) -> (Vec<String>, Result<(), Status>) {
    let mut texts = Vec::new();
    loop {
        match within(lines.message()).await {
            Ok(Some(message)) => texts.extend(message.messages.iter().map(text)),
            Ok(None) => return (texts, Ok(())),
            Err(status) => return (texts, Err(status)),
        }
    }
}

pub(super) fn text(line: &v1::LogMessage) -> String {
    String::from_utf8(line.data.to_vec()).unwrap()
}
