//! Who gets in, who may do what, and who is thrown out.

use swarm_api::authorization::{METHODS, Role};
use swarm_rt::metrics::Refused;
use swarm_types::{Task, TaskState, TaskStatus, Timestamp};
use tonic::codegen::http::uri::PathAndQuery;
use v1::ca_client::CaClient;
use v1::log_broker_client::LogBrokerClient;
use v1::node_ca_client::NodeCaClient;

use super::world::{Authority, CLUSTER, DAY, HOUR, MANAGER, WORKER, World, begin, words};
use super::*;

/// Calls a method with an empty message.
async fn call(channel: Channel, path: &'static str) -> Result<(), tonic::Status> {
    let mut client = tonic::client::Grpc::new(channel);
    within(client.ready())
        .await
        .map_err(|error| tonic::Status::from_error(error.into()))?;
    let codec =
        swarm_api::codec::SmallBufferCodec::<v1::HeartbeatRequest, v1::HeartbeatRequest>::default();
    let request = Request::new(v1::HeartbeatRequest::default());
    let path = PathAndQuery::from_static(path);
    within(client.unary(request, path, codec)).await.map(drop)
}

#[tokio::test]
async fn a_node_joins_by_token_and_is_known_by_its_certificate() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let identity = swarm_ca::identity::read_pem(tls.chain_pem.as_bytes()).unwrap();
    assert_eq!(identity.node.to_string(), id);
    assert!(!identity.is_manager());
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (first, stream) = begin(&mut client, "").await;
    let node = first.node.unwrap();
    assert_eq!((node.id, node.role), (id, WORKER as i32));
    assert_eq!(node.status.unwrap().addr, "127.0.0.1");
    drop((client, stream));
    world.finish().await;
}

/// A Go node that got a manager's certificate would be neither manager nor worker.
#[tokio::test]
async fn nobody_becomes_a_second_manager() {
    let world = World::start().await;
    let token = world.tokens().await.manager;
    let mut anonymous = NodeCaClient::new(world.dial_anonymously());
    let request = v1::IssueNodeCertificateRequest {
        csr: swarm_ca::csr::request(&swarm_ca::csr::new_key())
            .unwrap()
            .into(),
        token,
        ..Default::default()
    };
    let refused = within(anonymous.issue_node_certificate(request)).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    let text = "a second manager cannot run yet; join as a worker";
    assert!(refused.message().contains(text), "{refused:?}");
    world.refused(Refused::BadToken, 1).await;

    let (id, _) = world.worker().await;
    let mut control = world.control();
    let request = v1::GetNodeRequest {
        node_id: id.clone(),
    };
    let node = within(control.get_node(request)).await.unwrap();
    let node = node.into_inner().node.unwrap();
    let request = v1::UpdateNodeRequest {
        node_id: id,
        node_version: node.meta.unwrap().version,
        spec: Some(v1::NodeSpec {
            desired_role: MANAGER as i32,
            ..node.spec.unwrap()
        }),
    };
    let refused = within(control.update_node(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(
        refused.message().contains("a second manager"),
        "{refused:?}"
    );
    drop((anonymous, control));
    world.finish().await;
}

#[tokio::test]
async fn a_node_renews_its_certificate_without_a_token() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let mut client = NodeCaClient::new(world.dial_as(tls.clone()));
    let key = swarm_ca::csr::new_key();
    let request = v1::IssueNodeCertificateRequest {
        csr: swarm_ca::csr::request(&key).unwrap().into(),
        ..Default::default()
    };
    let issued = within(client.issue_node_certificate(request.clone())).await;
    assert_eq!(issued.unwrap().into_inner().node_id, id);
    let status = v1::NodeCertificateStatusRequest { node_id: id };
    let answer = within(client.node_certificate_status(status)).await;
    let certificate = answer.unwrap().into_inner().certificate.unwrap();
    assert_eq!(certificate.csr, request.csr);
    assert_ne!(certificate.certificate, tls.chain_pem.as_bytes());
    world.finish().await;
}

#[tokio::test]
async fn a_worker_may_call_no_method_of_managers() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let channel = world.dial_as(tls);
    let mut count = 0;
    for method in METHODS {
        if method.insecure || method.roles.contains(&Role::Worker) {
            continue;
        }
        let refused = call(channel.clone(), method.path).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        let text = "Permission denied: unauthorized peer role: remote certificate not part of \
                    OUs: [swarm-manager]";
        assert_eq!(refused.message(), text, "{}", method.path);
        count += 1;
    }
    assert!(count > 40, "{count} methods");
    world.refused(Refused::WrongRole, count).await;
    drop(channel);
    world.finish().await;
}

