mod group;

use super::*;
use crate::consensus::Payload;
use crate::disk::DiskErrorKind;
use crate::mix::Mix;
use crate::seal::DataKey;
use crate::simdisk::{Loss, SimDisk};
use crate::snapshot::{self, SnapshotTicket, SnapshotWriter};

fn config() -> MemberConfig {
    MemberConfig {
        applied_bytes_alone: 2000,
        segment_bytes: 4096,
        snapshot_interval: 20,
        entries_for_slow_followers: 5,
        ..MemberConfig::default()
    }
}

fn start(id: u64, salt_seed: u64, bootstrap: Bootstrap) -> MemberStart {
    start_with(Keyring::new(key(4)), id, salt_seed, bootstrap)
}

fn key(byte: u8) -> DataKey {
    DataKey::new([byte; 32])
}

fn start_with(keys: Keyring, id: u64, salt_seed: u64, bootstrap: Bootstrap) -> MemberStart {
    let mut mix = Mix::new(salt_seed);
    MemberStart {
        identity: Identity::new("cluster", id).unwrap(),
        keys,
        salts: Box::new(move || {
            let mut salt = [0; 16];
            salt[..8].copy_from_slice(&mix.next().to_le_bytes());
            salt
        }),
        bootstrap,
    }
}

fn alone() -> Bootstrap {
    Bootstrap::Alone {
        context: Bytes::from_static(b"first"),
    }
}

/// A member with a state machine that remembers all data in order.
struct Machine {
    member: Member<SimDisk>,
    recovery: Recovery,
    state: Vec<Bytes>,
    applied: u64,
    outbox: Vec<raftpb::Message>,
    disk: SimDisk,
}

impl Machine {
    fn open(
        disk: &SimDisk,
        id: u64,
        config: MemberConfig,
        salt_seed: u64,
        bootstrap: Bootstrap,
    ) -> Result<Self, OpenError> {
        Self::open_with(disk, config, start(id, salt_seed, bootstrap))
    }

    fn open_with(
        disk: &SimDisk,
        config: MemberConfig,
        start: MemberStart,
    ) -> Result<Self, OpenError> {
        let (member, recovery) = Member::open(disk.clone(), config, start)?;
        let mut machine = Machine {
            member,
            recovery,
            state: Vec::new(),
            applied: 0,
            outbox: Vec::new(),
            disk: disk.clone(),
        };
        if let Some(mut reader) = machine.member.read_snapshot()? {
            let at = reader.meta().at;
            let mut bytes = Vec::new();
            while let Some(chunk) = reader.next_chunk()? {
                bytes.extend(chunk);
            }
            machine.restore(at, &bytes);
        }
        Ok(machine)
    }

    fn restore(&mut self, at: Position, bytes: &[u8]) {
        self.state = bytes
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty())
            .map(Bytes::copy_from_slice)
            .collect();
        self.applied = at.index;
    }

    fn frozen(&self) -> Vec<u8> {
        self.state
            .iter()
            .flat_map(|line| [line, b"\n".as_slice()].concat())
            .collect()
    }

    /// Drives to rest. Data that comes out is acknowledged.
    fn settle(&mut self) -> Result<(), DriveError> {
        while let Some(output) = self.member.drive()? {
            if let Some((meta, bytes)) = output.installed {
                self.restore(meta.at, &bytes);
            }
            for entry in output.committed {
                assert_eq!(entry.at.index, self.applied + 1, "applied in order, once");
                self.applied = entry.at.index;
                if let Payload::Data(data) = entry.payload {
                    self.state.push(data);
                }
            }
            self.outbox.extend(output.messages);
        }
        Ok(())
    }

    /// Writes the file of a snapshot that was begun right before.
    fn write_out(&self, ticket: &SnapshotTicket) -> Result<u64, DiskError> {
        let mut writer = SnapshotWriter::begin(self.disk.clone(), ticket)?;
        writer.push(&self.frozen())?;
        writer.finish()
    }

    /// Writes a snapshot if one is due.
    fn snapshot(&mut self) -> Result<(), DriveError> {
        if !self.member.snapshot_due() {
            return Ok(());
        }
        let Some(ticket) = self.member.begin_snapshot() else {
            return Ok(());
        };
        match self.write_out(&ticket) {
            Ok(_) => self.member.finish_snapshot(&ticket.meta),
            Err(_) => {
                self.member.fail_snapshot();
                Ok(())
            }
        }
    }

    fn propose(&mut self, text: &str) -> Result<Position, Refusal> {
        self.member.propose(Bytes::copy_from_slice(text.as_bytes()))
    }
}

