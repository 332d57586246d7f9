//! Small files that must be whole or absent.
//!
//! Refuses to own: what is in them.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use serde::Serialize;
use serde::de::DeserializeOwned;
use thiserror::Error;

/// Room that [`reserve`] takes: a page, more than the end of a task has to say.
const RESERVED_BYTES: usize = 4096;
/// Largest record that is read back. The kernel gives a program at most 2 MiB of arguments and
/// environment, which is what our largest record holds.
const RECORD_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// What is written is never behind a symbolic link that somebody put there.
pub(crate) const NO_LINK: i32 = OFlag::O_NOFOLLOW.bits();

/// A file that could not be used as it should.
#[derive(Debug, Error)]
pub(crate) enum FileError {
    /// The operating system refused.
    #[error("cannot {action} {}: {cause}", path.display())]
    Refused {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why; in the text, because it ends in the status of a task, where no chain is printed.
        cause: io::Error,
    },
    /// The file is longer than anything we write.
    #[error("{} has {bytes} bytes, we write at most {RECORD_BYTES_MAX}; remove it", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file is not what we write.
    #[error("{} is damaged: {cause}; remove it", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        cause: serde_json::Error,
    },
}

impl FileError {
    /// For `map_err`.
    pub(crate) fn refused<'a>(
        action: &'static str,
        path: &'a Path,
    ) -> impl FnOnce(io::Error) -> Self + 'a {
        move |cause| Self::Refused {
            action,
            path: path.to_owned(),
            cause,
        }
    }
}

/// Replaces a record so that a crash leaves the old or the new one, never a part.
pub(crate) fn write_record(path: &Path, record: &impl Serialize) -> Result<(), FileError> {
    let bytes = serde_json::to_vec(record).map_err(|cause| FileError::Damaged {
        path: path.to_owned(),
        cause,
    })?;
    // Two writers of one record would use one temporary name; the pid keeps them apart.
    let temporary = path.with_extension(format!("tmp{}", std::process::id()));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(NO_LINK)
        .open(&temporary)
        .map_err(FileError::refused("create", &temporary))?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .map_err(FileError::refused("write", &temporary))?;
    fs::rename(&temporary, path).map_err(FileError::refused("replace", path))?;
    sync_parent(path)
}

/// Takes room for a record that has to be written even when the disk is full by then.
pub(crate) fn reserve(spare: &Path) -> Result<(), FileError> {
    let mut options = OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    let written = options
        .open(spare)
        .and_then(|mut file| file.write_all(&[b' '; RESERVED_BYTES]));
    written.map_err(FileError::refused("reserve", spare))
}

/// Like [`write_record`], in the room that was taken for it: nothing of the disk is needed.
pub(crate) fn write_reserved(
    spare: &Path,
    path: &Path,
    record: &impl Serialize,
) -> Result<(), FileError> {
    let mut bytes = serde_json::to_vec(record).map_err(|cause| FileError::Damaged {
        path: path.to_owned(),
        cause,
    })?;
    if bytes.len() > RESERVED_BYTES {
        return Err(FileError::refused("write", path)(
            io::ErrorKind::StorageFull.into(),
        ));
    }
    // Blanks after a record are none of it.
    bytes.resize(RESERVED_BYTES, b' ');
    let mut file = OpenOptions::new()
        .write(true)
        .open(spare)
        .map_err(FileError::refused("open", spare))?;
    file.write_all(&bytes)
        .and_then(|()| file.sync_all())
        .map_err(FileError::refused("write", spare))?;
    fs::rename(spare, path).map_err(FileError::refused("replace", path))?;
    sync_parent(path)
}

/// Reads a record; `None` when there is no such file.
pub(crate) fn read_record<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, FileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(FileError::refused("open", path)(cause)),
    };
    let bytes = file
        .metadata()
        .map_err(FileError::refused("examine", path))?
        .len();
    if bytes > RECORD_BYTES_MAX {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            bytes,
        });
    }
    let mut text = Vec::new();
    file.read_to_end(&mut text)
        .map_err(FileError::refused("read", path))?;
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|cause| FileError::Damaged {
            path: path.to_owned(),
            cause,
        })
}

/// Makes a rename or removal in the parent directory durable.
pub(crate) fn sync_parent(path: &Path) -> Result<(), FileError> {
    let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    else {
        return Ok(());
    };
    File::open(parent)
        .and_then(|directory| directory.sync_all())
        .map_err(FileError::refused("sync", parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_round_trip_and_absence_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        assert_eq!(read_record::<Vec<u8>>(&path).unwrap(), None);
        write_record(&path, &vec![1, 2]).unwrap();
        write_record(&path, &vec![3]).unwrap();
        assert_eq!(read_record(&path).unwrap(), Some(vec![3]));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            1,
            "no temporary file stays"
        );
    }

    #[test]
    fn damaged_and_oversized_records_are_refused_with_their_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("r.json");
        fs::write(&path, b"[1,").unwrap();
        let error = read_record::<Vec<u8>>(&path).unwrap_err().to_string();
        assert!(error.contains("r.json is damaged"), "{error}");
        File::create(&path)
            .unwrap()
            .set_len(RECORD_BYTES_MAX + 1)
            .unwrap();
        let error = read_record::<Vec<u8>>(&path).unwrap_err().to_string();
        assert!(
            error.contains(&format!("{}", RECORD_BYTES_MAX + 1)),
            "{error}"
        );
    }
}
