//! A node: an agent with its database, on a machine whose processes outlive it. Mirrors
//! `swarm-agent-io`.

mod calls;
pub(crate) mod database;
pub(crate) mod dependencies;
mod joining;
mod leaving;
mod publishing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_agent::{Agent, Epoch, OpId, PersistBatch, PersistedTask, TaskOperation};
use swarm_executor::fake::FakeNode;
use swarm_executor::{ErrorClass, ExecError, Operation, Report};
use swarm_types::{NodeId, Slot, Task, TaskId, TaskState};

use crate::event::{Caller, ConnId, Event, Life, NodeEvent, NodeIx, Payload};
use crate::identity::Identity;
use crate::invariants::{
    Checked, KEEPS_TASKS, PERSIST_FIRST, PREPARED, STARTS_ONCE, Violation, ensure,
};
use crate::manager::Io;
use crate::random::Random;
use crate::settings::Faults;
use crate::time::{Clock, Instant, MS};
use crate::trace::Weight;
use calls::describe;
use database::{Fullness, write};
use dependencies::Told;
use publishing::Publications;

/// What a node draws from.
pub(crate) struct Dice<'a> {
    pub(crate) faults: &'a Faults,
    pub(crate) draws: &'a mut Random,
    pub(crate) executor: &'a mut Random,
    pub(crate) is_calm: bool,
}

impl Dice<'_> {
    fn happens(&mut self, per_mille: u32) -> bool {
        !self.is_calm && self.draws.happens(per_mille)
    }
}

/// An operation of the executor that was begun.
#[derive(Debug)]
struct Running {
    op: OpId,
    operation: Operation,
    task: Arc<Task>,
}

/// One machine.
pub(crate) struct Node {
    pub(crate) ix: NodeIx,
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) life: Life,
    pub(crate) agent: Option<Agent>,
    pub(crate) machine: FakeNode,
    /// The task database; writes are transactions.
    pub(crate) disk: BTreeMap<TaskId, PersistedTask>,
    /// When its disk is full; `None`: never.
    pub(crate) fullness: Option<Fullness>,
    /// The write under way.
    writing: Option<PersistBatch>,
    conn: Option<ConnId>,
    /// The attempt that opened it.
    epoch: Epoch,
    wake: Option<Instant>,
    running: BTreeMap<TaskId, Running>,
    /// Tasks that were started since the machine is up, for I-AGENT-6.
    started: BTreeSet<TaskId>,
    /// Tasks that were prepared with everything that they refer to, since the machine is up.
    prepared: BTreeSet<TaskId>,
    /// What the managers sent besides tasks.
    pub(crate) told: Told,
    pub(crate) publications: Publications,
    /// What the machine's tasks belong to.
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(crate) identity: Identity,
    /// It was told that it was removed.
    is_leaving: bool,
    size: u64,
}

impl Node {
    pub(crate) fn new(ix: NodeIx, id: NodeId, clock: Clock, size: u64) -> Self {
        Self {
            ix,
            id,
            clock,
            life: Life(0),
            agent: None,
            machine: FakeNode::default(),
            disk: BTreeMap::new(),
            fullness: None,
            writing: None,
            conn: None,
            epoch: Epoch::default(),
            wake: None,
            running: BTreeMap::new(),
            started: BTreeSet::new(),
            prepared: BTreeSet::new(),
            told: Told::default(),
            publications: Publications::default(),
            tasks: BTreeMap::new(),
            identity: Identity::default(),
            is_leaving: false,
            size,
        }
    }

    /// The process starts: it joins first if it has no certificate.
    pub(crate) fn start(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) -> Checked {
        self.life.0 += 1;
        self.identity.ask = None;
        if self.identity.certificate.is_none() {
            self.ask(io, dice);
            return Ok(());
        }
        self.plan_renewal(io, dice);
        self.start_agent(io, dice)
    }

