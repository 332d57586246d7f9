//! The segmented log: appending, rotation and compaction over a [`Disk`].
//!
//! Owns the write side and the names of segment files. The byte formats are in `segment` (file
//! header) and `record`; reading back and the rules of repair are in `recover`. Knows nothing of
//! what an entry means.
//!
//! Rules that keep acknowledged records:
//!
//! - A batch is one write and one sync; only then does [`Log::append`] return.
//! - A failed write can be repeated: the next append wipes what it left, and takes new sequence
//!   numbers, so no nonce is used twice. A failed sync is final, for ever.
//! - A segment appears under its name only when header and opening records are durable.
//! - Nobody appends to a segment of an earlier run: a start always opens a new one.
//! - Only what was durable before is written into the manifest, which tells at the next start
//!   whether something of it is missing.

use std::collections::VecDeque;
use std::fmt;

use bytes::Bytes;

use crate::disk::{Disk, DiskError};
use crate::seal::{FileKey, KeyId, Keyring, Salt, SaltSource};

mod error;
mod manifest;
mod opening;
mod record;
mod recover;
mod segment;
#[cfg(test)]
mod tests;

pub use error::LogError;
use manifest::{Manifest, Mark};
pub use opening::prepare_spare;
use opening::{Failed, OPENING_BYTES_MAX, Opening, Retry, discard_temp, open_segment};
use record::{Frame, Kind};
pub use recover::{Recovered, TornTail, recover};
pub use segment::{Identity, IdentityError};

/// Bytes in a segment unless configured otherwise. Large enough that making one is rare, small
/// enough that dropping whole segments keeps the log near its useful size.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 * 1024 * 1024;

/// The smallest segment that may be configured: a header and some hundred small records.
pub const SEGMENT_BYTES_MIN: u64 = 4 * 1024;
/// Size of the segment of a start on a full disk, if the end of the last one leaves so much: room
/// for the states of nodes and tasks, of which each takes about a kilobyte.
const SEGMENT_BYTES_TIGHT: u64 = 256 * 1024;

/// Payload bytes of one record at most; the length field has 32 bits, and nothing near this size
/// is ever proposed.
pub const PAYLOAD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// A place in the log: the index and term of one entry. Zero and zero before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Index, from 1.
    pub index: u64,
    /// Term in which a leader appended it.
    pub term: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "index {} term {}", self.index, self.term)
    }
}

/// What kind of thing an entry carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// Data of the state machine, or nothing.
    Normal,
    /// A change of the membership.
    ConfChange,
}

/// One log entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands.
    pub at: Position,
    /// What it carries.
    pub kind: EntryKind,
    /// The bytes it carries.
    pub data: Bytes,
}

/// What consensus must remember besides the entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HardState {
    /// Latest term seen.
    pub term: u64,
    /// Whom this member voted for in that term; 0 for nobody.
    pub vote: u64,
    /// Highest index known to be committed. May lag behind.
    pub commit: u64,
}

/// How a log is written.
pub struct LogOptions {
    /// Size of new segments in bytes, at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes: u64,
    /// Whose log it is.
    pub identity: Identity,
    /// Keys at rest.
    pub keys: Keyring,
    /// One fresh salt per segment.
    pub salts: SaltSource,
}

/// Where a log starts to write.
#[derive(Clone, Debug, Default)]
pub struct StartPoint {
    /// Last entry that the log holds, or the snapshot that it follows.
    pub last: Position,
    /// Newest snapshot, if there is one.
    pub snapshot: Option<Position>,
    /// State to carry over.
    pub hard_state: HardState,
    /// Whether entries found on disk are void because a snapshot replaced them.
    pub reset: Reset,
}

/// Whether the entries of earlier segments still count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reset {
    /// They count.
    #[default]
    Keep,
    /// They are void.
    Discard,
}

/// One segment file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Number of the segment, counted from 1.
    pub(crate) number: u64,
    /// Last index before this segment was begun.
    pub(crate) base_index: u64,
}

impl Segment {
    pub(crate) fn name(&self) -> String {
        format!("log-{:016x}-{:016x}.seg", self.number, self.base_index + 1)
    }

    /// Reads a file name; `None` when it is not the name of a segment.
    pub(crate) fn parse(name: &str) -> Option<Segment> {
        let (number, first) = name
            .strip_prefix("log-")?
            .strip_suffix(".seg")?
            .split_once('-')?;
        let segment = Segment {
            number: u64::from_str_radix(number, 16).ok()?,
            base_index: u64::from_str_radix(first, 16).ok()?.checked_sub(1)?,
        };
        (segment.name() == name).then_some(segment)
    }
}

