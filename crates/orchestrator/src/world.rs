//! Worlds as text, for table tests. Owns the notation:
//!
//! ```text
//! cluster keep=5
//! node n1 down drain k=v cpu=4 memory=100 gpu=2 at=0
//! service web replicas=2 restart=any delay=5000 attempts=1 window=1000 version=1 rollback
//! service agent global constraint=node.labels.k==v cpu=1 memory=1 grace=90000
//! task t1 web.1 failed/running on=n1 created=0 at=1000 version=1 gpu=1
//! task t2 -.0 orphaned/running
//! ```
//!
//! A task has `observed/desired`; times are in milliseconds and default to 0.

use std::cell::Cell;
use std::collections::BTreeSet;

use swarm_api::{prost_types, v1};
use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Commit, Root, Write};
use swarm_types::state::ALL;
use swarm_types::{
    AnyObject, Cluster, Id, IdSource, Node, NodeState, Service, ServiceSpec, Slot, Task, TaskState,
    TaskStatus, Timestamp, Version, resources, time,
};

thread_local! {
    static READS: Cell<usize> = const { Cell::new(0) };
}

/// Counts tasks that a loop read from the store.
pub(crate) fn count_reads(tasks: usize) {
    READS.set(READS.get() + tasks);
}

/// Tasks read since the last call.
pub(crate) fn take_reads() -> usize {
    READS.replace(0)
}

/// Ids `new000000001`, `new000000002`, …
#[derive(Default)]
pub(crate) struct Ids(u64);

impl Ids {
    /// Goes on after the ids that another source gave.
    pub(crate) fn starting(number: u64) -> Self {
        Self(number)
    }
}

impl IdSource for Ids {
    fn next_id(&mut self) -> Id {
        self.0 += 1;
        format!("new{:09}", self.0).parse().unwrap()
    }
}

pub(crate) fn ms(millis: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(millis).unwrap())
}

/// The words of a line after its name.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn has(&self, word: &str) -> bool {
        self.0.contains(&word)
    }
    fn value(&self, key: &str) -> Option<&'a str> {
        let pairs = self.0.iter().filter_map(|word| word.split_once('='));
        pairs
            .filter(|(name, _)| *name == key)
            .map(|(_, value)| value)
            .next()
    }
    fn number(&self, key: &str) -> Option<u64> {
        self.value(key).map(|value| value.parse().unwrap())
    }
    fn duration(&self, key: &str) -> Option<prost_types::Duration> {
        let millis = self.number(key)?;
        Some(time::duration_to_wire(std::time::Duration::from_millis(
            millis,
        )))
    }
    fn resources(&self) -> v1::Resources {
        let amount = |key| i64::try_from(self.number(key).unwrap_or(0)).unwrap();
        v1::Resources {
            nano_cpus: amount("cpu"),
            memory_bytes: amount("memory"),
            generic: self.generic(),
        }
    }
    fn generic(&self) -> Vec<v1::GenericResource> {
        let gpu = self.value("gpu").map(|gpu| format!("gpu={gpu}"));
        resources::parse(&gpu.unwrap_or_default()).unwrap()
    }
}

/// Reads a world.
pub(crate) fn world(text: &str) -> Root {
    let mut root = Root::default();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        root = put(&root, line).0;
    }
    root
}

/// Creates or replaces the object of a line.
pub(crate) fn put(root: &Root, line: &str) -> (Root, Commit) {
    let mut words = line.split_whitespace();
    let (kind, name) = (words.next().unwrap(), words.next().unwrap());
    let words = Words(words.collect());
    let at = ms(words.number("created").unwrap_or(0));
    let mut transaction = root.begin(at);
    let object: AnyObject = match kind {
        "cluster" => cluster(&Words(vec![name])).into(),
        "node" => node(name, &words).into(),
        "service" => service(name, &words).into(),
        "task" => task(root, name, &words).into(),
        other => panic!("no such kind: {other}"),
    };
    match root.get_any(object.kind(), object.raw_id()) {
        None => transaction.create(object).unwrap(),
        Some(old) => transaction
            .update(with_version(object, old.meta().version))
            .unwrap(),
    }
    transaction.finish()
}

