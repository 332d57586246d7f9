//! Real files behind the disk of `swarm-raft`.
//!
//! Owns the system calls and their order. Every rule about what may be read back is in
//! `swarm-raft`; this file must only never claim more than the system promised. A sync also looks
//! whether the file is still in its place: a file that somebody removed, or in whose directory
//! somebody put another one, takes writes as ever, and none of them would be found again.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use swarm_raft::disk::{Disk, DiskError, DiskErrorKind, DiskOp};
use swarm_rt::files::{self, Spare};
use swarm_rt::private;

/// Zeros are written in pieces of this size when a file is made.
const ZERO_BYTES: usize = 1024 * 1024;

/// Files kept open: the log writes its segment and its manifest over and over.
const OPEN_FILES_MAX: usize = 2;

/// A directory of files. Clones work on the same directory and keep their own open files.
#[derive(Debug)]
pub struct RealDisk {
    dir: PathBuf,
    /// The log goes on when everybody else has used up the files of this process.
    spare: Spare,
    /// The files that were used last, the newest at the end.
    open: Vec<OpenFile>,
}

/// A file that is kept open.
#[derive(Debug)]
struct OpenFile {
    name: String,
    file: File,
    /// Device and number, which no other file gets as long as this one is open.
    id: (u64, u64),
}

impl Clone for RealDisk {
    fn clone(&self) -> Self {
        RealDisk {
            dir: self.dir.clone(),
            spare: Spare::new(),
            open: Vec::new(),
        }
    }
}

impl RealDisk {
    /// A disk over an existing directory.
    pub fn new(dir: &Path) -> Self {
        RealDisk {
            dir: dir.to_owned(),
            spare: Spare::new(),
            open: Vec::new(),
        }
    }

    fn path(&self, op: DiskOp, name: &str) -> Result<PathBuf, DiskError> {
        if name.is_empty() || name.contains(['/', '\0']) || name == "." || name == ".." {
            let kind = DiskErrorKind::Other;
            return Err(DiskError::new(op, name, kind, "not a plain file name"));
        }
        Ok(self.dir.join(name))
    }

    fn file(&mut self, op: DiskOp, name: &str) -> Result<&mut OpenFile, DiskError> {
        match self.open.iter().position(|open| open.name == name) {
            Some(place) => Ok(&mut self.open[place]),
            None => {
                let path = self.path(op, name)?;
                let open = || private::open(&path, private::options().read(true).write(true));
                let file = self.spare.open(open);
                self.keep(op, name, file.map_err(|error| failed(op, &path, &error))?)
            }
        }
    }

    /// Keeps a file open, in place of the one that was opened first.
    fn keep(&mut self, op: DiskOp, name: &str, file: File) -> Result<&mut OpenFile, DiskError> {
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| failed(op, &self.dir.join(name), &error))?;
        self.forget(name);
        if self.open.len() == OPEN_FILES_MAX {
            self.open.remove(0);
        }
        self.open.push(OpenFile {
            name: name.to_owned(),
            file,
            id: (metadata.dev(), metadata.ino()),
        });
        Ok(self.open.last_mut().expect("was added above"))
    }

    fn forget(&mut self, name: &str) {
        self.open.retain(|open| open.name != name);
    }
}

