//! What the allocator keeps of the store: what is taken, and who waits for something.
//!
//! It is a function of the store (I-LOOP-4), updated in O(log n) for each change; only a change of
//! the ingress network itself looks at everything. Decides nothing.

use std::collections::{BTreeMap, BTreeSet};

use swarm_store::{Action, Change, Root};
use swarm_types::{
    AnyObject, Network, NetworkId, Node, NodeId, Service, ServiceId, Task, TaskId, TaskState,
    networks,
};

use crate::addresses::Pool;
use crate::attachments::{held, is_attached, is_settled, publishes, wants_attachment};
use crate::networks::is_unfinished;
use crate::ports::Occupancy;

/// How the error of a task begins that waits for an address while all are taken.
pub const ADDRESSES_ERR_PREFIX: &str = "no address is left: ";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cache {
    /// The ingress network, once it has a subnet.
    pub(crate) ingress: Option<NetworkId>,
    /// Published numbers by who has them.
    pub(crate) ports: Occupancy,
    /// Addresses that services, tasks and nodes have.
    pub(crate) pools: Pools,
    /// Networks that wait to be set up.
    pub(crate) networks: BTreeSet<NetworkId>,
    /// Services whose endpoint does not agree with their spec.
    pub(crate) services: BTreeSet<ServiceId>,
    /// Nodes that wait for an address.
    pub(crate) nodes: BTreeSet<NodeId>,
    /// Nodes that have one and must not.
    pub(crate) detached: BTreeSet<NodeId>,
    /// Tasks that wait for nothing but an address.
    pub(crate) tasks: BTreeSet<TaskId>,
    /// The same, of those that were told that none is left.
    pub(crate) told: BTreeSet<TaskId>,
}

/// The taken addresses of each network. One of which nothing is taken keeps its hint, and counts
/// like one that is not there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pools(BTreeMap<NetworkId, Pool>);

impl Pools {
    /// The pool of a network; `None` if nothing of it was ever taken.
    pub(crate) fn get(&self, network: &NetworkId) -> Option<&Pool> {
        self.0.get(network)
    }

    fn taken(&self) -> impl Iterator<Item = (&NetworkId, &Pool)> {
        self.0.iter().filter(|(_, pool)| !pool.is_empty())
    }
}

impl PartialEq for Pools {
    fn eq(&self, other: &Self) -> bool {
        self.taken().eq(other.taken())
    }
}

/// What a change means for the keys of the allocator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct News {
    /// The pass over those who wait may find something to do.
    pub(crate) pass: bool,
    /// Tasks that may be brought on by themselves.
    pub(crate) tasks: Vec<TaskId>,
}

impl Cache {
    /// The cache of a store, with everything that is to do.
    pub(crate) fn build(view: &Root) -> (Self, News) {
        let mut cache = Self {
            ingress: ready_ingress(view),
            ..Self::default()
        };
        for service in view.all::<Service>() {
            cache.take(&AnyObject::Service(service.clone()));
        }
        for node in view.all::<Node>() {
            cache.take(&AnyObject::Node(node.clone()));
        }
        for task in view.all::<Task>().filter(|task| !task.networks.is_empty()) {
            cache.take(&AnyObject::Task(task.clone()));
        }
        for pool in cache.pools.0.values_mut() {
            pool.rewind();
        }
        cache.ports.rewind();
        let unfinished = view
            .all::<Network>()
            .filter(|network| is_unfinished(network));
        cache.networks = unfinished.map(|network| network.id.clone()).collect();
        let mut news = News {
            pass: true,
            tasks: Vec::new(),
        };
        cache.sort_all(view, &mut news);
        (cache, news)
    }

    /// Takes notice of a change; `view` is at or after it.
    pub(crate) fn observe(&mut self, change: &Change, view: &Root) -> News {
        let mut news = News::default();
        let is_removed = change.action == Action::Remove;
        let before = if is_removed {
            Some(&change.object)
        } else {
            change.old.as_ref()
        };
        let after = (!is_removed).then_some(&change.object);
        let frees = self.move_holdings(before, after);
        match &change.object {
            AnyObject::Service(service) => {
                self.sort_service(service, view, &mut news);
                if is_endpoint_new(before, after) {
                    for task in view.tasks_of_service(&service.id) {
                        self.sort_task(task, view, &mut news);
                    }
                }
            }
            AnyObject::Task(task) => match view.task(&task.id) {
                Some(task) => self.sort_task(task, view, &mut news),
                None => self.forget_task(&task.id),
            },
            AnyObject::Node(node) => self.sort_node(&node.id, view, &mut news),
            AnyObject::Network(network) => self.observe_network(network, view, &mut news),
            AnyObject::Cluster(_) => news.pass |= !self.networks.is_empty(),
            AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {}
        }
        let is_awaited =
            !self.services.is_empty() || !self.nodes.is_empty() || !self.told.is_empty();
        news.pass |= frees && is_awaited;
        news
    }

    /// Whether nobody waits for anything.
    pub(crate) fn is_idle(&self) -> bool {
        self.networks.is_empty()
            && self.services.is_empty()
            && self.nodes.is_empty()
            && self.detached.is_empty()
            && self.tasks.is_empty()
            && self.told.is_empty()
    }

