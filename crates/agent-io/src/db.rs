//! The local task database: what the agent must remember to take up its tasks after a restart.
//!
//! Every value has a checksum, since the library looks at its own only after a crash. A database
//! that is damaged is set aside: the tasks are found by what the executor has of them.

mod damage;
mod tables;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use redb::backends::FileBackend;
use redb::{Database, ReadableDatabase as _};
use swarm_agent::{PersistBatch, PersistedTask};
use swarm_api::v1;
use swarm_rt::private;
use swarm_types::convert::{self, ConvertError, Interner};
use swarm_types::{Id, TaskStatus};

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The file cannot be opened: it is in use, or damaged, or not ours.
    #[error(
        "the task database {} cannot be opened; is another swarmd running on this state directory?",
        .0.display()
    )]
    Open(PathBuf, #[source] redb::DatabaseError),
    /// A transaction failed, for instance because the disk is full.
    #[error("the task database {} failed", .0.display())]
    Storage(PathBuf, #[source] redb::Error),
    /// The database library panicked.
    #[error("writing the task database panicked")]
    Panicked,
    /// A value is not the one that was written.
    #[error("the task database {} has a value that was changed: {what}", .path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// Which value.
        what: String,
    },
    /// A damaged file cannot be set aside.
    #[error("the damaged task database {} cannot be moved away", .0.display())]
    SetAside(PathBuf, #[source] std::io::Error),
    /// An entry is not what this program writes.
    #[error("the task database {} has a damaged entry for task {task}", .path.display())]
    Entry {
        /// The file.
        path: PathBuf,
        /// The task.
        task: String,
        /// What is wrong with it.
        source: EntryError,
    },
}

/// Opens or makes the file: it holds the environment of tasks, so nobody else may read it.
fn open(path: &Path) -> Result<Database, redb::DatabaseError> {
    let mut options = private::options();
    options.read(true).write(true).create(true).truncate(false);
    let file = private::open(path, &options).map_err(redb::StorageError::Io)?;
    Database::builder().create_with_backend(FileBackend::new(file)?)
}

/// What is wrong with an entry.
#[derive(Debug, thiserror::Error)]
pub enum EntryError {
    /// Not a protobuf message.
    #[error("it is not a message")]
    Decode(#[from] prost::DecodeError),
    /// A message, but not a task.
    #[error("it is not a task")]
    Convert(#[from] ConvertError),
}

/// The database of one agent. Clones share it.
#[derive(Clone)]
pub struct TaskDb {
    /// `None` after a failed write: the library refuses everything after one, until the file is
    /// opened anew.
    database: Arc<Mutex<Option<Database>>>,
    path: PathBuf,
}

impl std::fmt::Debug for TaskDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskDb")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

/// A database with what was in it.
#[derive(Debug)]
pub struct Opened {
    /// The database.
    pub db: TaskDb,
    /// Everything that was stored, in the order of the ids.
    pub tasks: Vec<PersistedTask>,
    /// Why nothing is known of earlier tasks.
    pub lost: Option<Lost>,
}

/// Why a database knows nothing of earlier tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lost {
    /// There was none, as before the first start.
    Missing(PathBuf),
    /// It was damaged and set aside; what is wrong with it, and where it is.
    SetAside(String),
}

impl std::fmt::Display for Lost {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Missing(path) => write!(f, "the task database {} is not there", path.display()),
            Self::SetAside(text) => f.write_str(text),
        }
    }
}

impl TaskDb {
    /// Opens or makes the database. One that is damaged is set aside, and an empty one takes its
    /// place. Blocks.
    ///
    /// # Errors
    /// [`DbError`]: the file is in use, or the system refuses.
    pub fn open(path: &Path) -> Result<Opened, DbError> {
        damage::open(path)
    }

    /// Opens or makes the database. Blocks.
    fn open_sound(path: &Path) -> Result<(Self, Vec<PersistedTask>), DbError> {
        let db = Self {
            database: Arc::default(),
            path: path.to_owned(),
        };
        // Makes the tables, so that reading a fresh database finds them.
        db.with(tables::prepare)?;
        let tasks = db.load()?;
        Ok((db, tasks))
    }

