//! The log broker of a term with its streams, as `swarm-manager` drives it; and what its clients
//! saw, for the checks.
//!
//! Lines go past the broker here as well. Not simulated: queues that are full.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_agent::{Reply, RpcError};
use swarm_api::v1;
use swarm_log_broker::{
    Broker, BrokerError, Code, ListenerId, Output, PUBLISH_SILENCE_MAX, Publication, PublisherId,
    SubscriptionId,
};
use swarm_store::{Filter, Received, Root, Subscription};
use swarm_types::{NodeId, Task, TaskState, Timestamp};

use super::Io;
use super::replica::Replica;
use crate::event::{ConnId, Event, Life, ManagerEvent, Payload, StreamKind};
use crate::invariants::{Checked, LINES_END, LINES_KEPT, LINES_NOTICE, LINES_TOLD, ensure};
use crate::random::Random;
use crate::settings::Settings;
use crate::time::{Instant, MS, S};

/// A subscription that does not follow has ended after so long: the time to begin, and the silence
/// that is borne behind each of the few messages.
const ANSWER_MAX: u64 = 300 * S;
/// A follower has heard after so long that a node of its tasks is not there.
const NOTICE_MAX: u64 = 5 * S;

/// A stream on which a node listens.
#[derive(Debug)]
struct Listener {
    conn: ConnId,
    node: NodeId,
    /// Subscriptions that it was told of and that did not end.
    told: BTreeSet<String>,
    is_sending: bool,
}

/// A stream on which a node publishes.
#[derive(Debug)]
struct Stream {
    publisher: PublisherId,
    publication: Publication,
    is_following: bool,
    heard_at: Timestamp,
}

/// A client that reads.
#[derive(Debug)]
struct Client {
    selector: v1::LogSelector,
    is_following: bool,
    begun: Instant,
    /// The nodes that had something to say at the beginning.
    nodes: BTreeSet<NodeId>,
    /// Those that said that it was all.
    closed: BTreeSet<NodeId>,
    /// When a node was last heard, and when the client was last told that it is missing.
    heard: BTreeMap<NodeId, Instant>,
    noticed: BTreeMap<NodeId, Instant>,
    /// Since when a node is neither there nor missed.
    unexplained: BTreeMap<NodeId, Instant>,
}

/// Everything about lines in one term.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    broker: Broker,
    /// Open while somebody follows.
    feed: Option<Subscription>,
    clients: BTreeMap<SubscriptionId, Client>,
    listeners: BTreeMap<ListenerId, Listener>,
    streams: BTreeMap<(ConnId, u64), Stream>,
    /// Streams that were answered; what else comes on them is lost.
    answered: BTreeSet<(ConnId, u64)>,
}

impl Lines {
    /// A client asks for lines; its subscription, or why there is none.
    pub(crate) fn subscribe(
        &mut self,
        (now, at): (Timestamp, Instant),
        request: v1::SubscribeLogsRequest,
        view: &Root,
        ids: &mut Random,
    ) -> Result<(), BrokerError> {
        let selector = request.selector.clone().unwrap_or_default();
        let is_following = request.options.as_ref().is_some_and(|own| own.follow);
        let id = self.broker.handle_subscribe(now, request, view, ids)?;
        let client = Client {
            nodes: nodes_of(&selector, view, TaskState::Running),
            selector,
            is_following,
            begun: at,
            closed: BTreeSet::new(),
            heard: BTreeMap::new(),
            noticed: BTreeMap::new(),
            unexplained: BTreeMap::new(),
        };
        self.clients.insert(id, client);
        Ok(())
    }