#[tokio::test]
async fn nobody_without_a_certificate_calls_what_needs_one() {
    let world = World::start().await;
    let channel = world.dial_anonymously();
    let mut count = 0;
    for method in METHODS.iter().filter(|method| !method.insecure) {
        let refused = call(channel.clone(), method.path).await.unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        assert!(
            refused.message().contains("no client certificates"),
            "{refused:?}"
        );
        count += 1;
    }
    world.refused(Refused::NoCertificate, count).await;
    for path in [
        "/docker.swarmkit.v1.Control/NoSuch",
        "/grpc.health.v1.Health/Check",
        "/",
    ] {
        let refused = call(channel.clone(), path).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
        assert!(refused.message().contains(path), "{refused:?}");
    }
    world.refused(Refused::UnknownMethod, 3).await;
    drop(channel);
    world.finish().await;
}

#[tokio::test]
async fn a_manager_may_call_what_managers_may_and_missing_services_say_their_name() {
    let world = World::start().await;
    let tls = world.authority.tls("other", MANAGER, CLUSTER);
    let channel = world.dial_as(tls);
    let mut control = ControlClient::new(channel.clone());
    let listed = within(control.list_nodes(v1::ListNodesRequest::default())).await;
    assert_eq!(listed.unwrap().into_inner().nodes.len(), 1);
    let mut health = HealthClient::new(channel.clone());
    within(health.check(v1::HealthCheckRequest::default()))
        .await
        .unwrap();
    let mut ca = CaClient::new(channel.clone());
    let key = within(ca.get_unlock_key(v1::GetUnlockKeyRequest {})).await;
    let key = key.unwrap().into_inner();
    assert!(key.unlock_key.is_empty() && key.version.is_some());
    for path in [
        "/docker.swarmkit.v1.Raft/ResolveAddress",
        "/docker.swarmkit.v1.RaftMembership/Leave",
    ] {
        let refused = call(channel.clone(), path).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
        let name = path.rsplit('/').next().unwrap();
        assert!(refused.message().contains(name), "{refused:?}");
    }
    drop((channel, control, health, ca));
    world.finish().await;
}

#[tokio::test]
async fn certificates_of_others_are_refused() {
    let world = World::start().await;
    let start = Clock::new().now();
    let of = |node, role, cluster| world.authority.tls(node, role, cluster);
    let valid = |start| {
        world
            .authority
            .tls_valid("w", WORKER, CLUSTER, (start, HOUR))
    };
    let mut foreign = Authority::new().tls("w", WORKER, CLUSTER);
    foreign.root_pem = world.authority.root_pem.clone();
    for (tls, text, reason) in [
        (
            of("w", WORKER, "other"),
            "remote certificate not part of organization: cluster",
            Refused::WrongOrganization,
        ),
        (
            valid(start.saturating_sub(DAY)),
            "expired or is not valid yet",
            Refused::CertificateExpired,
        ),
        (
            // The clock of one of the two machines is hours off.
            valid(start.saturating_add(5 * HOUR)),
            "set the clocks of the two machines",
            Refused::CertificateNotYetValid,
        ),
        (
            foreign,
            "another cluster",
            Refused::CertificateUnknownAuthority,
        ),
    ] {
        let mut client = DispatcherClient::new(world.dial_as(tls));
        let refused = within(client.session(v1::SessionRequest::default())).await;
        let refused = refused.unwrap_err();
        assert!(
            words(&refused).contains(text),
            "{text}: {}",
            words(&refused)
        );
        world.refused(reason, 1).await;
    }
    // Nobody made a node for this certificate.
    let stranger = world.dial_as(of("stranger", WORKER, CLUSTER));
    let mut client = DispatcherClient::new(stranger);
    let refused = within(client.session(v1::SessionRequest::default())).await;
    let refused = refused.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unknown, "node not found")
    );
    drop(client);
    world.finish().await;
}

/// Writes what `RemoveNode` writes for the certificate of a node.
async fn remove(world: &World, node: &str) {
    let request = v1::RemoveNodeRequest {
        node_id: node.to_owned(),
        force: true,
    };
    within(world.control().remove_node(request)).await.unwrap();
}

