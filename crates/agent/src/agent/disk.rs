//! What the agent does while its disk does not take writes.
//!
//! What waits for the disk: everything that could be forgotten after a crash. What does not: ending
//! tasks that are recorded, since a task found running after a crash is ended again; and giving
//! back tasks that were never recorded, since nothing was done for them.

use swarm_executor::Operation;
use swarm_types::{TaskId, TaskState, Timestamp};

use super::{Agent, Timer};
use crate::persist::Persist;
use crate::task::{Effects, Machine};

impl Agent {
    /// A batch is on disk.
    pub fn handle_persisted(&mut self, now: Timestamp, sequence: u64) {
        if self.persist.handle_persisted(sequence) {
            self.timers.clear(&Timer::Persist);
            self.runnable.append(&mut self.blocked);
            self.reporter.retry(now);
        }
    }

    /// A batch could not be written; nothing of it counts. It comes again after a pause, with what
    /// was collected meanwhile. When this goes on, tasks that were never recorded are given back to
    /// the managers with the cause, and the node says in its description that it takes none.
    pub fn handle_persist_failed(&mut self, now: Timestamp, sequence: u64, cause: &str) {
        let Some(pause) = self.persist.handle_failed(now, sequence, cause) else {
            return;
        };
        self.timers.set(Timer::Persist, now.saturating_add(pause));
        self.runnable.append(&mut self.blocked);
        self.reporter.retry(now);
        let Some(cause) = self.persist.trouble(now) else {
            return;
        };
        let reason = format!("the node cannot record the task: {cause}");
        let is_unrecorded = |own: &Machine| !self.persist.is_durable(own.recorded_by);
        let machines = self.machines.iter();
        let unrecorded = machines.filter(|(_, own)| is_unrecorded(own) && !own.is_never_recorded());
        let unrecorded: Vec<TaskId> = unrecorded.map(|(id, _)| id.clone()).collect();
        for id in unrecorded {
            self.refuse(now, &id, &reason);
        }
        self.tell_trouble(now);
    }

    fn refuse(&mut self, now: Timestamp, id: &TaskId, reason: &str) {
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        self.persist.forget(id);
        let is_assigned = machine.is_assigned();
        let changed = machine.refuse(reason, now);
        if is_assigned {
            self.step(now, id, changed);
        } else {
            self.forget(now, id);
        }
    }

    /// Drops a task for which nothing was done, and of which nothing is on the disk.
    pub(super) fn forget(&mut self, now: Timestamp, id: &TaskId) {
        let effects = Effects {
            removed: true,
            ..Effects::default()
        };
        self.apply_effects(now, id, effects);
    }
}

/// Whether an operation need not wait for the disk.
pub(super) fn may_begin(persist: &Persist, machine: &Machine, operation: Operation) -> bool {
    let ends = match operation {
        Operation::Shutdown | Operation::Terminate | Operation::Remove => true,
        // On its way to the end it comes first.
        Operation::Update => machine.task().desired_state() >= TaskState::Shutdown,
        Operation::Prepare | Operation::Start | Operation::Wait | Operation::Close => false,
    };
    persist.is_durable(machine.needs)
        || ends && persist.is_failing() && persist.is_durable(machine.recorded_by)
}

/// Whether the status of a task may go out.
pub(super) fn may_report(persist: &Persist, machine: &Machine) -> bool {
    let is_over = machine.task().is_terminal() && persist.is_failing();
    persist.is_durable(machine.needs) || is_over && persist.is_durable(machine.recorded_by)
}
