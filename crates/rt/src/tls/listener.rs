//! Accepts connections: TCP, then TLS, then the first words of HTTP/2, all within one deadline.
//!
//! A peer that stops halfway holds a place among the handshakes until the deadline and nothing
//! else; whoever serves the connections sees only those that spoke.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::ServerConfig;
use rustls::server::NoServerSessionStorage;
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use super::connection::{Connections, Full, PREFACE_BYTES, Peer, TlsIo};
use super::refusals::Refusals;
use super::{ALPN_H2, Credentials, provider, verify, words};
use crate::crowd::Origin;
use crate::lanes::{Lane, Socket};
use crate::metrics::{Metrics, Refused};
use crate::notices::Notices;
use crate::{OnError, Tasks, files};

/// Connections between the listener and who serves them; the handshakes wait when it is full.
const READY_MAX: usize = 64;
/// Between two attempts to accept when the system refuses, for want of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// What an HTTP/2 client says first (RFC 9113, 3.4).
const PREFACE: [u8; PREFACE_BYTES] = *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a listener takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// For the handshake and the first words of HTTP/2 together.
    pub handshake_timeout: Duration,
    /// Handshakes in progress; further connections wait in the system's queue.
    pub handshakes_max: usize,
    /// Of these, from one address; further connections from there are closed. Half of all, so that
    /// one address cannot hold the door shut.
    pub handshakes_per_address_max: usize,
    /// Open connections; further ones are closed.
    pub connections_max: usize,
    /// Of these, without a certificate.
    pub anonymous_max: usize,
    /// Of these, from one address; further ones from there are closed. When all without a
    /// certificate are taken, one of the address that has the most goes for one from elsewhere.
    pub anonymous_per_address_max: usize,
    /// Open connections of one node; its oldest goes for another one. A node needs one or two, and
    /// one that lost its network comes back before the old ones are known to be gone.
    pub node_connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 1_024,
            handshakes_per_address_max: 512,
            connections_max: 50_000,
            anonymous_max: 1_024,
            anonymous_per_address_max: 512,
            node_connections_max: 16,
        }
    }
}

impl Limits {
    /// The same, for a process that may have so many files open: handshakes and connections
    /// together leave some to the log, the control socket, tasks and whatever else opens files.
    #[must_use]
    pub fn within(self, files: u64) -> Self {
        let files = usize::try_from(files).unwrap_or(usize::MAX);
        let room = files.saturating_sub(reserved(files));
        let share = |of: usize, part: usize| (of / part).max(1);
        let handshakes_max = self.handshakes_max.min(share(room, 8));
        let connections_max = self.connections_max.min(room - handshakes_max.min(room));
        let anonymous_max = self.anonymous_max.min(share(connections_max, 4));
        let handshakes_per_address_max = self
            .handshakes_per_address_max
            .min(share(handshakes_max, 2));
        let anonymous_per_address_max = self.anonymous_per_address_max.min(share(anonymous_max, 2));
        Self {
            handshakes_max,
            handshakes_per_address_max,
            connections_max,
            anonymous_max,
            anonymous_per_address_max,
            ..self
        }
    }
}

/// Files that are no connections of this listener's: a quarter, within bounds.
fn reserved(files: usize) -> usize {
    const RESERVED_MIN: usize = 64;
    const RESERVED_MAX: usize = 4_096;
    (files / 4).clamp(RESERVED_MIN, RESERVED_MAX)
}

/// Where connections are served.
#[derive(Debug)]
pub struct Listening {
    /// Those of managers, and of whoever has no certificate.
    pub others: Incoming,
    /// Those of workers, for each lane.
    pub workers: Vec<(Lane, Incoming)>,
    /// All of them.
    pub connections: Connections,
}

/// Connections that are ready to be served.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<TlsIo>);

impl Stream for Incoming {
    type Item = io::Result<TlsIo>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|io| io.map(Ok))
    }
}

