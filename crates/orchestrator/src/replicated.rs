//! Keeps as many replicas of a service alive as its spec says (spec 6 and 10).
//!
//! Two kinds of keys: a slot for what concerns one replica (restart, delay, promotion), and a
//! service for what concerns their number. The service's step reads the slots that it is about to
//! write and no others, as it knows from a cache which slots count. So launching R replicas reads
//! each task a constant number of times. Scaling down, but not to zero, is the exception: each step
//! reads all tasks of the service, as the choice depends on all of them.
//!
//! Tasks made from an older spec are left alone while they run: replacing them is a rolling update.

mod victims;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use swarm_reconcile::{Ctx, Reconciler, Step};
use swarm_store::{Action, Change, Root, Write};
use swarm_types::{AnyObject, Node, Service, ServiceId, Slot, Task, TaskId, TaskState, spec};

use crate::plan::{Plan, with_desired};
use crate::restart::{self, Verdict, concerns_replica, may_still_run, trouble, verdict};
use crate::slot::{Standing, Tuple, is_over, is_rolling_back, standing};
use crate::slot_set::SlotSet;
use crate::task::{Place, Template};

/// What one decision is about. Services come first: a missing replica goes before a timer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The number of replicas.
    Service(ServiceId),
    /// One replica.
    Slot(ServiceId, Slot),
}

/// The loop for replicated services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicated {
    /// The slots of every replicated service in the view.
    slots: BTreeMap<ServiceId, Slots>,
}

/// Which slots of a service have which standing; all others are empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Slots {
    replicas: SlotSet,
    dead: SlotSet,
}

impl Slots {
    fn set(&mut self, slot: Slot, standing: Standing) {
        let places = [
            (&mut self.replicas, standing.is_replica()),
            (&mut self.dead, standing == Standing::Dead),
        ];
        for (set, is_in) in places {
            if is_in {
                set.insert(slot);
            } else {
                set.remove(slot);
            }
        }
    }
}

impl Reconciler for Replicated {
    type Key = Key;
    const NAME: &'static str = "replicated";
    /// The number of replicas comes from the cache: without its own last commit in it, the loop
    /// would count too few and create again.
    const DECIDES_FROM_CACHE: bool = true;

    fn observe(&mut self, change: &Change, view: &Root, dirty: &mut BTreeSet<Key>) {
        match &change.object {
            AnyObject::Service(service) => self.observe_service(change, service, view, dirty),
            AnyObject::Task(task) => self.observe_task(change, task, view, dirty),
            AnyObject::Node(node) => self.observe_node(change, node, view, dirty),
            AnyObject::Network(_)
            | AnyObject::Cluster(_)
            | AnyObject::Secret(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_) => {}
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<Key>) {
        self.slots.clear();
        for service in view.all::<Service>() {
            self.rebuild(view, &service.id, dirty);
        }
    }

    fn cache_drift(&self, view: &Root) -> Option<String> {
        swarm_reconcile::drift_from_resync(self, view)
    }

    fn reconcile(&self, view: &Root, key: &Key, ctx: &mut Ctx<'_>) -> Step {
        let mut plan = Plan::default();
        match key {
            Key::Service(id) => self.reconcile_service(view, id, ctx, &mut plan),
            Key::Slot(id, slot) => reconcile_slot(view, id, *slot, ctx, &mut plan),
        }
        plan.finish()
    }
}

impl Replicated {
    fn observe_service(
        &mut self,
        change: &Change,
        service: &Service,
        view: &Root,
        dirty: &mut BTreeSet<Key>,
    ) {
        let (rolled_back, new_tasks) = match &change.old {
            Some(AnyObject::Service(old)) => {
                (is_rolling_back(old), makes_other_tasks(old, service))
            }
            Some(_) | None => (false, false),
        };
        let is_known = self.slots.contains_key(&service.id);
        // The view may be ahead of the change: what exists is what it says.
        let Some(service) = view.service(&service.id) else {
            self.slots.remove(&service.id);
            return;
        };
        let is_update = change.action == Action::Update;
        let may_stand_otherwise = new_tasks || rolled_back != is_rolling_back(service);
        if !is_update || !is_known || may_stand_otherwise {
            self.rebuild(view, &service.id, dirty);
        } else {
            dirty.insert(Key::Service(service.id.clone()));
        }
    }

