//! Counts and times calls under the names that Go's gRPC servers use (control-plane spec 26).
//!
//! All that is usual about a call is found by its place in the table of methods, without looking
//! for labels.

use std::time::Duration;

use swarm_api::authorization::{METHODS, Method};
use swarm_rt::metrics::{Counter, Family, Histogram, Metrics, Registry, SECONDS};
use tonic::Code;

type Started = [(&'static str, &'static str); 3];
type Handled = [(&'static str, &'static str); 4];

pub(super) struct Rpcs {
    /// For each of [`METHODS`], in their order.
    by_method: Vec<Usual>,
    handled: Family<Handled, Counter>,
}

/// The figures of a method that most of its calls need.
struct Usual {
    started: Counter,
    ok: Counter,
    seconds: Histogram,
}

impl Rpcs {
    pub(super) fn new(metrics: &Metrics) -> Self {
        let started = Family::<Started, Counter>::default();
        let handled = Family::<Handled, Counter>::default();
        let seconds: Family<Started, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(SECONDS));
        let usual = |method| Usual {
            started: started.get_or_create_owned(&labels(method)),
            ok: handled.get_or_create_owned(&with_code(method, Code::Ok)),
            seconds: seconds.get_or_create_owned(&labels(method)),
        };
        let by_method = METHODS.iter().map(usual).collect();
        let shown = Family::clone(&handled);
        let add = |registry: &mut Registry| {
            registry.register(
                "grpc_server_started",
                "Calls that were accepted on the remote listener",
                started,
            );
            registry.register(
                "grpc_server_handled",
                "Calls that ended on the remote listener, by their code",
                shown,
            );
            registry.register(
                "grpc_server_handling_seconds",
                "How long calls took on the remote listener, streams as long as they were open",
                seconds,
            );
        };
        metrics.show("rpcs", add, || {});
        Self { by_method, handled }
    }

    pub(super) fn started(&self, method: &'static Method) {
        if let Some(usual) = self.usual(method) {
            usual.started.inc();
        }
    }

    /// A call that began and went well in one step.
    pub(super) fn answered(&self, method: &'static Method, took: Duration) {
        if let Some(usual) = self.usual(method) {
            usual.started.inc();
            usual.seconds.observe(took.as_secs_f64());
            usual.ok.inc();
        }
    }

    pub(super) fn handled(&self, method: &'static Method, code: Code, took: Duration) {
        let Some(usual) = self.usual(method) else {
            return;
        };
        usual.seconds.observe(took.as_secs_f64());
        if code == Code::Ok {
            usual.ok.inc();
        } else {
            self.handled.get_or_create(&with_code(method, code)).inc();
        }
    }

    fn usual(&self, method: &'static Method) -> Option<&Usual> {
        let place = METHODS.binary_search_by(|it| it.path.cmp(method.path));
        self.by_method.get(place.ok()?)
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

fn with_code(method: &'static Method, code: Code) -> Handled {
    let [kind, service, name] = labels(method);
    [kind, service, name, ("grpc_code", code_name(code))]
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
