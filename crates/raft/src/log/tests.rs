use std::collections::BTreeSet;

use bytes::Bytes;
use proptest::prelude::*;

use super::manifest::MANIFEST;
use super::*;
use crate::disk::{DiskErrorKind, DiskOp};
use crate::mix::Mix;
use crate::seal::{DataKey, Salt};
use crate::simdisk::{Loss, SimDisk};

const SEGMENT: u64 = 8 * 1024;

fn identity() -> Identity {
    Identity::new("cluster", 7).unwrap()
}

fn keys() -> Keyring {
    Keyring::new(DataKey::new([9; 32]))
}

fn options(seed: u64) -> LogOptions {
    let mut mix = Mix::new(seed);
    let mut used: BTreeSet<Salt> = BTreeSet::new();
    LogOptions {
        segment_bytes: SEGMENT,
        identity: identity(),
        keys: keys(),
        salts: Box::new(move || {
            let mut salt = [0; 16];
            salt[..8].copy_from_slice(&mix.next().to_le_bytes());
            assert!(used.insert(salt), "a salt came twice");
            salt
        }),
    }
}

/// Opens whatever is there and starts a new segment behind it.
fn open(disk: &SimDisk, seed: u64) -> Result<(Log<SimDisk>, Option<Recovered>), LogError> {
    let found = recover(&mut disk.clone(), &keys())?;
    let point = found
        .as_ref()
        .map_or_else(StartPoint::default, |found| StartPoint {
            last: Position {
                index: found.last_index(),
                term: found.term_at(found.last_index()).unwrap_or(0),
            },
            snapshot: found.snapshot,
            hard_state: found.hard_state,
            reset: Reset::Keep,
        });
    let log = Log::start(disk.clone(), options(seed), found.as_ref(), point)?;
    Ok((log, found))
}

fn entry(index: u64, term: u64, len: usize) -> Entry {
    let data = Bytes::from(vec![(index % 251) as u8; len]);
    Entry {
        at: Position { index, term },
        kind: EntryKind::Normal,
        data,
    }
}

fn state(term: u64, commit: u64) -> HardState {
    HardState {
        term,
        vote: 7,
        commit,
    }
}

fn recovered(disk: &SimDisk) -> Result<Recovered, LogError> {
    recover(&mut disk.clone(), &keys()).map(|found| found.unwrap())
}

fn indices(found: &Recovered) -> Vec<u64> {
    found.entries.iter().map(|entry| entry.at.index).collect()
}

/// The only segment file, or the last one.
fn last_segment(disk: &SimDisk) -> String {
    disk.clone()
        .list()
        .unwrap()
        .into_iter()
        .rfind(|name| name.ends_with(".seg"))
        .unwrap()
}

/// Puts a manifest there which says that the last segment is durable up to `offset`: an older one
/// is what a loss of power may leave.
fn put_mark(disk: &SimDisk, offset: u64) {
    let segment = Segment::parse(&last_segment(disk)).unwrap();
    let mark = Mark {
        number: segment.number,
        base_index: segment.base_index,
        offset,
        is_trimmed: false,
    };
    disk.clone().remove(MANIFEST).unwrap();
    Manifest::open(&mut disk.clone(), mark).unwrap();
}

#[test]
fn an_empty_directory_holds_no_log() {
    assert!(recover(&mut SimDisk::new(1), &keys()).unwrap().is_none());
}

#[test]
fn reads_back_what_was_appended() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    let mut change = entry(2, 1, 10);
    change.kind = EntryKind::ConfChange;
    log.append(Some(state(1, 0)), &[entry(1, 1, 0), change.clone()])
        .unwrap();
    log.append(Some(state(3, 2)), &[entry(3, 3, 100)]).unwrap();
    let found = recovered(&disk).unwrap();
    assert_eq!(found.identity, identity());
    assert_eq!(found.entries, [entry(1, 1, 0), change, entry(3, 3, 100)]);
    assert_eq!(found.hard_state, state(3, 2));
    assert_eq!((found.base_index, found.base_term), (0, Some(0)));
    assert_eq!(
        (found.last_index(), found.term_at(3), found.term_at(4)),
        (3, Some(3), None)
    );
    assert_eq!(found.truncated, None);
}

