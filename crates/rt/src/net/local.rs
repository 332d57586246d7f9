//! The connections of a control socket, which are accepted whatever else goes on.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};
use tokio::time::Sleep;
use tokio_stream::Stream;

use crate::Clock;
use crate::files::{self, Spare};
use crate::notices::Notices;

/// Connections that are accepted when no other file can be opened: the operator's, to find out why.
const SPARES: usize = 4;
/// Between two attempts to accept when the system refuses all the same.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// A control socket that somebody is to serve.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    spares: [Spare; SPARES],
    retry: Option<Pin<Box<Sleep>>>,
    notices: Notices,
    clock: Clock,
}

impl LocalListener {
    pub(super) fn new(listener: UnixListener) -> Self {
        Self {
            listener,
            spares: Default::default(),
            retry: None,
            notices: Notices::default(),
            clock: Clock::new(),
        }
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<UnixStream>> {
        let Self {
            listener, spares, ..
        } = self;
        // Before they are needed: then there is nothing to take.
        spares.iter_mut().for_each(Spare::refill);
        let mut accept = || match listener.poll_accept(context) {
            Poll::Ready(accepted) => accepted.map(|(stream, _)| Poll::Ready(stream)),
            Poll::Pending => Ok(Poll::Pending),
        };
        let mut last = accept();
        for spare in spares {
            match &last {
                Err(error) if files::is_exhausted(error) => last = spare.open(&mut accept),
                _ => break,
            }
        }
        match last {
            Ok(accepted) => accepted.map(Ok),
            Err(error) => Poll::Ready(Err(error)),
        }
    }
}

impl Stream for LocalListener {
    type Item = io::Result<UnixStream>;

    /// Never ends and never fails: whoever serves a failure would come back at once.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(retry) = &mut self.retry {
                ready!(retry.as_mut().poll(context));
                self.retry = None;
            }
            match ready!(self.poll_accept(context)) {
                Ok(stream) => return Poll::Ready(Some(Ok(stream))),
                Err(error) => {
                    let now = self.clock.monotonic();
                    if self.notices.ask(now).is_some() {
                        let error = files::in_words(&error);
                        tracing::warn!(error, "clients of the control socket have to wait");
                    }
                    self.retry = Some(Box::pin(tokio::time::sleep(ACCEPT_RETRY)));
                }
            }
        }
    }
}
