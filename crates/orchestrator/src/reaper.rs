//! Deletes what nobody needs any more: removed tasks, orphans without a service, old history
//! (spec 11).
//!
//! Differences from SwarmKit, all for the same reason (a decision is read off the store): lowering
//! the retention limit prunes at once; a task that its orchestrator has not dealt with yet, and the
//! last task of a replica that must not be started again, are never history, so even a limit of 0
//! neither skips a restart delay nor runs a finished task anew.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, Write};
use swarm_types::{
    AnyObject, Cluster, Service, ServiceId, Task, TaskId, TaskState, Timestamp, defaults, spec,
};

use crate::plan::Plan;
use crate::slot::{Tuple, history_key, is_over};

/// Deletions wait for the next multiple of this time, so that they come in few transactions.
pub const BATCH_DELAY: Duration = Duration::from_millis(250);
/// More waiting deletions than this are carried out at once.
pub const BATCH_TASKS_MAX: usize = 1_000;

/// Reason of the timer that waits for a batch to fill.
pub const WAITS_FOR_BATCH: &str = "collects old tasks to delete them together";

/// What one decision is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// All tasks that are to be deleted whatever the history limit.
    Cleanup,
    /// The history of one replica.
    History(Tuple),
}

/// The loop that deletes tasks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reaper {
    /// Tasks to be deleted whatever the history limit.
    cleanup: BTreeSet<TaskId>,
}

