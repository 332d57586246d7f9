//! All nodes as one kind of task sees them: who is out and by which filter, and the rest in the
//! order of preference. Built once, then kept up to date node by node.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_types::conditions;
use swarm_types::{Node, NodeId};

use crate::cluster::{Cluster, GroupKey};
use crate::failures::Failures;
use crate::filter::{Counts, Filter};
use crate::layered::Entry;
use crate::load::Load;
use crate::node_log::{NodeChange, NodeIx, NodeLog};
use crate::requirements::Pipeline;

/// What the order of nodes is made of; the smallest is the best (control-plane spec 15.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Rank {
    /// The node says that something on it is short.
    pub(crate) is_strained: bool,
    /// Recent failures of this spec here, if they are too many.
    pub(crate) failures: u32,
    /// Active tasks of the service here.
    pub(crate) service: u32,
    /// All active tasks here.
    pub(crate) active: u32,
}

/// How a node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Seat {
    /// The filter that rejects it.
    pub(crate) verdict: Option<Filter>,
    pub(crate) rank: Rank,
}

/// A node in the order of a leaf; ties go by id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeEntry {
    rank: Rank,
    id: NodeId,
    pub(crate) ix: NodeIx,
}

impl Entry for NodeEntry {
    fn number(&self) -> u32 {
        self.ix.0
    }
}

/// A branch in the order of its parent: fewest tasks of the service first, ties by label value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct BranchEntry {
    tasks: u64,
    label: Arc<str>,
    pub(crate) number: u32,
}

impl Entry for BranchEntry {
    fn number(&self) -> u32 {
        self.number
    }
}

/// Sums over the nodes of a branch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sums {
    /// Active tasks of the service, also on nodes that are out.
    pub(crate) tasks: u64,
    /// Nodes that no filter rejects.
    pub(crate) usable: u64,
}

impl Sums {
    pub(crate) fn change(&mut self, old: Sums, new: Sums) {
        self.tasks = self.tasks + new.tasks - old.tasks;
        self.usable = self.usable + new.usable - old.usable;
    }
}

impl Seat {
    pub(crate) fn sums(&self) -> Sums {
        Sums {
            tasks: self.rank.service.into(),
            usable: u64::from(self.verdict.is_none()),
        }
    }
}

/// A node of the preference tree; the root alone when there are no preferences.
#[derive(Clone, Debug)]
pub(crate) struct Branch {
    pub(crate) parent: u32,
    label: Arc<str>,
    children: BTreeMap<Arc<str>, u32>,
    pub(crate) sums: Sums,
    /// At a leaf: usable nodes.
    pub(crate) nodes: BTreeSet<NodeEntry>,
    /// Elsewhere: branches with usable nodes.
    pub(crate) branches: BTreeSet<BranchEntry>,
}

impl Branch {
    fn new(parent: u32, label: Arc<str>) -> Self {
        Self {
            parent,
            label,
            children: BTreeMap::new(),
            sums: Sums::default(),
            nodes: BTreeSet::new(),
            branches: BTreeSet::new(),
        }
    }

    pub(crate) fn is_leaf(&self) -> bool {
        self.children.is_empty()
    }

    pub(crate) fn entry(&self, number: u32, sums: Sums) -> Option<BranchEntry> {
        (sums.usable > 0).then(|| BranchEntry {
            tasks: sums.tasks,
            label: Arc::clone(&self.label),
            number,
        })
    }
}

/// The number of the root branch.
pub(crate) const ROOT: u32 = 0;

/// A node's place in the tree and its standing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Slot {
    id: NodeId,
    pub(crate) leaf: u32,
    fixed: Fixed,
    pub(crate) seat: Seat,
}

/// What the node object alone tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fixed {
    verdict: Option<Filter>,
    is_strained: bool,
}

impl Slot {
    /// The node's place in its leaf with this standing, if it is usable.
    pub(crate) fn entry(&self, ix: NodeIx, seat: Seat) -> Option<NodeEntry> {
        seat.verdict.is_none().then(|| NodeEntry {
            rank: seat.rank,
            id: self.id.clone(),
            ix,
        })
    }
}

/// What standings are computed from.
#[derive(Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) failures: &'a Failures,
}

/// The nodes in the order of one kind of task.
#[derive(Clone, Debug)]
pub(crate) struct Candidates {
    key: GroupKey,
    pub(crate) pipeline: Pipeline,
    /// By place; `None` where there is no node.
    pub(crate) slots: Vec<Option<Slot>>,
    pub(crate) branches: Vec<Branch>,
    pub(crate) rejected: Counts,
    /// How far the log was read.
    position: u64,
}

