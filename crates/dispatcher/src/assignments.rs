//! What one node was told to run, and the message that brings it up to date.
//!
//! Refuses to own: when a message is sent (`dispatcher`) and what a node should run (the store).
//! Secrets that a driver provides need a call to a plugin, which is the shell's; their place is
//! [`dependency_item`]. Volumes follow the same path once nodes can mount them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{ConfigId, NodeId, SecretId, Task, TaskId, TaskState, convert, spec};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;

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
    /// Tasks that may differ from what was sent.
    dirty: BTreeSet<TaskId>,
    /// The number of the last message; 0 before the complete one.
    sequence: u64,
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
    Config(ConfigId),
}

#[derive(Debug, Default)]
struct Users {
    tasks: BTreeSet<TaskId>,
    /// False while the object is missing in the store: the task goes out without it.
    is_sent: bool,
}

impl Assignments {
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
        if self.sent.contains_key(task) || self.dirty.contains(task) {
            self.dirty.insert(task.clone());
        }
    }

    /// Notes that changes were missed: compare everything.
    pub(crate) fn handle_lag(&mut self, view: &Root, node: &NodeId) {
        if self.sequence == 0 {
            return;
        }
        self.dirty.extend(self.sent.keys().cloned());
        let tasks = view.tasks_on_node(node).map(|task| task.id.clone());
        self.dirty.extend(tasks);
    }

    /// How many tasks may have to be sent.
    pub(crate) fn backlog(&self) -> usize {
        self.dirty.len()
    }

    /// The next message, unless the node is up to date.
    pub(crate) fn next_message(
        &mut self,
        view: &Root,
        node: &NodeId,
    ) -> Option<v1::AssignmentsMessage> {
        let mut changes = Changes::default();
        let is_complete = self.sequence == 0;
        if is_complete {
            let wanted: Vec<_> = view
                .tasks_on_node(node)
                .filter(|task| task.state() >= TaskState::Assigned)
                .cloned()
                .collect();
            for task in wanted {
                self.put(task, &mut changes);
            }
        } else {
            for _ in 0..ASSIGNMENT_MESSAGE_TASKS_MAX {
                let Some(id) = self.dirty.pop_first() else {
                    break;
                };
                self.compare(view, node, &id, &mut changes);
            }
        }
        let mut list = self.settle_dependencies(view, changes.touched);
        list.append(&mut changes.tasks);
        if list.is_empty() && !is_complete {
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
        Some(v1::AssignmentsMessage {
            r#type: kind as i32,
            applies_to,
            results_in: self.sequence.to_string(),
            changes: list,
        })
    }

    fn compare(&mut self, view: &Root, node: &NodeId, id: &TaskId, changes: &mut Changes) {
        let wanted = view.task(id).filter(|task| {
            task.state() >= TaskState::Assigned && task.node_id.as_ref() == Some(node)
        });
        match (wanted, self.sent.get_mut(id)) {
            (None, None) => {}
            (None, Some(_)) => self.drop_task(id, changes),
            (Some(task), Some(sent)) if is_known(&sent.task, task) => {
                sent.task = Arc::clone(task);
                if task.is_terminal() {
                    self.set_dependencies(id, Vec::new(), changes);
                }
            }
            (Some(task), _) => self.put(Arc::clone(task), changes),
        }
    }

    fn put(&mut self, task: Arc<Task>, changes: &mut Changes) {
        let id = task.id.clone();
        changes.task(
            AssignmentAction::Update,
            Item::Task(convert::task_to_wire(&task)),
        );
        let needs = if task.is_terminal() {
            Vec::new()
        } else {
            dependencies(&task)
        };
        match self.sent.get_mut(&id) {
            Some(sent) => sent.task = task,
            None => {
                let dependencies = Vec::new();
                self.sent.insert(id.clone(), Sent { task, dependencies });
            }
        }
        self.set_dependencies(&id, needs, changes);
    }

    fn drop_task(&mut self, id: &TaskId, changes: &mut Changes) {
        self.set_dependencies(id, Vec::new(), changes);
        self.sent.remove(id);
        let only_id = v1::Task {
            id: id.to_string(),
            ..Default::default()
        };
        changes.task(AssignmentAction::Remove, Item::Task(only_id));
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
    ) -> Vec<v1::AssignmentChange> {
        let mut list = Vec::new();
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
                    list.push(change(AssignmentAction::Remove, only_id(&dependency)));
                }
                (false, false) => {
                    if let Some(item) = dependency_item(view, &dependency) {
                        users.is_sent = true;
                        list.push(change(AssignmentAction::Update, item));
                    }
                }
            }
        }
        list
    }
}

/// What a message will say.
#[derive(Default)]
struct Changes {
    tasks: Vec<v1::AssignmentChange>,
    touched: BTreeSet<Dependency>,
}

impl Changes {
    fn task(&mut self, action: AssignmentAction, item: Item) {
        self.tasks.push(change(action, item));
    }
}

fn change(action: AssignmentAction, item: Item) -> v1::AssignmentChange {
    v1::AssignmentChange {
        assignment: Some(v1::Assignment { item: Some(item) }),
        action: action as i32,
    }
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

/// The object as the store has it; `None` when it is missing there, or when a driver has to be
/// asked for its content.
fn dependency_item(view: &Root, dependency: &Dependency) -> Option<Item> {
    match dependency {
        Dependency::Secret(id) => {
            let secret = view.get::<swarm_types::Secret>(id)?;
            let is_stored = secret.spec.driver.is_none();
            is_stored.then(|| Item::Secret(convert::secret_to_wire(secret)))
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
        Dependency::Config(id) => Item::Config(v1::Config {
            id: id.to_string(),
            ..Default::default()
        }),
    }
}
