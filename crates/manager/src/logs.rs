//! The log broker's task: feeds the broker with calls, streams, commits and time, and carries out
//! what it asks for.
//!
//! Lines do not pass through here: they go from the handler of a publisher into the queue of the
//! subscriber ([`queue`]), which holds publishers back when it is full. So neither the leader's
//! task nor this one ever waits for a slow reader. Refuses to own: who may call.

pub(crate) mod queue;

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_dispatcher::StreamId;
use swarm_log_broker::{
    Broker, BrokerError, ListenerId, Output, Publication, PublisherId, SubscriptionId,
};
use swarm_raft_io::ReplicatedStore;
use swarm_rt::tasks::TaskError;
use swarm_rt::{Clock, OsIds, Shutdown};
use swarm_store::{Filter, Received, Subscription};
use swarm_types::NodeId;
use tokio::sync::{mpsc, oneshot};
use tonic::Status;

use crate::services::logs::status_of;
use crate::streams::{NodeStream, Sink, StreamEvent};
use queue::{LineSender, LineStream, Subscriber};

/// Calls that wait for the broker's task; each holds its caller back.
const CALLS_MAX: usize = 1_024;
/// Changes that may wait for the broker before it looks at all tasks again.
const FEED_CHANGES_MAX: usize = 100_000;
/// Inputs taken in before the outputs get their turn.
const INPUTS_PER_TURN_MAX: usize = 256;

/// A call of a client or a node.
pub(crate) enum LogCall {
    Subscribe {
        request: Box<v1::SubscribeLogsRequest>,
        reply: oneshot::Sender<Result<LineStream, BrokerError>>,
    },
    Listen {
        node: NodeId,
        reply: oneshot::Sender<NodeStream<v1::SubscriptionMessage>>,
    },
    Publish {
        publication: Box<Publication>,
        reply: oneshot::Sender<Result<Intake, BrokerError>>,
    },
}

/// What became of the streams of clients and publishers.
pub(crate) enum LogEvent {
    /// A client reads no more.
    Unsubscribed(SubscriptionId),
    /// A publisher has ended.
    Published(PublisherId, Result<(), String>),
}

/// The services' side of the channel.
pub(crate) type LogCalls = mpsc::Sender<LogCall>;

pub(crate) fn channel() -> (LogCalls, mpsc::Receiver<LogCall>) {
    mpsc::channel(CALLS_MAX)
}

/// Where a publisher puts its lines. Dropped without an end, it counts as broken.
pub(crate) struct Intake {
    publisher: PublisherId,
    /// Whether silence is normal.
    pub(crate) follow: bool,
    lines: LineSender,
    events: mpsc::UnboundedSender<LogEvent>,
    has_ended: bool,
}

impl Intake {
    /// Puts lines behind those of all publishers, as soon as there is room. `false` when nobody
    /// wants them any more. Dropping the future drops the lines.
    pub(crate) async fn put(&self, lines: Vec<v1::LogMessage>) -> bool {
        self.lines.put(lines).await
    }

    /// Waits until nobody wants lines any more. Cancel safe.
    pub(crate) async fn unwanted(&self) {
        self.lines.unwanted().await;
    }

    /// Everything was put, or will never be.
    pub(crate) fn end(mut self, ended: Result<(), String>) {
        self.tell(ended);
    }

    fn tell(&mut self, ended: Result<(), String>) {
        self.has_ended = true;
        // Fails only when the broker's term is over.
        let event = LogEvent::Published(self.publisher, ended);
        let _ = self.events.send(event);
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        if !self.has_ended {
            self.tell(Err("its stream broke".to_owned()));
        }
    }
}

