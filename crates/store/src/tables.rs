//! The ten tables and which indices each one keeps.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{
    Cluster, Config, Extension, Id, Kind, Network, Node, NodeId, Object, Resource, Secret, Service,
    ServiceId, Slot, StateRegression, Task, TaskState, Volume, spec,
};

use crate::index::{Index, ListIndex};
use crate::map::Map;

/// The objects of one kind with their indices.
#[derive(Clone, Debug)]
pub(crate) struct Table<O: Stored> {
    pub(crate) objects: Map<Id, Arc<O>>,
    pub(crate) indices: O::Indices,
}

impl<O: Stored> Default for Table<O> {
    fn default() -> Self {
        Self {
            objects: Map::new(),
            indices: O::Indices::default(),
        }
    }
}

impl<O: Stored> Table<O> {
    pub(crate) fn put(&mut self, object: Arc<O>) -> Option<Arc<O>> {
        let id = object.raw_id().clone();
        let old = self.objects.insert(id.clone(), Arc::clone(&object));
        O::reindex(&mut self.indices, &id, old.as_deref(), Some(&object));
        old
    }

    pub(crate) fn take(&mut self, id: &Id) -> Option<Arc<O>> {
        let old = self.objects.remove(id)?;
        O::reindex(&mut self.indices, id, Some(&old), None);
        Some(old)
    }
}

/// A kind that has a table. Private to the store: nobody else adds kinds.
pub(crate) trait Stored: Object {
    type Indices: Clone + std::fmt::Debug + Default + PartialEq;

    /// Brings the indices from `old` to `new`; both absent never happens.
    fn reindex(indices: &mut Self::Indices, id: &Id, old: Option<&Self>, new: Option<&Self>);

    /// The part of the indices that every kind has.
    fn common(indices: &Self::Indices) -> &Common;

    /// Whether an object may follow on another one with its id.
    fn check_step(_old: &Self, _new: &Self) -> Result<(), StateRegression> {
        Ok(())
    }

    /// The name as the name index has it, if the object has one there.
    fn name(&self) -> Option<&str>;

    /// Whether names are unique; node and task names are not.
    const UNIQUE_NAMES: bool;
}

/// Indices that every kind has.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Common {
    /// Names in lower case.
    pub(crate) names: Index<Box<str>>,
    /// User-defined pairs from the annotations, keys in lower case.
    pub(crate) custom: Index<(Box<str>, Box<str>)>,
}

impl Common {
    fn reindex<O: Stored>(
        &mut self,
        id: &Id,
        old: Option<(&O, Option<&v1::Annotations>)>,
        new: Option<(&O, Option<&v1::Annotations>)>,
    ) {
        let old_name = old.and_then(|(object, _)| object.name());
        let new_name = new.and_then(|(object, _)| object.name());
        if old_name != new_name {
            self.names.change(id, old_name.map(key), new_name.map(key));
        }
        let pairs = |side: Option<(&O, Option<&v1::Annotations>)>| {
            side.and_then(|(_, annotations)| annotations)
                .map_or(&[][..], |annotations| &annotations.indices)
                .iter()
                .map(|entry| (key(&entry.key), key(&entry.val)))
                .collect::<BTreeSet<_>>()
        };
        let has = |side: Option<(&O, Option<&v1::Annotations>)>| {
            side.and_then(|(_, a)| a)
                .is_some_and(|a| !a.indices.is_empty())
        };
        if has(old) || has(new) {
            self.custom
                .change_all(id, pairs(old).into_iter(), pairs(new).into_iter());
        }
    }
}

/// Index keys are compared without case. Most are in lower case already.
pub(crate) fn lower(text: &str) -> Cow<'_, str> {
    if text
        .bytes()
        .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
    {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(text.to_lowercase())
    }
}

fn key(text: &str) -> Box<str> {
    lower(text).into()
}

