//! Where the secrets and configs of tasks are: files of a file system that is in memory.
//!
//! Owns finding such a file system, the directory of each task on it, and that nothing is left
//! there. Refuses to own: which files a task has (`spec::payloads`) and what is in them.
//!
//! The directory of this executor is named after its state directory, so that agents which share a
//! machine do not take each other's tasks for leftovers. On a node that was restarted everything
//! here is gone, as it should be.

use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{
    DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown, fchown,
};
use std::path::{Component, Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::{Uid, geteuid};

use crate::files::FileError;
use crate::records::PayloadFile;

/// Bytes that the secrets and configs of one task may have together: 64 MiB. They take memory of
/// the node that no limit of the task counts.
pub(crate) const PAYLOADS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How often to make a directory whose parent others remove.
const BEGIN_ATTEMPTS_MAX: u32 = 10;
/// Permissions of a directory while files are put into it, and afterwards.
const MODE_FILLING: u32 = 0o700;
const MODE_FILLED: u32 = 0o500;

/// A directory in memory for the tasks of one executor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    path: PathBuf,
}

impl Memory {
    /// The directory that belongs to an executor, on the first file system that is in memory. It
    /// need not exist.
    ///
    /// # Errors
    /// That there is no such file system, with the way out.
    pub(crate) fn find(root: &Path) -> Result<Self, String> {
        let user = geteuid();
        let name = format!("swarm-{user}-{:016x}", fingerprint(root));
        let places = candidates(user);
        let is_memory = |place: &&PathBuf| {
            statfs(place.as_path()).is_ok_and(|found| found.filesystem_type() == TMPFS_MAGIC)
        };
        let place = places.iter().find(is_memory).ok_or_else(|| {
            let places: Vec<_> = places
                .iter()
                .map(|place| place.display().to_string())
                .collect();
            format!(
                "there is no file system in memory at {}, and secrets are not written to disks; \
                 mount a tmpfs there",
                places.join(" or ")
            )
        })?;
        Ok(Self {
            path: place.join(name),
        })
    }

    /// The directory of one task.
    pub(crate) fn of_task(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Tasks that have a directory here.
    pub(crate) fn names(&self) -> Result<Vec<String>, FileError> {
        let entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(FileError::refused("list", &self.path)(cause)),
        };
        // A name that is no text is not ours: tasks have plain names.
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }

    /// Makes the executor's directory, and makes sure that nobody else made it: its name is no
    /// secret, and its parent may be writable by all.
    fn create(&self) -> Result<(), FileError> {
        // Tasks of root may be other users, and have to get through.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        match DirBuilder::new().mode(0o700).create(&self.path) {
            // Whatever the process takes away from new files.
            Ok(()) => fs::set_permissions(&self.path, Permissions::from_mode(mode))
                .map_err(FileError::refused("protect", &self.path))?,
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(FileError::refused("create", &self.path)(error));
            }
            Err(_) => {}
        }
        let found = fs::symlink_metadata(&self.path);
        let found = found.map_err(FileError::refused("examine", &self.path))?;
        let is_ours = found.is_dir()
            && found.uid() == geteuid().as_raw()
            && found.permissions().mode() & 0o022 == 0;
        if is_ours {
            return Ok(());
        }
        let cause = io::Error::other("it belongs to somebody else; remove it");
        Err(FileError::refused("use", &self.path)(cause))
    }
}

fn candidates(user: Uid) -> Vec<PathBuf> {
    if user.is_root() {
        vec!["/run".into(), "/dev/shm".into()]
    } else {
        vec![format!("/run/user/{user}").into(), "/dev/shm".into()]
    }
}

/// FNV-1a: the name only has to differ between the few executors of one machine.
fn fingerprint(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Who owns the directories of a task, and its files unless they say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

/// Writes the files of a task. What a try before this one left behind goes first.
pub(crate) fn write(
    memory: &Memory,
    directory: &Path,
    files: &[(PayloadFile, bytes::Bytes)],
    owner: Owner,
) -> Result<(), FileError> {
    let mut made = Vec::new();
    begin(memory, directory, &mut made)?;
    for (file, data) in files {
        for parent in parents(&file.path) {
            make_directory(&directory.join(parent), &mut made)?;
        }
        write_file(&directory.join(&file.path), file, data, owner)?;
    }
    for path in made.iter().rev() {
        let mode = Permissions::from_mode(MODE_FILLED);
        fs::set_permissions(path, mode).map_err(FileError::refused("protect", path))?;
        if geteuid().is_root() {
            chown(path, Some(owner.uid), Some(owner.gid))
                .map_err(FileError::refused("hand over", path))?;
        }
    }
    Ok(())
}

/// Makes the directory of a task, empty. The end of the executor's last task takes away the
/// directory above at any moment.
fn begin(memory: &Memory, directory: &Path, made: &mut Vec<PathBuf>) -> Result<(), FileError> {
    let mut attempts = 1;
    loop {
        let begun = memory.create().and_then(|()| {
            remove_files(directory)?;
            make_directory(directory, made)
        });
        match begun {
            Err(FileError::Refused { cause, .. })
                if cause.kind() == io::ErrorKind::NotFound && attempts < BEGIN_ATTEMPTS_MAX =>
            {
                attempts += 1;
            }
            result => return result,
        }
    }
}

/// The directories above a relative path, outermost first.
fn parents(path: &Path) -> Vec<&Path> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).collect();
    parents.retain(|parent| !parent.as_os_str().is_empty());
    parents.reverse();
    parents
}

