//! Closes the connections of nodes that were removed or demoted, as soon as this manager's store
//! says so.
//!
//! Owns which connections these are, and when: a removed node gets time to hear that it has no
//! tasks any more. New calls of such nodes are refused by the guard anyway; this ends what was open
//! before. Runs on every manager, whether it leads or not.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_raft_io::ReplicatedStore;
use swarm_rt::Shutdown;
use swarm_rt::net::Peer;
use swarm_rt::tasks::TaskError;
use swarm_rt::tls::{Connection, Connections};
use swarm_store::{Action, Change, Filter, Received, Root, Selector};
use swarm_types::{AnyObject, Cluster, Kind, Node, NodeId};
use tokio::time::{Instant, sleep_until};

use crate::guard::{FAREWELL_MAX, Guard};

/// How long to sleep while no connection is to be closed; nothing depends on it.
const IDLE_LOOK: Duration = Duration::from_secs(3_600);

/// Watches until the manager stops.
pub(crate) async fn run(
    store: ReplicatedStore,
    connections: Connections,
    guard: Guard,
    stop: Shutdown,
) -> Result<(), TaskError> {
    let mut watchman = Watchman {
        connections,
        guard,
        leaving: BTreeMap::new(),
    };
    loop {
        let (view, mut feed) = store.store().view_and_watch(filter());
        watchman.look_at_all(&view);
        loop {
            let received = tokio::select! {
                () = stop.begun() => return Ok(()),
                () = sleep_until(watchman.next()) => {
                    watchman.close_due();
                    continue;
                }
                received = feed.next() => received,
            };
            match received {
                Received::Event(event) => {
                    event.changes().for_each(|it| watchman.look_at(it));
                }
                // Also after the store was replaced by a snapshot of the leader's.
                Received::Lagged { .. } | Received::Closed => break,
            }
        }
    }
}

/// Blacklists that grow, roles that change, nodes that go: all rare.
fn filter() -> Filter {
    let blacklist = Selector::kind(Kind::Cluster).actions([Action::Update]);
    let roles = Selector::kind(Kind::Node)
        .actions([Action::Update])
        .matching(|change| match (nodes(change), &change.old) {
            (Some(node), Some(AnyObject::Node(old))) => node.role != old.role,
            _ => false,
        });
    let gone = Selector::kind(Kind::Node).actions([Action::Remove]);
    Filter::Any(vec![blacklist, roles, gone])
}

fn nodes(change: &Change) -> Option<&Arc<Node>> {
    if let AnyObject::Node(node) = &change.object {
        Some(node)
    } else {
        None
    }
}

struct Watchman {
    connections: Connections,
    guard: Guard,
    /// Removed nodes that had connections, and when these are closed.
    leaving: BTreeMap<NodeId, Instant>,
}

impl Watchman {
    fn look_at(&mut self, change: &Change) {
        match (&change.object, &change.old, change.action) {
            (AnyObject::Cluster(cluster), Some(AnyObject::Cluster(old)), _) => {
                self.blacklisted(cluster, old);
            }
            (AnyObject::Node(node), _, Action::Remove) => self.removed(&node.id),
            (AnyObject::Node(node), _, _) if node.role == NodeRole::Worker => {
                self.demoted(&node.id);
            }
            _ => {}
        }
    }

    /// Everything that is connected, at the start and after lost changes.
    fn look_at_all(&mut self, view: &Root) {
        for id in self.connections.nodes() {
            let cluster = view.cluster();
            if cluster.is_some_and(|cluster| is_blacklisted(cluster, &id)) {
                self.removed(&id);
            } else if view
                .node(&id)
                .is_some_and(|node| node.role == NodeRole::Worker)
            {
                self.demoted(&id);
            }
        }
        self.guard.recheck();
    }

    fn blacklisted(&mut self, cluster: &Cluster, old: &Cluster) {
        let (new, old) = (
            &cluster.blacklisted_certificates,
            &old.blacklisted_certificates,
        );
        for name in new.keys().filter(|name| !old.contains_key(*name)) {
            // A name that is no id has no connection.
            if let Ok(id) = name.parse() {
                self.removed(&id);
            }
        }
    }

    /// Ends what the node has but for the streams on which it hears that it was removed.
    fn removed(&mut self, node: &NodeId) {
        if !self.connections.of(node).is_empty() {
            let at = Instant::now() + FAREWELL_MAX;
            self.leaving.entry(node.clone()).or_insert(at);
        }
        self.guard.recheck();
    }

    /// When to look whether a connection is to be closed.
    fn next(&self) -> Instant {
        let first = self.leaving.values().min().copied();
        first.unwrap_or_else(|| Instant::now() + IDLE_LOOK)
    }

    fn close_due(&mut self) {
        let now = Instant::now();
        let due: Vec<NodeId> = self
            .leaving
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(node, _)| node.clone())
            .collect();
        for node in due {
            self.leaving.remove(&node);
            let reason = format!("node {node} was removed from swarm");
            self.close(&node, &reason, |_| true);
        }
    }

    /// A demoted node connects again with the certificate of a worker; what it does as a worker
    /// goes on until then.
    fn demoted(&self, node: &NodeId) {
        let reason = format!("node {node} was demoted; it must connect again as a worker");
        self.close(node, &reason, |connection| match connection.peer() {
            Peer::Certified(identity) => identity.is_manager(),
            Peer::Local | Peer::Anonymous => false,
        });
    }

    fn close(&self, node: &NodeId, reason: &str, is_meant: impl Fn(&Connection) -> bool) {
        let closed = self.connections.close_node(node, reason, is_meant);
        if closed > 0 {
            tracing::info!(%node, closed, reason, "connections closed");
        }
        // Calls that others forward for the node are on other connections.
        self.guard.recheck();
    }
}

fn is_blacklisted(cluster: &Cluster, node: &NodeId) -> bool {
    swarm_ca::requests::is_removed(cluster, node)
}
