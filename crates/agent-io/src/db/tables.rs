//! The tables of the task database, with a checksum for each value.
//!
//! The checksum covers the table, the task and the value, so a value is found out that was changed,
//! or moved to another task, or is gone.

use std::collections::BTreeMap;

use prost::Message as _;
use redb::{
    Database, ReadTransaction, ReadableTable as _, Table, TableDefinition, TableHandle as _,
    WriteTransaction,
};
use swarm_agent::PersistOp;
use swarm_types::convert;

use super::Raw;

/// Tasks as wire messages, without their status.
pub(super) const TASKS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tasks");
/// Statuses as wire messages.
pub(super) const STATUSES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("statuses");
/// Tasks that are assigned to this node.
const ASSIGNED: TableDefinition<'_, &str, bool> = TableDefinition::new("assigned");
/// The checksums. The key is a letter for the table, `/`, and the task.
pub(super) const CHECKS: TableDefinition<'_, &str, u32> = TableDefinition::new("checks");

/// One of the other tables, as keys of [`CHECKS`] begin.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Task,
    Status,
    Assigned,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Task, Self::Status, Self::Assigned];

    fn key(self, id: &str) -> String {
        let letter = match self {
            Self::Task => 't',
            Self::Status => 's',
            Self::Assigned => 'a',
        };
        format!("{letter}/{id}")
    }
}

fn checksum(key: &str, value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key.as_bytes());
    hasher.update(&[0]);
    hasher.update(value);
    hasher.finalize()
}

/// All tables, to be written.
pub(super) struct Tables<'a> {
    tasks: Table<'a, &'static str, &'static [u8]>,
    statuses: Table<'a, &'static str, &'static [u8]>,
    assigned: Table<'a, &'static str, bool>,
    checks: Table<'a, &'static str, u32>,
}

impl<'a> Tables<'a> {
    /// Makes what is missing.
    pub(super) fn open(transaction: &'a WriteTransaction) -> Result<Self, redb::Error> {
        Ok(Self {
            tasks: transaction.open_table(TASKS)?,
            statuses: transaction.open_table(STATUSES)?,
            assigned: transaction.open_table(ASSIGNED)?,
            checks: transaction.open_table(CHECKS)?,
        })
    }

    pub(super) fn apply(&mut self, ops: &[PersistOp]) -> Result<(), redb::Error> {
        for op in ops {
            match op {
                PersistOp::PutTask(task) => {
                    let mut wire = convert::task_to_wire(task);
                    wire.status = None;
                    let (id, bytes) = (task.id.to_string(), wire.encode_to_vec());
                    self.tasks.insert(&*id, &*bytes)?;
                    self.check(Kind::Task, &id, &bytes)?;
                    self.put_assigned(&id, true)?;
                }
                PersistOp::PutStatus(id, status) => {
                    let wire = convert::task_status_to_wire(status);
                    let (id, bytes) = (id.to_string(), wire.encode_to_vec());
                    self.statuses.insert(&*id, &*bytes)?;
                    self.check(Kind::Status, &id, &bytes)?;
                }
                PersistOp::Unassign(id) => self.put_assigned(&id.to_string(), false)?,
                PersistOp::Delete(id) => self.delete(&id.to_string())?,
            }
        }
        Ok(())
    }

    fn put_assigned(&mut self, id: &str, is_assigned: bool) -> Result<(), redb::Error> {
        self.assigned.insert(id, is_assigned)?;
        self.check(Kind::Assigned, id, &[u8::from(is_assigned)])
    }

    fn check(&mut self, kind: Kind, id: &str, value: &[u8]) -> Result<(), redb::Error> {
        let key = kind.key(id);
        self.checks.insert(&*key, checksum(&key, value))?;
        Ok(())
    }

    fn delete(&mut self, id: &str) -> Result<(), redb::Error> {
        self.tasks.remove(id)?;
        self.statuses.remove(id)?;
        self.assigned.remove(id)?;
        for kind in Kind::ALL {
            self.checks.remove(&*kind.key(id))?;
        }
        Ok(())
    }

