//! Services for an engine.

use swarm_api::{prost_types, v1};
use v1::mount::Type;
use v1::port_config::PublishMode;

use crate::engine::IMAGE;

/// A service of one replica that runs a shell script.
pub(crate) fn script(name: &str, script: &str) -> v1::ServiceSpec {
    let container = v1::ContainerSpec {
        image: IMAGE.to_owned(),
        command: ["sh", "-c", script].map(str::to_owned).to_vec(),
        stop_grace_period: Some(seconds(1)),
        ..Default::default()
    };
    v1::ServiceSpec {
        annotations: Some(annotations(name)),
        task: Some(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            restart: Some(v1::RestartPolicy {
                condition: v1::restart_policy::RestartCondition::Any as i32,
                delay: Some(prost_types::Duration {
                    seconds: 0,
                    nanos: 200_000_000,
                }),
                ..Default::default()
            }),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas: 1,
        })),
        ..Default::default()
    }
}

/// One that does nothing until it is told to stop.
pub(crate) fn idle(name: &str) -> v1::ServiceSpec {
    script(name, "trap 'exit 0' TERM; while :; do sleep 1; done")
}

pub(crate) fn replicas(mut spec: v1::ServiceSpec, replicas: u64) -> v1::ServiceSpec {
    let replicated = v1::ReplicatedService { replicas };
    spec.mode = Some(v1::service_spec::Mode::Replicated(replicated));
    spec
}

pub(crate) fn global(mut spec: v1::ServiceSpec) -> v1::ServiceSpec {
    spec.mode = Some(v1::service_spec::Mode::Global(v1::GlobalService {}));
    spec
}

pub(crate) fn published(
    mut spec: v1::ServiceSpec,
    port: u32,
    target: u32,
    mode: PublishMode,
) -> v1::ServiceSpec {
    let endpoint = spec.endpoint.get_or_insert_default();
    endpoint.ports.push(v1::PortConfig {
        target_port: target,
        published_port: port,
        publish_mode: mode as i32,
        ..Default::default()
    });
    spec
}

pub(crate) fn on_network(mut spec: v1::ServiceSpec, network: &str) -> v1::ServiceSpec {
    let task = spec.task.get_or_insert_default();
    task.networks.push(v1::NetworkAttachmentConfig {
        target: network.to_owned(),
        ..Default::default()
    });
    spec
}

pub(crate) fn container(spec: &mut v1::ServiceSpec) -> &mut v1::ContainerSpec {
    match &mut spec.task.as_mut().unwrap().runtime {
        Some(v1::task_spec::Runtime::Container(container)) => container,
        other => panic!("no container: {other:?}"),
    }
}

pub(crate) fn limited(mut spec: v1::ServiceSpec, memory_bytes: i64) -> v1::ServiceSpec {
    let task = spec.task.as_mut().unwrap();
    let resources = task.resources.get_or_insert_default();
    resources.limits.get_or_insert_default().memory_bytes = memory_bytes;
    spec
}

pub(crate) fn mount(kind: Type, source: &str, target: &str) -> v1::Mount {
    v1::Mount {
        r#type: kind as i32,
        source: source.to_owned(),
        target: target.to_owned(),
        ..Default::default()
    }
}

/// Where a secret or config appears in a container.
pub(crate) fn file(name: &str) -> v1::FileTarget {
    v1::FileTarget {
        name: name.to_owned(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode: 0o444,
    }
}

pub(crate) fn annotations(name: &str) -> v1::Annotations {
    v1::Annotations {
        name: name.to_owned(),
        ..Default::default()
    }
}

pub(crate) fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}
