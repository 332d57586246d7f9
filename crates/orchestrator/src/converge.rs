//! All loops of this crate together, against a scheduler and agents that act at random: late and
//! lost commits, changes of leader, nodes that come and go. Owns the check that no replica ever has
//! two live tasks, that caches equal resync, and that everything converges once the faults stop.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm_reconcile::{Batch, Outcome, Queue, Reconciler, Wake};
use swarm_store::{Commit, Root, Transaction};
use swarm_types::{
    IdSource, Node, NodeId, NodeState, Object, Service, ServiceId, Task, TaskState, TaskStatus,
    Timestamp, spec,
};

use crate::slot::Tuple;
use crate::world::{Ids, ms, put, world};
use crate::{ConstraintEnforcer, Global, Init, Reaper, Replicated};

/// Numbers that a seed decides.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % sides
    }

    fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        let count = u64::try_from(items.len()).unwrap();
        (count > 0).then(|| &items[usize::try_from(self.roll(count)).unwrap()])
    }
}

/// A queue with the type of its loop erased.
trait Loop {
    fn handle_commit(&mut self, commit: &Commit, view: &Root);
    fn handle_timeout(&mut self, now: Timestamp);
    fn handle_outcome(&mut self, outcome: &Outcome);
    fn poll(&mut self, view: &Root, now: Timestamp, ids: &mut dyn IdSource) -> Option<Batch>;
    fn poll_timeout(&self) -> Option<Wake>;
    fn is_runnable(&self) -> bool;
    fn check_cache(&self, view: &Root);
}

impl<R: Reconciler + Default + PartialEq + std::fmt::Debug> Loop for Queue<R> {
    fn handle_commit(&mut self, commit: &Commit, view: &Root) {
        Self::handle_commit(self, commit, view);
    }
    fn handle_timeout(&mut self, now: Timestamp) {
        Self::handle_timeout(self, now);
    }
    fn handle_outcome(&mut self, outcome: &Outcome) {
        Self::handle_outcome(self, outcome);
    }
    fn poll(&mut self, view: &Root, now: Timestamp, ids: &mut dyn IdSource) -> Option<Batch> {
        self.poll_transaction(view, now, ids)
    }
    fn poll_timeout(&self) -> Option<Wake> {
        Self::poll_timeout(self)
    }
    fn is_runnable(&self) -> bool {
        Self::is_runnable(self)
    }
    fn check_cache(&self, view: &Root) {
        let mut fresh = R::default();
        fresh.resync(view, &mut BTreeSet::new());
        assert_eq!(&fresh, self.reconciler(), "I-LOOP-4 in {}", R::NAME);
    }
}

/// A loop and the commits that it has not been told of yet.
struct Member {
    queue: Box<dyn Loop>,
    backlog: VecDeque<Commit>,
}

struct Cluster {
    root: Root,
    now: u64,
    dice: Dice,
    ids: Ids,
    members: Vec<Member>,
}

const START: &str = "
    cluster keep=2
    node n1 k=a
    node n2 k=a
    node n3 k=b
    service web replicas=4 restart=any delay=1000 version=1
    service job replicas=2 restart=on-failure delay=500 attempts=4 window=3000 version=1
    service agent global restart=any delay=1000 version=1
    service local global constraint=node.labels.k==a version=1";

impl Cluster {
    fn new(seed: u64) -> Self {
        let mut cluster = Self {
            root: world(START),
            now: 1,
            dice: Dice(seed),
            ids: Ids::default(),
            members: Vec::new(),
        };
        cluster.elect();
        cluster
    }

    /// A new leader: it knows the store and nothing else.
    fn elect(&mut self) {
        fn queue<R>(root: &Root) -> Member
        where
            R: Reconciler + Default + PartialEq + std::fmt::Debug + 'static,
        {
            Member {
                queue: Box::new(Queue::new(R::default(), root)),
                backlog: VecDeque::new(),
            }
        }
        self.members = vec![
            queue::<Replicated>(&self.root),
            queue::<Global>(&self.root),
            queue::<Init>(&self.root),
            queue::<Reaper>(&self.root),
            queue::<ConstraintEnforcer>(&self.root),
        ];
    }

