//! What a network gets before anything can attach to it: a driver's state and subnets (spec 20).
//!
//! The predefined networks get what nodes read without looking, the ingress network a subnet and a
//! VXLAN id. Every other network is left as it is. Pure; writes nothing.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::networks::{self, OVERLAY_DRIVER, VXLAN_IDS_OPTION};
use swarm_types::{Cluster, Network};
use v1::ipam_config::AddressFamily;

use crate::subnet::{PREFIX_MAX, Subnet, address, carve};

/// From where subnets are cut when the cluster does not say (spec 20).
pub const POOL_DEFAULT: &str = "10.0.0.0/8";
/// Prefix length of a subnet when the cluster does not say (spec 20).
pub const SUBNET_SIZE_DEFAULT: u8 = 24;
/// First VXLAN id that is given (spec 20).
pub const VXLAN_ID_FIRST: u32 = 4096;
/// Last one: the field has 24 bits.
pub(crate) const VXLAN_ID_LAST: u32 = (1 << 24) - 1;

/// The name of the driver that hands out addresses.
const IPAM_DRIVER: &str = "default";

/// Why a network has no addresses. The text ends up in the status of tasks that need it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// What the user wrote as a subnet is none, or too small.
    #[error(
        "the subnet {text:?} of network {name:?} is no IPv4 subnet of at most /{PREFIX_MAX}; \
         create the network anew with another"
    )]
    Subnet {
        /// What the spec or the pools of the cluster say.
        text: String,
        /// The network.
        name: String,
    },
    /// The gateway is not in the subnet.
    #[error("the gateway {text:?} of network {name:?} is not a host of subnet {subnet}")]
    Gateway {
        /// What the spec says.
        text: String,
        /// The network.
        name: String,
        /// Its subnet.
        subnet: String,
    },
    /// The range to which addresses are restricted is not in the subnet, or too small.
    #[error(
        "the range {text:?} of network {name:?} is no block of at most /{PREFIX_MAX} in {subnet}"
    )]
    Range {
        /// What the spec says.
        text: String,
        /// The network.
        name: String,
        /// Its subnet.
        subnet: String,
    },
    /// Another network has addresses of the subnet.
    #[error("the subnet {subnet} of network {name:?} overlaps {other} of network {holder:?}")]
    Overlap {
        /// The wanted subnet.
        subnet: String,
        /// The network.
        name: String,
        /// The subnet that is in the way.
        other: String,
        /// The network that has it.
        holder: String,
    },
    /// No subnet is left.
    #[error(
        "no subnet of size /{size} is left for network {name:?} in the address pools {pools}; \
         remove a network or start a cluster with larger pools"
    )]
    PoolsExhausted {
        /// Prefix length.
        size: u8,
        /// The network.
        name: String,
        /// The pools.
        pools: String,
    },
    /// No VXLAN id is left.
    #[error("all VXLAN ids up to {VXLAN_ID_LAST} are taken; remove a network")]
    VxlanIdsExhausted,
}

/// Whether this network is the allocator's to set up and has not been.
pub(crate) fn is_unfinished(network: &Network) -> bool {
    let is_ours = networks::is_predefined(&network.spec) || network.spec.ingress;
    is_ours && !networks::is_allocated(network)
}

/// The network with everything that it needs; `None` when it has it, or is none of ours.
///
/// # Errors
/// [`NetworkError`].
pub(crate) fn allocate(network: &Network, view: &Root) -> Result<Option<Network>, NetworkError> {
    if !is_unfinished(network) {
        return Ok(None);
    }
    let mut network = network.clone();
    if networks::is_predefined(&network.spec) {
        let driver = network.spec.driver_config.as_ref();
        let name = driver.map_or(String::new(), |driver| driver.name.clone());
        network.driver_state = Some(Arc::new(v1::Driver {
            name,
            ..Default::default()
        }));
        network.ipam = Some(Arc::new(v1::IpamOptions {
            driver: Some(v1::Driver::default()),
            configs: Vec::new(),
        }));
        return Ok(Some(network));
    }
    // There is one ingress network; a second one, if it ever came to the store, stays as it is.
    let is_first = view.ingress_network().map(|first| &first.id) == Some(&network.id);
    if !is_first {
        return Ok(None);
    }
    let config = ipv4_config(&network, view)?;
    network.driver_state = Some(Arc::new(driver_state(&network, view)?));
    let driver = network
        .spec
        .ipam
        .as_ref()
        .and_then(|ipam| ipam.driver.as_ref());
    network.ipam = Some(Arc::new(v1::IpamOptions {
        driver: Some(v1::Driver {
            name: IPAM_DRIVER.to_owned(),
            options: driver.map_or_else(Default::default, |driver| driver.options.clone()),
        }),
        configs: vec![config],
    }));
    Ok(Some(network))
}

/// What can be given of a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Space {
    pub(crate) subnet: Subnet,
    pub(crate) gateway: Ipv4Addr,
    /// The hosts of the subnet, or of the range in it to which the user restricted them.
    pub(crate) hosts: RangeInclusive<u32>,
}

