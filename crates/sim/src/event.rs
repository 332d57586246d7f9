//! Everything that can happen next.

use std::time::Duration;

use bytes::Bytes;
use swarm_agent::{Epoch, OpId, Reply, RpcError};
use swarm_api::v1;
use swarm_ca::server::JobId;
use swarm_dispatcher::{SecretRequestId, StreamId};
use swarm_executor::Report;
use swarm_log_broker::ListenerId;
use swarm_types::TaskId;
use v1::update_task_status_request::TaskStatusUpdate;

/// A node by its place in the list of nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeIx(pub(crate) usize);

impl std::fmt::Display for NodeIx {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("n{}", self.0))
    }
}

/// Which life of a process: it grows with each start, and what was meant for an earlier one is
/// dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Life(pub(crate) u64);

/// A connection of an agent to the manager.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConnId(pub(crate) u64);

/// What an agent asks for.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Session {
        description: Box<v1::NodeDescription>,
        previous: String,
    },
    Assignments {
        session: String,
    },
    Heartbeat {
        session: String,
    },
    Statuses {
        session: String,
        report: u64,
        updates: Vec<TaskStatusUpdate>,
    },
    /// The stream of log subscriptions.
    Listen,
    /// A message on a stream of published lines; the first one opens the stream.
    Publish {
        stream: u64,
        message: Box<v1::PublishLogsMessage>,
    },
    /// A certificate is asked for: by its holder, or with a token that somebody brought along.
    Issue {
        csr: Bytes,
    },
    CertificateStatus {
        node: String,
    },
}

impl Request {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Session { .. } => "session",
            Self::Assignments { .. } => "assignments",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Statuses { .. } => "statuses",
            Self::Listen => "log subscriptions",
            Self::Publish { .. } => "publish",
            Self::Issue { .. } => "certificate",
            Self::CertificateStatus { .. } => "certificate status",
        }
    }
}

/// What reaches an agent.
#[derive(Clone, Debug)]
pub(crate) enum Payload {
    Session(Box<v1::SessionMessage>),
    Assignments(v1::AssignmentsMessage),
    Reply(Reply),
    Subscription(Box<v1::SubscriptionMessage>),
    /// How a stream of published lines ended.
    Published {
        id: String,
        stream: u64,
        result: Result<(), RpcError>,
    },
    /// For whom the certificate will be, or the code and text of the refusal.
    Taken(Result<String, (i32, String)>),
    /// How a certificate stands.
    Certificate(Result<Box<v1::NodeCertificateStatusResponse>, (i32, String)>),
}

impl Payload {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Session(_) => "session message",
            Self::Assignments(_) => "assignments",
            Self::Reply(Reply::Heartbeat(Ok(_))) => "heartbeat ok",
            Self::Reply(Reply::Heartbeat(Err(_))) => "heartbeat refused",
            Self::Reply(Reply::StatusesTaken(_, Ok(()))) => "statuses taken",
            Self::Reply(Reply::StatusesTaken(_, Err(_))) => "statuses refused",
            Self::Subscription(_) => "log subscription",
            Self::Published { .. } => "end of publishing",
            Self::Taken(_) => "request taken or not",
            Self::Certificate(_) => "certificate status",
            Self::Reply(Reply::SessionEnded(_)) => "session ended",
            Self::Reply(Reply::AssignmentsEnded(_)) => "assignments ended",
            Self::Reply(Reply::SubscriptionsEnded(_)) => "log subscriptions ended",
        }
    }
}

/// An end of a stream in the order of its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum StreamKind {
    Session,
    Assignments,
    Subscriptions,
}

/// What happens to the manager's process.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ManagerEvent {
    /// The leader's task gets its turn.
    Turn,
    /// A timer of the leader.
    Wake,
    /// The log's thread has synced what was proposed.
    LogPass,
    /// A tick of the log.
    LogTick,
    /// A snapshot that was begun is written.
    LogSnapshot,
    /// The transport took a message.
    Sent(StreamId),
    /// The transport took a message about logs.
    LogSent(ListenerId),
    /// A secret driver answered, or did not.
    Secret(SecretRequestId),
    /// A job was signed, or not.
    Signed(JobId),
}

/// What happens to an agent's process.
#[derive(Debug)]
pub(crate) enum NodeEvent {
    /// It starts.
    Start,
    /// A timer.
    Wake,
    /// It asks for a certificate, or again what became of it.
    Ask,
    /// Its state directory is wiped.
    Wiped,
    /// It renews its certificate although nobody asked.
    Renew,
    /// The node was described.
    Described,
    /// A batch reached the disk.
    Persisted(u64),
    /// A task writes a line for a log subscription.
    Line { id: String, task: TaskId },
    /// An operation ended.
    OperationDone {
        task: TaskId,
        op: OpId,
        report: Box<Report>,
    },
}

/// Something that happens at an instant.
#[derive(Debug)]
pub(crate) enum Event {
    /// The manager's machine starts its process.
    ManagerStart(Life),
    /// For one life of the manager's process; void in another.
    Manager(Life, ManagerEvent),
    /// For one life of an agent's process; void in another.
    Node(NodeIx, Life, NodeEvent),
    /// A request arrives at the manager.
    ToManager {
        conn: ConnId,
        request: Request,
        /// Nobody waits for the answer of a copy.
        is_copy: bool,
    },
    /// The manager's side of a connection is gone.
    ClosedAtManager(ConnId),
    /// Something arrives at the agent.
    ToAgent { conn: ConnId, payload: Payload },
    /// A fault strikes.
    Fault,
    /// The manager's process stands still.
    StandStill,
    /// It goes on.
    GoesOn,
    /// A partition that began earlier is over.
    Healed(NodeIx),
    /// The manager's disk has space again.
    DiskFreed,
    /// The user does something.
    UserActs,
    /// Somebody begins to read logs, or stops.
    ReaderActs,
    /// The user acts no more, faults strike no more.
    CalmDown,
    /// Slow checks are made.
    Inspect,
}

/// The attempt at a session that opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    pub(crate) node: NodeIx,
    pub(crate) life: Life,
    pub(crate) epoch: Epoch,
}

/// Keep-alive of transports: so long until a side notices that the other one is silent.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(20);
