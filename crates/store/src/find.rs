//! Look-ups by selector, as the control API and the watch API name them.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{
    ConfigId, Id, Kind, NetworkId, NodeId, Object, SecretId, ServiceId, Slot, Task, TaskState,
    VolumeId, naming,
};

use crate::error::FindError;
use crate::root::{HasTable, Root, sealed};
use crate::tables::{References, Stored, lower};

/// What to look for. Names and custom values are compared without case.
#[derive(Clone, Debug, PartialEq)]
pub enum By {
    /// Everything.
    All,
    /// The id begins with this.
    IdPrefix(String),
    /// The name equals this; the host name of nodes, the derived name of tasks.
    Name(String),
    /// The name begins with this.
    NamePrefix(String),
    /// Tasks of a service.
    Service(ServiceId),
    /// Tasks on a node.
    Node(NodeId),
    /// Tasks of one replica.
    Slot(ServiceId, Slot),
    /// Tasks with a desired state.
    DesiredState(TaskState),
    /// Nodes with this actual role.
    Role(v1::NodeRole),
    /// Nodes with this membership.
    Membership(v1::node_spec::Membership),
    /// Services and tasks that use a network.
    ReferencedNetwork(NetworkId),
    /// Services and tasks that use a secret.
    ReferencedSecret(SecretId),
    /// Services and tasks that use a config.
    ReferencedConfig(ConfigId),
    /// Tasks that use a volume.
    ReferencedVolume(VolumeId),
    /// Resources of an extension.
    Kind(String),
    /// Volumes of a group.
    VolumeGroup(String),
    /// Volumes of a driver.
    Driver(String),
    /// Objects whose annotations have this index entry.
    Custom {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// Objects whose annotations have an index entry with such a beginning.
    CustomPrefix {
        /// The key.
        key: String,
        /// How the value begins.
        value: String,
    },
    /// Objects that match one of these.
    Or(Vec<By>),
}

impl By {
    fn name(&self) -> &'static str {
        match self {
            Self::All => "all",
            Self::IdPrefix(_) => "id prefix",
            Self::Name(_) => "name",
            Self::NamePrefix(_) => "name prefix",
            Self::Service(_) => "service id",
            Self::Node(_) => "node id",
            Self::Slot(..) => "slot",
            Self::DesiredState(_) => "desired state",
            Self::Role(_) => "role",
            Self::Membership(_) => "membership",
            Self::ReferencedNetwork(_) => "referenced network",
            Self::ReferencedSecret(_) => "referenced secret",
            Self::ReferencedConfig(_) => "referenced config",
            Self::ReferencedVolume(_) => "referenced volume",
            Self::Kind(_) => "kind",
            Self::VolumeGroup(_) => "volume group",
            Self::Driver(_) => "driver",
            Self::Custom { .. } => "custom index",
            Self::CustomPrefix { .. } => "custom index prefix",
            Self::Or(_) => "or",
        }
    }
}

impl Root {
    /// The objects that match, in the order of their ids.
    ///
    /// # Errors
    /// [`FindError`] when the kind has no such index.
    pub fn find<O: sealed::Readable>(&self, by: &By) -> Result<Vec<Arc<O>>, FindError> {
        if matches!(by, By::All) {
            return Ok(O::all(self).cloned().collect());
        }
        let mut ids = BTreeSet::new();
        O::find_ids(self, by, &mut ids)?;
        Ok(ids
            .iter()
            .filter_map(|id| O::get(self, id))
            .cloned()
            .collect())
    }
}

pub(crate) fn find_ids<O: Stored + sealed::Readable>(
    root: &Root,
    by: &By,
    found: &mut BTreeSet<Id>,
) -> Result<(), FindError>
where
    Root: HasTable<O>,
{
    let table = HasTable::<O>::table(root);
    let common = O::common(&table.indices);
    match by {
        By::All => found.extend(table.objects.keys().cloned()),
        By::IdPrefix(prefix) => found.extend(with_id_prefix::<O>(root, prefix)),
        By::Name(name) => found.extend(common.names.ids(&*lower(name)).cloned()),
        By::NamePrefix(prefix) => {
            let prefix = lower(prefix);
            for (name, posting) in common.names.from(&*prefix) {
                if !name.starts_with(&*prefix) {
                    break;
                }
                found.extend(posting.iter().cloned());
            }
        }
        By::Custom { key, value } => {
            let pair = (lower(key).into(), lower(value).into());
            found.extend(common.custom.ids(&pair).cloned());
        }
        By::CustomPrefix { key, value } => {
            let low = (lower(key).into(), lower(value).into());
            for ((key, value), posting) in common.custom.from(&low) {
                if *key != low.0 || !value.starts_with(&*low.1) {
                    break;
                }
                found.extend(posting.iter().cloned());
            }
        }
        By::Or(alternatives) => {
            for by in alternatives {
                find_ids::<O>(root, by, found)?;
            }
        }
        By::Service(_)
        | By::Node(_)
        | By::Slot(..)
        | By::DesiredState(_)
        | By::Role(_)
        | By::Membership(_)
        | By::ReferencedNetwork(_)
        | By::ReferencedSecret(_)
        | By::ReferencedConfig(_)
        | By::ReferencedVolume(_)
        | By::Kind(_)
        | By::VolumeGroup(_)
        | By::Driver(_) => find_special(root, O::KIND, by, found)?,
    }
    if O::KIND == Kind::Task {
        find_derived_names(root, by, found);
    }
    Ok(())
}

