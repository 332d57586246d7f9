//! Certificates of real daemons: joining, renewal, rotation of the root, expiry.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use swarm_api::{ext, v1};
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::key::{KeyPem, PrivateKey};
use swarm_ca::keyfile::KeyFile;
use swarm_ca::token::JoinToken;
use swarm_ca::{csr, identity, root};
use swarm_rt::Clock;
use swarm_rt::net::{self, Address};
use swarm_types::Timestamp;

use crate::cluster::{Cluster, until};
use crate::daemon::{Daemon, SWARMD};
use crate::specs;

const MINUTE: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn certificate(state: &Path) -> String {
    std::fs::read_to_string(state.join("certificates/swarm-node.crt")).unwrap()
}

/// Puts a certificate with its key where a daemon that is not running finds it.
fn replace_certificate(state: &Path, chain: &str, key: &KeyPem) {
    let file = KeyFile::new(PrivateKey::from_pem(key).unwrap(), 0);
    let directory = state.join("certificates");
    std::fs::write(directory.join("swarm-node.crt"), chain).unwrap();
    let text = file.write(None).unwrap();
    std::fs::write(directory.join("swarm-node.key"), text.as_bytes()).unwrap();
}

/// Gives the cluster a root whose key the test has, and waits until every node uses it.
async fn own_root(cluster: &Cluster) -> Signer {
    // Old enough for certificates that have expired.
    let past = Clock::new().now().saturating_sub(30 * DAY);
    let (cert_pem, key_pem) = root::new_root(past);
    let (cert, key) = (cert_pem.clone(), key_pem.as_bytes().to_vec());
    cluster
        .change(|spec| {
            let ca = spec.ca_config.get_or_insert_default();
            ca.signing_ca_cert = cert.into_bytes().into();
            ca.signing_ca_key = key.into();
        })
        .await;
    until("the root is the new one", async || {
        let root = cluster.object().await.root_ca.unwrap();
        let is_new = root.ca_cert == cert_pem.as_bytes();
        is_new.then_some(()).ok_or_else(|| format!("{root:?}"))
    })
    .await;
    Signer::new(&cert_pem, &key_pem, "").unwrap()
}

/// A certificate for the node of a state directory with an exact validity.
fn forge(signer: &Signer, state: &Path, validity: (Timestamp, Timestamp)) -> (String, KeyPem) {
    let own = identity::read_pem(certificate(state).as_bytes()).unwrap();
    let key = csr::new_key();
    let spki = PrivateKey::from_pem(&key).unwrap().spki_der().to_vec();
    let subject = Subject {
        node: own.node,
        cluster: own.cluster,
        role: v1::NodeRole::Worker,
    };
    let chain = signer.sign_spki(&spki, &subject, validity, [5; 20]);
    (chain.unwrap(), key)
}

async fn says(daemon: &Daemon, words: &str) {
    until(&format!("it says {words}"), async || {
        let log = daemon.log();
        log.contains(words).then_some(()).ok_or(log)
    })
    .await;
}

#[tokio::test]
async fn tokens_that_do_not_fit_end_the_daemon_with_the_reason() {
    let cluster = Cluster::start(0).await;
    let tokens = cluster.tokens().await;
    let root = cluster.object().await.root_ca.unwrap().ca_cert;
    let wrong_secret = JoinToken::generate(&root, [7; 16]).to_string();
    let other_cluster = JoinToken::generate(b"another root", [7; 16]).to_string();
    for (token, words) in [
        (wrong_secret, "join token"),
        (other_cluster, "remote CA does not match fingerprint"),
        ("SWMTKN-1-x".to_owned(), "invalid join token"),
        (tokens.manager, "a second manager cannot run yet"),
    ] {
        let arguments = cluster.directory().worker("w", cluster.address(), &token);
        let mut daemon = crate::cluster::start("w", cluster.directory(), &arguments);
        let status = daemon.end().await;
        let log = daemon.log();
        assert_eq!(status.code(), Some(1), "{log}");
        assert!(log.contains(words), "{log}");
        assert!(
            !log.contains(token.rsplit('-').next().unwrap()) || token.len() < 60,
            "{log}"
        );
        assert!(
            !cluster
                .state("w")
                .join("certificates/swarm-node.key")
                .exists()
        );
    }
    let names = cluster.nodes().await.unwrap();
    assert_eq!(names.len(), 1, "no node was half made: {names:?}");
    cluster.finish().await;
}

