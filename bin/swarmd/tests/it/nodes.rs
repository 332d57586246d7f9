//! Drain, pause and activate.

use std::collections::BTreeMap;

use swarm_api::v1::node_spec::Availability;

use crate::cluster::{Cluster, Running, until};
use crate::specs;

/// Tasks per host name.
async fn spread(
    cluster: &Cluster,
    tasks: impl IntoIterator<Item = Running>,
) -> BTreeMap<String, usize> {
    let nodes = cluster.nodes().await.unwrap();
    let mut counts = BTreeMap::new();
    for task in tasks {
        let (name, _) = nodes.iter().find(|(_, node)| node.id == task.node).unwrap();
        *counts.entry(name.clone()).or_default() += 1;
    }
    counts
}

fn counts(expected: &[(&str, usize)]) -> BTreeMap<String, usize> {
    expected
        .iter()
        .map(|&(name, count)| (name.to_owned(), count))
        .collect()
}

#[tokio::test]
async fn a_drained_node_is_emptied_and_a_paused_one_gets_nothing_new() {
    let cluster = Cluster::start(2).await;
    let id = cluster.create(specs::idle(&cluster, "idle", 4)).await;
    let tasks = cluster.converged("idle", 4).await;
    assert_eq!(
        spread(&cluster, tasks).await,
        counts(&[("worker-1", 2), ("worker-2", 2)])
    );

    cluster
        .set_availability("worker-1", Availability::Drain)
        .await;
    until("worker-1 is empty", async || {
        let tasks = cluster.converged("idle", 4).await;
        let spread = spread(&cluster, tasks).await;
        if spread == counts(&[("worker-2", 4)]) {
            Ok(())
        } else {
            Err(format!("{spread:?}"))
        }
    })
    .await;

    // Nothing moves back by itself; what is new goes to the empty node.
    cluster
        .set_availability("worker-1", Availability::Active)
        .await;
    cluster.scale(&id, 6).await;
    let tasks = cluster.converged("idle", 6).await;
    assert_eq!(
        spread(&cluster, tasks).await,
        counts(&[("worker-1", 2), ("worker-2", 4)])
    );

    cluster
        .set_availability("worker-1", Availability::Pause)
        .await;
    cluster.scale(&id, 7).await;
    let tasks = cluster.converged("idle", 7).await;
    assert_eq!(
        spread(&cluster, tasks).await,
        counts(&[("worker-1", 2), ("worker-2", 5)])
    );
    cluster.finish().await;
}
