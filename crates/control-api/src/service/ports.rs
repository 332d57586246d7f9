//! Published ports against those of other services, and against the ingress network.
//!
//! Unlike SwarmKit's, this runs on the root of the transaction that writes the service, so two
//! requests cannot both pass it. Ports that the allocator picks are its own matter; two services
//! with the same host port are the scheduler's.

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{Service, ServiceId};
use v1::port_config::PublishMode;

use crate::refusal::{Refusal, rules};

rules! {
    HOST_PORT_TAKEN: InvalidArgument,
        "port '{}' is already in use by service '{}' ({}) as a host-published port";
    INGRESS_PORT_TAKEN: InvalidArgument,
        "port '{}' is already in use by service '{}' ({}) as an ingress port";
    INGRESS_MISSING: FailedPrecondition,
        "service needs ingress network, but no ingress network is present";
}

/// Protocol number and published port.
type Port = (i32, u32);

/// Refuses explicit ports that another service publishes: an ingress port excludes every other use
/// of its number, a host port excludes only ingress.
pub(super) fn refuse_conflicts(
    root: &Root,
    spec: &v1::ServiceSpec,
    own: Option<&ServiceId>,
) -> Result<(), Refusal> {
    let wanted = explicit_ports(spec);
    if wanted.is_empty() {
        return Ok(());
    }
    let others = root
        .all::<Service>()
        .filter(|service| Some(&service.id) != own);
    for service in others {
        let wished = service.spec.endpoint.as_ref().map(|spec| &spec.ports);
        let allocated = service.endpoint.as_ref().map(|endpoint| &endpoint.ports);
        for port in [wished, allocated].into_iter().flatten().flatten() {
            refuse_conflict(&wanted, port, service)?;
        }
    }
    Ok(())
}

/// Refuses ingress ports as long as there is no ingress network.
pub(super) fn require_ingress_network(root: &Root, spec: &v1::ServiceSpec) -> Result<(), Refusal> {
    let mut ports = spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    if ports.any(is_ingress) && root.ingress_network().is_none() {
        return Err(INGRESS_MISSING.plain());
    }
    Ok(())
}

/// By port: whether the ingress wants it, else only hosts do.
fn explicit_ports(spec: &v1::ServiceSpec) -> BTreeMap<Port, bool> {
    let mut wanted = BTreeMap::new();
    for port in spec.endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        if port.published_port != 0 {
            *wanted.entry(key(port)).or_default() |= is_ingress(port);
        }
    }
    wanted
}

fn refuse_conflict(
    wanted: &BTreeMap<Port, bool>,
    taken: &v1::PortConfig,
    holder: &Service,
) -> Result<(), Refusal> {
    if taken.published_port == 0 {
        return Ok(());
    }
    let rule = match (wanted.get(&key(taken)), is_ingress(taken)) {
        (Some(_), true) => INGRESS_PORT_TAKEN,
        (Some(true), false) => HOST_PORT_TAKEN,
        (Some(false), false) | (None, _) => return Ok(()),
    };
    Err(rule.refuse(&[&taken.published_port, &holder.spec.name(), &holder.id]))
}

fn key(port: &v1::PortConfig) -> Port {
    (port.protocol, port.published_port)
}

fn is_ingress(port: &v1::PortConfig) -> bool {
    port.publish_mode == PublishMode::Ingress as i32
}

#[cfg(test)]
mod tests;
