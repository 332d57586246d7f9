//! Measures placing tasks, store writes included and no log: the loop that the official benchmarks
//! run, for a quick look while working on the scheduler.
//!
//! `cargo run --release -p swarm-scheduler --example place -- <nodes> <tasks> <shape>`, where the
//! shape is `oneoff`, `plugin` (only every third node fits), `service`, `constraint` or `spread`.
#![allow(clippy::print_stdout, reason = "prints its result")]
#![allow(clippy::disallowed_methods, reason = "measures time")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use swarm_api::v1;
use swarm_reconcile::{Outcome, Queue};
use swarm_scheduler::Scheduler;
use swarm_store::Root;
use swarm_types::{
    Id, IdSource, Node, NodeState, Slot, Task, TaskState, TaskStatus, Timestamp, Version,
};

/// Ids in no order, the same in each run.
struct Ids(u64);

impl IdSource for Ids {
    fn next_id(&mut self) -> Id {
        let mut bytes = [0; 17];
        for chunk in bytes.chunks_mut(8) {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let word = (self.0 ^ (self.0 >> 29)).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Id::from_random(bytes)
    }
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = |default: &str| arguments.next().unwrap_or_else(|| default.to_owned());
    let nodes: usize = next("1000").parse().expect("a number of nodes");
    let tasks: usize = next("100000").parse().expect("a number of tasks");
    let shape = next("oneoff");
    let mut ids = Ids(1);
    let mut queue = Queue::new(Scheduler::new(), &Root::default());
    let mut root = Root::default();
    let mut transaction = root.begin(Timestamp::EPOCH);
    for index in 0..nodes {
        transaction
            .create(node(ids.next_id(), index))
            .expect("a fresh id");
    }
    let shared = Arc::new(task_spec(&shape));
    for index in 0..tasks {
        let task = task(ids.next_id(), index, &shape, &shared);
        transaction.create(task).expect("a fresh id");
    }
    let (start, cpu_start) = (Instant::now(), cpu());
    let (next, commit) = transaction.finish();
    root = next;
    queue.handle_commit(&commit, &root);
    drop(commit);
    let observed = cpu() - cpu_start;
    let mut placed = 0;
    let [mut planning, mut writing, mut observing] = [Duration::ZERO; 3];
    let now = Timestamp::from_millis(1_000);
    loop {
        let at = cpu();
        let Some(batch) = queue.poll_transaction(&root, now, &mut ids) else {
            break;
        };
        planning += cpu() - at;
        let at = cpu();
        let mut transaction = root.begin(now);
        for set in &batch.sets {
            transaction.apply_set(set).expect("nobody else writes");
        }
        placed += batch.sets.len();
        let (next, commit) = transaction.finish();
        root = next;
        drop(batch);
        writing += cpu() - at;
        let at = cpu();
        queue.handle_commit(&commit, &root);
        queue.handle_outcome(&Outcome::Committed {
            version: commit.version,
            refused: Vec::new(),
        });
        drop(commit);
        observing += cpu() - at;
    }
    let (total, cpu_total) = (start.elapsed(), cpu() - cpu_start);
    println!(
        "{nodes} nodes, {placed}/{tasks} tasks, {shape}: {:.2} s, {:.2} us/task; CPU {:.2} us/task \
         (create {observed:.2?}, plan {planning:.2?}, write {writing:.2?}, observe {observing:.2?})",
        total.as_secs_f64(),
        total.as_secs_f64() * 1e6 / tasks as f64,
        cpu_total.as_secs_f64() * 1e6 / tasks as f64,
    );
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    println!(
        "{}",
        status
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .unwrap_or("")
    );
    assert_eq!(placed, tasks, "every task has a node");
}

/// Time that this thread has run: on a busy machine the only one that means something.
fn cpu() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split(' ').next().and_then(|word| word.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn node(id: Id, index: usize) -> Node {
    let labels = [
        ("az".to_owned(), format!("az{}", index % 3)),
        ("disk".to_owned(), ["ssd", "hdd"][index % 2].to_owned()),
    ];
    let mut node = Node::new(
        id.into(),
        v1::NodeSpec {
            annotations: Some(v1::Annotations {
                name: format!("name{index}"),
                labels: labels.into(),
                ..Default::default()
            }),
            ..Default::default()
        },
    );
    node.status.state = NodeState::Ready;
    let plugin = v1::PluginDescription {
        r#type: "Network".to_owned(),
        name: "network".to_owned(),
    };
    node.description = Some(Arc::new(v1::NodeDescription {
        engine: Some(v1::EngineDescription {
            plugins: if index.is_multiple_of(3) {
                vec![plugin]
            } else {
                Vec::new()
            },
            ..Default::default()
        }),
        resources: Some(v1::Resources {
            nano_cpus: 1_000_000_000_000,
            memory_bytes: 1 << 50,
            ..Default::default()
        }),
        ..Default::default()
    }));
    node
}

fn task_spec(shape: &str) -> v1::TaskSpec {
    let mut spec = v1::TaskSpec {
        runtime: Some(v1::task_spec::Runtime::Container(
            v1::ContainerSpec::default(),
        )),
        ..Default::default()
    };
    let mut placement = v1::Placement::default();
    if matches!(shape, "constraint" | "spread") {
        placement
            .constraints
            .push("node.labels.disk == ssd".to_owned());
        spec.resources = Some(v1::ResourceRequirements {
            reservations: Some(v1::Resources {
                nano_cpus: 1_000_000,
                memory_bytes: 1 << 20,
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    if shape == "spread" {
        let spread = v1::SpreadOver {
            spread_descriptor: "node.labels.az".to_owned(),
        };
        placement.preferences.push(v1::PlacementPreference {
            preference: Some(v1::placement_preference::Preference::Spread(spread)),
        });
    }
    spec.placement = Some(placement);
    spec
}

fn task(id: Id, index: usize, shape: &str, shared: &Arc<v1::TaskSpec>) -> Task {
    let is_one_off = matches!(shape, "oneoff" | "plugin");
    let spec = if is_one_off {
        Arc::new(task_spec(shape))
    } else {
        Arc::clone(shared)
    };
    let status = TaskStatus::new(TaskState::Pending, Timestamp::EPOCH, "created");
    let mut task = Task::new(id.into(), spec).with_states(status, TaskState::Running);
    if is_one_off {
        task.service_annotations = Arc::new(v1::Annotations {
            name: format!("task{index}"),
            ..Default::default()
        });
    } else {
        task.service_id = Some("service".parse().expect("an id"));
        task.spec_version = Some(Version(1));
        task.slot = Slot(index as u64 + 1);
    }
    if shape == "plugin" {
        let driver = v1::Driver {
            name: "network".to_owned(),
            ..Default::default()
        };
        task.networks.push(v1::NetworkAttachment {
            network: Some(v1::Network {
                driver_state: Some(driver),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    task
}
