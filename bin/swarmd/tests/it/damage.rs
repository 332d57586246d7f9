//! A log whose end was torn is repaired with a warning; damage in the middle is a refusal.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use swarm_api::v1;

use crate::cluster::{Cluster, Directory, free_ports, start, until};
use crate::specs;

/// Services in the log.
const SERVICES: usize = 20;

/// The newest log segment.
fn segment(cluster: &Cluster) -> PathBuf {
    let directory = cluster.state("manager").join("manager/raft");
    let files = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|end| end == "seg"))
        .max()
        .expect("there is a log")
}

/// Where the zeros at the end begin.
fn end_of(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1)
}

/// A cluster with services, whose manager was killed.
async fn killed_manager() -> (Cluster, BTreeSet<String>) {
    let mut cluster = Cluster::start(0).await;
    let mut services = BTreeSet::new();
    for number in 0..SERVICES {
        let spec = specs::idle(&cluster, &format!("s{number}"), 0);
        services.insert(cluster.create(spec).await);
    }
    cluster.manager.kill();
    (cluster, services)
}

async fn listed(cluster: &Cluster) -> BTreeSet<String> {
    until("the manager lists services", async || {
        cluster
            .services()
            .await
            .map_err(|status| status.to_string())
    })
    .await
}

/// Changes the log of the manager, which must not run.
fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn a_torn_end_is_cut_off_with_a_warning_and_costs_nothing_acknowledged() {
    let (mut cluster, services) = killed_manager().await;
    let log = segment(&cluster);
    // The zeros that were prepared are gone: nothing to warn about.
    change(&log, |bytes| bytes.truncate(end_of(bytes) + 100));
    cluster.manager.start_again();
    assert_eq!(listed(&cluster).await, services);
    let text = cluster.manager.log();
    assert!(!text.contains("torn"), "{text}");
    cluster.manager.kill();

    // Half a record that was under way when the power went.
    let log = segment(&cluster);
    change(&log, |bytes| {
        let end = end_of(bytes).next_multiple_of(8);
        bytes.resize(bytes.len().max(end + 4096), 0);
        bytes[end..end + 200].fill(0xA5);
    });
    cluster.manager.start_again();
    assert_eq!(listed(&cluster).await, services);
    let text = cluster.manager.log();
    assert!(text.contains("torn end") && text.contains(".seg"), "{text}");

    // It writes on, and the cut is not found again.
    let more = cluster.create(specs::idle(&cluster, "more", 0)).await;
    cluster.manager.kill();
    cluster.manager.start_again();
    let after = listed(&cluster).await;
    assert!(after.contains(&more) && after.is_superset(&services));
    let text = cluster.manager.log();
    assert!(!text.contains("torn"), "{text}");
    cluster.finish().await;
}

#[tokio::test]
async fn damage_in_the_middle_is_refused_with_file_and_offset() {
    let (mut cluster, services) = killed_manager().await;
    let log = segment(&cluster);
    let good = fs::read(&log).unwrap();
    let middle = end_of(&good) / 2;
    for damage in [1, 200] {
        change(&log, |bytes| {
            for byte in &mut bytes[middle..middle + damage] {
                *byte ^= 0x55;
            }
        });
        cluster.manager.start_again();
        let status = cluster.manager.end().await;
        let text = cluster.manager.log();
        assert_eq!(status.code(), Some(1), "{text}");
        let name = log.file_name().unwrap().to_str().unwrap();
        assert!(text.contains(name) && text.contains("offset"), "{text}");
        assert!(
            text.contains("restore") && !text.contains("panicked"),
            "{text}"
        );
        fs::write(&log, &good).unwrap();
    }
    // The refusal changed nothing: with the damage undone everything is there.
    cluster.manager.start_again();
    assert_eq!(listed(&cluster).await, services);
    cluster.finish().await;
}

