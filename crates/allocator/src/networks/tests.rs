use swarm_types::Timestamp;

use super::*;

fn network(id: &str, change: impl FnOnce(&mut v1::NetworkSpec)) -> Network {
    let mut spec = v1::NetworkSpec::default();
    spec.annotations.get_or_insert_default().name = id.to_owned();
    change(&mut spec);
    Network::new(id.parse().unwrap(), spec)
}

fn ingress(subnet: &str, gateway: &str) -> Network {
    network("ingress", |spec| {
        spec.ingress = true;
        spec.ipam = Some(v1::IpamOptions {
            driver: Some(v1::Driver::default()),
            configs: vec![v1::IpamConfig {
                subnet: subnet.to_owned(),
                gateway: gateway.to_owned(),
                ..Default::default()
            }],
        });
    })
}

/// A network that has this subnet and VXLAN id already.
fn other(subnet: &str, id: &str) -> Network {
    let mut other = network("other", |_| {});
    other.ipam = Some(Arc::new(v1::IpamOptions {
        driver: Some(v1::Driver::default()),
        configs: vec![v1::IpamConfig {
            subnet: subnet.to_owned(),
            ..Default::default()
        }],
    }));
    other.driver_state = Some(Arc::new(v1::Driver {
        name: OVERLAY_DRIVER.to_owned(),
        options: [(VXLAN_IDS_OPTION.to_owned(), id.to_owned())].into(),
    }));
    other
}

fn view(networks: &[Network], pools: &[&str], size: u32) -> Root {
    let mut transaction = Root::default().begin(Timestamp::EPOCH);
    let mut cluster = Cluster::new("c".parse().unwrap(), swarm_types::defaults::cluster_spec());
    cluster.default_address_pool = pools.iter().map(|pool| (*pool).to_owned()).collect();
    cluster.subnet_size = size;
    transaction.create(cluster).unwrap();
    for network in networks {
        transaction.create(network.clone()).unwrap();
    }
    transaction.finish().0
}

