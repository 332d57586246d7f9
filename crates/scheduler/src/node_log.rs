//! Which nodes changed, in order, so that each ordering of nodes can catch up when it is next
//! needed instead of being touched by every change.

use std::collections::VecDeque;

/// The place of a node in the cache; given to another node once this one is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeIx(pub(crate) u32);

impl NodeIx {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What changed about a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeChange {
    /// The object: every filter has to look again.
    Object,
    /// What tasks use of it.
    Load,
}

/// Entries kept at least; beyond that, twice the number of nodes. An ordering which is further
/// behind is built anew, which costs no more than reading so many entries.
const KEPT_MIN: usize = 1_024;

/// The log.
#[derive(Debug, Default)]
pub(crate) struct NodeLog {
    start: u64,
    entries: VecDeque<(NodeIx, NodeChange)>,
}

impl NodeLog {
    /// Notes a change in a cluster of so many nodes.
    pub(crate) fn push(&mut self, node: NodeIx, change: NodeChange, nodes: usize) {
        self.entries.push_back((node, change));
        while self.entries.len() > KEPT_MIN.max(nodes * 2) {
            self.entries.pop_front();
            self.start += 1;
        }
    }

    /// Forgets everything: whoever reads on from before has to begin anew.
    pub(crate) fn reset(&mut self) {
        self.start = self.end() + 1;
        self.entries.clear();
    }

    /// The position after the last entry.
    pub(crate) fn end(&self) -> u64 {
        self.start + self.entries.len() as u64
    }

    /// The entries from a position on; `None` if some of them are forgotten.
    pub(crate) fn since(
        &self,
        position: u64,
    ) -> Option<impl ExactSizeIterator<Item = (NodeIx, NodeChange)>> {
        let skipped = usize::try_from(position.checked_sub(self.start)?).ok()?;
        (skipped <= self.entries.len()).then(|| self.entries.range(skipped..).copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_continue_where_they_were_unless_it_is_forgotten() {
        let mut log = NodeLog::default();
        let push = |log: &mut NodeLog, node| log.push(NodeIx(node), NodeChange::Load, 1);
        push(&mut log, 1);
        let position = log.end();
        push(&mut log, 2);
        let since = |log: &NodeLog, position| {
            let entries = log.since(position)?;
            Some(entries.map(|(node, _)| node.0).collect::<Vec<_>>())
        };
        assert_eq!(since(&log, position), Some(vec![2]));
        assert_eq!(since(&log, log.end()), Some(vec![]));
        for node in 0..u32::try_from(KEPT_MIN).unwrap() - 1 {
            push(&mut log, node);
        }
        assert_eq!(
            since(&log, position).map(|nodes| nodes.len()),
            Some(KEPT_MIN)
        );
        push(&mut log, 9);
        assert_eq!(since(&log, position), None);
        let position = log.end();
        log.reset();
        assert_eq!(since(&log, position), None);
    }
}
