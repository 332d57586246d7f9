//! One transaction in the making: placements, confirmations, and reasons why nothing fits.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_store::{Root, TRANSACTION_CHANGES_MAX, Write, WriteSet};
use swarm_types::resources;
use swarm_types::{Node, NodeId, Task, TaskState, TaskStatus, Text, Timestamp};

use crate::candidates::{Candidates, Facts};
use crate::cluster::GroupKey;
use crate::filter::{Counts, Filter};
use crate::load::{Load, NodeView, Planned};
use crate::node_log::NodeIx;
use crate::requirements::{Pipeline, Requirements};
use crate::seating::Seating;
use crate::waiting::Group;

const ASSIGNED: &str = "scheduler assigned task to node";
const CONFIRMED: &str = "scheduler confirmed task can run on preassigned node";
const STOPPED: &str = "shutdown";

/// The plan: one write set for each task, so that one refusal loses one placement.
pub(crate) struct Plan<'a> {
    facts: Facts<'a>,
    view: &'a Root,
    now: Timestamp,
    /// What the plan adds to nodes.
    planned: Planned,
    pub(crate) sets: Vec<WriteSet>,
}

impl<'a> Plan<'a> {
    pub(crate) fn new(facts: Facts<'a>, view: &'a Root, now: Timestamp) -> Self {
        Self {
            facts,
            view,
            now,
            planned: Planned::default(),
            sets: Vec::new(),
        }
    }

    /// Whether the transaction is full.
    pub(crate) fn is_full(&self) -> bool {
        self.sets.len() >= TRANSACTION_CHANGES_MAX
    }

    /// Stops tasks that wait and are no longer wanted, as no agent ever will.
    pub(crate) fn stop_obsolete(&mut self) {
        let room = TRANSACTION_CHANGES_MAX - self.sets.len();
        for task in self.facts.cluster.obsolete.values().take(room) {
            self.write(
                task,
                TaskStatus::new(TaskState::Shutdown, self.now, STOPPED),
            );
        }
    }

    /// Judges the tasks that came with this node.
    pub(crate) fn confirm(&mut self, node: &NodeId) {
        let cluster = self.facts.cluster;
        for task in cluster
            .preassigned
            .get(node)
            .into_iter()
            .flat_map(BTreeMap::values)
        {
            if self.is_full() {
                return;
            }
            match self.judge_preassigned(task) {
                Some((ix, needs, None)) => {
                    self.place(task, ix, &needs, CONFIRMED);
                }
                Some((_, _, Some(filter))) => {
                    self.tell(task, &Text::from(Counts::one(filter).explanation()));
                }
                None => {}
            }
        }
    }

    /// Whether [`Plan::confirm`] would write anything about this task.
    pub(crate) fn has_news_for_preassigned(&self, task: &Task) -> bool {
        match self.judge_preassigned(task) {
            Some((_, _, None)) => true,
            Some((_, _, Some(filter))) => {
                task.status().err.as_str() != Counts::one(filter).explanation()
            }
            None => false,
        }
    }

    /// The verdict about the node that a task came with; `None` while the node is unknown.
    fn judge_preassigned(
        &self,
        task: &Task,
    ) -> Option<(NodeIx, Arc<Requirements>, Option<Filter>)> {
        let ix = self.facts.cluster.find(task.node_id.as_ref()?)?;
        let node = self.node_view(ix)?;
        let needs = Arc::new(Requirements::of(task));
        let pipeline = Pipeline::new(Arc::clone(&needs));
        let service_tasks = node.active_of(&task.service_id);
        let verdict = pipeline.verdict(pipeline.fixed(node.node), &node, service_tasks);
        Some((ix, needs, verdict))
    }

