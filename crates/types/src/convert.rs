//! Between domain objects and wire messages.
//!
//! Reading checks what the domain type promises (ids, states, times) and refuses the rest with the
//! object and the field; what it accepts is written back unchanged.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_api::v1;
use v1::store_action::Target;

use crate::id::{Id, IdError, NodeId, ServiceId};
use crate::kind::Kind;
use crate::objects::{
    AnyObject, Cluster, Config, Extension, Meta, Network, Node, NodeState, NodeStatus, Resource,
    Secret, Service, ServiceSpec, Slot, Version, Volume,
};
use crate::state::TaskState;
use crate::task::{Task, TaskBody, TaskStatus};
use crate::text::Text;
use crate::time::Timestamp;

/// Why a received object is not a domain object.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// An id is empty where one is needed, or too long.
    #[error("{kind}: field {field}: {source}")]
    Id {
        /// The kind of object.
        kind: Kind,
        /// The field.
        field: &'static str,
        /// What is wrong with it.
        source: IdError,
    },
    /// A number that no enum value has.
    #[error("{kind} {id}: field {field} has the unknown number {number}")]
    UnknownEnum {
        /// The kind of object.
        kind: Kind,
        /// The object.
        id: Id,
        /// The field.
        field: &'static str,
        /// The number seen.
        number: i32,
    },
    /// A store action without an object.
    #[error("a store action carries no object")]
    NoTarget,
}

/// Shares one spec among the tasks that were decoded with equal ones.
///
/// Holds at most [`INTERNED_MAX`] specs; beyond that it starts over, which costs memory, never
/// correctness.
#[derive(Debug, Default)]
pub struct Interner {
    specs: BTreeMap<(Option<ServiceId>, Option<Version>), Shared>,
}

#[derive(Debug)]
struct Shared {
    spec: Arc<v1::TaskSpec>,
    annotations: Arc<v1::Annotations>,
    endpoint: Option<Arc<v1::Endpoint>>,
}

/// Bound on the specs an [`Interner`] holds.
pub const INTERNED_MAX: usize = 50_000;

impl Interner {
    /// An empty interner.
    pub fn new() -> Self {
        Self::default()
    }

    fn share(&mut self, task: &mut Task) {
        if self.specs.len() >= INTERNED_MAX {
            self.specs.clear();
        }
        let key = (task.service_id.clone(), task.spec_version);
        let shared = self.specs.entry(key).or_insert_with(|| Shared {
            spec: Arc::clone(&task.spec),
            annotations: Arc::clone(&task.service_annotations),
            endpoint: task.endpoint.clone(),
        });
        reuse(&mut shared.spec, &mut task.spec);
        reuse(&mut shared.annotations, &mut task.service_annotations);
        match (&mut shared.endpoint, &mut task.endpoint) {
            (Some(known), Some(own)) => reuse(known, own),
            (known, Some(own)) => *known = Some(Arc::clone(own)),
            (_, None) => {}
        }
    }
}

fn reuse<T: PartialEq>(known: &mut Arc<T>, own: &mut Arc<T>) {
    if **known == **own {
        *own = Arc::clone(known);
    } else {
        *known = Arc::clone(own);
    }
}

/// Reads the object of a store action.
///
/// # Errors
/// [`ConvertError`] when the object is missing or malformed.
pub fn from_target(target: Target, interner: &mut Interner) -> Result<AnyObject, ConvertError> {
    Ok(match target {
        Target::Node(wire) => node_from_wire(wire)?.into(),
        Target::Service(wire) => service_from_wire(wire)?.into(),
        Target::Task(wire) => task_from_wire(wire, interner)?.into(),
        Target::Network(wire) => network_from_wire(wire)?.into(),
        Target::Cluster(wire) => cluster_from_wire(wire)?.into(),
        Target::Secret(wire) => secret_from_wire(wire)?.into(),
        Target::Resource(wire) => resource_from_wire(wire)?.into(),
        Target::Extension(wire) => extension_from_wire(wire)?.into(),
        Target::Config(wire) => config_from_wire(wire)?.into(),
        Target::Volume(wire) => volume_from_wire(wire)?.into(),
    })
}

