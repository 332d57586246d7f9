//! The header of a segment file.
//!
//! 128 bytes, numbers little endian:
//!
//! ```text
//!   0  magic, 8 bytes          48  key id, 8 bytes
//!   8  format version, u32     56  salt, 16 bytes
//!  12  CRC at the end of the   72  cluster id, 32 bytes, zero padded
//!      previous segment, u32  104  number of opening records, u32
//!  16  raft id, u64           108  flags, u32
//!  24  segment number, u64    112  size of the file when it was made, u64
//!  32  base index, u64        120  zero
//!  40  base term, u64         124  CRC of bytes 0..124, u32
//! ```
//!
//! Flags: 1 says that earlier entries are void, 2 that there is a manifest. The size is zero in
//! segments of before there was one.

use std::fmt;

use super::{LogError, Position, Reset};
use crate::seal::{DataKey, FileKey, KeyId, Salt};

/// Size of the header, and offset of the first record.
pub(crate) const HEADER_BYTES: usize = 128;

/// Highest format version that this program reads and the one that it writes.
const FORMAT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"swrmlog\n";
const CRC_AT: usize = HEADER_BYTES - 4;

const FLAG_RESET: u32 = 1;
const FLAG_MANIFEST: u32 = 2;

/// Longest cluster id in bytes; SwarmKit ids have 25.
pub(crate) const CLUSTER_ID_BYTES_MAX: usize = 32;

/// Whose files these are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Id of the cluster, at most 32 bytes without NUL; empty when unknown.
    cluster_id: String,
    /// Id of this member in the consensus group; random in `[1, 2^63]`, never reused.
    raft_id: u64,
}

/// Why an identity was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Zero means "nobody", and ids above 2^63 are never handed out.
    #[error("raft id {0} is outside [1, 2^63]")]
    RaftId(u64),
    /// Does not fit its field.
    #[error("cluster id {0:?} is longer than 32 bytes or has a NUL in it")]
    ClusterId(String),
}

impl Identity {
    /// Checks and takes both ids.
    pub fn new(cluster_id: &str, raft_id: u64) -> Result<Self, IdentityError> {
        if raft_id == 0 || raft_id > 1 << 63 {
            return Err(IdentityError::RaftId(raft_id));
        }
        if cluster_id.len() > CLUSTER_ID_BYTES_MAX || cluster_id.contains('\0') {
            return Err(IdentityError::ClusterId(cluster_id.to_owned()));
        }
        Ok(Identity {
            cluster_id: cluster_id.to_owned(),
            raft_id,
        })
    }

    /// Id of the cluster.
    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Id of the member.
    pub fn raft_id(&self) -> u64 {
        self.raft_id
    }

    pub(crate) fn cluster_field(&self) -> [u8; CLUSTER_ID_BYTES_MAX] {
        let mut field = [0; CLUSTER_ID_BYTES_MAX];
        field[..self.cluster_id.len()].copy_from_slice(self.cluster_id.as_bytes());
        field
    }

    /// Reads the two fields of a file header.
    pub(crate) fn from_fields(cluster: &[u8], raft_id: u64) -> Option<Identity> {
        let end = cluster
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(cluster.len());
        Identity::new(std::str::from_utf8(&cluster[..end]).ok()?, raft_id).ok()
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "member {:x} of cluster {:?}",
            self.raft_id, self.cluster_id
        )
    }
}

/// The fields of a header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) identity: Identity,
    pub(crate) number: u64,
    pub(crate) base: Position,
    pub(crate) key: KeyId,
    pub(crate) salt: Salt,
    pub(crate) previous_crc: u32,
    /// Records that were durable before the file got its name.
    pub(crate) opening_records: u32,
    pub(crate) reset: Reset,
    /// Whether there was a manifest when it was made.
    pub(crate) has_manifest: bool,
    /// Size of the file when it was made; 0 when that was not written down.
    pub(crate) size: u64,
}

/// A header as bytes, with what is derived from them.
pub(crate) struct Encoded {
    pub(crate) bytes: [u8; HEADER_BYTES],
    pub(crate) crc: u32,
    salt: Salt,
}

impl Encoded {
    /// The key of the file with this header.
    pub(crate) fn file_key(&self, data_key: &DataKey) -> FileKey {
        FileKey::derive(data_key, &self.salt, &self.bytes)
    }
}

impl Header {
    pub(crate) fn encode(&self) -> Encoded {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(8, &FORMAT_VERSION.to_le_bytes());
        put(12, &self.previous_crc.to_le_bytes());
        put(16, &self.identity.raft_id.to_le_bytes());
        put(24, &self.number.to_le_bytes());
        put(32, &self.base.index.to_le_bytes());
        put(40, &self.base.term.to_le_bytes());
        put(48, &self.key.0);
        put(56, &self.salt);
        put(72, &self.identity.cluster_field());
        put(104, &self.opening_records.to_le_bytes());
        let mut flags = 0;
        if self.reset == Reset::Discard {
            flags |= FLAG_RESET;
        }
        if self.has_manifest {
            flags |= FLAG_MANIFEST;
        }
        put(108, &u32::to_le_bytes(flags));
        put(112, &self.size.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        bytes[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
        Encoded {
            bytes,
            crc,
            salt: self.salt,
        }
    }

    /// Reads the header of `file`. A header is durable before the file has its name, so whatever
    /// is wrong here is corruption and never a torn write.
    pub(crate) fn decode(file: &str, bytes: &[u8]) -> Result<(Header, Encoded), LogError> {
        let corrupt = |offset: usize, what: &str| LogError::Corrupt {
            file: file.to_owned(),
            offset: offset as u64,
            what: what.to_owned(),
        };
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else {
            return Err(corrupt(
                bytes.len(),
                "the file is shorter than a segment header",
            ));
        };
        if bytes[..8] != MAGIC {
            return Err(corrupt(0, "the file does not begin as a log segment"));
        }
        let crc = crc32fast::hash(&bytes[..CRC_AT]);
        if crc != u32_at(bytes, CRC_AT) {
            return Err(corrupt(0, "the checksum of the segment header is wrong"));
        }
        let found = u32_at(bytes, 8);
        if found != FORMAT_VERSION {
            let file = file.to_owned();
            return Err(LogError::UnknownFormat {
                file,
                found,
                known: FORMAT_VERSION,
            });
        }
        let identity = Identity::from_fields(&bytes[72..104], u64_at(bytes, 16))
            .ok_or_else(|| corrupt(16, "the ids in the segment header are malformed"))?;
        let flags = u32_at(bytes, 108);
        let header = Header {
            identity,
            number: u64_at(bytes, 24),
            base: Position {
                index: u64_at(bytes, 32),
                term: u64_at(bytes, 40),
            },
            key: KeyId(*bytes[48..].first_chunk().expect("the header is longer")),
            salt: *bytes[56..].first_chunk().expect("the header is longer"),
            previous_crc: u32_at(bytes, 12),
            opening_records: u32_at(bytes, 104),
            reset: if flags & FLAG_RESET == 0 {
                Reset::Keep
            } else {
                Reset::Discard
            },
            has_manifest: flags & FLAG_MANIFEST != 0,
            size: u64_at(bytes, 112),
        };
        let encoded = Encoded {
            bytes: *bytes,
            crc,
            salt: header.salt,
        };
        Ok((header, encoded))
    }
}

/// Reads a little-endian number; the caller has checked the length.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("the caller checked the length"),
    )
}

/// Reads a little-endian number; the caller has checked the length.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(
        *bytes[at..]
            .first_chunk()
            .expect("the caller checked the length"),
    )
}
