//! One subscription: its nodes and how far each of them is.
//!
//! Refuses to own: who listens, timers, and what is sent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{NodeId, Task, TaskId, TaskState};

use crate::broker::PublisherId;
use crate::error::{self, BrokerError};
use crate::request::{SubscriptionId, Wanted, Wish};

/// Reasons that an error lists; the rest is counted.
const REASONS_SHOWN_MAX: usize = 20;

/// How far one node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// It must open its stream.
    Asked,
    /// It publishes on this stream.
    Publishing(PublisherId),
    /// Nothing is expected of it. While a subscription follows, it may come back.
    Over,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    pub(crate) wanted: Wanted,
    pub(crate) follow: bool,
    pub(crate) message: Arc<v1::SubscriptionMessage>,
    parts: BTreeMap<NodeId, Part>,
    /// Nodes whose part is not over.
    open: usize,
    /// Tasks without a node.
    pending: BTreeSet<TaskId>,
    /// What is missing, of one node each.
    reasons: Vec<String>,
}

impl Subscription {
    /// Takes in the nodes that the selector names and those of its tasks (spec 7.2). All of them
    /// count as asked, so that the first that cannot be asked does not end the subscription.
    pub(crate) fn new(id: &SubscriptionId, wish: Wish, view: &Root) -> Self {
        let message = v1::SubscriptionMessage {
            id: id.to_string(),
            ..wish.message
        };
        let nodes = wish.wanted.nodes.iter();
        let mut subscription = Self {
            open: wish.wanted.nodes.len(),
            parts: nodes.map(|node| (node.clone(), Part::Asked)).collect(),
            wanted: wish.wanted,
            follow: wish.follow,
            message: Arc::new(message),
            pending: BTreeSet::new(),
            reasons: Vec::new(),
        };
        subscription.match_all(view);
        subscription
    }

    /// Takes in every task that the selector has now; returns the nodes that are new.
    pub(crate) fn match_all(&mut self, view: &Root) -> Vec<NodeId> {
        if self.follow {
            self.pending.retain(|id| view.task(id).is_some());
        }
        let tasks: Vec<Arc<Task>> = self.wanted.tasks(view).cloned().collect();
        let new = tasks.iter().filter_map(|task| self.take(task));
        new.collect()
    }

    /// Takes in one task; returns its node if it is new.
    pub(crate) fn take(&mut self, task: &Task) -> Option<NodeId> {
        let is_named = self.wanted.tasks.contains(&task.id);
        // A task that has not run yet, or never will, has no output; who named it is told so.
        if !self.follow && !is_named && task.state() < TaskState::Running {
            return None;
        }
        let Some(node) = &task.node_id else {
            if self.follow || is_named {
                self.pending.insert(task.id.clone());
            }
            return None;
        };
        self.pending.remove(&task.id);
        if self.parts.contains_key(node) {
            return None;
        }
        self.parts.insert(node.clone(), Part::Asked);
        self.open += 1;
        Some(node.clone())
    }

    /// A task was removed.
    pub(crate) fn drop_task(&mut self, task: &TaskId) {
        self.pending.remove(task);
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.parts.keys()
    }

    pub(crate) fn part(&self, node: &NodeId) -> Option<Part> {
        self.parts.get(node).copied()
    }

    /// Moves a node on.
    pub(crate) fn set(&mut self, node: &NodeId, part: Part) {
        let Some(own) = self.parts.get_mut(node) else {
            return;
        };
        let before = std::mem::replace(own, part);
        match (before == Part::Over, part == Part::Over) {
            (true, false) => self.open += 1,
            (false, true) => self.open -= 1,
            (true, true) | (false, false) => {}
        }
    }

    /// Something will be missing at the end. Only of use without follow, where a node ends once.
    pub(crate) fn miss(&mut self, reason: String) {
        self.reasons.push(reason);
    }

    /// Whether every node has ended its part. A subscription that follows never has.
    pub(crate) fn is_complete(&self) -> bool {
        !self.follow && self.open == 0
    }

    /// What the subscriber is told at the end.
    pub(crate) fn verdict(&self) -> Result<(), BrokerError> {
        let unscheduled = self.pending.iter().map(error::not_scheduled);
        let mut reasons: Vec<String> = self.reasons.iter().cloned().chain(unscheduled).collect();
        if reasons.is_empty() {
            return Ok(());
        }
        if reasons.len() > REASONS_SHOWN_MAX {
            let rest = reasons.len() - REASONS_SHOWN_MAX;
            reasons.truncate(REASONS_SHOWN_MAX);
            reasons.push(error::more_reasons(rest));
        }
        Err(BrokerError::incomplete(&reasons))
    }

    /// What nodes are told when it is over.
    pub(crate) fn closing(&self) -> Arc<v1::SubscriptionMessage> {
        Arc::new(v1::SubscriptionMessage {
            close: true,
            ..(*self.message).clone()
        })
    }
}
