mod addresses;

use swarm_reconcile::{Batch, Outcome, Queue};
use swarm_types::{AnyObject, Id, IdSource, Network, ServiceSpec};

use super::*;
use swarm_api::v1;

struct NoIds;
impl IdSource for NoIds {
    fn next_id(&mut self) -> Id {
        panic!("the allocator creates nothing")
    }
}

/// A store with an allocator that has done all it can.
struct World {
    root: Root,
    queue: Queue<Allocator>,
}

impl World {
    fn new() -> Self {
        let root = Root::default();
        let queue = Queue::new(Allocator::default(), &root);
        let mut world = Self { root, queue };
        world.put(network("ingress", true));
        world
    }

    /// Creates or replaces an object, then lets the allocator run.
    fn put(&mut self, object: impl Into<AnyObject>) {
        let mut object = object.into();
        let mut transaction = self.root.begin(Timestamp::EPOCH);
        match self.root.get_any(object.kind(), object.raw_id()) {
            None => transaction.create(object).unwrap(),
            Some(old) => {
                if let AnyObject::Service(service) = &mut object {
                    let service = Arc::make_mut(service);
                    service.meta = *old.meta();
                }
                transaction.update(object).unwrap();
            }
        }
        self.commit(transaction);
    }

    fn delete(&mut self, object: &AnyObject) {
        let mut transaction = self.root.begin(Timestamp::EPOCH);
        transaction.delete(object.kind(), object.raw_id()).unwrap();
        self.commit(transaction);
    }

    fn delete_service(&mut self, id: &str) {
        let service = self.service(id).into();
        self.delete(&service);
    }

    fn commit(&mut self, transaction: swarm_store::Transaction) {
        let (root, commit) = transaction.finish();
        self.queue.handle_commit(&commit, &root);
        self.root = root;
        self.run();
    }

    fn run(&mut self) {
        let now = Timestamp::from_millis(7);
        for _ in 0..1_000 {
            let batch = self.queue.poll_transaction(&self.root, now, &mut NoIds);
            let Some(Batch { sets }) = batch else {
                assert!(!self.queue.is_runnable());
                assert_eq!(self.queue.reconciler().cache_drift(&self.root), None);
                return;
            };
            let mut transaction = self.root.begin(now);
            for set in &sets {
                transaction.apply_set(set).unwrap();
            }
            let (root, commit) = transaction.finish();
            self.queue.handle_commit(&commit, &root);
            let version = root.version();
            self.queue.handle_outcome(&Outcome::Committed {
                version,
                refused: vec![],
            });
            self.root = root;
        }
        panic!("the allocator does not come to an end");
    }

    fn service(&self, id: &str) -> Service {
        (**self.root.service(&id.parse().unwrap()).unwrap()).clone()
    }

    fn ports(&self, id: &str) -> Vec<u32> {
        let endpoint = self.service(id).endpoint;
        let ports = endpoint.map_or_else(Vec::new, |endpoint| endpoint.ports.clone());
        ports.iter().map(|port| port.published_port).collect()
    }

    /// State, message and error of a task.
    fn status(&self, id: &str) -> String {
        let status = self.root.task(&id.parse().unwrap()).unwrap().status();
        format!("{}|{}|{}", status.state, status.message, status.err)
    }
}

fn network(id: &str, ingress: bool) -> Network {
    let mut spec = v1::NetworkSpec {
        ingress,
        ..Default::default()
    };
    spec.annotations.get_or_insert_default().name = id.to_owned();
    Network::new(id.parse().unwrap(), spec)
}

/// A service that publishes these INGRESS TCP ports.
fn service(id: &str, published: &[u32]) -> Service {
    let port = |published| v1::PortConfig {
        published_port: published,
        target_port: 1,
        ..Default::default()
    };
    let mut wire = v1::ServiceSpec::default();
    wire.annotations.get_or_insert_default().name = id.to_owned();
    wire.endpoint = Some(v1::EndpointSpec {
        ports: published.iter().copied().map(port).collect(),
        ..Default::default()
    });
    Service::new(id.parse().unwrap(), ServiceSpec::new(wire))
}

fn task(id: &str, service: &str) -> Task {
    let mut task = Task::new(id.parse().unwrap(), Arc::default());
    task.service_id = Some(service.parse().unwrap());
    task
}

const READY: &str = "pending|pending task scheduling|";

