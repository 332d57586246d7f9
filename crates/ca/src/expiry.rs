//! Certificates that should have been renewed long ago.
//!
//! Owns whom to warn about, and that each warning comes once. Does not own the renewal, which is
//! the node's business, nor where the warning is printed.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_store::Root;
use swarm_types::{Node, NodeId, Timestamp};

use crate::certificate::Certificate;
use crate::{advice, policy};

/// Nodes whose certificates are read in one go; reading one takes about 20 µs.
const NODES_PER_STEP: usize = 100;
/// Between two such steps.
const STEP_DELAY: Duration = Duration::from_secs(10);
/// Between two passes over all nodes. Warnings come hours ahead at least.
const PASS_DELAY: Duration = Duration::from_secs(600);

/// A certificate that its node did not renew in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// The node.
    pub node: NodeId,
    /// When its certificate ends or ended.
    pub not_after: Timestamp,
    /// What is wrong, as a clause about the node.
    pub text: String,
    /// What the operator can do.
    pub next_step: String,
}

/// From when and until when the certificate of a node is valid; `None` when the cluster does not
/// have it, because it is being renewed or because the node made it itself.
pub fn validity(node: &Node) -> Option<(Timestamp, Timestamp)> {
    let certificate = node.certificate.as_ref()?;
    if certificate.certificate.is_empty() {
        return None;
    }
    let chain = Certificate::all_from_pem(&certificate.certificate).ok()?;
    let leaf = chain.first()?;
    Some((leaf.not_before(), leaf.not_after()))
}

/// What to say about the certificate of a node, if anything.
pub fn warning(node: &Node, now: Timestamp) -> Option<Warning> {
    let (not_before, not_after) = validity(node)?;
    if now < policy::warning_time(not_before, not_after) {
        return None;
    }
    let (text, next_step) = if now > not_after {
        (
            format!("its certificate expired at {not_after}"),
            advice::readmit(node),
        )
    } else {
        (
            format!("its certificate expires at {not_after} and it does not renew it"),
            format!(
                "{}; after that time it needs to be readmitted",
                advice::log(node)
            ),
        )
    };
    Some(Warning {
        node: node.id.clone(),
        not_after,
        text,
        next_step,
    })
}

/// Goes over all nodes, a few at a time.
#[derive(Clone, Debug)]
pub(crate) struct Watch {
    next_at: Timestamp,
    /// The node that was looked at last in this pass.
    cursor: Option<NodeId>,
    /// For which certificate a node was warned about, by its end; whether it had ended.
    warned: BTreeMap<NodeId, (Timestamp, bool)>,
}

impl Watch {
    pub(crate) fn new(now: Timestamp) -> Self {
        Self {
            next_at: now.saturating_add(STEP_DELAY),
            cursor: None,
            warned: BTreeMap::new(),
        }
    }

    pub(crate) fn timeout(&self) -> Timestamp {
        self.next_at
    }

    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.warned.remove(node);
    }

    /// The new warnings of one step, once its time has come.
    pub(crate) fn poll(&mut self, view: &Root, now: Timestamp) -> Vec<Warning> {
        if now < self.next_at {
            return Vec::new();
        }
        let cursor = self.cursor.take();
        let rest = view
            .all::<Node>()
            .skip_while(|node| cursor.as_ref().is_some_and(|cursor| node.id <= *cursor));
        let nodes: Vec<_> = rest.take(NODES_PER_STEP).collect();
        if nodes.len() == NODES_PER_STEP {
            self.cursor = nodes.last().map(|node| node.id.clone());
            self.next_at = now.saturating_add(STEP_DELAY);
        } else {
            self.next_at = now.saturating_add(PASS_DELAY);
        }
        let found = nodes.into_iter().map(|node| (node, warning(node, now)));
        let mut warnings = Vec::new();
        for (node, warning) in found {
            let Some(warning) = warning else {
                self.warned.remove(&node.id);
                continue;
            };
            let about = (warning.not_after, now > warning.not_after);
            if self.warned.insert(node.id.clone(), about) != Some(about) {
                warnings.push(warning);
            }
        }
        warnings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::csr;
    use crate::issue::Subject;
    use crate::issuer::{Issuer, LocalIssuer};
    use crate::world::{World, at, node_id};
    use swarm_api::v1;

    fn local(world: &World) -> LocalIssuer {
        match Issuer::of(world.root.cluster().unwrap()).unwrap() {
            Issuer::Local(local) => local,
            Issuer::External(_) => panic!("the cluster has a key"),
        }
    }

    /// Gives a node a certificate of so many hours, which begins one hour before the test does.
    fn certify(world: &mut World, name: &str, hours: u64) {
        let csr = csr::request(&csr::new_key()).unwrap();
        let subject = Subject {
            node: node_id(name),
            cluster: "c".parse().unwrap(),
            role: v1::NodeRole::Worker,
        };
        let life = Duration::from_secs(hours * 3600);
        let signer = local(world).signer().unwrap();
        let chain = signer.sign(csr.as_bytes(), &subject, life, at(0), [1; 20]);
        world.node(name, |node| {
            node.certificate = Some(Box::new(v1::Certificate {
                certificate: chain.unwrap().into(),
                ..Default::default()
            }));
        });
    }

    fn texts(warnings: Vec<Warning>) -> Vec<String> {
        warnings
            .into_iter()
            .map(|it| format!("{}: {}", it.node, it.text))
            .collect()
    }

    #[test]
    fn a_node_is_warned_about_once_before_and_once_after_its_certificate_ends() {
        let mut world = World::new();
        certify(&mut world, "w", 23);
        world.node("without", |_| {});
        let (_, end) = validity(world.root.node(&node_id("w")).unwrap()).unwrap();
        let early = end.saturating_sub(Duration::from_secs(3 * 3600));
        let mut watch = Watch::new(at(0));
        let before = early.saturating_sub(Duration::from_nanos(1));
        assert_eq!(watch.poll(&world.root, before), []);
        let later = |time: Timestamp, passes: u32| time.saturating_add(PASS_DELAY * passes);
        let found = texts(watch.poll(&world.root, later(early, 1)));
        assert_eq!(found.len(), 1);
        assert!(
            found[0].starts_with("w: its certificate expires at"),
            "{found:?}"
        );
        assert_eq!(watch.poll(&world.root, later(early, 2)), []);
        let found = texts(watch.poll(&world.root, later(end, 1)));
        assert!(
            found[0].starts_with("w: its certificate expired at"),
            "{found:?}"
        );
        assert_eq!(watch.poll(&world.root, later(end, 2)), []);
    }

    #[test]
    fn many_nodes_are_looked_at_in_steps() {
        let mut world = World::new();
        for number in 0..NODES_PER_STEP + 1 {
            world.node(&format!("{number:03}"), |_| {});
        }
        certify(&mut world, "zz", 1);
        let end = at(3600 * 4);
        let mut watch = Watch::new(at(0));
        assert_eq!(watch.poll(&world.root, at(9)), []);
        assert_eq!(watch.poll(&world.root, end), []);
        assert_eq!(watch.timeout(), end.saturating_add(STEP_DELAY));
        assert_eq!(watch.poll(&world.root, watch.timeout()).len(), 1);
        assert_eq!(watch.timeout(), end.saturating_add(STEP_DELAY + PASS_DELAY));
    }
}