fn named(annotations: Option<&v1::Annotations>) -> Option<&str> {
    annotations
        .map(|annotations| annotations.name.as_str())
        .filter(|name| !name.is_empty())
}

/// Ids of other objects that an object refers to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct References {
    pub(crate) networks: Index<Id>,
    pub(crate) secrets: Index<Id>,
    pub(crate) configs: Index<Id>,
    pub(crate) volumes: Index<Id>,
}

impl References {
    /// Moves one object's references; `None` for an object that is not there.
    fn reindex<R: Refers>(&mut self, id: &Id, old: Option<&R>, new: Option<&R>) {
        if let (Some(old), Some(new)) = (old, new)
            && R::same_references(old, new)
        {
            return;
        }
        self.networks
            .change_all(id, R::ids(old, R::networks), R::ids(new, R::networks));
        self.secrets
            .change_all(id, R::ids(old, R::secrets), R::ids(new, R::secrets));
        self.configs
            .change_all(id, R::ids(old, R::configs), R::ids(new, R::configs));
        self.volumes
            .change_all(id, R::ids(old, R::volumes), R::ids(new, R::volumes));
    }
}

trait Refers: Sized {
    /// A cheap test that holds for a status update.
    fn same_references(old: &Self, new: &Self) -> bool;
    fn networks(&self) -> Vec<&str>;
    fn secrets(&self) -> Vec<&str>;
    fn configs(&self) -> Vec<&str>;
    fn volumes(&self) -> Vec<&str>;

    fn ids(side: Option<&Self>, read: impl Fn(&Self) -> Vec<&str>) -> impl Iterator<Item = Id> {
        // A reference that is no id cannot refer to anything.
        let texts = side.map(read).unwrap_or_default();
        texts
            .into_iter()
            .filter_map(|text| text.parse().ok())
            .collect::<Vec<Id>>()
            .into_iter()
    }
}

impl Refers for Task {
    fn same_references(old: &Self, new: &Self) -> bool {
        Arc::ptr_eq(&old.spec, &new.spec)
            && (Arc::ptr_eq(&old.networks, &new.networks) || old.networks == new.networks)
            && old.volumes == new.volumes
    }
    fn networks(&self) -> Vec<&str> {
        let attached = self
            .networks
            .iter()
            .filter_map(|attachment| attachment.network.as_ref());
        spec::network_targets(&self.spec)
            .chain(attached.map(|network| network.id.as_str()))
            .collect()
    }
    fn secrets(&self) -> Vec<&str> {
        spec::secret_ids(&self.spec).collect()
    }
    fn configs(&self) -> Vec<&str> {
        spec::config_ids(&self.spec).collect()
    }
    fn volumes(&self) -> Vec<&str> {
        self.volumes
            .iter()
            .map(|volume| volume.id.as_str())
            .collect()
    }
}

impl Refers for Service {
    fn same_references(old: &Self, new: &Self) -> bool {
        Arc::ptr_eq(old.spec.task(), new.spec.task())
    }
    fn networks(&self) -> Vec<&str> {
        // The list of the service is deprecated but still honoured.
        let deprecated = self
            .spec
            .networks
            .iter()
            .map(|network| network.target.as_str());
        spec::network_targets(self.spec.task())
            .chain(deprecated)
            .collect()
    }
    fn secrets(&self) -> Vec<&str> {
        spec::secret_ids(self.spec.task()).collect()
    }
    fn configs(&self) -> Vec<&str> {
        spec::config_ids(self.spec.task()).collect()
    }
    fn volumes(&self) -> Vec<&str> {
        Vec::new()
    }
}

/// Indices of tasks.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct TaskIndices {
    pub(crate) common: Common,
    pub(crate) service: Index<ServiceId>,
    pub(crate) node: ListIndex<NodeId>,
    pub(crate) slot: Index<(ServiceId, Slot)>,
    pub(crate) desired_state: Index<TaskState>,
    pub(crate) references: References,
}

