//! Which statuses the managers do not have yet, and the call that brings them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_types::{TaskId, TaskStatus, Timestamp};

/// How long the first status of a report waits for others.
pub const REPORT_DELAY: Duration = Duration::from_millis(100);
/// Statuses in one call; with so many it does not wait. With error texts of the greatest length
/// they stay below the 4 MiB that gRPC takes by default.
pub const REPORT_CHUNK_MAX: usize = 500;

/// One entry for each task at most; the status itself is read when it goes out, so what happens in
/// between is coalesced.
#[derive(Debug, Default)]
pub(crate) struct Reporter {
    waiting: BTreeSet<TaskId>,
    due_at: Option<Timestamp>,
    in_flight: BTreeSet<TaskId>,
}

impl Reporter {
    /// The status of a task changed.
    pub(crate) fn put(&mut self, now: Timestamp, task: &TaskId) {
        self.waiting.insert(task.clone());
        let at = if self.waiting.len() >= REPORT_CHUNK_MAX {
            now
        } else {
            now.saturating_add(REPORT_DELAY)
        };
        self.due_at = Some(self.due_at.map_or(at, |known| known.min(at)));
    }

    /// The managers may have forgotten: report these.
    pub(crate) fn put_all(&mut self, now: Timestamp, tasks: impl Iterator<Item = TaskId>) {
        self.waiting.extend(tasks);
        if !self.waiting.is_empty() {
            self.due_at = Some(now);
        }
    }

    /// A task is no longer assigned here.
    pub(crate) fn forget(&mut self, task: &TaskId) {
        self.waiting.remove(task);
        self.in_flight.remove(task);
    }

    /// When to call [`Reporter::take`]; `None` while a call is under way.
    pub(crate) fn timeout(&self) -> Option<Timestamp> {
        self.due_at.filter(|_| self.in_flight.is_empty())
    }

    /// The statuses for the next call. `read` gives `None` for one that must not go out yet; such
    /// a task keeps waiting, and [`Reporter::retry`] says when to ask again.
    pub(crate) fn take(
        &mut self,
        now: Timestamp,
        read: impl Fn(&TaskId) -> Option<TaskStatus>,
    ) -> Option<BTreeMap<TaskId, TaskStatus>> {
        if !self.in_flight.is_empty() || self.due_at.is_none_or(|at| at > now) {
            return None;
        }
        let chunk: BTreeMap<_, _> = self
            .waiting
            .iter()
            .filter_map(|id| Some((id.clone(), read(id)?)))
            .take(REPORT_CHUNK_MAX)
            .collect();
        self.waiting.retain(|id| !chunk.contains_key(id));
        self.in_flight = chunk.keys().cloned().collect();
        if self.waiting.is_empty() || chunk.is_empty() {
            self.due_at = None;
        }
        (!chunk.is_empty()).then_some(chunk)
    }

    /// Statuses that had to wait may go out now.
    pub(crate) fn retry(&mut self, now: Timestamp) {
        if !self.waiting.is_empty() && self.due_at.is_none() {
            self.due_at = Some(now);
        }
    }

    /// The managers took what was under way.
    pub(crate) fn handle_taken(&mut self) {
        self.in_flight.clear();
    }

    /// What was under way may be lost.
    pub(crate) fn handle_lost(&mut self, now: Timestamp) {
        let lost = std::mem::take(&mut self.in_flight);
        self.put_all(now, lost.into_iter());
    }
}
