//! A full disk under the manager: writes are refused with the reason, reads go on, and writes work
//! again when there is room. Under an agent: its tasks run on.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use swarm_api::v1;
use swarm_types::conditions;
use tonic::Code;

use crate::cluster::{Cluster, Directory, until};
use crate::{processes, specs};

/// Size of the manager's disk. Beside the ballast it has room for one log segment of 64 MiB;
/// without it, for three.
const MANAGER_DISK_MIB: usize = 230;
const BALLAST_MIB: usize = 150;
/// Size of the disk of a worker.
const WORKER_DISK_MIB: usize = 16;
/// Size of one service; specs have at most 512 KiB.
const SERVICE_BYTES: usize = 500 << 10;
/// Writes that fill a segment for sure.
const WRITES_MAX: usize = 200;

/// A small file system in memory, taken down when dropped.
struct SmallDisk(tempfile::TempDir);

impl SmallDisk {
    /// `None`, with a word why, where the system does not permit it.
    fn mount(mebibytes: usize) -> Option<Self> {
        let place = tempfile::tempdir().unwrap();
        let output = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
            .arg(place.path())
            .stdin(Stdio::null())
            .output();
        let reason = match output {
            Ok(output) if output.status.success() => return Some(Self(place)),
            Ok(output) => String::from_utf8_lossy(&output.stderr).into_owned(),
            Err(error) => error.to_string(),
        };
        let mut out = std::io::stderr().lock();
        writeln!(
            out,
            "skipped: a small disk cannot be mounted here: {reason}"
        )
        .unwrap();
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(self.path()).status();
        let is_done = status.is_ok_and(|status| status.success());
        assert!(
            is_done || std::thread::panicking(),
            "the small disk is still in use"
        );
    }
}

/// Writes until the disk has no byte left.
fn fill(path: &Path) {
    let mut file = File::create(path).unwrap();
    let block = [1; 4096];
    let full = std::iter::repeat_with(|| file.write_all(&block)).find_map(Result::err);
    let kind = full.map(|error| error.kind());
    assert_eq!(kind, Some(std::io::ErrorKind::StorageFull));
}

/// Tries to store a large service.
async fn store(cluster: &Cluster, name: &str) -> Result<String, tonic::Status> {
    let mut spec = specs::idle(cluster, name, 0);
    specs::container(&mut spec).env = vec![format!("A={}", "x".repeat(SERVICE_BYTES))];
    cluster.try_create(spec).await
}

fn assert_disk_full(refused: &tonic::Status) {
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(refused.message().contains("disk is full"), "{refused:?}");
}

#[tokio::test]
async fn a_full_disk_refuses_writes_and_answers_reads() {
    let Some(disk) = SmallDisk::mount(MANAGER_DISK_MIB) else {
        return;
    };
    let directory = Directory::new();
    std::os::unix::fs::symlink(disk.path(), directory.path().join("manager")).unwrap();
    let mut cluster = Cluster::start_in(directory, 0).await;
    let ballast = disk.path().join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_MIB << 20]).unwrap();

    let mut stored = BTreeSet::new();
    let refused = loop {
        match store(&cluster, &format!("s{}", stored.len())).await {
            Ok(id) => stored.insert(id),
            Err(refused) => break refused,
        };
        assert!(stored.len() < WRITES_MAX, "the disk never got full");
    };
    assert_disk_full(&refused);
    fill(&disk.path().join("last-bytes"));
    assert_disk_full(&store(&cluster, "refused").await.unwrap_err());
    assert!(
        cluster.services().await.unwrap().is_superset(&stored),
        "reads go on"
    );
    assert!(cluster.manager.exited().is_none());

    std::fs::remove_file(&ballast).unwrap();
    let late = until("writes work again", async || {
        store(&cluster, "late")
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    stored.insert(late);
    assert!(cluster.services().await.unwrap().is_superset(&stored));

    // A start needs no room to speak of: what is stored can be read, and no more be written.
    cluster.manager.kill();
    fill(&ballast);
    cluster.manager.start_again();
    cluster.manager.ready().await;
    assert!(
        cluster.services().await.unwrap().is_superset(&stored),
        "nothing was lost"
    );
    assert_disk_full(&store(&cluster, "refused-too").await.unwrap_err());
    std::fs::remove_file(&ballast).unwrap();
    let last = until("writes work again", async || {
        store(&cluster, "last")
            .await
            .map_err(|status| status.to_string())
    })
    .await;
    assert!(cluster.services().await.unwrap().contains(&last));
    cluster.finish().await;
}

#[tokio::test]
async fn an_agent_with_a_full_disk_keeps_its_tasks_and_catches_up_when_there_is_room() {
    let Some(disk) = SmallDisk::mount(WORKER_DISK_MIB) else {
        return;
    };
    let directory = Directory::new();
    std::os::unix::fs::symlink(disk.path(), directory.path().join("worker-1")).unwrap();
    let mut cluster = Cluster::start_in(directory, 1).await;
    let id = cluster.create(specs::idle(&cluster, "idle", 2)).await;
    let before = cluster.converged("idle", 2).await;
    let ballast = disk.path().join("ballast");
    fill(&ballast);

    cluster.scale(&id, 5).await;
    until("the agent says that its disk is full", async || {
        let log = cluster.workers[0].log();
        if log.contains("free space") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    until("tasks that cannot be recorded are given back", async || {
        let tasks = cluster.tasks().await.map_err(|status| status.to_string())?;
        let mut statuses = tasks.iter().filter_map(|task| task.status.as_ref());
        let is_given_back = |status: &v1::TaskStatus| {
            status.state() == v1::TaskState::Rejected
                && status.err.contains("the node cannot record the task")
        };
        let found = statuses.any(is_given_back).then_some(());
        found.ok_or_else(|| format!("{tasks:?}"))
    })
    .await;
    until("the node says that its disk is in trouble", async || {
        let nodes = cluster.nodes().await.map_err(|status| status.to_string())?;
        let mut descriptions = nodes.values().filter_map(|node| node.description.as_ref());
        let found = descriptions.any(|it| conditions::has(it, conditions::Kind::Disk));
        found.then_some(()).ok_or_else(|| format!("{nodes:?}"))
    })
    .await;
    let victim = before.first().unwrap();
    processes::kill_hard(victim.pid);
    assert!(cluster.workers[0].exited().is_none());
    let others: BTreeSet<i32> = before.iter().skip(1).map(|task| task.pid).collect();
    let live = processes::programs(cluster.path(), "idle");
    assert!(live.is_superset(&others), "{live:?}");

    std::fs::remove_file(&ballast).unwrap();
    let after = cluster.converged("idle", 5).await;
    assert!(!after.contains(victim));
    assert!(
        before.iter().skip(1).all(|task| after.contains(task)),
        "{after:?}"
    );
    cluster.finish().await;
}
