//! Counts calls under the names that Go's gRPC servers use (control-plane spec 26).

use swarm_api::authorization::Method;
use swarm_rt::metrics::{Counter, Family, Metrics, Registry};
use tonic::Code;

type Started = [(&'static str, &'static str); 3];
type Handled = [(&'static str, &'static str); 4];

pub(super) struct Rpcs {
    started: Family<Started, Counter>,
    handled: Family<Handled, Counter>,
}

impl Rpcs {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let (started, handled) = (Family::default(), Family::default());
        let add = |registry: &mut Registry| {
            registry.register(
                "grpc_server_started",
                "Calls that were accepted on the remote listener",
                Family::clone(&started),
            );
            registry.register(
                "grpc_server_handled",
                "Calls that ended on the remote listener, by their code",
                Family::clone(&handled),
            );
        };
        metrics.show("rpcs", add, || {});
        Self { started, handled }
    }

    pub(super) fn started(&self, method: &'static Method) {
        self.started.get_or_create(&labels(method)).inc();
    }

    pub(super) fn handled(&self, method: &'static Method, code: Code) {
        let [kind, service, name] = labels(method);
        let code = ("grpc_code", code_name(code));
        self.handled
            .get_or_create(&[kind, service, name, code])
            .inc();
    }
}

fn labels(method: &'static Method) -> Started {
    let (service, name) = method.names();
    let kind = match (method.client_streaming, method.server_streaming) {
        (false, false) => "unary",
        (true, false) => "client_stream",
        (false, true) => "server_stream",
        (true, true) => "bidi_stream",
    };
    [
        ("grpc_type", kind),
        ("grpc_service", service),
        ("grpc_method", name),
    ]
}

/// As Go spells it.
fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}
