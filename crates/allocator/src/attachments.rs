//! Who needs an address on the ingress network, who has one, and what an attachment looks like.
//! Pure; draws no addresses.
//!
//! A service that publishes INGRESS ports has a virtual address, each of its tasks an address, and
//! each node that can take part in overlay networks an address for its load balancer. SwarmKit
//! gives one to every node; a node without the driver could do nothing with it, and a /24 has room
//! for some 250 of them.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use swarm_api::v1;
use swarm_store::{By, Root};
use swarm_types::networks;
use swarm_types::{AnyObject, Network, NetworkId, Node, Service, Task, convert};
use v1::endpoint::VirtualIp;
use v1::endpoint_spec::ResolutionMode;

use crate::ports::{self, publishes_ingress};
use crate::subnet::{Subnet, address};

/// Whether a service has all that the allocator gives: ports, and a virtual address on this ingress
/// network if it needs one.
pub(crate) fn is_settled(service: &Service, ingress: Option<&NetworkId>) -> bool {
    if !ports::is_settled(service) {
        return false;
    }
    let vips = service
        .endpoint
        .as_deref()
        .map_or(&[][..], |endpoint| &endpoint.virtual_ips);
    if !needs_vip(service) {
        return vips.is_empty();
    }
    let [vip] = vips else {
        return false;
    };
    ingress.is_some_and(|id| id.to_string() == vip.network_id) && address(&vip.addr).is_some()
}

/// Whether tasks of a service have an address on the ingress network.
pub(crate) fn publishes(service: &Service) -> bool {
    service
        .endpoint
        .as_deref()
        .is_some_and(|endpoint| publishes_ingress(&endpoint.ports))
}

/// Whether the service itself has one. With DNS round robin there are only those of its tasks.
pub(crate) fn needs_vip(service: &Service) -> bool {
    service.spec.endpoint.as_ref().is_some_and(|endpoint| {
        endpoint.mode != ResolutionMode::Dnsrr as i32 && publishes_ingress(&endpoint.ports)
    })
}

/// The virtual address that a service has already on a network.
pub(crate) fn vip_on<'a>(service: &'a Service, network: &str) -> Option<&'a VirtualIp> {
    let endpoint = service.endpoint.as_deref()?;
    endpoint
        .virtual_ips
        .iter()
        .find(|vip| vip.network_id == network && address(&vip.addr).is_some())
}

/// Whether a node should be attached to this ingress network.
pub(crate) fn wants_attachment(node: &Node, ingress: Option<&NetworkId>) -> bool {
    ingress.is_some() && networks::has_overlay(node)
}

/// Whether the attachments of a node are those that it should have.
pub(crate) fn is_attached(node: &Node, ingress: Option<&NetworkId>) -> bool {
    let ingress = ingress.filter(|_| wants_attachment(node, ingress));
    match (ingress, &node.attachments[..]) {
        (None, attachments) => attachments.is_empty(),
        (Some(ingress), [only]) => {
            let network = only.network.as_ref();
            network.is_some_and(|network| network.id == ingress.to_string())
                && only
                    .addresses
                    .first()
                    .is_some_and(|it| address(it).is_some())
        }
        (Some(_), _) => false,
    }
}

/// An attachment to a network with an address, or with none to one that has no addresses. It holds
/// the whole network: nodes read it there and nowhere else (node-and-wire spec 8.2).
pub(crate) fn attachment(
    network: &Network,
    given: Option<(Subnet, Ipv4Addr)>,
    config: Option<&v1::NetworkAttachmentConfig>,
) -> v1::NetworkAttachment {
    v1::NetworkAttachment {
        network: Some(convert::network_to_wire(network)),
        addresses: given
            .iter()
            .map(|(subnet, address)| subnet.cidr(*address))
            .collect(),
        aliases: config.map_or_else(Vec::new, |config| config.aliases.clone()),
        driver_attachment_opts: config.map_or_else(BTreeMap::new, |config| {
            config.driver_attachment_opts.clone()
        }),
    }
}

/// The networks that a task asks for: by its template, or by the deprecated list of its service
/// when that is empty.
pub(crate) fn wanted<'a>(
    task: &'a Task,
    service: Option<&'a Service>,
) -> &'a [v1::NetworkAttachmentConfig] {
    let of_service = service.map_or(&[][..], |service| &service.spec.networks);
    if task.spec.networks.is_empty() {
        of_service
    } else {
        &task.spec.networks
    }
}

/// Attachments to the networks that every node has by itself.
///
/// # Errors
/// Why the task has to wait, in words.
pub(crate) fn predefined(
    view: &Root,
    wanted: &[v1::NetworkAttachmentConfig],
) -> Result<Vec<v1::NetworkAttachment>, String> {
    wanted
        .iter()
        .map(|config| {
            let target = &config.target;
            let Some(network) = find(view, target) else {
                return Err(format!(
                    "network {target:?} does not exist; create it or remove it from the service \
                     spec"
                ));
            };
            let name = networks::name(&network);
            if !networks::is_predefined(&network.spec) {
                return Err(format!(
                    "network {name:?} is not supported yet, only host and bridge are; remove it \
                     from the service spec"
                ));
            }
            if !networks::is_allocated(&network) {
                return Err(format!("network {name:?} is being set up"));
            }
            Ok(attachment(&network, None, Some(config)))
        })
        .collect()
}

fn find(view: &Root, target: &str) -> Option<std::sync::Arc<Network>> {
    let by_id = target.parse().ok().and_then(|id| view.get::<Network>(&id));
    by_id.cloned().or_else(|| {
        let named = view.find::<Network>(&By::Name(target.to_owned())).ok()?;
        named.into_iter().next()
    })
}

/// The addresses that an object holds, by the id of their network. A task that has ended holds
/// none, whatever it says.
pub(crate) fn held(object: &AnyObject) -> Vec<(NetworkId, Ipv4Addr)> {
    match object {
        AnyObject::Service(service) => {
            let vips = service
                .endpoint
                .as_deref()
                .map_or(&[][..], |endpoint| &endpoint.virtual_ips);
            vips.iter()
                .filter_map(|vip| Some((vip.network_id.parse().ok()?, address(&vip.addr)?)))
                .collect()
        }
        AnyObject::Task(task) if task.is_terminal() => Vec::new(),
        AnyObject::Task(task) => of_attachments(&task.networks),
        AnyObject::Node(node) => of_attachments(&node.attachments),
        AnyObject::Network(_)
        | AnyObject::Cluster(_)
        | AnyObject::Secret(_)
        | AnyObject::Resource(_)
        | AnyObject::Extension(_)
        | AnyObject::Config(_)
        | AnyObject::Volume(_) => Vec::new(),
    }
}

fn of_attachments(attachments: &[v1::NetworkAttachment]) -> Vec<(NetworkId, Ipv4Addr)> {
    attachments
        .iter()
        .filter_map(|attachment| Some((attachment.network.as_ref()?.id.parse().ok()?, attachment)))
        .flat_map(|(network, attachment): (NetworkId, _)| {
            let texts = attachment.addresses.iter();
            texts
                .filter_map(|text| address(text))
                .map(move |address| (network.clone(), address))
        })
        .collect()
}