/// The object as an update of the stored version.
pub(crate) fn with_version(object: AnyObject, version: Version) -> AnyObject {
    macro_rules! stamped {
        ($object:ident) => {{
            let mut object = (*$object).clone();
            object.meta.version = version;
            object.into()
        }};
    }
    match object {
        AnyObject::Cluster(object) => stamped!(object),
        AnyObject::Node(object) => stamped!(object),
        AnyObject::Service(object) => stamped!(object),
        AnyObject::Task(object) => stamped!(object),
        AnyObject::Network(_)
        | AnyObject::Secret(_)
        | AnyObject::Resource(_)
        | AnyObject::Extension(_)
        | AnyObject::Config(_)
        | AnyObject::Volume(_) => unreachable!("no line makes one"),
    }
}

fn cluster(words: &Words<'_>) -> Cluster {
    let mut spec = swarm_types::defaults::cluster_spec();
    let orchestration = spec.orchestration.get_or_insert_default();
    orchestration.task_history_retention_limit = words.value("keep").unwrap().parse().unwrap();
    Cluster::new("cluster".parse().unwrap(), spec)
}

fn node(name: &str, words: &Words<'_>) -> Node {
    use v1::node_spec::Availability;
    let availability = if words.has("drain") {
        Availability::Drain
    } else if words.has("pause") {
        Availability::Pause
    } else {
        Availability::Active
    };
    let mut spec = v1::NodeSpec {
        availability: availability as i32,
        ..Default::default()
    };
    if let Some(label) = words.value("k") {
        let labels = &mut spec.annotations.get_or_insert_default().labels;
        labels.insert("k".to_owned(), label.to_owned());
    }
    let mut node = Node::new(name.parse().unwrap(), spec);
    node.description = Some(std::sync::Arc::new(v1::NodeDescription {
        resources: Some(words.resources()),
        engine: words.value("plugin").map(plugin),
        ..Default::default()
    }));
    if words.has("manager") {
        node.role = v1::NodeRole::Manager;
    }
    let states = [
        ("down", NodeState::Down),
        ("unknown", NodeState::Unknown),
        ("disconnected", NodeState::Disconnected),
    ];
    let state = states.into_iter().find(|(word, _)| words.has(word));
    node.status.state = state.map_or(NodeState::Ready, |(_, state)| state);
    node
}

fn service(name: &str, words: &Words<'_>) -> Service {
    use v1::service_spec::Mode;
    let mode = if words.has("global") {
        Mode::Global(v1::GlobalService::default())
    } else {
        Mode::Replicated(v1::ReplicatedService {
            replicas: words.number("replicas").unwrap_or(1),
        })
    };
    let wire = v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        task: Some(template(words)),
        mode: Some(mode),
        ..Default::default()
    };
    let mut service = Service::new(name.parse().unwrap(), ServiceSpec::new(wire));
    service.spec_version = words.number("version").map(Version);
    service.update_status = words.has("rollback").then(|| {
        Box::new(v1::UpdateStatus {
            state: v1::update_status::UpdateState::RollbackStarted as i32,
            ..Default::default()
        })
    });
    service
}

/// An engine with one plugin, as `type:name`.
fn plugin(text: &str) -> v1::EngineDescription {
    let (kind, name) = text.split_once(':').unwrap();
    v1::EngineDescription {
        plugins: vec![v1::PluginDescription {
            r#type: kind.to_owned(),
            name: name.to_owned(),
        }],
        ..Default::default()
    }
}