impl Candidates {
    /// Judges every node.
    pub(crate) fn build(key: &GroupKey, facts: Facts<'_>, log: &NodeLog) -> Self {
        let mut candidates = Self {
            key: key.clone(),
            pipeline: Pipeline::new(Arc::clone(&key.needs)),
            slots: Vec::new(),
            branches: vec![Branch::new(ROOT, Arc::from(""))],
            rejected: Counts::default(),
            position: 0,
        };
        candidates.rebuild(facts, log);
        candidates
    }

    fn rebuild(&mut self, facts: Facts<'_>, log: &NodeLog) {
        self.slots = vec![None; facts.cluster.places()];
        self.branches = vec![Branch::new(ROOT, Arc::from(""))];
        self.rejected = Counts::default();
        self.position = log.end();
        // Sets are filled in one go where that is much faster: at the leaves.
        let mut leaves: BTreeMap<u32, Vec<NodeEntry>> = BTreeMap::new();
        for ix in facts.cluster.all() {
            let Some(slot) = self.judge(ix, facts) else {
                continue;
            };
            self.rejected.change(None, slot.seat.verdict);
            self.change_sums(slot.leaf, Sums::default(), slot.seat.sums());
            if let Some(entry) = slot.entry(ix, slot.seat) {
                leaves.entry(slot.leaf).or_default().push(entry);
            }
            self.slots[ix.index()] = Some(slot);
        }
        for (leaf, entries) in leaves {
            self.branches[leaf as usize].nodes = entries.into_iter().collect();
        }
    }

    /// Reads what happened since the last time.
    pub(crate) fn catch_up(&mut self, facts: Facts<'_>, log: &NodeLog) {
        // Values of labels that nobody has any more leave branches behind.
        let levels = self.key.needs.spread.len();
        let branches_max = 1 + levels * (facts.cluster.places() + 1) * 2;
        let changes = log
            .since(self.position)
            .filter(|changes| changes.len() <= facts.cluster.places())
            .filter(|_| self.branches.len() <= branches_max);
        let Some(changes) = changes else {
            self.rebuild(facts, log);
            return;
        };
        self.slots.resize(facts.cluster.places(), None);
        for (ix, change) in changes {
            self.update(ix, change, facts);
        }
        self.position = log.end();
    }

    fn update(&mut self, ix: NodeIx, change: NodeChange, facts: Facts<'_>) {
        if change == NodeChange::Load
            && let Some(slot) = &self.slots[ix.index()]
            && let Some(seat) = self.seat(ix, slot.fixed, None, facts)
        {
            self.reseat(ix, seat);
            return;
        }
        let old = self.slots[ix.index()].take();
        let new = self.judge(ix, facts);
        if old != new {
            if let Some(old) = old {
                self.take(ix, &old);
            }
            if let Some(new) = &new {
                self.put(ix, new);
            }
        }
        self.slots[ix.index()] = new;
    }

    /// Moves a node within its leaf: what tasks can change is its standing alone.
    fn reseat(&mut self, ix: NodeIx, new: Seat) {
        let Some(slot) = &mut self.slots[ix.index()] else {
            return;
        };
        let old = std::mem::replace(&mut slot.seat, new);
        if old == new {
            return;
        }
        let (before, after) = (slot.entry(ix, old), slot.entry(ix, new));
        let leaf = slot.leaf;
        let nodes = &mut self.branches[leaf as usize].nodes;
        if let Some(before) = before {
            nodes.remove(&before);
        }
        if let Some(after) = after {
            nodes.insert(after);
        }
        self.rejected.change(old.verdict, new.verdict);
        self.change_sums(leaf, old.sums(), new.sums());
    }

    fn take(&mut self, ix: NodeIx, slot: &Slot) {
        self.rejected.change(slot.seat.verdict, None);
        self.change_sums(slot.leaf, slot.seat.sums(), Sums::default());
        if let Some(entry) = slot.entry(ix, slot.seat) {
            self.branches[slot.leaf as usize].nodes.remove(&entry);
        }
    }

    fn put(&mut self, ix: NodeIx, slot: &Slot) {
        self.rejected.change(None, slot.seat.verdict);
        self.change_sums(slot.leaf, Sums::default(), slot.seat.sums());
        let nodes = &mut self.branches[slot.leaf as usize].nodes;
        nodes.extend(slot.entry(ix, slot.seat));
    }