    /// Moves ports and addresses from the old object to the new one. Returns whether some are free
    /// from now on.
    fn move_holdings(&mut self, before: Option<&AnyObject>, after: Option<&AnyObject>) -> bool {
        let mut frees = false;
        if let Some(AnyObject::Service(old)) = before {
            self.ports.release(&old.id, ports_of(old));
            let new = match after {
                Some(AnyObject::Service(new)) => ports_of(new),
                Some(_) | None => &[],
            };
            frees |= ports_of(old).iter().any(|port| !new.contains(port));
        }
        if let Some(AnyObject::Service(new)) = after {
            self.ports.hold(new, ports_of(new));
            if let Some(endpoint) = &new.endpoint {
                let before = match before {
                    Some(AnyObject::Service(old)) => ports_of(old),
                    Some(_) | None => &[],
                };
                self.ports.advance(endpoint, before);
            }
        }
        let old = before.map(held).unwrap_or_default();
        let new = after.map(held).unwrap_or_default();
        for (network, address) in new.iter().filter(|held| !old.contains(held)) {
            let pool = self.pools.0.entry(network.clone()).or_default();
            pool.take(*address);
        }
        for (network, address) in old.iter().filter(|held| !new.contains(held)) {
            if let Some(pool) = self.pools.0.get_mut(network) {
                frees |= pool.free(*address);
            }
        }
        frees
    }

    fn take(&mut self, object: &AnyObject) {
        self.move_holdings(None, Some(object));
    }

    fn observe_network(&mut self, network: &Network, view: &Root, news: &mut News) {
        match view.get::<Network>(&network.id) {
            Some(network) if is_unfinished(network) => {
                self.networks.insert(network.id.clone());
            }
            Some(_) | None => {
                self.networks.remove(&network.id);
            }
        }
        self.ingress = ready_ingress(view);
        news.pass = true;
        // Rare, and anyone may have waited for this network.
        self.sort_all(view, news);
    }

    fn sort_all(&mut self, view: &Root, news: &mut News) {
        self.services.clear();
        self.nodes.clear();
        self.detached.clear();
        self.tasks.clear();
        self.told.clear();
        for service in view.all::<Service>() {
            self.sort_service(service, view, news);
        }
        for node in view.all::<Node>() {
            self.sort_node(&node.id, view, news);
        }
        for task in view.all::<Task>() {
            self.sort_task(task, view, news);
        }
    }

    fn sort_service(&mut self, service: &Service, view: &Root, news: &mut News) {
        match view.service(&service.id) {
            Some(service) if !is_settled(service, self.ingress.as_ref()) => {
                self.services.insert(service.id.clone());
                news.pass = true;
            }
            Some(_) | None => {
                self.services.remove(&service.id);
            }
        }
    }

    fn sort_node(&mut self, id: &NodeId, view: &Root, news: &mut News) {
        let ingress = self.ingress.as_ref();
        let stored = view.node(id).filter(|node| !is_attached(node, ingress));
        let is_wanting = stored.is_some_and(|node| wants_attachment(node, ingress));
        news.pass |= set(&mut self.nodes, id, is_wanting);
        news.pass |= set(&mut self.detached, id, stored.is_some() && !is_wanting);
    }

    fn forget_task(&mut self, id: &TaskId) {
        self.tasks.remove(id);
        self.told.remove(id);
    }

    fn sort_task(&mut self, task: &Task, view: &Root, news: &mut News) {
        if !is_waiting(task) {
            // Nearly every change is about a task which the allocator is done with.
            if !self.tasks.is_empty() || !self.told.is_empty() {
                self.forget_task(&task.id);
            }
            return;
        }
        let service = task.service_id.as_ref().and_then(|id| view.service(id));
        let is_unsettled =
            service.is_some_and(|service| !is_settled(service, self.ingress.as_ref()));
        let needs_address =
            !is_unsettled && task.networks.is_empty() && service.is_some_and(|it| publishes(it));
        let is_told = task.status().err.starts_with(ADDRESSES_ERR_PREFIX);
        news.pass |= set(&mut self.tasks, &task.id, needs_address && !is_told);
        news.pass |= set(&mut self.told, &task.id, needs_address && is_told);
        if is_unsettled {
            // The pass tells it why it waits.
            news.pass = true;
        } else if !needs_address {
            news.tasks.push(task.id.clone());
        }
    }
}

/// Whether a task waits for the allocator at all.
pub fn is_waiting(task: &Task) -> bool {
    task.state() == TaskState::New && task.desired_state() <= TaskState::Complete
}

/// Puts an id into a set or takes it out. Returns whether it is new in it.
fn set<T: Ord + Clone>(ids: &mut BTreeSet<T>, id: &T, is_in: bool) -> bool {
    if is_in {
        ids.insert(id.clone())
    } else {
        ids.remove(id);
        false
    }
}

fn ports_of(service: &Service) -> &[swarm_api::v1::PortConfig] {
    service
        .endpoint
        .as_deref()
        .map_or(&[], |endpoint| &endpoint.ports)
}

/// The ingress network if it has a subnet.
fn ready_ingress(view: &Root) -> Option<NetworkId> {
    let ingress = view.ingress_network()?;
    networks::is_allocated(ingress).then(|| ingress.id.clone())
}

/// Whether tasks of a service can have reason to go on, or to wait: its endpoint, or what it wants
/// of endpoint and networks, is not what it was.
fn is_endpoint_new(before: Option<&AnyObject>, after: Option<&AnyObject>) -> bool {
    match (before, after) {
        (Some(AnyObject::Service(old)), Some(AnyObject::Service(new))) => {
            old.endpoint != new.endpoint
                || old.spec.endpoint != new.spec.endpoint
                || old.spec.networks != new.spec.networks
        }
        (_, _) => true,
    }
}
