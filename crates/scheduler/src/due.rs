//! What a pass has to look at: the marks that `observe` makes.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use swarm_types::NodeId;

use crate::cluster::GroupKey;
use crate::node_log::NodeLog;

/// The marks that changes leave.
#[derive(Debug, Default)]
pub(crate) struct Marks {
    pub(crate) due: Due,
    pub(crate) log: NodeLog,
}

/// Groups of waiting tasks, and nodes with tasks that came with their node, which may have
/// something to write. What is not in here was looked at, and nothing has changed for it since.
#[derive(Debug, Default)]
pub(crate) struct Due {
    is_stirred: bool,
    is_everything: bool,
    /// By size class, small groups first: a service with two tasks does not wait for one with a
    /// million.
    groups: BTreeSet<(u32, GroupKey)>,
    classes: BTreeMap<GroupKey, u32>,
    nodes: BTreeSet<NodeId>,
}

impl Due {
    /// Something happened that calls for a pass.
    pub(crate) fn stir(&mut self) {
        self.is_stirred = true;
    }

    /// Whether something called for a pass since the last time this was asked.
    pub(crate) fn take_stirred(&mut self) -> bool {
        std::mem::take(&mut self.is_stirred)
    }

    /// Every group may have something to write.
    pub(crate) fn everything(&mut self) {
        self.is_everything = true;
    }

    /// Whether [`Due::everything`] was called since the last time this was asked.
    pub(crate) fn take_everything(&mut self) -> bool {
        std::mem::take(&mut self.is_everything)
    }

    /// A group of so many tasks may have something to write.
    pub(crate) fn group(&mut self, key: &GroupKey, tasks: usize) {
        let class = tasks.max(1).ilog2();
        match self.classes.get_mut(key) {
            Some(old) if *old == class => {}
            Some(old) => {
                let old = std::mem::replace(old, class);
                self.groups.remove(&(old, key.clone()));
                self.groups.insert((class, key.clone()));
            }
            None => {
                self.classes.insert(key.clone(), class);
                self.groups.insert((class, key.clone()));
            }
        }
    }

    /// A group lost a task and has so many left. It moves in the order if it is due.
    pub(crate) fn group_shrank(&mut self, key: &GroupKey, tasks: usize) {
        if tasks == 0 {
            self.group_done(key);
        } else if (tasks + 1).ilog2() != tasks.ilog2() && self.classes.contains_key(key) {
            self.group(key, tasks);
        }
    }

    /// A group has nothing to write.
    pub(crate) fn group_done(&mut self, key: &GroupKey) {
        if let Some(class) = self.classes.remove(key) {
            self.groups.remove(&(class, key.clone()));
        }
    }

    /// The group after another one.
    pub(crate) fn group_after(&self, last: Option<&(u32, GroupKey)>) -> Option<&(u32, GroupKey)> {
        let low = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.groups.range((low, Bound::Unbounded)).next()
    }

    /// The tasks that came with this node may have something to write.
    pub(crate) fn node(&mut self, node: &NodeId) {
        if !self.nodes.contains(node) {
            self.nodes.insert(node.clone());
        }
    }

    /// They have nothing to write.
    pub(crate) fn node_done(&mut self, node: &NodeId) {
        self.nodes.remove(node);
    }

    /// The node after another one.
    pub(crate) fn node_after(&self, last: Option<&NodeId>) -> Option<&NodeId> {
        let low = last.map_or(Bound::Unbounded, Bound::Excluded);
        self.nodes.range((low, Bound::Unbounded)).next()
    }
}