fn make_directory(path: &Path, made: &mut Vec<PathBuf>) -> Result<(), FileError> {
    if made.iter().any(|known| known == path) {
        return Ok(());
    }
    let result = DirBuilder::new().mode(MODE_FILLING).create(path);
    result.map_err(FileError::refused("create", path))?;
    made.push(path.to_owned());
    Ok(())
}

fn write_file(
    path: &Path,
    wanted: &PayloadFile,
    data: &[u8],
    owner: Owner,
) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(FileError::refused("create", path))?;
    file.write_all(data)
        .map_err(FileError::refused("write", path))?;
    file.set_permissions(Permissions::from_mode(wanted.mode))
        .map_err(FileError::refused("protect", path))?;
    if geteuid().is_root() {
        let (uid, gid) = (
            wanted.uid.unwrap_or(owner.uid),
            wanted.gid.unwrap_or(owner.gid),
        );
        fchown(&file, Some(uid), Some(gid)).map_err(FileError::refused("hand over", path))?;
    }
    Ok(())
}

/// Removes the directory of a task, and with the last one that of the executor; none is as good.
pub(crate) fn remove(directory: &Path) -> Result<(), FileError> {
    remove_files(directory)?;
    if let Some(parent) = directory.parent() {
        let _others_are_there = fs::remove_dir(parent);
    }
    Ok(())
}

fn remove_files(directory: &Path) -> Result<(), FileError> {
    // Root needs no permission, and must not give any: the task may have put links here.
    if !geteuid().is_root() {
        open_up(directory);
    }
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError::refused("remove", directory)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes directories writable, so that what is in them can be removed.
fn open_up(directory: &Path) {
    let is_directory = fs::symlink_metadata(directory).is_ok_and(|found| found.is_dir());
    if !is_directory {
        return;
    }
    let _shows_when_removing = fs::set_permissions(directory, Permissions::from_mode(MODE_FILLING));
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        open_up(&entry.path());
    }
}

/// A relative path without tricks.
pub(crate) fn is_plain(path: &Path) -> bool {
    let mut components = path.components().peekable();
    components.peek().is_some() && components.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

    use super::*;

    #[test]
    fn executors_of_one_machine_have_different_directories() {
        let one = Memory::find(Path::new("/state/one"));
        let two = Memory::find(Path::new("/state/two"));
        if let (Ok(one), Ok(two)) = (one, two) {
            assert_ne!(one, two);
        }
        assert_ne!(fingerprint(Path::new("/a")), fingerprint(Path::new("/b")));
    }

    #[test]
    fn only_relative_paths_without_dots_are_plain() {
        for path in ["a", "a/b", "a.b/.c"] {
            assert!(is_plain(Path::new(path)), "{path}");
        }
        for path in ["", "/", "/a", "..", "a/../b", "."] {
            assert!(!is_plain(Path::new(path)), "{path}");
        }
    }

    #[test]
    fn parents_come_outermost_first() {
        let paths: Vec<_> = parents(Path::new("secrets/a/b")).into_iter().collect();
        assert_eq!(paths, [Path::new("secrets"), Path::new("secrets/a")]);
        assert!(parents(Path::new("a")).is_empty());
    }

    #[test]
    fn a_task_begins_while_the_ends_of_others_take_the_directory_away() {
        let root = tempfile::tempdir().unwrap();
        let memory = Memory {
            path: root.path().join("memory"),
        };
        // Not so many in a row that giving up would be right.
        let ends = AtomicU32::new(0);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    if ends.load(Ordering::Relaxed) > 0 && fs::remove_dir(&memory.path).is_ok() {
                        ends.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            });
            let directory = memory.of_task("t");
            let rounds = (0..300).map(|_| {
                ends.store(BEGIN_ATTEMPTS_MAX - 1, Ordering::Relaxed);
                begin(&memory, &directory, &mut Vec::new())?;
                remove(&directory)
            });
            let failures: Vec<FileError> = rounds.filter_map(Result::err).collect();
            is_over.store(true, Ordering::Relaxed);
            assert!(
                failures.is_empty(),
                "{} times: {:?}",
                failures.len(),
                failures.first()
            );
        });
    }
}