    /// The agent takes up what runs.
    fn start_agent(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) -> Checked {
        if dice.happens(dice.faults.redescribe_per_mille) {
            self.size = dice.draws.below(4);
        }
        let recovered: Vec<PersistedTask> = self.disk.values().cloned().collect();
        let assigned: BTreeSet<TaskId> = recovered
            .iter()
            .filter(|own| own.is_assigned && own.task.desired_state() <= TaskState::Running)
            .map(|own| own.task.id.clone())
            .collect();
        let now = self.clock.read(io.agenda.now());
        let agent = Agent::new(now, recovered);
        let before = self.machine.running(io.agenda.now().as_timestamp());
        let known = agent.known_tasks();
        let recovery = self.machine.recover(&known, io.agenda.now().as_timestamp());
        io.trace.add(
            io.agenda.now(),
            Weight::Major,
            self.ix,
            format_args!(
                "agent starts: {} running, {} idle, {} removed",
                recovery.running.len(),
                recovery.idle.len(),
                recovery.removed.len()
            ),
        );
        let lost = before
            .iter()
            .find(|task| assigned.contains(*task) && !recovery.running.contains(*task));
        ensure(lost.is_none(), KEEPS_TASKS, || {
            format!("{} lost the process of task {lost:?} at its start", self.ix)
        })?;
        self.agent = Some(agent);
        self.turn(io, dice)
    }

    /// The agent's process dies; with the machine, its tasks die as well.
    pub(crate) fn die(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, with_machine: bool) {
        self.life.0 += 1;
        // The transaction under way happened or did not.
        if let Some(batch) = self.writing.take()
            && dice.draws.happens(500)
        {
            write(&mut self.disk, batch.ops);
        }
        self.agent = None;
        self.is_leaving = false;
        self.conn = None;
        self.wake = None;
        self.running.clear();
        self.told = Told::default();
        self.publications = Publications::default();
        if with_machine {
            self.machine = FakeNode::default();
            self.started.clear();
            self.prepared.clear();
            self.tasks.clear();
        }
        io.network.node_died(io.agenda, self.ix, with_machine);
    }

    /// Carries out everything that the agent asks for.
    fn turn(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) -> Checked {
        let now = self.clock.read(io.agenda.now());
        let Some(mut agent) = self.agent.take() else {
            return Ok(());
        };
        agent.handle_timeout(now, &mut || dice.draws.next());
        while let Some(batch) = agent.poll_persist() {
            let max = dice.faults.agent_disk_max;
            let max = if dice.is_calm {
                max.min(Duration::from_millis(5))
            } else {
                max
            };
            let after = dice.draws.span(Duration::from_micros(20), max);
            let persisted = Event::Node(self.ix, self.life, NodeEvent::Persisted(batch.sequence));
            io.agenda.after(after, persisted);
            self.writing = Some(batch);
        }
        let mut result = Ok(());
        while let Some(operation) = agent.poll_operation(now) {
            let missing = (operation.operation == Operation::Prepare)
                .then(|| dependencies::missing(&agent, &operation.task));
            let begun = self.begin(io, dice, operation, missing.flatten());
            if result.is_ok() {
                result = begun;
            }
        }
        while let Some(rpc) = agent.poll_rpc(now) {
            let before = self.conn;
            self.call(io, rpc);
            if let Some(closed) = before.filter(|_| self.conn != before) {
                self.break_streams(now, &mut agent, closed);
            }
        }
        self.publish(io, dice, &mut agent);
        while let Some(action) = agent.poll_node_action() {
            self.act(io, dice, action);
        }
        if let Some(at) = agent.poll_timeout() {
            let at = self.clock.when(at, io.agenda.now());
            if self.wake != Some(at) {
                self.wake = Some(at);
                io.agenda
                    .at(at, Event::Node(self.ix, self.life, NodeEvent::Wake));
            }
        }
        self.agent = Some(agent);
        result.and_then(|()| self.try_leave(io, dice))
    }

