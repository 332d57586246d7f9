//! Bad input on the remote listener: each kind is refused with the right code and words, is
//! counted, and leaves the manager healthy.

use swarm_api::ext;
use swarm_ca::{csr, token};
use swarm_reconcile::Ctx;
use swarm_rt::metrics::Refused;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use v1::node_ca_client::NodeCaClient;
use v1::update_task_status_request::TaskStatusUpdate;

use super::world::{Authority, HOUR, World, begin};
use super::*;

const NECESSARY: &str = "A valid join token is necessary to join this cluster";

fn request(token: &str) -> v1::IssueNodeCertificateRequest {
    v1::IssueNodeCertificateRequest {
        csr: csr::request(&csr::new_key()).unwrap().into(),
        token: token.to_owned(),
        ..Default::default()
    }
}

/// Makes a token that is valid for so long, counted from `now`.
async fn limited_token(world: &World, now: swarm_types::Timestamp, uses: u32) -> String {
    let request = ext::CreateJoinTokenRequest {
        role: "worker".to_owned(),
        ttl: Some(swarm_types::time::duration_to_wire(HOUR)),
        uses,
        ..Default::default()
    };
    let store = world.manager.store();
    let made = store.write(|transaction| {
        let mut ids = OsIds::new();
        let mut ctx = Ctx { now, ids: &mut ids };
        let (set, made) = tokens::create(transaction, request.clone(), &mut ctx).unwrap();
        transaction.apply_set(&set)?;
        Ok::<_, swarm_store::Conflict>(made.token)
    });
    within(made).await.unwrap()
}

#[tokio::test]
async fn tokens_that_are_none_of_this_cluster_are_refused() {
    let world = World::start().await;
    let good = world.tokens().await;
    let wrong_secret = token::JoinToken::generate(world.authority.root_pem.as_bytes(), [7; 16]);
    let foreign_root = Authority::new().root_pem;
    let other_cluster = token::JoinToken::generate(foreign_root.as_bytes(), [7; 16]);
    let now = Clock::new().now();
    let expired = limited_token(&world, now.saturating_sub(2 * HOUR), 0).await;
    let once = limited_token(&world, now, 1).await;
    world.join(&once).await;
    let mut client = NodeCaClient::new(world.dial_anonymously());
    let mut count = 0;
    for (token, reason) in [
        (String::new(), ""),
        ("SWMTKN-1-nonsense".to_owned(), ""),
        ("x".repeat(10_000), ""),
        (good.worker[..good.worker.len() - 1].to_owned(), ""),
        (good.worker.to_uppercase(), ""),
        (format!("{} ", good.manager), ""),
        (wrong_secret.to_string(), ""),
        (other_cluster.to_string(), ""),
        (expired, "expired at"),
        (once, "used up"),
    ] {
        let refused = within(client.issue_node_certificate(request(&token))).await;
        let refused = refused.unwrap_err();
        assert_eq!(
            refused.code(),
            Code::InvalidArgument,
            "{token}: {refused:?}"
        );
        assert!(
            refused.message().starts_with(NECESSARY),
            "{token}: {refused:?}"
        );
        assert!(refused.message().contains(reason), "{token}: {refused:?}");
        assert!(refused.message().len() < 1_000, "{refused:?}");
        count += 1;
        world.refused(Refused::BadToken, count).await;
    }
    let nodes = within(world.control().list_nodes(v1::ListNodesRequest::default())).await;
    // The manager itself, and the one that joined with the token for one.
    assert_eq!(nodes.unwrap().into_inner().nodes.len(), 2);
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn certificate_requests_that_are_none_are_refused() {
    let world = World::start().await;
    let token = world.tokens().await.worker;
    let good = csr::request(&csr::new_key()).unwrap();
    let other = csr::request(&csr::new_key()).unwrap();
    // The signature of another request.
    let lines: Vec<&str> = good.lines().collect();
    let foreign: Vec<&str> = other.lines().collect();
    let middle = lines.len() / 2 + 1;
    let spliced = [&lines[..middle], &foreign[middle..]].concat().join("\n");
    let mut client = NodeCaClient::new(world.dial_anonymously());
    let mut count = 0;
    for csr in [
        b"garbage".to_vec(),
        vec![0xff; 4096],
        good.as_bytes()[..good.len() / 2].to_vec(),
        world.authority.root_pem.clone().into_bytes(),
        spliced.into_bytes(),
        vec![b'A'; 17 << 10],
    ] {
        let mut request = request(&token);
        request.csr = csr.into();
        let refused = within(client.issue_node_certificate(request))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
        assert!(
            refused.message().starts_with("IssueNodeCertificate: "),
            "{refused:?}"
        );
        count += 1;
        world.refused(Refused::BadRequest, count).await;
    }
    let mut empty = request(&token);
    empty.csr = Vec::new().into();
    let refused = within(client.issue_node_certificate(empty))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused:?}");
    let mut large = request(&token);
    large.csr = vec![b'A'; 100 << 10].into();
    let refused = within(client.issue_node_certificate(large))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    world.refused(Refused::OversizedMessage, 1).await;
    for (id, code) in [("", Code::InvalidArgument), ("nobody", Code::NotFound)] {
        let request = v1::NodeCertificateStatusRequest {
            node_id: id.to_owned(),
        };
        let refused = within(client.node_certificate_status(request)).await;
        assert_eq!(refused.unwrap_err().code(), code, "{id:?}");
    }
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn messages_of_100_megabytes_are_refused_by_their_size() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (first, stream) = begin(&mut client, "").await;
    let large = v1::UpdateTaskStatusRequest {
        session_id: first.session_id.clone(),
        updates: vec![TaskStatusUpdate {
            task_id: "t".repeat(100 << 20),
            status: None,
        }],
    };
    let refused = within(client.update_task_status(large)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("limit is: 4194304 bytes"),
        "{refused:?}"
    );
    world.refused(Refused::OversizedMessage, 1).await;
    // Its session goes on.
    let beat = v1::HeartbeatRequest {
        session_id: first.session_id,
    };
    within(client.heartbeat(beat)).await.unwrap();
    drop((client, stream));
    world.finish().await;
}

