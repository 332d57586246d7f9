//! The objects that the workloads put into a store.

use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{
    Id, IdSource, Node, NodeId, ServiceId, Slot, Task, TaskId, TaskState, TaskStatus, Timestamp,
    Version,
};

/// Ids from a seed (SplitMix64): random in form, the same in every run.
#[derive(Clone, Debug)]
pub struct Ids(u64);

impl Ids {
    /// A stream of ids.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of the stream that ids are made of.
    pub fn next_number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

impl IdSource for Ids {
    fn next_id(&mut self) -> Id {
        let mut bytes = [0; 17];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next_number().to_le_bytes()[..chunk.len()]);
        }
        Id::from_random(bytes)
    }
}

/// The time that the workloads stamp: 2023-11-14T22:13:20Z.
pub const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_000);

/// Annotations with a name and nothing else.
pub fn named(name: String) -> v1::Annotations {
    v1::Annotations {
        name,
        ..Default::default()
    }
}

/// A node with an id and a spec name, as the Go store benchmarks have it.
pub fn bare_node(id: Id, name: String) -> Node {
    Node::new(
        NodeId::new(id),
        v1::NodeSpec {
            annotations: Some(named(name)),
            ..Default::default()
        },
    )
}

/// What all tasks of one service share.
#[derive(Clone, Debug)]
pub struct Template {
    /// The service.
    pub service: ServiceId,
    /// The spec.
    pub spec: Arc<v1::TaskSpec>,
    /// Name and labels of the service.
    pub annotations: Arc<v1::Annotations>,
    /// The endpoint of the service.
    pub endpoint: Arc<v1::Endpoint>,
}

impl Template {
    /// The service of `performance.md` 9: image with digest, a command of two words, three
    /// variables, one label, restart condition any without delay.
    pub fn new(service: ServiceId, name: String) -> Self {
        let labels = |key: &str| {
            std::iter::once((key.to_owned(), "value".to_owned()))
                .collect::<std::collections::BTreeMap<_, _>>()
        };
        let container = v1::ContainerSpec {
            image: format!(
                "registry.example.com/team/{name}:1.0@sha256:{}",
                "ab".repeat(32)
            ),
            command: vec!["serve".to_owned(), "--all".to_owned()],
            env: (0..3).map(|i| format!("VARIABLE_{i}=value-{i}")).collect(),
            labels: labels("com.example.container"),
            ..Default::default()
        };
        let restart = v1::RestartPolicy {
            condition: v1::restart_policy::RestartCondition::Any as i32,
            delay: Some(swarm_api::prost_types::Duration::default()),
            ..Default::default()
        };
        Self {
            service,
            spec: Arc::new(v1::TaskSpec {
                runtime: Some(v1::task_spec::Runtime::Container(container)),
                restart: Some(restart),
                ..Default::default()
            }),
            annotations: Arc::new(v1::Annotations {
                labels: labels("com.example.service"),
                ..named(name)
            }),
            endpoint: Arc::default(),
        }
    }

    /// A task that waits for a node.
    pub fn pending_task(&self, id: Id, slot: Slot) -> Task {
        let status = TaskStatus::new(TaskState::Pending, NOW, "pending task scheduling");
        let mut task = Task::new(TaskId::new(id), Arc::clone(&self.spec))
            .with_states(status, TaskState::Running);
        task.spec_version = Some(Version(7));
        task.service_id = Some(self.service.clone());
        task.service_annotations = Arc::clone(&self.annotations);
        task.slot = slot;
        task
    }

    /// A task that runs on a node: a container status with a 64-character id, and the messages
    /// that agents write.
    pub fn running_task(&self, id: Id, slot: Slot, node: NodeId) -> Task {
        let container_id = id.with_str(|text| format!("{text:f<64}"));
        let status = TaskStatus {
            container: Some(Box::new(v1::ContainerStatus {
                container_id,
                pid: 4_711,
                exit_code: 0,
            })),
            ports: Some(Box::default()),
            applied_by: Some(node.clone()),
            applied_at: Some(NOW),
            ..TaskStatus::new(TaskState::Running, NOW, "started")
        };
        let mut task = Task::new(TaskId::new(id), Arc::clone(&self.spec))
            .with_states(status, TaskState::Running);
        task.spec_version = Some(Version(7));
        task.service_id = Some(self.service.clone());
        task.service_annotations = Arc::clone(&self.annotations);
        task.slot = slot;
        task.node_id = Some(node);
        task.endpoint = Some(Arc::clone(&self.endpoint));
        task
    }
}
