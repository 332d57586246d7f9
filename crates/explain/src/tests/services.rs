use super::world::{check, explained};

#[test]
fn a_service_with_all_its_tasks_needs_no_reason() {
    let world = "
        node n1
        service web replicas=2
        task t1 web.1 running/running on=n1
        task t2 web.2 running/running on=n1";
    check(world, 9, "web", "Service web runs 2 of 2 tasks.");
}

#[test]
fn a_service_scaled_to_zero_wants_nothing() {
    check(
        "service web replicas=0",
        9,
        "web",
        "Service web wants no tasks.",
    );
}

#[test]
fn tasks_with_the_same_reason_are_one_reason_with_the_scheduler_s_counts() {
    let world = "
        node n1 mem=100
        node n2 mem=400 drain
        node n3 mem=400 down
        service web replicas=3 mem=80
        task t1 web.1 running/running on=n1
        task t2 web.2 pending/running created=3 at=4 err=no suitable node
        task t3 web.3 pending/running created=3 at=5 err=no suitable node";
    check(
        world,
        9,
        "web",
        "
        Service web runs 1 of 3 tasks; 2 tasks (web.2, web.3): waiting for a node: none of 3 \
          nodes fits (2 nodes not available for new tasks; insufficient resources on 1 node).
        since 4
        - no_suitable_node: 2 tasks (web.2, web.3): waiting for a node: none of 3 nodes fits (2 \
          nodes not available for new tasks; insufficient resources on 1 node) [4]
          2 ready: 2 nodes not available for new tasks
          1 resource: insufficient resources on 1 node
          nearest host-n2: node is drained
        > swarmctl node activate host-n2
        > free resources, add a node, or reserve less: swarmctl service update web --replicas 0, \
          then swarmctl service update web --replicas 3 and smaller --cpu-reservation, \
          --memory-reservation or --generic-resources",
    );
}

#[test]
fn a_constraint_that_no_node_satisfies_comes_with_the_command_that_helps() {
    let world = "
        node n1 zone=b
        service web constraint=node.labels.zone==a
        task t1 web.1 pending/running at=4 err=no suitable node";
    check(
        world,
        9,
        "web",
        "
        Service web runs 0 of 1 task; web.1: waiting for a node: the only node does not fit \
          (scheduling constraints not satisfied on 1 node).
        since 4
        - no_suitable_node: web.1: waiting for a node: the only node does not fit (scheduling \
          constraints not satisfied on 1 node) [4]
          1 constraint: scheduling constraints not satisfied on 1 node
          nearest host-n1: constraint node.labels.zone == a: label zone is \"b\"
        > swarmctl node update host-n1 --label zone=a",
    );
}

#[test]
fn without_nodes_the_way_out_is_a_node() {
    let world = "
        service web
        task t1 web.1 pending/running at=4 err=no suitable node";
    let text = explained(world, 9, "web");
    assert!(text.contains("waiting for a node: there is none"), "{text}");
    assert!(
        text.contains("> start `swarmd --join-addr` on another machine"),
        "{text}"
    );
}

#[test]
fn a_task_that_fits_by_now_is_about_to_be_placed() {
    let world = "
        node n1
        service web
        task t1 web.1 pending/running at=4 err=no suitable node";
    let text = explained(world, 9, "web");
    assert!(
        text.contains("- being_placed: web.1: about to be placed: 1 node fits now"),
        "{text}"
    );
}

#[test]
fn a_port_conflict_is_the_allocator_s_word() {
    let world = "
        node n1
        service web
        task t1 web.1 new/running at=4 err=service ports could not be allocated: port 80 is taken";
    check(
        world,
        9,
        "web",
        "
        Service web runs 0 of 1 task; web.1: service ports could not be allocated: port 80 is taken.
        since 4
        - allocation: web.1: service ports could not be allocated: port 80 is taken [4]
        > choose other published ports: swarmctl service update web --replicas 0, then swarmctl \
          service update web --replicas 1 --ports NAME:TARGET:PUBLISHED
        > remove the service that has them",
    );
}