#[tokio::test]
async fn a_connection_makes_only_so_many_calls_at_once() {
    let world = World::start().await;
    // Its certificate is never decided, so questions about it wait.
    let waiting: NodeId = "waiting".parse().unwrap();
    let store = world.manager.store();
    let made = store.write(|transaction| {
        let mut node = swarm_types::Node::new(waiting.clone(), v1::NodeSpec::default());
        let status = v1::IssuanceStatus {
            state: v1::issuance_status::State::Pending as i32,
            ..Default::default()
        };
        node.certificate = Some(Box::new(v1::Certificate {
            status: Some(status),
            ..Default::default()
        }));
        transaction.create(node)
    });
    within(made).await.unwrap();
    let (_, tls) = world.worker().await;
    let client = NodeCaClient::new(world.dial_as(tls));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..65 {
        let mut client = client.clone();
        let request = v1::NodeCertificateStatusRequest {
            node_id: waiting.to_string(),
        };
        calls.spawn(async move { client.node_certificate_status(request).await });
    }
    let refused = within(calls.join_next())
        .await
        .unwrap()
        .unwrap()
        .unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    assert!(
        refused.message().contains("64 calls in progress"),
        "{refused:?}"
    );
    world.refused(Refused::TooManyCalls, 1).await;
    drop((calls, client));
    world.finish().await;
}

#[tokio::test]
async fn garbage_on_the_socket_harms_nobody() {
    let world = World::start().await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\xff\xff\xff".to_vec();
    let mut held = Vec::new();
    for bytes in [
        Vec::new(),
        vec![0],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec(),
        hello,
        vec![0x16; 100_000],
    ] {
        let mut socket = TcpStream::connect(world.address()).await.unwrap();
        // The manager may hang up before it has read everything.
        let _ = socket.write_all(&bytes).await;
        let mut answer = [0; 64];
        let read = socket.read(&mut answer);
        let _ = tokio::time::timeout(Duration::from_millis(100), read).await;
        held.push(socket);
    }
    let mut client = DispatcherClient::new(world.dial_as(world.worker().await.1));
    let (_, stream) = begin(&mut client, "").await;
    drop((client, stream, held));
    world.finish().await;
}

#[tokio::test]
async fn a_node_reports_about_its_own_tasks_only() {
    let world = World::start().await;
    let (own, own_tls) = world.worker().await;
    let (other, _) = world.worker().await;
    let store = world.manager.store();
    for (task, node) in [("theirs", &other), ("ours", &own)] {
        let made = store.write(|transaction| {
            let mut task =
                swarm_types::Task::new(task.parse().unwrap(), v1::TaskSpec::default().into());
            task.node_id = Some(node.parse().unwrap());
            transaction.create(task)
        });
        within(made).await.unwrap();
    }
    let mut client = DispatcherClient::new(world.dial_as(own_tls));
    let (first, stream) = begin(&mut client, "").await;
    let report = |task: &str| v1::UpdateTaskStatusRequest {
        session_id: first.session_id.clone(),
        updates: vec![TaskStatusUpdate {
            task_id: task.to_owned(),
            status: Some(v1::TaskStatus {
                state: v1::TaskState::Failed as i32,
                ..Default::default()
            }),
        }],
    };
    let refused = within(client.update_task_status(report("theirs"))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let text = "cannot update a task not assigned this node";
    assert_eq!(refused.message(), text);
    world.refused(Refused::OtherNodesTask, 1).await;
    within(client.update_task_status(report("ours")))
        .await
        .unwrap();
    within(client.update_task_status(report("gone")))
        .await
        .unwrap();
    let theirs = "theirs".parse().unwrap();
    let task = Arc::clone(world.manager.store().view().task(&theirs).unwrap());
    assert_ne!(task.status().state, swarm_types::TaskState::Failed);
    drop((client, stream));
    world.finish().await;
}

#[tokio::test]
async fn nodes_that_never_come_are_made_up_to_a_bound_and_once_for_each_request() {
    let world = World::start().await;
    let token = world.tokens().await.worker;
    let mut client = NodeCaClient::new(world.dial_anonymously());
    let mut nodes = Vec::new();
    // The manager's own node is one of them here, where it has no agent.
    for _ in 1..WAITING {
        let first = request(&token);
        let made = within(client.issue_node_certificate(first.clone())).await;
        let node = made.unwrap().into_inner().node_id;
        // As if the answer had been lost.
        let again = within(client.issue_node_certificate(first)).await;
        assert_eq!(again.unwrap().into_inner().node_id, node);
        nodes.push(node);
    }
    nodes.sort();
    nodes.dedup();
    assert_eq!(nodes.len(), WAITING - 1);
    let refused = within(client.issue_node_certificate(request(&token))).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let text = format!("{WAITING} nodes of the worker token");
    assert!(refused.message().contains(&text), "{refused:?}");
    world.refused(Refused::TooManyWaiting, 1).await;
    // One that is removed makes room at once.
    let request = v1::RemoveNodeRequest {
        node_id: nodes.remove(0),
        force: true,
    };
    within(world.control().remove_node(request)).await.unwrap();
    drop(client);
    world.finish().await;
}
