use std::collections::BTreeMap;

use swarm_types::{Slot, Version};

use super::*;
use crate::Code;
use crate::tests::world::{World, id, ids, web, with};

fn listed(world: &World, filters: v1::list_tasks_request::Filters) -> Vec<String> {
    let request = v1::ListTasksRequest {
        filters: Some(filters),
    };
    let answer = list_tasks(&world.root, request).unwrap();
    ids(&answer.tasks, |task| &task.id)
}

fn filters() -> v1::list_tasks_request::Filters {
    v1::list_tasks_request::Filters::default()
}

/// Service `web` with tasks `t1` on `n1` and `t2` on `n2`, and a task `t3` without a service.
fn world() -> (World, String) {
    let mut world = World::new();
    let spec = with(web("Web"), |spec| {
        let annotations = spec.annotations.as_mut().unwrap();
        annotations.labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
    });
    let service = world.create(spec).unwrap().id;
    world.task("t1", &service, "n1", TaskState::Running);
    let mut second = world
        .task_of("t2", &service, "n2", TaskState::Ready)
        .with_states(Default::default(), TaskState::Shutdown);
    second.slot = Slot(2);
    world.put(second);
    let spec = v1::TaskSpec {
        runtime: Some(v1::task_spec::Runtime::Generic(v1::GenericRuntimeSpec {
            kind: "Plugin".to_owned(),
            payload: None,
        })),
        ..Default::default()
    };
    world.put(Task::new(id("t3"), Arc::new(spec)));
    (world, service)
}

#[test]
fn without_filters_all_tasks_are_listed_in_order() {
    let (world, _) = world();
    let answer = list_tasks(&world.root, v1::ListTasksRequest::default()).unwrap();
    assert_eq!(ids(&answer.tasks, |task| &task.id), ["t1", "t2", "t3"]);
}

#[test]
fn tasks_are_found_by_their_derived_name_with_case() {
    let (world, _) = world();
    let by_names = |names: &[&str]| {
        listed(
            &world,
            v1::list_tasks_request::Filters {
                names: names.iter().map(|name| (*name).to_owned()).collect(),
                ..filters()
            },
        )
    };
    assert_eq!(by_names(&["Web.1.t1"]), ["t1"]);
    assert_eq!(by_names(&["web.1.t1"]), [""; 0]);
    assert_eq!(by_names(&["Web.2.t2", "Web.1.t1"]), ["t1", "t2"]);
    let prefixed = |prefix: &str| {
        listed(
            &world,
            v1::list_tasks_request::Filters {
                name_prefixes: vec![prefix.to_owned()],
                ..filters()
            },
        )
    };
    assert_eq!(prefixed("Web."), ["t1", "t2"]);
    assert_eq!(prefixed("Web.2"), ["t2"]);
    assert_eq!(prefixed("web"), [""; 0]);
}

#[test]
fn tasks_are_found_by_id_service_node_runtime_and_desired_state() {
    let (world, service) = world();
    let ids = |filters| listed(&world, filters);
    let texts = |texts: &[&str]| {
        texts
            .iter()
            .map(|text| (*text).to_owned())
            .collect::<Vec<_>>()
    };
    type Filters = v1::list_tasks_request::Filters;
    let id_prefixes = texts(&["t2", "t3", "x"]);
    assert_eq!(
        ids(Filters {
            id_prefixes,
            ..filters()
        }),
        ["t2", "t3"]
    );
    let service_ids = vec![service.clone(), "gone".to_owned()];
    assert_eq!(
        ids(Filters {
            service_ids,
            ..filters()
        }),
        ["t1", "t2"]
    );
    let node_ids = texts(&["n2"]);
    assert_eq!(
        ids(Filters {
            node_ids,
            ..filters()
        }),
        ["t2"]
    );
    let runtimes = texts(&["container"]);
    assert_eq!(
        ids(Filters {
            runtimes,
            ..filters()
        }),
        ["t1", "t2"]
    );
    let runtimes = texts(&["plugin"]);
    assert_eq!(
        ids(Filters {
            runtimes,
            ..filters()
        }),
        ["t3"]
    );
    let desired_states = vec![v1::TaskState::Shutdown as i32];
    assert_eq!(
        ids(Filters {
            desired_states,
            ..filters()
        }),
        ["t2"]
    );
    let labels = BTreeMap::from([("tier".to_owned(), "front".to_owned())]);
    assert_eq!(
        ids(Filters {
            labels,
            ..filters()
        }),
        ["t1", "t2"]
    );
    let both = Filters {
        service_ids: vec![service],
        node_ids: texts(&["n1"]),
        ..filters()
    };
    assert_eq!(ids(both), ["t1"], "fields are combined");
}

#[test]
fn texts_that_are_no_ids_match_nothing() {
    let (world, _) = world();
    let long = "x".repeat(257);
    let service_ids = vec![long.clone()];
    let found = listed(
        &world,
        v1::list_tasks_request::Filters {
            service_ids,
            ..filters()
        },
    );
    assert_eq!(found, [""; 0]);
    let node_ids = vec![long];
    let found = listed(
        &world,
        v1::list_tasks_request::Filters {
            node_ids,
            ..filters()
        },
    );
    assert_eq!(found, [""; 0]);
}

#[test]
fn more_values_than_index_lookups_give_the_same_answer() {
    let (world, service) = world();
    let mut service_ids: Vec<String> = (0..100).map(|number| format!("none-{number}")).collect();
    service_ids.push(service);
    let found = listed(
        &world,
        v1::list_tasks_request::Filters {
            service_ids,
            ..filters()
        },
    );
    assert_eq!(found, ["t1", "t2"]);
}

#[test]
fn an_unknown_desired_state_is_refused() {
    let (world, _) = world();
    let request = v1::ListTasksRequest {
        filters: Some(v1::list_tasks_request::Filters {
            desired_states: vec![1],
            ..filters()
        }),
    };
    let refusal = list_tasks(&world.root, request).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
}

#[test]
fn up_to_date_leaves_out_outdated_tasks_and_tasks_without_a_service() {
    let (mut world, service) = world();
    let mut outdated = world.task_of("t2", &service, "n2", TaskState::Running);
    outdated.spec = Arc::default();
    outdated.spec_version = Some(Version(99));
    world.put(outdated);
    let found = listed(
        &world,
        v1::list_tasks_request::Filters {
            up_to_date: true,
            ..filters()
        },
    );
    assert_eq!(found, ["t1"]);
}

#[test]
fn a_task_is_read_and_removed_by_id_whatever_its_state() {
    let (mut world, _) = world();
    let get = |world: &World, task_id: &str| {
        let request = v1::GetTaskRequest {
            task_id: task_id.to_owned(),
        };
        get_task(&world.root, request)
    };
    assert_eq!(get(&world, "t1").unwrap().task.unwrap().id, "t1");
    assert_eq!(
        get(&world, "t9").unwrap_err().message(),
        "task t9 not found"
    );
    assert_eq!(get(&world, "").unwrap_err().message(), "invalid argument");
    let request = v1::RemoveTaskRequest {
        task_id: "t1".to_owned(),
    };
    world
        .write(|root, _| remove_task(root, request.clone()))
        .unwrap();
    let again = world.write(|root, _| remove_task(root, request));
    assert_eq!(again.unwrap_err().message(), "task t1 not found");
}
