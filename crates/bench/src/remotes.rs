//! The eight benchmarks of the weighted list of managers (`performance.md` 2.3): peers of equal
//! weight that are known by their address. `Select*` draws one by weight, `Observe*` moves the
//! weight of one after the other.
//!
//! Draws come from a generator inside the clock, as they do in Go.

use std::hint::black_box;

use swarm_agent::remotes::{Remote, Remotes};

use crate::runner::{Clock, Row, Took};
use crate::world::Ids;

/// Operations in one round: some tens of milliseconds.
const OPERATIONS: usize = 500_000;

macro_rules! rows {
    ($($name:literal, $go:literal, $peers:literal, $round:ident;)*) => {
        /// The rows with Go's quiet medians. Nobody waits for these; they must not be slower.
        pub const ROWS: &[Row] = &[$(Row {
            name: concat!("remotes/", $name),
            go: $go,
            bar: 1.0,
            rounds_max: usize::MAX,
            round: || $round($peers),
        },)*];
    };
}

rows! {
    "RemotesSelect3", 69.0, 3, select;
    "RemotesSelect5", 82.0, 5, select;
    "RemotesSelect9", 141.0, 9, select;
    "RemotesSelect27", 276.0, 27, select;
    "RemotesObserve3", 51.0, 3, observe;
    "RemotesObserve5", 51.0, 5, observe;
    "RemotesObserve9", 51.0, 9, observe;
    "RemotesObserve27", 50.0, 27, observe;
}

/// The weight that both benchmarks give.
const WEIGHT: i64 = 1;

fn peers(count: usize) -> Vec<Remote> {
    let peer = |index: usize| Remote {
        node_id: String::new(),
        addr: index.to_string(),
    };
    (0..count).map(peer).collect()
}

fn known(peers: &[Remote]) -> Remotes {
    let mut remotes = Remotes::new(peers.iter().cloned());
    for peer in peers {
        remotes.observe(peer, WEIGHT);
    }
    remotes
}

fn select(count: usize) -> Took {
    let remotes = known(&peers(count));
    let mut draws = Ids::new(6);
    let clock = Clock::start();
    for _ in 0..OPERATIONS {
        black_box(remotes.select(draws.next_number(), &[]));
    }
    clock.stop(OPERATIONS)
}

fn observe(count: usize) -> Took {
    let peers = peers(count);
    let mut remotes = known(&peers);
    let clock = Clock::start();
    for index in 0..OPERATIONS {
        remotes.observe(black_box(&peers[index % count]), WEIGHT);
    }
    black_box(&remotes);
    clock.stop(OPERATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_peer_is_drawn_and_weighs_the_same() {
        let remotes = known(&peers(27));
        let mut draws = Ids::new(6);
        let drawn: std::collections::BTreeSet<&Remote> = (0..2_000)
            .filter_map(|_| remotes.select(draws.next_number(), &[]))
            .collect();
        assert_eq!(drawn.len(), 27);
        assert!(remotes.weights().all(|(_, weight)| weight == WEIGHT));
    }
}
