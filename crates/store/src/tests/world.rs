//! Objects for tests, and comparisons of whole roots.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{
    AnyObject, Cluster, Config, Extension, Id, Kind, Network, Node, Resource, Secret, Service,
    ServiceId, ServiceSpec, Slot, Task, TaskId, TaskState, TaskStatus, Timestamp, Version, Volume,
};

use crate::root::{HasTable, Root};
use crate::tables::{Stored, Table};

macro_rules! each_table {
    ($check:ident, $($argument:expr),*) => {
        $check::<Node>($($argument),*);
        $check::<Service>($($argument),*);
        $check::<Task>($($argument),*);
        $check::<Network>($($argument),*);
        $check::<Cluster>($($argument),*);
        $check::<Secret>($($argument),*);
        $check::<Resource>($($argument),*);
        $check::<Extension>($($argument),*);
        $check::<Config>($($argument),*);
        $check::<Volume>($($argument),*);
    };
}

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

pub(crate) fn id(text: &str) -> Id {
    text.parse().unwrap()
}

pub(crate) fn named(name: &str) -> v1::Annotations {
    v1::Annotations {
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn node(id: Id, hostname: &str) -> Node {
    let mut node = Node::new(id.into(), v1::NodeSpec::default());
    node.description = Some(Arc::new(v1::NodeDescription {
        hostname: hostname.to_owned(),
        ..Default::default()
    }));
    node
}

pub(crate) fn service(id: Id, name: &str) -> Service {
    let spec = v1::ServiceSpec {
        annotations: Some(named(name)),
        ..Default::default()
    };
    Service::new(id.into(), ServiceSpec::new(spec))
}

pub(crate) fn task(id: Id, slot: u64) -> Task {
    let mut task = Task::new(TaskId::new(id), Arc::default());
    task.slot = Slot(slot);
    task
}

/// Digits of a number, one per question, so that a proptest can shrink an object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        let rolled = self.0 % sides;
        self.0 /= sides;
        rolled
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.roll(from.len() as u64)).unwrap()]
    }
}

/// Ids: canonical ones that share beginnings, and free-form ones, among them one with a dot and
/// one that needs care with its case.
pub(crate) const IDS: [&str; 6] = [
    "aaaaaaaaaaaaaaaaaaaaaaaa1",
    "aaaaaaaaaaaaaaaaaaaaaaaa2",
    "aabaaaaaaaaaaaaaaaaaaaaa3",
    "zzzzzzzzzzzzzzzzzzzzzzzzz",
    "aa-free.form",
    "Upper",
];
/// Names that differ by case, begin alike, are reserved, or are absent.
pub(crate) const NAMES: [&str; 7] = ["", "web", "WEB", "Web-2", "straße", "task", "db"];
pub(crate) const VALUES: [&str; 4] = ["", "one", "ONE", "one-two"];

fn annotations(dice: &mut Dice) -> v1::Annotations {
    let indices = (0..dice.roll(3))
        .map(|_| v1::IndexEntry {
            key: dice.pick(&["k", "K", "other"]).to_owned(),
            val: dice.pick(&VALUES).to_owned(),
        })
        .collect();
    v1::Annotations {
        indices,
        ..named(dice.pick(&NAMES))
    }
}

fn maybe_id<T: From<Id>>(dice: &mut Dice) -> Option<T> {
    let rolled = usize::try_from(dice.roll(IDS.len() as u64 + 1)).unwrap();
    IDS.get(rolled).map(|text| T::from(id(text)))
}

