//! The agent: messages, results and time go in; operations, calls and disk writes come out.
//!
//! A shell turns, until all of them are empty: [`Agent::poll_persist`], [`Agent::poll_operation`],
//! [`Agent::poll_rpc`], [`Agent::poll_node_action`]; then it waits for input or for
//! [`Agent::poll_timeout`]. The order between them does not matter for safety.

mod assignments;
mod disk;
mod logs;
mod node;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_executor::{Dependencies, Report};
use swarm_types::{Task, TaskId, TaskState, TaskStatus, Timers, Timestamp, convert};
use v1::update_task_status_request::TaskStatusUpdate;

use crate::dependencies;
use crate::logs::Logs;
use crate::persist::{Persist, PersistBatch, PersistedTask};
use crate::reporter::Reporter;
use crate::rpc::{AgentRpc, Epoch, Reply, RpcError};
use crate::session::{Fit, Heard, Session};
use crate::task::{Effects, Machine, OpId, TaskOperation};
use node::{Heeded, NodeActions};

pub use node::{DESCRIBE_INTERVAL, NodeAction, WARNINGS_MAX};

/// Deadline for the first assignments message; it carries everything at once, so it may be large.
pub const ASSIGNMENTS_TIMEOUT: Duration = Duration::from_secs(30);
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Describe,
    /// The pause of a task is over.
    Retry(TaskId),
    /// An operation takes too long.
    Operation(TaskId),
    /// No manager named a broken log subscription again.
    Log(String),
    /// The disk is tried again.
    Persist,
}

/// The state of one node's agent.
#[derive(Debug)]
pub struct Agent {
    session: Session,
    description: v1::NodeDescription,
    machines: BTreeMap<TaskId, Machine>,
    /// Tasks that may need an operation.
    runnable: BTreeSet<TaskId>,
    /// Those of them that wait for the disk.
    blocked: BTreeSet<TaskId>,
    op_last: u64,
    timers: Timers<Timer>,
    persist: Persist,
    reporter: Reporter,
    dependencies: dependencies::Store,
    actions: NodeActions,
    heeded: Heeded,
    logs: Logs,
    is_leaving: bool,
}

impl Agent {
    /// Starts with what the local database has. Tasks go on where they were: one that was RUNNING
    /// is waited for, nothing is killed. The session opens once the node is described.
    pub fn new(now: Timestamp, recovered: Vec<PersistedTask>) -> Self {
        let mut agent = Self {
            session: Session::new(),
            description: v1::NodeDescription::default(),
            machines: BTreeMap::new(),
            runnable: BTreeSet::new(),
            blocked: BTreeSet::new(),
            op_last: 0,
            timers: Timers::new(),
            persist: Persist::default(),
            reporter: Reporter::default(),
            dependencies: dependencies::Store::default(),
            actions: NodeActions::default(),
            heeded: Heeded::default(),
            logs: Logs::default(),
            is_leaving: false,
        };
        for persisted in recovered {
            let id = persisted.task.id.clone();
            let desired = persisted.task.desired_state();
            let task = persisted.task.with_states(persisted.status, desired);
            let machine = Machine::recovered(task, persisted.is_assigned);
            agent.machines.insert(id.clone(), machine);
            agent.step(now, &id, false);
        }
        agent.describe(now);
        agent
    }

    /// The tasks that the executor must keep when it looks for leftovers
    /// (`swarm_executor::Executor::recover`).
    pub fn known_tasks(&self) -> BTreeSet<TaskId> {
        self.machines.keys().cloned().collect()
    }

    /// The task with its status, if this node has it.
    pub fn task(&self, id: &TaskId) -> Option<&Arc<Task>> {
        self.machines.get(id).map(Machine::task)
    }

