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
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use swarm_ca::identity::CertIdentity;
use swarm_types::NodeId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::Limits;
use super::meter::{Meter, Overdrawn, goodbye};
use super::refusals::Refusals;
use crate::crowd::{Crowd, Origin};
use crate::lanes::{Gatherer, Socket};
use crate::metrics::{Gauge, Refused};

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
    local: Option<SocketAddr>,
    peer: Peer,
    closing: OnceLock<String>,
    /// Its place is needed: there is no time for last words.
    is_urgent: AtomicBool,
    /// The task that reads the socket, to wake it when the connection is to close.
    reader: Mutex<Option<Waker>>,
    calls: AtomicU32,
    refusals: Arc<Refusals>,
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

    /// The address of this machine at which the peer arrived, unless the system forgot it.
    pub fn local(&self) -> Option<SocketAddr> {
        self.local
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
    pub(crate) fn note_half_open(&self) {
        let text = "the peer does not answer any more";
        self.refusals.end(self.remote, Refused::HalfOpen, text);
    }

    /// Closes it without last words.
    fn close_at_once(&self, reason: &str) {
        self.is_urgent.store(true, Ordering::Release);
        self.close(reason);
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
    refusals: Arc<Refusals>,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    by_number: BTreeMap<u64, Arc<Connection>>,
    by_node: BTreeMap<(NodeId, u64), ()>,
    anonymous: Crowd,
}

/// What a new connection runs into, or an old one that has to go for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Full {
    pub(super) reason: Refused,
    pub(super) text: String,
}

/// A connection that has to go for another one, and why.
type Displaced = (Arc<Connection>, Full);

