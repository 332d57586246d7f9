//! Published ports.

use std::collections::BTreeSet;

use prost::Message as _;
use swarm_api::v1;
use v1::endpoint_spec::ResolutionMode;
use v1::port_config::{Protocol, PublishMode};

use crate::refusal::{Refusal, rules};
use crate::request::known;

const PORT_MAX: u32 = 65_535;
/// Encoded bytes of an endpoint spec at most: 128 KiB, which is about ten thousand ports. A service
/// has them four times (in its spec, in the one before, and twice in its endpoint), a task three
/// times, and its status once more; all of that must fit an entry of the log.
pub const ENDPOINT_BYTES_MAX: usize = 128 * 1024;

rules! {
    INGRESS_WITH_DNSRR: InvalidArgument,
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode";
    ENDPOINT_TOO_LARGE: InvalidArgument,
        "EndpointSpec: {} ports take {} bytes, at most {} are allowed; split the service, or use \
         host networking";
    PORT_TWICE: InvalidArgument, "EndpointSpec: duplicate published ports provided";
    TARGET_PORT: InvalidArgument,
        "EndpointSpec: target port {} is out of range; use 1 to 65535";
    PUBLISHED_PORT: InvalidArgument,
        "EndpointSpec: published port {} is out of range; use 1 to 65535, or 0 for a port of the \
         cluster's choice";
}

/// Checks each port, then that no published number is used twice, whatever the publish modes.
pub(super) fn check(endpoint: Option<&v1::EndpointSpec>) -> Result<(), Refusal> {
    let Some(endpoint) = endpoint else {
        return Ok(());
    };
    let bytes = endpoint.encoded_len();
    if bytes > ENDPOINT_BYTES_MAX {
        let ports = endpoint.ports.len();
        return Err(ENDPOINT_TOO_LARGE.refuse(&[&ports, &bytes, &ENDPOINT_BYTES_MAX]));
    }
    let mode = known::<ResolutionMode>("EndpointSpec.mode", endpoint.mode)?;
    let mut seen = BTreeSet::new();
    for port in &endpoint.ports {
        known::<Protocol>("EndpointSpec.ports.protocol", port.protocol)?;
        let publish = known::<PublishMode>("EndpointSpec.ports.publish_mode", port.publish_mode)?;
        check_numbers(port)?;
        if mode == ResolutionMode::Dnsrr && publish == PublishMode::Ingress {
            return Err(INGRESS_WITH_DNSRR.plain());
        }
        let is_explicit = port.published_port != 0;
        if is_explicit && !seen.insert((port.published_port, port.protocol)) {
            return Err(PORT_TWICE.plain());
        }
    }
    Ok(())
}

fn check_numbers(port: &v1::PortConfig) -> Result<(), Refusal> {
    if port.target_port == 0 || port.target_port > PORT_MAX {
        return Err(TARGET_PORT.refuse(&[&port.target_port]));
    }
    if port.published_port > PORT_MAX {
        return Err(PUBLISHED_PORT.refuse(&[&port.published_port]));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
