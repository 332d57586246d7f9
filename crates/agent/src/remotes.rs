//! The managers that a node knows, and which of them to dial (spec 3.5).
//!
//! Owns the moving weights: what raises and lowers them, and the draw by weight. Does not own the
//! list's file, nor what an address is. Weights are whole numbers, as SwarmKit rounds them up to
//! after every step; so no sum here depends on the order of its parts.

use std::cmp::Ordering;

use swarm_api::v1;

/// What a success adds, and a failure takes (spec 3.5).
pub const OBSERVATION: i64 = 10;
/// Weights stay between plus and minus this.
pub const WEIGHT_MAX: i64 = 256;
/// Managers that are kept; a cluster has seven or fewer. A bound on a manager that sends nonsense.
pub const REMOTES_MAX: usize = 1_000;
/// A chance is a weight, not below zero, in thousandths, and one more: even the worst manager is
/// tried once in a while.
const CHANCE_UNIT: u64 = 1_000;

/// A manager. Ordered by address, which nearly always tells managers apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// Its node; empty if only its address is known.
    pub node_id: String,
    /// `host:port`.
    pub addr: String,
}

impl Ord for Remote {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_node = || {
            // To compare nothing with nothing takes longer than to compare whole ids.
            if self.node_id.is_empty() && other.node_id.is_empty() {
                return Ordering::Equal;
            }
            self.node_id.cmp(&other.node_id)
        };
        self.addr.cmp(&other.addr).then_with(by_node)
    }
}

impl PartialOrd for Remote {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Managers with moving weights. A cluster has few, so everything looks at all of them.
#[derive(Clone, Debug, Default)]
pub struct Remotes {
    /// Ordered by manager, so that the same draw finds the same one.
    known: Vec<(Remote, i64)>,
}

impl Remotes {
    /// Managers to begin with; none of them is better than the others.
    pub fn new(remotes: impl IntoIterator<Item = Remote>) -> Self {
        let mut new = Self::default();
        for remote in remotes {
            new.entry(&remote);
        }
        new
    }

    /// Takes the complete list from a session message: managers that are not in it are forgotten,
    /// unless it names none at all. Whether the set of managers changed.
    pub fn replace(&mut self, managers: &[v1::WeightedPeer]) -> bool {
        let named = managers.iter().filter_map(|manager| {
            let peer = manager.peer.as_ref()?;
            let remote = Remote {
                node_id: peer.node_id.clone(),
                addr: peer.addr.clone(),
            };
            (!remote.addr.is_empty()).then_some((remote, manager.weight))
        });
        let mut named: Vec<(Remote, i64)> = named.take(REMOTES_MAX).collect();
        if named.is_empty() {
            return false;
        }
        named.sort();
        named.dedup_by(|(a, _), (b, _)| a == b);
        let before = std::mem::take(&mut self.known);
        // A manager that was known by its address alone keeps what was learnt of it.
        let weight = |remote: &Remote| {
            let known = before.iter().find(|(known, _)| known == remote);
            let known =
                known.or_else(|| before.iter().find(|(known, _)| known.addr == remote.addr));
            known.map_or(0, |(_, weight)| *weight)
        };
        self.known = named
            .into_iter()
            .map(|(remote, observed)| {
                let old = weight(&remote);
                (remote, moved(old, observed))
            })
            .collect();
        let remotes = |known: &[(Remote, i64)]| known.iter().map(|it| it.0.clone()).collect();
        let (old, new): (Vec<Remote>, Vec<Remote>) = (remotes(&before), remotes(&self.known));
        old != new
    }

    /// Something was observed of a manager; it becomes known by that.
    pub fn observe(&mut self, remote: &Remote, observed: i64) {
        if let Some(weight) = self.entry(remote) {
            *weight = moved(*weight, observed);
        }
    }

    /// Something was observed at an address; it counts if a manager is known there.
    pub fn observe_address(&mut self, addr: &str, observed: i64) {
        for (remote, weight) in &mut self.known {
            if remote.addr == addr {
                *weight = moved(*weight, observed);
            }
        }
    }

    /// Forgets a manager.
    pub fn remove(&mut self, remote: &Remote) {
        self.known.retain(|(known, _)| known != remote);
    }

    /// A manager, at random by weight, but none whose node or address is excluded; `None` if no
    /// other is known. `draw` is random over its whole range.
    pub fn select(&self, draw: u64, excluded: &[&str]) -> Option<&Remote> {
        let is_free = |remote: &Remote| {
            !excluded
                .iter()
                .any(|text| *text == remote.node_id || *text == remote.addr)
        };
        let free = || self.known.iter().filter(|(remote, _)| is_free(remote));
        let total: u64 = free().map(|(_, weight)| chance(*weight)).sum();
        // Below the total, each point with the same chance up to one part in 2^64.
        let mut point = (u128::from(draw) * u128::from(total)) >> 64;
        for (remote, weight) in free() {
            let chance = u128::from(chance(*weight));
            if point < chance {
                return Some(remote);
            }
            point -= chance;
        }
        None
    }

    /// All managers with their weights, in order.
    pub fn weights(&self) -> impl Iterator<Item = (&Remote, i64)> {
        self.known.iter().map(|(remote, weight)| (remote, *weight))
    }

    /// The weight of a manager, making it known if there is room.
    fn entry(&mut self, remote: &Remote) -> Option<&mut i64> {
        let at = match self.known.binary_search_by(|(known, _)| known.cmp(remote)) {
            Ok(at) => at,
            Err(_) if self.known.len() >= REMOTES_MAX => return None,
            Err(at) => {
                self.known.insert(at, (remote.clone(), 0));
                at
            }
        };
        self.known.get_mut(at).map(|(_, weight)| weight)
    }
}

/// Half of what was and half of what is seen, rounded up.
fn moved(old: i64, observed: i64) -> i64 {
    let sum = old + observed.clamp(-WEIGHT_MAX, WEIGHT_MAX);
    // Rounds towards plus infinity for both signs.
    (sum + 1).div_euclid(2).clamp(-WEIGHT_MAX, WEIGHT_MAX)
}

fn chance(weight: i64) -> u64 {
    u64::try_from(weight).unwrap_or(0) * CHANCE_UNIT + 1
}

#[cfg(test)]
mod tests;