    /// A client goes away.
    pub(crate) fn unsubscribe(&mut self, now: Timestamp, place: usize) {
        if let Some(id) = self.clients.keys().nth(place).cloned() {
            self.clients.remove(&id);
            self.broker.handle_unsubscribe(&id);
            self.let_go(now, &id);
        }
    }

    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }

    /// The places of clients that do not end by themselves.
    pub(crate) fn following(&self) -> Option<usize> {
        self.clients.values().position(|client| client.is_following)
    }

    pub(super) fn listen(&mut self, now: Timestamp, conn: ConnId, node: NodeId) {
        let listener = self.broker.handle_listen(now, node.clone());
        let stream = Listener {
            conn,
            node,
            told: BTreeSet::new(),
            is_sending: false,
        };
        self.listeners.insert(listener, stream);
    }

    /// The transport took the message of a listener.
    pub(super) fn sent(&mut self, listener: ListenerId) {
        if let Some(own) = self.listeners.get_mut(&listener) {
            own.is_sending = false;
        }
        self.broker.handle_sent(listener);
    }

    /// A message on a publishing stream.
    pub(super) fn publish(
        &mut self,
        io: &mut Io<'_>,
        now: Timestamp,
        (conn, number): (ConnId, u64),
        node: NodeId,
        message: &v1::PublishLogsMessage,
    ) {
        let key = (conn, number);
        if self.answered.contains(&key) {
            return;
        }
        if !self.streams.contains_key(&key) {
            match self.open(now, node.clone(), message) {
                Ok(stream) => drop(self.streams.insert(key, stream)),
                Err(error) => return self.answer(io, key, message, Err(error)),
            }
        }
        let Some(stream) = self.streams.get_mut(&key) else {
            return;
        };
        stream.heard_at = now;
        if let Err(error) = stream.publication.check(message) {
            let publisher = stream.publisher;
            self.broker
                .handle_published(publisher, Err(error.to_string()));
            return self.answer(io, key, message, Err(error));
        }
        let (id, publisher) = (stream.publication.subscription(), stream.publisher);
        if let Some(client) = self.clients.get_mut(id) {
            client.heard.insert(node.clone(), io.agenda.now());
            if message.close {
                client.closed.insert(node);
            }
        }
        if message.close {
            self.broker.handle_published(publisher, Ok(()));
            self.answer(io, key, message, Ok(()));
        }
    }

    fn open(
        &mut self,
        now: Timestamp,
        node: NodeId,
        first: &v1::PublishLogsMessage,
    ) -> Result<Stream, BrokerError> {
        let publication = Publication::open(node, first)?;
        let accepted = self.broker.handle_publish(&publication)?;
        Ok(Stream {
            publisher: accepted.publisher,
            publication,
            is_following: accepted.follow,
            heard_at: now,
        })
    }

    fn answer(
        &mut self,
        io: &mut Io<'_>,
        (conn, stream): (ConnId, u64),
        message: &v1::PublishLogsMessage,
        result: Result<(), BrokerError>,
    ) {
        self.streams.remove(&(conn, stream));
        self.answered.insert((conn, stream));
        let answer = Payload::Published {
            id: message.subscription_id.clone(),
            stream,
            result: result.map_err(|error| rpc_error(&error)),
        };
        io.network.send_message(io.agenda, conn, None, answer);
    }

    /// Nobody wants the lines of a subscription any more: its streams have ended in order.
    fn let_go(&mut self, now: Timestamp, id: &SubscriptionId) {
        for stream in self.streams.values_mut() {
            if stream.publication.subscription() == id {
                self.broker.handle_published(stream.publisher, Ok(()));
                stream.heard_at = now;
            }
        }
    }

    pub(super) fn closed(&mut self, conn: ConnId) {
        self.answered.retain(|(own, _)| *own != conn);
        let of_conn = self.streams.keys().filter(|(own, _)| *own == conn);
        let of_conn: Vec<_> = of_conn.copied().collect();
        for key in of_conn {
            if let Some(stream) = self.streams.remove(&key) {
                let reason = "its stream broke".to_owned();
                self.broker.handle_published(stream.publisher, Err(reason));
            }
        }
        let listeners = self.listeners.iter().filter(|(_, own)| own.conn == conn);
        let listeners: Vec<_> = listeners.map(|(id, _)| *id).collect();
        for listener in listeners {
            self.listeners.remove(&listener);
            self.broker.handle_listener_closed(listener);
        }
    }

    /// Takes what is due and what was committed, and carries out what the broker asks for.
    pub(super) fn turn(
        &mut self,
        io: &mut Io<'_>,
        (now, life): (Timestamp, Life),
        replica: &Replica,
        settings: &Settings,
        draws: &mut Random,
    ) -> Checked {
        self.broker.handle_timeout(now);
        match (self.broker.is_following(), &self.feed) {
            (true, None) => self.watch(now, replica, settings),
            (false, Some(_)) => self.feed = None,
            (true, Some(_)) | (false, None) => {}
        }
        while let Some(received) = self.feed.as_mut().and_then(Subscription::try_next) {
            match received {
                Received::Event(event) => self.broker.handle_commit(now, event.commit()),
                Received::Lagged { .. } | Received::Closed => self.watch(now, replica, settings),
            }
        }
        self.end_silence(io, now);
        self.carry_out(io, (now, life), settings, draws)
    }

    fn watch(&mut self, now: Timestamp, replica: &Replica, settings: &Settings) {
        let store = &replica.store;
        let (view, feed) = store.view_and_watch_bounded(Filter::All, settings.feed_max);
        self.feed = Some(feed);
        self.broker.handle_lag(now, &view);
    }

    /// A publisher that does not follow and says nothing is given up.
    fn end_silence(&mut self, io: &mut Io<'_>, now: Timestamp) {
        let is_silent = |stream: &Stream| silent_at(stream).is_some_and(|at| at <= now);
        let silent = self.streams.iter().filter(|(_, stream)| is_silent(stream));
        let silent: Vec<_> = silent.map(|(key, _)| *key).collect();
        for key in silent {
            let Some(stream) = self.streams.get(&key) else {
                continue;
            };
            let reason = "it was silent".to_owned();
            self.broker
                .handle_published(stream.publisher, Err(reason.clone()));
            let message = v1::PublishLogsMessage {
                subscription_id: stream.publication.subscription().to_string(),
                ..Default::default()
            };
            let error = BrokerError {
                code: Code::Aborted,
                message: reason,
            };
            self.answer(io, key, &message, Err(error));
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let silences = self.streams.values().filter_map(silent_at);
        silences.chain(self.broker.poll_timeout()).min()
    }

    fn carry_out(
        &mut self,
        io: &mut Io<'_>,
        (now, life): (Timestamp, Life),
        settings: &Settings,
        draws: &mut Random,
    ) -> Checked {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Tell { listener, message } => {
                    self.tell(io, life, (listener, message), settings, draws)?;
                }
                Output::EndListener { listener, error } => {
                    if let Some(own) = self.listeners.remove(&listener) {
                        end_listener(io, own.conn, rpc_error(&error));
                    }
                }
                Output::Notice { subscription, line } => {
                    let node = line.context.and_then(|own| own.node_id.parse().ok());
                    let client = self.clients.get_mut(&subscription);
                    if let (Some(client), Some(node)) = (client, node) {
                        client.noticed.insert(node, io.agenda.now());
                    }
                }
                Output::End {
                    subscription,
                    result,
                } => {
                    if let Some(client) = self.clients.remove(&subscription) {
                        client.check_end(&subscription, result.is_ok())?;
                    }
                    self.let_go(now, &subscription);
                }
            }
        }
        Ok(())
    }

    /// I-LINES-3 and I-LINES-4: what listeners are told.
    fn tell(
        &mut self,
        io: &mut Io<'_>,
        life: Life,
        (listener, message): (ListenerId, v1::SubscriptionMessage),
        settings: &Settings,
        draws: &mut Random,
    ) -> Checked {
        let Some(own) = self.listeners.get_mut(&listener) else {
            return Ok(());
        };
        let is_free = !std::mem::replace(&mut own.is_sending, true);
        let is_news = if message.close {
            own.told.remove(&message.id)
        } else {
            own.told.insert(message.id.clone())
        };
        ensure(is_free && is_news, LINES_TOLD, || {
            format!("{} was told {message:?} (free: {is_free})", own.node)
        })?;
        let kind = Some(StreamKind::Subscriptions);
        let payload = Payload::Subscription(Box::new(message));
        let arrives = io.network.send_message(io.agenda, own.conn, kind, payload);
        if let Some(at) = arrives {
            let sent = Event::Manager(life, ManagerEvent::LogSent(listener));
            if settings.faults.back_pressure {
                io.agenda.at(at, sent);
            } else {
                io.agenda.after(draws.below(2 * MS), sent);
            }
        }
        Ok(())
    }

    /// Tells everyone to look for the next leader.
    pub(super) fn end(&mut self, io: &mut Io<'_>) {
        for (_, own) in std::mem::take(&mut self.listeners) {
            end_listener(io, own.conn, RpcError::new(10, "node must disconnect"));
        }
    }

    /// The slow checks: nothing hangs, nothing is forgotten, nobody is missed in silence.
    pub(crate) fn check(&mut self, at: Instant, view: &Root) -> Checked {
        let status = self.broker.status();
        let is_kept = status.subscriptions == self.clients.len()
            && status.listeners == self.listeners.len()
            && status.publishers <= self.streams.len()
            && (status.subscriptions > 0 || status.publishers == 0 && status.timers == 0);
        ensure(is_kept, LINES_KEPT, || {
            let (clients, listeners) = (self.clients.len(), self.listeners.len());
            let streams = self.streams.len();
            format!("{status:?}: {clients} clients, {listeners} listeners, {streams} streams")
        })?;
        let listening: BTreeSet<_> = self.listeners.values().map(|own| &own.node).collect();
        for (id, client) in &mut self.clients {
            if client.is_following {
                client.check_missing(at, id, view, &listening)?;
            } else {
                ensure(at.0 <= client.begun.0 + ANSWER_MAX, LINES_END, || {
                    format!(
                        "{id} of {:?} is open since {}",
                        client.selector, client.begun
                    )
                })?;
            }
        }
        Ok(())
    }
}

