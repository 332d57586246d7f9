//! A broker with a store whose commits it sees.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::{Root, Transaction};
use swarm_types::{Id, IdSource, NodeId, Task, TaskId, TaskState, TaskStatus, Timestamp};

use crate::{
    Accepted, Broker, BrokerError, ListenerId, Output, Publication, PublisherId, SubscriptionId,
};

#[derive(Default)]
pub(super) struct Ids(u64);

impl IdSource for Ids {
    fn next_id(&mut self) -> Id {
        self.0 += 1;
        let mut bytes = [0; 17];
        bytes[4..12].copy_from_slice(&self.0.to_be_bytes());
        Id::from_random(bytes)
    }
}

pub(super) struct Rig {
    pub(super) broker: Broker,
    pub(super) view: Arc<Root>,
    pub(super) now: Timestamp,
    ids: Ids,
    pub(super) listeners: BTreeMap<String, ListenerId>,
    /// Ends in the order in which they came.
    pub(super) ends: Vec<(SubscriptionId, Result<(), BrokerError>)>,
    /// Notices by subscription.
    pub(super) notices: Vec<(SubscriptionId, String)>,
    /// What each node was told: the id, and `false` for a close.
    pub(super) told: Vec<(ListenerId, SubscriptionId, bool)>,
    pub(super) replaced: Vec<ListenerId>,
}

pub(super) fn node_id(text: &str) -> NodeId {
    text.parse().unwrap()
}

pub(super) fn task_id(text: &str) -> TaskId {
    text.parse().unwrap()
}

/// A task of service `web`, on a node unless that is empty.
pub(super) fn task(id: &str, node: &str, state: TaskState) -> Task {
    let status = TaskStatus::new(state, Timestamp::EPOCH, "");
    let mut task = Task::new(task_id(id), Arc::default()).with_states(status, TaskState::Running);
    task.service_id = Some("web".parse().unwrap());
    task.node_id = (!node.is_empty()).then(|| node_id(node));
    task
}

pub(super) fn selector(services: &[&str], nodes: &[&str], tasks: &[&str]) -> v1::LogSelector {
    let texts = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
    v1::LogSelector {
        service_ids: texts(services),
        node_ids: texts(nodes),
        task_ids: texts(tasks),
    }
}

pub(super) fn options(follow: bool) -> v1::LogSubscriptionOptions {
    v1::LogSubscriptionOptions {
        follow,
        ..Default::default()
    }
}

pub(super) fn line(node: &str, text: &str) -> v1::LogMessage {
    v1::LogMessage {
        context: Some(v1::LogContext {
            node_id: node.to_owned(),
            ..Default::default()
        }),
        data: text.to_owned().into(),
        ..Default::default()
    }
}

pub(super) fn published(id: &SubscriptionId, lines: Vec<v1::LogMessage>) -> v1::PublishLogsMessage {
    v1::PublishLogsMessage {
        subscription_id: id.to_string(),
        messages: lines,
        close: false,
    }
}

/// Updates a task from whatever it is now.
pub(super) fn change(transaction: &mut Transaction, mut wanted: Task) {
    wanted.meta = transaction.task(&wanted.id).unwrap().meta;
    transaction.update(wanted).unwrap();
}

impl Rig {
    pub(super) fn new(tasks: Vec<Task>) -> Self {
        let now = Timestamp::from_millis(1_000_000_000);
        let mut transaction = Root::default().begin(now);
        for task in tasks {
            transaction.create(task).unwrap();
        }
        Self {
            broker: Broker::new(),
            view: Arc::new(transaction.finish().0),
            now,
            ids: Ids::default(),
            listeners: BTreeMap::new(),
            ends: Vec::new(),
            notices: Vec::new(),
            told: Vec::new(),
            replaced: Vec::new(),
        }
    }

    pub(super) fn commit(&mut self, change: impl FnOnce(&mut Transaction)) {
        let mut transaction = self.view.begin(self.now);
        change(&mut transaction);
        let (root, commit) = transaction.finish();
        self.view = Arc::new(root);
        self.broker.handle_commit(self.now, &commit);
        self.flush();
    }

