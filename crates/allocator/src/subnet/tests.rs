use proptest::prelude::*;

use super::*;

fn subnet(text: &str) -> Subnet {
    text.parse().unwrap()
}

#[test]
fn a_subnet_is_read_with_its_host_bits_cleared() {
    assert_eq!(subnet("10.0.0.7/24").to_string(), "10.0.0.0/24");
    assert_eq!(subnet("1.2.3.4/0").to_string(), "0.0.0.0/0");
    assert_eq!(subnet("1.2.3.4/32").to_string(), "1.2.3.4/32");
    for text in [
        "",
        "10.0.0.0",
        "10.0.0.0/33",
        "10.0.0/24",
        "fd00::/8",
        "10.0.0.0/-1",
    ] {
        assert_eq!(text.parse::<Subnet>(), Err(NotASubnet), "{text}");
    }
}

#[test]
fn hosts_leave_out_the_first_and_the_last_address() {
    let hosts = subnet("10.0.0.0/29").hosts();
    let text = |number: u32| Ipv4Addr::from(number).to_string();
    assert_eq!(text(*hosts.start()), "10.0.0.1");
    assert_eq!(text(*hosts.end()), "10.0.0.6");
    assert!(subnet("10.0.0.1/32").hosts().is_empty());
    assert_eq!(subnet("0.0.0.0/0").hosts(), 1..=u32::MAX - 1);
}

#[test]
fn addresses_are_read_with_and_without_a_prefix() {
    let expected = Some(Ipv4Addr::new(10, 0, 0, 7));
    assert_eq!(address("10.0.0.7/24"), expected);
    assert_eq!(address("10.0.0.7"), expected);
    assert_eq!(address("fd00::1/64"), None);
    assert_eq!(address(""), None);
}

#[track_caller]
fn check(pools: &str, prefix: u8, used: &str, expected: &str) {
    let list = |text: &str| text.split_whitespace().map(subnet).collect::<Vec<_>>();
    let got = carve(&list(pools), prefix, &list(used));
    let got = got.map_or_else(|| "none".to_owned(), |subnet| subnet.to_string());
    assert_eq!(got, expected);
}

#[test]
fn the_lowest_free_block_of_the_first_pool_with_room_is_cut_out() {
    check("10.0.0.0/8", 24, "", "10.0.0.0/24");
    check("10.0.0.0/8", 24, "10.0.0.0/24 10.0.1.0/24", "10.0.2.0/24");
    check("10.0.0.0/8", 24, "10.0.0.0/24 10.0.2.0/24", "10.0.1.0/24");
    check("10.0.0.0/8", 24, "10.0.0.128/25 10.0.1.0/30", "10.0.2.0/24");
    check("10.0.0.0/8", 24, "10.0.0.0/15", "10.2.0.0/24");
    check("10.0.0.0/24 20.0.0.0/24", 25, "10.0.0.0/24", "20.0.0.0/25");
}

#[test]
fn pools_without_room_give_nothing() {
    check("10.0.0.0/24", 24, "10.0.0.0/24", "none");
    check("10.0.0.0/25", 24, "", "none");
    check("255.255.255.0/24", 24, "255.255.255.0/24", "none");
    check("", 24, "", "none");
}

proptest! {
    /// Cutting until nothing is left gives every block of the pool once, as a walk over all of
    /// them does that leaves out what is used.
    #[test]
    fn carving_finds_exactly_what_a_walk_over_all_blocks_finds(
        taken in prop::collection::vec((0u32..1024, 22u8..31), 0..12),
        prefix in 24u8..29,
    ) {
        let pool = subnet("10.0.0.0/22");
        let mut used: Vec<Subnet> = taken
            .iter()
            .map(|(offset, prefix)| {
                Subnet::around((u32::from(pool.first()) + offset).into(), *prefix).unwrap()
            })
            .collect();
        let size = 1u32 << (32 - prefix);
        let walk: Vec<Subnet> = (0..1024 / size)
            .filter_map(|index| {
                Subnet::around((u32::from(pool.first()) + index * size).into(), prefix)
            })
            .filter(|block| !used.iter().any(|taken| taken.overlaps(*block)))
            .collect();
        let mut carved = Vec::new();
        while let Some(block) = carve(&[pool], prefix, &used) {
            carved.push(block);
            used.push(block);
        }
        prop_assert_eq!(carved, walk);
    }
}
