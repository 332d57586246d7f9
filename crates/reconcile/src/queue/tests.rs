use std::sync::Arc;

use swarm_store::{Action, Change, Write};
use swarm_types::{AnyObject, Id, Task, TaskId, TaskState, TaskStatus};

use super::*;

/// Sets every task's desired state to SHUTDOWN, one key per task, after time 100.
struct Stopper;

impl Reconciler for Stopper {
    type Key = TaskId;
    const NAME: &'static str = "stopper";

    fn observe(&mut self, change: &Change, _: &Root, dirty: &mut BTreeSet<TaskId>) {
        if let AnyObject::Task(task) = &change.object
            && change.action != Action::Remove
        {
            dirty.insert(task.id.clone());
        }
    }

    fn resync(&mut self, view: &Root, dirty: &mut BTreeSet<TaskId>) {
        dirty.extend(view.all::<Task>().map(|task| task.id.clone()));
    }

    fn reconcile(&self, view: &Root, key: &TaskId, ctx: &mut Ctx<'_>) -> Step {
        let mut step = Step::default();
        let Some(task) = view.task(key) else {
            return step;
        };
        if ctx.now < Timestamp::from_millis(100) {
            step.wake_by(Timestamp::from_millis(100), "too early");
        } else if task.is_live() {
            let mut task = (**task).clone();
            task.set_desired(TaskState::Shutdown).unwrap();
            step.writes.push(Write::update(task));
        }
        step
    }
}

struct NoIds;
impl IdSource for NoIds {
    fn next_id(&mut self) -> Id {
        Id::min()
    }
}

fn world(tasks: usize) -> Root {
    let mut transaction = Root::default().begin(Timestamp::EPOCH);
    for index in 0..tasks {
        let id = format!("t{index:05}").parse().unwrap();
        transaction.create(Task::new(id, Arc::default())).unwrap();
    }
    transaction.finish().0
}

fn commit(root: &Root, batch: &Batch) -> (Root, Commit, Outcome) {
    let mut transaction = root.begin(Timestamp::EPOCH);
    let mut refused = Vec::new();
    for (index, set) in batch.sets.iter().enumerate() {
        if transaction.apply_set(set).is_err() {
            refused.push(index);
        }
    }
    let (root, commit) = transaction.finish();
    let version = root.version();
    (root, commit, Outcome::Committed { version, refused })
}

fn late() -> Timestamp {
    Timestamp::from_millis(100)
}

#[test]
fn a_timer_makes_its_key_dirty_at_its_time_and_not_before() {
    let root = world(1);
    let mut queue = Queue::new(Stopper, &root);
    assert_eq!(
        queue.poll_transaction(&root, Timestamp::EPOCH, &mut NoIds),
        None
    );
    assert_eq!(queue.poll_timeout().unwrap().why, "too early");
    queue.handle_timeout(Timestamp::from_millis(99));
    assert!(!queue.is_runnable());
    queue.handle_timeout(late());
    assert!(queue.is_runnable());
}