#[tokio::test]
async fn a_worker_comes_back_by_its_directory_alone() {
    let mut cluster = Cluster::start(1).await;
    let before = cluster.nodes().await.unwrap()["worker-1"].id.clone();
    assert!(cluster.workers[0].stop().await.success());
    let arguments = cluster.directory().known_worker("worker-1");
    cluster.workers[0] = crate::cluster::start("worker-1", cluster.directory(), &arguments);
    cluster.workers[0].ready().await;
    let nodes = cluster.nodes().await.unwrap();
    assert_eq!(nodes["worker-1"].id, before);
    assert_eq!(nodes.len(), 2);
    cluster.finish().await;
}

#[tokio::test]
async fn the_root_is_rotated_under_running_tasks_and_certificates_are_renewed_by_plan() {
    let mut cluster = Cluster::start(2).await;
    cluster.create(specs::idle(&cluster, "idle", 4)).await;
    let tasks = cluster.converged("idle", 4).await;
    let before = [
        certificate(&cluster.state("manager")),
        certificate(&cluster.state("worker-1")),
    ];
    let tokens = cluster.tokens().await;

    let signer = own_root(&cluster).await;
    let after = [
        certificate(&cluster.state("manager")),
        certificate(&cluster.state("worker-1")),
    ];
    assert!(before[0] != after[0] && before[1] != after[1]);
    assert_ne!(cluster.tokens().await.worker, tokens.worker);
    assert_eq!(
        cluster.converged("idle", 4).await,
        tasks,
        "no task was touched"
    );
    says(&cluster.workers[0], "installed a new root").await;

    // A certificate whose time of renewal is a few seconds after the start of the daemon.
    cluster.workers[0].kill();
    let state = cluster.state("worker-1");
    let start = Clock::new().now().saturating_sub(2 * MINUTE);
    let start = start.saturating_add(Duration::from_secs(8));
    let forged = forge(&signer, &state, (start, start.saturating_add(4 * MINUTE)));
    replace_certificate(&state, &forged.0, &forged.1);
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    says(&cluster.workers[0], "renewed the certificate").await;
    assert_ne!(certificate(&state), forged.0);
    // Nothing that was open was closed for it.
    let log = cluster.workers[0].log();
    assert_eq!(log.matches("session opened").count(), 1, "{log}");
    assert!(!log.contains("no session"), "{log}");
    assert_eq!(
        cluster.converged("idle", 4).await,
        tasks,
        "no task was touched"
    );
    cluster.finish().await;
}

#[tokio::test]
async fn a_worker_that_was_off_past_expiry_comes_back_with_a_token_for_it() {
    let mut cluster = Cluster::start(1).await;
    cluster.beat_fast().await;
    let signer = own_root(&cluster).await;
    says(&cluster.workers[0], "installed a new root").await;
    let id = cluster.nodes().await.unwrap()["worker-1"].id.clone();
    cluster.workers[0].kill();
    let state = cluster.state("worker-1");
    let now = Clock::new().now();
    let expired = (now.saturating_sub(10 * DAY), now.saturating_sub(DAY));
    let (chain, key) = forge(&signer, &state, expired);
    replace_certificate(&state, &chain, &key);
    cluster.workers[0].start_again();
    let status = cluster.workers[0].end().await;
    let log = cluster.workers[0].log();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(
        log.contains(&format!("swarmctl node readmit {id}")),
        "{log}"
    );

    let socket = net::dial(&Address::Unix(cluster.socket())).unwrap();
    let client = ext::identity_client::IdentityClient::new(socket);
    // There is no token for a node that renews by itself; it has to be missed first.
    let token = until("a token for the node", async || {
        let request = ext::CreateJoinTokenRequest {
            node_id: id.clone(),
            ..Default::default()
        };
        let made = client.clone().create_join_token(request).await;
        let made = made.map_err(|status| status.to_string())?;
        Ok(made.into_inner().token)
    })
    .await;
    let directory = cluster.directory();
    let arguments = directory.worker("worker-1", cluster.address(), &token);
    let mut worker = crate::cluster::start("worker-1", directory, &arguments);
    worker.ready().await;
    assert_eq!(
        worker.log().matches("readmitted").count(),
        1,
        "{}",
        worker.log()
    );
    cluster.workers[0] = worker;
    let nodes = cluster.nodes().await.unwrap();
    assert_eq!(nodes["worker-1"].id, id);
    assert_eq!(nodes.len(), 2, "no node was made: {nodes:?}");
    cluster.finish().await;
}

