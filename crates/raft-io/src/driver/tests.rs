use std::sync::{Mutex, PoisonError};

use super::*;
use swarm_raft::disk::DiskErrorKind;
use swarm_raft::seal::DataKey;
use swarm_raft::simdisk::{Loss, SimDisk};

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

/// A state machine that remembers all data, one line each.
#[derive(Clone, Default)]
struct Lines {
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    lines: Vec<(Position, String, Origin)>,
    changes: usize,
    refused: usize,
    dropped: usize,
    restored: Option<Position>,
}

impl Lines {
    fn with<R>(&self, read: impl FnOnce(&mut Seen) -> R) -> R {
        read(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn texts(&self) -> Vec<String> {
        self.with(|seen| seen.lines.iter().map(|(_, text, _)| text.clone()).collect())
    }
}

impl Apply for Lines {
    fn apply(&mut self, at: Position, data: &Bytes, origin: Origin) {
        let text = String::from_utf8(data.to_vec()).unwrap();
        self.with(|seen| seen.lines.push((at, text, origin)));
    }

    fn conf_change(&mut self, _at: Position, _change: &raftpb::ConfChange) {
        self.with(|seen| seen.changes += 1);
    }

    fn refused(&mut self, _data: &Bytes) {
        self.with(|seen| seen.refused += 1);
    }

    fn dropped(&mut self) {
        self.with(|seen| seen.dropped += 1);
    }

    fn snapshot(&mut self) -> SnapshotPieces {
        Box::new(
            self.texts()
                .into_iter()
                .map(|text| Bytes::from(text + "\n")),
        )
    }

    fn restore(
        &mut self,
        at: Position,
        pieces: &mut dyn Iterator<Item = Result<Vec<u8>, LogError>>,
    ) -> Result<(), RestoreError> {
        let bytes: Vec<Vec<u8>> = pieces.collect::<Result<_, _>>()?;
        let text = String::from_utf8(bytes.concat())?;
        self.with(|seen| {
            seen.restored = Some(at);
            seen.lines = text
                .lines()
                .map(|line| (at, line.to_owned(), Origin::Log))
                .collect();
        });
        Ok(())
    }
}

fn options() -> Options {
    let mut options = Options::alone("cluster");
    options.tick = Duration::from_millis(10);
    options.member.segment_bytes = 64 * 1024;
    options.member.snapshot_interval = 50;
    options.member.entries_for_slow_followers = 5;
    options
}

fn keeper() -> keys::InMemory {
    keys::InMemory::with(keys::KeySet::settled(DataKey::new([1; 32])))
}

fn open(dir: &std::path::Path) -> (Handle, Recovery, Lines) {
    let lines = Lines::default();
    let state = StateDir::open(dir).unwrap();
    let (handle, recovery) = start(state, &keeper(), options(), lines.clone(), NoPeers).unwrap();
    (handle, recovery, lines)
}

fn open_sim(disk: &SimDisk) -> Result<(Handle, Lines), StartError> {
    let lines = Lines::default();
    let keys = Keyring::new(DataKey::new([1; 32]));
    start_on(disk.clone(), keys, None, options(), lines.clone(), NoPeers)
        .map(|(handle, _)| (handle, lines))
}

fn text(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}

async fn until(handle: &Handle, condition: impl Fn(&Status) -> bool) {
    let mut status = handle.status();
    let met = status.wait_for(|status| condition(status));
    assert!(within(met).await.is_ok(), "the thread ended");
}

#[tokio::test]
async fn a_fresh_directory_is_ready_at_once_and_applies_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, recovery, lines) = open(dir.path());
    assert!(recovery.fresh);
    let status = handle.status().borrow().clone();
    assert!(
        status.ready && status.leader == Some(handle.raft_id()),
        "{status:?}"
    );
    let pending: Vec<Pending> = (0..100)
        .map(|n| handle.submit(text(&format!("{n}")), 0).unwrap())
        .collect();
    let mut last = 0;
    for one in pending {
        let applied = within(one.wait()).await.unwrap();
        assert!(applied.at.index > last);
        last = applied.at.index;
        assert!(handle.applied() >= last);
    }
    assert_eq!(
        lines.texts(),
        (0..100).map(|n| n.to_string()).collect::<Vec<_>>()
    );
    assert!(lines.with(|seen| seen.lines.iter().all(|line| line.2 == Origin::Local)));
    assert_eq!(lines.with(|seen| seen.changes), 1);
    assert_eq!(within(handle.stop()).await, Stopped::Asked);
}

