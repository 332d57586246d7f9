//! The ten stored kinds, but for the task, which has its own module.
//!
//! Each object keeps the user's spec (desired) apart from what the system observed.

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use swarm_api::v1;

use crate::id::{
    ClusterId, ConfigId, ExtensionId, Id, NetworkId, NodeId, ResourceId, SecretId, ServiceId,
    VolumeId,
};
use crate::kind::Kind;
use crate::task::Task;
use crate::time::Timestamp;

/// A version of the store: it grows by one with each committed transaction. An object carries the
/// version of the transaction that wrote it last.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// The version after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// The number of a replica: from 1 for replicated services, 0 for tasks of global services.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Slot(pub u64);

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// Version and times of a stored object. The store fills it in; nobody else writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Meta {
    /// The transaction that wrote the object last; what compare-and-set compares.
    pub version: Version,
    /// When the object was created, by the leader's clock.
    pub created_at: Timestamp,
    /// When it was written last, by the leader's clock.
    pub updated_at: Timestamp,
}

/// A service spec, kept as the wire message that the user sent, with its task template and its
/// annotations shared so that every task made from it points at the same memory.
#[derive(Clone, PartialEq)]
pub struct ServiceSpec {
    wire: Arc<v1::ServiceSpec>,
    task: Arc<v1::TaskSpec>,
    annotations: Arc<v1::Annotations>,
}

impl ServiceSpec {
    /// Takes a spec that was validated at the edge, or decoded from what was committed.
    pub fn new(wire: v1::ServiceSpec) -> Self {
        let task = Arc::new(wire.task.clone().unwrap_or_default());
        let annotations = Arc::new(wire.annotations.clone().unwrap_or_default());
        Self {
            wire: Arc::new(wire),
            task,
            annotations,
        }
    }

    /// The message as the user sent it.
    pub fn wire(&self) -> &v1::ServiceSpec {
        &self.wire
    }

    /// The task template.
    pub fn task(&self) -> &Arc<v1::TaskSpec> {
        &self.task
    }

    /// Name and labels.
    pub fn annotations(&self) -> &Arc<v1::Annotations> {
        &self.annotations
    }

    /// The name; unique among services, compared without case.
    pub fn name(&self) -> &str {
        &self.annotations.name
    }
}

impl Deref for ServiceSpec {
    type Target = v1::ServiceSpec;
    fn deref(&self) -> &v1::ServiceSpec {
        &self.wire
    }
}

impl fmt::Debug for ServiceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.wire, f)
    }
}

/// Progress of a rolling update; the wire message is the domain type, as loops only pass it on.
pub type UpdateStatus = v1::UpdateStatus;

/// A service: what a user wants to run.
#[derive(Clone, Debug, PartialEq)]
pub struct Service {
    /// The id.
    pub id: ServiceId,
    /// Version and times.
    pub meta: Meta,
    /// What the user wants.
    pub spec: ServiceSpec,
    /// The version that tasks carry to say which spec they were made from.
    pub spec_version: Option<Version>,
    /// What the user wanted before the last update; a rollback returns to it.
    pub previous_spec: Option<ServiceSpec>,
    /// The version that belongs to `previous_spec`.
    pub previous_spec_version: Option<Version>,
    /// Allocated ports and virtual addresses; owned by the allocator.
    pub endpoint: Option<Arc<v1::Endpoint>>,
    /// Progress of the last update; owned by the updater.
    pub update_status: Option<Box<UpdateStatus>>,
    /// Marked for deletion.
    pub pending_delete: bool,
    /// Executions of a job.
    pub job_status: Option<Box<v1::JobStatus>>,
}

impl Service {
    /// A service with a spec and nothing observed.
    pub fn new(id: ServiceId, spec: ServiceSpec) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec,
            spec_version: Some(Version(0)),
            previous_spec: None,
            previous_spec_version: None,
            endpoint: None,
            update_status: None,
            pending_delete: false,
            job_status: None,
        }
    }
}

/// The observed state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum NodeState {
    /// Not heard of since the leader changed.
    #[default]
    Unknown,
    /// Missed its heartbeats.
    Down,
    /// In a session.
    Ready,
    /// Told to find another manager.
    Disconnected,
}

impl NodeState {
    /// The name as users see it, in upper case as SwarmKit prints it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Down => "DOWN",
            Self::Ready => "READY",
            Self::Disconnected => "DISCONNECTED",
        }
    }
}

