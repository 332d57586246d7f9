//! Stands in front of every service of the remote listener.
//!
//! Owns that each call has a caller who may make it, that one connection makes only so many at
//! once, that a call which never finishes its request ends, that every call ends when its caller
//! waits no longer, and that a stream ends when its caller may no longer have it. The rule itself
//! is `swarm_ca::authorization`. Services find the caller by `net::caller`.

mod body;
mod count;
mod deadline;
mod hop;
mod join;
mod local;
mod words;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response};
use swarm_api::authorization::{self as table, Method};
use swarm_ca::authorization::{Accepted, Arrival, Denial, Here, Hop, Reason, authorize};
use swarm_dispatcher::FAREWELL_TIMEOUT;
use swarm_raft_io::ReplicatedStore;
use swarm_rt::Clock;
use swarm_rt::metrics::{Metrics, Refused};
use swarm_rt::net::{Caller, Peer};
use swarm_rt::tls::{CallPlace, Connection};
use swarm_types::ClusterId;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;
use tokio::time::{Instant, Sleep, sleep};
use tonic::body::Body;
use tonic::{Code, Status};
use tower::Service;

use crate::gate::{Gate, READY_WAIT_MAX};
use count::Rpcs;
use deadline::Over;
pub(crate) use local::Local;

/// Calls in progress on one connection of a worker. An agent has three streams and a few calls.
const WORKER_CALLS_MAX: u32 = 64;
/// The same of a manager, which may forward for all workers.
const MANAGER_CALLS_MAX: u32 = 20_000;
/// The same of somebody without a certificate, who asks one thing after the other.
const ANONYMOUS_CALLS_MAX: u32 = 8;
/// How long a call that is no stream may take: the wait for a leader, the wait for the disk, and
/// time to send the request. Longer than any answer of ours takes.
pub(crate) const CALL_TIMEOUT: Duration =
    READY_WAIT_MAX.saturating_mul(2).saturating_add(CALL_SLACK);
const CALL_SLACK: Duration = Duration::from_secs(15);

/// The streams of a session. A node that is removed hears on them that it has no tasks any more,
/// and agents of other programs end all of them as soon as one ends.
const FAREWELL_METHODS: [(&str, &str); 4] = [
    ("LogBroker", "ListenSubscriptions"),
    ("Dispatcher", "Session"),
    ("Dispatcher", "Assignments"),
    ("Dispatcher", "Tasks"),
];

/// How long the streams of a removed node may go on: longer than the dispatcher lets them.
pub(crate) const FAREWELL_MAX: Duration = FAREWELL_TIMEOUT.saturating_add(Duration::from_secs(1));

/// Shared by all calls of the remote listener.
#[derive(Clone)]
pub(crate) struct Guard {
    inner: Arc<Inner>,
}

struct Inner {
    store: ReplicatedStore,
    gate: Gate,
    cluster: ClusterId,
    metrics: Metrics,
    rpcs: Rpcs,
    rechecks: Arc<Notify>,
    call_timeout: Duration,
    clock: Clock,
}