/// Writes an object as the target of a store action.
pub fn to_target(object: &AnyObject) -> Target {
    match object {
        AnyObject::Node(object) => Target::Node(node_to_wire(object)),
        AnyObject::Service(object) => Target::Service(service_to_wire(object)),
        AnyObject::Task(object) => Target::Task(task_to_wire(object)),
        AnyObject::Network(object) => Target::Network(network_to_wire(object)),
        AnyObject::Cluster(object) => Target::Cluster(cluster_to_wire(object)),
        AnyObject::Secret(object) => Target::Secret(secret_to_wire(object)),
        AnyObject::Resource(object) => Target::Resource(resource_to_wire(object)),
        AnyObject::Extension(object) => Target::Extension(extension_to_wire(object)),
        AnyObject::Config(object) => Target::Config(config_to_wire(object)),
        AnyObject::Volume(object) => Target::Volume(volume_to_wire(object)),
    }
}

fn own_id<T: From<Id>>(kind: Kind, text: &str) -> Result<T, ConvertError> {
    let id: Id = text.parse().map_err(|source| ConvertError::Id {
        kind,
        field: "id",
        source,
    })?;
    Ok(T::from(id))
}

fn other_id<T: From<Id>>(
    kind: Kind,
    field: &'static str,
    text: &str,
) -> Result<Option<T>, ConvertError> {
    if text.is_empty() {
        return Ok(None);
    }
    let id: Id = text.parse().map_err(|source| ConvertError::Id {
        kind,
        field,
        source,
    })?;
    Ok(Some(T::from(id)))
}

fn id_text<T: std::fmt::Display>(id: Option<&T>) -> String {
    id.map(ToString::to_string).unwrap_or_default()
}

/// Messages that are always written, also when there is nothing in them, are absent when read.
fn unless_empty<T: Default + PartialEq>(message: T) -> Option<Box<T>> {
    (message != T::default()).then(|| Box::new(message))
}

fn meta_from_wire(wire: Option<&v1::Meta>) -> Meta {
    let Some(wire) = wire else {
        return Meta::default();
    };
    let time = |time: Option<&prost_types::Timestamp>| {
        time.and_then(Timestamp::from_wire).unwrap_or_default()
    };
    Meta {
        version: Version(wire.version.as_ref().map_or(0, |version| version.index)),
        created_at: time(wire.created_at.as_ref()),
        updated_at: time(wire.updated_at.as_ref()),
    }
}

fn meta_to_wire(meta: &Meta) -> v1::Meta {
    v1::Meta {
        version: Some(version_to_wire(meta.version)),
        created_at: Some(meta.created_at.to_wire()),
        updated_at: Some(meta.updated_at.to_wire()),
    }
}

/// To the wire message.
pub fn version_to_wire(version: Version) -> v1::Version {
    v1::Version { index: version.0 }
}

fn version_from_wire(wire: v1::Version) -> Version {
    Version(wire.index)
}

