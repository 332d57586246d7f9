//! Why a log or a snapshot cannot be read or written.

use super::Identity;
use crate::disk::{DiskError, DiskErrorKind};
use crate::seal::KeyId;

/// Why a log cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// The disk refused. A full disk can be retried; see [`DiskError::passes`].
    #[error("log operation failed")]
    Disk(#[from] DiskError),
    /// A sync failed earlier, so what is on the disk is unknown.
    #[error("log is stopped: a sync failed earlier ({}){}", .0, way_out(.0))]
    Poisoned(DiskError),
    /// Bytes that were durable once do not read back.
    #[error(
        "file {file} of the raft log is corrupt at offset {offset}: {what}; restore the state \
         directory from a backup, or remove this manager from the cluster and join it again"
    )]
    Corrupt {
        /// Which file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
    /// The checksum is right but the seal is not: not a torn write.
    #[error(
        "file {file} of the raft log has a valid checksum at offset {offset} but does not open \
         under data key {key}: the key is wrong or the file was altered"
    )]
    Unsealable {
        /// Which file.
        file: String,
        /// Where in it, in bytes.
        offset: u64,
        /// The key that was tried.
        key: KeyId,
    },
    /// Sealed under a key that is not here.
    #[error("file {file} is sealed under data key {needed}, but the data key here is {current}")]
    WrongKey {
        /// Which file.
        file: String,
        /// Key named in the header.
        needed: KeyId,
        /// Key in hand.
        current: KeyId,
    },
    /// Written by a newer program.
    #[error("file {file} has format version {found}, this program reads up to {known}")]
    UnknownFormat {
        /// Which file.
        file: String,
        /// Version in the header.
        found: u32,
        /// Highest version known.
        known: u32,
    },
    /// The file belongs to another member or cluster.
    #[error("file {file} belongs to {found}, not to {expected}")]
    Foreign {
        /// Which file.
        file: String,
        /// Whose it is.
        found: Identity,
        /// Whose it should be.
        expected: Identity,
    },
    /// Entries between snapshot and log are gone.
    #[error(
        "entries {from} to {to} are missing: they are neither in a snapshot nor in the log; \
         restore the state directory from a backup, or remove this manager and join it again"
    )]
    Gap {
        /// First index missing.
        from: u64,
        /// Last index missing.
        to: u64,
    },
}

/// What to do about a sync that failed.
fn way_out(error: &DiskError) -> &'static str {
    match error.kind {
        DiskErrorKind::Gone => {
            "; put it back before the manager is started again, which would begin anew without it"
        }
        DiskErrorKind::Full
        | DiskErrorKind::NoFiles
        | DiskErrorKind::Missing
        | DiskErrorKind::Exists
        | DiskErrorKind::Other => " and what reached the disk is unknown; restart the manager",
    }
}

impl LogError {
    /// The refusal of the disk, if it is one after which the log itself is sound.
    pub fn disk(&self) -> Option<&DiskError> {
        match self {
            LogError::Disk(error) => Some(error),
            LogError::Poisoned(_)
            | LogError::Corrupt { .. }
            | LogError::Unsealable { .. }
            | LogError::WrongKey { .. }
            | LogError::UnknownFormat { .. }
            | LogError::Foreign { .. }
            | LogError::Gap { .. } => None,
        }
    }

    /// Whether the disk passes: see [`DiskError::passes`].
    pub fn passes(&self) -> bool {
        self.disk().is_some_and(DiskError::passes)
    }
}