#[test]
fn a_rewritten_suffix_replaces_the_old_one() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(
        Some(state(1, 1)),
        &[entry(1, 1, 9), entry(2, 1, 9), entry(3, 1, 9)],
    )
    .unwrap();
    log.append(Some(state(2, 1)), &[entry(2, 2, 5)]).unwrap();
    assert_eq!(log.last(), Position { index: 2, term: 2 });
    assert_eq!(
        recovered(&disk).unwrap().entries,
        [entry(1, 1, 9), entry(2, 2, 5)]
    );
}

#[test]
fn entries_of_any_size_fit() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    let big = SEGMENT as usize * 3;
    for (index, len) in [(1, 1), (2, big), (3, 0), (4, SEGMENT as usize), (5, 7)] {
        log.append(None, &[entry(index, 1, len)]).unwrap();
    }
    assert!(log.segment_count() >= 3);
    let found = recovered(&disk).unwrap();
    assert_eq!(indices(&found), [1, 2, 3, 4, 5]);
    assert_eq!(found.entries[1], entry(2, 1, big));
}

#[test]
fn compaction_drops_only_segments_without_kept_entries() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    for index in 1..=60 {
        log.append(Some(state(1, index - 1)), &[entry(index, 1, 400)])
            .unwrap();
    }
    let before = log.segment_count();
    assert!(before > 3, "{before} segments");
    assert_eq!(log.compact(1).unwrap(), 0);
    let removed = log.compact(30).unwrap();
    assert!(removed > 0 && removed < before - 1);
    assert_eq!(log.compact(30).unwrap(), 0);
    let found = recovered(&disk).unwrap();
    assert!(found.base_index < 30 && found.base_index > 0);
    assert_eq!(found.base_term, Some(1));
    assert_eq!(found.last_index(), 60);
    assert_eq!(found.hard_state, state(1, 59));
    log.compact(u64::MAX).unwrap();
    assert_eq!(log.segment_count(), 1);
}

#[test]
fn a_discarding_snapshot_mark_begins_the_log_anew() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(None, &[entry(1, 1, 9), entry(2, 1, 9)]).unwrap();
    let at = Position { index: 50, term: 4 };
    log.mark_snapshot(at, Reset::Discard).unwrap();
    log.append(None, &[entry(51, 4, 9)]).unwrap();
    let found = recovered(&disk).unwrap();
    assert_eq!((found.base_index, found.base_term), (50, Some(4)));
    assert_eq!(indices(&found), [51]);
    assert_eq!(found.snapshot, Some(at));
}

#[test]
fn a_keeping_snapshot_mark_keeps_the_entries() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(None, &[entry(1, 1, 9), entry(2, 1, 9)]).unwrap();
    log.mark_snapshot(Position { index: 1, term: 1 }, Reset::Keep)
        .unwrap();
    let found = recovered(&disk).unwrap();
    assert_eq!(indices(&found), [1, 2]);
    assert_eq!(found.snapshot, Some(Position { index: 1, term: 1 }));
}

/// A log of several batches; returns the offset in the last segment where each batch ends.
fn small_log(disk: &SimDisk) -> Vec<u64> {
    let (mut log, _) = open(disk, 1).unwrap();
    let mut ends = vec![log.active.offset];
    for batch in 0..4 {
        let first = batch * 2 + 1;
        log.append(
            Some(state(1, first - 1)),
            &[entry(first, 1, 20), entry(first + 1, 1, 3)],
        )
        .unwrap();
        ends.push(log.active.offset);
    }
    ends
}

#[test]
fn a_log_torn_at_any_byte_keeps_every_whole_record_before_the_tear() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let name = last_segment(&disk);
    put_mark(&disk, ends[0]);
    let whole = disk.bytes(&name).unwrap();
    for cut in ends[0]..=ends[4] {
        let copy = disk.fork(1);
        let mut bytes = whole.clone();
        bytes[cut as usize..].fill(0);
        copy.put(&name, bytes);
        let found = recovered(&copy).unwrap();
        let batches = ends.iter().filter(|end| **end <= cut).count() as u64 - 1;
        let got = found.last_index();
        assert!(
            got >= batches * 2,
            "cut at {cut}: batch {batches} durable, entry {got} last"
        );
        assert!(got <= batches * 2 + 2);
        let (mut log, _) = open(&copy, 2).unwrap();
        log.append(None, &[entry(got + 1, 2, 5)]).unwrap();
        let again = recovered(&copy).unwrap().last_index();
        assert_eq!(again, got + 1, "cut at {cut}");
    }
}

