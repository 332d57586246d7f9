//! The world around one agent.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use swarm_agent::{
    Agent, AgentRpc, Call, Epoch, NodeAction, OpId, PersistBatch, PersistOp, PersistedTask, Reply,
    RpcError,
};
use swarm_api::v1;
use swarm_executor::Report;
use swarm_executor::fake::FakeNode;
use swarm_types::{Task, TaskId, TaskState, TaskStatus, Timestamp, convert};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;
use v1::task_spec::Runtime;

/// Longer than any duration in the scripts below, together with all deadlines and retries.
const SETTLE_TIME: Duration = Duration::from_secs(600);

/// Something on its way to the agent.
enum Arrival {
    Session(Epoch, Box<v1::SessionMessage>),
    Assignments(Epoch, v1::AssignmentsMessage),
    Reply(Epoch, Reply),
}

struct Operation {
    op: OpId,
    ends: Option<(Timestamp, Report)>,
}

/// What the manager knows.
#[derive(Default)]
struct Manager {
    wanted: BTreeMap<TaskId, Task>,
    reported: BTreeMap<TaskId, TaskStatus>,
    /// The open assignments stream and the number of its last message.
    stream: Option<(Epoch, u64)>,
    sessions: u64,
    tasks: u64,
}

pub(crate) struct World {
    seed: u64,
    now: Timestamp,
    is_faulty: bool,
    agent: Agent,
    disk: BTreeMap<TaskId, PersistedTask>,
    writing: Option<PersistBatch>,
    machine: FakeNode,
    operations: BTreeMap<TaskId, Operation>,
    arrivals: VecDeque<Arrival>,
    manager: Manager,
    /// The attempt at a session that was seen last.
    epoch: Epoch,
    /// The process id of each task that was ever seen running.
    pids: BTreeMap<TaskId, i32>,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let now = Timestamp::from_millis(1_000_000);
        Self {
            seed,
            now,
            is_faulty: true,
            agent: Agent::new(now, Vec::new()),
            disk: BTreeMap::new(),
            writing: None,
            machine: FakeNode::default(),
            operations: BTreeMap::new(),
            arrivals: VecDeque::new(),
            manager: Manager::default(),
            epoch: Epoch(0),
            pids: BTreeMap::new(),
        }
    }

    /// One thing happens.
    pub(crate) fn step(&mut self) {
        match self.draw(100) {
            0..=4 => self.change_wanted(),
            5 => self.crash(),
            6..=19 => self.finish_write(),
            20..=34 => self.begin_write(),
            35..=49 => drop(self.begin_operation()),
            50..=59 => self.end_operations(),
            60..=74 => drop(self.call()),
            75..=89 => drop(self.arrive()),
            90..=93 => drop(self.node_action()),
            _ => self.pass_time(),
        }
    }

    /// No more faults: everything runs until nothing is left to do.
    pub(crate) fn settle(&mut self) {
        self.is_faulty = false;
        // What was lost on the way comes again with a new agent, or at least a new session.
        if self.happens(50) {
            self.crash();
        } else {
            self.break_session();
        }
        let end = self.now.saturating_add(SETTLE_TIME);
        while self.now < end {
            self.turn();
            self.check_step();
            let next = self.next_event().unwrap_or(end).max(self.now);
            self.now = next.saturating_add(Duration::from_millis(1));
            let mut draw = splitmix(&mut self.seed);
            self.agent.handle_timeout(self.now, &mut draw);
        }
    }

    /// Holds after every step.
    pub(crate) fn check_step(&mut self) {
        for id in self.machine.running(self.now) {
            let task = self.machine.task(&id).expect("it runs");
            let pid = task.container_status(self.now).expect("it runs").pid;
            let first = *self.pids.entry(id.clone()).or_insert(pid);
            assert_eq!(first, pid, "task {id} ran twice");
        }
        // Nobody stops a task that is wanted, whatever crashed.
        for (id, task) in &self.manager.wanted {
            let is_eternal = task.spec.runtime.is_none();
            if is_eternal && self.pids.contains_key(id) && task.is_live() {
                let runs = self.machine.running(self.now).contains(id);
                assert!(runs, "task {id} was stopped");
            }
        }
    }

    /// Holds when nothing is left to do.
    pub(crate) fn check_settled(&mut self) {
        let wanted: BTreeSet<_> = self.manager.wanted.keys().cloned().collect();
        let stored: BTreeSet<_> = self.disk.keys().cloned().collect();
        assert_eq!(stored, wanted, "on disk");
        assert_eq!(self.agent.known_tasks(), wanted, "in the agent");
        let running = self.machine.running(self.now);
        for (id, task) in &self.manager.wanted {
            let state = self.agent.task(id).expect("checked above").state();
            let reported = self.manager.reported.get(id);
            assert_eq!(Some(state), reported.map(|status| status.state), "{id}");
            assert_eq!(self.disk[id].status.state, state, "{id}");
            let is_eternal = task.spec.runtime.is_none();
            let expected = match (task.is_live(), is_eternal) {
                (true, true) => [TaskState::Running].as_slice(),
                (true, false) => &[TaskState::Complete],
                // It may have come to its end by itself before it was told to stop.
                (false, _) => &[TaskState::Shutdown, TaskState::Complete],
            };
            assert!(expected.contains(&state), "{id} is {state}");
            assert_eq!(running.contains(id), state == TaskState::Running, "{id}");
        }
        let strays: Vec<_> = running.difference(&wanted).collect();
        assert!(strays.is_empty(), "{strays:?} still run");
    }

    fn draw(&mut self, below: u64) -> u64 {
        splitmix(&mut self.seed)() % below
    }

    fn happens(&mut self, percent: u64) -> bool {
        self.draw(100) < percent
    }

    fn change_wanted(&mut self) {
        let ids: Vec<_> = self.manager.wanted.keys().cloned().collect();
        let choice = self.draw(4);
        if ids.is_empty() || choice <= 1 {
            self.add_task();
            return;
        }
        let index = self.draw(ids.len() as u64);
        let id = ids[usize::try_from(index).unwrap()].clone();
        if choice == 2 {
            let task = self.manager.wanted.get_mut(&id).unwrap();
            task.set_desired(TaskState::Shutdown).unwrap();
            let change = put(task);
            self.send_change(change);
        } else {
            self.manager.wanted.remove(&id);
            self.manager.reported.remove(&id);
            let task = v1::Task {
                id: id.to_string(),
                ..Default::default()
            };
            self.send_change(change(Item::Task(task), AssignmentAction::Remove));
        }
    }

    fn add_task(&mut self) {
        const TASKS_MAX: usize = 12;
        if self.manager.wanted.len() >= TASKS_MAX {
            return;
        }
        self.manager.tasks += 1;
        let id: TaskId = format!("t{}", self.manager.tasks).parse().unwrap();
        let spec = if self.happens(30) {
            short_spec()
        } else {
            v1::TaskSpec::default()
        };
        let status = TaskStatus::new(TaskState::Assigned, self.now, "");
        let task = Task::new(id.clone(), Arc::new(spec)).with_states(status, TaskState::Running);
        let change = put(&task);
        self.manager.wanted.insert(id, task);
        self.send_change(change);
    }

    fn send_change(&mut self, change: v1::AssignmentChange) {
        let Some((epoch, last)) = &mut self.manager.stream else {
            return;
        };
        *last += 1;
        let message = v1::AssignmentsMessage {
            r#type: Type::Incremental as i32,
            applies_to: (*last - 1).to_string(),
            results_in: last.to_string(),
            changes: vec![change],
        };
        let epoch = *epoch;
        self.send(|| Arrival::Assignments(epoch, message.clone()));
    }

    /// Puts something on its way; it may be lost or come twice.
    fn send(&mut self, make: impl Fn() -> Arrival) {
        if self.is_faulty && self.happens(5) {
            return;
        }
        self.arrivals.push_back(make());
        if self.is_faulty && self.happens(5) {
            self.arrivals.push_back(make());
        }
    }

    fn crash(&mut self) {
        if let Some(batch) = self.writing.take()
            && self.happens(50)
        {
            write(&mut self.disk, batch.ops);
        }
        self.operations.clear();
        self.arrivals.clear();
        self.manager.stream = None;
        self.agent = Agent::new(self.now, self.disk.values().cloned().collect());
        let known = self.agent.known_tasks();
        let recovery = self.machine.recover(&known, self.now);
        assert!(recovery.removed.is_empty(), "forgotten: {recovery:?}");
    }

    fn break_session(&mut self) {
        self.arrivals.clear();
        self.manager.stream = None;
        let reply = Reply::SessionEnded(RpcError::new(14, "connection lost"));
        self.arrivals.push_back(Arrival::Reply(self.epoch, reply));
    }

    fn begin_write(&mut self) {
        if self.writing.is_none() {
            self.writing = self.agent.poll_persist();
        }
    }

    fn finish_write(&mut self) {
        if let Some(batch) = self.writing.take() {
            write(&mut self.disk, batch.ops);
            self.agent.handle_persisted(self.now, batch.sequence);
        }
    }

    fn begin_operation(&mut self) -> bool {
        let Some(operation) = self.agent.poll_operation(self.now) else {
            return false;
        };
        let mut draw = splitmix(&mut self.seed);
        let begun = self
            .machine
            .begin(&operation.task, operation.operation, self.now, &mut draw);
        let ends = begun.completes_at.map(|at| (at, begun.outcome));
        let op = operation.op;
        self.operations
            .insert(operation.task_id, Operation { op, ends });
        true
    }

    fn end_operations(&mut self) {
        let now = self.now;
        let is_due = |operation: &Operation| {
            let ends = operation.ends.as_ref();
            ends.is_some_and(|(at, _)| *at <= now)
        };
        let due = self.operations.iter().filter(|(_, own)| is_due(own));
        let due: Vec<_> = due.map(|(id, _)| id.clone()).collect();
        for id in due {
            let Some(Operation { op, ends }) = self.operations.remove(&id) else {
                continue;
            };
            let (_, report) = ends.expect("it is due");
            self.agent
                .handle_operation_result(self.now, &id, op, &report);
            if self.is_faulty && self.happens(10) {
                self.agent
                    .handle_operation_result(self.now, &id, op, &report);
            }
        }
    }

    fn call(&mut self) -> bool {
        let Some(AgentRpc { epoch, call }) = self.agent.poll_rpc(self.now) else {
            return false;
        };
        self.epoch = epoch;
        if self.is_faulty && self.happens(5) {
            return true;
        }
        match call {
            Call::OpenSession {
                previous_session, ..
            } => self.open_session(epoch, previous_session),
            Call::OpenAssignments { .. } => self.open_assignments(epoch),
            // Nobody subscribes to logs here; the stream stays open and silent.
            Call::ListenSubscriptions => {}
            Call::Heartbeat { .. } => {
                let reply = Reply::Heartbeat(Ok(Duration::from_secs(5)));
                self.send(|| Arrival::Reply(epoch, reply.clone()));
            }
            Call::UpdateTaskStatus {
                report, updates, ..
            } => self.take_report(epoch, report, updates),
            Call::Close { .. } => self.manager.stream = None,
        }
        true
    }

    fn open_session(&mut self, epoch: Epoch, previous: String) {
        if self.is_faulty && self.happens(10) {
            let reply = Reply::SessionEnded(RpcError::new(14, "unreachable"));
            self.send(|| Arrival::Reply(epoch, reply.clone()));
            return;
        }
        let session_id = if previous.is_empty() || self.happens(20) {
            self.manager.sessions += 1;
            format!("s{}", self.manager.sessions)
        } else {
            previous
        };
        let message = Box::new(v1::SessionMessage {
            session_id,
            ..Default::default()
        });
        self.send(|| Arrival::Session(epoch, message.clone()));
    }

    fn open_assignments(&mut self, epoch: Epoch) {
        self.manager.stream = Some((epoch, 1));
        let message = v1::AssignmentsMessage {
            r#type: Type::Complete as i32,
            applies_to: String::new(),
            results_in: "1".into(),
            changes: self.manager.wanted.values().map(put).collect(),
        };
        self.send(|| Arrival::Assignments(epoch, message.clone()));
    }

    fn take_report(
        &mut self,
        epoch: Epoch,
        report: u64,
        updates: Vec<v1::update_task_status_request::TaskStatusUpdate>,
    ) {
        for update in updates {
            let id: TaskId = update.task_id.parse().unwrap();
            let status = update.status.unwrap();
            let status = convert::task_status_from_wire(id.as_id(), status).unwrap();
            if !self.manager.wanted.contains_key(&id) {
                continue;
            }
            // I-TASK-1, for the reports on one connection: what is on disk never goes back.
            if let Some(known) = self.manager.reported.get(&id) {
                assert!(known.state <= status.state, "{id} went back");
            }
            self.manager.reported.insert(id, status);
        }
        let reply = Reply::StatusesTaken(report, Ok(()));
        self.send(|| Arrival::Reply(epoch, reply.clone()));
    }

    fn arrive(&mut self) -> bool {
        let Some(arrival) = self.arrivals.pop_front() else {
            return false;
        };
        if self.is_faulty && self.happens(5) {
            self.arrivals.push_back(arrival);
            return true;
        }
        let mut draw = splitmix(&mut self.seed);
        let (agent, now) = (&mut self.agent, self.now);
        match arrival {
            Arrival::Session(epoch, message) => {
                agent.handle_session_message(now, epoch, *message, &mut draw);
            }
            Arrival::Assignments(epoch, message) => {
                agent.handle_assignments_message(now, epoch, message, &mut draw);
            }
            Arrival::Reply(epoch, reply) => {
                agent.handle_rpc_result(now, epoch, reply, &mut draw);
            }
        }
        true
    }

    fn node_action(&mut self) -> bool {
        let Some(action) = self.agent.poll_node_action() else {
            return false;
        };
        if action == NodeAction::Describe {
            let description = Ok(v1::NodeDescription::default());
            let mut draw = splitmix(&mut self.seed);
            self.agent
                .handle_description(self.now, description, &mut draw);
        }
        true
    }

    fn pass_time(&mut self) {
        let millis = if self.happens(20) {
            1 + self.draw(6_000)
        } else {
            1 + self.draw(200)
        };
        self.now = self.now.saturating_add(Duration::from_millis(millis));
        let mut draw = splitmix(&mut self.seed);
        self.agent.handle_timeout(self.now, &mut draw);
    }

    /// Everything that can happen now without time passing.
    fn turn(&mut self) {
        // A bound on loops that would be a defect of the agent.
        for _ in 0..10_000 {
            self.begin_write();
            self.finish_write();
            self.end_operations();
            let is_busy = self.begin_operation() | self.call() | self.arrive() | self.node_action();
            if !is_busy && self.writing.is_none() {
                return;
            }
        }
        panic!("the agent does not come to rest");
    }

    fn next_event(&self) -> Option<Timestamp> {
        let ends = self.operations.values().filter_map(|own| own.ends.as_ref());
        let ends = ends.map(|(at, _)| *at);
        ends.chain(self.agent.poll_timeout()).min()
    }
}

