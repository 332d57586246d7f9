//! A small store to send requests to.

use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::Root;
use swarm_types::{
    AnyObject, Cluster, Id, IdSource, Network, Node, NodeId, Service, ServiceId, Slot, Task,
    TaskId, TaskState, TaskStatus, Timestamp,
};
use v1::service_spec::Mode;
use v1::task_spec::Runtime;

use crate::{Code, Plan, Refusal};

/// The id of the cluster in every world.
pub(crate) const CLUSTER: &str = "cluster";
/// The id of the ingress network in every world.
pub(crate) const INGRESS: &str = "ingress-id";

#[derive(Default)]
struct Counter(u8);

impl IdSource for Counter {
    fn next_id(&mut self) -> Id {
        self.0 += 1;
        Id::from_random([self.0; 17])
    }
}

pub(crate) struct World {
    pub(crate) root: Root,
    ids: Counter,
    now: Timestamp,
}

impl World {
    /// A cluster with an ingress network, and nothing else.
    pub(crate) fn new() -> Self {
        let mut world = Self {
            root: Root::default(),
            ids: Counter::default(),
            now: Timestamp::from_millis(1_000_000),
        };
        world.put(Cluster::new(id(CLUSTER), cluster_spec()));
        let ingress = v1::NetworkSpec {
            annotations: Some(annotations("ingress")),
            ingress: true,
            ..Default::default()
        };
        world.put(Network::new(id(INGRESS), ingress));
        world
    }

    /// Stores an object as it is, but for its version and times.
    pub(crate) fn put(&mut self, object: impl Into<AnyObject>) {
        let object = object.into();
        let mut transaction = self.root.begin(self.now);
        if self.root.get_any(object.kind(), object.raw_id()).is_some() {
            transaction.delete(object.kind(), object.raw_id()).unwrap();
        }
        transaction.create(object).unwrap();
        self.root = transaction.finish().0;
    }

