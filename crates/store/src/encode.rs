//! Commits and whole stores as bytes, in SwarmKit's messages.

use std::sync::Arc;

use prost::Message;
use swarm_api::v1;
use swarm_types::convert::{self, ConvertError, Interner};
use swarm_types::{AnyObject, Kind, Timestamp};

use crate::error::StoreError;
use crate::root::Root;
use crate::transaction::{Action, Change, Commit};

/// Why bytes are not a commit or a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Not the message at all.
    #[error("not a protobuf message of this kind")]
    Protobuf(#[from] prost::DecodeError),
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

/// A commit as an `InternalRaftRequest` with the proposal's id.
pub fn encode_commit(id: u64, commit: &Commit) -> Vec<u8> {
    let action = commit
        .changes
        .iter()
        .map(|change| v1::StoreAction {
            action: match change.action {
                Action::Create => v1::StoreActionKind::StoreActionCreate as i32,
                Action::Update => v1::StoreActionKind::StoreActionUpdate as i32,
                Action::Remove => v1::StoreActionKind::StoreActionRemove as i32,
            },
            target: Some(match change.action {
                Action::Create | Action::Update => convert::to_target(&change.object),
                Action::Remove => only_id(&change.object),
            }),
        })
        .collect();
    v1::InternalRaftRequest { id, action }.encode_to_vec()
}

/// For a removal only the id counts.
fn only_id(object: &AnyObject) -> v1::store_action::Target {
    use v1::store_action::Target;
    let id = object.raw_id().to_string();
    match object.kind() {
        Kind::Node => Target::Node(v1::Node {
            id,
            ..Default::default()
        }),
        Kind::Service => Target::Service(v1::Service {
            id,
            ..Default::default()
        }),
        Kind::Task => Target::Task(v1::Task {
            id,
            ..Default::default()
        }),
        Kind::Network => Target::Network(v1::Network {
            id,
            ..Default::default()
        }),
        Kind::Cluster => Target::Cluster(v1::Cluster {
            id,
            ..Default::default()
        }),
        Kind::Secret => Target::Secret(v1::Secret {
            id,
            ..Default::default()
        }),
        Kind::Resource => Target::Resource(v1::Resource {
            id,
            ..Default::default()
        }),
        Kind::Extension => Target::Extension(v1::Extension {
            id,
            ..Default::default()
        }),
        Kind::Config => Target::Config(v1::Config {
            id,
            ..Default::default()
        }),
        Kind::Volume => Target::Volume(v1::Volume {
            id,
            ..Default::default()
        }),
    }
}

/// Reads what [`encode_commit`] wrote: the proposal's id and the commit, as it follows on `base`.
///
/// # Errors
/// [`DecodeError`]; the bytes come from the log, but a peer may have put them there.
pub fn decode_commit(
    bytes: &[u8],
    base: &Root,
    interner: &mut Interner,
) -> Result<(u64, Commit), DecodeError> {
    let request = v1::InternalRaftRequest::decode(bytes)?;
    let mut changes = Vec::with_capacity(request.action.len());
    let mut version = base.version().next();
    let mut at = Timestamp::EPOCH;
    for (index, wire) in request.action.into_iter().enumerate() {
        let number = wire.action;
        let action = match v1::StoreActionKind::try_from(number) {
            Ok(v1::StoreActionKind::StoreActionCreate) => Action::Create,
            Ok(v1::StoreActionKind::StoreActionUpdate) => Action::Update,
            Ok(v1::StoreActionKind::StoreActionRemove) => Action::Remove,
            Ok(v1::StoreActionKind::Unknown) | Err(_) => {
                return Err(DecodeError::Action { index, number });
            }
        };
        let target = wire.target.ok_or(ConvertError::NoTarget)?;
        let object = convert::from_target(target, interner)?;
        version = version.max(object.meta().version);
        at = at.max(object.meta().updated_at);
        let old = base.get_any(object.kind(), object.raw_id());
        changes.push(match (action, old) {
            (Action::Remove, Some(old)) => Change {
                action,
                object: old,
                old: None,
            },
            (action, old) => Change {
                action,
                object,
                old,
            },
        });
    }
    Ok((
        request.id,
        Commit {
            version,
            at,
            changes,
        },
    ))
}

/// About how many bytes an object takes in the log.
pub(crate) fn encoded_len(object: &AnyObject) -> usize {
    if let AnyObject::Task(task) = object {
        // Everything but the spec is small; exact enough to keep a transaction below its limit.
        let attachments: usize = task.networks.iter().map(Message::encoded_len).sum();
        return 512 + task.spec.encoded_len() + attachments;
    }
    v1::StoreAction {
        action: 0,
        target: Some(convert::to_target(object)),
    }
    .encoded_len()
}

/// The whole store as a `Snapshot` message with the membership of the Raft group.
pub fn write_snapshot(root: &Root, membership: v1::ClusterSnapshot) -> Vec<u8> {
    let store = v1::StoreSnapshot {
        nodes: root
            .all()
            .map(|object| convert::node_to_wire(object))
            .collect(),
        services: root
            .all()
            .map(|object| convert::service_to_wire(object))
            .collect(),
        networks: root
            .all()
            .map(|object| convert::network_to_wire(object))
            .collect(),
        tasks: root
            .all()
            .map(|object| convert::task_to_wire(object))
            .collect(),
        clusters: root
            .all()
            .map(|object| convert::cluster_to_wire(object))
            .collect(),
        secrets: root
            .all()
            .map(|object| convert::secret_to_wire(object))
            .collect(),
        resources: root
            .all()
            .map(|object| convert::resource_to_wire(object))
            .collect(),
        extensions: root
            .all()
            .map(|object| convert::extension_to_wire(object))
            .collect(),
        configs: root
            .all()
            .map(|object| convert::config_to_wire(object))
            .collect(),
        volumes: root
            .all()
            .map(|object| convert::volume_to_wire(object))
            .collect(),
    };
    v1::Snapshot {
        version: v1::snapshot::Version::V0 as i32,
        membership: Some(membership),
        store: Some(store),
    }
    .encode_to_vec()
}

/// Reads what [`write_snapshot`] wrote.
///
/// The version of the root is the highest of any object: a snapshot message has no field for it.
///
/// # Errors
/// [`DecodeError`] when bytes, format or objects are not those of a snapshot.
pub fn read_snapshot(bytes: &[u8]) -> Result<(Root, v1::ClusterSnapshot), DecodeError> {
    let snapshot = v1::Snapshot::decode(bytes)?;
    if snapshot.version != v1::snapshot::Version::V0 as i32 {
        return Err(DecodeError::SnapshotVersion(snapshot.version));
    }
    let store = snapshot.store.unwrap_or_default();
    let mut interner = Interner::new();
    let mut objects: Vec<AnyObject> = Vec::new();
    macro_rules! read {
        ($($field:ident: $read:path),* $(,)?) => {$(
            for wire in store.$field {
                objects.push($read(wire)?.into());
            }
        )*};
    }
    read! {
        nodes: convert::node_from_wire, services: convert::service_from_wire,
        networks: convert::network_from_wire, clusters: convert::cluster_from_wire,
        secrets: convert::secret_from_wire, resources: convert::resource_from_wire,
        extensions: convert::extension_from_wire, configs: convert::config_from_wire,
        volumes: convert::volume_from_wire,
    }
    for wire in store.tasks {
        objects.push(AnyObject::Task(Arc::new(convert::task_from_wire(
            wire,
            &mut interner,
        )?)));
    }
    let version = objects
        .iter()
        .map(|object| object.meta().version)
        .max()
        .unwrap_or_default();
    let changes = objects
        .into_iter()
        .map(|object| Change {
            action: Action::Create,
            object,
            old: None,
        })
        .collect();
    let commit = Commit {
        version,
        at: Timestamp::EPOCH,
        changes,
    };
    let mut root = Root::default().apply(&commit)?;
    root.version = version;
    Ok((root, snapshot.membership.unwrap_or_default()))
}
