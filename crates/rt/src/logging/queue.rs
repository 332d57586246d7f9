//! Lines on their way to standard error.
//!
//! Owns the queue, its bound, and the thread that empties it. Whoever logs neither waits for the
//! file or pipe behind standard error nor learns that it is full or closed.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::Clock;

/// Bytes of lines that wait to be written, at most; later ones are dropped.
pub const QUEUE_BYTES_MAX: usize = 1 << 20;

/// Between two lines that say how many were dropped, at least.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// How long one line may wait for a standard error that is not ready.
const READY_TIMEOUT_MS: u16 = 1000;

/// Lines that wait, and what became of those that did not fit.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether the thread has taken lines that it has not written yet.
    is_writing: bool,
    dropped: u64,
    /// How many of those the log has told of.
    told: u64,
}

impl Queue {
    /// Takes a line, or counts it when there is no room.
    pub(super) fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.bytes + line.len() > QUEUE_BYTES_MAX {
            state.dropped += 1;
            return;
        }
        state.bytes += line.len();
        state.lines.push_back(line.to_vec());
        drop(state);
        self.changed.notify_all();
    }

    /// Lines that could not be written since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.lock().dropped
    }

    /// Waits until all lines are written or dropped, at most for `limit`.
    pub(super) fn flush(&self, limit: Duration) {
        let state = self.lock();
        // Whatever the end of the wait, there is nothing more to do.
        drop(
            self.changed
                .wait_timeout_while(state, limit, |state| {
                    state.is_writing || !state.lines.is_empty()
                })
                .map(drop),
        );
    }

    /// Writes lines for ever.
    pub(super) fn run(&self, out: &mut dyn Write) {
        let clock = Clock::new();
        let mut next_tell = clock.monotonic();
        loop {
            let lines = self.take();
            let (written, failed) = write(out, &lines);
            let untold = self.settle(failed);
            if written > 0 && untold > 0 && clock.monotonic() >= next_tell {
                next_tell = clock.monotonic() + TELL_INTERVAL;
                self.tell();
            }
        }
    }

    /// Takes what waits, as soon as something does.
    fn take(&self) -> VecDeque<Vec<u8>> {
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.lines.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        state.is_writing = true;
        std::mem::take(&mut state.lines)
    }

    /// Counts what failed, makes room for what was taken, and returns how many dropped lines the
    /// log has not told of.
    fn settle(&self, failed: u64) -> u64 {
        let mut state = self.lock();
        state.is_writing = false;
        state.bytes = state.lines.iter().map(Vec::len).sum();
        state.dropped += failed;
        let untold = state.dropped - state.told;
        drop(state);
        self.changed.notify_all();
        untold
    }

    /// Puts a line about the dropped ones behind the others.
    fn tell(&self) {
        let mut state = self.lock();
        let lines = state.dropped - state.told;
        state.told = state.dropped;
        drop(state);
        self.changed.notify_all();
        tracing::warn!(
            lines,
            "lines of this log could not be written and were dropped"
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes lines one by one; returns how many went and how many did not.
fn write(out: &mut dyn Write, lines: &VecDeque<Vec<u8>>) -> (u64, u64) {
    let (mut written, mut failed) = (0, 0);
    for line in lines {
        match out.write_all(line).and_then(|()| out.flush()) {
            Ok(()) => written += 1,
            Err(_) => failed += 1,
        }
    }
    (written, failed)
}

/// Standard error, which may be shared with a program that made it non-blocking, and on which a
/// line may have been cut off by a full disk.
#[derive(Debug, Default)]
pub(super) struct Stderr {
    is_torn: bool,
}

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = match io::stderr().write(bytes) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let stderr = io::stderr();
                let mut fds = [PollFd::new(
                    std::os::fd::AsFd::as_fd(&stderr),
                    PollFlags::POLLOUT,
                )];
                poll(&mut fds, PollTimeout::from(READY_TIMEOUT_MS))?;
                io::stderr().write(bytes)
            }
            other => other,
        };
        if let Ok(count) = written {
            self.is_torn = count < bytes.len();
        }
        written
    }

    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            // The rest of a line that was cut off is lost; the next one begins a line of its own.
            self.write(b"\n")?;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.write(rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => rest = &rest[count..],
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    /// Fails as long as it is told to, and hands on what it writes.
    struct Faulty {
        gate: mpsc::Receiver<bool>,
        lines: mpsc::Sender<Vec<u8>>,
    }

    impl Write for Faulty {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Blocks until the test lets the line through or not, as a pipe that nobody reads.
            match self.gate.recv() {
                Ok(true) => {
                    drop(self.lines.send(bytes.to_vec()));
                    Ok(bytes.len())
                }
                Ok(false) | Err(_) => Err(ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    type Ends = (&'static Queue, mpsc::Sender<bool>, mpsc::Receiver<Vec<u8>>);

    fn start() -> Ends {
        let queue: &'static Queue = Box::leak(Box::default());
        let (open, gate) = mpsc::channel();
        let (lines, written) = mpsc::channel();
        std::thread::spawn(move || queue.run(&mut Faulty { gate, lines }));
        (queue, open, written)
    }

    #[test]
    fn lines_that_cannot_be_written_are_counted_and_the_next_ones_are_tried_again() {
        let (queue, open, written) = start();
        for passes in [false, false, true] {
            queue.push(b"line\n");
            open.send(passes).unwrap();
            queue.flush(LIMIT);
        }
        assert_eq!(queue.dropped(), 2);
        assert_eq!(written.recv_timeout(LIMIT).unwrap(), b"line\n");
        let (state, told) = queue
            .changed
            .wait_timeout_while(queue.lock(), LIMIT, |state| state.told < 2)
            .unwrap();
        assert!(!told.timed_out(), "the log tells of them when it can");
        assert_eq!((state.bytes, state.lines.len()), (0, 0));
    }

    #[test]
    fn a_reader_that_stopped_blocks_nobody_and_costs_no_more_than_the_bound() {
        let (queue, open, written) = start();
        let line = vec![b'x'; 64 << 10];
        let count = 3 * QUEUE_BYTES_MAX / line.len();
        for _ in 0..count {
            queue.push(&line);
        }
        let kept = QUEUE_BYTES_MAX / line.len();
        assert_eq!(queue.dropped(), (count - kept) as u64);
        queue.flush(Duration::ZERO);
        for _ in 0..kept {
            open.send(true).unwrap();
        }
        queue.flush(LIMIT);
        assert_eq!(written.try_iter().count(), kept);
        queue.push(b"later\n");
        open.send(true).unwrap();
        assert_eq!(written.recv_timeout(LIMIT).unwrap(), b"later\n");
    }
}
