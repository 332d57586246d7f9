//! How much a node may write about tasks whose state does not change.
//!
//! A task moves through its states once, so reports of a new state are bounded by the tasks that a
//! node was given, and are never held up. Reports of the same state with other words are not
//! bounded by anything: they are paid for in bytes of the log, and wait when the node has used up
//! what it has. Of those that wait only the newest of each task is kept.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_types::{NodeId, TaskId, TaskStatus, Timers, Timestamp};

/// Bytes of the log that reports of the same state may take at once, for each node: 1 MiB.
pub const REFRESH_BURST_BYTES: u64 = 1024 * 1024;
/// Bytes of the log that they may take in each second after that, for each node: 64 KiB.
pub const REFRESH_BYTES_PER_SECOND: u64 = 64 * 1024;
/// Whoever has to wait waits at least so long.
const HOLD_MIN: Duration = Duration::from_millis(100);

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The allowances of all nodes that do not have theirs in full.
#[derive(Debug, Default)]
pub(crate) struct Allowances {
    nodes: BTreeMap<NodeId, Allowance>,
    /// When nodes whose reports wait have something left again.
    times: Timers<NodeId>,
}

#[derive(Debug)]
struct Allowance {
    /// Bytes that are used up; at most the burst and one write.
    used: u64,
    /// As of then.
    at: Timestamp,
    held: BTreeMap<TaskId, TaskStatus>,
}

impl Allowance {
    fn refill(&mut self, now: Timestamp) {
        let nanos = u64::try_from(now.saturating_since(self.at).as_nanos()).unwrap_or(u64::MAX);
        let bytes = nanos.saturating_mul(REFRESH_BYTES_PER_SECOND) / NANOS_PER_SECOND;
        // Less than a byte is not forgotten: the time stays where it was.
        if bytes > 0 {
            self.used = self.used.saturating_sub(bytes);
            self.at = now;
        }
    }

    /// How long until something is left.
    fn wait(&self) -> Duration {
        let over = (self.used + 1).saturating_sub(REFRESH_BURST_BYTES);
        let nanos = over.saturating_mul(NANOS_PER_SECOND) / REFRESH_BYTES_PER_SECOND;
        Duration::from_nanos(nanos).max(HOLD_MIN)
    }
}

impl Allowances {
    /// Whether a node may write something more.
    pub(crate) fn has_room(&mut self, now: Timestamp, node: &NodeId) -> bool {
        let Some(own) = self.nodes.get_mut(node) else {
            return true;
        };
        own.refill(now);
        if own.used == 0 && own.held.is_empty() {
            self.nodes.remove(node);
            return true;
        }
        own.used < REFRESH_BURST_BYTES
    }

    /// A node has written something.
    pub(crate) fn charge(&mut self, now: Timestamp, node: &NodeId, bytes: usize) {
        let own = self.of(now, node);
        own.used = own.used.saturating_add(bytes as u64);
    }

    /// Keeps a report until the node may write again.
    pub(crate) fn hold(&mut self, now: Timestamp, node: &NodeId, task: TaskId, status: TaskStatus) {
        let own = self.of(now, node);
        own.held.insert(task, status);
        let at = now.saturating_add(own.wait());
        if self.times.get(node).is_none() {
            self.times.set(node.clone(), at);
        }
    }

    /// The report about a task that waits, if one does.
    pub(crate) fn held(&mut self, node: &NodeId, task: &TaskId) -> Option<&mut TaskStatus> {
        self.nodes.get_mut(node)?.held.get_mut(task)
    }

    /// Drops the report about a task: a newer one is under way.
    pub(crate) fn release(&mut self, node: &NodeId, task: &TaskId) {
        if let Some(own) = self.nodes.get_mut(node) {
            own.held.remove(task);
        }
    }

    /// The reports of the next node that may write again.
    pub(crate) fn pop_due(&mut self, now: Timestamp) -> Option<BTreeMap<TaskId, TaskStatus>> {
        let node = self.times.pop_due(now)?;
        let own = self.nodes.get_mut(&node);
        Some(own.map_or_else(BTreeMap::new, |own| std::mem::take(&mut own.held)))
    }

    /// When some node may write again.
    pub(crate) fn timeout(&self) -> Option<Timestamp> {
        self.times.next().map(|(at, _)| at)
    }

    /// How many reports wait.
    pub(crate) fn len(&self) -> usize {
        self.nodes.values().map(|own| own.held.len()).sum()
    }

    /// A node is gone.
    pub(crate) fn forget(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.times.clear(node);
    }

    fn of(&mut self, now: Timestamp, node: &NodeId) -> &mut Allowance {
        self.nodes.entry(node.clone()).or_insert_with(|| Allowance {
            used: 0,
            at: now,
            held: BTreeMap::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_may_write_a_burst_and_then_so_much_per_second() {
        let (mut all, node): (_, NodeId) = (Allowances::default(), "n".parse().unwrap());
        let at = Timestamp::from_millis;
        let burst = usize::try_from(REFRESH_BURST_BYTES).unwrap();
        assert!(all.has_room(at(0), &node));
        all.charge(at(0), &node, burst - 1);
        assert!(all.has_room(at(0), &node), "one byte is left");
        all.charge(at(0), &node, 64 * 1024);
        assert!(!all.has_room(at(0), &node));
        all.hold(at(0), &node, "t".parse().unwrap(), TaskStatus::default());
        assert_eq!(all.timeout(), Some(at(1_000)));
        assert!(all.pop_due(at(999)).is_none());
        assert_eq!(all.pop_due(at(1_000)).unwrap().len(), 1);
        assert!(all.has_room(at(1_000), &node));
        let seconds = REFRESH_BURST_BYTES / REFRESH_BYTES_PER_SECOND + 2;
        let all_back = at(1_000).saturating_add(Duration::from_secs(seconds));
        assert!(all.has_room(all_back, &node));
        assert!(all.nodes.is_empty(), "a full allowance takes no memory");
    }
}
