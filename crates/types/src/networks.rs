//! Questions to a network, answered from the object alone. Does not own addresses
//! (`swarm-allocator`) nor which requests are valid (`swarm-control-api`).

use swarm_api::v1;

use crate::objects::{Network, Node};

/// The label of the networks that every node has by itself, with the value `true`.
pub const PREDEFINED_LABEL: &str = "com.docker.swarm.predefined";
/// The driver of networks that span nodes.
pub const OVERLAY_DRIVER: &str = "overlay";
/// The option of a driver's state with the VXLAN ids of a network, separated by commas.
pub const VXLAN_IDS_OPTION: &str = "com.docker.network.driver.overlay.vxlanid_list";
/// The type under which nodes report network drivers.
pub const NETWORK_PLUGIN: &str = "Network";

/// The name of a network.
pub fn name(network: &Network) -> &str {
    network
        .spec
        .annotations
        .as_ref()
        .map_or("", |annotations| &annotations.name)
}

/// Whether every node has this network by itself, as `host` and `bridge`.
pub fn is_predefined(spec: &v1::NetworkSpec) -> bool {
    spec.annotations
        .as_ref()
        .and_then(|annotations| annotations.labels.get(PREDEFINED_LABEL))
        .is_some_and(|value| value == "true")
}

/// Whether the allocator has given it what nodes read without looking: a driver, and a driver of
/// addresses (node-and-wire spec 8.3).
pub fn is_allocated(network: &Network) -> bool {
    let has_ipam = network
        .ipam
        .as_ref()
        .is_some_and(|ipam| ipam.driver.is_some());
    network.driver_state.is_some() && has_ipam
}

/// Whether a node says that it can take part in overlay networks. One that has not described itself
/// cannot, as far as anybody knows.
pub fn has_overlay(node: &Node) -> bool {
    let engine = node
        .description
        .as_ref()
        .and_then(|description| description.engine.as_ref());
    engine.is_some_and(|engine| {
        engine
            .plugins
            .iter()
            .any(|plugin| plugin.r#type == NETWORK_PLUGIN && plugin.name == OVERLAY_DRIVER)
    })
}
