//! What the tasks on a node use of it.

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_store::TRANSACTION_CHANGES_MAX;
use swarm_types::resources::Resources;
use swarm_types::{Node, Task, TaskState, spec};
use v1::generic_resource::Resource;

use crate::counts::{Owner, ServiceCounts};
use crate::node_log::NodeIx;
use crate::numbered::Numbered;
use crate::requirements::host_ports;

/// A port of the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct HostPort {
    /// The wire number; an unknown one is only ever equal to itself.
    pub(crate) protocol: i32,
    pub(crate) port: u32,
}

/// Sums over tasks. Two loads can be added by looking at both, which is how a plan puts its own
/// placements over the cache.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Load {
    /// All of them, also those that use nothing.
    tasks: u64,
    active: u64,
    by_service: ServiceCounts,
    /// Wider than a reservation, so that sums of hostile values come back to where they were.
    nano_cpus: i128,
    memory_bytes: i128,
    generic: BTreeMap<String, Held>,
    ports: BTreeMap<HostPort, u64>,
}

/// What is held of one kind of generic resources.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    amount: i128,
    units: BTreeMap<String, u64>,
}

impl Load {
    /// Adds a task.
    pub(crate) fn add(&mut self, task: &Task) {
        self.tasks += 1;
        if is_active(task) {
            self.active += 1;
            self.by_service.add(&task.service_id);
        }
        if let Some(reservations) = spec::reservations(&task.spec) {
            self.nano_cpus += i128::from(reservations.nano_cpus.max(0));
            self.memory_bytes += i128::from(reservations.memory_bytes.max(0));
        }
        for entry in &task.assigned_generic_resources {
            match &entry.resource {
                Some(Resource::DiscreteResourceSpec(amount)) => {
                    let held = self.generic.entry(amount.kind.clone()).or_default();
                    held.amount += i128::from(amount.value.max(0));
                }
                Some(Resource::NamedResourceSpec(unit)) => {
                    let held = self.generic.entry(unit.kind.clone()).or_default();
                    *held.units.entry(unit.value.clone()).or_default() += 1;
                }
                None => {}
            }
        }
        for port in host_ports(task) {
            *self.ports.entry(port).or_default() += 1;
        }
    }

    /// Takes a task away that was added before.
    pub(crate) fn remove(&mut self, task: &Task) {
        self.tasks -= 1;
        if is_active(task) {
            self.active -= 1;
            self.by_service.remove(&task.service_id);
        }
        if let Some(reservations) = spec::reservations(&task.spec) {
            self.nano_cpus -= i128::from(reservations.nano_cpus.max(0));
            self.memory_bytes -= i128::from(reservations.memory_bytes.max(0));
        }
        for entry in &task.assigned_generic_resources {
            self.release(entry);
        }
        for port in host_ports(task) {
            decrement(&mut self.ports, &port);
        }
    }

    fn release(&mut self, entry: &v1::GenericResource) {
        let kind = swarm_types::resources::kind(entry);
        let Some(held) = self.generic.get_mut(kind) else {
            return;
        };
        match &entry.resource {
            Some(Resource::DiscreteResourceSpec(amount)) => {
                held.amount -= i128::from(amount.value.max(0));
            }
            Some(Resource::NamedResourceSpec(unit)) => decrement(&mut held.units, &unit.value),
            None => {}
        }
        if held.amount == 0 && held.units.is_empty() {
            self.generic.remove(kind);
        }
    }

    /// Whether no task is counted in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.tasks == 0
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, u64>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// What a plan adds to nodes, in the order in which it came to them. Loads are large: they stay
/// where they are, and the tree that finds them holds numbers.
#[derive(Debug, Default)]
pub(crate) struct Planned {
    loads: Vec<(NodeIx, Load)>,
    places: Numbered<usize>,
}

impl Planned {
    /// What it adds to a node, if anything.
    pub(crate) fn get(&self, ix: NodeIx) -> Option<&Load> {
        let place = self.places.get(&ix.0)?;
        Some(&self.loads[*place].1)
    }

