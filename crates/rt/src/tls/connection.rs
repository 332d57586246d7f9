//! The connections that are open on a listener: who is at the other end, and how one is closed
//! from this side.
//!
//! A connection is closed in two steps. First it is marked: whoever serves it refuses further calls
//! and ends streams with the reason. After [`LAST_WORDS`] the socket is closed, whatever the peer
//! does.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use swarm_ca::identity::CertIdentity;
use swarm_types::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use crate::lanes::{Gatherer, Socket};
use crate::metrics::{Gauge, Metrics, Refused};

/// How long a connection that is being closed lives on, so that the reason reaches the peer.
pub const LAST_WORDS: Duration = Duration::from_millis(500);
/// How long a connection without a certificate may live. Getting a certificate takes seconds, and
/// whoever waits longer for it dials again.
pub const ANONYMOUS_LIFETIME: Duration = Duration::from_secs(120);

/// Who is at the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This machine's control socket.
    Local,
    /// A node with a certificate that one of our roots vouches for.
    Certified(Arc<CertIdentity>),
    /// Somebody without a certificate.
    Anonymous,
}

impl Peer {
    /// The node, unless it is this one or nobody knows.
    pub fn node(&self) -> Option<&NodeId> {
        match self {
            Self::Certified(identity) => Some(&identity.node),
            Self::Local | Self::Anonymous => None,
        }
    }
}

/// One open connection.
pub struct Connection {
    number: u64,
    remote: SocketAddr,
    peer: Peer,
    closing: OnceLock<String>,
    /// The task that reads the socket, to wake it when the connection is to close.
    reader: Mutex<Option<Waker>>,
    calls: AtomicU32,
    metrics: Metrics,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection")
            .field("number", &self.number)
            .field("remote", &self.remote)
            .field("peer", &self.peer)
            .field("closing", &self.closing.get())
            .finish_non_exhaustive()
    }
}

impl Connection {
    /// Distinguishes the connections of a listener.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the peer dials from.
    pub fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Who is at the other end.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Why the connection is being closed, if it is.
    pub fn closing(&self) -> Option<&str> {
        self.closing.get().map(String::as_str)
    }

    /// Counts a call in progress; `None` when there are `max` already.
    pub fn begin_call(self: &Arc<Self>, max: u32) -> Option<CallPlace> {
        let place = CallPlace(Arc::clone(self));
        // The place gives its count back whether it is handed out or not.
        (self.calls.fetch_add(1, Ordering::AcqRel) < max).then_some(place)
    }

    /// The other end turned out to be gone without a word.
    pub(crate) fn count_half_open(&self) {
        self.metrics.refused(Refused::HalfOpen);
    }

    fn close(&self, reason: &str) {
        let is_first = self.closing.set(reason.to_owned()).is_ok();
        let reader = lock(&self.reader).take();
        if let Some(reader) = reader.filter(|_| is_first) {
            reader.wake();
        }
    }
}

/// A call in progress, until it is dropped.
#[derive(Debug)]
pub struct CallPlace(Arc<Connection>);

impl Drop for CallPlace {
    fn drop(&mut self) {
        self.0.calls.fetch_sub(1, Ordering::AcqRel);
    }
}

/// All open connections of a listener. Clones share them.
#[derive(Clone, Debug)]
pub struct Connections {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    open: Mutex<Open>,
    metrics: Metrics,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, Arc<Connection>>,
    by_node: BTreeMap<(NodeId, u64), ()>,
    anonymous: usize,
}

/// What a new connection runs into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full(pub(super) Refused);

impl Connections {
    pub(super) fn new(metrics: Metrics) -> Self {
        Self {
            inner: Arc::new(Inner {
                open: Mutex::default(),
                metrics,
            }),
        }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        lock(&self.inner.open).by_number.len()
    }

    /// Those of a node.
    pub fn of(&self, node: &NodeId) -> Vec<Arc<Connection>> {
        let open = lock(&self.inner.open);
        let numbers = open
            .by_node
            .range((node.clone(), 0)..=(node.clone(), u64::MAX));
        numbers
            .filter_map(|((_, number), ())| open.by_number.get(number).cloned())
            .collect()
    }

    /// Closes the connections of a node for which `is_meant` says so; how many these are.
    pub fn close_node(
        &self,
        node: &NodeId,
        reason: &str,
        is_meant: impl Fn(&Connection) -> bool,
    ) -> usize {
        let mut closed = 0;
        for connection in self.of(node) {
            if connection.closing().is_none() && is_meant(&connection) {
                connection.close(reason);
                closed += 1;
            }
        }
        closed
    }

    /// The nodes that have a connection with a certificate.
    pub fn nodes(&self) -> Vec<NodeId> {
        let open = lock(&self.inner.open);
        let mut nodes: Vec<NodeId> = open.by_node.keys().map(|(node, _)| node.clone()).collect();
        nodes.dedup();
        nodes
    }

