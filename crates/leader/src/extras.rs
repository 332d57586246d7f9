//! What every agent is told beside its own node: the managers and their weights, the keys of the
//! network, the trust root. Read off the store; does not own when it is sent (`swarm-dispatcher`
//! sends it to everybody when it changed, and not when it did not).

use swarm_api::v1;
use swarm_dispatcher::SessionExtras;
use swarm_store::{Commit, Root};
use swarm_types::{AnyObject, NodeId, weights};

/// What agents are to know, for managers at these addresses. The dispatcher gives one without an
/// address the one at which each session arrived.
pub(crate) fn of(view: &Root, managers: &[v1::Peer]) -> SessionExtras {
    let cluster = view.cluster();
    SessionExtras {
        managers: managers
            .iter()
            .map(|peer| v1::WeightedPeer {
                peer: Some(peer.clone()),
                weight: weight(view, peer),
            })
            .collect(),
        network_bootstrap_keys: cluster
            .map_or_else(Vec::new, |cluster| cluster.network_bootstrap_keys.clone()),
        root_ca: cluster
            .and_then(|cluster| cluster.root_ca.as_ref())
            .map_or_else(Default::default, |root| root.ca_cert.clone()),
    }
}

/// Whether a commit can have changed it.
pub(crate) fn concerns(commit: &Commit, managers: &[v1::Peer]) -> bool {
    commit.changes.iter().any(|change| match &change.object {
        AnyObject::Cluster(_) => true,
        AnyObject::Node(node) => {
            let id = node.id.as_id();
            let is_it = |peer: &v1::Peer| id.with_str(|id| id == peer.node_id);
            managers.iter().any(is_it)
        }
        AnyObject::Task(_)
        | AnyObject::Service(_)
        | AnyObject::Network(_)
        | AnyObject::Secret(_)
        | AnyObject::Resource(_)
        | AnyObject::Extension(_)
        | AnyObject::Config(_)
        | AnyObject::Volume(_) => false,
    })
}

/// The managers of a list as agents get it.
pub(crate) fn peers(extras: &SessionExtras) -> Vec<v1::Peer> {
    let managers = extras.managers.iter();
    managers
        .filter_map(|manager| manager.peer.clone())
        .collect()
}

fn weight(view: &Root, peer: &v1::Peer) -> i64 {
    let id: Option<NodeId> = peer.node_id.parse().ok();
    let node = id.and_then(|id| view.node(&id));
    weights::manager_weight(node.map(|node| &**node))
}

#[cfg(test)]
mod tests;
