//! A cluster whose certificates the example authority signs, over real connections.

use std::path::Path;
use std::time::Duration;

use signing_server::{Authority, ClientRule, Options, Server};
use swarm_api::{ext, v1};
use swarm_ca::certificate::Certificate;
use swarm_rt::net::{self, Address};

use crate::cluster::{Cluster, Directory, free_ports, start, until};
use crate::specs;

const EXPIRY: Duration = Duration::from_secs(24 * 3600);

/// The authority's directory, beside those of the nodes.
fn place(directory: &Path) -> std::path::PathBuf {
    directory.join("authority")
}

fn load(directory: &Path) -> Authority {
    Authority::load(&place(directory), EXPIRY).unwrap()
}

fn serve(directory: &Path, port: u16, rule: ClientRule, trusted_pem: Vec<String>) -> Server {
    let options = Options {
        listen: format!("127.0.0.1:{port}"),
        names: vec!["localhost".to_owned()],
        rule,
        trusted_pem,
    };
    Server::start(load(directory), options).unwrap()
}

fn url(port: u16) -> String {
    format!("https://localhost:{port}/sign")
}

fn rule(cluster: &str, cross_sign: bool) -> ClientRule {
    ClientRule {
        cluster: cluster.to_owned(),
        cross_sign,
    }
}

/// Whether the certificate of a node was signed by a root directly.
fn is_signed_by(cluster: &Cluster, name: &str, root_pem: &str) -> bool {
    let path = cluster.state(name).join("certificates/swarm-node.crt");
    let chain = std::fs::read(path).unwrap();
    let leaf = &Certificate::all_from_pem(&chain).unwrap()[0];
    let root = &Certificate::all_from_pem(root_pem.as_bytes()).unwrap()[0];
    leaf.check_signed_by(root).is_ok()
}

async fn why(cluster: &Cluster, node: &str) -> String {
    let channel = net::dial(&Address::Unix(cluster.socket())).unwrap();
    let mut client = ext::explain_client::ExplainClient::new(channel);
    let request = ext::WhyRequest {
        object: node.to_owned(),
        ..Default::default()
    };
    format!("{:?}", client.why(request).await.unwrap().into_inner())
}

async fn rotated(cluster: &Cluster, is_new: impl Fn(&[u8]) -> bool) {
    until("the root is another one", async || {
        let root = cluster.object().await.root_ca.unwrap();
        let is_done = root.root_rotation.is_none() && is_new(&root.ca_cert);
        is_done.then_some(()).ok_or_else(|| format!("{root:?}"))
    })
    .await;
}

