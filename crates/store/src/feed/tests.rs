use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use super::*;
use crate::tests::world::{NOW, id, node, service, task};

fn change(action: Action, object: impl Into<swarm_types::AnyObject>) -> Change {
    Change {
        action,
        object: object.into(),
        old: None,
    }
}

fn commit(version: u64, changes: Vec<Change>) -> Arc<Commit> {
    Arc::new(Commit {
        version: Version(version),
        at: NOW,
        changes,
    })
}

fn nodes(version: u64, count: usize) -> Arc<Commit> {
    let changes = (0..count)
        .map(|index| change(Action::Create, node(id(&format!("n{version}-{index}")), "")))
        .collect();
    commit(version, changes)
}

/// Versions of the events that wait, and what comes after them.
fn drain(feed: &mut Subscription) -> (Vec<u64>, Option<Received>) {
    let mut versions = Vec::new();
    loop {
        match feed.try_next() {
            Some(Received::Event(event)) => versions.push(event.version().0),
            other => return (versions, other),
        }
    }
}

fn every_node() -> Filter {
    Filter::Any(vec![Selector::kind(Kind::Node)])
}

/// What holds for subscribers with a queue of their own and for those who share the log.
fn both(check: impl Fn(Filter)) {
    check(Filter::All);
    check(every_node());
}

#[test]
fn events_arrive_once_in_order_from_the_start_on() {
    both(|filter| {
        let mut hub = Hub::new();
        hub.publish(&nodes(1, 1));
        let mut feed = hub.subscribe(filter, Version(3), 100);
        // More than the shared log hands out at a time.
        for version in 2..=200 {
            hub.publish(&nodes(version, 0));
            hub.publish(&nodes(version, 1));
            let (versions, rest) = drain(&mut feed);
            let seen: Vec<u64> = versions.into_iter().filter(|one| *one > 3).collect();
            assert!(seen.iter().all(|one| *one == version));
            assert_eq!(seen.is_empty(), version <= 3);
            assert!(rest.is_none());
        }
    });
}

#[test]
fn many_events_at_once_keep_their_order() {
    both(|filter| {
        let mut hub = Hub::new();
        let mut feed = hub.subscribe(filter, Version(0), usize::MAX);
        for version in 1..=3_000 {
            hub.publish(&nodes(version, 1));
        }
        assert_eq!(drain(&mut feed).0, (1..=3_000).collect::<Vec<u64>>());
    });
}

#[test]
fn a_subscriber_that_has_its_limit_waiting_is_served_and_one_more_change_cuts_it_off() {
    both(|filter| {
        let mut hub = Hub::new();
        let mut full = hub.subscribe(filter, Version(0), 4);
        hub.publish(&nodes(1, 1));
        hub.publish(&nodes(2, 3));
        assert_eq!(drain(&mut full).0, [1, 2]);
        hub.publish(&nodes(3, 4));
        hub.publish(&nodes(4, 1));
        for _ in 0..2 {
            let (versions, rest) = drain(&mut full);
            assert!(versions.is_empty());
            assert!(matches!(rest, Some(Received::Lagged { last: Version(2) })));
        }
        hub.publish(&nodes(5, 1));
        assert!(matches!(full.try_next(), Some(Received::Lagged { .. })));
    });
}

#[test]
fn one_commit_above_the_limit_is_delivered_when_nothing_else_waits() {
    both(|filter| {
        let mut hub = Hub::new();
        let mut feed = hub.subscribe(filter, Version(0), 2);
        hub.publish(&nodes(1, 50));
        assert_eq!(drain(&mut feed).0, [1]);
    });
}

#[test]
fn a_slow_subscriber_does_not_cut_off_a_fast_one_or_keep_old_commits() {
    let mut hub = Hub::new();
    let mut fast = hub.subscribe(Filter::All, Version(0), 10);
    let mut slow = hub.subscribe(Filter::All, Version(0), 10);
    let first = nodes(1, 1);
    hub.publish(&first);
    for version in 2..=3_000 {
        hub.publish(&nodes(version, 1));
        let expected: Vec<u64> = if version == 2 {
            vec![1, 2]
        } else {
            vec![version]
        };
        assert_eq!(drain(&mut fast).0, expected);
    }
    // Ours is the only reference: the log let go of it although the slow one never read.
    assert_eq!(Arc::strong_count(&first), 1);
    assert_eq!(hub.len(), 1);
    let rest = drain(&mut slow).1;
    assert!(matches!(rest, Some(Received::Lagged { last: Version(0) })));
}