#[test]
fn a_failing_replica_shows_its_delay_its_failures_and_the_next_try() {
    let world = "
        node n1
        service web
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=exit code 1
        task t2 web.1 failed/shutdown on=n1 created=3 at=8 err=exit code 2
        task t3 web.1 ready/ready on=n1 created=8 at=9";
    check(
        world,
        10,
        "web",
        "
        Service web runs 0 of 1 task; web.1: in restart delay after failing 2 times: exit code 2.
        since 8
        retry 13
        - restart_delay: web.1: in restart delay after failing 2 times: exit code 2 [8]
        > swarmctl task inspect t2",
    );
}

#[test]
fn a_replica_that_is_rejected_during_its_delay_waits_for_the_end_of_the_delay() {
    let world = "
        node n1
        service web
        task t1 web.1 rejected/shutdown on=n1 created=1 at=2 err=no such image
        task t2 web.1 rejected/ready on=n1 created=8 at=9 err=no such image";
    check(
        world,
        10,
        "web",
        "
        Service web runs 0 of 1 task; web.1: in restart delay after failing 2 times: no such image.
        since 8
        retry 13
        - restart_delay: web.1: in restart delay after failing 2 times: no such image [8]
        > swarmctl task inspect t2",
    );
    let after = explained(world, 13, "web");
    assert!(
        after.contains("- failed: web.1: rejected by its node: no such image [9]"),
        "{after}"
    );
}

#[test]
fn failures_of_a_running_replica_are_told_while_they_are_recent() {
    let world = "
        node n1
        service web
        task t1 web.1 failed/shutdown on=n1 created=1 at=100 err=boom
        task t2 web.1 running/running on=n1 created=101 at=107";
    let recent = explained(world, 399, "web");
    assert!(
        recent.starts_with("Service web runs 1 of 1 task.\n- failing: web.1: "),
        "{recent}"
    );
    assert!(!recent.contains("since"), "{recent}");
    let later = explained(world, 400, "web");
    assert_eq!(later, "Service web runs 1 of 1 task.\n");
}

#[test]
fn a_replica_without_attempts_left_is_given_up() {
    let world = "
        node n1
        service web restart=any attempts=1
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=boom
        task t2 web.1 failed/shutdown on=n1 created=3 at=8 err=boom";
    check(
        world,
        20,
        "web",
        "
        Service web runs 0 of 1 task; web.1: not run again, as all 1 restart attempts are used \
          up; failed: boom.
        since 8
        - gave_up: web.1: not run again, as all 1 restart attempts are used up; failed: boom [8]
        > swarmctl task inspect t2
        > swarmctl service update web --force, which starts it again; so does any update that \
          changes its tasks",
    );
}

#[test]
fn a_replica_that_did_its_work_is_no_problem() {
    let world = "
        node n1
        service web restart=none
        task t1 web.1 complete/shutdown on=n1 at=2";
    let text = explained(world, 9, "web");
    assert!(text.contains("- completed: web.1: done: "), "{text}");
}

#[test]
fn replicas_without_a_task_are_counted() {
    let world = "
        node n1
        service web replicas=3
        task t1 web.1 running/running on=n1";
    let text = explained(world, 9, "web");
    assert!(
        text.contains("- not_created: 2 tasks not created yet"),
        "{text}"
    );
}

#[test]
fn a_task_on_a_lost_node_says_since_when() {
    let world = "
        node n1 down at=30 err=heartbeat failure
        service web
        task t1 web.1 running/running on=n1 at=2";
    check(
        world,
        40,
        "web",
        "
        Service web runs 0 of 1 task; web.1: node host-n1 is down; a replacement is on its way.
        since 30
        - node_down: web.1: node host-n1 is down; a replacement is on its way [30]
        > swarmctl why host-n1",
    );
}

#[test]
fn old_tasks_on_a_lost_node_do_not_keep_a_service_from_being_complete() {
    let world = "
        node n1
        node n2 down at=30
        service web
        task t1 web.1 running/shutdown on=n2 at=2
        task t2 web.1 running/running on=n1 created=31 at=36";
    check(
        world,
        40,
        "web",
        "
        Service web runs 1 of 1 task.
        - stopping: web.1: asked to stop, but node host-n2 is down and cannot confirm it [30]
        > swarmctl why host-n2",
    );
}