/// The segment that takes the next batch.
struct Active {
    name: String,
    size: u64,
    key: FileKey,
    key_id: KeyId,
    /// End of the last good record.
    offset: u64,
    /// End of what failed writes may have left; not above `offset` when there is nothing.
    dirty: u64,
    /// Checksum of the last good record.
    crc: u32,
    /// Last sequence number taken, also by failed writes.
    sequence: u64,
    /// Last sequence number known to be durable.
    durable: u64,
}

impl Active {
    /// What the manifest is to say of it.
    fn mark(&self, segment: &Segment) -> Mark {
        Mark {
            number: segment.number,
            base_index: segment.base_index,
            offset: self.offset,
            is_trimmed: false,
        }
    }
}

/// The write side of the log.
pub struct Log<D> {
    disk: D,
    options: LogOptions,
    segments: VecDeque<Segment>,
    active: Active,
    manifest: Manifest,
    last: Position,
    hard_state: HardState,
    snapshot: Option<Position>,
    poisoned: Option<DiskError>,
    /// Whether a spare was asked for since the last rotation.
    spare_asked: bool,
    buffer: Vec<u8>,
}

impl<D: Disk> Log<D> {
    /// Opens a new segment behind what was recovered (`None`: behind nothing). On a full disk it is
    /// a small one: what is in the log can be read, and there is room for what a start writes.
    pub fn start(
        mut disk: D,
        mut options: LogOptions,
        recovered: Option<&Recovered>,
        point: StartPoint,
    ) -> Result<Self, LogError> {
        options.segment_bytes = options.segment_bytes.max(SEGMENT_BYTES_MIN);
        if let Some(found) = recovered {
            secure_tail(&mut disk, found)?;
        }
        let mut segments: VecDeque<Segment> = recovered
            .map(|found| found.segments.iter().cloned().collect())
            .unwrap_or_default();
        let before = recovered.map(Recovered::mark).unwrap_or_default();
        let mut manifest = Manifest::open(&mut disk, before)?;
        let mut opening = Opening {
            number: segments.back().map_or(1, |segment| segment.number + 1),
            previous_crc: recovered.map_or(0, |found| found.crc),
            size: options.segment_bytes,
            has_manifest: manifest.exists(),
            point: &point,
        };
        let mut opened = open_segment(&mut disk, &mut options, &opening);
        for size in [SEGMENT_BYTES_TIGHT, SEGMENT_BYTES_MIN] {
            let Err(failed) = &opened else { break };
            if !failed.error.is_full() || !matches!(failed.retry, Retry::Safe) {
                break;
            }
            discard_temp(&mut disk);
            // Without the mark the next start, if this one fails, would miss what is cut off.
            let is_trimmed = true;
            let cut = Mark {
                is_trimmed,
                ..before
            };
            if !manifest.exists() || manifest.note_durably(&mut disk, cut) {
                trim_recovered(&mut disk, recovered);
            }
            opening.size = size.min(options.segment_bytes);
            opened = open_segment(&mut disk, &mut options, &opening);
        }
        let (segment, active) = opened.map_err(|failed| LogError::Disk(failed.error))?;
        manifest.note_durably(&mut disk, active.mark(&segment));
        segments.push_back(segment);
        trim_recovered(&mut disk, recovered);
        Ok(Log {
            disk,
            options,
            segments,
            active,
            manifest,
            last: point.last,
            hard_state: point.hard_state,
            snapshot: point.snapshot,
            poisoned: None,
            spare_asked: false,
            buffer: Vec::new(),
        })
    }

    /// Position of the last entry.
    pub fn last(&self) -> Position {
        self.last
    }

    /// How many segment files there are.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Whose log it is.
    pub fn identity(&self) -> &Identity {
        &self.options.identity
    }

    /// Draws a salt for a file beside the log.
    pub fn fresh_salt(&mut self) -> Salt {
        (self.options.salts)()
    }

    /// The size of a spare segment that should be prepared now; asked once per segment, when it is
    /// half full. See [`prepare_spare`].
    pub fn spare_due(&mut self) -> Option<u64> {
        let due = !self.spare_asked && self.active.offset > self.active.size / 2;
        self.spare_asked |= due;
        due.then_some(self.options.segment_bytes)
    }

    /// Makes sure that `records` records with `payload` bytes together can be appended without
    /// asking the disk for more space. May open a segment. A full disk is reported here, before
    /// anything depends on the append.
    pub fn reserve(&mut self, records: usize, payload: usize) -> Result<(), LogError> {
        self.check_alive()?;
        // A truncate mark and a hard state may precede the entries.
        let need = record::size_bound(records + 2, payload + record::MARK_BYTES_MAX);
        if self.active.offset + need <= self.active.size {
            return Ok(());
        }
        self.rotate(need)
    }

