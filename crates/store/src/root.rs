//! One version of the whole store, immutable once published.

use std::sync::Arc;

use swarm_types::{
    Cluster, Config, Extension, Id, Kind, Network, Node, NodeId, Object, Resource, Secret, Service,
    ServiceId, Slot, Task, TaskId, TaskState, Version, Volume, defaults,
};

use crate::tables::{Stored, Table};

/// A snapshot that any number of readers share.
pub type View = Arc<Root>;

/// All tables at one version. Cloning copies ten pointers.
#[derive(Clone, Debug, Default)]
pub struct Root {
    pub(crate) version: Version,
    pub(crate) nodes: Arc<Table<Node>>,
    pub(crate) services: Arc<Table<Service>>,
    pub(crate) tasks: Arc<Table<Task>>,
    pub(crate) networks: Arc<Table<Network>>,
    pub(crate) clusters: Arc<Table<Cluster>>,
    pub(crate) secrets: Arc<Table<Secret>>,
    pub(crate) resources: Arc<Table<Resource>>,
    pub(crate) extensions: Arc<Table<Extension>>,
    pub(crate) configs: Arc<Table<Config>>,
    pub(crate) volumes: Arc<Table<Volume>>,
}

/// Finds the table of a kind in a root. The `Stored` bound keeps it inside this crate.
pub(crate) trait HasTable<O: Stored> {
    fn table(&self) -> &Table<O>;
    fn table_mut(&mut self) -> &mut Table<O>;
}

macro_rules! has_table {
    ($($kind:ident: $field:ident),* $(,)?) => {$(
        impl HasTable<$kind> for Root {
            fn table(&self) -> &Table<$kind> {
                &self.$field
            }
            fn table_mut(&mut self) -> &mut Table<$kind> {
                Arc::make_mut(&mut self.$field)
            }
        }
        impl sealed::Readable for $kind {
            fn get<'a>(root: &'a Root, id: &Id) -> Option<&'a Arc<Self>> {
                root.$field.objects.get(id)
            }
            fn all<'a>(root: &'a Root) -> Box<dyn Iterator<Item = &'a Arc<Self>> + 'a> {
                Box::new(root.$field.objects.values())
            }
            fn count(root: &Root) -> usize {
                root.$field.objects.len()
            }
            fn find_ids(
                root: &Root,
                by: &crate::By,
                found: &mut std::collections::BTreeSet<Id>,
            ) -> Result<(), crate::FindError> {
                crate::find::find_ids::<Self>(root, by, found)
            }
        }
    )*};
}
has_table! {
    Node: nodes, Service: services, Task: tasks, Network: networks, Cluster: clusters,
    Secret: secrets, Resource: resources, Extension: extensions, Config: configs,
    Volume: volumes,
}

pub(crate) mod sealed {
    use super::{Arc, Id, Object, Root};

    /// The ten kinds.
    pub trait Readable: Object {
        fn get<'a>(root: &'a Root, id: &Id) -> Option<&'a Arc<Self>>;
        fn all<'a>(root: &'a Root) -> Box<dyn Iterator<Item = &'a Arc<Self>> + 'a>;
        fn count(root: &Root) -> usize;
        fn find_ids(
            root: &Root,
            by: &crate::By,
            found: &mut std::collections::BTreeSet<Id>,
        ) -> Result<(), crate::FindError>;
    }
}

impl Root {
    /// The version of the last transaction in it.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The object with this id.
    pub fn get<O: sealed::Readable>(&self, id: &O::Id) -> Option<&Arc<O>> {
        O::get(self, O::raw(id))
    }

    /// All objects of a kind, in the order of their ids.
    pub fn all<O: sealed::Readable>(&self) -> impl Iterator<Item = &Arc<O>> {
        O::all(self)
    }

    /// How many objects of a kind there are.
    pub fn count<O: sealed::Readable>(&self) -> usize {
        O::count(self)
    }

