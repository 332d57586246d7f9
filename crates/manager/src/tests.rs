//! A whole manager in this process, called as nodes and clients call it.

mod bad_input;
mod capture;
mod figures;
mod logs;
mod oversize;
mod refusals;
mod secure;
mod sessions;
mod slow;
mod world;

use std::path::Path;

use tonic::transport::Channel;
use tonic::{Code, Request, Streaming};
use v1::control_client::ControlClient;
use v1::dispatcher_client::DispatcherClient;
use v1::health_client::HealthClient;

use self::world::{CLUSTER, MANAGER, WORKER, authority};
use super::*;
use swarm_raft_io::keys::{DataKey, InMemory, KeySet};
use swarm_rt::tls::{self, Security, ServerName};

/// Nodes that are in the cluster of [`start`].
const NODES: [&str; 4] = ["worker", "other", "n1", "n2"];

/// Nodes that may wait for their first session: more than any test has but the one about it.
const WAITING: usize = 12;

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}

pub(crate) fn config(directory: &Path) -> Config {
    let mut log = LogConfig::default();
    log.member.segment_bytes = 1 << 20;
    Config {
        node: "manager".parse().unwrap(),
        cluster: "cluster".parse().unwrap(),
        availability: v1::node_spec::Availability::Drain,
        directory: directory.join("log"),
        log,
        listen_remote: "127.0.0.1:0".to_owned(),
        advertise_remote: None,
        control_socket: directory.join("control.sock"),
        security: Credentials::new(authority().tls("manager", MANAGER, CLUSTER)).unwrap(),
        first_root: Some(authority().material()),
        data_keys: Arc::new(data_keys()),
        metrics: Metrics::new(),
        plugins: directory.join("plugins"),
        waiting_nodes_max: WAITING,
    }
}

/// The same for every start, so that a log opens again.
fn data_keys() -> InMemory {
    InMemory::with(KeySet::settled(DataKey::new([1; 32])))
}

async fn start(directory: &Path) -> Manager {
    let manager = within(Manager::start(config(directory), Shutdown::new()))
        .await
        .unwrap();
    within(manager.ready()).await;
    let joined = manager.store().write(|transaction| {
        for node in NODES {
            let id: NodeId = node.parse().unwrap();
            if transaction.node(&id).is_none() {
                let spec = v1::NodeSpec {
                    membership: v1::node_spec::Membership::Accepted as i32,
                    ..Default::default()
                };
                transaction.create(swarm_types::Node::new(id, spec))?;
            }
        }
        Ok::<_, swarm_store::StoreError>(())
    });
    within(joined).await.unwrap();
    manager
}

/// A connection of a node.
fn remote(manager: &Manager, node: &str) -> Channel {
    let credentials = Credentials::new(authority().tls(node, WORKER, CLUSTER)).unwrap();
    let security = Security::Node(credentials, ServerName::Manager);
    tls::dial(&manager.remote_addr().to_string(), &security).unwrap()
}

fn local(directory: &Path) -> Channel {
    net::dial(&net::Address::Unix(directory.join("control.sock"))).unwrap()
}

fn session(node: &str) -> Request<v1::SessionRequest> {
    let description = v1::NodeDescription {
        hostname: format!("host-of-{node}"),
        ..Default::default()
    };
    let request = v1::SessionRequest {
        description: Some(description),
        session_id: String::new(),
    };
    Request::new(request)
}

async fn message<T>(stream: &mut Streaming<T>) -> T {
    let message = within(stream.message()).await;
    message.unwrap().expect("the stream goes on")
}

/// Opens a session; its id and the stream after its first message.
async fn open(
    client: &mut DispatcherClient<Channel>,
    node: &str,
) -> (v1::SessionMessage, Streaming<v1::SessionMessage>) {
    let opened = within(client.session(session(node))).await;
    let mut stream = opened.unwrap().into_inner();
    (message(&mut stream).await, stream)
}

async fn ended<T>(mut stream: Streaming<T>) -> tonic::Status {
    loop {
        match within(stream.message()).await {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the stream ended without a reason"),
            Err(status) => return status,
        }
    }
}

