//! Garbage on every socket: the manager answers or hangs up, and serves the next one.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_api::v1;
use swarm_rt::OsIds;
use swarm_rt::net::{self, Address};
use swarm_rt::tls::{self, Security, ServerName};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tonic::Code;

use crate::cluster::{Cluster, DEADLINE};
use crate::specs;

/// What an HTTP/2 client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Words of eight random bytes.
const RANDOM_WORDS: usize = 12_500;
/// Idle connections that are held open at once.
const IDLE_CONNECTIONS: usize = 64;
/// How long the manager may take to answer or hang up; it need not do either.
const ANSWER_WAIT: Duration = Duration::from_millis(300);

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// A connection to each of the two sockets.
async fn connect(cluster: &Cluster) -> Vec<Box<dyn Socket>> {
    let tcp = TcpStream::connect(cluster.address()).await.unwrap();
    let unix = UnixStream::connect(cluster.socket()).await.unwrap();
    vec![Box::new(tcp), Box::new(unix)]
}

fn garbage() -> BTreeMap<&'static str, Vec<u8>> {
    let mut ids = OsIds::new();
    let random = std::iter::repeat_with(|| ids.next_u64().to_le_bytes());
    let random: Vec<u8> = random.take(RANDOM_WORDS).flatten().collect();
    let after_preface = |bytes: &[u8]| [PREFACE, bytes].concat();
    BTreeMap::from([
        ("nothing", Vec::new()),
        ("one byte", vec![0]),
        ("HTTP/1", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
        (
            "half a request",
            b"POST /docker.swarmkit.v1.Control/ListNodes HTT".to_vec(),
        ),
        (
            "TLS",
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        ),
        ("half a preface", PREFACE[..10].to_vec()),
        ("a preface alone", PREFACE.to_vec()),
        (
            "a frame too large",
            after_preface(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"),
        ),
        (
            "headers of nonsense",
            after_preface(b"\0\0\x04\x01\x05\0\0\0\x01\xff\xff\xff\xff"),
        ),
        ("random bytes", random.clone()),
        ("random frames", after_preface(&random)),
    ])
}

#[tokio::test]
async fn garbage_on_a_socket_harms_nobody() {
    let cluster = Cluster::start(0).await;
    for (what, bytes) in garbage() {
        for mut socket in connect(&cluster).await {
            // The manager may hang up before it has read everything.
            let _ = socket.write_all(&bytes).await;
            let mut answer = Vec::new();
            let _ = tokio::time::timeout(ANSWER_WAIT, socket.read_to_end(&mut answer)).await;
        }
        let nodes = cluster.nodes().await;
        assert!(nodes.is_ok(), "after {what}: {nodes:?}");
    }
    let log = cluster.manager.log();
    assert!(!log.contains("panicked"), "{log}");
    cluster.finish().await;
}

#[tokio::test]
async fn idle_connections_keep_nobody_waiting() {
    let cluster = Cluster::start(1).await;
    let mut held = Vec::new();
    for _ in 0..IDLE_CONNECTIONS {
        held.extend(connect(&cluster).await);
    }
    cluster.create(specs::idle(&cluster, "idle", 1)).await;
    cluster.converged("idle", 1).await;
    // A stop waits a little for connections to end by themselves.
    drop(held);
    cluster.finish().await;
}

#[tokio::test]
async fn messages_that_are_too_large_are_refused_by_size() {
    let cluster = Cluster::start(0).await;
    let mut spec = specs::idle(&cluster, "large", 1);
    specs::container(&mut spec).env = vec![format!("A={}", "x".repeat(5 << 20))];
    let refused = cluster.try_create(spec.clone()).await.unwrap_err();
    // The transport's own limit: it must not be read into memory first.
    assert!(
        matches!(refused.code(), Code::OutOfRange | Code::ResourceExhausted),
        "{refused:?}"
    );
    // Within the transport's limit, beyond that of a spec.
    specs::container(&mut spec).env = vec![format!("A={}", "x".repeat(1 << 20))];
    let refused = cluster.try_create(spec.clone()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(refused.message().contains("bytes"), "{refused:?}");
    // Within both.
    specs::container(&mut spec).env = vec![format!("A={}", "x".repeat(400 << 10))];
    spec.mode = specs::idle(&cluster, "large", 0).mode;
    cluster.create(spec).await;
    cluster.finish().await;
}

#[tokio::test]
async fn numbers_that_no_enum_has_are_refused_with_their_field() {
    let cluster = Cluster::start(0).await;
    let plain = specs::idle(&cluster, "enums", 1);
    let mut condition = plain.clone();
    let task = condition.task.as_mut().unwrap();
    task.restart.as_mut().unwrap().condition = 99;
    let mut order = plain.clone();
    order.update = Some(v1::UpdateConfig {
        order: 7,
        ..Default::default()
    });
    let mut port = plain.clone();
    port.endpoint = Some(v1::EndpointSpec {
        ports: vec![v1::PortConfig {
            protocol: 42,
            target_port: 80,
            ..Default::default()
        }],
        ..Default::default()
    });
    for (spec, number) in [(condition, "99"), (order, "7"), (port, "42")] {
        let refused = cluster.try_create(spec).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(refused.message().contains(number), "{refused:?}");
    }
    let node = cluster.nodes().await.unwrap().remove("manager").unwrap();
    let mut spec = node.spec.unwrap();
    spec.availability = 17;
    let request = v1::UpdateNodeRequest {
        node_id: node.id,
        node_version: node.meta.and_then(|meta| meta.version),
        spec: Some(spec),
    };
    let refused = cluster.client().update_node(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    assert!(
        cluster.services().await.unwrap().is_empty(),
        "nothing was half accepted"
    );
    cluster.finish().await;
}

#[tokio::test]
async fn requests_without_an_implementation_say_their_name() {
    let cluster = Cluster::start(0).await;
    let mut client = cluster.client();
    let network = client
        .list_networks(v1::ListNetworksRequest::default())
        .await
        .unwrap_err();
    let volume = client
        .remove_volume(v1::RemoveVolumeRequest::default())
        .await
        .unwrap_err();
    for (status, name) in [(network, "ListNetworks"), (volume, "RemoveVolume")] {
        assert_eq!(status.code(), Code::Unimplemented, "{status:?}");
        assert!(status.message().contains(name), "{status:?}");
    }
    cluster.finish().await;
}

#[tokio::test]
async fn callers_who_are_nobody_get_no_session() {
    let cluster = Cluster::start(0).await;
    let root = cluster.object().await.root_ca.unwrap().ca_cert;
    let root = String::from_utf8(root.to_vec()).unwrap();
    let security = Security::Verified(root, ServerName::Manager);
    let remote = tls::dial(cluster.address(), &security).unwrap();
    let mut dispatcher = v1::dispatcher_client::DispatcherClient::new(remote.clone());
    let call = dispatcher.session(v1::SessionRequest::default());
    let refused = tokio::time::timeout(DEADLINE, call)
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    // The control API is not for strangers either.
    let mut control = v1::control_client::ControlClient::new(remote);
    let call = control.list_nodes(v1::ListNodesRequest::default());
    let refused = tokio::time::timeout(DEADLINE, call)
        .await
        .unwrap()
        .unwrap_err();
    let expected = [Code::PermissionDenied, Code::Unimplemented];
    assert!(expected.contains(&refused.code()), "{refused:?}");
    // Who speaks no TLS gets no answer at all.
    let plain = net::dial(&Address::Tcp(cluster.address().to_owned())).unwrap();
    let mut dispatcher = v1::dispatcher_client::DispatcherClient::new(plain);
    let call = dispatcher.session(v1::SessionRequest::default());
    let refused = tokio::time::timeout(DEADLINE, call)
        .await
        .unwrap()
        .unwrap_err();
    assert_ne!(refused.code(), Code::PermissionDenied, "{refused:?}");
    cluster.finish().await;
}
