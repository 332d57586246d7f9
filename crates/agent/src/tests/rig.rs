//! An agent with a disk and a manager that does what the test says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_executor::{ExecError, Operation, Report};
use swarm_types::{Task, TaskId, TaskState, TaskStatus, Timestamp, convert};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;

use crate::{Agent, Call, Epoch, NodeAction, PersistOp, PersistedTask, Reply, TaskOperation};

pub(super) struct Rig {
    pub(super) agent: Agent,
    pub(super) now: Timestamp,
    pub(super) disk: BTreeMap<TaskId, PersistedTask>,
    pub(super) epoch: Epoch,
}

pub(super) fn id(text: &str) -> TaskId {
    text.parse().unwrap()
}

pub(super) fn task(text: &str, desired: TaskState) -> Task {
    let status = TaskStatus::new(TaskState::Assigned, Timestamp::EPOCH, "");
    Task::new(id(text), Arc::default()).with_states(status, desired)
}

pub(super) fn change(item: Item, action: AssignmentAction) -> v1::AssignmentChange {
    v1::AssignmentChange {
        assignment: Some(v1::Assignment { item: Some(item) }),
        action: action as i32,
    }
}

pub(super) fn put(task: &Task) -> v1::AssignmentChange {
    change(
        Item::Task(convert::task_to_wire(task)),
        AssignmentAction::Update,
    )
}

pub(super) fn remove(text: &str) -> v1::AssignmentChange {
    let task = v1::Task {
        id: text.into(),
        ..Default::default()
    };
    change(Item::Task(task), AssignmentAction::Remove)
}

pub(super) fn ok() -> Report {
    Report::new(Ok(()))
}

pub(super) fn failed(error: ExecError) -> Report {
    Report::new(Err(error))
}

impl Rig {
    pub(super) fn new() -> Self {
        Self::recovered(Vec::new())
    }

    pub(super) fn recovered(tasks: Vec<PersistedTask>) -> Self {
        let now = Timestamp::from_millis(1_000);
        Self {
            agent: Agent::new(now, tasks),
            now,
            disk: BTreeMap::new(),
            epoch: Epoch(0),
        }
    }

    /// A rig with session `s1` and an open assignments stream without messages.
    pub(super) fn connected() -> Self {
        let mut rig = Self::new();
        rig.describe("host");
        rig.connect("s1");
        rig
    }

    pub(super) fn describe(&mut self, hostname: &str) {
        let description = v1::NodeDescription {
            hostname: hostname.into(),
            ..Default::default()
        };
        self.agent
            .handle_description(self.now, Ok(description), &mut || 0);
    }

    /// Takes the call that opens a session and answers with this one.
    pub(super) fn connect(&mut self, session: &str) {
        let calls = self.calls();
        assert!(
            calls
                .iter()
                .any(|call| matches!(call, Call::OpenSession { .. })),
            "{calls:?}"
        );
        self.hear(session);
        let calls = self.calls();
        assert!(matches!(calls[0], Call::Heartbeat { .. }), "{calls:?}");
        assert!(
            matches!(calls[1], Call::OpenAssignments { .. }),
            "{calls:?}"
        );
        self.reply(Reply::Heartbeat(Ok(Duration::from_secs(1000))));
    }

    pub(super) fn hear(&mut self, session: &str) {
        let message = v1::SessionMessage {
            session_id: session.into(),
            ..Default::default()
        };
        self.agent
            .handle_session_message(self.now, self.epoch, message, &mut || 0);
    }

    pub(super) fn reply(&mut self, reply: Reply) {
        self.agent
            .handle_rpc_result(self.now, self.epoch, reply, &mut || 0);
    }

    pub(super) fn assign(
        &mut self,
        kind: Type,
        applies_to: &str,
        results_in: &str,
        changes: Vec<v1::AssignmentChange>,
    ) {
        let message = v1::AssignmentsMessage {
            r#type: kind as i32,
            applies_to: applies_to.into(),
            results_in: results_in.into(),
            changes,
        };
        self.agent
            .handle_assignments_message(self.now, self.epoch, message, &mut || 0);
    }

    pub(super) fn calls(&mut self) -> Vec<Call> {
        let mut calls = Vec::new();
        while let Some(rpc) = self.agent.poll_rpc(self.now) {
            self.epoch = rpc.epoch;
            calls.push(rpc.call);
        }
        calls
    }

    pub(super) fn wait(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
        self.agent.handle_timeout(self.now, &mut || 0);
    }

    /// Writes everything; returns how many operations that took.
    pub(super) fn sync(&mut self) -> usize {
        let mut count = 0;
        while let Some(batch) = self.agent.poll_persist() {
            count += batch.ops.len();
            write(&mut self.disk, batch.ops);
            self.agent.handle_persisted(self.now, batch.sequence);
        }
        count
    }

    /// Writes everything and takes the only operation that may begin then.
    pub(super) fn operation(&mut self) -> TaskOperation {
        self.sync();
        let operation = self.agent.poll_operation(self.now).expect("an operation");
        assert_eq!(self.agent.poll_operation(self.now), None);
        operation
    }

    pub(super) fn no_operation(&mut self) {
        self.sync();
        assert_eq!(self.agent.poll_operation(self.now), None);
    }

    pub(super) fn finish(&mut self, operation: &TaskOperation, report: &Report) {
        let (task, op) = (&operation.task_id, operation.op);
        self.agent
            .handle_operation_result(self.now, task, op, report);
    }

    /// Expects one operation and ends it with success.
    pub(super) fn pass(&mut self, expected: Operation) {
        let operation = self.operation();
        assert_eq!(operation.operation, expected);
        self.finish(&operation, &ok());
    }

    pub(super) fn status(&self, text: &str) -> TaskStatus {
        self.agent.task(&id(text)).expect("known").status().clone()
    }

    pub(super) fn state(&self, text: &str) -> TaskState {
        self.status(text).state
    }

    /// The states in the reports that go out now, and how the call is to be answered.
    pub(super) fn reported(&mut self) -> Vec<(u64, Vec<(String, TaskState)>)> {
        self.sync();
        let calls = self.calls().into_iter();
        calls
            .filter_map(|call| match call {
                Call::UpdateTaskStatus {
                    report, updates, ..
                } => Some((report, updates)),
                Call::OpenSession { .. }
                | Call::OpenAssignments { .. }
                | Call::ListenSubscriptions
                | Call::Heartbeat { .. }
                | Call::Close { .. } => None,
            })
            .map(|(report, updates)| {
                let states = updates.into_iter().map(|update| {
                    let state = update.status.unwrap().state;
                    (update.task_id, TaskState::from_wire(state).unwrap())
                });
                (report, states.collect())
            })
            .collect()
    }

    pub(super) fn warnings(&mut self) -> Vec<String> {
        let mut warnings = Vec::new();
        while let Some(action) = self.agent.poll_node_action() {
            if let NodeAction::Warn(text) = action {
                warnings.push(text);
            }
        }
        warnings
    }
}

pub(super) fn write(disk: &mut BTreeMap<TaskId, PersistedTask>, ops: Vec<PersistOp>) {
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
