//! Addresses on the ingress network: virtual ones of services, and those of tasks and nodes.

use std::collections::BTreeMap;

use proptest::prelude::*;
use swarm_types::networks::{NETWORK_PLUGIN, OVERLAY_DRIVER};
use swarm_types::{Cluster, Node};

use super::*;

impl World {
    /// With subnets of this size.
    fn with_subnets(size: u32) -> Self {
        let root = Root::default();
        let queue = Queue::new(Allocator::default(), &root);
        let mut world = Self { root, queue };
        let mut cluster = Cluster::new("c".parse().unwrap(), swarm_types::defaults::cluster_spec());
        cluster.subnet_size = size;
        world.put(cluster);
        world.put(network("ingress", true));
        world
    }

    fn vips(&self, id: &str) -> Vec<String> {
        let endpoint = self.service(id).endpoint;
        let vips = endpoint.map_or_else(Vec::new, |endpoint| endpoint.virtual_ips.clone());
        vips.into_iter().map(|vip| vip.addr).collect()
    }

    fn addresses(&self, id: &str) -> Vec<String> {
        let task = self.root.task(&id.parse().unwrap()).unwrap();
        addresses(&task.networks)
    }

    fn node_addresses(&self, id: &str) -> Vec<String> {
        let node = self.root.node(&id.parse().unwrap()).unwrap();
        addresses(&node.attachments)
    }

    /// Ends a task, as the report of an agent does.
    fn end(&mut self, id: &str) {
        let mut task = (**self.root.task(&id.parse().unwrap()).unwrap()).clone();
        task.advance(TaskStatus::new(TaskState::Shutdown, Timestamp::EPOCH, ""))
            .unwrap();
        self.put(task);
    }

    fn delete_task(&mut self, id: &str) {
        let task = Arc::clone(self.root.task(&id.parse().unwrap()).unwrap());
        self.delete(&task.into());
    }

    fn delete_node(&mut self, id: &str) {
        let node = Arc::clone(self.root.node(&id.parse().unwrap()).unwrap());
        self.delete(&node.into());
    }
}

fn addresses(attachments: &[v1::NetworkAttachment]) -> Vec<String> {
    attachments
        .iter()
        .flat_map(|attachment| attachment.addresses.clone())
        .collect()
}

fn node(id: &str) -> Node {
    Node::new(id.parse().unwrap(), v1::NodeSpec::default())
}

fn overlay_node(id: &str) -> Node {
    let mut description = v1::NodeDescription::default();
    let engine = description.engine.get_or_insert_default();
    engine.plugins.push(v1::PluginDescription {
        r#type: NETWORK_PLUGIN.to_owned(),
        name: OVERLAY_DRIVER.to_owned(),
    });
    let mut node = node(id);
    node.description = Some(Arc::new(description));
    node
}

const EXHAUSTED: &str = "no address is left: all addresses of 10.0.0.0/29 on network \"ingress\" \
    are taken; remove services, tasks or nodes, or start a cluster with a larger subnet size";

#[test]
fn virtual_task_and_node_addresses_come_in_the_order_in_which_they_are_asked_for() {
    let mut world = World::new();
    world.put(overlay_node("n1"));
    world.put(service("s", &[80]));
    world.put(task("t1", "s"));
    world.put(task("t2", "s"));
    assert_eq!(world.node_addresses("n1"), ["10.0.0.2/24"]);
    assert_eq!(world.vips("s"), ["10.0.0.3/24"]);
    assert_eq!(world.addresses("t1"), ["10.0.0.4/24"]);
    assert_eq!(world.addresses("t2"), ["10.0.0.5/24"]);
    assert_eq!(world.status("t2"), READY);
}

