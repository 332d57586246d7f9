//! Reading a log back after a stop of any kind.
//!
//! Owns the rules of repair. Owns no write: what is cut off stays on the disk as it is and is
//! made void by the header of the next segment, which names the checksum it continues.
//!
//! The reader follows the chain until a record does not fit. Then:
//!
//! - In any segment but the last, the next header must continue exactly there; otherwise the log
//!   is corrupt.
//! - In the last segment, if some later record says that more was durable than what was read,
//!   an acknowledged record is lost: corrupt. Otherwise what follows was never acknowledged and is
//!   cut off, with a warning when it is more than zeros. A batch whose blocks reached the disk out
//!   of order is such a tail, although single records in it are intact.
//! - The last segment must be the one that the manifest names, or a newer one; it must have the
//!   size that it was made with, or zeros behind its last record; and what was read must reach as
//!   far as the manifest says that it was durable, and as the log itself says that it was
//!   committed.
//!
//! What this cannot tell: after a loss of power the manifest may be some seconds old. If the
//! records of just those seconds are damaged besides, and nothing behind them is left, they look as
//! if they had never been acknowledged.

use std::collections::VecDeque;

use bytes::Bytes;

use super::manifest::{self, MANIFEST, Mark};
use super::record::{self, Kind, Record};
use super::segment::{HEADER_BYTES, Header, Identity};
use super::{Entry, EntryKind, HardState, LogError, Position, Reset, Segment};
use crate::disk::{Disk, read_all};
use crate::seal::{FileKey, Keyring};

/// Bytes at the end of the log that were never acknowledged and are ignored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TornTail {
    /// Which file.
    pub file: String,
    /// Where the ignored part begins, in bytes.
    pub offset: u64,
    /// How long it is up to its last byte that is not zero.
    pub bytes: u64,
}

/// What a log held.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// Whose log it is.
    pub identity: Identity,
    /// What the first entry follows. The term is `None` when it is no longer known.
    pub base_index: u64,
    /// Term at `base_index`, if known.
    pub base_term: Option<u64>,
    /// All entries in order.
    pub entries: VecDeque<Entry>,
    /// Latest hard state.
    pub hard_state: HardState,
    /// Newest snapshot that the log speaks of.
    pub snapshot: Option<Position>,
    /// What was cut off, for the operator.
    pub truncated: Option<TornTail>,
    pub(super) segments: Vec<Segment>,
    pub(super) crc: u32,
    /// Where the last good record of the last segment ends.
    pub(super) end_offset: u64,
}

impl Recovered {
    /// Index of the last entry, or of the base.
    pub fn last_index(&self) -> u64 {
        self.base_index + self.entries.len() as u64
    }

    /// Term at an index, where known.
    pub fn term_at(&self, index: u64) -> Option<u64> {
        if index == self.base_index {
            return self.base_term;
        }
        let offset = index.checked_sub(self.base_index + 1)?;
        Some(self.entries.get(usize::try_from(offset).ok()?)?.at.term)
    }

    /// What a manifest would say of the last segment.
    pub(super) fn mark(&self) -> Mark {
        let last = self.segments.last();
        Mark {
            number: last.map_or(0, |segment| segment.number),
            base_index: last.map_or(0, |segment| segment.base_index),
            offset: self.end_offset,
            is_trimmed: false,
        }
    }

    /// Whether the log reaches as far as it says that it was committed.
    fn check_commit(&self) -> Result<(), LogError> {
        let last = self.last_index();
        let known = last.max(self.snapshot.map_or(0, |at| at.index));
        let commit = self.hard_state.commit;
        if commit <= known {
            return Ok(());
        }
        Err(LogError::Corrupt {
            file: self.segments.last().map(Segment::name).unwrap_or_default(),
            offset: self.end_offset,
            what: format!(
                "the log ends here with entry {last}, and entries up to {commit} were committed"
            ),
        })
    }

    /// Applies one record; the text says what is wrong with it.
    fn replay(&mut self, record: &Record<'_>, payload: Vec<u8>) -> Result<(), String> {
        let at = record.frame.at;
        match record.frame.kind {
            Kind::Normal => self.push(at, EntryKind::Normal, payload),
            Kind::ConfChange => self.push(at, EntryKind::ConfChange, payload),
            Kind::HardState => {
                let state = record::decode_hard_state(&payload)
                    .ok_or_else(|| format!("hard state of {} bytes", payload.len()))?;
                if state.term < self.hard_state.term {
                    return Err(format!(
                        "term {} after {}",
                        state.term, self.hard_state.term
                    ));
                }
                self.hard_state = state;
                Ok(())
            }
            Kind::SnapshotMark => {
                if payload == [1] {
                    self.reset(at);
                }
                self.snapshot = self.snapshot.max(Some(at));
                Ok(())
            }
            Kind::Truncate => self.truncate(at.index),
        }
    }