#[tokio::test]
async fn a_node_registers_beats_and_gets_its_assignments() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path()).await;
    let mut client = DispatcherClient::new(remote(&manager, "worker"));
    let (first, _stream) = open(&mut client, "worker").await;
    let node = first.node.expect("it is told about itself");
    assert_eq!(node.id, "worker");
    let manager_addr = manager.remote_addr().to_string();
    let peers: Vec<&str> = first
        .managers
        .iter()
        .filter_map(|manager| Some(manager.peer.as_ref()?.addr.as_str()))
        .collect();
    assert_eq!(peers, [manager_addr.as_str()]);

    let session_id = first.session_id;
    let beat = v1::HeartbeatRequest {
        session_id: session_id.clone(),
    };
    // The first period may be any part of one.
    within(client.heartbeat(beat.clone())).await.unwrap();
    let period = within(client.heartbeat(beat)).await;
    let period = period
        .unwrap()
        .into_inner()
        .period
        .expect("it has a period");
    assert!((4..=6).contains(&period.seconds), "{period:?}");

    let request = v1::AssignmentsRequest {
        session_id: session_id.clone(),
    };
    let assignments = within(client.assignments(request.clone())).await;
    let mut assignments = assignments.unwrap().into_inner();
    let all = message(&mut assignments).await;
    assert_eq!(all.r#type(), v1::assignments_message::Type::Complete);

    // A session belongs to its node.
    let mut other = DispatcherClient::new(remote(&manager, "other"));
    let refused = within(other.assignments(request)).await;
    assert!(refused.is_err(), "somebody else's session is refused");
    within(manager.stop()).await.unwrap();
}

#[tokio::test]
async fn a_node_has_one_session_and_loses_it_when_the_manager_stops() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path()).await;
    let mut client = DispatcherClient::new(remote(&manager, "worker"));
    let (first, first_stream) = open(&mut client, "worker").await;
    let (second, second_stream) = open(&mut client, "worker").await;
    assert_ne!(first.session_id, second.session_id);
    let status = ended(first_stream).await;
    assert_eq!(status.message(), "session invalid", "{status:?}");
    let beat = v1::HeartbeatRequest {
        session_id: first.session_id,
    };
    let refused = within(client.heartbeat(beat)).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    let (stopped, status) = tokio::join!(within(manager.stop()), ended(second_stream));
    stopped.unwrap();
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert_eq!(status.message(), "node must disconnect");
}

#[tokio::test]
async fn a_manager_continues_where_the_one_before_stopped() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path()).await;
    let mut client = DispatcherClient::new(remote(&manager, "worker"));
    let (_, stream) = open(&mut client, "worker").await;
    drop((stream, client));
    within(manager.stop()).await.unwrap();

    let manager = start(directory.path()).await;
    let mut control = ControlClient::new(local(directory.path()));
    let listed = within(control.list_nodes(v1::ListNodesRequest::default())).await;
    let nodes = listed.unwrap().into_inner().nodes;
    let ids: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids.len(), 1 + NODES.len(), "{ids:?}");
    assert!(
        ids.contains(&"manager") && ids.contains(&"worker"),
        "{ids:?}"
    );
    let clusters = within(control.list_clusters(v1::ListClustersRequest::default())).await;
    let clusters = clusters.unwrap().into_inner().clusters;
    assert_eq!(clusters.len(), 1, "it was not made again");
    drop(control);
    within(manager.stop()).await.unwrap();
}

#[tokio::test]
async fn a_second_manager_on_the_same_files_is_refused_and_the_first_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path()).await;
    let refused = Manager::start(config(directory.path()), Shutdown::new()).await;
    assert!(matches!(refused, Err(StartError::Listen(_))));
    let mut second = config(directory.path());
    second.control_socket = directory.path().join("second.sock");
    let refused = within(Manager::start(second, Shutdown::new())).await;
    assert!(matches!(refused, Err(StartError::Log(_))));
    let mut health = HealthClient::new(local(directory.path()));
    for (service, expected) in [
        ("", Ok(1)),
        ("ControlAPI", Ok(1)),
        ("x", Err(Code::NotFound)),
    ] {
        let request = v1::HealthCheckRequest {
            service: service.to_owned(),
        };
        let answer = within(health.check(request)).await;
        let answer = answer
            .map(|answer| answer.into_inner().status)
            .map_err(|status| status.code());
        assert_eq!(answer, expected, "{service:?}");
    }
    drop(health);
    within(manager.stop()).await.unwrap();
}

#[test]
fn nodes_are_told_an_address_that_leads_somewhere() {
    let one = "10.0.0.1:4242".parse().unwrap();
    let all = "0.0.0.0:4242".parse().unwrap();
    let all_six = "[::]:4242".parse().unwrap();
    assert_eq!(told_address(None, one).as_deref(), Some("10.0.0.1:4242"));
    assert_eq!(told_address(None, all), None);
    assert_eq!(told_address(None, all_six), None);
    assert_eq!(told_address(Some("m:1"), all).as_deref(), Some("m:1"));
}
