//! What the first leader of a cluster creates (control-plane spec 2.2 and 2.3).

use bytes::Bytes;
use swarm_api::v1;
use swarm_ca::requests::MANAGER_SUBSYSTEM;
use swarm_ca::root::RootDigest;
use swarm_ca::rotation::join_token;
use swarm_orchestrator::network_keys;
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
    /// The root of a cluster that this manager starts; counts only while there is no cluster.
    pub root: Option<FirstRoot>,
    /// The certificate with which the manager itself started, in PEM; empty if it is not known.
    pub own_certificate: Bytes,
}

/// What the trust in a new cluster begins with. The secrets are random.
#[derive(Clone)]
pub struct FirstRoot {
    /// The root certificate in PEM, byte for byte as nodes will get it.
    pub cert_pem: Bytes,
    /// Its key; empty when external authorities sign.
    pub key_pem: Bytes,
    /// For the join tokens of workers and of managers.
    pub token_secrets: [[u8; 16]; 2],
    /// Seals the keys of managers from the start, if so wanted.
    pub unlock_key: Option<[u8; 32]>,
    /// External authorities.
    pub external_cas: Vec<v1::ExternalCa>,
}

impl std::fmt::Debug for FirstRoot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FirstRoot")
            .field("digest", &RootDigest::of(&self.cert_pem))
            .finish_non_exhaustive()
    }
}

/// The objects that are missing: the cluster, the manager's own node, on a fresh cluster the
/// ingress network, and the networks that every node has. Empty when nothing is missing.
pub fn seed(view: &Root, seed: &Seed, ids: &mut dyn IdSource) -> WriteSet {
    let mut writes = Vec::new();
    if view.cluster().is_none() {
        writes.push(Write::create(cluster(seed, ids)));
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

fn cluster(seed: &Seed, ids: &mut dyn IdSource) -> Cluster {
    let mut cluster = bare_cluster(seed);
    network_keys::provide(&mut cluster, ids);
    cluster
}

fn bare_cluster(seed: &Seed) -> Cluster {
    let mut spec = defaults::cluster_spec();
    let Some(root) = &seed.root else {
        return Cluster::new(seed.cluster.clone(), spec);
    };
    let config = spec.ca_config.get_or_insert_default();
    config.external_cas.clone_from(&root.external_cas);
    spec.encryption_config = Some(v1::EncryptionConfig {
        auto_lock_managers: root.unlock_key.is_some(),
    });
    let mut cluster = Cluster::new(seed.cluster.clone(), spec);
    cluster.unlock_keys = root.unlock_key.iter().map(unlock_key).collect();
    let [worker, manager] = root.token_secrets;
    let root_ca = v1::RootCa {
        ca_key: root.key_pem.clone(),
        ca_cert: root.cert_pem.clone(),
        ca_cert_hash: RootDigest::of(&root.cert_pem).to_string(),
        join_tokens: Some(v1::JoinTokens {
            worker: join_token(&cluster, &root.cert_pem, worker),
            manager: join_token(&cluster, &root.cert_pem, manager),
        }),
        ..Default::default()
    };
    cluster.root_ca = Some(Box::new(root_ca));
    cluster
}

fn unlock_key(key: &[u8; 32]) -> v1::EncryptionKey {
    v1::EncryptionKey {
        subsystem: MANAGER_SUBSYSTEM.to_owned(),
        key: Bytes::copy_from_slice(key),
        ..Default::default()
    }
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
    node.certificate = Some(Box::new(v1::Certificate {
        role: v1::NodeRole::Manager as i32,
        status: Some(v1::IssuanceStatus {
            state: v1::issuance_status::State::Issued as i32,
            ..Default::default()
        }),
        certificate: seed.own_certificate.clone(),
        cn: seed.node.to_string(),
        ..Default::default()
    }));
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
            root: Some(FirstRoot {
                cert_pem: Bytes::from_static(b"root"),
                key_pem: Bytes::from_static(b"key"),
                token_secrets: [[1; 16], [2; 16]],
                unlock_key: None,
                external_cas: Vec::new(),
            }),
            own_certificate: Bytes::from_static(b"chain"),
        }
    }

    fn seeded(seed_of: &Seed) -> Root {
        let mut transaction = Root::default().begin(Timestamp::EPOCH);
        let writes = seed(&Root::default(), seed_of, &mut Counter(0));
        transaction.apply_set(&writes).unwrap();
        transaction.finish().0
    }

    #[test]
    fn a_new_cluster_trusts_its_root_and_has_a_token_for_each_role() {
        let root = seeded(&example());
        let root_ca = root.cluster().unwrap().root_ca.clone().unwrap();
        assert_eq!(
            (&root_ca.ca_cert[..], &root_ca.ca_key[..]),
            (&b"root"[..], &b"key"[..])
        );
        let tokens = root_ca.join_tokens.unwrap();
        for token in [&tokens.worker, &tokens.manager] {
            let token: swarm_ca::token::JoinToken =
                swarm_ca::token::JoinToken::parse(token).unwrap();
            assert_eq!(token.root_digest().to_string(), root_ca.ca_cert_hash);
        }
        assert_ne!(tokens.worker, tokens.manager);
        let node = root.node(&"n".parse().unwrap()).unwrap();
        let certificate = node.certificate.as_ref().unwrap();
        assert_eq!(
            (certificate.cn.as_str(), &certificate.certificate[..]),
            ("n", &b"chain"[..])
        );
        assert_eq!(
            swarm_ca::requests::state(node),
            v1::issuance_status::State::Issued
        );
    }

    #[test]
    fn an_unlock_key_locks_the_managers_of_a_new_cluster() {
        let key = |root: &Root| swarm_ca::requests::unlock_key(root).unwrap().unlock_key;
        assert!(key(&seeded(&example())).is_empty());
        let mut locked = example();
        locked.root.as_mut().unwrap().unlock_key = Some([7; 32]);
        assert_eq!(&key(&seeded(&locked))[..], [7; 32]);
    }

    #[test]
    fn secrets_of_a_new_cluster_are_not_in_debug_output() {
        let mut locked = example();
        locked.root.as_mut().unwrap().key_pem = Bytes::from_static(b"hunter2");
        assert!(!format!("{locked:?}").contains("hunter2"));
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
