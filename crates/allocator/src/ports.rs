//! Which numbers a service publishes its ports under (spec 19.6). Pure arithmetic on port lists.
//!
//! Only INGRESS ports are allocated; HOST ports are the node's and are copied as they are. A number
//! once given stays with its port while the list of ports keeps its length. Does not own endpoints
//! of tasks nor which services have to wait.
//!
//! A number that we give is the next free one behind the one that was given last, from the start
//! after the end, so that what was freed just now is not given to somebody else at once.
//!
//! Differences from SwarmKit: an update that cannot be satisfied leaves the old numbers in place;
//! an unknown protocol is refused, where Go panics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{Service, ServiceId};
use v1::port_config::{Protocol, PublishMode};

/// First number that is given to a port without one.
pub const DYNAMIC_FIRST: u32 = 30_000;
/// Last such number.
pub const DYNAMIC_LAST: u32 = 32_767;
/// Largest number that a port can have.
pub const PORT_MAX: u32 = 65_535;

/// Why a service cannot have its ports. The text ends up in the status of its tasks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// A port is published through the ingress network, and there is none.
    #[error("ingress network is missing")]
    IngressMissing,
    /// The protocol has a number that nobody knows.
    #[error(
        "target port {target} has the unknown protocol number {protocol}; use tcp, udp or sctp"
    )]
    UnknownProtocol {
        /// The number.
        protocol: i32,
        /// The port inside the task.
        target: u32,
    },
    /// The number is too large for a port.
    #[error("published port {port} is out of range; the largest is {PORT_MAX}")]
    OutOfRange {
        /// The number.
        port: u32,
    },
    /// Another port has the number.
    #[error(
        "port {port}/{} is published by service \"{holder}\" already; choose another",
        name(*protocol)
    )]
    InUse {
        /// The number.
        port: u32,
        /// Numbers are apart for each protocol.
        protocol: Protocol,
        /// The name of the service that has it; its own, if it asks twice.
        holder: String,
    },
    /// No number is left.
    #[error(
        "all {} dynamic ports of protocol {} are taken; publish fewer or choose a number",
        DYNAMIC_LAST - DYNAMIC_FIRST + 1,
        name(*protocol)
    )]
    Exhausted {
        /// The protocol.
        protocol: Protocol,
    },
}

fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Whether there is a network through which INGRESS ports are published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ingress {
    /// There is.
    Present,
    /// There is not.
    Missing,
}

/// Which INGRESS port numbers are taken, and by whom.
///
/// Where the search for the next number begins is a hint: it is no function of the store, and a
/// leader that takes over begins behind the highest taken number. Two are equal if the same
/// services have the same numbers.
#[derive(Clone, Debug, Default)]
pub struct Occupancy {
    /// Every service that claims a number, with its name for errors. Only one should.
    holders: BTreeMap<(Protocol, u32), BTreeMap<ServiceId, Arc<v1::Annotations>>>,
    /// The number behind the one that was given last, by protocol.
    next: BTreeMap<Protocol, u32>,
}

impl PartialEq for Occupancy {
    fn eq(&self, other: &Self) -> bool {
        self.holders == other.holders
    }
}

impl Occupancy {
    /// A service has these ports.
    pub fn hold(&mut self, service: &Service, ports: &[v1::PortConfig]) {
        for key in numbers(ports) {
            let holders = self.holders.entry(key).or_default();
            holders.insert(service.id.clone(), Arc::clone(service.spec.annotations()));
        }
    }

    /// A service has these ports no more.
    pub fn release(&mut self, service: &ServiceId, ports: &[v1::PortConfig]) {
        for key in numbers(ports) {
            let Some(holders) = self.holders.get_mut(&key) else {
                continue;
            };
            holders.remove(service);
            if holders.is_empty() {
                self.holders.remove(&key);
            }
        }
    }

