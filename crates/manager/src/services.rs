//! The gRPC services and where each of them is offered.

pub(crate) mod ca;
mod control;
mod dispatcher;
mod explain;
mod express;
mod health;
mod identity;
pub(crate) mod logs;
mod resources;
mod wire;

use std::sync::Arc;

use swarm_api::{ext, v1};
use swarm_control_api::{Member, Members, Refusal};
use swarm_dispatcher::{Code, DispatchError};
use swarm_raft_io::{ReplicatedStore, WriteError};
use swarm_rt::metrics::Metrics;
use swarm_rt::tls::Credentials;
use swarm_rt::{Clock, net};
use swarm_types::NodeId;
use tokio::sync::watch;
use tonic::Status;
use tonic::service::Routes;

use crate::gate::Gate;
use crate::guard::Guard;
use crate::heartbeats::Heartbeats;
use crate::logs::LogCalls;
use crate::secret_drivers::Plugins;
use crate::streams::Calls;
use express::Express;

/// What every service needs.
pub(crate) struct Services {
    pub(crate) store: ReplicatedStore,
    pub(crate) gate: Gate,
    pub(crate) calls: Calls,
    pub(crate) heartbeats: Heartbeats,
    pub(crate) logs: LogCalls,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    pub(crate) own_node: NodeId,
    /// Nodes of one token, or of one address, that may wait for their first session.
    pub(crate) waiting_nodes_max: usize,
    /// Where agents reach this manager.
    pub(crate) address: String,
    /// Where this machine itself reaches it.
    pub(crate) local_address: String,
    /// Where secret drivers are.
    pub(crate) plugins: Plugins,
    /// What external certificate authorities are shown.
    pub(crate) credentials: Credentials,
    /// Why the key file is not sealed as the cluster wants it, if it is not.
    pub(crate) unsealed: watch::Receiver<Option<String>>,
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

/// The services for nodes, to be put behind the guard. Clients' services are there as well, for
/// managers.
pub(crate) fn remote(services: &Arc<Services>) -> Routes {
    Routes::new(dispatcher_server(services))
        .add_service(log_broker_server(services))
        .add_service(logs_server(services))
        .add_service(ca_server(services))
        .add_service(node_ca_server(services))
        .add_service(control_server(services))
        .add_service(explain_server(services))
        .add_service(identity_server(services))
        .add_service(resources_server())
        .add_service(health_server(services))
        .prepare()
}

/// What of that is answered before it gets to a service.
pub(crate) fn express(services: &Arc<Services>, guard: Guard) -> Express {
    Express::new(guard, dispatcher::Dispatcher(Arc::clone(services)))
}

/// The services on the control socket: those for agents, since the manager's own agent comes this
/// way, and those for clients.
pub(crate) fn control(services: &Arc<Services>) -> Routes {
    Routes::new(control_server(services))
        .add_service(explain_server(services))
        .add_service(identity_server(services))
        .add_service(logs_server(services))
        .add_service(dispatcher_server(services))
        .add_service(log_broker_server(services))
        .add_service(ca_server(services))
        .add_service(node_ca_server(services))
        .add_service(resources_server())
        .add_service(health_server(services))
        .prepare()
}

fn control_server(services: &Arc<Services>) -> v1::control_server::ControlServer<control::Control> {
    v1::control_server::ControlServer::new(control::Control(Arc::clone(services)))
        .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

fn explain_server(
    services: &Arc<Services>,
) -> ext::explain_server::ExplainServer<explain::Explain> {
    ext::explain_server::ExplainServer::new(explain::Explain(Arc::clone(services)))
        .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
}

/// Not known callers may ask about a token, so requests are small.
fn identity_server(
    services: &Arc<Services>,
) -> ext::identity_server::IdentityServer<identity::Identity> {
    ext::identity_server::IdentityServer::new(identity::Identity(Arc::clone(services)))
        .max_decoding_message_size(ca::RECEIVE_BYTES_MAX)
        .max_encoding_message_size(usize::MAX)
}

fn ca_server(services: &Arc<Services>) -> v1::ca_server::CaServer<ca::Ca> {
    v1::ca_server::CaServer::new(ca::Ca(Arc::clone(services)))
        .max_decoding_message_size(ca::RECEIVE_BYTES_MAX)
}

fn node_ca_server(services: &Arc<Services>) -> v1::node_ca_server::NodeCaServer<ca::NodeCa> {
    v1::node_ca_server::NodeCaServer::new(ca::NodeCa(Arc::clone(services)))
        .max_decoding_message_size(ca::RECEIVE_BYTES_MAX)
}

fn dispatcher_server(services: &Arc<Services>) -> wire::DispatcherWire {
    wire::DispatcherWire::new(dispatcher::Dispatcher(Arc::clone(services)))
}

fn logs_server(services: &Arc<Services>) -> v1::logs_server::LogsServer<logs::Logs> {
    v1::logs_server::LogsServer::new(logs::Logs(Arc::clone(services)))
        .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
}

fn log_broker_server(services: &Arc<Services>) -> wire::LogBrokerWire {
    wire::LogBrokerWire::new(logs::LogBroker(Arc::clone(services)))
}

fn resources_server()
-> v1::resource_allocator_server::ResourceAllocatorServer<resources::ResourceAllocator> {
    v1::resource_allocator_server::ResourceAllocatorServer::new(resources::ResourceAllocator)
        .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
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
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
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
