//! The loop: what changes mark, when a pass begins, and what one transaction of it looks at.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, TRANSACTION_CHANGES_MAX};
use swarm_types::spec::{self, ServiceMode};
use swarm_types::{AnyObject, NodeId, Task, TaskState, Timestamp};

use crate::candidates::Facts;
use crate::cluster::{CacheDrift, Cluster, GroupKey};
use crate::due::Marks;
use crate::failures::Failures;
use crate::node_log::NodeChange;
use crate::plan::{Plan, is_group_idle};
use crate::pool::Pool;

/// A pass begins so long after the last change that calls for one (control-plane spec 15.3).
pub const DEBOUNCE_QUIET: Duration = Duration::from_millis(50);
/// And at the latest so long after the first.
pub const DEBOUNCE_MAX: Duration = Duration::from_secs(1);

/// There is one decision: the pass over everything that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The pass.
    Pass,
}

/// When changes called for a pass that has not begun.
#[derive(Clone, Copy, Debug)]
struct Calls {
    first: Timestamp,
    last: Timestamp,
}

impl Calls {
    fn deadline(self) -> Timestamp {
        let quiet = self.last.saturating_add(DEBOUNCE_QUIET);
        quiet.min(self.first.saturating_add(DEBOUNCE_MAX))
    }
}

/// The scheduler.
///
/// A pass begins at once after `resync`, and when a whole transaction of tasks waits that was never
/// looked at; else once changes have paused for [`DEBOUNCE_QUIET`], or [`DEBOUNCE_MAX`] after the
/// first of them. While a pass is under way, what comes in joins it without any wait: the next
/// transaction follows as soon as the last one is committed. A pass ends when nothing is left to
/// write.
#[derive(Debug, Default)]
pub struct Scheduler {
    cluster: Cluster,
    failures: Failures,
    marks: Marks,
    pool: Pool,
    calls: Option<Calls>,
    is_pass_under_way: bool,
    /// What the next step looks at, chosen by `prepare` among what is due.
    work: Work,
}

#[derive(Debug, Default)]
struct Work {
    nodes: Vec<NodeId>,
    groups: Vec<GroupKey>,
}

impl Scheduler {
    /// A scheduler that has seen nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Compares the cache with one built from a view of the same version (I-LOOP-4).
    ///
    /// # Errors
    /// The first difference.
    pub fn check_cache(&self, view: &Root) -> Result<(), CacheDrift> {
        let fresh = Cluster::build(view, &mut Marks::default());
        self.cluster.compare(&fresh)
    }

    /// A scheduler that keeps hardly any orderings of nodes.
    #[cfg(test)]
    pub(crate) fn with_orderings_max(entries_max: usize) -> Self {
        Self {
            pool: Pool::with_bound(entries_max),
            ..Self::default()
        }
    }

    /// Compares every ordering of nodes that is kept with one built from the cache.
    #[cfg(test)]
    pub(crate) fn check_orderings(&self) {
        self.pool.check(self.facts(), &self.marks.log);
    }

