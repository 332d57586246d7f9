//! One log subscription under way: reads the output of tasks, and sends it on one stream.
//!
//! Lines wait wherever there is no room: in the stream, then in the readers, then in the files. So
//! a slow subscriber costs a bounded amount of memory here and nothing else. Refuses to own: which
//! tasks are read and for how long (`swarm_agent::LogAction`).

use std::sync::Arc;
use std::time::Duration;

use swarm_agent::{Epoch, LogPace, RpcError};
use swarm_api::v1;
use swarm_executor::{Executor, LogLine, LogOptions};
use swarm_rt::Clock;
use swarm_types::{NodeId, Task};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status};

use crate::calls::{Heard, LogClient, rpc_error, tell};

/// Tasks whose output is read at a time, over all subscriptions: each has a file open. Readers
/// without follow wait for their turn; a follower would wait for ever, and is told so.
pub(crate) const READERS_MAX: usize = 256;
/// Lines of one message.
const LINES_PER_MESSAGE_MAX: usize = 512;
/// Messages between readers and the stream. Each is at most what an executor hands out at once.
const BATCHES_MAX: usize = 2;
/// How long the close and the answer to it may take when nobody wants anything more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What the agent wants of a publication.
pub(crate) enum Command {
    Read(Arc<Task>, LogOptions),
    Complete,
    /// Publish on this connection from now on.
    Connect(LogClient),
    Cancel,
}

/// What a publication needs.
pub(crate) struct Publication {
    pub(crate) id: String,
    pub(crate) node: NodeId,
    pub(crate) executor: Arc<dyn Executor>,
    pub(crate) clock: Clock,
    /// Shared by all publications of the agent; see [`READERS_MAX`].
    pub(crate) readers: Arc<Semaphore>,
    pub(crate) heard: mpsc::Sender<Heard>,
    /// Bounded by the tasks of the node.
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
}

/// Lines of one task.
struct Batch {
    task: Arc<Task>,
    lines: Vec<LogLine>,
}

/// An open stream. Dropping it resets the stream.
struct Outgoing {
    messages: mpsc::Sender<v1::PublishLogsMessage>,
    /// The one call.
    call: JoinSet<Result<(), RpcError>>,
}

/// What ended a wait.
enum Event {
    Command(Option<Command>),
    Ended(Result<(), RpcError>),
    Sent,
    Batch(Batch),
    ReaderDone,
}

/// Everything between the readers and the stream.
struct Flow {
    outgoing: Option<Outgoing>,
    /// Taken from the readers and not sent yet.
    pending: Option<v1::PublishLogsMessage>,
    lines: mpsc::Receiver<Batch>,
    readers: JoinSet<()>,
}

impl Publication {
    /// Runs until it is cancelled, or everything was published.
    pub(crate) async fn run(mut self) {
        let (line_sender, lines) = mpsc::channel(BATCHES_MAX);
        let mut epoch = Epoch::default();
        let mut is_complete = false;
        let mut flow = Flow {
            outgoing: None,
            pending: None,
            lines,
            readers: JoinSet::new(),
        };
        loop {
            // A publication without a connection is not over: what it has to say is that it is.
            let is_over = is_complete && flow.is_drained();
            if let Some(outgoing) = flow.outgoing.take_if(|_| is_over) {
                let Some(client) = self.finish(outgoing).await else {
                    break;
                };
                epoch = client.epoch;
                flow.outgoing = Some(self.open(client));
                continue;
            }
            match self.wait(&mut flow).await {
                Event::Command(None | Some(Command::Cancel)) => break,
                Event::Command(Some(Command::Complete)) => is_complete = true,
                Event::Command(Some(Command::Read(task, options))) => {
                    let reader = self.reader(task, options);
                    flow.readers.spawn(reader.run(line_sender.clone()));
                }
                Event::Command(Some(Command::Connect(client))) => {
                    epoch = client.epoch;
                    flow.outgoing = Some(self.open(client));
                    // An empty message at once: it says for which subscription the stream is,
                    // however long the first line may take.
                    flow.pending = flow.pending.or_else(|| Some(self.message(Vec::new())));
                }
                Event::Ended(ended) => {
                    flow.outgoing = None;
                    let id = self.id.clone();
                    tell(&self.heard, Heard::Published(id, epoch, ended)).await;
                }
                Event::Batch(batch) => flow.pending = Some(self.message(self.lines(batch))),
                Event::Sent | Event::ReaderDone => {}
            }
        }
        flow.readers.shutdown().await;
        self.close(flow.outgoing).await;
        tell(&self.heard, Heard::Published(self.id, epoch, Ok(()))).await;
    }