    fn push(&mut self, at: Position, kind: EntryKind, data: Vec<u8>) -> Result<(), String> {
        let last = self.last_index();
        if at.index != last + 1 {
            return Err(format!("entry {} follows entry {last}", at.index));
        }
        if self.term_at(last).is_some_and(|term| term > at.term) {
            return Err(format!(
                "term of entry {} is below that of the entry before",
                at.index
            ));
        }
        self.entries.push_back(Entry {
            at,
            kind,
            data: Bytes::from(data),
        });
        Ok(())
    }

    /// Drops entries from `index` on. Below the base nothing is known any more.
    fn truncate(&mut self, index: u64) -> Result<(), String> {
        if index == 0 || index > self.last_index() || index <= self.hard_state.commit {
            return Err(format!(
                "truncation at {index}, last entry {}, committed {}",
                self.last_index(),
                self.hard_state.commit
            ));
        }
        if index <= self.base_index {
            (self.base_index, self.base_term) = (index - 1, None);
        }
        self.entries
            .truncate(usize::try_from(index - 1 - self.base_index).unwrap_or(0));
        Ok(())
    }

    fn reset(&mut self, at: Position) {
        self.entries.clear();
        (self.base_index, self.base_term) = (at.index, Some(at.term));
    }
}

/// Reads all segments. `None` when there is none: a fresh directory.
///
/// The last segment is made durable first: after a mere crash of the program it may hold records
/// that only the memory of the system remembers, and from here on they count.
pub fn recover<D: Disk>(disk: &mut D, keys: &Keyring) -> Result<Option<Recovered>, LogError> {
    let mut segments: Vec<Segment> = disk
        .list()?
        .iter()
        .filter_map(|name| Segment::parse(name))
        .collect();
    segments.sort_by_key(|segment| segment.number);
    let mark = manifest::read(disk)?.map(|(_, mark)| mark);
    check_newest(segments.last(), mark)?;
    let Some(last) = segments.last() else {
        return Ok(None);
    };
    let last_number = last.number;
    disk.sync(&last.name())?;
    disk.sync_dir()?;
    let mut found: Option<Recovered> = None;
    for segment in &segments {
        let file = segment.name();
        let bytes = read_all(disk, &file)?;
        let reader = Reader::open(&file, &bytes, keys)?;
        reader.check_manifest(mark)?;
        let state = match &mut found {
            Some(state) => {
                reader.check_continues(segment, state)?;
                state
            }
            None => found.insert(reader.first_state()),
        };
        state.segments.push(segment.clone());
        let end = reader.read(state)?;
        if segment.number == last_number {
            state.truncated = reader.check_tail(&end)?;
            reader.check_durable(&end, mark)?;
        }
        state.crc = end.crc;
        state.end_offset = end.offset as u64;
    }
    if let Some(found) = &found {
        found.check_commit()?;
    }
    Ok(found)
}

/// Whether the segment is there that the manifest names as the newest.
fn check_newest(last: Option<&Segment>, mark: Option<Mark>) -> Result<(), LogError> {
    let Some(mark) = mark.filter(|mark| mark.number > last.map_or(0, |last| last.number)) else {
        return Ok(());
    };
    let there = match last {
        Some(last) => format!("the newest that is there is {}", last.name()),
        None => "no other is there".to_owned(),
    };
    Err(LogError::Corrupt {
        file: mark.segment().name(),
        offset: 0,
        what: format!(
            "this newest segment is missing, of which {} bytes were durable; {there}",
            mark.offset
        ),
    })
}

/// Where reading stopped.
struct End {
    offset: usize,
    crc: u32,
    sequence: u64,
    records: u32,
}

/// One segment in memory.
struct Reader<'a> {
    file: &'a str,
    bytes: &'a [u8],
    header: Header,
    header_crc: u32,
    key: FileKey,
}

impl<'a> Reader<'a> {
    fn open(file: &'a str, bytes: &'a [u8], keys: &Keyring) -> Result<Self, LogError> {
        let (header, encoded) = Header::decode(file, bytes)?;
        let data_key = keys.find(header.key).ok_or_else(|| LogError::WrongKey {
            file: file.to_owned(),
            needed: header.key,
            current: keys.current().id(),
        })?;
        let key = encoded.file_key(data_key);
        Ok(Reader {
            file,
            bytes,
            header,
            header_crc: encoded.crc,
            key,
        })
    }

    fn corrupt(&self, offset: usize, what: impl Into<String>) -> LogError {
        LogError::Corrupt {
            file: self.file.to_owned(),
            offset: offset as u64,
            what: what.into(),
        }
    }

    /// A manifest that was there once is still there.
    fn check_manifest(&self, mark: Option<Mark>) -> Result<(), LogError> {
        if mark.is_some() || !self.header.has_manifest {
            return Ok(());
        }
        Err(LogError::Corrupt {
            file: MANIFEST.to_owned(),
            offset: 0,
            what: format!(
                "the manifest is missing, which was there when {} was made, so other files may be \
                 missing as well",
                self.file
            ),
        })
    }

