use std::sync::mpsc;
use std::time::Duration;

use super::*;
use swarm_api::v1;
use swarm_raft::disk::DiskErrorKind;
use swarm_raft::seal::Keyring;
use swarm_raft::simdisk::{Loss, SimDisk};
use swarm_store::{StoreError, Write};
use swarm_types::{Service, ServiceId, ServiceSpec};

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);
/// Writes that run at the same time.
const CONCURRENT: usize = 200;
/// Operations of a disk that fail in a row.
const FAILURES: u64 = 20;

fn config() -> ReplicatedConfig {
    let mut config = ReplicatedConfig {
        tick: Duration::from_millis(10),
        ..ReplicatedConfig::default()
    };
    config.member.segment_bytes = 256 * 1024;
    config.member.snapshot_interval = 40;
    config.member.entries_for_slow_followers = 5;
    config
}

fn cluster() -> ClusterId {
    "cluster".parse().unwrap()
}

/// A keeper that has the key of every log here.
fn keeper() -> Arc<dyn KeyKeeper> {
    Arc::new(keys::InMemory::with(KeySet::settled(DataKey::new([1; 32]))))
}

async fn open(directory: &Path) -> Result<ReplicatedStore, OpenError> {
    open_with_keys(directory, keeper()).await
}

async fn open_with_keys(
    directory: &Path,
    keeper: Arc<dyn KeyKeeper>,
) -> Result<ReplicatedStore, OpenError> {
    let cluster = cluster();
    within(ReplicatedStore::open(
        directory,
        config(),
        &cluster,
        Clock::new(),
        100,
        keeper,
    ))
    .await
}

async fn open_sim(disk: &SimDisk) -> ReplicatedStore {
    let (disk, cluster) = (disk.clone(), cluster());
    let opened = ReplicatedStore::open_with(
        config(),
        &cluster,
        Clock::new(),
        100,
        keeper(),
        move |options, machine| {
            let keys = Keyring::new(DataKey::new([1; 32]));
            driver::start_on(disk, keys, None, options, machine, NoPeers)
        },
    );
    within(opened).await.unwrap()
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}

fn service(name: &str, bytes: usize) -> Service {
    let annotations = v1::Annotations {
        name: name.to_owned(),
        labels: [("filling".to_owned(), "x".repeat(bytes))].into(),
        ..Default::default()
    };
    let spec = v1::ServiceSpec {
        annotations: Some(annotations),
        ..Default::default()
    };
    Service::new(id(name), ServiceSpec::new(spec))
}

fn id(name: &str) -> ServiceId {
    name.parse().unwrap()
}

fn create(name: &str) -> WriteSet {
    WriteSet(vec![Write::Create(service(name, 0).into())])
}

async fn write(
    store: &ReplicatedStore,
    name: &str,
    bytes: usize,
) -> Result<(), WriteError<StoreError>> {
    let service = service(name, bytes);
    within(store.write(|transaction| transaction.create(service.clone()))).await
}

fn has(store: &ReplicatedStore, name: &str) -> bool {
    store.view().service(&id(name)).is_some()
}

/// What a submission ended in.
async fn outcome(receiver: mpsc::Receiver<Outcome>) -> Outcome {
    let wait = tokio::task::spawn_blocking(move || receiver.recv_timeout(DEADLINE));
    wait.await.unwrap().expect("submissions are answered")
}

fn submit(store: &ReplicatedStore, sets: &[WriteSet]) -> mpsc::Receiver<Outcome> {
    let (sender, receiver) = mpsc::channel();
    store.submit(sets.to_vec(), move |outcome| sender.send(outcome).unwrap());
    receiver
}

#[tokio::test]
async fn a_write_is_visible_when_it_is_acknowledged_and_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut names: Vec<String> = Vec::new();
    for round in 0..4 {
        let store = open(directory.path()).await.unwrap();
        assert!(names.iter().all(|name| has(&store, name)), "round {round}");
        assert_eq!(store.view().count::<Service>(), names.len());
        let before = store.view().version();
        for number in 0..30 {
            let name = format!("s{round}-{number}");
            write(&store, &name, 0).await.unwrap();
            assert!(has(&store, &name), "published before it is acknowledged");
            names.push(name);
        }
        assert!(
            store.view().version() > before,
            "versions go on after a restart"
        );
        within(store.close()).await.unwrap();
        let late = write(&store, "late", 0).await.unwrap_err();
        assert!(matches!(late, WriteError::Stopped), "{late}");
    }
}