#[test]
fn a_segment_cut_or_zeroed_where_it_was_durable_is_refused_with_its_place() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let name = last_segment(&disk);
    let whole = disk.bytes(&name).unwrap();
    for cut in 0..ends[4] as usize {
        for style in ["zeroed", "cut"] {
            let copy = disk.fork(1);
            let mut bytes = whole.clone();
            bytes.truncate(cut);
            if style == "zeroed" {
                bytes.resize(whole.len(), 0);
            }
            if bytes == whole {
                // The end of a record may be zeros.
                continue;
            }
            copy.put(&name, bytes);
            match recovered(&copy) {
                Err(LogError::Corrupt { file, offset, .. }) => {
                    assert_eq!(file, name, "{style} at {cut}");
                    let place = (cut as u64).next_multiple_of(record::ALIGN as u64);
                    assert!(offset <= place, "{style} at {cut}: {offset}");
                }
                other => panic!("{style} at {cut}: {other:?}"),
            }
        }
    }
    // Whether there was a record behind the last one is open, unless zeros are left there.
    let end = ends[4] as usize;
    disk.put(&name, whole[..end].to_vec());
    let error = recovered(&disk).unwrap_err().to_string();
    assert!(error.contains("was made with 8192 bytes"), "{error}");
    disk.put(&name, whole[..end + record::ALIGN].to_vec());
    assert_eq!(recovered(&disk).unwrap().last_index(), 8);
}

#[test]
fn a_newest_segment_that_is_missing_is_refused_by_its_name() {
    for segments in 1..=3 {
        let disk = SimDisk::new(1);
        for seed in 1..=segments {
            let (mut log, _) = open(&disk, seed).unwrap();
            log.append(None, &[entry(seed, 1, 4)]).unwrap();
        }
        let newest = last_segment(&disk);
        disk.clone().remove(&newest).unwrap();
        match recover(&mut disk.clone(), &keys()) {
            Err(LogError::Corrupt { file, what, .. }) => {
                assert_eq!(file, newest);
                assert!(what.contains("missing"), "{what}");
            }
            other => panic!("{segments} segments: {other:?}"),
        }
    }
}

#[test]
fn a_manifest_that_is_missing_or_unreadable_is_refused() {
    let disk = SimDisk::new(1);
    small_log(&disk);
    let whole = disk.bytes(MANIFEST).unwrap();
    for bytes in [None, Some(Vec::new()), Some(vec![0; whole.len()])] {
        match bytes {
            Some(bytes) => disk.put(MANIFEST, bytes),
            None => disk.clone().remove(MANIFEST).unwrap(),
        }
        let error = recovered(&disk).unwrap_err();
        let is_named = matches!(&error, LogError::Corrupt { file, .. } if file == MANIFEST);
        assert!(is_named, "{error}");
    }
    disk.put(MANIFEST, whole);
    recovered(&disk).unwrap();
}

#[test]
fn a_log_of_before_the_manifest_goes_on_with_one() {
    let disk = SimDisk::new(1);
    disk.fail_at(1, DiskErrorKind::Full);
    let ends = small_log(&disk);
    assert!(disk.bytes(MANIFEST).is_none(), "there was no room for it");
    let name = last_segment(&disk);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes.truncate(ends[3] as usize);
    let copy = disk.fork(1);
    copy.put(&name, bytes);
    assert_eq!(recovered(&copy).unwrap().last_index(), 6);

    let (mut log, _) = open(&disk, 2).unwrap();
    log.append(None, &[entry(9, 1, 4)]).unwrap();
    let newest = last_segment(&disk);
    disk.clone().remove(&newest).unwrap();
    let error = recovered(&disk).unwrap_err().to_string();
    assert!(error.contains(&newest), "{error}");
}

