//! Nodes that want to join the group of managers, while no second one can run.
//!
//! A Go node whose certificate is a manager's asks for that as soon as it starts, and stops when it
//! is refused, in less time than its agent needs to hear that it was demoted. So the refusal of a
//! demoted one waits: meanwhile the agent gets its session, and with it the certificate of a
//! worker.

use std::time::Duration;

use http::Request;
use swarm_ca::policy::NO_SECOND_MANAGER;
use swarm_rt::tls::Peer;
use tonic::Status;
use tonic::body::Body;

use super::connection_of;

/// The call.
const METHOD: &str = "/docker.swarmkit.v1.RaftMembership/Join";
/// How long the refusal waits. Go nodes wait for 25 s, and need about two for session and
/// certificate.
const HOLD: Duration = Duration::from_secs(6);

/// Whether the refusal of a call waits: it is that of a node with a manager's certificate.
pub(super) fn is_held(request: &Request<Body>) -> bool {
    let is_manager = |peer: &Peer| match peer {
        Peer::Certified(identity) => identity.is_manager(),
        Peer::Anonymous | Peer::Local => false,
    };
    request.uri().path() == METHOD
        && connection_of(request).is_some_and(|connection| is_manager(connection.peer()))
}

/// Waits before a refusal.
pub(super) async fn hold(status: Status) -> Status {
    tokio::time::sleep(HOLD).await;
    status
}

/// What a node is told that is wanted as a manager.
pub(super) fn refusal() -> Status {
    Status::failed_precondition(format!(
        "{NO_SECOND_MANAGER}; `swarmctl node demote` makes this node a worker again"
    ))
}

/// Whether this is the call.
pub(super) fn is_meant(path: &str) -> bool {
    path == METHOD
}