#[tokio::test]
async fn a_newest_segment_that_was_cut_zeroed_or_removed_is_refused_with_its_place() {
    let (mut cluster, services) = killed_manager().await;
    let log = segment(&cluster);
    let good = fs::read(&log).unwrap();
    let middle = end_of(&good) / 2;
    type Damage = fn(&Path, &[u8], usize);
    let damages: [(&str, Damage); 3] = [
        ("cut", |log, good, at| fs::write(log, &good[..at]).unwrap()),
        ("zeroed", |log, good, at| {
            fs::write(log, [&good[..at], &vec![0; good.len() - at]].concat()).unwrap();
        }),
        ("removed", |log, _, _| fs::remove_file(log).unwrap()),
    ];
    for (what, damage) in damages {
        damage(&log, &good, middle);
        cluster.manager.start_again();
        let status = cluster.manager.end().await;
        let text = cluster.manager.log();
        assert_eq!(status.code(), Some(1), "{what}: {text}");
        let name = log.file_name().unwrap().to_str().unwrap();
        for word in [name, "offset", "restore", "join it again"] {
            assert!(text.contains(word), "{what}, {word}: {text}");
        }
        fs::write(&log, &good).unwrap();
    }
    cluster.manager.start_again();
    assert_eq!(listed(&cluster).await, services);
    cluster.finish().await;
}

#[tokio::test]
async fn a_manager_whose_state_directory_is_gone_stops_and_acknowledges_nothing() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("removed", |state| fs::remove_dir_all(state).unwrap()),
        ("renamed", |state| {
            fs::rename(state, state.with_extension("old")).unwrap();
        }),
        ("replaced", |state| {
            fs::rename(state, state.with_extension("old")).unwrap();
            fs::create_dir(state).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let directory = Directory::new();
        let arguments = directory.manager(&format!("127.0.0.1:{}", free_ports(1)));
        let mut manager = start("manager", &directory, &arguments);
        manager.ready().await;
        let write = async |name: &str| {
            let annotations = v1::Annotations {
                name: name.to_owned(),
                ..Default::default()
            };
            let spec = v1::SecretSpec {
                annotations: Some(annotations),
                data: b"data".to_vec().into(),
                ..Default::default()
            };
            let request = v1::CreateSecretRequest { spec: Some(spec) };
            directory.client().create_secret(request).await
        };
        write("kept").await.unwrap();
        damage(&directory.path().join("manager"));
        let written = write("lost").await;
        assert!(written.is_err(), "{what}: {written:?}");
        let status = manager.end().await;
        let text = manager.log();
        assert!(!status.success(), "{what}: {text}");
        assert!(
            text.contains("removed, renamed or replaced"),
            "{what}: {text}"
        );
    }
}

#[tokio::test]
async fn a_state_directory_that_others_can_enter_is_made_private_and_no_link_is_followed() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let mut cluster = Cluster::start(0).await;
    assert!(cluster.manager.stop().await.success());
    let state = cluster.state("manager");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    cluster.manager.start_again();
    cluster.manager.ready().await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    assert_eq!(mode(&state.join("tasks.db")), 0o600);
    assert!(cluster.manager.log().contains("others could enter"));
    assert!(cluster.manager.stop().await.success());

    let precious = cluster.path().join("precious");
    fs::write(&precious, "precious").unwrap();
    for name in ["LOCK", "tasks.db", "manager/LOCK", "manager/raft", "native"] {
        let path = state.join(name);
        let aside = state.with_extension("aside");
        fs::rename(&path, &aside).unwrap();
        symlink(&precious, &path).unwrap();
        cluster.manager.start_again();
        let status = cluster.manager.end().await;
        let text = cluster.manager.log();
        assert_eq!(status.code(), Some(1), "{name}: {text}");
        assert!(text.contains("symbolic link"), "{name}: {text}");
        assert_eq!(fs::read(&precious).unwrap(), b"precious", "{name}");
        fs::remove_file(&path).unwrap();
        fs::rename(&aside, &path).unwrap();
    }
    cluster.manager.start_again();
    cluster.manager.ready().await;
    cluster.finish().await;
}
