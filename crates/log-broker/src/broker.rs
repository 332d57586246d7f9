//! The broker: calls of clients and nodes, commits and time go in; messages to nodes, notices and
//! ends of subscriptions come out.
//!
//! A shell turns until [`Broker::poll_output`] yields nothing, and calls [`Broker::handle_sent`]
//! when the transport of a listener has room again. Lines do not pass through here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use swarm_api::v1;
use swarm_store::{Action, Commit, Root};
use swarm_types::{AnyObject, IdSource, NodeId, ServiceId, Task, TaskId, Timers, Timestamp};

use crate::error::{self, BrokerError};
use crate::listeners::Listeners;
use crate::publication::Publication;
use crate::request::{SubscriptionId, Wish};
use crate::subscription::{Part, Subscription};

/// Subscriptions that one manager serves. Each has at most one stream on the connection of a node,
/// so this also bounds what log traffic can take of a connection (`swarm_rt::net`).
pub const SUBSCRIPTIONS_MAX: usize = 50;
/// A node that was asked must publish its first message so soon, unless it follows.
pub const PUBLISH_DEADLINE: Duration = Duration::from_secs(10);
/// A node that publishes what there is, without following, may be silent for so long while nobody
/// holds it up. The shell watches this, because it alone knows who waits for whom.
pub const PUBLISH_SILENCE_MAX: Duration = Duration::from_secs(60);

/// Names a stream on which a node listens for subscriptions; never used twice by one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub u64);

/// Names a stream on which a node publishes; never used twice by one broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublisherId(pub u64);

/// A stream on which a node may publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// To be handed back at its end.
    pub publisher: PublisherId,
    /// Whether silence is normal. Without it [`PUBLISH_SILENCE_MAX`] holds.
    pub follow: bool,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Send this to a listening node. The next one comes after [`Broker::handle_sent`].
    Tell {
        /// To whom.
        listener: ListenerId,
        /// What.
        message: v1::SubscriptionMessage,
    },
    /// End the stream of a listener.
    EndListener {
        /// Which one.
        listener: ListenerId,
        /// With what.
        error: BrokerError,
    },
    /// Put this line between those of the nodes.
    Notice {
        /// For which subscriber.
        subscription: SubscriptionId,
        /// A line whose stream is unknown and whose context names a node only.
        line: v1::LogMessage,
    },
    /// The subscription is over: end the stream behind everything that was published.
    End {
        /// Which one.
        subscription: SubscriptionId,
        /// Whether everything is there.
        result: Result<(), BrokerError>,
    },
}

/// How much there is, for status pages and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Live subscriptions.
    pub subscriptions: usize,
    /// Nodes that listen.
    pub listeners: usize,
    /// Streams on which nodes publish.
    pub publishers: usize,
    /// Nodes that were asked and have not begun.
    pub timers: usize,
}

/// The state of the broker in one leader's term.
#[derive(Debug, Default)]
pub struct Broker {
    subscriptions: BTreeMap<SubscriptionId, Subscription>,
    listeners: Listeners,
    publishers: BTreeMap<PublisherId, (SubscriptionId, NodeId)>,
    /// Subscriptions that follow, by what new tasks they wait for.
    by_service: BTreeMap<ServiceId, BTreeSet<SubscriptionId>>,
    by_task: BTreeMap<TaskId, BTreeSet<SubscriptionId>>,
    /// When a node that was asked must have begun.
    timers: Timers<(SubscriptionId, NodeId)>,
    /// Bounded: an input makes at most one output for each node of a subscription, and the shell
    /// takes all of them before the next input.
    outputs: VecDeque<Output>,
    last: u64,
}

impl Broker {
    /// A broker without subscriptions.
    pub fn new() -> Self {
        Self::default()
    }

