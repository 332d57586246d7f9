//! A TCP socket that belongs to the runtime which opened it, or to a lane.

use std::io::{self, Read as _, Write as _};
use std::net::{self, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;

use super::gather::{Direction, Entry, Gatherer};
use crate::net::{KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// Questions of the kernel without an answer, after which the connection is broken.
const PROBES: u32 = 5;

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    /// Woken by the runtime on which it was opened, each time by itself.
    Own(TcpStream),
    /// Woken by a lane, together with others.
    Gathered(Gathered),
    /// Closed.
    Closed,
}

/// A socket of a lane.
#[derive(Debug)]
pub(crate) struct Gathered {
    key: u64,
    entry: Arc<Entry>,
    gatherer: Gatherer,
}

impl Drop for Gathered {
    fn drop(&mut self) {
        self.gatherer.remove(&self.entry, self.key);
    }
}

impl Socket {
    /// The address of this machine at which the peer arrived; an IPv4 address as such, also where
    /// one listener takes both families.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        let local = match self {
            Self::Own(stream) => stream.local_addr(),
            Self::Gathered(gathered) => gathered.entry.stream.local_addr(),
            Self::Closed => return None,
        };
        let local = local.ok()?;
        Some(SocketAddr::new(local.ip().to_canonical(), local.port()))
    }

    /// Hands the socket to a lane. What has arrived already is found there.
    ///
    /// # Errors
    /// When the system refuses; the socket is closed then.
    pub(crate) fn hand_over(&mut self, gatherer: &Gatherer) -> io::Result<()> {
        let Self::Own(stream) = std::mem::replace(self, Self::Closed) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let stream = stream.into_std()?;
        watch(&stream)?;
        let (key, entry) = gatherer.add(stream)?;
        *self = Self::Gathered(Gathered {
            key,
            entry,
            gatherer: gatherer.clone(),
        });
        Ok(())
    }
}

/// Has the kernel find out about a peer whose machine is gone, for which no thread has to wake up.
fn watch(stream: &net::TcpStream) -> io::Result<()> {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    setsockopt(stream, sockopt::KeepAlive, &true)?;
    setsockopt(stream, sockopt::TcpKeepIdle, &seconds(KEEPALIVE_INTERVAL))?;
    let probe = seconds(KEEPALIVE_TIMEOUT / PROBES);
    setsockopt(stream, sockopt::TcpKeepInterval, &probe)?;
    setsockopt(stream, sockopt::TcpKeepCount, &PROBES)?;
    Ok(())
}

impl Gathered {
    /// Tries the socket until it does something or has to wait. `room` is how many bytes it could
    /// move: fewer mean that it has no more for now.
    fn attempt(
        &self,
        direction: Direction,
        context: &mut Context<'_>,
        room: usize,
        mut act: impl FnMut(&net::TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        // A peer that always has more must not keep the others of its lane waiting.
        let turn = ready!(coop::poll_proceed(context));
        loop {
            let Some(seen) = self.entry.try_or_wait(direction, context.waker()) else {
                return Poll::Pending;
            };
            match act(&self.entry.stream) {
                Ok(moved) => {
                    turn.made_progress();
                    if moved > 0 && moved < room {
                        self.entry.block(direction, seen, false);
                    }
                    self.gatherer.moved(&self.entry, direction, moved);
                    return Poll::Ready(Ok(moved));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.entry.block(direction, seen, true);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncRead for Gathered {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let read = ready!(
            self.attempt(Direction::Read, context, room.len(), |mut stream| stream
                .read(room))
        )?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Gathered {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.attempt(Direction::Write, context, bytes.len(), |mut stream| {
            stream.write(bytes)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.entry.stream.shutdown(net::Shutdown::Write))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let room = slices.iter().map(|slice| slice.len()).sum();
        self.attempt(Direction::Write, context, room, |mut stream| {
            stream.write_vectored(slices)
        })
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

fn closed<T>() -> Poll<io::Result<T>> {
    Poll::Ready(Err(io::ErrorKind::NotConnected.into()))
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Gathered(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Closed => closed(),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Gathered(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Closed => closed(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_flush(context),
            Self::Gathered(stream) => Pin::new(stream).poll_flush(context),
            Self::Closed => closed(),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Gathered(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Closed => closed(),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Own(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Gathered(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Closed => closed(),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}
