//! What one node was told to run, and the message that brings it up to date.
//!
//! Refuses to own: when a message is sent (`dispatcher`) and what a node should run (the store).
//! A task whose secret a driver has not provided yet is held back, unless the node has it already.
//! Volumes follow the same path once nodes can mount them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{ConfigId, NodeId, Secret, SecretId, Task, TaskId, TaskState, convert, spec};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;

use crate::driven::{Driven, Need, Place, SecretAnswer};
use crate::wire::{AssignmentsBytes, Draft};

/// A message goes out so long after the last change (spec 5.1).
pub const ASSIGNMENT_BATCH_DELAY: Duration = Duration::from_millis(100);
/// With so many changed tasks it goes out at once (spec 5.1).
pub const ASSIGNMENT_BATCH_CHANGES: usize = 100;
/// Changed tasks in one incremental message; the rest follows in the next one. Bounds the size of a
/// message after a long disconnection. A complete message cannot be cut: agents drop what it does
/// not name.
pub const ASSIGNMENT_MESSAGE_TASKS_MAX: usize = 1_000;

/// The sending side of one assignments stream.
#[derive(Debug, Default)]
pub(crate) struct Assignments {
    sent: BTreeMap<TaskId, Sent>,
    /// Who uses what was sent besides tasks.
    users: BTreeMap<Dependency, Users>,
    driven: Driven,
    /// Tasks that are not sent until a driver has provided their secrets.
    held: BTreeSet<TaskId>,
    /// Those that were not sent on the stream before, to its end: the node never had them.
    never_sent: BTreeSet<TaskId>,
    /// Tasks that may differ from what was sent.
    dirty: BTreeSet<TaskId>,
    /// The number of the last message; 0 before the complete one.
    sequence: u64,
    /// The node was removed and is to have nothing.
    is_over: bool,
}

#[derive(Debug)]
struct Sent {
    task: Arc<Task>,
    dependencies: Vec<Dependency>,
}

/// What a task needs besides itself.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Dependency {
    Secret(SecretId),
    /// A secret with data for one task alone.
    Own(SecretId, TaskId),
    Config(ConfigId),
}

#[derive(Debug, Default)]
struct Users {
    tasks: BTreeSet<TaskId>,
    /// False while the object is missing in the store: the task goes out without it.
    is_sent: bool,
}

impl Assignments {
    /// A stream that follows upon one which held these tasks back.
    pub(crate) fn after(held: BTreeSet<TaskId>) -> Self {
        Self {
            never_sent: held,
            ..Self::default()
        }
    }

    /// At the end of the stream: the tasks that the node never had.
    pub(crate) fn into_held(self) -> BTreeSet<TaskId> {
        if self.sequence == 0 {
            return self.never_sent;
        }
        let (mut held, sent) = (self.held, self.sent);
        let waiting = self.dirty.into_iter();
        held.extend(waiting.filter(|task| !sent.contains_key(task)));
        held
    }

    /// Notes that a task of this node was created or changed. Status changes end here, at the cost
    /// of one look-up.
    pub(crate) fn handle_change(&mut self, task: &Arc<Task>) {
        if self.sequence == 0 {
            return;
        }
        let Some(sent) = self.sent.get_mut(&task.id) else {
            if task.state() >= TaskState::Assigned {
                self.dirty.insert(task.id.clone());
            }
            return;
        };
        // Tasks in ASSIGNED and before are the manager's to change, so they are sent in any case.
        if task.state() > TaskState::Assigned && sent.task.is_same_assignment(task) {
            if task.meta.version > sent.task.meta.version {
                // Holding on to the older object would keep it in memory beside the stored one.
                sent.task = Arc::clone(task);
            }
            if !task.is_terminal() || sent.dependencies.is_empty() {
                return;
            }
        }
        self.dirty.insert(task.id.clone());
    }

    /// Notes that a task is gone, or is no longer on this node.
    pub(crate) fn handle_removal(&mut self, task: &TaskId) {
        let is_known = self.sent.contains_key(task) || self.held.contains(task);
        if is_known || self.dirty.contains(task) {
            self.dirty.insert(task.clone());
        }
    }

    /// Notes that changes were missed: compare everything.
    pub(crate) fn handle_lag(&mut self, view: &Root, node: &NodeId) {
        if self.sequence == 0 {
            return;
        }
        self.dirty.extend(self.sent.keys().cloned());
        self.dirty.extend(self.held.iter().cloned());
        let tasks = view.tasks_on_node(node).map(|task| task.id.clone());
        self.dirty.extend(tasks);
    }

    /// The node was removed: it is to have no task, whatever the store says.
    pub(crate) fn take_all_back(&mut self) {
        self.is_over = true;
        self.dirty.extend(self.sent.keys().cloned());
        self.dirty.append(&mut self.held);
    }

    /// What drivers provided, and what they are to be asked.
    pub(crate) fn driven(&mut self) -> &mut Driven {
        &mut self.driven
    }