#[test]
fn a_segment_that_was_trimmed_on_a_full_disk_is_not_taken_for_damage() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let name = last_segment(&disk);
    // Each of the three sizes that are tried finds no room; in between the old segment is trimmed.
    let before = disk.operations();
    for create in [5, 10, 15] {
        disk.fail_at(before + create, DiskErrorKind::Full);
    }
    let refused = open(&disk, 2).err().unwrap();
    assert!(refused.disk().is_some_and(DiskError::is_full), "{refused}");
    assert_eq!(disk.bytes(&name).unwrap().len() as u64, ends[4]);
    assert_eq!(recovered(&disk).unwrap().last_index(), 8);
    disk.put(
        &name,
        disk.bytes(&name).unwrap()[..ends[3] as usize].to_vec(),
    );
    let error = recovered(&disk).unwrap_err().to_string();
    assert!(error.contains(&name), "{error}");
}

#[test]
fn a_commit_index_beyond_the_end_is_refused_with_the_place_of_the_end() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(Some(state(1, 5)), &[entry(1, 1, 4)]).unwrap();
    match recovered(&disk) {
        Err(LogError::Corrupt { file, offset, what }) => {
            assert_eq!((file, offset), (last_segment(&disk), log.active.offset));
            assert!(what.contains("up to 5"), "{what}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cut_inside_a_record_is_reported_with_its_place() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let name = last_segment(&disk);
    let mut bytes = disk.bytes(&name).unwrap();
    let size = bytes.len();
    bytes.truncate(ends[3] as usize + 60);
    bytes.resize(size, 0);
    disk.put(&name, bytes);
    put_mark(&disk, ends[3]);
    let torn = recovered(&disk).unwrap().truncated.unwrap();
    assert_eq!((torn.file, torn.offset), (name, ends[3]));
    assert!(torn.bytes > 0 && torn.bytes <= 60);
}

#[test]
fn a_flipped_byte_is_a_repaired_tail_or_a_refusal_with_its_place() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let name = last_segment(&disk);
    let whole = disk.bytes(&name).unwrap();
    put_mark(&disk, ends[3]);
    let (mut repaired, mut refused) = (0, 0);
    for at in 0..ends[4] as usize + 64 {
        for flip in [0x01, 0x80, 0xFF] {
            let copy = disk.fork(1);
            let mut bytes = whole.clone();
            bytes[at] ^= flip;
            copy.put(&name, bytes);
            match recovered(&copy) {
                Ok(found) => {
                    repaired += 1;
                    assert!(at as u64 >= ends[3], "flip at {at} went unnoticed");
                    assert!(found.last_index() >= 6);
                    assert!(found.truncated.is_some());
                }
                Err(LogError::Corrupt { file, offset, .. }) => {
                    refused += 1;
                    assert_eq!(file, name);
                    assert!(offset <= at as u64, "flip at {at}, reported at {offset}");
                    assert!((at as u64) < ends[3], "flip at {at} is in the tail");
                }
                Err(other) => panic!("flip at {at}: {other}"),
            }
        }
    }
    assert!(repaired > 0 && refused > 0);
}

#[test]
fn a_flipped_byte_in_an_earlier_segment_is_refused() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let damaged = last_segment(&disk);
    let (mut log, _) = open(&disk, 2).unwrap();
    log.append(None, &[entry(9, 1, 4)]).unwrap();
    let whole = disk.bytes(&damaged).unwrap();
    for at in 0..ends[4] as usize {
        let copy = disk.fork(1);
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        copy.put(&damaged, bytes);
        match recovered(&copy) {
            Err(LogError::Corrupt { file, offset, .. }) => {
                assert_eq!(file, damaged);
                assert!(offset <= at as u64);
            }
            other => panic!("flip at {at}: {other:?}"),
        }
    }
}

#[test]
fn a_missing_segment_is_refused() {
    let disk = SimDisk::new(1);
    for seed in 1..=3 {
        open(&disk, seed).unwrap();
    }
    let names = disk.clone().list().unwrap();
    disk.clone().remove(&names[1]).unwrap();
    let error = recovered(&disk).unwrap_err();
    assert!(
        error.to_string().contains("segment 2 is missing"),
        "{error}"
    );
}