    /// Carries a difference from a leaf up to the root.
    fn change_sums(&mut self, leaf: u32, old: Sums, new: Sums) {
        let mut number = leaf;
        loop {
            let branch = &mut self.branches[number as usize];
            if number == ROOT {
                branch.sums.change(old, new);
                return;
            }
            let before = branch.entry(number, branch.sums);
            branch.sums.change(old, new);
            let after = branch.entry(number, branch.sums);
            number = branch.parent;
            if before != after {
                let order = &mut self.branches[number as usize].branches;
                if let Some(before) = before {
                    order.remove(&before);
                }
                order.extend(after);
            }
        }
    }

    /// The place and the standing of a node.
    fn judge(&mut self, ix: NodeIx, facts: Facts<'_>) -> Option<Slot> {
        let node = facts.cluster.node(ix)?;
        let leaf = self.leaf_of(node);
        let fixed = Fixed {
            verdict: self.pipeline.fixed(node),
            is_strained: conditions::repel_tasks(node),
        };
        let seat = self.seat(ix, fixed, None, facts)?;
        Some(Slot {
            id: node.id.clone(),
            leaf,
            fixed,
            seat,
        })
    }

    /// The standing of a node with what a plan adds to it.
    pub(crate) fn planned_seat(
        &self,
        ix: NodeIx,
        planned: &Load,
        facts: Facts<'_>,
    ) -> Option<Seat> {
        let slot = self.slots.get(ix.index())?.as_ref()?;
        self.seat(ix, slot.fixed, Some(planned), facts)
    }

    fn seat(
        &self,
        ix: NodeIx,
        fixed: Fixed,
        planned: Option<&Load>,
        facts: Facts<'_>,
    ) -> Option<Seat> {
        let view = facts.cluster.view(ix, planned)?;
        let service = &self.key.service;
        let service_tasks = view.active_of(service);
        // Short numbers, as ranks are compared more often than anything else here.
        let short = |tasks| u32::try_from(tasks).unwrap_or(u32::MAX);
        let rank = Rank {
            is_strained: fixed.is_strained,
            failures: facts
                .failures
                .rank(&view.node.id, service.as_ref(), self.key.version),
            service: short(service_tasks),
            active: short(view.active()),
        };
        let verdict = self.pipeline.verdict(fixed.verdict, &view, service_tasks);
        Some(Seat { verdict, rank })
    }

    /// The leaf for a node's labels, made if it is the first with these.
    fn leaf_of(&mut self, node: &Node) -> u32 {
        let needs = Arc::clone(&self.key.needs);
        let mut number = ROOT;
        for spread in &needs.spread {
            let value = spread.value(node);
            let children = &self.branches[number as usize].children;
            number = match children.get(value) {
                Some(child) => *child,
                None => self.new_branch(number, Arc::from(value)),
            };
        }
        number
    }

    fn new_branch(&mut self, parent: u32, label: Arc<str>) -> u32 {
        let number = u32::try_from(self.branches.len());
        let number = number.expect("branches are bounded by nodes times levels");
        self.branches.push(Branch::new(parent, Arc::clone(&label)));
        let children = &mut self.branches[parent as usize].children;
        children.insert(label, number);
        number
    }

    /// Whether any node is usable.
    pub(crate) fn is_any_usable(&self) -> bool {
        self.branches[ROOT as usize].sums.usable > 0
    }

    /// Everything but the numbers of branches, and branches without nodes.
    #[cfg(test)]
    pub(crate) fn shape(&self) -> impl PartialEq + std::fmt::Debug {
        let mut branches = BTreeMap::new();
        let mut paths: Vec<(Vec<Arc<str>>, u32)> = vec![(Vec::new(), ROOT)];
        while let Some((path, number)) = paths.pop() {
            let branch = &self.branches[number as usize];
            for (label, child) in &branch.children {
                let path = path.iter().chain([label]).cloned().collect();
                paths.push((path, *child));
            }
            let order: Vec<(u64, Arc<str>)> = branch
                .branches
                .iter()
                .map(|entry| (entry.tasks, Arc::clone(&entry.label)))
                .collect();
            if branch.sums != Sums::default() {
                branches.insert(path, (branch.sums, branch.nodes.clone(), order));
            }
        }
        let seats: BTreeMap<NodeId, Seat> = self
            .slots
            .iter()
            .flatten()
            .map(|slot| (slot.id.clone(), slot.seat))
            .collect();
        (self.rejected, branches, seats)
    }

    /// About how many entries this holds, for the bound on all of them.
    pub(crate) fn weight(&self) -> usize {
        self.slots.len() + self.branches.len()
    }
}