    /// Places the tasks of a group one after the other, each on the best node at that moment, and
    /// tells the rest why there is none.
    pub(crate) fn place_group(&mut self, key: &GroupKey, group: &Group, candidates: &Candidates) {
        let mut seating = Seating::new(candidates, self.facts, &self.planned);
        let mut placed = 0;
        for task in group.tasks() {
            if self.is_full() {
                return;
            }
            let Some(ix) = seating.best() else {
                break;
            };
            if let Some(planned) = self.place(task, ix, &key.needs, ASSIGNED) {
                seating.update(ix, planned);
            }
            placed += 1;
        }
        if placed < group.len() && !is_group_dropped(key, group, self.view) {
            let reason = Text::from(seating.rejected.no_suitable_node());
            self.tell_group(group, placed, &reason);
        }
    }

    /// Tells the tasks of a group but the first ones, unless they know.
    fn tell_group(&mut self, group: &Group, first: usize, reason: &Text) {
        let mut skipped = first;
        for (error, tasks) in group.by_error() {
            let skip = skipped.min(tasks.len());
            skipped -= skip;
            if error == reason {
                continue;
            }
            for task in tasks.values().skip(skip) {
                if self.is_full() {
                    return;
                }
                self.tell(task, reason);
            }
        }
    }

    fn tell(&mut self, task: &Arc<Task>, reason: &Text) {
        if task.status().err != *reason {
            let status = TaskStatus {
                timestamp: Some(self.now),
                err: reason.clone(),
                ..task.status().clone()
            };
            self.write(task, status);
        }
    }

    /// Writes a placement and returns what the plan adds to the node by now.
    fn place(
        &mut self,
        task: &Arc<Task>,
        ix: NodeIx,
        needs: &Requirements,
        message: &'static str,
    ) -> Option<&Load> {
        let node = self.facts.cluster.node(ix)?;
        let mut placed = (**task).clone();
        placed.node_id = Some(node.id.clone());
        // Versions of a task share what is not written.
        if !needs.generic.is_empty() || !task.assigned_generic_resources.is_empty() {
            placed.assigned_generic_resources = self.claim(ix, needs);
        }
        // Only tasks in PENDING wait, so this is a step forward.
        let status = TaskStatus::new(TaskState::Assigned, self.now, message);
        placed.advance(status).ok()?;
        let planned = self.planned.entry(ix);
        planned.add(&placed);
        self.sets.push(WriteSet(vec![
            Write::require::<Node>(node),
            Write::update(placed),
        ]));
        Some(planned)
    }

    fn claim(&self, ix: NodeIx, needs: &Requirements) -> resources::Resources {
        let mut free = self
            .node_view(ix)
            .map_or_else(Vec::new, |node| node.free_generic());
        resources::claim(&mut free, &needs.generic_reservation())
    }

    fn node_view(&self, ix: NodeIx) -> Option<NodeView<'_>> {
        self.facts.cluster.view(ix, self.planned.get(ix))
    }

    fn write(&mut self, task: &Arc<Task>, status: TaskStatus) {
        let mut task = (**task).clone();
        // Only tasks up to PENDING wait, and nothing earlier is written here.
        if task.advance(status).is_ok() {
            self.sets.push(WriteSet(vec![Write::update(task)]));
        }
    }
}

/// Whether nobody is told why the tasks of this group wait: their service is gone, or wants a newer
/// spec, and others will end them (control-plane spec 15.11). A newer spec with the same template,
/// as after a change of the number of replicas, ends nobody.
fn is_group_dropped(key: &GroupKey, group: &Group, view: &Root) -> bool {
    let Some(service) = &key.service else {
        return false;
    };
    match view.service(service) {
        None => true,
        Some(service) => {
            let is_template_new = || {
                let first = group.tasks().next();
                first.is_some_and(|task| task.spec != *service.spec.task())
            };
            key.version.is_some() && service.spec_version > key.version && is_template_new()
        }
    }
}

/// Whether there is nothing to write about a group: no node fits, and its tasks were told.
pub(crate) fn is_group_idle(
    key: &GroupKey,
    group: &Group,
    candidates: &Candidates,
    view: &Root,
) -> bool {
    if candidates.is_any_usable() {
        return false;
    }
    let reason = candidates.rejected.no_suitable_node();
    let all_told = group
        .by_error()
        .keys()
        .all(|error| error.as_str() == reason);
    all_told || is_group_dropped(key, group, view)
}