    /// Decides and writes in one transaction, as the manager does.
    pub(crate) fn write<R>(
        &mut self,
        decide: impl FnOnce(&Root, &mut Ctx<'_>) -> Result<Plan<R>, Refusal>,
    ) -> Result<R, Refusal> {
        self.now = Timestamp::from_nanos(self.now.as_nanos() + 1_000_000);
        let mut ctx = Ctx {
            now: self.now,
            ids: &mut self.ids,
        };
        let mut transaction = self.root.begin(self.now);
        let reply = decide(&transaction, &mut ctx)?.apply(&mut transaction)?;
        self.root = transaction.finish().0;
        Ok(reply)
    }

    /// The time that the last write saw.
    pub(crate) fn now(&self) -> Timestamp {
        self.now
    }

    pub(crate) fn create(&mut self, spec: v1::ServiceSpec) -> Result<v1::Service, Refusal> {
        let request = v1::CreateServiceRequest { spec: Some(spec) };
        let request = crate::check_new_service(request)?;
        let reply = self.write(|root, ctx| crate::create_service(root, ctx, request))?;
        Ok(reply.service.unwrap())
    }

    /// Updates a service to a spec, with the version that it has now.
    pub(crate) fn update(
        &mut self,
        service_id: &str,
        spec: v1::ServiceSpec,
    ) -> Result<v1::Service, Refusal> {
        let request = self.update_request(service_id, spec);
        let request = crate::check_changed_service(request)?;
        let reply = self.write(|root, _| crate::update_service(root, request))?;
        Ok(reply.service.unwrap())
    }

    pub(crate) fn update_request(
        &self,
        service_id: &str,
        spec: v1::ServiceSpec,
    ) -> v1::UpdateServiceRequest {
        let stored = service_id
            .parse()
            .ok()
            .and_then(|id| self.root.service(&id));
        v1::UpdateServiceRequest {
            service_id: service_id.to_owned(),
            service_version: Some(v1::Version {
                index: stored.map_or(1, |service| service.meta.version.0),
            }),
            spec: Some(spec),
            ..Default::default()
        }
    }

    pub(crate) fn create_secret(&mut self, spec: v1::SecretSpec) -> Result<v1::Secret, Refusal> {
        let request = v1::CreateSecretRequest { spec: Some(spec) };
        // The one driver that every world has.
        let has_driver = |name: &str| name == "vault";
        let reply =
            self.write(|root, ctx| crate::create_secret(root, ctx, &has_driver, request))?;
        Ok(reply.secret.unwrap())
    }

    /// Updates a secret with the version that it has now.
    pub(crate) fn update_secret(
        &mut self,
        secret_id: &str,
        spec: v1::SecretSpec,
    ) -> Result<v1::Secret, Refusal> {
        let stored = self.root.get::<swarm_types::Secret>(&id(secret_id));
        let request = v1::UpdateSecretRequest {
            secret_id: secret_id.to_owned(),
            secret_version: Some(v1::Version {
                index: stored.map_or(1, |secret| secret.meta.version.0),
            }),
            spec: Some(spec),
        };
        let reply = self.write(|root, _| crate::update_secret(root, request))?;
        Ok(reply.secret.unwrap())
    }

    pub(crate) fn remove_secret(&mut self, secret_id: &str) -> Result<(), Refusal> {
        let secret_id = secret_id.to_owned();
        let request = v1::RemoveSecretRequest { secret_id };
        self.write(|root, _| crate::remove_secret(root, request))
            .map(drop)
    }

    pub(crate) fn create_config(&mut self, spec: v1::ConfigSpec) -> Result<v1::Config, Refusal> {
        let request = v1::CreateConfigRequest { spec: Some(spec) };
        let reply = self.write(|root, ctx| crate::create_config(root, ctx, request))?;
        Ok(reply.config.unwrap())
    }

    pub(crate) fn service(&self, service_id: &str) -> &Service {
        self.root.service(&id(service_id)).unwrap()
    }

    /// A node that is ready.
    pub(crate) fn node(&mut self, node_id: &str) -> Node {
        let mut node = Node::new(id(node_id), v1::NodeSpec::default());
        node.status.state = swarm_types::NodeState::Ready;
        self.put(node.clone());
        node
    }

    /// Stores a task as the orchestrator makes it for a service, on a node, in a state.
    pub(crate) fn task(
        &mut self,
        task_id: &str,
        service_id: &str,
        node_id: &str,
        state: TaskState,
    ) -> Task {
        let task = self.task_of(task_id, service_id, node_id, state);
        self.put(task.clone());
        task
    }

    /// The same, not stored yet.
    pub(crate) fn task_of(
        &self,
        task_id: &str,
        service_id: &str,
        node_id: &str,
        state: TaskState,
    ) -> Task {
        let service_id: ServiceId = id(service_id);
        let service = self.root.service(&service_id);
        let spec = service.map(|service| service.spec.task().clone());
        let mut task = Task::new(id::<TaskId>(task_id), spec.unwrap_or_default());
        task.service_id = Some(service_id);
        task.slot = Slot(1);
        task.node_id = NodeId::from_wire(node_id).unwrap();
        if let Some(service) = service {
            task.service_annotations = service.spec.annotations().clone();
            task.spec_version = service.spec_version;
            task.endpoint = service.spec.endpoint.clone().map(|spec| {
                std::sync::Arc::new(v1::Endpoint {
                    spec: Some(spec),
                    ..Default::default()
                })
            });
        }
        let status = TaskStatus::new(state, Timestamp::EPOCH, "");
        task.with_states(status, TaskState::Running)
    }
}

/// Parses an id that a test made up.
pub(crate) fn id<T: std::str::FromStr>(text: &str) -> T {
    match text.parse() {
        Ok(id) => id,
        Err(_) => panic!("not an id: {text}"),
    }
}

pub(crate) fn annotations(name: &str) -> v1::Annotations {
    v1::Annotations {
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn cluster_spec() -> v1::ClusterSpec {
    v1::ClusterSpec {
        annotations: Some(annotations("default")),
        ..Default::default()
    }
}

/// A secret with data.
pub(crate) fn secret_spec(name: &str) -> v1::SecretSpec {
    v1::SecretSpec {
        annotations: Some(annotations(name)),
        data: b"hush".to_vec().into(),
        ..Default::default()
    }
}

/// A config with data.
pub(crate) fn config_spec(name: &str) -> v1::ConfigSpec {
    v1::ConfigSpec {
        annotations: Some(annotations(name)),
        data: b"port = 80".to_vec().into(),
        ..Default::default()
    }
}

pub(crate) fn container() -> v1::ContainerSpec {
    v1::ContainerSpec {
        image: "host".to_owned(),
        command: vec!["sleep".to_owned(), "1".to_owned()],
        ..Default::default()
    }
}

/// A valid spec: one replica of a container.
pub(crate) fn web(name: &str) -> v1::ServiceSpec {
    v1::ServiceSpec {
        annotations: Some(annotations(name)),
        task: Some(v1::TaskSpec {
            runtime: Some(Runtime::Container(container())),
            ..Default::default()
        }),
        mode: Some(replicated(1)),
        ..Default::default()
    }
}

pub(crate) fn replicated(replicas: u64) -> Mode {
    Mode::Replicated(v1::ReplicatedService { replicas })
}

/// A spec with something changed.
pub(crate) fn with(
    mut spec: v1::ServiceSpec,
    change: impl FnOnce(&mut v1::ServiceSpec),
) -> v1::ServiceSpec {
    change(&mut spec);
    spec
}

/// A spec with something changed in its task.
pub(crate) fn with_task(change: impl FnOnce(&mut v1::TaskSpec)) -> v1::ServiceSpec {
    with(web("web"), |spec| change(spec.task.as_mut().unwrap()))
}

/// A spec with something changed in its container.
pub(crate) fn with_container(change: impl FnOnce(&mut v1::ContainerSpec)) -> v1::ServiceSpec {
    let mut container = container();
    change(&mut container);
    with_task(|task| task.runtime = Some(Runtime::Container(container)))
}

/// A spec that publishes ports.
pub(crate) fn with_ports(name: &str, ports: Vec<v1::PortConfig>) -> v1::ServiceSpec {
    with(web(name), |spec| {
        spec.endpoint = Some(v1::EndpointSpec { mode: 0, ports });
    })
}

/// A TCP port with target 80.
pub(crate) fn port(mode: v1::port_config::PublishMode, published_port: u32) -> v1::PortConfig {
    v1::PortConfig {
        target_port: 80,
        published_port,
        publish_mode: mode as i32,
        ..Default::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

pub(crate) fn nanoseconds(nanos: i32) -> prost_types::Duration {
    prost_types::Duration { seconds: 0, nanos }
}

/// Says whether a spec is valid by itself: nothing, or the text of the refusal.
pub(crate) fn verdict(spec: &v1::ServiceSpec) -> Result<(), (Code, String)> {
    crate::validate::service_spec(spec)
        .map_err(|refusal| (refusal.code(), refusal.message().to_owned()))
}

/// The names of listed objects.
pub(crate) fn ids<'a, T: 'a>(
    objects: impl IntoIterator<Item = &'a T>,
    read: impl Fn(&T) -> &str,
) -> Vec<String> {
    objects
        .into_iter()
        .map(|object| read(object).to_owned())
        .collect()
}
