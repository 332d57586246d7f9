//! What of a spec the manager takes, and which is probably not what was meant. Said on stderr, and
//! the command goes on.

use swarm_api::v1;
use swarm_types::constraint::Constraint;
use swarm_types::spec;

use crate::output::note;

/// Says them.
pub(super) fn tell(spec: &v1::ServiceSpec) {
    for doubt in doubts(spec) {
        note(&format!("warning: {doubt}"));
    }
}

fn doubts(spec: &v1::ServiceSpec) -> Vec<String> {
    let Some(task) = &spec.task else {
        return Vec::new();
    };
    let mut doubts = above_limits(task);
    // One that does not parse is refused by the manager.
    let constraints = Constraint::parse_all(spec::constraints(task)).unwrap_or_default();
    for constraint in &constraints {
        if let Some(meant) = constraint.meant() {
            doubts.push(format!(
                "constraint {constraint}: there is no key {}, so no node can match; did you mean \
                 {meant}?",
                constraint.key()
            ));
        }
    }
    doubts
}

/// Reservations of which a task can use only a part.
fn above_limits(task: &v1::TaskSpec) -> Vec<String> {
    let resources = task.resources.clone().unwrap_or_default();
    let limits = resources.limits.unwrap_or_default();
    let reserved = resources.reservations.unwrap_or_default();
    let above = |what: &str, unit: &str, reserved: i64, limit: i64| {
        (limit > 0 && reserved > limit).then(|| {
            format!(
                "the {what} reservation of {reserved} {unit} is above the limit of {limit} {unit}: \
                 nodes set aside what the tasks can never use; reserve less, or raise the limit"
            )
        })
    };
    let memory = above(
        "memory",
        "bytes",
        reserved.memory_bytes,
        limits.memory_bytes,
    );
    let cpus = above(
        "CPU",
        "billionths of a CPU",
        reserved.nano_cpus,
        limits.nano_cpus,
    );
    memory.into_iter().chain(cpus).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(reserved: (i64, i64), limits: (i64, i64), constraint: &str) -> v1::ServiceSpec {
        let resources = |(memory_bytes, nano_cpus)| v1::Resources {
            memory_bytes,
            nano_cpus,
            ..Default::default()
        };
        v1::ServiceSpec {
            task: Some(v1::TaskSpec {
                resources: Some(v1::ResourceRequirements {
                    reservations: Some(resources(reserved)),
                    limits: Some(resources(limits)),
                    ..Default::default()
                }),
                placement: Some(v1::Placement {
                    constraints: vec![constraint.to_owned()],
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn a_reservation_above_its_limit_is_doubted() {
        let fine = "node.labels.rack==a";
        for (reserved, limits, told) in [
            (
                (5, 0),
                (4, 0),
                Some("memory reservation of 5 bytes is above the limit of 4 bytes"),
            ),
            ((0, 5), (0, 4), Some("CPU reservation of 5 billionths")),
            ((4, 4), (4, 4), None),
            ((5, 5), (0, 0), None),
        ] {
            let told_now = doubts(&spec(reserved, limits, fine));
            match told {
                Some(part) => assert!(told_now[0].contains(part), "{told_now:?}"),
                None => assert_eq!(told_now, [""; 0]),
            }
        }
    }

    #[test]
    fn a_constraint_that_no_node_can_match_is_doubted() {
        assert_eq!(
            doubts(&spec((0, 0), (0, 0), "node.label.rack == a")),
            [
                "constraint node.label.rack == a: there is no key node.label.rack, so no node can \
                 match; did you mean node.labels.rack?"
            ]
        );
    }
}
