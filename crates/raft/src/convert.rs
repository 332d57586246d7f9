//! Between the wire's `raftpb` and the library's own message types.
//!
//! Owns the field-by-field copies and the two meanings of conf change number 2. Judges nothing:
//! what comes from a peer has passed [`crate::checks`] before it gets here.

use bytes::Bytes;
use prost::Message as _;
use raft::eraftpb;
use swarm_api::raftpb;

use crate::log::{Entry, EntryKind, HardState, Position};
use crate::snapshot::SnapshotMeta;

/// A library message as it goes on the wire.
///
/// Scalars are present even when zero, and bytes only when there are some, as etcd encodes them.
/// Priority, commit term and snapshot request stay behind: etcd has other fields there.
pub(crate) fn message_out(message: eraftpb::Message) -> raftpb::Message {
    let snapshot = message.snapshot.into_option().map(snapshot_out);
    raftpb::Message {
        r#type: Some(message.msg_type as i32),
        to: Some(message.to),
        from: Some(message.from),
        term: Some(message.term),
        log_term: Some(message.log_term),
        index: Some(message.index),
        entries: message.entries.into_iter().map(entry_out).collect(),
        commit: Some(message.commit),
        snapshot,
        reject: Some(message.reject),
        reject_hint: Some(message.reject_hint),
        context: some_bytes(message.context),
        vote: Some(0),
        responses: Vec::new(),
    }
}

/// A checked wire message as the library takes it.
pub(crate) fn message_in(message: raftpb::Message, kind: eraftpb::MessageType) -> eraftpb::Message {
    let mut out = eraftpb::Message::default();
    out.set_msg_type(kind);
    out.to = message.to();
    out.from = message.from();
    out.term = message.term();
    out.log_term = message.log_term();
    out.index = message.index();
    out.commit = message.commit();
    out.reject = message.reject();
    out.reject_hint = message.reject_hint();
    out.context = message.context.unwrap_or_default();
    out.entries = message
        .entries
        .into_iter()
        .map(entry_in)
        .collect::<Vec<_>>()
        .into();
    if let Some(snapshot) = message.snapshot {
        out.set_snapshot(snapshot_in(snapshot));
    }
    out
}

fn some_bytes(bytes: Bytes) -> Option<Bytes> {
    (!bytes.is_empty()).then_some(bytes)
}

fn entry_out(entry: eraftpb::Entry) -> raftpb::Entry {
    raftpb::Entry {
        r#type: Some(entry.entry_type as i32),
        term: Some(entry.term),
        index: Some(entry.index),
        data: some_bytes(entry.data),
    }
}

fn entry_in(entry: raftpb::Entry) -> eraftpb::Entry {
    let kind = match entry.r#type() {
        raftpb::EntryType::EntryNormal => EntryKind::Normal,
        raftpb::EntryType::EntryConfChange | raftpb::EntryType::EntryConfChangeV2 => {
            EntryKind::ConfChange
        }
    };
    let at = Position {
        index: entry.index(),
        term: entry.term(),
    };
    entry_to_library(Entry {
        at,
        kind,
        data: entry.data.unwrap_or_default(),
    })
}

/// Our entry as the library keeps it. The data is shared, not copied.
pub(crate) fn entry_to_library(entry: Entry) -> eraftpb::Entry {
    let mut out = eraftpb::Entry::default();
    out.set_entry_type(match entry.kind {
        EntryKind::Normal => eraftpb::EntryType::EntryNormal,
        EntryKind::ConfChange => eraftpb::EntryType::EntryConfChange,
    });
    (out.index, out.term, out.data) = (entry.at.index, entry.at.term, entry.data);
    out
}

/// A library entry as we persist it.
pub(crate) fn entry_from_library(entry: &eraftpb::Entry) -> Entry {
    let kind = match entry.entry_type {
        eraftpb::EntryType::EntryNormal => EntryKind::Normal,
        eraftpb::EntryType::EntryConfChange | eraftpb::EntryType::EntryConfChangeV2 => {
            EntryKind::ConfChange
        }
    };
    let at = Position {
        index: entry.index,
        term: entry.term,
    };
    Entry {
        at,
        kind,
        data: entry.data.clone(),
    }
}

pub(crate) fn hard_state_to_library(state: HardState) -> eraftpb::HardState {
    let mut out = eraftpb::HardState::default();
    (out.term, out.vote, out.commit) = (state.term, state.vote, state.commit);
    out
}

pub(crate) fn hard_state_from_library(state: &eraftpb::HardState) -> HardState {
    HardState {
        term: state.term,
        vote: state.vote,
        commit: state.commit,
    }
}

fn snapshot_out(snapshot: eraftpb::Snapshot) -> raftpb::Snapshot {
    let metadata = snapshot.get_metadata();
    raftpb::Snapshot {
        data: some_bytes(snapshot.data.clone()),
        metadata: Some(raftpb::SnapshotMetadata {
            conf_state: Some(conf_state_out(metadata.get_conf_state())),
            index: Some(metadata.index),
            term: Some(metadata.term),
        }),
    }
}

fn snapshot_in(snapshot: raftpb::Snapshot) -> eraftpb::Snapshot {
    let metadata = snapshot.metadata.unwrap_or_default();
    let at = Position {
        index: metadata.index(),
        term: metadata.term(),
    };
    let conf_state = conf_state_in(&metadata.conf_state.unwrap_or_default());
    let mut out = eraftpb::Snapshot::default();
    out.set_metadata(snapshot_metadata(at, conf_state));
    out.data = snapshot.data.unwrap_or_default();
    out
}