    /// A client asks for lines.
    ///
    /// # Errors
    /// A malformed or empty selector, unknown objects, and [`SUBSCRIPTIONS_MAX`].
    pub fn handle_subscribe(
        &mut self,
        now: Timestamp,
        request: v1::SubscribeLogsRequest,
        view: &Root,
        ids: &mut dyn IdSource,
    ) -> Result<SubscriptionId, BrokerError> {
        let wish = Wish::read(request.selector, request.options, view)?;
        if self.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(BrokerError::too_many_subscriptions(SUBSCRIPTIONS_MAX));
        }
        let id = SubscriptionId::new(ids.next_id());
        let subscription = Subscription::new(&id, wish, view);
        if subscription.follow {
            for service in &subscription.wanted.services {
                let entry = self.by_service.entry(service.clone()).or_default();
                entry.insert(id.clone());
            }
            for task in &subscription.wanted.tasks {
                let entry = self.by_task.entry(task.clone()).or_default();
                entry.insert(id.clone());
            }
        }
        let nodes: Vec<NodeId> = subscription.nodes().cloned().collect();
        self.subscriptions.insert(id.clone(), subscription);
        for node in &nodes {
            self.ask(now, &id, node);
        }
        self.end_if_complete(&id);
        Ok(id)
    }

    /// The client went away.
    pub fn handle_unsubscribe(&mut self, id: &SubscriptionId) {
        self.remove(id);
    }

    /// A node listens for subscriptions. Its earlier stream ends; what concerns it is told anew.
    pub fn handle_listen(&mut self, now: Timestamp, node: NodeId) -> ListenerId {
        self.last += 1;
        let listener = ListenerId(self.last);
        if let Some(before) = self.listeners.open(listener, node.clone()) {
            self.outputs.push_back(Output::EndListener {
                listener: before,
                error: BrokerError::listener_replaced(),
            });
        }
        let concerned = self.subscriptions.iter().filter(|(_, own)| {
            let part = own.part(&node);
            part.is_some_and(|part| own.follow || part != Part::Over)
        });
        let concerned: Vec<SubscriptionId> = concerned.map(|(id, _)| id.clone()).collect();
        for id in concerned {
            self.ask(now, &id, &node);
        }
        listener
    }

    /// The transport took the message of a listener.
    pub fn handle_sent(&mut self, listener: ListenerId) {
        self.listeners.handle_sent(listener);
    }

    /// The stream of a listener is gone, and its node with it as far as lines are concerned.
    pub fn handle_listener_closed(&mut self, listener: ListenerId) {
        let Some(node) = self.listeners.close(listener) else {
            return;
        };
        let concerned = self.subscriptions.iter();
        let concerned = concerned.filter(|(_, own)| own.part(&node).is_some());
        let concerned: Vec<SubscriptionId> = concerned.map(|(id, _)| id.clone()).collect();
        for id in concerned {
            self.end_part(&id, &node, Some(error::disconnected(&node)));
        }
    }

    /// A node begins to publish. Its earlier stream for the same subscription does not count any
    /// more.
    ///
    /// # Errors
    /// `NotFound` when there is no such subscription, or it does not ask this node.
    pub fn handle_publish(&mut self, publication: &Publication) -> Result<Accepted, BrokerError> {
        let (id, node) = (publication.subscription(), publication.node());
        let subscription = self.subscriptions.get_mut(id);
        let subscription = subscription.ok_or_else(BrokerError::unknown_subscription)?;
        let before = subscription.part(node);
        let is_asked = match before {
            Some(Part::Asked | Part::Publishing(_)) => true,
            Some(Part::Over) => subscription.follow,
            None => false,
        };
        if !is_asked {
            return Err(BrokerError::unknown_subscription());
        }
        self.last += 1;
        let publisher = PublisherId(self.last);
        subscription.set(node, Part::Publishing(publisher));
        let follow = subscription.follow;
        self.publishers
            .insert(publisher, (id.clone(), node.clone()));
        self.timers.clear(&(id.clone(), node.clone()));
        if let Some(Part::Publishing(earlier)) = before {
            self.publishers.remove(&earlier);
            self.miss(id, node, error::published_anew(node));
        }
        Ok(Accepted { publisher, follow })
    }

    /// A node published its last line, or its stream broke for the reason given. Everything that
    /// came before is in the queue of the subscriber.
    pub fn handle_published(&mut self, publisher: PublisherId, ended: Result<(), String>) {
        let Some((id, node)) = self.publishers.remove(&publisher) else {
            return;
        };
        let reason = ended.err();
        let reason = reason.map(|reason| error::publishing_failed(&node, &reason));
        self.end_part(&id, &node, reason);
    }

    /// Takes notice of a commit: subscriptions that follow take in new tasks.
    pub fn handle_commit(&mut self, now: Timestamp, commit: &Commit) {
        if self.by_service.is_empty() && self.by_task.is_empty() {
            return;
        }
        for change in &commit.changes {
            let AnyObject::Task(task) = &change.object else {
                continue;
            };
            self.observe_task(now, change.action, task);
        }
    }

    /// Commits were missed: looks at all tasks of all subscriptions that follow.
    pub fn handle_lag(&mut self, now: Timestamp, view: &Root) {
        let following = self.subscriptions.iter_mut().filter(|(_, own)| own.follow);
        let new: Vec<_> = following
            .map(|(id, own)| (id.clone(), own.match_all(view)))
            .collect();
        for (id, nodes) in new {
            for node in nodes {
                self.ask(now, &id, &node);
            }
        }
    }

    /// Gives up on nodes that were asked and did not begin.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some((id, node)) = self.timers.pop_due(now) {
            let reason = error::does_not_publish(&node, PUBLISH_DEADLINE.as_secs());
            self.end_part(&id, &node, Some(reason));
        }
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        self.timers.next().map(|(at, _)| at)
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let (listener, message) = self.listeners.poll()?;
        Some(Output::Tell { listener, message })
    }

    /// Whether commits matter: only to subscriptions that follow.
    pub fn is_following(&self) -> bool {
        !self.by_service.is_empty() || !self.by_task.is_empty()
    }

    /// How much there is.
    pub fn status(&self) -> Status {
        Status {
            subscriptions: self.subscriptions.len(),
            listeners: self.listeners.len(),
            publishers: self.publishers.len(),
            timers: self.timers.len(),
        }
    }

    fn observe_task(&mut self, now: Timestamp, action: Action, task: &Task) {
        let service = task.service_id.as_ref();
        let by_service = service.and_then(|id| self.by_service.get(id));
        let by_task = self.by_task.get(&task.id);
        let concerned = by_service.into_iter().chain(by_task).flatten();
        let concerned: BTreeSet<SubscriptionId> = concerned.cloned().collect();
        for id in concerned {
            let Some(subscription) = self.subscriptions.get_mut(&id) else {
                continue;
            };
            match action {
                Action::Create | Action::Update => {
                    debug_assert!(subscription.wanted.takes(task), "the index led here");
                    if let Some(node) = subscription.take(task) {
                        self.ask(now, &id, &node);
                    }
                }
                Action::Remove => subscription.drop_task(&task.id),
            }
        }
    }

    /// Asks a node to publish, or notes that it cannot be asked.
    fn ask(&mut self, now: Timestamp, id: &SubscriptionId, node: &NodeId) {
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            return;
        };
        if !self.listeners.is_listening(node) {
            return self.end_part(id, node, Some(error::not_available(node)));
        }
        // A node that publishes goes on; its new stream of subscriptions names all that it has.
        if !matches!(subscription.part(node), Some(Part::Publishing(_))) {
            subscription.set(node, Part::Asked);
            let timer = (id.clone(), node.clone());
            // A node that listens anew gets no more time: it could do so for ever. One that follows
            // a quiet task may have nothing to say (the Engine's agent sends its first message with
            // the first line); whether it is alive is seen by its stream of subscriptions.
            if !subscription.follow && self.timers.get(&timer).is_none() {
                self.timers.set(timer, now.saturating_add(PUBLISH_DEADLINE));
            }
        }
        self.listeners.tell_open(node, id, &subscription.message);
    }

    /// A node's part is over; with a reason, something of it is missing.
    fn end_part(&mut self, id: &SubscriptionId, node: &NodeId, reason: Option<String>) {
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            return;
        };
        match subscription.part(node) {
            None | Some(Part::Over) => return,
            Some(Part::Publishing(publisher)) => drop(self.publishers.remove(&publisher)),
            Some(Part::Asked) => {}
        }
        subscription.set(node, Part::Over);
        self.timers.clear(&(id.clone(), node.clone()));
        if !subscription.follow {
            match &reason {
                // It may go on with what nobody waits for.
                Some(_) => {
                    let closing = subscription.closing();
                    self.listeners.tell_close(node, id, &closing);
                }
                None => self.listeners.forget_subscription(node, id),
            }
        }
        if let Some(reason) = reason {
            self.miss(id, node, reason);
        }
        self.end_if_complete(id);
    }

    /// Something of a node is missing: at the end the subscriber is told, at once if it follows.
    fn miss(&mut self, id: &SubscriptionId, node: &NodeId, reason: String) {
        let Some(subscription) = self.subscriptions.get_mut(id) else {
            return;
        };
        if !subscription.follow {
            return subscription.miss(reason);
        }
        self.outputs.push_back(Output::Notice {
            subscription: id.clone(),
            line: notice(node, &reason),
        });
    }

    fn end_if_complete(&mut self, id: &SubscriptionId) {
        let Some(subscription) = self.subscriptions.get(id) else {
            return;
        };
        if !subscription.is_complete() {
            return;
        }
        let result = subscription.verdict();
        self.remove(id);
        self.outputs.push_back(Output::End {
            subscription: id.clone(),
            result,
        });
    }

    fn remove(&mut self, id: &SubscriptionId) {
        let Some(subscription) = self.subscriptions.remove(id) else {
            return;
        };
        let closing = subscription.closing();
        for node in subscription.nodes() {
            self.listeners.tell_close(node, id, &closing);
            self.timers.clear(&(id.clone(), node.clone()));
            if let Some(Part::Publishing(publisher)) = subscription.part(node) {
                self.publishers.remove(&publisher);
            }
        }
        forget(&mut self.by_service, &subscription.wanted.services, id);
        forget(&mut self.by_task, &subscription.wanted.tasks, id);
    }
}

fn forget<K: Ord>(
    index: &mut BTreeMap<K, BTreeSet<SubscriptionId>>,
    keys: &BTreeSet<K>,
    id: &SubscriptionId,
) {
    for key in keys {
        if let Some(ids) = index.get_mut(key) {
            ids.remove(id);
            if ids.is_empty() {
                index.remove(key);
            }
        }
    }
}

/// A line about a node. Clients of SwarmKit skip lines of an unknown stream.
fn notice(node: &NodeId, reason: &str) -> v1::LogMessage {
    v1::LogMessage {
        context: Some(v1::LogContext {
            node_id: node.to_string(),
            ..Default::default()
        }),
        timestamp: None,
        stream: v1::LogStream::Unknown as i32,
        data: Bytes::from(format!("{reason}\n")),
        attrs: Vec::new(),
    }
}
