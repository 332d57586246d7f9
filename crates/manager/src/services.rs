//! The gRPC services and where each of them is offered.

mod control;
mod dispatcher;
mod explain;
mod health;

use std::sync::Arc;

use swarm_api::{ext, v1};
use swarm_control_api::{Member, Members, Refusal};
use swarm_dispatcher::{Code, DispatchError};
use swarm_raft_io::{ReplicatedStore, WriteError};
use swarm_rt::{Clock, net};
use swarm_types::NodeId;
use tonic::Status;
use tonic::transport::server::Router;

use crate::gate::Gate;
use crate::streams::Calls;

/// What every service needs.
pub(crate) struct Services {
    pub(crate) store: ReplicatedStore,
    pub(crate) gate: Gate,
    pub(crate) calls: Calls,
    pub(crate) clock: Clock,
    pub(crate) own_node: NodeId,
    /// Where agents reach this manager.
    pub(crate) address: String,
}

impl Services {
    /// The managers of the group; for now this one alone.
    pub(crate) fn members(&self) -> Members {
        let member = Member {
            raft_id: self.store.raft_id(),
            addr: self.address.clone(),
            leader: self.gate.is_open(),
            reachability: v1::raft_member_status::Reachability::Reachable,
        };
        [(self.own_node.clone(), member)].into()
    }
}

/// The services for agents.
pub(crate) fn remote(services: &Arc<Services>) -> Router {
    net::server()
        .add_service(dispatcher_server(services))
        .add_service(health_server(services))
}

/// The services on the control socket: those for agents, since the manager's own agent comes this
/// way, and those for clients.
pub(crate) fn control(services: &Arc<Services>) -> Router {
    let control = control::Control(Arc::clone(services));
    net::server()
        .add_service(
            v1::control_server::ControlServer::new(control)
                .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
                .max_encoding_message_size(usize::MAX),
        )
        .add_service(
            ext::explain_server::ExplainServer::new(explain::Explain(Arc::clone(services)))
                .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX),
        )
        .add_service(dispatcher_server(services))
        .add_service(health_server(services))
}

fn dispatcher_server(
    services: &Arc<Services>,
) -> v1::dispatcher_server::DispatcherServer<dispatcher::Dispatcher> {
    v1::dispatcher_server::DispatcherServer::new(dispatcher::Dispatcher(Arc::clone(services)))
        .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

fn health_server(services: &Arc<Services>) -> v1::health_server::HealthServer<health::Health> {
    v1::health_server::HealthServer::new(health::Health(Arc::clone(services)))
        .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
}

/// A refusal of the dispatcher as a gRPC status.
pub(crate) fn status_of(error: &DispatchError) -> Status {
    let code = match error.code {
        Code::NotFound => tonic::Code::NotFound,
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::Aborted => tonic::Code::Aborted,
        Code::Unknown => tonic::Code::Unknown,
    };
    Status::new(code, error.message.clone())
}

/// A refusal of a request as a gRPC status.
pub(crate) fn refusal(refusal: &Refusal) -> Status {
    Status::new(
        tonic::Code::from_i32(refusal.code().number()),
        refusal.message(),
    )
}

/// A write that did not happen as a gRPC status.
pub(crate) fn write_error(error: WriteError<Refusal>) -> Status {
    let text = error.to_string();
    match error {
        WriteError::Refused(reason) => refusal(&reason),
        WriteError::TooLarge { .. } => Status::invalid_argument(text),
        WriteError::DiskFull | WriteError::Stalled | WriteError::Busy => {
            Status::resource_exhausted(text)
        }
        WriteError::NotLeader | WriteError::LostLeadership | WriteError::Stopped => {
            Status::unavailable(text)
        }
    }
}
