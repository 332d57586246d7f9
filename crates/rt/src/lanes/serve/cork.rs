//! Holds what a turn of a connection has to say until the turn has read everything.
//!
//! HTTP/2 answers a PING as soon as it has read it, in a write of its own, also when the call that
//! came with it is answered a moment later. With a cork in between both go out together: one record
//! of TLS and one call of the system instead of two.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More than this is not held: it is worth a write of its own.
const HELD_BYTES_MAX: usize = 1 << 10;

/// A connection with a cork.
#[derive(Debug)]
pub(super) struct Corked<I> {
    inner: I,
    held: BytesMut,
    cork: Cork,
}

/// What the turn has in hand. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Cork(Arc<State>);

#[derive(Debug, Default)]
struct State {
    is_in: AtomicBool,
    is_holding: AtomicBool,
}

impl Cork {
    /// What is small waits from now on.
    pub(super) fn put_in(&self) {
        self.0.is_in.store(true, Ordering::Release);
    }

    /// What was held goes with the next flush; whether it was in and that is anything.
    pub(super) fn take_out(&self) -> bool {
        let was_in = self.0.is_in.swap(false, Ordering::AcqRel);
        was_in && self.0.is_holding.load(Ordering::Acquire)
    }

    fn is_in(&self) -> bool {
        self.0.is_in.load(Ordering::Acquire)
    }
}

impl<I> Corked<I> {
    pub(super) fn new(inner: I, cork: Cork) -> Self {
        Self {
            inner,
            held: BytesMut::new(),
            cork,
        }
    }

    fn hold(&mut self, bytes: &[u8]) {
        self.held.extend_from_slice(bytes);
        self.cork.0.is_holding.store(true, Ordering::Release);
    }
}

impl<I: AsyncWrite + Unpin> Corked<I> {
    fn poll_drain(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.held.is_empty() {
            let inner = Pin::new(&mut self.inner);
            let written = ready!(inner.poll_write(context, &self.held))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.held.advance(written);
        }
        // A quiet connection keeps no buffer.
        self.held = BytesMut::new();
        self.cork.0.is_holding.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Corked<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_read(context, buffer)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Corked<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let joins = this.cork.is_in() || !this.held.is_empty();
        if joins && this.held.len() + bytes.len() <= HELD_BYTES_MAX {
            this.hold(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.cork.is_in() {
            return Poll::Ready(Ok(()));
        }
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_drain(context))?;
        Pin::new(&mut this.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.cork.is_in() || !this.held.is_empty() {
            let first = slices.iter().find(|slice| !slice.is_empty());
            let first = first.map_or(&[][..], |slice| slice);
            return Pin::new(this).poll_write(context, first);
        }
        Pin::new(&mut this.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Notes each write by itself.
    #[derive(Debug, Default)]
    struct Writes(Vec<Vec<u8>>);

    impl AsyncWrite for Writes {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.get_mut().0.push(bytes.to_vec());
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn say(corked: &mut Corked<Writes>, bytes: &[u8]) {
        let context = &mut Context::from_waker(Waker::noop());
        let written = Pin::new(&mut *corked).poll_write(context, bytes);
        assert!(matches!(written, Poll::Ready(Ok(count)) if count == bytes.len()));
        assert!(matches!(
            Pin::new(corked).poll_flush(context),
            Poll::Ready(Ok(()))
        ));
    }

    #[test]
    fn what_is_said_with_the_cork_in_goes_out_with_what_follows() {
        let cork = Cork::default();
        let mut corked = Corked::new(Writes::default(), cork.clone());
        cork.put_in();
        say(&mut corked, b"pong");
        assert!(corked.inner.0.is_empty());
        assert!(cork.take_out(), "something waits");
        say(&mut corked, b"answer");
        assert_eq!(corked.inner.0, [b"ponganswer"]);
        assert!(!cork.take_out());
        say(&mut corked, b"more");
        assert_eq!(corked.inner.0.len(), 2, "it is out");
    }

    #[test]
    fn nothing_large_is_held_and_the_order_stays() {
        let cork = Cork::default();
        let mut corked = Corked::new(Writes::default(), cork.clone());
        cork.put_in();
        say(&mut corked, b"small");
        say(&mut corked, &[7; HELD_BYTES_MAX]);
        assert_eq!(corked.inner.0, [b"small".to_vec(), vec![7; HELD_BYTES_MAX]]);
        assert!(!cork.take_out());
    }
}
