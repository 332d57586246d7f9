//! Snapshot files: the whole state of the replicated data at one index.
//!
//! Owns their format, the only safe order of making them, and finding them again. Owns neither
//! their content, which is bytes in and bytes out, nor the decision when to take one.
//!
//! A file is written under a temporary name, synced, renamed, and the directory synced; so a file
//! with the final name is whole, and damage in it is corruption. Content is sealed in chunks of
//! 64 KiB, so a state of a gigabyte never sits in memory as one piece. Number and last flag of a
//! chunk are under its seal: chunks cannot be dropped, repeated or reordered.
//!
//! Header, 128 bytes, little endian:
//!
//! ```text
//!   0  magic, 8 bytes          40  key id, 8 bytes
//!   8  format version, u32     48  salt, 16 bytes
//!  12  zero                    64  cluster id, 32 bytes, zero padded
//!  16  raft id, u64            96  zero
//!  24  index, u64             124  CRC of bytes 0..124, u32
//!  32  term, u64
//! ```
//!
//! Chunk: length of the sealed bytes u32, CRC over the rest u32, number u32, last flag u32, sealed
//! bytes. Chunk 0 is the membership; the content begins with chunk 1.

use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::log::{Identity, LogError, Position};
use crate::seal::{DataKey, FileKey, KeyId, Keyring, Salt, TAG_BYTES};

#[cfg(test)]
mod tests;

/// Plain bytes in a full chunk.
pub const CHUNK_BYTES: usize = 64 * 1024;

const HEADER_BYTES: usize = 128;
const CRC_AT: usize = HEADER_BYTES - 4;
const CHUNK_HEAD_BYTES: usize = 16;
const MAGIC: [u8; 8] = *b"swrmsnp\n";
const FORMAT_VERSION: u32 = 1;

/// Sealed bytes of a chunk at most. The membership chunk is the only one that may exceed
/// [`CHUNK_BYTES`], and 16 bytes per member leave room for thousands of members.
const SEALED_BYTES_MAX: usize = 4 * CHUNK_BYTES + TAG_BYTES;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotMeta {
    /// Last entry that went into it.
    pub at: Position,
    /// Encoded membership of the consensus group at that entry.
    pub membership: Vec<u8>,
}

/// The file name of the snapshot at a position: sorts by term, then index.
pub fn file_name(at: Position) -> String {
    format!("snap-{:016x}-{:016x}.snap", at.term, at.index)
}

/// Reads a file name; `None` when it is not the name of a snapshot.
pub fn parse_name(name: &str) -> Option<Position> {
    let (term, index) = name
        .strip_prefix("snap-")?
        .strip_suffix(".snap")?
        .split_once('-')?;
    let at = Position {
        term: u64::from_str_radix(term, 16).ok()?,
        index: u64::from_str_radix(index, 16).ok()?,
    };
    (file_name(at) == name).then_some(at)
}

/// All snapshots by index, newest first.
pub fn list(disk: &mut dyn Disk) -> Result<Vec<Position>, DiskError> {
    let mut found: Vec<Position> = disk
        .list()?
        .iter()
        .filter_map(|name| parse_name(name))
        .collect();
    found.sort_by_key(|at| std::cmp::Reverse((at.index, at.term)));
    Ok(found)
}

/// Whether a name belongs to a snapshot that was never finished.
pub fn is_unfinished(name: &str) -> bool {
    name.strip_suffix(".tmp")
        .is_some_and(|name| parse_name(name).is_some())
}

/// Everything that a new snapshot file needs besides its content.
#[derive(Clone, Debug)]
pub struct SnapshotTicket {
    /// What it is of.
    pub meta: SnapshotMeta,
    /// Whose it is.
    pub identity: Identity,
    /// The key to seal it under.
    pub key: DataKey,
    /// Fresh random bytes.
    pub salt: Salt,
}

/// Writes one snapshot file from front to back.
pub struct SnapshotWriter<D> {
    disk: D,
    at: Position,
    temp: String,
    key: FileKey,
    offset: u64,
    number: u32,
    pending: Vec<u8>,
    frame: Vec<u8>,
}

