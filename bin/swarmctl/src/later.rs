//! What SwarmKit's `swarmctl` has and this one refuses for now, by name and with the way out.

use crate::failure::Failure;

pub(crate) const NO_NETWORKS: &str =
    "tasks use the network of their node; publish ports with --ports name:target:published";

/// Refuses all commands of a noun.
pub(crate) fn noun(name: &str, way_out: &str) -> Failure {
    Failure::refused(format!("`swarmctl {name}` is not implemented yet")).hint(way_out)
}

/// Refuses a flag.
pub(crate) fn flag(name: &str, way_out: &str) -> Failure {
    Failure::usage(format!("{name} is not implemented yet")).hint(way_out)
}