#[test]
fn closing_delivers_what_waits_and_then_says_so() {
    both(|filter| {
        let mut hub = Hub::new();
        let mut feed = hub.subscribe(filter.clone(), Version(0), 10);
        hub.publish(&nodes(1, 1));
        hub.close();
        assert!(hub.is_empty());
        hub.publish(&nodes(2, 1));
        for expected in [vec![1], vec![]] {
            let (versions, rest) = drain(&mut feed);
            assert_eq!(versions, expected);
            assert!(matches!(rest, Some(Received::Closed)));
        }
        // The hub goes on with new subscribers.
        let mut next = hub.subscribe(filter, Version(2), 10);
        hub.publish(&nodes(3, 1));
        assert_eq!(drain(&mut next).0, [3]);
    });
}

#[test]
fn a_dropped_subscriber_is_removed() {
    both(|filter| {
        let mut hub = Hub::new();
        let first = hub.subscribe(filter.clone(), Version(0), 10);
        let second = hub.subscribe(filter, Version(0), 10);
        assert_eq!(hub.len(), 2);
        drop(first);
        assert_eq!(hub.len(), 1);
        // Also when nothing that it wanted is ever published again.
        hub.publish(&commit(
            1,
            vec![change(Action::Create, service(id("s"), "web"))],
        ));
        assert_eq!(hub.len(), 1);
        drop(second);
        assert!(hub.is_empty());
        let published = nodes(2, 1);
        hub.publish(&published);
        assert_eq!(Arc::strong_count(&published), 1);
    });
}

#[test]
fn filters_by_kind_action_key_and_predicate_hold_together() {
    let mut hub = Hub::new();
    let mut subscribe =
        |selectors: Vec<Selector>| hub.subscribe(Filter::Any(selectors), Version(0), 100);
    let tasks = Selector::kind(Kind::Task);
    let one = |text: &str| Key::Object(id(text));
    let mut feeds = [
        ("kind", subscribe(vec![tasks.clone()])),
        (
            "action",
            subscribe(vec![tasks.clone().actions([Action::Remove])]),
        ),
        ("object", subscribe(vec![tasks.clone().key(one("a"))])),
        (
            "service",
            subscribe(vec![tasks.clone().key(Key::TasksOfService(id("s").into()))]),
        ),
        (
            "predicate",
            subscribe(vec![
                tasks
                    .clone()
                    .matching(|change| change.object.raw_id() == &id("b")),
            ]),
        ),
        (
            "key and action",
            subscribe(vec![tasks.clone().key(one("a")).actions([Action::Create])]),
        ),
        (
            "either",
            subscribe(vec![
                tasks.clone().key(one("a")),
                Selector::kind(Kind::Node),
            ]),
        ),
        (
            "overlap",
            subscribe(vec![tasks.clone().key(one("a")), tasks.clone()]),
        ),
        ("nothing", subscribe(vec![])),
        (
            "other kind",
            subscribe(vec![Selector::kind(Kind::Node).key(one("a"))]),
        ),
        ("no action", subscribe(vec![tasks.actions([])])),
    ];
    let mut of_service = task(id("b"), 1);
    of_service.service_id = Some(id("s").into());
    hub.publish(&commit(
        1,
        vec![
            change(Action::Create, task(id("a"), 1)),
            change(Action::Create, of_service),
            change(Action::Remove, task(id("a"), 1)),
            change(Action::Create, node(id("n"), "")),
        ],
    ));
    let expected: [(&str, &[usize]); 11] = [
        ("kind", &[0, 1, 2]),
        ("action", &[2]),
        ("object", &[0, 2]),
        ("service", &[1]),
        ("predicate", &[1]),
        ("key and action", &[0]),
        ("either", &[0, 2, 3]),
        ("overlap", &[0, 1, 2]),
        ("nothing", &[]),
        ("other kind", &[]),
        ("no action", &[]),
    ];
    for ((name, feed), (_, places)) in feeds.iter_mut().zip(expected) {
        let received = feed.try_next();
        if places.is_empty() {
            assert!(received.is_none(), "{name}");
            continue;
        }
        let Some(Received::Event(event)) = received else {
            panic!("{name}: {received:?}");
        };
        let wanted = places.iter().map(|place| &event.commit().changes[*place]);
        assert!(event.changes().eq(wanted), "{name}");
        assert!(
            feed.try_next().is_none(),
            "{name}: one event for each commit"
        );
    }
}

