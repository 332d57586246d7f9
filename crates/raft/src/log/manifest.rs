//! The manifest: which segment is the newest, and how far it is known to be durable.
//!
//! Owns that file. A segment alone cannot tell records that were never acknowledged from records
//! that somebody cut off, nor can a directory tell that its newest segment was removed; the
//! manifest can, because it says only what was durable before it was written.
//!
//! It is written behind each batch without a sync of its own: after the end of the program it is
//! exact, after a loss of power it may be some seconds old, and then less is told apart. So nothing
//! that fails here stops anybody. Two slots of a page each are written in turn, and the newer one
//! that is whole counts.
//!
//! Slot, little endian:
//!
//! ```text
//!   0  magic, 8 bytes              32  base index of that segment, u64
//!   8  format version, u32         40  durable up to this offset, u64
//!  12  flags, u32 (1: trimmed)     48  zero
//!  16  number of the write, u64    60  CRC of bytes 0..60, u32
//!  24  newest segment, u64
//! ```

use super::segment::{u32_at, u64_at};
use super::{LogError, Segment};
use crate::disk::{Disk, DiskError, read_all};

/// Name of the manifest.
pub(crate) const MANIFEST: &str = "log.manifest";

/// Name under which it is made.
const MANIFEST_TEMP: &str = "log.manifest.tmp";

const MAGIC: [u8; 8] = *b"swrmman\n";
const FORMAT_VERSION: u32 = 1;
const MARK_BYTES: usize = 64;
const CRC_AT: usize = MARK_BYTES - 4;

/// Slots lie in different pages, so that a torn write spoils one at most.
const SLOT_BYTES: u64 = 4096;
const SLOTS: u64 = 2;

/// What the manifest says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// Number of the newest segment; 0 before the first.
    pub(crate) number: u64,
    /// Its base index, which is a part of its name.
    pub(crate) base_index: u64,
    /// Everything in it before this offset was durable.
    pub(crate) offset: u64,
    /// Whether it was cut off behind its last record on purpose, before there was a newer one.
    pub(crate) is_trimmed: bool,
}

impl Mark {
    /// The segment that it speaks of.
    pub(super) fn segment(&self) -> Segment {
        Segment {
            number: self.number,
            base_index: self.base_index,
        }
    }

    fn encode(self, write: u64) -> [u8; MARK_BYTES] {
        let mut bytes = [0; MARK_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &FORMAT_VERSION.to_le_bytes());
        put(12, &u32::from(self.is_trimmed).to_le_bytes());
        put(16, &write.to_le_bytes());
        put(24, &self.number.to_le_bytes());
        put(32, &self.base_index.to_le_bytes());
        put(40, &self.offset.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// Reads a slot; `None` when it was never written, or only in part.
    fn decode(bytes: &[u8]) -> Result<Option<(u64, Mark)>, LogError> {
        let Some(bytes) = bytes.first_chunk::<MARK_BYTES>() else {
            return Ok(None);
        };
        let is_whole = crc32fast::hash(&bytes[..CRC_AT]) == u32_at(bytes, CRC_AT);
        if bytes[..8] != MAGIC || !is_whole {
            return Ok(None);
        }
        let found = u32_at(bytes, 8);
        if found != FORMAT_VERSION {
            return Err(LogError::UnknownFormat {
                file: MANIFEST.to_owned(),
                found,
                known: FORMAT_VERSION,
            });
        }
        let mark = Mark {
            number: u64_at(bytes, 24),
            base_index: u64_at(bytes, 32),
            offset: u64_at(bytes, 40),
            is_trimmed: u32_at(bytes, 12) & 1 == 1,
        };
        Ok(Some((u64_at(bytes, 16), mark)))
    }
}

/// Reads the manifest with the number of its last write; `None` when there is none.
pub(super) fn read<D: Disk>(disk: &mut D) -> Result<Option<(u64, Mark)>, LogError> {
    if !disk.list()?.iter().any(|name| name == MANIFEST) {
        return Ok(None);
    }
    let bytes = read_all(disk, MANIFEST)?;
    let mut newest: Option<(u64, Mark)> = None;
    for slot in bytes.chunks(SLOT_BYTES as usize) {
        if let Some(found) = Mark::decode(slot)?
            && newest.is_none_or(|(write, _)| write < found.0)
        {
            newest = Some(found);
        }
    }
    let unreadable = || LogError::Corrupt {
        file: MANIFEST.to_owned(),
        offset: 0,
        what: "neither of the two places of the manifest can be read".to_owned(),
    };
    newest.map(Some).ok_or_else(unreadable)
}

/// The manifest of a log that is written.
pub(super) struct Manifest {
    /// Number of the last write; `None` when there was no room to make the file.
    write: Option<u64>,
}

impl Manifest {
    /// Takes up the manifest that is there, or makes one which says `mark`. On a full disk the log
    /// goes without: its segments say so, and the next start makes one.
    pub(super) fn open<D: Disk>(disk: &mut D, mark: Mark) -> Result<Self, LogError> {
        if let Some((write, _)) = read(disk)? {
            return Ok(Manifest { write: Some(write) });
        }
        match make(disk, mark) {
            Ok(()) => Ok(Manifest { write: Some(1) }),
            Err(error) if error.is_full() => {
                drop(disk.remove(MANIFEST_TEMP));
                Ok(Manifest { write: None })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Whether there is one.
    pub(super) fn exists(&self) -> bool {
        self.write.is_some()
    }

    /// Says how far a segment is durable. Failing makes the manifest old, which is allowed.
    pub(super) fn note<D: Disk>(&mut self, disk: &mut D, mark: Mark) {
        drop(self.write(disk, mark));
    }

    /// The same, and returns whether a loss of power cannot undo it.
    pub(super) fn note_durably<D: Disk>(&mut self, disk: &mut D, mark: Mark) -> bool {
        self.write.is_some() && self.write(disk, mark).is_ok() && disk.sync(MANIFEST).is_ok()
    }

    fn write<D: Disk>(&mut self, disk: &mut D, mark: Mark) -> Result<(), DiskError> {
        let Some(write) = &mut self.write else {
            return Ok(());
        };
        let next = *write + 1;
        disk.write_at(MANIFEST, next % SLOTS * SLOT_BYTES, &mark.encode(next))?;
        // After a failure the same slot is written again: the other one is whole.
        *write = next;
        Ok(())
    }
}

fn make<D: Disk>(disk: &mut D, mark: Mark) -> Result<(), DiskError> {
    if disk.list()?.iter().any(|name| name == MANIFEST_TEMP) {
        disk.remove(MANIFEST_TEMP)?;
    }
    disk.create(MANIFEST_TEMP, SLOTS * SLOT_BYTES)?;
    let first = 1;
    disk.write_at(
        MANIFEST_TEMP,
        first % SLOTS * SLOT_BYTES,
        &mark.encode(first),
    )?;
    disk.sync(MANIFEST_TEMP)?;
    disk.rename(MANIFEST_TEMP, MANIFEST)?;
    disk.sync_dir()
}