/// Serves whenever this manager leads, until it stops.
pub(crate) async fn run(
    store: ReplicatedStore,
    clock: Clock,
    mut incoming: mpsc::Receiver<LogCall>,
    stop: Shutdown,
) -> Result<(), TaskError> {
    loop {
        tokio::select! {
            biased;
            () = stop.begun() => return Ok(()),
            gained = store.leadership_gained() => gained?,
        }
        let mut term = Term::new(store.clone(), clock.clone());
        tokio::select! {
            () = term.serve(&mut incoming) => {}
            () = stop.begun() => {}
        }
        term.end();
    }
}

/// Everything that belongs to one term; dropped with it.
struct Term {
    store: ReplicatedStore,
    clock: Clock,
    ids: OsIds,
    broker: Broker,
    /// Open while somebody follows.
    feed: Option<Subscription>,
    subscribers: BTreeMap<SubscriptionId, Subscriber>,
    listeners: BTreeMap<StreamId, Sink<v1::SubscriptionMessage>>,
    /// Unbounded, but each stream of a client or publisher has one event in it.
    events: mpsc::UnboundedReceiver<LogEvent>,
    event_sender: mpsc::UnboundedSender<LogEvent>,
    /// Unbounded, but a listener has at most one `Sent` and one `Closed` in it.
    streams: mpsc::UnboundedReceiver<StreamEvent>,
    stream_sender: mpsc::UnboundedSender<StreamEvent>,
}

/// What ended a wait.
enum Input {
    Deposed,
    Feed(Received),
    Call(LogCall),
    Event(LogEvent),
    Stream(StreamEvent),
    Time,
}

impl Term {
    fn new(store: ReplicatedStore, clock: Clock) -> Self {
        let (event_sender, events) = mpsc::unbounded_channel();
        let (stream_sender, streams) = mpsc::unbounded_channel();
        Self {
            store,
            clock,
            ids: OsIds::new(),
            broker: Broker::new(),
            feed: None,
            subscribers: BTreeMap::new(),
            listeners: BTreeMap::new(),
            events,
            event_sender,
            streams,
            stream_sender,
        }
    }

    async fn serve(&mut self, incoming: &mut mpsc::Receiver<LogCall>) {
        loop {
            self.turn();
            let wake = self.broker.poll_timeout();
            let feed = &mut self.feed;
            let mut input = tokio::select! {
                biased;
                () = self.store.leadership_lost() => Input::Deposed,
                received = next(feed) => Input::Feed(received),
                Some(event) = self.streams.recv() => Input::Stream(event),
                Some(event) = self.events.recv() => Input::Event(event),
                Some(call) = incoming.recv() => Input::Call(call),
                () = self.clock.sleep_until(wake) => Input::Time,
            };
            for _ in 0..INPUTS_PER_TURN_MAX {
                if matches!(input, Input::Deposed) {
                    return;
                }
                self.take(input);
                self.carry_out();
                match self.waiting(incoming) {
                    Some(next) => input = next,
                    None => break,
                }
            }
        }
    }

    /// What has arrived in the meantime.
    fn waiting(&mut self, incoming: &mut mpsc::Receiver<LogCall>) -> Option<Input> {
        if let Ok(event) = self.streams.try_recv() {
            return Some(Input::Stream(event));
        }
        if let Ok(event) = self.events.try_recv() {
            return Some(Input::Event(event));
        }
        incoming.try_recv().ok().map(Input::Call)
    }

    fn turn(&mut self) {
        let now = self.clock.now();
        self.broker.handle_timeout(now);
        match (self.broker.is_following(), &self.feed) {
            (true, None) => self.watch(),
            (false, Some(_)) => self.feed = None,
            (true, Some(_)) | (false, None) => {}
        }
        self.carry_out();
    }

    /// Watches the store from now on, and looks at what happened before.
    fn watch(&mut self) {
        let store = self.store.store();
        let (view, feed) = store.view_and_watch_bounded(Filter::All, FEED_CHANGES_MAX);
        self.feed = Some(feed);
        self.broker.handle_lag(self.clock.now(), &view);
    }

