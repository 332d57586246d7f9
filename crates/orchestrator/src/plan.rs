//! Builds a step that never outgrows one transaction. Owns the bounds and nothing else.

use swarm_reconcile::Step;
use swarm_store::{SET_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX, Write, WriteSet};
use swarm_types::{Task, TaskState, Timestamp};

/// A step in the making. What does not fit is refused, and the step says that there is more.
#[derive(Default)]
pub(crate) struct Plan {
    step: Step,
    changes: usize,
    bytes: usize,
}

impl Plan {
    /// Adds writes of which all happen or none, apart from the others of the step: one task whose
    /// status was just updated does not hold up two hundred others. `false`: they do not fit.
    pub(crate) fn push<const N: usize>(&mut self, writes: [Write; N]) -> bool {
        let bytes: usize = writes.iter().map(Write::bytes).sum();
        let is_change = |write: &&Write| !matches!(write, Write::Require { .. });
        let changes = writes.iter().filter(is_change).count();
        let is_full = self.changes + changes > TRANSACTION_CHANGES_MAX
            || self.bytes + bytes > TRANSACTION_BYTES_MAX;
        if bytes > SET_BYTES_MAX {
            // Nothing holds it, so it holds up nothing: the queue gives it up, with words.
            self.step.sets.push(WriteSet(writes.into()));
            return true;
        }
        // A set that is larger than a transaction goes alone.
        if is_full && self.changes > 0 {
            self.step.more = true;
            return false;
        }
        self.changes += changes;
        self.bytes += bytes;
        self.step.sets.push(WriteSet(writes.into()));
        true
    }

    /// Sets the desired state of a task that was seen, unless it is as far already.
    pub(crate) fn set_desired(&mut self, task: &Task, desired: TaskState) -> bool {
        with_desired(task, desired).is_none_or(|write| self.push([write]))
    }

    pub(crate) fn wake_by(&mut self, at: Timestamp, why: &'static str) {
        self.step.wake_by(at, why);
    }

    pub(crate) fn finish(self) -> Step {
        self.step
    }
}

/// The write that sets a desired state; `None` when the task is as far already (I-TASK-2).
pub(crate) fn with_desired(task: &Task, desired: TaskState) -> Option<Write> {
    if task.desired_state() >= desired {
        return None;
    }
    let mut task = task.clone();
    task.set_desired(desired).ok()?;
    Some(Write::update(task))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn write(bytes: usize) -> Write {
        let mut task = Task::new("t".parse().unwrap(), Arc::default());
        task.annotations = Some(Box::new(swarm_api::v1::Annotations {
            name: "x".repeat(bytes),
            ..Default::default()
        }));
        Write::create(task)
    }

    #[test]
    fn two_hundred_writes_fit_and_one_more_does_not() {
        let mut plan = Plan::default();
        for _ in 0..200 {
            assert!(plan.push([write(1)]));
        }
        assert!(!plan.push([write(1)]));
        let step = plan.finish();
        assert_eq!((step.sets.len(), step.more), (200, true));
    }

    #[test]
    fn large_writes_fill_a_step_earlier_and_a_huge_one_goes_alone() {
        let mut plan = Plan::default();
        assert!(plan.push([write(TRANSACTION_BYTES_MAX / 2)]));
        assert!(!plan.push([write(TRANSACTION_BYTES_MAX / 2)]));
        assert_eq!(plan.finish().sets.len(), 1);
        let mut plan = Plan::default();
        assert!(plan.push([write(TRANSACTION_BYTES_MAX)]));
        assert!(!plan.push([write(1)]));
        let mut plan = Plan::default();
        assert!(plan.push([write(SET_BYTES_MAX)]));
        assert!(
            plan.push([write(1)]),
            "what never fits does not hold up the others"
        );
    }
}
