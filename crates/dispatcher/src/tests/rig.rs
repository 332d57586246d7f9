//! A dispatcher with a store whose commits it sees.

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_reconcile::{Batch, Outcome};
use swarm_store::{Root, Transaction, WriteSet};
use swarm_types::{
    Cluster, Id, IdSource, Node, NodeId, NodeState, Task, TaskId, TaskState, TaskStatus, Timestamp,
    defaults, time,
};

use crate::{
    Body, Config, DispatchError, Dispatcher, Message, STANDSTILL_MIN, SessionExtras, SessionOpen,
    SessionStart,
};

pub(super) const MS: Duration = Duration::from_millis(1);
/// The middle of the range from which periods are drawn: exactly the configured period.
pub(super) const MIDDLE: u64 = 500_000_000;

pub(super) struct Rig {
    pub(super) dispatcher: Dispatcher,
    pub(super) view: Arc<Root>,
    pub(super) now: Timestamp,
    pub(super) ids: Ids,
}

pub(super) struct Ids(u32);

impl IdSource for Ids {
    fn next_id(&mut self) -> Id {
        self.0 += 1;
        let mut bytes = [0; 17];
        bytes[..4].copy_from_slice(&self.0.to_be_bytes());
        Id::from_random(bytes)
    }
}

pub(super) fn node_id(text: &str) -> NodeId {
    text.parse().unwrap()
}

pub(super) fn task_id(text: &str) -> TaskId {
    text.parse().unwrap()
}

pub(super) fn node(text: &str, state: NodeState) -> Node {
    let mut node = Node::new(node_id(text), v1::NodeSpec::default());
    node.status.state = state;
    node
}

pub(super) fn task(text: &str, node: &str, state: TaskState) -> Task {
    let status = TaskStatus::new(state, Timestamp::EPOCH, "");
    let mut task = Task::new(task_id(text), Arc::default()).with_states(status, TaskState::Running);
    task.node_id = Some(node_id(node));
    task
}

pub(super) fn config() -> Config {
    Config {
        leader: Some(node_id("leader")),
    }
}

impl Rig {
    /// A term that starts with these nodes, after their statuses were written, and serves.
    pub(super) fn new(nodes: Vec<Node>) -> Self {
        let mut rig = Self::unstarted(nodes);
        rig.dispatcher.handle_serving(rig.now, &mut || MIDDLE);
        rig.flush();
        rig
    }

    pub(super) fn unstarted(nodes: Vec<Node>) -> Self {
        let now = Timestamp::from_millis(1_000_000_000);
        let mut transaction = Root::default().begin(now);
        for node in nodes {
            transaction.create(node).unwrap();
        }
        let view = Arc::new(transaction.finish().0);
        let extras = SessionExtras::default();
        Self {
            dispatcher: Dispatcher::new(now, &view, config(), extras),
            view,
            now,
            ids: Ids(0),
        }
    }

    /// A node in session, with its first message taken. Returns the start of the session.
    pub(super) fn registered(&mut self, name: &str) -> SessionStart {
        let start = self.open(name, "").unwrap();
        self.flush();
        let messages = self.messages();
        assert!(
            matches!(messages[..], [(_, Body::Session(_))]),
            "{messages:?}"
        );
        start
    }

    pub(super) fn open(
        &mut self,
        name: &str,
        previous_session: &str,
    ) -> Result<SessionStart, DispatchError> {
        let open = SessionOpen {
            node: &node_id(name),
            description: Some(v1::NodeDescription {
                hostname: name.into(),
                ..Default::default()
            }),
            addr: "10.0.0.1",
            arrived: "",
            previous_session,
        };
        self.dispatcher
            .handle_session(self.now, open, &self.view, &mut self.ids, &mut || MIDDLE)
    }

    pub(super) fn heartbeat(
        &mut self,
        name: &str,
        session: &str,
    ) -> Result<Duration, DispatchError> {
        self.dispatcher
            .pulses()
            .beat(self.now, &node_id(name), session, &mut || MIDDLE)
    }

