//! What a stock engine sent when it joined, worked and left, in the same order, over real TLS; and
//! whether our answers have the shape of those that it got, field by field where it looks.
//!
//! Certificates, ids and times are our own. Left out: the network of a user, which we do not have.

mod joining;
mod logs;
mod shape;
mod specs;
mod task;
mod wire;

use v1::assignment::Item;
use v1::assignment_change::AssignmentAction::{Remove, Update};
use v1::assignments_message::Type;

use self::joining::{Engine, join};
use self::logs::logs;
use self::shape::{expect_ingress, expect_meta, expect_session, is_id};
use self::specs::{payloads, replicas, service};
use self::wire::{Answer, call};
use super::world::World;
use super::*;

const ENGINE_CONTAINER: &str = "c492f48d8f2c8e9ea68c6bb11644ef2a1befba3f0185d599eff31569be206505";

async fn beat(engine: &Engine, session: &str) {
    let request = v1::HeartbeatRequest {
        session_id: session.to_owned(),
    };
    let answer = call(&engine.channel, "Dispatcher/Heartbeat", &request).await;
    let answer: v1::HeartbeatResponse = answer.only().await;
    let period = answer.period.expect("agents look into it");
    assert!(period.seconds <= 5 && period.nanos >= 0, "{period:?}");
}

type Assigned = Answer<v1::AssignmentsMessage>;