    /// Waits for whatever comes first. Each branch is safe to be dropped: a message that could not
    /// be sent stays pending.
    async fn wait(&mut self, flow: &mut Flow) -> Event {
        let Flow {
            outgoing,
            pending,
            lines,
            readers,
        } = flow;
        let wants_lines = outgoing.is_some() && pending.is_none();
        let has_readers = !readers.is_empty();
        tokio::select! {
            biased;
            command = self.commands.recv() => Event::Command(command),
            event = progress(outgoing, pending) => event,
            Some(batch) = lines.recv(), if wants_lines => Event::Batch(batch),
            Some(_) = readers.join_next(), if has_readers => Event::ReaderDone,
        }
    }

    fn open(&self, client: LogClient) -> Outgoing {
        let (messages, received) = mpsc::channel(1);
        let request = Request::new(ReceiverStream::new(received));
        let LogClient {
            mut client,
            address,
            ..
        } = client;
        let mut call = JoinSet::new();
        call.spawn(async move {
            let answer = client.publish_logs(request).await;
            let status = match answer {
                Ok(_) => return Ok(()),
                Err(status) => status,
            };
            Err(rpc_error(&address, &status))
        });
        Outgoing { messages, call }
    }

    /// Says that nothing follows, and waits until everything was taken. That takes as long as the
    /// subscriber takes to read: what is on its way is lost when the stream goes before. Returns
    /// the connection on which to say it once more, if the manager names another one.
    async fn finish(&mut self, outgoing: Outgoing) -> Option<LogClient> {
        let closing = self.closing(outgoing);
        tokio::select! {
            () = closing => None,
            client = reconnected(&mut self.commands) => client,
        }
    }

    /// Says that nothing follows to somebody who wants nothing more.
    async fn close(&self, outgoing: Option<Outgoing>) {
        let Some(outgoing) = outgoing else {
            return;
        };
        let closing = tokio::time::timeout(CLOSE_TIMEOUT, self.closing(outgoing));
        if closing.await.is_err() {
            tracing::debug!(
                subscription = self.id,
                "a manager did not take a close in time"
            );
        }
    }

    /// Sends the last message, and waits for the answer. Dropping it resets the stream.
    fn closing(&self, outgoing: Outgoing) -> impl Future<Output = ()> + use<> {
        let Outgoing { messages, mut call } = outgoing;
        let mut last = self.message(Vec::new());
        last.close = true;
        async move {
            if messages.send(last).await.is_ok() {
                drop(messages);
                // Managers may answer with an error; nothing depends on it.
                let _answer = ended(&mut call).await;
            }
        }
    }

    fn reader(&self, task: Arc<Task>, options: LogOptions) -> Reader {
        Reader {
            executor: Arc::clone(&self.executor),
            clock: self.clock.clone(),
            permits: Arc::clone(&self.readers),
            task,
            options,
        }
    }

    fn message(&self, messages: Vec<v1::LogMessage>) -> v1::PublishLogsMessage {
        v1::PublishLogsMessage {
            subscription_id: self.id.clone(),
            messages,
            close: false,
        }
    }

    fn lines(&self, batch: Batch) -> Vec<v1::LogMessage> {
        let service = batch.task.service_id.as_ref();
        let context = v1::LogContext {
            service_id: service.map(ToString::to_string).unwrap_or_default(),
            node_id: self.node.to_string(),
            task_id: batch.task.id.to_string(),
        };
        let wire = |line: LogLine| v1::LogMessage {
            context: Some(context.clone()),
            timestamp: line.at.map(|at| at.to_wire()),
            stream: line.origin.to_wire() as i32,
            data: line.data,
            attrs: Vec::new(),
        };
        batch.lines.into_iter().map(wire).collect()
    }
}

