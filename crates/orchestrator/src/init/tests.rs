use super::*;
use crate::world::{check, decide_keys, observe, put, remove, world};

#[test]
fn tasks_of_a_service_that_is_gone_are_asked_to_leave() {
    check::<Init>(
        "service web
         task t1 web.1 running/running
         task t2 gone.1 running/running
         task t3 gone.2 failed/shutdown
         task t4 gone.3 running/remove
         task t5 -.0 running/running",
        0,
        "update t2 desired=remove\nupdate t3 desired=remove",
    );
}

#[test]
fn the_end_of_a_service_is_the_end_of_its_tasks() {
    let root = world(
        "service web\nservice other
         task t1 web.1 running/running
         task t2 other.1 running/running",
    );
    let mut init = Init::default();
    init.resync(&root, &mut BTreeSet::new());
    let service = root.service(&"web".parse().unwrap()).unwrap().clone();
    let (root, commit) = remove(&root, &service.into());
    let keys = observe(&mut init, &root, &commit);
    assert_eq!(
        decide_keys(&init, &root, keys, 0),
        "update t1 desired=remove\n"
    );
}

#[test]
fn a_task_that_was_asked_is_forgotten() {
    let root = world("task t1 gone.1 running/running");
    let mut init = Init::default();
    init.resync(&root, &mut BTreeSet::new());
    assert_ne!(init, Init::default());
    let (root, commit) = put(&root, "task t1 gone.1 running/remove");
    observe(&mut init, &root, &commit);
    assert_eq!(init, Init::default());
}

#[test]
fn a_task_created_after_its_service_went_is_asked_too() {
    let mut init = Init::default();
    let (root, commit) = put(&world(""), "task t1 gone.1 new/running");
    let keys = observe(&mut init, &root, &commit);
    assert_eq!(
        decide_keys(&init, &root, keys, 0),
        "update t1 desired=remove\n"
    );
}

#[test]
fn a_step_asks_two_hundred_and_then_more() {
    let lines: Vec<String> = (0..201)
        .map(|number| format!("task t{number:03} gone.{number} running/running"))
        .collect();
    let decided = crate::world::decide(Init::default(), &world(&lines.join("\n")), 0);
    assert_eq!(decided.lines().count(), 201);
    assert!(decided.ends_with("update t199 desired=remove\nmore\n"));
}