#[test]
fn a_transaction_holds_at_most_200_changes_and_one_is_in_flight() {
    let root = world(201);
    let mut queue = Queue::new(Stopper, &root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!(batch.sets.len(), 200);
    assert_eq!(queue.poll_transaction(&root, late(), &mut NoIds), None);
    let (root, _, outcome) = commit(&root, &batch);
    queue.handle_outcome(&outcome);
    assert_eq!(
        queue
            .poll_transaction(&root, late(), &mut NoIds)
            .unwrap()
            .sets
            .len(),
        1
    );
}

#[test]
fn an_older_view_than_the_last_commit_or_change_is_not_used() {
    let before = world(300);
    let mut queue = Queue::new(Stopper, &before);
    let batch = queue.poll_transaction(&before, late(), &mut NoIds).unwrap();
    let (after, change, outcome) = commit(&before, &batch);
    queue.handle_outcome(&outcome);
    assert_eq!(queue.poll_transaction(&before, late(), &mut NoIds), None);
    let mut other = Queue::new(Stopper, &before);
    other.handle_commit(&change, &after);
    assert_eq!(other.poll_transaction(&before, late(), &mut NoIds), None);
    assert!(other.poll_transaction(&after, late(), &mut NoIds).is_some());
}

#[test]
fn a_refused_set_is_decided_again_and_the_others_stay_committed() {
    let root = world(3);
    let mut queue = Queue::new(Stopper, &root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    let mut elsewhere = root.begin(Timestamp::EPOCH);
    let task: TaskId = "t00001".parse().unwrap();
    elsewhere
        .update((**root.task(&task).unwrap()).clone())
        .unwrap();
    let (root, _) = elsewhere.finish();
    let (root, _, outcome) = commit(&root, &batch);
    assert!(matches!(&outcome, Outcome::Committed { refused, .. } if *refused == [1]));
    queue.handle_outcome(&outcome);
    let again = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!(again.sets.len(), 1);
    assert_eq!(queue.status().conflicts, 1);
}

#[test]
fn a_failed_batch_makes_all_its_keys_dirty_again_after_a_pause() {
    let root = world(3);
    let mut queue = Queue::new(Stopper, &root);
    queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    queue.handle_outcome(&Outcome::Failed);
    assert_eq!(queue.poll_transaction(&root, late(), &mut NoIds), None);
    let end = late().saturating_add(RETRY_DELAY);
    assert_eq!(queue.poll_timeout().map(|wake| wake.at), Some(end));
    let before = end.saturating_sub(Duration::from_nanos(1));
    assert_eq!(queue.poll_transaction(&root, before, &mut NoIds), None);
    let again = queue.poll_transaction(&root, end, &mut NoIds).unwrap();
    assert_eq!(again.sets.len(), 3);
    assert_eq!(queue.poll_timeout(), None);
}

/// A world with tasks of so many bytes.
fn world_of(sizes: &[usize]) -> Root {
    let mut transaction = Root::default().begin(Timestamp::EPOCH);
    for (index, bytes) in sizes.iter().enumerate() {
        let words = TaskStatus::new(TaskState::New, Timestamp::EPOCH, "x".repeat(*bytes));
        let task = Task::new(format!("t{index}").parse().unwrap(), Arc::default());
        let task = task.with_states(words, TaskState::Running);
        transaction.create(task).unwrap();
    }
    transaction.finish().0
}

#[test]
fn a_set_that_no_entry_can_hold_is_given_up_alone_and_not_tried_again() {
    let root = world_of(&[1, swarm_store::ENTRY_BYTES_MAX, 1]);
    let mut queue = Queue::new(Stopper, &root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!(batch.sets.len(), 2, "the others are written");
    let given_up = queue.take_oversize();
    assert_eq!(given_up.len(), 1);
    assert_eq!(given_up[0].id.to_string(), "t1");
    let (root, _, outcome) = commit(&root, &batch);
    queue.handle_outcome(&outcome);
    assert!(!queue.is_runnable(), "{:?}", queue.status());
    assert_eq!(queue.poll_timeout(), None, "nobody waits for it");
    assert!(queue.take_oversize().is_empty());
    assert_eq!(queue.poll_transaction(&root, late(), &mut NoIds), None);
}

#[test]
fn of_a_parted_batch_only_what_fits_elsewhere_is_decided_again() {
    let root = world(3);
    let mut queue = Queue::new(Stopper, &root);
    queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    queue.handle_outcome(&Outcome::committed(root.version(), vec![2], vec![1]));
    assert_eq!(queue.poll_timeout(), None, "this is no reason for a pause");
    let again = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!(again.sets.len(), 1);
    let (_, id) = again.sets[0].0[0].target();
    assert_eq!(id.to_string(), "t00002");
}

/// Stops every task in one step, one set for each, and decides from what it observed.
struct Sweeper {
    prepared: usize,
    refused: usize,
}

impl Reconciler for Sweeper {
    type Key = ();
    const NAME: &'static str = "sweeper";
    const DECIDES_FROM_CACHE: bool = true;

    fn observe(&mut self, _: &Change, _: &Root, _: &mut BTreeSet<()>) {}

    fn resync(&mut self, _: &Root, dirty: &mut BTreeSet<()>) {
        dirty.insert(());
    }

    fn prepare(&mut self, _: &Root, _: Timestamp) {
        self.prepared += 1;
    }

    fn reconcile(&self, view: &Root, (): &(), _: &mut Ctx<'_>) -> Step {
        let mut step = Step::default();
        for task in view.all::<Task>().filter(|task| task.is_live()) {
            let mut stopped = (**task).clone();
            stopped.set_desired(TaskState::Shutdown).unwrap();
            step.sets.push(WriteSet(vec![
                Write::require(&**task),
                Write::update(stopped),
            ]));
        }
        step
    }

    fn settled(&mut self, (): &(), accepted: Accepted) {
        self.refused += usize::from(accepted == Accepted::No);
    }
}

fn sweeper(root: &Root) -> Queue<Sweeper> {
    let loop_ = Sweeper {
        prepared: 0,
        refused: 0,
    };
    Queue::new(loop_, root)
}

#[test]
fn sets_of_one_step_are_refused_one_by_one() {
    let root = world(3);
    let mut queue = sweeper(&root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    let mut elsewhere = root.begin(Timestamp::EPOCH);
    let task: TaskId = "t00001".parse().unwrap();
    elsewhere
        .update((**root.task(&task).unwrap()).clone())
        .unwrap();
    let (root, _) = elsewhere.finish();
    let (root, _, outcome) = commit(&root, &batch);
    queue.handle_outcome(&outcome);
    assert_eq!(queue.reconciler().refused, 1);
    assert_eq!(
        root.task(&task).unwrap().desired_state(),
        TaskState::Running
    );
    assert_eq!(root.tasks_desired(TaskState::Shutdown).count(), 2);
}

#[test]
fn a_step_is_cut_at_200_changes_and_its_key_is_looked_at_again() {
    let root = world(201);
    let mut queue = sweeper(&root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!(batch.sets.len(), 200, "what is only required takes no room");
    let (root, change, outcome) = commit(&root, &batch);
    queue.handle_outcome(&outcome);
    queue.handle_commit(&change, &root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!(batch.sets.len(), 1);
    assert_eq!(queue.reconciler().prepared, 2);
}

#[test]
fn a_loop_that_decides_from_its_cache_waits_for_its_own_commit() {
    let root = world(201);
    let mut queue = sweeper(&root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    let (root, change, outcome) = commit(&root, &batch);
    queue.handle_outcome(&outcome);
    assert!(queue.is_runnable());
    assert_eq!(queue.poll_transaction(&root, late(), &mut NoIds), None);
    queue.handle_commit(&change, &root);
    assert!(queue.poll_transaction(&root, late(), &mut NoIds).is_some());
}

/// Creates one task per step and always has more to do.
struct Creator;

impl Reconciler for Creator {
    type Key = ();
    const NAME: &'static str = "creator";

    fn observe(&mut self, _: &Change, _: &Root, _: &mut BTreeSet<()>) {}

    fn resync(&mut self, _: &Root, dirty: &mut BTreeSet<()>) {
        dirty.insert(());
    }

    fn reconcile(&self, view: &Root, (): &(), _: &mut Ctx<'_>) -> Step {
        let id: TaskId = format!("t{}", view.count::<Task>()).parse().unwrap();
        Step {
            sets: vec![WriteSet(vec![Write::create(Task::new(id, Arc::default()))])],
            more: true,
            ..Step::default()
        }
    }
}

#[test]
fn a_key_with_more_to_do_is_not_asked_twice_on_the_same_view() {
    let root = world(0);
    let mut queue = Queue::new(Creator, &root);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!((batch.sets.len(), queue.status().steps), (1, 1));
    let (root, _, outcome) = commit(&root, &batch);
    queue.handle_outcome(&outcome);
    let batch = queue.poll_transaction(&root, late(), &mut NoIds).unwrap();
    assert_eq!((batch.sets.len(), queue.status().steps), (1, 2));
}

/// As at the begin of a term: all keys are dirty, nearly all have converged, and nothing else
/// happens.
#[test]
fn more_converged_keys_than_one_turn_takes_are_all_looked_at_although_nothing_happens() {
    let keys = 3 * STEPS_PER_TRANSACTION_MAX + 1;
    let root = world(keys);
    let mut queue = Queue::new(Stopper, &root);
    let mut turns = 0;
    while queue
        .poll_timeout()
        .is_none_or(|wake| wake.at <= Timestamp::EPOCH)
    {
        queue.handle_timeout(Timestamp::EPOCH);
        assert_eq!(
            queue.poll_transaction(&root, Timestamp::EPOCH, &mut NoIds),
            None
        );
        turns += 1;
        assert!(turns <= 4, "{:?}", queue.status());
    }
    let status = queue.status();
    assert_eq!((status.dirty, status.steps, turns), (0, keys as u64, 4));
}