#[tokio::test]
async fn writes_that_come_together_build_on_each_other() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk).await;
    write(&store, "shared", 0).await.unwrap();
    let mut writers = tokio::task::JoinSet::new();
    for _ in 0..CONCURRENT {
        let store = store.clone();
        // Each reads what the one before wrote, which need not be durable yet.
        writers.spawn(async move {
            within(store.write(|transaction| {
                let found = transaction.service(&id("shared")).expect("it exists");
                let mut service = (**found).clone();
                let mut spec = v1::ServiceSpec::clone(&service.spec);
                let labels = &mut spec.annotations.get_or_insert_default().labels;
                let count = labels.get("count").map_or(0, |text| text.parse().unwrap());
                labels.insert("count".to_owned(), (count + 1_usize).to_string());
                service.spec = ServiceSpec::new(spec);
                transaction.update(service)
            }))
            .await
        });
    }
    while let Some(written) = writers.join_next().await {
        written.unwrap().unwrap();
    }
    let view = store.view();
    let shared = view.service(&id("shared")).unwrap();
    let labels = &shared.spec.annotations.as_ref().unwrap().labels;
    assert_eq!(labels["count"], CONCURRENT.to_string());
    within(store.close()).await.unwrap();
}

#[tokio::test]
async fn a_refused_transaction_changes_nothing_and_says_why() {
    let store = open_sim(&SimDisk::new(1)).await;
    write(&store, "a", 0).await.unwrap();
    let before = store.view().version();
    let error = write(&store, "a", 0).await.unwrap_err();
    assert!(matches!(error, WriteError::Refused(_)), "{error}");
    let nothing = store.write(|_| Ok::<_, StoreError>(7));
    assert_eq!(within(nothing).await.unwrap(), 7);
    assert_eq!(store.view().version(), before);
    within(store.close()).await.unwrap();
}

#[tokio::test]
async fn submitted_sets_are_written_or_refused_one_by_one() {
    let store = open_sim(&SimDisk::new(1)).await;
    write(&store, "a", 0).await.unwrap();
    let sets = [create("b"), create("a"), create("c")];
    let told = outcome(submit(&store, &sets)).await;
    let version = store.view().version();
    let refused = vec![1];
    assert_eq!(told, Outcome::Committed { version, refused });
    assert!(has(&store, "b") && has(&store, "c"));
    // Nothing to write is answered at once.
    let told = outcome(submit(&store, &[create("a")])).await;
    let refused = vec![0];
    assert_eq!(told, Outcome::Committed { version, refused });
    within(store.close()).await.unwrap();
    let told = outcome(submit(&store, &[create("late")])).await;
    assert_eq!(told, Outcome::Failed);
}

/// Keeps the log's thread waiting until the sender is used or dropped, so that what is written
/// meanwhile meets it all at once.
async fn hold_up(store: &ReplicatedStore) -> mpsc::Sender<()> {
    let (go, wait) = mpsc::channel();
    let (sender, reached) = mpsc::channel();
    store.submit(vec![create("gate")], move |outcome| {
        sender.send(outcome).unwrap();
        // An error means that the test has ended.
        let _: Result<(), mpsc::RecvTimeoutError> = wait.recv_timeout(DEADLINE);
    });
    assert!(matches!(outcome(reached).await, Outcome::Committed { .. }));
    go
}

#[tokio::test]
async fn a_write_that_is_too_large_is_refused_without_those_around_it() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk).await;
    let limit = swarm_raft::consensus::PROPOSAL_BYTES_MAX;
    let go = hold_up(&store).await;
    let (before, large, after, ()) = tokio::join!(
        write(&store, "before", 0),
        write(&store, "large", limit),
        // Built on what is refused: it is done again.
        write(&store, "after", 0),
        async { drop(go) }
    );
    before.unwrap();
    after.unwrap();
    let error = large.unwrap_err();
    assert!(matches!(error, WriteError::TooLarge { .. }), "{error}");
    assert!(error.to_string().contains(&limit.to_string()), "{error}");
    assert!(has(&store, "before") && has(&store, "after") && !has(&store, "large"));
    within(store.close()).await.unwrap();
    let again = open_sim(&disk).await;
    assert!(has(&again, "before") && has(&again, "after") && !has(&again, "large"));
    within(again.close()).await.unwrap();
}