#[test]
fn a_global_service_says_which_nodes_it_skips() {
    let world = "
        node n1
        node n2 drain
        node n3 drain
        node n4 pause
        service web global
        task t1 web.0 running/running on=n1";
    check(
        world,
        9,
        "web",
        "
        Service web runs 1 of 1 task.
        - not_eligible: 2 nodes (host-n2, host-n3): gets no task: the node is drained
        - not_eligible: host-n4: gets no task: the node is paused",
    );
}

#[test]
fn an_answer_stays_small_however_many_reasons_there_are() {
    let mut world = "node n1\nservice web replicas=15\n".to_owned();
    for slot in 1..=15 {
        world.push_str(&format!(
            "task t{slot:02} web.{slot} new/running err=reason {slot:02}\n"
        ));
    }
    let text = explained(&world, 9, "web");
    assert_eq!(text.matches("- allocation").count(), crate::REASONS_MAX);
    assert!(text.contains("- effect: 5 reasons more"), "{text}");
}

#[test]
fn steps_that_would_not_help_are_not_proposed() {
    let steps = |world: &str| -> Vec<String> {
        let text = explained(world, 9, "web");
        let steps = text.lines().filter_map(|line| line.strip_prefix("> "));
        steps.map(str::to_owned).collect()
    };
    let waits = "task t1 web.1 pending/running at=4 err=no suitable node";
    // A drained node that is too small for the task stays drained.
    assert_eq!(
        steps(&format!(
            "node n1 mem=10 drain\nservice web mem=80\n{waits}"
        )),
        [
            "add a larger node, or reserve less, since no node has so much even when nothing else \
             runs there: swarmctl service update web --replicas 0, then swarmctl service update \
             web --replicas 1 and smaller --cpu-reservation, --memory-reservation or \
             --generic-resources"
        ]
    );
    // What several things are amiss with is told all of them, in order.
    let both = "node n1 zone=b drain\nservice web constraint=node.labels.zone==a";
    assert_eq!(
        steps(&format!("{both}\n{waits}")),
        [
            "swarmctl node activate host-n1",
            "swarmctl node update host-n1 --label zone=a"
        ]
    );
    // Of several nodes that could be labelled the nearest is named.
    let two = "node n1 mem=1\nnode n2 mem=1\nservice web constraint=node.labels.zone==a";
    assert_eq!(
        steps(&format!(
            "{two}\ntask t0 web.2 running/running on=n1\n{waits}"
        )),
        ["swarmctl node update host-n2 --label zone=a"]
    );
    // A node that is down comes after one that only has to be told.
    let down = "node n0 down\nnode n1 pause\nservice web";
    assert_eq!(
        steps(&format!("{down}\n{waits}")),
        ["swarmctl node activate host-n1"]
    );
    // Nothing that can be done to a node makes up for a key that does not exist.
    let typo = "node n1 zone=a\nservice web constraint=node.label.zone==a";
    assert_eq!(
        steps(&format!("{typo}\n{waits}")),
        [
            "no node can match node.label.zone == a, for there is no key node.label.zone; did you \
             mean node.labels.zone? swarmctl service update web --replicas 0, then swarmctl \
             service update web --replicas 1 --constraint node.labels.zone==a"
        ]
    );
    let torn = "node n1\nservice web constraint=node.labels.zone==a constraint=node.labels.zone==b";
    let steps_of_torn = steps(&format!("{torn}\n{waits}"));
    assert_eq!(steps_of_torn.len(), 1, "{steps_of_torn:?}");
    assert!(
        steps_of_torn[0].starts_with(
            "no node can match both node.labels.zone == a and node.labels.zone == b: "
        )
    );
    let other = "node n1\nservice web constraint=node.hostname==elsewhere";
    assert_eq!(
        steps(&format!("{other}\n{waits}")),
        ["add a node for which node.hostname == elsewhere holds"]
    );
    let full = "node n1\nservice web replicas=2 most=1\ntask t0 web.2 running/running on=n1";
    assert_eq!(
        steps(&format!("{full}\n{waits}")),
        [
            "add a node, or run only as many tasks as have a place: swarmctl service update web \
             --replicas 1"
        ]
    );
}

