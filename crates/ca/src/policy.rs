//! How long certificates live, and when one of them deserves a warning.
//!
//! Does not own the schedule of a node's own renewals (`renewal`).

use std::time::Duration;

use swarm_types::time::duration_from_wire;
use swarm_types::{Cluster, Timestamp, defaults};

use crate::issue::MIN_EXPIRY;

/// The share of its life that a certificate may have left before people are warned: an eighth. A
/// node renews between 50 and 80 % of the life and tries again at least every hour, so one that
/// has only this much left has failed many times.
const WARNING_SHARE: u32 = 8;
/// No certificate is warned about earlier than this before it ends, however long it lives.
const WARNING_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// The life of node certificates that the cluster asks for. One below [`MIN_EXPIRY`] that is stored
/// all the same counts as the default, as in SwarmKit.
pub fn node_cert_expiry(cluster: &Cluster) -> Duration {
    let wanted = cluster
        .spec
        .ca_config
        .as_ref()
        .and_then(|config| config.node_cert_expiry.as_ref())
        .and_then(duration_from_wire);
    wanted
        .filter(|expiry| *expiry >= MIN_EXPIRY)
        .unwrap_or(defaults::NODE_CERT_EXPIRY)
}

/// When people are to be warned of a certificate that was not renewed.
pub fn warning_time(not_before: Timestamp, not_after: Timestamp) -> Timestamp {
    let life = not_after.saturating_since(not_before);
    not_after.saturating_sub((life / WARNING_SHARE).min(WARNING_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_api::v1;
    use swarm_types::time::duration_to_wire;

    fn cluster(expiry: Option<Duration>) -> Cluster {
        let mut spec = defaults::cluster_spec();
        spec.ca_config = Some(v1::CaConfig {
            node_cert_expiry: expiry.map(duration_to_wire),
            ..Default::default()
        });
        Cluster::new("c".parse().unwrap(), spec)
    }

    #[test]
    fn a_life_below_one_hour_counts_as_the_default() {
        let short = MIN_EXPIRY - Duration::from_nanos(1);
        for (stored, expected) in [
            (None, defaults::NODE_CERT_EXPIRY),
            (Some(short), defaults::NODE_CERT_EXPIRY),
            (Some(MIN_EXPIRY), MIN_EXPIRY),
        ] {
            assert_eq!(node_cert_expiry(&cluster(stored)), expected, "{stored:?}");
        }
    }

    #[test]
    fn warnings_come_with_an_eighth_left_but_at_most_two_weeks_before() {
        let at = |hours: u64| Timestamp::EPOCH.saturating_add(Duration::from_secs(hours * 3600));
        assert_eq!(warning_time(at(0), at(16)), at(14));
        assert_eq!(warning_time(at(0), at(2160)), at(2160 - 270));
        assert_eq!(warning_time(at(0), at(24 * 400)), at(24 * 386));
        assert_eq!(warning_time(at(5), at(5)), at(5));
    }
}
