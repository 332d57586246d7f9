//! Making a new segment.

use super::record;
use super::record::Kind;
use super::segment::{HEADER_BYTES, Header};
use super::{Active, Batch, LogOptions, Position, Segment, StartPoint};
use crate::disk::{Disk, DiskError};
use crate::seal::Salt;

/// Name under which a segment is built before it gets its own.
const SEGMENT_TEMP: &str = "segment.tmp";

/// A file of zeros, durable, waiting to become the next segment.
const SPARE: &str = "segment.spare";

/// Name under which a spare is built.
const SPARE_TEMP: &str = "segment.spare.tmp";

/// Header, hard state and snapshot mark at the front of a segment.
pub(super) const OPENING_BYTES_MAX: u64 = 1024;

/// What a new segment is made of.
pub(super) struct Opening<'a> {
    pub(super) number: u64,
    pub(super) previous_crc: u32,
    pub(super) size: u64,
    pub(super) has_manifest: bool,
    pub(super) point: &'a StartPoint,
}

/// Whether the same step may be tried again.
pub(super) enum Retry {
    Safe,
    Unsafe,
}

pub(super) struct Failed {
    pub(super) error: DiskError,
    pub(super) retry: Retry,
}

/// Builds a segment under a temporary name, makes it durable, and gives it its name.
pub(super) fn open_segment<D: Disk>(
    disk: &mut D,
    options: &mut LogOptions,
    opening: &Opening<'_>,
) -> Result<(Segment, Active), Failed> {
    let safe = |error| Failed {
        error,
        retry: Retry::Safe,
    };
    let last = |error| Failed {
        error,
        retry: Retry::Unsafe,
    };
    let point = opening.point;
    let segment = Segment {
        number: opening.number,
        base_index: point.last.index,
    };
    let salt = (options.salts)();
    let data_key = options.keys.current();
    let header = header(options, opening, salt).encode();
    let key = header.file_key(data_key);
    let mut batch = Batch {
        bytes: header.bytes.to_vec(),
        key: &key,
        crc: header.crc,
        sequence: 0,
        durable: 0,
    };
    let state = record::encode_hard_state(point.hard_state);
    batch.push(Kind::HardState, Position::default(), &state);
    if let Some(at) = point.snapshot {
        // The header says whether entries are void; this mark only names the snapshot.
        batch.push(Kind::SnapshotMark, at, &[0]);
    }
    let (bytes, crc, sequence) = (batch.bytes, batch.crc, batch.sequence);
    let offset = bytes.len() as u64;
    assert!(offset <= OPENING_BYTES_MAX, "opening records are small");

    blank_file(disk, opening.size).map_err(safe)?;
    disk.write_at(SEGMENT_TEMP, 0, &bytes).map_err(safe)?;
    disk.sync(SEGMENT_TEMP).map_err(last)?;
    let name = segment.name();
    disk.rename(SEGMENT_TEMP, &name).map_err(last)?;
    disk.sync_dir().map_err(last)?;
    let size = opening.size;
    let active = Active {
        name,
        size,
        key,
        key_id: data_key.id(),
        offset,
        dirty: offset,
        crc,
        sequence,
        durable: sequence,
    };
    debug_assert!(offset >= HEADER_BYTES as u64);
    Ok((segment, active))
}

/// The header of a new segment.
fn header(options: &LogOptions, opening: &Opening<'_>, salt: Salt) -> Header {
    let point = opening.point;
    Header {
        identity: options.identity.clone(),
        number: opening.number,
        base: point.last,
        key: options.keys.current().id(),
        salt,
        previous_crc: opening.previous_crc,
        opening_records: 1 + u32::from(point.snapshot.is_some()),
        reset: point.reset,
        has_manifest: opening.has_manifest,
        // Only with a manifest: without one a file that was cut off on purpose could not say so.
        size: if opening.has_manifest {
            opening.size
        } else {
            0
        },
    }
}

/// A file of zeros under the temporary name: the spare if it has the size, else a new one.
fn blank_file<D: Disk>(disk: &mut D, size: u64) -> Result<(), DiskError> {
    let names = disk.list()?;
    let there = |name: &str| names.iter().any(|found| found == name);
    if there(SEGMENT_TEMP) {
        disk.remove(SEGMENT_TEMP)?;
    }
    if there(SPARE) && disk.len(SPARE)? == size {
        return disk.rename(SPARE, SEGMENT_TEMP);
    }
    disk.create(SEGMENT_TEMP, size)
}

/// Makes a file of `size` zeros that a later rotation takes over, so that the rotation need not
/// wait for the zeros. Any thread may call it, one at a time.
pub fn prepare_spare<D: Disk>(disk: &mut D, size: u64) -> Result<(), DiskError> {
    let names = disk.list()?;
    let there = |name: &str| names.iter().any(|found| found == name);
    if there(SPARE) {
        if disk.len(SPARE)? == size {
            // A rotation may be taking it at this moment.
            return Ok(());
        }
        disk.remove(SPARE)?;
    }
    if there(SPARE_TEMP) {
        disk.remove(SPARE_TEMP)?;
    }
    disk.create(SPARE_TEMP, size)?;
    disk.sync(SPARE_TEMP)?;
    disk.rename(SPARE_TEMP, SPARE)?;
    disk.sync_dir()
}

/// Removes what a rotation that failed has left, as far as the disk allows: a file that stays is
/// removed by the next attempt.
pub(super) fn discard_temp<D: Disk>(disk: &mut D) {
    drop(disk.remove(SEGMENT_TEMP));
}
