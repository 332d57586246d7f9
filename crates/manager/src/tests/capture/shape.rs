//! The parts of our answers that engines and agents look into.

use super::joining::expect_certificate;
use super::*;

/// The subsystems of the keys, in the order in which spec 7.1 numbers them.
pub(super) const KEYS: [&str; 6] = [
    "networking:gossip",
    "networking:gossip",
    "networking:gossip",
    "networking:ipsec",
    "networking:ipsec",
    "networking:ipsec",
];

pub(super) fn is_id(text: &str) -> bool {
    text.len() == 25
        && text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || byte.is_ascii_lowercase())
}

#[track_caller]
pub(super) fn expect_meta(meta: Option<&v1::Meta>) {
    let meta = meta.expect("engines look into it");
    assert!(meta.version.is_some_and(|version| version.index > 0));
    assert!(meta.created_at.is_some() && meta.updated_at.is_some());
}

/// One message of the session: every one of them carries everything.
pub(super) fn expect_session(
    world: &World,
    engine: &Engine,
    message: &v1::SessionMessage,
    id: &str,
) {
    assert!(is_id(&message.session_id) && message.session_id == id);
    let node = message.node.as_ref().expect("engines look into it");
    assert_eq!(node.id, engine.id);
    expect_meta(node.meta.as_ref());
    let spec = node.spec.as_ref().unwrap();
    assert_eq!(spec.membership(), v1::node_spec::Membership::Accepted);
    assert_eq!(node.description.as_ref(), Some(&engine.description));
    let status = node.status.as_ref().unwrap();
    assert_eq!(status.state(), v1::node_status::State::Ready);
    assert_eq!(status.addr, "127.0.0.1");
    expect_certificate(node.certificate.as_ref().unwrap(), &engine.csr, &engine.id);
    // The manager of the capture said 4789, the default, which 0 stands for (spec 3.2).
    assert_eq!(node.vxlanudp_port, 0);
    let [manager] = &message.managers[..] else {
        panic!("{:?}", message.managers);
    };
    let peer = manager.peer.as_ref().expect("agents look into it");
    assert_eq!((peer.node_id.as_str(), manager.weight), ("manager", 10));
    assert_eq!(peer.addr, world.address().to_string());
    let keys = &message.network_bootstrap_keys;
    let subsystems: Vec<&str> = keys.iter().map(|key| key.subsystem.as_str()).collect();
    assert_eq!(subsystems, KEYS);
    for (key, next) in keys.iter().zip(&keys[1..]) {
        assert_eq!(key.lamport_time + 1, next.lamport_time, "one clock for all");
    }
    assert!(keys.iter().all(|key| key.key.len() == 16));
    assert_eq!(message.root_ca, world.authority.root_pem.as_bytes());
}

/// An attachment to the ingress network; the engine makes the network from it.
#[track_caller]
pub(super) fn expect_ingress(attachment: &v1::NetworkAttachment) {
    let network = attachment.network.as_ref().expect("engines look into it");
    assert!(is_id(&network.id));
    expect_meta(network.meta.as_ref());
    let spec = network.spec.as_ref().unwrap();
    assert_eq!(spec.annotations.as_ref().unwrap().name, "ingress");
    assert!(spec.ingress && spec.driver_config.is_some());
    assert!(spec.ipam.as_ref().unwrap().driver.is_some());
    let driver = network.driver_state.as_ref().unwrap();
    assert_eq!(driver.name, "overlay");
    let list = "com.docker.network.driver.overlay.vxlanid_list";
    assert_eq!(driver.options[list], "4096");
    let ipam = network.ipam.as_ref().unwrap();
    assert_eq!(ipam.driver.as_ref().unwrap().name, "default");
    let config = &ipam.configs[0];
    assert_eq!(config.family(), v1::ipam_config::AddressFamily::Ipv4);
    assert_eq!(
        (&*config.subnet, &*config.gateway),
        ("10.0.0.0/24", "10.0.0.1")
    );
    let [address] = &attachment.addresses[..] else {
        panic!("{attachment:?}");
    };
    assert!(address.starts_with("10.0.0.") && address.ends_with("/24"));
}