fn lines(range: std::ops::Range<u64>) -> Vec<String> {
    range
        .map(|n| format!("value {n} {}", "x".repeat((n * 37 % 200) as usize)))
        .collect()
}

fn open_alone(disk: &SimDisk, salt_seed: u64) -> Result<Machine, OpenError> {
    open_under(Keyring::new(key(4)), disk, salt_seed)
}

fn open_under(keys: Keyring, disk: &SimDisk, salt_seed: u64) -> Result<Machine, OpenError> {
    let start = start_with(keys, 7, salt_seed, alone());
    let mut machine = Machine::open_with(disk, config(), start)?;
    machine.settle().map_err(|error| match error {
        DriveError::Retry(error) | DriveError::Fatal(error) => OpenError::Log(error),
    })?;
    Ok(machine)
}

#[test]
fn a_fresh_directory_becomes_a_group_of_one_that_leads() {
    let disk = SimDisk::new(1);
    let machine = open_alone(&disk, 1).unwrap();
    assert!(machine.recovery.fresh);
    assert!(machine.member.core().leads_with_all_applied());
    assert_eq!(machine.member.identity().raft_id(), 7);
}

#[test]
fn many_proposals_cost_one_sync() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    let before = disk.syncs();
    for line in lines(0..10) {
        machine.propose(&line).unwrap();
    }
    machine.settle().unwrap();
    assert_eq!(machine.state.len(), 10);
    assert_eq!(disk.syncs(), before + 1);
}

#[test]
fn a_restart_replays_snapshot_and_log_and_keeps_its_own_id() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    for line in lines(0..90) {
        machine.propose(&line).unwrap();
        machine.settle().unwrap();
        machine.snapshot().unwrap();
    }
    assert!(machine.member.newest_snapshot().index >= 80);
    assert!(
        machine.member.core().cached_entries() < 30,
        "the cache is compacted"
    );
    let expected = machine.state.clone();
    machine.member.close().unwrap();
    let names = disk.clone().list().unwrap();
    assert_eq!(
        names.iter().filter(|name| name.ends_with(".snap")).count(),
        1
    );
    assert!(
        names.iter().filter(|name| name.ends_with(".seg")).count() < 6,
        "{names:?}"
    );

    let mut again = Machine::open(&disk, 99, config(), 2, alone()).unwrap();
    assert!(again.recovery.snapshot.is_some() && !again.recovery.fresh);
    assert_eq!(again.recovery.truncated, None);
    again.settle().unwrap();
    assert_eq!(again.state, expected);
    assert_eq!(again.member.identity().raft_id(), 7);
    assert!(again.member.core().leads_with_all_applied());
}

#[test]
fn few_large_entries_bring_a_snapshot_as_well() {
    let disk = SimDisk::new(3);
    let config = MemberConfig {
        snapshot_interval: 1_000,
        snapshot_bytes: 10_000,
        ..config()
    };
    let keys = Keyring::new(key(4));
    let mut machine = Machine::open_with(&disk, config, start_with(keys, 1, 3, alone())).unwrap();
    machine.settle().unwrap();
    let text = "x".repeat(3_000);
    for _ in 0..3 {
        machine.propose(&text).unwrap();
        machine.settle().unwrap();
        assert!(!machine.member.snapshot_due());
    }
    machine.propose(&text).unwrap();
    machine.settle().unwrap();
    assert!(machine.member.snapshot_due());
    machine.snapshot().unwrap();
    assert!(machine.member.newest_snapshot().index > 0);
    machine.propose(&text).unwrap();
    machine.settle().unwrap();
    assert!(
        !machine.member.snapshot_due(),
        "it counts from the snapshot"
    );
}

#[test]
fn another_cluster_is_refused() {
    let disk = SimDisk::new(1);
    open_alone(&disk, 1).unwrap();
    let mut other = start(7, 2, alone());
    other.identity = Identity::new("another", 7).unwrap();
    let result = Member::open(disk.clone(), config(), other).map(drop);
    assert!(matches!(
        result,
        Err(OpenError::Log(LogError::Foreign { .. }))
    ));
    let mut unknown = start(7, 2, alone());
    unknown.identity = Identity::new("", 7).unwrap();
    assert!(Member::open(disk, config(), unknown).is_ok());
}