#[test]
fn a_batch_that_reached_the_disk_out_of_order_is_a_torn_tail() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(None, &[entry(1, 1, 9)]).unwrap();
    let start = log.active.offset as usize;
    log.append(None, &[entry(2, 1, 100), entry(3, 1, 100)])
        .unwrap();
    let name = last_segment(&disk);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[start..start + 64].fill(0);
    disk.put(&name, bytes);
    put_mark(&disk, start as u64);
    let found = recovered(&disk).unwrap();
    assert_eq!(indices(&found), [1]);
    assert_eq!(found.truncated.unwrap().offset, start as u64);
}

#[test]
fn the_wrong_key_is_not_taken_for_a_torn_tail() {
    let mut disk = SimDisk::new(1);
    small_log(&disk);
    let other = Keyring::new(DataKey::new([1; 32]));
    let error = recover(&mut disk.clone(), &other).unwrap_err();
    assert!(matches!(error, LogError::WrongKey { .. }), "{error}");
    let both = Keyring::with_older(DataKey::new([1; 32]), vec![DataKey::new([9; 32])]);
    assert_eq!(recover(&mut disk, &both).unwrap().unwrap().last_index(), 8);
}

#[test]
fn an_altered_record_with_a_right_checksum_is_told_from_a_torn_one() {
    let disk = SimDisk::new(1);
    let ends = small_log(&disk);
    let name = last_segment(&disk);
    let mut bytes = disk.bytes(&name).unwrap();
    let at = ends[3] as usize;
    bytes[at + 50] ^= 1;
    let len = 24 + 16 + 48;
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[at..at + 4]);
    hasher.update(&bytes[at + 8..at + len]);
    bytes[at + 4..at + 8].copy_from_slice(&hasher.finalize().to_le_bytes());
    disk.put(&name, bytes);
    let key = keys().current().id();
    let expected = LogError::Unsealable {
        file: name,
        offset: ends[3],
        key,
    };
    assert_eq!(recovered(&disk).unwrap_err(), expected);
}

#[test]
fn a_newer_format_is_refused_by_number() {
    let disk = SimDisk::new(1);
    small_log(&disk);
    let name = last_segment(&disk);
    let mut bytes = disk.bytes(&name).unwrap();
    bytes[8] = 2;
    let crc = crc32fast::hash(&bytes[..124]);
    bytes[124..128].copy_from_slice(&crc.to_le_bytes());
    disk.put(&name, bytes);
    assert_eq!(
        recovered(&disk).unwrap_err(),
        LogError::UnknownFormat {
            file: name,
            found: 2,
            known: 1
        }
    );
}

#[test]
fn a_failed_sync_is_final() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(None, &[entry(1, 1, 9)]).unwrap();
    disk.fail_at(disk.operations() + 2, DiskErrorKind::Other);
    let error = log.append(None, &[entry(2, 1, 9)]).unwrap_err();
    assert!(
        matches!(&error, LogError::Poisoned(cause) if cause.op == DiskOp::Sync),
        "{error}"
    );
    for _ in 0..2 {
        assert_eq!(log.append(None, &[entry(2, 1, 9)]).unwrap_err(), error);
        assert_eq!(log.reserve(1, 1).unwrap_err(), error);
        assert_eq!(log.compact(9).unwrap_err(), error);
        assert_eq!(
            log.mark_snapshot(Position::default(), Reset::Keep)
                .unwrap_err(),
            error
        );
    }
}

#[test]
fn a_failed_write_can_be_repeated() {
    let disk = SimDisk::new(3);
    let (mut log, _) = open(&disk, 1).unwrap();
    log.append(None, &[entry(1, 1, 9)]).unwrap();
    let (offset, sequence) = (log.active.offset, log.active.sequence);
    for _ in 0..3 {
        disk.fail_at(disk.operations() + 1, DiskErrorKind::Full);
        let error = log
            .append(None, &[entry(2, 1, 700), entry(3, 1, 700)])
            .unwrap_err();
        assert!(matches!(error, LogError::Disk(cause) if cause.is_full()));
        assert_eq!((log.active.offset, log.last().index), (offset, 1));
    }
    log.append(None, &[entry(2, 1, 5)]).unwrap();
    assert!(
        log.active.sequence > sequence + 1,
        "sequence numbers of failed writes are spent"
    );
    log.append(None, &[entry(3, 1, 5)]).unwrap();
    let found = recovered(&disk).unwrap();
    assert_eq!(indices(&found), [1, 2, 3]);
    assert_eq!(found.truncated, None);
}

