//! The cache: nodes with what is used of them, and the tasks that wait. A function of the view
//! (I-LOOP-4): each task and node is counted by what it is, and not by how it came to be so.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_store::Root;
use swarm_types::{Node, NodeId, ServiceId, Task, TaskId, TaskState, Version};

use crate::due::Marks;
use crate::load::{self, Load, NodeView};
use crate::node_log::{NodeChange, NodeIx};
use crate::requirements::{self, Requirements};
use crate::waiting::{Group, Tasks};

/// Tasks that are placed by the same rules: the same service, spec and needs. Tasks without a
/// service form a group with all others that need the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct GroupKey {
    pub(crate) service: Option<ServiceId>,
    pub(crate) version: Option<Version>,
    pub(crate) needs: Arc<Requirements>,
}

impl Ord for GroupKey {
    fn cmp(&self, other: &Self) -> Ordering {
        let by_spec = (&self.service, self.version).cmp(&(&other.service, other.version));
        // Nearly always it is the same value, and comparing it reads every text in it.
        by_spec.then_with(|| match Arc::ptr_eq(&self.needs, &other.needs) {
            true => Ordering::Equal,
            false => self.needs.cmp(&other.needs),
        })
    }
}

impl PartialOrd for GroupKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A node, or tasks of a node that is not there (yet, or any more).
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    pub(crate) node: Option<Arc<Node>>,
    pub(crate) load: Load,
}

/// Where the cache differs from the view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CacheDrift {
    /// The object of a node, or the sums over its tasks.
    #[error("the scheduler's cache of node {0} differs from the store")]
    Node(NodeId),
    /// The set of tasks that wait for a node.
    #[error("the scheduler's cache of waiting tasks differs from the store")]
    Waiting,
    /// The set of tasks that wait for the node they came with.
    #[error("the scheduler's cache of preassigned tasks differs from the store")]
    Preassigned,
    /// The set of tasks that wait and are no longer wanted.
    #[error("the scheduler's cache of obsolete tasks differs from the store")]
    Obsolete,
}

/// The cache.
#[derive(Debug, Default)]
pub(crate) struct Cluster {
    ids: BTreeMap<NodeId, NodeIx>,
    entries: Vec<Entry>,
    free: Vec<NodeIx>,
    pub(crate) groups: BTreeMap<GroupKey, Group>,
    pub(crate) preassigned: BTreeMap<NodeId, Tasks>,
    pub(crate) obsolete: Tasks,
    /// Tasks that wait and have no error in their status.
    fresh: usize,
    /// The task whose needs were read last. A shortcut: those of one service need the same, and so
    /// do most without one.
    last_read: Option<(Arc<Task>, Arc<Requirements>)>,
}

/// How a task counts.
enum Place<'a> {
    Nowhere,
    /// Waits for a node.
    Waiting,
    /// Waits for a word that the node it came with will do.
    Preassigned(&'a NodeId),
    /// Is on a node and uses it.
    On(&'a NodeId),
    /// Waits, and is no longer wanted: no agent will ever stop it.
    Obsolete,
}

fn place_of(task: &Task) -> Place<'_> {
    let state = task.state();
    if state < TaskState::Pending || state > TaskState::Running {
        return Place::Nowhere;
    }
    if state > TaskState::Pending {
        return task.node_id.as_ref().map_or(Place::Nowhere, Place::On);
    }
    // A task to be removed is the reaper's before it has a node.
    if task.desired_state() >= TaskState::Remove {
        Place::Nowhere
    } else if !load::is_active(task) {
        Place::Obsolete
    } else {
        task.node_id
            .as_ref()
            .map_or(Place::Waiting, Place::Preassigned)
    }
}

impl Cluster {
    /// From a view.
    pub(crate) fn build(view: &Root, marks: &mut Marks) -> Self {
        let mut cluster = Self::default();
        for node in view.all::<Node>() {
            cluster.put_node(node, marks);
        }
        for task in view.all::<Task>() {
            cluster.learn(task, marks);
        }
        cluster
    }

    /// Nodes with what the tasks on them use, but for one task; nothing about tasks that wait.
    pub(crate) fn build_without(view: &Root, task: &TaskId) -> Self {
        let mut marks = Marks::default();
        let mut cluster = Self::default();
        for node in view.all::<Node>() {
            cluster.put_node(node, &mut marks);
        }
        let others = view.all::<Task>().filter(|other| other.id != *task);
        for other in others.filter(|other| matches!(place_of(other), Place::On(_))) {
            cluster.learn(other, &mut marks);
        }
        cluster
    }