/// Subnet, gateway and VXLAN id, or the error.
fn outcome(network: &Network, view: &Root) -> String {
    match allocate(network, view) {
        Ok(Some(network)) => {
            assert!(networks::is_allocated(&network));
            let state = network.driver_state.as_ref().unwrap();
            let config = &network.ipam.as_ref().unwrap().configs[0];
            let id = &state.options[VXLAN_IDS_OPTION];
            format!("{} {} {} {id}", state.name, config.subnet, config.gateway)
        }
        Ok(None) => "nothing".to_owned(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn the_ingress_network_gets_the_first_subnet_of_the_default_pool() {
    let ingress = ingress("", "");
    let view = view(std::slice::from_ref(&ingress), &[], 0);
    assert_eq!(
        outcome(&ingress, &view),
        "overlay 10.0.0.0/24 10.0.0.1 4096"
    );
    let done = allocate(&ingress, &view).unwrap().unwrap();
    assert_eq!(
        done.ipam.as_ref().unwrap().driver.as_ref().unwrap().name,
        "default"
    );
    let family = done.ipam.as_ref().unwrap().configs[0].family;
    assert_eq!(family, AddressFamily::Ipv4 as i32);
    assert_eq!(allocate(&done, &view), Ok(None));
}

#[test]
fn pools_and_sizes_come_from_the_cluster() {
    let ingress = ingress("", "");
    let networks = std::slice::from_ref(&ingress);
    let view = view(networks, &["30.0.0.0/30", "40.1.0.0/16"], 20);
    assert_eq!(
        outcome(&ingress, &view),
        "overlay 40.1.0.0/20 40.1.0.1 4096"
    );
}

#[test]
fn a_subnet_of_the_user_is_taken_and_one_of_another_network_is_not() {
    let chosen = ingress("10.9.0.0/16", "10.9.1.1");
    let taken = other("10.0.0.0/24", "4096,4097");
    let view = view(&[chosen.clone(), taken], &[], 0);
    assert_eq!(outcome(&chosen, &view), "overlay 10.9.0.0/16 10.9.1.1 4098");
    let any = ingress("", "");
    assert_eq!(outcome(&any, &view), "overlay 10.0.1.0/24 10.0.1.1 4098");
    let overlapping = ingress("10.0.0.128/25", "");
    assert_eq!(
        outcome(&overlapping, &view),
        "the subnet 10.0.0.128/25 of network \"ingress\" overlaps 10.0.0.0/24 of network \"other\""
    );
}

#[test]
fn what_cannot_be_had_is_named() {
    let any = ingress("", "");
    let check = |network: &Network, pools: &[&str], size, expected: &str| {
        let view = view(&[network.clone(), other("10.0.0.0/24", "9")], pools, size);
        assert_eq!(outcome(network, &view), expected);
    };
    check(
        &any,
        &["10.0.0.0/24"],
        0,
        "no subnet of size /24 is left for network \"ingress\" in the address pools 10.0.0.0/24; \
         remove a network or start a cluster with larger pools",
    );
    let no_subnet = |text: &str| {
        format!(
            "the subnet {text:?} of network \"ingress\" is no IPv4 subnet of at most /29; \
             create the network anew with another"
        )
    };
    check(&any, &["10.0.0.0"], 0, &no_subnet("10.0.0.0"));
    check(&any, &[], 30, &no_subnet("/30"));
    check(&any, &[], 300, &no_subnet("/300"));
    check(&ingress("fd00::/64", ""), &[], 0, &no_subnet("fd00::/64"));
    check(
        &ingress("10.1.0.0/30", ""),
        &[],
        0,
        &no_subnet("10.1.0.0/30"),
    );
    let outside = "the gateway \"10.2.0.1\" of network \"ingress\" is not a host of subnet \
                   10.1.0.0/24";
    check(&ingress("10.1.0.0/24", "10.2.0.1"), &[], 0, outside);
}

#[test]
fn a_range_restricts_the_hosts_and_must_be_in_the_subnet() {
    let with = |range: &str| {
        let mut network = ingress("10.1.0.0/24", "");
        let mut spec = (*network.spec).clone();
        spec.ipam.as_mut().unwrap().configs[0].range = range.to_owned();
        network.spec = Arc::new(spec);
        let view = view(std::slice::from_ref(&network), &[], 0);
        allocate(&network, &view)
    };
    let hosts = |range| space(&with(range).unwrap().unwrap()).unwrap().hosts;
    let number = |text: &str| u32::from(text.parse::<Ipv4Addr>().unwrap());
    assert_eq!(
        hosts("10.1.0.128/25"),
        number("10.1.0.129")..=number("10.1.0.254")
    );
    assert_eq!(hosts(""), number("10.1.0.1")..=number("10.1.0.254"));
    for range in ["10.2.0.0/25", "10.1.0.0/31", "x"] {
        let error = with(range).unwrap_err().to_string();
        assert!(
            error.contains(range) && error.contains("10.1.0.0/24"),
            "{error}"
        );
    }
}

#[test]
fn predefined_networks_get_a_driver_and_no_addresses() {
    let host = network("host", |spec| {
        spec.driver_config.get_or_insert_default().name = "host".to_owned();
        let labels = &mut spec.annotations.get_or_insert_default().labels;
        labels.insert(networks::PREDEFINED_LABEL.to_owned(), "true".to_owned());
    });
    let view = view(std::slice::from_ref(&host), &[], 0);
    let done = allocate(&host, &view).unwrap().unwrap();
    assert_eq!(done.driver_state.as_ref().unwrap().name, "host");
    let expected = v1::IpamOptions {
        driver: Some(v1::Driver::default()),
        configs: Vec::new(),
    };
    assert_eq!(done.ipam.as_deref(), Some(&expected));
    assert_eq!(allocate(&done, &view), Ok(None));
}

#[test]
fn other_networks_and_a_second_ingress_network_are_left_alone() {
    let plain = network("plain", |_| {});
    let (first, second) = (network("a", |spec| spec.ingress = true), ingress("", ""));
    let view = view(&[plain.clone(), first, second.clone()], &[], 0);
    assert_eq!(outcome(&plain, &view), "nothing");
    assert_eq!(outcome(&second, &view), "nothing");
}
