//! Worlds as text. Each line makes or changes one object:
//!
//! ```text
//! node n1 down drain cpu=2 mem=64 generic=ssd=4;gpu=a label.disk=ssd engine.storage=zfs
//!         os=linux arch=amd64 plugin=Network:weave noengine ip=10.0.0.1 host=web
//! service s1 v=2 global
//! task t1..t3 s1 v=1 pending desired=shutdown on=n1 cpu=2 mem=64 generic=ssd=1 max=1
//!         where=node.labels.disk==ssd platform=linux/amd64 port=80/tcp spread=node.labels.az
//!         image=host net=weave log=fluentd volume=rexray cluster-volume
//! remove task t1
//! wait 300000
//! ```
//!
//! CPUs are whole, memory is in bytes, times are in milliseconds.

use std::fmt::Write as _;
use std::sync::Arc;

use swarm_api::v1;
use swarm_reconcile::{Batch, Outcome, Queue};
use swarm_store::{Commit, Root, Transaction, Write};
use swarm_types::conditions;
use swarm_types::{
    Id, IdSource, Kind, Node, NodeId, NodeState, Service, ServiceId, ServiceSpec, Task, TaskId,
    TaskState, TaskStatus, Timestamp, Version, resources,
};

use super::twin;
use crate::Scheduler;

/// Transactions until a world has to be at rest.
const TRANSACTIONS_MAX: usize = 1_000;

pub(crate) struct NoIds;
impl IdSource for NoIds {
    fn next_id(&mut self) -> Id {
        Id::min()
    }
}

pub(crate) struct World {
    pub(crate) root: Root,
    pub(crate) now: Timestamp,
    pub(crate) queue: Queue<Scheduler>,
}

/// Runs a world and compares what the scheduler wrote.
#[track_caller]
pub(crate) fn check(world: &str, expected: &str) {
    check_phases(&[(world, expected)]);
}

/// Changes a world and runs it, again and again.
#[track_caller]
pub(crate) fn check_phases(phases: &[(&str, &str)]) {
    let mut world = World::new();
    for (number, (lines, expected)) in phases.iter().enumerate() {
        world.apply(lines);
        let expected: Vec<&str> = expected.lines().map(str::trim).collect();
        let expected = expected.join("\n");
        assert_eq!(world.run().trim(), expected.trim(), "phase {number}");
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::over(Root::default())
    }

    pub(crate) fn over(root: Root) -> Self {
        Self::with_scheduler(root, Scheduler::new())
    }

    pub(crate) fn with_scheduler(root: Root, scheduler: Scheduler) -> Self {
        Self {
            queue: Queue::new(scheduler, &root),
            now: Timestamp::from_millis(1_000),
            root,
        }
    }

    /// A scheduler on a new leader.
    pub(crate) fn restart(&mut self) {
        self.queue = Queue::new(Scheduler::new(), &self.root);
    }

    /// Applies lines in one transaction.
    pub(crate) fn apply(&mut self, lines: &str) {
        let mut transaction = self.root.begin(self.now);
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            if let Some(millis) = line.strip_prefix("wait ") {
                let nanos = self.now.as_nanos() + millis.parse::<i64>().unwrap() * 1_000_000;
                self.now = Timestamp::from_nanos(nanos);
                continue;
            }
            apply_line(&mut transaction, line);
        }
        let (root, commit) = transaction.finish();
        self.take(root, &commit);
    }

    fn take(&mut self, root: Root, commit: &Commit) {
        self.root = root;
        self.queue.handle_commit(commit, &self.root);
        self.queue.reconciler().check_cache(&self.root).unwrap();
    }

    pub(crate) fn poll(&mut self) -> Option<Batch> {
        self.queue.handle_timeout(self.now);
        self.queue
            .poll_transaction(&self.root, self.now, &mut NoIds)
    }

    /// Commits a batch and returns what it did, one line for each task.
    pub(crate) fn commit(&mut self, batch: &Batch) -> String {
        let mut transaction = self.root.begin(self.now);
        let mut refused = Vec::new();
        for (index, set) in batch.sets.iter().enumerate() {
            if transaction.apply_set(set).is_err() {
                refused.push(index);
            } else if let Some(Write::Update(object)) = set.0.last()
                && let Some(task) = <Task as swarm_types::Object>::from_any(object)
                && task.state() == TaskState::Assigned
            {
                twin::check_placed(&transaction, &task.id);
            }
        }
        let (root, commit) = transaction.finish();
        let version = commit.version;
        let mut did = String::new();
        for change in &commit.changes {
            let task = <Task as swarm_types::Object>::from_any(&change.object).unwrap();
            describe(task, &mut did);
        }
        self.take(root, &commit);
        self.queue
            .handle_outcome(&Outcome::Committed { version, refused });
        did
    }

    /// Lets time pass until nothing is left to do; sorted, as the order of writes is no promise.
    pub(crate) fn run(&mut self) -> String {
        let mut did = String::new();
        for _ in 0..TRANSACTIONS_MAX {
            if let Some(batch) = self.poll() {
                assert!(batch.sets.len() <= swarm_store::TRANSACTION_CHANGES_MAX);
                did += &self.commit(&batch);
            } else if let Some(wake) = self.queue.poll_timeout() {
                self.now = self.now.max(wake.at);
            } else {
                let mut lines: Vec<&str> = did.lines().collect();
                lines.sort_unstable();
                return lines.join("\n");
            }
        }
        panic!("the scheduler does not come to rest:\n{did}");
    }

    pub(crate) fn task(&self, id: &str) -> &Task {
        self.root.task(&id.parse().unwrap()).unwrap()
    }
}

