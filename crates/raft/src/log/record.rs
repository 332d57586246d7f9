//! One record of a segment.
//!
//! 48 bytes of frame, the sealed payload, zeros up to a multiple of eight. Little endian:
//!
//! ```text
//!   0  length of the sealed payload, u32      16  sequence number, u64
//!   4  CRC of everything else, u32            24  last durable sequence number, u64
//!   8  CRC of the record before, u32          32  term, u64
//!  12  kind, u8, then three zero bytes        40  index, u64
//! ```
//!
//! A record proves itself by its CRC, wherever it is found, and its place in the chain by the CRC
//! of the record before. The durable number says what was on the disk for certain when the record
//! was written: that tells a lost record from one that was never acknowledged.

use super::segment::{u32_at, u64_at};
use super::{EntryKind, HardState, PAYLOAD_BYTES_MAX, Position};
use crate::seal::{FileKey, TAG_BYTES};

/// Bytes before the sealed payload.
pub(crate) const FRAME_BYTES: usize = 48;

/// Records begin at multiples of this.
pub(crate) const ALIGN: usize = 8;

/// Payload bytes of records that are not entries, together, in one batch.
pub(crate) const MARK_BYTES_MAX: usize = 32;

/// Part of the frame that the seal covers: kind, sequence, durable, term, index.
const AAD: std::ops::Range<usize> = 12..FRAME_BYTES;

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An entry with data.
    Normal,
    /// An entry that changes the membership.
    ConfChange,
    /// Term, vote and commit index.
    HardState,
    /// A snapshot is durable.
    SnapshotMark,
    /// Entries from this index on are void.
    Truncate,
}

impl Kind {
    pub(crate) fn of(kind: EntryKind) -> Kind {
        match kind {
            EntryKind::Normal => Kind::Normal,
            EntryKind::ConfChange => Kind::ConfChange,
        }
    }

    fn number(self) -> u8 {
        match self {
            Kind::Normal => 1,
            Kind::ConfChange => 2,
            Kind::HardState => 3,
            Kind::SnapshotMark => 4,
            Kind::Truncate => 5,
        }
    }

    fn from_number(number: u8) -> Option<Kind> {
        match number {
            1 => Some(Kind::Normal),
            2 => Some(Kind::ConfChange),
            3 => Some(Kind::HardState),
            4 => Some(Kind::SnapshotMark),
            5 => Some(Kind::Truncate),
            _ => None,
        }
    }
}

/// The clear part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// Number of the record in its segment, from 1, growing, with gaps after failed writes.
    pub(crate) sequence: u64,
    /// Highest number known to be on the disk when this record was written.
    pub(crate) durable: u64,
    pub(crate) at: Position,
}

/// A record whose checksum is right.
pub(crate) struct Record<'a> {
    pub(crate) frame: Frame,
    /// CRC of the record before it.
    pub(crate) previous: u32,
    /// Its own CRC.
    pub(crate) crc: u32,
    /// Offset of the record behind it.
    pub(crate) next: usize,
    aad: &'a [u8],
    sealed: &'a [u8],
}

impl Record<'_> {
    /// The payload, if the key is right.
    pub(crate) fn open(&self, key: &FileKey) -> Option<Vec<u8>> {
        key.open(self.frame.sequence, self.aad, self.sealed)
    }
}

/// Upper bound of the bytes that `records` records with `payload` bytes together take.
pub(crate) fn size_bound(records: usize, payload: usize) -> u64 {
    (records * (FRAME_BYTES + TAG_BYTES + ALIGN) + payload) as u64
}

/// Appends a record to `out`, whose length is a multiple of eight, and returns its CRC.
pub(crate) fn encode(
    out: &mut Vec<u8>,
    key: &FileKey,
    previous: u32,
    frame: &Frame,
    payload: &[u8],
) -> u32 {
    assert!(
        payload.len() <= PAYLOAD_BYTES_MAX,
        "payload of {} bytes",
        payload.len()
    );
    let start = out.len();
    let sealed_len = u32::try_from(payload.len() + TAG_BYTES).expect("checked above");
    out.extend_from_slice(&sealed_len.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&previous.to_le_bytes());
    out.extend_from_slice(&[frame.kind.number(), 0, 0, 0]);
    out.extend_from_slice(&frame.sequence.to_le_bytes());
    out.extend_from_slice(&frame.durable.to_le_bytes());
    out.extend_from_slice(&frame.at.term.to_le_bytes());
    out.extend_from_slice(&frame.at.index.to_le_bytes());
    let mut aad = [0; AAD.end - AAD.start];
    aad.copy_from_slice(&out[start + AAD.start..start + AAD.end]);
    out.extend_from_slice(payload);
    key.seal(frame.sequence, &aad, out, start + FRAME_BYTES);
    out.resize(out.len().next_multiple_of(ALIGN), 0);
    let crc = checksum(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Reads the record at `offset`; `None` when there is none whose checksum is right.
pub(crate) fn parse(segment: &[u8], offset: usize) -> Option<Record<'_>> {
    let bytes = segment.get(offset..)?;
    let frame = peek(bytes)?;
    let sealed_len = u32_at(bytes, 0) as usize;
    let size = FRAME_BYTES
        .checked_add(sealed_len)?
        .checked_next_multiple_of(ALIGN)?;
    let record = bytes.get(..size)?;
    let crc = checksum(record);
    if crc != u32_at(record, 4) {
        return None;
    }
    Some(Record {
        frame,
        previous: u32_at(record, 8),
        crc,
        next: offset + size,
        aad: &record[AAD],
        sealed: &record[FRAME_BYTES..FRAME_BYTES + sealed_len],
    })
}

/// Reads a frame without checking its CRC; `None` when it cannot be one.
pub(crate) fn peek(bytes: &[u8]) -> Option<Frame> {
    let bytes = bytes.get(..FRAME_BYTES)?;
    if (u32_at(bytes, 0) as usize) < TAG_BYTES || bytes[13..16] != [0, 0, 0] {
        return None;
    }
    let frame = Frame {
        kind: Kind::from_number(bytes[12])?,
        sequence: u64_at(bytes, 16),
        durable: u64_at(bytes, 24),
        at: Position {
            term: u64_at(bytes, 32),
            index: u64_at(bytes, 40),
        },
    };
    (frame.sequence > frame.durable).then_some(frame)
}

/// CRC of a record without its CRC field.
fn checksum(record: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&record[..4]);
    hasher.update(&record[8..]);
    hasher.finalize()
}

/// Payload of a hard state record.
pub(crate) fn encode_hard_state(state: HardState) -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&state.term.to_le_bytes());
    bytes[8..16].copy_from_slice(&state.vote.to_le_bytes());
    bytes[16..].copy_from_slice(&state.commit.to_le_bytes());
    bytes
}

/// Reads the payload of a hard state record.
pub(crate) fn decode_hard_state(bytes: &[u8]) -> Option<HardState> {
    (bytes.len() == 24).then(|| HardState {
        term: u64_at(bytes, 0),
        vote: u64_at(bytes, 8),
        commit: u64_at(bytes, 16),
    })
}
