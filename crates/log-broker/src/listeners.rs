//! The nodes that listen, and what each of them still has to be told.
//!
//! Refuses to own: which node is concerned by which subscription.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::NodeId;

use crate::broker::ListenerId;
use crate::request::SubscriptionId;

/// All listeners; a node has at most one.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    all: BTreeMap<ListenerId, Listener>,
    by_node: BTreeMap<NodeId, ListenerId>,
    /// Those that may have a message to be sent.
    ready: BTreeSet<ListenerId>,
}

#[derive(Debug)]
struct Listener {
    node: NodeId,
    /// At most one for each subscription that there is, or that was told and has ended.
    queue: BTreeMap<SubscriptionId, Arc<v1::SubscriptionMessage>>,
    /// What was sent and has not been closed.
    told: BTreeSet<SubscriptionId>,
    is_sending: bool,
}

impl Listeners {
    /// A node listens; returns the listener that it had before.
    pub(crate) fn open(&mut self, id: ListenerId, node: NodeId) -> Option<ListenerId> {
        let listener = Listener {
            node: node.clone(),
            queue: BTreeMap::new(),
            told: BTreeSet::new(),
            is_sending: false,
        };
        self.all.insert(id, listener);
        let before = self.by_node.insert(node, id)?;
        self.forget(before);
        Some(before)
    }

    /// A stream is gone; returns the node if it listens no more.
    pub(crate) fn close(&mut self, id: ListenerId) -> Option<NodeId> {
        let node = self.forget(id)?;
        self.by_node.remove(&node);
        Some(node)
    }

    fn forget(&mut self, id: ListenerId) -> Option<NodeId> {
        self.ready.remove(&id);
        self.all.remove(&id).map(|listener| listener.node)
    }

    pub(crate) fn is_listening(&self, node: &NodeId) -> bool {
        self.by_node.contains_key(node)
    }

    pub(crate) fn len(&self) -> usize {
        self.all.len()
    }

    /// Tells a node of a subscription, once for each of its streams.
    pub(crate) fn tell_open(
        &mut self,
        node: &NodeId,
        id: &SubscriptionId,
        message: &Arc<v1::SubscriptionMessage>,
    ) {
        let Some(listener) = self.by_node.get(node) else {
            return;
        };
        let Some(own) = self.all.get_mut(listener) else {
            return;
        };
        if !own.told.contains(id) {
            own.queue.insert(id.clone(), Arc::clone(message));
            self.ready.insert(*listener);
        }
    }

    /// Tells a node that a subscription has ended, if it was told that there is one.
    pub(crate) fn tell_close(
        &mut self,
        node: &NodeId,
        id: &SubscriptionId,
        message: &Arc<v1::SubscriptionMessage>,
    ) {
        let Some(listener) = self.by_node.get(node) else {
            return;
        };
        let Some(own) = self.all.get_mut(listener) else {
            return;
        };
        if own.told.contains(id) {
            own.queue.insert(id.clone(), Arc::clone(message));
            self.ready.insert(*listener);
        } else {
            own.queue.remove(id);
        }
    }

    /// A subscription is over for a node, which knows that by itself.
    pub(crate) fn forget_subscription(&mut self, node: &NodeId, id: &SubscriptionId) {
        let listener = self.by_node.get(node);
        if let Some(own) = listener.and_then(|listener| self.all.get_mut(listener)) {
            own.told.remove(id);
            own.queue.remove(id);
        }
    }

    /// The transport took the message of a listener.
    pub(crate) fn handle_sent(&mut self, id: ListenerId) {
        if let Some(own) = self.all.get_mut(&id) {
            own.is_sending = false;
            self.ready.insert(id);
        }
    }

    /// The next message for any listener.
    pub(crate) fn poll(&mut self) -> Option<(ListenerId, v1::SubscriptionMessage)> {
        while let Some(id) = self.ready.pop_first() {
            let Some(own) = self.all.get_mut(&id).filter(|own| !own.is_sending) else {
                continue;
            };
            let Some((subscription, message)) = own.queue.pop_first() else {
                continue;
            };
            if message.close {
                own.told.remove(&subscription);
            } else {
                own.told.insert(subscription);
            }
            own.is_sending = true;
            return Some((id, Arc::unwrap_or_clone(message)));
        }
        None
    }
}