#[tokio::test]
async fn submissions_around_one_that_is_too_large_are_written() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk).await;
    let limit = swarm_raft::consensus::PROPOSAL_BYTES_MAX;
    let go = hold_up(&store).await;
    let before = submit(&store, &[create("before")]);
    let large = submit(
        &store,
        &[WriteSet(vec![Write::Create(
            service("large", limit).into(),
        )])],
    );
    let after = submit(&store, &[create("after")]);
    drop(go);
    assert!(matches!(outcome(before).await, Outcome::Committed { .. }));
    let Outcome::Parted {
        refused, oversize, ..
    } = outcome(large).await
    else {
        panic!("it was written");
    };
    assert_eq!((refused, oversize), (vec![], vec![0]));
    assert!(matches!(outcome(after).await, Outcome::Committed { .. }));
    write(&store, "next", 0).await.unwrap();
    let view = store.view();
    let names: Vec<String> = view
        .all::<Service>()
        .map(|one| one.id.to_string())
        .collect();
    assert_eq!(names, ["after", "before", "gate", "next"]);
    within(store.close()).await.unwrap();
}

#[tokio::test]
async fn sets_that_are_too_many_for_one_entry_are_told_apart() {
    let store = open_sim(&SimDisk::new(1)).await;
    let limit = swarm_store::ENTRY_BYTES_MAX;
    assert_eq!(limit, swarm_raft::consensus::PROPOSAL_BYTES_MAX);
    let set = |name: &str, bytes| WriteSet(vec![Write::Create(service(name, bytes).into())]);
    let third = limit / 3;
    let sets = [
        set("a", third),
        set("b", third),
        set("huge", limit),
        set("c", third),
    ];
    let Outcome::Parted {
        version,
        refused,
        oversize,
    } = outcome(submit(&store, &sets)).await
    else {
        panic!("all of it was written");
    };
    assert_eq!(version, store.view().version());
    assert_eq!((refused, oversize), (vec![3], vec![2]));
    assert!(has(&store, "a") && has(&store, "b") && !has(&store, "c"));
    within(store.close()).await.unwrap();
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_room() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk).await;
    disk.set_capacity(Some(disk.used()));
    let mut stored = Vec::new();
    let error = loop {
        let name = format!("s{}", stored.len());
        match write(&store, &name, 5_000).await {
            Ok(()) => stored.push(name),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::DiskFull), "{error}");
    assert!(stored.iter().all(|name| has(&store, name)), "reads go on");
    assert_eq!(
        outcome(submit(&store, &[create_large()])).await,
        Outcome::Failed
    );
    disk.set_capacity(None);
    write(&store, "late", 5_000).await.unwrap();
    within(store.close()).await.unwrap();
    let again = open_sim(&disk).await;
    assert!(stored.iter().all(|name| has(&again, name)) && has(&again, "late"));
    assert_eq!(again.view().count::<Service>(), stored.len() + 1);
    within(again.close()).await.unwrap();
}

/// Makes the next operations of a disk fail. Several, since the log may be about to write on its
/// own account.
fn fail_next(disk: &SimDisk, kind: DiskErrorKind) {
    let done = disk.operations();
    for operation in done + 1..=done + FAILURES {
        disk.fail_at(operation, kind);
    }
}

fn create_large() -> WriteSet {
    WriteSet(vec![Write::Create(service("large", 5_000).into())])
}

