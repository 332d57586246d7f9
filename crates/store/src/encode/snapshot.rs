//! The whole store as a `Snapshot` message.

use std::sync::Arc;

use prost::Message;
use swarm_api::v1;
use swarm_types::convert::{self, Interner};
use swarm_types::{
    AnyObject, Cluster, Config, Extension, Kind, Network, Node, Resource, Secret, Service, Task,
    Timestamp, Version, Volume,
};

use super::sink::Sink;
use super::{DecodeError, EXTENSION_VERSION, fields};
use crate::root::{Root, sealed};

/// Objects in one part of a snapshot: some hundred kilobytes.
const PART_OBJECTS: usize = 1_000;

/// The whole store as a `Snapshot` message with the membership of the Raft group.
///
/// A field of our own carries the version of the store, which objects do not tell when the newest
/// commit only deleted some; others skip it.
pub fn write_snapshot(root: &Root, membership: v1::ClusterSnapshot) -> Vec<u8> {
    let mut out = Vec::new();
    for part in snapshot_parts(root, membership) {
        out.extend_from_slice(&part);
    }
    out
}

/// The same message in parts of some hundred kilobytes, so that a large store need not be in memory
/// twice. The parts in their order are the message: protobuf lets a message field occur several
/// times and merges them.
pub fn snapshot_parts(
    root: &Root,
    membership: v1::ClusterSnapshot,
) -> impl Iterator<Item = Vec<u8>> {
    let mut head = Vec::new();
    head.number(1, v1::snapshot::Version::V0 as u64);
    head.message(2, &membership);
    head.number(EXTENSION_VERSION, root.version().0);
    let mut objects = objects(root);
    let parts = std::iter::from_fn(move || {
        let mut objects = objects.by_ref().take(PART_OBJECTS).peekable();
        objects.peek()?;
        let mut part = Vec::new();
        part.framed(3, |out| {
            for object in objects {
                super::write_object(field(object.kind()), &object, out);
            }
        });
        Some(part)
    });
    std::iter::once(head).chain(parts)
}

/// All objects, in the order of the fields.
fn objects(root: &Root) -> impl Iterator<Item = AnyObject> {
    fn of<O: sealed::Readable>(root: &Root) -> impl Iterator<Item = AnyObject> {
        O::all(root).map(|object| Arc::clone(object).into_any())
    }
    of::<Node>(root)
        .chain(of::<Service>(root))
        .chain(of::<Network>(root))
        .chain(of::<Task>(root))
        .chain(of::<Cluster>(root))
        .chain(of::<Secret>(root))
        .chain(of::<Resource>(root))
        .chain(of::<Extension>(root))
        .chain(of::<Config>(root))
        .chain(of::<Volume>(root))
}

/// The number of a kind's field in `StoreSnapshot`.
fn field(kind: Kind) -> u32 {
    match kind {
        Kind::Node => 1,
        Kind::Service => 2,
        Kind::Network => 3,
        Kind::Task => 4,
        Kind::Cluster => 5,
        Kind::Secret => 6,
        Kind::Resource => 7,
        Kind::Extension => 8,
        Kind::Config => 9,
        Kind::Volume => 10,
    }
}

/// Reads what [`write_snapshot`] wrote, or the `Snapshot` of another program: there the version of
/// the store is the highest of any object.
///
/// # Errors
/// [`DecodeError`] when bytes, format or objects are not those of a snapshot.
pub fn read_snapshot(bytes: &[u8]) -> Result<(Root, v1::ClusterSnapshot), DecodeError> {
    let mut membership = v1::ClusterSnapshot::default();
    let mut loading = Root::default().begin(Timestamp::EPOCH);
    let mut interner = Interner::new();
    let (mut own, mut highest) = (Version::default(), Version::default());
    let mut rest = bytes;
    while let Some((tag, value)) = fields::next(&mut rest)? {
        match (tag, value) {
            (1, fields::Value::Varint(number)) => check_format(number)?,
            (2, fields::Value::Bytes(bytes)) => membership.merge(bytes)?,
            (3, fields::Value::Bytes(mut store)) => {
                while let Some((tag, value)) = fields::next(&mut store)? {
                    let fields::Value::Bytes(bytes) = value else {
                        continue;
                    };
                    if let Some(object) = read_object(tag, bytes, &mut interner)? {
                        highest = highest.max(object.meta().version);
                        loading.load(object)?;
                    }
                }
            }
            (EXTENSION_VERSION, fields::Value::Varint(number)) => own = Version(number),
            // As protobuf wants it, a field that is not known is skipped.
            (_, fields::Value::Varint(_) | fields::Value::Bytes(_) | fields::Value::Other) => {}
        }
    }
    let mut root = loading.finish().0;
    root.version = own.max(highest);
    Ok((root, membership))
}

fn check_format(number: u64) -> Result<(), DecodeError> {
    if number == v1::snapshot::Version::V0 as u64 {
        return Ok(());
    }
    Err(DecodeError::SnapshotVersion(
        i32::try_from(number).unwrap_or(i32::MAX),
    ))
}

/// Reads one object of a `StoreSnapshot`; `None` for a field that is not known.
fn read_object(
    tag: u32,
    bytes: &[u8],
    interner: &mut Interner,
) -> Result<Option<AnyObject>, DecodeError> {
    Ok(Some(match tag {
        1 => convert::node_from_wire(v1::Node::decode(bytes)?)?.into(),
        2 => convert::service_from_wire(v1::Service::decode(bytes)?)?.into(),
        3 => convert::network_from_wire(v1::Network::decode(bytes)?)?.into(),
        4 => convert::task_from_wire(v1::Task::decode(bytes)?, interner)?.into(),
        5 => convert::cluster_from_wire(v1::Cluster::decode(bytes)?)?.into(),
        6 => convert::secret_from_wire(v1::Secret::decode(bytes)?)?.into(),
        7 => convert::resource_from_wire(v1::Resource::decode(bytes)?)?.into(),
        8 => convert::extension_from_wire(v1::Extension::decode(bytes)?)?.into(),
        9 => convert::config_from_wire(v1::Config::decode(bytes)?)?.into(),
        10 => convert::volume_from_wire(v1::Volume::decode(bytes)?)?.into(),
        _ => return Ok(None),
    }))
}