    /// Appends entries, preceded by the hard state if given, and makes them durable.
    ///
    /// Entries that begin at or below the last index replace what follows from there on.
    pub fn append(
        &mut self,
        hard_state: Option<HardState>,
        entries: &[Entry],
    ) -> Result<(), LogError> {
        let payload = entries.iter().map(|entry| entry.data.len()).sum();
        self.reserve(entries.len(), payload)?;
        let last = self.last.index;
        let mut batch = Batch::new(&self.active, std::mem::take(&mut self.buffer));
        if let Some(first) = entries.first() {
            assert!(
                first.at.index <= last + 1,
                "entry {} leaves a gap after {last}",
                first.at
            );
            if first.at.index <= last {
                batch.push(Kind::Truncate, first.at, &[]);
            }
        }
        for entry in entries {
            batch.push(Kind::of(entry.kind), entry.at, &entry.data);
        }
        // Last: a batch that is torn must not leave a commit index for entries that it lost.
        if let Some(state) = hard_state {
            batch.push(
                Kind::HardState,
                Position::default(),
                &record::encode_hard_state(state),
            );
        }
        let Batch {
            bytes,
            crc,
            sequence,
            ..
        } = batch;
        self.commit(bytes, crc, sequence)?;
        let before = self.hard_state;
        if let Some(state) = hard_state {
            self.hard_state = state;
        }
        let (commit, now) = (before.commit, self.hard_state);
        if !entries.is_empty() || (HardState { commit, ..now }) != before {
            // A commit index alone is found out again: its loss is no damage.
            self.note();
        }
        if let Some(entry) = entries.last() {
            self.last = entry.at;
        }
        Ok(())
    }

    /// Notes that the snapshot at `at` is durable. Where the log does not hold that entry
    /// (`reset`), the log from now on begins behind the snapshot.
    pub fn mark_snapshot(&mut self, at: Position, reset: Reset) -> Result<(), LogError> {
        self.reserve(1, 0)?;
        let mut batch = Batch::new(&self.active, std::mem::take(&mut self.buffer));
        let flag = match reset {
            Reset::Keep => [0],
            Reset::Discard => [1],
        };
        batch.push(Kind::SnapshotMark, at, &flag);
        let Batch {
            bytes,
            crc,
            sequence,
            ..
        } = batch;
        self.commit(bytes, crc, sequence)?;
        self.note();
        self.snapshot = Some(at);
        if reset == Reset::Discard {
            self.last = at;
        }
        Ok(())
    }

    /// Seals what is appended from now on under the current key of `keys`: in a new segment, unless
    /// the present one has that key already. `records` and `payload` are what was reserved. On a
    /// full disk nothing is lost, and the call can be made again.
    pub fn rekey(&mut self, keys: Keyring, records: usize, payload: usize) -> Result<(), LogError> {
        self.check_alive()?;
        self.options.keys = keys;
        if self.active.key_id == self.options.keys.current().id() {
            return Ok(());
        }
        self.rotate(record::size_bound(
            records + 2,
            payload + record::MARK_BYTES_MAX,
        ))
    }

    /// The last index that may be in a segment before the present one.
    pub(crate) fn last_before_active(&self) -> u64 {
        self.segments.back().map_or(0, |active| active.base_index)
    }

    /// Removes the segments that hold nothing at or above `keep_from`. Returns how many.
    pub fn compact(&mut self, keep_from: u64) -> Result<usize, LogError> {
        self.check_alive()?;
        let mut removed = 0;
        while self
            .segments
            .get(1)
            .is_some_and(|next| next.base_index < keep_from)
        {
            let name = self.segments[0].name();
            self.disk.remove(&name)?;
            // One at a time: a crash must never leave a hole in the numbers.
            self.disk.sync_dir().map_err(|error| self.poison(error))?;
            self.segments.pop_front();
            removed += 1;
        }
        Ok(removed)
    }

    fn check_alive(&self) -> Result<(), LogError> {
        match &self.poisoned {
            Some(error) => Err(LogError::Poisoned(error.clone())),
            None => Ok(()),
        }
    }

    fn poison(&mut self, error: DiskError) -> LogError {
        self.poisoned = Some(error.clone());
        LogError::Poisoned(error)
    }

    /// Writes and syncs an encoded batch which ends with `crc` and `sequence`.
    fn commit(&mut self, bytes: Vec<u8>, crc: u32, sequence: u64) -> Result<(), LogError> {
        // Taken even if the write fails: a nonce that may be on the disk is never used again.
        self.active.sequence = sequence;
        self.wipe()?;
        let active = &mut self.active;
        let end = active.offset + bytes.len() as u64;
        if let Err(error) = self.disk.write_at(&active.name, active.offset, &bytes) {
            active.dirty = end;
            return Err(error.into());
        }
        if let Err(error) = self.disk.sync(&active.name) {
            return Err(self.poison(error));
        }
        active.offset = end;
        active.crc = crc;
        active.durable = sequence;
        self.buffer = bytes;
        Ok(())
    }

