//! The managers that this node knows, and which one to dial (spec 3.5).

use std::collections::BTreeMap;

use swarm_api::v1;
use swarm_rt::net::Address;

/// A success or failure counts this much.
const OBSERVATION: f64 = 10.0;
/// Weights stay between plus and minus this.
const WEIGHT_MAX: f64 = 256.0;
/// Even the worst manager is tried once in a while.
const CHANCE_MIN: f64 = 0.001;

/// Managers with moving weights.
#[derive(Clone, Debug, Default)]
pub struct Remotes {
    weights: BTreeMap<String, f64>,
    /// Used instead of everything else, on a node that has a manager itself.
    local: Option<Address>,
}

impl Remotes {
    /// Managers to begin with, by address.
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        Self {
            weights: addresses
                .into_iter()
                .map(|address| (address, 0.0))
                .collect(),
            local: None,
        }
    }

    /// Only the manager of this node, through its control socket.
    pub fn local(socket: std::path::PathBuf) -> Self {
        Self {
            weights: BTreeMap::new(),
            local: Some(Address::Unix(socket)),
        }
    }

    /// Takes the complete list from a session message: managers that are not in it are forgotten,
    /// unless it is empty.
    pub fn replace(&mut self, managers: &[v1::WeightedPeer]) {
        let peers = managers.iter().filter_map(|manager| {
            let address = &manager.peer.as_ref()?.addr;
            // Weights come as whole numbers and stay small.
            (!address.is_empty()).then(|| (address.clone(), clip(manager.weight)))
        });
        let named: BTreeMap<String, f64> = peers.collect();
        if named.is_empty() {
            return;
        }
        self.weights
            .retain(|address, _| named.contains_key(address));
        for (address, observed) in named {
            let weight = self.weights.entry(address).or_insert(0.0);
            *weight = moved(*weight, observed);
        }
    }

    /// A manager worked, or failed.
    pub fn observe(&mut self, address: &Address, worked: bool) {
        if let Address::Tcp(address) = address
            && let Some(weight) = self.weights.get_mut(address)
        {
            *weight = moved(*weight, if worked { OBSERVATION } else { -OBSERVATION });
        }
    }

    /// A manager, at random by weight; `None` if none is known.
    pub fn select(&self, draw: u64) -> Option<Address> {
        if let Some(local) = &self.local {
            return Some(local.clone());
        }
        let chance = |weight: f64| weight.max(0.0) + CHANCE_MIN;
        let total: f64 = self.weights.values().map(|weight| chance(*weight)).sum();
        // 53 bits fill the fraction of a double exactly.
        #[allow(clippy::cast_precision_loss)]
        let mut point = (draw >> 11) as f64 / (1u64 << 53) as f64 * total;
        let mut last = None;
        for (address, weight) in &self.weights {
            last = Some(address);
            point -= chance(*weight);
            if point < 0.0 {
                break;
            }
        }
        last.map(|address| Address::Tcp(address.clone()))
    }

    /// The addresses, for the file that survives a restart.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.weights.keys().map(String::as_str)
    }
}

fn moved(old: f64, observed: f64) -> f64 {
    (0.5 * observed.clamp(-WEIGHT_MAX, WEIGHT_MAX) + 0.5 * old)
        .ceil()
        .clamp(-WEIGHT_MAX, WEIGHT_MAX)
}

fn clip(weight: i64) -> f64 {
    let small = i16::try_from(weight.clamp(-256, 256)).expect("clamped to 256");
    f64::from(small)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(addr: &str, weight: i64) -> v1::WeightedPeer {
        let peer = v1::Peer {
            node_id: String::new(),
            addr: addr.to_owned(),
        };
        v1::WeightedPeer {
            peer: Some(peer),
            weight,
        }
    }

    #[test]
    fn a_list_replaces_what_is_known_and_an_empty_one_does_not() {
        let mut remotes = Remotes::new(["a:1".to_owned(), "b:1".to_owned()]);
        remotes.replace(&[peer("b:1", 10), peer("c:1", 10), peer("", 10)]);
        assert_eq!(remotes.addresses().collect::<Vec<_>>(), ["b:1", "c:1"]);
        remotes.replace(&[]);
        assert_eq!(remotes.addresses().count(), 2);
    }

    #[test]
    fn a_manager_that_fails_is_chosen_rarely_but_not_never() {
        let mut remotes = Remotes::new(["a:1".to_owned(), "b:1".to_owned()]);
        remotes.replace(&[peer("a:1", 10), peer("b:1", 10)]);
        for _ in 0..20 {
            remotes.observe(&Address::Tcp("a:1".to_owned()), false);
        }
        let chosen = |draw| remotes.select(draw);
        assert_eq!(chosen(u64::MAX / 2), Some(Address::Tcp("b:1".to_owned())));
        assert_eq!(chosen(0), Some(Address::Tcp("a:1".to_owned())));
        assert_eq!(chosen(u64::MAX), Some(Address::Tcp("b:1".to_owned())));
    }

    #[test]
    fn without_managers_there_is_nothing_to_dial() {
        assert_eq!(Remotes::default().select(1), None);
    }
}