#[test]
fn subscribers_that_cannot_match_are_not_even_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let mut hub = Hub::new();
    let mut feeds: Vec<Subscription> = (0..10_000)
        .map(|index| {
            let asked = Arc::clone(&asked);
            let selector = Selector::kind(Kind::Task)
                .key(Key::TasksOnNode(id(&format!("node{index}")).into()))
                .matching(move |_| {
                    asked.fetch_add(1, Ordering::Relaxed);
                    true
                });
            hub.subscribe(Filter::Any(vec![selector]), Version(0), 10)
        })
        .collect();
    let mut placed = task(id("t"), 1);
    placed.node_id = Some(id("node77").into());
    hub.publish(&commit(1, vec![change(Action::Update, placed)]));
    hub.publish(&nodes(2, 5));
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let received: Vec<usize> = feeds
        .iter_mut()
        .enumerate()
        .filter_map(|(index, feed)| feed.try_next().map(|_| index))
        .collect();
    assert_eq!(received, [77]);
}

/// Counts how often it was woken.
#[derive(Default)]
struct Bell(AtomicUsize);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_sleeping_subscriber_is_woken_once_by_events_lag_and_close() {
    both(|filter| {
        let mut hub = Hub::new();
        let mut feed = hub.subscribe(filter, Version(0), 1);
        let (old, bell) = (Arc::new(Bell::default()), Arc::new(Bell::default()));
        let waker = Waker::from(Arc::clone(&bell));
        let mut poll = |waker: &Waker| feed.poll_next(&mut Context::from_waker(waker));
        assert!(poll(&Waker::from(Arc::clone(&old))).is_pending());
        // Polled again by another task: only the newest waker counts.
        assert!(poll(&waker).is_pending());
        hub.publish(&nodes(1, 1));
        assert_eq!(bell.0.load(Ordering::Relaxed), 1);
        assert!(matches!(poll(&waker), Poll::Ready(Received::Event(_))));
        assert!(poll(&waker).is_pending());
        hub.publish(&nodes(2, 1));
        hub.publish(&nodes(3, 1));
        assert_eq!(bell.0.load(Ordering::Relaxed), 2);
        let received = poll(&waker);
        let lagged = Version(1);
        assert!(
            matches!(received, Poll::Ready(Received::Lagged { last }) if last == lagged),
            "{received:?}"
        );
        assert_eq!(old.0.load(Ordering::Relaxed), 0);

        let mut feed = hub.subscribe(every_node(), Version(3), 1);
        assert!(
            feed.poll_next(&mut Context::from_waker(&waker))
                .is_pending()
        );
        hub.close();
        assert_eq!(bell.0.load(Ordering::Relaxed), 3);
        let received = feed.poll_next(&mut Context::from_waker(&waker));
        assert!(matches!(received, Poll::Ready(Received::Closed)));
    });
}

#[test]
fn a_reader_in_another_thread_gets_everything() {
    const EVENTS: u64 = 20_000;
    both(|filter| {
        let mut hub = Hub::new();
        let mut feeds: Vec<_> = (0..3)
            .map(|_| hub.subscribe(filter.clone(), Version(0), usize::MAX))
            .collect();
        let received = Mutex::new(0);
        std::thread::scope(|scope| {
            for feed in &mut feeds {
                scope.spawn(|| {
                    let thread = Waker::from(Arc::new(Unpark(std::thread::current())));
                    let mut context = Context::from_waker(&thread);
                    for version in 1..=EVENTS {
                        let event = loop {
                            match feed.poll_next(&mut context) {
                                Poll::Ready(Received::Event(event)) => break event,
                                Poll::Ready(other) => panic!("{other:?}"),
                                // A wake-up that went missing would end the test here.
                                Poll::Pending => std::thread::park(),
                            }
                        };
                        assert_eq!(event.version(), Version(version));
                    }
                    *received.lock().unwrap() += 1;
                });
            }
            for version in 1..=EVENTS {
                hub.publish(&nodes(version, 1));
            }
        });
        assert_eq!(received.into_inner().unwrap(), 3);
    });
}

struct Unpark(std::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