    fn observe_task(
        &mut self,
        change: &Change,
        task: &Task,
        view: &Root,
        dirty: &mut BTreeSet<Key>,
    ) {
        let Some(id) = &task.service_id else {
            return;
        };
        let (Some(slots), Some(service)) = (self.slots.get_mut(id), view.service(id)) else {
            return;
        };
        let old = match &change.old {
            Some(AnyObject::Task(old)) => Some(&**old),
            Some(_) | None => None,
        };
        let is_concerned = change.action == Action::Remove || concerns_replica(old, task);
        if old.is_some() && !is_concerned {
            return;
        }
        if change.action == Action::Update && old.is_some_and(|old| is_calm_step(view, old, task)) {
            return;
        }
        let tuple = Tuple::Slot(id.clone(), task.slot);
        let standing = standing(service, &tuple.tasks(view));
        slots.set(task.slot, standing);
        // Whether the cache changed is no measure: it never saw a task that was created and removed
        // between two looks, and the decision in between may have relied on that task.
        if is_concerned || old.is_none() {
            dirty.insert(Key::Service(id.clone()));
        }
        if is_concerned {
            dirty.insert(Key::Slot(id.clone(), task.slot));
        }
    }

    /// Marks the replicas that have a task on the node, if what became of it may matter to them.
    fn observe_node(&self, change: &Change, node: &Node, view: &Root, dirty: &mut BTreeSet<Key>) {
        let health = |node: &Node| (restart::is_down(node), restart::is_drained(node));
        if let Some(AnyObject::Node(old)) = &change.old
            && change.action == Action::Update
            && health(old) == health(node)
        {
            return;
        }
        for task in view.tasks_on_node(&node.id) {
            if let Some(service) = &task.service_id
                && self.slots.contains_key(service)
            {
                dirty.insert(Key::Slot(service.clone(), task.slot));
            }
        }
    }

    /// Reads all tasks of a service and marks what may need a decision.
    fn rebuild(&mut self, view: &Root, id: &ServiceId, dirty: &mut BTreeSet<Key>) {
        self.slots.remove(id);
        let Some(service) = view.service(id) else {
            return;
        };
        if spec::replicas(&service.spec).is_none() {
            return;
        }
        let mut slots = Slots::default();
        for (slot, tasks) in tasks_by_slot(view, id) {
            slots.set(slot, standing(service, &tasks));
            let is_calm = |task: &&Arc<Task>| {
                task.desired_state() == TaskState::Running && trouble(view, task).is_none()
            };
            if tasks.iter().any(|task| task.is_live() && !is_calm(task)) {
                dirty.insert(Key::Slot(id.clone(), slot));
            }
        }
        self.slots.insert(id.clone(), slots);
        dirty.insert(Key::Service(id.clone()));
    }