fn with_id_prefix<O: Stored + sealed::Readable>(root: &Root, prefix: &str) -> Vec<Id>
where
    Root: HasTable<O>,
{
    let objects = &HasTable::<O>::table(root).objects;
    let canonical = Id::prefix_range(prefix)
        .into_iter()
        .flat_map(|(low, high)| objects.range(low..=high).map(|(id, _)| id));
    let free_form = objects
        .range(Id::first_free_form()..)
        .map(|(id, _)| id)
        .filter(|id| id.starts_with(prefix));
    canonical.chain(free_form).cloned().collect()
}

/// Selectors that only some kinds have.
fn find_special(
    root: &Root,
    kind: Kind,
    by: &By,
    found: &mut BTreeSet<Id>,
) -> Result<(), FindError> {
    let tasks = &root.tasks.indices;
    let mut add = |ids: &mut dyn Iterator<Item = &Id>| found.extend(ids.cloned());
    match (kind, by) {
        (Kind::Task, By::Service(id)) => add(&mut tasks.service.ids(id)),
        (Kind::Task, By::Node(id)) => found.extend(tasks.node.ids(id)),
        (Kind::Task, By::Slot(id, slot)) => add(&mut tasks.slot.ids(&(id.clone(), *slot))),
        (Kind::Task, By::DesiredState(state)) => add(&mut tasks.desired_state.ids(state)),
        (Kind::Node, By::Role(v1::NodeRole::Manager)) => {
            add(&mut root.nodes.indices.managers.ids(&()));
        }
        (Kind::Node, By::Role(v1::NodeRole::Worker)) => {
            let workers = root.nodes.objects.iter();
            let workers = workers.filter(|(_, node)| node.role == v1::NodeRole::Worker);
            add(&mut workers.map(|(id, _)| id));
        }
        (Kind::Node, By::Membership(membership)) => {
            add(&mut root.nodes.indices.membership.ids(&(*membership as i32)));
        }
        (Kind::Resource, By::Kind(name)) => {
            add(&mut root.resources.indices.kind.ids(name.as_str()));
        }
        (Kind::Volume, By::VolumeGroup(name)) => {
            add(&mut root.volumes.indices.kind.ids(name.as_str()));
        }
        (Kind::Volume, By::Driver(name)) => {
            add(&mut root.volumes.indices.driver.ids(name.as_str()));
        }
        (Kind::Task, by) => add_references(&tasks.references, kind, by, found)?,
        (Kind::Service, by) => {
            add_references(&root.services.indices.references, kind, by, found)?;
        }
        (kind, by) => {
            return Err(FindError {
                kind,
                selector: by.name(),
            });
        }
    }
    Ok(())
}

fn add_references(
    references: &References,
    kind: Kind,
    by: &By,
    found: &mut BTreeSet<Id>,
) -> Result<(), FindError> {
    let mut add = |index: &crate::index::Index<Id>, id: &Id| found.extend(index.ids(id).cloned());
    if let By::ReferencedNetwork(id) = by {
        add(&references.networks, id.as_id());
    } else if let By::ReferencedSecret(id) = by {
        add(&references.secrets, id.as_id());
    } else if let By::ReferencedConfig(id) = by {
        add(&references.configs, id.as_id());
    } else if let (By::ReferencedVolume(id), Kind::Task) = (by, kind) {
        add(&references.volumes, id.as_id());
    } else {
        return Err(FindError {
            kind,
            selector: by.name(),
        });
    }
    Ok(())
}

/// Names of tasks are derived from other fields, so they need no index of their own: the whole name
/// ends with the task's id, and its beginnings are rarely asked for.
fn find_derived_names(root: &Root, by: &By, found: &mut BTreeSet<Id>) {
    if let By::Name(name) = by {
        let wanted = lower(name);
        let has_name = |task: &&Arc<Task>| derived_name(task).is_some_and(|name| name == wanted);
        let by_end = wanted
            .match_indices('.')
            .filter_map(|(dot, _)| wanted[dot + 1..].parse().ok())
            .filter_map(|id: Id| root.tasks.objects.get(&id));
        // The id in the name lost its case; only ids of other programs have one.
        let free_form = root.tasks.objects.range(Id::first_free_form()..);
        let hits = by_end.chain(free_form.map(|(_, task)| task));
        found.extend(hits.filter(has_name).map(|task| task.raw_id().clone()));
    } else if let By::NamePrefix(prefix) = by {
        let wanted = lower(prefix);
        let hits = root.tasks.objects.values().filter(|task| {
            may_begin(&task.service_annotations.name, &wanted)
                && derived_name(task).is_some_and(|name| name.starts_with(&*wanted))
        });
        found.extend(hits.map(|task| task.raw_id().clone()));
    }
}

/// The name in lower case of a task that has none of its own.
fn derived_name(task: &Task) -> Option<String> {
    let own = task.annotations.as_ref();
    own.is_none_or(|own| own.name.is_empty())
        .then(|| naming::task_name(task).to_lowercase())
}

/// Whether a name that begins with `service` can begin with `wanted`, which is in lower case; looks
/// at plain ASCII without allocating.
fn may_begin(service: &str, wanted: &str) -> bool {
    !service.is_ascii()
        || service
            .bytes()
            .zip(wanted.bytes())
            .all(|(one, two)| one.eq_ignore_ascii_case(&two))
}