    pub(super) fn try_subscribe(
        &mut self,
        selector: Option<v1::LogSelector>,
        options: Option<v1::LogSubscriptionOptions>,
    ) -> Result<SubscriptionId, BrokerError> {
        let request = v1::SubscribeLogsRequest { selector, options };
        let id = self
            .broker
            .handle_subscribe(self.now, request, &self.view, &mut self.ids);
        self.flush();
        id
    }

    pub(super) fn subscribe(&mut self, selector: v1::LogSelector, follow: bool) -> SubscriptionId {
        self.try_subscribe(Some(selector), Some(options(follow)))
            .unwrap()
    }

    pub(super) fn listen(&mut self, node: &str) -> ListenerId {
        let listener = self.broker.handle_listen(self.now, node_id(node));
        self.listeners.insert(node.to_owned(), listener);
        self.flush();
        listener
    }

    pub(super) fn disconnect(&mut self, node: &str) {
        if let Some(listener) = self.listeners.remove(node) {
            self.broker.handle_listener_closed(listener);
            self.flush();
        }
    }

    pub(super) fn try_publish(
        &mut self,
        node: &str,
        id: &SubscriptionId,
    ) -> Result<Accepted, BrokerError> {
        let first = published(id, Vec::new());
        let publication = Publication::open(node_id(node), &first)?;
        let accepted = self.broker.handle_publish(&publication);
        self.flush();
        accepted
    }

    pub(super) fn publish(&mut self, node: &str, id: &SubscriptionId) -> PublisherId {
        self.try_publish(node, id).unwrap().publisher
    }

    pub(super) fn end(&mut self, publisher: PublisherId, ended: Result<(), &str>) {
        self.broker
            .handle_published(publisher, ended.map_err(str::to_owned));
        self.flush();
    }

    pub(super) fn pass(&mut self, time: std::time::Duration) {
        self.now = self.now.saturating_add(time);
        self.broker.handle_timeout(self.now);
        self.flush();
    }

    /// Takes every output; listeners take every message at once.
    pub(super) fn flush(&mut self) {
        while let Some(output) = self.broker.poll_output() {
            match output {
                Output::Tell { listener, message } => {
                    let id = message.id.parse().unwrap();
                    self.told.push((listener, id, !message.close));
                    self.broker.handle_sent(listener);
                }
                Output::EndListener { listener, .. } => self.replaced.push(listener),
                Output::Notice { subscription, line } => {
                    assert_eq!(line.stream, v1::LogStream::Unknown as i32);
                    let text = String::from_utf8(line.data.to_vec()).unwrap();
                    self.notices.push((subscription, text));
                }
                Output::End {
                    subscription,
                    result,
                } => self.ends.push((subscription, result)),
            }
        }
    }

    /// What a node was told since the last question, as `+` and `-`.
    pub(super) fn take_told(&mut self, node: &str) -> String {
        let listener = self.listeners[node];
        let (own, others) = std::mem::take(&mut self.told)
            .into_iter()
            .partition(|(to, ..)| *to == listener);
        self.told = others;
        let own: Vec<(ListenerId, SubscriptionId, bool)> = own;
        own.iter()
            .map(|(_, _, is_open)| if *is_open { '+' } else { '-' })
            .collect()
    }

    /// The text with which a subscription ended; empty when everything is there, `None` when it
    /// has not ended.
    pub(super) fn verdict(&self, id: &SubscriptionId) -> Option<String> {
        let (_, result) = self.ends.iter().find(|(ended, _)| ended == id)?;
        Some(match result {
            Ok(()) => String::new(),
            Err(error) => {
                assert_eq!(error.code, crate::Code::Unknown);
                let head = "warning: incomplete log stream. some logs could not be retrieved for \
                            the following reasons: ";
                let reasons = error.message.strip_prefix(head);
                assert!(reasons.is_some(), "{error}");
                reasons?.to_owned()
            }
        })
    }

    pub(super) fn assert_nothing_left(&self) {
        let status = self.broker.status();
        assert_eq!(
            (status.subscriptions, status.publishers, status.timers),
            (0, 0, 0),
            "{status:?}"
        );
        assert!(!self.broker.is_following());
    }
}