#[tokio::test]
async fn an_authority_signs_for_a_cluster_that_never_has_its_key() {
    let directory = Directory::new();
    Authority::create(&place(directory.path())).unwrap();
    let authority = load(directory.path());
    let first = authority.first_manager(&place(directory.path())).unwrap();
    let state = directory.path().join("manager");
    std::fs::create_dir(&state).unwrap();
    let made = place(directory.path()).join("certificates");
    std::fs::rename(made, state.join("certificates")).unwrap();
    let port = free_ports(1);
    let server = serve(
        directory.path(),
        port,
        rule(&first.cluster, false),
        Vec::new(),
    );
    let external = format!("protocol=cfssl,url={}", url(port));
    let mut cluster = Cluster::start_manager_with(directory, &["--external-ca", &external]).await;
    assert_eq!(cluster.object().await.id, first.cluster);
    assert!(!state.join("certificates/swarm-root-ca.key").exists());

    cluster.add_workers(1).await;
    assert!(is_signed_by(&cluster, "worker-1", authority.root_pem()));
    assert_eq!(server.signed(), 1);

    // Nobody signs: the reason is in the node's state, in `why`, and at the node itself.
    drop(server);
    let token = cluster.tokens().await.worker;
    let words = cluster
        .directory()
        .worker("late", cluster.address(), &token);
    let mut late = start("late", cluster.directory(), &words);
    let id = until("the reason is told", async || {
        let nodes = cluster.nodes().await.map_err(|status| status.to_string())?;
        let waiting = nodes.values().find_map(|node| {
            let status = node.certificate.as_ref()?.status.as_ref()?;
            let is_told = status.err.contains(&format!("localhost:{port}"));
            is_told.then(|| node.id.clone())
        });
        waiting.ok_or_else(|| format!("{nodes:?}"))
    })
    .await;
    let told = why(&cluster, &id).await;
    assert!(
        told.contains("waits for its certificate to be signed"),
        "{told}"
    );
    assert!(told.contains("swarmctl cluster ca status"), "{told}");
    assert!(late.exited().is_none(), "{}", late.log());
    let server = serve(cluster.path(), port, rule(&first.cluster, true), Vec::new());
    late.ready().await;
    cluster.workers.push(late);
    assert!(is_signed_by(&cluster, "late", authority.root_pem()));

    // Away from the authority: it signs the new root, under which tasks go on.
    cluster.create(specs::idle(&cluster, "idle", 2)).await;
    let tasks = cluster.converged("idle", 2).await;
    cluster
        .change(|spec| spec.ca_config.get_or_insert_default().force_rotate += 1)
        .await;
    rotated(&cluster, |pem| pem != authority.root_pem().as_bytes()).await;
    assert_eq!(cluster.converged("idle", 2).await, tasks);
    drop(server);
    let root = cluster.object().await.root_ca.unwrap().ca_cert;
    let root = String::from_utf8(root.to_vec()).unwrap();
    for name in ["manager", "worker-1", "late"] {
        assert!(is_signed_by(&cluster, name, &root), "{name}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn a_cluster_is_rotated_to_an_authority_whose_key_it_never_gets() {
    let mut cluster = Cluster::start(1).await;
    Authority::create(&place(cluster.path())).unwrap();
    let authority = load(cluster.path());
    let object = cluster.object().await;
    let old_root = object.root_ca.unwrap().ca_cert;
    let old_root = String::from_utf8(old_root.to_vec()).unwrap();
    let port = free_ports(1);
    let cert = authority.root_pem().to_owned();
    let change = |spec: &mut v1::ClusterSpec| {
        let config = spec.ca_config.get_or_insert_default();
        config.external_cas = vec![v1::ExternalCa {
            url: url(port),
            ca_cert: cert.clone().into_bytes().into(),
            ..Default::default()
        }];
        config.signing_ca_cert = cert.clone().into_bytes().into();
    };
    // A rotation to an authority that is not there is refused, and says which one.
    let refused = cluster.try_change(change).await.unwrap_err();
    assert!(refused.message().contains("localhost"), "{refused}");

    // It serves the managers of another cluster: this one's are refused.
    let server = serve(
        cluster.path(),
        port,
        rule("another", false),
        vec![old_root.clone()],
    );
    cluster.try_change(change).await.unwrap();
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(
        cluster
            .object()
            .await
            .root_ca
            .unwrap()
            .root_rotation
            .is_some()
    );
    assert_eq!(server.signed(), 0);
    drop(server);
    let server = serve(
        cluster.path(),
        port,
        rule(&object.id, false),
        vec![old_root],
    );
    rotated(&cluster, |pem| pem == authority.root_pem().as_bytes()).await;
    assert!(server.signed() >= 2, "{}", server.signed());
    for name in ["manager", "worker-1"] {
        assert!(is_signed_by(&cluster, name, authority.root_pem()), "{name}");
    }
    // The token is for the new root, and a node that joins with it is signed for there.
    let before = server.signed();
    let token = cluster.tokens().await.worker;
    cluster.add_worker("worker-2", &token);
    let worker = cluster.workers.last_mut().expect("one was added above");
    worker.ready().await;
    assert!(is_signed_by(&cluster, "worker-2", authority.root_pem()));
    assert_eq!(server.signed(), before + 1);
    cluster.finish().await;
}
