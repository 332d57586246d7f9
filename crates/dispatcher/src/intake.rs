//! Collects what is to be written and packs it into batches: node states first, then reported task
//! statuses, then orphans.
//!
//! Everything here is an intention which is turned into a write on the newest view, so a refused
//! write needs no repair: the intention goes back to the queue.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use swarm_reconcile::{Batch, Outcome};
use swarm_store::{Root, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX, Write, WriteSet};
use swarm_types::{NodeId, Task, TaskId, TaskStatus, Timestamp, Version, VolumeId};

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
    }

    /// A status was reported. A report that arrives late does not displace a later state.
    pub(crate) fn put_status(&mut self, now: Timestamp, task: TaskId, status: TaskStatus) {
        match self.statuses.get_mut(&task) {
            Some(queued) if status.state < queued.state => return,
            Some(queued) => *queued = status,
            None => {
                self.statuses.insert(task, status);
            }
        }
        self.arm(now);
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
        let due = self.nodes_at.into_iter().chain(self.flush_at).min();
        due.filter(|_| self.in_flight.is_empty())
    }

    /// Node states and task statuses that wait.
    pub(crate) fn backlog(&self) -> (usize, usize) {
        (self.nodes.len(), self.statuses.len())
    }

    /// Views below this version are too old to decide on.
    pub(crate) fn require(&mut self, version: Version) {
        self.version_min = self.version_min.max(version);
    }

    /// The next batch, once its time has come and the one before is through.
    pub(crate) fn poll(&mut self, view: &Root, now: Timestamp, config: &Config) -> Option<Batch> {
        let is_due = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        let all = is_due(self.flush_at);
        let is_old = view.version() < self.version_min;
        if !(all || is_due(self.nodes_at)) || !self.in_flight.is_empty() || is_old {
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
        let refused = match outcome {
            Outcome::Committed { version, refused } => {
                self.require(*version);
                Some(refused)
            }
            Outcome::Failed => None,
        };
        let mut lost = false;
        for (position, item) in items.into_iter().enumerate() {
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
            packer.push(Item::Node(node, intent), write);
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
            let update = view
                .task(&id)
                .and_then(|stored| with_status(stored, &status, now, config));
            if let Some(task) = update {
                packer.push(Item::Status(id, status), Write::update(task));
            }
        } else if let Some((volume, node)) = self.volumes.pop_first() {
            if let Some(write) = volumes::write(&volume, &node, view) {
                packer.push(Item::Volume(volume, node), write);
            }
        } else if let Some(node) = self.orphans.pop() {
            self.pack_orphans(view, now, config, node, packer);
        } else {
            return false;
        }
        true
    }

    fn pack_orphans(
        &mut self,
        view: &Root,
        now: Timestamp,
        config: &Config,
        node: NodeId,
        packer: &mut Packer,
    ) {
        if !view
            .node(&node)
            .is_some_and(|stored| orphans::is_lost(stored))
        {
            return;
        }
        let leader = config.leader.as_ref();
        let tasks = view
            .tasks_on_node(&node)
            .filter_map(|task| orphans::orphaned(task, now, leader));
        for task in tasks {
            if packer.is_full() {
                self.orphans.look_again(&node);
                return;
            }
            packer.push(Item::Orphan(node.clone()), Write::update(task));
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

/// Fills a batch up to the limits of a transaction.
#[derive(Default)]
struct Packer {
    batch: Batch,
    items: Vec<Item>,
    bytes: usize,
}

impl Packer {
    fn push(&mut self, item: Item, write: Write) {
        self.bytes += write.bytes();
        self.batch.sets.push(WriteSet(vec![write]));
        self.items.push(item);
    }

    /// A single object is far below the difference to the largest transaction that the log takes,
    /// so it may be the one that passes the limit.
    fn is_full(&self) -> bool {
        self.items.len() >= TRANSACTION_CHANGES_MAX || self.bytes >= TRANSACTION_BYTES_MAX
    }
}