    /// The data cannot be asked for any more, because the secret or the task is gone.
    pub(crate) fn forget_question(&mut self, need: &Need) {
        self.driven.forget(need);
        if self.held.contains(&need.0) {
            self.dirty.insert(need.0.clone());
        }
    }

    /// Takes what a driver provided.
    pub(crate) fn handle_secret(&mut self, need: Need, answer: SecretAnswer) {
        let tasks = self.driven.answer(need, answer);
        let known = |id: &TaskId| self.held.contains(id) || self.sent.contains_key(id);
        let tasks: Vec<TaskId> = tasks.into_iter().filter(known).collect();
        self.dirty.extend(tasks);
    }

    /// How many tasks may have to be sent.
    pub(crate) fn backlog(&self) -> usize {
        self.dirty.len()
    }

    /// The next message, unless the node is up to date.
    pub(crate) fn next_message(&mut self, view: &Root, node: &NodeId) -> Option<AssignmentsBytes> {
        let mut changes = Changes::default();
        let is_complete = self.sequence == 0;
        if is_complete {
            let wanted: Vec<_> = view
                .tasks_on_node(node)
                .filter(|task| !self.is_over && task.state() >= TaskState::Assigned)
                .cloned()
                .collect();
            for task in wanted {
                self.put(view, task, &mut changes);
            }
            self.never_sent.clear();
        } else {
            for _ in 0..ASSIGNMENT_MESSAGE_TASKS_MAX {
                let Some(id) = self.dirty.pop_first() else {
                    break;
                };
                self.compare(view, node, &id, &mut changes);
            }
        }
        let Changes { mut draft, touched } = changes;
        self.settle_dependencies(view, touched, &mut draft);
        if draft.is_empty() && !is_complete {
            return None;
        }
        let applies_to = match self.sequence {
            0 => String::new(),
            last => last.to_string(),
        };
        self.sequence += 1;
        let kind = if is_complete {
            Type::Complete
        } else {
            Type::Incremental
        };
        Some(draft.finish(kind, applies_to, self.sequence.to_string()))
    }

    fn compare(&mut self, view: &Root, node: &NodeId, id: &TaskId, changes: &mut Changes) {
        let wanted = view.task(id).filter(|task| {
            let is_there = task.node_id.as_ref() == Some(node) && !self.is_over;
            is_there && task.state() >= TaskState::Assigned
        });
        match (wanted, self.sent.get_mut(id)) {
            (None, None) => self.release(id),
            (None, Some(_)) => self.drop_task(id, changes),
            (Some(task), Some(sent)) if is_known(&sent.task, task) => {
                sent.task = Arc::clone(task);
                if task.is_terminal() {
                    self.set_dependencies(id, Vec::new(), changes);
                    self.release(id);
                } else if self.driven.is_used() {
                    let (needs, _) = self.needs(view, task);
                    self.set_dependencies(id, needs, changes);
                }
            }
            (Some(task), _) => self.put(view, Arc::clone(task), changes),
        }
    }

    /// Nothing of the task is held back or asked for any more.
    fn release(&mut self, id: &TaskId) {
        self.held.remove(id);
        self.driven.forget_task(id);
    }

    /// What the task needs as far as it can be had, and whether that is not everything.
    fn needs(&mut self, view: &Root, task: &Task) -> (Vec<Dependency>, bool) {
        if task.is_terminal() {
            return (Vec::new(), false);
        }
        let (mut needs, mut is_waiting) = (Vec::new(), false);
        for dependency in dependencies(task) {
            let Dependency::Secret(id) = &dependency else {
                needs.push(dependency);
                continue;
            };
            let is_driven = |secret: &Arc<Secret>| secret.spec.driver.is_some();
            if !view.get::<Secret>(id).is_some_and(is_driven) {
                needs.push(dependency);
                continue;
            }
            match self.driven.place(&task.id, id) {
                Some(Place::Shared) => needs.push(dependency),
                Some(Place::Own) => needs.push(Dependency::Own(id.clone(), task.id.clone())),
                None => is_waiting = true,
            }
        }
        (needs, is_waiting)
    }

    fn put(&mut self, view: &Root, task: Arc<Task>, changes: &mut Changes) {
        let id = task.id.clone();
        let (needs, is_waiting) = self.needs(view, &task);
        // A task that the node has must stay in its set; it has its secrets, or waits for them. One
        // that is to stop needs none, and only its node can say that it has stopped.
        // What the first message leaves out the node would remove, and it may run there: a report
        // about it can be lost, or on its way. So only a task that was never sent is held back
        // then.
        let was_sent =
            self.sent.contains_key(&id) || self.sequence == 0 && !self.never_sent.contains(&id);
        let is_new = task.state() <= TaskState::Assigned && !was_sent;
        if is_waiting && is_new && task.is_live() {
            self.held.insert(id);
            return;
        }
        self.held.remove(&id);
        changes.draft.put_task(&task);
        let has_ended = task.is_terminal();
        match self.sent.get_mut(&id) {
            Some(sent) => sent.task = task,
            None => {
                let dependencies = Vec::new();
                self.sent.insert(id.clone(), Sent { task, dependencies });
            }
        }
        self.set_dependencies(&id, needs, changes);
        if has_ended {
            self.release(&id);
        }
    }