impl Disk for RealDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let error = |error: io::Error| failed(DiskOp::List, &self.dir, &error);
        let mut names = Vec::new();
        for entry in self.spare.open(|| fs::read_dir(&self.dir)).map_err(error)? {
            // A name that is no text is none of ours.
            if let Ok(name) = entry.map_err(error)?.file_name().into_string() {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn create(&mut self, name: &str, size: u64) -> Result<(), DiskError> {
        let path = self.path(DiskOp::Create, name)?;
        let mut options = private::options();
        options.read(true).write(true).create_new(true);
        let file = self.spare.open(|| private::open(&path, &options));
        let mut file = file.map_err(|error| failed(DiskOp::Create, &path, &error))?;
        if let Err(error) = write_zeros(&mut file, size) {
            // Half a file is of no use, and its blocks may be what others need.
            drop(fs::remove_file(&path));
            return Err(failed(DiskOp::Create, &path, &error));
        }
        self.keep(DiskOp::Create, name, file).map(drop)
    }

    fn len(&mut self, name: &str) -> Result<u64, DiskError> {
        let path = self.path(DiskOp::Read, name)?;
        let file = self.file(DiskOp::Read, name)?;
        let metadata = file.file.metadata();
        Ok(metadata
            .map_err(|error| failed(DiskOp::Read, &path, &error))?
            .len())
    }

    fn read_at(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let path = self.path(DiskOp::Read, name)?;
        let file = self.file(DiskOp::Read, name)?;
        let mut done = 0;
        while done < buf.len() {
            match file.file.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(DiskOp::Read, &path, &error)),
            }
        }
        Ok(done)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let path = self.path(DiskOp::Write, name)?;
        let file = self.file(DiskOp::Write, name)?;
        file.file
            .write_all_at(bytes, offset)
            .map_err(|error| failed(DiskOp::Write, &path, &error))
    }

    fn truncate(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        let path = self.path(DiskOp::Write, name)?;
        let file = self.file(DiskOp::Write, name)?;
        file.file
            .set_len(len)
            .map_err(|error| failed(DiskOp::Write, &path, &error))
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let path = self.path(DiskOp::Sync, name)?;
        let file = self.file(DiskOp::Sync, name)?;
        // Also makes a new size durable; only times may be lost.
        file.file
            .sync_data()
            .map_err(|error| failed(DiskOp::Sync, &path, &error))?;
        check_place(&path, file.id)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let (old, new) = (
            self.path(DiskOp::Rename, from)?,
            self.path(DiskOp::Rename, to)?,
        );
        fs::rename(&old, &new).map_err(|error| failed(DiskOp::Rename, &old, &error))?;
        self.forget(to);
        if let Some(open) = self.open.iter_mut().find(|open| open.name == from) {
            to.clone_into(&mut open.name);
        }
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        let path = self.path(DiskOp::Remove, name)?;
        fs::remove_file(&path).map_err(|error| failed(DiskOp::Remove, &path, &error))?;
        self.forget(name);
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), DiskError> {
        let synced = self.spare.open(|| sync_dir(&self.dir));
        synced.map_err(|error| failed(DiskOp::SyncDir, &self.dir, &error))
    }
}

