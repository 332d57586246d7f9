//! Writing a snapshot file beside the raft thread.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use swarm_raft::disk::{Disk, DiskError};
use swarm_raft::snapshot::{SnapshotMeta, SnapshotTicket, SnapshotWriter};

use super::SnapshotPieces;

/// A snapshot being written.
pub(super) struct Job {
    thread: JoinHandle<()>,
    abort: Arc<AtomicBool>,
}

/// What became of it.
pub(super) enum Outcome {
    /// Durable, of that many bytes.
    Written(SnapshotMeta, u64),
    /// Not there; the disk says why.
    Failed(DiskError),
    /// Given up because the member stops.
    Abandoned,
}

impl Job {
    /// Starts a thread that writes the pieces and then calls `done`.
    pub(super) fn start<D: Disk + Send + 'static>(
        disk: D,
        ticket: SnapshotTicket,
        pieces: SnapshotPieces,
        done: impl FnOnce(Outcome) + Send + 'static,
    ) -> io::Result<Job> {
        let abort = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&abort);
        let thread = std::thread::Builder::new()
            .name("raft-snapshot".to_owned())
            .spawn(move || done(write(disk, ticket, pieces, &flag)))?;
        Ok(Job { thread, abort })
    }

    /// Gives the snapshot up and waits for the thread: at most one piece is still written.
    pub(super) fn abandon(self) {
        self.abort.store(true, Ordering::Release);
        if self.thread.join().is_err() {
            tracing::error!("the thread that wrote a raft snapshot ended in a panic");
        }
    }
}

fn write<D: Disk>(
    disk: D,
    ticket: SnapshotTicket,
    pieces: SnapshotPieces,
    abort: &AtomicBool,
) -> Outcome {
    let mut writer = match SnapshotWriter::begin(disk, &ticket) {
        Ok(writer) => writer,
        Err(error) => return Outcome::Failed(error),
    };
    for piece in pieces {
        let aborted = abort.load(Ordering::Acquire);
        let result = if aborted { Ok(()) } else { writer.push(&piece) };
        if aborted || result.is_err() {
            // What stays is removed at the next start.
            drop(writer.abandon());
            return result.map_or_else(Outcome::Failed, |()| Outcome::Abandoned);
        }
    }
    match writer.finish() {
        Ok(bytes) => Outcome::Written(ticket.meta, bytes),
        Err(error) => Outcome::Failed(error),
    }
}