/// Reads a task and shares its spec with equal ones.
///
/// # Errors
/// [`ConvertError`] when an id or a state is malformed.
pub fn task_from_wire(wire: v1::Task, interner: &mut Interner) -> Result<Task, ConvertError> {
    let kind = Kind::Task;
    let id: Id = own_id(kind, &wire.id)?;
    let desired =
        TaskState::from_wire(wire.desired_state).ok_or_else(|| ConvertError::UnknownEnum {
            kind,
            id: id.clone(),
            field: "desired_state",
            number: wire.desired_state,
        })?;
    let status = task_status_from_wire(&id, wire.status.unwrap_or_default())?;
    let body = TaskBody {
        spec: Arc::new(wire.spec.unwrap_or_default()),
        spec_version: wire.spec_version.map(version_from_wire),
        service_id: other_id(kind, "service_id", &wire.service_id)?,
        slot: Slot(wire.slot),
        annotations: wire.annotations.and_then(unless_empty),
        service_annotations: Arc::new(wire.service_annotations.unwrap_or_default()),
        networks: wire.networks.into(),
        endpoint: wire.endpoint.map(Arc::new),
        log_driver: wire.log_driver.map(Arc::new),
        assigned_generic_resources: wire.assigned_generic_resources,
        job_iteration: wire.job_iteration.map(version_from_wire),
        volumes: wire.volumes,
    };
    let mut task = Task::with_body(id.into(), body).with_states(status, desired);
    task.meta = meta_from_wire(wire.meta.as_ref());
    task.node_id = other_id(kind, "node_id", &wire.node_id)?;
    task.failures_before = wire.failures_before;
    interner.share(&mut task);
    Ok(task)
}

/// Reads a task status; `id` is the task's, for messages.
///
/// # Errors
/// [`ConvertError`] when the state has an unknown number or an id is too long.
pub fn task_status_from_wire(id: &Id, wire: v1::TaskStatus) -> Result<TaskStatus, ConvertError> {
    let state = TaskState::from_wire(wire.state).ok_or_else(|| ConvertError::UnknownEnum {
        kind: Kind::Task,
        id: id.clone(),
        field: "status.state",
        number: wire.state,
    })?;
    let container = wire
        .runtime_status
        .map(|v1::task_status::RuntimeStatus::Container(c)| c);
    Ok(TaskStatus {
        timestamp: wire.timestamp.as_ref().and_then(Timestamp::from_wire),
        state,
        message: Text::from_wire(wire.message),
        err: Text::from_wire(wire.err),
        container: container.map(Box::new),
        ports: wire.port_status.map(Box::new),
        applied_by: other_id::<NodeId>(Kind::Task, "status.applied_by", &wire.applied_by)?,
        applied_at: wire.applied_at.as_ref().and_then(Timestamp::from_wire),
    })
}

/// To the wire message.
pub fn task_status_to_wire(status: &TaskStatus) -> v1::TaskStatus {
    v1::TaskStatus {
        timestamp: status.timestamp.map(Timestamp::to_wire),
        state: status.state.to_wire() as i32,
        message: status.message.to_string(),
        err: status.err.to_string(),
        runtime_status: status
            .container
            .as_deref()
            .map(|container| v1::task_status::RuntimeStatus::Container(container.clone())),
        port_status: status.ports.as_deref().cloned(),
        applied_by: id_text(status.applied_by.as_ref()),
        applied_at: status.applied_at.map(Timestamp::to_wire),
    }
}

/// To the wire message.
pub fn task_to_wire(task: &Task) -> v1::Task {
    v1::Task {
        id: task.id.to_string(),
        meta: Some(meta_to_wire(&task.meta)),
        spec: Some((*task.spec).clone()),
        service_id: id_text(task.service_id.as_ref()),
        slot: task.slot.0,
        node_id: id_text(task.node_id.as_ref()),
        annotations: Some(task.annotations.as_deref().cloned().unwrap_or_default()),
        service_annotations: Some((*task.service_annotations).clone()),
        status: Some(task_status_to_wire(task.status())),
        desired_state: task.desired_state().to_wire() as i32,
        networks: task.networks.to_vec(),
        endpoint: task.endpoint.as_deref().cloned(),
        log_driver: task.log_driver.as_deref().cloned(),
        spec_version: task.spec_version.map(version_to_wire),
        assigned_generic_resources: task.assigned_generic_resources.clone(),
        job_iteration: task.job_iteration.map(version_to_wire),
        volumes: task.volumes.clone(),
        failures_before: task.failures_before,
    }
}