impl Connections {
    pub(super) fn new(refusals: Arc<Refusals>) -> Self {
        Self {
            inner: Arc::new(Inner {
                open: Mutex::default(),
                refusals,
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

    /// Takes a connection in; another one may have to go for it.
    pub(super) fn admit(
        &self,
        stream: TlsStream<Socket>,
        preface: [u8; PREFACE_BYTES],
        remote: SocketAddr,
        peer: Peer,
        limits: &Limits,
    ) -> Result<TlsIo, Full> {
        let refusals = &self.inner.refusals;
        let gauge = refusals.metrics().connections(kind_of(&peer));
        let is_anonymous = peer == Peer::Anonymous;
        let ends = (remote, stream.get_ref().0.local());
        let (connection, displaced) = {
            let mut open = lock(&self.inner.open);
            let displaced = open.make_room(remote, &peer, limits)?;
            (open.insert(ends, peer, Arc::clone(refusals)), displaced)
        };
        if let Some((old, Full { reason, text })) = displaced {
            refusals.end(old.remote, reason, &text);
            old.close_at_once(&text);
        }
        gauge.inc();
        let hang_up = is_anonymous.then(|| {
            let lifetime = Box::pin(tokio::time::sleep(ANONYMOUS_LIFETIME));
            (HangUp::Lifetime, lifetime)
        });
        Ok(TlsIo {
            stream: Box::new(stream),
            preface,
            preface_read: 0,
            meter: Meter::new(refusals.clock().monotonic()),
            is_deaf: false,
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
            Peer::Anonymous => {
                let origin = Origin::from(connection.remote.ip());
                open.anonymous.leave(origin, connection.number);
            }
            Peer::Local => {}
        }
    }
}

impl Open {
    /// Finds a place for a connection: which other one has to go for it, if one does.
    fn make_room(
        &mut self,
        remote: SocketAddr,
        peer: &Peer,
        limits: &Limits,
    ) -> Result<Option<Displaced>, Full> {
        let most = limits.connections_max;
        if self.by_number.len() >= most {
            let text = format!(
                "the manager has {most} connections, which is the most with the files that it may \
                 open; raise its limit (ulimit -n, LimitNOFILE=)"
            );
            let reason = Refused::TooManyConnections;
            return Err(Full { reason, text });
        }
        match peer {
            Peer::Anonymous => self.make_room_for_anonymous(remote, limits),
            Peer::Certified(identity) => Ok(self.make_room_for_node(&identity.node, limits)),
            Peer::Local => Ok(None),
        }
    }

    fn make_room_for_anonymous(
        &mut self,
        remote: SocketAddr,
        limits: &Limits,
    ) -> Result<Option<Displaced>, Full> {
        let reason = Refused::TooManyAnonymous;
        let (origin, most) = (Origin::from(remote.ip()), limits.anonymous_per_address_max);
        if self.anonymous.of(origin) >= most {
            let text = format!(
                "{} has {most} connections without a certificate, which is the most from one \
                 address; close some",
                remote.ip()
            );
            return Err(Full { reason, text });
        }
        let most = limits.anonymous_max;
        if self.anonymous.count() < most {
            return Ok(None);
        }
        let text = format!(
            "there are {most} connections without a certificate, which is the most; join again \
             later"
        );
        let Some(number) = self.anonymous.give_way(origin) else {
            return Err(Full { reason, text });
        };
        let full = Full { reason, text };
        Ok(self
            .by_number
            .get(&number)
            .map(|old| (Arc::clone(old), full)))
    }

    fn make_room_for_node(&self, node: &NodeId, limits: &Limits) -> Option<Displaced> {
        let numbers = self
            .by_node
            .range((node.clone(), 0)..=(node.clone(), u64::MAX));
        let open = numbers
            .filter_map(|((_, number), ())| self.by_number.get(number))
            .filter(|it| it.closing().is_none());
        let most = limits.node_connections_max;
        if open.clone().count() < most {
            return None;
        }
        let text = format!(
            "node {node} has {most} connections, which is the most of one node, and opens another \
             one: this was the oldest"
        );
        let reason = Refused::TooManyOfNode;
        let oldest = open.clone().next()?;
        Some((Arc::clone(oldest), Full { reason, text }))
    }

    fn insert(
        &mut self,
        (remote, local): (SocketAddr, Option<SocketAddr>),
        peer: Peer,
        refusals: Arc<Refusals>,
    ) -> Arc<Connection> {
        let number = self.next;
        self.next += 1;
        match &peer {
            Peer::Certified(identity) => {
                self.by_node.insert((identity.node.clone(), number), ());
            }
            Peer::Anonymous => self.anonymous.enter(Origin::from(remote.ip()), number),
            Peer::Local => {}
        }
        let connection = Arc::new(Connection {
            number,
            remote,
            local,
            peer,
            closing: OnceLock::new(),
            is_urgent: AtomicBool::new(false),
            reader: Mutex::new(None),
            calls: AtomicU32::new(0),
            refusals,
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
    meter: Meter,
    /// The peer is not listened to any more.
    is_deaf: bool,
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
        if let Some(reason) = connection.closing()
            && connection.is_urgent.load(Ordering::Acquire)
        {
            return Poll::Ready(aborted(reason));
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
                let text = "a connection without a certificate may not stay";
                let reason = Refused::AnonymousTooLong;
                connection.refusals.end(connection.remote, reason, text);
                text
            }
            HangUp::LastWords => connection.closing().unwrap_or_default(),
        };
        Poll::Ready(aborted(text))
    }

    /// The peer sends more of what it needs no answer to than anybody does who means well. It is
    /// told so and not listened to any more.
    fn hush(&mut self, over: Overdrawn, context: &mut Context<'_>) {
        self.is_deaf = true;
        let text = format!(
            "more frames of HTTP/2 than the calls on this connection explain, the last of them {}; \
             send fewer pings, settings and window updates",
            over.kind
        );
        let connection = &self.open.connection;
        let (remote, reason) = (connection.remote, Refused::FrameFlood);
        connection.refusals.end(remote, reason, &text);
        connection.close(&text);
        if self.meter.is_between_frames() {
            // If it does not fit in at once, the peer does not read anyway.
            let _ = Pin::new(&mut *self.stream).poll_write(context, &goodbye(&text));
            let _ = Pin::new(&mut *self.stream).poll_flush(context);
        }
    }
}

fn aborted(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, text)
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
        if this.is_deaf {
            return Poll::Pending;
        }
        if let Some(rest) = this.preface.get(this.preface_read..)
            && !rest.is_empty()
        {
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(&rest[..taken]);
            this.preface_read += taken;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut *this.stream).poll_read(context, buffer))?;
        let clock = this.open.connection.refusals.clock();
        let read = &buffer.filled()[before..];
        let Err(over) = this.meter.received(read, || clock.monotonic()) else {
            return Poll::Ready(Ok(()));
        };
        buffer.set_filled(before);
        this.hush(over, context);
        // Begins to wait for the end.
        this.poll_hang_up(context).map(Err)
    }
}

impl AsyncWrite for TlsIo {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut *self.stream).poll_write(context, bytes))?;
        self.meter.sent(&bytes[..written]);
        Poll::Ready(Ok(written))
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
        let written = ready!(Pin::new(&mut *self.stream).poll_write_vectored(context, slices))?;
        let mut left = written;
        for slice in slices {
            let own = slice.len().min(left);
            self.meter.sent(&slice[..own]);
            left -= own;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
