//! A small cluster for tests: real roots and keys, ids that count.

use std::time::Duration;

use bytes::Bytes;
use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::{Root, WriteSet};
use swarm_types::{Cluster, Id, IdSource, Node, NodeId, NodeState, Timestamp, defaults};

use crate::root::{RootDigest, new_root};
use crate::token::JoinToken;

/// Ids that differ in their first characters.
pub(crate) struct Counter(pub(crate) u8);

impl IdSource for Counter {
    fn next_id(&mut self) -> Id {
        self.0 = self.0.wrapping_add(1);
        Id::from_random([self.0; 17])
    }
}

/// A store and a clock.
pub(crate) struct World {
    pub(crate) root: Root,
    pub(crate) now: Timestamp,
    pub(crate) ids: Counter,
}

/// Seconds since the start of every test.
pub(crate) fn at(seconds: u64) -> Timestamp {
    Timestamp::from_millis(1_700_000_000_000).saturating_add(Duration::from_secs(seconds))
}

pub(crate) fn node_id(name: &str) -> NodeId {
    name.parse().unwrap()
}

/// A root of a cluster with tokens, and its key.
pub(crate) fn root_ca(now: Timestamp) -> v1::RootCa {
    let (cert, key) = new_root(now);
    let token = |secret| JoinToken::generate(cert.as_bytes(), [secret; 16]).to_string();
    v1::RootCa {
        ca_key: Bytes::copy_from_slice(key.as_bytes()),
        ca_cert_hash: RootDigest::of(cert.as_bytes()).to_string(),
        join_tokens: Some(v1::JoinTokens {
            worker: token(1),
            manager: token(2),
        }),
        ca_cert: cert.into(),
        ..Default::default()
    }
}

impl World {
    /// A cluster named `c` without nodes.
    pub(crate) fn new() -> Self {
        let now = at(0);
        let mut cluster = Cluster::new("c".parse().unwrap(), defaults::cluster_spec());
        cluster.root_ca = Some(Box::new(root_ca(now)));
        let mut world = Self {
            root: Root::default(),
            now,
            ids: Counter(0),
        };
        world.commit(&WriteSet(vec![swarm_store::Write::create(cluster)]));
        world
    }

    pub(crate) fn commit(&mut self, writes: &WriteSet) -> swarm_store::Commit {
        let mut transaction = self.root.begin(self.now);
        transaction.apply_set(writes).unwrap();
        let (root, commit) = transaction.finish();
        self.root = root;
        commit
    }

    /// Changes the cluster object.
    pub(crate) fn cluster(&mut self, change: impl FnOnce(&mut Cluster)) -> swarm_store::Commit {
        let mut cluster = (**self.root.cluster().unwrap()).clone();
        change(&mut cluster);
        self.commit(&WriteSet(vec![swarm_store::Write::update(cluster)]))
    }

    /// Adds a READY worker, or changes it.
    pub(crate) fn node(
        &mut self,
        name: &str,
        change: impl FnOnce(&mut Node),
    ) -> swarm_store::Commit {
        let id = node_id(name);
        let stored = self.root.node(&id).map(|node| (**node).clone());
        let is_new = stored.is_none();
        let mut node = stored.unwrap_or_else(|| {
            let spec = v1::NodeSpec {
                membership: v1::node_spec::Membership::Accepted as i32,
                ..Default::default()
            };
            let mut node = Node::new(id, spec);
            node.status.state = NodeState::Ready;
            node
        });
        change(&mut node);
        let write = if is_new {
            swarm_store::Write::create(node)
        } else {
            swarm_store::Write::update(node)
        };
        self.commit(&WriteSet(vec![write]))
    }

    pub(crate) fn tokens(&self) -> v1::JoinTokens {
        let root_ca = self.root.cluster().unwrap().root_ca.clone().unwrap();
        root_ca.join_tokens.unwrap()
    }

    pub(crate) fn ctx(&mut self) -> Ctx<'_> {
        Ctx {
            now: self.now,
            ids: &mut self.ids,
        }
    }
}
