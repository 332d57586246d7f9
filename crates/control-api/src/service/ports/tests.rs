use std::sync::Arc;

use swarm_types::Network;
use v1::port_config::Protocol;

use super::*;
use crate::Code;
use crate::tests::world::{INGRESS, World, id, port, web, with_ports};
use PublishMode::{Host, Ingress};

/// Whether a service with the second port is refused beside one with the first.
fn conflict(taken: v1::PortConfig, wanted: v1::PortConfig) -> Option<crate::refusal::Rule> {
    let mut world = World::new();
    world.create(with_ports("taken", vec![taken])).unwrap();
    let refusal = world.create(with_ports("wanted", vec![wanted])).err()?;
    assert_eq!(refusal.code(), Code::InvalidArgument);
    Some(refusal.rule())
}

#[test]
fn ingress_excludes_everything_and_host_excludes_ingress() {
    let with = |taken, wanted| conflict(port(taken, 80), port(wanted, 80));
    assert_eq!(with(Ingress, Ingress), Some(INGRESS_PORT_TAKEN));
    assert_eq!(with(Ingress, Host), Some(INGRESS_PORT_TAKEN));
    assert_eq!(with(Host, Ingress), Some(HOST_PORT_TAKEN));
    assert_eq!(
        with(Host, Host),
        None,
        "the scheduler keeps them on different nodes"
    );
}

#[test]
fn another_number_or_protocol_is_no_conflict() {
    assert_eq!(conflict(port(Ingress, 80), port(Ingress, 81)), None);
    let udp = v1::PortConfig {
        protocol: Protocol::Udp as i32,
        ..port(Ingress, 80)
    };
    assert_eq!(conflict(port(Ingress, 80), udp), None);
    assert_eq!(conflict(udp_clone(), udp_clone()), Some(INGRESS_PORT_TAKEN));
}

fn udp_clone() -> v1::PortConfig {
    v1::PortConfig {
        protocol: Protocol::Udp as i32,
        ..port(Ingress, 80)
    }
}

#[test]
fn ports_of_the_clusters_choice_conflict_only_once_they_are_allocated() {
    assert_eq!(conflict(port(Ingress, 0), port(Ingress, 0)), None);
    let mut world = World::new();
    let taken = world
        .create(with_ports("taken", vec![port(Ingress, 0)]))
        .unwrap();
    world
        .create(with_ports("before", vec![port(Ingress, 30_001)]))
        .unwrap();
    let mut service = world.service(&taken.id).clone();
    service.endpoint = Some(Arc::new(v1::Endpoint {
        ports: vec![port(Ingress, 30_000)],
        ..Default::default()
    }));
    world.put(service);
    let refusal = world
        .create(with_ports("wanted", vec![port(Ingress, 30_000)]))
        .unwrap_err();
    assert_eq!(
        refusal.message(),
        format!(
            "port '30000' is already in use by service 'taken' ({}) as an ingress port",
            taken.id
        )
    );
}

#[test]
fn one_number_wanted_twice_counts_as_ingress_if_either_is() {
    let mut both = explicit_ports(&with_ports("a", vec![port(Host, 80), port(Ingress, 80)]));
    assert_eq!(both.remove(&(0, 80)), Some(true));
    assert_eq!(
        explicit_ports(&with_ports("a", vec![port(Host, 0)])).len(),
        0
    );
}

#[test]
fn an_update_is_checked_against_others_when_its_endpoint_changes() {
    let mut world = World::new();
    world
        .create(with_ports("taken", vec![port(Ingress, 80)]))
        .unwrap();
    let own = world
        .create(with_ports("own", vec![port(Ingress, 81)]))
        .unwrap();
    let refusal = world
        .update(&own.id, with_ports("own", vec![port(Ingress, 80)]))
        .unwrap_err();
    assert_eq!(refusal.rule(), INGRESS_PORT_TAKEN);
    world
        .update(&own.id, with_ports("own", vec![port(Ingress, 82)]))
        .unwrap();
}

#[test]
fn ingress_ports_need_the_ingress_network_and_host_ports_do_not() {
    let mut world = World::new();
    let mut network = (**world.root.get::<Network>(&id(INGRESS)).unwrap()).clone();
    network.spec = Arc::default();
    world.put(network);
    let refusal = world
        .create(with_ports("a", vec![port(Ingress, 80)]))
        .unwrap_err();
    assert_eq!(refusal.rule(), INGRESS_MISSING);
    world.create(with_ports("b", vec![port(Host, 80)])).unwrap();
    let plain = world.create(web("c")).unwrap();
    let refusal = world
        .update(&plain.id, with_ports("c", vec![port(Ingress, 0)]))
        .unwrap_err();
    assert_eq!(refusal.rule(), INGRESS_MISSING);
}

#[test]
fn two_requests_in_one_transaction_do_not_both_get_the_port() {
    let mut world = World::new();
    let request = |name| {
        crate::check_new_service(v1::CreateServiceRequest {
            spec: Some(with_ports(name, vec![port(Ingress, 80)])),
        })
    };
    let refusal = world.write(|root, ctx| {
        let mut transaction = root.begin(ctx.now);
        let plan = crate::create_service(&transaction, ctx, request("first")?)?;
        plan.apply(&mut transaction)?;
        crate::create_service(&transaction, ctx, request("second")?)
    });
    assert_eq!(refusal.unwrap_err().rule(), INGRESS_PORT_TAKEN);
}