#[test]
fn a_task_of_a_service_without_an_endpoint_goes_straight_to_pending() {
    let mut world = World::new();
    world.put(Service::new(
        "s".parse().unwrap(),
        ServiceSpec::new(v1::ServiceSpec::default()),
    ));
    world.put(task("t", "s"));
    assert_eq!(world.status("t"), READY);
}

#[test]
fn a_task_without_a_service_goes_straight_to_pending() {
    let mut world = World::new();
    world.put(Task::new("t".parse().unwrap(), Arc::default()));
    assert_eq!(world.status("t"), READY);
}

#[test]
fn a_task_gets_the_endpoint_of_its_service_whichever_comes_first() {
    let mut world = World::new();
    world.put(service("s", &[80, 0]));
    world.put(task("t1", "s"));
    assert_eq!(world.status("t1"), READY);
    world.put(task("t2", "late"));
    assert_eq!(world.status("t2"), "new||");
    world.put(service("late", &[0]));
    assert_eq!(world.status("t2"), READY);
    for (task, ports) in [("t1", &[80, 30000][..]), ("t2", &[30001])] {
        let endpoint = world
            .root
            .task(&task.parse().unwrap())
            .unwrap()
            .endpoint
            .clone();
        let published: Vec<u32> = endpoint
            .unwrap()
            .ports
            .iter()
            .map(|port| port.published_port)
            .collect();
        assert_eq!(published, ports, "{task}");
    }
}

#[test]
fn many_services_at_once_get_different_numbers() {
    let mut world = World::new();
    let mut transaction = world.root.begin(Timestamp::EPOCH);
    for index in 0..250 {
        let name = format!("s{index:03}");
        transaction.create(service(&name, &[0])).unwrap();
    }
    world.commit(transaction);
    let mut numbers: Vec<u32> = (0..250)
        .flat_map(|index| world.ports(&format!("s{index:03}")))
        .collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (30000..30250).collect::<Vec<_>>());
}

#[test]
fn a_conflict_is_told_to_the_tasks_and_ends_when_the_holder_goes() {
    let mut world = World::new();
    world.put(service("a", &[80]));
    world.put(service("b", &[80]));
    world.put(task("t", "b"));
    assert_eq!(
        world.status("t"),
        "new||service ports could not be allocated: \
         port 80/tcp is published by service \"a\" already; choose another"
    );
    world.delete_service("a");
    assert_eq!(world.ports("b"), [80]);
    assert_eq!(world.status("t"), READY);
}

#[test]
fn a_conflict_ends_when_the_holder_gives_up_the_port() {
    let mut world = World::new();
    world.put(service("a", &[80]));
    world.put(service("b", &[80]));
    world.put(task("t", "b"));
    let mut holder = world.service("a");
    holder.spec = service("a", &[81]).spec;
    world.put(holder);
    assert_eq!((world.ports("a"), world.ports("b")), (vec![81], vec![80]));
    assert_eq!(world.status("t"), READY);
}

#[test]
fn an_update_that_conflicts_leaves_the_old_numbers_in_place() {
    let mut world = World::new();
    world.put(service("a", &[80]));
    world.put(service("b", &[81]));
    let mut changed = world.service("b");
    changed.spec = service("b", &[80]).spec;
    world.put(changed);
    assert_eq!(world.ports("b"), [81]);
    world.put(service("c", &[81]));
    world.put(task("t", "c"));
    assert!(
        world
            .status("t")
            .contains("port 81/tcp is published by service \"b\"")
    );
}

#[test]
fn ports_are_added_removed_and_changed_by_updates() {
    let mut world = World::new();
    world.put(service("s", &[80]));
    for published in [&[80, 443][..], &[443], &[444], &[]] {
        let mut changed = world.service("s");
        changed.spec = service("s", published).spec;
        world.put(changed);
        assert_eq!(world.ports("s"), published);
    }
    world.put(service("other", &[80, 443]));
    assert_eq!(world.ports("other"), [80, 443]);
}

#[test]
fn a_service_waits_for_the_ingress_network_and_no_longer() {
    let mut world = World::new();
    world.delete(&network("ingress", true).into());
    world.put(service("s", &[80]));
    world.put(task("t", "s"));
    let err = "new||service ports could not be allocated: ingress network is missing";
    assert_eq!(world.status("t"), err);
    world.put(network("other", false));
    assert_eq!(world.status("t"), err);
    world.put(network("ingress", true));
    assert_eq!(world.status("t"), READY);
}

