//! The benchmarks of the scheduler (`performance.md` 2.4): the upstream shapes, where each task is
//! a group of its own, and the shapes of real services.
//!
//! As in Go, building the objects is not timed; the commit that creates them, its publication, and
//! everything up to the moment when a subscriber has seen an update of every task is. Go's figures
//! include the 50 ms that its scheduler waits for more events; ours is told the time and does not
//! sit it out, so rows of 1,000 tasks flatter us by that.

use std::sync::Arc;

use swarm_api::v1;
use swarm_reconcile::{Outcome, Queue};
use swarm_scheduler::Scheduler;
use swarm_store::{
    Action, Commit, Filter, Received, Root, Selector, Store, Subscription, Transaction,
};
use swarm_types::{
    Id, IdSource, Kind, Node, NodeState, ServiceId, Slot, Task, TaskId, TaskState, TaskStatus,
    Timestamp, Version,
};

use crate::runner::{Clock, Row, Took};
use crate::world::{self, Ids, NOW};

/// What the tasks have in common and ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Tasks without a service: each is judged alone.
    OneOff,
    /// The same, and each needs a network plugin that every third node has.
    Plugin,
    /// Replicas of one service.
    Grouped,
    /// The same with a constraint that half of the nodes meet, and a reservation.
    GroupedReserved,
    /// The same, spread over three zones.
    GroupedSpread,
}

const SECOND: f64 = 1e9;

macro_rules! rows {
    ($($name:literal, $go:literal, $bar:expr, $rounds:literal,
       $shape:ident, $nodes:literal, $tasks:literal;)*) => {
        /// The rows with Go's quiet medians, in nanoseconds for the whole run; of rows that Go only
        /// ran on the busy machine, the fastest run there.
        pub const ROWS: &[Row] = &[$(Row {
            name: concat!("scheduler/", $name),
            go: $go * SECOND,
            bar: $bar,
            rounds_max: $rounds,
            round: || schedule(Shape::$shape, $nodes, $tasks),
        },)*];
    };
}

rows! {
    "1kNodes1kTasks", 0.14, 30.0, 9, OneOff, 1_000, 1_000;
    "1kNodes10kTasks", 1.27, 30.0, 9, OneOff, 1_000, 10_000;
    "1kNodes100kTasks", 15.41, 30.0, 3, OneOff, 1_000, 100_000;
    "Constraints1kNodes1kTasks", 0.17, 30.0, 9, Plugin, 1_000, 1_000;
    "Constraints1kNodes10kTasks", 1.36, 30.0, 9, Plugin, 1_000, 10_000;
    "Constraints1kNodes100kTasks", 16.31, 30.0, 3, Plugin, 1_000, 100_000;
    "Constraints5kNodes100kTasks-busy", 163.30, 30.0, 3, Plugin, 5_000, 100_000;
    "100kNodes1kTasks-busy", 26.12, 30.0, 3, OneOff, 100_000, 1_000;
    "Grouped1kNodes10kTasks", 0.51, 10.0, 9, Grouped, 1_000, 10_000;
    "Grouped1kNodes100kTasks", 7.16, 10.0, 3, Grouped, 1_000, 100_000;
    "GroupedCR1kNodes100kTasks", 8.73, 10.0, 3, GroupedReserved, 1_000, 100_000;
    "GroupedCRSpread1kNodes100kTasks", 8.50, 10.0, 3, GroupedSpread, 1_000, 100_000;
    "Grouped5kNodes100kTasks", 7.06, 10.0, 3, Grouped, 5_000, 100_000;
    "Grouped100kNodes100kTasks", 7.74, 10.0, 3, Grouped, 100_000, 100_000;
    // The bars of these are 12 and 20 seconds; Go's hours are extrapolated.
    "Grouped100kNodes1MTasks", 125.42, 125.42 / 12.0, 1, Grouped, 100_000, 1_000_000;
    "GroupedCR100kNodes1MTasks", 125.42, 125.42 / 12.0, 1, GroupedReserved, 100_000, 1_000_000;
    "100kNodes1MTasks-extrapolated", 25_200.0, 25_200.0 / 20.0, 1, OneOff, 100_000, 1_000_000;
    "Constraints100kNodes1MTasks-extrapolated", 25_200.0, 25_200.0 / 20.0, 1,
        Plugin, 100_000, 1_000_000;
}

/// The store, the scheduler and a subscriber that counts.
struct Bench {
    store: Store,
    queue: Queue<Scheduler>,
    feed: Subscription,
    seen: usize,
}

impl Bench {
    fn new() -> Self {
        let store = Store::default();
        let updates = Selector::kind(Kind::Task).actions([Action::Update]);
        let (view, feed) = store.view_and_watch(Filter::Any(vec![updates]));
        Self {
            queue: Queue::new(Scheduler::new(), &view),
            store,
            feed,
            seen: 0,
        }
    }

    /// What a commit sets in motion once it is durable.
    fn publish(&mut self, root: Root, commit: Commit) {
        let commit = Arc::new(commit);
        self.store.publish(root, Arc::clone(&commit));
        self.store.fan_out();
        self.queue.handle_commit(&commit, &self.store.view());
        while let Some(received) = self.feed.try_next() {
            let Received::Event(event) = received else {
                unreachable!("it reads after each commit");
            };
            self.seen += event.changes().count();
        }
    }

