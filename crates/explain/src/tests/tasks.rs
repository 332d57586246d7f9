use swarm_types::{Task, TaskState};

use super::world::{at, check, explained, world};
use crate::{Subject, why};

#[test]
fn a_running_task_needs_no_reason() {
    let world = "
        node n1
        service web
        task t1 web.1 running/running on=n1";
    check(world, 9, "t1", "Task web.1 is running on node host-n1.");
}

#[test]
fn a_running_task_may_come_with_a_remark() {
    let world = "
        node n1
        service web
        task t1 web.1 running/running on=n1 at=3 err=memory limit not enforced";
    check(
        world,
        9,
        "t1",
        "
        Task web.1 is running: running, but: memory limit not enforced.
        - remark: running, but: memory limit not enforced [3]",
    );
}

#[test]
fn what_a_node_could_not_give_is_a_remark_about_the_task_and_its_service() {
    let mut root = world(
        "node n1
         service web
         task t1 web.1 running/running on=n1",
    );
    let task = root.task(&"t1".parse().unwrap()).unwrap();
    let mut status = task.status().clone();
    status.message = "started; warning: memory limit of 5 bytes not applied".into();
    let task = Task::clone(task).with_states(status, TaskState::Running);
    let mut transaction = root.begin(at(1));
    transaction.update(task).unwrap();
    root = transaction.finish().0;
    for (subject, object, prefix) in [
        (Subject::Task, "t1", ""),
        (Subject::Service, "web", "web.1: "),
    ] {
        let answer = why(&root, at(9), None, Some(subject), object).unwrap();
        let expected = format!("{prefix}running, but: memory limit of 5 bytes not applied");
        assert_eq!(answer.reasons[0].text, expected);
        assert_eq!(answer.reasons[0].code, "remark");
    }
}

#[test]
fn a_task_on_its_way_says_where_and_since_when() {
    let world = "
        node n1
        service web
        task t1 web.1 preparing/running on=n1 at=3";
    check(
        world,
        9,
        "web.1",
        "
        Task web.1 is preparing: preparing on node host-n1.
        since 3
        - on_node: preparing on node host-n1 [3]",
    );
}

#[test]
fn a_task_whose_node_is_silent_waits_for_the_node() {
    let world = "
        node n1 unknown at=5
        service web
        task t1 web.1 assigned/running on=n1 at=3";
    let text = explained(world, 9, "t1");
    assert!(
        text.contains("- node_unknown: node host-n1 is UNKNOWN and has not answered yet [5]"),
        "{text}"
    );
}

#[test]
fn a_replacement_waits_for_the_task_before_it() {
    let world = "
        node n1
        service web
        task t1 web.1 running/shutdown on=n1 created=1 at=2
        task t2 web.1 ready/ready on=n1 created=10 at=11";
    check(
        world,
        20,
        "t2",
        "
        Task web.1 is ready: waiting for the task before it to stop on node host-n1.
        since 10
        retry 70
        - old_task_stopping: waiting for the task before it to stop on node host-n1 [10]",
    );
}

#[test]
fn a_task_that_failed_names_its_successor() {
    let world = "
        node n1
        service web
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=boom
        task t2 web.1 running/running on=n1 created=3 at=9";
    check(
        world,
        20,
        "t1",
        "
        Task web.1 is failed: failed: boom.
        - failed: failed: boom [2]
        - effect: task t2 took its place, and is running
        > swarmctl why t2",
    );
}

#[test]
fn a_task_that_failed_for_good_says_why_nothing_follows() {
    let world = "
        node n1
        service web restart=none
        task t1 web.1 rejected/shutdown on=n1 created=1 at=2 err=image \"x\" is not supported";
    check(
        world,
        20,
        "t1",
        "
        Task web.1 is rejected: rejected by its node: image \"x\" is not supported.
        - failed: rejected by its node: image \"x\" is not supported [2]
        - gave_up: nothing takes its place: its restart condition is none [2]
        > swarmctl service update web --force, which starts it again; so does any update that \
          changes its tasks",
    );
}

#[test]
fn a_task_that_is_asked_to_stop_waits_for_its_node() {
    let world = |node: &str| {
        format!(
            "node n1 {node} at=5
             service web replicas=0
             task t1 web.1 running/remove on=n1 at=2"
        )
    };
    let text = explained(&world(""), 9, "t1");
    assert!(
        text.contains("- stopping: asked to stop; node host-n1 has not confirmed"),
        "{text}"
    );
    let text = explained(&world("down"), 9, "t1");
    assert!(
        text.contains("- stopping: asked to stop, but node host-n1 is down"),
        "{text}"
    );
}

#[test]
fn the_tasks_before_it_are_part_of_the_story() {
    let world = "
        node n1
        service web
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=boom
        task t2 web.1 starting/running on=n1 created=3 at=9";
    let text = explained(world, 20, "t2");
    assert!(
        text.contains("failed once, the last with: boom [2]"),
        "{text}"
    );
}

#[test]
fn a_task_whose_secret_does_not_exist_says_so_with_the_way_out() {
    let world = "
        node n1
        service web secret=db
        task t1 web.1 preparing/running on=n1 at=3 err=dependency not ready";
    check(
        world,
        9,
        "t1",
        "
        Task web.1 is preparing: waiting for secret db, which does not exist.
        since 3
        - dependency: waiting for secret db, which does not exist [3]
        > swarmctl secret ls
        > use one that exists: swarmctl service update web --replicas 0, then swarmctl service \
          update web --replicas 1 --rm-secret db --add-secret OTHER:db",
    );
    let with_secret = format!("secret db\n{world}");
    let text = explained(&with_secret, 9, "t1");
    assert!(text.contains("- on_node: "), "{text}");
}

#[test]
fn a_task_that_waits_for_a_driver_repeats_what_the_driver_said() {
    let world = "
        node n1
        secret db driver
        service web secret=db
        task t1 web.1 assigned/running on=n1 at=3 err=secret db: driver vault: sealed";
    check(
        world,
        9,
        "t1",
        "
        Task web.1 is assigned: waiting for secret db: driver vault: sealed.
        since 3
        - dependency: waiting for secret db: driver vault: sealed [3]",
    );
}