/// Writes a task that runs on a node.
async fn give(world: &World, node: &str) {
    let node: NodeId = node.parse().unwrap();
    let written = world.manager.store().write(|transaction| {
        let status = TaskStatus::new(TaskState::Running, Timestamp::EPOCH, "started");
        let task = Task::new("t".parse().unwrap(), Arc::default());
        let mut task = task.with_states(status, TaskState::Running);
        task.node_id = Some(node.clone());
        transaction.create(task)
    });
    within(written).await.unwrap();
}

/// What an assignments message does to which tasks.
fn names(message: &v1::AssignmentsMessage) -> Vec<(i32, String)> {
    let changes = message.changes.iter();
    let tasks = changes.filter_map(|change| {
        let item = change.assignment.as_ref()?.item.as_ref()?;
        let v1::assignment::Item::Task(task) = item else {
            return None;
        };
        Some((change.action, task.id.clone()))
    });
    tasks.collect()
}

#[tokio::test]
async fn a_removed_node_is_thrown_out_at_once() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let (other, other_tls) = world.worker().await;
    let channel = world.dial_as(tls.clone());
    let mut client = DispatcherClient::new(channel.clone());
    let (first, stream) = begin(&mut client, "").await;
    give(&world, &id).await;
    let mut kept = DispatcherClient::new(world.dial_as(other_tls));
    let (kept_first, kept_stream) = begin(&mut kept, "").await;
    let assignments = v1::AssignmentsRequest {
        session_id: first.session_id.clone(),
    };
    let assignments = within(client.assignments(assignments)).await.unwrap();
    let mut assignments = assignments.into_inner();
    let complete = message(&mut assignments).await;
    assert_eq!(names(&complete), [(0, "t".to_owned())]);
    remove(&world, &id).await;
    // First it is told to drop its tasks, on the streams that it has, and then why.
    let last = message(&mut assignments).await;
    assert_eq!(names(&last), [(1, "t".to_owned())]);
    let text = format!("node {id} was removed from swarm");
    let status = ended(assignments).await;
    assert!(status.message().contains(&text), "{status:?}");
    let status = ended(stream).await;
    assert!(status.message().contains(&text), "{status:?}");
    // On the old connection, and on a new one.
    let beat = v1::HeartbeatRequest {
        session_id: first.session_id,
    };
    let refused = within(client.heartbeat(beat.clone())).await.unwrap_err();
    assert!(words(&refused).contains(&text), "{}", words(&refused));
    let mut again = DispatcherClient::new(world.dial_as(tls));
    let refused = within(again.heartbeat(beat)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains(&text), "{refused:?}");
    // Nobody else notices.
    let beat = v1::HeartbeatRequest {
        session_id: kept_first.session_id,
    };
    within(kept.heartbeat(beat)).await.unwrap();
    assert_ne!(other, id);
    drop((client, channel, again, kept, kept_stream));
    world.finish().await;
}

#[tokio::test]
async fn a_demoted_manager_loses_its_connections_and_its_rights() {
    let world = World::start().await;
    let (id, _) = world.worker().await;
    let node: NodeId = id.parse().unwrap();
    let store = world.manager.store();
    let promoted = store.write(|transaction| {
        let mut node = (**transaction.node(&node).unwrap()).clone();
        // As a manager of before left it.
        Arc::make_mut(&mut node.spec).desired_role = MANAGER as i32;
        node.role = MANAGER;
        transaction.update(node)
    });
    within(promoted).await.unwrap();
    let tls = world.authority.tls(&id, MANAGER, CLUSTER);
    let channel = world.dial_as(tls.clone());
    let mut control = ControlClient::new(channel.clone());
    within(control.list_nodes(v1::ListNodesRequest::default()))
        .await
        .unwrap();
    let mut client = DispatcherClient::new(channel.clone());
    let (_, stream) = begin(&mut client, "").await;
    // What a Go node with such a certificate asks for first.
    let join = "/docker.swarmkit.v1.RaftMembership/Join";
    let refused = call(channel.clone(), join).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert!(refused.message().contains("node demote"), "{refused:?}");
    let demoted = store.write(|transaction| {
        let mut node = (**transaction.node(&node).unwrap()).clone();
        // As after `swarmctl node demote`, when the role manager has done its part.
        Arc::make_mut(&mut node.spec).desired_role = WORKER as i32;
        node.role = WORKER;
        transaction.update(node)
    });
    within(demoted).await.unwrap();
    let status = ended(stream).await;
    assert_eq!(status.code(), Code::Aborted, "{status:?}");
    assert!(status.message().contains("was demoted"), "{status:?}");
    let mut control = ControlClient::new(world.dial_as(tls.clone()));
    let refused = within(control.list_nodes(v1::ListNodesRequest::default())).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    assert!(refused.message().contains("was demoted"), "{refused:?}");
    // It may still work, and get its next certificate; the refusal leaves it the time.
    let joining = call(world.dial_as(tls.clone()), join);
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (refused, (_, stream)) = tokio::join!(joining, begin(&mut client, ""));
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    drop((channel, client, control, stream));
    world.finish().await;
}

