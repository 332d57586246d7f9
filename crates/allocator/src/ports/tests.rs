use proptest::prelude::*;
use swarm_types::ServiceSpec;

use super::*;

/// `80:8080/tcp` published:target, `host` behind it for HOST mode; published 0 is "any".
fn ports(text: &str) -> Vec<v1::PortConfig> {
    text.split_whitespace().map(port).collect()
}

fn port(text: &str) -> v1::PortConfig {
    let (numbers, rest) = text.split_once('/').unwrap();
    let (published, target) = numbers.split_once(':').unwrap();
    let protocol = match rest.trim_end_matches("@host") {
        "tcp" => 0,
        "udp" => 1,
        "sctp" => 2,
        number => number.parse().unwrap(),
    };
    v1::PortConfig {
        protocol,
        target_port: target.parse().unwrap(),
        published_port: published.parse().unwrap(),
        publish_mode: i32::from(rest.ends_with("@host")),
        ..Default::default()
    }
}

fn text(ports: &[v1::PortConfig]) -> String {
    let one = |port: &v1::PortConfig| {
        let protocol = ["tcp", "udp", "sctp"][usize::try_from(port.protocol).unwrap()];
        let mode = if is_ingress(port) { "" } else { "@host" };
        format!(
            "{}:{}/{protocol}{mode}",
            port.published_port, port.target_port
        )
    };
    ports.iter().map(one).collect::<Vec<_>>().join(" ")
}