impl<D: Disk> SnapshotWriter<D> {
    /// Makes the temporary file with header and membership.
    pub fn begin(mut disk: D, ticket: &SnapshotTicket) -> Result<Self, DiskError> {
        let at = ticket.meta.at;
        let temp = format!("{}.tmp", file_name(at));
        match disk.create(&temp, 0) {
            Err(error) if error.kind == DiskErrorKind::Exists => {
                disk.remove(&temp)?;
                disk.create(&temp, 0)?;
            }
            other => other?,
        }
        let header = encode_header(ticket);
        disk.write_at(&temp, 0, &header)?;
        let mut writer = SnapshotWriter {
            disk,
            at,
            temp,
            key: FileKey::derive(&ticket.key, &ticket.salt, &header),
            offset: HEADER_BYTES as u64,
            number: 0,
            pending: Vec::with_capacity(CHUNK_BYTES),
            frame: Vec::with_capacity(CHUNK_BYTES + CHUNK_HEAD_BYTES + TAG_BYTES),
        };
        writer.write_chunk(&ticket.meta.membership, Last::No)?;
        Ok(writer)
    }

    /// Adds content. Pieces may have any size.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), DiskError> {
        while !bytes.is_empty() {
            if self.pending.len() == CHUNK_BYTES {
                self.flush(Last::No)?;
            }
            let take = bytes.len().min(CHUNK_BYTES - self.pending.len());
            self.pending.extend_from_slice(&bytes[..take]);
            bytes = &bytes[take..];
        }
        Ok(())
    }

    /// Makes the file durable under its final name. Returns its size in bytes.
    pub fn finish(mut self) -> Result<u64, DiskError> {
        self.flush(Last::Yes)?;
        self.disk.sync(&self.temp)?;
        self.disk.rename(&self.temp, &file_name(self.at))?;
        self.disk.sync_dir()?;
        Ok(self.offset)
    }

    /// Removes what was written so far.
    pub fn abandon(mut self) -> Result<(), DiskError> {
        self.disk.remove(&self.temp)
    }

    fn flush(&mut self, last: Last) -> Result<(), DiskError> {
        let pending = std::mem::take(&mut self.pending);
        self.write_chunk(&pending, last)?;
        self.pending = pending;
        self.pending.clear();
        Ok(())
    }

    fn write_chunk(&mut self, plain: &[u8], last: Last) -> Result<(), DiskError> {
        let place = place(self.number, last);
        let frame = &mut self.frame;
        frame.clear();
        // Far below 2^32: the caller cuts content into chunks.
        let sealed = (plain.len() + TAG_BYTES) as u32;
        frame.extend_from_slice(&sealed.to_le_bytes());
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(&place);
        frame.extend_from_slice(plain);
        self.key
            .seal(u64::from(self.number), &place, frame, CHUNK_HEAD_BYTES);
        let crc = chunk_crc(frame);
        frame[4..8].copy_from_slice(&crc.to_le_bytes());
        self.disk.write_at(&self.temp, self.offset, frame)?;
        self.offset += frame.len() as u64;
        self.number += 1;
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    No,
    Yes,
}

/// Number and last flag as they stand in the file and under the seal.
fn place(number: u32, last: Last) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&number.to_le_bytes());
    bytes[4..].copy_from_slice(&u32::from(last == Last::Yes).to_le_bytes());
    bytes
}

fn chunk_crc(frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&frame[..4]);
    hasher.update(&frame[8..]);
    hasher.finalize()
}

