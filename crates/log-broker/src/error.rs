//! Refusals of the log broker, and the reasons why a stream is incomplete. Codes and texts are
//! SwarmKit's where it has them.

use swarm_types::{NodeId, ServiceId, TaskId};

/// The part of the gRPC codes that the broker uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The request is malformed.
    InvalidArgument,
    /// What it names does not exist.
    NotFound,
    /// Not this node's business.
    PermissionDenied,
    /// A limit is reached.
    ResourceExhausted,
    /// The stream was replaced by a later one of the same node.
    Aborted,
    /// SwarmKit gives no code in this case.
    Unknown,
}

/// Why a call was refused or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BrokerError {
    /// The gRPC code.
    pub code: Code,
    /// The text for the caller.
    pub message: String,
}

impl BrokerError {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn no_selector() -> Self {
        Self::new(Code::InvalidArgument, "log selector must be provided")
    }

    pub(crate) fn empty_selector() -> Self {
        Self::new(Code::InvalidArgument, "log selector must not be empty")
    }

    pub(crate) fn invalid(text: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, text)
    }

    pub(crate) fn no_service(id: &ServiceId) -> Self {
        Self::new(Code::NotFound, format!("service {id} not found"))
    }

    pub(crate) fn no_task(id: &TaskId) -> Self {
        Self::new(Code::NotFound, format!("task {id} not found"))
    }

    pub(crate) fn too_many_ids(count: usize, max: usize) -> Self {
        let text = format!(
            "the log selector names {count} objects, at most {max} are allowed: select services \
             rather than their tasks, or subscribe several times"
        );
        Self::new(Code::InvalidArgument, text)
    }

    pub(crate) fn too_many_subscriptions(max: usize) -> Self {
        let text = format!(
            "this manager serves {max} log subscriptions, the most that it can: end one of them, \
             for instance a `logs --follow` that nobody reads"
        );
        Self::new(Code::ResourceExhausted, text)
    }

    pub(crate) fn no_subscription_id() -> Self {
        Self::new(Code::InvalidArgument, "missing subscription ID")
    }

    pub(crate) fn unknown_subscription() -> Self {
        Self::new(Code::NotFound, "unknown subscription ID")
    }

    pub(crate) fn changed_subscription() -> Self {
        let text = "different subscription IDs in the same session";
        Self::new(Code::InvalidArgument, text)
    }

    pub(crate) fn foreign_node(claimed: &str, caller: &NodeId) -> Self {
        let text = format!(
            "log messages of node {claimed:?} cannot be published by node {caller}: the context of \
             each message names the node that publishes it"
        );
        Self::new(Code::PermissionDenied, text)
    }

    pub(crate) fn listener_replaced() -> Self {
        let text = "node listens for subscriptions on a later stream";
        Self::new(Code::Aborted, text)
    }

    /// The end of a subscription from which something is missing (spec 7.2).
    pub(crate) fn incomplete(reasons: &[String]) -> Self {
        let text = format!(
            "warning: incomplete log stream. some logs could not be retrieved for the following \
             reasons: {}",
            reasons.join(", ")
        );
        Self::new(Code::Unknown, text)
    }
}

/// A node that nobody hears.
pub(crate) fn not_available(node: &NodeId) -> String {
    format!("node {node} is not available")
}

/// A node whose stream of subscriptions ended.
pub(crate) fn disconnected(node: &NodeId) -> String {
    format!("node {node} disconnected unexpectedly")
}

/// A node that was told and did nothing.
pub(crate) fn does_not_publish(node: &NodeId, seconds: u64) -> String {
    format!("node {node} did not begin to publish within {seconds} s")
}

/// A node whose publishing ended with an error.
pub(crate) fn publishing_failed(node: &NodeId, reason: &str) -> String {
    format!("node {node} stopped publishing: {reason}")
}

/// A node whose stream was replaced, with whatever was under way on it.
pub(crate) fn published_anew(node: &NodeId) -> String {
    format!("node {node} began to publish anew, lines may be missing")
}

/// A task that has no node.
pub(crate) fn not_scheduled(task: &TaskId) -> String {
    format!("task {task} has not been scheduled")
}

/// What a list of many reasons ends with.
pub(crate) fn more_reasons(count: usize) -> String {
    format!("{count} more")
}
