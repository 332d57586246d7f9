use std::sync::Arc;

use super::*;
use crate::objects::{ServiceSpec, Version};
use crate::task::TaskStatus;
use crate::time::Timestamp;

fn template(image: &str) -> v1::TaskSpec {
    v1::TaskSpec {
        runtime: Some(Runtime::Container(v1::ContainerSpec {
            image: image.to_owned(),
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn service(task: v1::TaskSpec) -> Service {
    let wire = v1::ServiceSpec {
        task: Some(task),
        ..Default::default()
    };
    let mut service = Service::new("s".parse().unwrap(), ServiceSpec::new(wire));
    service.spec_version = Some(Version(2));
    service
}

/// A running task made from the template at an earlier version.
fn task(spec: v1::TaskSpec) -> Task {
    in_states(spec, TaskState::Running, TaskState::Running)
}

fn in_states(spec: v1::TaskSpec, state: TaskState, desired: TaskState) -> Task {
    let status = TaskStatus::new(state, Timestamp::EPOCH, "");
    let mut task = Task::new("t".parse().unwrap(), Arc::new(spec)).with_states(status, desired);
    task.spec_version = Some(Version(1));
    task.endpoint = Some(Arc::default());
    task
}

fn node(label: &str) -> Node {
    let mut spec = v1::NodeSpec::default();
    let annotations = spec.annotations.get_or_insert_default();
    annotations.labels.insert("k".to_owned(), label.to_owned());
    Node::new("n".parse().unwrap(), spec)
}

#[test]
fn equal_spec_versions_are_clean_whatever_the_specs_say() {
    let service = service(template("a"));
    let mut task = task(template("b"));
    assert!(is_dirty(&service, &task, None));
    task.spec_version = Some(Version(2));
    assert!(!is_dirty(&service, &task, None));
}

#[test]
fn two_missing_spec_versions_say_nothing() {
    let mut service = service(template("a"));
    let mut task = task(template("b"));
    (service.spec_version, task.spec_version) = (None, None);
    assert!(is_dirty(&service, &task, None));
}

#[test]
fn labels_of_the_service_do_not_count_and_its_endpoint_does() {
    let mut wire = service(template("a")).spec.wire().clone();
    let task = task(template("a"));
    let of = |wire: &v1::ServiceSpec| {
        let mut service = service(template("a"));
        service.spec = ServiceSpec::new(wire.clone());
        service
    };
    let labels = &mut wire.annotations.get_or_insert_default().labels;
    labels.insert("k".to_owned(), "v".to_owned());
    assert!(!is_dirty(&of(&wire), &task, None));
    wire.endpoint = Some(v1::EndpointSpec::default());
    assert!(is_dirty(&of(&wire), &task, None));
}

#[test]
fn a_task_without_an_endpoint_is_not_compared_by_it() {
    let mut wire = service(template("a")).spec.wire().clone();
    wire.endpoint = Some(v1::EndpointSpec::default());
    let mut service = service(template("a"));
    service.spec = ServiceSpec::new(wire);
    let mut task = task(template("a"));
    task.endpoint = None;
    assert!(!is_dirty(&service, &task, None));
}

#[test]
fn credentials_count_only_until_the_image_is_there() {
    let with_credentials = |mut spec: v1::TaskSpec| {
        if let Some(Runtime::Container(container)) = &mut spec.runtime {
            container.pull_options.get_or_insert_default().registry_auth = "x".to_owned();
        }
        spec
    };
    let service = service(with_credentials(template("a")));
    let cases = [
        (TaskState::Preparing, TaskState::Running, true),
        (TaskState::Ready, TaskState::Running, false),
        (TaskState::Running, TaskState::Running, false),
        (TaskState::Complete, TaskState::Running, true),
        (TaskState::Running, TaskState::Shutdown, true),
    ];
    for (state, desired, dirty) in cases {
        let task = in_states(template("a"), state, desired);
        assert_eq!(is_dirty(&service, &task, None), dirty, "{state} {desired}");
    }
}

#[test]
fn a_change_of_placement_alone_keeps_tasks_on_nodes_that_satisfy_it() {
    let placed = |image| {
        let mut spec = template(image);
        spec.placement.get_or_insert_default().constraints = vec!["node.labels.k==v".to_owned()];
        spec
    };
    let changed = service(placed("a"));
    let running = task(template("a"));
    assert!(!is_dirty(&changed, &running, Some(&node("v"))));
    assert!(is_dirty(&changed, &running, Some(&node("w"))));
    assert!(is_dirty(&changed, &running, None));
    let other_image = service(placed("b"));
    assert!(is_dirty(&other_image, &running, Some(&node("v"))));
}

#[test]
fn a_forced_update_makes_everything_dirty() {
    let mut forced = template("a");
    forced.force_update = 1;
    assert!(is_dirty(&service(forced), &task(template("a")), None));
}
