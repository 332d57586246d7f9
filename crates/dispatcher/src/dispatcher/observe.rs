//! What a commit means for sessions, assignments and timers. Costs O(log n) for each change.

use std::sync::Arc;

use swarm_store::{Action, Change, Root};
use swarm_types::{AnyObject, Node, NodeId, Task, Timestamp};

use super::{Dispatcher, Timer};
use crate::assignments::{ASSIGNMENT_BATCH_DELAY, Assignments};
use crate::config::heartbeat_period;
use crate::orphans::{self, NODE_DOWN_PERIOD};

impl Dispatcher {
    pub(super) fn observe(&mut self, now: Timestamp, change: &Change, view: &Root) {
        match &change.object {
            AnyObject::Task(task) => {
                if let Some(AnyObject::Task(old)) = &change.old
                    && old.node_id != task.node_id
                {
                    self.observe_removed_task(now, old);
                }
                match change.action {
                    Action::Create | Action::Update => self.observe_task(now, task),
                    Action::Remove => self.observe_removed_task(now, task),
                }
            }
            AnyObject::Node(node) => match change.action {
                Action::Create | Action::Update => self.observe_node(now, node),
                Action::Remove => {
                    self.remove_node(now, &node.id);
                    self.observe_left_behind(now, view, &node.id);
                }
            },
            AnyObject::Cluster(_) => self.observe_period(now, view),
            // Nodes are not told when an object that their tasks use changes (spec 5.7).
            AnyObject::Secret(_)
            | AnyObject::Config(_)
            | AnyObject::Volume(_)
            | AnyObject::Service(_)
            | AnyObject::Network(_)
            | AnyObject::Resource(_)
            | AnyObject::Extension(_) => {}
        }
    }

    /// Heartbeats from now on are answered with the period of the cluster. A shorter one brings
    /// deadlines forward, so every node is looked at in time for that; costs as much as there are
    /// nodes, once for each such change.
    pub(super) fn observe_period(&mut self, now: Timestamp, view: &Root) {
        let (before, period) = (self.pulses.period(), heartbeat_period(view));
        if period == before {
            return;
        }
        self.pulses.set_period(period);
        if period > before {
            return;
        }
        let earliest = self.deadline_min(now);
        for (node, session) in &mut self.sessions {
            self.wheel.hasten(node, &mut session.slot, earliest);
        }
    }

    fn observe_task(&mut self, now: Timestamp, task: &Arc<Task>) {
        let Some(node) = &task.node_id else {
            return;
        };
        self.intake.orphans.look_again(node);
        if !self.intake.orphans.is_idle() {
            self.intake.arm(now);
        }
        self.update_assignments(now, node, |state| state.handle_change(task));
    }

    fn observe_removed_task(&mut self, now: Timestamp, task: &Task) {
        if let Some(node) = &task.node_id {
            self.update_assignments(now, node, |state| state.handle_removal(&task.id));
        }
    }

    fn update_assignments(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        update: impl FnOnce(&mut Assignments),
    ) {
        let Some(session) = self.sessions.get_mut(node) else {
            return;
        };
        let Some(assignments) = &mut session.assignments else {
            return;
        };
        let before = assignments.state.backlog();
        update(&mut assignments.state);
        if assignments.state.backlog() == before || assignments.is_due {
            return;
        }
        if assignments.can_send() {
            self.ready.insert(node.clone());
        }
        let at = now.saturating_add(ASSIGNMENT_BATCH_DELAY);
        self.timers.set(Timer::Assignments(node.clone()), at);
    }

    pub(super) fn observe_node(&mut self, now: Timestamp, node: &Arc<Node>) {
        let timer = Timer::Orphan(node.id.clone());
        if !orphans::is_lost(node) {
            self.timers.clear(&timer);
            self.intake.orphans.forget(&node.id);
        } else if self.timers.get(&timer).is_none() && !self.intake.orphans.is_overdue(&node.id) {
            self.timers.set(timer, now.saturating_add(NODE_DOWN_PERIOD));
        }
        if let Some(session) = self.sessions.get_mut(&node.id) {
            let is_news = session
                .control
                .as_mut()
                .is_some_and(|control| control.handle_node(node));
            if is_news {
                self.ready.insert(node.id.clone());
            }
        }
    }

    /// Tasks that were too many to be orphaned together with the removal of their node.
    fn observe_left_behind(&mut self, now: Timestamp, view: &Root, node: &NodeId) {
        self.intake.orphans.handle_removed(view, node);
        if !self.intake.orphans.is_idle() {
            self.intake.arm(now);
        }
    }

    /// The same for all nodes of which tasks are left. Costs as much as there are nodes.
    pub(super) fn find_left_behind(&mut self, now: Timestamp, view: &Root) {
        for node in view.nodes_of_tasks() {
            if view.node(node).is_none() {
                self.observe_left_behind(now, view, node);
            }
        }
    }
}
