//! How long certificates live, when one of them deserves a warning, and who can be a manager.
//!
//! Does not own the schedule of a node's own renewals (`renewal`).

use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_types::time::duration_from_wire;
use swarm_types::{Cluster, Node, NodeId, Timestamp, defaults};

use crate::issue::MIN_EXPIRY;
use crate::refusal::{Code, Refusal};

/// The share of its life that a certificate may have left before people are warned: an eighth. A
/// node renews between 50 and 80 % of the life and tries again at least every hour, so one that
/// has only this much left has failed many times.
const WARNING_SHARE: u32 = 8;
/// No certificate is warned about earlier than this before it ends, however long it lives.
const WARNING_MAX: Duration = Duration::from_secs(14 * 24 * 3600);

/// Why nobody becomes a manager beside the first one. A node that got a manager's certificate all
/// the same would wait for a group that does not take it in: it would be lost.
pub const NO_SECOND_MANAGER: &str = "a second manager cannot run yet";

/// Checks the role that a new node would get.
///
/// # Errors
/// `FailedPrecondition` for a manager, with what to use instead.
pub(crate) fn check_new_role(role: NodeRole) -> Result<(), Refusal> {
    match role {
        NodeRole::Worker => Ok(()),
        NodeRole::Manager => Err(Refusal::new(
            Code::FailedPrecondition,
            format!(
                "this join token admits managers, and {NO_SECOND_MANAGER}; join as a worker with \
                 the token of `swarmctl cluster join-token worker`"
            ),
        )),
    }
}

/// The role in the next certificate of a node that is not this manager's own. A node that is
/// promoted works on as a worker.
pub(crate) fn role_elsewhere() -> NodeRole {
    NodeRole::Worker
}

/// What to say about a node that is wanted as a manager and cannot become one, as a clause about
/// the node; `own` is the node of the manager that runs.
pub fn promoted(node: &Node, own: Option<&NodeId>) -> Option<String> {
    let is_wanted = node.spec.desired_role == NodeRole::Manager as i32;
    if !is_wanted || own == Some(&node.id) {
        return None;
    }
    let certificate = node.certificate.as_ref();
    let is_certified = certificate.is_some_and(|it| it.role == NodeRole::Manager as i32);
    let (waits, way_out) = if is_certified {
        (
            "waits in vain to be a manager",
            "; demoting it is the way out",
        )
    } else {
        ("works on as a worker", "")
    };
    Some(format!(
        "is promoted, and {waits}: {NO_SECOND_MANAGER}{way_out}"
    ))
}

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
