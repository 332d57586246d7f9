//! The tasks of one group that wait for a node.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_types::{Task, TaskId, Text};

/// Tasks by id.
pub(crate) type Tasks = BTreeMap<TaskId, Arc<Task>>;

/// Tasks by the error in their status. Those without an error come first.
type ByError = BTreeMap<Text, Tasks>;

/// Arrivals are sorted in as a whole, which walks all tasks, unless there are so many times more
/// tasks than arrivals.
const MERGE_SHARE: usize = 8;

/// The waiting tasks of a group by the error in their status, so that those which already say why
/// they wait need not be read again.
#[derive(Clone, Debug, Default)]
pub(crate) struct Group {
    by_error: ByError,
    /// Tasks without an error that are not sorted in yet: thousands may come in one commit, in any
    /// order, before anyone reads them.
    arrivals: Vec<Arc<Task>>,
    len: usize,
}

impl Group {
    /// How many tasks there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Adds a task that is not there.
    pub(crate) fn insert(&mut self, task: &Arc<Task>) {
        self.len += 1;
        let error = &task.status().err;
        if error.is_empty() {
            self.arrivals.push(Arc::clone(task));
            return;
        }
        let tasks = self.by_error.entry(error.clone()).or_default();
        tasks.insert(task.id.clone(), Arc::clone(task));
    }

    /// Takes out a task that is there.
    pub(crate) fn remove(&mut self, task: &Task) {
        self.settle();
        let error = &task.status().err;
        if let Some(tasks) = self.by_error.get_mut(error) {
            tasks.remove(&task.id);
            self.len -= 1;
            if tasks.is_empty() {
                self.by_error.remove(error);
            }
        }
    }

    /// Sorts in what has arrived.
    pub(crate) fn settle(&mut self) {
        if self.arrivals.is_empty() {
            return;
        }
        let arrivals = std::mem::take(&mut self.arrivals);
        let arrivals = arrivals.into_iter().map(|task| (task.id.clone(), task));
        let tasks = self.by_error.entry(Text::EMPTY).or_default();
        if arrivals.len() < tasks.len() / MERGE_SHARE {
            tasks.extend(arrivals);
        } else {
            tasks.append(&mut arrivals.collect());
        }
    }

    /// The tasks by error. What has arrived must be sorted in.
    pub(crate) fn by_error(&self) -> &ByError {
        debug_assert!(
            self.arrivals.is_empty(),
            "whoever chose the group settled it"
        );
        &self.by_error
    }

    /// The tasks, those without an error first. What has arrived must be sorted in.
    pub(crate) fn tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.by_error().values().flat_map(BTreeMap::values)
    }

    fn settled(&self) -> Cow<'_, ByError> {
        if self.arrivals.is_empty() {
            return Cow::Borrowed(&self.by_error);
        }
        let mut settled = self.clone();
        settled.settle();
        Cow::Owned(settled.by_error)
    }
}

/// What has arrived counts the same whether it is sorted in or not.
impl PartialEq for Group {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.settled() == other.settled()
    }
}