    /// Everything that is stored, in the order of the ids. Blocks.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn load(&self) -> Result<Vec<PersistedTask>, DbError> {
        let read = self.with(|database| tables::read(&database.begin_read()?))?;
        let changed = |what| DbError::Changed {
            path: self.path.clone(),
            what,
        };
        let (tasks, mut loaded) = (read.map_err(changed)?, Vec::new());
        let mut interner = Interner::new();
        for (id, raw) in tasks {
            let task = raw.decode(&mut interner);
            let damaged = |source| DbError::Entry {
                path: self.path.clone(),
                task: id,
                source,
            };
            loaded.push(task.map_err(damaged)?);
        }
        Ok(loaded)
    }

    /// Uses the database, which is opened if need be and closed when the use fails.
    fn with<T>(&self, act: impl FnOnce(&Database) -> Result<T, redb::Error>) -> Result<T, DbError> {
        let mut slot = self.database.lock().unwrap_or_else(PoisonError::into_inner);
        // Outside the slot while it is used: after a panic it must be opened anew as well.
        let database = match slot.take() {
            Some(database) => database,
            None => open(&self.path).map_err(|error| DbError::Open(self.path.clone(), error))?,
        };
        let result = act(&database).map_err(|error| self.storage(error))?;
        *slot = Some(database);
        Ok(result)
    }

    /// Makes a batch durable, all of it or nothing. Blocks.
    ///
    /// # Errors
    /// [`DbError::Storage`].
    pub fn write(&self, batch: &PersistBatch) -> Result<(), DbError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            tables::Tables::open(&transaction)?.apply(&batch.ops)?;
            transaction.commit()?;
            Ok(())
        })
    }

    fn storage(&self, error: redb::Error) -> DbError {
        DbError::Storage(self.path.clone(), error)
    }
}

/// One entry as stored.
struct Raw {
    task: Vec<u8>,
    status: Option<Vec<u8>>,
    is_assigned: bool,
}

impl Raw {
    fn decode(&self, interner: &mut Interner) -> Result<PersistedTask, EntryError> {
        let wire = v1::Task::decode(&*self.task)?;
        let task = convert::task_from_wire(wire, interner)?;
        let id: &Id = task.id.as_id();
        let status = match &self.status {
            Some(bytes) => convert::task_status_from_wire(id, v1::TaskStatus::decode(&**bytes)?)?,
            None => TaskStatus::default(),
        };
        Ok(PersistedTask {
            task,
            status,
            is_assigned: self.is_assigned,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_agent::PersistOp;
    use swarm_types::{Task, TaskState, Timestamp};
    use tables::{CHECKS, STATUSES, TASKS};

    fn batch(sequence: u64, ops: Vec<PersistOp>) -> PersistBatch {
        PersistBatch { sequence, ops }
    }

    fn task(id: &str) -> Arc<Task> {
        Arc::new(Task::new(id.parse().unwrap(), Arc::default()))
    }

    fn running() -> TaskStatus {
        TaskStatus::new(TaskState::Running, Timestamp::from_millis(5), "started")
    }

    /// A database with tasks `a`, which runs, and `b`.
    fn filled(path: &Path) -> TaskDb {
        let db = TaskDb::open(path).unwrap().db;
        let (a, b) = (task("a"), task("b"));
        let status = PersistOp::PutStatus(a.id.clone(), running());
        let ops = vec![PersistOp::PutTask(a), status, PersistOp::PutTask(b)];
        db.write(&batch(1, ops)).unwrap();
        db
    }

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        assert_eq!(TaskDb::open(&path).unwrap().tasks, Vec::new());
        let db = filled(&path);
        let b = task("b").id.clone();
        db.write(&batch(2, vec![PersistOp::Unassign(b)])).unwrap();
        drop(db);
        let Opened { db, tasks, lost } = TaskDb::open(&path).unwrap();
        assert_eq!((tasks.len(), lost), (2, None));
        assert_eq!(tasks[0].status, running());
        assert!(tasks[0].is_assigned && !tasks[1].is_assigned);
        let gone = tasks[0].task.id.clone();
        db.write(&batch(3, vec![PersistOp::Delete(gone.clone())]))
            .unwrap();
        assert_eq!(db.load().unwrap().len(), 1);
        // As an agent may that forgot the task meanwhile.
        db.write(&batch(4, vec![PersistOp::PutStatus(gone, running())]))
            .unwrap();
        assert_eq!(db.load().unwrap().len(), 1);
    }

    #[test]
    fn a_second_process_is_refused_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let _held = TaskDb::open(&path).unwrap();
        let error = TaskDb::open(&path).unwrap_err();
        assert!(error.to_string().contains("tasks.db"), "{error}");
        assert_eq!(names(directory.path()), ["tasks.db"]);
    }

    /// The values as they are on the disk, which redb does not look at after a clean stop.
    #[test]
    fn a_database_with_any_damage_is_set_aside() {
        let directory = tempfile::tempdir().unwrap();
        let sound = directory.path().join("sound.db");
        drop(filled(&sound));
        let sound = std::fs::read(sound).unwrap();
        let at = |text: &[u8]| sound.windows(text.len()).position(|it| it == text).unwrap();
        let with = |change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = sound.clone();
            change(&mut bytes);
            bytes
        };
        let flip = |at: usize| with(&|bytes: &mut Vec<u8>| bytes[at] ^= 1);
        let damages = [
            (
                "foreign",
                b"this is not a database, but it is long enough".to_vec(),
            ),
            ("empty", Vec::new()),
            ("cut", sound[..sound.len() / 2].to_vec()),
            ("zeroes", vec![0; sound.len()]),
            ("head", flip(3)),
            ("message", flip(at(b"started"))),
        ];
        for (name, damage) in damages {
            let place = directory.path().join(name);
            std::fs::create_dir(&place).unwrap();
            let path = place.join("tasks.db");
            std::fs::write(&path, &damage).unwrap();
            let Opened { db, tasks, lost } = TaskDb::open(&path).unwrap();
            assert_eq!(tasks, Vec::new(), "{name}");
            let lost = lost.unwrap().to_string();
            assert!(lost.contains("tasks.db.damaged-1"), "{name}: {lost}");
            assert!(place.join("tasks.db.damaged-1").exists(), "{name}");
            db.write(&batch(1, vec![PersistOp::PutTask(task("c"))]))
                .unwrap();
            drop(db);
            let again = TaskDb::open(&path).unwrap();
            assert_eq!((again.tasks.len(), again.lost), (1, None), "{name}");
        }
    }