fn task_spec(dice: &mut Dice) -> v1::TaskSpec {
    let reference = |dice: &mut Dice| dice.pick(&IDS).to_owned();
    let container = v1::ContainerSpec {
        image: dice.pick(&["", "host", "other"]).to_owned(),
        secrets: (0..dice.roll(3))
            .map(|_| v1::SecretReference {
                secret_id: reference(dice),
                ..Default::default()
            })
            .collect(),
        configs: (0..dice.roll(2))
            .map(|_| v1::ConfigReference {
                config_id: reference(dice),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    };
    v1::TaskSpec {
        runtime: Some(v1::task_spec::Runtime::Container(container)),
        networks: (0..dice.roll(3))
            .map(|_| v1::NetworkAttachmentConfig {
                target: reference(dice),
                ..Default::default()
            })
            .collect(),
        resource_references: (0..dice.roll(2))
            .map(|_| v1::ResourceReference {
                resource_id: reference(dice),
                resource_type: dice.pick(&[0, 1, 2]),
            })
            .collect(),
        ..Default::default()
    }
}

const OBSERVED: [TaskState; 4] = [
    TaskState::New,
    TaskState::Running,
    TaskState::Failed,
    TaskState::Orphaned,
];
const DESIRED: [TaskState; 3] = [TaskState::Ready, TaskState::Running, TaskState::Remove];

fn random_task(id: Id, dice: &mut Dice) -> Task {
    let state = dice.pick(&OBSERVED);
    let mut status = TaskStatus::new(state, NOW, dice.pick(&["started", "odd", ""]));
    status.err = dice.pick(&["", "no"]).into();
    status.applied_at = Some(Timestamp::from_nanos(-1)).filter(|_| dice.roll(2) == 0);
    status.applied_by = maybe_id(dice);
    status.container = (dice.roll(2) == 0).then(|| {
        Box::new(v1::ContainerStatus {
            container_id: dice.pick(&["", "c"]).repeat(64),
            pid: dice.pick(&[0, 1, -1]),
            exit_code: dice.pick(&[0, 137, -1]),
        })
    });
    status.ports = (dice.roll(2) == 0).then(Box::default);
    let mut task = task(id, dice.roll(3)).with_states(status, dice.pick(&DESIRED));
    task.spec = Arc::new(task_spec(dice));
    task.service_id = maybe_id(dice);
    task.node_id = maybe_id(dice);
    // Empty annotations are none once they were written and read.
    task.annotations = Some(annotations(dice))
        .filter(|own| *own != v1::Annotations::default())
        .map(Box::new);
    task.service_annotations = Arc::new(named(dice.pick(&NAMES)));
    task.spec_version = Some(Version(dice.roll(300))).filter(|_| dice.roll(2) == 0);
    task.job_iteration = Some(Version(0)).filter(|_| dice.roll(2) == 0);
    task.endpoint = (dice.roll(2) == 0).then(Arc::default);
    task.log_driver = (dice.roll(2) == 0).then(Arc::default);
    task.networks = (0..dice.roll(2))
        .map(|_| v1::NetworkAttachment {
            network: Some(v1::Network {
                id: dice.pick(&IDS).to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        })
        .collect();
    task.volumes = (0..dice.roll(2))
        .map(|_| v1::VolumeAttachment {
            id: dice.pick(&IDS).to_owned(),
            ..Default::default()
        })
        .collect();
    task.assigned_generic_resources = vec![v1::GenericResource::default(); dice.pick(&[0, 1, 2])];
    task
}

/// The next version of a task: some fields are those of another random task, the rest is shared.
pub(crate) fn touched_task(stored: &Task, mut dice: Dice) -> Task {
    let touches = dice.roll(1 << 8);
    let touches = |field: u32| touches & (1 << field) != 0;
    let other = random_task(stored.id.as_id().clone(), &mut dice);
    let mut task = stored.clone();
    if touches(0) {
        task.node_id.clone_from(&other.node_id);
    }
    if touches(1) {
        task = task.with_states(other.status().clone(), other.desired_state());
    }
    // Half of the time the body stays as it is.
    if touches(2) {
        return task;
    }
    if touches(3) {
        task.service_id.clone_from(&other.service_id);
    }
    if touches(4) {
        task.slot = other.slot;
    }
    if touches(5) {
        task.spec = Arc::clone(&other.spec);
    }
    if touches(6) {
        task.networks = Arc::clone(&other.networks);
        task.volumes.clone_from(&other.volumes);
    }
    if touches(7) {
        task.annotations.clone_from(&other.annotations);
    }
    task
}

fn random_service(id: Id, dice: &mut Dice) -> Service {
    let deprecated = v1::NetworkAttachmentConfig {
        target: dice.pick(&IDS).to_owned(),
        ..Default::default()
    };
    let spec = v1::ServiceSpec {
        annotations: Some(annotations(dice)),
        task: Some(task_spec(dice)),
        networks: vec![deprecated; dice.pick(&[0, 1])],
        ..Default::default()
    };
    Service::new(id.into(), ServiceSpec::new(spec))
}

fn random_node(id: Id, dice: &mut Dice) -> Node {
    let mut node = node(id, dice.pick(&NAMES));
    node.role = dice.pick(&[v1::NodeRole::Worker, v1::NodeRole::Manager]);
    node.spec = Arc::new(v1::NodeSpec {
        annotations: Some(annotations(dice)),
        membership: dice.pick(&[0, 1]),
        ..Default::default()
    });
    if dice.roll(3) == 0 {
        node.description = None;
    }
    node
}

fn random_volume(id: Id, dice: &mut Dice) -> Volume {
    let spec = v1::VolumeSpec {
        annotations: Some(annotations(dice)),
        group: dice.pick(&VALUES).to_owned(),
        driver: Some(v1::Driver {
            name: dice.pick(&VALUES).to_owned(),
            ..Default::default()
        })
        .filter(|_| dice.roll(2) == 0),
        ..Default::default()
    };
    Volume::new(id.into(), spec)
}

/// An object of any kind whose fields follow from the dice.
pub(crate) fn object(kind: Kind, id: Id, mut dice: Dice) -> AnyObject {
    let dice = &mut dice;
    match kind {
        Kind::Node => random_node(id, dice).into(),
        Kind::Service => random_service(id, dice).into(),
        Kind::Task => random_task(id, dice).into(),
        Kind::Network => Network::new(
            id.into(),
            v1::NetworkSpec {
                annotations: Some(annotations(dice)),
                ingress: dice.roll(4) == 0,
                ..Default::default()
            },
        )
        .into(),
        Kind::Cluster => Cluster::new(
            id.into(),
            v1::ClusterSpec {
                annotations: Some(named(dice.pick(&["default", "other"]))),
                ..Default::default()
            },
        )
        .into(),
        Kind::Secret => Secret::new(
            id.into(),
            v1::SecretSpec {
                annotations: Some(annotations(dice)),
                ..Default::default()
            },
        )
        .into(),
        Kind::Resource => {
            let mut resource = Resource::new(id.into(), annotations(dice));
            resource.kind = dice.pick(&VALUES).to_owned();
            resource.into()
        }
        Kind::Extension => Extension::new(id.into(), annotations(dice)).into(),
        Kind::Config => Config::new(
            id.into(),
            v1::ConfigSpec {
                annotations: Some(annotations(dice)),
                ..Default::default()
            },
        )
        .into(),
        Kind::Volume => random_volume(id, dice).into(),
    }
}

/// A root with some objects of each kind.
pub(crate) fn crowd(seeds: &[u64]) -> Root {
    let mut tx = Root::default().begin(NOW);
    for (index, seed) in seeds.iter().enumerate() {
        for kind in swarm_types::kind::ALL {
            // Names collide at times; what fits stays.
            drop(tx.create(object(kind, id(IDS[index % IDS.len()]), Dice(*seed))));
        }
    }
    tx.finish().0
}

/// The service of a sharing test and its tasks as a decoder would make them: each with a spec of
/// its own.
pub(crate) fn unshared_tasks(service: &ServiceId, count: usize) -> Vec<Task> {
    let spec = v1::TaskSpec {
        force_update: 3,
        ..Default::default()
    };
    let labels: BTreeMap<_, _> = [("k".to_owned(), "v".to_owned())].into();
    (0..count)
        .map(|index| {
            let mut task = task(id(&format!("task-{index}")), index as u64);
            task.spec = Arc::new(spec.clone());
            task.service_annotations = Arc::new(v1::Annotations {
                labels: labels.clone(),
                ..named("web")
            });
            task.service_id = Some(service.clone());
            task.spec_version = Some(Version(9));
            task
        })
        .collect()
}

/// Fails unless two roots hold the same version, objects and indices.
pub(crate) fn assert_same(one: &Root, two: &Root) {
    assert_eq!(one.version(), two.version());
    assert_same_tables(one, two);
}

pub(crate) fn assert_same_tables(one: &Root, two: &Root) {
    fn table<O: Stored>(one: &Root, two: &Root)
    where
        Root: HasTable<O>,
    {
        let (one, two): (&Table<O>, &Table<O>) = (one.table(), two.table());
        assert_eq!(one.objects, two.objects);
        assert_eq!(one.indices, two.indices);
    }
    each_table!(table, one, two);
}

/// Fails unless every index is what its objects say (I-STORE-3).
pub(crate) fn assert_indices(root: &Root) {
    fn table<O: Stored>(root: &Root)
    where
        Root: HasTable<O>,
    {
        let table: &Table<O> = root.table();
        let mut rebuilt = Table::<O>::default();
        for object in table.objects.values() {
            rebuilt.put(Arc::clone(object));
        }
        assert_eq!(rebuilt.indices, table.indices);
    }
    each_table!(table, root);
}
