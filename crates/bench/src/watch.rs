//! The sixteen benchmarks of the watch queue (`performance.md` 2.2): listeners that take
//! everything, publishers that split the events.
//!
//! Listeners and publishers are tasks on two threads, as they are goroutines on two threads in Go.
//! `Publish*` stops the clock when the publishers are done, `Watch*` when each listener has
//! received everything. The queues have no bound, as in Go.

use std::hint::black_box;
use std::sync::{Arc, Mutex};

use swarm_store::{Action, Change, Commit, Filter, Hub, Received, Subscription};
use swarm_types::{IdSource, Version};
use tokio::runtime::{Builder, Runtime};

use crate::runner::{Clock, Row, Took};
use crate::world::{self, Ids, NOW};

/// Deliveries in one round, so that rows with few and with many listeners take a similar time.
const DELIVERIES: usize = 2_000_000;
/// Events that a publisher publishes between two chances for other tasks. In Go a publisher blocks
/// on a channel every so often; ours never has to wait.
const BURST: usize = 512;

macro_rules! rows {
    ($($name:literal, $go:literal, $listeners:literal, $publishers:literal, $until:expr;)*) => {
        /// The rows with Go's quiet medians.
        pub const ROWS: &[Row] = &[$(Row {
            name: $name,
            go: $go,
            bar: 5.0,
            rounds_max: usize::MAX,
            round: || round($listeners, $publishers, $until),
        },)*];
    };
}

rows! {
    "watch/Publish10", 2_678.0, 10, 1, Until::Published;
    "watch/Publish100", 24_000.0, 100, 1, Until::Published;
    "watch/Publish1000", 228_600.0, 1_000, 1, Until::Published;
    "watch/Publish10000", 14_870_000.0, 10_000, 1, Until::Published;
    "watch/Publish10Listeners4Publishers", 3_603.0, 10, 4, Until::Published;
    "watch/Publish100Listeners8Publishers", 31_800.0, 100, 8, Until::Published;
    "watch/Publish1000Listeners4Publishers", 327_400.0, 1_000, 4, Until::Published;
    "watch/Publish1000Listeners64Publishers", 218_900.0, 1_000, 64, Until::Published;
    "watch/Watch10", 2_320.0, 10, 1, Until::Received;
    "watch/Watch100", 22_800.0, 100, 1, Until::Received;
    "watch/Watch1000", 217_000.0, 1_000, 1, Until::Received;
    "watch/Watch10000", 10_520_000.0, 10_000, 1, Until::Received;
    "watch/Watch10Listeners4Publishers", 2_312.0, 10, 4, Until::Received;
    "watch/Watch100Listeners8Publishers", 17_300.0, 100, 8, Until::Received;
    "watch/Watch1000Listeners4Publishers", 207_200.0, 1_000, 4, Until::Received;
    "watch/Watch1000Listeners64Publishers", 207_200.0, 1_000, 64, Until::Received;
}

/// When the clock stops.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Published,
    Received,
}

/// The queue as publishers see it. One change object is enough: what travels is the commit.
struct Topic {
    hub: Hub,
    version: Version,
    change: Change,
}

impl Topic {
    fn publish(&mut self) {
        self.version = self.version.next();
        let commit = Commit {
            version: self.version,
            at: NOW,
            changes: vec![self.change.clone()],
        };
        self.hub.publish(&Arc::new(commit));
    }
}

fn round(listeners: usize, publishers: usize, until: Until) -> Took {
    let events = (DELIVERIES / listeners).next_multiple_of(publishers);
    let node = world::bare_node(Ids::new(2).next_id(), "myevent".to_owned());
    let mut topic = Topic {
        hub: Hub::new(),
        version: Version(0),
        change: Change {
            action: Action::Create,
            object: node.into(),
            old: None,
        },
    };
    let runtime = two_threads();
    let listening: Vec<_> = (0..listeners)
        .map(|_| topic.hub.subscribe(Filter::All, Version(0), usize::MAX))
        .map(|subscription| runtime.spawn(receive(subscription, events)))
        .collect();
    let topic = Arc::new(Mutex::new(topic));
    let clock = Clock::start();
    let publishing: Vec<_> = (0..publishers)
        .map(|_| runtime.spawn(publish(Arc::clone(&topic), events / publishers)))
        .collect();
    finish(&runtime, publishing);
    let published = clock.stop_threads(events);
    finish(&runtime, listening);
    match until {
        Until::Published => published,
        Until::Received => clock.stop_threads(events),
    }
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("two threads can be started")
}

fn finish(runtime: &Runtime, tasks: Vec<tokio::task::JoinHandle<()>>) {
    runtime.block_on(async {
        for task in tasks {
            task.await.expect("neither side panics");
        }
    });
}

async fn publish(topic: Arc<Mutex<Topic>>, events: usize) {
    for index in 0..events {
        topic.lock().expect("publishing does not panic").publish();
        if index % BURST == BURST - 1 {
            tokio::task::yield_now().await;
        }
    }
}

async fn receive(mut subscription: Subscription, events: usize) {
    for _ in 0..events {
        match subscription.next().await {
            // As in Go, what arrives is counted and not looked at.
            Received::Event(event) => drop(black_box(event)),
            Received::Lagged { .. } | Received::Closed => unreachable!("no bound, no end"),
        }
    }
}