impl Client {
    /// What was called complete is: each node that had something said that it was all.
    fn check_end(&self, id: &SubscriptionId, is_complete: bool) -> Checked {
        let missing = self.nodes.difference(&self.closed).next();
        ensure(!is_complete || missing.is_none(), LINES_END, || {
            format!("{id} ended as complete, and {missing:?} has not closed")
        })
    }

    /// Each node of the tasks listens, or the client knows that it does not.
    fn check_missing(
        &mut self,
        at: Instant,
        id: &SubscriptionId,
        view: &Root,
        listening: &BTreeSet<&NodeId>,
    ) -> Checked {
        let nodes = nodes_of(&self.selector, view, TaskState::Assigned);
        self.unexplained.retain(|node, _| nodes.contains(node));
        for node in nodes {
            let noticed = self.noticed.get(&node);
            let heard = self.heard.get(&node);
            let is_told = noticed.is_some_and(|noticed| heard.is_none_or(|at| noticed >= at));
            if listening.contains(&node) || is_told {
                self.unexplained.remove(&node);
                continue;
            }
            let since = *self.unexplained.entry(node.clone()).or_insert(at);
            ensure(at.0 <= since.0 + NOTICE_MAX, LINES_NOTICE, || {
                format!("{id} follows {node}, which does not listen since {since}")
            })?;
        }
        Ok(())
    }
}