fn describe(task: &Task, did: &mut String) {
    let status = task.status();
    match (task.state(), &task.node_id) {
        (TaskState::Assigned, Some(node)) => {
            let how = match status.message.as_str() {
                "scheduler assigned task to node" => "->",
                "scheduler confirmed task can run on preassigned node" => "=>",
                other => other,
            };
            write!(did, "{} {how} {node}", task.id).unwrap();
            let claimed = resources::to_text(&task.assigned_generic_resources);
            if !claimed.is_empty() {
                write!(did, " with {claimed}").unwrap();
            }
            assert_eq!(status.err.as_str(), "");
            writeln!(did).unwrap();
        }
        (TaskState::Pending, _) => writeln!(did, "{}: {}", task.id, &*status.err).unwrap(),
        (state, _) => writeln!(did, "{} {state}", task.id).unwrap(),
    }
}

fn apply_line(transaction: &mut Transaction, line: &str) {
    let mut words = line.split_whitespace();
    let verb = words.next().unwrap();
    let name = words.next().unwrap();
    let words: Vec<&str> = words.collect();
    match verb {
        "node" => apply_node(transaction, name, &words),
        "service" => apply_service(transaction, name, &words),
        "task" => {
            for id in names(name) {
                apply_task(transaction, &id, &words);
            }
        }
        "remove" => {
            let kind = match name {
                "node" => Kind::Node,
                "service" => Kind::Service,
                "task" => Kind::Task,
                other => panic!("remove what? {other}"),
            };
            for id in names(words[0]) {
                transaction.delete(kind, &id.parse().unwrap()).unwrap();
            }
        }
        other => panic!("unknown line: {other}"),
    }
}

/// `t1..t3` is t1, t2 and t3; numbers are padded to equal length.
fn names(range: &str) -> Vec<String> {
    let Some((first, last)) = range.split_once("..") else {
        return vec![range.to_owned()];
    };
    let prefix = last.trim_end_matches(|char: char| char.is_ascii_digit());
    let number = |name: &str| name[prefix.len()..].parse::<usize>().unwrap();
    let width = last.len() - prefix.len();
    (number(first)..=number(last))
        .map(|number| format!("{prefix}{number:0width$}"))
        .collect()
}

fn apply_node(transaction: &mut Transaction, name: &str, words: &[&str]) {
    let id: NodeId = name.parse().unwrap();
    let known = transaction.node(&id).cloned();
    let mut node = known
        .as_ref()
        .map_or_else(|| new_node(id), |node| (**node).clone());
    let mut spec = (*node.spec).clone();
    let mut description = node.description.as_deref().cloned().unwrap_or_default();
    for word in words {
        node_word(word, &mut node, &mut spec, &mut description);
    }
    node.spec = Arc::new(spec);
    node.description = Some(Arc::new(description));
    match known {
        Some(_) => transaction.update(node).unwrap(),
        None => transaction.create(node).unwrap(),
    }
}