impl Guard {
    pub(crate) fn new(
        store: ReplicatedStore,
        gate: Gate,
        cluster: ClusterId,
        metrics: Metrics,
        call_timeout: Duration,
    ) -> Self {
        let inner = Inner {
            store,
            gate,
            cluster,
            rpcs: Rpcs::new(&metrics),
            metrics,
            rechecks: Arc::default(),
            call_timeout,
            clock: Clock::new(),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Every stream checks anew whether its caller may have it.
    pub(crate) fn recheck(&self) {
        self.inner.rechecks.notify_waiters();
    }

    fn authorize(
        &self,
        method: &Method,
        connection: &Connection,
        hop: &Hop,
    ) -> Result<Accepted, Denial> {
        let here = Here {
            cluster: &self.inner.cluster,
            leads: self.inner.gate.is_open(),
        };
        let direct = match connection.peer() {
            Peer::Certified(identity) => Some(&**identity),
            Peer::Local | Peer::Anonymous => None,
        };
        let arrival = Arrival {
            method,
            direct,
            hop,
        };
        authorize(&self.inner.store.view(), here, arrival)
    }

    fn refuse(&self, reason: Refused, status: Status) -> Status {
        self.inner.metrics.refused(reason);
        tracing::debug!(
            reason = reason.label(),
            text = status.message(),
            "call refused"
        );
        status
    }

    fn denied(&self, denial: Denial) -> Status {
        let code = if denial.reason == Reason::NotLeader {
            Code::ResourceExhausted
        } else {
            Code::PermissionDenied
        };
        self.refuse(refused(denial.reason), Status::new(code, denial.message))
    }

    /// Lets a call in: its caller, and what watches over it.
    fn enter<B>(&self, request: &Request<B>) -> Result<(Caller, Watch), Status> {
        let path = request.uri().path();
        let Some(method) = table::method(path) else {
            return Err(self.refuse(Refused::UnknownMethod, words::no_method(path)));
        };
        let Some(connection) = connection_of(request) else {
            return Err(Status::internal("the connection is not known"));
        };
        let deadline = deadline::read(request.headers()).map_err(|deadline::Malformed| {
            let status = Status::internal("malformed grpc-timeout: the call was not begun");
            self.refuse(Refused::BadDeadline, status)
        })?;
        // Before the check, so that no change is missed between it and the stream.
        let notified = method
            .server_streaming
            .then(|| Box::pin(Arc::clone(&self.inner.rechecks).notified_owned()));
        let max = calls_max(connection.peer());
        let Some(place) = connection.begin_call(max) else {
            let text = format!("one connection may have {max} calls in progress; wait for some");
            let status = Status::resource_exhausted(text);
            return Err(self.refuse(Refused::TooManyCalls, status));
        };
        let hop = hop::read(request.headers());
        let accepted = self
            .authorize(method, connection, &hop)
            .map_err(|denial| self.denied(denial))?;
        if let Some(reason) = connection.closing() {
            return Err(Status::aborted(reason));
        }
        let caller = match accepted {
            Accepted::Peer => Caller {
                peer: connection.peer().clone(),
                addr: connection.remote().ip().to_string(),
                arrived: connection.local(),
                forwarded_by: None,
            },
            Accepted::Forwarded(identity) => Caller {
                peer: identity.map_or(Peer::Anonymous, |it| Peer::Certified(Arc::new(it))),
                addr: hop::remote_host(request.headers()),
                arrived: None,
                forwarded_by: connection.peer().node().cloned(),
            },
        };
        let watch = Watch {
            guard: self.clone(),
            method,
            connection: Arc::clone(connection),
            hop: (hop != Hop::default()).then(|| Box::new(hop)),
            notified,
            farewell: None,
            deadline,
            since: self.inner.clock.monotonic(),
            _place: place,
        };
        Ok((caller, watch))
    }

    /// Lets a call in that its node makes itself and that is answered on the spot. `None` sends it
    /// the usual way, where it is refused with its reason if it must be.
    pub(crate) fn admit_at_once(
        &self,
        method: &'static Method,
        connection: &Arc<Connection>,
        headers: &HeaderMap,
    ) -> Option<AtOnce<'_>> {
        if hop::is_told(headers) || connection.closing().is_some() {
            return None;
        }
        let place = connection.begin_call(calls_max(connection.peer()))?;
        let accepted = self.authorize(method, connection, &Hop::default());
        accepted.is_ok().then(|| AtOnce {
            guard: self,
            method,
            since: self.inner.clock.monotonic(),
            _place: place,
        })
    }
}

/// A call that was let in and is about to be answered.
pub(crate) struct AtOnce<'a> {
    guard: &'a Guard,
    method: &'static Method,
    since: Duration,
    _place: CallPlace,
}

impl AtOnce<'_> {
    /// Counts it. One that is not answered here after all is counted where it is.
    pub(crate) fn answered(self) {
        let Inner { rpcs, clock, .. } = &*self.guard.inner;
        rpcs.answered(self.method, clock.monotonic().saturating_sub(self.since));
    }
}

/// The end of the time in which a removed node may listen, and what it is told then.
type Farewell = (Pin<Box<Sleep>>, Denial);

/// What goes on for as long as a call does.
pub(crate) struct Watch {
    guard: Guard,
    method: &'static Method,
    connection: Arc<Connection>,
    /// Set for calls that were sent on, which are few.
    hop: Option<Box<Hop>>,
    /// Set for streams.
    notified: Option<Pin<Box<OwnedNotified>>>,
    /// Set when the node of a stream turned out to be removed: until when it may listen.
    farewell: Option<Box<Farewell>>,
    /// Until when the caller waits.
    deadline: Option<Instant>,
    since: Duration,
    _place: CallPlace,
}

impl Watch {
    /// How long the call has been going on.
    fn took(&self) -> Duration {
        let now = self.guard.inner.clock.monotonic();
        now.saturating_sub(self.since)
    }

