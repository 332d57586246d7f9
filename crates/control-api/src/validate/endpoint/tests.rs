use super::*;
use crate::refusal::Rule;
use crate::request::UNKNOWN_NUMBER;
use crate::tests::world::port;
use PublishMode::{Host, Ingress};

fn rule_of(mode: ResolutionMode, ports: Vec<v1::PortConfig>) -> Option<Rule> {
    let endpoint = v1::EndpointSpec {
        mode: mode as i32,
        ports,
    };
    check(Some(&endpoint)).err().map(|refusal| refusal.rule())
}

fn vip(ports: Vec<v1::PortConfig>) -> Option<Rule> {
    rule_of(ResolutionMode::Vip, ports)
}

#[test]
fn no_endpoint_is_fine() {
    assert!(check(None).is_ok());
    assert_eq!(vip(Vec::new()), None);
}

#[test]
fn as_many_ports_as_fit_beside_the_rest_are_taken() {
    let ports = |count: u32| (1..=count).map(|number| port(Host, number)).collect();
    assert_eq!(vip(ports(8_000)), None);
    assert_eq!(vip(ports(18_800)), Some(ENDPOINT_TOO_LARGE));
}

#[test]
fn an_ingress_port_needs_a_virtual_address() {
    assert_eq!(vip(vec![port(Ingress, 80)]), None);
    assert_eq!(rule_of(ResolutionMode::Dnsrr, vec![port(Host, 80)]), None);
    let refused = rule_of(ResolutionMode::Dnsrr, vec![port(Ingress, 80)]);
    assert_eq!(refused, Some(INGRESS_WITH_DNSRR));
}

#[test]
fn one_number_and_protocol_is_published_once_whatever_the_mode() {
    assert_eq!(
        vip(vec![port(Ingress, 80), port(Host, 80)]),
        Some(PORT_TWICE)
    );
    assert_eq!(vip(vec![port(Ingress, 80), port(Ingress, 81)]), None);
    assert_eq!(vip(vec![port(Ingress, 0), port(Ingress, 0)]), None);
    let udp = v1::PortConfig {
        protocol: Protocol::Udp as i32,
        ..port(Ingress, 80)
    };
    assert_eq!(vip(vec![port(Ingress, 80), udp]), None);
}

#[test]
fn ports_are_16_bit_numbers_and_a_target_is_not_zero() {
    let ports = |target_port, published_port| {
        vip(vec![v1::PortConfig {
            target_port,
            published_port,
            ..Default::default()
        }])
    };
    assert_eq!((ports(1, 0), ports(65_535, 65_535)), (None, None));
    assert_eq!(
        (ports(0, 80), ports(65_536, 80)),
        (Some(TARGET_PORT), Some(TARGET_PORT))
    );
    assert_eq!(ports(80, 65_536), Some(PUBLISHED_PORT));
    assert_eq!(ports(80, u32::MAX), Some(PUBLISHED_PORT));
}

#[test]
fn numbers_of_enums_are_known_ones() {
    // In SwarmKit an unknown protocol was stored, and stopped every later leader.
    let protocol = |protocol| {
        vip(vec![v1::PortConfig {
            protocol,
            ..port(Ingress, 80)
        }])
    };
    assert_eq!(
        (protocol(2), protocol(3), protocol(-1)),
        (None, Some(UNKNOWN_NUMBER), Some(UNKNOWN_NUMBER))
    );
    let publish = |publish_mode| {
        vip(vec![v1::PortConfig {
            publish_mode,
            ..port(Ingress, 80)
        }])
    };
    assert_eq!((publish(1), publish(2)), (None, Some(UNKNOWN_NUMBER)));
    let endpoint = v1::EndpointSpec {
        mode: 2,
        ports: Vec::new(),
    };
    assert!(check(Some(&endpoint)).is_err());
}