fn new_node(id: NodeId) -> Node {
    let mut node = Node::new(id, v1::NodeSpec::default());
    node.status.state = NodeState::Ready;
    let engine = v1::EngineDescription::default();
    node.description = Some(Arc::new(v1::NodeDescription {
        engine: Some(engine),
        ..Default::default()
    }));
    node
}

fn node_word(
    word: &str,
    node: &mut Node,
    spec: &mut v1::NodeSpec,
    description: &mut v1::NodeDescription,
) {
    use v1::node_spec::Availability;
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    let resources = description.resources.get_or_insert_default();
    let platform = description.platform.clone().unwrap_or_default();
    match key {
        "ready" => node.status.state = NodeState::Ready,
        "down" => node.status.state = NodeState::Down,
        "unknown" => node.status.state = NodeState::Unknown,
        "active" => spec.availability = Availability::Active as i32,
        "pause" => spec.availability = Availability::Pause as i32,
        "drain" => spec.availability = Availability::Drain as i32,
        "manager" => node.role = v1::NodeRole::Manager,
        "addr" => node.status.message = value.to_owned().into(),
        "ip" => value.clone_into(&mut node.status.addr),
        "host" => value.clone_into(&mut description.hostname),
        "cpu" => resources.nano_cpus = value.parse::<i64>().unwrap() * 1_000_000_000,
        "mem" => resources.memory_bytes = value.parse().unwrap(),
        "generic" => resources.generic = resources::parse(&value.replace(';', ",")).unwrap(),
        "os" => {
            let os = value.to_owned();
            description.platform = Some(v1::Platform { os, ..platform });
        }
        "arch" => {
            let architecture = value.to_owned();
            description.platform = Some(v1::Platform {
                architecture,
                ..platform
            });
        }
        "condition" => {
            let kinds = conditions::Kind::ALL.into_iter();
            let kind = { kinds }.find(|kind| kind.name() == value).unwrap();
            conditions::add(description, kind, &format!("the {value} is bad"));
        }
        "well" => conditions::clear(description),
        "noengine" => description.engine = None,
        "plugin" => {
            let (kind, name) = value.split_once(':').unwrap();
            let engine = description.engine.get_or_insert_default();
            engine.plugins.push(v1::PluginDescription {
                r#type: kind.to_owned(),
                name: name.to_owned(),
            });
        }
        other => {
            let (scope, label) = other.split_once('.').unwrap();
            let labels = match scope {
                "label" => &mut spec.annotations.get_or_insert_default().labels,
                "engine" => &mut description.engine.get_or_insert_default().labels,
                other => panic!("unknown word about a node: {other}"),
            };
            labels.insert(label.to_owned(), value.to_owned());
        }
    }
}

fn apply_service(transaction: &mut Transaction, name: &str, words: &[&str]) {
    use v1::service_spec::Mode;
    let mode = if words.contains(&"global") {
        Mode::Global(v1::GlobalService::default())
    } else {
        Mode::Replicated(v1::ReplicatedService::default())
    };
    let wire = v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        mode: Some(mode),
        ..Default::default()
    };
    let id: ServiceId = name.parse().unwrap();
    let known = transaction.service(&id).cloned();
    let mut service = Service::new(id, ServiceSpec::new(wire));
    for word in words {
        if let Some(version) = word.strip_prefix("v=") {
            service.spec_version = Some(Version(version.parse().unwrap()));
        }
    }
    match known {
        Some(known) => {
            service.meta = known.meta;
            transaction.update(service).unwrap();
        }
        None => transaction.create(service).unwrap(),
    }
}

fn apply_task(transaction: &mut Transaction, name: &str, words: &[&str]) {
    let id: TaskId = name.parse().unwrap();
    let known = transaction.task(&id).cloned();
    let mut task = known.as_ref().map_or_else(
        || {
            let pending = TaskStatus::new(TaskState::Pending, Timestamp::EPOCH, "created");
            Task::new(id, Arc::default()).with_states(pending, TaskState::Running)
        },
        |task| (**task).clone(),
    );
    let mut spec = (*task.spec).clone();
    for word in words {
        task_word(word, &mut task, &mut spec);
    }
    task.spec = Arc::new(spec);
    match known {
        Some(_) => transaction.update(task).unwrap(),
        None => transaction.create(task).unwrap(),
    }
}

