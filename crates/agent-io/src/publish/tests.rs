//! A publication against a manager by script, over real sockets.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Mutex;

use swarm_agent::Epoch;
use swarm_api::v1::log_broker_client::LogBrokerClient;
use swarm_api::v1::log_broker_server::{LogBroker, LogBrokerServer};
use swarm_executor::{BoxFuture, Controller, ExecError, LogOrigin, LogStream, Recovery};
use swarm_rt::net::{self, Address};
use swarm_rt::{OnError, Shutdown, Tasks};
use swarm_types::TaskId;
use tokio_stream::StreamExt as _;
use tonic::codegen::BoxStream;
use tonic::{Response, Streaming};

use super::*;

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}

/// Hands every published message on; refuses the stream at the message that says so.
struct Manager {
    published: mpsc::Sender<v1::PublishLogsMessage>,
    breaks_at: &'static str,
}

#[tonic::async_trait]
impl LogBroker for Manager {
    async fn listen_subscriptions(
        &self,
        _: Request<v1::ListenSubscriptionsRequest>,
    ) -> Result<Response<BoxStream<v1::SubscriptionMessage>>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn publish_logs(
        &self,
        request: Request<Streaming<v1::PublishLogsMessage>>,
    ) -> Result<Response<v1::PublishLogsResponse>, Status> {
        let mut stream = request.into_inner();
        while let Some(message) = stream.next().await {
            let message = message?;
            let breaks = message
                .messages
                .iter()
                .any(|line| line.data == self.breaks_at);
            let _ = self.published.send(message).await;
            if breaks {
                return Err(Status::unavailable("cut off"));
            }
        }
        Ok(Response::new(v1::PublishLogsResponse {}))
    }
}

struct Served {
    published: mpsc::Receiver<v1::PublishLogsMessage>,
    client: LogClient,
    _tasks: Tasks,
}

async fn serve(directory: &Path, number: u64, breaks_at: &'static str) -> Served {
    serve_with(directory, number, breaks_at, 64).await
}

/// A manager that takes so many messages before the test looks at them.
async fn serve_with(
    directory: &Path,
    number: u64,
    breaks_at: &'static str,
    taken: usize,
) -> Served {
    let path = directory.join(format!("{number}.sock"));
    let (sender, published) = mpsc::channel(taken);
    let incoming = net::bind_unix(&path).await.unwrap();
    let manager = Manager {
        published: sender,
        breaks_at,
    };
    let router = net::server().add_service(LogBrokerServer::new(manager));
    let tasks = Tasks::new(Shutdown::new());
    tasks.spawn("manager", OnError::Log, async move {
        router
            .serve_with_incoming(incoming)
            .await
            .map_err(Into::into)
    });
    Served {
        published,
        client: LogClient {
            client: LogBrokerClient::new(net::dial(&Address::Unix(path)).unwrap()),
            epoch: Epoch(number),
            address: format!("manager {number}"),
        },
        _tasks: tasks,
    }
}

impl Served {
    /// The next message, as the texts of its lines; `.` for a close.
    async fn next(&mut self) -> Vec<String> {
        let message = within(self.published.recv()).await.unwrap();
        assert_eq!(message.subscription_id, "s");
        let mut texts = Vec::new();
        for line in message.messages {
            let context = line.context.unwrap();
            assert_eq!((&*context.node_id, &*context.task_id), ("n1", "t1"));
            texts.push(String::from_utf8(line.data.to_vec()).unwrap());
        }
        if message.close {
            texts.push(".".to_owned());
        }
        texts
    }
}

/// An executor whose one task writes what the test sends.
struct Written(Mutex<Option<mpsc::Receiver<&'static str>>>);

struct Lines(mpsc::Receiver<&'static str>);

impl LogStream for Lines {
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<LogLine>>, ExecError>> {
        Box::pin(async {
            let text = self.0.recv().await;
            Ok(text.map(|text| {
                vec![LogLine {
                    at: None,
                    origin: LogOrigin::Stdout,
                    data: text.into(),
                }]
            }))
        })
    }
}

fn unused<T>() -> BoxFuture<'static, Result<T, ExecError>>
where
    T: Send + 'static,
{
    Box::pin(async { Err(ExecError::fatal("not played")) })
}

impl Executor for Written {
    fn describe(&self) -> BoxFuture<'_, Result<v1::NodeDescription, ExecError>> {
        unused()
    }
    fn configure<'a>(&'a self, _: &'a v1::Node) -> BoxFuture<'a, Result<(), ExecError>> {
        unused()
    }
    fn controller(&self, _: Arc<Task>) -> BoxFuture<'_, Result<Arc<dyn Controller>, ExecError>> {
        unused()
    }
    fn recover<'a>(
        &'a self,
        _: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        unused()
    }
    fn logs(
        &self,
        _: Arc<Task>,
        _: LogOptions,
    ) -> BoxFuture<'_, Result<Box<dyn LogStream>, ExecError>> {
        let lines = self.0.lock().unwrap().take();
        Box::pin(async move {
            match lines {
                Some(lines) => Ok(Box::new(Lines(lines)) as Box<dyn LogStream>),
                None => Err(ExecError::fatal("no second reader")),
            }
        })
    }
}

struct World {
    lines: mpsc::Sender<&'static str>,
    commands: mpsc::UnboundedSender<Command>,
    heard: mpsc::Receiver<Heard>,
    _running: JoinSet<()>,
}