#[test]
fn a_damaged_snapshot_is_made_up_for_by_an_older_one_and_the_log() {
    let disk = SimDisk::new(1);
    let keep = MemberConfig {
        keep_old_snapshots: 1,
        ..config()
    };
    let mut machine = Machine::open(&disk, 7, keep.clone(), 1, alone()).unwrap();
    machine.settle().unwrap();
    for line in lines(0..70) {
        machine.propose(&line).unwrap();
        machine.settle().unwrap();
        machine.snapshot().unwrap();
    }
    let newest = snapshot::file_name(machine.member.newest_snapshot());
    let mut bytes = disk.bytes(&newest).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    disk.put(&newest, bytes);
    let mut again = Machine::open(&disk, 7, keep.clone(), 2, alone()).unwrap();
    assert_eq!(again.recovery.skipped_snapshots.len(), 1);
    again.settle().unwrap();
    assert_eq!(again.state, machine.state);

    let older = snapshot::list(&mut disk.clone()).unwrap()[1];
    disk.put(&snapshot::file_name(older), Vec::new());
    match Machine::open(&disk, 7, keep, 3, alone()).map(drop) {
        Err(OpenError::Log(LogError::Corrupt { file, offset, .. })) => {
            assert_eq!(file, newest);
            assert!(offset > 0 && offset <= middle as u64, "{offset}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_snapshot_that_is_missing_or_all_that_is_left_is_refused_by_its_file() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    machine.settle().unwrap();
    for line in lines(0..70) {
        machine.propose(&line).unwrap();
        machine.settle().unwrap();
        machine.snapshot().unwrap();
    }
    let file = snapshot::file_name(machine.member.newest_snapshot());
    let whole = disk.bytes(&file).unwrap();
    disk.clone().remove(&file).unwrap();
    let refused = |disk: &SimDisk| match open_alone(disk, 2).map(drop) {
        Err(OpenError::Log(LogError::Corrupt { file, what, .. })) => (file, what),
        other => panic!("{other:?}"),
    };
    let (named, what) = refused(&disk);
    assert_eq!(named, file);
    assert!(what.contains("missing"), "{what}");

    // A directory in which only a damaged snapshot is left is not a fresh one.
    for name in disk.clone().list().unwrap() {
        disk.clone().remove(&name).unwrap();
    }
    disk.put(&file, whole[..whole.len() / 2].to_vec());
    let (named, _) = refused(&disk);
    assert_eq!(named, file);
}

#[test]
fn a_full_disk_refuses_proposals_and_recovers_when_space_returns() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    disk.set_capacity(Some(disk.used()));
    let mut refused = None;
    for line in lines(0..100) {
        match machine.propose(&line) {
            Ok(_) => machine.settle().unwrap(),
            Err(refusal) => {
                refused = Some(refusal);
                break;
            }
        }
    }
    let refusal = refused.unwrap();
    assert!(matches!(refusal, Refusal::DiskFull(_)), "{refusal}");
    assert!(refusal.to_string().contains("no space left"));
    let held = machine.state.len();
    assert!(held > 5);
    machine.member.tick();
    machine.settle().unwrap();
    disk.set_capacity(None);
    machine.propose("more").unwrap();
    machine.settle().unwrap();
    assert_eq!(machine.state.len(), held + 1);
}

#[test]
fn a_member_starts_with_one_block_left_and_takes_proposals_when_there_is_space() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    for line in lines(0..10) {
        machine.propose(&line).unwrap();
    }
    machine.settle().unwrap();
    let held = machine.state;
    for seed in 2..4 {
        disk.crash(Loss::Power);
        disk.set_capacity(Some(disk.used() + log::SEGMENT_BYTES_MIN));
        let mut machine = open_alone(&disk, seed).unwrap();
        assert_eq!(machine.state, held);
        let large = "x".repeat(4 * 1024);
        assert!(matches!(machine.propose(&large), Err(Refusal::DiskFull(_))));
        assert_eq!(machine.state, held);
    }
    disk.crash(Loss::Power);
    disk.set_capacity(None);
    let mut machine = open_alone(&disk, 4).unwrap();
    machine.propose("more").unwrap();
    machine.settle().unwrap();
    assert_eq!(machine.state.len(), held.len() + 1);
}

/// The end of the last segment, which is not needed any more, is room for the states of nodes and
/// tasks.
#[test]
fn a_member_that_starts_on_a_full_disk_has_room_for_small_proposals() {
    let disk = SimDisk::new(1);
    let open = |salt_seed| {
        let mut config = config();
        config.segment_bytes = 1 << 20;
        let start = start_with(Keyring::new(key(4)), 7, salt_seed, alone());
        let mut machine = Machine::open_with(&disk, config, start).unwrap();
        machine.settle().unwrap();
        machine
    };
    open(1).propose("one").unwrap();
    disk.crash(Loss::Power);
    disk.set_capacity(Some(disk.used()));
    let mut machine = open(2);
    for _ in 0..50 {
        machine.propose(&"x".repeat(1024)).unwrap();
        machine.settle().unwrap();
    }
    let large = "x".repeat(300 * 1024);
    assert!(matches!(machine.propose(&large), Err(Refusal::DiskFull(_))));
}

#[test]
fn a_write_that_meets_a_full_disk_or_no_file_is_retried_without_loss() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    machine.propose("one").unwrap();
    machine.propose("two").unwrap();
    for kind in [
        DiskErrorKind::Full,
        DiskErrorKind::NoFiles,
        DiskErrorKind::Full,
    ] {
        disk.fail_at(disk.operations() + 1, kind);
        assert!(matches!(machine.settle(), Err(DriveError::Retry(_))));
        assert!(machine.state.is_empty());
        machine.member.tick();
        assert!(matches!(
            machine.propose("three"),
            Err(Refusal::DiskFull(_))
        ));
    }
    machine.settle().unwrap();
    assert_eq!(machine.state, ["one", "two"]);
    disk.crash(Loss::Power);
    assert_eq!(open_alone(&disk, 2).unwrap().state, ["one", "two"]);
}