#[tokio::test]
async fn restarts_keep_everything_and_are_complete_before_anyone_looks() {
    let dir = tempfile::tempdir().unwrap();
    let mut expected = Vec::new();
    let mut id = None;
    for round in 0..5 {
        let (handle, recovery, lines) = open(dir.path());
        assert_eq!(recovery.fresh, round == 0);
        assert_eq!(
            *id.get_or_insert_with(|| handle.raft_id()),
            handle.raft_id()
        );
        assert_eq!(lines.texts(), expected, "round {round}");
        assert!(lines.with(|seen| seen.lines.iter().all(|line| line.2 == Origin::Log)));
        for n in 0..60 {
            let line = format!("{round}-{n}");
            within(handle.propose(text(&line))).await.unwrap();
            expected.push(line);
        }
        within(handle.stop()).await;
        assert_eq!(
            within(handle.propose(text("late"))).await,
            Err(ProposeError::Stopped)
        );
    }
    let (handle, recovery, lines) = open(dir.path());
    assert!(
        recovery.snapshot.is_some(),
        "snapshots were written beside the work"
    );
    assert_eq!(lines.with(|seen| seen.restored), recovery.snapshot);
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_directory_in_use_is_refused_until_the_member_stops() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, _, _) = open(dir.path());
    assert!(matches!(
        StateDir::open(dir.path()),
        Err(StateDirError::InUse { .. })
    ));
    within(handle.stop()).await;
    assert!(StateDir::open(dir.path()).is_ok());
}

