//! One look at everybody who waits: networks, services, nodes and tasks, in this order, as they
//! compete for numbers and addresses (spec 4.6: a virtual address comes before those of nodes and
//! tasks). Pure; what it draws is taken once the commit is observed.

use std::sync::Arc;

use swarm_api::v1;
use swarm_reconcile::Step;
use swarm_store::{Root, TRANSACTION_CHANGES_MAX, Write, WriteSet};
use swarm_types::{Network, Node, NodeId, Service, ServiceId, TaskId, Text, Timestamp, networks};
use v1::endpoint::VirtualIp;

use crate::addresses::Draft;
use crate::allocator::{PORTS_ERR_PREFIX, bring_on, with_reason};
use crate::attachments::{attachment, is_attached, is_settled, needs_vip, vip_on};
use crate::cache::{ADDRESSES_ERR_PREFIX, Cache, is_waiting};
use crate::networks::{Space, allocate as allocate_network, space};
use crate::ports::{Ingress, Occupancy, Taken, allocate};

/// The ingress network with the addresses that are left of it.
struct Source<'a> {
    network: &'a Arc<Network>,
    space: Space,
    draft: Draft<'a>,
}

impl<'a> Source<'a> {
    fn of(cache: &'a Cache, view: &'a Root) -> Option<Self> {
        let network = view.get::<Network>(cache.ingress.as_ref()?)?;
        let space = space(network)?;
        let pool = cache.pools.get(&network.id);
        Some(Self {
            network,
            draft: Draft::new(pool, space.hosts.clone(), space.gateway),
            space,
        })
    }

    /// Why nothing can be drawn.
    fn exhausted(&self) -> String {
        format!(
            "all addresses of {} on network {:?} are taken; remove services, tasks or nodes, or \
             start a cluster with a larger subnet size",
            self.space.subnet,
            networks::name(self.network),
        )
    }

    /// An attachment with the next address.
    fn attach(&mut self) -> Option<v1::NetworkAttachment> {
        let address = self.draft.draw()?;
        let given = Some((self.space.subnet, address));
        Some(attachment(self.network, given, None))
    }
}

/// Decides for as many as fit one transaction.
pub(crate) fn run(cache: &Cache, view: &Root, now: Timestamp) -> Step {
    let mut pass = Pass {
        cache,
        view,
        now,
        source: Source::of(cache, view),
        decided: Occupancy::default(),
        step: Step::default(),
    };
    if !cache.is_idle() {
        pass.networks();
        pass.services();
        pass.nodes();
        pass.tasks();
    }
    pass.step
}

struct Pass<'a> {
    cache: &'a Cache,
    view: &'a Root,
    now: Timestamp,
    source: Option<Source<'a>>,
    /// Ports given in this pass.
    decided: Occupancy,
    step: Step,
}