    /// The task with this id.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.tasks.objects.get(id.as_id())
    }

    /// The node with this id.
    pub fn node(&self, id: &NodeId) -> Option<&Arc<Node>> {
        self.nodes.objects.get(id.as_id())
    }

    /// The service with this id.
    pub fn service(&self, id: &ServiceId) -> Option<&Arc<Service>> {
        self.services.objects.get(id.as_id())
    }

    /// The cluster object; `None` until the first leader made it.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        let id = self.clusters.indices.names.first(defaults::CLUSTER_NAME)?;
        self.clusters.objects.get(id)
    }

    /// The ingress network: the one whose spec says so.
    pub fn ingress_network(&self) -> Option<&Arc<Network>> {
        self.networks
            .objects
            .values()
            .find(|network| network.spec.ingress)
    }

    /// Tasks of a service, in the order of their ids.
    pub fn tasks_of_service(&self, id: &ServiceId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks
            .indices
            .service
            .ids(id)
            .map(|id| self.indexed_task(id))
    }

    /// How many tasks a service has.
    pub fn count_tasks_of_service(&self, id: &ServiceId) -> usize {
        self.tasks.indices.service.count(id)
    }

    /// Nodes that have asked for a certificate and were never in session, in the order of their
    /// ids.
    pub fn nodes_that_never_came(&self) -> impl Iterator<Item = &Arc<Node>> {
        let ids = self.nodes.indices.never_came.ids(&());
        ids.filter_map(|id| self.nodes.objects.get(id))
    }

    /// Tasks on a node, in the order of their ids.
    pub fn tasks_on_node(&self, id: &NodeId) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks
            .indices
            .node
            .ids(id)
            .map(|id| self.indexed_task(&id))
    }

    /// Nodes on which there are tasks, in the order of their ids; they may be gone themselves.
    pub fn nodes_of_tasks(&self) -> impl Iterator<Item = &NodeId> {
        self.tasks.indices.node.values()
    }

    /// Tasks of one replica, in the order of their ids.
    pub fn tasks_in_slot(
        &self,
        service: &ServiceId,
        slot: Slot,
    ) -> impl Iterator<Item = &Arc<Task>> {
        let key = (service.clone(), slot);
        self.tasks
            .indices
            .slot
            .ids(&key)
            .map(|id| self.indexed_task(id))
    }

    /// Tasks with a desired state, in the order of their ids.
    pub fn tasks_desired(&self, state: TaskState) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks
            .indices
            .desired_state
            .ids(&state)
            .map(|id| self.indexed_task(id))
    }

    /// The object of a kind and an id without its kind.
    pub fn get_any(&self, kind: Kind, id: &Id) -> Option<swarm_types::AnyObject> {
        fn any<O: sealed::Readable>(root: &Root, id: &Id) -> Option<swarm_types::AnyObject> {
            O::get(root, id).map(|object| Arc::clone(object).into_any())
        }
        match kind {
            Kind::Node => any::<Node>(self, id),
            Kind::Service => any::<Service>(self, id),
            Kind::Task => any::<Task>(self, id),
            Kind::Network => any::<Network>(self, id),
            Kind::Cluster => any::<Cluster>(self, id),
            Kind::Secret => any::<Secret>(self, id),
            Kind::Resource => any::<Resource>(self, id),
            Kind::Extension => any::<Extension>(self, id),
            Kind::Config => any::<Config>(self, id),
            Kind::Volume => any::<Volume>(self, id),
        }
    }

    /// The version of an object; `None` if it is absent.
    pub(crate) fn version_of(&self, kind: Kind, id: &Id) -> Option<Version> {
        fn of<O: sealed::Readable>(root: &Root, id: &Id) -> Option<Version> {
            O::get(root, id).map(|object| object.meta().version)
        }
        match kind {
            Kind::Node => of::<Node>(self, id),
            Kind::Service => of::<Service>(self, id),
            Kind::Task => of::<Task>(self, id),
            Kind::Network => of::<Network>(self, id),
            Kind::Cluster => of::<Cluster>(self, id),
            Kind::Secret => of::<Secret>(self, id),
            Kind::Resource => of::<Resource>(self, id),
            Kind::Extension => of::<Extension>(self, id),
            Kind::Config => of::<Config>(self, id),
            Kind::Volume => of::<Volume>(self, id),
        }
    }

    fn indexed_task(&self, id: &Id) -> &Arc<Task> {
        self.tasks
            .objects
            .get(id)
            .expect("I-STORE-3: an index holds ids of stored objects")
    }
}
