//! What passes between the agent and its shell about the managers.

use std::time::Duration;

use swarm_api::v1;
use swarm_types::NodeId;
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

impl Reply {
    /// Whether a manager says that this node was removed from the cluster; then the node is to
    /// leave ([`crate::Agent::handle_leave`]). A manager says it of itself too, to those that it
    /// forwards calls for, so the name counts.
    pub fn says_removed(&self, node: &NodeId) -> bool {
        match self {
            Self::Heartbeat(Ok(_)) | Self::StatusesTaken(_, Ok(())) => false,
            Self::Heartbeat(Err(error))
            | Self::StatusesTaken(_, Err(error))
            | Self::SessionEnded(error)
            | Self::AssignmentsEnded(error)
            | Self::SubscriptionsEnded(error) => error.says_removed(node),
        }
    }
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
    /// The number of gRPC's `PermissionDenied`.
    pub const PERMISSION_DENIED: i32 = 7;
    /// The number of gRPC's `Unimplemented`.
    pub const UNIMPLEMENTED: i32 = 12;
    /// `InvalidArgument`, `NotFound`, `PermissionDenied`, `ResourceExhausted`,
    /// `FailedPrecondition`, `Unimplemented` and `Unauthenticated`: the other side understood, and
    /// trying again would not help.
    const REFUSALS: [i32; 7] = [
        3,
        Self::NOT_FOUND,
        Self::PERMISSION_DENIED,
        8,
        9,
        Self::UNIMPLEMENTED,
        16,
    ];

    /// Whether the manager refused, rather than that it could not be reached.
    pub(crate) fn is_refusal(&self) -> bool {
        Self::REFUSALS.contains(&self.code)
    }

    /// SwarmKit has no code of its own for this, so the text counts.
    fn says_removed(&self, node: &NodeId) -> bool {
        let text = format!("node {node} was removed from swarm");
        self.code == Self::PERMISSION_DENIED && self.message.contains(&text)
    }

    /// An error with a code and a text.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(code: i32, text: &str) -> bool {
        let error = || RpcError::new(code, text);
        let node = "n1".parse().unwrap();
        let answers = [
            Reply::Heartbeat(Err(error())),
            Reply::StatusesTaken(1, Err(error())),
            Reply::SessionEnded(error()),
            Reply::AssignmentsEnded(error()),
            Reply::SubscriptionsEnded(error()),
        ];
        let said = answers.map(|reply| reply.says_removed(&node));
        assert!(said.iter().all(|it| *it == said[0]), "{said:?}");
        said[0]
    }

    #[test]
    fn a_removed_node_is_known_by_code_and_name() {
        // As this program says it, and as SwarmKit does.
        assert!(says(
            7,
            "manager m:1: Permission denied: node n1 was removed from swarm"
        ));
        let nested = "Permission denied: unauthorized peer role: rpc error: code = \
                      PermissionDenied desc = Permission denied: node n1 was removed from swarm";
        assert!(says(7, nested));
        // A manager in between was removed, and says so of itself.
        assert!(!says(
            7,
            "Permission denied: node m2 was removed from swarm"
        ));
        assert!(!says(
            7,
            "Permission denied: node xn1 was removed from the swarm"
        ));
        assert!(!says(14, "node n1 was removed from swarm"));
        assert!(!says(5, "node not registered"));
        let node = "n1".parse().unwrap();
        assert!(!Reply::Heartbeat(Ok(Duration::ZERO)).says_removed(&node));
        assert!(!Reply::StatusesTaken(1, Ok(())).says_removed(&node));
    }
}