#[test]
fn an_unknown_protocol_parks_its_service_only() {
    let mut world = World::new();
    let mut bad = service("bad", &[80]).spec.wire().clone();
    bad.endpoint.as_mut().unwrap().ports[0].protocol = 9;
    let mut parked = service("bad", &[]);
    parked.spec = ServiceSpec::new(bad);
    world.put(parked);
    world.put(task("t1", "bad"));
    world.put(service("good", &[80]));
    world.put(task("t2", "good"));
    assert!(world.status("t1").contains("unknown protocol number 9"));
    assert_eq!(world.status("t2"), READY);
}

/// A task without a service that names these networks.
fn attached(id: &str, targets: &[&str]) -> Task {
    let config = |target: &&str| v1::NetworkAttachmentConfig {
        target: (*target).to_owned(),
        aliases: vec!["alias".to_owned()],
        ..Default::default()
    };
    let spec = v1::TaskSpec {
        networks: targets.iter().map(config).collect(),
        ..Default::default()
    };
    Task::new(id.parse().unwrap(), Arc::new(spec))
}

#[test]
fn a_task_with_a_network_of_a_user_stays_new_and_says_why() {
    let mut world = World::new();
    world.put(network("mine", false));
    world.put(attached("t1", &["mine"]));
    let wire = v1::ServiceSpec {
        networks: vec![v1::NetworkAttachmentConfig {
            target: "mine".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    };
    world.put(Service::new("s".parse().unwrap(), ServiceSpec::new(wire)));
    world.put(task("t2", "s"));
    for id in ["t1", "t2"] {
        let err = "new||network \"mine\" is not supported yet, only host and bridge are; \
                   remove it from the service spec";
        assert_eq!(world.status(id), err);
    }
}

#[test]
fn a_task_on_a_predefined_network_waits_for_it_and_carries_all_of_it() {
    let mut world = World::new();
    world.put(attached("t", &["host"]));
    assert_eq!(
        world.status("t"),
        "new||network \"host\" does not exist; create it or remove it from the service spec"
    );
    let mut host = network("host", false);
    let mut spec = (*host.spec).clone();
    spec.annotations.as_mut().unwrap().labels.insert(
        swarm_types::networks::PREDEFINED_LABEL.to_owned(),
        "true".to_owned(),
    );
    spec.driver_config.get_or_insert_default().name = "host".to_owned();
    host.spec = Arc::new(spec);
    world.put(host);
    assert_eq!(world.status("t"), READY);
    let task = world.root.task(&"t".parse().unwrap()).unwrap();
    let [only] = &task.networks[..] else {
        panic!("{:?}", task.networks)
    };
    let network = only.network.as_ref().unwrap();
    assert_eq!(network.driver_state.as_ref().unwrap().name, "host");
    assert!(network.ipam.as_ref().unwrap().driver.is_some());
    assert_eq!(
        (&only.addresses[..], &only.aliases[..]),
        (&[][..], &["alias".to_owned()][..])
    );
}

#[test]
fn tasks_of_one_service_share_its_endpoint() {
    let mut world = World::new();
    world.put(service("s", &[80]));
    world.put(task("t1", "s"));
    world.put(task("t2", "s"));
    let endpoint = |id: &str| {
        world
            .root
            .task(&id.parse().unwrap())
            .unwrap()
            .endpoint
            .clone()
    };
    assert!(Arc::ptr_eq(
        &endpoint("t1").unwrap(),
        &endpoint("t2").unwrap()
    ));
}

#[test]
fn a_task_that_is_not_wanted_any_more_is_left_alone() {
    let mut world = World::new();
    let status = TaskStatus::default();
    let unwanted = Task::new("t".parse().unwrap(), Arc::default());
    world.put(unwanted.with_states(status, TaskState::Remove));
    assert_eq!(world.status("t"), "new||");
}

#[test]
fn a_restarted_allocator_finds_what_was_left_and_repeats_nothing() {
    let mut world = World::new();
    world.put(service("a", &[80, 0]));
    world.put(service("b", &[80]));
    world.put(task("t", "b"));
    let version = world.root.version();
    world.queue = Queue::new(Allocator::default(), &world.root);
    world.run();
    assert_eq!(world.root.version(), version);
    let mut transaction = world.root.begin(Timestamp::EPOCH);
    transaction.create(task("late", "a")).unwrap();
    world.root = transaction.finish().0;
    world.queue = Queue::new(Allocator::default(), &world.root);
    world.run();
    assert_eq!(world.status("late"), READY);
}