/// Reads a service.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn service_from_wire(wire: v1::Service) -> Result<Service, ConvertError> {
    Ok(Service {
        id: own_id(Kind::Service, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: ServiceSpec::new(wire.spec.unwrap_or_default()),
        spec_version: wire.spec_version.map(version_from_wire),
        previous_spec: wire.previous_spec.map(ServiceSpec::new),
        previous_spec_version: wire.previous_spec_version.map(version_from_wire),
        endpoint: wire.endpoint.map(Arc::new),
        update_status: wire.update_status.map(Box::new),
        pending_delete: wire.pending_delete,
        job_status: wire.job_status.map(Box::new),
    })
}

/// To the wire message.
pub fn service_to_wire(service: &Service) -> v1::Service {
    v1::Service {
        id: service.id.to_string(),
        meta: Some(meta_to_wire(&service.meta)),
        spec: Some(service.spec.wire().clone()),
        endpoint: service.endpoint.as_deref().cloned(),
        update_status: service.update_status.as_deref().cloned(),
        previous_spec: service
            .previous_spec
            .as_ref()
            .map(|spec| spec.wire().clone()),
        pending_delete: service.pending_delete,
        spec_version: service.spec_version.map(version_to_wire),
        previous_spec_version: service.previous_spec_version.map(version_to_wire),
        job_status: service.job_status.as_deref().cloned(),
    }
}

/// Reads a node.
///
/// # Errors
/// [`ConvertError`] when the id, the state or the role is malformed.
pub fn node_from_wire(wire: v1::Node) -> Result<Node, ConvertError> {
    let kind = Kind::Node;
    let id: Id = own_id(kind, &wire.id)?;
    let unknown = |field, number| ConvertError::UnknownEnum {
        kind,
        id: id.clone(),
        field,
        number,
    };
    let status = wire.status.unwrap_or_default();
    let role = v1::NodeRole::try_from(wire.role).map_err(|_| unknown("role", wire.role))?;
    let state =
        node_state_from_wire(status.state).ok_or_else(|| unknown("status.state", status.state))?;
    Ok(Node {
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.spec.unwrap_or_default()),
        description: wire.description.map(Arc::new),
        status: NodeStatus {
            state,
            message: Text::from_wire(status.message),
            addr: status.addr,
            since: status.since.as_ref().and_then(Timestamp::from_wire),
        },
        manager_status: wire.manager_status.map(Box::new),
        certificate: wire.certificate.and_then(unless_empty),
        role,
        // The deprecated single attachment moves into the list, as readers of old objects expect.
        attachments: wire
            .attachment
            .into_iter()
            .chain(wire.attachments)
            .collect(),
        vxlan_udp_port: wire.vxlanudp_port,
        id: id.into(),
    })
}

fn node_state_from_wire(number: i32) -> Option<NodeState> {
    use v1::node_status::State;
    Some(match State::try_from(number).ok()? {
        State::Unknown => NodeState::Unknown,
        State::Down => NodeState::Down,
        State::Ready => NodeState::Ready,
        State::Disconnected => NodeState::Disconnected,
    })
}

/// To the wire enum.
pub fn node_state_to_wire(state: NodeState) -> v1::node_status::State {
    use v1::node_status::State;
    match state {
        NodeState::Unknown => State::Unknown,
        NodeState::Down => State::Down,
        NodeState::Ready => State::Ready,
        NodeState::Disconnected => State::Disconnected,
    }
}

/// To the wire message.
pub fn node_to_wire(node: &Node) -> v1::Node {
    v1::Node {
        id: node.id.to_string(),
        meta: Some(meta_to_wire(&node.meta)),
        spec: Some((*node.spec).clone()),
        description: node.description.as_deref().cloned(),
        status: Some(v1::NodeStatus {
            state: node_state_to_wire(node.status.state) as i32,
            message: node.status.message.to_string(),
            addr: node.status.addr.clone(),
            since: node.status.since.map(Timestamp::to_wire),
        }),
        manager_status: node.manager_status.as_deref().cloned(),
        attachment: None,
        certificate: Some(node.certificate.as_deref().cloned().unwrap_or_default()),
        role: node.role as i32,
        attachments: node.attachments.clone(),
        vxlanudp_port: node.vxlan_udp_port,
    }
}