/// The status of a node; owned by the dispatcher.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct NodeStatus {
    /// The state.
    pub state: NodeState,
    /// Why, in words.
    pub message: crate::text::Text,
    /// The address that the manager saw.
    pub addr: String,
    /// When the state became what it is; `None` in what others or older builds wrote.
    pub since: Option<Timestamp>,
}

/// A node: a machine of the cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// The id; the common name of its certificate.
    pub id: NodeId,
    /// Version and times.
    pub meta: Meta,
    /// What the user wants: labels, role, availability, membership.
    pub spec: Arc<v1::NodeSpec>,
    /// What the node said of itself when it registered; owned by the dispatcher.
    pub description: Option<Arc<v1::NodeDescription>>,
    /// Whether it is alive; owned by the dispatcher.
    pub status: NodeStatus,
    /// Its part in the Raft group.
    pub manager_status: Option<Box<v1::ManagerStatus>>,
    /// Its certificate and where the issuance stands; owned by the CA.
    pub certificate: Option<Box<v1::Certificate>>,
    /// The role that it has; follows the wanted one.
    pub role: v1::NodeRole,
    /// Load-balancer addresses; owned by the allocator.
    pub attachments: Vec<v1::NetworkAttachment>,
    /// The UDP port for VXLAN; 0 means the default.
    pub vxlan_udp_port: u32,
}

impl Node {
    /// A node with a spec and nothing observed.
    pub fn new(id: NodeId, spec: v1::NodeSpec) -> Self {
        Self {
            id,
            meta: Meta::default(),
            spec: Arc::new(spec),
            description: None,
            status: NodeStatus::default(),
            manager_status: None,
            certificate: None,
            role: v1::NodeRole::Worker,
            attachments: Vec::new(),
            vxlan_udp_port: 0,
        }
    }

    /// The host name that the node reported; empty if it never did.
    pub fn hostname(&self) -> &str {
        self.description
            .as_ref()
            .map_or("", |description| &description.hostname)
    }

    /// Since when it is in its state. Of a node without that time it is the last change, which is
    /// never too early.
    pub fn state_since(&self) -> Timestamp {
        self.status.since.unwrap_or(self.meta.updated_at)
    }

    /// Whether it asked for a certificate and was never in session, which would have described it.
    pub fn never_came(&self) -> bool {
        let is_known = self.description.is_some() || self.status.state == NodeState::Ready;
        self.certificate.is_some() && !is_known
    }

    /// What the user said about new tasks; an unknown number counts as DRAIN, the safe side.
    pub fn availability(&self) -> v1::node_spec::Availability {
        v1::node_spec::Availability::try_from(self.spec.availability)
            .unwrap_or(v1::node_spec::Availability::Drain)
    }

    /// Whether tasks on it must be replaced: DOWN, or drained by the user (spec 4.5).
    pub fn is_invalid(&self) -> bool {
        self.status.state == NodeState::Down
            || self.availability() == v1::node_spec::Availability::Drain
    }
}

