//! A socket that may be used until a moment and no longer, however lively its peer is: one that
//! sends a byte now and then would otherwise keep its thread for good.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use swarm_rt::Clock;

pub(super) struct Timed {
    stream: TcpStream,
    clock: Clock,
    /// By the monotonic clock.
    until: Duration,
}

impl Timed {
    /// Gives a socket so much time from now on.
    pub(super) fn new(stream: TcpStream, clock: Clock, time: Duration) -> Self {
        let until = clock.monotonic().saturating_add(time);
        Self {
            stream,
            clock,
            until,
        }
    }

    /// What is left; an error when it is nothing.
    fn left(&self) -> io::Result<Option<Duration>> {
        match self.until.saturating_sub(self.clock.monotonic()) {
            Duration::ZERO => Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "the time of the connection is over",
            )),
            left => Ok(Some(left)),
        }
    }
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.stream.set_read_timeout(self.left()?)?;
        self.stream.read(buffer)
    }
}

impl Write for Timed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    fn a_peer_that_sends_a_byte_now_and_then_gets_no_more_time() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (stream, _) = listener.accept().unwrap();
        let trickle = std::thread::spawn(move || {
            let pause = Some(Duration::from_millis(10));
            peer.set_read_timeout(pause).unwrap();
            // Much more than there is time for, and an end, so that the test has one.
            for _ in 0..500 {
                if peer.write_all(b"x").is_err() {
                    return;
                }
                let _ = peer.read(&mut [0]);
            }
        });
        let mut timed = Timed::new(stream, Clock::new(), Duration::from_millis(100));
        let mut read = Vec::new();
        let error = timed.read_to_end(&mut read).unwrap_err();
        let is_late = [io::ErrorKind::TimedOut, io::ErrorKind::WouldBlock];
        assert!(is_late.contains(&error.kind()), "{error:?}");
        assert!(timed.write(b"x").is_err());
        drop(timed);
        trickle.join().unwrap();
    }
}