    /// A service has this endpoint from now on, and had those ports before: the search goes on
    /// behind the numbers that were given to it by us.
    pub fn advance(&mut self, endpoint: &v1::Endpoint, before: &[v1::PortConfig]) {
        let spec = endpoint.spec.as_ref().map_or(&[][..], |spec| &spec.ports);
        for port in &endpoint.ports {
            let is_given = !spec.contains(port) && !before.contains(port);
            let number = port.published_port;
            if let Some(protocol) = protocol(port)
                && is_given
                && is_ingress(port)
                && (DYNAMIC_FIRST..=DYNAMIC_LAST).contains(&number)
            {
                self.next.insert(protocol, number + 1);
            }
        }
    }

    /// Lets the search begin behind the highest number that is taken among those that we give.
    pub fn rewind(&mut self) {
        self.next.clear();
        for (protocol, number) in self.holders.keys() {
            if (DYNAMIC_FIRST..=DYNAMIC_LAST).contains(number) {
                self.next.insert(*protocol, number + 1);
            }
        }
    }

    /// A holder of a number that is not this service.
    fn other_holder(&self, service: &Service, key: (Protocol, u32)) -> Option<&str> {
        let mut holders = self.holders.get(&key)?.iter();
        let (_, annotations) = holders.find(|(id, _)| **id != service.id)?;
        Some(&annotations.name)
    }
}

/// The numbers that ports take: those of INGRESS ports.
fn numbers(ports: &[v1::PortConfig]) -> impl Iterator<Item = (Protocol, u32)> {
    ports
        .iter()
        .filter(|port| port.published_port != 0 && is_ingress(port))
        .filter_map(|port| Some((protocol(port)?, port.published_port)))
}

/// What is taken: by what is stored, and by what was decided since.
#[derive(Clone, Copy, Debug)]
pub struct Taken<'a> {
    /// By stored services.
    pub stored: &'a Occupancy,
    /// By services whose new endpoints are not stored yet.
    pub decided: &'a Occupancy,
}

impl<'a> Taken<'a> {
    fn other_holder(self, service: &Service, key: (Protocol, u32)) -> Option<&'a str> {
        let holder = self.stored.other_holder(service, key);
        holder.or_else(|| self.decided.other_holder(service, key))
    }

    /// Where the search for the next number of each protocol begins.
    fn next(self) -> BTreeMap<Protocol, u32> {
        let mut next = self.stored.next.clone();
        next.extend(&self.decided.next);
        next
    }
}

/// The numbers that can be given, from this one on.
fn candidates(next: Option<u32>) -> impl Iterator<Item = u32> {
    let all = DYNAMIC_FIRST..=DYNAMIC_LAST;
    let start = next
        .filter(|next| all.contains(next))
        .unwrap_or(DYNAMIC_FIRST);
    (start..=DYNAMIC_LAST).chain(DYNAMIC_FIRST..start)
}

/// Whether the ports of a service are what its spec asks for.
pub fn is_settled(service: &Service) -> bool {
    match (&service.spec.endpoint, service.endpoint.as_deref()) {
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
        (Some(spec), Some(endpoint)) => {
            let has_number = |port: &v1::PortConfig| {
                !is_ingress(port) || (port.published_port != 0 && protocol(port).is_some())
            };
            endpoint.spec.as_ref() == Some(spec)
                && endpoint.ports.iter().all(has_number)
                && reconciled(&spec.ports, &endpoint.ports) == endpoint.ports
        }
    }
}