#[test]
fn attachments_hold_the_network_with_all_that_a_node_reads_without_looking() {
    let mut world = World::new();
    world.put(overlay_node("n"));
    world.put(service("s", &[80]));
    world.put(task("t", "s"));
    let task = world.root.task(&"t".parse().unwrap()).unwrap();
    let node = world.root.node(&"n".parse().unwrap()).unwrap();
    let stored = world.root.ingress_network().unwrap();
    for attachment in [&task.networks[0], &node.attachments[0]] {
        let network = attachment.network.as_ref().unwrap();
        assert_eq!(*network, swarm_types::convert::network_to_wire(stored));
        assert!(network.spec.as_ref().unwrap().ingress);
        let state = network.driver_state.as_ref().unwrap();
        let option = &state.options["com.docker.network.driver.overlay.vxlanid_list"];
        assert_eq!((&state.name[..], &option[..]), ("overlay", "4096"));
        let ipam = network.ipam.as_ref().unwrap();
        assert_eq!(ipam.driver.as_ref().unwrap().name, "default");
        assert_eq!(ipam.configs[0].gateway, "10.0.0.1");
    }
    let vip = &task.endpoint.as_ref().unwrap().virtual_ips[0];
    assert_eq!(vip.network_id, stored.id.to_string());
}

#[test]
fn ingress_comes_before_other_networks_of_a_task() {
    let mut world = World::new();
    let mut host = network("host", false);
    let mut spec = (*host.spec).clone();
    let labels = &mut spec.annotations.as_mut().unwrap().labels;
    labels.insert("com.docker.swarm.predefined".to_owned(), "true".to_owned());
    host.spec = Arc::new(spec);
    world.put(host);
    world.put(service("s", &[80]));
    let mut both = attached("t", &["host"]);
    both.service_id = Some("s".parse().unwrap());
    world.put(both);
    let task = world.root.task(&"t".parse().unwrap()).unwrap();
    let ids: Vec<_> = task
        .networks
        .iter()
        .map(|attachment| attachment.network.as_ref().unwrap().id.clone())
        .collect();
    assert_eq!(ids, ["ingress", "host"]);
}

#[test]
fn only_nodes_with_the_overlay_driver_get_an_address() {
    let mut world = World::new();
    world.put(node("n"));
    assert_eq!(world.node_addresses("n"), [""; 0]);
    let mut described = overlay_node("n");
    described.meta = world.root.node(&"n".parse().unwrap()).unwrap().meta;
    world.put(described);
    assert_eq!(world.node_addresses("n"), ["10.0.0.2/24"]);
    let mut bare = (**world.root.node(&"n".parse().unwrap()).unwrap()).clone();
    bare.description = None;
    world.put(bare);
    assert_eq!(world.node_addresses("n"), [""; 0]);
}

#[test]
fn services_without_ingress_ports_have_no_virtual_address_and_lose_it_with_them() {
    let mut world = World::new();
    world.put(service("s", &[]));
    assert_eq!(world.vips("s"), [""; 0]);
    for (ports, vips) in [
        (&[80][..], &["10.0.0.2/24"][..]),
        (&[], &[]),
        (&[80], &["10.0.0.3/24"]),
    ] {
        let mut changed = world.service("s");
        changed.spec = service("s", ports).spec;
        world.put(changed);
        assert_eq!(world.vips("s"), vips);
    }
    let mut changed = world.service("s");
    let mut wire = service("s", &[81]).spec.wire().clone();
    wire.endpoint.as_mut().unwrap().mode = v1::endpoint_spec::ResolutionMode::Dnsrr as i32;
    changed.spec = ServiceSpec::new(wire);
    world.put(changed);
    assert_eq!((world.ports("s"), world.vips("s")), (vec![81], vec![]));
}

#[test]
fn freed_addresses_are_not_given_again_before_the_others() {
    let mut world = World::with_subnets(29);
    world.put(service("s", &[80]));
    world.put(task("t1", "s"));
    world.put(task("t2", "s"));
    world.end("t1");
    world.put(task("t3", "s"));
    world.put(task("t4", "s"));
    world.put(task("t5", "s"));
    let all = ["t1", "t2", "t3", "t4", "t5"].map(|id| world.addresses(id).concat());
    let expected = [
        "10.0.0.3/29",
        "10.0.0.4/29",
        "10.0.0.5/29",
        "10.0.0.6/29",
        "10.0.0.3/29",
    ];
    assert_eq!(all, expected);
}