    #[test]
    fn the_file_is_private_and_never_behind_a_link() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let mode = || path.metadata().unwrap().permissions().mode() & 0o777;
        drop(TaskDb::open(&path).unwrap());
        assert_eq!(mode(), 0o600);
        let open = std::fs::Permissions::from_mode(0o666);
        std::fs::set_permissions(&path, open).unwrap();
        drop(TaskDb::open(&path).unwrap());
        assert_eq!(mode(), 0o600);
        let link = directory.path().join("link.db");
        symlink(&path, &link).unwrap();
        assert!(matches!(TaskDb::open(&link), Err(DbError::Open(..))));
    }

    #[test]
    fn values_that_were_changed_moved_or_taken_away_are_found_out() {
        type Change = fn(&redb::WriteTransaction) -> Result<(), redb::Error>;
        let changes: [(&str, Change); 5] = [
            ("task", |tx| {
                Ok(tx
                    .open_table(TASKS)?
                    .insert("a", &b"\xff\xff"[..])
                    .map(drop)?)
            }),
            ("status", |tx| {
                Ok(tx.open_table(STATUSES)?.insert("b", &b""[..]).map(drop)?)
            }),
            ("no status", |tx| {
                Ok(tx.open_table(STATUSES)?.remove("a").map(drop)?)
            }),
            ("no task", |tx| {
                Ok(tx.open_table(TASKS)?.remove("a").map(drop)?)
            }),
            ("no check", |tx| {
                Ok(tx.open_table(CHECKS)?.remove("t/b").map(drop)?)
            }),
        ];
        for (name, change) in changes {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("tasks.db");
            let db = filled(&path);
            db.with(|database| {
                let transaction = database.begin_write()?;
                change(&transaction)?;
                transaction.commit()?;
                Ok(())
            })
            .unwrap();
            drop(db);
            let opened = TaskDb::open(&path).unwrap();
            assert_eq!(opened.tasks, Vec::new(), "{name}");
            let lost = opened.lost.unwrap().to_string();
            assert!(lost.contains("a value that was changed"), "{name}: {lost}");
        }
    }

    #[test]
    fn a_database_of_before_the_checksums_is_taken_and_gets_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let db = filled(&path);
        db.with(|database| {
            let transaction = database.begin_write()?;
            transaction.delete_table(CHECKS)?;
            transaction.commit()?;
            Ok(())
        })
        .unwrap();
        drop(db);
        for _ in 0..2 {
            let opened = TaskDb::open(&path).unwrap();
            assert_eq!((opened.tasks.len(), opened.lost), (2, None));
        }
    }

    #[test]
    fn a_database_that_is_not_there_is_told_and_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let lost = TaskDb::open(&path).unwrap().lost;
        assert_eq!(lost, Some(Lost::Missing(path.clone())));
        assert_eq!(TaskDb::open(&path).unwrap().lost, None);
    }

    #[test]
    fn a_write_that_failed_does_not_spoil_those_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let db = TaskDb::open(&path).unwrap().db;
        db.write(&batch(1, vec![PersistOp::PutTask(task("a"))]))
            .unwrap();
        let failure = || std::io::Error::from(std::io::ErrorKind::StorageFull);
        let failed = db.with(|_| Err::<(), _>(redb::Error::Io(failure())));
        assert!(matches!(failed, Err(DbError::Storage(..))));
        db.write(&batch(2, vec![PersistOp::PutTask(task("b"))]))
            .unwrap();
        assert_eq!(db.load().unwrap().len(), 2);
        assert!(
            TaskDb::open(&path).is_err(),
            "it holds the file all the same"
        );
    }
}
