//! What the first leader of a cluster creates (control-plane spec 2.2 and 2.3).

use swarm_api::v1;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{Cluster, ClusterId, IdSource, Network, Node, NodeId, defaults, networks};

/// Who the manager is.
#[derive(Clone, Debug)]
pub struct Seed {
    /// The cluster's id.
    pub cluster: ClusterId,
    /// The manager's own node.
    pub node: NodeId,
    /// Whether the manager's node runs tasks.
    pub availability: v1::node_spec::Availability,
}

/// The objects that are missing: the cluster, the manager's own node, on a fresh cluster the
/// ingress network, and the networks that every node has. Empty when nothing is missing.
pub fn seed(view: &Root, seed: &Seed, ids: &mut dyn IdSource) -> WriteSet {
    let mut writes = Vec::new();
    if view.cluster().is_none() {
        let cluster = Cluster::new(seed.cluster.clone(), defaults::cluster_spec());
        writes.push(Write::create(cluster));
    }
    if view.node(&seed.node).is_none() {
        writes.push(Write::create(own_node(seed)));
        // A user who removed ingress keeps it removed, so only a fresh cluster gets it.
        if view.ingress_network().is_none() {
            writes.push(Write::create(network(ids, ingress())));
        }
    }
    for name in ["bridge", "host"] {
        let taken = view.find::<Network>(&By::Name(name.to_owned()));
        if taken.is_ok_and(|networks| networks.is_empty()) {
            writes.push(Write::create(network(ids, predefined(name))));
        }
    }
    WriteSet(writes)
}

fn own_node(seed: &Seed) -> Node {
    let mut node = Node::new(
        seed.node.clone(),
        v1::NodeSpec {
            desired_role: v1::NodeRole::Manager as i32,
            membership: v1::node_spec::Membership::Accepted as i32,
            availability: seed.availability as i32,
            ..Default::default()
        },
    );
    node.role = v1::NodeRole::Manager;
    node
}

fn network(ids: &mut dyn IdSource, spec: v1::NetworkSpec) -> Network {
    Network::new(ids.next_id().into(), spec)
}

fn ingress() -> v1::NetworkSpec {
    v1::NetworkSpec {
        annotations: Some(v1::Annotations {
            name: "ingress".to_owned(),
            ..Default::default()
        }),
        driver_config: Some(v1::Driver::default()),
        ipam: Some(v1::IpamOptions {
            driver: Some(v1::Driver::default()),
            ..Default::default()
        }),
        ingress: true,
        ..Default::default()
    }
}

fn predefined(name: &str) -> v1::NetworkSpec {
    v1::NetworkSpec {
        annotations: Some(v1::Annotations {
            name: name.to_owned(),
            labels: [(networks::PREDEFINED_LABEL.to_owned(), "true".to_owned())].into(),
            ..Default::default()
        }),
        driver_config: Some(v1::Driver {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::{Id, Timestamp};

    struct Counter(u8);
    impl IdSource for Counter {
        fn next_id(&mut self) -> Id {
            self.0 += 1;
            Id::from_random([self.0; 17])
        }
    }

    fn example() -> Seed {
        Seed {
            cluster: "c".parse().unwrap(),
            node: "n".parse().unwrap(),
            availability: v1::node_spec::Availability::Active,
        }
    }

    #[test]
    fn a_fresh_cluster_gets_everything_and_a_second_leader_nothing() {
        let mut ids = Counter(0);
        let mut transaction = Root::default().begin(Timestamp::EPOCH);
        transaction
            .apply_set(&seed(&Root::default(), &example(), &mut ids))
            .unwrap();
        let (root, commit) = transaction.finish();
        assert_eq!(commit.changes.len(), 5);
        assert_eq!(
            root.cluster().unwrap().spec.dispatcher,
            defaults::cluster_spec().dispatcher
        );
        assert!(root.ingress_network().is_some());
        assert_eq!(seed(&root, &example(), &mut ids), WriteSet::default());
    }

    #[test]
    fn a_removed_ingress_network_stays_removed() {
        let mut ids = Counter(0);
        let mut transaction = Root::default().begin(Timestamp::EPOCH);
        transaction
            .apply_set(&seed(&Root::default(), &example(), &mut ids))
            .unwrap();
        let ingress = transaction.ingress_network().unwrap().id.as_id().clone();
        transaction
            .delete(swarm_types::Kind::Network, &ingress)
            .unwrap();
        let (root, _) = transaction.finish();
        assert_eq!(seed(&root, &example(), &mut ids), WriteSet::default());
    }
}
