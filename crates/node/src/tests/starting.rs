//! A whole node, started and stopped.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_executor::Executor;
use swarm_manager::LogConfig;
use swarm_rt::Shutdown;

use swarm_rt::metrics::Metrics;

use crate::{Config, Join, Locking, Node, NodeError};

fn executor(directory: &Path) -> Arc<dyn Executor> {
    use swarm_executor_native::{NativeConfig, NativeExecutor};
    let config = NativeConfig::new(directory.join("native"));
    Arc::new(NativeExecutor::new(config).unwrap())
}

fn config(directory: &Path) -> Config {
    let mut log = LogConfig::default();
    log.member.segment_bytes = 1 << 20;
    Config {
        state_dir: directory.join("state"),
        hostname: None,
        join: Join::default(),
        listen_remote: "127.0.0.1:0".to_owned(),
        advertise_remote: None,
        control_socket: directory.join("control.sock"),
        availability: v1::node_spec::Availability::Drain,
        external_cas: Vec::new(),
        locking: Locking::default(),
        log,
        metrics: Metrics::new(),
        plugins_dir: directory.join("plugins"),
        waiting_nodes_max: swarm_manager::WAITING_NODES_MAX,
    }
}

#[tokio::test]
async fn a_node_that_failed_to_start_can_be_started_when_the_reason_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let config = config(directory.path());
    let executor = executor(directory.path());
    std::fs::create_dir(&config.state_dir).unwrap();
    let database = config.state_dir.join("tasks.db");
    std::fs::create_dir(&database).unwrap();
    let refused = Node::start(config.clone(), Arc::clone(&executor), Shutdown::new()).await;
    assert!(matches!(refused, Err(NodeError::Agent(_))), "{refused:?}");

    std::fs::remove_dir(&database).unwrap();
    let node = Node::start(config, executor, Shutdown::new())
        .await
        .unwrap();
    let ready = tokio::time::timeout(Duration::from_secs(20), node.ready());
    ready.await.expect("it is ready before the deadline");
    assert!(!node.shutdown().has_begun());
    node.stop().await.unwrap();
}