    /// The reason for which the stream must end, as soon as there is one.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Status> {
        let Some(notified) = &mut self.notified else {
            return Poll::Pending;
        };
        while notified.as_mut().poll(context).is_ready() {
            let next = Arc::clone(&self.guard.inner.rechecks).notified_owned();
            notified.set(next);
            let direct = Hop::default();
            let hop = self.hop.as_deref().unwrap_or(&direct);
            match self.guard.authorize(self.method, &self.connection, hop) {
                // The dispatcher ends it, after it took the node's tasks back.
                Err(denial) if is_farewell(self.method, &self.connection, &denial) => {
                    let over = || Box::new((Box::pin(sleep(FAREWELL_MAX)), denial));
                    self.farewell.get_or_insert_with(over);
                }
                Err(denial) => return Poll::Ready(self.guard.denied(denial)),
                Ok(_) => {
                    if let Some(reason) = self.connection.closing() {
                        return Poll::Ready(Status::aborted(reason));
                    }
                }
            }
        }
        if let Some(farewell) = &mut self.farewell {
            let (over, denial) = &mut **farewell;
            ready!(over.as_mut().poll(context));
            return Poll::Ready(self.guard.denied(denial.clone()));
        }
        Poll::Pending
    }
}

/// Whether the node of a stream was removed and hears so on it.
fn is_farewell(method: &Method, connection: &Connection, denial: &Denial) -> bool {
    let is_told = FAREWELL_METHODS.contains(&method.names());
    is_told && denial.reason == Reason::RemovedNode && connection.closing().is_none()
}

fn connection_of<B>(request: &Request<B>) -> Option<&Arc<Connection>> {
    request.extensions().get()
}

fn calls_max(peer: &Peer) -> u32 {
    match peer {
        Peer::Certified(identity) if identity.is_manager() => MANAGER_CALLS_MAX,
        Peer::Certified(_) => WORKER_CALLS_MAX,
        Peer::Local | Peer::Anonymous => ANONYMOUS_CALLS_MAX,
    }
}

fn refused(reason: Reason) -> Refused {
    match reason {
        Reason::NoCertificate => Refused::NoCertificate,
        Reason::WrongRole => Refused::WrongRole,
        Reason::WrongOrganization => Refused::WrongOrganization,
        Reason::RemovedNode => Refused::RemovedNode,
        Reason::BadForwarding => Refused::BadForwarding,
        Reason::NotLeader => Refused::ForwardedToFollower,
    }
}

impl<S> tower::Layer<S> for Guard {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Guarded {
            guard: self.clone(),
            inner,
        }
    }
}

/// The services behind the guard.
#[derive(Clone)]
pub(crate) struct Guarded<S> {
    guard: Guard,
    inner: S,
}

impl<S> Service<Request<Body>> for Guarded<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let (caller, watch) = match self.guard.enter(&request) {
            Ok(entered) => entered,
            Err(status) if join::is_held(&request) => {
                return Box::pin(async { Ok(join::hold(status).await.into_http()) });
            }
            Err(status) => return Box::pin(std::future::ready(Ok(status.into_http()))),
        };
        request.extensions_mut().insert(caller);
        watch.guard.inner.rpcs.started(watch.method);
        let answer = self.inner.call(request);
        Box::pin(async move { Ok(finish(watch, answer).await) })
    }
}

/// Waits for the answer of a service, within bounds, and watches over it if it is a stream.
async fn finish(
    watch: Watch,
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
) -> Response<Body> {
    let method = watch.method;
    let limit = watch.guard.inner.call_timeout;
    // The answer to a stream of the caller's comes at the end of that, which may be far away.
    let own = (!method.client_streaming).then_some(limit);
    let answered = deadline::wait(answer, watch.deadline, own).await;
    let guard = watch.guard.clone();
    let response = match answered {
        Ok(Ok(response)) => response,
        Err(Over::Caller) => deadline::over().into_http(),
        Err(Over::Manager) => {
            let text = format!("the call took longer than {} s", limit.as_secs());
            let status = Status::deadline_exceeded(text);
            guard.refuse(Refused::CallTimeout, status).into_http()
        }
    };
    let response = words::reword(&guard.inner.metrics, method, response);
    match response.extensions().get::<Status>().map(Status::code) {
        Some(code) => guard.inner.rpcs.handled(method, code, watch.took()),
        None if method.server_streaming => {
            return response.map(|inner| Body::new(body::Watched::new(inner, watch)));
        }
        None => guard.inner.rpcs.handled(method, Code::Ok, watch.took()),
    }
    response
}