impl World {
    fn start() -> Self {
        let (lines, written) = mpsc::channel(16);
        let (commands, received) = mpsc::unbounded_channel();
        let (heard_sender, heard) = mpsc::channel(16);
        let publication = Publication {
            id: "s".to_owned(),
            node: "n1".parse().unwrap(),
            executor: Arc::new(Written(Mutex::new(Some(written)))),
            clock: Clock::new(),
            readers: Arc::new(Semaphore::new(1)),
            heard: heard_sender,
            commands: received,
        };
        let mut running = JoinSet::new();
        running.spawn(publication.run());
        Self {
            lines,
            commands,
            heard,
            _running: running,
        }
    }

    fn command(&self, command: Command) {
        self.commands.send(command).ok().unwrap();
    }

    fn read(&self, follow: bool) {
        let task = Arc::new(Task::new("t1".parse().unwrap(), Arc::default()));
        let options = LogOptions {
            follow,
            ..LogOptions::default()
        };
        self.command(Command::Read(task, options));
    }

    async fn write(&self, text: &'static str) {
        within(self.lines.send(text)).await.unwrap();
    }

    /// How a stream ended.
    async fn ended(&mut self) -> (Epoch, Result<(), i32>) {
        match within(self.heard.recv()).await.unwrap() {
            Heard::Published(_, epoch, ended) => (epoch, ended.map_err(|error| error.code)),
            Heard::Session(..)
            | Heard::Assignments(..)
            | Heard::Subscription(..)
            | Heard::Time(_)
            | Heard::Reply(..) => panic!("publications say nothing else"),
        }
    }
}

#[tokio::test]
async fn everything_is_published_and_then_it_closes() {
    let directory = tempfile::tempdir().unwrap();
    let mut manager = serve(directory.path(), 1, "never").await;
    let mut world = World::start();
    world.command(Command::Connect(manager.client.clone()));
    assert!(
        manager.next().await.is_empty(),
        "it says at once which subscription the stream is for"
    );
    world.read(false);
    world.command(Command::Complete);
    world.write("one\n").await;
    world.write("two\n").await;
    assert_eq!(manager.next().await, ["one\n"]);
    assert_eq!(manager.next().await, ["two\n"]);
    world.lines = mpsc::channel(1).0;
    assert_eq!(manager.next().await, ["."]);
    assert_eq!(world.ended().await, (Epoch(1), Ok(())));
}

#[tokio::test]
async fn a_subscriber_that_reads_slowly_loses_nothing_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let mut manager = serve_with(directory.path(), 1, "never", 1).await;
    let mut world = World::start();
    world.command(Command::Connect(manager.client.clone()));
    world.read(false);
    world.command(Command::Complete);
    world.write("one\n").await;
    world.write("two\n").await;
    world.lines = mpsc::channel(1).0;
    // As somebody who has stopped the output with Ctrl-S for a while.
    tokio::time::sleep(CLOSE_TIMEOUT + Duration::from_millis(500)).await;
    assert!(manager.next().await.is_empty());
    assert_eq!(manager.next().await, ["one\n"]);
    assert_eq!(manager.next().await, ["two\n"]);
    assert_eq!(manager.next().await, ["."]);
    assert_eq!(world.ended().await, (Epoch(1), Ok(())));
}

#[tokio::test]
async fn the_end_is_said_once_more_on_another_connection_and_not_to_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let first = serve_with(directory.path(), 1, "never", 1).await;
    let mut second = serve_with(directory.path(), 2, "never", 1).await;
    let mut world = World::start();
    world.command(Command::Connect(first.client.clone()));
    world.read(false);
    world.command(Command::Complete);
    world.write("one\n").await;
    world.lines = mpsc::channel(1).0;
    // Nobody takes it from the first one, to which it was said by then.
    tokio::time::sleep(Duration::from_millis(300)).await;
    world.command(Command::Connect(second.client.clone()));
    while second.next().await != ["."] {}
    assert_eq!(world.ended().await, (Epoch(2), Ok(())));

    let mut world = World::start();
    world.command(Command::Connect(first.client.clone()));
    world.command(Command::Complete);
    world.command(Command::Cancel);
    assert_eq!(world.ended().await, (Epoch(1), Ok(())));
}

#[tokio::test]
async fn a_broken_stream_goes_on_on_another_connection_with_what_was_not_sent() {
    let directory = tempfile::tempdir().unwrap();
    let mut first = serve(directory.path(), 1, "two\n").await;
    let mut second = serve(directory.path(), 2, "never").await;
    let mut world = World::start();
    world.command(Command::Connect(first.client.clone()));
    world.read(true);
    for text in ["one\n", "two\n"] {
        world.write(text).await;
    }
    assert!(first.next().await.is_empty());
    assert_eq!(first.next().await, ["one\n"]);
    assert_eq!(first.next().await, ["two\n"]);
    let unavailable = tonic::Code::Unavailable as i32;
    assert_eq!(world.ended().await, (Epoch(1), Err(unavailable)));
    // What is written meanwhile waits.
    world.write("three\n").await;
    world.command(Command::Connect(second.client.clone()));
    assert!(second.next().await.is_empty());
    assert_eq!(second.next().await, ["three\n"]);
    world.command(Command::Cancel);
    assert_eq!(second.next().await, ["."]);
    assert_eq!(world.ended().await, (Epoch(2), Ok(())));
}

#[tokio::test]
async fn trouble_with_one_task_becomes_a_notice() {
    let directory = tempfile::tempdir().unwrap();
    let mut manager = serve(directory.path(), 1, "never").await;
    let world = World::start();
    world.command(Command::Connect(manager.client.clone()));
    assert!(manager.next().await.is_empty());
    world.read(true);
    world.write("one\n").await;
    assert_eq!(manager.next().await, ["one\n"]);
    // The one reader of the agent is taken.
    world.read(true);
    let notice = manager.next().await;
    assert!(
        notice[0].contains("output of task t1 is left out"),
        "{notice:?}"
    );
}