/// Reads a network.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn network_from_wire(wire: v1::Network) -> Result<Network, ConvertError> {
    Ok(Network {
        id: own_id(Kind::Network, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.spec.unwrap_or_default()),
        driver_state: wire.driver_state.map(Arc::new),
        ipam: wire.ipam.map(Arc::new),
        pending_delete: wire.pending_delete,
        extra: wire.extra,
    })
}

/// To the wire message.
pub fn network_to_wire(network: &Network) -> v1::Network {
    v1::Network {
        id: network.id.to_string(),
        meta: Some(meta_to_wire(&network.meta)),
        spec: Some((*network.spec).clone()),
        driver_state: network.driver_state.as_deref().cloned(),
        ipam: network.ipam.as_deref().cloned(),
        pending_delete: network.pending_delete,
        extra: network.extra.clone(),
    }
}

/// Reads a cluster.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn cluster_from_wire(wire: v1::Cluster) -> Result<Cluster, ConvertError> {
    Ok(Cluster {
        id: own_id(Kind::Cluster, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.spec.unwrap_or_default()),
        root_ca: wire.root_ca.and_then(unless_empty),
        network_bootstrap_keys: wire.network_bootstrap_keys,
        encryption_key_lamport_clock: wire.encryption_key_lamport_clock,
        blacklisted_certificates: wire.blacklisted_certificates,
        unlock_keys: wire.unlock_keys,
        fips: wire.fips,
        default_address_pool: wire.default_address_pool,
        subnet_size: wire.subnet_size,
        vxlan_udp_port: wire.vxlanudp_port,
    })
}

/// To the wire message.
pub fn cluster_to_wire(cluster: &Cluster) -> v1::Cluster {
    v1::Cluster {
        id: cluster.id.to_string(),
        meta: Some(meta_to_wire(&cluster.meta)),
        spec: Some((*cluster.spec).clone()),
        root_ca: Some(cluster.root_ca.as_deref().cloned().unwrap_or_default()),
        network_bootstrap_keys: cluster.network_bootstrap_keys.clone(),
        encryption_key_lamport_clock: cluster.encryption_key_lamport_clock,
        blacklisted_certificates: cluster.blacklisted_certificates.clone(),
        unlock_keys: cluster.unlock_keys.clone(),
        fips: cluster.fips,
        default_address_pool: cluster.default_address_pool.clone(),
        subnet_size: cluster.subnet_size,
        vxlanudp_port: cluster.vxlan_udp_port,
    }
}

/// Reads a secret.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn secret_from_wire(wire: v1::Secret) -> Result<Secret, ConvertError> {
    Ok(Secret {
        id: own_id(Kind::Secret, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.spec.unwrap_or_default()),
        internal: wire.internal,
    })
}

/// To the wire message, data included.
pub fn secret_to_wire(secret: &Secret) -> v1::Secret {
    v1::Secret {
        id: secret.id.to_string(),
        meta: Some(meta_to_wire(&secret.meta)),
        spec: Some((*secret.spec).clone()),
        internal: secret.internal,
    }
}

/// Reads a config.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn config_from_wire(wire: v1::Config) -> Result<Config, ConvertError> {
    Ok(Config {
        id: own_id(Kind::Config, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.spec.unwrap_or_default()),
    })
}

/// To the wire message.
pub fn config_to_wire(config: &Config) -> v1::Config {
    v1::Config {
        id: config.id.to_string(),
        meta: Some(meta_to_wire(&config.meta)),
        spec: Some((*config.spec).clone()),
    }
}

/// Reads a resource.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn resource_from_wire(wire: v1::Resource) -> Result<Resource, ConvertError> {
    Ok(Resource {
        id: own_id(Kind::Resource, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.annotations.unwrap_or_default()),
        kind: wire.kind,
        payload: wire.payload,
    })
}

