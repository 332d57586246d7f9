//! Nodes that were removed, that leave, or whose state directory is gone.

use std::fs;
use std::path::Path;
use std::process::Command;

use swarm_api::v1;

use crate::cluster::{Cluster, until};
use crate::daemon::SWARMD;
use crate::{processes, specs};

/// The exit code of a daemon whose node was removed.
const REMOVED: i32 = 4;

async fn remove(cluster: &Cluster, name: &str) -> String {
    let nodes = cluster.nodes().await.unwrap();
    let id = nodes[name].id.clone();
    remove_node(cluster, &id).await;
    id
}

async fn remove_node(cluster: &Cluster, id: &str) {
    let request = v1::RemoveNodeRequest {
        node_id: id.to_owned(),
        force: true,
    };
    cluster.client().remove_node(request).await.unwrap();
}

/// Runs `swarmd leave`; its code and what it says.
fn leave(state: &Path, more: &[&str]) -> (i32, String) {
    let output = Command::new(SWARMD)
        .args(["leave", "--state-dir"])
        .arg(state)
        .args(more)
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    (output.status.code().unwrap(), text)
}

async fn no_programs(cluster: &Cluster, what: &str) {
    until(what, async || {
        let left = processes::programs(cluster.path(), "idle");
        left.is_empty()
            .then_some(())
            .ok_or_else(|| format!("{left:?}"))
    })
    .await;
}

#[tokio::test]
async fn a_removed_node_ends_its_tasks_and_says_how_to_come_back() {
    let mut cluster = Cluster::start(1).await;
    cluster.create(specs::idle(&cluster, "idle", 2)).await;
    cluster.converged("idle", 2).await;
    let id = remove(&cluster, "worker-1").await;
    let state = cluster.state("worker-1");
    for start in 1..=2 {
        let status = cluster.workers[0].end().await;
        let log = cluster.workers[0].log();
        assert_eq!(status.code(), Some(REMOVED), "{log}");
        assert!(log.contains(&format!("node {id} was removed")), "{log}");
        let command = format!("swarmd leave --state-dir {}", state.display());
        assert!(log.contains(&command), "{log}");
        no_programs(&cluster, "its tasks have ended").await;
        // Later it learns from the refusal, with the same token as well.
        if start == 1 {
            cluster.workers[0].start_again();
        }
    }
    let (code, text) = leave(&state, &[]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains(&id) && !state.exists(), "{text}");
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    cluster.converged("idle", 2).await;
    assert_ne!(cluster.nodes().await.unwrap()["worker-1"].id, id);
    cluster.finish().await;
}

#[tokio::test]
async fn a_node_that_was_off_when_it_was_removed_ends_its_tasks_when_it_is_back() {
    let mut cluster = Cluster::start(1).await;
    cluster.create(specs::idle(&cluster, "idle", 1)).await;
    cluster.converged("idle", 1).await;
    cluster.workers[0].kill();
    remove(&cluster, "worker-1").await;
    assert!(!processes::programs(cluster.path(), "idle").is_empty());
    cluster.workers[0].start_again();
    let status = cluster.workers[0].end().await;
    assert_eq!(status.code(), Some(REMOVED), "{}", cluster.workers[0].log());
    no_programs(&cluster, "its task has ended").await;
    leave(&cluster.state("worker-1"), &[]);
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    cluster.finish().await;
}

#[tokio::test]
async fn tasks_of_a_wiped_directory_end_before_others_come() {
    let mut cluster = Cluster::start(1).await;
    cluster.create(specs::idle(&cluster, "idle", 2)).await;
    cluster.converged("idle", 2).await;
    let old = cluster.nodes().await.unwrap()["worker-1"].id.clone();
    cluster.workers[0].kill();
    fs::remove_dir_all(cluster.state("worker-1")).unwrap();
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    let log = cluster.workers[0].log();
    assert!(log.contains("stopping 2 tasks"), "{log}");
    no_programs(&cluster, "its tasks have ended").await;
    remove_node(&cluster, &old).await;
    cluster.finish().await;
}

#[tokio::test]
async fn a_damaged_task_database_is_set_aside_and_the_tasks_run_on() {
    let mut cluster = Cluster::start(1).await;
    cluster.create(specs::idle(&cluster, "idle", 2)).await;
    let before = cluster.converged("idle", 2).await;
    let state = cluster.state("worker-1");
    for (number, damage) in ["nothing that was ever a database", ""].iter().enumerate() {
        cluster.workers[0].kill();
        fs::write(state.join("tasks.db"), damage).unwrap();
        cluster.workers[0].start_again();
        cluster.workers[0].ready().await;
        let log = cluster.workers[0].log();
        let name = format!("tasks.db.damaged-{}", number + 1);
        assert!(log.contains(&name), "{log}");
        assert_eq!(fs::read_to_string(state.join(name)).unwrap(), *damage);
        until("the tasks are taken up", async || {
            let log = cluster.workers[0].log();
            log.contains("took up the tasks that were found")
                .then_some(())
                .ok_or(log)
        })
        .await;
        assert_eq!(cluster.converged("idle", 2).await, before);
    }
    cluster.finish().await;
}

#[tokio::test]
async fn leaving_is_refused_while_a_daemon_runs_and_keeps_tasks_if_asked() {
    let mut cluster = Cluster::start(1).await;
    cluster.create(specs::idle(&cluster, "idle", 1)).await;
    cluster.converged("idle", 1).await;
    let state = cluster.state("worker-1");
    let (code, text) = leave(&state, &[]);
    assert_eq!(code, 1, "{text}");
    assert!(text.contains("in use"), "{text}");
    let (code, text) = leave(&cluster.state("manager"), &["--force"]);
    assert_eq!(code, 1, "{text}");
    assert!(cluster.workers[0].stop().await.success());
    let (code, text) = leave(&state, &["--tasks", "keep"]);
    assert_eq!(code, 0, "{text}");
    assert!(text.contains("native-kept-1"), "{text}");
    assert_eq!(processes::programs(cluster.path(), "idle").len(), 1);
    remove(&cluster, "worker-1").await;
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    assert!(
        !cluster.workers[0].log().contains("stopping"),
        "they are kept"
    );
    cluster.workers[0].kill();
    let (code, text) = leave(&state, &[]);
    assert_eq!(code, 0, "{text}");
    no_programs(&cluster, "all of its tasks have ended").await;
    assert!(!state.exists(), "{text}");
    remove(&cluster, "worker-1").await;
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    cluster.finish().await;
}