    /// Takes a connection in.
    pub(super) fn admit(
        &self,
        stream: TlsStream<Socket>,
        preface: [u8; PREFACE_BYTES],
        remote: SocketAddr,
        peer: Peer,
        limits: &super::Limits,
    ) -> Result<TlsIo, Full> {
        let gauge = self.inner.metrics.connections(kind_of(&peer));
        let is_anonymous = peer == Peer::Anonymous;
        let connection = {
            let mut open = lock(&self.inner.open);
            if open.by_number.len() >= limits.connections_max {
                return Err(Full(Refused::TooManyConnections));
            }
            if is_anonymous && open.anonymous >= limits.anonymous_max {
                return Err(Full(Refused::TooManyAnonymous));
            }
            open.insert(remote, peer, self.inner.metrics.clone())
        };
        gauge.inc();
        let hang_up = is_anonymous.then(|| {
            let lifetime = Box::pin(tokio::time::sleep(ANONYMOUS_LIFETIME));
            (HangUp::Lifetime, lifetime)
        });
        Ok(TlsIo {
            stream: Box::new(stream),
            preface,
            preface_read: 0,
            hang_up,
            open: Place {
                connection,
                connections: self.clone(),
                gauge,
            },
        })
    }

    fn remove(&self, connection: &Connection) {
        let mut open = lock(&self.inner.open);
        open.by_number.remove(&connection.number);
        match &connection.peer {
            Peer::Certified(identity) => {
                let key = (identity.node.clone(), connection.number);
                open.by_node.remove(&key);
            }
            Peer::Anonymous => open.anonymous -= 1,
            Peer::Local => {}
        }
    }
}

impl Open {
    fn insert(&mut self, remote: SocketAddr, peer: Peer, metrics: Metrics) -> Arc<Connection> {
        let number = self.next;
        self.next += 1;
        match &peer {
            Peer::Certified(identity) => {
                self.by_node.insert((identity.node.clone(), number), ());
            }
            Peer::Anonymous => self.anonymous += 1,
            Peer::Local => {}
        }
        let connection = Arc::new(Connection {
            number,
            remote,
            peer,
            closing: OnceLock::new(),
            reader: Mutex::new(None),
            calls: AtomicU32::new(0),
            metrics,
        });
        self.by_number.insert(number, Arc::clone(&connection));
        connection
    }
}

fn kind_of(peer: &Peer) -> &'static str {
    match peer {
        Peer::Certified(identity) if identity.is_manager() => "manager",
        Peer::Certified(_) => "worker",
        Peer::Anonymous | Peer::Local => "none",
    }
}

/// The entry of a connection in the registry; removed when dropped.
struct Place {
    connection: Arc<Connection>,
    connections: Connections,
    gauge: Gauge,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.connections.remove(&self.connection);
        self.gauge.dec();
        // Streams that outlive their socket end as well.
        self.connection.close("the connection is closed");
    }
}

/// What an HTTP/2 client says first is this long.
pub(super) const PREFACE_BYTES: usize = 24;

/// Why the timer of a connection runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HangUp {
    /// It has no certificate and may not stay.
    Lifetime,
    /// It is being closed.
    LastWords,
}

/// The socket of a connection, after the handshake and the preface of HTTP/2.
pub struct TlsIo {
    /// Boxed, because it is large and moves through a channel.
    stream: Box<TlsStream<Socket>>,
    /// Was read to see that the peer speaks HTTP/2, and is handed on to who serves it.
    preface: [u8; PREFACE_BYTES],
    preface_read: usize,
    hang_up: Option<(HangUp, Pin<Box<Sleep>>)>,
    open: Place,
}

impl std::fmt::Debug for TlsIo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("TlsIo").field(&self.open.connection).finish()
    }
}

impl TlsIo {
    /// The connection.
    pub(crate) fn shared(&self) -> &Arc<Connection> {
        &self.open.connection
    }

    /// Hands the socket to a lane, on which this has to be read and written from now on.
    ///
    /// # Errors
    /// When the system refuses.
    pub(super) fn hand_over(&mut self, gatherer: &Gatherer) -> io::Result<()> {
        self.stream.get_mut().0.hand_over(gatherer)
    }

    /// Whether the time of the connection is over.
    fn poll_hang_up(&mut self, context: &mut Context<'_>) -> Poll<io::Error> {
        let connection = &self.open.connection;
        {
            let mut reader = lock(&connection.reader);
            if !reader
                .as_ref()
                .is_some_and(|waker| waker.will_wake(context.waker()))
            {
                *reader = Some(context.waker().clone());
            }
        }
        let is_speaking = matches!(self.hang_up, Some((HangUp::LastWords, _)));
        if connection.closing().is_some() && !is_speaking {
            let timer = Box::pin(tokio::time::sleep(LAST_WORDS));
            self.hang_up = Some((HangUp::LastWords, timer));
        }
        let Some((why, timer)) = &mut self.hang_up else {
            return Poll::Pending;
        };
        ready!(timer.as_mut().poll(context));
        let text = match why {
            HangUp::Lifetime => {
                let metrics = &self.open.connections.inner.metrics;
                metrics.refused(Refused::AnonymousTooLong);
                "a connection without a certificate may not stay"
            }
            HangUp::LastWords => connection.closing().unwrap_or_default(),
        };
        Poll::Ready(io::Error::new(io::ErrorKind::ConnectionAborted, text))
    }
}

impl Connected for TlsIo {
    type ConnectInfo = Arc<Connection>;

    fn connect_info(&self) -> Self::ConnectInfo {
        Arc::clone(&self.open.connection)
    }
}

impl AsyncRead for TlsIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(over) = self.poll_hang_up(context) {
            return Poll::Ready(Err(over));
        }
        let this = &mut *self;
        if let Some(rest) = this.preface.get(this.preface_read..)
            && !rest.is_empty()
        {
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..taken]);
            this.preface_read += taken;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *this.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
