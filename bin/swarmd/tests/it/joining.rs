//! Workers and managers that find each other late, and tasks that a worker refuses.

use swarm_api::v1;
use swarm_ca::token::JoinToken;

use crate::cluster::{Cluster, Directory, free_ports, name_of, start, until};
use crate::specs;

#[tokio::test]
async fn a_worker_waits_for_its_manager_and_joins_when_it_appears() {
    let mut cluster = Cluster::start(0).await;
    let (address, token) = (cluster.address().to_owned(), cluster.tokens().await.worker);
    cluster.manager.kill();
    let directory = cluster.directory();
    let arguments = directory.worker("worker", &address, &token);
    let mut worker = start("worker", directory, &arguments);
    until("the worker says what it tries", async || {
        let log = worker.log();
        if log.contains(&address) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert!(worker.exited().is_none(), "{}", worker.log());
    cluster.manager.start_again();
    worker.ready().await;
    assert!(!worker.log().contains(&token), "the token is in the log");
    cluster.workers.push(worker);
    cluster.finish().await;
}

#[tokio::test]
async fn a_worker_that_waits_can_be_stopped() {
    let directory = Directory::new();
    let address = format!("127.0.0.1:{}", free_ports(1));
    let token = JoinToken::generate(b"root", [1; 16]).to_string();
    let arguments = directory.worker("worker", &address, &token);
    let mut worker = start("worker", &directory, &arguments);
    until("the worker tries", async || {
        let log = worker.log();
        log.contains(&address).then_some(()).ok_or(log)
    })
    .await;
    assert!(worker.stop().await.success(), "{}", worker.log());
}

#[tokio::test]
async fn an_image_that_no_node_can_run_waits_and_says_so() {
    let cluster = Cluster::start(1).await;
    let mut spec = specs::idle(&cluster, "image", 1);
    specs::container(&mut spec).image = "nginx:1".to_owned();
    cluster.create(spec).await;
    let error = until("the task says why it waits", async || {
        let tasks = cluster.tasks().await.map_err(|status| status.to_string())?;
        let statuses = tasks.iter().filter(|task| name_of(task) == "image");
        let waiting = statuses
            .filter_map(|task| task.status.as_ref())
            .find(|status| status.state() == v1::TaskState::Pending && !status.err.is_empty());
        waiting
            .map(|status| status.err.clone())
            .ok_or_else(|| format!("{tasks:?}"))
    })
    .await;
    assert!(error.contains("image cannot be run on 1 node"), "{error}");
    cluster.finish().await;
}
