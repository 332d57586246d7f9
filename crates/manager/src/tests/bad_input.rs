//! More bad input on the remote listener: nodes that are none any more, borrowed names, clocks that
//! are hours off. Each is refused with its code and words, is counted, and leaves the manager
//! healthy.

use swarm_rt::metrics::Refused;
use v1::update_task_status_request::TaskStatusUpdate;

use super::world::{Authority, CLUSTER, DAY, HOUR, WORKER, World, begin, words};
use super::*;

#[tokio::test]
async fn a_removed_node_is_refused_on_every_new_connection() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let request = v1::RemoveNodeRequest {
        node_id: id.clone(),
        force: true,
    };
    within(world.control().remove_node(request)).await.unwrap();
    let text = format!("Permission denied: node {id} was removed from swarm");
    for count in 1..=3 {
        let mut client = DispatcherClient::new(world.dial_as(tls.clone()));
        let refused = match count {
            1 => within(client.session(v1::SessionRequest::default()))
                .await
                .unwrap_err(),
            2 => within(client.heartbeat(v1::HeartbeatRequest::default()))
                .await
                .unwrap_err(),
            _ => within(client.assignments(v1::AssignmentsRequest::default()))
                .await
                .unwrap_err(),
        };
        assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
        assert_eq!(refused.message(), text);
        world.refused(Refused::RemovedNode, count).await;
    }
    world.finish().await;
}

#[tokio::test]
async fn a_worker_that_says_that_it_forwards_is_refused() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let (victim, _) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let mut request = Request::new(v1::SessionRequest::default());
    for (name, value) in [
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", victim.as_str()),
        ("forwarded_cert_org", CLUSTER),
        ("forwarded_cert_ou", "swarm-worker"),
    ] {
        request.metadata_mut().insert(name, value.parse().unwrap());
    }
    let refused = within(client.session(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    let text = "unauthorized forwarder role";
    assert!(refused.message().contains(text), "{refused:?}");
    world.refused(Refused::BadForwarding, 1).await;
    drop(client);
    world.finish().await;
}

/// Handshakes that fail have no code of their own: the caller's transport says that there is no
/// connection, and why.
#[tokio::test]
async fn certificates_that_do_not_count_lead_to_no_connection() {
    let world = World::start().await;
    let start = Clock::new().now();
    let valid = |start| {
        world
            .authority
            .tls_valid("w", WORKER, CLUSTER, (start, HOUR))
    };
    let mut foreign = Authority::new().tls("w", WORKER, CLUSTER);
    foreign.root_pem = world.authority.root_pem.clone();
    for (tls, reason) in [
        (
            valid(start.saturating_sub(DAY)),
            Refused::CertificateExpired,
        ),
        (
            valid(start.saturating_add(5 * HOUR)),
            Refused::CertificateNotYetValid,
        ),
        (foreign, Refused::CertificateUnknownAuthority),
    ] {
        let mut client = DispatcherClient::new(world.dial_as(tls));
        let refused = within(client.session(v1::SessionRequest::default())).await;
        let refused = refused.unwrap_err();
        let codes = [Code::Unavailable, Code::Unknown];
        assert!(codes.contains(&refused.code()), "{}", words(&refused));
        world.refused(reason, 1).await;
    }
    let other = world.authority.tls("w", WORKER, "other");
    let mut client = DispatcherClient::new(world.dial_as(other));
    let refused = within(client.session(v1::SessionRequest::default())).await;
    let refused = refused.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied, "{refused:?}");
    drop(client);
    world.finish().await;
}

#[tokio::test]
async fn times_of_a_node_whose_clock_is_hours_off_are_kept_and_not_believed() {
    let world = World::start().await;
    let (id, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (first, stream) = begin(&mut client, "").await;
    let now = Clock::new().now();
    let (ahead, behind) = (now.saturating_add(5 * HOUR), now.saturating_sub(5 * HOUR));
    let malformed = prost_types::Timestamp {
        seconds: i64::MAX,
        nanos: -1,
    };
    for (name, said, kept) in [
        ("ahead", ahead.to_wire(), Some(ahead)),
        ("behind", behind.to_wire(), Some(behind)),
        ("nonsense", malformed, None),
    ] {
        let task: swarm_types::TaskId = name.parse().unwrap();
        let store = world.manager.store();
        let made = store.write(|transaction| {
            let mut made = swarm_types::Task::new(task.clone(), v1::TaskSpec::default().into());
            made.node_id = Some(id.parse().unwrap());
            transaction.create(made)
        });
        within(made).await.unwrap();
        let report = v1::UpdateTaskStatusRequest {
            session_id: first.session_id.clone(),
            updates: vec![TaskStatusUpdate {
                task_id: name.to_owned(),
                status: Some(v1::TaskStatus {
                    timestamp: Some(said),
                    state: v1::TaskState::Failed as i32,
                    ..Default::default()
                }),
            }],
        };
        within(client.update_task_status(report)).await.unwrap();
        let status = within(async {
            loop {
                let stored = Arc::clone(store.view().task(&task).unwrap());
                if stored.state() == swarm_types::TaskState::Failed {
                    break stored.status().clone();
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(status.timestamp, kept, "{name}");
        let applied_at = status.applied_at.expect("the manager's own time");
        assert!(applied_at >= now && applied_at < now.saturating_add(HOUR));
    }
    drop((client, stream));
    world.finish().await;
}