#[test]
fn a_first_start_that_is_cut_short_at_any_operation_is_repeated() {
    for seed in 0..20 {
        for operation in 1..12 {
            let disk = SimDisk::new(seed);
            // Twice, because the second start finds what the first one left.
            for _ in 0..2 {
                disk.cut_power_at(disk.operations() + operation);
                drop(open_alone(&disk, operation));
                disk.crash(Loss::Power);
            }
            let machine = open_alone(&disk, 99).unwrap_or_else(|error| {
                panic!("seed {seed}, operation {operation}: {error:?}");
            });
            assert!(machine.member.core().leads_with_all_applied());
        }
    }
}

#[test]
fn what_a_failed_sync_left_in_the_cache_survives_a_loss_of_power_after_the_restart() {
    for seed in 0..40 {
        let disk = SimDisk::new(seed);
        let mut machine = open_alone(&disk, 1).unwrap();
        for line in lines(0..10) {
            machine.propose(&line).unwrap();
        }
        disk.fail_at(disk.operations() + 2, DiskErrorKind::Other);
        machine.settle().unwrap_err();
        disk.crash(Loss::Process);
        let machine = open_alone(&disk, 2).unwrap();
        let served = machine.state;
        disk.crash(Loss::Power);
        let machine = open_alone(&disk, 3).unwrap();
        assert!(machine.state.starts_with(&served), "seed {seed}");
    }
}

#[test]
fn a_failed_sync_is_fatal() {
    let disk = SimDisk::new(1);
    let mut machine = open_alone(&disk, 1).unwrap();
    machine.propose("one").unwrap();
    disk.fail_at(disk.operations() + 2, DiskErrorKind::Other);
    for _ in 0..3 {
        assert!(matches!(
            machine.settle(),
            Err(DriveError::Fatal(LogError::Poisoned(_)))
        ));
    }
    assert!(machine.state.is_empty());
}

/// Runs proposals with snapshots until something fails; returns what was acknowledged.
fn work(machine: &mut Machine, mix: &mut Mix, rounds: u64) -> Vec<Bytes> {
    for round in 0..rounds {
        let count = 1 + mix.below(4);
        let number = machine.state.len() as u64 * 1000 + round;
        let proposed = lines(number..number + count)
            .iter()
            .all(|line| machine.propose(line).is_ok());
        if !proposed || machine.settle().is_err() || machine.snapshot().is_err() {
            break;
        }
    }
    machine.state.clone()
}

