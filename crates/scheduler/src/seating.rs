//! One group in one plan: the candidates as they stand after what the plan has placed so far.

use crate::candidates::{BranchEntry, Candidates, Facts, NodeEntry, ROOT, Seat, Sums};
use crate::filter::Counts;
use crate::layered::Layered;
use crate::load::{Load, Planned};
use crate::node_log::NodeIx;
use crate::numbered::Numbered;

/// The candidates of a group with the changes of a plan over them.
pub(crate) struct Seating<'a> {
    base: &'a Candidates,
    facts: Facts<'a>,
    seats: Numbered<Seat>,
    sums: Numbered<Sums>,
    leaves: Numbered<Layered<'a, NodeEntry>>,
    inner: Numbered<Layered<'a, BranchEntry>>,
    pub(crate) rejected: Counts,
}

impl<'a> Seating<'a> {
    pub(crate) fn new(base: &'a Candidates, facts: Facts<'a>, planned: &Planned) -> Self {
        let mut seating = Self {
            base,
            facts,
            seats: Numbered::default(),
            sums: Numbered::default(),
            leaves: Numbered::default(),
            inner: Numbered::default(),
            rejected: base.rejected,
        };
        for (ix, load) in planned.iter() {
            seating.update(ix, load);
        }
        seating
    }

    /// The best node: down the preference tree by the fewest tasks of the service, then by rank.
    pub(crate) fn best(&mut self) -> Option<NodeIx> {
        let mut number = ROOT;
        loop {
            let branch = &self.base.branches[number as usize];
            if branch.is_leaf() {
                let leaf = self
                    .leaves
                    .entry(number)
                    .or_insert_with(|| Layered::new(&branch.nodes));
                return leaf.first().map(|entry| entry.ix);
            }
            let order = self
                .inner
                .entry(number)
                .or_insert_with(|| Layered::new(&branch.branches));
            number = order.first()?.number;
        }
    }

    /// Takes notice of what the plan adds to a node by now.
    pub(crate) fn update(&mut self, ix: NodeIx, planned: &Load) {
        let base = self.base;
        let Some(slot) = base.slots.get(ix.index()).and_then(Option::as_ref) else {
            return;
        };
        let Some(new) = base.planned_seat(ix, planned, self.facts) else {
            return;
        };
        let old = self.seats.insert(ix.0, new).unwrap_or(slot.seat);
        if old == new {
            return;
        }
        self.rejected.change(old.verdict, new.verdict);
        let nodes = &base.branches[slot.leaf as usize].nodes;
        self.leaves
            .entry(slot.leaf)
            .or_insert_with(|| Layered::new(nodes))
            .set(ix.0, slot.entry(ix, new));
        self.change_sums(slot.leaf, old.sums(), new.sums());
    }

    fn change_sums(&mut self, leaf: u32, old: Sums, new: Sums) {
        if old == new {
            return;
        }
        let mut number = leaf;
        while number != ROOT {
            let branch = &self.base.branches[number as usize];
            let sums = self.sums.entry(number).or_insert(branch.sums);
            sums.change(old, new);
            let entry = branch.entry(number, *sums);
            let parent = &self.base.branches[branch.parent as usize];
            self.inner
                .entry(branch.parent)
                .or_insert_with(|| Layered::new(&parent.branches))
                .set(number, entry);
            number = branch.parent;
        }
    }
}