/// Whether an open file is the one that a start would find.
fn check_place(path: &Path, id: (u64, u64)) -> Result<(), DiskError> {
    let found = fs::symlink_metadata(path);
    if found.is_ok_and(|found| (found.dev(), found.ino()) == id) {
        return Ok(());
    }
    let text = "the file is not in its place: the state directory was removed, renamed or replaced \
                below the running manager";
    Err(DiskError::new(
        DiskOp::Sync,
        &path.display().to_string(),
        DiskErrorKind::Gone,
        text,
    ))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

fn write_zeros(file: &mut File, size: u64) -> io::Result<()> {
    let zeros = vec![0; ZERO_BYTES.min(usize::try_from(size).unwrap_or(ZERO_BYTES))];
    let mut left = size;
    while left > 0 {
        let piece = zeros.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.write_all(&zeros[..piece])?;
        left -= piece as u64;
    }
    Ok(())
}

fn failed(op: DiskOp, path: &Path, error: &io::Error) -> DiskError {
    let is = |kinds: &[ErrorKind]| kinds.contains(&error.kind());
    let kind = if files::is_exhausted(error) {
        DiskErrorKind::NoFiles
    } else if is(&[ErrorKind::StorageFull, ErrorKind::QuotaExceeded]) {
        DiskErrorKind::Full
    } else if is(&[ErrorKind::NotFound]) {
        DiskErrorKind::Missing
    } else if is(&[ErrorKind::AlreadyExists]) {
        DiskErrorKind::Exists
    } else {
        DiskErrorKind::Other
    };
    DiskError::new(
        op,
        &path.display().to_string(),
        kind,
        files::in_words(error),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn disk() -> (tempfile::TempDir, RealDisk) {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::new(dir.path());
        (dir, disk)
    }

    #[test]
    fn files_read_back_and_keep_their_content_under_a_new_name() {
        let (_dir, mut disk) = disk();
        disk.create("a", 3 * ZERO_BYTES as u64 + 5).unwrap();
        assert_eq!(disk.len("a").unwrap(), 3 * ZERO_BYTES as u64 + 5);
        disk.write_at("a", 10, b"hello").unwrap();
        disk.sync("a").unwrap();
        disk.rename("a", "b").unwrap();
        disk.sync_dir().unwrap();
        disk.write_at("b", 15, b"!").unwrap();
        let mut bytes = [9; 8];
        assert_eq!(disk.clone().read_at("b", 9, &mut bytes).unwrap(), 8);
        assert_eq!(&bytes, b"\0hello!\0");
        assert_eq!(disk.list().unwrap(), ["b"]);
        disk.truncate("b", 4000).unwrap();
        let end = disk.len("b").unwrap();
        assert_eq!(end, 4000);
        assert_eq!(disk.read_at("b", end - 3, &mut bytes).unwrap(), 3);
        disk.remove("b").unwrap();
        assert!(disk.list().unwrap().is_empty());
    }

    #[test]
    fn errors_name_the_file_and_their_kind() {
        let (dir, mut disk) = disk();
        disk.create("a", 0).unwrap();
        let exists = disk.create("a", 0).unwrap_err();
        assert_eq!(
            (exists.kind, exists.op),
            (DiskErrorKind::Exists, DiskOp::Create)
        );
        let missing = disk.read_at("b", 0, &mut [0]).unwrap_err();
        assert_eq!(missing.kind, DiskErrorKind::Missing);
        assert!(missing.to_string().contains(dir.path().to_str().unwrap()));
        for name in ["", ".", "..", "a/b", "a\0"] {
            assert_eq!(
                disk.create(name, 0).unwrap_err().kind,
                DiskErrorKind::Other,
                "{name:?}"
            );
        }
    }

    #[test]
    fn a_sync_fails_when_the_file_is_not_where_a_start_would_find_it() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 4] = [
            ("removed", |dir| fs::remove_file(dir.join("a")).unwrap()),
            ("directory removed", |dir| fs::remove_dir_all(dir).unwrap()),
            ("directory renamed", |dir| {
                fs::rename(dir, dir.with_extension("old")).unwrap();
            }),
            ("directory replaced", |dir| {
                fs::rename(dir, dir.with_extension("old")).unwrap();
                fs::create_dir(dir).unwrap();
                fs::write(dir.join("a"), [0; 10]).unwrap();
            }),
        ];
        for (what, damage) in damages {
            let base = tempfile::tempdir().unwrap();
            let dir = base.path().join("raft");
            fs::create_dir(&dir).unwrap();
            let mut disk = RealDisk::new(&dir);
            disk.create("a", 10).unwrap();
            disk.create("b", 10).unwrap();
            disk.sync("a").unwrap();
            damage(&dir);
            disk.write_at("a", 0, b"hello").unwrap();
            let error = disk.sync("a").unwrap_err();
            assert_eq!((error.kind, error.op), (DiskErrorKind::Gone, DiskOp::Sync));
            assert!(
                error.message.contains("renamed or replaced"),
                "{what}: {error}"
            );
        }
    }

    #[test]
    fn files_are_private_and_links_are_not_followed() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let (dir, mut disk) = disk();
        disk.create("a", 1).unwrap();
        let mode = fs::metadata(dir.path().join("a"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::write(dir.path().join("precious"), "x").unwrap();
        symlink(dir.path().join("precious"), dir.path().join("b")).unwrap();
        let error = disk.write_at("b", 0, b"y").unwrap_err();
        assert!(error.message.contains("symbolic link"), "{error}");
        disk.create("b", 0).unwrap_err();
        assert_eq!(fs::read(dir.path().join("precious")).unwrap(), b"x");
    }

    #[test]
    fn a_full_disk_is_told_from_other_failures() {
        let full = io::Error::from(ErrorKind::StorageFull);
        assert!(failed(DiskOp::Write, Path::new("x"), &full).is_full());
        let quota = io::Error::from(ErrorKind::QuotaExceeded);
        assert!(failed(DiskOp::Write, Path::new("x"), &quota).is_full());
        // EMFILE
        let files = io::Error::from_raw_os_error(24);
        let files = failed(DiskOp::Write, Path::new("x"), &files);
        assert!(files.passes() && !files.is_full(), "{files}");
        let other = io::Error::from(ErrorKind::PermissionDenied);
        assert!(!failed(DiskOp::Write, Path::new("x"), &other).is_full());
    }
}
