//! Tests that look at the whole store, and the worlds that the unit tests share.

mod twin;
pub(crate) mod world;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use swarm_types::{Id, Kind, NodeId, Task, TaskId, TaskState, TaskStatus, Timestamp, Version};

use crate::{
    Action, Commit, Filter, HistoryLimits, Key, Received, Root, Selector, Store, StoreError,
};
use world::{NOW, assert_same, id, node, service, task};

fn put(store: &Store, name: &str) {
    let object = node(id(name), "");
    store
        .update::<_, StoreError>(NOW, |tx| tx.create(object))
        .unwrap();
}

#[test]
fn a_published_view_never_changes() {
    let store = Store::default();
    put(&store, "a");
    let view = store.view();
    put(&store, "b");
    assert_eq!(view.count::<swarm_types::Node>(), 1);
    assert_eq!(view.version(), Version(1));
    assert_eq!(store.view().count::<swarm_types::Node>(), 2);
    assert_eq!(store.view().version(), Version(2));
}

#[test]
fn a_refused_transaction_publishes_nothing() {
    let store = Store::default();
    let (_, mut feed) = store.view_and_watch(Filter::All);
    let outcome = store.update(NOW, |tx| {
        tx.create(node(id("a"), "")).unwrap();
        Err::<(), _>("no")
    });
    assert_eq!(outcome, Err("no"));
    assert_same(&store.view(), &Root::default());
    assert!(feed.try_next().is_none());
}

#[test]
fn a_transaction_without_changes_makes_no_version() {
    let store = Store::default();
    store.update::<_, StoreError>(NOW, |_| Ok(())).unwrap();
    assert_eq!(store.view().version(), Version(0));
}

#[test]
fn a_reset_replaces_everything_and_closes_subscriptions() {
    let limits = HistoryLimits { changes_max: 2 };
    let store = Store::new(Root::default(), limits);
    put(&store, "a");
    let (_, mut all) = store.view_and_watch(Filter::All);
    let (_, mut some) = store.view_and_watch(Filter::Any(vec![Selector::kind(Kind::Node)]));
    let mut other = Root::default().begin(NOW);
    other.create(node(id("b"), "")).unwrap();
    store.reset(other.finish().0);
    for feed in [&mut all, &mut some] {
        assert!(matches!(feed.try_next(), Some(Received::Closed)));
        assert!(matches!(feed.try_next(), Some(Received::Closed)));
    }
    assert!(store.view().node(&NodeId::new(id("a"))).is_none());
    // The limits of the history stay: of three more commits, two are kept.
    for name in ["c", "d", "e"] {
        put(&store, name);
    }
    assert!(store.commits_since(Version(1)).is_err());
    assert_eq!(store.commits_since(Version(2)).unwrap().len(), 2);
}

/// Rebuilds what a view and a feed tell about the ids of a kind.
fn replay(ids: &mut BTreeSet<Id>, commit: &Commit) {
    for change in &commit.changes {
        let id = change.object.raw_id().clone();
        match change.action {
            Action::Create => assert!(ids.insert(id), "created twice"),
            Action::Update => assert!(ids.contains(&id), "updated before its creation"),
            Action::Remove => assert!(ids.remove(&id), "removed twice"),
        }
    }
}