    /// Writes the checksums of everything.
    fn check_all(&mut self) -> Result<(), redb::Error> {
        let mut found = Vec::new();
        for entry in self.tasks.iter()? {
            let (id, value) = entry?;
            found.push((Kind::Task, id.value().to_owned(), value.value().to_vec()));
        }
        for entry in self.statuses.iter()? {
            let (id, value) = entry?;
            found.push((Kind::Status, id.value().to_owned(), value.value().to_vec()));
        }
        for entry in self.assigned.iter()? {
            let (id, value) = entry?;
            let value = vec![u8::from(value.value())];
            found.push((Kind::Assigned, id.value().to_owned(), value));
        }
        found
            .into_iter()
            .try_for_each(|(kind, id, value)| self.check(kind, &id, &value))
    }
}

/// Makes the tables. A database of a version that knew no checksums gets them.
pub(super) fn prepare(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let tables = transaction.list_tables()?;
    let names: Vec<String> = tables.map(|table| table.name().to_owned()).collect();
    let has = |name: &str| names.iter().any(|own| own == name);
    let is_old = has(TASKS.name()) && !has(CHECKS.name());
    let mut tables = Tables::open(&transaction)?;
    if is_old {
        tables.check_all()?;
    }
    drop(tables);
    transaction.commit()?;
    Ok(())
}

/// Everything that is stored, in the order of the ids; or which value is not as it was written.
pub(super) fn read(
    transaction: &ReadTransaction,
) -> Result<Result<Vec<(String, Raw)>, String>, redb::Error> {
    let tasks = transaction.open_table(TASKS)?;
    let statuses = transaction.open_table(STATUSES)?;
    let assigned = transaction.open_table(ASSIGNED)?;
    let mut checks = Checks::read(transaction)?;
    let (mut found, mut damaged) = (Vec::new(), None);
    for entry in tasks.iter()? {
        let (id, task) = entry?;
        let id = id.value();
        let status = statuses.get(id)?.map(|status| status.value().to_vec());
        let is_assigned = assigned.get(id)?.map(|flag| flag.value());
        let raw = Raw {
            task: task.value().to_vec(),
            status,
            is_assigned: is_assigned.unwrap_or(false),
        };
        let mut is_good = checks.take(Kind::Task, id, Some(&raw.task));
        is_good &= checks.take(Kind::Status, id, raw.status.as_deref());
        let flag = is_assigned.map(|it| [u8::from(it)]);
        is_good &= checks.take(Kind::Assigned, id, flag.as_ref().map(|it| &it[..]));
        if !is_good {
            damaged.get_or_insert_with(|| format!("one of task {id}"));
        }
        found.push((id.to_owned(), raw));
    }
    // A status may be written before its task is, and after it is gone.
    let missing = checks.0.keys().find(|key| key.starts_with("t/"));
    let missing = missing.map(|key| format!("task {} is missing", &key[2..]));
    Ok(match damaged.or(missing) {
        Some(what) => Err(what),
        None => Ok(found),
    })
}

/// The checksums that were not looked at yet.
struct Checks(BTreeMap<String, u32>);

impl Checks {
    fn read(transaction: &ReadTransaction) -> Result<Self, redb::Error> {
        let table = transaction.open_table(CHECKS)?;
        let mut all = BTreeMap::new();
        for entry in table.iter()? {
            let (key, value) = entry?;
            all.insert(key.value().to_owned(), value.value());
        }
        Ok(Self(all))
    }

    /// Whether a value, or that there is none, is as it was written.
    fn take(&mut self, kind: Kind, id: &str, value: Option<&[u8]>) -> bool {
        let key = kind.key(id);
        let expected = self.0.remove(&key);
        expected == value.map(|value| checksum(&key, value))
    }
}
