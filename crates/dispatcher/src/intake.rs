//! Collects what is to be written and packs it into batches: node states first, then reported task
//! statuses, then orphans.
//!
//! Everything here is an intention which is turned into a write on the newest view, so a refused
//! write needs no repair: the intention goes back to the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_reconcile::{Batch, OVERSIZE_KEPT_MAX, Outcome};
use swarm_store::{Fit, Oversize, Room, Root, Write, WriteSet};
use swarm_types::{NodeId, Task, TaskId, TaskStatus, Timestamp, Version, VolumeId};

use crate::allowance::Allowances;
use crate::bounds::bare_status;
use crate::config::Config;
use crate::nodes::NodeIntent;
use crate::orphans::{self, Orphans};
use crate::volumes;

/// How long the first intention of a batch waits for others (spec 5.1).
pub const UPDATE_BATCH_DELAY: Duration = Duration::from_millis(100);
/// The same for what is to be written about a node. A node waits for it before it hears from us, so
/// this is the least that a registration takes; the more nodes come at once, the more of them share
/// a write.
pub const NODE_BATCH_DELAY: Duration = Duration::from_millis(20);
/// With so many intentions the batch does not wait (spec 5.1); also the most that are looked at in
/// one go.
pub const UPDATE_BATCH_ITEMS: usize = 10_000;
/// How long to wait after the log refused a whole batch.
pub const UPDATE_RETRY_DELAY: Duration = Duration::from_millis(100);

/// The queue. Its size is bounded by the number of nodes and of tasks in the store, because there
/// is one entry for each at most.
#[derive(Debug, Default)]
pub(crate) struct Intake {
    nodes: BTreeMap<NodeId, NodeIntent>,
    statuses: BTreeMap<TaskId, TaskStatus>,
    /// Volumes that a node has let go of; one entry for each stored publication at most.
    volumes: BTreeSet<(VolumeId, NodeId)>,
    pub(crate) orphans: Orphans,
    /// Reports that wait because their nodes wrote too much.
    allowances: Allowances,
    /// What no entry of the log can hold, until somebody asks.
    pub(crate) oversize: Vec<Oversize>,
    /// When node states go out.
    nodes_at: Option<Timestamp>,
    /// When everything goes out.
    flush_at: Option<Timestamp>,
    in_flight: Vec<Item>,
    /// A view older than our last commit would make us repeat it.
    version_min: Version,
}

#[derive(Debug)]
enum Item {
    Node(NodeId, NodeIntent),
    Status(TaskId, TaskStatus),
    Volume(VolumeId, NodeId),
    Orphan(NodeId),
}

impl Intake {
    /// Something is to be written about a node.
    pub(crate) fn put_node(&mut self, now: Timestamp, node: NodeId, intent: NodeIntent) {
        self.nodes.insert(node, intent);
        let at = now.saturating_add(NODE_BATCH_DELAY);
        self.nodes_at = Some(self.nodes_at.map_or(at, |known| known.min(at)));
    }

    /// A node is gone from the store.
    pub(crate) fn forget_node(&mut self, node: &NodeId) {
        self.nodes.remove(node);
        self.orphans.forget(node);
        self.allowances.forget(node);
    }

    /// A status was reported. A report that arrives late does not displace a later state. One of
    /// the state that is stored waits if the node has reported too much of that kind.
    pub(crate) fn put_status(&mut self, now: Timestamp, report: Report) {
        let Report {
            node,
            task,
            status,
            is_step,
        } = report;
        if let Some(held) = self.allowances.held(&node, &task) {
            if status.state < held.state {
                return;
            }
            if !is_step {
                *held = status;
                return;
            }
            self.allowances.release(&node, &task);
        }
        self.queue_status(task, status);
        self.arm(now);
    }

    fn queue_status(&mut self, task: TaskId, status: TaskStatus) {
        match self.statuses.get_mut(&task) {
            Some(queued) if status.state < queued.state => {}
            Some(queued) => *queued = status,
            None => {
                self.statuses.insert(task, status);
            }
        }
    }

    /// A node has let go of a volume.
    pub(crate) fn put_volume(&mut self, now: Timestamp, volume: VolumeId, node: NodeId) {
        self.volumes.insert((volume, node));
        self.arm(now);
    }

    /// Makes sure that the queue is looked at.
    pub(crate) fn arm(&mut self, now: Timestamp) {
        let flush_at = if self.len() >= UPDATE_BATCH_ITEMS {
            now
        } else {
            now.saturating_add(UPDATE_BATCH_DELAY)
        };
        let earlier = self.flush_at.map_or(flush_at, |known| known.min(flush_at));
        self.flush_at = Some(earlier);
    }

