//! A task database that cannot be read is set aside.
//!
//! Owns what counts as damage. A file that is in use, and a disk that refuses, do not: the file may
//! be good.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use redb::{DatabaseError, StorageError};
use swarm_agent::PersistedTask;
use swarm_rt::logging;

use super::{DbError, Lost, Opened, TaskDb};

/// Damaged databases that are kept; beyond it the last one is replaced.
const SET_ASIDE_MAX: u32 = 10;

pub(super) fn open(path: &Path) -> Result<Opened, DbError> {
    let lost = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Some(Lost::Missing(path.to_owned())),
        // What the library would take for a new one.
        Ok(metadata) if metadata.is_file() && metadata.len() == 0 => {
            Some(set_aside(path, "it is empty")?)
        }
        Ok(_) | Err(_) => None,
    };
    match open_guarded(path) {
        Err(error) if is_damage(&error) => {
            let lost = Some(set_aside(path, &swarm_rt::chain(&error).to_string())?);
            let (db, tasks) = open_guarded(path)?;
            Ok(Opened { db, tasks, lost })
        }
        opened => opened.map(|(db, tasks)| Opened { db, tasks, lost }),
    }
}

/// The library panics on some kinds of damage.
fn open_guarded(path: &Path) -> Result<(TaskDb, Vec<PersistedTask>), DbError> {
    logging::contain(|| TaskDb::open_sound(path)).unwrap_or(Err(DbError::Panicked))
}

fn is_damage(error: &DbError) -> bool {
    match error {
        DbError::Changed { .. } | DbError::Entry { .. } | DbError::Panicked => true,
        DbError::SetAside(..) => false,
        DbError::Open(_, DatabaseError::Storage(StorageError::Io(error)))
        | DbError::Storage(_, redb::Error::Io(error)) => matches!(
            error.kind(),
            // What the library says of a file that is none of its own, or is cut off.
            ErrorKind::InvalidData | ErrorKind::UnexpectedEof
        ),
        DbError::Open(_, error) => matches!(
            error,
            DatabaseError::RepairAborted
                | DatabaseError::UpgradeRequired(_)
                | DatabaseError::Storage(StorageError::Corrupted(_))
        ),
        DbError::Storage(_, error) => matches!(
            error,
            redb::Error::Corrupted(_)
                | redb::Error::TableTypeMismatch { .. }
                | redb::Error::TableIsMultimap(_)
                | redb::Error::TableDoesNotExist(_)
                | redb::Error::TypeDefinitionChanged { .. }
        ),
    }
}

/// Moves the file away; says so in words.
fn set_aside(path: &Path, why: &str) -> Result<Lost, DbError> {
    let place = |number: u32| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        path.with_file_name(format!("{name}.damaged-{number}"))
    };
    let free = (1..SET_ASIDE_MAX).find(|number| !place(*number).exists());
    let to: PathBuf = place(free.unwrap_or(SET_ASIDE_MAX));
    std::fs::rename(path, &to).map_err(|error| DbError::SetAside(path.to_owned(), error))?;
    let (path, to) = (path.display(), to.display());
    let text = format!("the task database {path} was damaged and is now {to}: {why}");
    Ok(Lost::SetAside(text))
}
