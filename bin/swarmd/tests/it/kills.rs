//! kill -9 of tasks, agents, and everything at once.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::cluster::{Cluster, Running, until};
use crate::{processes, specs};

/// The index of the worker with this node id.
async fn worker_of(cluster: &Cluster, node: &str) -> usize {
    let nodes = cluster.nodes().await.unwrap();
    let (name, _) = nodes
        .iter()
        .find(|(_, found)| found.id == node)
        .expect("the node exists");
    let number: usize = name.strip_prefix("worker-").unwrap().parse().unwrap();
    number - 1
}

/// Waits until a task's process is gone and its slot has another one; the new one.
async fn replaced(
    cluster: &Cluster,
    service: &str,
    before: &BTreeSet<Running>,
    slot: u64,
) -> Running {
    let old = before.iter().find(|task| task.slot == slot).unwrap();
    let what = format!("slot {slot} of {service} has a new process");
    until(&what, async || {
        let now = cluster.converged(service, before.len()).await;
        let new = now.into_iter().find(|task| task.slot == slot).unwrap();
        if new.pid != old.pid && new.task != old.task {
            Ok(new)
        } else {
            Err(format!("{new:?}"))
        }
    })
    .await
}

#[tokio::test]
async fn a_killed_task_is_replaced_after_its_delay_and_the_others_run_on() {
    let cluster = Cluster::start(2).await;
    cluster.create(specs::idle(&cluster, "idle", 3)).await;
    let mut before = cluster.converged("idle", 3).await;
    for slot in [1, 2, 3] {
        let victim = before
            .iter()
            .find(|task| task.slot == slot)
            .unwrap()
            .clone();
        let killed = Instant::now();
        processes::kill_hard(victim.pid);
        let new = replaced(&cluster, "idle", &before, slot).await;
        assert!(
            killed.elapsed() >= specs::RESTART_DELAY,
            "not before the delay is over"
        );
        let after = cluster.converged("idle", 3).await;
        let mut expected = before.clone();
        expected.remove(&victim);
        expected.insert(new);
        assert_eq!(after, expected);
        before = after;
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_killed_agent_leaves_its_tasks_alone_and_takes_them_up_again() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(specs::idle(&cluster, "idle", 4)).await;
    let before = cluster.converged("idle", 4).await;
    let victim = before.first().unwrap().clone();
    let index = worker_of(&cluster, &victim.node).await;
    for _ in 0..2 {
        cluster.workers[index].kill();
        assert_eq!(cluster.converged("idle", 4).await, before);
        cluster.workers[index].start_again();
        cluster.workers[index].ready().await;
        let log = cluster.workers[index].log();
        assert!(log.contains("took up the tasks of before"), "{log}");
        assert_eq!(cluster.converged("idle", 4).await, before);
    }
    // The new agent watches over the tasks that it took up.
    processes::kill_hard(victim.pid);
    replaced(&cluster, "idle", &before, victim.slot).await;

    // What ends while nobody looks is noticed afterwards.
    let before = cluster.converged("idle", 4).await;
    let victim = before
        .iter()
        .find(|task| task.node == victim.node)
        .unwrap()
        .clone();
    cluster.workers[index].kill();
    processes::kill_hard(victim.pid);
    cluster.workers[index].start_again();
    replaced(&cluster, "idle", &before, victim.slot).await;
    cluster.finish().await;
}

#[tokio::test]
async fn after_everything_was_killed_each_replica_runs_once_again() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(specs::idle(&cluster, "idle", 4)).await;
    for _ in 0..2 {
        let before = cluster.converged("idle", 4).await;
        cluster.kill_machine();
        assert!(processes::of(cluster.path()).is_empty());
        cluster.manager.start_again();
        for worker in &mut cluster.workers {
            worker.start_again();
        }
        for worker in &mut cluster.workers {
            worker.ready().await;
        }
        let after = cluster.converged("idle", 4).await;
        let pids = |tasks: &BTreeSet<Running>| -> BTreeSet<i32> {
            tasks.iter().map(|task| task.pid).collect()
        };
        assert!(
            pids(&before).is_disjoint(&pids(&after)),
            "{before:?} {after:?}"
        );
    }
    cluster.finish().await;
}

#[tokio::test]
async fn the_tasks_of_an_agent_that_stays_away_are_replaced_and_ended_when_it_is_back() {
    let mut cluster = Cluster::start(0).await;
    cluster.beat_fast().await;
    cluster.add_workers(2).await;
    cluster.create(specs::idle(&cluster, "idle", 2)).await;
    let before = cluster.converged("idle", 2).await;
    let lost = before.first().unwrap().clone();
    let index = worker_of(&cluster, &lost.node).await;
    cluster.workers[index].kill();
    // Both copies run now: nobody can tell a node that is down from one that is cut off.
    until("the lost task has a replacement elsewhere", async || {
        let tasks = cluster.tasks().await.map_err(|status| status.to_string())?;
        let replaced = tasks.iter().any(|task| {
            task.slot == lost.slot
                && task.node_id != lost.node
                && task
                    .status
                    .as_ref()
                    .is_some_and(|status| status.state() == swarm_api::v1::TaskState::Running)
        });
        let states: Vec<String> = tasks.iter().map(crate::cluster::describe).collect();
        if replaced {
            Ok(())
        } else {
            Err(states.join("\n"))
        }
    })
    .await;
    assert!(processes::programs(cluster.path(), "idle").contains(&lost.pid));
    cluster.workers[index].start_again();
    until("the old copy was ended", async || {
        let live = processes::programs(cluster.path(), "idle");
        if live.contains(&lost.pid) {
            Err(format!("{live:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    let after = cluster.converged("idle", 2).await;
    assert!(after.iter().all(|task| task.pid != lost.pid));
    cluster.finish().await;
}
