//! The task of the capture: what is assigned, what the engine reports, what is stored.

use super::*;

/// The parts of a task that engines dereference, and the words that the manager of the capture
/// said.
pub(super) fn expect_task(
    task: &v1::Task,
    spec: &v1::ServiceSpec,
    node: &str,
    desired: v1::TaskState,
) {
    assert!(is_id(&task.id));
    expect_meta(task.meta.as_ref());
    assert_eq!(task.spec, spec.task, "byte for byte what the user wrote");
    assert_eq!((task.node_id.as_str(), task.slot), (node, 1));
    assert!(is_id(&task.service_id));
    assert!(task.spec_version.is_some());
    assert_eq!(task.service_annotations.as_ref().unwrap().name, "s1");
    assert_eq!(task.desired_state(), desired);
    let [attachment] = &task.networks[..] else {
        panic!("{:?}", task.networks);
    };
    expect_ingress(attachment);
    let endpoint = task.endpoint.as_ref().expect("engines look into it");
    let wanted = &spec.endpoint.as_ref().unwrap().ports;
    assert_eq!(&endpoint.spec.as_ref().unwrap().ports, wanted);
    assert_eq!(&endpoint.ports, wanted);
    let [virtual_ip] = &endpoint.virtual_ips[..] else {
        panic!("{:?}", endpoint.virtual_ips);
    };
    assert_eq!(
        virtual_ip.network_id,
        attachment.network.as_ref().unwrap().id
    );
    assert!(virtual_ip.addr.ends_with("/24"), "{virtual_ip:?}");
    assert_ne!(virtual_ip.addr, attachment.addresses[0]);
}

/// The five reports of the engine, with what each of them had.
pub(super) fn reports(host_port: v1::PortConfig) -> [v1::TaskStatus; 5] {
    use v1::TaskState::{Accepted, Preparing, Ready, Running, Starting};
    let plain = |state: v1::TaskState, message: &str| v1::TaskStatus {
        timestamp: Some(Clock::new().now().to_wire()),
        state: state as i32,
        message: message.to_owned(),
        ..Default::default()
    };
    let container = |pid| {
        v1::task_status::RuntimeStatus::Container(v1::ContainerStatus {
            container_id: ENGINE_CONTAINER.to_owned(),
            pid,
            exit_code: 0,
        })
    };
    let mut starting = plain(Starting, "starting");
    starting.runtime_status = Some(container(0));
    starting.port_status = Some(v1::PortStatus::default());
    let mut running = plain(Running, "started");
    running.runtime_status = Some(container(5291));
    // It reports the port once for each address of the machine.
    running.port_status = Some(v1::PortStatus {
        ports: vec![host_port.clone(), host_port],
    });
    [
        plain(Accepted, "accepted"),
        plain(Preparing, "preparing"),
        plain(Ready, "prepared"),
        starting,
        running,
    ]
}

/// Reports a status, as the engine does: one call for each.
pub(super) async fn report(engine: &Engine, session: &str, task: &str, status: v1::TaskStatus) {
    let request = v1::UpdateTaskStatusRequest {
        session_id: session.to_owned(),
        updates: vec![v1::update_task_status_request::TaskStatusUpdate {
            task_id: task.to_owned(),
            status: Some(status),
        }],
    };
    let answer = call(&engine.channel, "Dispatcher/UpdateTaskStatus", &request).await;
    let _: v1::UpdateTaskStatusResponse = answer.only().await;
}

/// The task as it is stored, once it has this state.
pub(super) async fn stored(world: &World, id: &str, state: v1::TaskState) -> v1::Task {
    within(async {
        loop {
            let request = v1::GetTaskRequest {
                task_id: id.to_owned(),
            };
            let task = world.control().get_task(request).await.unwrap();
            let task = task.into_inner().task.unwrap();
            if task.status.as_ref().unwrap().state() == state {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}
