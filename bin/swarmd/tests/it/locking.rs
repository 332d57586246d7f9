//! Managers that are locked: what they start with, what a change of the key leaves at each moment,
//! and that nothing readable is on the disk.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use swarm_api::v1;
use swarm_ca::keyfile::Kek;
use swarm_ca::unlock;
use swarm_rt::OsIds;
use swarm_rt::net::{self, Address};
use v1::ca_client::CaClient;

use crate::cluster::{Cluster, Directory, start, until};
use crate::daemon::{Daemon, SWARMD};
use crate::specs;

/// The exit code of a manager that is locked.
const LOCKED: i32 = 3;
/// Kills in the middle of changes of the key.
const KILLS: usize = 9;
/// The latest moment of a kill after a change was acknowledged, in microseconds.
const KILL_MICROS_MAX: u64 = 60_000;
const REFUSAL: &str = "node is locked, and needs a valid unlock key";

/// The unlock key in the form that people copy; `None` when managers are not locked.
async fn key(cluster: &Cluster) -> Option<String> {
    let socket = Address::Unix(cluster.socket());
    let mut client = CaClient::new(net::dial(&socket).unwrap());
    let answer = client.get_unlock_key(v1::GetUnlockKeyRequest {}).await;
    let bytes = answer.unwrap().into_inner().unlock_key;
    (!bytes.is_empty()).then(|| unlock::human(&Kek::new(bytes.to_vec())).to_string())
}

/// Updates the cluster; the key that counts from then on.
async fn lock(cluster: &Cluster, autolock: bool, is_rotated: bool) -> Option<String> {
    let object = cluster.object().await;
    let mut spec = object.spec.unwrap();
    spec.encryption_config = Some(v1::EncryptionConfig {
        auto_lock_managers: autolock,
    });
    let request = v1::UpdateClusterRequest {
        cluster_id: object.id,
        cluster_version: object.meta.and_then(|meta| meta.version),
        spec: Some(spec),
        rotation: Some(v1::KeyRotation {
            manager_unlock_key: is_rotated,
            ..Default::default()
        }),
    };
    cluster.client().update_cluster(request).await.unwrap();
    key(cluster).await
}

/// The arguments of the manager, with its key in a file.
fn arguments(cluster: &Cluster, key: Option<&str>) -> Vec<String> {
    let mut words = cluster.directory().manager(cluster.address());
    if let Some(key) = key {
        let file = cluster.path().join("unlock.key");
        std::fs::write(&file, format!("{key}\n")).unwrap();
        words.push("--unlock-key-file".to_owned());
        words.push(file.to_str().unwrap().to_owned());
    }
    words
}

fn restart(cluster: &Cluster, key: Option<&str>) -> Daemon {
    start("manager", cluster.directory(), &arguments(cluster, key))
}

/// Starts the manager, which must refuse, and leave its state alone.
async fn refused(cluster: &Cluster, key: Option<&str>) {
    let before = files(&cluster.state("manager"));
    let mut manager = restart(cluster, key);
    let status = manager.end().await;
    let log = manager.log();
    assert_eq!(status.code(), Some(LOCKED), "{log}");
    assert!(
        log.contains(REFUSAL) && log.contains("swarm-node.key"),
        "{log}"
    );
    assert!(!log.contains("SWMKEY"), "{log}");
    assert_eq!(files(&cluster.state("manager")), before);
}