    fn begin(&self) -> Transaction {
        self.root.begin(ms(self.now))
    }

    fn commit(&mut self, transaction: Transaction) {
        if transaction.is_empty() {
            return;
        }
        let (root, commit) = transaction.finish();
        self.root = root;
        for member in &mut self.members {
            member.backlog.push_back(commit.clone());
        }
        self.check_replicas();
    }

    /// I-ORCH-1.
    fn check_replicas(&self) {
        let mut live: BTreeMap<Tuple, u32> = BTreeMap::new();
        for task in self.root.all::<Task>().filter(|task| task.is_live()) {
            let service = task
                .service_id
                .as_ref()
                .and_then(|id| self.root.service(id));
            if let Some(tuple) = service.and_then(|service| Tuple::of(service, task)) {
                *live.entry(tuple).or_default() += 1;
            }
        }
        for (tuple, count) in live {
            assert_eq!(count, 1, "live tasks of {tuple:?}");
        }
    }

    /// One loop takes notice of some commits and decides; its transaction may conflict with what
    /// happens in the meantime, or be lost.
    fn turn(&mut self, index: usize, faults: bool) {
        let now = ms(self.now);
        let member = &mut self.members[index];
        let known = match member.backlog.len() {
            len if faults => self.dice.roll(u64::try_from(len).unwrap() + 1),
            len => u64::try_from(len).unwrap(),
        };
        for _ in 0..known {
            let commit = member.backlog.pop_front().unwrap();
            member.queue.handle_commit(&commit, &self.root);
        }
        if member.backlog.is_empty() {
            member.queue.check_cache(&self.root);
        }
        member.queue.handle_timeout(now);
        let Some(batch) = member.queue.poll(&self.root, now, &mut self.ids) else {
            return;
        };
        if faults && self.dice.roll(8) == 0 {
            self.members[index].queue.handle_outcome(&Outcome::Failed);
            return;
        }
        while faults && self.dice.roll(3) == 0 {
            self.act(true);
        }
        let mut transaction = self.begin();
        let mut refused = Vec::new();
        for (position, set) in batch.sets.iter().enumerate() {
            if transaction.apply_set(set).is_err() {
                refused.push(position);
            }
        }
        self.commit(transaction);
        let version = self.root.version();
        let outcome = Outcome::Committed { version, refused };
        self.members[index].queue.handle_outcome(&outcome);
    }

    /// Allocator, scheduler or agent brings one task on.
    fn act(&mut self, faults: bool) {
        let tasks: Vec<_> = self
            .root
            .all::<Task>()
            .map(|task| task.id.clone())
            .collect();
        if let Some(id) = self.dice.pick(&tasks).cloned() {
            let task = (**self.root.task(&id).unwrap()).clone();
            if let Some(task) = self.brought_on(task, faults) {
                let mut transaction = self.begin();
                transaction.update(task).unwrap();
                self.commit(transaction);
            }
        }
    }

    fn brought_on(&mut self, mut task: Task, faults: bool) -> Option<Task> {
        if task.is_terminal() {
            return None;
        }
        let next = if task.state() >= TaskState::Assigned {
            self.run_on_node(&task, faults)?
        } else if !task.is_live() {
            return None;
        } else if task.state() == TaskState::New {
            TaskState::Pending
        } else {
            task.node_id = Some(self.schedule(&task)?);
            TaskState::Assigned
        };
        let status = TaskStatus::new(next, ms(self.now), "");
        task.advance(status).unwrap();
        Some(task)
    }

    /// The node of the task, or any that is up.
    fn schedule(&mut self, task: &Task) -> Option<NodeId> {
        let is_up = |node: &Node| {
            node.status.state == NodeState::Ready
                && node.availability() == swarm_api::v1::node_spec::Availability::Active
        };
        if let Some(id) = &task.node_id {
            return self
                .root
                .node(id)
                .filter(|node| is_up(node))
                .map(|_| id.clone());
        }
        let nodes: Vec<_> = self
            .root
            .all::<Node>()
            .filter(|node| is_up(node))
            .cloned()
            .collect();
        self.dice.pick(&nodes).map(|node| node.id.clone())
    }

