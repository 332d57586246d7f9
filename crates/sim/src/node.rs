//! A node: an agent with its database, on a machine whose processes outlive it. Mirrors
//! `swarm-agent-io`.

mod joining;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use swarm_agent::{
    Agent, AgentRpc, Call, NodeAction, OpId, PersistBatch, PersistOp, PersistedTask, TaskOperation,
};
use swarm_api::v1;
use swarm_executor::fake::FakeNode;
use swarm_executor::{Operation, Report};
use swarm_types::{NodeId, Slot, Task, TaskId, TaskState, networks, resources};

use crate::event::{Caller, ConnId, Event, Life, NodeEvent, NodeIx, Payload, Request};
use crate::identity::{Certificate, Identity};
use crate::invariants::{Checked, KEEPS_TASKS, PERSIST_FIRST, STARTS_ONCE, Violation, ensure};
use crate::manager::Io;
use crate::random::Random;
use crate::settings::Faults;
use crate::time::{Clock, Instant};
use crate::trace::Weight;

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
    /// The write under way.
    writing: Option<PersistBatch>,
    conn: Option<ConnId>,
    wake: Option<Instant>,
    running: BTreeMap<TaskId, Running>,
    /// Tasks that were started since the machine is up, for I-AGENT-6.
    started: BTreeSet<TaskId>,
    /// What the machine's tasks belong to.
    pub(crate) tasks: BTreeMap<TaskId, Arc<Task>>,
    pub(crate) identity: Identity,
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
            writing: None,
            conn: None,
            wake: None,
            running: BTreeMap::new(),
            started: BTreeSet::new(),
            tasks: BTreeMap::new(),
            identity: Identity::default(),
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
        self.conn = None;
        self.wake = None;
        self.running.clear();
        if with_machine {
            self.machine = FakeNode::default();
            self.started.clear();
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
            let begun = self.begin(io, dice, operation);
            if result.is_ok() {
                result = begun;
            }
        }
        while let Some(rpc) = agent.poll_rpc(now) {
            self.call(io, rpc);
        }
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
        result
    }

    fn begin(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, wanted: TaskOperation) -> Checked {
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
        self.execute(io, dice, &task_id);
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

    fn call(&mut self, io: &mut Io<'_>, rpc: AgentRpc) {
        let request = match rpc.call {
            Call::Close { .. } => {
                if let Some(conn) = self.conn.take() {
                    io.network.close(io.agenda, conn);
                }
                return;
            }
            Call::OpenSession {
                description,
                previous_session,
            } => {
                let caller = Caller {
                    node: self.ix,
                    life: self.life,
                    epoch: rpc.epoch,
                };
                let certificate = self.identity.certificate.clone();
                self.conn = Some(io.network.open(caller, certificate));
                Request::Session {
                    description,
                    previous: previous_session,
                }
            }
            // Nobody subscribes to logs in this world; the stream stays open and silent.
            Call::ListenSubscriptions => return,
            Call::OpenAssignments { session } => Request::Assignments { session },
            Call::Heartbeat { session } => Request::Heartbeat { session },
            Call::UpdateTaskStatus {
                session,
                report,
                updates,
            } => Request::Statuses {
                session,
                report,
                updates,
            },
        };
        if let Some(conn) = self.conn {
            io.trace.add(
                io.agenda.now(),
                Weight::Minor,
                self.ix,
                format_args!("calls {}", request.name()),
            );
            io.network.send_request(io.agenda, conn, request);
        }
    }

    fn act(&mut self, io: &mut Io<'_>, dice: &mut Dice<'_>, action: NodeAction) {
        match action {
            NodeAction::Describe => {
                let after = dice
                    .draws
                    .span(Duration::from_micros(100), Duration::from_millis(20));
                io.agenda
                    .after(after, Event::Node(self.ix, self.life, NodeEvent::Described));
            }
            NodeAction::Warn(text) => io.trace.add(
                io.agenda.now(),
                Weight::Major,
                self.ix,
                format_args!("warns: {text}"),
            ),
            NodeAction::Configure(_)
            | NodeAction::Managers(_)
            | NodeAction::RootCa(_)
            | NodeAction::NetworkKeys(_) => {}
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
            Ok(describe(self.ix, self.size, &self.identity))
        };
        if let Some(agent) = &mut self.agent {
            agent.handle_description(now, description, &mut || dice.draws.next());
        }
        self.turn(io, dice)
    }

    /// A batch of the database is durable.
    pub(crate) fn persisted(
        &mut self,
        io: &mut Io<'_>,
        dice: &mut Dice<'_>,
        sequence: u64,
    ) -> Checked {
        if let Some(batch) = self.writing.take() {
            write(&mut self.disk, batch.ops);
        }
        let now = self.clock.read(io.agenda.now());
        if let Some(agent) = &mut self.agent {
            agent.handle_persisted(now, sequence);
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
        if operation == Operation::Start && report.result.is_ok() {
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
        match payload {
            Payload::Session(message) => {
                agent.handle_session_message(now, epoch, *message, draw);
            }
            Payload::Assignments(message) => {
                agent.handle_assignments_message(now, epoch, message, draw);
            }
            Payload::Reply(reply) => agent.handle_rpc_result(now, epoch, reply, draw),
            Payload::Taken(_) | Payload::Certificate(_) => {}
        }
        self.turn(io, dice)
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

fn describe(ix: NodeIx, size: u64, identity: &Identity) -> v1::NodeDescription {
    let size = i64::try_from(size).unwrap_or(0);
    let mut generic = vec![resources::discrete("disk", 2 + size)];
    generic.extend((0..=size).map(|unit| resources::named("gpu", format!("gpu{unit}"))));
    v1::NodeDescription {
        hostname: ix.to_string(),
        platform: Some(v1::Platform {
            architecture: "x86_64".to_owned(),
            os: "linux".to_owned(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: (2 + size) * 1_000_000_000,
            memory_bytes: (2 + size) << 30,
            generic,
        }),
        engine: Some(v1::EngineDescription {
            plugins: vec![v1::PluginDescription {
                r#type: networks::NETWORK_PLUGIN.to_owned(),
                name: networks::OVERLAY_DRIVER.to_owned(),
            }],
            ..Default::default()
        }),
        tls_info: identity.certificate.as_ref().map(Certificate::tls_info),
        ..Default::default()
    }
}

/// One transaction of the task database.
fn write(disk: &mut BTreeMap<TaskId, PersistedTask>, ops: Vec<PersistOp>) {
    for op in ops {
        match op {
            PersistOp::PutTask(task) => {
                let status = task.status().clone();
                let entry = disk
                    .entry(task.id.clone())
                    .or_insert_with(|| PersistedTask {
                        task: Task::clone(&task),
                        status,
                        is_assigned: true,
                    });
                entry.task = Task::clone(&task);
                entry.is_assigned = true;
            }
            PersistOp::PutStatus(id, status) => {
                if let Some(entry) = disk.get_mut(&id) {
                    entry.status = status;
                }
            }
            PersistOp::Unassign(id) => {
                if let Some(entry) = disk.get_mut(&id) {
                    entry.is_assigned = false;
                }
            }
            PersistOp::Delete(id) => drop(disk.remove(&id)),
        }
    }
}