    /// Commits and shows the commit to the dispatcher.
    pub(super) fn commit(&mut self, write: impl FnOnce(&mut Transaction)) {
        let mut transaction = self.view.begin(self.now);
        write(&mut transaction);
        self.publish(transaction);
    }

    /// Commits the first cluster, which asks for this heartbeat period.
    pub(super) fn set_period(&mut self, period: Duration) {
        let mut spec = defaults::cluster_spec();
        spec.dispatcher = Some(v1::DispatcherConfig {
            heartbeat_period: Some(time::duration_to_wire(period)),
        });
        let cluster = Cluster::new("c".parse().unwrap(), spec);
        self.commit(|tx| tx.create(cluster).unwrap());
    }

    pub(super) fn update_task(&mut self, name: &str, change: impl FnOnce(&mut Task)) {
        let mut task = Task::clone(self.view.task(&task_id(name)).unwrap());
        change(&mut task);
        self.commit(|tx| tx.update(task).unwrap());
    }

    /// Lets time pass as a shell does, which calls whenever the dispatcher asks for it.
    pub(super) fn wait(&mut self, duration: Duration) {
        let until = self.now.saturating_add(duration);
        while let Some(wake) = self.dispatcher.poll_timeout()
            && wake.at < until
        {
            // What is overdue waits for a transaction, which nobody takes here.
            let soon = self.now.saturating_add(STANDSTILL_MIN / 2);
            let at = if wake.at > self.now { wake.at } else { soon };
            self.now = at.min(until);
            self.dispatcher.handle_timeout(self.now);
            if self.now == until {
                return;
            }
        }
        self.now = until;
        self.dispatcher.handle_timeout(self.now);
    }

    /// Lets time pass in which nothing happens at all.
    pub(super) fn stand_still(&mut self, duration: Duration) {
        self.now = self.now.saturating_add(duration);
        self.dispatcher.handle_timeout(self.now);
    }

    pub(super) fn transaction(&mut self) -> Option<Batch> {
        self.dispatcher.poll_transaction(&self.view, self.now)
    }

    /// Waits for the batch delay and commits everything. Returns the number of objects written.
    pub(super) fn flush(&mut self) -> usize {
        self.wait(crate::UPDATE_BATCH_DELAY);
        let mut written = 0;
        while let Some(batch) = self.transaction() {
            written += self.apply(&batch.sets, &[]);
        }
        written
    }

    /// Commits a batch but for the sets at these positions. Returns the number of objects written.
    pub(super) fn apply(&mut self, sets: &[WriteSet], lost: &[usize]) -> usize {
        let mut transaction = self.view.begin(self.now);
        let mut refused = Vec::new();
        for (position, set) in sets.iter().enumerate() {
            if lost.contains(&position) || transaction.apply_set(set).is_err() {
                refused.push(position);
            }
        }
        let written = transaction.len();
        let version = transaction.commit_version();
        self.publish(transaction);
        let outcome = Outcome::Committed { version, refused };
        self.dispatcher.handle_outcome(self.now, &outcome);
        written
    }

    /// Every message that can be had now, handed over at once.
    pub(super) fn messages(&mut self) -> Vec<(NodeId, Body)> {
        let mut messages = Vec::new();
        while let Some(Message { node, stream, body }) = self.dispatcher.poll_message(&self.view) {
            self.dispatcher.handle_sent(stream);
            messages.push((node, body));
        }
        messages
    }

    pub(super) fn ends(&mut self) -> Vec<String> {
        let messages = self.messages().into_iter();
        messages
            .filter_map(|(_, body)| match body {
                Body::End(error) => Some(error.message),
                Body::Session(_) | Body::Assignments(_) => None,
            })
            .collect()
    }

    pub(super) fn node_state(&self, name: &str) -> NodeState {
        self.view.node(&node_id(name)).unwrap().status.state
    }

    pub(super) fn task_state(&self, name: &str) -> TaskState {
        self.view.task(&task_id(name)).unwrap().state()
    }

    fn publish(&mut self, transaction: Transaction) {
        let (root, commit) = transaction.finish();
        self.view = Arc::new(root);
        self.dispatcher.handle_commit(self.now, &commit, &self.view);
    }
}