/// The next assignments, which follow upon those before.
async fn assigned(stream: &mut Assigned, number: u32) -> Vec<(i32, Item)> {
    let message = stream.message().await.expect("the stream goes on");
    let (kind, before) = match number {
        1 => (Type::Complete, String::new()),
        _ => (Type::Incremental, (number - 1).to_string()),
    };
    assert_eq!(message.r#type(), kind, "{message:?}");
    assert_eq!(
        (message.applies_to, message.results_in),
        (before, number.to_string())
    );
    let item = |change: v1::AssignmentChange| {
        let assignment = change.assignment.expect("agents look into it");
        (change.action, assignment.item.expect("agents look into it"))
    };
    message.changes.into_iter().map(item).collect()
}

/// The first task with what it needs: all in one message, what it needs before it.
async fn first_task(
    world: &World,
    engine: &Engine,
    assignments: &mut Assigned,
) -> (v1::Service, v1::Task) {
    let (secret, config) = payloads(world).await;
    let spec = service(&engine.id, &secret, &config);
    let request = v1::CreateServiceRequest {
        spec: Some(spec.clone()),
    };
    let made = within(Box::pin(world.control().create_service(request))).await;
    let service = made.unwrap().into_inner().service.unwrap();
    let changes = assigned(assignments, 2).await;
    assert!(changes.iter().all(|(action, _)| *action == Update as i32));
    let mut items = changes.into_iter().map(|(_, item)| item);
    let (mut has_secret, mut has_config) = (false, false);
    let task = loop {
        match items.next().expect("the task comes last") {
            Item::Secret(sent) => {
                expect_meta(sent.meta.as_ref());
                assert_eq!(sent.id, secret.id);
                let spec = sent.spec.unwrap();
                assert_eq!(spec.annotations.unwrap().name, "sx");
                assert_eq!(&spec.data[..], b"topsecret");
                has_secret = true;
            }
            Item::Config(sent) => {
                expect_meta(sent.meta.as_ref());
                assert_eq!(sent.id, config.id);
                assert_eq!(&sent.spec.unwrap().data[..], b"conff");
                has_config = true;
            }
            Item::Task(task) => break task,
            Item::Volume(volume) => panic!("{volume:?}"),
        }
    };
    assert!(has_secret && has_config && items.next().is_none());
    task::expect_task(&task, &spec, &engine.id, v1::TaskState::Running);
    let status = task.status.as_ref().unwrap();
    assert_eq!(status.state(), v1::TaskState::Assigned);
    assert_eq!(status.message, "scheduler assigned task to node");
    assert!(status.timestamp.is_some());
    (service, task)
}

#[tokio::test]
async fn an_engine_gets_the_answers_that_it_got_from_its_own_manager() {
    let world = World::start().await;
    let engine = join(&world).await;
    let request = v1::SessionRequest {
        description: Some(engine.description.clone()),
        session_id: String::new(),
    };
    let mut session: Answer<v1::SessionMessage> =
        call(&engine.channel, "Dispatcher/Session", &request).await;
    assert_eq!(session.headers["content-type"], "application/grpc");
    let first = session.message().await.unwrap();
    let id = first.session_id.clone();
    expect_session(&world, &engine, &first, &id);

    // Three calls at once, on the same connection.
    let request = v1::ListenSubscriptionsRequest {};
    let listening = call(&engine.channel, "LogBroker/ListenSubscriptions", &request).await;
    let request = v1::AssignmentsRequest {
        session_id: id.clone(),
    };
    let mut assignments: Assigned = call(&engine.channel, "Dispatcher/Assignments", &request).await;
    beat(&engine, &id).await;
    assert!(assigned(&mut assignments, 1).await.is_empty());
    // The address comes with a message of its own when the allocator was slower.
    let mut node = first.node.unwrap();
    while node.attachments.is_empty() {
        let message = session.message().await.unwrap();
        expect_session(&world, &engine, &message, &id);
        node = message.node.unwrap();
    }
    expect_ingress(&node.attachments[0]);

    let (service, task) = Box::pin(first_task(&world, &engine, &mut assignments)).await;
    let host_port = task.endpoint.as_ref().unwrap().ports[1].clone();
    for status in task::reports(host_port) {
        let state = status.state();
        task::report(&engine, &id, &task.id, status.clone()).await;
        let stored = task::stored(&world, &task.id, state).await.status.unwrap();
        assert_eq!(stored.message, status.message);
        assert_eq!(stored.runtime_status, status.runtime_status);
        assert_eq!(stored.port_status, status.port_status);
        assert_eq!(stored.applied_by, "manager");
        assert!(stored.applied_at.is_some());
    }
    logs(&world, &engine, listening, &service, &task).await;
    let request = v1::AttachNetworkRequest {
        container_id: ENGINE_CONTAINER.to_owned(),
        ..Default::default()
    };
    let refused: Answer<v1::AttachNetworkResponse> =
        call(&engine.channel, "ResourceAllocator/AttachNetwork", &request).await;
    let (code, text) = refused.refusal().await;
    assert!(
        code == "12" && text.contains("AttachNetwork"),
        "{code} {text}"
    );
    label(&world, &engine, &mut session, &id).await;
    let told = (service, task);
    Box::pin(scale_down(&world, (&engine, &id), &mut assignments, told)).await;
    beat(&engine, &id).await;
    // It resets its streams and leaves.
    drop((assignments, session, engine));
    world.finish().await;
}

/// The label of a node leads to a whole new message.
async fn label(world: &World, engine: &Engine, session: &mut Answer<v1::SessionMessage>, id: &str) {
    let mut control = world.control();
    let request = v1::GetNodeRequest {
        node_id: engine.id.clone(),
    };
    let node = within(control.get_node(request)).await.unwrap();
    let node = node.into_inner().node.unwrap();
    let mut spec = node.spec.unwrap();
    let labels = &mut spec.annotations.get_or_insert_default().labels;
    labels.insert("zone".to_owned(), "a".to_owned());
    let request = v1::UpdateNodeRequest {
        node_id: engine.id.clone(),
        node_version: node.meta.unwrap().version,
        spec: Some(spec),
    };
    within(control.update_node(request)).await.unwrap();
    loop {
        let message = session.message().await.unwrap();
        expect_session(world, engine, &message, id);
        let annotations = message.node.unwrap().spec.unwrap().annotations.unwrap();
        if annotations.labels.contains_key("zone") {
            break;
        }
    }
}

/// The task is to be removed: it is sent once more, whole, and taken away when it has stopped.
async fn scale_down(
    world: &World,
    (engine, session): (&Engine, &str),
    assignments: &mut Assigned,
    (service, task): (v1::Service, v1::Task),
) {
    let mut control = world.control();
    let request = v1::GetServiceRequest {
        service_id: service.id.clone(),
        ..Default::default()
    };
    let stored = within(control.get_service(request)).await.unwrap();
    let stored = stored.into_inner().service.unwrap();
    let mut spec = stored.spec.unwrap();
    spec.mode = Some(replicas(0));
    let request = v1::UpdateServiceRequest {
        service_id: stored.id,
        service_version: stored.meta.unwrap().version,
        spec: Some(spec),
        ..Default::default()
    };
    within(Box::pin(control.update_service(request)))
        .await
        .unwrap();
    let [(action, Item::Task(told))] = &assigned(assignments, 3).await[..] else {
        panic!("only the task has changed");
    };
    assert_eq!((*action, &told.id), (Update as i32, &task.id));
    let spec = service.spec.unwrap();
    task::expect_task(told, &spec, &engine.id, v1::TaskState::Remove);
    let status = told.status.as_ref().unwrap();
    assert_eq!(
        (status.state(), &*status.message),
        (v1::TaskState::Running, "started")
    );
    assert!(status.port_status.as_ref().unwrap().ports.len() == 2);
    // It repeats itself first, now with the code of a process that has none.
    let mut again = status.clone();
    let container = v1::ContainerStatus {
        container_id: ENGINE_CONTAINER.to_owned(),
        pid: 5291,
        exit_code: -1,
    };
    again.runtime_status = Some(v1::task_status::RuntimeStatus::Container(container));
    task::report(engine, session, &task.id, again.clone()).await;
    let ended = v1::TaskStatus {
        state: v1::TaskState::Shutdown as i32,
        message: "shutdown".to_owned(),
        ..again
    };
    task::report(engine, session, &task.id, ended).await;
    // What it needed goes with it, named by its id alone.
    let mut removed = Vec::new();
    let mut number = 4;
    while removed.len() < 3 {
        for (action, item) in assigned(assignments, number).await {
            assert_eq!(action, Remove as i32, "{item:?}");
            removed.push(match item {
                Item::Task(gone) => {
                    assert!(gone.node_id.is_empty() && gone.id == task.id, "{gone:?}");
                    "task"
                }
                Item::Secret(gone) => {
                    assert!(gone.spec.is_none() && is_id(&gone.id), "{gone:?}");
                    "secret"
                }
                Item::Config(gone) => {
                    assert!(gone.spec.is_none() && is_id(&gone.id), "{gone:?}");
                    "config"
                }
                Item::Volume(volume) => panic!("{volume:?}"),
            });
        }
        number += 1;
    }
    removed.sort_unstable();
    assert_eq!(removed, ["config", "secret", "task"]);
}