/// A service that wants `spec`, with `stored` in its endpoint unless that is "none".
fn service(id: &str, spec: &str, stored: &str) -> Service {
    let spec = v1::EndpointSpec {
        ports: ports(spec),
        ..Default::default()
    };
    let wire = v1::ServiceSpec {
        endpoint: Some(spec.clone()),
        annotations: Some(v1::Annotations {
            name: id.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut service = Service::new(id.parse().unwrap(), ServiceSpec::new(wire));
    service.endpoint = (stored != "none").then(|| {
        Arc::new(v1::Endpoint {
            spec: Some(spec),
            ports: ports(stored),
            ..Default::default()
        })
    });
    service
}

/// Allocates with nothing decided before.
fn give(
    service: &Service,
    stored: &Occupancy,
    ingress: Ingress,
) -> Result<Option<v1::Endpoint>, PortError> {
    let decided = Occupancy::default();
    let decided = &decided;
    allocate(service, Taken { stored, decided }, ingress)
}

fn taken(holders: &[(&str, &str)]) -> Occupancy {
    let mut occupancy = Occupancy::default();
    for (id, list) in holders {
        occupancy.hold(&service(id, "", "none"), &ports(list));
    }
    occupancy
}

#[track_caller]
fn check(spec: &str, stored: &str, others: &str, expected: &str) {
    let occupancy = taken(&[
        ("other", others),
        ("own", stored.trim_start_matches("none")),
    ]);
    let service = service("own", spec, stored);
    let got = match give(&service, &occupancy, Ingress::Present) {
        Ok(endpoint) => text(&endpoint.unwrap().ports),
        Err(error) => error.to_string(),
    };
    assert_eq!(got, expected);
}

#[test]
fn explicit_and_host_ports_are_taken_as_they_are_and_come_first() {
    check("", "none", "", "");
    check("80:8080/tcp", "none", "", "80:8080/tcp");
    check("0:1/tcp 80:2/tcp", "none", "", "80:2/tcp 30000:1/tcp");
    check(
        "0:1/tcp 0:2/tcp@host",
        "none",
        "",
        "0:2/tcp@host 30000:1/tcp",
    );
}

#[test]
fn a_host_port_neither_takes_a_number_nor_minds_that_it_is_taken() {
    check("80:1/tcp@host", "none", "80:1/tcp", "80:1/tcp@host");
    check("80:1/tcp", "none", "80:1/tcp@host", "80:1/tcp");
}

#[test]
fn a_number_is_taken_once_for_each_protocol() {
    let error = "port 80/tcp is published by service \"other\" already; choose another";
    check("80:1/tcp", "none", "80:2/tcp", error);
    check("80:1/udp", "none", "80:2/tcp", "80:1/udp");
    check("80:1/sctp", "none", "80:2/tcp 80:2/udp", "80:1/sctp");
    let twice = "port 80/tcp is published by service \"own\" already; choose another";
    check("80:1/tcp 80:2/tcp", "none", "", twice);
}

#[test]
fn what_was_decided_counts_beside_what_is_stored() {
    let (stored, decided) = (
        taken(&[("a", "30000:1/tcp")]),
        taken(&[("b", "30001:1/tcp 80:1/tcp")]),
    );
    let occupied = Taken {
        stored: &stored,
        decided: &decided,
    };
    let got = allocate(&service("s", "0:1/tcp", "none"), occupied, Ingress::Present);
    assert_eq!(text(&got.unwrap().unwrap().ports), "30002:1/tcp");
    let got = allocate(
        &service("s", "80:1/tcp", "none"),
        occupied,
        Ingress::Present,
    );
    assert!(got.unwrap_err().to_string().contains("service \"b\""));
}

#[test]
fn a_number_with_two_holders_is_taken_until_both_are_gone() {
    let mut occupancy = taken(&[("a", "80:1/tcp"), ("b", "80:1/tcp")]);
    let (own, list) = (service("own", "80:1/tcp", "none"), ports("80:1/tcp"));
    for id in ["a", "b"] {
        assert!(give(&own, &occupancy, Ingress::Present).is_err());
        occupancy.release(&id.parse().unwrap(), &list);
    }
    assert!(give(&own, &occupancy, Ingress::Present).is_ok());
    assert_eq!(occupancy, Occupancy::default());
}

#[test]
fn a_dynamic_port_gets_the_lowest_free_number_of_its_range() {
    check("0:1/tcp", "none", "", "30000:1/tcp");
    check("0:1/tcp", "none", "30000:1/tcp 30001:1/udp", "30001:1/tcp");
    check(
        "0:1/tcp 0:2/tcp",
        "none",
        "30001:1/tcp",
        "30000:1/tcp 30002:2/tcp",
    );
    check("30000:1/tcp 0:2/tcp", "none", "", "30000:1/tcp 30001:2/tcp");
}

#[test]
fn the_last_dynamic_number_is_given_and_then_no_more() {
    let but_one: Vec<String> = (30000..32767).map(|port| format!("{port}:1/tcp")).collect();
    check("0:1/tcp", "none", &but_one.join(" "), "32767:1/tcp");
    let all = but_one.join(" ") + " 32767:1/tcp";
    let error = "all 2768 dynamic ports of protocol tcp are taken; \
                 publish fewer or choose a number";
    check("0:1/tcp", "none", &all, error);
    check("0:1/udp", "none", &all, "30000:1/udp");
}

#[test]
fn a_dynamic_port_keeps_its_number_while_the_list_keeps_its_length() {
    check("0:1/tcp", "30007:1/tcp", "", "30007:1/tcp");
    check(
        "0:1/tcp 0:2/tcp",
        "30008:2/tcp 30007:1/tcp",
        "",
        "30007:1/tcp 30008:2/tcp",
    );
    check("0:1/tcp", "30007:2/tcp", "", "30000:1/tcp");
    check(
        "0:1/tcp 0:2/tcp",
        "30007:1/tcp",
        "",
        "30000:1/tcp 30001:2/tcp",
    );
}

#[test]
fn explicit_ports_claim_their_numbers_before_dynamic_ones_of_the_same_target() {
    let stored = "30007:1/tcp 30008:1/tcp";
    check("0:1/tcp 30007:1/tcp", stored, "", "30007:1/tcp 30008:1/tcp");
    // The number went to another explicit port of the service: the dynamic one moves.
    check(
        "0:1/tcp 30007:2/tcp",
        "30007:1/tcp 30008:2/tcp",
        "",
        "30007:2/tcp 30000:1/tcp",
    );
}

#[test]
fn numbers_and_protocols_out_of_range_are_refused() {
    check("65535:1/tcp", "none", "", "65535:1/tcp");
    let error = "published port 65536 is out of range; the largest is 65535";
    check("65536:1/tcp", "none", "", error);
    let error = "target port 1 has the unknown protocol number 3; use tcp, udp or sctp";
    check("80:1/3", "none", "", error);
    check("0:1/3", "none", "", error);
}

#[test]
fn ingress_ports_need_the_ingress_network_and_host_ports_do_not() {
    let allocate = |spec| give(&service("s", spec, "none"), &taken(&[]), Ingress::Missing);
    assert_eq!(allocate("80:1/tcp"), Err(PortError::IngressMissing));
    assert!(allocate("80:1/tcp@host").is_ok());
    assert!(allocate("").is_ok());
}

#[test]
fn settled_means_that_the_endpoint_agrees_with_the_spec() {
    let cases = [
        ("", "none", false),
        ("", "", true),
        ("80:1/tcp", "80:1/tcp", true),
        ("80:1/tcp", "81:1/tcp", false),
        ("80:1/tcp", "", false),
        ("0:1/tcp", "30000:1/tcp", true),
        ("0:1/tcp", "0:1/tcp", false),
        ("0:1/tcp", "30000:2/tcp", false),
        ("0:1/tcp@host", "0:1/tcp@host", true),
        ("80:1/tcp@host", "0:1/tcp@host", false),
        ("0:1/tcp 80:2/tcp", "80:2/tcp 30000:1/tcp", true),
    ];
    for (spec, stored, expected) in cases {
        let service = service("s", spec, stored);
        assert_eq!(is_settled(&service), expected, "{spec} with {stored}");
    }
}

#[test]
fn an_endpoint_without_a_spec_is_given_up() {
    let mut service = service("s", "80:1/tcp", "80:1/tcp");
    service.spec = ServiceSpec::new(v1::ServiceSpec::default());
    assert!(!is_settled(&service));
    assert_eq!(give(&service, &taken(&[]), Ingress::Present), Ok(None));
    service.endpoint = None;
    assert!(is_settled(&service));
}

fn any_port() -> impl Strategy<Value = v1::PortConfig> {
    (0i32..4, 0u32..3, 0i32..2).prop_flat_map(|(protocol, target_port, publish_mode)| {
        let published = prop_oneof![Just(0), Just(80), Just(30_000), Just(30_001), Just(70_000)];
        published.prop_map(move |published_port| v1::PortConfig {
            protocol,
            target_port,
            publish_mode,
            published_port,
            ..Default::default()
        })
    })
}

proptest! {
    /// What was allocated is settled, stays as it is when looked at again, and disturbs nobody.
    #[test]
    fn an_allocation_is_settled_stable_and_free_of_conflicts(
        first in prop::collection::vec(any_port(), 0..4),
        second in prop::collection::vec(any_port(), 0..4),
    ) {
        let others = "80:1/tcp 30000:1/udp";
        let mut occupancy = taken(&[("other", others)]);
        let mut service = service("own", "", "none");
        for list in [first, second] {
            let endpoint = Some(v1::EndpointSpec { ports: list, ..Default::default() });
            service.spec = ServiceSpec::new(v1::ServiceSpec { endpoint, ..Default::default() });
            let Ok(endpoint) = give(&service, &occupancy, Ingress::Present) else {
                continue;
            };
            let endpoint = endpoint.unwrap();
            let mut all: Vec<_> = ports(others).iter().chain(&endpoint.ports)
                .filter(|port| is_ingress(port))
                .map(|port| (port.protocol, port.published_port))
                .collect();
            let count = all.len();
            all.sort_unstable();
            all.dedup();
            prop_assert_eq!(all.len(), count, "a number was given twice");
            let before = service.endpoint.as_ref().map_or(&[][..], |before| &before.ports);
            occupancy.release(&service.id, before);
            occupancy.hold(&service, &endpoint.ports);
            service.endpoint = Some(Arc::new(endpoint.clone()));
            prop_assert!(is_settled(&service));
            prop_assert_eq!(give(&service, &occupancy, Ingress::Present), Ok(Some(endpoint)));
        }
    }
}

#[test]
fn a_number_that_was_freed_is_given_again_only_after_all_others() {
    let mut occupied = Occupancy::default();
    let mut give_next = |name: &str| {
        let wants = service(name, "0:1/tcp", "none");
        let endpoint = give(&wants, &occupied, Ingress::Present).unwrap().unwrap();
        occupied.hold(&wants, &endpoint.ports);
        occupied.advance(&endpoint, &[]);
        let number = endpoint.ports[0].published_port;
        // The service is removed again at once.
        occupied.release(&wants.id, &endpoint.ports);
        number
    };
    let numbers: Vec<u32> = (0..2769).map(|n| give_next(&format!("s{n}"))).collect();
    let mut expected: Vec<u32> = (DYNAMIC_FIRST..=DYNAMIC_LAST).collect();
    expected.push(DYNAMIC_FIRST);
    assert_eq!(numbers, expected);
}

#[test]
fn only_numbers_that_we_give_move_the_search() {
    let mut occupied = Occupancy::default();
    for (spec, stored, before) in [
        // Chosen by the user.
        ("30500:1/tcp", "30500:1/tcp", ""),
        // Published by nodes.
        ("0:1/tcp@host", "30600:1/tcp@host", ""),
        // Given long ago; the service changed otherwise.
        ("0:1/tcp", "30700:1/tcp", "30700:1/tcp"),
        // Of another protocol.
        ("0:1/udp", "30800:1/udp", ""),
    ] {
        let endpoint = service("a", spec, stored).endpoint.unwrap();
        occupied.advance(&endpoint, &ports(before));
    }
    let next = |occupied: &Occupancy, spec: &str| {
        let got = give(&service("s", spec, "none"), occupied, Ingress::Present);
        text(&got.unwrap().unwrap().ports)
    };
    assert_eq!(next(&occupied, "0:1/tcp"), "30000:1/tcp");
    assert_eq!(
        next(&occupied, "0:1/udp 0:2/udp"),
        "30801:1/udp 30802:2/udp"
    );
    // A new leader goes on behind the highest that is taken.
    occupied.hold(&service("b", "", "none"), &ports("30009:1/tcp 40000:1/tcp"));
    occupied.rewind();
    assert_eq!(next(&occupied, "0:1/tcp"), "30010:1/tcp");
}
