use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{NodeId, Secret, ServiceId, Task};

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
    assert_eq!(mine.meta, Meta::default());
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
fn a_refused_set_takes_back_every_kind_of_change() {
    let mut first = task(id("t"), 1);
    first.node_id = Some(id("n").into());
    let mut tx = with(&[first]).begin(NOW);
    tx.create(service(id("a"), "web")).unwrap();
    let (root, _) = tx.finish();
    let stored = root.task(&id("t").into()).unwrap();
    let mut moved = Task::clone(stored);
    moved.node_id = Some(id("m").into());
    let mut again = moved.clone();
    again.node_id = None;
    again.meta.version = root.version().next();
    let deletion = |kind, id_text: &str, version| Write::Delete {
        kind,
        id: id(id_text),
        version,
    };
    let set = WriteSet(vec![
        Write::update(moved),
        Write::update(again),
        deletion(Kind::Task, "t", root.version().next()),
        Write::create(task(id("t"), 2)),
        deletion(Kind::Service, "a", root.version()),
        Write::create(service(id("b"), "web")),
        deletion(Kind::Service, "b", Version(99)),
    ]);
    let mut tx = root.begin(NOW);
    tx.create(node(id("before"), "")).unwrap();
    let before = Root::clone(&tx);
    let conflict = tx.apply_owned(set.clone()).unwrap_err();
    assert_eq!(conflict.index, 6);
    assert_same(&tx, &before);
    assert_eq!(tx.len(), 1);
    tx.apply_set(&WriteSet(set.0[..6].to_vec())).unwrap();
    assert_eq!(tx.len(), 7);
    assert!(tx.tasks_on_node(&id("n").into()).next().is_none());
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