impl Flow {
    /// Whether everything that was read is on its way. Readers put all of it into the channel
    /// before they end.
    fn is_drained(&self) -> bool {
        self.pending.is_none() && self.readers.is_empty() && self.lines.is_empty()
    }
}

/// Waits for another connection, or until nobody wants anything more.
async fn reconnected(commands: &mut mpsc::UnboundedReceiver<Command>) -> Option<LogClient> {
    loop {
        match commands.recv().await? {
            Command::Connect(client) => return Some(client),
            Command::Cancel => return None,
            // Said already.
            Command::Read(..) | Command::Complete => {}
        }
    }
}

/// Sends what is pending, or learns that the stream has ended.
async fn progress(
    outgoing: &mut Option<Outgoing>,
    pending: &mut Option<v1::PublishLogsMessage>,
) -> Event {
    let Some(Outgoing { messages, call }) = outgoing else {
        return std::future::pending().await;
    };
    if pending.is_none() {
        return Event::Ended(ended(call).await);
    }
    tokio::select! {
        biased;
        answer = ended(call) => Event::Ended(answer),
        Ok(permit) = messages.reserve() => {
            if let Some(message) = pending.take() {
                permit.send(message);
            }
            Event::Sent
        }
    }
}

/// How a stream ended. Cancel safe.
async fn ended(call: &mut JoinSet<Result<(), RpcError>>) -> Result<(), RpcError> {
    match call.join_next().await {
        Some(Ok(answer)) => answer,
        Some(Err(error)) => Err(rpc_error("", &Status::internal(error.to_string()))),
        // Asked again after the end.
        None => std::future::pending().await,
    }
}

/// Reads one task.
struct Reader {
    executor: Arc<dyn Executor>,
    clock: Clock,
    permits: Arc<Semaphore>,
    task: Arc<Task>,
    options: LogOptions,
}

impl Reader {
    /// Reads to the end. Trouble becomes a notice between the lines: it concerns one task only.
    async fn run(self, lines: mpsc::Sender<Batch>) {
        let _permit = match self.permit().await {
            Ok(permit) => permit,
            Err(text) => return self.notice(&lines, &text).await,
        };
        if let Err(text) = self.read(&lines).await {
            self.notice(&lines, &text).await;
        }
    }

    async fn permit(&self) -> Result<tokio::sync::OwnedSemaphorePermit, String> {
        let permits = Arc::clone(&self.permits);
        if self.options.follow {
            return permits.try_acquire_owned().map_err(|_| {
                format!(
                    "output of task {} is left out: its node reads {READERS_MAX} tasks already, \
                     follow fewer",
                    self.task.id
                )
            });
        }
        let permit = permits.acquire_owned().await;
        permit.map_err(|error| error.to_string())
    }

    async fn read(&self, lines: &mpsc::Sender<Batch>) -> Result<(), String> {
        let trouble = |error| format!("output of task {} cannot be read: {error}", self.task.id);
        let opened = self.executor.logs(Arc::clone(&self.task), self.options);
        let mut stream = opened.await.map_err(trouble)?;
        let mut pace = LogPace::new(self.clock.now());
        while let Some(mut rest) = stream.next().await.map_err(trouble)? {
            while !rest.is_empty() {
                let more = rest.split_off(rest.len().min(LINES_PER_MESSAGE_MAX));
                let batch = std::mem::replace(&mut rest, more);
                let bytes: usize = batch.iter().map(|line| line.data.len()).sum();
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                let pause = pace.take(self.clock.now(), bytes);
                if pause > Duration::ZERO {
                    tokio::time::sleep(pause).await;
                }
                self.put(lines, batch).await;
            }
        }
        Ok(())
    }

    async fn notice(&self, lines: &mpsc::Sender<Batch>, text: &str) {
        self.put(lines, vec![LogLine::notice(text)]).await;
    }

    async fn put(&self, sender: &mpsc::Sender<Batch>, lines: Vec<LogLine>) {
        let task = Arc::clone(&self.task);
        // Fails only when the publication is over, which ends this reader as well.
        drop(sender.send(Batch { task, lines }).await);
    }
}

#[cfg(test)]
mod tests;
