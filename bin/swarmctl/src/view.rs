//! What `--format json` prints: the wire messages with their field names in snake case, enums by
//! name, times in RFC 3339, durations in nanoseconds.
//!
//! Owns which fields are shown. A field that is not here is not printed, so that a new secret in a
//! message does not leak. Fields are added, never renamed or removed.

mod objects;
mod payloads;
mod spec;

pub(crate) use objects::{ClusterView, NodeView, ServiceView, TaskView, WhyView};
pub(crate) use payloads::{ConfigView, SecretView};
pub(crate) use spec::{LogDriverView, PortView};

use std::collections::BTreeMap;

use serde::Serialize;
use swarm_api::{prost_types, v1};

/// Labels and the like.
pub(crate) type Map = BTreeMap<String, String>;

/// `Annotations`.
#[derive(Debug, Serialize)]
pub(crate) struct AnnotationsView {
    name: String,
    labels: Map,
}

impl AnnotationsView {
    fn of(wire: Option<&v1::Annotations>) -> Self {
        let wire = wire.cloned().unwrap_or_default();
        Self {
            name: wire.name,
            labels: wire.labels,
        }
    }
}

/// `Meta`.
#[derive(Debug, Serialize)]
pub(crate) struct MetaView {
    version: u64,
    created_at: Option<String>,
    updated_at: Option<String>,
}

impl MetaView {
    fn of(wire: Option<&v1::Meta>) -> Self {
        let wire = wire.cloned().unwrap_or_default();
        Self {
            version: wire.version.map_or(0, |version| version.index),
            created_at: time(wire.created_at.as_ref()),
            updated_at: time(wire.updated_at.as_ref()),
        }
    }
}

fn time(wire: Option<&prost_types::Timestamp>) -> Option<String> {
    crate::units::time(wire).map(|at| at.to_string())
}

/// Nanoseconds; `None` if absent or out of range.
fn nanos(wire: Option<&prost_types::Duration>) -> Option<i64> {
    let wire = wire?;
    let seconds = wire.seconds.checked_mul(1_000_000_000)?;
    seconds.checked_add(i64::from(wire.nanos))
}

/// The name of an enum number, or the number itself when it is from a newer manager.
pub(crate) fn enum_name<E: TryFrom<i32>>(number: i32, name: impl Fn(E) -> &'static str) -> String {
    E::try_from(number).map_or_else(|_| number.to_string(), |value| name(value).to_owned())
}

/// The name of a task state.
pub(crate) fn task_state(number: i32) -> String {
    enum_name(number, |state: v1::TaskState| state.as_str_name())
}

#[cfg(test)]
mod tests;