    /// Where this cache differs from another one.
    pub(crate) fn compare(&self, other: &Self) -> Result<(), CacheDrift> {
        for id in self.ids.keys().chain(other.ids.keys()) {
            if self.entry_of(id) != other.entry_of(id) {
                return Err(CacheDrift::Node(id.clone()));
            }
        }
        if self.groups != other.groups || self.fresh != other.fresh {
            return Err(CacheDrift::Waiting);
        }
        if self.preassigned != other.preassigned {
            return Err(CacheDrift::Preassigned);
        }
        if self.obsolete != other.obsolete {
            return Err(CacheDrift::Obsolete);
        }
        Ok(())
    }

    /// Takes notice of a task that was created, changed or removed.
    pub(crate) fn change_task(
        &mut self,
        old: Option<&Arc<Task>>,
        new: Option<&Arc<Task>>,
        marks: &mut Marks,
    ) {
        if let (Some(old), Some(new)) = (old, new)
            && let (Place::On(from), Place::On(to)) = (place_of(old), place_of(new))
            && from == to
            && load::is_same_load(old, new)
        {
            return;
        }
        if let Some(old) = old {
            self.forget(old, marks);
        }
        if let Some(new) = new {
            self.learn(new, marks);
        }
    }

    fn learn(&mut self, task: &Arc<Task>, marks: &mut Marks) {
        match place_of(task) {
            Place::Nowhere => {}
            Place::Waiting => {
                let key = self.group_key(task);
                let group = match self.groups.get_mut(&key) {
                    Some(group) => group,
                    None => self.groups.entry(key.clone()).or_default(),
                };
                group.insert(task);
                marks.due.group(&key, group.len());
                self.fresh += usize::from(task.status().err.is_empty());
                marks.due.stir();
            }
            Place::Preassigned(node) => {
                let tasks = self.preassigned.entry(node.clone()).or_default();
                tasks.insert(task.id.clone(), Arc::clone(task));
                self.fresh += usize::from(task.status().err.is_empty());
                marks.due.node(node);
                marks.due.stir();
            }
            Place::On(node) => {
                let ix = self.entry_for(node);
                self.entries[ix.index()].load.add(task);
                self.node_changed(node, ix, NodeChange::Load, marks);
            }
            Place::Obsolete => {
                self.obsolete.insert(task.id.clone(), Arc::clone(task));
                marks.due.stir();
            }
        }
    }

    fn forget(&mut self, task: &Arc<Task>, marks: &mut Marks) {
        match place_of(task) {
            Place::Nowhere => {}
            Place::Waiting => {
                let key = self.group_key(task);
                self.forget_waiting(&key, task, marks);
            }
            Place::Preassigned(node) => {
                if let Some(tasks) = self.preassigned.get_mut(node) {
                    tasks.remove(&task.id);
                    if tasks.is_empty() {
                        self.preassigned.remove(node);
                        marks.due.node_done(node);
                    }
                }
                self.fresh -= usize::from(task.status().err.is_empty());
            }
            Place::On(node) => {
                let ix = self.entry_for(node);
                self.entries[ix.index()].load.remove(task);
                self.node_changed(node, ix, NodeChange::Load, marks);
                self.drop_if_empty(node, ix);
                marks.due.everything();
                marks.due.stir();
            }
            Place::Obsolete => {
                self.obsolete.remove(&task.id);
            }
        }
    }

    fn forget_waiting(&mut self, key: &GroupKey, task: &Task, marks: &mut Marks) {
        let Some(group) = self.groups.get_mut(key) else {
            return;
        };
        group.remove(task);
        self.fresh -= usize::from(task.status().err.is_empty());
        let left = group.len();
        if left == 0 {
            self.groups.remove(key);
        }
        marks.due.group_shrank(key, left);
    }

    /// Takes notice of a node that was created or changed.
    pub(crate) fn put_node(&mut self, node: &Arc<Node>, marks: &mut Marks) {
        let ix = self.entry_for(&node.id);
        let old = self.entries[ix.index()].node.replace(Arc::clone(node));
        if old.is_none_or(|old| is_judged_differently(&old, node)) {
            self.node_changed(&node.id, ix, NodeChange::Object, marks);
            marks.due.everything();
            marks.due.stir();
        }
    }