impl Pass<'_> {
    fn networks(&mut self) {
        for id in &self.cache.networks {
            let network = self.view.get::<Network>(id);
            // Services that wait for it tell their tasks what is wrong.
            if let Some(Ok(Some(network))) = network.map(|it| allocate_network(it, self.view)) {
                self.push(Write::update(network));
            }
        }
    }

    fn services(&mut self) {
        for id in &self.cache.services {
            if self.step.more {
                return;
            }
            let Some(service) = self.view.service(id) else {
                continue;
            };
            if is_settled(service, self.cache.ingress.as_ref()) {
                continue;
            }
            match self.endpoint(service) {
                Ok(endpoint) => {
                    let ports = endpoint.as_ref().map_or(&[][..], |it| &it.ports);
                    self.decided.hold(service, ports);
                    if let Some(endpoint) = &endpoint {
                        let before = service.endpoint.as_deref();
                        let before = before.map_or(&[][..], |before| &before.ports);
                        self.decided.advance(endpoint, before);
                    }
                    let mut service = (**service).clone();
                    service.endpoint = endpoint.map(Arc::new);
                    self.push(Write::update(service));
                }
                Err(reason) => self.explain(id, &Text::from(reason)),
            }
        }
    }

    /// The endpoint that a service should have, or why it has to wait.
    fn endpoint(&mut self, service: &Service) -> Result<Option<v1::Endpoint>, String> {
        let ingress = match self.view.ingress_network() {
            Some(_) => Ingress::Present,
            None => Ingress::Missing,
        };
        let occupied = Taken {
            stored: &self.cache.ports,
            decided: &self.decided,
        };
        let endpoint = allocate(service, occupied, ingress);
        let mut endpoint = endpoint.map_err(|error| format!("{PORTS_ERR_PREFIX}{error}"))?;
        if let Some(endpoint) = &mut endpoint {
            endpoint.virtual_ips.clear();
            if needs_vip(service) {
                endpoint.virtual_ips.push(self.vip(service)?);
            }
        }
        Ok(endpoint)
    }

    fn vip(&mut self, service: &Service) -> Result<VirtualIp, String> {
        let Some(source) = &mut self.source else {
            let network = self.view.ingress_network();
            let reason = match network.map(|network| allocate_network(network, self.view)) {
                Some(Err(error)) => error.to_string(),
                Some(Ok(_)) | None => "the ingress network is being set up".to_owned(),
            };
            return Err(format!("{ADDRESSES_ERR_PREFIX}{reason}"));
        };
        let network_id = source.network.id.to_string();
        if let Some(own) = vip_on(service, &network_id) {
            return Ok(own.clone());
        }
        match source.draft.draw() {
            Some(address) => Ok(VirtualIp {
                network_id,
                addr: source.space.subnet.cidr(address),
            }),
            None => Err(format!("{ADDRESSES_ERR_PREFIX}{}", source.exhausted())),
        }
    }

    /// Tells the tasks of a service why they wait.
    fn explain(&mut self, service: &ServiceId, reason: &Text) {
        let view = self.view;
        for task in view
            .tasks_of_service(service)
            .filter(|task| is_waiting(task))
        {
            if let Some(write) = with_reason(task, reason.clone(), self.now) {
                self.push(write);
            }
            if self.step.more {
                return;
            }
        }
    }

    /// A node that has to wait is found again when an address is freed; `why` names it.
    fn nodes(&mut self) {
        let cache = self.cache;
        for id in &cache.detached {
            if let Some(node) = self.unattached(id) {
                let mut node = node.clone();
                node.attachments.clear();
                self.push(Write::update(node));
            }
        }
        for id in &cache.nodes {
            let Some(node) = self.unattached(id) else {
                continue;
            };
            let mut node = node.clone();
            let attachment = self.source.as_mut().and_then(Source::attach);
            if self.step.more || attachment.is_none() {
                return;
            }
            node.attachments = attachment.into_iter().collect();
            self.push(Write::update(node));
        }
    }

    fn unattached(&self, id: &NodeId) -> Option<&Node> {
        let node = self.view.node(id)?;
        (!is_attached(node, self.cache.ingress.as_ref())).then_some(&**node)
    }

    /// Those who wait already come first; only as many of them are looked at as can be served.
    fn tasks(&mut self) {
        let cache = self.cache;
        let left = self.source.as_ref().map_or(0, |it| it.draft.left_max());
        for id in cache.told.iter().take(left).chain(&cache.tasks) {
            if self.step.more {
                return;
            }
            self.task(id);
        }
    }

    fn task(&mut self, id: &TaskId) {
        let Some(task) = self.view.task(id).filter(|task| is_waiting(task)) else {
            return;
        };
        let service = task
            .service_id
            .as_ref()
            .and_then(|id| self.view.service(id));
        let ingress = self.cache.ingress.as_ref();
        let Some(service) = service.filter(|service| is_settled(service, ingress)) else {
            return;
        };
        let Some(source) = &mut self.source else {
            return;
        };
        let write = match source.attach() {
            Some(attachment) => {
                bring_on(self.view, task, Some(service), Some(attachment), self.now)
            }
            None => {
                let reason = format!("{ADDRESSES_ERR_PREFIX}{}", source.exhausted());
                with_reason(task, reason.into(), self.now)
            }
        };
        if let Some(write) = write {
            self.push(write);
        }
    }

    /// Each write is refused by itself: what it changes is written by others too.
    fn push(&mut self, write: Write) {
        if self.step.sets.len() < TRANSACTION_CHANGES_MAX {
            self.step.sets.push(WriteSet(vec![write]));
        } else {
            self.step.more = true;
        }
    }
}
