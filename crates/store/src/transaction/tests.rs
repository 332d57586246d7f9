use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{NodeId, Secret, ServiceId, TaskId, TaskState, TaskStatus};

use super::*;
use crate::tests::world::{NOW, assert_same, assert_same_tables, id, named, node, service, task};

fn with<T: Into<AnyObject> + Clone>(objects: &[T]) -> Root {
    let mut tx = Root::default().begin(NOW);
    for object in objects {
        tx.create(object.clone()).unwrap();
    }
    tx.finish().0
}

fn extension(name: &str) -> Extension {
    Extension::new(id(&format!("id-{name}")).into(), named(name))
}

#[test]
fn names_are_unique_without_regard_to_case_within_a_kind() {
    let root = with(&[service(id("a"), "Web"), service(id("b"), "db")]);
    let mut tx = root.begin(NOW);
    let conflict = |name: &str| StoreError::NameConflict {
        kind: Kind::Service,
        name: name.to_owned(),
    };
    assert_eq!(tx.create(service(id("c"), "wEB")), Err(conflict("wEB")));
    // Another kind may have the name.
    let secret = v1::SecretSpec {
        annotations: Some(named("web")),
        ..Default::default()
    };
    tx.create(Secret::new(id("a").into(), secret)).unwrap();
    // An object keeps its name, also in another case, but cannot take a second object's.
    let stored = tx.service(&ServiceId::new(id("b"))).unwrap().meta;
    let rename = |name: &str| Service {
        meta: stored,
        ..service(id("b"), name)
    };
    assert_eq!(tx.update(rename("WEB")), Err(conflict("WEB")));
    tx.update(rename("DB")).unwrap();
    // A name is free once its holder is gone, in the same transaction.
    tx.delete(Kind::Service, &id("a")).unwrap();
    tx.create(service(id("c"), "web")).unwrap();
    // No name is no conflict, and neither are names of nodes and tasks.
    for id_text in ["x", "y"] {
        tx.create(service(id(id_text), "")).unwrap();
        tx.create(node(id(id_text), "host")).unwrap();
        tx.create(task(id(id_text), 1)).unwrap();
    }
}

#[test]
fn an_extension_cannot_be_named_like_a_table() {
    for kind in swarm_types::kind::ALL {
        for name in [kind.name().to_owned(), kind.name().to_uppercase()] {
            let refused = Root::default().begin(NOW).create(extension(&name));
            let expected = StoreError::NameConflict {
                kind: Kind::Extension,
                name,
            };
            assert_eq!(refused, Err(expected));
        }
    }
    Root::default()
        .begin(NOW)
        .create(extension("tasks"))
        .unwrap();
    // Only extensions: a service may be called "node".
    Root::default()
        .begin(NOW)
        .create(service(id("s"), "node"))
        .unwrap();
}

#[test]
fn an_update_needs_the_stored_version_and_stamps_a_new_one() {
    let root = with(&[service(id("a"), "web")]);
    let stored = Arc::clone(root.service(&ServiceId::new(id("a"))).unwrap());
    assert_eq!(stored.meta.version, Version(1));
    assert_eq!((stored.meta.created_at, stored.meta.updated_at), (NOW, NOW));
    let later = NOW.saturating_add(std::time::Duration::from_secs(5));
    for wrong in [0, 2] {
        let mut stale = (*stored).clone();
        stale.meta.version = Version(wrong);
        let refused = root.begin(later).update(stale).unwrap_err();
        assert_eq!(refused.to_string(), "update out of sequence");
    }
    let mut tx = root.begin(later);
    tx.update((*stored).clone()).unwrap();
    let again = tx.service(&stored.id).unwrap().meta;
    assert_eq!(again.version, Version(2));
    assert_eq!((again.created_at, again.updated_at), (NOW, later));
    // The second update within one transaction goes on from the first.
    let own = (**tx.service(&stored.id).unwrap()).clone();
    tx.update(own).unwrap();
    assert_eq!(
        tx.update((*stored).clone()).unwrap_err().to_string(),
        "update out of sequence"
    );
    assert_eq!((tx.len(), tx.commit_version()), (2, Version(2)));
}