    /// Lets the scheduler make one transaction; `false` when it has nothing to do.
    fn step(&mut self, ids: &mut Ids) -> bool {
        let view = self.store.view();
        // Long after the last event, so that nothing is held back for more.
        let now = NOW.saturating_add(std::time::Duration::from_secs(60));
        let Some(batch) = self.queue.poll_transaction(&view, now, ids) else {
            return false;
        };
        let mut transaction = view.begin(now);
        for set in batch.sets {
            transaction.apply_owned(set).expect("nobody else writes");
        }
        let (root, commit) = transaction.finish();
        drop(view);
        let version = commit.version;
        self.publish(root, commit);
        self.queue.handle_outcome(&Outcome::Committed {
            version,
            refused: Vec::new(),
        });
        true
    }
}

/// Schedules `tasks` tasks onto `nodes` nodes.
pub fn schedule(shape: Shape, nodes: usize, tasks: usize) -> Took {
    let mut ids = Ids::new(5);
    let mut bench = Bench::new();
    let mut transaction = bench.store.view().begin(NOW);
    for index in 0..nodes {
        let node = node(shape, ids.next_id(), index);
        transaction.create(node).expect("a fresh id");
    }
    let template = Template::new(shape, ServiceId::new(ids.next_id()));
    for index in 0..tasks {
        let task = template.task(ids.next_id(), index);
        transaction.create(task).expect("a fresh id");
    }
    let clock = Clock::start();
    timed_schedule(&mut bench, transaction, &mut ids, tasks);
    // The whole run is the operation.
    clock.stop(1)
}

/// What the clock covers. Its name tells callgrind what to count (`instructions::TIMED`).
#[inline(never)]
fn timed_schedule(bench: &mut Bench, transaction: Transaction, ids: &mut Ids, tasks: usize) {
    let (root, commit) = transaction.finish();
    bench.publish(root, commit);
    while bench.seen < tasks {
        assert!(bench.step(ids), "{} of {tasks} were placed", bench.seen);
    }
}

fn is_grouped(shape: Shape) -> bool {
    match shape {
        Shape::OneOff | Shape::Plugin => false,
        Shape::Grouped | Shape::GroupedReserved | Shape::GroupedSpread => true,
    }
}

fn node(shape: Shape, id: Id, index: usize) -> Node {
    let mut node = world::bare_node(id, format!("name{index}"));
    node.status.state = NodeState::Ready;
    let mut description = v1::NodeDescription {
        engine: Some(v1::EngineDescription::default()),
        ..Default::default()
    };
    if is_grouped(shape) {
        let labels = [
            ("az".to_owned(), format!("az{}", index % 3)),
            ("disk".to_owned(), ["ssd", "hdd"][index % 2].to_owned()),
        ];
        let annotations = v1::Annotations {
            labels: labels.into(),
            ..world::named(format!("name{index}"))
        };
        node.spec = Arc::new(v1::NodeSpec {
            annotations: Some(annotations),
            ..Default::default()
        });
        description.resources = Some(resources(1_000_000_000_000, 1 << 50));
    } else if index.is_multiple_of(3) {
        let plugin = v1::PluginDescription {
            r#type: "Network".to_owned(),
            name: "network".to_owned(),
        };
        description.engine = Some(v1::EngineDescription {
            plugins: vec![plugin],
            ..Default::default()
        });
    }
    node.description = Some(Arc::new(description));
    node
}

fn resources(nano_cpus: i64, memory_bytes: i64) -> v1::Resources {
    v1::Resources {
        nano_cpus,
        memory_bytes,
        ..Default::default()
    }
}

/// From what tasks are made.
struct Template {
    shape: Shape,
    service: ServiceId,
    spec: Arc<v1::TaskSpec>,
    annotations: Arc<v1::Annotations>,
}

impl Template {
    fn new(shape: Shape, service: ServiceId) -> Self {
        let mut spec = v1::TaskSpec::default();
        let mut placement = v1::Placement::default();
        if matches!(shape, Shape::GroupedReserved | Shape::GroupedSpread) {
            placement.constraints = vec!["node.labels.disk == ssd".to_owned()];
            spec.resources = Some(v1::ResourceRequirements {
                reservations: Some(resources(1_000_000, 1 << 20)),
                ..Default::default()
            });
        }
        if shape == Shape::GroupedSpread {
            let spread = v1::SpreadOver {
                spread_descriptor: "node.labels.az".to_owned(),
            };
            placement.preferences = vec![v1::PlacementPreference {
                preference: Some(v1::placement_preference::Preference::Spread(spread)),
            }];
        }
        spec.placement = is_grouped(shape).then_some(placement);
        Self {
            shape,
            service,
            spec: Arc::new(spec),
            annotations: Arc::new(world::named("service".to_owned())),
        }
    }

    fn task(&self, id: Id, index: usize) -> Task {
        let status = TaskStatus {
            state: TaskState::Pending,
            timestamp: Some(Timestamp::EPOCH),
            ..TaskStatus::default()
        };
        let spec = if is_grouped(self.shape) {
            Arc::clone(&self.spec)
        } else {
            Arc::default()
        };
        let mut task = Task::new(TaskId::new(id), spec).with_states(status, TaskState::Running);
        if is_grouped(self.shape) {
            task.service_id = Some(self.service.clone());
            task.spec_version = Some(Version(1));
            task.slot = Slot(index as u64 + 1);
            task.service_annotations = Arc::clone(&self.annotations);
        } else {
            task.service_annotations = Arc::new(world::named(format!("task{index}")));
        }
        if self.shape == Shape::Plugin {
            let driver = v1::Driver {
                name: "network".to_owned(),
                ..Default::default()
            };
            task.networks = Arc::from([v1::NetworkAttachment {
                network: Some(v1::Network {
                    driver_state: Some(driver),
                    ..Default::default()
                }),
                ..Default::default()
            }]);
        }
        task
    }
}