#[test]
fn power_cut_at_any_operation_loses_no_acknowledged_proposal() {
    for seed in 0..3 {
        let total = {
            let disk = SimDisk::new(seed);
            let mut machine = open_alone(&disk, 1).unwrap();
            work(&mut machine, &mut Mix::new(seed), 40);
            assert!(machine.member.newest_snapshot().index > 0);
            disk.operations()
        };
        for cut in 1..=total {
            let context = format!("seed {seed}, cut at {cut}");
            let disk = SimDisk::new(seed * 10_000 + cut);
            disk.cut_power_at(cut);
            let acknowledged = open_alone(&disk, 1)
                .map(|mut machine| work(&mut machine, &mut Mix::new(seed), 40))
                .unwrap_or_default();
            disk.crash(if cut % 3 == 0 {
                Loss::Process
            } else {
                Loss::Power
            });
            let mut again =
                open_alone(&disk, 2).unwrap_or_else(|error| panic!("{context}: {error:?}"));
            assert!(again.state.starts_with(&acknowledged), "{context}");
            again.propose("after").unwrap();
            again.settle().unwrap();
            let expected = again.state.clone();
            disk.crash(Loss::Power);
            assert_eq!(open_alone(&disk, 3).unwrap().state, expected, "{context}");
        }
    }
}

#[test]
fn restarts_in_a_row_lose_no_acknowledged_proposal() {
    for seed in 0..10 {
        let disk = SimDisk::new(seed);
        let mut mix = Mix::new(seed);
        let mut acknowledged: Vec<Bytes> = Vec::new();
        for restart in 1..25 {
            let mut machine = open_alone(&disk, seed * 100 + restart).unwrap();
            let context = format!("seed {seed}, restart {restart}");
            assert!(machine.state.starts_with(&acknowledged), "{context}");
            disk.cut_power_at(disk.operations() + 1 + mix.below(40));
            acknowledged = work(&mut machine, &mut mix, 30);
            disk.crash(if restart % 2 == 0 {
                Loss::Power
            } else {
                Loss::Process
            });
        }
    }
}

/// The keys while the data key changes from 4 to 5.
fn both() -> Keyring {
    Keyring::with_older(key(5), vec![key(4)])
}

/// Changes the data key and works until nothing is sealed under the old one.
fn change_key(machine: &mut Machine, mix: &mut Mix) -> Result<(), DriveError> {
    machine.member.rekey(key(5))?;
    for round in 0..20 {
        if !machine.member.is_rekeying() {
            return Ok(());
        }
        if machine
            .propose(&format!("rekey {round} {}", mix.below(100)))
            .is_ok()
        {
            machine.settle()?;
        }
        machine.snapshot()?;
    }
    assert!(
        !machine.member.is_rekeying(),
        "it takes a snapshot, not twenty"
    );
    Ok(())
}

#[test]
fn after_a_change_of_the_data_key_the_old_one_opens_nothing_that_is_needed() {
    for entries in [0, 1, 7, 19, 20, 21, 60] {
        let disk = SimDisk::new(entries);
        let mut mix = Mix::new(entries);
        let mut machine = open_alone(&disk, 1).unwrap();
        work(&mut machine, &mut mix, entries);
        change_key(&mut machine, &mut mix).unwrap();
        let state = work(&mut machine, &mut mix, 10);
        disk.crash(Loss::Power);
        let new = Keyring::new(key(5));
        assert_eq!(open_under(new, &disk, 2).unwrap().state, state);
        let old = open_alone(&disk, 3).map(drop).unwrap_err();
        let OpenError::Log(LogError::WrongKey { current, .. }) = old else {
            panic!("{old:?}");
        };
        assert_eq!(current, key(4).id());
    }
}

/// The newest snapshot has everything, and is sealed under the old key.
#[test]
fn a_change_of_the_data_key_waits_for_nobody_to_write() {
    for is_under_way in [false, true] {
        let disk = SimDisk::new(3);
        let mut machine = open_alone(&disk, 1).unwrap();
        for line in lines(0..7) {
            machine.propose(&line).unwrap();
            machine.settle().unwrap();
        }
        let ticket = machine.member.begin_snapshot().unwrap();
        if is_under_way {
            machine.member.rekey(key(5)).unwrap();
        }
        machine.write_out(&ticket).unwrap();
        machine.member.finish_snapshot(&ticket.meta).unwrap();
        if !is_under_way {
            machine.member.rekey(key(5)).unwrap();
        }
        machine.settle().unwrap();
        machine.snapshot().unwrap();
        assert!(!machine.member.is_rekeying());
        disk.crash(Loss::Power);
        let again = open_under(Keyring::new(key(5)), &disk, 2).unwrap();
        assert_eq!(again.state, machine.state);
    }
}

