//! Commits and whole stores as bytes, in SwarmKit's messages.

mod commit;
mod fields;
mod sink;
mod snapshot;
mod task;
#[cfg(test)]
mod tests;

use swarm_types::AnyObject;
use swarm_types::convert::{self, ConvertError};

use crate::error::StoreError;
use sink::Sink;

pub(crate) use commit::{change_len, encode_changes, encoded_len};
pub use commit::{decode_commit, encode_commit};
pub use snapshot::{read_snapshot, snapshot_parts, write_snapshot};
pub use task::TaskEncoder;

/// The field of our own with the version of the store, in a `Snapshot` and in an
/// `InternalRaftRequest`. Far above the numbers that SwarmKit uses; a program that does not know it
/// skips it.
const EXTENSION_VERSION: u32 = 15_000;
/// The field of our own with the time of a commit, in nanoseconds since the Unix epoch, in an
/// `InternalRaftRequest`: the leader's clock, which objects do not tell when they are gone.
const EXTENSION_AT: u32 = 15_001;

/// Why bytes are not a commit or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the message at all.
    #[error("not a protobuf message of this kind")]
    Protobuf(#[from] prost::DecodeError),
    /// A field is longer than what is left.
    #[error("field {field} wants {wanted} bytes where {there} are left")]
    Truncated {
        /// The number of the field.
        field: u32,
        /// The length that it gives.
        wanted: u64,
        /// What is there.
        there: usize,
    },
    /// An object in it is malformed.
    #[error("an object in it is malformed")]
    Object(#[from] ConvertError),
    /// An action has an unknown number.
    #[error("store action {index} has the unknown kind {number}")]
    Action {
        /// Which action.
        index: usize,
        /// The number seen.
        number: i32,
    },
    /// The snapshot has a format that is not ours.
    #[error("the snapshot has the unknown format version {0}")]
    SnapshotVersion(i32),
    /// The objects of a snapshot contradict each other.
    #[error("the objects of the snapshot contradict each other")]
    Store(#[from] StoreError),
}

/// Writes an object as a message field: tasks from their parts, the others, which are few, through
/// their wire form.
fn write_object(tag: u32, object: &AnyObject, out: &mut impl Sink) {
    match object {
        AnyObject::Task(object) => out.framed(tag, |out| task::write(object, out)),
        AnyObject::Node(object) => out.message(tag, &convert::node_to_wire(object)),
        AnyObject::Service(object) => out.message(tag, &convert::service_to_wire(object)),
        AnyObject::Network(object) => out.message(tag, &convert::network_to_wire(object)),
        AnyObject::Cluster(object) => out.message(tag, &convert::cluster_to_wire(object)),
        AnyObject::Secret(object) => out.message(tag, &convert::secret_to_wire(object)),
        AnyObject::Resource(object) => out.message(tag, &convert::resource_to_wire(object)),
        AnyObject::Extension(object) => out.message(tag, &convert::extension_to_wire(object)),
        AnyObject::Config(object) => out.message(tag, &convert::config_to_wire(object)),
        AnyObject::Volume(object) => out.message(tag, &convert::volume_to_wire(object)),
    }
}
