//! What passes between the agent and its shell about the managers.

use std::time::Duration;

use swarm_api::v1;
use v1::update_task_status_request::TaskStatusUpdate;

/// Numbers the attempts at a session. Everything that comes in on a connection carries the number
/// of the attempt that opened it; what belongs to an earlier one is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// A call to make. Calls may run side by side; a heartbeat must not wait for another one.
#[derive(Clone, Debug, PartialEq)]
pub struct AgentRpc {
    /// The attempt that it belongs to.
    pub epoch: Epoch,
    /// What to call.
    pub call: Call,
}

/// The calls of services `Dispatcher` and `LogBroker`.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Choose a manager, connect, open the session stream. Messages go to
    /// [`crate::Agent::handle_session_message`], the end of the stream is [`Reply::SessionEnded`].
    OpenSession {
        /// What to say of this node.
        description: Box<v1::NodeDescription>,
        /// The session of before; empty if there was none.
        previous_session: String,
    },
    /// Open the assignments stream. Messages go to [`crate::Agent::handle_assignments_message`],
    /// the end of the stream is [`Reply::AssignmentsEnded`].
    OpenAssignments {
        /// The session.
        session: String,
    },
    /// Open the stream of log subscriptions (service `LogBroker`). Messages go to
    /// [`crate::Agent::handle_subscription_message`], the end of the stream is
    /// [`Reply::SubscriptionsEnded`].
    ListenSubscriptions,
    /// Answered by [`Reply::Heartbeat`].
    Heartbeat {
        /// The session.
        session: String,
    },
    /// Answered by [`Reply::StatusesTaken`].
    UpdateTaskStatus {
        /// The session.
        session: String,
        /// To be handed back with the answer.
        report: u64,
        /// The statuses.
        updates: Vec<TaskStatusUpdate>,
    },
    /// Close every stream of this attempt and drop its calls. If `failed`, prefer another manager.
    Close {
        /// Why, for the log.
        reason: String,
        /// Whether the manager is to blame.
        failed: bool,
    },
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The time until the next heartbeat.
    Heartbeat(Result<Duration, RpcError>),
    /// The manager took the statuses of this report.
    StatusesTaken(u64, Result<(), RpcError>),
    /// The session stream ended or could not be opened.
    SessionEnded(RpcError),
    /// The assignments stream ended or could not be opened.
    AssignmentsEnded(RpcError),
    /// The stream of log subscriptions ended or could not be opened.
    SubscriptionsEnded(RpcError),
}

/// Why a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// The gRPC code as a number.
    pub code: i32,
    /// The text.
    pub message: String,
}

impl RpcError {
    /// The number of gRPC's `NotFound`.
    pub const NOT_FOUND: i32 = 5;
    /// The number of gRPC's `Unimplemented`.
    pub const UNIMPLEMENTED: i32 = 12;
    /// `InvalidArgument`, `NotFound`, `PermissionDenied`, `ResourceExhausted`,
    /// `FailedPrecondition`, `Unimplemented` and `Unauthenticated`: the other side understood, and
    /// trying again would not help.
    const REFUSALS: [i32; 7] = [3, Self::NOT_FOUND, 7, 8, 9, Self::UNIMPLEMENTED, 16];

    /// Whether the manager refused, rather than that it could not be reached.
    pub(crate) fn is_refusal(&self) -> bool {
        Self::REFUSALS.contains(&self.code)
    }

    /// An error with a code and a text.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}
