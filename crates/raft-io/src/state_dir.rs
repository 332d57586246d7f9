//! The state directory of a node: one process at a time.
//!
//! Owns the lock and the place of the raft directory. The rest of the state directory belongs to
//! others.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use swarm_rt::private;

/// Name of the lock file.
pub const LOCK_FILE: &str = "LOCK";

/// Name of the directory with log, snapshots and data key.
pub const RAFT_DIR: &str = "raft";

/// Bytes of the lock file that are looked at for a process id.
const PID_BYTES_MAX: u64 = 32;

/// Why the state directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process has it.
    #[error(
        "state directory {dir} is in use by another swarmd{}: stop it, or choose another state \
         directory",
        holder_hint(.holder)
    )]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Process id of the holder, if it is known.
        holder: String,
    },
    /// It is not there any more.
    #[error(
        "state directory {dir} was removed, renamed or replaced below this process: put it back \
         before swarmd is started again, or it begins anew without it"
    )]
    Gone {
        /// The directory.
        dir: PathBuf,
    },
    /// The system refused.
    #[error("cannot use state directory {dir}")]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

fn holder_hint(holder: &str) -> String {
    if holder.is_empty() {
        String::new()
    } else {
        format!(" (process {holder})")
    }
}

/// A state directory held by this process until this value is dropped, or the process ends in
/// whatever way.
#[derive(Debug)]
pub struct StateDir {
    dir: PathBuf,
    /// The open file is the lock.
    lock: File,
}

impl StateDir {
    /// Makes the directory if need be and takes it.
    pub fn open(dir: &Path) -> Result<Self, StateDirError> {
        let io = |source| StateDirError::Io {
            dir: dir.to_owned(),
            source,
        };
        private::directory(dir).map_err(io)?;
        let mut options = private::options();
        options.read(true).write(true).create(true).truncate(false);
        let lock = dir.join(LOCK_FILE);
        let mut lock = private::open(&lock, &options).map_err(|error| {
            io(io::Error::new(
                error.kind(),
                format!("{LOCK_FILE}: {error}"),
            ))
        })?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let dir = dir.to_owned();
                return Err(StateDirError::InUse {
                    dir,
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(io(error)),
        }
        match write_holder(&mut lock) {
            // The process id is for messages only; a manager must start on a full disk as well.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
            written => written.map_err(io)?,
        }
        Ok(StateDir {
            dir: dir.to_owned(),
            lock,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.dir
    }

    /// Whether the lock is still the one that another process would find.
    ///
    /// # Errors
    /// [`StateDirError::Gone`].
    pub fn check(&self) -> Result<(), StateDirError> {
        let (own, found) = (
            self.lock.metadata(),
            fs::symlink_metadata(self.dir.join(LOCK_FILE)),
        );
        let id = |metadata: io::Result<fs::Metadata>| {
            metadata
                .map(|metadata| (metadata.dev(), metadata.ino()))
                .ok()
        };
        let own = id(own);
        if own.is_some() && own == id(found) {
            return Ok(());
        }
        let dir = self.dir.clone();
        Err(StateDirError::Gone { dir })
    }

    /// The directory for log, snapshots and data key, made if need be.
    pub fn raft_dir(&self) -> Result<PathBuf, StateDirError> {
        let raft = self.dir.join(RAFT_DIR);
        private::subdirectory(&raft).map_err(|source| StateDirError::Io {
            dir: raft.clone(),
            source,
        })?;
        Ok(raft)
    }
}

/// Who holds the lock, for the message; empty when the file does not say.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.take(PID_BYTES_MAX).read_to_string(&mut text) {
        Ok(_) => text
            .trim()
            .chars()
            .take_while(char::is_ascii_digit)
            .collect(),
        Err(_) => String::new(),
    }
}

fn write_holder(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.rewind()?;
    writeln!(lock, "{}", std::process::id())
}

/// Removes the raft directory of a state directory that is held: the node left the cluster.
pub fn forget_raft(state: &StateDir) -> io::Result<()> {
    match fs::remove_dir_all(state.dir.join(RAFT_DIR)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_refused_and_told_who_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let first = StateDir::open(&path).unwrap();
        let error = StateDir::open(&path).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, StateDirError::InUse { .. }));
        assert!(text.contains(path.to_str().unwrap()), "{text}");
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        drop(first);
        assert!(StateDir::open(&path).is_ok());
    }

    #[test]
    fn a_lock_file_with_any_content_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(LOCK_FILE), [0xFF; 100]).unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let text = fs::read_to_string(state.path().join(LOCK_FILE)).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_directory_that_is_gone_or_locked_anew_is_noticed() {
        let base = tempfile::tempdir().unwrap();
        let dir = base.path().join("state");
        let state = StateDir::open(&dir).unwrap();
        state.check().unwrap();
        fs::remove_file(dir.join(LOCK_FILE)).unwrap();
        let _other = StateDir::open(&dir).unwrap();
        let error = state.check().unwrap_err().to_string();
        assert!(error.contains("removed, renamed or replaced"), "{error}");
    }

    #[test]
    fn a_lock_file_that_is_a_link_is_refused_and_what_it_leads_to_is_left_alone() {
        use std::os::unix::fs::symlink;
        let base = tempfile::tempdir().unwrap();
        let precious = base.path().join("precious");
        fs::write(&precious, "precious").unwrap();
        let dir = base.path().join("state");
        fs::create_dir(&dir).unwrap();
        symlink(&precious, dir.join(LOCK_FILE)).unwrap();
        match StateDir::open(&dir) {
            Err(StateDirError::Io { source, .. }) => {
                let text = source.to_string();
                assert!(text.contains("LOCK: it is a symbolic link"), "{text}");
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    }

    #[test]
    fn the_raft_directory_can_be_forgotten_twice() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        let raft = state.raft_dir().unwrap();
        fs::write(raft.join("x"), "x").unwrap();
        forget_raft(&state).unwrap();
        assert!(!raft.exists());
        forget_raft(&state).unwrap();
    }

    #[test]
    fn a_state_directory_that_is_a_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, "").unwrap();
        let error = StateDir::open(&path).unwrap_err();
        assert!(
            error.to_string().contains(path.to_str().unwrap()),
            "{error}"
        );
    }
}