impl Stored for Task {
    type Indices = TaskIndices;
    const UNIQUE_NAMES: bool = false;

    fn reindex(indices: &mut TaskIndices, id: &Id, old: Option<&Self>, new: Option<&Self>) {
        indices.node.change(
            id,
            old.and_then(|task| task.node_id.as_ref()),
            new.and_then(|task| task.node_id.as_ref()),
        );
        indices.desired_state.change(
            id,
            old.map(Self::desired_state),
            new.map(Self::desired_state),
        );
        if let (Some(old), Some(new)) = (old, new)
            && old.shares_body(new)
        {
            // All that the other indices are made of is in there.
            return;
        }
        let annotations = |task: &Self| task.annotations.is_some();
        if old.is_some_and(annotations) || new.is_some_and(annotations) {
            indices.common.reindex(
                id,
                old.map(|task| (task, task.annotations.as_deref())),
                new.map(|task| (task, task.annotations.as_deref())),
            );
        }
        let service = |task: Option<&Self>| task.and_then(|task| task.service_id.clone());
        let slot =
            |task: Option<&Self>| task.and_then(|task| Some((task.service_id.clone()?, task.slot)));
        indices.service.change(id, service(old), service(new));
        indices.slot.change(id, slot(old), slot(new));
        indices.references.reindex(id, old, new);
    }

    fn check_step(old: &Self, new: &Self) -> Result<(), StateRegression> {
        let states = (old.state(), new.state());
        let desired = (old.desired_state(), new.desired_state());
        for (from, to) in [states, desired] {
            if to < from {
                return Err(StateRegression { from, to });
            }
        }
        Ok(())
    }

    fn common(indices: &TaskIndices) -> &Common {
        &indices.common
    }

    /// Only a name of its own; derived names are found by their parts.
    fn name(&self) -> Option<&str> {
        named(self.annotations.as_deref())
    }
}

/// Indices of nodes.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct NodeIndices {
    pub(crate) common: Common,
    /// Managers only. Nearly all nodes are workers: to list them is to walk the table anyway, and a
    /// set of all their ids would make each new node a quarter dearer.
    pub(crate) managers: Index<()>,
    pub(crate) membership: Index<i32>,
    /// Nodes that have asked for a certificate and were never in session; few, since they are
    /// bounded.
    pub(crate) never_came: Index<()>,
}

impl Stored for Node {
    type Indices = NodeIndices;
    const UNIQUE_NAMES: bool = false;

    fn reindex(indices: &mut NodeIndices, id: &Id, old: Option<&Self>, new: Option<&Self>) {
        indices.common.reindex(
            id,
            old.map(|node| (node, node.spec.annotations.as_ref())),
            new.map(|node| (node, node.spec.annotations.as_ref())),
        );
        let manager = |node: Option<&Self>| {
            node.filter(|node| node.role == v1::NodeRole::Manager)
                .map(|_| ())
        };
        indices.managers.change(id, manager(old), manager(new));
        let never_came = |node: Option<&Self>| node.filter(|node| node.never_came()).map(|_| ());
        let (before, after) = (never_came(old), never_came(new));
        indices.never_came.change(id, before, after);
        indices.membership.change(
            id,
            old.map(|node| node.spec.membership),
            new.map(|node| node.spec.membership),
        );
    }

    fn common(indices: &NodeIndices) -> &Common {
        &indices.common
    }

    /// The host name that the node reported.
    fn name(&self) -> Option<&str> {
        Some(self.hostname()).filter(|name| !name.is_empty())
    }
}

/// Indices of services.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ServiceIndices {
    pub(crate) common: Common,
    pub(crate) references: References,
}

impl Stored for Service {
    type Indices = ServiceIndices;
    const UNIQUE_NAMES: bool = true;