    /// When to call [`Intake::poll`]; `None` while a batch is in flight.
    pub(crate) fn timeout(&self) -> Option<Timestamp> {
        let due = self.nodes_at.into_iter().chain(self.flush_at);
        let due = due.chain(self.allowances.timeout()).min();
        due.filter(|_| self.in_flight.is_empty())
    }

    /// Node states and task statuses that wait.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        let statuses = self.statuses.len() + self.allowances.len();
        (self.nodes.len(), statuses)
    }

    /// Views below this version are too old to decide on.
    pub(crate) fn require(&mut self, version: Version) {
        self.version_min = self.version_min.max(version);
    }

    /// The next batch, once its time has come and the one before is through.
    pub(crate) fn poll(&mut self, view: &Root, now: Timestamp, config: &Config) -> Option<Batch> {
        if !self.in_flight.is_empty() || view.version() < self.version_min {
            return None;
        }
        while let Some(reports) = self.allowances.pop_due(now) {
            for (task, status) in reports {
                self.queue_status(task, status);
            }
            self.flush_at = Some(now);
        }
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let all = is_due(self.flush_at);
        if !(all || is_due(self.nodes_at)) {
            return None;
        }
        let mut packer = Packer::default();
        for _ in 0..UPDATE_BATCH_ITEMS {
            let packed = !packer.is_full()
                && (self.pack_node(view, now, &mut packer)
                    || all && self.pack_task(view, now, config, &mut packer));
            if !packed {
                break;
            }
        }
        if self.nodes.is_empty() {
            self.nodes_at = None;
        }
        if self.is_empty() {
            self.flush_at = None;
        }
        self.in_flight = packer.items;
        (!packer.batch.sets.is_empty()).then_some(packer.batch)
    }

    /// Takes the result of the batch in flight.
    pub(crate) fn handle_outcome(&mut self, now: Timestamp, outcome: &Outcome) {
        let items = std::mem::take(&mut self.in_flight);
        let mut given_up: &[usize] = &[];
        let refused = match outcome {
            Outcome::Committed { version, refused } => {
                self.require(*version);
                Some(refused)
            }
            Outcome::Parted {
                version,
                refused,
                oversize,
            } => {
                self.require(*version);
                given_up = oversize;
                Some(refused)
            }
            Outcome::Failed => None,
        };
        let mut lost = false;
        for (position, item) in items.into_iter().enumerate() {
            if given_up.contains(&position) {
                continue;
            }
            if refused.is_none_or(|refused| refused.contains(&position)) {
                lost = true;
                self.put_back(item);
            }
        }
        match refused {
            Some(_) if lost => self.flush_at = Some(now),
            Some(_) => {}
            None => self.flush_at = Some(now.saturating_add(UPDATE_RETRY_DELAY)),
        }
    }

    /// A newer intention for the same object wins.
    fn put_back(&mut self, item: Item) {
        match item {
            Item::Node(node, intent) => {
                self.nodes.entry(node).or_insert(intent);
            }
            Item::Status(task, status) => {
                let queued = self.statuses.entry(task).or_insert_with(|| status.clone());
                if queued.state < status.state {
                    *queued = status;
                }
            }
            Item::Volume(volume, node) => {
                self.volumes.insert((volume, node));
            }
            Item::Orphan(node) => self.orphans.look_again(&node),
        }
    }

    fn len(&self) -> usize {
        self.nodes.len() + self.statuses.len() + self.volumes.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0 && self.orphans.is_idle()
    }

    /// Packs what is to be written about one node; false when there is none.
    fn pack_node(&mut self, view: &Root, now: Timestamp, packer: &mut Packer) -> bool {
        let Some((node, intent)) = self.nodes.pop_first() else {
            return false;
        };
        if let Some(write) = intent.write(view, now, &node) {
            let pushed = packer.push(Item::Node(node, intent), write);
            self.settle(pushed);
        }
        true
    }

    /// Packs one status, one volume, or the orphans of one node; false when there is none.
    fn pack_task(
        &mut self,
        view: &Root,
        now: Timestamp,
        config: &Config,
        packer: &mut Packer,
    ) -> bool {
        if let Some((id, status)) = self.statuses.pop_first() {
            self.pack_status(view, now, config, (id, status), packer);
        } else if let Some((volume, node)) = self.volumes.pop_first() {
            if let Some(write) = volumes::write(&volume, &node, view) {
                let pushed = packer.push(Item::Volume(volume, node), write);
                self.settle(pushed);
            }
        } else if let Some(node) = self.orphans.pop() {
            self.pack_orphans(view, now, config, node, packer);
        } else {
            return false;
        }
        true
    }

    fn pack_status(
        &mut self,
        view: &Root,
        now: Timestamp,
        config: &Config,
        (id, status): (TaskId, TaskStatus),
        packer: &mut Packer,
    ) {
        let Some(stored) = view.task(&id) else {
            return;
        };
        let is_refresh = status.state == stored.state();
        let node = stored.node_id.as_ref().filter(|_| is_refresh);
        if let Some(node) = node
            && !self.allowances.has_room(now, node)
        {
            self.allowances.hold(now, node, id, status);
            return;
        }
        let write = |status: &TaskStatus| with_status(stored, status, now, config);
        let Some(update) = write(&status).map(Write::update) else {
            return;
        };
        let paid = node.map(|node| (node, update.bytes()));
        let mut pushed = packer.push(Item::Status(id, status), update);
        if let Pushed::Never(Item::Status(id, status), _) = &pushed {
            // The state itself has to get through: without it nobody knows how the task does.
            let bare = bare_status(status);
            if let Some(update) = write(&bare).map(Write::update) {
                pushed = packer.push(Item::Status(id.clone(), bare), update);
            }
        }
        if let (Some((node, bytes)), Pushed::Taken) = (paid, &pushed) {
            self.allowances.charge(now, node, bytes);
        }
        self.settle(pushed);
    }

    fn pack_orphans(
        &mut self,
        view: &Root,
        now: Timestamp,
        config: &Config,
        node: NodeId,
        packer: &mut Packer,
    ) {
        let orphaned: fn(&Task, Timestamp, Option<&NodeId>) -> Option<Task> = match view.node(&node)
        {
            Some(stored) if orphans::is_lost(stored) => orphans::orphaned,
            Some(_) => return,
            None => orphans::left_behind,
        };
        let leader = config.leader.as_ref();
        let tasks = view
            .tasks_on_node(&node)
            .filter_map(|task| orphaned(task, now, leader));
        for task in tasks {
            let pushed = packer.push(Item::Orphan(node.clone()), Write::update(task));
            let is_full = matches!(pushed, Pushed::Full(_));
            self.settle(pushed);
            if is_full {
                return;
            }
        }
    }

    /// Puts back what did not fit, and remembers what never will.
    fn settle(&mut self, pushed: Pushed) {
        match pushed {
            Pushed::Taken => {}
            Pushed::Full(item) => self.put_back(item),
            Pushed::Never(_, oversize) => {
                if self.oversize.len() < OVERSIZE_KEPT_MAX {
                    self.oversize.push(oversize);
                }
            }
        }
    }
}

