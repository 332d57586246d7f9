//! Refusals of the dispatcher. Codes and texts are SwarmKit's, because agents and people know them.

use swarm_types::NodeId;

/// The part of the gRPC codes that the dispatcher uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Code {
    /// The caller is not registered.
    NotFound,
    /// The request is malformed, or its session is not the current one.
    InvalidArgument,
    /// Try again later.
    Unavailable,
    /// Not this node's business.
    PermissionDenied,
    /// The dispatcher stops; find the new leader.
    Aborted,
    /// More than the manager takes.
    ResourceExhausted,
    /// SwarmKit gives no code in this case.
    Unknown,
}

/// Why a call was refused or a stream ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct DispatchError {
    /// The gRPC code.
    pub code: Code,
    /// The text for the caller.
    pub message: String,
}

impl DispatchError {
    fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    pub(crate) fn node_not_registered() -> Self {
        Self::new(Code::NotFound, "node not registered")
    }

    pub(crate) fn session_invalid() -> Self {
        Self::new(Code::InvalidArgument, "session invalid")
    }

    /// The text that a removed node hears at each call; agents look for it.
    pub(crate) fn node_removed(node: &NodeId) -> Self {
        let text = format!("Permission denied: node {node} was removed from swarm");
        Self::new(Code::PermissionDenied, text)
    }

    pub(crate) fn node_not_found() -> Self {
        Self::new(Code::Unknown, "node not found")
    }

    /// The dispatcher of this term answers nobody any more.
    pub fn stopped() -> Self {
        Self::new(Code::Aborted, "dispatcher is stopped")
    }

    pub(crate) fn must_disconnect() -> Self {
        Self::new(Code::Aborted, "node must disconnect")
    }

    pub(crate) fn rate_limited(node: &NodeId) -> Self {
        let text = format!("node {node} exceeded rate limit count of registrations");
        Self::new(Code::Unavailable, text)
    }

    pub(crate) fn no_hostname(node: &NodeId) -> Self {
        let text = format!(
            "node {node} has no host name; give its machine one, or start it with --hostname"
        );
        Self::new(Code::InvalidArgument, text)
    }

    pub(crate) fn bad_hostname(node: &NodeId, shown: &str) -> Self {
        let text = format!(
            "node {node} has a host name with control characters, \"{shown}\"; give its machine \
             another one, or start it with --hostname"
        );
        Self::new(Code::InvalidArgument, text)
    }

    pub(crate) fn description_too_large(
        node: &NodeId,
        part: &str,
        bytes: usize,
        limit: usize,
    ) -> Self {
        let text = format!(
            "node {node} describes itself with {bytes} bytes of {part}, at most {limit} are taken; \
             make the node say less, then let it try again"
        );
        Self::new(Code::ResourceExhausted, text)
    }

    pub(crate) fn registrations_full(node: &NodeId, waiting: usize) -> Self {
        let text = format!(
            "{waiting} nodes wait for their registration to be written, which is the limit; node \
             {node} can try again after a pause"
        );
        Self::new(Code::Unavailable, text)
    }

    pub(crate) fn registration_timeout(node: &NodeId, seconds: u64) -> Self {
        let text = format!(
            "node {node} could not be marked READY within {seconds} s: the managers did not commit \
             the write; try again"
        );
        Self::new(Code::Unavailable, text)
    }

    pub(crate) fn foreign_task() -> Self {
        let text = "cannot update a task not assigned this node";
        Self::new(Code::PermissionDenied, text)
    }

    pub(crate) fn invalid_status(reason: impl Into<String>) -> Self {
        Self::new(Code::InvalidArgument, reason)
    }
}
