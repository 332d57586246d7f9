//! Sessions that are not, or no longer, those of the node that shows them.

use swarm_api::ext;
use swarm_rt::metrics::Refused;
use swarm_rt::tls::{self, Security, ServerName};

use super::world::{World, begin};
use super::*;

fn beat(session: &str) -> v1::HeartbeatRequest {
    v1::HeartbeatRequest {
        session_id: session.to_owned(),
    }
}

#[tokio::test]
async fn replayed_stale_and_foreign_sessions_are_refused() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let (_, other_tls) = world.worker().await;
    let mut other = DispatcherClient::new(world.dial_as(other_tls.clone()));
    let refused = within(other.heartbeat(beat("made-up"))).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    assert_eq!(refused.message(), "node not registered");
    world.refused(Refused::NotRegistered, 1).await;

    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (old, old_stream) = begin(&mut client, "").await;
    let (current, stream) = begin(&mut client, "").await;
    let status = ended(old_stream).await;
    assert_eq!(status.message(), "session invalid", "{status:?}");
    let (theirs, their_stream) = begin(&mut other, "").await;
    let mut count = 0;
    for session in ["", "made-up", &old.session_id, &theirs.session_id] {
        let refused = within(client.heartbeat(beat(session))).await.unwrap_err();
        assert_eq!(
            refused.code(),
            Code::InvalidArgument,
            "{session}: {refused:?}"
        );
        assert_eq!(refused.message(), "session invalid", "{session}");
        let request = v1::AssignmentsRequest {
            session_id: session.to_owned(),
        };
        let refused = within(client.assignments(request)).await.unwrap_err();
        assert_eq!(refused.message(), "session invalid", "{session}");
        let request = v1::UpdateTaskStatusRequest {
            session_id: session.to_owned(),
            updates: Vec::new(),
        };
        let refused = within(client.update_task_status(request))
            .await
            .unwrap_err();
        assert_eq!(refused.message(), "session invalid", "{session}");
        count += 3;
        world.refused(Refused::InvalidSession, count).await;
    }
    within(client.heartbeat(beat(&current.session_id)))
        .await
        .unwrap();
    // A session that nobody knows any more is no error: the node gets a new one.
    let (fresh, fresh_stream) = begin(&mut client, "from-an-earlier-leader").await;
    assert_ne!(fresh.session_id, current.session_id);
    // And one that is known goes on.
    let (same, same_stream) = begin(&mut client, &fresh.session_id).await;
    assert_eq!(same.session_id, fresh.session_id);
    drop((
        client,
        other,
        stream,
        their_stream,
        fresh_stream,
        same_stream,
    ));
    world.finish().await;
}

/// Opens a session as a machine of this name; its first message and the stream.
async fn begin_on(
    client: &mut DispatcherClient<Channel>,
    hostname: &str,
) -> (v1::SessionMessage, Streaming<v1::SessionMessage>) {
    let description = v1::NodeDescription {
        hostname: hostname.to_owned(),
        ..Default::default()
    };
    let request = v1::SessionRequest {
        description: Some(description),
        session_id: String::new(),
    };
    let mut stream = within(client.session(request)).await.unwrap().into_inner();
    (message(&mut stream).await, stream)
}

#[tokio::test]
async fn the_answer_to_a_session_tells_the_managers_time() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let answer = within(client.session(v1::SessionRequest::default()))
        .await
        .unwrap();
    let time = answer
        .metadata()
        .get(swarm_types::time::MANAGER_TIME_HEADER);
    let nanos: i64 = time.unwrap().to_str().unwrap().parse().unwrap();
    assert!(nanos > 1_600_000_000_000_000_000, "{nanos}");
    drop((client, answer));
    world.finish().await;
}

#[tokio::test]
async fn two_machines_with_one_certificate_are_named() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let mut first = DispatcherClient::new(world.dial_as(tls.clone()));
    let mut copy = DispatcherClient::new(world.dial_as(tls));
    let (_, stream) = begin_on(&mut first, "original").await;
    let (begun, copy_stream) = begin_on(&mut copy, "copy").await;
    assert_eq!(begun.node.unwrap().status.unwrap().message, "");
    assert_eq!(ended(stream).await.message(), "session invalid");
    let (begun, stream) = begin_on(&mut first, "original").await;
    assert_eq!(ended(copy_stream).await.message(), "session invalid");
    let warning = begun.node.unwrap().status.unwrap().message;
    let machines = "copy at 127.0.0.1 and original at 127.0.0.1";
    assert!(warning.contains(machines), "{warning}");
    world.refused(Refused::ClonedMachine, 1).await;

    let mut explain = ext::explain_client::ExplainClient::new(local(world.directory()));
    let request = ext::WhyRequest {
        kind: "node".to_owned(),
        object: id,
    };
    let why = within(explain.why(request)).await.unwrap().into_inner();
    assert!(format!("{why:?}").contains(machines), "{why:?}");
    drop((first, copy, stream, explain));
    world.finish().await;
}