/// Nobody writes any more after the first attempt, of which nothing came.
#[test]
fn a_change_of_the_data_key_that_failed_is_tried_again_although_nobody_writes() {
    // Whether the snapshot cannot be written, or what it makes superfluous not be removed.
    for is_written in [false, true] {
        let disk = SimDisk::new(3);
        let mut machine = open_alone(&disk, 1).unwrap();
        for line in lines(0..30) {
            machine.propose(&line).unwrap();
            machine.settle().unwrap();
        }
        machine.member.rekey(key(5)).unwrap();
        machine.settle().unwrap();
        let ticket = machine.member.begin_snapshot().unwrap();
        if is_written {
            machine.write_out(&ticket).unwrap();
            // The mark in the log is one write and one sync, that in the manifest one write.
            disk.fail_at(disk.operations() + 4, DiskErrorKind::Other);
            machine.member.finish_snapshot(&ticket.meta).unwrap_err();
        }
        machine.member.fail_snapshot();
        assert!(machine.member.is_rekeying());
        for _ in 0..30 {
            machine.member.tick();
            machine.settle().unwrap();
            machine.snapshot().unwrap();
        }
        assert!(!machine.member.is_rekeying(), "{is_written}");
        disk.crash(Loss::Power);
        let again = open_under(Keyring::new(key(5)), &disk, 2).unwrap();
        assert_eq!(again.state, machine.state);
    }
}

/// A snapshot under the old key is under way when the key changes: it does not count.
#[test]
fn a_snapshot_that_was_begun_before_the_change_does_not_end_it() {
    let disk = SimDisk::new(3);
    let mut machine = open_alone(&disk, 1).unwrap();
    for line in lines(0..30) {
        machine.propose(&line).unwrap();
        machine.settle().unwrap();
    }
    let ticket = machine.member.begin_snapshot().unwrap();
    machine.member.rekey(key(5)).unwrap();
    machine.write_out(&ticket).unwrap();
    machine.member.finish_snapshot(&ticket.meta).unwrap();
    assert!(machine.member.is_rekeying());
    // One more of the same position would take the place of the first.
    assert!(!machine.member.snapshot_due());
    machine.propose("more").unwrap();
    machine.settle().unwrap();
    machine.snapshot().unwrap();
    assert!(!machine.member.is_rekeying());
    disk.crash(Loss::Power);
    let again = open_under(Keyring::new(key(5)), &disk, 2).unwrap();
    assert_eq!(again.state, machine.state);
}

#[test]
fn power_cut_at_any_operation_of_a_key_change_leaves_a_log_for_both_keys() {
    let run = |disk: &SimDisk, seed: u64| -> Vec<Bytes> {
        let mut mix = Mix::new(seed);
        let Ok(mut machine) = open_alone(disk, 1) else {
            return Vec::new();
        };
        work(&mut machine, &mut mix, 12);
        // What is settled before an error is acknowledged all the same.
        if change_key(&mut machine, &mut mix).is_ok() {
            work(&mut machine, &mut mix, 5);
        }
        machine.state
    };
    for seed in 0..2 {
        let disk = SimDisk::new(seed);
        run(&disk, seed);
        for cut in 1..=disk.operations() {
            let context = format!("seed {seed}, cut at {cut}");
            let disk = SimDisk::new(seed * 10_000 + cut);
            disk.cut_power_at(cut);
            let acknowledged = run(&disk, seed);
            disk.crash(if cut % 3 == 0 {
                Loss::Process
            } else {
                Loss::Power
            });
            let mut again =
                open_under(both(), &disk, 2).unwrap_or_else(|error| panic!("{context}: {error:?}"));
            assert!(again.state.starts_with(&acknowledged), "{context}");
            change_key(&mut again, &mut Mix::new(cut)).unwrap();
            let expected = again.state.clone();
            disk.crash(Loss::Power);
            let new = Keyring::new(key(5));
            let last = open_under(new, &disk, 3);
            assert_eq!(last.unwrap().state, expected, "{context}");
        }
    }
}
