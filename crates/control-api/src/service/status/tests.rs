use super::*;
use crate::tests::world::{World, id, replicated, web, with};

fn counts(world: &World, service_id: &str) -> (u64, u64, u64) {
    let request = v1::ListServiceStatusesRequest {
        services: vec![service_id.to_owned()],
    };
    let status = list_service_statuses(&world.root, request)
        .unwrap()
        .statuses
        .remove(0);
    assert_eq!(status.service_id, service_id);
    (
        status.desired_tasks,
        status.running_tasks,
        status.completed_tasks,
    )
}

#[test]
fn a_replicated_service_wants_its_replicas_and_counts_what_runs() {
    let mut world = World::new();
    let spec = with(web("web"), |spec| spec.mode = Some(replicated(5)));
    let service = world.create(spec).unwrap().id;
    assert_eq!(counts(&world, &service), (5, 0, 0));
    world.task("t1", &service, "n", TaskState::Running);
    world.task("t2", &service, "n", TaskState::Starting);
    world.task("t3", &service, "n", TaskState::Complete);
    assert_eq!(counts(&world, &service), (5, 1, 0));
}

#[test]
fn a_global_service_wants_the_tasks_that_are_meant_to_run() {
    let mut world = World::new();
    let spec = with(web("web"), |spec| {
        spec.mode = Some(v1::service_spec::Mode::Global(v1::GlobalService {}));
    });
    let service = world.create(spec).unwrap().id;
    world.task("t1", &service, "n1", TaskState::Running);
    world.task("t2", &service, "n2", TaskState::New);
    let stopped = world
        .task_of("t3", &service, "n3", TaskState::Running)
        .with_states(Default::default(), TaskState::Shutdown);
    world.put(stopped);
    assert_eq!(counts(&world, &service), (2, 1, 0));
}

#[test]
fn a_job_counts_its_current_execution_only() {
    let mut world = World::new();
    let service = world.create(web("web")).unwrap().id;
    let mut job = world.service(&service).clone();
    let mode = v1::service_spec::Mode::ReplicatedJob(v1::ReplicatedJob {
        max_concurrent: 3,
        total_completions: 9,
    });
    let spec = with(web("web"), |spec| spec.mode = Some(mode));
    job.spec = swarm_types::ServiceSpec::new(spec);
    job.job_status = Some(Box::new(v1::JobStatus {
        job_iteration: Some(v1::Version { index: 2 }),
        last_execution: None,
    }));
    world.put(job);
    for (name, iteration, state) in [
        ("t1", 2, TaskState::Complete),
        ("t2", 2, TaskState::Running),
        ("t3", 1, TaskState::Complete),
        ("t4", 1, TaskState::Running),
    ] {
        let mut task = world.task_of(name, &service, "n", state);
        task.job_iteration = Some(Version(iteration));
        world.put(task);
    }
    assert_eq!(counts(&world, &service), (3, 1, 1));
    let mut global = world.service(&service).clone();
    let mode = v1::service_spec::Mode::GlobalJob(v1::GlobalJob {});
    global.spec = swarm_types::ServiceSpec::new(with(web("web"), |spec| spec.mode = Some(mode)));
    world.put(global);
    let wanted = [("t5", TaskState::Ready), ("t6", TaskState::Complete)];
    for (name, state) in wanted {
        let status = swarm_types::TaskStatus {
            state,
            ..Default::default()
        };
        let mut task = world
            .task_of(name, &service, "n", state)
            .with_states(status, TaskState::Complete);
        task.job_iteration = Some(Version(2));
        world.put(task);
    }
    // t2 is meant to run, t5 to complete and has not; t6 has.
    assert_eq!(counts(&world, &service), (3, 1, 2));
    let t1 = world.root.task(&id("t1")).unwrap();
    assert_eq!(t1.desired_state(), TaskState::Running);
}

#[test]
fn every_requested_id_gets_an_entry_in_order_also_unknown_and_repeated_ones() {
    let mut world = World::new();
    let service = world.create(web("web")).unwrap().id;
    world.task("t1", "deleted", "n", TaskState::Running);
    let wanted = ["deleted", &service, "", "deleted", &"x".repeat(300)];
    let request = v1::ListServiceStatusesRequest {
        services: wanted.iter().map(|id| (*id).to_owned()).collect(),
    };
    let statuses = list_service_statuses(&world.root, request)
        .unwrap()
        .statuses;
    let ids: Vec<_> = statuses
        .iter()
        .map(|status| status.service_id.as_str())
        .collect();
    assert_eq!(ids, wanted);
    let counts: Vec<_> = statuses
        .iter()
        .map(|status| (status.desired_tasks, status.running_tasks))
        .collect();
    assert_eq!(counts, [(0, 1), (1, 0), (0, 0), (0, 1), (0, 0)]);
}
