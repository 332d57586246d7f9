//! The pipes of the task's standard output and error, up to the files.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::clock;
use crate::logs::{Splitter, Stream, Writer};

/// Bytes read at once: the size of a pipe.
const READ_BYTES: usize = 64 * 1024;

/// One captured stream.
#[derive(Debug)]
pub(super) struct Output {
    /// `None` after its end.
    pipe: Option<File>,
    splitter: Splitter,
}

impl Output {
    pub(super) fn new(stream: Stream, pipe: Option<OwnedFd>) -> Self {
        Self {
            pipe: pipe.map(File::from),
            splitter: Splitter::new(stream),
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
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            // End of file; an error of a pipe cannot be anything better.
            Ok(_) | Err(_) => self.finish(writer),
        }
    }

    /// Ends the capture.
    pub(super) fn finish(&mut self, writer: &mut Writer) {
        self.pipe = None;
        writer.append(&self.splitter.finish(clock::wall_nanos()));
    }
}