/// The stored task with a reported status; `None` when the report is older or says nothing new.
fn with_status(
    stored: &Task,
    reported: &TaskStatus,
    now: Timestamp,
    config: &Config,
) -> Option<Task> {
    let stamped = TaskStatus {
        applied_by: config.leader.clone(),
        applied_at: Some(now),
        ..reported.clone()
    };
    let as_stored = TaskStatus {
        applied_by: stored.status().applied_by.clone(),
        applied_at: stored.status().applied_at,
        ..reported.clone()
    };
    if as_stored == *stored.status() {
        return None;
    }
    // What has ended has ended, however it is told later (I-TASK-5).
    if stored.is_terminal() && reported.state != stored.state() {
        return None;
    }
    let mut task = stored.clone();
    // Refuses to go back (I-TASK-1); such a report is older than what is stored.
    task.advance(stamped).ok()?;
    Some(task)
}

/// A status on its way.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) node: NodeId,
    pub(crate) task: TaskId,
    pub(crate) status: TaskStatus,
    /// Whether the state is further than the stored one.
    pub(crate) is_step: bool,
}

/// Fills a batch up to the limits of a transaction.
#[derive(Default)]
struct Packer {
    batch: Batch,
    items: Vec<Item>,
    room: Room,
    is_full: bool,
}

/// What became of a write.
enum Pushed {
    Taken,
    /// It belongs into the next batch.
    Full(Item),
    /// It fits no batch.
    Never(Item, Oversize),
}

impl Packer {
    fn push(&mut self, item: Item, write: Write) -> Pushed {
        let set = vec![write];
        match self.room.take(&set) {
            Fit::Yes => {
                self.batch.sets.push(WriteSet(set));
                self.items.push(item);
                Pushed::Taken
            }
            Fit::Full => {
                self.is_full = true;
                Pushed::Full(item)
            }
            Fit::Never(oversize) => Pushed::Never(item, oversize),
        }
    }

    fn is_full(&self) -> bool {
        self.is_full || self.room.is_full()
    }
}