#[test]
fn a_full_disk_is_met_when_space_is_reserved_and_leaves_the_log_usable() {
    let disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut index = 0;
    let error = loop {
        match log.reserve(1, 300) {
            Ok(()) => {
                index += 1;
                log.append(None, &[entry(index, 1, 300)]).unwrap();
            }
            Err(error) => break error,
        }
    };
    assert!(matches!(error, LogError::Disk(cause) if cause.is_full()));
    assert!(index > 5, "the segment at hand can be filled");
    assert_eq!(recovered(&disk).unwrap().last_index(), index);
    disk.set_capacity(None);
    log.append(None, &[entry(index + 1, 1, 300)]).unwrap();
    assert_eq!(recovered(&disk).unwrap().last_index(), index + 1);
}

/// Drives a log with a seeded mix of appends, rewrites, marks and compactions and remembers what
/// was acknowledged.
struct Workload {
    mix: Mix,
    term: u64,
    acknowledged: Vec<Entry>,
    /// What the last call may or may not have left behind.
    doubtful: Vec<Entry>,
    compacted: u64,
    commit: u64,
}

impl Workload {
    fn new(seed: u64) -> Self {
        Workload {
            mix: Mix::new(seed),
            term: 1,
            acknowledged: Vec::new(),
            doubtful: Vec::new(),
            compacted: 0,
            commit: 0,
        }
    }

    fn step(&mut self, log: &mut Log<SimDisk>) -> Result<(), LogError> {
        let last = self.acknowledged.len() as u64;
        match self.mix.below(12) {
            0 if last > self.commit + 1 => {
                self.term += 1;
                let at = self.commit + 1 + self.mix.below(last - self.commit);
                self.append(log, at)
            }
            1 if self.commit > 0 => {
                let index = self.commit;
                let term = self.acknowledged[index as usize - 1].at.term;
                log.mark_snapshot(Position { index, term }, Reset::Keep)?;
                self.compacted = self.compacted.max(index);
                log.compact(index).map(drop)
            }
            _ => self.append(log, last + 1),
        }
    }

    fn append(&mut self, log: &mut Log<SimDisk>, first: u64) -> Result<(), LogError> {
        let count = 1 + self.mix.below(3);
        let entries: Vec<Entry> = (first..first + count)
            .map(|index| entry(index, self.term, self.mix.below(900) as usize))
            .collect();
        self.doubtful = self.acknowledged[..first as usize - 1].to_vec();
        self.doubtful.extend(entries.iter().cloned());
        log.append(Some(state(self.term, self.commit)), &entries)?;
        self.acknowledged = std::mem::take(&mut self.doubtful);
        self.commit = self.commit.max((first + count - 1).saturating_sub(2));
        Ok(())
    }

    /// Every acknowledged entry is there, and nothing that was never written.
    fn check(&mut self, found: &Recovered, context: &str) {
        assert!(
            found.base_index <= self.compacted,
            "{context}: base {}",
            found.base_index
        );
        let got: Vec<Entry> = found.entries.iter().cloned().collect();
        let base = found.base_index as usize;
        let matches = |all: &[Entry]| all.len() >= base && all[base..] == got[..];
        let prefix_of_doubtful = self.doubtful.len() >= base + got.len()
            && self.doubtful[base..base + got.len()] == got[..];
        let keeps_committed = (base + got.len()) as u64 >= self.commit;
        let whole = matches(&self.acknowledged);
        assert!(
            whole || (prefix_of_doubtful && keeps_committed && self.lost_nothing(&got, base)),
            "{context}: {} entries from {base}, acknowledged {}, doubtful {}",
            got.len(),
            self.acknowledged.len(),
            self.doubtful.len()
        );
        let all: Vec<Entry> = if whole {
            self.acknowledged.clone()
        } else {
            self.doubtful[..base + got.len()].to_vec()
        };
        self.acknowledged = all;
        self.doubtful.clear();
        self.term = self.term.max(found.hard_state.term);
    }

    /// A rewrite that was cut short may void the acknowledged suffix that it set out to replace;
    /// an extension may not.
    fn lost_nothing(&self, got: &[Entry], base: usize) -> bool {
        let extends = self.doubtful.starts_with(&self.acknowledged);
        !extends || base + got.len() >= self.acknowledged.len()
    }
}