    /// Makes the number of replicas right (spec 6.4). The cache may be behind the view, so each
    /// slot is looked at again before it is written.
    fn reconcile_service(&self, view: &Root, id: &ServiceId, ctx: &mut Ctx<'_>, plan: &mut Plan) {
        let (Some(service), Some(slots)) = (view.service(id), self.slots.get(id)) else {
            return;
        };
        let Some(want) = spec::replicas(&service.spec) else {
            return;
        };
        let have = slots.replicas.count();
        if have < want {
            fill(view, service, slots.replicas.free(), want - have, ctx, plan);
            return;
        }
        let is_done = match want {
            _ if have == want => true,
            // All go, so nobody has to be chosen.
            0 => slots
                .replicas
                .iter()
                .all(|slot| ask_to_leave(&Tuple::Slot(id.clone(), slot).tasks(view), plan)),
            _ => remove_victims(view, service, want, plan),
        };
        if !is_done {
            return;
        }
        for slot in slots.dead.iter() {
            if !purge(view, service, slot, plan) {
                return;
            }
        }
    }
}

/// Whether tasks that are made from a service would differ from those that were made before, so
/// that a replica which gave up gets another one. Scaling makes no difference.
fn makes_other_tasks(old: &Service, new: &Service) -> bool {
    old.spec.task() != new.spec.task() || old.spec.endpoint != new.spec.endpoint
}

/// Whether a live task that is to run only got its node, and may stay there. Its replica counts as
/// before and needs no decision, so 100,000 tasks that find their nodes cost no look at a replica.
fn is_calm_step(view: &Root, old: &Task, new: &Task) -> bool {
    let is_calm = |task: &Task| task.is_live() && task.desired_state() == TaskState::Running;
    is_calm(old) && is_calm(new) && old.node_id.is_none() && trouble(view, new).is_none()
}

/// Creates a task for each of the first `missing` free slots.
fn fill(
    view: &Root,
    service: &Service,
    free: impl Iterator<Item = Slot>,
    missing: u64,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let template = Template::new(service, view.cluster().map(|cluster| &**cluster));
    // Tasks that are made together are worked on together by every loop (ADR 0015).
    let first = ctx.ids.next_id();
    for slot in free.take(usize::try_from(missing).unwrap_or(usize::MAX)) {
        let tasks = Tuple::Slot(service.id.clone(), slot).tasks(view);
        if standing(service, &tasks).is_replica() {
            continue;
        }
        // Of a service that went down and up again, and where the replacement of a task that is
        // still stopping was removed. SwarmKit runs both at once.
        let is_stopping = |old: &&Arc<Task>| !old.is_live() && may_still_run(view, old);
        let desired = if tasks.iter().any(is_stopping) {
            TaskState::Ready
        } else {
            TaskState::Running
        };
        let id = TaskId::new(first.neighbour(ctx.ids.next_id()));
        let task = template.task(id, &Place::Slot(slot), desired, ctx.now);
        // A task is made from this version of the spec or not at all.
        if !plan.push([Write::require(service), Write::create(task)]) {
            return;
        }
    }
}

/// Asks the tasks of surplus slots to leave; `false` when the step is full.
fn remove_victims(view: &Root, service: &Service, want: u64, plan: &mut Plan) -> bool {
    let by_slot = tasks_by_slot(view, &service.id);
    victims::choose(service, &by_slot, want)
        .into_iter()
        .filter_map(|slot| by_slot.get(&slot))
        .all(|tasks| ask_to_leave(tasks, plan))
}

fn ask_to_leave(tasks: &[&Arc<Task>], plan: &mut Plan) -> bool {
    tasks
        .iter()
        .all(|task| plan.set_desired(task, TaskState::Remove))
}

/// Deletes the history of a dead slot; tasks that still run are waited for, where Go deletes them
/// under the agent. `false` when the step is full.
fn purge(view: &Root, service: &Service, slot: Slot, plan: &mut Plan) -> bool {
    let tasks = Tuple::Slot(service.id.clone(), slot).tasks(view);
    if standing(service, &tasks) != Standing::Dead {
        return true;
    }
    tasks
        .into_iter()
        .filter(|task| task.desired_state() < TaskState::Remove && is_over(task))
        .all(|task| plan.push([Write::delete(&**task)]))
}

/// Restarts, promotes or gives up the tasks of one replica.
fn reconcile_slot(view: &Root, id: &ServiceId, slot: Slot, ctx: &mut Ctx<'_>, plan: &mut Plan) {
    let Some(service) = view.service(id) else {
        return;
    };
    if spec::replicas(&service.spec).is_none() {
        return;
    }
    reconcile_replica(view, service, &Tuple::Slot(id.clone(), slot), ctx, plan);
}

/// Does what the verdicts about a replica's live tasks say. If one of several live tasks cannot
/// stay, another one is its replacement already.
pub(crate) fn reconcile_replica(
    view: &Root,
    service: &Service,
    tuple: &Tuple,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let tasks = tuple.tasks(view);
    let mut live = tasks.iter().filter(|task| task.is_live()).count();
    for task in tasks.iter().filter(|task| task.is_live()) {
        match verdict(view, task, &tasks, ctx.now) {
            Verdict::Keep => {}
            Verdict::Wait { until, why } => plan.wake_by(until, why),
            Verdict::Start => {
                plan.set_desired(task, TaskState::Running);
            }
            Verdict::Replace(_) if live == 1 => replace(view, service, tuple, task, ctx, plan),
            Verdict::Replace(_) | Verdict::GiveUp(..) => {
                plan.set_desired(task, TaskState::Shutdown);
                live -= 1;
            }
        }
    }
}

/// Shuts a task down and creates its replacement, which starts later.
fn replace(
    view: &Root,
    service: &Service,
    tuple: &Tuple,
    task: &Task,
    ctx: &mut Ctx<'_>,
    plan: &mut Plan,
) {
    let Some(stop) = with_desired(task, TaskState::Shutdown) else {
        return;
    };
    let place = match tuple {
        Tuple::Slot(_, slot) => Place::Slot(*slot),
        Tuple::Node(_, node) => Place::Node(node.clone()),
    };
    let cluster = view.cluster().map(|cluster| &**cluster);
    let id = TaskId::new(ctx.ids.next_id());
    let mut next = Template::new(service, cluster).task(id, &place, TaskState::Ready, ctx.now);
    let failed = u32::from(task.has_failed());
    next.failures_before = task.failures_before.saturating_add(failed);
    plan.push([Write::require(service), stop, Write::create(next)]);
}

/// All tasks of a service by slot; reads as many tasks as it has.
fn tasks_by_slot<'a>(view: &'a Root, id: &ServiceId) -> BTreeMap<Slot, Vec<&'a Arc<Task>>> {
    let mut slots: BTreeMap<Slot, Vec<_>> = BTreeMap::new();
    for task in view.tasks_of_service(id) {
        slots.entry(task.slot).or_default().push(task);
    }
    #[cfg(test)]
    crate::world::count_reads(slots.values().map(Vec::len).sum());
    slots
}

#[cfg(test)]
mod tests;