/// A call in the name of a worker, as a manager that does not lead sends it on.
fn sent_on_for<T>(node: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in [
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", node),
        ("forwarded_cert_org", CLUSTER),
        ("forwarded_cert_ou", "swarm-worker"),
        ("remote_addr", "192.0.2.7:1234"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    request
}

/// A plain heartbeat is answered before it gets to the services, and this one is not plain.
#[tokio::test]
async fn a_worker_sends_no_heartbeats_on() {
    let world = World::start().await;
    let (node, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (first, stream) = begin(&mut client, "").await;
    let beat = v1::HeartbeatRequest {
        session_id: first.session_id,
    };
    let forged = sent_on_for(&node, beat.clone());
    let refused = within(client.heartbeat(forged)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    world.refused(Refused::BadForwarding, 1).await;
    within(client.heartbeat(beat)).await.unwrap();
    drop((client, stream));
    world.finish().await;
}

/// Such a stream is on the connection of the manager in between, which stays open when the worker
/// goes.
#[tokio::test]
async fn a_stream_that_is_sent_on_for_a_node_ends_with_the_rights_of_the_node() {
    let world = World::start().await;
    let (gone, _) = world.worker().await;
    let (other, _) = world.worker().await;
    let forwarder = world.authority.tls("forwarder", MANAGER, CLUSTER);
    let channel = world.dial_as(forwarder);
    let mut dispatcher = DispatcherClient::new(channel.clone());
    let mut logs = LogBrokerClient::new(channel);
    let request = sent_on_for(&other, v1::SessionRequest::default());
    let mut kept = within(dispatcher.session(request))
        .await
        .unwrap()
        .into_inner();
    let node = message(&mut kept).await.node.unwrap();
    assert_eq!(node.id, other);
    assert_eq!(node.status.unwrap().addr, "192.0.2.7");
    // Nothing but the guard ends this one.
    let request = sent_on_for(&gone, v1::ListenSubscriptionsRequest {});
    let stream = within(logs.listen_subscriptions(request)).await;
    let stream = stream.unwrap().into_inner();
    remove(&world, &gone).await;
    let status = ended(stream).await;
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    let text = format!("Permission denied: node {gone} was removed from swarm");
    assert_eq!(status.message(), text);

    // On the same connection another node's stream goes on, and hears what is new.
    let node_id = other.clone();
    let found = within(world.control().get_node(v1::GetNodeRequest { node_id })).await;
    let found = found.unwrap().into_inner().node.unwrap();
    let mut spec = found.spec.unwrap();
    spec.availability = v1::node_spec::Availability::Pause as i32;
    let request = v1::UpdateNodeRequest {
        node_id: other,
        node_version: found.meta.and_then(|meta| meta.version),
        spec: Some(spec.clone()),
    };
    within(world.control().update_node(request)).await.unwrap();
    let told = message(&mut kept).await.node.unwrap();
    assert_eq!(told.spec.unwrap().availability, spec.availability);
    drop((dispatcher, logs, kept));
    world.finish().await;
}

/// What the transport says by itself reads alike on both sides of a manager.
#[tokio::test]
async fn the_control_socket_has_the_words_of_the_remote_listener() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    for channel in [local(world.directory()), world.dial_as(tls)] {
        for path in [
            "/docker.swarmkit.v1.Nothing/Call",
            "/docker.swarmkit.v1.Dispatcher/Nothing",
        ] {
            let refused = call(channel.clone(), path).await.unwrap_err();
            assert_eq!(refused.code(), Code::Unimplemented, "{refused:?}");
            assert_eq!(refused.message(), format!("there is no method {path}"));
        }
    }
    let mut control = world.control();
    let spec = v1::SecretSpec {
        data: vec![0; 5 << 20].into(),
        ..Default::default()
    };
    let request = v1::CreateSecretRequest { spec: Some(spec) };
    let refused = within(control.create_secret(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    world.refused(Refused::OversizedMessage, 1).await;
    drop(control);
    world.finish().await;
}
