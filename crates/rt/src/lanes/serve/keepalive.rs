//! Finds out whether the peer of a quiet connection is still there.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// When a peer is asked, and when it counts as gone.
#[derive(Clone, Copy, Debug)]
pub struct Keepalive {
    /// Without a call for so long it is asked.
    pub interval: Duration,
    /// It has so long to answer.
    pub timeout: Duration,
}

/// What is known of one peer. A call moves no timer: the timer finds out that there was one when
/// it fires.
pub(super) struct Watch {
    keepalive: Keepalive,
    pings: PingPong,
    heard: Instant,
    is_asked: bool,
    timer: Pin<Box<Sleep>>,
}

impl Watch {
    pub(super) fn new(keepalive: Keepalive, pings: PingPong) -> Self {
        Self {
            keepalive,
            pings,
            heard: Instant::now(),
            is_asked: false,
            timer: Box::pin(tokio::time::sleep(keepalive.interval)),
        }
    }

    /// The peer made a call.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Ready when the peer is gone.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.is_asked
            && let Poll::Ready(answered) = self.pings.poll_pong(context)
        {
            if answered.is_err() {
                return Poll::Ready(());
            }
            self.is_asked = false;
            self.heard();
            self.rest();
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.is_asked {
                return Poll::Ready(());
            }
            if self.heard.elapsed() < self.keepalive.interval {
                self.rest();
                continue;
            }
            if self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.is_asked = true;
            let until = Instant::now() + self.keepalive.timeout;
            self.timer.as_mut().reset(until);
            if self.pings.poll_pong(context).is_ready() {
                // Not before the question went out.
                return Poll::Ready(());
            }
        }
    }

    fn rest(&mut self) {
        let until = self.heard + self.keepalive.interval;
        self.timer.as_mut().reset(until);
    }
}
