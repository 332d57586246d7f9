//! Lets the role that a node has follow the role that the user wants for it.
//!
//! The role decides which certificate the node gets when it renews, and the node renews when it
//! sees the wanted role change. A promotion is one write. A demotion is one write too, for a node
//! that is no member of the group of managers; nobody but the leader is one yet, and the request
//! to demote the leader's own node is refused (`swarm-control-api`).
//!
//! Owns `Node.role` once the node exists. Does not own certificates (`swarm-ca`), nor membership in
//! the group of managers.

use std::collections::BTreeSet;

use swarm_api::v1::NodeRole;
use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, Write};
use swarm_types::{AnyObject, Node, NodeId};

/// The loop that changes roles.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roles {
    own: Option<NodeId>,
}

impl Roles {
    /// `own` is the leader's node, which stays a manager as long as it leads.
    pub fn new(own: Option<NodeId>) -> Self {
        Self { own }
    }

    /// The role that a node is to have and has not.
    fn wanted(&self, node: &Node) -> Option<NodeRole> {
        let wanted = NodeRole::try_from(node.spec.desired_role).ok()?;
        let is_own = self.own.as_ref() == Some(&node.id);
        let leaves = is_own && wanted == NodeRole::Worker;
        (wanted != node.role && !leaves).then_some(wanted)
    }
}

impl Reconciler for Roles {
    type Key = NodeId;
    const NAME: &'static str = "roles";

    fn observe(&mut self, change: &Change, _: &Root, dirty: &mut BTreeSet<NodeId>) {
        if let AnyObject::Node(node) = &change.object
            && change.action != Action::Remove
            && self.wanted(node).is_some()
        {
            dirty.insert(node.id.clone());
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<NodeId>) {
        let nodes = view
            .all::<Node>()
            .filter(|node| self.wanted(node).is_some());
        dirty.extend(nodes.map(|node| node.id.clone()));
    }

    fn reconcile(&self, view: &Root, key: &NodeId, _: &mut Ctx<'_>) -> Step {
        let mut step = Step::default();
        if let Some(node) = view.node(key)
            && let Some(role) = self.wanted(node)
        {
            let mut node = (**node).clone();
            node.role = role;
            step.writes.push(Write::update(node));
        }
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_api::v1;
    use swarm_reconcile::{Outcome, Queue};
    use swarm_store::WriteSet;
    use swarm_types::{Id, IdSource, Timestamp};

    struct NoIds;
    impl IdSource for NoIds {
        fn next_id(&mut self) -> Id {
            panic!("a role needs no id")
        }
    }

    /// The role of node `n` after the loop had its turn.
    #[track_caller]
    fn check(own: &str, desired_role: i32, role: NodeRole, expected: NodeRole) {
        let spec = v1::NodeSpec {
            desired_role,
            ..Default::default()
        };
        let mut node = Node::new("n".parse().unwrap(), spec);
        node.role = role;
        let now = Timestamp::EPOCH;
        let mut transaction = Root::default().begin(now);
        transaction
            .apply_set(&WriteSet(vec![Write::create(node)]))
            .unwrap();
        let (mut root, commit) = transaction.finish();
        // A node that is there at the start and one that comes later go the same way.
        for start in [Root::default(), root.clone()] {
            let mut queue = Queue::new(Roles::new(own.parse().ok()), &start);
            queue.handle_commit(&commit, &root);
            while let Some(batch) = queue.poll_transaction(&root, now, &mut NoIds) {
                let mut transaction = root.begin(now);
                for set in &batch.sets {
                    transaction.apply_set(set).unwrap();
                }
                let (next, commit) = transaction.finish();
                root = next;
                queue.handle_commit(&commit, &root);
                let (version, refused) = (commit.version, Vec::new());
                queue.handle_outcome(&Outcome::Committed { version, refused });
            }
            assert_eq!(root.node(&"n".parse().unwrap()).unwrap().role, expected);
        }
    }

    #[test]
    fn the_role_follows_the_wanted_one() {
        use NodeRole::{Manager, Worker};
        check("m", Manager as i32, Worker, Manager);
        check("m", Worker as i32, Manager, Worker);
        check("m", Worker as i32, Worker, Worker);
        check("m", 7, Manager, Manager);
    }

    #[test]
    fn the_leader_stays_a_manager() {
        use NodeRole::{Manager, Worker};
        check("n", Worker as i32, Manager, Manager);
        check("n", Manager as i32, Worker, Manager);
    }
}
