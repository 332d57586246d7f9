//! A stock engine that has renewed its certificate comes back, whatever happens to its manager.
//!
//! Such an engine names no protocol in its handshakes any more, until its process is restarted.

use std::time::Duration;

use swarm_api::v1;
use v1::node_status::State;

use crate::engine::Engine;
use crate::lab::Lab;
use crate::machine::Machine;
use crate::manager::Manager;
use crate::specs::{idle, replicas};
use crate::wait::{until, until_in};

const MANAGER: u8 = 1;
const ENGINE: u8 = 2;
const ENGINE_NAME: &str = "e";
/// A rotation waits for a renewal of every node, and nodes are asked in rounds.
const ROTATION_MAX: Duration = Duration::from_secs(90);

#[tokio::test]
async fn an_engine_that_has_renewed_its_certificate_comes_back() {
    let Some(lab) = Lab::start().await else {
        return;
    };
    let manager_machine = lab.machine("m", MANAGER).await;
    let engine_machine = lab.machine(ENGINE_NAME, ENGINE).await;
    let mut manager = Manager::start(&lab, &manager_machine, MANAGER).await;
    manager.beat_every(1).await;
    let mut engine = Engine::start(&lab, &engine_machine).await;
    let token = manager.worker_token().await;
    let words = ["swarm", "join", "--token", &token, manager.remote()];
    engine.docker(&words).await.unwrap();
    let joined = manager.node(ENGINE_NAME, State::Ready).await;
    let service = manager.create(replicas(idle("lasting"), 1)).await;
    manager.running(&service, 1).await;
    let first = engine.containers().await;

    // The first one has the engine renew and dial anew, the second has it renew from there.
    for _ in 0..2 {
        rotate_root(&manager).await;
        manager.node(ENGINE_NAME, State::Ready).await;
    }
    manager.scale(&service, 2).await;
    manager.running(&service, 2).await;

    restart(&mut manager, &manager_machine).await;
    manager.scale(&service, 3).await;
    manager.running(&service, 3).await;
    rotate_root(&manager).await;
    restart(&mut manager, &manager_machine).await;
    manager.scale(&service, 4).await;
    manager.running(&service, 4).await;

    let node = manager.node(ENGINE_NAME, State::Ready).await;
    assert_eq!(node.id, joined.id);
    let last = engine.containers().await;
    assert!(
        first.iter().all(|it| last.contains(it)),
        "{first:?} {last:?}"
    );
    let log = manager.log();
    assert!(!log.contains("no_http2"), "{log}");
    engine.check().unwrap();
}

/// kill -9, and a start with the state that is there.
async fn restart(manager: &mut Manager, machine: &Machine) {
    manager.kill().await;
    manager.start_again(machine).await;
}

/// Gives the cluster a new root, which every node has to have a certificate under.
async fn rotate_root(manager: &Manager) {
    let old = until("the rotation begins", async || {
        let cluster = manager.cluster().await?;
        let old = cluster.root_ca.unwrap_or_default().ca_cert;
        let mut spec = cluster.spec.unwrap();
        spec.ca_config.get_or_insert_default().force_rotate += 1;
        let request = v1::UpdateClusterRequest {
            cluster_id: cluster.id,
            cluster_version: cluster.meta.and_then(|meta| meta.version),
            spec: Some(spec),
            ..Default::default()
        };
        let updated = manager.control().update_cluster(request).await;
        updated.map(|_| old).map_err(|status| status.to_string())
    })
    .await;
    until_in(ROTATION_MAX, "the rotation is over", async || {
        let root = manager.cluster().await?.root_ca.unwrap_or_default();
        if root.root_rotation.is_none() && root.ca_cert != old {
            Ok(())
        } else {
            let nodes = manager.nodes().await.map_err(|it| it.to_string())?;
            let states = nodes.iter().map(|it| (&it.certificate, &it.status));
            Err(format!("{:?}", states.collect::<Vec<_>>()))
        }
    })
    .await;
}
