//! The disk as the log and the snapshots need it: a flat directory of files.
//!
//! Owns the trait and its error. Owns no implementation that touches a machine: real files are
//! in `swarm-raft-io`, a disk with faults in [`crate::simdisk`].

use std::fmt;

/// One directory of files.
///
/// What a caller may rely on after a loss of power, and nothing more:
///
/// - bytes written before a successful [`Disk::sync`] of that file are there;
/// - names made, changed or removed before a successful [`Disk::sync_dir`] stay so;
/// - everything else is there wholly, partly, or not at all, in any order.
///
/// Calls block. A file name is a plain name without a path separator.
pub trait Disk {
    /// All file names, sorted.
    fn list(&mut self) -> Result<Vec<String>, DiskError>;

    /// Makes a new file of `size` zero bytes with its blocks allocated.
    /// Fails with [`DiskErrorKind::Exists`] when the name is taken.
    fn create(&mut self, name: &str, size: u64) -> Result<(), DiskError>;

    /// The size of a file in bytes.
    fn len(&mut self, name: &str) -> Result<u64, DiskError>;

    /// Fills `buf` from `offset`; returns how many bytes there were, fewer only at the end.
    fn read_at(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError>;

    /// Writes all of `bytes` at `offset`, growing the file if need be. On an error any part of
    /// the bytes may have been written.
    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Cuts a file off at `len` bytes. When that becomes durable is open; nobody may depend on
    /// what is behind the cut, nor on its absence.
    fn truncate(&mut self, name: &str, len: u64) -> Result<(), DiskError>;

    /// Makes the content of a file durable. After an error nothing is known about the bytes
    /// written since the last success, and calling again proves nothing: the operating system
    /// may have dropped them.
    fn sync(&mut self, name: &str) -> Result<(), DiskError>;

    /// Gives a file another name and replaces what had that name.
    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    fn remove(&mut self, name: &str) -> Result<(), DiskError>;

    /// Makes names durable.
    fn sync_dir(&mut self) -> Result<(), DiskError>;
}

/// Reads a whole file.
pub fn read_all(disk: &mut dyn Disk, name: &str) -> Result<Vec<u8>, DiskError> {
    let len = disk.len(name)?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let read = disk.read_at(name, 0, &mut bytes)?;
    bytes.truncate(read);
    Ok(bytes)
}

/// What was being done when a disk failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskOp {
    /// Listing the directory.
    List,
    /// Making a file.
    Create,
    /// Reading a file or its size.
    Read,
    /// Writing or cutting off.
    Write,
    /// Making a file's content durable.
    Sync,
    /// Changing a name.
    Rename,
    /// Removing a file.
    Remove,
    /// Making names durable.
    SyncDir,
}

impl fmt::Display for DiskOp {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            DiskOp::List => "list directory",
            DiskOp::Create => "create file",
            DiskOp::Read => "read file",
            DiskOp::Write => "write file",
            DiskOp::Sync => "sync file",
            DiskOp::Rename => "rename file",
            DiskOp::Remove => "remove file",
            DiskOp::SyncDir => "sync directory after change of",
        })
    }
}

/// The kinds of disk failure that callers tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// The disk, or the quota on it, is full. Freeing space helps.
    Full,
    /// The process, or the machine, has as many files open as it may. Closing some helps.
    NoFiles,
    /// No such file.
    Missing,
    /// The name is taken.
    Exists,
    /// An open file is not in its place any more: what is written would be lost.
    Gone,
    /// Anything else; the message tells.
    Other,
}

/// A failed disk operation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{op} {file}: {message}")]
pub struct DiskError {
    /// What was attempted.
    pub op: DiskOp,
    /// On which file.
    pub file: String,
    /// Which kind of failure.
    pub kind: DiskErrorKind,
    /// What the system said.
    pub message: String,
}

impl DiskError {
    /// An error with its parts in order.
    pub fn new(op: DiskOp, file: &str, kind: DiskErrorKind, message: impl Into<String>) -> Self {
        DiskError {
            op,
            file: file.to_owned(),
            kind,
            message: message.into(),
        }
    }

    /// Whether freeing space is the way out.
    pub fn is_full(&self) -> bool {
        self.kind == DiskErrorKind::Full
    }

    /// Whether it is worth trying again: something has to be freed, and nothing is broken.
    pub fn passes(&self) -> bool {
        match self.kind {
            DiskErrorKind::Full | DiskErrorKind::NoFiles => true,
            DiskErrorKind::Missing
            | DiskErrorKind::Exists
            | DiskErrorKind::Gone
            | DiskErrorKind::Other => false,
        }
    }
}
