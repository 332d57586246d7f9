//! A disk in memory that forgets, tears, fails and fills up as a seed tells it to.
//!
//! Owns the model of what survives: each file has what programs see and what is durable, and so
//! has the directory. Used by the tests of this crate and by the simulator.
//!
//! The model of a loss of power: unsynced writes of a file survive as a prefix with a torn end,
//! or sector by sector in any combination, or not at all; unsynced changes of names survive as a
//! prefix. A failed sync makes some of the pending writes durable and forgets that the others were
//! ever pending, as a page cache may do: a second sync succeeds and saves nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskError, DiskErrorKind, DiskOp};
use crate::mix::Mix;

/// Smallest unit that a real disk writes as a whole.
const SECTOR_BYTES: usize = 512;

/// What a crash takes away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The program died; the system remembers every write.
    Process,
    /// The machine died; unsynced writes may be lost or torn.
    Power,
}

/// A handle to a simulated disk; clones share it.
#[derive(Clone, Debug)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    mix: Mix,
    files: BTreeMap<u64, File>,
    next_file: u64,
    /// Names as programs see them.
    names: BTreeMap<String, u64>,
    /// Names as they are on the disk.
    durable_names: BTreeMap<String, u64>,
    pending_names: Vec<NameChange>,
    capacity: Option<u64>,
    operations: u64,
    syncs: u64,
    faults: BTreeMap<u64, Fault>,
    powered: bool,
}

#[derive(Debug, Default)]
struct File {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

#[derive(Clone, Debug)]
enum Write {
    Grow(usize),
    Cut(usize),
    Bytes(usize, Vec<u8>),
}

#[derive(Clone, Debug)]
enum NameChange {
    Link(String, u64),
    Rename(String, String),
    Unlink(String),
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Fail(DiskErrorKind),
    CutPower,
}

impl SimDisk {
    /// An empty disk without a limit.
    pub fn new(seed: u64) -> Self {
        let state = State {
            mix: Mix::new(seed),
            files: BTreeMap::new(),
            next_file: 0,
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            capacity: None,
            operations: 0,
            syncs: 0,
            faults: BTreeMap::new(),
            powered: true,
        };
        SimDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Limits the sum of all file sizes, in bytes; `None` lifts the limit.
    pub fn set_capacity(&self, capacity: Option<u64>) {
        self.lock().capacity = capacity;
    }

    /// Sum of all file sizes in bytes.
    pub fn used(&self) -> u64 {
        self.lock().used()
    }

    /// Changing operations so far (create, write, cut, sync, rename, remove, directory sync).
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Syncs of files so far, for those who charge time for them.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Makes the changing operation number `operation`, counted from 1 over the life of the disk,
    /// fail once.
    pub fn fail_at(&self, operation: u64, kind: DiskErrorKind) {
        self.lock().faults.insert(operation, Fault::Fail(kind));
    }

    /// Takes the power away during that operation: it and all later ones fail until
    /// [`SimDisk::crash`].
    pub fn cut_power_at(&self, operation: u64) {
        self.lock().faults.insert(operation, Fault::CutPower);
    }

    /// The machine or the program dies and comes back; faults that were planned are forgotten.
    pub fn crash(&self, loss: Loss) {
        let mut state = self.lock();
        state.faults.clear();
        state.powered = true;
        if loss == Loss::Power {
            state.lose_unsynced();
        }
    }

    /// The content of a file as programs see it.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let file = state.names.get(name)?;
        Some(state.files.get(file)?.seen.clone())
    }