/// Accepts connections on an open listener until the tasks are told to stop, or until nobody serves
/// those outside of the lanes any more. Handshakes are work, so they are done outside as well.
pub fn listen(
    tasks: &Tasks,
    listener: TcpListener,
    credentials: &Credentials,
    limits: Limits,
    metrics: Metrics,
    lanes: Vec<Lane>,
) -> Listening {
    let refusals = Arc::new(Refusals::new(metrics));
    let connections = Connections::new(Arc::clone(&refusals));
    let (sender, ready) = mpsc::channel(READY_MAX);
    let mut senders = Vec::new();
    let mut workers = Vec::new();
    for lane in lanes {
        let (sender, ready) = mpsc::channel(READY_MAX);
        senders.push((lane.clone(), sender));
        workers.push((lane, Incoming(ready)));
    }
    let door = Arc::new(Door {
        acceptor: TlsAcceptor::from(Arc::new(config(credentials))),
        connections: connections.clone(),
        limits,
        refusals,
        ready: sender,
        lanes: senders,
        in_progress: Mutex::default(),
    });
    let stop = tasks.shutdown().clone();
    tasks.spawn("TLS listener", OnError::Stop, async move {
        tokio::select! {
            () = stop.begun() => {}
            () = door.ready.closed() => {}
            () = accept(&door, &listener) => {}
        }
        Ok(())
    });
    Listening {
        others: Incoming(ready),
        workers,
        connections,
    }
}

pub(super) fn config(credentials: &Credentials) -> ServerConfig {
    let live = || Arc::new(verify::Live(credentials.state.subscribe()));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .expect("ring has cipher suites for both versions")
        .with_client_cert_verifier(live())
        .with_cert_resolver(live());
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    // A resumed connection keeps the chain that was checked before a root changed.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config
}

struct Door {
    acceptor: TlsAcceptor,
    connections: Connections,
    limits: Limits,
    refusals: Arc<Refusals>,
    ready: mpsc::Sender<TlsIo>,
    /// For workers; without any they are served like everybody else.
    lanes: Vec<(Lane, mpsc::Sender<TlsIo>)>,
    /// Handshakes in progress by address.
    in_progress: Mutex<BTreeMap<Origin, usize>>,
}