fn template(words: &Words<'_>) -> v1::TaskSpec {
    use v1::restart_policy::RestartCondition;
    let restart = words.value("restart").map(|condition| v1::RestartPolicy {
        condition: match condition {
            "none" => RestartCondition::None,
            "on-failure" => RestartCondition::OnFailure,
            _ => RestartCondition::Any,
        } as i32,
        delay: words.duration("delay"),
        max_attempts: words.number("attempts").unwrap_or(0),
        window: words.duration("window"),
    });
    let constraint = words
        .0
        .iter()
        .find_map(|word| word.strip_prefix("constraint="));
    let (grace, image) = (words.duration("grace"), words.value("image"));
    let runtime = (grace.is_some() || image.is_some()).then(|| {
        v1::task_spec::Runtime::Container(v1::ContainerSpec {
            image: image.unwrap_or_default().to_owned(),
            stop_grace_period: grace,
            ..Default::default()
        })
    });
    v1::TaskSpec {
        restart,
        runtime,
        placement: constraint.map(|constraint| v1::Placement {
            constraints: vec![constraint.to_owned()],
            ..Default::default()
        }),
        resources: Some(v1::ResourceRequirements {
            reservations: Some(words.resources()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn task(root: &Root, name: &str, words: &Words<'_>) -> Task {
    let (service, slot) = words.0[0].split_once('.').unwrap();
    let service = root.service(&service.parse().unwrap());
    let spec = service.map_or_else(Default::default, |service| service.spec.task().clone());
    let (state, desired) = words.0[1].split_once('/').unwrap();
    let at = words.number("at").or_else(|| words.number("created"));
    let status = TaskStatus::new(state_of(state), ms(at.unwrap_or(0)), "");
    let mut task = Task::new(name.parse().unwrap(), spec).with_states(status, state_of(desired));
    task.service_id = match words.0[0].split_once('.').unwrap().0 {
        "-" => None,
        service => Some(service.parse().unwrap()),
    };
    task.slot = Slot(slot.parse().unwrap());
    task.node_id = words.value("on").map(|node| node.parse().unwrap());
    task.spec_version = words.number("version").map(Version);
    task.assigned_generic_resources = words.generic();
    task
}

fn state_of(name: &str) -> TaskState {
    ALL.into_iter().find(|state| state.name() == name).unwrap()
}

/// Every decision of a loop that starts from this world, as text.
pub(crate) fn decide<R: Reconciler>(mut reconciler: R, root: &Root, now: u64) -> String {
    let mut dirty = BTreeSet::new();
    reconciler.resync(root, &mut dirty);
    decide_keys(&reconciler, root, dirty, now)
}

/// The decisions about some keys.
pub(crate) fn decide_keys<R: Reconciler>(
    reconciler: &R,
    root: &Root,
    keys: BTreeSet<R::Key>,
    now: u64,
) -> String {
    let mut ids = Ids::default();
    let mut text = String::new();
    for key in keys {
        let mut ctx = Ctx {
            now: ms(now),
            ids: &mut ids,
        };
        text.push_str(&render(root, &reconciler.reconcile(root, &key, &mut ctx)));
    }
    text
}

fn render(root: &Root, step: &Step) -> String {
    let mut text = String::new();
    for write in step.sets.iter().flat_map(|set| &set.0) {
        match write {
            Write::Create(AnyObject::Task(task)) => text.push_str(&format!(
                "create {} {}\n",
                swarm_types::naming::replica_name(task),
                task.desired_state()
            )),
            Write::Update(AnyObject::Task(task)) => text.push_str(&update(root, task)),
            Write::Delete { id, .. } => text.push_str(&format!("delete {id}\n")),
            Write::Require { .. } => {}
            Write::Create(_) | Write::Update(_) => panic!("loops here write tasks only"),
        }
    }
    if let Some(wake) = step.wake {
        let at = wake.at.as_nanos() / 1_000_000;
        text.push_str(&format!("wake {at} {}\n", wake.why));
    }
    if step.more {
        text.push_str("more\n");
    }
    text
}

fn update(root: &Root, task: &Task) -> String {
    let old = root.task(&task.id).unwrap();
    let mut text = format!("update {}", task.id);
    if old.desired_state() != task.desired_state() {
        text.push_str(&format!(" desired={}", task.desired_state()));
    }
    if old.state() != task.state() {
        text.push_str(&format!(" state={} ({})", task.state(), task.status().err));
    }
    text + "\n"
}

/// Checks every decision of a loop that starts from this world, at a time in milliseconds. Lines
/// of both texts may be indented.
#[track_caller]
pub(crate) fn check<R: Reconciler + Default>(text: &str, now: u64, expected: &str) {
    let decided = decide(R::default(), &world(text), now);
    assert_eq!(decided, lines(expected), "at {now} ms in:\n{text}");
}

fn lines(text: &str) -> String {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.map(|line| format!("{line}\n")).collect()
}

/// Shows a commit to a loop.
pub(crate) fn observe<R: Reconciler>(
    reconciler: &mut R,
    root: &Root,
    commit: &Commit,
) -> BTreeSet<R::Key> {
    let mut dirty = BTreeSet::new();
    for change in &commit.changes {
        reconciler.observe(change, root, &mut dirty);
    }
    dirty
}

/// The commit that deletes an object.
pub(crate) fn remove(root: &Root, object: &AnyObject) -> (Root, Commit) {
    let mut transaction = root.begin(ms(0));
    transaction.delete(object.kind(), object.raw_id()).unwrap();
    transaction.finish()
}
