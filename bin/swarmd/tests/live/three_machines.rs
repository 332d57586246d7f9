//! Three machines of our own, each with an address, become a cluster by token.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_api::v1;
use v1::node_status::State;

use crate::lab::Lab;
use crate::machine::{Machine, Running};
use crate::manager::{Manager, SWARMD};
use crate::wait::{stays, until};

const MANAGER: u8 = 1;
/// Longer than the three heartbeats after which a node counts as lost.
const CUT: Duration = Duration::from_secs(6);

/// Joins a machine with the command of the README.
async fn join(lab: &Lab, machine: &Machine, manager: &Manager) -> Running {
    let directory = lab.path(machine.name());
    let state = directory.join("state");
    let token = manager.worker_token().await;
    let words = [
        SWARMD,
        "--state-dir",
        state.to_str().unwrap(),
        "--hostname",
        machine.name(),
        "--join-addr",
        manager.remote(),
        "--join-token",
        &token,
    ];
    let worker = machine.spawn(&directory.join("swarmd.log"), &words, &[]);
    manager.node(machine.name(), State::Ready).await;
    worker
}

fn service(replicas: u64) -> v1::ServiceSpec {
    let mut spec = crate::specs::replicas(crate::specs::idle("idle"), replicas);
    let container = crate::specs::container(&mut spec);
    container.image = "host".to_owned();
    container.command = ["sleep", "10000"].map(str::to_owned).to_vec();
    spec
}

fn nodes(tasks: &[v1::Task]) -> BTreeSet<&str> {
    tasks.iter().map(|task| task.node_id.as_str()).collect()
}

#[tokio::test]
async fn three_machines_form_a_cluster_and_survive_a_cut_cable_and_a_killed_worker() {
    let Some(lab) = Lab::start().await else {
        return;
    };
    let machine = lab.machine("m", MANAGER).await;
    let manager = Manager::start(&lab, &machine, MANAGER).await;
    manager.beat_every(1).await;
    let (first, second) = (lab.machine("w1", 2).await, lab.machine("w2", 3).await);
    let _first = join(&lab, &first, &manager).await;
    let mut killed = join(&lab, &second, &manager).await;
    let node = manager.node("w1", State::Ready).await;
    assert_eq!(node.status.clone().unwrap().addr, "10.77.0.2");
    let service = manager.create(service(4)).await;
    let running = manager.running(&service, 4).await;
    assert_eq!(nodes(&running).len(), 2);

    // A cable that is cut costs the machine its tasks, and one that is mended brings it back.
    lab.cut(2).await;
    manager.node("w1", State::Down).await;
    let moved = manager.running(&service, 4).await;
    assert!(!nodes(&moved).contains(node.id.as_str()));
    lab.mend(2).await;
    let back = manager.node("w1", State::Ready).await;
    assert_eq!(back.id, node.id, "it is the same node");
    until("what was moved away has stopped there", async || {
        let left = first
            .run(&["busybox", "pgrep", "-f", "sleep 1000[0]"])
            .await;
        match left {
            Err(_) => Ok(()),
            Ok(pids) => Err(pids),
        }
    })
    .await;

    // A killed worker's tasks run on, and a new process of it takes them up.
    let before = running_on(&manager, &service).await;
    killed.kill().await;
    let _killed = join(&lab, &second, &manager).await;
    stays(CUT, "tasks of a killed agent", async || {
        let after = running_on(&manager, &service).await;
        if after == before {
            Ok(())
        } else {
            Err(format!("{before:?} became {after:?}"))
        }
    })
    .await;
    drop(lab);
}

async fn running_on(manager: &Manager, service: &str) -> BTreeSet<(String, String)> {
    let tasks = manager.running(service, 4).await;
    tasks
        .into_iter()
        .map(|task| (task.id, task.node_id))
        .collect()
}