fn task_word(word: &str, task: &mut Task, spec: &mut v1::TaskSpec) {
    let state = |text: &str| {
        let mut states = swarm_types::state::ALL.into_iter();
        states.find(|state| state.name() == text)
    };
    let (key, value) = word.split_once('=').unwrap_or((word, ""));
    match key {
        "v" => task.spec_version = Some(Version(value.parse().unwrap())),
        "on" => task.node_id = Some(value.parse().unwrap()),
        "desired" => task.set_desired(state(value).unwrap()).unwrap(),
        "has" => {
            task.assigned_generic_resources = resources::parse(&value.replace(';', ",")).unwrap();
        }
        "net" => {
            let attachment = v1::NetworkAttachment {
                network: Some(v1::Network {
                    driver_state: Some(v1::Driver {
                        name: value.to_owned(),
                        ..Default::default()
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            };
            let before = task.networks.iter().cloned();
            task.networks = before.chain([attachment]).collect();
        }
        "port" => {
            use v1::port_config::{Protocol, PublishMode};
            let (port, protocol) = value.split_once('/').unwrap();
            let mut endpoint = task.endpoint.as_deref().cloned().unwrap_or_default();
            endpoint.ports.push(v1::PortConfig {
                published_port: port.parse().unwrap(),
                protocol: if protocol == "udp" {
                    Protocol::Udp
                } else {
                    Protocol::Tcp
                } as i32,
                publish_mode: if protocol == "ingress" {
                    PublishMode::Ingress
                } else {
                    PublishMode::Host
                } as i32,
                ..Default::default()
            });
            task.endpoint = Some(Arc::new(endpoint));
        }
        other if state(other).is_some() => {
            let status = TaskStatus {
                state: state(other).unwrap(),
                ..task.status().clone()
            };
            task.advance(status).unwrap();
        }
        other if spec_word(other, value, spec) => {}
        service => task.service_id = Some(service.parse().unwrap()),
    }
}

fn spec_word(key: &str, value: &str, spec: &mut v1::TaskSpec) -> bool {
    match key {
        "cpu" => reservations(spec).nano_cpus = value.parse::<i64>().unwrap() * 1_000_000_000,
        "mem" => reservations(spec).memory_bytes = value.parse().unwrap(),
        "generic" => {
            reservations(spec).generic = resources::parse(&value.replace(';', ",")).unwrap();
        }
        "where" => {
            let placement = spec.placement.get_or_insert_default();
            placement.constraints.push(value.to_owned());
        }
        "max" => spec.placement.get_or_insert_default().max_replicas = value.parse().unwrap(),
        "image" => {
            let container = v1::ContainerSpec {
                image: value.to_owned(),
                ..Default::default()
            };
            spec.runtime = Some(v1::task_spec::Runtime::Container(container));
        }
        "platform" => {
            let (os, architecture) = value.split_once('/').unwrap();
            let placement = spec.placement.get_or_insert_default();
            placement.platforms.push(v1::Platform {
                os: os.to_owned(),
                architecture: architecture.to_owned(),
            });
        }
        "spread" => {
            use v1::placement_preference::Preference;
            let placement = spec.placement.get_or_insert_default();
            placement.preferences.push(v1::PlacementPreference {
                preference: Some(Preference::Spread(v1::SpreadOver {
                    spread_descriptor: value.to_owned(),
                })),
            });
        }
        "log" => {
            spec.log_driver = Some(v1::Driver {
                name: value.to_owned(),
                ..Default::default()
            });
        }
        "volume" => {
            let options = v1::mount::VolumeOptions {
                driver_config: Some(v1::Driver {
                    name: value.to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            mount(spec, v1::mount::Type::Volume, Some(options));
        }
        "cluster-volume" => mount(spec, v1::mount::Type::Cluster, None),
        _ => return false,
    }
    true
}

fn reservations(spec: &mut v1::TaskSpec) -> &mut v1::Resources {
    let resources = spec.resources.get_or_insert_default();
    resources.reservations.get_or_insert_default()
}

fn mount(
    spec: &mut v1::TaskSpec,
    kind: v1::mount::Type,
    volume_options: Option<v1::mount::VolumeOptions>,
) {
    use v1::task_spec::Runtime;
    let mut container = swarm_types::spec::container(spec)
        .cloned()
        .unwrap_or_default();
    container.mounts.push(v1::Mount {
        r#type: kind as i32,
        volume_options,
        ..Default::default()
    });
    spec.runtime = Some(Runtime::Container(container));
}
