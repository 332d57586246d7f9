//! kill -9 of the manager: nothing that it acknowledged is lost, and nobody sees half of it.

use std::collections::BTreeSet;
use std::time::Duration;

use swarm_rt::OsIds;

use crate::cluster::{Cluster, until};
use crate::{processes, specs};

/// How often the manager is killed in the middle of writes.
const ROUNDS: usize = 6;
/// Writes before a kill at most; the number is drawn anew for every round.
const WRITES_MAX: u64 = 25;
/// Latest moment of a kill after that, in microseconds; drawn as well.
const KILL_MICROS_MAX: u64 = 20_000;

#[tokio::test]
async fn acknowledged_writes_survive_and_reads_are_never_partial() {
    let mut cluster = Cluster::start(0).await;
    let mut draws = OsIds::new();
    let mut acknowledged = BTreeSet::new();
    for round in 0..ROUNDS {
        let writes = draws.next_u64() % WRITES_MAX;
        for number in 0..writes {
            let spec = specs::idle(&cluster, &format!("s{round}-{number}"), 0);
            acknowledged.insert(cluster.create(spec).await);
        }
        // More are under way while the manager dies; whether the last one counts is open.
        let pid = cluster.manager.pid();
        let kill = async {
            let moment = Duration::from_micros(draws.next_u64() % KILL_MICROS_MAX);
            tokio::time::sleep(moment).await;
            processes::kill_hard(pid);
        };
        let mut meanwhile = Vec::new();
        let write_on = async {
            for number in 0.. {
                let spec = specs::idle(&cluster, &format!("s{round}-more-{number}"), 0);
                match cluster.try_create(spec).await {
                    Ok(id) => meanwhile.push(id),
                    Err(_) => break,
                }
            }
        };
        tokio::join!(kill, write_on);
        acknowledged.extend(meanwhile);
        cluster.manager.end().await;
        cluster.manager.start_again();
        // The first answer of all counts: earlier attempts get errors, not lists.
        let seen = until("the manager lists services", async || {
            cluster
                .services()
                .await
                .map_err(|status| status.to_string())
        })
        .await;
        let lost: Vec<&String> = acknowledged.difference(&seen).collect();
        assert!(
            lost.is_empty(),
            "lost in round {round}: {lost:?}, seen {}",
            seen.len()
        );
        assert!(
            seen.len() <= acknowledged.len() + round + 1,
            "nothing was made up"
        );
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_deployment_goes_on_and_running_tasks_are_left_alone() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(specs::idle(&cluster, "idle", 6)).await;
    // During convergence: killed once for every number of tasks that runs already.
    for wanted in 0..4 {
        until("some tasks run", async || {
            let tasks = cluster.tasks().await.map_err(|status| status.to_string())?;
            let running = tasks.iter().filter(|task| {
                let status = task.status.as_ref();
                status.is_some_and(|s| s.state() == swarm_api::v1::TaskState::Running)
            });
            let count = running.count();
            if count >= wanted {
                Ok(())
            } else {
                Err(format!("{count} run"))
            }
        })
        .await;
        cluster.manager.kill();
        cluster.manager.start_again();
    }
    let before = cluster.converged("idle", 6).await;
    // After convergence: nobody moves.
    for _ in 0..2 {
        cluster.manager.kill();
        assert_eq!(
            processes::programs(cluster.path(), "idle").len(),
            6,
            "tasks do not need the manager"
        );
        cluster.manager.start_again();
        cluster.manager.ready().await;
        assert_eq!(cluster.converged("idle", 6).await, before);
    }
    // And the manager still manages: both agents have sessions again.
    processes::kill_hard(before.first().unwrap().pid);
    until("the killed task was replaced", async || {
        let after = cluster.converged("idle", 6).await;
        if after == before {
            Err(format!("{after:?}"))
        } else {
            Ok(())
        }
    })
    .await;
    cluster.finish().await;
}