fn encode_header(ticket: &SnapshotTicket) -> [u8; HEADER_BYTES] {
    let mut bytes = [0; HEADER_BYTES];
    let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
    put(0, &MAGIC);
    put(8, &FORMAT_VERSION.to_le_bytes());
    put(16, &ticket.identity.raft_id().to_le_bytes());
    put(24, &ticket.meta.at.index.to_le_bytes());
    put(32, &ticket.meta.at.term.to_le_bytes());
    put(40, &ticket.key.id().0);
    put(48, &ticket.salt);
    put(64, &ticket.identity.cluster_field());
    let crc = crc32fast::hash(&bytes[..CRC_AT]);
    bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

/// Reads one snapshot file from front to back, checking every chunk before it hands it out.
pub struct SnapshotReader<D> {
    disk: D,
    file: String,
    meta: SnapshotMeta,
    identity: Identity,
    key: FileKey,
    key_id: KeyId,
    offset: u64,
    number: u32,
    done: bool,
}

impl<D: Disk> SnapshotReader<D> {
    /// Opens the snapshot at `at` and reads header and membership.
    pub fn open(mut disk: D, at: Position, keys: &Keyring) -> Result<Self, LogError> {
        let file = file_name(at);
        let mut header = [0; HEADER_BYTES];
        let read = disk.read_at(&file, 0, &mut header)?;
        let found = decode_header(&file, &header[..read])?;
        if found.at != at {
            return Err(corrupt(
                &file,
                24,
                "name and header of the snapshot disagree",
            ));
        }
        let data_key = keys.find(found.key).ok_or_else(|| LogError::WrongKey {
            file: file.clone(),
            needed: found.key,
            current: keys.current().id(),
        })?;
        let mut reader = SnapshotReader {
            disk,
            file,
            meta: SnapshotMeta {
                at,
                membership: Vec::new(),
            },
            identity: found.identity,
            key: FileKey::derive(data_key, &found.salt, &header),
            key_id: found.key,
            offset: HEADER_BYTES as u64,
            number: 0,
            done: false,
        };
        reader.meta.membership = reader.next_chunk()?.unwrap_or_default();
        if reader.done {
            return Err(corrupt(
                &reader.file,
                HEADER_BYTES as u64,
                "the snapshot has no content",
            ));
        }
        Ok(reader)
    }

    /// What it is of.
    pub fn meta(&self) -> &SnapshotMeta {
        &self.meta
    }

    /// Whose it is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The next piece of content; `None` after the last.
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, LogError> {
        if self.done {
            return Ok(None);
        }
        let bad = |what: &str| corrupt(&self.file, self.offset, what);
        let mut head = [0; CHUNK_HEAD_BYTES];
        if self.disk.read_at(&self.file, self.offset, &mut head)? < CHUNK_HEAD_BYTES {
            return Err(bad("the snapshot ends before its last chunk"));
        }
        let field =
            |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let sealed = field(0) as usize;
        if !(TAG_BYTES..=SEALED_BYTES_MAX).contains(&sealed) {
            return Err(bad("the length of a chunk is impossible"));
        }
        let mut frame = vec![0; CHUNK_HEAD_BYTES + sealed];
        if self.disk.read_at(&self.file, self.offset, &mut frame)? < frame.len() {
            return Err(bad("the snapshot ends inside a chunk"));
        }
        if chunk_crc(&frame) != field(4) {
            return Err(bad("the checksum of a chunk is wrong"));
        }
        let last = if field(12) == 0 { Last::No } else { Last::Yes };
        let place = place(self.number, last);
        let plain = self
            .key
            .open(u64::from(self.number), &place, &frame[CHUNK_HEAD_BYTES..])
            .ok_or_else(|| LogError::Unsealable {
                file: self.file.clone(),
                offset: self.offset,
                key: self.key_id,
            })?;
        self.offset += frame.len() as u64;
        self.number += 1;
        self.done = last == Last::Yes;
        if self.done && self.disk.len(&self.file)? != self.offset {
            return Err(corrupt(
                &self.file,
                self.offset,
                "bytes follow the last chunk",
            ));
        }
        Ok(Some(plain))
    }

    /// Reads to the end without keeping anything: whether the file is whole.
    pub fn verify(mut self) -> Result<SnapshotMeta, LogError> {
        while self.next_chunk()?.is_some() {}
        Ok(self.meta)
    }
}

struct FoundHeader {
    at: Position,
    key: KeyId,
    salt: Salt,
    identity: Identity,
}

fn decode_header(file: &str, bytes: &[u8]) -> Result<FoundHeader, LogError> {
    let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
        let end = bytes.len() as u64;
        return Err(corrupt(
            file,
            end,
            "the file is shorter than a snapshot header",
        ));
    };
    if bytes[..8] != MAGIC {
        return Err(corrupt(file, 0, "the file does not begin as a snapshot"));
    }
    let u32_at = |at: usize| u32::from_le_bytes(*bytes[at..].first_chunk().expect("in range"));
    let u64_at = |at: usize| u64::from_le_bytes(*bytes[at..].first_chunk().expect("in range"));
    if crc32fast::hash(&bytes[..CRC_AT]) != u32_at(CRC_AT) {
        return Err(corrupt(
            file,
            0,
            "the checksum of the snapshot header is wrong",
        ));
    }
    let found = u32_at(8);
    if found != FORMAT_VERSION {
        let file = file.to_owned();
        return Err(LogError::UnknownFormat {
            file,
            found,
            known: FORMAT_VERSION,
        });
    }
    Ok(FoundHeader {
        at: Position {
            index: u64_at(24),
            term: u64_at(32),
        },
        key: KeyId(*bytes[40..].first_chunk().expect("in range")),
        salt: *bytes[48..].first_chunk().expect("in range"),
        identity: Identity::from_fields(&bytes[64..96], u64_at(16))
            .ok_or_else(|| corrupt(file, 16, "the ids in the snapshot header are malformed"))?,
    })
}

fn corrupt(file: &str, offset: u64, what: &str) -> LogError {
    LogError::Corrupt {
        file: file.to_owned(),
        offset,
        what: what.to_owned(),
    }
}