    fn take(&mut self, input: Input) {
        let now = self.clock.now();
        match input {
            Input::Deposed | Input::Time => {}
            Input::Feed(Received::Event(event)) => {
                self.broker.handle_commit(now, event.commit());
            }
            Input::Feed(Received::Lagged { .. } | Received::Closed) => self.watch(),
            Input::Stream(StreamEvent::Sent(StreamId(number))) => {
                self.broker.handle_sent(ListenerId(number));
            }
            Input::Stream(StreamEvent::Closed(stream)) => {
                self.listeners.remove(&stream);
                self.broker.handle_listener_closed(ListenerId(stream.0));
            }
            Input::Event(LogEvent::Unsubscribed(id)) => {
                self.subscribers.remove(&id);
                self.broker.handle_unsubscribe(&id);
            }
            Input::Event(LogEvent::Published(publisher, ended)) => {
                self.broker.handle_published(publisher, ended);
            }
            Input::Call(call) => self.call(call),
        }
    }

    fn call(&mut self, call: LogCall) {
        let now = self.clock.now();
        // A caller that went away dropped its stream, which reports itself.
        match call {
            LogCall::Subscribe { request, reply } => {
                let view = self.store.view();
                let opened = self
                    .broker
                    .handle_subscribe(now, *request, &view, &mut self.ids);
                let opened = opened.map(|id| {
                    let (subscriber, lines) = queue::open(id.clone(), self.event_sender.clone());
                    self.subscribers.insert(id, subscriber);
                    lines
                });
                drop(reply.send(opened));
            }
            LogCall::Listen { node, reply } => {
                let listener = self.broker.handle_listen(now, node);
                let stream = StreamId(listener.0);
                let (sink, reader) = Sink::open(stream, &self.stream_sender);
                self.listeners.insert(stream, sink);
                drop(reply.send(reader));
            }
            LogCall::Publish { publication, reply } => {
                let accepted = self.publish(&publication);
                drop(reply.send(accepted));
            }
        }
    }

    fn publish(&mut self, publication: &Publication) -> Result<Intake, BrokerError> {
        let accepted = self.broker.handle_publish(publication)?;
        let subscriber = self.subscribers.get(publication.subscription());
        Ok(Intake {
            publisher: accepted.publisher,
            follow: accepted.follow,
            // Every subscription of the broker has a subscriber: both come and go together.
            lines: subscriber.map_or_else(LineSender::closed, Subscriber::sender),
            events: self.event_sender.clone(),
            has_ended: false,
        })
    }

    fn carry_out(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Tell { listener, message } => {
                    if let Some(sink) = self.listeners.get(&StreamId(listener.0)) {
                        sink.put(Ok(message));
                    }
                }
                Output::EndListener { listener, error } => {
                    if let Some(sink) = self.listeners.remove(&StreamId(listener.0)) {
                        sink.put(Err(status_of(&error)));
                    }
                }
                Output::Notice { subscription, line } => {
                    if let Some(subscriber) = self.subscribers.get(&subscription) {
                        subscriber.notice(line);
                    }
                }
                Output::End {
                    subscription,
                    result,
                } => {
                    if let Some(subscriber) = self.subscribers.remove(&subscription) {
                        subscriber.end(result.map_err(|error| status_of(&error)));
                    }
                }
            }
        }
    }

    /// Tells everyone to look for the next leader.
    fn end(&mut self) {
        for (_, sink) in std::mem::take(&mut self.listeners) {
            sink.put(Err(Status::aborted("node must disconnect")));
        }
        for (_, subscriber) in std::mem::take(&mut self.subscribers) {
            let text = "the log stream ended because its manager leads no more; subscribe again";
            subscriber.end(Err(Status::unavailable(text)));
        }
    }
}

/// The next commit; never, if nobody watches. Cancel safe.
async fn next(feed: &mut Option<Subscription>) -> Received {
    match feed {
        Some(feed) => feed.next().await,
        None => std::future::pending().await,
    }
}