#[test]
fn whoever_gets_no_address_is_told_and_served_when_one_is_free() {
    let mut world = World::with_subnets(29);
    world.put(service("a", &[80]));
    for id in ["t1", "t2", "t3", "t4", "t5"] {
        world.put(task(id, "a"));
    }
    world.put(overlay_node("n"));
    world.put(service("b", &[81]));
    world.put(task("u", "b"));
    assert_eq!(world.status("t5"), format!("new||{EXHAUSTED}"));
    assert_eq!(world.status("u"), format!("new||{EXHAUSTED}"));
    world.end("t1");
    assert_eq!(world.vips("b"), ["10.0.0.3/29"]);
    world.delete_task("t2");
    assert_eq!(world.node_addresses("n"), ["10.0.0.4/29"]);
    world.end("t3");
    assert_eq!(world.status("t5"), READY);
    world.delete_node("n");
    assert_eq!(world.status("u"), READY);
}

#[test]
fn a_network_that_cannot_be_set_up_is_named_on_the_tasks() {
    let mut world = World::with_subnets(31);
    world.put(service("s", &[80]));
    world.put(task("t", "s"));
    let err = "new||no address is left: the subnet \"/31\" of network \"ingress\" is no IPv4 \
               subnet of at most /29; create the network anew with another";
    assert_eq!(world.status("t"), err);
    let mut cluster = (**world.root.cluster().unwrap()).clone();
    cluster.subnet_size = 29;
    world.put(cluster);
    assert_eq!(world.status("t"), READY);
}

#[test]
fn without_ingress_network_nodes_are_detached_and_with_another_attached_again() {
    let mut world = World::new();
    world.put(overlay_node("n"));
    world.delete(&network("ingress", true).into());
    assert_eq!(world.node_addresses("n"), [""; 0]);
    world.put(network("other", true));
    assert_eq!(world.node_addresses("n"), ["10.0.0.2/24"]);
}

#[test]
fn a_restarted_allocator_gives_no_address_twice() {
    let mut world = World::new();
    world.put(service("s", &[80]));
    world.put(task("t1", "s"));
    let version = world.root.version();
    world.queue = Queue::new(Allocator::default(), &world.root);
    world.run();
    assert_eq!(world.root.version(), version);
    world.put(task("t2", "s"));
    assert_eq!(world.addresses("t1"), ["10.0.0.3/24"]);
    assert_eq!(world.addresses("t2"), ["10.0.0.4/24"]);
}

#[derive(Clone, Debug)]
enum Op {
    Service(u8, bool),
    Task(u8, u8),
    Node(u8, bool),
    RemoveService(u8),
    EndTask(u8),
    RemoveTask(u8),
    RemoveNode(u8),
    Restart,
}

fn any_op() -> impl Strategy<Value = Op> {
    let few = 0u8..5;
    prop_oneof![
        1 => (few.clone(), any::<bool>()).prop_map(|(id, ingress)| Op::Service(id, ingress)),
        4 => (0u8..9, few.clone()).prop_map(|(id, service)| Op::Task(id, service)),
        2 => (few.clone(), any::<bool>()).prop_map(|(id, overlay)| Op::Node(id, overlay)),
        1 => few.clone().prop_map(Op::RemoveService),
        2 => (0u8..9).prop_map(Op::EndTask),
        1 => (0u8..9).prop_map(Op::RemoveTask),
        1 => few.prop_map(Op::RemoveNode),
        1 => Just(Op::Restart),
    ]
}