    /// Begins an operation; one that lacks something fails at once.
    fn begin(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        wanted: TaskOperation,
        missing: Option<ExecError>,
    ) -> Checked {
        let TaskOperation {
            task_id,
            op,
            operation,
            task,
        } = wanted;
        ensure(self.disk.contains_key(&task_id), PERSIST_FIRST, || {
            format!(
                "{} begins to {operation} task {task_id}, which is not on its disk",
                self.ix
            )
        })?;
        io.trace.add(
            io.agenda.now(),
            Weight::Minor,
            self.ix,
            format_args!("begins to {operation} {task_id}"),
        );
        self.tasks.insert(task_id.clone(), Arc::clone(&task));
        self.running.insert(
            task_id.clone(),
            Running {
                op,
                operation,
                task: Arc::clone(&task),
            },
        );
        match missing {
            None => self.execute(io, dice, &task_id),
            Some(error) => {
                let done = NodeEvent::OperationDone {
                    task: task_id,
                    op,
                    report: Box::new(Report::new(Err(error))),
                };
                io.agenda.after(MS, Event::Node(self.ix, self.life, done));
            }
        }
        Ok(())
    }

    /// Lets the machine begin the operation of a task, in place of the one under way.
    fn execute(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, id: &TaskId) {
        let Some(Running {
            op,
            operation,
            task,
        }) = self.running.get(id)
        else {
            return;
        };
        let now = io.agenda.now().as_timestamp();
        let draw = &mut || dice.executor.next();
        let begun = self.machine.begin(task, *operation, now, draw);
        if let Some(at) = begun.completes_at {
            let done = NodeEvent::OperationDone {
                task: id.clone(),
                op: *op,
                report: Box::new(begun.outcome),
            };
            let done = Event::Node(self.ix, self.life, done);
            io.agenda.at(Instant::from_timestamp(at), done);
        }
    }

    pub(crate) fn wakes(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) -> Checked {
        if self.wake != Some(io.agenda.now()) {
            return Ok(());
        }
        self.wake = None;
        self.turn(io, dice)
    }

    pub(crate) fn described(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>) -> Checked {
        let now = self.clock.read(io.agenda.now());
        let failed = dice.happens(dice.faults.describe_error_per_mille);
        let description = if failed {
            Err("no description today".to_owned())
        } else {
            let mut description = describe(self.ix, self.size, &self.identity);
            if dice.happens(dice.faults.oversize_per_mille) {
                description.hostname = "x".repeat(100_000);
            }
            Ok(description)
        };
        if let Some(agent) = &mut self.agent {
            agent.handle_description(now, description, &mut || dice.draws.next());
        }
        self.turn(io, dice)
    }

    /// A batch of the database is durable, or its disk is full.
    pub(crate) fn persisted(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        sequence: u64,
    ) -> Checked {
        let at = io.agenda.now();
        let is_full = self.fullness.as_mut().is_some_and(|own| own.is_now(at)) && !dice.is_calm;
        let batch = self.writing.take();
        let now = self.clock.read(at);
        if is_full {
            let what = format_args!("the disk is full: batch {sequence} is not written");
            io.trace.add(at, Weight::Minor, self.ix, what);
            if let Some(agent) = &mut self.agent {
                agent.handle_persist_failed(now, sequence, "no space left on device");
            }
        } else {
            if let Some(batch) = batch {
                write(&mut self.disk, batch.ops);
            }
            if let Some(agent) = &mut self.agent {
                agent.handle_persisted(now, sequence);
            }
        }
        self.turn(io, dice)
    }

    /// An operation ended; tells whether a process started.
    pub(crate) fn operation_done(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        (task, op): (&TaskId, OpId),
        report: &Report,
    ) -> Result<bool, Violation> {
        let Some(running) = self.running.get(task).filter(|own| own.op == op) else {
            return Ok(false);
        };
        let operation = running.operation;
        self.running.remove(task);
        io.trace.add(
            io.agenda.now(),
            Weight::Minor,
            self.ix,
            format_args!("{operation} of {task}: {}", outcome(report)),
        );
        let is_done = |error: &ExecError| error.class() == ErrorClass::Done;
        if operation == Operation::Prepare && report.result.as_ref().err().is_none_or(is_done) {
            self.prepared.insert(task.clone());
        }
        if operation == Operation::Start && report.result.is_ok() {
            ensure(self.prepared.contains(task), PREPARED, || {
                format!(
                    "task {task} starts on {} and was not prepared there",
                    self.ix
                )
            })?;
            ensure(self.started.insert(task.clone()), STARTS_ONCE, || {
                format!("task {task} was started twice on {}", self.ix)
            })?;
        }
        if operation == Operation::Remove && report.result.is_ok() {
            self.tasks.remove(task);
        }
        let now = self.clock.read(io.agenda.now());
        if let Some(agent) = &mut self.agent {
            agent.handle_operation_result(now, task, op, report);
        }
        self.turn(io, dice)?;
        Ok(operation == Operation::Start && report.result.is_ok())
    }

