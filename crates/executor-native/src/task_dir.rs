//! The directory of one task: which file means what, and who may write it.
//!
//! | File | Written by | Meaning |
//! |---|---|---|
//! | `lock` | nobody; locked by the shim for its life, by an agent for a step | a shim lives |
//! | `plan.json` | agent, once | the task is prepared |
//! | `shim.json` | shim | the task was started; what there is to clean up |
//! | `exit.json` | shim; whoever holds the lock when there is no shim | the task has ended |
//! | `exit.spare` | shim, before the task begins | room for `exit.json` on a full disk |
//! | `socket` | shim | where it listens |
//! | `output.log*` | shim | captured output |
//! | `shim.log` | shim | what the shim itself could not say elsewhere |

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use crate::clock;
use crate::files::{self, FileError};
use crate::records::{Exit, Plan, Record};

pub(crate) const SOCKET_NAME: &str = "socket";

/// How often to try for the lock.
pub(crate) const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// The directory of one task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TaskDir {
    path: PathBuf,
}

/// The result of trying to take the lock.
#[derive(Debug)]
pub(crate) enum Lock {
    /// Ours, until the file is dropped.
    Taken(File),
    /// A shim lives.
    Held,
    /// There is no task here.
    Absent,
}

impl TaskDir {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory, readable only by this user: arguments and environments hold secrets.
    pub(crate) fn create(&self) -> Result<(), FileError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.path)
            .map_err(FileError::refused("create", &self.path))?;
        let lock = self.file("lock");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600);
        options
            .custom_flags(files::NO_LINK)
            .open(&lock)
            .map_err(FileError::refused("create", &lock))?;
        files::sync_parent(&self.path)
    }

    /// Makes the directory and takes its lock; `None` when that is not wanted any more. Blocks
    /// while somebody else has the lock, and begins anew when that was to remove the directory.
    pub(crate) fn create_locked(
        &self,
        is_wanted: impl Fn() -> bool,
    ) -> Result<Option<File>, FileError> {
        while is_wanted() {
            match self.create().and_then(|()| self.try_lock()) {
                Ok(Lock::Taken(lock)) if self.is_lock(&lock)? => return Ok(Some(lock)),
                Ok(Lock::Taken(_) | Lock::Held | Lock::Absent) => {}
                Err(FileError::Refused { cause, .. })
                    if cause.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            clock::pause(LOCK_PAUSE);
        }
        Ok(None)
    }

    /// Whether this is the lock that others find, and not one that was removed.
    fn is_lock(&self, lock: &File) -> Result<bool, FileError> {
        let path = self.file("lock");
        let own = lock.metadata();
        let own = own.map_err(FileError::refused("examine", &path))?;
        let found = fs::metadata(&path);
        Ok(found.is_ok_and(|found| (found.dev(), found.ino()) == (own.dev(), own.ino())))
    }

    pub(crate) fn try_lock(&self) -> Result<Lock, FileError> {
        let path = self.file("lock");
        let file = match OpenOptions::new().write(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Lock::Absent),
            Err(cause) => return Err(FileError::refused("open", &path)(cause)),
        };
        match file.try_lock() {
            Ok(()) => Ok(Lock::Taken(file)),
            Err(TryLockError::WouldBlock) => Ok(Lock::Held),
            Err(TryLockError::Error(cause)) => Err(FileError::refused("lock", &path)(cause)),
        }
    }

    pub(crate) fn plan(&self) -> Result<Option<Plan>, FileError> {
        files::read_record(&self.file("plan.json"))
    }

    pub(crate) fn write_plan(&self, plan: &Plan) -> Result<(), FileError> {
        files::write_record(&self.file("plan.json"), plan)
    }

    pub(crate) fn record(&self) -> Result<Option<Record>, FileError> {
        files::read_record(&self.file("shim.json"))
    }

    pub(crate) fn write_record(&self, record: &Record) -> Result<(), FileError> {
        files::write_record(&self.file("shim.json"), record)
    }

    pub(crate) fn exit(&self) -> Result<Option<Exit>, FileError> {
        files::read_record(&self.file("exit.json"))
    }

    /// Takes room for the record of the end, before the task begins.
    pub(crate) fn reserve_exit(&self) -> Result<(), FileError> {
        files::reserve(&self.file("exit.spare"))
    }

    /// Records the end: on a full disk in the room that was taken for it.
    pub(crate) fn write_exit(&self, exit: &Exit) -> Result<(), FileError> {
        let (path, spare) = (self.file("exit.json"), self.file("exit.spare"));
        match files::write_record(&path, exit) {
            Ok(()) => {
                let _goes_with_the_directory = fs::remove_file(&spare);
                Ok(())
            }
            Err(error) => files::write_reserved(&spare, &path, exit).map_err(|_| error),
        }
    }

    pub(crate) fn log_path(&self) -> PathBuf {
        self.file("output.log")
    }

    /// A file of captured output: 0 is the current one, then the older the higher.
    pub(crate) fn log_file(&self, number: u32) -> PathBuf {
        match number {
            0 => self.log_path(),
            older => self.file(&format!("output.log.{older}")),
        }
    }

    /// Trouble with the captured output.
    pub(crate) fn log_error(&self, cause: io::Error) -> FileError {
        FileError::refused("read", &self.log_path())(cause)
    }

    /// Where the shim's own standard output and error go.
    pub(crate) fn open_shim_log(&self) -> Result<File, FileError> {
        let path = self.file("shim.log");
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o600);
        options
            .custom_flags(files::NO_LINK)
            .open(&path)
            .map_err(FileError::refused("open", &path))
    }

    /// Connects to the shim. The address of a socket has at most 108 bytes, a state directory may
    /// have more, so the way leads through an open directory.
    pub(crate) async fn connect(&self) -> io::Result<UnixStream> {
        let directory = File::open(&self.path)?;
        let path = format!("/proc/self/fd/{}/{SOCKET_NAME}", directory.as_raw_fd());
        UnixStream::connect(path).await
    }

    /// Removes everything. The caller holds the lock.
    pub(crate) fn remove(&self) -> Result<(), FileError> {
        // A shim that comes late must not find a plan in a directory half removed.
        for name in ["plan.json", "lock"] {
            let path = self.file(name);
            match fs::remove_file(&path) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                    return Err(FileError::refused("remove", &path)(cause));
                }
                Ok(()) | Err(_) => {}
            }
        }
        match fs::remove_dir_all(&self.path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                Err(FileError::refused("remove", &self.path)(cause))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_is_recorded_in_the_room_that_was_taken_for_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = TaskDir::new(root.path().join("t"));
        dir.create().unwrap();
        let exit = |message: &str| Exit {
            code: 7,
            oom: false,
            cause: crate::records::Cause::Exited,
            message: message.to_owned(),
            ended_at: 1,
            log_bytes_lost: 0,
        };
        // A directory in the place of the temporary file, as good as a full disk.
        let blocked = format!("exit.tmp{}", std::process::id());
        fs::create_dir(dir.file(&blocked)).unwrap();
        assert!(dir.write_exit(&exit("lost")).is_err(), "there is no room");
        dir.reserve_exit().unwrap();
        assert!(dir.write_exit(&exit(&"long".repeat(2_000))).is_err());
        assert!(dir.exit().unwrap().is_none());
        dir.write_exit(&exit("kept")).unwrap();
        assert_eq!(dir.exit().unwrap(), Some(exit("kept")));
        fs::remove_dir(dir.file(&blocked)).unwrap();
        dir.reserve_exit().unwrap();
        dir.write_exit(&exit("plain")).unwrap();
        assert_eq!(dir.exit().unwrap(), Some(exit("plain")));
        assert!(!dir.file("exit.spare").exists());
    }

    #[test]
    fn the_lock_has_one_holder_and_goes_with_it() {
        let root = tempfile::tempdir().unwrap();
        let dir = TaskDir::new(root.path().join("tasks/t"));
        assert!(matches!(dir.try_lock().unwrap(), Lock::Absent));
        dir.create().unwrap();
        dir.create().unwrap();
        let lock = dir.try_lock().unwrap();
        assert!(matches!(lock, Lock::Taken(_)));
        assert!(matches!(dir.try_lock().unwrap(), Lock::Held));
        drop(lock);
        assert!(matches!(dir.try_lock().unwrap(), Lock::Taken(_)));
        dir.remove().unwrap();
        dir.remove().unwrap();
        assert!(matches!(dir.try_lock().unwrap(), Lock::Absent));
    }
}