    fn drop_task(&mut self, id: &TaskId, changes: &mut Changes) {
        self.set_dependencies(id, Vec::new(), changes);
        self.release(id);
        self.sent.remove(id);
        let only_id = v1::Task {
            id: id.to_string(),
            ..Default::default()
        };
        changes.draft.drop_task(only_id);
    }

    fn set_dependencies(&mut self, id: &TaskId, needs: Vec<Dependency>, changes: &mut Changes) {
        let Some(sent) = self.sent.get_mut(id) else {
            return;
        };
        let before = std::mem::replace(&mut sent.dependencies, needs);
        for dependency in &before {
            if let Some(users) = self.users.get_mut(dependency) {
                users.tasks.remove(id);
            }
        }
        for dependency in &sent.dependencies {
            let users = self.users.entry(dependency.clone()).or_default();
            users.tasks.insert(id.clone());
        }
        changes.touched.extend(before);
        changes.touched.extend(sent.dependencies.iter().cloned());
    }

    /// The first user of an object makes it go out, the last one makes it be taken back.
    fn settle_dependencies(
        &mut self,
        view: &Root,
        touched: BTreeSet<Dependency>,
        draft: &mut Draft,
    ) {
        for dependency in touched {
            let Some(users) = self.users.get_mut(&dependency) else {
                continue;
            };
            match (users.is_sent, users.tasks.is_empty()) {
                (true, false) => {}
                (false, true) => {
                    self.users.remove(&dependency);
                }
                (true, true) => {
                    self.users.remove(&dependency);
                    if let Dependency::Secret(id) = &dependency {
                        self.driven.forget_shared(id);
                    }
                    draft.dependency(AssignmentAction::Remove, only_id(&dependency));
                }
                (false, false) => {
                    if let Some(item) = dependency_item(view, &self.driven, &dependency) {
                        users.is_sent = true;
                        draft.dependency(AssignmentAction::Update, item);
                    }
                }
            }
        }
    }
}

/// What a message will say.
#[derive(Default)]
struct Changes {
    draft: Draft,
    touched: BTreeSet<Dependency>,
}

/// Whether the node has everything of `task` that concerns it (spec 5.7).
fn is_known(sent: &Task, task: &Task) -> bool {
    let is_same_object = sent.meta.version == task.meta.version;
    (is_same_object || task.state() > TaskState::Assigned) && sent.is_same_assignment(task)
}

/// References that are no ids cannot be in the store; the task goes out without them.
fn dependencies(task: &Task) -> Vec<Dependency> {
    let secrets = spec::secret_ids(&task.spec).filter_map(|id| id.parse().ok());
    let configs = spec::config_ids(&task.spec).filter_map(|id| id.parse().ok());
    let mut all: Vec<_> = secrets
        .map(Dependency::Secret)
        .chain(configs.map(Dependency::Config))
        .collect();
    all.sort();
    all.dedup();
    all
}

/// The object as the store has it, with the data of its driver if it has one; `None` when it is
/// missing there.
fn dependency_item(view: &Root, driven: &Driven, dependency: &Dependency) -> Option<Item> {
    match dependency {
        Dependency::Secret(id) => {
            let secret = view.get::<Secret>(id)?;
            let mut wire = convert::secret_to_wire(secret);
            if secret.spec.driver.is_some() {
                wire.spec.get_or_insert_default().data = driven.shared(id)?.clone();
            }
            Some(Item::Secret(wire))
        }
        Dependency::Own(id, task) => {
            let mut wire = convert::secret_to_wire(view.get::<Secret>(id)?);
            wire.id = own_id(id, task);
            wire.internal = true;
            wire.spec.get_or_insert_default().data = driven.own(task, id)?.clone();
            Some(Item::Secret(wire))
        }
        Dependency::Config(id) => {
            let config = view.get::<swarm_types::Config>(id)?;
            Some(Item::Config(convert::config_to_wire(config)))
        }
    }
}

fn only_id(dependency: &Dependency) -> Item {
    match dependency {
        Dependency::Secret(id) => Item::Secret(v1::Secret {
            id: id.to_string(),
            ..Default::default()
        }),
        Dependency::Own(id, task) => Item::Secret(v1::Secret {
            id: own_id(id, task),
            ..Default::default()
        }),
        Dependency::Config(id) => Item::Config(v1::Config {
            id: id.to_string(),
            ..Default::default()
        }),
    }
}

/// The id under which agents look for data of one task before they look for those of all.
fn own_id(secret: &SecretId, task: &TaskId) -> String {
    format!("{secret}.{task}")
}