#[tokio::test]
async fn a_node_that_registers_too_often_is_held_back() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let mut streams = Vec::new();
    let refused = loop {
        let request = v1::SessionRequest::default();
        match within(client.session(request)).await {
            Ok(stream) => streams.push(stream.into_inner()),
            Err(refused) => break refused,
        }
        assert!(streams.len() < 20, "there is no limit");
    };
    assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    let text = format!("node {id} exceeded rate limit count of registrations");
    assert_eq!(refused.message(), text);
    world.refused(Refused::RegistrationRate, 1).await;
    drop((client, streams));
    world.finish().await;
}

/// As after the store was restored from a backup of before the node joined.
#[tokio::test]
async fn a_node_that_is_not_in_the_cluster_gets_no_session() {
    let world = World::start().await;
    let tls = world.authority.tls("stranger", WORKER, CLUSTER);
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let refused = within(client.session(v1::SessionRequest::default())).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::Unknown, "{refused:?}");
    assert_eq!(refused.message(), "node not found");
    world.refused(Refused::UnknownNode, 1).await;
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn a_session_of_before_a_restart_is_refused_until_the_node_registers() {
    let directory = tempfile::tempdir().unwrap();
    let manager = start(directory.path()).await;
    let mut client = DispatcherClient::new(local(directory.path()));
    let (first, stream) = begin(&mut client, "").await;
    let session = first.session_id;
    within(client.heartbeat(beat(&session))).await.unwrap();
    drop((stream, client));
    within(manager.stop()).await.unwrap();

    let manager = start(directory.path()).await;
    let mut client = DispatcherClient::new(local(directory.path()));
    for _ in 0..3 {
        let refused = within(client.heartbeat(beat(&session))).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{refused:?}");
    }
    let (next, stream) = begin(&mut client, &session).await;
    assert_ne!(next.session_id, session);
    let refused = within(client.heartbeat(beat(&session))).await.unwrap_err();
    assert_eq!(refused.message(), "session invalid");
    within(client.heartbeat(beat(&next.session_id)))
        .await
        .unwrap();
    drop((stream, client));
    within(manager.stop()).await.unwrap();
}

/// Nobody said where the manager is, so each node is told where it found it: a node forgets every
/// manager that a list does not name, and a Go node keeps the empty list for its next start.
#[tokio::test]
async fn a_manager_that_listens_everywhere_is_told_to_nodes_as_the_address_they_dialled() {
    for (listen, dialled) in [
        ("0.0.0.0:0", "127.0.0.1"),
        ("0.0.0.0:0", "127.0.0.2"),
        ("[::]:0", "127.0.0.1"),
    ] {
        let everywhere = |config: &mut Config| config.listen_remote = listen.to_owned();
        let world = World::start_with(Bounds::default(), everywhere).await;
        let address = format!("{dialled}:{}", world.address().port());
        let (_, tls) = world.worker().await;
        let security = Security::Node(Credentials::new(tls).unwrap(), ServerName::Manager);
        let channel = tls::dial(&address, &security).unwrap();
        let mut client = DispatcherClient::new(channel);
        let (first, _stream) = begin(&mut client, "").await;
        let manager = first.managers.first().unwrap();
        let peer = manager.peer.clone().unwrap();
        assert_eq!((peer.addr.as_str(), manager.weight), (address.as_str(), 10));
        assert_eq!(peer.node_id, "manager");

        // The manager's own node comes through the control socket.
        let mut own = DispatcherClient::new(local(world.directory()));
        let (first, _stream) = begin(&mut own, "").await;
        let own = first.managers[0].peer.clone().unwrap().addr;
        let port = world.address().port();
        let loopback = [format!("127.0.0.1:{port}"), format!("[::1]:{port}")];
        assert!(loopback.contains(&own), "{own}");
    }
}
