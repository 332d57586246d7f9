//! What a node was sent besides tasks.
//!
//! Reads the messages a second time and remembers them in the simplest way, so that dispatcher and
//! agent are both held against it: nothing comes twice, what came is used by a task, and a task has
//! all that it refers to from the message on that brought it.

use std::collections::{BTreeMap, BTreeSet};

use swarm_agent::Agent;
use swarm_api::v1;
use swarm_executor::ExecError;
use swarm_store::Root;
use swarm_types::{NodeId, Secret, Task, TaskId, spec};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;

use crate::invariants::{Checked, HELD, SENT_ONCE, STAYS, WITH_TASK, ensure};

/// The tasks of a node and what came with them, as the managers told it.
#[derive(Debug, Default)]
pub(crate) struct Told {
    tasks: BTreeMap<String, ToldTask>,
    /// Ids of secrets and configs.
    held: BTreeSet<String>,
    /// Tasks that the agent had, and that a complete message did not name.
    dropped: Vec<TaskId>,
    /// A message came since somebody looked.
    is_news: bool,
}

#[derive(Debug)]
struct ToldTask {
    refers_to: BTreeSet<String>,
    /// It came as a new task that is to run: then drivers have answered.
    is_new: bool,
}

/// The ids of the secrets and configs to which a task refers.
pub(crate) fn references(spec: &v1::TaskSpec) -> BTreeSet<String> {
    let ids = spec::secret_ids(spec).chain(spec::config_ids(spec));
    ids.map(str::to_owned).collect()
}

/// The id of the object itself, where it was sent for one task alone.
fn object_of(id: &str) -> &str {
    id.split_once('.').map_or(id, |(object, _)| object)
}

impl Told {
    /// Reads a message that the agent took, which had these tasks before it.
    pub(crate) fn take(
        &mut self,
        message: &v1::AssignmentsMessage,
        had: BTreeSet<TaskId>,
    ) -> Checked {
        self.is_news = true;
        let is_incremental = message.r#type() == Type::Incremental;
        if !is_incremental {
            self.tasks.clear();
            self.held.clear();
        }
        for change in &message.changes {
            let item = change.assignment.as_ref().and_then(|it| it.item.as_ref());
            let is_removal = change.action() == AssignmentAction::Remove;
            match item {
                Some(Item::Secret(secret)) => self.take_object(&secret.id, is_removal)?,
                Some(Item::Config(config)) => self.take_object(&config.id, is_removal)?,
                Some(Item::Task(task)) if is_removal => drop(self.tasks.remove(&task.id)),
                Some(Item::Task(task)) => self.take_task(task, is_incremental),
                Some(Item::Volume(_)) | None => {}
            }
        }
        if !is_incremental {
            let is_dropped = |id: &TaskId| !self.tasks.contains_key(&id.to_string());
            self.dropped = had.into_iter().filter(is_dropped).collect();
        }
        let unused = self.held.iter().find(|id| !self.is_used(id));
        ensure(unused.is_none(), HELD, || {
            format!("{unused:?} is kept, and no task of the node refers to it")
        })
    }

    fn take_object(&mut self, id: &str, is_removal: bool) -> Checked {
        let is_new = if is_removal {
            self.held.remove(id)
        } else {
            self.held.insert(id.to_owned())
        };
        ensure(is_new, SENT_ONCE, || {
            let what = if is_removal {
                "taken back, and is not there"
            } else {
                "sent again"
            };
            format!("{id} is {what}")
        })
    }

    fn take_task(&mut self, task: &v1::Task, is_incremental: bool) {
        let state = task.status.as_ref().map_or(0, |status| status.state);
        let told = ToldTask {
            refers_to: task.spec.as_ref().map(references).unwrap_or_default(),
            is_new: is_incremental
                && !self.tasks.contains_key(&task.id)
                && task.desired_state <= v1::TaskState::Running as i32
                && state <= v1::TaskState::Assigned as i32,
        };
        self.tasks.insert(task.id.clone(), told);
    }

    fn is_used(&self, id: &str) -> bool {
        match id.split_once('.') {
            Some((object, task)) => {
                let task = self.tasks.get(task);
                task.is_some_and(|task| task.refers_to.contains(object))
            }
            None => self.tasks.values().any(|task| task.refers_to.contains(id)),
        }
    }

    /// After a message: what its tasks refer to is there, as far as it exists, and the agent has
    /// it.
    pub(crate) fn check(&mut self, agent: &Agent, node: &NodeId, acked: &Root) -> Checked {
        if !std::mem::take(&mut self.is_news) {
            return Ok(());
        }
        // A removed node may keep none, and is told so by a message that names none.
        let is_member = acked.node(node).is_some();
        for id in self.dropped.drain(..) {
            let stored = acked.task(&id).and_then(|task| task.node_id.as_ref());
            ensure(!is_member || stored != Some(node), STAYS, || {
                format!("task {id} is still assigned to {node}, and was not named to it again")
            })?;
        }
        let kept: BTreeSet<String> = agent.dependency_ids().map(str::to_owned).collect();
        ensure(kept == self.held, HELD, || {
            format!("the agent has {kept:?}, and was sent {:?}", self.held)
        })?;
        for (id, told) in &self.tasks {
            let stored = id.parse().ok().and_then(|id| acked.task(&id));
            // What has ended needs nothing any more.
            if stored.is_none_or(|task| task.is_terminal()) {
                continue;
            }
            for object in &told.refers_to {
                let is_there = self.held.contains(object)
                    || self.held.contains(&format!("{object}.{id}"))
                    || !is_due(object, told, acked);
                ensure(is_there, WITH_TASK, || {
                    format!("task {id} came without {object}")
                })?;
            }
        }
        Ok(())
    }
}

/// Whether an object must come with its task: it exists, and is not one that a driver has yet to
/// provide to a task which the node may have had before, or which is to stop.
fn is_due(object: &str, task: &ToldTask, acked: &Root) -> bool {
    let secret = object.parse().ok().and_then(|id| acked.get::<Secret>(&id));
    let config = object.parse().ok();
    let config = config.and_then(|id| acked.get::<swarm_types::Config>(&id));
    match (secret, config) {
        (Some(secret), _) if secret.spec.driver.is_some() => task.is_new,
        (Some(_), _) | (_, Some(_)) => true,
        (None, None) => false,
    }
}

/// Why a task cannot be prepared: something that it refers to is not there.
pub(super) fn missing(agent: &Agent, task: &Task) -> Option<ExecError> {
    let dependencies = agent.dependencies(&task.id)?;
    let secrets = spec::secret_ids(&task.spec).map(|id| dependencies.secret(id).map(drop));
    let configs = spec::config_ids(&task.spec).map(|id| dependencies.config(id).map(drop));
    secrets.chain(configs).find_map(Result::err)
}

/// At the end: the agent has what the live tasks of its node refer to, and nothing else.
pub(crate) fn check_end(agent: &Agent, live: &[&Task]) -> Result<(), String> {
    let wanted: BTreeSet<String> = live
        .iter()
        .flat_map(|task| references(&task.spec))
        .collect();
    let kept: BTreeSet<String> = agent
        .dependency_ids()
        .map(|id| object_of(id).to_owned())
        .collect();
    if kept == wanted {
        return Ok(());
    }
    Err(format!(
        "it has {kept:?} of secrets and configs, its tasks refer to {wanted:?}"
    ))
}
