//! The local task database: what the agent must remember to take up its tasks after a restart.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use prost::Message as _;
use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use swarm_agent::{PersistBatch, PersistOp, PersistedTask};
use swarm_api::v1;
use swarm_types::convert::{self, ConvertError, Interner};
use swarm_types::{Id, TaskStatus};

/// Tasks as wire messages, without their status.
const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
/// Statuses as wire messages.
const STATUSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("statuses");
/// Tasks that are assigned to this node.
const ASSIGNED: TableDefinition<'_, &str, bool> = TableDefinition::new("assigned");

/// Why the database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DbError {
    /// The file cannot be opened: it is in use, or damaged, or not ours.
    #[error(
        "the task database {} cannot be opened; is another swarmd running on this state \
         directory? If the file is damaged, move it away: the tasks then start anew", .0.display()
    )]
    Open(PathBuf, #[source] redb::DatabaseError),
    /// A transaction failed, for instance because the disk is full.
    #[error("the task database {} failed", .0.display())]
    Storage(PathBuf, #[source] redb::Error),
    /// The database library panicked.
    #[error("writing the task database panicked")]
    Panicked,
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

impl TaskDb {
    /// Opens or makes the database. Blocks.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn open(path: &Path) -> Result<Self, DbError> {
        let db = Self {
            database: Arc::default(),
            path: path.to_owned(),
        };
        // Makes the tables, so that reading a fresh database finds them.
        db.write(&PersistBatch {
            sequence: 0,
            ops: Vec::new(),
        })?;
        Ok(db)
    }

    /// Everything that is stored, in the order of the ids. Blocks.
    ///
    /// # Errors
    /// [`DbError`].
    pub fn load(&self) -> Result<Vec<PersistedTask>, DbError> {
        let (tasks, mut loaded) = (self.read_raw()?, Vec::new());
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
            None => Database::create(&self.path)
                .map_err(|error| DbError::Open(self.path.clone(), error))?,
        };
        let result = act(&database).map_err(|error| self.storage(error))?;
        *slot = Some(database);
        Ok(result)
    }

    fn read_raw(&self) -> Result<Vec<(String, Raw)>, DbError> {
        self.with(|database| {
            let transaction = database.begin_read()?;
            let tasks = transaction.open_table(TASKS)?;
            let statuses = transaction.open_table(STATUSES)?;
            let assigned = transaction.open_table(ASSIGNED)?;
            let mut found = Vec::new();
            for entry in tasks.iter()? {
                let (id, task) = entry?;
                let status = statuses.get(id.value())?;
                let raw = Raw {
                    task: task.value().to_vec(),
                    status: status.map(|status| status.value().to_vec()),
                    is_assigned: assigned.get(id.value())?.is_some_and(|flag| flag.value()),
                };
                found.push((id.value().to_owned(), raw));
            }
            Ok(found)
        })
    }

    /// Makes a batch durable, all of it or nothing. Blocks.
    ///
    /// # Errors
    /// [`DbError::Storage`].
    pub fn write(&self, batch: &PersistBatch) -> Result<(), DbError> {
        self.with(|database| {
            let transaction = database.begin_write()?;
            {
                let mut tasks = transaction.open_table(TASKS)?;
                let mut statuses = transaction.open_table(STATUSES)?;
                let mut assigned = transaction.open_table(ASSIGNED)?;
                for op in &batch.ops {
                    match op {
                        PersistOp::PutTask(task) => {
                            let id = task.id.to_string();
                            let mut wire = convert::task_to_wire(task);
                            wire.status = None;
                            tasks.insert(&*id, &*wire.encode_to_vec())?;
                            assigned.insert(&*id, true)?;
                        }
                        PersistOp::PutStatus(id, status) => {
                            let wire = convert::task_status_to_wire(status);
                            statuses.insert(&*id.to_string(), &*wire.encode_to_vec())?;
                        }
                        PersistOp::Unassign(id) => {
                            assigned.insert(&*id.to_string(), false)?;
                        }
                        PersistOp::Delete(id) => {
                            let id = id.to_string();
                            tasks.remove(&*id)?;
                            statuses.remove(&*id)?;
                            assigned.remove(&*id)?;
                        }
                    }
                }
            }
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
    use swarm_types::{Task, TaskState, Timestamp};

    fn batch(sequence: u64, ops: Vec<PersistOp>) -> PersistBatch {
        PersistBatch { sequence, ops }
    }

    fn task(id: &str) -> Arc<Task> {
        Arc::new(Task::new(id.parse().unwrap(), Arc::default()))
    }

    #[test]
    fn what_was_written_is_there_after_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let running = TaskStatus::new(TaskState::Running, Timestamp::from_millis(5), "started");
        {
            let db = TaskDb::open(&path).unwrap();
            assert_eq!(db.load().unwrap(), Vec::new());
            let (a, b) = (task("a"), task("b"));
            let status = PersistOp::PutStatus(a.id.clone(), running.clone());
            let ops = vec![PersistOp::PutTask(a), status, PersistOp::PutTask(b.clone())];
            db.write(&batch(1, ops)).unwrap();
            db.write(&batch(2, vec![PersistOp::Unassign(b.id.clone())]))
                .unwrap();
        }
        let db = TaskDb::open(&path).unwrap();
        let loaded = db.load().unwrap();
        assert_eq!(loaded.len(), 2);
        assert_eq!(loaded[0].status, running);
        assert!(loaded[0].is_assigned && !loaded[1].is_assigned);
        db.write(&batch(
            3,
            vec![PersistOp::Delete(loaded[0].task.id.clone())],
        ))
        .unwrap();
        assert_eq!(db.load().unwrap().len(), 1);
    }

    #[test]
    fn a_second_process_and_a_foreign_file_are_refused_with_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let _held = TaskDb::open(&path).unwrap();
        let error = TaskDb::open(&path).unwrap_err();
        assert!(error.to_string().contains("tasks.db"), "{error}");
        let foreign = directory.path().join("foreign.db");
        std::fs::write(&foreign, b"this is not a database, but it is long enough").unwrap();
        assert!(matches!(TaskDb::open(&foreign), Err(DbError::Open(..))));
    }

    #[test]
    fn a_damaged_entry_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let db = TaskDb::open(&path).unwrap();
        db.with(|database| {
            let transaction = database.begin_write()?;
            transaction
                .open_table(TASKS)?
                .insert("bad", &b"\xff\xff"[..])?;
            transaction.commit()?;
            Ok(())
        })
        .unwrap();
        let error = db.load().unwrap_err();
        assert!(error.to_string().contains("task bad"), "{error}");
    }

    #[test]
    fn a_write_that_failed_does_not_spoil_those_after_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tasks.db");
        let db = TaskDb::open(&path).unwrap();
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