#[test]
fn power_cut_at_any_operation_loses_nothing_acknowledged() {
    for seed in 0..6 {
        let total = {
            let disk = SimDisk::new(seed);
            let mut workload = Workload::new(seed);
            let (mut log, _) = open(&disk, 1).unwrap();
            (0..40).for_each(|_| workload.step(&mut log).unwrap());
            disk.operations()
        };
        for cut in 1..=total {
            let disk = SimDisk::new(seed * 1000 + cut);
            disk.cut_power_at(cut);
            let mut workload = Workload::new(seed);
            if let Ok((mut log, _)) = open(&disk, 1) {
                while workload.step(&mut log).is_ok() {}
            }
            let loss = if cut % 3 == 0 {
                Loss::Process
            } else {
                Loss::Power
            };
            disk.crash(loss);
            let context = format!("seed {seed}, cut at {cut}, {loss:?}");
            let (_, found) = open(&disk, 2).unwrap_or_else(|error| panic!("{context}: {error}"));
            match found {
                Some(found) => workload.check(&found, &context),
                None => assert!(
                    workload.acknowledged.is_empty(),
                    "{context}: the log is gone"
                ),
            }
            disk.crash(Loss::Power);
            let again = recovered(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            workload.check(&again, &format!("{context}, second crash"));
        }
    }
}

#[test]
fn any_single_failing_operation_loses_nothing_acknowledged() {
    for seed in 0..4 {
        for failing in 1..120 {
            let kind = if failing % 2 == 0 {
                DiskErrorKind::Full
            } else {
                DiskErrorKind::Other
            };
            let disk = SimDisk::new(seed * 1000 + failing);
            disk.fail_at(failing, kind);
            let mut workload = Workload::new(seed);
            let Ok((mut log, _)) = open(&disk, 1) else {
                continue;
            };
            let mut poisoned = false;
            for _ in 0..40 {
                match workload.step(&mut log) {
                    Ok(()) => assert!(!poisoned, "a poisoned log went on"),
                    Err(LogError::Poisoned(_)) => poisoned = true,
                    Err(_) => {}
                }
                if poisoned {
                    break;
                }
            }
            let context = format!("seed {seed}, operation {failing} failed with {kind:?}");
            disk.crash(Loss::Power);
            let found = recovered(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            workload.check(&found, &context);
        }
    }
}

#[test]
fn survives_many_restarts_and_crashes() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let mut workload = Workload::new(seed);
        for restart in 1..40 {
            let (mut log, found) = open(&disk, seed * 100 + restart).unwrap();
            let context = format!("seed {seed}, restart {restart}");
            if let Some(found) = found {
                workload.check(&found, &context);
            }
            assert_eq!(
                log.last().index,
                workload.acknowledged.len() as u64,
                "{context}"
            );
            disk.cut_power_at(disk.operations() + 1 + workload.mix.below(12));
            while workload.step(&mut log).is_ok() {}
            disk.crash(if restart % 2 == 0 {
                Loss::Power
            } else {
                Loss::Process
            });
        }
    }
}

#[test]
fn restarts_do_not_pile_up_empty_segments() {
    let disk = SimDisk::new(1);
    for restart in 1..=50 {
        open(&disk, restart).unwrap();
    }
    let used = disk.used();
    assert!(
        used < 2 * SEGMENT + 50 * 256,
        "{used} bytes after 50 restarts"
    );
}

#[test]
fn a_spare_becomes_the_next_segment() {
    let mut disk = SimDisk::new(1);
    let (mut log, _) = open(&disk, 1).unwrap();
    assert_eq!(log.spare_due(), None);
    let mut index = 0;
    let mut fill = |log: &mut Log<SimDisk>| {
        index += 1;
        log.append(None, &[entry(index, 1, 900)]).unwrap();
    };
    let size = loop {
        match log.spare_due() {
            Some(size) => break size,
            None => fill(&mut log),
        }
    };
    assert_eq!((size, log.spare_due()), (SEGMENT, None));
    prepare_spare(&mut disk, size).unwrap();
    // A full disk is no obstacle to a rotation that takes a spare.
    disk.set_capacity(Some(disk.used()));
    while log.segment_count() == 1 {
        fill(&mut log);
    }
    let names = disk.list().unwrap();
    assert!(!names.contains(&"segment.spare".to_owned()), "{names:?}");
    assert_eq!(recovered(&disk).unwrap().last_index(), index);
}