#[test]
fn a_node_whose_name_is_not_its_own_is_named_by_its_id() {
    use super::world::{at, world};
    let mut tx = world(
        "node n1 drain\nnode n2 drain\nnode n3 drain
         service web
         task t1 web.1 pending/running at=4 err=no suitable node",
    )
    .begin(at(1));
    for (id, hostname) in [("n1", "same"), ("n2", "same"), ("n3", "x; reboot")] {
        let root = world("node n1 drain\nnode n2 drain\nnode n3 drain");
        let mut node = (**root.node(&id.parse().unwrap()).unwrap()).clone();
        let description = node.description.as_mut().unwrap();
        std::sync::Arc::make_mut(description).hostname = hostname.to_owned();
        tx.update(node).unwrap();
    }
    let (root, _) = tx.finish();
    let answer = crate::why(&root, at(9), None, None, "web").unwrap();
    assert_eq!(
        answer.next_steps,
        [
            "swarmctl node activate n1",
            "swarmctl node activate n2",
            "swarmctl node activate n3"
        ]
    );
}

#[test]
fn failures_of_which_no_task_is_left_are_counted() {
    let text = explained(
        "node n1
         service web
         task t7 web.1 failed/shutdown on=n1 created=1 at=2 failures=41 err=boom
         task t8 web.1 starting/running on=n1 created=3 failures=42",
        9,
        "web",
    );
    assert!(
        text.contains("failed 42 times, the last time with: boom"),
        "{text}"
    );
    let waiting = explained(
        "node n1
         service web
         task t7 web.1 failed/shutdown on=n1 created=1 at=2 failures=41 err=boom
         task t8 web.1 ready/ready on=n1 created=3 failures=42",
        4,
        "web",
    );
    assert!(
        waiting.contains("in restart delay after failing 42 times"),
        "{waiting}"
    );
}

#[test]
fn a_health_check_is_awaited_since_and_until() {
    let text = explained(
        "node n1
         service web health
         task t1 web.1 starting/running on=n1 created=1 at=60",
        90,
        "web",
    );
    // Three checks of 15 s, and 10 s to stop what is not healthy.
    assert!(
        text.contains(
            "- health: web.1: its program runs on node host-n1 and waits for its health check to \
             pass since 1970-01-01T00:01:00Z; if that has not happened by 1970-01-01T00:01:55Z, it \
             fails [60]"
        ),
        "{text}"
    );
}

#[test]
fn what_gave_up_says_since_when_and_what_starts_it_again() {
    let alone = "
        node n1
        service web restart=none
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=boom";
    check(
        alone,
        9,
        "web",
        "
        Service web runs 0 of 1 task; web.1: not run again, as its restart condition is none; \
          failed: boom.
        since 2
        - gave_up: web.1: not run again, as its restart condition is none; failed: boom [2]
        > swarmctl task inspect t1
        > swarmctl service update web --force, which starts it again; so does any update that \
          changes its tasks",
    );
    // An update would have to replace the task that runs, which is refused.
    let one_of_two = "
        node n1
        service web replicas=2 restart=any attempts=1
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=boom
        task t2 web.1 failed/shutdown on=n1 created=3 at=4 err=boom
        task t3 web.2 running/running on=n1 created=1";
    let text = explained(one_of_two, 9, "web");
    assert!(
        text.contains("> swarmctl task rm t2, which starts it again and forgets this run"),
        "{text}"
    );
    let task = explained(one_of_two, 9, "t2");
    assert!(
        task.contains("nothing takes its place: all 1 restart attempts are used up [4]"),
        "{task}"
    );
    assert!(task.contains("> swarmctl task rm t2"), "{task}");
    // Without the last run the ones before it still forbid another.
    let often = "
        node n1
        service web replicas=2 restart=any attempts=1
        task t0 web.1 failed/shutdown on=n1 created=0 at=1 err=boom
        task t1 web.1 failed/shutdown on=n1 created=1 at=2 err=boom
        task t2 web.1 failed/shutdown on=n1 created=3 at=4 err=boom
        task t3 web.2 running/running on=n1 created=1";
    let text = explained(often, 9, "web");
    assert!(
        text.contains(
            "> swarmctl service update web --replicas 0, then swarmctl service update web \
             --replicas 2, which starts all of its tasks again"
        ),
        "{text}"
    );
}