impl World {
    fn play(&mut self, op: Op) {
        let name = |kind: &str, id: u8| format!("{kind}{id}");
        match op {
            Op::Service(id, ingress) => {
                let ports = [u32::from(id) + 1000];
                let name = name("s", id);
                let wanted = service(&name, if ingress { &ports } else { &[] });
                let stored = self.root.service(&wanted.id).is_some();
                let mut service = if stored {
                    self.service(&name)
                } else {
                    wanted.clone()
                };
                service.spec = wanted.spec;
                self.put(service);
            }
            Op::Task(id, service) => {
                let task = task(&name("t", id), &name("s", service));
                if self.root.task(&task.id).is_none() {
                    self.put(task);
                }
            }
            Op::Node(id, overlay) => {
                let name = name("n", id);
                let mut wanted = if overlay {
                    overlay_node(&name)
                } else {
                    node(&name)
                };
                if let Some(stored) = self.root.node(&wanted.id) {
                    wanted.meta = stored.meta;
                    wanted.attachments.clone_from(&stored.attachments);
                }
                self.put(wanted);
            }
            Op::RemoveService(id) => {
                if self.root.service(&name("s", id).parse().unwrap()).is_some() {
                    self.delete_service(&name("s", id));
                }
            }
            Op::EndTask(id) => {
                if self.root.task(&name("t", id).parse().unwrap()).is_some() {
                    self.end(&name("t", id));
                }
            }
            Op::RemoveTask(id) => {
                if self.root.task(&name("t", id).parse().unwrap()).is_some() {
                    self.delete_task(&name("t", id));
                }
            }
            Op::RemoveNode(id) => {
                if self.root.node(&name("n", id).parse().unwrap()).is_some() {
                    self.delete_node(&name("n", id));
                }
            }
            Op::Restart => {
                self.queue = Queue::new(Allocator::default(), &self.root);
                self.run();
            }
        }
    }

    /// Who has which address, read off the objects.
    fn holders(&self) -> BTreeMap<String, Vec<String>> {
        let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut hold = |addresses: Vec<String>, id: String| {
            for address in addresses {
                holders.entry(address).or_default().push(id.clone());
            }
        };
        for service in self.root.all::<Service>() {
            hold(self.vips(&service.id.to_string()), service.id.to_string());
        }
        for task in self.root.all::<Task>().filter(|task| !task.is_terminal()) {
            hold(addresses(&task.networks), task.id.to_string());
        }
        for node in self.root.all::<Node>() {
            hold(addresses(&node.attachments), node.id.to_string());
        }
        holders
    }

    /// Who should have an address and has none, by rules of its own.
    fn needy(&self) -> Vec<String> {
        let publishes = |service: &Service| {
            let spec = service.spec.endpoint.as_ref();
            spec.is_some_and(|endpoint| !endpoint.ports.is_empty())
        };
        let services = self.root.all::<Service>().filter(|it| publishes(it));
        let services = services.map(|service| service.id.to_string());
        let services = services.filter(|id| self.vips(id).is_empty());
        let tasks = self.root.all::<Task>().filter(|task| {
            let service = task
                .service_id
                .as_ref()
                .and_then(|id| self.root.service(id));
            !task.is_terminal()
                && task.state() == TaskState::New
                && service.is_some_and(|service| publishes(service))
        });
        let nodes = self
            .root
            .all::<Node>()
            .filter(|node| node.description.is_some() && node.attachments.is_empty());
        services
            .chain(tasks.map(|task| task.id.to_string()))
            .chain(nodes.map(|node| node.id.to_string()))
            .collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    /// Whatever happens, no address has two holders, nobody waits while one is free, whoever waits
    /// is told, and the cache is what a restart would build.
    #[test]
    fn addresses_are_unique_and_nobody_waits_in_vain(
        ops in prop::collection::vec(any_op(), 1..60),
    ) {
        // Six hosts, of which one is the gateway.
        const ADDRESSES: usize = 5;
        let mut world = World::with_subnets(29);
        for op in ops {
            world.play(op);
            let holders = world.holders();
            for (address, holders) in &holders {
                prop_assert_eq!(holders.len(), 1, "{} has {:?}", address, holders);
            }
            prop_assert!(!holders.contains_key("10.0.0.1/29"));
            let needy = world.needy();
            let is_full = holders.len() == ADDRESSES;
            prop_assert!(needy.is_empty() || is_full, "{:?} {:?}", needy, holders);
            let is_needy = |task: &&Arc<Task>| needy.contains(&task.id.to_string());
            for task in world.root.all::<Task>().filter(is_needy) {
                prop_assert_eq!(task.status().err.as_str(), EXHAUSTED);
            }
        }
    }
}