/// All files that hold the manager's state, with their content.
fn files(state: &Path) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for directory in ["certificates", "manager/raft"] {
        for entry in std::fs::read_dir(state.join(directory)).unwrap() {
            let path = entry.unwrap().path();
            all.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
    all.sort();
    all
}

fn key_file(cluster: &Cluster) -> String {
    let path = cluster.state("manager").join("certificates/swarm-node.key");
    std::fs::read_to_string(path).unwrap()
}

/// Waits until the key file is as the cluster wants it and no change of the log's key is left.
async fn settled(cluster: &Cluster, is_locked: bool) {
    until("the key file is settled", async || {
        let text = key_file(cluster);
        let is_settled = text.contains("ENCRYPTED") == is_locked
            && !text.contains("raft-dek-pending")
            && !text.contains("raft-dek-needs-rotation");
        is_settled.then_some(()).ok_or(text)
    })
    .await;
}

async fn stop(cluster: &mut Cluster) {
    assert!(cluster.manager.stop().await.success());
}

#[tokio::test]
async fn a_cluster_that_is_founded_locked_shows_its_key_once_and_starts_with_nothing_else() {
    let directory = Directory::new();
    let mut cluster = Cluster::start_manager_with(directory, &["--autolock"]).await;
    let key = key(&cluster).await.expect("managers are locked");
    let log = cluster.manager.log();
    assert_eq!(log.matches(&key).count(), 1, "{log}");
    assert!(log.contains("swarmctl cluster unlock-key"), "{log}");
    settled(&cluster, true).await;
    let service = cluster.create(specs::idle(&cluster, "idle", 0)).await;
    stop(&mut cluster).await;

    refused(&cluster, None).await;
    refused(&cluster, Some(&unlock::human(&Kek::new(vec![7; 32])))).await;
    cluster.manager = restart(&cluster, Some(&key));
    cluster.manager.ready().await;
    assert!(cluster.services().await.unwrap().contains(&service));
    assert!(!cluster.manager.log().contains(&key), "said once");
    cluster.finish().await;
}

#[tokio::test]
async fn locking_replaces_what_was_in_the_clear_and_opening_needs_no_key_any_more() {
    let mut cluster = Cluster::start(0).await;
    settled(&cluster, false).await;
    let open = key_file(&cluster);
    let certificate = cluster.state("manager").join("certificates/swarm-node.crt");
    let before = std::fs::read_to_string(&certificate).unwrap();
    let service = cluster.create(specs::idle(&cluster, "idle", 0)).await;

    let first = lock(&cluster, true, false).await.unwrap();
    settled(&cluster, true).await;
    until("the certificate is another one", async || {
        let now = std::fs::read_to_string(&certificate).unwrap();
        (now != before).then_some(()).ok_or(now)
    })
    .await;
    // The key of the log that was in the clear opens nothing any more.
    stop(&mut cluster).await;
    let state = cluster.state("manager");
    let key_path = state.join("certificates/swarm-node.key");
    let sealed = key_file(&cluster);
    let sealed_certificate = std::fs::read_to_string(&certificate).unwrap();
    std::fs::write(&key_path, &open).unwrap();
    std::fs::write(&certificate, &before).unwrap();
    let mut thief = restart(&cluster, None);
    assert_eq!(thief.end().await.code(), Some(1), "{}", thief.log());
    assert!(
        thief.log().contains("sealed under data key"),
        "{}",
        thief.log()
    );
    std::fs::write(&key_path, &sealed).unwrap();
    std::fs::write(&certificate, &sealed_certificate).unwrap();

    cluster.manager = restart(&cluster, Some(&first));
    cluster.manager.ready().await;
    let second = lock(&cluster, true, true).await.unwrap();
    assert_ne!(first, second);
    until("the file is sealed under the second key", async || {
        let log = cluster.manager.log();
        let is_sealed = log.contains("sealed under the new unlock key");
        is_sealed.then_some(()).ok_or(log)
    })
    .await;
    stop(&mut cluster).await;
    refused(&cluster, Some(&first)).await;
    cluster.manager = restart(&cluster, Some(&second));
    cluster.manager.ready().await;

    assert_eq!(lock(&cluster, false, false).await, None);
    settled(&cluster, false).await;
    stop(&mut cluster).await;
    // A key that is not needed is said to be so.
    cluster.manager = restart(&cluster, Some(&second));
    cluster.manager.ready().await;
    assert!(cluster.manager.log().contains("is not used"));
    stop(&mut cluster).await;
    cluster.manager = restart(&cluster, None);
    cluster.manager.ready().await;
    assert!(cluster.services().await.unwrap().contains(&service));
    cluster.finish().await;
}

/// kill -9 at a moment that is drawn anew, while the key changes, the manager is locked or opened,
/// and while the log gets another data key.
#[tokio::test]
async fn a_manager_that_is_killed_during_a_change_starts_with_the_old_key_or_the_new_one() {
    let mut cluster = Cluster::start(0).await;
    let service = cluster.create(specs::idle(&cluster, "idle", 0)).await;
    let mut draws = OsIds::new();
    let mut old = None;
    let (mut with_old, mut with_new) = (0, 0);
    for round in 0..KILLS {
        let (autolock, is_rotated) = [(true, false), (true, true), (false, false)][round % 3];
        let new = lock(&cluster, autolock, is_rotated).await;
        assert_ne!(new, old, "round {round}");
        let moment = Duration::from_micros(draws.next_u64() % KILL_MICROS_MAX);
        tokio::time::sleep(moment).await;
        cluster.manager.kill();
        cluster.manager = restart(&cluster, new.as_deref());
        let is_ready = until("the manager is ready or locked", async || {
            let log = cluster.manager.log();
            match (log.contains("node is ready"), log.contains(REFUSAL)) {
                (true, _) => Ok(true),
                (_, true) => Ok(false),
                (false, false) => Err(log),
            }
        })
        .await;
        if is_ready {
            with_new += 1;
        } else {
            assert_eq!(cluster.manager.end().await.code(), Some(LOCKED));
            with_old += 1;
            cluster.manager = restart(&cluster, old.as_deref());
        }
        cluster.manager.ready().await;
        assert!(
            cluster.services().await.unwrap().contains(&service),
            "round {round}"
        );
        // What was cut short is finished by the start.
        settled(&cluster, autolock).await;
        assert_eq!(key(&cluster).await, new, "round {round}");
        old = new;
    }
    assert_eq!(with_old + with_new, KILLS);
    cluster.finish().await;
}

#[test]
fn an_unlock_key_that_is_none_is_refused_before_anything_is_made() {
    let directory = Directory::new();
    let file = directory.path().join("key");
    std::fs::write(&file, "SWMKEY-1-tooshort").unwrap();
    let words = directory.manager("127.0.0.1:0");
    let run = |more: &[&str], variable: Option<&str>| {
        let mut command = Command::new(SWARMD);
        command.args(&words).args(more).stdin(Stdio::null());
        if let Some(text) = variable {
            command.env("SWARM_UNLOCK_KEY", text);
        }
        let output = command.output().unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.contains("invalid unlock key"), "{text}");
        assert!(!text.contains("tooshort"), "{text}");
        assert_eq!(output.status.code(), Some(1), "{text}");
    };
    run(&["--unlock-key", "SWMKEY-1-tooshort"], None);
    run(&["--unlock-key-file", file.to_str().unwrap()], None);
    run(&["--unlock-key-file", "-"], None);
    run(&[], Some("SWMKEY-1-tooshort"));
    assert!(!directory.path().join("manager").exists());
}
