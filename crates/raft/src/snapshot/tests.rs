use super::*;
use crate::simdisk::{Loss, SimDisk};

fn keys() -> Keyring {
    Keyring::new(DataKey::new([4; 32]))
}

fn at(index: u64) -> Position {
    Position { index, term: 2 }
}

fn ticket(index: u64) -> SnapshotTicket {
    SnapshotTicket {
        meta: SnapshotMeta {
            at: at(index),
            membership: vec![1, 2, 3],
        },
        identity: Identity::new("cluster", 7).unwrap(),
        key: keys().current().clone(),
        salt: [index as u8; 16],
    }
}

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 7) as u8).collect()
}

fn write(disk: &SimDisk, index: u64, content: &[u8], piece: usize) -> Result<u64, DiskError> {
    let mut writer = SnapshotWriter::begin(disk.clone(), &ticket(index))?;
    for bytes in content.chunks(piece.max(1)) {
        writer.push(bytes)?;
    }
    writer.finish()
}

fn read(disk: &SimDisk, index: u64) -> Result<Vec<u8>, LogError> {
    let mut reader = SnapshotReader::open(disk.clone(), at(index), &keys())?;
    assert_eq!(reader.meta(), &ticket(index).meta);
    assert_eq!(reader.identity().raft_id(), 7);
    let mut all = Vec::new();
    while let Some(chunk) = reader.next_chunk()? {
        assert!(chunk.len() <= CHUNK_BYTES);
        all.extend(chunk);
    }
    assert_eq!(reader.next_chunk()?, None);
    Ok(all)
}

#[test]
fn content_of_any_size_reads_back() {
    let sizes = [
        0,
        1,
        CHUNK_BYTES - 1,
        CHUNK_BYTES,
        CHUNK_BYTES + 1,
        3 * CHUNK_BYTES,
    ];
    for (index, size) in (1..).zip(sizes) {
        for piece in [1000, CHUNK_BYTES, 10 * CHUNK_BYTES] {
            let disk = SimDisk::new(1);
            let written = write(&disk, index, &content(size), piece).unwrap();
            assert_eq!(written, disk.clone().len(&file_name(at(index))).unwrap());
            assert_eq!(read(&disk, index).unwrap(), content(size));
            assert_eq!(disk.clone().list().unwrap(), [file_name(at(index))]);
        }
    }
}

#[test]
fn every_flipped_byte_and_every_cut_is_refused_with_its_place() {
    let disk = SimDisk::new(1);
    write(&disk, 3, &content(300), 50).unwrap();
    let name = file_name(at(3));
    let whole = disk.bytes(&name).unwrap();
    for place in 0..whole.len() {
        let mut flipped = whole.clone();
        flipped[place] ^= 0x40;
        let cut = whole[..place].to_vec();
        for bytes in [flipped, cut] {
            disk.put(&name, bytes);
            match read(&disk, 3) {
                Err(LogError::Corrupt { file, offset, .. }) => {
                    assert_eq!(file, name);
                    assert!(
                        offset <= place as u64,
                        "damage at {place}, reported at {offset}"
                    );
                }
                other => panic!("damage at {place}: {other:?}"),
            }
        }
    }
    let mut longer = whole;
    longer.push(0);
    disk.put(&name, longer);
    assert!(matches!(read(&disk, 3), Err(LogError::Corrupt { .. })));
}

#[test]
fn the_wrong_key_is_named() {
    let disk = SimDisk::new(1);
    write(&disk, 3, b"x", 1).unwrap();
    let other = Keyring::new(DataKey::new([5; 32]));
    let result = SnapshotReader::open(disk, at(3), &other).map(drop);
    assert!(matches!(result, Err(LogError::WrongKey { .. })));
}

#[test]
fn a_power_cut_leaves_the_whole_file_or_none() {
    let total = {
        let disk = SimDisk::new(1);
        write(&disk, 3, &content(200_000), 9000).unwrap();
        disk.operations()
    };
    let mut finished = 0;
    for cut in 1..=total + 1 {
        let disk = SimDisk::new(cut);
        disk.cut_power_at(cut);
        let written = write(&disk, 3, &content(200_000), 9000).is_ok();
        disk.crash(Loss::Power);
        let names = disk.clone().list().unwrap();
        if names.contains(&file_name(at(3))) {
            assert_eq!(read(&disk, 3).unwrap(), content(200_000), "cut at {cut}");
            finished += 1;
        } else {
            assert!(!written, "cut at {cut}: an acknowledged snapshot is gone");
            assert!(names.iter().all(|name| is_unfinished(name)), "{names:?}");
            // A left-over does not stand in the way.
            write(&disk, 3, b"again", 5).unwrap();
            assert_eq!(read(&disk, 3).unwrap(), b"again");
        }
    }
    assert!(finished > 0);
}

#[test]
fn an_abandoned_snapshot_leaves_nothing() {
    let mut disk = SimDisk::new(1);
    let mut writer = SnapshotWriter::begin(disk.clone(), &ticket(1)).unwrap();
    writer.push(b"abc").unwrap();
    writer.abandon().unwrap();
    assert!(disk.list().unwrap().is_empty());
}

#[test]
fn names_sort_newest_first_by_index() {
    let mut disk = SimDisk::new(1);
    for index in [5, 300, 20] {
        write(&disk, index, b"x", 1).unwrap();
    }
    disk.put("snap-1-2.snap", Vec::new());
    disk.put("log-0000000000000001-0000000000000001.seg", Vec::new());
    assert_eq!(list(&mut disk).unwrap(), [at(300), at(20), at(5)]);
    assert!(is_unfinished(&format!("{}.tmp", file_name(at(5)))));
    assert!(!is_unfinished(&file_name(at(5))));
    assert!(!is_unfinished("segment.tmp"));
}
