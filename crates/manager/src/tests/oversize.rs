//! What is too large for one write, with a real log: it must stop neither the cluster nor itself.

use swarm_rt::metrics::Refused;
use swarm_types::{Task, TaskState};
use v1::update_task_status_request::TaskStatusUpdate;

use super::world::{World, begin};
use super::*;

/// Twelve replicas of which three do not fit one entry of the log.
fn large_service() -> v1::ServiceSpec {
    let filler = "x".repeat(131_000);
    let container = v1::ContainerSpec {
        image: "host".into(),
        command: vec!["sleep".into()],
        env: ["A", "B", "C", "D"]
            .map(|name| format!("{name}={filler}"))
            .into(),
        ..Default::default()
    };
    v1::ServiceSpec {
        annotations: Some(v1::Annotations {
            name: "big".into(),
            ..Default::default()
        }),
        task: Some(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas: 12,
        })),
        ..Default::default()
    }
}

/// The tasks of the store, once all of them are in a state.
async fn all_in(world: &World, state: TaskState) -> Vec<String> {
    let store = world.manager.store();
    let settled = async {
        loop {
            let view = store.view();
            let tasks: Vec<_> = view.all::<Task>().cloned().collect();
            if tasks.len() == 12 && tasks.iter().all(|task| task.state() == state) {
                return tasks.iter().map(|task| task.id.to_string()).collect();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    match tokio::time::timeout(DEADLINE, settled).await {
        Ok(tasks) => tasks,
        Err(_) => {
            let view = store.view();
            let states: Vec<_> = view.all::<Task>().map(|task| task.state()).collect();
            panic!("not all tasks are {state}: {states:?}");
        }
    }
}

#[tokio::test]
async fn statuses_that_do_not_fit_one_write_together_are_stored() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let (first, stream) = begin(&mut client, "").await;
    let create = v1::CreateServiceRequest {
        spec: Some(large_service()),
    };
    let mut control = world.control();
    within(Box::pin(control.create_service(create)))
        .await
        .unwrap();
    let tasks = all_in(&world, TaskState::Assigned).await;
    let running = |task_id: String| TaskStatusUpdate {
        task_id,
        status: Some(v1::TaskStatus {
            state: v1::TaskState::Running as i32,
            message: "m".repeat(100_000),
            ..Default::default()
        }),
    };
    let report = v1::UpdateTaskStatusRequest {
        session_id: first.session_id,
        updates: tasks.into_iter().map(running).collect(),
    };
    within(client.update_task_status(report)).await.unwrap();
    all_in(&world, TaskState::Running).await;
    // Each message was cut, and that was counted.
    world.refused(Refused::OversizedReport, 12).await;
    drop((stream, client));
    world.finish().await;
}

#[tokio::test]
async fn a_description_that_is_too_large_is_refused_and_the_node_may_say_less() {
    let world = World::start().await;
    let (node, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    let labels = [("rack".to_owned(), "x".repeat(1_600_000))].into();
    let request = v1::SessionRequest {
        description: Some(v1::NodeDescription {
            hostname: "w".into(),
            engine: Some(v1::EngineDescription {
                labels,
                ..Default::default()
            }),
            ..Default::default()
        }),
        session_id: String::new(),
    };
    let refused = within(client.session(request)).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted, "{refused:?}");
    let text = refused.message();
    assert!(text.contains(&node) && text.contains("65536"), "{text}");
    world.refused(Refused::OversizedReport, 1).await;
    let (_, stream) = begin(&mut client, "").await;
    drop((stream, client));
    world.finish().await;
}
