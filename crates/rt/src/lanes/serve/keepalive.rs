//! Finds out whether the peer of a quiet connection is still there.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{Instant, Sleep};

/// How much longer than its time a peer has. When this process itself stood still, the answer may
/// lie in the socket, and the socket is looked at only after the timer.
const LAST_LOOK: Duration = Duration::from_secs(1);

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
    asked: Asked,
    timer: Pin<Box<Sleep>>,
}

/// How far a question is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
    /// Its time is over, and what has arrived is still to be read.
    Overdue,
}

impl Watch {
    pub(super) fn new(keepalive: Keepalive, pings: PingPong) -> Self {
        Self {
            keepalive,
            pings,
            heard: Instant::now(),
            asked: Asked::No,
            timer: Box::pin(tokio::time::sleep(keepalive.interval)),
        }
    }

    /// The peer made a call.
    pub(super) fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// Whether the peer owes an answer.
    pub(super) fn awaits_answer(&self) -> bool {
        self.asked != Asked::No
    }

    /// Ready when the peer is gone.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.asked != Asked::No
            && let Poll::Ready(answered) = self.pings.poll_pong(context)
        {
            if answered.is_err() {
                return Poll::Ready(());
            }
            self.asked = Asked::No;
            self.heard();
            self.rest();
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            match self.asked {
                Asked::No => {}
                Asked::Yes => {
                    self.asked = Asked::Overdue;
                    self.timer.as_mut().reset(Instant::now() + LAST_LOOK);
                    continue;
                }
                Asked::Overdue => return Poll::Ready(()),
            }
            if self.heard.elapsed() < self.keepalive.interval {
                self.rest();
                continue;
            }
            if self.pings.send_ping(Ping::opaque()).is_err() {
                return Poll::Ready(());
            }
            self.asked = Asked::Yes;
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

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use bytes::Bytes;
    use h2::{client, server};
    use tokio::io::DuplexStream;
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const KEEPALIVE: Keepalive = Keepalive {
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(5),
    };

    /// Both ends of a connection, each of which does something only when it is told to.
    struct Ends {
        watch: Watch,
        server: server::Connection<DuplexStream, Bytes>,
        client: client::Connection<DuplexStream, Bytes>,
        _requests: client::SendRequest<Bytes>,
    }

    impl Ends {
        async fn new() -> Self {
            let (near, far) = tokio::io::duplex(1 << 16);
            let client = client::handshake(far);
            let (server, client) = tokio::join!(server::handshake(near), client);
            let (mut server, (requests, client)) = (server.unwrap(), client.unwrap());
            let pings = server.ping_pong().unwrap();
            let mut ends = Self {
                watch: Watch::new(KEEPALIVE, pings),
                server,
                client,
                _requests: requests,
            };
            for _ in 0..3 {
                assert!(!ends.is_gone());
                ends.answer();
            }
            ends
        }

        /// A turn of the server's task, in the order that it has in a lane.
        fn is_gone(&mut self) -> bool {
            let mut context = Context::from_waker(Waker::noop());
            for _ in 0..2 {
                if self.watch.poll(&mut context).is_ready() {
                    return true;
                }
                assert!(self.server.poll_accept(&mut context).is_pending());
            }
            false
        }

        /// The client reads what has come, and answers.
        fn answer(&mut self) {
            let mut context = Context::from_waker(Waker::noop());
            assert!(Pin::new(&mut self.client).poll(&mut context).is_pending());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_whose_answer_lies_unread_while_we_stood_still_is_not_gone() {
        let mut ends = Ends::new().await;
        for _ in 0..3 {
            advance(KEEPALIVE.interval + SECOND).await;
            assert!(!ends.is_gone(), "it is asked");
            ends.answer();
            advance(100 * KEEPALIVE.timeout).await;
            assert!(!ends.is_gone(), "it has answered");
            advance(2 * LAST_LOOK).await;
            assert!(!ends.is_gone());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_does_not_answer_is_gone_a_little_after_its_time() {
        let mut ends = Ends::new().await;
        advance(KEEPALIVE.interval + SECOND).await;
        assert!(!ends.is_gone(), "it is asked");
        advance(KEEPALIVE.timeout).await;
        assert!(!ends.is_gone());
        advance(LAST_LOOK - SECOND / 10).await;
        assert!(!ends.is_gone());
        advance(SECOND / 5).await;
        assert!(ends.is_gone());
    }
}