fn splitmix(seed: &mut u64) -> impl FnMut() -> u64 {
    move || {
        *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *seed;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// A task that ends by itself with success.
fn short_spec() -> v1::TaskSpec {
    let container = v1::ContainerSpec {
        args: vec!["fake.run=2s".into(), "fake.temporary=prepare:1".into()],
        ..Default::default()
    };
    v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        ..Default::default()
    }
}

fn put(task: &Task) -> v1::AssignmentChange {
    let item = Item::Task(convert::task_to_wire(task));
    change(item, AssignmentAction::Update)
}

fn change(item: Item, action: AssignmentAction) -> v1::AssignmentChange {
    v1::AssignmentChange {
        assignment: Some(v1::Assignment { item: Some(item) }),
        action: action as i32,
    }
}

fn write(disk: &mut BTreeMap<TaskId, PersistedTask>, ops: Vec<PersistOp>) {
    for op in ops {
        match op {
            PersistOp::PutTask(task) => {
                let status = disk.get(&task.id).map(|known| known.status.clone());
                let persisted = PersistedTask {
                    task: Task::clone(&task),
                    status: status.unwrap_or_default(),
                    is_assigned: true,
                };
                disk.insert(task.id.clone(), persisted);
            }
            PersistOp::PutStatus(id, status) => {
                disk.get_mut(&id).expect("the task comes first").status = status;
            }
            PersistOp::Unassign(id) => {
                disk.get_mut(&id).expect("it was assigned").is_assigned = false;
            }
            PersistOp::Delete(id) => {
                disk.remove(&id).expect("it was stored");
            }
        }
    }
}