impl Reconciler for Reaper {
    type Key = Key;
    const NAME: &'static str = "task-reaper";

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Key>) {
        match &change.object {
            AnyObject::Task(task) => self.observe_task(change, task, view, dirty),
            AnyObject::Service(service) => observe_service(change, service, view, dirty),
            AnyObject::Cluster(cluster) => observe_cluster(change, cluster, view, dirty),
            AnyObject::Node(_)
            | AnyObject::Network(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {}
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Key>) {
        self.cleanup.clear();
        for task in view.all::<Task>() {
            self.look_at(view, &task.id, dirty);
        }
        mark_all_history(view, dirty);
    }

    fn cache_drift(&self, view: &Root) -> Option<String> {
        swarm_reconcile::drift_from_resync(self, view)
    }

    fn reconcile(&self, view: &Root, key: &Key, ctx: &mut Ctx<'_>) -> Step {
        let mut plan = Plan::default();
        match key {
            Key::Cleanup => self.clean_up(view, ctx.now, &mut plan),
            Key::History(tuple) => prune(view, tuple, ctx.now, &mut plan),
        }
        plan.finish()
    }
}

impl Reaper {
    fn observe_task(
        &mut self,
        change: &Change,
        task: &Task,
        view: &Root,
        dirty: &mut BTreeSet<Key>,
    ) {
        // Nearly all tasks that change are no waste and were none, and finding one in the view
        // costs more than all that follows. What the view has beyond this change is shown later.
        if is_waste(task) || !self.cleanup.is_empty() {
            self.look_at(view, &task.id, dirty);
        }
        let is_news = match &change.old {
            Some(AnyObject::Task(old)) => {
                old.is_live() != task.is_live() || old.is_terminal() != task.is_terminal()
            }
            Some(_) | None => change.action == Action::Create,
        };
        let service = task.service_id.as_ref().and_then(|id| view.service(id));
        if let Some(service) = service.filter(|_| is_news)
            && let Some(tuple) = Tuple::of(service, task)
        {
            dirty.insert(Key::History(tuple));
        }
    }

    fn look_at(&mut self, view: &Root, id: &TaskId, dirty: &mut BTreeSet<Key>) {
        if view.task(id).is_some_and(|task| is_waste(task)) {
            self.cleanup.insert(id.clone());
            dirty.insert(Key::Cleanup);
        } else {
            self.cleanup.remove(id);
        }
    }

    fn clean_up(&self, view: &Root, now: Timestamp, plan: &mut Plan) {
        let waste = || {
            self.cleanup
                .iter()
                .filter_map(|id| view.task(id))
                .filter(|task| is_waste(task))
        };
        if self.cleanup.len() <= BATCH_TASKS_MAX {
            let Some(oldest) = waste().map(|task| task.meta.updated_at).min() else {
                return;
            };
            if let Some(at) = not_yet(oldest, now) {
                return plan.wake_by(at, WAITS_FOR_BATCH);
            }
        }
        for task in waste() {
            if !plan.push([Write::delete(&**task)]) {
                return;
            }
        }
    }
}

fn observe_service(change: &Change, service: &Service, view: &Root, dirty: &mut BTreeSet<Key>) {
    let is_same = match &change.old {
        Some(AnyObject::Service(old)) => attempts_max(old) == attempts_max(service),
        Some(_) | None => change.action == Action::Remove,
    };
    if !is_same {
        mark_history(view, &service.id, dirty);
    }
}

fn observe_cluster(change: &Change, cluster: &Cluster, view: &Root, dirty: &mut BTreeSet<Key>) {
    let before = match &change.old {
        Some(AnyObject::Cluster(old)) => retention_limit(Some(old)),
        Some(_) | None => retention_limit(None),
    };
    if before != retention_limit(Some(cluster)) {
        mark_all_history(view, dirty);
    }
}

fn mark_all_history(view: &Root, dirty: &mut BTreeSet<Key>) {
    for service in view.all::<Service>() {
        mark_history(view, &service.id, dirty);
    }
}

fn mark_history(view: &Root, id: &ServiceId, dirty: &mut BTreeSet<Key>) {
    let Some(service) = view.service(id) else {
        return;
    };
    // A replica with one task has no history.
    let old = view.tasks_of_service(id).filter(|task| !task.is_live());
    let tuples = old.filter_map(|task| Tuple::of(service, task));
    dirty.extend(tuples.map(Key::History));
}

/// Whether a task is deleted regardless of history: it was to be removed and has stopped or never
/// came to a node, or it is an orphan without a service.
pub fn is_waste(task: &Task) -> bool {
    let is_removed = task.desired_state() == TaskState::Remove
        && (task.state() < TaskState::Assigned || task.state() >= TaskState::Complete);
    let is_orphan = task.service_id.is_none() && task.state() >= TaskState::Orphaned;
    is_removed || is_orphan
}

/// How many tasks of each replica of a service are kept, the present one included; `None`: all.
/// With a limit on restart attempts one more than those, as they are counted from the tasks.
pub fn keep(service: &Service, cluster: Option<&Cluster>) -> Option<u64> {
    match attempts_max(service) {
        0 => u64::try_from(retention_limit(cluster)).ok(),
        attempts => Some(attempts.saturating_add(1)),
    }
}

fn attempts_max(service: &Service) -> u64 {
    spec::restart_policy(service.spec.task()).max_attempts
}

fn retention_limit(cluster: Option<&Cluster>) -> i64 {
    cluster
        .and_then(|cluster| cluster.spec.orchestration.as_ref())
        .map_or(defaults::TASK_HISTORY_RETENTION_LIMIT, |orchestration| {
            orchestration.task_history_retention_limit
        })
}

/// Deletes the oldest tasks of a replica that are over, until no more than the limit are left.
fn prune(view: &Root, tuple: &Tuple, now: Timestamp, plan: &mut Plan) {
    let Some(service) = view.service(tuple.service()) else {
        return;
    };
    let cluster = view.cluster().map(|cluster| &**cluster);
    let Some(keep) = keep(service, cluster) else {
        return;
    };
    let tasks = tuple.tasks(view);
    let surplus = tasks
        .len()
        .saturating_sub(usize::try_from(keep).unwrap_or(usize::MAX));
    let mut history = history(&tasks);
    history.truncate(surplus);
    if history.is_empty() {
        return;
    }
    let last_created = tasks.iter().map(|task| task.meta.created_at).max();
    if let Some(at) = last_created.and_then(|at| not_yet(at, now)) {
        return plan.wake_by(at, WAITS_FOR_BATCH);
    }
    for task in history {
        if !plan.push([Write::delete(&**task)]) {
            return;
        }
    }
}

/// The tasks of a replica that nobody needs but as history, the oldest first.
fn history<'a>(tasks: &[&'a Arc<Task>]) -> Vec<&'a Arc<Task>> {
    let has_live = tasks.iter().any(|task| task.is_live());
    let last = crate::slot::newest(tasks).filter(|_| !has_live);
    let mut history: Vec<_> = tasks
        .iter()
        .filter(|task| !task.is_live() && is_over(task))
        .filter(|task| last.is_none_or(|last| last.id != task.id))
        .copied()
        .collect();
    history.sort_by_key(|task| history_key(task));
    history
}

/// The end of the batch in which something falls that happened at `since`; `None`: it is over.
fn not_yet(since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let batch = i64::try_from(BATCH_DELAY.as_nanos()).expect("a quarter of a second fits");
    let begin = since.as_nanos().div_euclid(batch).saturating_mul(batch);
    let end = Timestamp::from_nanos(begin).saturating_add(BATCH_DELAY);
    // A time in the future comes from another leader's clock and is not waited for.
    (since <= now && now < end).then_some(end)
}

#[cfg(test)]
mod tests;