#[test]
fn view_and_watch_has_no_gap_and_no_duplicate_under_concurrent_writers() {
    const WRITERS: usize = 3;
    const COMMITS: usize = 400;
    let store = Store::default();
    let writing = AtomicBool::new(true);
    let watched = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let store = &store;
                scope.spawn(move || {
                    for index in 0..COMMITS {
                        let name = format!("w{writer}n{}", index / 2);
                        store
                            .update::<_, StoreError>(NOW, |tx| match index % 2 {
                                0 => tx.create(node(id(&name), "")),
                                _ if index % 3 == 0 => tx.delete(Kind::Node, &id(&name)),
                                _ => tx.update(
                                    tx.node(&NodeId::new(id(&name))).unwrap().as_ref().clone(),
                                ),
                            })
                            .unwrap();
                    }
                })
            })
            .collect();
        for plain in [true, false, true, false] {
            let (store, writing, watched) = (&store, &writing, &watched);
            scope.spawn(move || {
                // At least once, also when the writers are faster than this thread's start.
                loop {
                    let more = writing.load(Ordering::Acquire);
                    watch_once(store, plain);
                    watched.fetch_add(1, Ordering::Relaxed);
                    if !more {
                        break;
                    }
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        writing.store(false, Ordering::Release);
    });
    assert!(watched.load(Ordering::Relaxed) >= 4);
    assert_eq!(store.view().version(), Version((WRITERS * COMMITS) as u64));
}

/// Takes a view, follows the feed for a while, and compares with the store at that version.
fn watch_once(store: &Store, plain: bool) {
    let filter = if plain {
        Filter::All
    } else {
        Filter::Any(vec![Selector::kind(Kind::Node)])
    };
    let (view, mut feed) = store.view_and_watch(filter);
    let ids = |view: &Root| {
        view.all::<swarm_types::Node>()
            .map(|node| node.id.as_id().clone())
            .collect::<BTreeSet<Id>>()
    };
    let mut seen = ids(&view);
    let mut version = view.version();
    // Everything up to a later view has been offered by the time that this view was taken, or is
    // offered before the writer's update returns: so the wait ends when the writers do.
    let later = store.view();
    while version < later.version() {
        let Some(received) = feed.try_next() else {
            std::thread::yield_now();
            continue;
        };
        let Received::Event(event) = received else {
            panic!("{received:?} below the bound");
        };
        assert_eq!(
            event.version(),
            version.next(),
            "gap, duplicate or disorder"
        );
        version = event.version();
        assert_eq!(event.changes().count(), event.commit().changes.len());
        replay(&mut seen, event.commit());
    }
    assert_eq!(version, later.version());
    assert_eq!(seen, ids(&later));
}

#[test]
fn a_lagging_subscriber_resumes_from_the_history_without_a_gap() {
    let store = Store::default();
    let (view, mut feed) = store.view_and_watch_bounded(Filter::All, 2);
    put(&store, "a");
    assert!(matches!(feed.try_next(), Some(Received::Event(_))));
    for name in ["b", "c", "d"] {
        put(&store, name);
    }
    let Some(Received::Lagged { last }) = feed.try_next() else {
        panic!("three changes wait where two may");
    };
    assert_eq!(last, view.version().next());
    let missed = store.commits_since(last).unwrap();
    let versions: Vec<u64> = missed.iter().map(|commit| commit.version.0).collect();
    assert_eq!(versions, [2, 3, 4]);
}

#[test]
fn what_is_published_but_not_fanned_out_is_in_the_view_and_not_in_the_feed() {
    let store = Store::default();
    let mut first = store.view().begin(NOW);
    first.create(node(id("a"), "")).unwrap();
    let (root, commit) = first.finish();
    store.publish(root, Arc::new(commit));
    for filter in [Filter::All, Filter::Any(vec![Selector::kind(Kind::Node)])] {
        let (view, mut feed) = store.view_and_watch(filter);
        assert_eq!(view.version(), Version(1));
        store.fan_out();
        assert!(feed.try_next().is_none());
    }
}

#[test]
fn a_keyed_subscriber_follows_a_task_onto_and_off_its_node() {
    let store = Store::default();
    let here = NodeId::new(id("here"));
    let on_node = Selector::kind(Kind::Task).key(Key::TasksOnNode(here.clone()));
    let (_, mut feed) = store.view_and_watch(Filter::Any(vec![on_node]));
    let write = |node: Option<&NodeId>| {
        store
            .update::<_, StoreError>(NOW, |tx| {
                let stored = tx.task(&TaskId::new(id("t"))).cloned();
                let mut task = stored.map_or_else(|| task(id("t"), 1), |task| (*task).clone());
                task.node_id = node.cloned();
                if tx.count::<Task>() == 0 {
                    tx.create(task)
                } else {
                    tx.update(task)
                }
            })
            .unwrap();
    };
    write(None);
    write(Some(&here));
    write(Some(&here));
    write(Some(&NodeId::new(id("there"))));
    write(None);
    let mut versions = Vec::new();
    while let Some(Received::Event(event)) = feed.try_next() {
        versions.push(event.version().0);
    }
    // Onto it, on it, off it.
    assert_eq!(versions, [2, 3, 4]);
}

#[test]
fn the_story_of_one_object_is_told_in_order() {
    let store = Store::default();
    let mut object = service(id("s"), "web");
    store
        .update::<_, StoreError>(NOW, |tx| {
            tx.create(object.clone())?;
            tx.create(node(id("s"), ""))
        })
        .unwrap();
    object = (**store.view().service(&object.id).unwrap()).clone();
    object.pending_delete = true;
    store
        .update::<_, StoreError>(NOW, |tx| tx.update(object.clone()))
        .unwrap();
    store
        .update::<_, StoreError>(NOW, |tx| tx.delete(Kind::Service, &id("s")))
        .unwrap();
    let story: Vec<_> = store
        .history_of(Kind::Service, &id("s"))
        .iter()
        .map(|(commit, change)| (commit.version.0, change.action))
        .collect();
    let expected = [
        (1, Action::Create),
        (2, Action::Update),
        (3, Action::Remove),
    ];
    assert_eq!(story, expected);
    assert_eq!(store.history_of(Kind::Node, &id("s")).len(), 1);
    assert!(store.history_of(Kind::Task, &id("s")).is_empty());
}

#[test]
fn a_task_state_that_would_go_back_is_refused_on_both_sides_of_the_log() {
    let mut tx = Root::default().begin(NOW);
    let status = |state| TaskStatus::new(state, Timestamp::EPOCH, "");
    let running = task(id("t"), 1).with_states(status(TaskState::Running), TaskState::Shutdown);
    tx.create(running.clone()).unwrap();
    let (root, _) = tx.finish();
    for (observed, desired) in [
        (TaskState::Starting, TaskState::Shutdown),
        (TaskState::Running, TaskState::Running),
    ] {
        let mut tx = root.begin(NOW);
        let mut back = running.clone().with_states(status(observed), desired);
        back.meta.version = Version(1);
        let refused = tx.update(back.clone()).unwrap_err();
        assert!(matches!(refused, StoreError::Regression(_)), "{refused}");
        assert!(tx.is_empty());
        let commit = Commit {
            version: Version(2),
            at: NOW,
            changes: vec![crate::Change {
                action: Action::Update,
                object: back.into(),
                old: None,
            }],
        };
        let refused = root.apply(&commit).unwrap_err();
        assert!(matches!(refused, StoreError::Regression(_)), "{refused}");
    }
    let mut tx = root.begin(NOW);
    let mut forward = running.with_states(status(TaskState::Failed), TaskState::Remove);
    forward.meta.version = Version(1);
    tx.update(forward).unwrap();
}
