//! Makes the HTTP/2 of an agent look on the wire like that of grpc-go, which Go's agents and Docker
//! Engines are built on.
//!
//! What a client does beside its calls is a large part of what it costs an idle manager: after the
//! data of an answer grpc-go sends a PING, to estimate the bandwidth ([`estimator`]), and tells the
//! manager in front of it how much it has read ([`windows`]). The library that the agents use does
//! neither. So this stands between the library and the connection: it holds the windows that the
//! manager sees, puts those frames between the frames of the library, and keeps the library's own
//! settings and windows, which are as large as they can be, from the wire.
//!
//! By the sources of grpc-go 1.7x: nothing in the first SETTINGS, windows of 65,535 bytes, no
//! keep-alive of HTTP/2.

mod estimator;
mod frames;
mod windows;

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf as _, BytesMut};
use estimator::Estimator;
use frames::{Cursor, Head, Kind, Step};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use windows::Windows;

/// What the library is told to grant: it is never the library that holds the manager up.
pub(crate) const LIBRARY_WINDOW_BYTES: u32 = (1 << 31) - 1;
/// Taken from the connection at once.
const READ_BYTES: usize = 4 << 10;
/// May wait to be written before the library has to wait.
const UNWRITTEN_BYTES_MAX: usize = 64 << 10;
/// What every client begins with.
const PREFACE_BYTES: usize = 24;

/// A connection as grpc-go uses it.
#[derive(Debug)]
pub(crate) struct GrpcGo<I> {
    inner: I,
    wire: Wire,
}

/// What went over the wire, and what is on its way to either side.
#[derive(Debug)]
struct Wire {
    estimator: Estimator,
    windows: Windows,
    inbound: Cursor,
    outbound: Cursor,
    preface_left: usize,
    /// For the library.
    arrived: BytesMut,
    /// For the manager.
    unwritten: BytesMut,
    /// Ours, until the library is between two frames.
    held: BytesMut,
    /// The first SETTINGS of the library were acknowledged; what follows acknowledges ours.
    is_acknowledged: bool,
}

impl<I> GrpcGo<I> {
    pub(crate) fn new(inner: I) -> Self {
        Self {
            inner,
            wire: Wire::new(),
        }
    }
}

impl Wire {
    fn new() -> Self {
        Self {
            estimator: Estimator::new(),
            windows: Windows::new(),
            inbound: Cursor::default(),
            outbound: Cursor::default(),
            preface_left: PREFACE_BYTES,
            arrived: BytesMut::new(),
            unwritten: BytesMut::new(),
            held: BytesMut::new(),
            is_acknowledged: false,
        }
    }

    /// Takes what came from the manager.
    fn take_in(&mut self, mut bytes: &[u8], now: impl Fn() -> Instant) {
        while let Some(step) = self.inbound.advance(&mut bytes) {
            match step {
                Step::Begin(head) => {
                    if !self.is_for_us(head) {
                        self.arrived.extend_from_slice(&head.bytes());
                    }
                }
                Step::Payload(head, payload) => {
                    if head.kind == Kind::DATA {
                        self.windows.read(head.stream, payload, &mut self.held);
                    }
                    self.arrived.extend_from_slice(payload);
                }
                Step::End(head) => self.end_of_inbound(head, &now),
            }
        }
        self.release();
    }

    /// The library knows nothing of the settings that we send, and must not hear of their
    /// acknowledgement.
    fn is_for_us(&mut self, head: Head) -> bool {
        let is_settings = head.kind == Kind::SETTINGS && head.is_ack();
        is_settings && std::mem::replace(&mut self.is_acknowledged, true)
    }

    fn end_of_inbound(&mut self, head: Head, now: &impl Fn() -> Instant) {
        match head.kind {
            Kind::DATA => {
                let is_asked = self.estimator.received(head.length);
                self.windows.received(head.length, &mut self.held);
                if is_asked {
                    self.windows.tell_all(&mut self.held);
                    frames::ping(&mut self.held);
                    self.estimator.asked(now());
                }
            }
            // Nobody else asks on this connection: the library sends no PING by itself.
            Kind::PING if head.is_ack() => {
                if let Some(limit) = self.estimator.answered(now()) {
                    self.windows.widen(limit, &mut self.held);
                }
            }
            _ => {}
        }
        if head.kind == Kind::RESET || head.ends_stream() {
            self.windows.forget(head.stream);
        }
    }

    /// Takes what the library wants to send.
    fn take_out(&mut self, mut bytes: &[u8]) {
        let (preface, rest) = bytes.split_at(self.preface_left.min(bytes.len()));
        self.preface_left -= preface.len();
        self.unwritten.extend_from_slice(preface);
        bytes = rest;
        while let Some(step) = self.outbound.advance(&mut bytes) {
            match step {
                Step::Begin(head) if is_kept_back(head) => {
                    if head.kind == Kind::SETTINGS {
                        frames::settings(None, &mut self.unwritten);
                    }
                }
                Step::Begin(head) => self.unwritten.extend_from_slice(&head.bytes()),
                Step::Payload(head, _) if is_kept_back(head) => {}
                Step::Payload(_, payload) => self.unwritten.extend_from_slice(payload),
                Step::End(head) => {
                    if head.kind == Kind::RESET {
                        self.windows.forget(head.stream);
                    }
                    self.release();
                }
            }
        }
    }

    /// Puts our frames on the wire if that is between two of the library's.
    fn release(&mut self) {
        if self.preface_left == 0 && self.outbound.is_between_frames() {
            let held = self.held.split();
            self.unwritten.extend_from_slice(&held);
        }
    }
}

/// Whether grpc-go would not send what the library sends: its settings and its windows.
fn is_kept_back(head: Head) -> bool {
    let is_settings = head.kind == Kind::SETTINGS && !head.is_ack();
    is_settings || head.kind == Kind::WINDOW_UPDATE
}

impl<I: AsyncWrite + Unpin> GrpcGo<I> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.wire.unwritten.is_empty() {
            let inner = Pin::new(&mut self.inner);
            let written = ready!(inner.poll_write(context, &self.wire.unwritten))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.wire.unwritten.advance(written);
        }
        // A connection that says nothing keeps no buffer.
        self.wire.unwritten = BytesMut::new();
        Pin::new(&mut self.inner).poll_flush(context)
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for GrpcGo<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        while this.wire.arrived.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            this.wire.take_in(read.filled(), Instant::now);
            if !this.wire.unwritten.is_empty() {
                // What does not go out now goes with the next flush, which this wakes.
                let _ = this.poll_drain(context)?;
            }
        }
        let count = this.wire.arrived.len().min(buffer.remaining());
        buffer.put_slice(&this.wire.arrived.split_to(count));
        if this.wire.arrived.is_empty() {
            this.wire.arrived = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for GrpcGo<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.wire.unwritten.len() >= UNWRITTEN_BYTES_MAX {
            ready!(this.poll_drain(context))?;
        }
        this.wire.take_out(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests;