    /// The tasks that are assigned, with their statuses.
    pub fn assigned_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        let assigned = self.machines.values().filter(|own| own.is_assigned());
        assigned.map(Machine::task)
    }

    /// Secrets and configs for one task; `None` if it is not here.
    pub fn dependencies(&self, id: &TaskId) -> Option<Dependencies> {
        let machine = self.machines.get(id)?;
        Some(self.dependencies.of(machine.task()))
    }

    /// The ids of the secrets and configs that the managers sent, for checkers.
    pub fn dependency_ids(&self) -> impl Iterator<Item = &str> {
        self.dependencies.ids()
    }

    /// Whether the node has a session.
    pub fn is_connected(&self) -> bool {
        self.session.is_active()
    }

    /// Whether no task is left, also none that is being removed. True after [`Agent::handle_leave`]
    /// once everything is cleaned up and forgotten.
    pub fn is_empty(&self) -> bool {
        self.machines.is_empty()
    }

    /// A message of the session stream.
    pub fn handle_session_message(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        message: v1::SessionMessage,
        draw: &mut dyn FnMut() -> u64,
    ) {
        match self.session.hear(now, epoch, &message.session_id) {
            Heard::Stale => return,
            Heard::Broken(reason) => return self.fail_session(now, reason, true, draw),
            Heard::NewSession => {
                let assigned = self.machines.iter().filter(|(_, own)| own.is_assigned());
                let ids: Vec<_> = assigned.map(|(id, _)| id.clone()).collect();
                self.reporter.put_all(now, ids.into_iter());
            }
            Heard::SameSession | Heard::News => {}
        }
        self.heed(message);
    }

    /// A message of the assignments stream.
    pub fn handle_assignments_message(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        message: v1::AssignmentsMessage,
        draw: &mut dyn FnMut() -> u64,
    ) {
        match self.session.fit(epoch, &message) {
            Fit::Stale => {}
            Fit::Broken(reason) => self.fail_session(now, reason, true, draw),
            Fit::Complete => self.apply_assignments(now, message.changes, true),
            Fit::Incremental => self.apply_assignments(now, message.changes, false),
        }
    }

    /// A call ended, or a stream did.
    pub fn handle_rpc_result(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        reply: Reply,
        draw: &mut dyn FnMut() -> u64,
    ) {
        if !self.session.is_current(epoch) {
            return;
        }
        let error = match reply {
            Reply::Heartbeat(Ok(period)) => {
                return self
                    .session
                    .handle_heartbeat(now, period.max(HEARTBEAT_PERIOD_MIN));
            }
            Reply::StatusesTaken(report, Ok(())) => return self.handle_statuses_taken(report),
            // The manager does not know the node any more, and says so to the next heartbeat as
            // well; the new session that follows reports everything again.
            Reply::StatusesTaken(report, Err(error)) if error.code == RpcError::NOT_FOUND => {
                return self.handle_statuses_taken(report);
            }
            Reply::Heartbeat(Err(error)) => format!("heartbeat: {error}"),
            Reply::StatusesTaken(_, Err(error)) => format!("status report: {error}"),
            Reply::SessionEnded(error) => format!("session: {error}"),
            Reply::AssignmentsEnded(error) => format!("assignments: {error}"),
            // Managers without a log broker are as good for everything else (spec 5.9).
            Reply::SubscriptionsEnded(error) if error.code == RpcError::UNIMPLEMENTED => return,
            Reply::SubscriptionsEnded(error) => format!("log subscriptions: {error}"),
        };
        self.fail_session(now, &error, true, draw);
    }

    /// An operation ended. A result that is not wanted any more changes nothing.
    pub fn handle_operation_result(
        &mut self,
        now: Timestamp,
        task: &TaskId,
        op: OpId,
        report: &Report,
    ) {
        let machine = self.machines.get_mut(task);
        if let Some(effects) = machine.and_then(|own| own.finish(op, report, now)) {
            self.timers.clear(&Timer::Operation(task.clone()));
            self.apply_effects(now, task, effects);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp, draw: &mut dyn FnMut() -> u64) {
        // Not until none is due: at the end of time a timer that is set anew is due at once.
        for _ in 0..self.timers.len() {
            let Some(timer) = self.timers.pop_due(now) else {
                break;
            };
            match timer {
                Timer::Describe => self.describe(now),
                Timer::Retry(task) => {
                    if let Some(machine) = self.machines.get_mut(&task) {
                        machine.resume();
                        self.runnable.insert(task);
                    }
                }
                Timer::Log(id) => self.logs.give_up(&id),
                Timer::Persist => self.persist.resume(),
                Timer::Operation(task) => {
                    let machine = self.machines.get_mut(&task);
                    if let Some(effects) = machine.and_then(|own| own.time_out(now)) {
                        self.apply_effects(now, &task, effects);
                    }
                }
            }
        }
        if let Some(reason) = self.session.handle_timeout(now) {
            self.fail_session(now, reason, true, draw);
        }
    }

    /// The node leaves the cluster: every task is removed, and no new one is taken.
    pub fn handle_leave(&mut self, now: Timestamp) {
        self.is_leaving = true;
        self.logs.cancel_all();
        let all: Vec<TaskId> = self.machines.keys().cloned().collect();
        for task in all {
            self.unassign(now, &task);
        }
    }

    /// The agent stops. Tasks run on; the next agent takes them over.
    pub fn handle_stop(&mut self) {
        self.session.stop();
        self.runnable.clear();
        self.blocked.clear();
    }

    /// The next disk write, at most one at a time; none in the pause after a failure.
    pub fn poll_persist(&mut self) -> Option<PersistBatch> {
        self.persist.poll()
    }

    /// The next operation of any task.
    pub fn poll_operation(&mut self, now: Timestamp) -> Option<TaskOperation> {
        while let Some(id) = self.runnable.pop_first() {
            let Some(machine) = self.machines.get_mut(&id) else {
                continue;
            };
            let Some(operation) = machine.next() else {
                continue;
            };
            if !disk::may_begin(&self.persist, machine, operation) {
                self.blocked.insert(id);
                continue;
            }
            self.op_last += 1;
            let op = OpId(self.op_last);
            if let Some(limit) = machine.begin(op, operation) {
                let deadline = now.saturating_add(limit);
                self.timers.set(Timer::Operation(id.clone()), deadline);
            }
            return Some(TaskOperation {
                task_id: id,
                op,
                operation,
                task: Arc::clone(machine.task()),
            });
        }
        None
    }

    /// The next call; heartbeats go before reports.
    pub fn poll_rpc(&mut self, now: Timestamp) -> Option<AgentRpc> {
        if let Some(call) = self.session.poll(now, &self.description) {
            return Some(call);
        }
        if !self.session.is_active() {
            return None;
        }
        let (machines, persist) = (&self.machines, &self.persist);
        let chunk = self.reporter.take(now, |id| {
            let machine = machines.get(id)?;
            let is_ready = disk::may_report(persist, machine) && machine.is_assigned();
            let is_ours = machine.status().state > TaskState::Assigned;
            (is_ready && is_ours).then(|| machine.status().clone())
        })?;
        let updates = chunk.iter().map(|(id, status)| wire_update(id, status));
        self.session.report(now, updates.collect())
    }

    /// When something is due next.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let timer = self.timers.next().map(|(at, _)| at);
        let is_active = self.session.is_active();
        let report = self.reporter.timeout().filter(|_| is_active);
        [timer, self.session.timeout(), report]
            .into_iter()
            .flatten()
            .min()
    }

    fn fail_session(
        &mut self,
        now: Timestamp,
        reason: &str,
        blame: bool,
        draw: &mut dyn FnMut() -> u64,
    ) {
        self.session.fail(now, reason.to_owned(), blame, draw);
        self.reporter.handle_lost(now);
    }

    fn handle_statuses_taken(&mut self, report: u64) {
        if self.session.handle_reported(report) {
            self.reporter.handle_taken();
        }
    }

    fn apply_effects(&mut self, now: Timestamp, task: &TaskId, effects: Effects) {
        if effects.removed {
            let machine = self.machines.remove(task);
            if machine.is_some_and(|own| own.is_never_recorded()) {
                self.persist.forget(task);
            } else {
                self.persist.delete(task);
            }
            self.reporter.forget(task);
            self.timers.clear(&Timer::Retry(task.clone()));
            return;
        }
        if let Some(pause) = effects.pause {
            let at = now.saturating_add(pause);
            self.timers.set(Timer::Retry(task.clone()), at);
        }
        if effects.reassigned
            && let Some(machine) = self.machines.get(task)
        {
            self.persist.put_task(machine.task());
        }
        self.step(now, task, effects.status_changed);
    }

    /// Takes the steps that need no operation, stores and reports a changed status, and lets the
    /// next operation begin.
    fn step(&mut self, now: Timestamp, id: &TaskId, changed: bool) {
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        let changed = machine.advance(now) || changed;
        if changed {
            if !machine.is_never_recorded() {
                machine.needs = self.persist.put_status(id, machine.status());
            }
            self.reporter.put(now, id);
        }
        self.runnable.insert(id.clone());
    }

    fn unassign(&mut self, now: Timestamp, id: &TaskId) {
        let Some(machine) = self.machines.get_mut(id) else {
            return;
        };
        if !machine.unassign() {
            return;
        }
        if machine.is_never_recorded() {
            return self.forget(now, id);
        }
        machine.needs = self.persist.unassign(id);
        self.timers.clear(&Timer::Retry(id.clone()));
        self.timers.clear(&Timer::Operation(id.clone()));
        self.reporter.forget(id);
        self.step(now, id, false);
    }
}

/// No manager makes a node beat more often.
const HEARTBEAT_PERIOD_MIN: Duration = Duration::from_millis(100);

fn wire_update(id: &TaskId, status: &TaskStatus) -> TaskStatusUpdate {
    TaskStatusUpdate {
        task_id: id.to_string(),
        status: Some(convert::task_status_to_wire(status)),
    }
}