/// The nodes that a selector names, and those of its tasks from a state on.
fn nodes_of(selector: &v1::LogSelector, view: &Root, from: TaskState) -> BTreeSet<NodeId> {
    let is_wanted = |task: &&std::sync::Arc<Task>| {
        let service = task.service_id.as_ref().map(ToString::to_string);
        let by_service = service.is_some_and(|id| selector.service_ids.contains(&id));
        by_service || selector.task_ids.contains(&task.id.to_string())
    };
    let tasks = view.all::<Task>().filter(is_wanted);
    let placed = tasks.filter(|task| task.state() >= from);
    let named = selector.node_ids.iter().filter_map(|id| id.parse().ok());
    placed
        .filter_map(|task| task.node_id.clone())
        .chain(named)
        .collect()
}

fn silent_at(stream: &Stream) -> Option<Timestamp> {
    let silence: Duration = PUBLISH_SILENCE_MAX;
    (!stream.is_following).then(|| stream.heard_at.saturating_add(silence))
}

fn end_listener(io: &mut Io<'_>, conn: ConnId, error: RpcError) {
    let ended = Payload::Reply(Reply::SubscriptionsEnded(error));
    let kind = Some(StreamKind::Subscriptions);
    io.network.send_message(io.agenda, conn, kind, ended);
}

fn rpc_error(error: &BrokerError) -> RpcError {
    let code = match error.code {
        Code::InvalidArgument => 3,
        Code::NotFound => RpcError::NOT_FOUND,
        Code::PermissionDenied => 7,
        Code::ResourceExhausted => 8,
        Code::Aborted => 10,
        Code::Unknown => 2,
    };
    RpcError::new(code, error.message.clone())
}
