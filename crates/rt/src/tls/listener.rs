//! Accepts connections: TCP, then TLS, then the first words of HTTP/2, all within one deadline.
//!
//! A peer that stops halfway holds a place among the handshakes until the deadline and nothing
//! else; whoever serves the connections sees only those that spoke.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
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
use super::{ALPN_H2, Credentials, provider, verify, words};
use crate::lanes::{Lane, Socket};
use crate::metrics::{Metrics, Refused};
use crate::{Clock, OnError, Tasks};

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
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            handshakes_max: 1_024,
            handshakes_per_address_max: 512,
            connections_max: 50_000,
            anonymous_max: 1_024,
        }
    }
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
    let connections = Connections::new(metrics.clone());
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
        metrics,
        clock: Clock::new(),
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

fn config(credentials: &Credentials) -> ServerConfig {
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
    metrics: Metrics,
    clock: Clock,
    ready: mpsc::Sender<TlsIo>,
    /// For workers; without any they are served like everybody else.
    lanes: Vec<(Lane, mpsc::Sender<TlsIo>)>,
    /// Handshakes in progress by address.
    in_progress: Mutex<BTreeMap<IpAddr, usize>>,
}

async fn accept(door: &Arc<Door>, listener: &TcpListener) {
    // Bounded by `handshakes_max`; ends with this function.
    let mut handshakes = JoinSet::new();
    loop {
        let has_room = handshakes.len() < door.limits.handshakes_max;
        let accepted = tokio::select! {
            Some(_) = handshakes.join_next() => continue,
            accepted = listener.accept(), if has_room => accepted,
        };
        match accepted {
            Ok((stream, remote)) => match Step::begin(door, remote.ip()) {
                Some(step) => {
                    handshakes.spawn(enter(Arc::clone(door), stream, remote, step));
                }
                None => door.refuse(remote, Refused::TooManyHandshakes, "too many at once"),
            },
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// A handshake in progress, counted until it is dropped.
struct Step {
    door: Arc<Door>,
    address: IpAddr,
}

impl Step {
    fn begin(door: &Arc<Door>, address: IpAddr) -> Option<Self> {
        let mut in_progress = door.in_progress();
        let count = in_progress.entry(address).or_insert(0);
        if *count >= door.limits.handshakes_per_address_max {
            return None;
        }
        *count += 1;
        door.metrics.handshakes().inc();
        Some(Self {
            door: Arc::clone(door),
            address,
        })
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        let mut in_progress = self.door.in_progress();
        if let Some(count) = in_progress.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                in_progress.remove(&self.address);
            }
        }
        self.door.metrics.handshakes().dec();
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
                .map_err(|Full(reason)| Failure::new(reason, "the manager is full"))
        }),
        Err(_) => {
            let text = format!("nothing came of it within {} s", limit.as_secs());
            Err(Failure::new(Refused::HandshakeTimeout, text))
        }
    };
    drop(step);
    match entered {
        Ok(io) => door.show_in(io).await,
        Err(failure) => door.refuse(remote, failure.reason, &failure.text),
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
        .map_err(|error| handshake_failure(&error, door.clock.now()))?;
    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(ALPN_H2) {
        let text = "the peer does not agree to HTTP/2";
        return Err(Failure::new(Refused::NoHttp2, text));
    }
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
    let mut preface = [0; PREFACE_BYTES];
    stream
        .read_exact(&mut preface)
        .await
        .map_err(|error| handshake_failure(&error, door.clock.now()))?;
    if preface != PREFACE {
        let text = "the peer does not speak HTTP/2";
        return Err(Failure::new(Refused::NoHttp2, text));
    }
    Ok((stream, preface, peer))
}

fn handshake_failure(error: &io::Error, now: swarm_types::Timestamp) -> Failure {
    match words::tls_error(error) {
        Some(error) => Failure::new(
            words::reason(error),
            words::explain(error, words::Side::Server, now),
        ),
        None => Failure::new(Refused::HandshakeFailed, error.to_string()),
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

    fn in_progress(&self) -> std::sync::MutexGuard<'_, BTreeMap<IpAddr, usize>> {
        self.in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, remote: SocketAddr, reason: Refused, text: &str) {
        self.metrics.refused(reason);
        // Anybody who reaches the port can cause this line, so it is not a warning.
        tracing::info!(%remote, reason = reason.label(), text, "connection refused");
    }
}