    /// Puts a durable file there, whatever was there before: the tool of tests that damage files.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.lock();
        let id = state.next_file;
        state.next_file += 1;
        let file = File {
            seen: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        };
        state.files.insert(id, file);
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// A durable copy of what programs see, with its own life.
    pub fn fork(&self, seed: u64) -> SimDisk {
        let copy = SimDisk::new(seed);
        let names: Vec<String> = self.lock().names.keys().cloned().collect();
        for name in names {
            copy.put(&name, self.bytes(&name).unwrap_or_default());
        }
        copy
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves plain data behind; there is no invariant to protect.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn used(&self) -> u64 {
        self.names
            .values()
            .map(|id| self.files[id].seen.len() as u64)
            .sum()
    }

    /// Counts an operation; `Some` when it is to fail.
    fn begin(&mut self, op: DiskOp, name: &str) -> Option<DiskError> {
        self.operations += 1;
        match self.faults.remove(&self.operations) {
            Some(Fault::Fail(kind)) => {
                return Some(DiskError::new(op, name, kind, "injected failure"));
            }
            Some(Fault::CutPower) => self.powered = false,
            None => {}
        }
        self.check_power(op, name).err()
    }

    fn check_power(&self, op: DiskOp, name: &str) -> Result<(), DiskError> {
        if self.powered {
            return Ok(());
        }
        Err(DiskError::new(
            op,
            name,
            DiskErrorKind::Other,
            "the power is off",
        ))
    }

    fn id(&self, op: DiskOp, name: &str) -> Result<u64, DiskError> {
        let missing = || DiskError::new(op, name, DiskErrorKind::Missing, "no such file");
        self.names.get(name).copied().ok_or_else(missing)
    }

    fn file(&mut self, op: DiskOp, name: &str) -> Result<&mut File, DiskError> {
        let id = self.id(op, name)?;
        Ok(self.files.get_mut(&id).expect("every name leads to a file"))
    }

    fn check_space(&self, op: DiskOp, name: &str, more: usize) -> Result<(), DiskError> {
        match self.capacity {
            Some(capacity) if self.used() + more as u64 > capacity => Err(DiskError::new(
                op,
                name,
                DiskErrorKind::Full,
                "no space left on device",
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn lose_unsynced(&mut self) {
        let keep = self.mix.below(self.pending_names.len() as u64 + 1);
        let kept: Vec<NameChange> = self.pending_names.drain(..).take(keep as usize).collect();
        for change in &kept {
            change.apply(&mut self.durable_names);
        }
        self.names = self.durable_names.clone();
        for file in self.files.values_mut() {
            let pending = std::mem::take(&mut file.pending);
            let survivors = survivors(&mut self.mix, pending);
            for write in &survivors {
                write.apply(&mut file.durable);
            }
            file.seen = file.durable.clone();
        }
        let linked: Vec<u64> = self.names.values().copied().collect();
        self.files.retain(|id, _| linked.contains(id));
    }
}

/// Chooses what of the unsynced writes of one file reached the disk.
fn survivors(mix: &mut Mix, pending: Vec<Write>) -> Vec<Write> {
    match mix.below(4) {
        0 => Vec::new(),
        1 => prefix(mix, pending),
        _ => pending
            .into_iter()
            .flat_map(|write| sectors(mix, write))
            .collect(),
    }
}

/// Some of the first writes, the last one cut at any byte.
fn prefix(mix: &mut Mix, pending: Vec<Write>) -> Vec<Write> {
    let whole = mix.below(pending.len() as u64 + 1) as usize;
    let mut kept: Vec<Write> = pending.iter().take(whole).cloned().collect();
    if let Some(Write::Bytes(offset, bytes)) = pending.get(whole) {
        let cut = mix.below(bytes.len() as u64 + 1) as usize;
        kept.push(Write::Bytes(*offset, bytes[..cut].to_vec()));
    }
    kept
}

/// Any combination of the sectors that a write touches.
fn sectors(mix: &mut Mix, write: Write) -> Vec<Write> {
    let (offset, bytes) = match write {
        Write::Grow(_) | Write::Cut(_) => return vec![write],
        Write::Bytes(offset, bytes) => (offset, bytes),
    };
    let mut kept = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes
            .len()
            .min(at + SECTOR_BYTES - (offset + at) % SECTOR_BYTES);
        if mix.below(2) == 0 {
            kept.push(Write::Bytes(offset + at, bytes[at..end].to_vec()));
        }
        at = end;
    }
    kept
}

impl Write {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Write::Grow(size) => content.resize((*size).max(content.len()), 0),
            Write::Cut(size) => content.truncate(*size),
            Write::Bytes(offset, bytes) => {
                let end = offset + bytes.len();
                content.resize(end.max(content.len()), 0);
                content[*offset..end].copy_from_slice(bytes);
            }
        }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, u64>) {
        match self {
            NameChange::Link(name, id) => drop(names.insert(name.clone(), *id)),
            NameChange::Rename(from, to) => {
                if let Some(id) = names.remove(from) {
                    names.insert(to.clone(), id);
                }
            }
            NameChange::Unlink(name) => drop(names.remove(name)),
        }
    }
}

impl Disk for SimDisk {
    fn list(&mut self) -> Result<Vec<String>, DiskError> {
        let state = self.lock();
        state.check_power(DiskOp::List, "")?;
        Ok(state.names.keys().cloned().collect())
    }

    fn create(&mut self, name: &str, size: u64) -> Result<(), DiskError> {
        let mut state = self.lock();
        if let Some(error) = state.begin(DiskOp::Create, name) {
            return Err(error);
        }
        if state.names.contains_key(name) {
            let kind = DiskErrorKind::Exists;
            return Err(DiskError::new(DiskOp::Create, name, kind, "file exists"));
        }
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        state.check_space(DiskOp::Create, name, size)?;
        let id = state.next_file;
        state.next_file += 1;
        let file = File {
            seen: vec![0; size],
            durable: Vec::new(),
            pending: vec![Write::Grow(size)],
        };
        state.files.insert(id, file);
        let change = NameChange::Link(name.to_owned(), id);
        change.apply(&mut state.names);
        state.pending_names.push(change);
        Ok(())
    }

    fn len(&mut self, name: &str) -> Result<u64, DiskError> {
        let mut state = self.lock();
        state.check_power(DiskOp::Read, name)?;
        Ok(state.file(DiskOp::Read, name)?.seen.len() as u64)
    }

    fn read_at(&mut self, name: &str, offset: u64, buf: &mut [u8]) -> Result<usize, DiskError> {
        let mut state = self.lock();
        state.check_power(DiskOp::Read, name)?;
        let file = state.file(DiskOp::Read, name)?;
        let from = usize::try_from(offset)
            .unwrap_or(usize::MAX)
            .min(file.seen.len());
        let count = buf.len().min(file.seen.len() - from);
        buf[..count].copy_from_slice(&file.seen[from..from + count]);
        Ok(count)
    }

    fn write_at(&mut self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut state = self.lock();
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let failure = state.begin(DiskOp::Write, name);
        let kept = match failure {
            // A write that fails, or meets the cut, may have done any part of its work.
            Some(_) => state.mix.below(bytes.len() as u64 + 1) as usize,
            None => bytes.len(),
        };
        let grows =
            (offset + bytes.len()).saturating_sub(state.file(DiskOp::Write, name)?.seen.len());
        state.check_space(DiskOp::Write, name, grows)?;
        let file = state.file(DiskOp::Write, name)?;
        let write = Write::Bytes(offset, bytes[..kept].to_vec());
        write.apply(&mut file.seen);
        file.pending.push(write);
        failure.map_or(Ok(()), Err)
    }

    fn truncate(&mut self, name: &str, len: u64) -> Result<(), DiskError> {
        let mut state = self.lock();
        if let Some(error) = state.begin(DiskOp::Write, name) {
            return Err(error);
        }
        let file = state.file(DiskOp::Write, name)?;
        let write = Write::Cut(usize::try_from(len).unwrap_or(usize::MAX));
        write.apply(&mut file.seen);
        file.pending.push(write);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> Result<(), DiskError> {
        let mut state = self.lock();
        let failure = state.begin(DiskOp::Sync, name);
        if failure.is_some() && !state.powered {
            return failure.map_or(Ok(()), Err);
        }
        let id = state.id(DiskOp::Sync, name)?;
        state.syncs += 1;
        let state = &mut *state;
        let file = state
            .files
            .get_mut(&id)
            .expect("every name leads to a file");
        for write in std::mem::take(&mut file.pending) {
            if failure.is_none() || state.mix.below(2) == 0 {
                write.apply(&mut file.durable);
            }
        }
        failure.map_or(Ok(()), Err)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<(), DiskError> {
        let mut state = self.lock();
        if let Some(error) = state.begin(DiskOp::Rename, from) {
            return Err(error);
        }
        state.id(DiskOp::Rename, from)?;
        let change = NameChange::Rename(from.to_owned(), to.to_owned());
        change.apply(&mut state.names);
        state.pending_names.push(change);
        Ok(())
    }

    fn remove(&mut self, name: &str) -> Result<(), DiskError> {
        let mut state = self.lock();
        if let Some(error) = state.begin(DiskOp::Remove, name) {
            return Err(error);
        }
        state.id(DiskOp::Remove, name)?;
        let change = NameChange::Unlink(name.to_owned());
        change.apply(&mut state.names);
        state.pending_names.push(change);
        Ok(())
    }

    fn sync_dir(&mut self) -> Result<(), DiskError> {
        let mut state = self.lock();
        let failure = state.begin(DiskOp::SyncDir, "");
        if let Some(error) = failure {
            return Err(error);
        }
        for change in std::mem::take(&mut state.pending_names) {
            change.apply(&mut state.durable_names);
        }
        let linked: Vec<u64> = state.names.values().copied().collect();
        state.files.retain(|id, _| linked.contains(id));
        Ok(())
    }
}
