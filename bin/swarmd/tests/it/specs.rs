//! Services for the tests.

use std::time::Duration;

use swarm_api::v1;
use swarm_types::time::duration_to_wire;

use crate::cluster::Cluster;
use crate::daemon::SWARMD;

/// Pause before an ended task is replaced.
pub(crate) const RESTART_DELAY: Duration = Duration::from_millis(300);

/// The example web service, replica n on port `base + n`.
pub(crate) fn web(cluster: &Cluster, name: &str, replicas: u64, base: u16) -> v1::ServiceSpec {
    let port = base.to_string();
    hello(cluster, name, replicas, &["--port-base", &port])
}

/// A service that does nothing but run.
pub(crate) fn idle(cluster: &Cluster, name: &str, replicas: u64) -> v1::ServiceSpec {
    hello(cluster, name, replicas, &["--listen", "127.0.0.1:0"])
}

fn hello(cluster: &Cluster, name: &str, replicas: u64, args: &[&str]) -> v1::ServiceSpec {
    let directory = cluster.path().display();
    let container = v1::ContainerSpec {
        image: "host".to_owned(),
        command: vec![SWARMD.to_owned(), "hello-web".to_owned()],
        args: args.iter().map(|&word| word.to_owned()).collect(),
        // By this the tests know their processes.
        env: vec![format!("SWARMD_TEST={directory}")],
        ..Default::default()
    };
    service(name, replicas, container)
}

/// A replicated service that is restarted whatever happens.
pub(crate) fn service(name: &str, replicas: u64, container: v1::ContainerSpec) -> v1::ServiceSpec {
    let restart = v1::RestartPolicy {
        condition: v1::restart_policy::RestartCondition::Any as i32,
        delay: Some(duration_to_wire(RESTART_DELAY)),
        ..Default::default()
    };
    v1::ServiceSpec {
        annotations: Some(annotations(name)),
        task: Some(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            restart: Some(restart),
            ..Default::default()
        }),
        mode: Some(v1::service_spec::Mode::Replicated(v1::ReplicatedService {
            replicas,
        })),
        ..Default::default()
    }
}

pub(crate) fn annotations(name: &str) -> v1::Annotations {
    v1::Annotations {
        name: name.to_owned(),
        ..Default::default()
    }
}

/// The container of a replicated service.
pub(crate) fn container(spec: &mut v1::ServiceSpec) -> &mut v1::ContainerSpec {
    let task = spec.task.as_mut().expect("it has a template");
    match &mut task.runtime {
        Some(v1::task_spec::Runtime::Container(container)) => container,
        Some(v1::task_spec::Runtime::Attachment(_) | v1::task_spec::Runtime::Generic(_)) | None => {
            panic!("it has a container")
        }
    }
}