    fn run_on_node(&mut self, task: &Task, faults: bool) -> Option<TaskState> {
        let node = self.root.node(task.node_id.as_ref()?)?;
        if node.status.state != NodeState::Ready {
            return None;
        }
        if !task.is_live() {
            return Some(TaskState::Shutdown);
        }
        let ends = [TaskState::Failed, TaskState::Rejected, TaskState::Complete];
        if faults && self.dice.roll(4) == 0 {
            return self.dice.pick(&ends).copied();
        }
        let reached = task.desired_state();
        (task.state() < reached).then_some(reached)
    }

    fn disturb(&mut self) {
        let name = ["n1", "n2", "n3", "n4"][usize::try_from(self.dice.roll(4)).unwrap()];
        let label = ["k=a", "k=b"][usize::try_from(self.dice.roll(2)).unwrap()];
        match self.dice.roll(12) {
            0 => self.put(&format!("node {name} {label} down")),
            1 => self.put(&format!("node {name} {label} drain")),
            2 => self.put(&format!("node {name} {label} pause")),
            3 => self.put(&format!("node {name} {label} unknown")),
            4..=6 => self.put(&format!("node {name} {label}")),
            7 => self.remove_node(&name.parse().unwrap()),
            8 => self.elect(),
            9 => {
                let replicas = self.dice.roll(7);
                self.put(&format!(
                    "service web replicas={replicas} restart=any delay=1000 version=1"
                ));
            }
            10 => self.remove_task(),
            _ => {
                let other = ["service other replicas=3", "service other replicas=1"];
                let line = *self.dice.pick(&other).unwrap();
                if self.root.service(&"other".parse().unwrap()).is_none() {
                    self.put(line);
                } else if self.dice.roll(2) == 0 {
                    self.delete::<Service>("other");
                }
            }
        }
    }

    /// Writes a line of a world and keeps the time of the store.
    fn put(&mut self, line: &str) {
        let (_, commit) = put(&self.root, &format!("{line} created={}", self.now));
        let mut transaction = self.begin();
        for change in commit.changes {
            let object = change.object;
            match self.root.get_any(object.kind(), object.raw_id()) {
                None => transaction.create(object).unwrap(),
                Some(old) => {
                    let object = crate::world::with_version(object, old.meta().version);
                    transaction.update(object).unwrap();
                }
            }
        }
        self.commit(transaction);
    }

    fn delete<O: Object>(&mut self, id: &str) {
        let mut transaction = self.begin();
        let id = id.parse().unwrap();
        if self.root.get_any(O::KIND, &id).is_some() {
            transaction.delete(O::KIND, &id).unwrap();
        }
        self.commit(transaction);
    }

    fn remove_task(&mut self) {
        let tasks: Vec<_> = self
            .root
            .all::<Task>()
            .map(|task| task.id.clone())
            .collect();
        if let Some(id) = self.dice.pick(&tasks) {
            self.delete::<Task>(&id.to_string());
        }
    }

    /// As the API does it: with the node its tasks become orphans.
    fn remove_node(&mut self, id: &NodeId) {
        if self.root.node(id).is_none() || self.root.count::<Node>() == 1 {
            return;
        }
        let mut transaction = self.begin();
        for task in self
            .root
            .tasks_on_node(id)
            .filter(|task| !task.is_terminal())
        {
            let mut task = (**task).clone();
            let status = TaskStatus::new(TaskState::Orphaned, ms(self.now), "");
            task.advance(status).unwrap();
            transaction.update(task).unwrap();
        }
        transaction.delete(Node::KIND, id.as_id()).unwrap();
        self.commit(transaction);
    }