macro_rules! plain_objects {
    ($($(#[$doc:meta])* $name:ident($id:ident, $spec:ty) {
        $($(#[$field_doc:meta])* $field:ident: $ty:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name {
            /// The id.
            pub id: $id,
            /// Version and times.
            pub meta: Meta,
            /// What the user wants.
            pub spec: Arc<$spec>,
            $($(#[$field_doc])* pub $field: $ty,)*
        }
        impl $name {
            /// An object with a spec and nothing observed.
            pub fn new(id: $id, spec: $spec) -> Self {
                Self {
                    id,
                    meta: Meta::default(),
                    spec: Arc::new(spec),
                    $($field: Default::default(),)*
                }
            }
        }
    )*};
}

plain_objects! {
    /// A network.
    Network(NetworkId, v1::NetworkSpec) {
        /// The driver and its state; owned by the allocator.
        driver_state: Option<Arc<v1::Driver>>,
        /// Allocated subnets and gateways; owned by the allocator.
        ipam: Option<Arc<v1::IpamOptions>>,
        /// Marked for deletion.
        pending_delete: bool,
        /// Added by a provider to answers.
        extra: Option<prost_types::Any>,
    }
    /// The cluster; there is one, and its name is `default`.
    Cluster(ClusterId, v1::ClusterSpec) {
        /// Root certificate, join tokens and root rotation.
        root_ca: Option<Box<v1::RootCa>>,
        /// Keys for gossip and IPsec.
        network_bootstrap_keys: Vec<v1::EncryptionKey>,
        /// Lamport time of the newest of these keys.
        encryption_key_lamport_clock: u64,
        /// Certificates of removed nodes.
        blacklisted_certificates: std::collections::BTreeMap<String, v1::BlacklistedCertificate>,
        /// Keys that unlock the managers' state.
        unlock_keys: Vec<v1::EncryptionKey>,
        /// Whether FIPS is mandatory.
        fips: bool,
        /// Pools from which subnets are carved.
        default_address_pool: Vec<String>,
        /// Prefix length of such a subnet.
        subnet_size: u32,
        /// UDP port for VXLAN; 0 means the default.
        vxlan_udp_port: u32,
    }
    /// A secret.
    Secret(SecretId, v1::SecretSpec) {
        /// Made by the system, hidden from lists.
        internal: bool,
    }
    /// A config.
    Config(ConfigId, v1::ConfigSpec) {}
    /// A cluster volume.
    Volume(VolumeId, v1::VolumeSpec) {
        /// Where it is published.
        publish_status: Vec<v1::VolumePublishStatus>,
        /// What the plugin said about it.
        volume_info: Option<Arc<v1::VolumeInfo>>,
        /// Marked for deletion.
        pending_delete: bool,
    }
    /// An object of a kind which an extension defines; its spec is its annotations.
    Resource(ResourceId, v1::Annotations) {
        /// The name of the extension.
        kind: String,
        /// The content.
        payload: Option<prost_types::Any>,
    }
    /// A kind of resources; its spec is its annotations.
    Extension(ExtensionId, v1::Annotations) {
        /// What it is for.
        description: String,
    }
}

/// What every stored object has.
pub trait Object: Clone + fmt::Debug + PartialEq + Send + Sync + Sized + 'static {
    /// The kind.
    const KIND: Kind;
    /// The typed id.
    type Id: Clone + Ord + fmt::Display + fmt::Debug + From<Id>;

    /// The id.
    fn id(&self) -> &Self::Id;
    /// The id without its kind.
    fn raw_id(&self) -> &Id;
    /// The untyped part of a typed id.
    fn raw(id: &Self::Id) -> &Id;
    /// Version and times.
    fn meta(&self) -> &Meta;
    /// For the store, which stamps versions and times.
    fn meta_mut(&mut self) -> &mut Meta;
    /// Erases the kind.
    fn into_any(self: Arc<Self>) -> AnyObject;
    /// Restores the kind; `None` when it is another.
    fn from_any(any: &AnyObject) -> Option<&Arc<Self>>;
}

macro_rules! any_object {
    ($($kind:ident: $id:ident),* $(,)?) => {
        /// An object of any kind; cheap to clone.
        #[derive(Clone, Debug, PartialEq)]
        pub enum AnyObject {
            $(#[doc = concat!("A ", stringify!($kind), ".")] $kind(Arc<$kind>),)*
        }

        impl AnyObject {
            /// The kind.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }
            /// The id without its kind.
            pub fn raw_id(&self) -> &Id {
                match self { $(Self::$kind(object) => object.raw_id(),)* }
            }
            /// Version and times.
            pub fn meta(&self) -> &Meta {
                match self { $(Self::$kind(object) => &object.meta,)* }
            }
        }

        $(impl Object for $kind {
            const KIND: Kind = Kind::$kind;
            type Id = $id;
            fn id(&self) -> &$id { &self.id }
            fn raw_id(&self) -> &Id { self.id.as_id() }
            fn raw(id: &$id) -> &Id { id.as_id() }
            fn meta(&self) -> &Meta { &self.meta }
            fn meta_mut(&mut self) -> &mut Meta { &mut self.meta }
            fn into_any(self: Arc<Self>) -> AnyObject { AnyObject::$kind(self) }
            fn from_any(any: &AnyObject) -> Option<&Arc<Self>> {
                if let AnyObject::$kind(object) = any { Some(object) } else { None }
            }
        }
        impl From<$kind> for AnyObject {
            fn from(object: $kind) -> Self { Self::$kind(Arc::new(object)) }
        }
        impl From<Arc<$kind>> for AnyObject {
            fn from(object: Arc<$kind>) -> Self { Self::$kind(object) }
        })*
    };
}

use crate::id::TaskId;
any_object! {
    Node: NodeId, Service: ServiceId, Task: TaskId, Network: NetworkId, Cluster: ClusterId,
    Secret: SecretId, Resource: ResourceId, Extension: ExtensionId, Config: ConfigId,
    Volume: VolumeId,
}
