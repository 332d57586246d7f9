use swarm_api::v1;
use swarm_types::{ServiceSpec, Version};
use v1::task_spec::Runtime;

use super::*;
use crate::tests::world::{
    World, container, port, web, with, with_container, with_ports, with_task,
};

/// A task of the first spec in a state, judged against the second spec.
fn judged(
    from: v1::ServiceSpec,
    to: v1::ServiceSpec,
    state: TaskState,
    node: Option<&Node>,
) -> Option<&'static str> {
    let mut world = World::new();
    let stored = world.create(from).unwrap().id;
    let task = world.task(&"t".repeat(3), &stored, "n", state);
    let mut service = world.service(&stored).clone();
    service.spec = ServiceSpec::new(to);
    service.spec_version = Some(Version(77));
    reason_to_replace(&service, &task, node)
}

fn constrained(expression: &str) -> v1::ServiceSpec {
    with_task(|task| {
        task.placement = Some(v1::Placement {
            constraints: vec![expression.to_owned()],
            ..Default::default()
        });
    })
}

fn node() -> Node {
    World::new().node("n")
}

#[test]
fn an_equal_spec_version_excuses_everything() {
    let mut world = World::new();
    let stored = world.create(web("web")).unwrap().id;
    let task = world.task("t", &stored, "n", TaskState::Running);
    let mut service = world.service(&stored).clone();
    service.spec = ServiceSpec::new(with_container(|container| container.dir = "/x".to_owned()));
    assert_eq!(reason_to_replace(&service, &task, None), None);
    service.spec_version = Some(Version(5));
    assert_eq!(
        reason_to_replace(&service, &task, None),
        Some("task.container.dir")
    );
    // Two absent versions are not equal versions.
    service.spec_version = None;
    let mut unversioned = task;
    unversioned.spec_version = None;
    assert!(!is_task_up_to_date(&service, &unversioned, None));
}

#[test]
fn what_is_not_in_the_template_does_not_count() {
    let to = with(web("web"), |spec| {
        spec.mode = Some(crate::tests::world::replicated(9));
        spec.update = Some(v1::UpdateConfig::default());
        spec.annotations.as_mut().unwrap().labels = [("a".to_owned(), "b".to_owned())].into();
    });
    assert_eq!(judged(web("web"), to, TaskState::Running, None), None);
}

#[test]
fn moved_placement_is_excused_while_the_node_satisfies_it() {
    let fits = constrained("node.id == n");
    let other = constrained("node.id != n");
    let node = node();
    let judge =
        |to: &v1::ServiceSpec, node| judged(web("web"), to.clone(), TaskState::Running, node);
    assert_eq!(judge(&fits, Some(&node)), None);
    assert_eq!(judge(&fits, None), Some(spec::PLACEMENT));
    assert_eq!(judge(&other, Some(&node)), Some(spec::PLACEMENT));
    // Together with anything else it is no excuse.
    let both = with(fits, |spec| {
        spec.task.as_mut().unwrap().force_update = 1;
    });
    assert!(judge(&both, Some(&node)).is_some());
}

#[test]
fn new_credentials_matter_only_until_the_image_is_there() {
    let to = with_container(|container| {
        container.pull_options = Some(v1::container_spec::PullOptions::default());
    });
    let judge = |state| judged(web("web"), to.clone(), state, None);
    assert_eq!(judge(TaskState::Preparing), Some(spec::PULL_OPTIONS));
    assert_eq!(judge(TaskState::Ready), None);
    assert_eq!(judge(TaskState::Running), None);
    assert_eq!(judge(TaskState::Complete), Some(spec::PULL_OPTIONS));
}

#[test]
fn another_endpoint_counts_only_for_a_task_that_has_one() {
    use v1::port_config::PublishMode::Host;
    let from = with_ports("web", vec![port(Host, 80)]);
    let to = with_ports("web", vec![port(Host, 81)]);
    let judge = |from: &v1::ServiceSpec, to: &v1::ServiceSpec| {
        judged(from.clone(), to.clone(), TaskState::Running, None)
    };
    assert_eq!(judge(&from, &to), Some("endpoint"));
    assert_eq!(judge(&from, &from), None);
    assert_eq!(judge(&web("web"), &to), None);
}

#[test]
fn a_constraint_that_does_not_parse_excludes_no_node() {
    let mut world = World::new();
    let stored = world.create(web("web")).unwrap().id;
    let task = world.task("t", &stored, "n", TaskState::Running);
    let mut service = world.service(&stored).clone();
    service.spec_version = Some(Version(5));
    service.spec = ServiceSpec::new(v1::ServiceSpec {
        task: Some(v1::TaskSpec {
            runtime: Some(Runtime::Container(container())),
            placement: Some(v1::Placement {
                constraints: vec!["nonsense".to_owned()],
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    assert_eq!(reason_to_replace(&service, &task, Some(&node())), None);
}