    /// Something arrived from the manager.
    pub(crate) fn hears(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        caller: Caller,
        payload: Payload,
    ) -> Checked {
        let now = self.clock.read(io.agenda.now());
        if caller.life != self.life {
            return Ok(());
        }
        self.check_farewell(caller.epoch, &payload)?;
        let Some(payload) = self.hears_of_itself(io, dice, payload)? else {
            return Ok(());
        };
        let Some(agent) = self.agent.as_mut() else {
            return Ok(());
        };
        io.trace.add(
            io.agenda.now(),
            Weight::Minor,
            self.ix,
            format_args!("hears {}", payload.name()),
        );
        let (epoch, draw) = (caller.epoch, &mut || dice.draws.next());
        let mut told = Ok(());
        match payload {
            Payload::Session(message) => {
                agent.handle_session_message(now, epoch, *message, draw);
            }
            Payload::Assignments(message) => {
                let is_current = agent.is_connected() && self.epoch == epoch;
                let had = agent.assigned_tasks().map(|task| task.id.clone()).collect();
                agent.handle_assignments_message(now, epoch, message.clone(), draw);
                // A message that does not fit ends the session.
                if is_current && agent.is_connected() {
                    told = self.told.take(&message, had);
                }
            }
            Payload::Subscription(message) => {
                agent.handle_subscription_message(now, epoch, *message);
            }
            Payload::Published { id, stream, result } => {
                if let Some(mut agent) = self.agent.take() {
                    self.published(now, &mut agent, (&id, stream), result);
                    self.agent = Some(agent);
                }
            }
            Payload::Reply(reply) => agent.handle_rpc_result(now, epoch, reply, draw),
            Payload::Taken(_) | Payload::Certificate(_) => {}
        }
        told?;
        self.turn(io, dice)
    }

    /// A task writes a line for a log subscription.
    pub(crate) fn writes(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        line: (String, TaskId),
    ) -> Checked {
        if let Some(mut agent) = self.agent.take() {
            self.line(io, dice, &mut agent, line);
            self.agent = Some(agent);
        }
        self.turn(io, dice)
    }

    /// After a message: the tasks of the node have what they refer to.
    pub(crate) fn check_told(&mut self, acked: &swarm_store::Root) -> Checked {
        match &self.agent {
            Some(agent) if !self.is_leaving => self.told.check(agent, &self.id, acked),
            Some(_) | None => Ok(()),
        }
    }

    /// Somebody kills the process of a task. The wait under way hears of it.
    pub(crate) fn kill(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, task: &TaskId) {
        self.machine.kill(task, io.agenda.now().as_timestamp());
        let waits = self.running.get(task);
        if waits.is_some_and(|own| own.operation == Operation::Wait) {
            self.execute(io, dice, task);
        }
    }

    /// The replicas that have processes here.
    pub(crate) fn processes(&self, at: Instant) -> Vec<(TaskId, Option<Arc<Task>>)> {
        let running = self.machine.running(at.as_timestamp()).into_iter();
        running
            .map(|id| {
                let task = self.tasks.get(&id).cloned();
                (id, task)
            })
            .collect()
    }
}

/// Whether the task belongs to a replica with a number; those of global services have their node.
pub(crate) fn replica_of(task: &Task) -> Option<String> {
    let service = task.service_id.as_ref()?;
    Some(match (task.slot, &task.node_id) {
        (Slot(0), Some(node)) => format!("{service} on {node}"),
        (slot, _) => format!("{service}.{slot}"),
    })
}

fn outcome(report: &Report) -> String {
    match &report.result {
        Ok(()) => "ok".to_owned(),
        Err(error) => error.to_string(),
    }
}