    /// Whether the last segment is as long as it was made, and reads as far as it was durable.
    fn check_durable(&self, end: &End, mark: Option<Mark>) -> Result<(), LogError> {
        let mark = mark.filter(|mark| mark.number == self.header.number);
        let len = self.bytes.len() as u64;
        let is_trimmed = mark.is_some_and(|mark| mark.is_trimmed && len >= mark.offset);
        // A record would begin with its length: zeros prove that none was behind the last one.
        let behind = self.bytes.get(end.offset..end.offset + record::ALIGN);
        let has_zeros = behind.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0));
        if len < self.header.size && !is_trimmed && !has_zeros {
            let size = self.header.size;
            let what = format!("the file was cut off here; it was made with {size} bytes");
            return Err(self.corrupt(self.bytes.len(), what));
        }
        match mark {
            Some(mark) if mark.offset > end.offset as u64 => {
                let what = format!(
                    "no intact record is here, and all up to offset {} was durable",
                    mark.offset
                );
                Err(self.corrupt(end.offset, what))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn first_state(&self) -> Recovered {
        Recovered {
            identity: self.header.identity.clone(),
            base_index: self.header.base.index,
            base_term: Some(self.header.base.term),
            entries: VecDeque::new(),
            hard_state: HardState::default(),
            snapshot: None,
            truncated: None,
            segments: Vec::new(),
            crc: 0,
            end_offset: 0,
        }
    }

    /// Checks the header against what the segments before have left.
    fn check_continues(&self, segment: &Segment, state: &mut Recovered) -> Result<(), LogError> {
        let header = &self.header;
        let before = state
            .segments
            .last()
            .expect("the first segment set up the state");
        if segment.number != before.number + 1 {
            let what = format!("segment {} is missing before it", before.number + 1);
            return Err(self.corrupt(0, what));
        }
        if header.number != segment.number || header.base.index != segment.base_index {
            return Err(self.corrupt(0, "name and header of the segment disagree"));
        }
        if header.identity != state.identity {
            return Err(LogError::Foreign {
                file: self.file.to_owned(),
                found: header.identity.clone(),
                expected: state.identity.clone(),
            });
        }
        if header.previous_crc != state.crc {
            return Err(LogError::Corrupt {
                file: before.name(),
                offset: state.end_offset,
                what: format!(
                    "the record here is damaged, and {} goes on after it",
                    self.file
                ),
            });
        }
        if header.reset == Reset::Discard {
            state.reset(header.base);
        }
        let (last, term) = (state.last_index(), state.term_at(state.last_index()));
        if header.base.index != last || term.is_some_and(|term| term != header.base.term) {
            let what = format!(
                "the segment continues {}, the log ends at {last}",
                header.base
            );
            return Err(self.corrupt(32, what));
        }
        Ok(())
    }

    /// Replays records until one does not fit.
    fn read(&self, state: &mut Recovered) -> Result<End, LogError> {
        let mut end = End {
            offset: HEADER_BYTES,
            crc: self.header_crc,
            sequence: 0,
            records: 0,
        };
        while let Some(record) = record::parse(self.bytes, end.offset) {
            if record.previous != end.crc || record.frame.sequence <= end.sequence {
                break;
            }
            let payload = record.open(&self.key).ok_or_else(|| LogError::Unsealable {
                file: self.file.to_owned(),
                offset: end.offset as u64,
                key: self.header.key,
            })?;
            state
                .replay(&record, payload)
                .map_err(|what| self.corrupt(end.offset, what))?;
            end = End {
                offset: record.next,
                crc: record.crc,
                sequence: record.frame.sequence,
                records: end.records + 1,
            };
        }
        if end.records < self.header.opening_records {
            return Err(self.corrupt(end.offset, "a record that opens the segment is damaged"));
        }
        Ok(end)
    }

    /// Judges what follows the last good record of the last segment.
    fn check_tail(&self, end: &End) -> Result<Option<TornTail>, LogError> {
        let rest = &self.bytes[end.offset..];
        let Some(last) = rest.iter().rposition(|byte| *byte != 0) else {
            return Ok(None);
        };
        for skip in (0..=last).step_by(record::ALIGN) {
            let proof = record::peek(&rest[skip..])
                .is_some_and(|frame| frame.durable > end.sequence)
                && record::parse(rest, skip).is_some();
            if proof {
                let later = end.offset + skip;
                return Err(self.corrupt(
                    end.offset,
                    format!("the record here is damaged, and a later one at {later} is intact"),
                ));
            }
        }
        Ok(Some(TornTail {
            file: self.file.to_owned(),
            offset: end.offset as u64,
            bytes: last as u64 + 1,
        }))
    }
}
