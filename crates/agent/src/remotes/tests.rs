use proptest::prelude::*;

use super::*;

fn remote(text: &str) -> Remote {
    let (node_id, addr) = text.split_once('@').unwrap_or(("", text));
    Remote {
        node_id: node_id.to_owned(),
        addr: addr.to_owned(),
    }
}

fn peer(text: &str, weight: i64) -> v1::WeightedPeer {
    let Remote { node_id, addr } = remote(text);
    v1::WeightedPeer {
        peer: Some(v1::Peer { node_id, addr }),
        weight,
    }
}

#[track_caller]
fn check(remotes: &Remotes, expected: &str) {
    let shown = remotes.weights().map(|(remote, weight)| {
        let at = if remote.node_id.is_empty() { "" } else { "@" };
        format!("{}{at}{}={weight}", remote.node_id, remote.addr)
    });
    assert_eq!(shown.collect::<Vec<_>>().join(" "), expected);
}

#[test]
fn a_list_replaces_what_is_known_and_an_empty_one_does_not() {
    let mut remotes = Remotes::new([remote("a:1"), remote("b:1")]);
    remotes.observe_address("b:1", OBSERVATION);
    check(&remotes, "a:1=0 b:1=5");
    assert!(remotes.replace(&[peer("n2@b:1", 10), peer("n3@c:1", 10), peer("n4@", 10)]));
    check(&remotes, "n2@b:1=8 n3@c:1=5");
    assert!(!remotes.replace(&[peer("n2@b:1", 10), peer("n3@c:1", 10)]));
    check(&remotes, "n2@b:1=9 n3@c:1=8");
    assert!(!remotes.replace(&[]));
    assert!(!remotes.replace(&[peer("n2@", 10)]));
    check(&remotes, "n2@b:1=9 n3@c:1=8");
    // A manager that moves keeps nothing of its old address.
    assert!(remotes.replace(&[peer("n2@z:1", 0)]));
    check(&remotes, "n2@z:1=0");
}

#[test]
fn observations_of_unknown_addresses_do_not_count_and_those_of_managers_do() {
    let mut remotes = Remotes::new([remote("a@a:1")]);
    remotes.observe_address("x:1", -OBSERVATION);
    remotes.observe(&remote("b@b:1"), OBSERVATION);
    check(&remotes, "a@a:1=0 b@b:1=5");
    remotes.remove(&remote("a@a:1"));
    check(&remotes, "b@b:1=5");
}

#[test]
fn excluded_nodes_and_addresses_are_not_drawn() {
    let remotes = Remotes::new([remote("a@a:1"), remote("b@b:1"), remote("c@c:1")]);
    for draw in [0, u64::MAX / 2, u64::MAX] {
        assert_eq!(remotes.select(draw, &["a", "c:1"]).unwrap().addr, "b:1");
        assert_eq!(remotes.select(draw, &["a", "b", "c"]), None);
    }
    assert_eq!(Remotes::default().select(1, &[]), None);
}

#[test]
fn a_manager_that_fails_is_drawn_rarely_but_not_never() {
    let mut remotes = Remotes::new([]);
    remotes.replace(&[peer("a@a:1", 10), peer("b@b:1", 10)]);
    for _ in 0..20 {
        remotes.observe_address("a:1", -OBSERVATION);
    }
    assert_eq!(remotes.select(u64::MAX / 2, &[]).unwrap().addr, "b:1");
    assert_eq!(remotes.select(0, &[]).unwrap().addr, "a:1");
    assert_eq!(remotes.select(u64::MAX, &[]).unwrap().addr, "b:1");
}

#[test]
fn the_number_of_managers_is_bounded() {
    let many: Vec<_> = (0..2 * REMOTES_MAX)
        .map(|n| peer(&format!("{n}@h:{n}"), 1))
        .collect();
    let mut remotes = Remotes::default();
    remotes.replace(&many);
    assert_eq!(remotes.weights().count(), REMOTES_MAX);
    remotes.observe(&remote("zz@zz:1"), 1);
    assert_eq!(remotes.weights().count(), REMOTES_MAX);
}

/// The formula as the specification writes it, in floating point.
fn twin(old: i64, observed: i64) -> i64 {
    let clip = |x: f64| {
        if x.is_nan() {
            0.0
        } else {
            x.clamp(-256.0, 256.0)
        }
    };
    #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation)]
    let new = clip(0.5 * clip(observed as f64) + 0.5 * old as f64).ceil() as i64;
    new
}

proptest! {
    #[test]
    fn weights_move_as_the_formula_says(
        old in -WEIGHT_MAX..=WEIGHT_MAX,
        observed in prop_oneof![any::<i64>(), -300i64..300],
    ) {
        prop_assert_eq!(moved(old, observed), twin(old, observed));
    }

    #[test]
    fn weights_stay_within_their_bounds(observed in prop::collection::vec(any::<i64>(), 0..50)) {
        let mut remotes = Remotes::new([remote("a@a:1")]);
        for observed in observed {
            remotes.observe_address("a:1", observed);
            let (_, weight) = remotes.weights().next().unwrap();
            prop_assert!((-WEIGHT_MAX..=WEIGHT_MAX).contains(&weight));
        }
    }

    /// The points of the range are split among managers in proportion to their chances.
    #[test]
    fn the_share_of_a_manager_is_its_chance(
        weights in prop::collection::vec(-WEIGHT_MAX..=WEIGHT_MAX, 1..8),
    ) {
        let mut remotes = Remotes::default();
        for (index, weight) in weights.iter().enumerate() {
            let remote = remote(&format!("{index}@h:{index}"));
            remotes.known.push((remote, *weight));
        }
        let total: u128 = weights.iter().map(|weight| u128::from(chance(*weight))).sum();
        let draw = |point: u128| {
            // The first draw that falls on a point: the range is split evenly.
            let draw = (point << 64).div_ceil(total);
            remotes.select(u64::try_from(draw).unwrap(), &[]).unwrap().addr.clone()
        };
        let mut start = 0;
        for (index, weight) in weights.iter().enumerate() {
            let end = start + u128::from(chance(*weight));
            let addr = format!("h:{index}");
            prop_assert_eq!(draw(start), addr.clone());
            prop_assert_eq!(draw(end - 1), addr);
            start = end;
        }
    }

    #[test]
    fn a_draw_never_finds_what_is_excluded(draw in any::<u64>(), out in 0usize..4) {
        let remotes = Remotes::new(["a@a:1", "b@b:1", "c@c:1", "d@d:1"].map(remote));
        let excluded: Vec<Remote> = remotes.weights().map(|it| it.0.clone()).take(out).collect();
        let names: Vec<&str> = excluded.iter().map(|it| &*it.node_id).collect();
        let drawn = remotes.select(draw, &names).unwrap();
        prop_assert!(!excluded.contains(drawn));
    }
}