/// To the wire message.
pub fn resource_to_wire(resource: &Resource) -> v1::Resource {
    v1::Resource {
        id: resource.id.to_string(),
        meta: Some(meta_to_wire(&resource.meta)),
        annotations: Some((*resource.spec).clone()),
        kind: resource.kind.clone(),
        payload: resource.payload.clone(),
    }
}

/// Reads an extension.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn extension_from_wire(wire: v1::Extension) -> Result<Extension, ConvertError> {
    Ok(Extension {
        id: own_id(Kind::Extension, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.annotations.unwrap_or_default()),
        description: wire.description,
    })
}

/// To the wire message.
pub fn extension_to_wire(extension: &Extension) -> v1::Extension {
    v1::Extension {
        id: extension.id.to_string(),
        meta: Some(meta_to_wire(&extension.meta)),
        annotations: Some((*extension.spec).clone()),
        description: extension.description.clone(),
    }
}

/// Reads a volume.
///
/// # Errors
/// [`ConvertError`] when the id is malformed.
pub fn volume_from_wire(wire: v1::Volume) -> Result<Volume, ConvertError> {
    Ok(Volume {
        id: own_id(Kind::Volume, &wire.id)?,
        meta: meta_from_wire(wire.meta.as_ref()),
        spec: Arc::new(wire.spec.unwrap_or_default()),
        publish_status: wire.publish_status,
        volume_info: wire.volume_info.map(Arc::new),
        pending_delete: wire.pending_delete,
    })
}

/// To the wire message.
pub fn volume_to_wire(volume: &Volume) -> v1::Volume {
    v1::Volume {
        id: volume.id.to_string(),
        meta: Some(meta_to_wire(&volume.meta)),
        spec: Some((*volume.spec).clone()),
        publish_status: volume.publish_status.clone(),
        volume_info: volume.volume_info.as_deref().cloned(),
        pending_delete: volume.pending_delete,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire_task(id: &str) -> v1::Task {
        v1::Task {
            id: id.to_owned(),
            service_id: "s".to_owned(),
            spec_version: Some(v1::Version { index: 3 }),
            spec: Some(v1::TaskSpec {
                force_update: 9,
                ..Default::default()
            }),
            status: Some(v1::TaskStatus {
                state: v1::TaskState::Running as i32,
                message: "started".to_owned(),
                ..Default::default()
            }),
            desired_state: v1::TaskState::Running as i32,
            ..Default::default()
        }
    }

    #[test]
    fn tasks_of_one_service_and_version_share_their_spec() {
        let mut interner = Interner::new();
        let one = task_from_wire(wire_task("a"), &mut interner).unwrap();
        let two = task_from_wire(wire_task("b"), &mut interner).unwrap();
        assert!(Arc::ptr_eq(&one.spec, &two.spec));
        assert!(Arc::ptr_eq(
            &one.service_annotations,
            &two.service_annotations
        ));
        let mut other = wire_task("c");
        other.spec = Some(v1::TaskSpec {
            force_update: 10,
            ..Default::default()
        });
        let three = task_from_wire(other, &mut interner).unwrap();
        assert_eq!(three.spec.force_update, 10);
    }

    #[test]
    fn a_task_round_trips() {
        let task = task_from_wire(wire_task("a"), &mut Interner::new()).unwrap();
        let again = task_from_wire(task_to_wire(&task), &mut Interner::new()).unwrap();
        assert_eq!(task, again);
    }

    #[test]
    fn unknown_states_are_refused_with_object_field_and_number() {
        let mut wire = wire_task("a");
        wire.desired_state = 513;
        let error = task_from_wire(wire, &mut Interner::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "task a: field desired_state has the unknown number 513"
        );
        let error = task_from_wire(wire_task(""), &mut Interner::new()).unwrap_err();
        assert_eq!(error.to_string(), "task: field id: an id must not be empty");
    }
}