    /// Takes notice of a node that is gone.
    pub(crate) fn remove_node(&mut self, id: &NodeId, marks: &mut Marks) {
        if let Some(ix) = self.ids.get(id).copied() {
            self.entries[ix.index()].node = None;
            self.node_changed(id, ix, NodeChange::Object, marks);
            self.drop_if_empty(id, ix);
            marks.due.everything();
            marks.due.stir();
        }
    }

    fn node_changed(&self, id: &NodeId, ix: NodeIx, change: NodeChange, marks: &mut Marks) {
        marks.log.push(ix, change, self.entries.len());
        if self.preassigned.contains_key(id) {
            marks.due.node(id);
        }
    }

    fn entry_for(&mut self, id: &NodeId) -> NodeIx {
        if let Some(ix) = self.ids.get(id) {
            return *ix;
        }
        let entry = Entry {
            node: None,
            load: Load::default(),
        };
        let ix = if let Some(ix) = self.free.pop() {
            self.entries[ix.index()] = entry;
            ix
        } else {
            self.entries.push(entry);
            let last = u32::try_from(self.entries.len() - 1);
            NodeIx(last.expect("a cluster has fewer than 2^32 nodes"))
        };
        self.ids.insert(id.clone(), ix);
        ix
    }

    fn drop_if_empty(&mut self, id: &NodeId, ix: NodeIx) {
        let entry = &self.entries[ix.index()];
        if entry.node.is_none() && entry.load.is_empty() {
            self.ids.remove(id);
            self.free.push(ix);
        }
    }

    fn group_key(&mut self, task: &Arc<Task>) -> GroupKey {
        GroupKey {
            service: task.service_id.clone(),
            version: task.spec_version,
            needs: self.needs_of(task),
        }
    }

    fn needs_of(&mut self, task: &Arc<Task>) -> Arc<Requirements> {
        if let Some((last, needs)) = &self.last_read
            && requirements::are_same(last, task)
        {
            return Arc::clone(needs);
        }
        let needs = Arc::new(Requirements::of(task));
        self.last_read = Some((Arc::clone(task), Arc::clone(&needs)));
        needs
    }

    /// Sorts in the tasks of a group, so that they can be read.
    pub(crate) fn settle(&mut self, key: &GroupKey) {
        if let Some(group) = self.groups.get_mut(key) {
            group.settle();
        }
    }

    /// How many places there are for nodes, free ones included.
    pub(crate) fn places(&self) -> usize {
        self.entries.len()
    }

    /// All places but free ones, by the ids of their nodes: who orders nodes has little left to
    /// sort then.
    pub(crate) fn all(&self) -> impl Iterator<Item = NodeIx> {
        self.ids.values().copied()
    }

    /// Tasks that wait and were not yet told why.
    pub(crate) fn fresh(&self) -> usize {
        self.fresh
    }

    /// The place of a node.
    pub(crate) fn find(&self, id: &NodeId) -> Option<NodeIx> {
        self.ids.get(id).copied()
    }

    fn entry_of(&self, id: &NodeId) -> Option<&Entry> {
        self.ids.get(id).map(|ix| &self.entries[ix.index()])
    }

    /// The node in a place, if there is one.
    pub(crate) fn node(&self, ix: NodeIx) -> Option<&Arc<Node>> {
        self.entries.get(ix.index())?.node.as_ref()
    }

    /// The node in a place with what is used of it.
    pub(crate) fn view<'a>(
        &'a self,
        ix: NodeIx,
        planned: Option<&'a Load>,
    ) -> Option<NodeView<'a>> {
        let entry = self.entries.get(ix.index())?;
        Some(NodeView {
            node: entry.node.as_ref()?,
            load: &entry.load,
            planned,
        })
    }
}

/// Whether a filter or preference could see the difference; certificates and addresses of managers
/// change as well, and nobody here looks at them.
fn is_judged_differently(old: &Node, new: &Node) -> bool {
    let same_description = match (&old.description, &new.description) {
        (Some(old), Some(new)) => Arc::ptr_eq(old, new) || old == new,
        (None, None) => true,
        (Some(_), None) | (None, Some(_)) => false,
    };
    !(same_description
        && (Arc::ptr_eq(&old.spec, &new.spec) || old.spec == new.spec)
        && old.status == new.status
        && old.role == new.role)
}