/// The library's snapshot metadata from its parts.
pub(crate) fn snapshot_metadata(
    at: Position,
    conf_state: eraftpb::ConfState,
) -> eraftpb::SnapshotMetadata {
    let mut out = eraftpb::SnapshotMetadata::default();
    (out.index, out.term) = (at.index, at.term);
    out.set_conf_state(conf_state);
    out
}

/// What the snapshot file says about a snapshot that the library handed over.
pub(crate) fn snapshot_meta(snapshot: &eraftpb::Snapshot) -> SnapshotMeta {
    let metadata = snapshot.get_metadata();
    SnapshotMeta {
        at: Position {
            index: metadata.index,
            term: metadata.term,
        },
        membership: conf_state_out(metadata.get_conf_state()).encode_to_vec(),
    }
}

pub(crate) fn conf_state_out(state: &eraftpb::ConfState) -> raftpb::ConfState {
    raftpb::ConfState {
        voters: state.voters.clone(),
        learners: state.learners.clone(),
        voters_outgoing: state.voters_outgoing.clone(),
        learners_next: state.learners_next.clone(),
        auto_leave: Some(state.auto_leave),
    }
}

pub(crate) fn conf_state_in(state: &raftpb::ConfState) -> eraftpb::ConfState {
    let mut out = eraftpb::ConfState::default();
    out.voters.clone_from(&state.voters);
    out.learners.clone_from(&state.learners);
    out.voters_outgoing.clone_from(&state.voters_outgoing);
    out.learners_next.clone_from(&state.learners_next);
    out.auto_leave = state.auto_leave();
    out
}

/// The library's view of a membership change; `None` when it changes no vote.
///
/// Number 2 is "update node" for etcd and SwarmKit (an address change) and "add learner" for the
/// library. Taken literally it would demote a voter.
pub(crate) fn conf_change_in(change: &raftpb::ConfChange) -> Option<eraftpb::ConfChange> {
    let kind = match change.r#type() {
        raftpb::ConfChangeType::AddNode => eraftpb::ConfChangeType::AddNode,
        raftpb::ConfChangeType::RemoveNode => eraftpb::ConfChangeType::RemoveNode,
        raftpb::ConfChangeType::AddLearnerNode => eraftpb::ConfChangeType::AddLearnerNode,
        raftpb::ConfChangeType::UpdateNode => return None,
    };
    let mut out = eraftpb::ConfChange::default();
    out.set_change_type(kind);
    out.node_id = change.node_id();
    (out.node_id != 0).then_some(out)
}

/// Reads a membership change that stands in an entry; `None` when it cannot be one.
pub(crate) fn decode_conf_change(data: &[u8]) -> Option<raftpb::ConfChange> {
    let change = raftpb::ConfChange::decode(data).ok()?;
    let known = raftpb::ConfChangeType::try_from(change.r#type.unwrap_or_default()).is_ok();
    (known && change.node_id() != 0).then_some(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(kind: raftpb::ConfChangeType) -> raftpb::ConfChange {
        let mut change = raftpb::ConfChange {
            node_id: Some(5),
            ..Default::default()
        };
        change.set_type(kind);
        change
    }

    #[test]
    fn an_address_change_is_not_a_demotion() {
        use raftpb::ConfChangeType as Wire;
        let library = |kind| conf_change_in(&change(kind)).map(|change| change.change_type);
        assert_eq!(
            library(Wire::AddNode),
            Some(eraftpb::ConfChangeType::AddNode)
        );
        assert_eq!(
            library(Wire::RemoveNode),
            Some(eraftpb::ConfChangeType::RemoveNode)
        );
        assert_eq!(library(Wire::UpdateNode), None);
        assert_eq!(
            library(Wire::AddLearnerNode),
            Some(eraftpb::ConfChangeType::AddLearnerNode)
        );
    }

    #[test]
    fn conf_changes_of_unknown_kind_or_for_nobody_do_not_decode() {
        let good = change(raftpb::ConfChangeType::UpdateNode);
        assert_eq!(
            decode_conf_change(&good.encode_to_vec()),
            Some(good.clone())
        );
        let unknown = raftpb::ConfChange {
            r#type: Some(4),
            ..good.clone()
        };
        assert_eq!(decode_conf_change(&unknown.encode_to_vec()), None);
        let nobody = raftpb::ConfChange {
            node_id: None,
            ..good
        };
        assert_eq!(decode_conf_change(&nobody.encode_to_vec()), None);
        assert_eq!(decode_conf_change(&[0xFF]), None);
    }

    #[test]
    fn messages_survive_the_way_there_and_back() {
        let wire = raftpb::Message {
            r#type: Some(3),
            to: Some(1),
            from: Some(2),
            term: Some(4),
            log_term: Some(3),
            index: Some(8),
            entries: vec![raftpb::Entry {
                r#type: Some(1),
                term: Some(4),
                index: Some(9),
                data: Some(Bytes::from_static(b"x")),
            }],
            commit: Some(7),
            snapshot: Some(raftpb::Snapshot {
                data: Some(Bytes::from_static(b"s")),
                metadata: Some(raftpb::SnapshotMetadata {
                    conf_state: Some(raftpb::ConfState {
                        voters: vec![1, 2],
                        learners: vec![3],
                        auto_leave: Some(false),
                        ..Default::default()
                    }),
                    index: Some(6),
                    term: Some(2),
                }),
            }),
            reject: Some(true),
            reject_hint: Some(5),
            context: Some(Bytes::from_static(b"c")),
            vote: Some(0),
            responses: Vec::new(),
        };
        let library = message_in(wire.clone(), eraftpb::MessageType::MsgAppend);
        assert_eq!(library.priority, 0);
        assert_eq!(message_out(library), wire);
    }
}
