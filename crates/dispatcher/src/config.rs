//! Settings of the dispatcher, and how a heartbeat period is drawn.

use std::time::Duration;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::time::duration_from_wire;
use swarm_types::{NodeId, defaults};

/// Half of the range from which a heartbeat period is drawn around the configured one (spec 5.1).
pub const HEARTBEAT_EPSILON: Duration = Duration::from_millis(500);
/// No node is told to beat more often; a cluster spec may say 0.
pub const HEARTBEAT_PERIOD_MIN: Duration = Duration::from_millis(100);
/// A node is DOWN after so many of its periods without a heartbeat (spec 5.1).
pub const GRACE_MULTIPLIER: u32 = 3;
/// The same for a node that has not come back since the leader changed (spec 5.1).
pub const UNKNOWN_GRACE_MULTIPLIER: u32 = 6;

/// Settings of one process; those of the cluster are read from the cluster object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node on which this leader runs; written into statuses as `applied_by`.
    pub leader: Option<NodeId>,
}

/// What a session message carries besides the node object. The list of managers must be complete:
/// agents forget every manager that it does not name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SessionExtras {
    /// All managers. One whose address is empty is this one, reached at several addresses of which
    /// none was named: each node is told the address at which its session arrived.
    pub managers: Vec<v1::WeightedPeer>,
    /// Keys for gossip and IPsec.
    pub network_bootstrap_keys: Vec<v1::EncryptionKey>,
    /// The trust root in PEM; empty while nodes have no certificates.
    pub root_ca: bytes::Bytes,
}

impl SessionExtras {
    /// The managers for a node whose session arrived at this address. Agents forget a manager that
    /// they are not told of, so this one is always among them.
    pub(crate) fn managers_for(&self, arrived: &str) -> Vec<v1::WeightedPeer> {
        let mut managers = self.managers.clone();
        for peer in managers.iter_mut().filter_map(|it| it.peer.as_mut()) {
            if peer.addr.is_empty() {
                arrived.clone_into(&mut peer.addr);
            }
        }
        let can_be_dialled = |it: &v1::WeightedPeer| {
            let peer = it.peer.as_ref();
            peer.is_some_and(|peer| !peer.addr.is_empty())
        };
        managers.retain(can_be_dialled);
        managers
    }
}

/// The heartbeat period that the cluster asks for.
pub(crate) fn heartbeat_period(view: &Root) -> Duration {
    view.cluster()
        .and_then(|cluster| cluster.spec.dispatcher.as_ref()?.heartbeat_period.as_ref())
        .and_then(duration_from_wire)
        .unwrap_or(defaults::HEARTBEAT_PERIOD)
}

/// A period for one reply: the configured one plus or minus at most [`HEARTBEAT_EPSILON`], so that
/// nodes which registered together do not stay in step.
pub(crate) fn draw_period(period: Duration, draw: &mut dyn FnMut() -> u64) -> Duration {
    let range = u64::try_from(2 * HEARTBEAT_EPSILON.as_nanos()).unwrap_or(u64::MAX);
    let offset = Duration::from_nanos(draw() % range);
    period
        .saturating_add(offset)
        .saturating_sub(HEARTBEAT_EPSILON)
        .max(HEARTBEAT_PERIOD_MIN)
}

/// The shortest that [`draw_period`] gives.
pub(crate) fn period_min(period: Duration) -> Duration {
    draw_period(period, &mut || 0)
}

/// No shorter than the longest that [`draw_period`] gives.
pub(crate) fn period_max(period: Duration) -> Duration {
    let longest = period.saturating_add(HEARTBEAT_EPSILON);
    longest.max(HEARTBEAT_PERIOD_MIN)
}

/// The part of a period after which a node is to beat for the second time in a session. Nodes that
/// come back together beat together for the first time; this spreads them over the period at once,
/// for one early heartbeat of each.
pub(crate) fn draw_phase(period: Duration, draw: &mut dyn FnMut() -> u64) -> Duration {
    let range = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX).max(1);
    Duration::from_nanos(draw() % range).max(HEARTBEAT_PERIOD_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_phases_are_parts_of_the_period_above_the_minimum() {
        let at = |period: Duration, number: u64| draw_phase(period, &mut || number);
        let second = Duration::from_secs(1);
        assert_eq!(at(5 * second, 0), HEARTBEAT_PERIOD_MIN);
        assert_eq!(
            at(5 * second, 4_999_999_999),
            Duration::from_nanos(4_999_999_999)
        );
        assert_eq!(at(5 * second, 5_000_000_000), HEARTBEAT_PERIOD_MIN);
        assert_eq!(at(Duration::ZERO, u64::MAX), HEARTBEAT_PERIOD_MIN);
        assert_eq!(at(Duration::MAX, 7_000_000_000), 7 * second);
    }

    #[test]
    fn drawn_periods_stay_within_epsilon_and_above_the_minimum() {
        let second = Duration::from_secs(1);
        let at = |number: u64| draw_period(5 * second, &mut || number);
        assert_eq!(at(0), Duration::from_millis(4500));
        assert_eq!(at(500_000_000), 5 * second);
        assert_eq!(at(999_999_999), Duration::from_nanos(5_499_999_999));
        assert_eq!(at(1_000_000_000), Duration::from_millis(4500));
        assert_eq!(period_min(5 * second), Duration::from_millis(4500));
        assert_eq!(period_max(5 * second), Duration::from_millis(5500));
        assert_eq!(draw_period(Duration::ZERO, &mut || 0), HEARTBEAT_PERIOD_MIN);
    }
}
