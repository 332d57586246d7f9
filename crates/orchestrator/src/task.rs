//! How an orchestrator makes a task (spec 4.2). Does not own its later life.

use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{
    Cluster, NodeId, Service, Slot, Task, TaskBody, TaskId, TaskState, TaskStatus, Timestamp,
};

/// Where a new task belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The replica of this number, on whatever node the scheduler finds.
    Slot(Slot),
    /// This node, for global services.
    Node(NodeId),
}

/// What all new tasks of one version of a service share; made once for many tasks, so that they
/// point at the same memory.
#[derive(Clone, Debug)]
pub struct Template<'a> {
    service: &'a Service,
    endpoint: Arc<v1::Endpoint>,
    log_driver: Option<Arc<v1::Driver>>,
}

impl<'a> Template<'a> {
    /// Prepares tasks of a service. The log driver is the task's own or else the cluster's default.
    pub fn new(service: &'a Service, cluster: Option<&Cluster>) -> Self {
        let of_cluster = || {
            let defaults = cluster?.spec.task_defaults.as_ref()?;
            defaults.log_driver.as_ref()
        };
        let log_driver = service.spec.task().log_driver.as_ref();
        Self {
            service,
            endpoint: Arc::new(v1::Endpoint {
                spec: service.spec.endpoint.clone(),
                ..Default::default()
            }),
            log_driver: log_driver.or_else(of_cluster).cloned().map(Arc::new),
        }
    }

    /// A task in state NEW with a desired state: RUNNING for a first start, READY for a
    /// replacement that has a delay before it.
    pub fn task(&self, id: TaskId, place: &Place, desired: TaskState, now: Timestamp) -> Task {
        let (slot, node_id) = match place {
            Place::Slot(slot) => (*slot, None),
            Place::Node(node) => (Slot(0), Some(node.clone())),
        };
        let body = TaskBody {
            spec: Arc::clone(self.service.spec.task()),
            spec_version: self.service.spec_version,
            service_id: Some(self.service.id.clone()),
            slot,
            service_annotations: Arc::clone(self.service.spec.annotations()),
            endpoint: Some(Arc::clone(&self.endpoint)),
            log_driver: self.log_driver.clone(),
            ..TaskBody::default()
        };
        let mut task = Task::with_body(id, body)
            .with_states(TaskStatus::new(TaskState::New, now, "created"), desired);
        task.node_id = node_id;
        task
    }
}

/// One new task that wants to run.
pub fn new_task(
    service: &Service,
    cluster: Option<&Cluster>,
    place: &Place,
    id: TaskId,
    now: Timestamp,
) -> Task {
    Template::new(service, cluster).task(id, place, TaskState::Running, now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::{ServiceSpec, Version};

    fn driver(name: &str) -> Option<v1::Driver> {
        Some(v1::Driver {
            name: name.to_owned(),
            ..Default::default()
        })
    }

    fn service(log_driver: Option<v1::Driver>) -> Service {
        let spec = ServiceSpec::new(v1::ServiceSpec {
            annotations: Some(v1::Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            task: Some(v1::TaskSpec {
                log_driver,
                ..Default::default()
            }),
            endpoint: Some(v1::EndpointSpec::default()),
            ..Default::default()
        });
        let mut service = Service::new("s".parse().unwrap(), spec);
        service.spec_version = Some(Version(7));
        service
    }

    fn make(service: &Service, cluster: Option<&Cluster>, place: &Place) -> Task {
        let now = Timestamp::from_millis(5);
        new_task(service, cluster, place, "t".parse().unwrap(), now)
    }

    #[test]
    fn a_new_task_carries_what_its_service_says() {
        let service = service(None);
        let task = make(&service, None, &Place::Slot(Slot(3)));
        assert_eq!(task.slot, Slot(3));
        assert_eq!(task.node_id, None);
        assert_eq!(task.service_id, Some(service.id.clone()));
        assert_eq!(task.spec_version, Some(Version(7)));
        assert_eq!(task.service_annotations.name, "web");
        assert_eq!(task.desired_state(), TaskState::Running);
        let status = task.status();
        assert_eq!(
            (status.state, status.message.as_str()),
            (TaskState::New, "created")
        );
        assert_eq!(status.timestamp, Some(Timestamp::from_millis(5)));
        let endpoint = task.endpoint.as_deref().unwrap();
        assert_eq!(endpoint.spec, service.spec.endpoint);
        assert!(Arc::ptr_eq(&task.spec, service.spec.task()));
    }

    #[test]
    fn a_task_of_a_global_service_has_a_node_and_no_slot() {
        let node: NodeId = "n".parse().unwrap();
        let task = make(&service(None), None, &Place::Node(node.clone()));
        assert_eq!((task.slot, task.node_id), (Slot(0), Some(node)));
    }

    #[test]
    fn the_own_log_driver_goes_before_that_of_the_cluster() {
        let cluster = Cluster::new(
            "c".parse().unwrap(),
            v1::ClusterSpec {
                task_defaults: Some(v1::TaskDefaults {
                    log_driver: driver("default"),
                }),
                ..Default::default()
            },
        );
        let name = |service, cluster| {
            let task = make(service, cluster, &Place::Slot(Slot(1)));
            task.log_driver.as_ref().map(|driver| driver.name.clone())
        };
        let (own, none) = (service(driver("own")), service(None));
        assert_eq!(name(&own, Some(&cluster)).as_deref(), Some("own"));
        assert_eq!(name(&none, Some(&cluster)).as_deref(), Some("default"));
        assert_eq!(name(&none, None), None);
    }
}