/// The addresses of a network that has some.
pub(crate) fn space(network: &Network) -> Option<Space> {
    let configs = &network.ipam.as_ref()?.configs;
    configs.iter().find_map(|config| {
        let subnet: Subnet = config.subnet.parse().ok()?;
        let all = subnet.hosts();
        let hosts = match config.range.parse::<Subnet>() {
            Ok(range) => {
                let hosts = range.hosts();
                *hosts.start().max(all.start())..=*hosts.end().min(all.end())
            }
            Err(_) => all,
        };
        let gateway = address(&config.gateway).unwrap_or_else(|| (*subnet.hosts().start()).into());
        Some(Space {
            subnet,
            gateway,
            hosts,
        })
    })
}

fn ipv4_config(network: &Network, view: &Root) -> Result<v1::IpamConfig, NetworkError> {
    let name = || networks::name(network).to_owned();
    let wanted = network
        .spec
        .ipam
        .as_ref()
        .and_then(|ipam| ipam.configs.first());
    let others: Vec<(Subnet, &Network)> = view
        .all::<Network>()
        .filter(|other| other.id != network.id)
        .filter_map(|other| Some((space(other)?.subnet, &**other)))
        .collect();
    let subnet = match wanted.filter(|config| !config.subnet.is_empty()) {
        Some(config) => chosen(&config.subnet, name(), &others)?,
        None => {
            let used: Vec<Subnet> = others.iter().map(|(subnet, _)| *subnet).collect();
            from_pools(view.cluster().map(|cluster| &**cluster), name(), &used)?
        }
    };
    let hosts = subnet.hosts();
    let gateway = match wanted.filter(|config| !config.gateway.is_empty()) {
        Some(config) => {
            let gateway = address(&config.gateway);
            gateway
                .filter(|gateway| hosts.contains(&u32::from(*gateway)))
                .ok_or_else(|| NetworkError::Gateway {
                    text: config.gateway.clone(),
                    name: name(),
                    subnet: subnet.to_string(),
                })?
        }
        None => (*hosts.start()).into(),
    };
    let range = wanted.map_or("", |config| &config.range);
    let is_inside = |range: Subnet| subnet.contains(range.first()) && range.prefix() <= PREFIX_MAX;
    if !range.is_empty() && !range.parse().is_ok_and(is_inside) {
        return Err(NetworkError::Range {
            text: range.to_owned(),
            name: name(),
            subnet: subnet.to_string(),
        });
    }
    Ok(v1::IpamConfig {
        family: AddressFamily::Ipv4 as i32,
        subnet: subnet.to_string(),
        gateway: gateway.to_string(),
        range: range.to_owned(),
        reserved: Default::default(),
    })
}

fn chosen(text: &str, name: String, others: &[(Subnet, &Network)]) -> Result<Subnet, NetworkError> {
    let subnet = text.parse::<Subnet>().ok();
    let Some(subnet) = subnet.filter(|subnet| subnet.prefix() <= PREFIX_MAX) else {
        return Err(NetworkError::Subnet {
            text: text.to_owned(),
            name,
        });
    };
    match others.iter().find(|(other, _)| other.overlaps(subnet)) {
        None => Ok(subnet),
        Some((other, holder)) => Err(NetworkError::Overlap {
            subnet: subnet.to_string(),
            name,
            other: other.to_string(),
            holder: networks::name(holder).to_owned(),
        }),
    }
}

fn from_pools(
    cluster: Option<&Cluster>,
    name: String,
    used: &[Subnet],
) -> Result<Subnet, NetworkError> {
    let configured = cluster.map_or(&[][..], |cluster| &cluster.default_address_pool);
    let default = [POOL_DEFAULT.to_owned()];
    let texts = if configured.is_empty() {
        &default[..]
    } else {
        configured
    };
    let size = cluster.map_or(0, |cluster| cluster.subnet_size);
    let size = match u8::try_from(size) {
        Ok(0) => SUBNET_SIZE_DEFAULT,
        Ok(size) if size <= PREFIX_MAX => size,
        Ok(_) | Err(_) => {
            let text = format!("/{size}");
            return Err(NetworkError::Subnet { text, name });
        }
    };
    let mut pools = Vec::with_capacity(texts.len());
    for text in texts {
        match text.parse() {
            Ok(pool) => pools.push(pool),
            Err(_) => {
                let text = text.clone();
                return Err(NetworkError::Subnet { text, name });
            }
        }
    }
    carve(&pools, size, used).ok_or_else(|| NetworkError::PoolsExhausted {
        size,
        name,
        pools: texts.join(", "),
    })
}

fn driver_state(network: &Network, view: &Root) -> Result<v1::Driver, NetworkError> {
    let spec = network.spec.driver_config.as_ref();
    let mut options = spec.map_or_else(Default::default, |driver| driver.options.clone());
    let taken: BTreeSet<u32> = view
        .all::<Network>()
        .filter_map(|other| other.driver_state.as_ref())
        .filter_map(|state| state.options.get(VXLAN_IDS_OPTION))
        .flat_map(|list| list.split(',').filter_map(|id| id.trim().parse().ok()))
        .collect();
    let id = (VXLAN_ID_FIRST..=VXLAN_ID_LAST)
        .find(|id| !taken.contains(id))
        .ok_or(NetworkError::VxlanIdsExhausted)?;
    options.insert(VXLAN_IDS_OPTION.to_owned(), id.to_string());
    Ok(v1::Driver {
        name: OVERLAY_DRIVER.to_owned(),
        options,
    })
}

#[cfg(test)]
mod tests;