/// The endpoint that a service should have, with the virtual addresses that it has; `None` when
/// its spec has none.
///
/// # Errors
/// [`PortError`] with the first port that cannot be had.
pub fn allocate(
    service: &Service,
    occupied: Taken<'_>,
    ingress: Ingress,
) -> Result<Option<v1::Endpoint>, PortError> {
    let Some(spec) = &service.spec.endpoint else {
        return Ok(None);
    };
    if ingress == Ingress::Missing && publishes_ingress(&spec.ports) {
        return Err(PortError::IngressMissing);
    }
    let endpoint = service.endpoint.as_deref();
    let stored = endpoint.map_or(&[][..], |endpoint| &endpoint.ports);
    let mut ports = reconciled(&spec.ports, stored);
    let explicit = spec.ports.iter().filter(|port| !is_dynamic(port)).count();
    let mut taken = BTreeSet::new();
    let mut next = occupied.next();
    for (position, port) in ports.iter_mut().enumerate() {
        if !is_ingress(port) {
            continue;
        }
        let protocol = protocol(port).ok_or(PortError::UnknownProtocol {
            protocol: port.protocol,
            target: port.target_port,
        })?;
        if position < explicit {
            check_explicit(service, occupied, &taken, protocol, port.published_port)?;
        } else {
            let is_free = |number| {
                let key = (protocol, number);
                !taken.contains(&key) && occupied.other_holder(service, key).is_none()
            };
            let own = Some(port.published_port).filter(|own| *own != 0 && is_free(*own));
            port.published_port = match own {
                Some(own) => own,
                None => candidates(next.get(&protocol).copied())
                    .find(|number| is_free(*number))
                    .inspect(|number| {
                        next.insert(protocol, number + 1);
                    })
                    .ok_or(PortError::Exhausted { protocol })?,
            };
        }
        taken.insert((protocol, port.published_port));
    }
    Ok(Some(v1::Endpoint {
        spec: Some(spec.clone()),
        ports,
        virtual_ips: endpoint.map_or_else(Vec::new, |endpoint| endpoint.virtual_ips.clone()),
    }))
}

fn check_explicit(
    service: &Service,
    occupied: Taken<'_>,
    taken: &BTreeSet<(Protocol, u32)>,
    protocol: Protocol,
    port: u32,
) -> Result<(), PortError> {
    if port > PORT_MAX {
        return Err(PortError::OutOfRange { port });
    }
    let key = (protocol, port);
    let own = taken.contains(&key).then(|| service.spec.name());
    match own.or_else(|| occupied.other_holder(service, key)) {
        None => Ok(()),
        Some(holder) => Err(PortError::InUse {
            port,
            protocol,
            holder: holder.to_owned(),
        }),
    }
}

/// The ports of a spec with the numbers that they had: HOST and explicit ones first, then those
/// whose number is given by us. A list of another length starts afresh.
pub fn reconciled(spec: &[v1::PortConfig], stored: &[v1::PortConfig]) -> Vec<v1::PortConfig> {
    let mut ports: Vec<_> = spec
        .iter()
        .filter(|port| !is_dynamic(port))
        .cloned()
        .collect();
    let mut known: Vec<&v1::PortConfig> = if spec.len() == stored.len() {
        stored.iter().filter(|port| is_ingress(port)).collect()
    } else {
        Vec::new()
    };
    // Explicit ports claim their numbers first, so that a dynamic port with the same name and
    // target does not take over one of them.
    for port in &ports {
        take(&mut known, |stored| stored == port);
    }
    for port in spec.iter().filter(|port| is_dynamic(port)) {
        let mut port = port.clone();
        if let Some(before) = take(&mut known, |stored| is_same_but_number(stored, &port)) {
            port.published_port = before.published_port;
        }
        ports.push(port);
    }
    ports
}

fn take<'a>(
    known: &mut Vec<&'a v1::PortConfig>,
    is_wanted: impl Fn(&v1::PortConfig) -> bool,
) -> Option<&'a v1::PortConfig> {
    let position = known.iter().position(|port| is_wanted(port))?;
    Some(known.remove(position))
}

fn is_same_but_number(a: &v1::PortConfig, b: &v1::PortConfig) -> bool {
    (&a.name, a.protocol, a.target_port) == (&b.name, b.protocol, b.target_port)
}

/// Whether some port is published through the ingress network.
pub fn publishes_ingress(ports: &[v1::PortConfig]) -> bool {
    ports.iter().any(is_ingress)
}

/// An unknown publish mode counts as INGRESS, which is checked, rather than as HOST, which is not.
fn is_ingress(port: &v1::PortConfig) -> bool {
    port.publish_mode != PublishMode::Host as i32
}

/// Whether its number is ours to give.
fn is_dynamic(port: &v1::PortConfig) -> bool {
    is_ingress(port) && port.published_port == 0
}

fn protocol(port: &v1::PortConfig) -> Option<Protocol> {
    Protocol::try_from(port.protocol).ok()
}

#[cfg(test)]
mod tests;