async fn accept(door: &Arc<Door>, listener: &TcpListener) {
    // Bounded by `handshakes_max`; ends with this function.
    let mut handshakes = JoinSet::new();
    let mut notices = Notices::default();
    loop {
        let has_room = handshakes.len() < door.limits.handshakes_max;
        let accepted = tokio::select! {
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept(), if has_room => accepted,
        };
        match accepted {
            Ok((stream, remote)) => match Step::begin(door, remote.ip().into()) {
                Some(step) => {
                    handshakes.spawn(enter(Arc::clone(door), stream, remote, step));
                }
                None => {
                    let most = door.limits.handshakes_per_address_max;
                    let text = format!(
                        "{} has {most} handshakes in progress, which is the most from one address; \
                         open fewer at once",
                        remote.ip()
                    );
                    let reason = Refused::TooManyHandshakes;
                    door.refusals.refuse(remote, reason, &text);
                }
            },
            Err(error) => {
                if notices.ask(door.refusals.clock().monotonic()).is_some() {
                    let error = files::in_words(&error);
                    tracing::warn!(error, "connections have to wait");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// A handshake in progress, counted until it is dropped.
struct Step {
    door: Arc<Door>,
    origin: Origin,
}

impl Step {
    fn begin(door: &Arc<Door>, origin: Origin) -> Option<Self> {
        let mut in_progress = door.in_progress();
        let count = in_progress.entry(origin).or_insert(0);
        if *count >= door.limits.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        door.refusals.metrics().handshakes().inc();
        Some(Self {
            door: Arc::clone(door),
            origin,
        })
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let mut in_progress = self.door.in_progress();
        if let Some(count) = in_progress.get_mut(&self.origin) {
            *count -= 1;
            if *count == 0 {
                in_progress.remove(&self.origin);
            }
        }
        self.door.refusals.metrics().handshakes().dec();
    }
}

/// Takes one connection through the door.
async fn enter(door: Arc<Door>, stream: TcpStream, remote: SocketAddr, step: Step) {
    // Small messages go out at once; a socket that refuses this works as well.
    let _ = stream.set_nodelay(true);
    let limit = door.limits.handshake_timeout;
    let entered = match tokio::time::timeout(limit, greet(&door, stream)).await {
        Ok(greeted) => greeted.and_then(|(stream, preface, peer)| {
            door.connections
                .admit(stream, preface, remote, peer, &door.limits)
                .map_err(|Full { reason, text }| Failure { reason, text })
        }),
        Err(_) => {
            let text = format!("nothing came of it within {} s", limit.as_secs());
            Err(Failure::new(Refused::HandshakeTimeout, text))
        }
    };
    drop(step);
    match entered {
        Ok(io) => door.show_in(io).await,
        Err(failure) => door.refusals.refuse(remote, failure.reason, &failure.text),
    }
}

/// Why a connection did not get in.
struct Failure {
    reason: Refused,
    text: String,
}

impl Failure {
    fn new(reason: Refused, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

type Greeted = (TlsStream<Socket>, [u8; PREFACE_BYTES], Peer);

async fn greet(door: &Door, stream: TcpStream) -> Result<Greeted, Failure> {
    let mut stream = door
        .acceptor
        .accept(Socket::Own(stream))
        .await
        .map_err(|error| handshake_failure(&error, door.refusals.clock().now()))?;
    // A peer that offers protocols and not HTTP/2 among them did not get here. One that offers none
    // speaks HTTP/2 or shows right below that it does not: clients of Go's SwarmKit offer none
    // after they have renewed their certificate.
    let (_, session) = stream.get_ref();
    let peer = match session.peer_certificates().and_then(<[_]>::first) {
        None => Peer::Anonymous,
        Some(leaf) => match swarm_ca::identity::read_der(leaf) {
            Ok(identity) => Peer::Certified(Arc::new(identity)),
            Err(error) => {
                let reason = Refused::CertificateInvalid;
                return Err(Failure::new(reason, error.to_string()));
            }
        },
    };
    read_preface(door, &mut stream).await?;
    Ok((stream, PREFACE, peer))
}

/// Reads what an HTTP/2 client says first, as far as it is that: who speaks another protocol may
/// wait for an answer after fewer bytes.
async fn read_preface(door: &Door, stream: &mut TlsStream<Socket>) -> Result<(), Failure> {
    let mut preface = [0; PREFACE_BYTES];
    let mut read = 0;
    while read < PREFACE_BYTES {
        let more = stream
            .read(&mut preface[read..])
            .await
            .map_err(|error| handshake_failure(&error, door.refusals.clock().now()))?;
        read += more;
        let said = &preface[..read];
        if !PREFACE.starts_with(said) {
            let text = format!(
                "the peer does not speak HTTP/2: it began with {}",
                words::first_line(said)
            );
            return Err(Failure::new(Refused::NoHttp2, text));
        }
        if more == 0 {
            let text = "the peer closed the connection before it began to speak HTTP/2";
            return Err(Failure::new(Refused::HandshakeFailed, text));
        }
    }
    Ok(())
}

fn handshake_failure(error: &io::Error, now: swarm_types::Timestamp) -> Failure {
    match words::tls_error(error) {
        Some(error) => Failure::new(
            words::reason(error),
            words::explain(error, words::Side::Server, now),
        ),
        None => Failure::new(Refused::HandshakeFailed, words::plain(error)),
    }
}

impl Door {
    /// Hands a connection to whoever serves it.
    async fn show_in(&self, mut io: TlsIo) {
        let lane = match io.shared().peer() {
            Peer::Certified(identity) if !identity.is_manager() => self.lane(&io),
            Peer::Certified(_) | Peer::Anonymous | Peer::Local => None,
        };
        let ready = match lane {
            Some((lane, ready)) => {
                if let Err(error) = io.hand_over(lane.gatherer()) {
                    let remote = io.shared().remote();
                    tracing::warn!(%error, %remote, "a connection cannot be served");
                    return;
                }
                ready
            }
            None => &self.ready,
        };
        // Fails only when nobody serves any more.
        drop(ready.send(io).await);
    }

    fn lane(&self, io: &TlsIo) -> Option<&(Lane, mpsc::Sender<TlsIo>)> {
        let lanes = u64::try_from(self.lanes.len()).ok().filter(|it| *it > 0)?;
        let index = usize::try_from(io.shared().number() % lanes).ok()?;
        self.lanes.get(index)
    }

    fn in_progress(&self) -> std::sync::MutexGuard<'_, BTreeMap<Origin, usize>> {
        self.in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
