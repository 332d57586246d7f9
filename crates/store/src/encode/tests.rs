use std::sync::Arc;

use proptest::prelude::*;
use prost::Message;
use swarm_api::v1;
use swarm_types::convert::{self, Interner};
use swarm_types::{Kind, Service, ServiceId, Task, Timestamp, Version};

use super::*;
use crate::tests::world::{
    Dice, IDS, NOW, assert_same, assert_same_tables, crowd, id, named, node, object, service,
    unshared_tasks,
};
use crate::{Action, Change, Commit, Root};

fn arbitrary_object() -> impl Strategy<Value = AnyObject> {
    let kind = prop::sample::select(swarm_types::kind::ALL.to_vec());
    (kind, 0..IDS.len(), any::<u64>())
        .prop_map(|(kind, place, seed)| object(kind, id(IDS[place]), Dice(seed)))
}

/// The bytes of a commit by way of the messages, without our own fields.
fn by_messages(id: u64, commit: &Commit) -> Vec<u8> {
    let action = commit
        .changes
        .iter()
        .map(|change| v1::StoreAction {
            action: match change.action {
                Action::Create => 1,
                Action::Update => 2,
                Action::Remove => 3,
            },
            target: Some(convert::to_target(&change.object)),
        })
        .collect();
    v1::InternalRaftRequest { id, action }.encode_to_vec()
}

proptest! {
    #[test]
    fn a_task_is_written_as_its_message_would_be(seed in any::<u64>(), place in 0..IDS.len()) {
        let AnyObject::Task(task) = object(Kind::Task, id(IDS[place]), Dice(seed)) else {
            unreachable!("asked for a task");
        };
        let expected = convert::task_to_wire(&task).encode_to_vec();
        let mut written = b"before".to_vec();
        TaskEncoder::default().encode(&task, &mut written);
        prop_assert_eq!(&written[6..], &expected[..]);
    }

    #[test]
    fn tasks_one_after_the_other_are_written_as_each_alone_would_be(
        seeds in prop::collection::vec(0..4u64, 1..8)
    ) {
        let of_seed = |seed| {
            let AnyObject::Task(task) = object(Kind::Task, id(IDS[0]), Dice(seed)) else {
                unreachable!("asked for a task");
            };
            task
        };
        let tasks: Vec<Arc<Task>> = (0..4).map(of_seed).collect();
        let mut encoder = TaskEncoder::default();
        for seed in seeds {
            let task = &tasks[usize::try_from(seed).unwrap()];
            let (mut written, mut alone) = (Vec::new(), Vec::new());
            encoder.encode(task, &mut written);
            TaskEncoder::default().encode(task, &mut alone);
            prop_assert_eq!(written, alone);
        }
    }

    #[test]
    fn a_commit_is_written_as_its_message_would_be(
        objects in prop::collection::vec(arbitrary_object(), 0..8), proposal in any::<u64>()
    ) {
        let commit = Commit {
            version: Version(3),
            at: NOW,
            changes: objects
                .into_iter()
                .map(|object| Change { action: Action::Update, object, old: None })
                .collect(),
        };
        let written = encode_commit(proposal, &commit);
        let expected = by_messages(proposal, &commit);
        prop_assert_eq!(&written[..expected.len()], &expected[..]);
        // What follows are our own fields, which another program skips.
        let other = v1::InternalRaftRequest::decode(&written[..]).unwrap();
        prop_assert_eq!(other.encode_to_vec(), expected);
        let len: usize = commit.changes.iter().map(|change| encoded_len(&change.object)).sum();
        prop_assert_eq!(len, by_messages(0, &commit).len());
    }

    #[test]
    fn a_replica_that_reads_the_commit_has_the_root_of_the_leader(
        seeds in prop::collection::vec(any::<u64>(), 1..6),
        writes in prop::collection::vec((0..IDS.len(), any::<u64>(), 0..3u8), 1..20),
    ) {
        let base = crowd(&seeds);
        let mut tx = base.begin(NOW.saturating_add(std::time::Duration::from_secs(1)));
        for (place, seed, what) in writes {
            let kind = swarm_types::kind::ALL[usize::try_from(seed % 10).unwrap()];
            let object = object(kind, id(IDS[place]), Dice(seed / 10));
            // What does not fit is refused; the rest is the commit.
            match what {
                0 => drop(tx.create(object)),
                1 => drop(tx.delete(kind, object.raw_id())),
                _ => {
                    drop(tx.delete(kind, object.raw_id()));
                    drop(tx.create(object));
                }
            }
        }
        let (leader, commit) = tx.finish();
        let bytes = encode_commit(7, &commit);
        let (proposal, read) = decode_commit(&bytes, &base, &mut Interner::new()).unwrap();
        prop_assert_eq!(proposal, 7);
        prop_assert_eq!(&read, &commit);
        assert_same(&base.apply(&read).unwrap(), &leader);
    }

    #[test]
    fn a_snapshot_round_trips(seeds in prop::collection::vec(any::<u64>(), 0..12)) {
        let root = crowd(&seeds);
        let removed = vec![1, 0, u64::MAX];
        let membership = v1::ClusterSnapshot { removed, ..Default::default() };
        let bytes = write_snapshot(&root, membership.clone());
        let (read, members) = read_snapshot(&bytes).unwrap();
        assert_same(&read, &root);
        prop_assert_eq!(members, membership);
        // Another program reads the same from it.
        let message = v1::Snapshot::decode(&bytes[..]).unwrap();
        let (read, _) = read_snapshot(&message.encode_to_vec()).unwrap();
        assert_same_tables(&read, &root);
    }

    #[test]
    fn hostile_bytes_are_refused_or_read_but_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        seeds in prop::collection::vec(any::<u64>(), 1..3),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let root = crowd(&seeds);
        let snapshot = write_snapshot(&root, v1::ClusterSnapshot::default());
        let mut tx = Root::default().begin(NOW);
        tx.create(service(id("s"), "web")).unwrap();
        tx.create(object(Kind::Task, id(IDS[0]), Dice(seeds[0]))).unwrap();
        let commit = encode_commit(1, &tx.finish().1);
        for mut input in [bytes, snapshot, commit] {
            for (place, value) in &flips {
                if !input.is_empty() {
                    let place = place.index(input.len());
                    input[place] = *value;
                }
            }
            input.truncate(cut.index(input.len() + 1));
            drop(read_snapshot(&input));
            if let Ok((_, commit)) = decode_commit(&input, &root, &mut Interner::new()) {
                drop(root.apply(&commit));
            }
        }
    }
}

