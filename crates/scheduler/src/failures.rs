//! Recent failures of a service's tasks on a node. A node on which one spec fails again and again
//! comes last for that spec, until a while has passed or the spec changed (control-plane spec
//! 15.13).

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use swarm_types::{NodeId, ServiceId, Timestamp, Version};

/// How long a failure counts.
pub const FAILURE_WINDOW: Duration = Duration::from_secs(5 * 60);
/// So many failures within [`FAILURE_WINDOW`] make a node the worse choice.
pub const FAILURES_MIN: u32 = 5;
/// Failures remembered in all; beyond that the oldest are forgotten before their time. Tens of
/// megabytes, at three hundred failures each second for the whole window.
const REMEMBERED_MAX: usize = 100_000;

/// A service and the version of its spec: a new spec starts with a clean slate.
pub(crate) type Culprit = (ServiceId, Option<Version>);

/// Failures by node and culprit, oldest first. Not part of what `resync` can rebuild.
#[derive(Clone, Debug, Default)]
pub(crate) struct Failures {
    times: BTreeMap<(NodeId, Culprit), VecDeque<Timestamp>>,
    /// The same failures in the order in which they are forgotten.
    order: BTreeSet<(Timestamp, u64, NodeId, Culprit)>,
    /// Tells failures of the same instant apart.
    count: u64,
}

impl Failures {
    /// Notes a failure.
    pub(crate) fn note(&mut self, at: Timestamp, node: &NodeId, culprit: Culprit) {
        let key = (node.clone(), culprit.clone());
        self.times.entry(key).or_default().push_back(at);
        self.count += 1;
        self.order.insert((at, self.count, node.clone(), culprit));
    }

    /// Forgets what is older than the window and returns the nodes that it was about.
    pub(crate) fn expire(&mut self, now: Timestamp) -> BTreeSet<NodeId> {
        let mut nodes = BTreeSet::new();
        while let Some((at, ..)) = self.order.first() {
            let is_old = now.saturating_since(*at) >= FAILURE_WINDOW;
            if !is_old && self.order.len() <= REMEMBERED_MAX {
                break;
            }
            if let Some((_, _, node, culprit)) = self.order.pop_first() {
                let key = (node, culprit);
                if let Some(times) = self.times.get_mut(&key) {
                    times.pop_front();
                    if times.is_empty() {
                        self.times.remove(&key);
                    }
                }
                nodes.insert(key.0);
            }
        }
        nodes
    }

    /// What ranks a node: how many failures there were, or zero while they are too few to count.
    pub(crate) fn rank(
        &self,
        node: &NodeId,
        service: Option<&ServiceId>,
        version: Option<Version>,
    ) -> u32 {
        if self.times.is_empty() {
            return 0;
        }
        let Some(service) = service else {
            return 0;
        };
        let key = (node.clone(), (service.clone(), version));
        let count = self.times.get(&key).map_or(0, VecDeque::len);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count < FAILURES_MIN { 0 } else { count }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(seconds * 1000)
    }

    #[test]
    fn failures_count_from_the_fifth_and_for_five_minutes() {
        let node: NodeId = "n".parse().unwrap();
        let service: ServiceId = "s".parse().unwrap();
        let culprit = (service.clone(), Some(Version(1)));
        let mut failures = Failures::default();
        let rank = |failures: &Failures, version| {
            failures.rank(&node, Some(&service), Some(Version(version)))
        };
        for second in 0..4 {
            failures.note(at(second), &node, culprit.clone());
        }
        assert_eq!(rank(&failures, 1), 0);
        failures.note(at(4), &node, culprit);
        assert_eq!(rank(&failures, 1), 5);
        assert_eq!(rank(&failures, 2), 0, "another spec is innocent");
        assert_eq!(failures.rank(&node, None, None), 0);
        assert!(failures.expire(at(299)).is_empty());
        assert_eq!(rank(&failures, 1), 5);
        assert_eq!(failures.expire(at(300)).len(), 1);
        assert_eq!(rank(&failures, 1), 0);
        failures.expire(at(304));
        assert!(failures.times.is_empty() && failures.order.is_empty());
    }

    #[test]
    fn memory_is_bounded() {
        let node: NodeId = "n".parse().unwrap();
        let culprit: Culprit = ("s".parse().unwrap(), None);
        let mut failures = Failures::default();
        for _ in 0..=REMEMBERED_MAX {
            failures.note(at(0), &node, culprit.clone());
        }
        failures.expire(at(0));
        assert_eq!(failures.order.len(), REMEMBERED_MAX);
    }
}