#[tokio::test]
async fn proposals_that_wait_together_share_a_sync() {
    let disk = SimDisk::new(1);
    let (handle, _) = open_sim(&disk).unwrap();
    let before = disk.syncs();
    let pending: Vec<Pending> = (0..500)
        .map(|n| handle.submit(text(&format!("{n}")), 0).unwrap())
        .collect();
    for one in pending {
        within(one.wait()).await.unwrap();
    }
    let syncs = disk.syncs() - before;
    assert!(syncs < 250, "{syncs} syncs for 500 proposals");
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_refused_proposal_takes_those_built_on_it_along() {
    let disk = SimDisk::new(1);
    let (handle, lines) = open_sim(&disk).unwrap();
    let large = Bytes::from(vec![b'x'; swarm_raft::consensus::PROPOSAL_BYTES_MAX + 1]);
    let first = handle.submit(text("first"), 3).unwrap();
    let refused = handle.submit(large, 3).unwrap();
    let second = handle.submit(text("second"), 3).unwrap();
    assert!(within(first.wait()).await.is_ok());
    let refusal = within(refused.wait()).await;
    assert!(matches!(
        refusal,
        Err(ProposeError::Refused(Refusal::TooLarge { .. }))
    ));
    assert_eq!(within(second.wait()).await, Err(ProposeError::Superseded));
    let next = handle.submit(text("next"), 4).unwrap();
    assert!(within(next.wait()).await.is_ok());
    assert!(within(handle.propose(text("free"))).await.is_ok());
    assert_eq!(lines.texts(), ["first", "next", "free"]);
    assert_eq!(lines.with(|seen| (seen.refused, seen.dropped)), (1, 0));
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_full_disk_refuses_with_the_reason_and_work_resumes_when_there_is_space() {
    let disk = SimDisk::new(1);
    let (handle, lines) = open_sim(&disk).unwrap();
    disk.set_capacity(Some(disk.used()));
    let piece = "x".repeat(5000);
    let mut held = 0;
    let error = loop {
        match within(handle.propose(text(&piece))).await {
            Ok(_) => held += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(error, ProposeError::Refused(Refusal::DiskFull(_))),
        "{error}"
    );
    assert!(error.to_string().contains("no space left"), "{error}");
    assert_eq!(lines.texts().len(), held);
    assert!(handle.status().borrow().ready, "reads go on");
    disk.set_capacity(None);
    assert!(within(handle.propose(text("more"))).await.is_ok());
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_write_without_space_is_repeated_and_answered_in_the_end() {
    let disk = SimDisk::new(1);
    let (handle, lines) = open_sim(&disk).unwrap();
    disk.fail_at(disk.operations() + 1, DiskErrorKind::Full);
    assert!(within(handle.propose(text("patient"))).await.is_ok());
    until(&handle, |status| status.disk_full.is_none()).await;
    assert_eq!(lines.texts(), ["patient"]);
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_failed_sync_ends_the_member_and_nothing_more_is_acknowledged() {
    let disk = SimDisk::new(1);
    let (handle, lines) = open_sim(&disk).unwrap();
    within(handle.propose(text("safe"))).await.unwrap();
    disk.fail_at(disk.operations() + 2, DiskErrorKind::Other);
    assert_eq!(
        within(handle.propose(text("lost"))).await,
        Err(ProposeError::Stopped)
    );
    until(&handle, |status| status.stopped.is_some()).await;
    let stopped = within(handle.stop()).await;
    assert!(
        matches!(&stopped, Stopped::Failed(why) if why.contains("sync")),
        "{stopped:?}"
    );
    assert_eq!(lines.texts(), ["safe"]);
    assert_eq!(
        within(handle.propose(text("later"))).await,
        Err(ProposeError::Stopped)
    );
    disk.crash(Loss::Power);
    let (handle, lines) = open_sim(&disk).unwrap();
    assert_eq!(lines.texts().first().map(String::as_str), Some("safe"));
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_power_cut_at_any_moment_keeps_what_was_acknowledged() {
    for seed in 0..60 {
        let disk = SimDisk::new(seed);
        let (handle, _) = open_sim(&disk).unwrap();
        disk.cut_power_at(disk.operations() + 1 + seed * 4);
        let mut acknowledged = Vec::new();
        for n in 0.. {
            let line = format!("{n}");
            if within(handle.propose(text(&line))).await.is_err() {
                break;
            }
            acknowledged.push(line);
        }
        within(handle.stop()).await;
        disk.crash(Loss::Power);
        let (handle, lines) = open_sim(&disk).unwrap();
        assert!(lines.texts().starts_with(&acknowledged), "seed {seed}");
        within(handle.stop()).await;
    }
}

#[tokio::test]
async fn the_queue_is_bounded_by_bytes() {
    let disk = SimDisk::new(1);
    let (handle, _) = open_sim(&disk).unwrap();
    let permits = Arc::clone(&handle.proposals).acquire_many_owned(QUEUE_PROPOSALS_MAX as u32);
    let all = within(permits).await.unwrap();
    assert_eq!(
        handle.submit(text("x"), 0).map(drop),
        Err(ProposeError::Busy)
    );
    drop(all);
    assert!(
        within(handle.submit(text("x"), 0).unwrap().wait())
            .await
            .is_ok()
    );
    within(handle.stop()).await;
}

#[tokio::test]
async fn a_torn_end_and_damage_in_the_middle_are_told_apart_on_real_files() {
    let dir = tempfile::tempdir().unwrap();
    let (handle, _, _) = open(dir.path());
    for n in 0..5 {
        within(handle.propose(text(&format!("{n}")))).await.unwrap();
    }
    within(handle.stop()).await;
    let raft = dir.path().join("raft");
    let mut disk = RealDisk::new(&raft);
    let name = disk
        .list()
        .unwrap()
        .into_iter()
        .rfind(|name| name.ends_with(".seg"))
        .unwrap();
    let path = raft.join(&name);
    let whole = std::fs::read(&path).unwrap();
    let end = whole.iter().rposition(|byte| *byte != 0).unwrap();

    let mut torn = whole.clone();
    torn[end - 10..].fill(0);
    std::fs::write(&path, torn).unwrap();
    let (handle, recovery, lines) = open(dir.path());
    assert_eq!(recovery.truncated.map(|torn| torn.file), Some(name.clone()));
    assert_eq!(lines.texts(), ["0", "1", "2", "3", "4"]);
    within(handle.stop()).await;

    let mut damaged = whole;
    damaged[400] ^= 1;
    std::fs::write(&path, damaged).unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    let error = start(state, &keeper(), options(), Lines::default(), NoPeers).unwrap_err();
    let message = swarm_rt::chain(&error).to_string();
    assert!(
        message.contains(&name) && message.contains("offset"),
        "{message}"
    );
}
