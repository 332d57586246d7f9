//! The managers that this node may dial: those of `swarm-agent`, or the one of this node itself.

use swarm_agent::remotes::{self, OBSERVATION, Remote};
use swarm_api::v1;
use swarm_rt::net::Address;

/// Managers with moving weights.
#[derive(Clone, Debug, Default)]
pub struct Remotes {
    known: remotes::Remotes,
    /// Used instead of everything else, on a node that has a manager itself.
    local: Option<Address>,
}

impl Remotes {
    /// Managers to begin with, by address.
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Self {
        let remotes = addresses.into_iter().map(|addr| Remote {
            node_id: String::new(),
            addr,
        });
        Self {
            known: remotes::Remotes::new(remotes),
            local: None,
        }
    }

    /// Only the manager of this node, through its control socket.
    pub fn local(socket: std::path::PathBuf) -> Self {
        Self {
            known: remotes::Remotes::default(),
            local: Some(Address::Unix(socket)),
        }
    }

    /// Takes the complete list from a session message: managers that are not in it are forgotten,
    /// unless it is empty.
    pub fn replace(&mut self, managers: &[v1::WeightedPeer]) {
        self.known.replace(managers);
    }

    /// A manager worked, or failed.
    pub fn observe(&mut self, address: &Address, worked: bool) {
        if let Address::Tcp(address) = address {
            let observed = if worked { OBSERVATION } else { -OBSERVATION };
            self.known.observe_address(address, observed);
        }
    }

    /// A manager, at random by weight; `None` if none is known.
    pub fn select(&self, draw: u64) -> Option<Address> {
        if let Some(local) = &self.local {
            return Some(local.clone());
        }
        let remote = self.known.select(draw, &[])?;
        Some(Address::Tcp(remote.addr.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_with_a_manager_dials_nobody_else() {
        let mut remotes = Remotes::local("/a/b.sock".into());
        let peer = v1::Peer {
            node_id: "n".to_owned(),
            addr: "h:1".to_owned(),
        };
        remotes.replace(&[v1::WeightedPeer {
            peer: Some(peer),
            weight: 10,
        }]);
        let socket = Some(Address::Unix("/a/b.sock".into()));
        assert_eq!(remotes.select(0), socket);
        assert_eq!(Remotes::default().select(0), None);
    }

    #[test]
    fn failures_make_another_manager_more_likely() {
        let mut remotes = Remotes::new(["a:1".to_owned(), "b:1".to_owned()]);
        let (a, b) = (
            Address::Tcp("a:1".to_owned()),
            Address::Tcp("b:1".to_owned()),
        );
        remotes.observe(&a, false);
        remotes.observe(&b, true);
        assert_eq!(remotes.select(u64::MAX / 2), Some(b));
    }
}