#[test]
fn a_spare_of_another_size_is_left_alone_and_replaced_by_the_next() {
    let mut disk = SimDisk::new(1);
    prepare_spare(&mut disk, 77).unwrap();
    open(&disk, 1).unwrap();
    assert!(disk.list().unwrap().contains(&"segment.spare".to_owned()));
    prepare_spare(&mut disk, SEGMENT).unwrap();
    open(&disk, 2).unwrap();
    assert!(!disk.list().unwrap().contains(&"segment.spare".to_owned()));
}

#[test]
fn segment_names_are_read_strictly() {
    let segment = Segment {
        number: 26,
        base_index: 255,
    };
    assert_eq!(segment.name(), "log-000000000000001a-0000000000000100.seg");
    assert_eq!(Segment::parse(&segment.name()), Some(segment));
    for name in [
        "log-1a-100.seg",
        "log-000000000000001a-0000000000000000.seg",
        "log-000000000000001A-0000000000000100.seg",
        "log-000000000000001a-0000000000000100.seg.tmp",
        "segment.tmp",
        "LOCK",
    ] {
        assert_eq!(Segment::parse(name), None, "{name}");
    }
}

#[test]
fn identities_are_checked() {
    assert!(Identity::new("", 1).is_ok());
    assert!(Identity::new(&"x".repeat(32), 1 << 63).is_ok());
    assert_eq!(Identity::new("a", 0), Err(IdentityError::RaftId(0)));
    let above = (1 << 63) + 1;
    assert_eq!(Identity::new("a", above), Err(IdentityError::RaftId(above)));
    assert!(Identity::new(&"x".repeat(33), 1).is_err());
    assert!(Identity::new("a\0b", 1).is_err());
}

proptest! {
    #[test]
    fn any_batches_read_back(
        batches in prop::collection::vec(prop::collection::vec(0_usize..2000, 1..5), 1..12),
        seed in any::<u64>(),
    ) {
        let disk = SimDisk::new(seed);
        let (mut log, _) = open(&disk, seed).unwrap();
        let mut all = Vec::new();
        for batch in batches {
            let first = all.len() as u64 + 1;
            let entries: Vec<Entry> =
                (first..).zip(batch).map(|(index, len)| entry(index, first, len)).collect();
            log.append(Some(state(first, first - 1)), &entries).unwrap();
            all.extend(entries);
        }
        let found = recovered(&disk).unwrap();
        prop_assert_eq!(found.entries.into_iter().collect::<Vec<_>>(), all);
        prop_assert_eq!(found.truncated, None);
    }

    #[test]
    fn garbage_in_a_segment_never_panics(
        garbage in prop::collection::vec(any::<u8>(), 0..400),
        at in 0_usize..1200,
    ) {
        let disk = SimDisk::new(1);
        small_log(&disk);
        let name = last_segment(&disk);
        let mut bytes = disk.bytes(&name).unwrap();
        let end = bytes.len().min(at + garbage.len());
        bytes[at..end].copy_from_slice(&garbage[..end - at]);
        disk.put(&name, bytes);
        drop(recovered(&disk));
        disk.put(&name, garbage);
        prop_assert!(recovered(&disk).is_err());
    }

    #[test]
    fn garbage_in_the_manifest_never_panics_and_hides_nothing(
        garbage in prop::collection::vec(any::<u8>(), 0..200),
        at in 0_usize..8192,
    ) {
        let disk = SimDisk::new(1);
        small_log(&disk);
        let mut bytes = disk.bytes(MANIFEST).unwrap();
        let end = bytes.len().min(at + garbage.len());
        bytes[at..end].copy_from_slice(&garbage[..end - at]);
        disk.put(MANIFEST, bytes);
        if let Ok(found) = recovered(&disk) {
            prop_assert_eq!(found.last_index(), 8);
        }
        disk.put(MANIFEST, garbage);
        prop_assert!(recovered(&disk).is_err());
    }
}
