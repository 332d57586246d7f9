//! Who is trusted: compares what the leader writes about certificates with those that the machines
//! really have.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_store::{Action, Root};
use swarm_types::{AnyObject, Cluster, Node as NodeObject, NodeId, Timestamp};

use crate::identity::{Certificate, RootIx};
use crate::invariants::{Checked, PACED, REMOVED, ROTATED, ensure};
use crate::manager::replica::Entry;
use crate::node::Node;

/// Nodes that may be asked to renew at once, and how long nobody may be asked after that (spec
/// 2.9). Numbers of our own, because a checker that borrowed those of the product would follow its
/// mistakes.
const ASKED_MAX: usize = 30;
const ASKED_PAUSE: Duration = Duration::from_secs(3);

/// What is remembered between commits.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    /// When nodes were asked to renew last, by the leader's clock.
    asked_at: Option<Timestamp>,
    /// Nodes that were removed, remembered here because the product may forget them.
    removed: BTreeSet<NodeId>,
    /// The most nodes that were ever asked at once.
    pub(crate) asked_most: usize,
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
                    self.check_removed(&entry.root, node)?;
                    check_issued(&entry.root, old, node)?;
                }
                (AnyObject::Node(node), _) => self.handle_removal(&entry.root, node)?,
                _ => {}
            }
        }
        if asked == 0 {
            return Ok(());
        }
        self.asked_most = self.asked_most.max(asked);
        let is_early = |last: Timestamp| commit.at < last.saturating_add(ASKED_PAUSE);
        let is_paced = asked <= ASKED_MAX && !self.asked_at.is_some_and(is_early);
        ensure(is_paced, PACED, || {
            format!(
                "{asked} nodes were asked at {}, others at {:?}",
                commit.at, self.asked_at
            )
        })?;
        self.asked_at = Some(commit.at);
        Ok(())
    }

    /// Whoever is removed is on the list of those who are refused, from the same commit on.
    fn handle_removal(&mut self, root: &Root, node: &NodeObject) -> Checked {
        self.removed.insert(node.id.clone());
        let cluster = root.cluster();
        let is_listed = cluster.is_some_and(|it| swarm_ca::requests::is_removed(it, &node.id));
        ensure(is_listed, REMOVED, || {
            format!("node {} went, and its certificate still counts", node.id)
        })
    }

    /// Who was removed stays out: its certificate is refused for as long as it lives, so nobody
    /// else may get its id either.
    fn check_removed(&self, root: &Root, node: &NodeObject) -> Checked {
        let cluster = root.cluster();
        let is_listed = cluster.is_some_and(|it| swarm_ca::requests::is_removed(it, &node.id));
        ensure(
            !is_listed && !self.removed.contains(&node.id),
            REMOVED,
            || format!("node {} ({}) was removed", node.id, node.hostname()),
        )
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

/// A certificate that is handed out is one that everybody believes who trusts the root of now: a
/// signature of before the end of a rotation comes too late.
fn check_issued(root: &Root, old: Option<&NodeObject>, node: &NodeObject) -> Checked {
    let stored = |node: &NodeObject| node.certificate.as_ref().map(|own| own.certificate.clone());
    let written = stored(node).filter(|own| old.and_then(stored).as_ref() != Some(own));
    let certificate = written.and_then(|pem| Certificate::read(&pem));
    let root_ca = root.cluster().and_then(|cluster| cluster.root_ca.as_ref());
    let trusted = root_ca.and_then(|root_ca| RootIx::of(&root_ca.ca_cert));
    let (Some(certificate), Some(trusted)) = (certificate, trusted) else {
        return Ok(());
    };
    ensure(certificate.is_covered_by(trusted), ROTATED, || {
        format!(
            "the cluster trusts root {}, and {certificate:?} is issued",
            trusted.0
        )
    })
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