#[test]
fn a_shared_object_that_is_written_stays_as_it_was_for_its_other_holders() {
    let mine: Arc<Service> = Arc::new(service(id("a"), "web"));
    let mut tx = Root::default().begin(NOW);
    tx.create(Arc::clone(&mine)).unwrap();
    assert_eq!(mine.meta, swarm_types::Meta::default());
    assert_eq!(tx.service(&mine.id).unwrap().meta.version, Version(1));
}

#[test]
fn missing_and_present_objects_are_told_apart() {
    let mut tx = with(&[node(id("a"), "")]).begin(NOW);
    let texts = [
        tx.create(node(id("a"), "")).unwrap_err().to_string(),
        tx.update(node(id("b"), "")).unwrap_err().to_string(),
        tx.delete(Kind::Node, &id("b")).unwrap_err().to_string(),
        tx.delete(Kind::Service, &id("a")).unwrap_err().to_string(),
    ];
    let missing = "object does not exist";
    assert_eq!(texts, ["object already exists", missing, missing, missing]);
    assert!(tx.is_empty());
}

#[test]
fn a_write_set_is_applied_whole_or_not_at_all() {
    let root = with(&[service(id("a"), "web"), service(id("b"), "db")]);
    let stored = root.service(&ServiceId::new(id("a"))).unwrap();
    let mut tx = root.begin(NOW);
    tx.create(node(id("before"), "")).unwrap();
    let set = WriteSet(vec![
        Write::create(node(id("n"), "")),
        Write::update(Arc::clone(stored)),
        Write::delete(&**root.service(&ServiceId::new(id("b"))).unwrap()),
        Write::create(service(id("c"), "WEB")),
    ]);
    let conflict = tx.apply_set(&set).unwrap_err();
    assert_eq!(conflict.index, 3);
    assert_eq!(
        conflict.error,
        StoreError::NameConflict {
            kind: Kind::Service,
            name: "WEB".to_owned()
        }
    );
    // What was there before the set stays; nothing of the set does.
    let mut expected = root.begin(NOW);
    expected.create(node(id("before"), "")).unwrap();
    assert_same_tables(&tx, &expected);
    assert_eq!(tx.len(), 1);
    let fitting = WriteSet(set.0[..3].to_vec());
    tx.apply_set(&fitting).unwrap();
    assert_eq!(tx.len(), 4);
    assert!(tx.node(&NodeId::new(id("n"))).is_some());
    assert!(tx.service(&ServiceId::new(id("b"))).is_none());
}

#[test]
fn a_deletion_and_a_requirement_need_the_version_that_was_seen() {
    let root = with(&[service(id("a"), "web")]);
    let seen = Arc::clone(root.service(&ServiceId::new(id("a"))).unwrap());
    let changed = {
        let mut tx = root.begin(NOW);
        tx.update((*seen).clone()).unwrap();
        tx.finish().0
    };
    for write in [Write::delete(&*seen), Write::require(&*seen)] {
        let set = WriteSet(vec![write]);
        root.begin(NOW).apply_set(&set).unwrap();
        let refused = changed.begin(NOW).apply_set(&set).unwrap_err();
        assert_eq!(refused.error.to_string(), "update out of sequence");
    }
    let absent = |id_text: &str| {
        WriteSet(vec![Write::Require {
            kind: Kind::Service,
            id: id(id_text),
            version: None,
        }])
    };
    let mut tx = root.begin(NOW);
    tx.apply_set(&absent("b")).unwrap();
    assert!(tx.apply_set(&absent("a")).is_err());
    // A requirement is no change.
    tx.apply_set(&WriteSet(vec![Write::require(&*seen)]))
        .unwrap();
    assert!(tx.is_empty());
}

#[test]
fn changes_tell_what_was_there_before() {
    let mut tx = Root::default().begin(NOW);
    tx.create(service(id("a"), "web")).unwrap();
    let first = Arc::clone(tx.service(&ServiceId::new(id("a"))).unwrap());
    tx.update((*first).clone()).unwrap();
    let second = Arc::clone(tx.service(&ServiceId::new(id("a"))).unwrap());
    tx.delete(Kind::Service, &id("a")).unwrap();
    let (_, commit) = tx.finish();
    let change = |action, object: &Arc<Service>, old: Option<&Arc<Service>>| Change {
        action,
        object: Arc::clone(object).into(),
        old: old.map(|old| Arc::clone(old).into()),
    };
    let expected = [
        change(Action::Create, &first, None),
        change(Action::Update, &second, Some(&first)),
        change(Action::Remove, &second, None),
    ];
    assert_eq!(commit.changes, expected);
}

