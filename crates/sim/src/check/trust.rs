//! Who is trusted: compares what the leader writes about certificates with those that the machines
//! really have.

use swarm_store::{Action, Root};
use swarm_types::{AnyObject, Cluster, Node as NodeObject, Timestamp};

use crate::identity::RootIx;
use crate::invariants::{Checked, PACED, REMOVED, ROTATED, ensure};
use crate::manager::replica::Entry;
use crate::node::Node;

/// What is remembered between commits.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// When nodes were asked to renew last, by the leader's clock.
    asked_at: Option<Timestamp>,
}

impl Trust {
    /// Another leader has another clock.
    pub(crate) fn handle_death(&mut self) {
        self.asked_at = None;
    }

    /// Checks a commit against the machines.
    pub(crate) fn handle_entry(&mut self, entry: &Entry, nodes: &[Node]) -> Checked {
        if entry.author.name() == "log" {
            return Ok(());
        }
        let commit = &entry.commit;
        let mut asked = 0;
        for change in &commit.changes {
            match (&change.object, &change.old) {
                (AnyObject::Cluster(cluster), Some(AnyObject::Cluster(old))) => {
                    check_end(old, cluster, nodes)?;
                }
                (AnyObject::Node(node), old) if change.action != Action::Remove => {
                    let old = old.as_ref().and_then(as_node);
                    asked += usize::from(is_asked(node) && !old.is_some_and(is_asked));
                    check_removed(&entry.root, node)?;
                }
                _ => {}
            }
        }
        if asked == 0 {
            return Ok(());
        }
        let tick = swarm_ca::rotation::TICK;
        let is_paced = asked <= swarm_ca::rotation::NODES_PER_TICK_MAX
            && self
                .asked_at
                .is_none_or(|last| commit.at >= last.saturating_add(tick));
        ensure(is_paced, PACED, || {
            format!(
                "{asked} nodes were asked at {}, others at {:?}",
                commit.at, self.asked_at
            )
        })?;
        self.asked_at = Some(commit.at);
        Ok(())
    }
}

fn as_node(object: &AnyObject) -> Option<&NodeObject> {
    if let AnyObject::Node(node) = object {
        Some(node)
    } else {
        None
    }
}

fn is_asked(node: &NodeObject) -> bool {
    swarm_ca::requests::state(node) == swarm_api::v1::issuance_status::State::Rotate
}

/// A rotation ended: no machine that is in the cluster may be locked out by it. One that is away
/// for an hour may, but no run is that long.
fn check_end(old: &Cluster, cluster: &Cluster, nodes: &[Node]) -> Checked {
    let root = |cluster: &Cluster| RootIx::of(&cluster.root_ca.as_ref()?.ca_cert);
    let (Some(before), Some(after)) = (root(old), root(cluster)) else {
        return Ok(());
    };
    if before == after {
        return Ok(());
    }
    let removed = &cluster.blacklisted_certificates;
    let stranded = nodes.iter().find(|node| {
        let own = node.identity.certificate.as_ref();
        own.is_some_and(|own| {
            !own.is_covered_by(after) && !removed.contains_key(&own.node.to_string())
        })
    });
    ensure(stranded.is_none(), ROTATED, || {
        let who = stranded.map(|node| (node.ix, node.identity.certificate.clone()));
        format!("the cluster trusts root {} alone, and {who:?}", after.0)
    })
}

/// Who was removed stays out: its certificate is refused for as long as it lives, so nobody else
/// may get its id either.
fn check_removed(root: &Root, node: &NodeObject) -> Checked {
    let cluster = root.cluster();
    let is_removed = cluster.is_some_and(|it| swarm_ca::requests::is_removed(it, &node.id));
    ensure(!is_removed, REMOVED, || {
        format!("node {} ({}) was removed", node.id, node.hostname())
    })
}
