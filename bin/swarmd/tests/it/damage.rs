//! A log whose end was torn is repaired with a warning; damage in the middle is a refusal.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::cluster::{Cluster, until};
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