    /// What it adds to a node, to add to it.
    pub(crate) fn entry(&mut self, ix: NodeIx) -> &mut Load {
        let place = *self.places.entry(ix.0).or_insert(self.loads.len());
        if place == self.loads.len() {
            if self.loads.is_empty() {
                // A full plan places so many tasks; to grow on the way would move the loads.
                self.loads.reserve(TRANSACTION_CHANGES_MAX);
            }
            self.loads.push((ix, Load::default()));
        }
        &mut self.loads[place].1
    }

    /// All nodes to which it adds something.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (NodeIx, &Load)> {
        self.loads.iter().map(|(ix, load)| (*ix, load))
    }
}

/// Whether a task counts towards the tasks of its node: it is not on its way out.
pub(crate) fn is_active(task: &Task) -> bool {
    task.desired_state() <= TaskState::Complete
}

/// Whether two versions of a task on one node use the same of it.
pub(crate) fn is_same_load(old: &Task, new: &Task) -> bool {
    let is_same_body = || {
        old.service_id == new.service_id
            && (std::sync::Arc::ptr_eq(&old.spec, &new.spec) || old.spec == new.spec)
            && old.endpoint == new.endpoint
            && old.assigned_generic_resources == new.assigned_generic_resources
    };
    is_active(old) == is_active(new) && (old.shares_body(new) || is_same_body())
}

/// A node with what is used of it: by stored tasks, and by those of the plan in the making.
#[derive(Clone, Copy)]
pub(crate) struct NodeView<'a> {
    pub(crate) node: &'a Node,
    pub(crate) load: &'a Load,
    pub(crate) planned: Option<&'a Load>,
}

impl NodeView<'_> {
    fn sum<N: std::ops::Add<Output = N>>(&self, read: impl Fn(&Load) -> N) -> N {
        let base = read(self.load);
        match self.planned {
            Some(planned) => base + read(planned),
            None => base,
        }
    }

    /// Active tasks on the node.
    pub(crate) fn active(&self) -> u64 {
        self.sum(|load| load.active)
    }

    /// Active tasks of a service on the node.
    pub(crate) fn active_of(&self, service: &Owner) -> u64 {
        self.sum(|load| load.by_service.get(service))
    }

    /// Billionths of a processor that are not reserved.
    pub(crate) fn free_nano_cpus(&self) -> i128 {
        let described = self.described().map_or(0, |resources| resources.nano_cpus);
        i128::from(described) - self.sum(|load| load.nano_cpus)
    }

    /// Bytes that are not reserved.
    pub(crate) fn free_memory(&self) -> i128 {
        let described = self
            .described()
            .map_or(0, |resources| resources.memory_bytes);
        i128::from(described) - self.sum(|load| load.memory_bytes)
    }

    /// Generic resources that no task holds, in the order of the description.
    pub(crate) fn free_generic(&self) -> Resources {
        let described = self
            .described()
            .map_or(&[][..], |resources| &resources.generic);
        described
            .iter()
            .filter_map(|entry| match entry.resource.as_ref()? {
                Resource::DiscreteResourceSpec(amount) => {
                    let held = self
                        .sum(|load| load.generic.get(&amount.kind).map_or(0, |held| held.amount));
                    let free = i64::try_from(i128::from(amount.value) - held).ok()?;
                    (free > 0).then(|| swarm_types::resources::discrete(amount.kind.clone(), free))
                }
                Resource::NamedResourceSpec(unit) => {
                    let held = self.sum(|load| {
                        let held = load.generic.get(&unit.kind);
                        u64::from(held.is_some_and(|held| held.units.contains_key(&unit.value)))
                    });
                    (held == 0).then(|| entry.clone())
                }
            })
            .collect()
    }

    /// Whether a task holds the port.
    pub(crate) fn is_port_used(&self, port: HostPort) -> bool {
        self.sum(|load| u64::from(load.ports.contains_key(&port))) > 0
    }

    fn described(&self) -> Option<&v1::Resources> {
        self.node.description.as_ref()?.resources.as_ref()
    }
}
