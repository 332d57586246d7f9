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
    /// Where a session worked last, whether that manager is still known or not.
    worked: Option<String>,
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
            worked: None,
        }
    }

    /// Only the manager of this node, through its control socket.
    pub fn local(socket: std::path::PathBuf) -> Self {
        Self {
            known: remotes::Remotes::default(),
            local: Some(Address::Unix(socket)),
            worked: None,
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
            if worked {
                self.worked = Some(address.clone());
            }
        }
    }

    /// A manager, at random by weight; `None` if none is known. When all of them failed, every
    /// other time where a session worked last: behind translated addresses nothing else may lead
    /// to a manager.
    pub fn select(&self, draw: u64) -> Option<Address> {
        if let Some(local) = &self.local {
            return Some(local.clone());
        }
        let mut weights = self.known.weights();
        let is_lost = weights.all(|(_, weight)| weight < 0) && draw.is_multiple_of(2);
        let addr = match &self.worked {
            Some(worked) if is_lost => worked,
            Some(_) | None => &self.known.select(draw, &[])?.addr,
        };
        Some(Address::Tcp(addr.clone()))
    }
}

/// A list of managers for the next start of this node, with the address at which the session works
/// that brought it. Where addresses are translated on the way, it may be the only one that leads to
/// a manager from here.
pub(crate) fn with_session(
    mut managers: Vec<v1::WeightedPeer>,
    session: Option<&Address>,
) -> Vec<v1::WeightedPeer> {
    let Some(Address::Tcp(addr)) = session else {
        return managers;
    };
    let is_named = |it: &v1::WeightedPeer| it.peer.as_ref().is_some_and(|peer| peer.addr == *addr);
    if !managers.iter().any(is_named) {
        let peer = v1::Peer {
            node_id: String::new(),
            addr: addr.clone(),
        };
        managers.push(v1::WeightedPeer {
            peer: Some(peer),
            weight: OBSERVATION,
        });
    }
    managers
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

    fn manager(addr: &str) -> v1::WeightedPeer {
        let peer = v1::Peer {
            node_id: "n".to_owned(),
            addr: addr.to_owned(),
        };
        v1::WeightedPeer {
            peer: Some(peer),
            weight: 10,
        }
    }

    #[test]
    fn where_a_session_worked_is_tried_when_nothing_else_answers() {
        let dialled = Address::Tcp("outside:1".to_owned());
        let told = vec![manager("inside:1"), manager("inside:2")];
        let mut remotes = Remotes::new(["outside:1".to_owned()]);
        remotes.observe(&dialled, true);
        remotes.replace(&told);
        let [even, odd] = [u64::MAX - 1, u64::MAX];
        // Nothing is tried that the list does not name as long as one of its managers may answer.
        remotes.observe(&Address::Tcp("inside:1".to_owned()), false);
        let inside = Some(Address::Tcp("inside:2".to_owned()));
        assert_eq!(
            (remotes.select(even), remotes.select(odd)),
            (inside.clone(), inside.clone())
        );
        remotes.observe(&Address::Tcp("inside:2".to_owned()), false);
        assert_eq!(remotes.select(even), Some(dialled.clone()));
        assert_eq!(remotes.select(odd), inside);
        let all = with_session(told.clone(), Some(&dialled));
        assert_eq!(
            (all.len(), all[2].peer.clone().unwrap().addr),
            (3, "outside:1".to_owned())
        );
        let named = Address::Tcp("inside:2".to_owned());
        assert_eq!(with_session(told.clone(), Some(&named)), told);
        let local = Address::Unix("/a/b.sock".into());
        assert_eq!(with_session(told.clone(), Some(&local)), told);
    }
}
