//! Applies messages of the assignments stream.

use std::collections::BTreeSet;

use swarm_api::v1;
use swarm_types::convert::{Interner, task_from_wire};
use swarm_types::{Task, TaskId, TaskState, Timestamp};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;

use super::{Agent, Timer};
use crate::task::Machine;

impl Agent {
    /// Applies changes: secrets and configs before the tasks that use them (spec 5.7). A change
    /// that cannot be read is logged and left out, so that it does not stop the others; a task that
    /// this node has already is kept then.
    pub(super) fn apply_assignments(
        &mut self,
        now: Timestamp,
        changes: Vec<v1::AssignmentChange>,
        is_complete: bool,
    ) {
        if is_complete {
            self.dependencies.clear();
        }
        let mut tasks = Vec::new();
        for change in changes {
            let action = AssignmentAction::try_from(change.action);
            let item = change.assignment.and_then(|assignment| assignment.item);
            match (item, action) {
                (Some(Item::Task(task)), Ok(action)) => tasks.push((task, action)),
                (Some(Item::Secret(secret)), Ok(AssignmentAction::Update)) => {
                    self.dependencies.put_secret(secret);
                }
                (Some(Item::Secret(secret)), Ok(AssignmentAction::Remove)) => {
                    self.dependencies.remove_secret(&secret.id);
                }
                (Some(Item::Config(config)), Ok(AssignmentAction::Update)) => {
                    self.dependencies.put_config(config);
                }
                (Some(Item::Config(config)), Ok(AssignmentAction::Remove)) => {
                    self.dependencies.remove_config(&config.id);
                }
                (Some(Item::Volume(volume)), Ok(_)) => self.warn(format!(
                    "volume {} was assigned, but this agent cannot mount cluster volumes",
                    volume.id
                )),
                (Some(_), Err(_)) => self.warn(format!(
                    "an assignment has the unknown action {}",
                    change.action
                )),
                (None, _) => self.warn("an assignment is empty".to_owned()),
            }
        }
        self.apply_tasks(now, tasks, is_complete);
    }

    fn apply_tasks(
        &mut self,
        now: Timestamp,
        tasks: Vec<(v1::Task, AssignmentAction)>,
        is_complete: bool,
    ) {
        let mut interner = Interner::new();
        let mut named = BTreeSet::new();
        for (wire, action) in tasks {
            let id: TaskId = match wire.id.parse() {
                Ok(id) => id,
                Err(error) => {
                    self.warn(format!("an assigned task has no usable id: {error}"));
                    continue;
                }
            };
            named.insert(id.clone());
            if action == AssignmentAction::Remove {
                self.unassign(now, &id);
                continue;
            }
            match task_from_wire(wire, &mut interner) {
                Ok(task) => self.assign(now, task),
                Err(error) => self.warn(format!("task {id} cannot be read: {error}")),
            }
        }
        if is_complete {
            let here = self.machines.keys();
            let gone: Vec<_> = here.filter(|id| !named.contains(*id)).cloned().collect();
            for id in gone {
                self.unassign(now, &id);
            }
        }
    }

    fn assign(&mut self, now: Timestamp, task: Task) {
        if self.is_leaving {
            return;
        }
        let id = task.id.clone();
        let is_new = !self.machines.contains_key(&id);
        let is_news = match self.machines.get_mut(&id) {
            Some(machine) => machine.assign(task),
            None if task.state() < TaskState::Assigned => {
                self.warn(format!("task {id} was sent before it was assigned"));
                return;
            }
            None => {
                let machine = Machine::new(task);
                self.logs.handle_task(machine.task());
                self.machines.insert(id.clone(), machine);
                true
            }
        };
        if !is_news {
            return;
        }
        self.timers.clear(&Timer::Retry(id.clone()));
        self.timers.clear(&Timer::Operation(id.clone()));
        if let Some(machine) = self.machines.get_mut(&id) {
            if machine.is_never_recorded() {
                return;
            }
            self.persist.put_task(machine.task());
            machine.needs = self.persist.put_status(&id, machine.status());
            if is_new {
                machine.recorded_by = machine.needs;
            }
        }
        self.step(now, &id, false);
    }
}