    fn facts(&self) -> Facts<'_> {
        Facts {
            cluster: &self.cluster,
            failures: &self.failures,
        }
    }

    fn observe_task(&mut self, change: &Change, view: &Root) {
        let object = Task::of(&change.object);
        let (old, new) = match change.action {
            Action::Create => (None, object),
            Action::Update => (change.old.as_ref().and_then(Task::of), object),
            Action::Remove => (object, None),
        };
        if let (Some(old), Some(new)) = (old, new) {
            self.note_failure(old, new, view);
        }
        self.cluster.change_task(old, new, &mut self.marks);
    }

    /// A node is not to blame for tasks that had no choice of it.
    fn note_failure(&mut self, old: &Task, new: &Task, view: &Root) {
        let failed = matches!(new.state(), TaskState::Failed | TaskState::Rejected);
        if !failed || old.is_terminal() {
            return;
        }
        let (Some(service), Some(node)) = (&new.service_id, &new.node_id) else {
            return;
        };
        let mode = view
            .service(service)
            .and_then(|service| spec::mode(service.spec.wire()));
        let had_choice = match mode {
            Some(ServiceMode::Replicated { .. } | ServiceMode::ReplicatedJob { .. }) | None => true,
            Some(ServiceMode::Global | ServiceMode::GlobalJob) => false,
        };
        if had_choice {
            let culprit = (service.clone(), new.spec_version);
            self.failures.note(new.meta.updated_at, node, culprit);
            self.rank_changed(node);
        }
    }

    fn rank_changed(&mut self, node: &NodeId) {
        if let Some(ix) = self.cluster.find(node) {
            let places = self.cluster.places();
            self.marks.log.push(ix, NodeChange::Load, places);
        }
    }

    /// Whether a pass is under way at this time, after the debounce.
    fn begin_pass(&mut self, now: Timestamp) -> bool {
        if self.marks.due.take_stirred() {
            let calls = self.calls.get_or_insert(Calls {
                first: now,
                last: now,
            });
            calls.last = now;
        }
        let is_due = self.cluster.fresh() >= TRANSACTION_CHANGES_MAX
            || self.calls.is_some_and(|calls| calls.deadline() <= now);
        if is_due {
            self.is_pass_under_way = true;
        }
        if self.is_pass_under_way {
            self.calls = None;
        }
        self.is_pass_under_way
    }

    /// Chooses what is worth a look for one transaction, and drops what turns out to have nothing
    /// to write from what is due.
    fn choose_work(&mut self, view: &Root, now: Timestamp) {
        if self.marks.due.take_everything() {
            for (key, group) in &self.cluster.groups {
                self.marks.due.group(key, group.len());
            }
        }
        let room = TRANSACTION_CHANGES_MAX.saturating_sub(self.cluster.obsolete.len());
        let room = self.choose_nodes(view, now, room);
        self.choose_groups(view, room);
    }

    fn choose_nodes(&mut self, view: &Root, now: Timestamp, room: usize) -> usize {
        let mut room = room;
        let mut last = None;
        while room > 0 {
            let Some(node) = self.marks.due.node_after(last.as_ref()).cloned() else {
                break;
            };
            let plan = Plan::new(self.facts(), view, now);
            let tasks = self.cluster.preassigned.get(&node);
            let news = tasks
                .into_iter()
                .flat_map(BTreeMap::values)
                .filter(|task| plan.has_news_for_preassigned(task))
                .take(room)
                .count();
            if news == 0 {
                self.marks.due.node_done(&node);
            } else {
                room -= news;
                self.work.nodes.push(node.clone());
            }
            last = Some(node);
        }
        room
    }

    fn choose_groups(&mut self, view: &Root, room: usize) {
        let mut room = room;
        let mut last = None;
        let mut is_within_bound = true;
        let since = self.pool.now();
        while room > 0 && is_within_bound {
            let Some(next) = self.marks.due.group_after(last.as_ref()).cloned() else {
                break;
            };
            let key = &next.1;
            self.cluster.settle(key);
            let facts = Facts {
                cluster: &self.cluster,
                failures: &self.failures,
            };
            let candidates = self.pool.refresh(key, facts, &self.marks.log);
            match self.cluster.groups.get(key) {
                Some(group) if !is_group_idle(key, group, candidates, view) => {
                    room = room.saturating_sub(group.len());
                    self.work.groups.push(key.clone());
                    is_within_bound = self.pool.shrink(since);
                }
                Some(_) | None => {
                    self.marks.due.group_done(key);
                    if !self.pool.shrink(since) {
                        self.pool.forget(key);
                    }
                }
            }
            last = Some(next);
        }
    }
}

impl Reconciler for Scheduler {
    type Key = Key;
    const NAME: &'static str = "scheduler";
    const DECIDES_FROM_CACHE: bool = true;

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Key>) {
        match &change.object {
            AnyObject::Task(_) => self.observe_task(change, view),
            AnyObject::Node(node) => match change.action {
                Action::Create | Action::Update => self.cluster.put_node(node, &mut self.marks),
                Action::Remove => self.cluster.remove_node(&node.id, &mut self.marks),
            },
            AnyObject::Service(_)
            | AnyObject::Network(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => return,
        }
        dirty.insert(Key::Pass);
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Key>) {
        self.pool.clear();
        self.marks.due = Default::default();
        self.marks.log.reset();
        self.cluster = Cluster::build(view, &mut self.marks);
        self.is_pass_under_way = true;
        dirty.insert(Key::Pass);
    }

    fn prepare(&mut self, view: &Root, now: Timestamp) {
        self.work = Work::default();
        for node in self.failures.expire(now) {
            self.rank_changed(&node);
        }
        if !self.begin_pass(now) {
            return;
        }
        self.choose_work(view, now);
        let is_idle = self.work.nodes.is_empty()
            && self.work.groups.is_empty()
            && self.cluster.obsolete.is_empty();
        self.is_pass_under_way = !is_idle;
    }

    fn reconcile(&self, view: &Root, key: &Key, ctx: &mut Ctx<'_>) -> Step {
        let Key::Pass = key;
        let mut step = Step::default();
        if !self.is_pass_under_way {
            if let Some(calls) = self.calls {
                step.wake_by(calls.deadline(), "more changes may follow");
            }
            return step;
        }
        let mut plan = Plan::new(self.facts(), view, ctx.now);
        plan.stop_obsolete();
        for node in &self.work.nodes {
            plan.confirm(node);
        }
        for key in &self.work.groups {
            if plan.is_full() {
                break;
            }
            let group = self.cluster.groups.get(key);
            if let (Some(group), Some(candidates)) = (group, self.pool.get(key)) {
                plan.place_group(key, group, candidates);
            }
        }
        // With nothing to write there is nothing to wait for but the next change.
        step.more = !plan.sets.is_empty();
        step.sets = plan.sets;
        step
    }

    fn cache_drift(&self, view: &Root) -> Option<String> {
        let drift = self.check_cache(view).err()?;
        Some(format!("{drift:?}"))
    }

    fn steps_per_transaction(&self) -> usize {
        1
    }
}

/// The task in a change.
trait TaskOf {
    fn of(object: &AnyObject) -> Option<&std::sync::Arc<Task>>;
}

impl TaskOf for Task {
    fn of(object: &AnyObject) -> Option<&std::sync::Arc<Task>> {
        <Task as swarm_types::Object>::from_any(object)
    }
}
