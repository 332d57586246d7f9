//! Commits as `InternalRaftRequest` messages.

use std::collections::BTreeMap;

use prost::Message;
use swarm_api::v1;
use swarm_types::convert::{self, ConvertError, Interner};
use swarm_types::{AnyObject, Id, Kind, Timestamp, Version};

use super::sink::{Count, Sink};
use super::{DecodeError, EXTENSION_AT, EXTENSION_VERSION, TaskEncoder, fields};
use crate::root::Root;
use crate::transaction::{Action, Change, Commit};
use crate::write::TRANSACTION_BYTES_MAX;

/// A commit as an `InternalRaftRequest` with the proposal's id.
///
/// Two fields of our own carry the version and the time of the commit; others skip them.
pub fn encode_commit(id: u64, commit: &Commit) -> Vec<u8> {
    encode_changes(id, commit.version, commit.at, &commit.changes)
}

/// The same for a commit in the making.
pub(crate) fn encode_changes(
    id: u64,
    version: Version,
    at: Timestamp,
    changes: &[Change],
) -> Vec<u8> {
    let mut out = Vec::new();
    let mut tasks = TaskEncoder::default();
    out.number(1, id);
    for (index, change) in changes.iter().enumerate() {
        out.framed(2, |out| write_action(change, &mut tasks, out));
        if index == 0 {
            // Mostly the others are like the first one; what is wrong about that costs a copy.
            let guess = (out.len() + ENTRY_SLACK_BYTES) * (changes.len() - 1);
            out.reserve(guess.min(TRANSACTION_BYTES_MAX));
        }
    }
    out.number(EXTENSION_VERSION, version.0);
    out.signed(EXTENSION_AT, at.as_nanos());
    out
}

/// How many bytes a change takes in the log.
pub(crate) fn change_len(change: &Change) -> usize {
    match change.action {
        Action::Create | Action::Update => encoded_len(&change.object),
        Action::Remove => REMOVAL_BYTES_MAX,
    }
}

/// A removal has an id and some frames.
const REMOVAL_BYTES_MAX: usize = 192;

/// How much longer than the first change of a commit the others may be without a second look for
/// room.
const ENTRY_SLACK_BYTES: usize = 16;

fn write_action(change: &Change, tasks: &mut TaskEncoder, out: &mut Vec<u8>) {
    let action = match change.action {
        Action::Create => v1::StoreActionKind::StoreActionCreate,
        Action::Update => v1::StoreActionKind::StoreActionUpdate,
        Action::Remove => v1::StoreActionKind::StoreActionRemove,
    };
    out.number(1, action as u64);
    let object = &change.object;
    if change.action == Action::Remove {
        // Only the id counts.
        out.framed(target_tag(object.kind()), |out| {
            out.id(1, Some(object.raw_id()));
        });
    } else if let AnyObject::Task(task) = object {
        out.framed(target_tag(Kind::Task), |out| tasks.encode(task, out));
    } else {
        write_target(object, out);
    }
}

/// The number of a kind in the oneof of `StoreAction`.
fn target_tag(kind: Kind) -> u32 {
    match kind {
        Kind::Node => 2,
        Kind::Service => 3,
        Kind::Task => 4,
        Kind::Network => 5,
        Kind::Cluster => 6,
        Kind::Secret => 7,
        Kind::Resource => 8,
        Kind::Extension => 9,
        Kind::Config => 10,
        Kind::Volume => 11,
    }
}

fn write_target(object: &AnyObject, out: &mut impl Sink) {
    super::write_object(target_tag(object.kind()), object, out);
}

/// How many bytes the creation or update of an object takes in the log.
pub(crate) fn encoded_len(object: &AnyObject) -> usize {
    let mut count = Count::default();
    count.framed(2, |out| {
        out.number(1, v1::StoreActionKind::StoreActionUpdate as u64);
        write_target(object, out);
    });
    count.0
}

/// Reads what [`encode_commit`] wrote: the proposal's id and the commit, as it follows on `base`.
///
/// A request of another program has neither version nor time of its own; then the version is the
/// next one, or the highest that an object in it carries, and the time the latest of an object.
///
/// # Errors
/// [`DecodeError`]; the bytes come from the log, but a peer may have put them there.
pub fn decode_commit(
    bytes: &[u8],
    base: &Root,
    interner: &mut Interner,
) -> Result<(u64, Commit), DecodeError> {
    let mut reading = Reading {
        base,
        interner,
        written: BTreeMap::new(),
        changes: Vec::new(),
    };
    let (mut id, mut own_version, mut own_at) = (0, None, None);
    let mut rest = bytes;
    while let Some((tag, value)) = fields::next(&mut rest)? {
        match (tag, value) {
            (1, fields::Value::Varint(value)) => id = value,
            (2, fields::Value::Bytes(action)) => reading.action(action)?,
            (EXTENSION_VERSION, fields::Value::Varint(value)) => own_version = Some(Version(value)),
            (EXTENSION_AT, fields::Value::Varint(value)) => {
                own_at = Some(Timestamp::from_nanos(value.cast_signed()));
            }
            // As protobuf wants it, a field that is not known is skipped.
            (_, fields::Value::Varint(_) | fields::Value::Bytes(_) | fields::Value::Other) => {}
        }
    }
    let written = || {
        let changes = reading.changes.iter();
        changes.filter(|change| change.action != Action::Remove)
    };
    let version = written().map(|change| change.object.meta().version).max();
    let at = written()
        .map(|change| change.object.meta().updated_at)
        .max();
    let commit = Commit {
        version: own_version
            .or(version)
            .unwrap_or_default()
            .max(base.version().next()),
        at: own_at.or(at).unwrap_or_default(),
        changes: reading.changes,
    };
    Ok((id, commit))
}

struct Reading<'a> {
    base: &'a Root,
    interner: &'a mut Interner,
    /// What earlier actions of this commit left; `None` for a removed object.
    written: BTreeMap<(Kind, Id), Option<AnyObject>>,
    changes: Vec<Change>,
}

impl Reading<'_> {
    fn action(&mut self, bytes: &[u8]) -> Result<(), DecodeError> {
        let wire = v1::StoreAction::decode(bytes)?;
        let action = match v1::StoreActionKind::try_from(wire.action) {
            Ok(v1::StoreActionKind::StoreActionCreate) => Action::Create,
            Ok(v1::StoreActionKind::StoreActionUpdate) => Action::Update,
            Ok(v1::StoreActionKind::StoreActionRemove) => Action::Remove,
            Ok(v1::StoreActionKind::Unknown) | Err(_) => {
                return Err(DecodeError::Action {
                    index: self.changes.len(),
                    number: wire.action,
                });
            }
        };
        let target = wire.target.ok_or(ConvertError::NoTarget)?;
        let object = convert::from_target(target, self.interner)?;
        let key = (object.kind(), object.raw_id().clone());
        let old = match self.written.get(&key) {
            Some(earlier) => earlier.clone(),
            None => self.base.get_any(key.0, &key.1),
        };
        let after = (action != Action::Remove).then(|| object.clone());
        self.written.insert(key, after);
        self.changes.push(match (action, old) {
            (Action::Remove, Some(object)) => Change {
                action,
                object,
                old: None,
            },
            (Action::Update, old) => Change {
                action,
                object,
                old,
            },
            // A removal of what is not there keeps the stub: applying it will refuse.
            (Action::Create, _) | (Action::Remove, None) => Change {
                action,
                object,
                old: None,
            },
        });
        Ok(())
    }
}