#[test]
fn a_snapshot_keeps_the_version_of_a_commit_that_only_deleted() {
    let mut tx = crowd(&[1, 2]).begin(NOW);
    tx.create(node(id("n"), "")).unwrap();
    let mut tx = tx.finish().0.begin(NOW);
    tx.delete(Kind::Node, &id("n")).unwrap();
    let root = tx.finish().0;
    assert_eq!(root.version(), Version(3));
    let (read, _) = read_snapshot(&write_snapshot(&root, Default::default())).unwrap();
    assert_same(&read, &root);
}

#[test]
fn a_snapshot_of_another_program_has_the_highest_version_of_an_object() {
    let store = v1::StoreSnapshot {
        secrets: [3, 9, 4]
            .iter()
            .map(|index| v1::Secret {
                id: format!("s{index}"),
                meta: Some(v1::Meta {
                    version: Some(v1::Version { index: *index }),
                    ..Default::default()
                }),
                spec: Some(v1::SecretSpec {
                    annotations: Some(named(&format!("name{index}"))),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    let bytes = v1::Snapshot {
        version: 0,
        membership: None,
        store: Some(store),
    }
    .encode_to_vec();
    let (root, membership) = read_snapshot(&bytes).unwrap();
    assert_eq!(root.version(), Version(9));
    assert_eq!(root.count::<swarm_types::Secret>(), 3);
    assert_eq!(membership, v1::ClusterSnapshot::default());
}

#[test]
fn a_request_of_another_program_follows_on_the_base() {
    let mut tx = Root::default().begin(NOW);
    tx.create(node(id("n"), "")).unwrap();
    let (base, commit) = tx.finish();
    let read = |commit: &Commit, base: &Root| {
        let bytes = by_messages(5, commit);
        decode_commit(&bytes, base, &mut Interner::new()).unwrap().1
    };
    // Objects tell version and time.
    assert_eq!(read(&commit, &Root::default()), commit);
    // A deletion tells neither.
    let mut tx = base.begin(NOW);
    tx.delete(Kind::Node, &id("n")).unwrap();
    let read = read(&tx.finish().1, &base);
    assert_eq!((read.version, read.at), (Version(2), Timestamp::EPOCH));
}

#[test]
fn a_deletion_keeps_the_time_of_its_commit() {
    let mut tx = Root::default().begin(Timestamp::EPOCH);
    tx.create(node(id("n"), "")).unwrap();
    let base = tx.finish().0;
    for at in [NOW, Timestamp::from_nanos(-5), Timestamp::EPOCH] {
        let mut tx = base.begin(at);
        tx.delete(Kind::Node, &id("n")).unwrap();
        let commit = tx.finish().1;
        let bytes = encode_commit(1, &commit);
        let (_, read) = decode_commit(&bytes, &base, &mut Interner::new()).unwrap();
        assert_eq!(read, commit);
    }
}

#[test]
fn two_changes_of_one_object_in_a_commit_know_each_other() {
    let mut tx = Root::default().begin(NOW);
    tx.create(service(id("s"), "web")).unwrap();
    let mut again: Service = (**tx.service(&id("s").into()).unwrap()).clone();
    again.pending_delete = true;
    tx.update(again).unwrap();
    tx.delete(Kind::Service, &id("s")).unwrap();
    tx.create(service(id("s"), "web")).unwrap();
    let (leader, commit) = tx.finish();
    let bytes = encode_commit(1, &commit);
    let (_, read) = decode_commit(&bytes, &Root::default(), &mut Interner::new()).unwrap();
    assert_eq!(read, commit);
    assert_same(&Root::default().apply(&read).unwrap(), &leader);
}

#[test]
fn tasks_of_one_service_share_their_spec_after_a_snapshot() {
    let service = ServiceId::new(id("s"));
    let mut tx = Root::default().begin(NOW);
    for task in unshared_tasks(&service, 1_000) {
        tx.create(task).unwrap();
    }
    let bytes = write_snapshot(&tx.finish().0, Default::default());
    let (root, _) = read_snapshot(&bytes).unwrap();
    assert_shared(&root, 1_000);
}

#[test]
fn tasks_of_one_service_share_their_spec_across_log_entries() {
    let service = ServiceId::new(id("s"));
    let mut interner = Interner::new();
    let mut root = Root::default();
    for task in unshared_tasks(&service, 20) {
        let mut tx = root.begin(NOW);
        tx.create(task).unwrap();
        let bytes = encode_commit(1, &tx.finish().1);
        let (_, commit) = decode_commit(&bytes, &root, &mut interner).unwrap();
        root = root.apply(&commit).unwrap();
    }
    assert_shared(&root, 20);
}

fn assert_shared(root: &Root, count: usize) {
    let first = root.all::<Task>().next().unwrap();
    assert_eq!(first.spec.force_update, 3);
    let sharing = root.all::<Task>().filter(|task| {
        Arc::ptr_eq(&task.spec, &first.spec)
            && Arc::ptr_eq(&task.service_annotations, &first.service_annotations)
    });
    assert_eq!(sharing.count(), count);
}

#[test]
fn the_parts_of_a_large_snapshot_are_the_message() {
    let service = ServiceId::new(id("s"));
    let mut tx = Root::default().begin(NOW);
    for task in unshared_tasks(&service, 2_001) {
        tx.create(task).unwrap();
    }
    let root = tx.finish().0;
    let parts: Vec<_> = snapshot_parts(&root, Default::default()).collect();
    assert_eq!(parts.len(), 1 + 3);
    assert_eq!(parts.concat(), write_snapshot(&root, Default::default()));
    assert_same(&read_snapshot(&parts.concat()).unwrap().0, &root);
}

#[test]
fn refusals_name_what_is_wrong() {
    let refusal = |bytes: &[u8]| read_snapshot(bytes).unwrap_err().to_string();
    assert_eq!(
        refusal(&[8, 1]),
        "the snapshot has the unknown format version 1"
    );
    assert_eq!(
        refusal(&[26, 5, 0]),
        "field 3 wants 5 bytes where 1 are left"
    );
    assert_eq!(refusal(&[0xff]), "not a protobuf message of this kind");
    let twice = v1::StoreSnapshot {
        nodes: vec![convert::node_to_wire(&node(id("n"), "")); 2],
        ..Default::default()
    };
    let mut bytes = Vec::new();
    prost::encoding::message::encode(3, &twice, &mut bytes);
    assert_eq!(
        refusal(&bytes),
        "the objects of the snapshot contradict each other"
    );
    let commit = |action, target| {
        let action = vec![v1::StoreAction { action, target }];
        let bytes = v1::InternalRaftRequest { id: 1, action }.encode_to_vec();
        decode_commit(&bytes, &Root::default(), &mut Interner::new()).unwrap_err()
    };
    let node = convert::to_target(&node(id("n"), "").into());
    assert_eq!(
        commit(4, Some(node.clone())),
        DecodeError::Action {
            index: 0,
            number: 4
        }
    );
    assert_eq!(
        commit(0, Some(node)),
        DecodeError::Action {
            index: 0,
            number: 0
        }
    );
    assert_eq!(commit(1, None), DecodeError::Object(ConvertError::NoTarget));
}

#[test]
fn frames_of_every_length_are_what_protobuf_writes() {
    // Both sides of each step in the length of a length.
    for length in [
        0, 1, 125, 126, 127, 128, 16_380, 16_381, 16_382, 16_383, 16_384, 70_000,
    ] {
        let message = v1::Annotations {
            name: "x".repeat(length),
            ..Default::default()
        };
        let mut expected = Vec::new();
        prost::encoding::message::encode(9, &message, &mut expected);
        let mut framed = Vec::new();
        framed.framed(9, |out| out.text(1, &message.name));
        assert_eq!(framed, expected, "{length}");
        let mut count = sink::Count::default();
        count.framed(9, |out| out.text(1, &message.name));
        assert_eq!(count.0, expected.len(), "{length}");
    }
}
