use swarm_dispatcher::{Body, Config, Dispatcher, SessionOpen};
use swarm_types::{Cluster, Id, IdSource, Node, NodeState, Timestamp, defaults};

use super::*;
use crate::Leader;

struct Ids(u8);
impl IdSource for Ids {
    fn next_id(&mut self) -> Id {
        self.0 += 1;
        Id::from_random([self.0; 17])
    }
}

fn labelled(id: &str, weight: &str) -> Node {
    let labels = [(weights::MANAGER_WEIGHT_LABEL.to_owned(), weight.to_owned())];
    let spec = v1::NodeSpec {
        annotations: Some(v1::Annotations {
            labels: labels.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    Node::new(id.parse().unwrap(), spec)
}

fn peer(id: &str, addr: &str) -> v1::Peer {
    v1::Peer {
        node_id: id.to_owned(),
        addr: addr.to_owned(),
    }
}

/// A leader of one manager `m`, with a worker `w` in a session that has had its first message.
struct World {
    root: Root,
    leader: Leader,
    ids: Ids,
}

const NOW: Timestamp = Timestamp::from_millis(1_000);

impl World {
    fn new() -> Self {
        let mut transaction = Root::default().begin(NOW);
        let mut cluster = Cluster::new("c".parse().unwrap(), defaults::cluster_spec());
        cluster.root_ca = Some(Box::new(v1::RootCa {
            ca_cert: "root".into(),
            ..Default::default()
        }));
        transaction.create(cluster).unwrap();
        transaction.create(labelled("m", "7")).unwrap();
        let mut worker = Node::new("w".parse().unwrap(), v1::NodeSpec::default());
        worker.status.state = NodeState::Ready;
        worker.status.addr = "1.2.3.4".to_owned();
        transaction.create(worker).unwrap();
        let root = transaction.finish().0;
        let config = Config { leader: None };
        let extras = of(&root, &[peer("m", "10.0.0.1:2377"), peer("x", "")]);
        let dispatcher = Dispatcher::new(NOW, &root, config, extras);
        let leader = Leader::new(
            &root,
            dispatcher,
            swarm_ca::server::Server::new(NOW, &root, None),
        );
        let ids = Ids(0);
        Self { root, leader, ids }
    }

    fn join(&mut self) -> v1::SessionMessage {
        let node = "w".parse().unwrap();
        let open = SessionOpen {
            node: &node,
            description: None,
            addr: "1.2.3.4",
            arrived: "10.0.0.9:2377",
            previous_session: "",
        };
        let dispatcher = self.leader.dispatcher();
        dispatcher
            .handle_session(NOW, open, &self.root, &mut self.ids, &mut || 0)
            .unwrap();
        self.message().unwrap()
    }

    fn message(&mut self) -> Option<v1::SessionMessage> {
        let message = self.leader.dispatcher().poll_message(&self.root)?;
        self.leader.dispatcher().handle_sent(message.stream);
        match message.body {
            Body::Session(message) => Some(*message),
            Body::Assignments(_) | Body::End(_) => panic!("{message:?}"),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut swarm_store::Transaction)) {
        let mut transaction = self.root.begin(NOW);
        change(&mut transaction);
        let (root, commit) = transaction.finish();
        self.root = root;
        self.leader.handle_commit(NOW, &commit, &self.root);
    }

    fn change_cluster(&mut self, change: impl FnOnce(&mut Cluster)) {
        let mut cluster = (**self.root.cluster().unwrap()).clone();
        change(&mut cluster);
        self.change(|transaction| transaction.update(cluster).unwrap());
    }
}

fn weights_in(message: &v1::SessionMessage) -> Vec<(String, i64)> {
    let managers = message.managers.iter();
    managers
        .map(|manager| (manager.peer.clone().unwrap().addr, manager.weight))
        .collect()
}

#[test]
fn a_session_begins_with_all_managers_their_weights_and_the_root() {
    let message = World::new().join();
    let told = [("10.0.0.1:2377", 7), ("10.0.0.9:2377", 10)];
    assert_eq!(
        weights_in(&message),
        told.map(|(at, weight)| (at.to_owned(), weight))
    );
    assert_eq!(&message.root_ca[..], b"root");
}

#[test]
fn a_new_weight_root_or_key_is_sent_at_once_and_anything_else_is_not() {
    let mut world = World::new();
    world.join();
    world.change_cluster(|cluster| cluster.fips = true);
    assert_eq!(world.message(), None);
    let mut manager = labelled("m", "0");
    manager.meta = world.root.node(&"m".parse().unwrap()).unwrap().meta;
    world.change(|transaction| transaction.update(manager).unwrap());
    assert_eq!(weights_in(&world.message().unwrap())[0].1, 0);
    assert_eq!(world.message(), None);
    world.change_cluster(|cluster| cluster.root_ca.as_mut().unwrap().ca_cert = "new".into());
    assert_eq!(&world.message().unwrap().root_ca[..], b"new");
    world.change_cluster(|cluster| {
        cluster.network_bootstrap_keys = vec![v1::EncryptionKey::default()];
    });
    assert_eq!(world.message().unwrap().network_bootstrap_keys.len(), 1);
    assert_eq!(world.message(), None);
}

#[test]
fn another_list_of_managers_is_sent_whole() {
    let mut world = World::new();
    world.join();
    let managers = vec![peer("m", "10.0.0.1:2377"), peer("n", "10.0.0.2:2377")];
    world.leader.set_managers(&world.root, managers);
    let told = weights_in(&world.message().unwrap());
    assert_eq!(told[1], ("10.0.0.2:2377".to_owned(), 10));
    assert_eq!(told.len(), 2);
}

#[test]
fn lost_commits_do_not_lose_a_change() {
    let mut world = World::new();
    world.join();
    let mut cluster = (**world.root.cluster().unwrap()).clone();
    cluster.root_ca.as_mut().unwrap().ca_cert = "late".into();
    let mut transaction = world.root.begin(NOW);
    transaction.update(cluster).unwrap();
    world.root = transaction.finish().0;
    world.leader.handle_lag(NOW, &world.root);
    let message = std::iter::from_fn(|| world.message()).last().unwrap();
    assert_eq!(&message.root_ca[..], b"late");
}