/// The nodes that a rotation under way waits for; an error when there is none.
async fn waited_for(cluster: &Cluster) -> Result<Vec<ext::NodeToRotate>, String> {
    let socket = net::dial(&Address::Unix(cluster.socket())).unwrap();
    let mut client = ext::identity_client::IdentityClient::new(socket);
    let status = client.ca_status(ext::CaStatusRequest {}).await;
    let status = status.map_err(|status| status.to_string())?.into_inner();
    let rotation = status.rotation.ok_or("there is no rotation")?;
    Ok(rotation.nodes)
}

async fn rotate(cluster: &Cluster) {
    cluster
        .change(|spec| spec.ca_config.get_or_insert_default().force_rotate += 1)
        .await;
}

/// Waits for the end of a rotation; the root's digest.
async fn rotated(cluster: &Cluster) -> String {
    until("the rotation is over", async || {
        let root = cluster.object().await.root_ca.unwrap();
        let is_over = root.root_rotation.is_none();
        is_over
            .then_some(root.ca_cert_hash)
            .ok_or_else(|| "it rotates".to_owned())
    })
    .await
}

#[tokio::test]
async fn a_rotation_waits_for_the_node_that_is_down_and_ends_when_it_is_back() {
    let mut cluster = Cluster::start(0).await;
    cluster.beat_fast().await;
    cluster.add_workers(2).await;
    let first = rotated(&cluster).await;
    let lost = cluster.nodes().await.unwrap()["worker-2"].id.clone();
    let old = certificate(&cluster.state("worker-2"));
    cluster.workers[1].kill();
    until("the worker is down", async || {
        let nodes = cluster.nodes().await.map_err(|status| status.to_string())?;
        let state = nodes["worker-2"].status.clone().unwrap().state();
        let is_down = state == v1::node_status::State::Down;
        is_down.then_some(()).ok_or_else(|| format!("{state:?}"))
    })
    .await;

    rotate(&cluster).await;
    let last = until("it is the last one", async || {
        let mut nodes = waited_for(&cluster).await?;
        let last = nodes.pop().ok_or("everybody is rotated")?;
        let is_last = nodes.is_empty();
        is_last.then_some(last).ok_or_else(|| format!("{nodes:?}"))
    })
    .await;
    assert_eq!((&last.node_id, &*last.hostname), (&lost, "worker-2"));
    assert!(
        !last.reason.is_empty() && !last.next_step.is_empty(),
        "{last:?}"
    );

    cluster.workers[1].start_again();
    cluster.workers[1].ready().await;
    let second = rotated(&cluster).await;
    assert_ne!(first, second);
    let renewed = certificate(&cluster.state("worker-2"));
    assert_ne!(old, renewed);

    // And once more, with the roots of the first one behind everybody.
    rotate(&cluster).await;
    let third = rotated(&cluster).await;
    assert!(third != second && third != first);
    assert_ne!(renewed, certificate(&cluster.state("worker-2")));
    let token = JoinToken::parse(&cluster.tokens().await.worker).unwrap();
    assert_eq!(token.root_digest().to_string(), third);
    assert_eq!(cluster.nodes().await.unwrap().len(), 3);
    cluster.finish().await;
}

fn check(address: &str, token: &str, format: &str) -> Output {
    Command::new(SWARMD)
        .args([
            "join",
            "--check",
            "--join-addr",
            address,
            "--join-token",
            token,
        ])
        .args(["--format", format])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[tokio::test]
async fn a_join_can_be_checked_without_joining() {
    let cluster = Cluster::start(0).await;
    let tokens = cluster.tokens().await;
    let good = check(cluster.address(), &tokens.worker, "text");
    let text = String::from_utf8(good.stdout).unwrap();
    assert!(good.status.success(), "{text}");
    assert!(
        !text.contains("failed") && !text.contains("untested"),
        "{text}"
    );

    let bad = check(cluster.address(), &tokens.manager, "json");
    assert_eq!(bad.status.code(), Some(1));
    let json = String::from_utf8(bad.stdout).unwrap();
    assert!(json.contains(r#""ok": false"#), "{json}");
    let errors = String::from_utf8(bad.stderr).unwrap();
    assert!(errors.contains("token failed"), "{errors}");
    assert_eq!(cluster.nodes().await.unwrap().len(), 1);
    cluster.finish().await;
}