    fn reindex(indices: &mut ServiceIndices, id: &Id, old: Option<&Self>, new: Option<&Self>) {
        indices.common.reindex(
            id,
            old.map(|service| (service, Some(&**service.spec.annotations()))),
            new.map(|service| (service, Some(&**service.spec.annotations()))),
        );
        indices.references.reindex(id, old, new);
    }

    fn common(indices: &ServiceIndices) -> &Common {
        &indices.common
    }

    fn name(&self) -> Option<&str> {
        Some(self.spec.name()).filter(|name| !name.is_empty())
    }
}

/// Indices of resources and volumes: the common ones and one value of their own.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct KindIndices {
    pub(crate) common: Common,
    /// The extension's name of a resource, the group of a volume.
    pub(crate) kind: Index<Box<str>>,
    /// The driver of a volume.
    pub(crate) driver: Index<Box<str>>,
}

impl Stored for Resource {
    type Indices = KindIndices;
    const UNIQUE_NAMES: bool = true;

    fn reindex(indices: &mut KindIndices, id: &Id, old: Option<&Self>, new: Option<&Self>) {
        indices.common.reindex(
            id,
            old.map(|resource| (resource, Some(&*resource.spec))),
            new.map(|resource| (resource, Some(&*resource.spec))),
        );
        let kind = |side: Option<&Self>| side.map(|resource| resource.kind.clone().into());
        indices.kind.change(id, kind(old), kind(new));
    }

    fn common(indices: &KindIndices) -> &Common {
        &indices.common
    }

    fn name(&self) -> Option<&str> {
        named(Some(&self.spec))
    }
}

impl Stored for Volume {
    type Indices = KindIndices;
    const UNIQUE_NAMES: bool = true;

    fn reindex(indices: &mut KindIndices, id: &Id, old: Option<&Self>, new: Option<&Self>) {
        indices.common.reindex(
            id,
            old.map(|volume| (volume, volume.spec.annotations.as_ref())),
            new.map(|volume| (volume, volume.spec.annotations.as_ref())),
        );
        let group = |side: Option<&Self>| side.map(|volume| volume.spec.group.clone().into());
        let driver = |side: Option<&Self>| {
            side.and_then(|volume| volume.spec.driver.as_ref())
                .map(|driver| driver.name.clone().into())
        };
        indices.kind.change(id, group(old), group(new));
        indices.driver.change(id, driver(old), driver(new));
    }

    fn common(indices: &KindIndices) -> &Common {
        &indices.common
    }

    fn name(&self) -> Option<&str> {
        named(self.spec.annotations.as_ref())
    }
}

macro_rules! plain_tables {
    ($($kind:ident, $annotations:expr;)*) => {$(
        impl Stored for $kind {
            type Indices = Common;
            const UNIQUE_NAMES: bool = true;

            fn reindex(indices: &mut Common, id: &Id, old: Option<&Self>, new: Option<&Self>) {
                let read: fn(&Self) -> Option<&v1::Annotations> = $annotations;
                indices.reindex(
                    id,
                    old.map(|object| (object, read(object))),
                    new.map(|object| (object, read(object))),
                );
            }

            fn common(indices: &Common) -> &Common {
                indices
            }

            fn name(&self) -> Option<&str> {
                let read: fn(&Self) -> Option<&v1::Annotations> = $annotations;
                named(read(self))
            }
        }
    )*};
}

plain_tables! {
    Network, |network| network.spec.annotations.as_ref();
    Cluster, |cluster| cluster.spec.annotations.as_ref();
    Secret, |secret| secret.spec.annotations.as_ref();
    Config, |config| config.spec.annotations.as_ref();
    Extension, |extension| Some(&*extension.spec);
}

/// Names that extensions cannot take, because tables have them.
pub(crate) fn is_table_name(kind: Kind, name: &str) -> bool {
    kind == Kind::Extension
        && swarm_types::kind::ALL
            .iter()
            .any(|table| table.name() == name.to_lowercase())
}
