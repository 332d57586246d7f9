//! When a pass begins, and what happens to its writes.

use swarm_reconcile::Outcome;
use swarm_types::Timestamp;

use super::world::World;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

/// A world at rest at 1,000 ms with one node.
fn world() -> World {
    let mut world = World::new();
    world.apply("node n1");
    assert_eq!(world.run(), "");
    world.now = at(10_000);
    world
}

fn is_deciding(world: &mut World, millis: i64) -> bool {
    world.now = at(millis);
    world.poll().is_some()
}

#[test]
fn a_pass_begins_50_ms_after_the_last_change() {
    let mut world = world();
    world.apply("task t1");
    assert!(!is_deciding(&mut world, 10_000));
    let wake = world.queue.poll_timeout().unwrap();
    assert_eq!((wake.at, wake.why), (at(10_050), "more changes may follow"));
    assert!(!is_deciding(&mut world, 10_049));
    world.apply("task t2");
    assert!(!is_deciding(&mut world, 10_050));
    assert_eq!(world.queue.poll_timeout().unwrap().at, at(10_100));
    assert!(is_deciding(&mut world, 10_100));
}

#[test]
fn a_pass_begins_a_second_after_the_first_change_at_the_latest() {
    let mut world = world();
    for step in 0..25 {
        world.apply(&format!("task t{step}"));
        assert!(!is_deciding(&mut world, 10_000 + step * 40));
    }
    world.apply("task u");
    assert!(!is_deciding(&mut world, 10_999));
    assert!(is_deciding(&mut world, 11_000));
}

#[test]
fn a_full_transaction_of_new_tasks_is_not_kept_waiting() {
    let mut world = world();
    world.apply("task t001..t199");
    assert!(!is_deciding(&mut world, 10_000));
    world.apply("task t200");
    assert!(is_deciding(&mut world, 10_000));
}

#[test]
fn what_comes_in_during_a_pass_joins_it() {
    let mut world = world();
    world.apply("task t001..t201");
    let batch = world.poll().unwrap();
    world.apply("task u1");
    assert_eq!(world.poll(), None, "one transaction is in flight");
    world.commit(&batch);
    let batch = world.poll().unwrap();
    assert_eq!(batch.sets.len(), 2);
    world.commit(&batch);
    assert_eq!(world.poll(), None);
    world.apply("task u2");
    assert!(!is_deciding(&mut world, 10_000), "that pass has ended");
}

#[test]
fn a_new_leader_does_not_wait() {
    let mut world = world();
    world.apply("task t1");
    world.restart();
    assert!(is_deciding(&mut world, 10_000));
}

#[test]
fn changes_that_concern_nobody_call_for_no_pass() {
    let mut world = world();
    world.apply("task t1 on=n1 running\nservice s1");
    assert_eq!(world.poll(), None);
    assert_eq!(world.queue.poll_timeout(), None);
}

#[test]
fn a_node_that_changed_refuses_its_placements_and_no_other() {
    let mut world = World::new();
    world.apply(
        "node n1 label.a=b\nnode n2\ntask t1 where=node.labels.a==b\ntask t2 where=node.id==n2",
    );
    world.now = at(5_000);
    let batch = world.poll().unwrap();
    assert_eq!(batch.sets.len(), 2);
    world.apply("node n1 drain");
    assert_eq!(world.commit(&batch), "t2 -> n2\n");
    assert_eq!(
        world.run(),
        "t1: no suitable node (1 node not available for new tasks; \
         scheduling constraints not satisfied on 1 node)"
    );
}

#[test]
fn a_task_that_changed_meanwhile_is_not_overwritten() {
    let mut world = World::new();
    world.apply("node n1\ntask t1\ntask t2");
    world.now = at(5_000);
    let batch = world.poll().unwrap();
    world.apply("task t1 desired=shutdown\nremove task t2");
    assert_eq!(world.commit(&batch), "");
    assert_eq!(world.run(), "t1 shutdown");
}

#[test]
fn a_failed_transaction_is_planned_again() {
    let mut world = World::new();
    world.apply("node n1 cpu=1\ntask t1 cpu=1\ntask t2 cpu=1");
    world.now = at(5_000);
    let batch = world.poll().unwrap();
    world.queue.handle_outcome(&Outcome::Failed);
    assert_eq!(world.poll(), None, "the log gets a moment");
    world.now = world.queue.poll_timeout().unwrap().at;
    let again = world.poll().unwrap();
    assert_eq!(again.sets.len(), batch.sets.len());
    world.commit(&again);
    assert_eq!(world.run(), "");
    assert_eq!(world.task("t1").node_id, Some("n1".parse().unwrap()));
}

#[test]
fn equal_inputs_give_equal_plans() {
    let plan = || {
        let mut world = World::new();
        world.apply(
            "node n1 label.az=a\nnode n2 label.az=b\nnode n3 label.az=b
             task t01..t50 s1 v=1 spread=node.labels.az\ntask u01..u20",
        );
        world.now = at(5_000);
        world.poll().unwrap()
    };
    assert_eq!(plan(), plan());
}
