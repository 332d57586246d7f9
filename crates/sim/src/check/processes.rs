//! Checks on what really runs, across all machines.

use std::sync::Arc;

use swarm_types::{Task, TaskId};

use super::Checker;
use crate::event::NodeIx;
use crate::invariants::{Checked, NO_DOUBLE, STARTS_ONCE, ensure};
use crate::node::{Node, replica_of};
use crate::time::Instant;

impl Checker {
    /// A task was started on a node.
    pub(crate) fn handle_process(
        &mut self,
        nodes: &[Node],
        at: Instant,
        (ix, id): (NodeIx, &TaskId),
    ) -> Checked {
        let first = *self.started.entry(id.clone()).or_insert(ix);
        ensure(first == ix, STARTS_ONCE, || {
            format!("task {id} ran on {first} and now on {ix}")
        })?;
        let Some(task) = nodes[ix.0].tasks.get(id) else {
            return Ok(());
        };
        let Some(replica) = replica_of(task) else {
            return Ok(());
        };
        for node in nodes {
            for (other, other_task) in node.processes(at) {
                let is_same = other_task.as_ref().and_then(|task| replica_of(task));
                if other == *id || is_same.as_ref() != Some(&replica) {
                    continue;
                }
                self.double_runs += 1;
                self.check_pair((ix, task), (node.ix, other_task.as_ref()), &replica)?;
            }
        }
        Ok(())
    }

    fn check_pair(
        &self,
        (ix, task): (NodeIx, &Arc<Task>),
        (other_ix, other): (NodeIx, Option<&Arc<Task>>),
        replica: &str,
    ) -> Checked {
        let Some(other) = other else {
            return Ok(());
        };
        let is_given_up =
            |task: &Task| self.given_up.contains(&task.id) || self.acked.task(&task.id).is_none();
        let is_allowed = is_given_up(task) || is_given_up(other);
        ensure(is_allowed, NO_DOUBLE, || {
            let state = |task: &Task| {
                let stored = self.acked.task(&task.id);
                stored.map(|stored| (stored.state(), stored.desired_state()))
            };
            format!(
                "{replica}: task {} on {ix} {:?} and task {} on {other_ix} {:?}",
                task.id,
                state(task),
                other.id,
                state(other)
            )
        })
    }
}