    fn storm(&mut self, steps: u32) {
        for _ in 0..steps {
            self.now += self.dice.roll(200);
            match self.dice.roll(10) {
                0 => self.disturb(),
                1..=4 => self.act(true),
                _ => {
                    let index = usize::try_from(self.dice.roll(5)).unwrap();
                    self.turn(index, true);
                }
            }
        }
    }

    /// No more faults: all nodes come back, and time passes.
    fn settle(&mut self) {
        for name in ["n1", "n2", "n3", "n4"] {
            self.put(&format!("node {name} k=a"));
        }
        for _ in 0..400 {
            let version = self.root.version();
            for _ in 0..20 {
                for index in 0..self.members.len() {
                    self.turn(index, false);
                }
                self.bring_all_on();
            }
            let is_busy = |member: &Member| member.queue.is_runnable();
            if self.root.version() != version || self.members.iter().any(is_busy) {
                continue;
            }
            let wakes = self
                .members
                .iter()
                .filter_map(|member| member.queue.poll_timeout());
            let Some(wake) = wakes.min_by_key(|wake| wake.at) else {
                return;
            };
            self.now = u64::try_from(wake.at.as_nanos() / 1_000_000).unwrap() + 1;
        }
        panic!("does not come to rest");
    }

    fn bring_all_on(&mut self) {
        let tasks: Vec<Task> = self
            .root
            .all::<Task>()
            .map(|task| (**task).clone())
            .collect();
        let mut transaction = self.begin();
        for task in tasks {
            if let Some(task) = self.brought_on(task, false) {
                transaction.update(task).unwrap();
            }
        }
        self.commit(transaction);
    }

    fn running(&self, service: &str) -> usize {
        let id: ServiceId = service.parse().unwrap();
        self.root
            .tasks_of_service(&id)
            .filter(|task| task.state() == TaskState::Running && task.is_live())
            .count()
    }

    fn check_converged(&self) {
        for name in ["web", "other"] {
            let want = self
                .root
                .service(&name.parse().unwrap())
                .map_or(0, |service| spec::replicas(&service.spec).unwrap());
            assert_eq!(self.running(name) as u64, want, "{name}");
        }
        for name in ["agent", "local"] {
            assert_eq!(self.running(name), self.root.count::<Node>(), "{name}");
        }
        let other: ServiceId = "other".parse().unwrap();
        if self.root.service(&other).is_none() {
            assert_eq!(self.root.count_tasks_of_service(&other), 0);
        }
        self.check_history();
    }

    /// What is left of each replica is within its limit.
    fn check_history(&self) {
        let mut counts: BTreeMap<Tuple, u64> = BTreeMap::new();
        for service in self.root.all::<Service>() {
            for task in self.root.tasks_of_service(&service.id) {
                *counts.entry(Tuple::of(service, task).unwrap()).or_default() += 1;
            }
        }
        for (tuple, count) in counts {
            let service = self.root.service(tuple.service()).unwrap();
            let cluster = self.root.cluster().map(|cluster| &**cluster);
            let keep = crate::reaper::keep(service, cluster).unwrap();
            assert!(
                count <= keep,
                "{count} tasks of {tuple:?}, at most {keep} are kept"
            );
        }
    }
}

/// Seeds of the storm; a few seconds of a debug build.
const SEEDS: u64 = 60;

#[test]
fn loops_converge_after_any_storm_and_never_double_a_replica() {
    for seed in 0..SEEDS {
        let mut cluster = Cluster::new(seed);
        let run = std::panic::AssertUnwindSafe(|| {
            cluster.storm(400);
            cluster.settle();
            cluster.check_converged();
        });
        if let Err(panic) = std::panic::catch_unwind(run) {
            let text = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            panic!("seed {seed}: {text}");
        }
    }
}

#[test]
fn equal_seeds_end_in_equal_stores() {
    let run = || {
        let mut cluster = Cluster::new(7);
        cluster.storm(300);
        cluster.settle();
        let tasks: Vec<Task> = cluster
            .root
            .all::<Task>()
            .map(|task| (**task).clone())
            .collect();
        tasks
    };
    assert_eq!(run(), run());
}
