//! The pipes of the task's standard output and error, up to the files.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::clock;
use crate::logs::{Splitter, Stream, Writer};

/// Bytes read at once: the size of a pipe.
const READ_BYTES: usize = 64 * 1024;
/// How long output without the end of its line waits for it. With the readers' pauses, of 320 ms at
/// most, it is shown within a second; and so a program that writes dots makes three entries a
/// second.
const LINE_PATIENCE: Duration = Duration::from_millis(300);

/// One captured stream.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` after its end.
    pipe: Option<File>,
    splitter: Splitter,
    /// When to give out a line whose end has not come.
    flush_at: Option<Instant>,
}

impl Output {
    pub(super) fn new(stream: Stream, pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(File::from),
            splitter: Splitter::new(stream),
            flush_at: None,
        }
    }

    /// What to poll; `None` after the end.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.pipe.as_ref().map(AsFd::as_fd)
    }

    /// Takes what is there. Call only after poll said so: the pipe blocks.
    pub(super) fn handle_readable(&mut self, writer: &mut Writer) {
        let Some(pipe) = &mut self.pipe else { return };
        let mut buffer = vec![0; READ_BYTES];
        match pipe.read(&mut buffer) {
            Ok(count) if count > 0 => {
                let entries = self.splitter.push(&buffer[..count], clock::wall_nanos());
                writer.append(&entries);
                self.flush_at = match self.splitter.has_rest() {
                    true => self.flush_at.or_else(|| Some(clock::now() + LINE_PATIENCE)),
                    false => None,
                };
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // End of file; an error of a pipe cannot be anything better.
            Ok(_) | Err(_) => self.finish(writer),
        }
    }

    /// When to call [`Output::handle_timeout`].
    pub(super) fn timeout(&self) -> Option<Instant> {
        self.flush_at
    }

    /// Gives out a line that waits for its end for too long.
    pub(super) fn handle_timeout(&mut self, now: Instant, writer: &mut Writer) {
        if self.flush_at.is_some_and(|at| now >= at) {
            self.flush_at = None;
            writer.append(&self.splitter.flush(clock::wall_nanos()));
        }
    }

    /// Ends the capture.
    pub(super) fn finish(&mut self, writer: &mut Writer) {
        self.pipe = None;
        self.flush_at = None;
        writer.append(&self.splitter.finish(clock::wall_nanos()));
    }
}