#[test]
fn a_commit_that_does_not_fit_changes_nothing() {
    let mut tx = Root::default().begin(NOW);
    tx.create(node(id("n"), "")).unwrap();
    tx.create(service(id("s"), "web")).unwrap();
    let (root, commit) = tx.finish();
    let before = root.clone();
    assert!(matches!(
        root.apply(&commit),
        Err(StoreError::Exists { .. })
    ));
    let removal = Commit {
        changes: vec![Change {
            action: Action::Remove,
            object: node(id("other"), "").into(),
            old: None,
        }],
        ..commit
    };
    assert!(matches!(
        root.apply(&removal),
        Err(StoreError::NotExists { .. })
    ));
    assert_same(&root, &before);
}

fn sets(sizes: &[usize]) -> Vec<WriteSet> {
    let deletion = Write::Delete {
        kind: Kind::Task,
        id: id("t"),
        version: Version(1),
    };
    sizes
        .iter()
        .map(|size| WriteSet(vec![deletion.clone(); *size]))
        .collect()
}

fn shape(batches: &[Vec<WriteSet>]) -> Vec<Vec<usize>> {
    let sizes = |batch: &Vec<WriteSet>| batch.iter().map(|set| set.0.len()).collect();
    batches.iter().map(sizes).collect()
}

#[test]
fn a_batch_takes_two_hundred_changes_and_not_one_more() {
    let split = |sizes: &[usize]| shape(&batches(sets(sizes)));
    assert!(split(&[]).is_empty());
    assert_eq!(split(&[1; 200]), [vec![1; 200]]);
    assert_eq!(split(&[1; 201]), [vec![1; 200], vec![1]]);
    // A set is never cut, neither at the border nor when it is too large.
    assert_eq!(split(&[199, 1, 1]), [vec![199, 1], vec![1]]);
    assert_eq!(split(&[199, 2]), [vec![199], vec![2]]);
    assert_eq!(split(&[500, 1]), [vec![500], vec![1]]);
    assert_eq!(split(&[1, 500, 1]), [vec![1], vec![500], vec![1]]);
}

#[test]
fn a_batch_takes_as_many_bytes_as_a_proposal_may_have() {
    let secret = |bytes: usize| {
        let spec = v1::SecretSpec {
            data: vec![0; bytes].into(),
            ..Default::default()
        };
        WriteSet(vec![Write::create(Secret::new(id("s").into(), spec))])
    };
    let overhead = secret(100_000).0[0].bytes() - 100_000;
    // Lengths of the same number of digits, so that the overhead is the same.
    let half = TRANSACTION_BYTES_MAX / 2;
    let exact = [
        secret(half - overhead),
        secret(TRANSACTION_BYTES_MAX - half - overhead),
    ];
    let total: usize = exact.iter().map(|set| set.0[0].bytes()).sum();
    assert_eq!(total, TRANSACTION_BYTES_MAX);
    assert_eq!(batches(exact.clone()).len(), 1);
    let mut more = exact.to_vec();
    more[1] = secret(TRANSACTION_BYTES_MAX - half - overhead + 1);
    assert_eq!(batches(more).len(), 2);
    // One that is too large alone goes alone.
    let huge = [secret(2 * TRANSACTION_BYTES_MAX), secret(1)];
    assert_eq!(batches(huge).len(), 2);
}

#[test]
fn the_bytes_of_a_write_are_what_the_log_takes() {
    let mut object = task(id("t"), 1);
    object.service_annotations = Arc::new(named("web"));
    let status = TaskStatus::new(TaskState::Running, NOW, "started");
    object = object.with_states(status, TaskState::Running);
    let mut tx = Root::default().begin(NOW);
    tx.create(object).unwrap();
    let stored = Arc::clone(tx.task(&TaskId::new(id("t"))).unwrap());
    let commit = tx.finish().1;
    let len = |commit: &Commit| crate::encode_commit(1, commit).len();
    let full = len(&commit);
    let empty = Commit {
        changes: vec![],
        ..commit
    };
    assert_eq!(Write::update(stored).bytes(), full - len(&empty));
}