#[tokio::test]
async fn a_write_that_is_stuck_on_a_full_disk_is_told_so() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk).await;
    write(&store, "before", 0).await.unwrap();
    // The log had reserved its room, and the disk has none all the same.
    fail_next(&disk, DiskErrorKind::Full);
    match write(&store, "stuck", 0).await {
        Err(WriteError::Stalled | WriteError::DiskFull) => {}
        other => panic!("{other:?}"),
    }
    // The disk has room again after some attempts.
    let mut status = store.handle.status();
    let free = status.wait_for(|status| status.disk_full.is_none());
    assert!(within(free).await.is_ok());
    write(&store, "after", 0).await.unwrap();
    within(store.close()).await.unwrap();
}

#[tokio::test]
async fn a_failed_log_ends_everything_and_keeps_what_was_acknowledged() {
    let disk = SimDisk::new(1);
    let store = open_sim(&disk).await;
    write(&store, "before", 0).await.unwrap();
    fail_next(&disk, DiskErrorKind::Other);
    let error = write(&store, "lost", 0).await.unwrap_err();
    assert!(matches!(error, WriteError::Stopped), "{error}");
    within(store.leadership_lost()).await;
    let stopped = within(store.leadership_gained()).await.unwrap_err();
    assert!(stopped.to_string().contains("has stopped"), "{stopped}");
    assert!(within(store.close()).await.is_err());
    disk.crash(Loss::Power);
    let again = open_sim(&disk).await;
    assert!(has(&again, "before"));
    within(again.close()).await.unwrap();
}

#[tokio::test]
async fn a_log_of_another_cluster_and_a_directory_in_use_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).await.unwrap();
    let error = open(directory.path()).await.unwrap_err();
    assert!(matches!(error, OpenError::StateDir(_)), "{error}");
    within(store.close()).await.unwrap();
    let other: ClusterId = "other".parse().unwrap();
    let opened = ReplicatedStore::open(
        directory.path(),
        config(),
        &other,
        Clock::new(),
        1,
        keeper(),
    );
    let error = within(opened).await.unwrap_err();
    assert!(matches!(error, OpenError::Start(_)), "{error}");
}

/// A keeper whose n-th save fails, as often as it is asked.
#[derive(Debug)]
struct Failing(keys::InMemory, std::sync::atomic::AtomicUsize);

impl KeyKeeper for Failing {
    fn load(&self) -> Result<Option<KeySet>, KeeperError> {
        self.0.load()
    }

    fn save(&self, keys: &KeySet) -> Result<(), KeeperError> {
        if self.1.fetch_sub(1, std::sync::atomic::Ordering::Relaxed) == 0 {
            return Err("no space".into());
        }
        self.0.save(keys)
    }

    fn place(&self) -> String {
        self.0.place()
    }
}

#[tokio::test]
async fn a_new_data_key_is_kept_before_it_is_used_and_the_old_one_goes_last() {
    for failing in 0..2 {
        let directory = tempfile::tempdir().unwrap();
        let first = DataKey::new([1; 32]);
        let keeper = Arc::new(Failing(
            keys::InMemory::with(KeySet::settled(first.clone())),
            failing.into(),
        ));
        let store = open_with_keys(directory.path(), keeper.clone())
            .await
            .unwrap();
        within(store.leadership_gained()).await.unwrap();
        write(&store, "before", 0).await.unwrap();
        let error = within(store.rotate_data_key()).await.unwrap_err();
        assert!(matches!(error, RekeyError::Keeper(_)), "{error}");
        let kept = keeper.load().unwrap().unwrap();
        assert_eq!(kept.current.id(), first.id());
        assert_eq!(kept.pending.is_some(), failing == 1);
        // As after a kill at this point: whatever the keeper has is enough.
        within(store.close()).await.unwrap();
        let store = open_with_keys(directory.path(), keeper.clone())
            .await
            .unwrap();
        within(store.leadership_gained()).await.unwrap();
        within(store.rotate_data_key()).await.unwrap();
        within(store.close()).await.unwrap();
        let kept = keeper.load().unwrap().unwrap();
        assert!(kept.pending.is_none() && kept.current.id() != first.id());
        let refused = open_with_keys(directory.path(), self::keeper()).await;
        assert!(refused.unwrap_err().to_string().contains("raft state"));
        let store = open_with_keys(directory.path(), keeper).await.unwrap();
        assert!(has(&store, "before"));
        within(store.close()).await.unwrap();
    }
}
