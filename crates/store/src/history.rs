//! What happened lately: a bounded window of commits, from which a subscriber that lagged catches
//! up and the story of one object is told.

use std::collections::VecDeque;
use std::sync::Arc;

use swarm_types::{Id, Kind, Version};

use crate::transaction::{Change, Commit};

/// How much is kept. Old objects stay in memory only because of this window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HistoryLimits {
    /// Changes at most, over all commits, a large one counting as several ([`Change::weight`]); a
    /// commit larger than this empties the window.
    pub changes_max: usize,
}

impl Default for HistoryLimits {
    fn default() -> Self {
        // About 400 bytes per old object: 40 MB at the most for tasks, and 100 MB of what is large.
        Self {
            changes_max: 100_000,
        }
    }
}

/// The wanted version is older than the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version {wanted} is no longer in the history, which begins after version {floor}")]
pub struct Compacted {
    /// What was asked for.
    pub wanted: Version,
    /// The oldest version from which one can go on.
    pub floor: Version,
}

/// The window.
#[derive(Debug)]
pub struct History {
    limits: HistoryLimits,
    floor: Version,
    commits: VecDeque<Arc<Commit>>,
    changes: usize,
}

impl History {
    /// An empty window that begins after `floor`.
    pub fn new(limits: HistoryLimits, floor: Version) -> Self {
        Self {
            limits,
            floor,
            commits: VecDeque::new(),
            changes: 0,
        }
    }

    /// Adds the newest commit and drops the oldest ones beyond the limit.
    pub fn push(&mut self, commit: Arc<Commit>) {
        let weight = commit.weight();
        if weight > self.limits.changes_max {
            *self = Self::new(self.limits, commit.version);
            return;
        }
        self.changes += weight;
        self.commits.push_back(commit);
        while self.changes > self.limits.changes_max {
            self.drop_oldest();
        }
    }

    fn drop_oldest(&mut self) {
        let Some(commit) = self.commits.pop_front() else {
            return;
        };
        self.changes -= commit.weight();
        self.floor = commit.version;
    }

    /// The commits after `version`, oldest first.
    ///
    /// # Errors
    /// [`Compacted`] when the window begins later.
    pub fn since(&self, version: Version) -> Result<Vec<Arc<Commit>>, Compacted> {
        if version < self.floor {
            return Err(Compacted {
                wanted: version,
                floor: self.floor,
            });
        }
        let start = self
            .commits
            .partition_point(|commit| commit.version <= version);
        Ok(self.commits.range(start..).cloned().collect())
    }

    /// The changes of one object that are still in the window, oldest first, each with its commit.
    ///
    /// Walks the whole window: it is asked by people, and an index would cost every write.
    pub fn of(&self, kind: Kind, id: &Id) -> Vec<(Arc<Commit>, Change)> {
        story(&self.commits, kind, id)
    }

    /// The whole window, to be searched without holding a lock.
    pub(crate) fn window(&self) -> Vec<Arc<Commit>> {
        self.commits.iter().cloned().collect()
    }

    /// How much is kept.
    pub fn limits(&self) -> HistoryLimits {
        self.limits
    }

    /// The version after which the window begins.
    pub fn floor(&self) -> Version {
        self.floor
    }
}

/// The changes of one object in some commits.
pub(crate) fn story<'a>(
    commits: impl IntoIterator<Item = &'a Arc<Commit>>,
    kind: Kind,
    id: &Id,
) -> Vec<(Arc<Commit>, Change)> {
    let mut found = Vec::new();
    for commit in commits {
        let changes = commit
            .changes
            .iter()
            .filter(|change| change.object.raw_id() == id && change.object.kind() == kind);
        found.extend(changes.map(|change| (Arc::clone(commit), change.clone())));
    }
    found
}

#[cfg(test)]
mod tests;