    /// Tells the manifest how far the log is durable.
    fn note(&mut self) {
        if let Some(segment) = self.segments.back() {
            self.manifest
                .note(&mut self.disk, self.active.mark(segment));
        }
    }

    /// Overwrites what failed writes may have left behind the last good record.
    fn wipe(&mut self) -> Result<(), LogError> {
        let active = &mut self.active;
        if active.dirty > active.offset {
            let zeros = vec![0; (active.dirty - active.offset) as usize];
            self.disk.write_at(&active.name, active.offset, &zeros)?;
            active.dirty = active.offset;
        }
        Ok(())
    }

    fn rotate(&mut self, need: u64) -> Result<(), LogError> {
        if self.active.dirty > self.active.offset {
            // Whole records of a failed write would read as a part of this segment, and the next
            // one would not continue there.
            self.wipe()?;
            self.disk
                .sync(&self.active.name)
                .map_err(|error| self.poison(error))?;
        }
        let point = StartPoint {
            last: self.last,
            snapshot: self.snapshot,
            hard_state: self.hard_state,
            reset: Reset::Keep,
        };
        let opening = Opening {
            number: self.segments.back().map_or(1, |segment| segment.number + 1),
            previous_crc: self.active.crc,
            size: self.options.segment_bytes.max(OPENING_BYTES_MAX + need),
            has_manifest: self.manifest.exists(),
            point: &point,
        };
        match open_segment(&mut self.disk, &mut self.options, &opening) {
            Ok((segment, active)) => {
                self.manifest
                    .note_durably(&mut self.disk, active.mark(&segment));
                self.segments.push_back(segment);
                let full = std::mem::replace(&mut self.active, active);
                self.spare_asked = false;
                trim(&mut self.disk, &full.name, full.offset);
                Ok(())
            }
            Err(Failed {
                error,
                retry: Retry::Safe,
            }) => {
                discard_temp(&mut self.disk);
                Err(error.into())
            }
            Err(Failed {
                error,
                retry: Retry::Unsafe,
            }) => Err(self.poison(error)),
        }
    }
}

/// Writes the last segment again, as far as it was read back. After a sync that failed its records
/// may be in the cache of the system alone, which holds them for clean and forgets them at the next
/// loss of power: then the log would end in the middle, with newer segments behind the gap.
fn secure_tail<D: Disk>(disk: &mut D, found: &Recovered) -> Result<(), LogError> {
    let Some(last) = found.segments.last() else {
        return Ok(());
    };
    let name = last.name();
    let mut bytes = vec![0; usize::try_from(found.end_offset).unwrap_or(usize::MAX)];
    let read = disk.read_at(&name, 0, &mut bytes)?;
    disk.write_at(&name, 0, &bytes[..read])?;
    Ok(disk.sync(&name)?)
}

/// As [`trim`], for the last segment of before. A torn end stays as it is, to be looked at.
fn trim_recovered<D: Disk>(disk: &mut D, recovered: Option<&Recovered>) {
    if let Some(found) = recovered
        && found.truncated.is_none()
        && let Some(last) = found.segments.last()
    {
        trim(disk, &last.name(), found.end_offset);
    }
}

/// Gives back the blocks behind the end of a segment that is not written any more. Without this
/// every restart would leave a segment of zeros behind. Failing costs space and nothing else.
fn trim<D: Disk>(disk: &mut D, name: &str, end: u64) {
    drop(disk.truncate(name, end));
}

/// Records that are written together.
struct Batch<'a> {
    bytes: Vec<u8>,
    key: &'a FileKey,
    crc: u32,
    sequence: u64,
    durable: u64,
}

impl<'a> Batch<'a> {
    /// A batch behind what `active` holds; `bytes` is a buffer to use again.
    fn new(active: &'a Active, mut bytes: Vec<u8>) -> Self {
        bytes.clear();
        Batch {
            bytes,
            key: &active.key,
            crc: active.crc,
            sequence: active.sequence,
            durable: active.durable,
        }
    }

    fn push(&mut self, kind: Kind, at: Position, payload: &[u8]) {
        self.sequence += 1;
        let frame = Frame {
            kind,
            sequence: self.sequence,
            durable: self.durable,
            at,
        };
        self.crc = record::encode(&mut self.bytes, self.key, self.crc, &frame, payload);
    }
}
