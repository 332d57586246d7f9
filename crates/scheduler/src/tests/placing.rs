//! Where tasks go.

use swarm_store::Root;

use super::world::{World, check, check_phases};
use crate::Scheduler;

#[test]
fn a_task_goes_to_a_ready_node() {
    check("node n1\ntask t1", "t1 -> n1");
}

#[test]
fn tasks_before_pending_and_beyond_are_left_alone() {
    check(
        "node n1\ntask t1 pending\ntask t3 on=n1 running",
        "t1 -> n1",
    );
    let mut world = World::new();
    world.apply("node n1");
    let task = swarm_types::Task::new("t1".parse().unwrap(), Default::default());
    let mut transaction = world.root.begin(world.now);
    transaction.create(task).unwrap();
    let (root, commit) = transaction.finish();
    world.queue.handle_commit(&commit, &root);
    world.root = root;
    assert_eq!(world.run(), "", "the allocator has not seen it yet");
    world.apply("task t1 pending");
    assert_eq!(world.run(), "t1 -> n1");
}

#[test]
fn tasks_wait_for_nodes_and_follow_them() {
    check_phases(&[
        ("task t1", "t1: no suitable node"),
        (
            "node n1 down",
            "t1: no suitable node (1 node not available for new tasks)",
        ),
        ("node n1 ready", "t1 -> n1"),
        ("remove node n1\ntask t2", "t2: no suitable node"),
        ("node n2\nnode n3", "t2 -> n2"),
    ]);
}

#[test]
fn a_task_that_was_told_why_it_waits_is_not_told_again() {
    check_phases(&[
        (
            "node n1 down\ntask t1 s1\nservice s1",
            "t1: no suitable node (1 node not available for new tasks)",
        ),
        ("node n1 addr=x", ""),
        (
            "task t2 s1",
            "t2: no suitable node (1 node not available for new tasks)",
        ),
        (
            "node n2 pause",
            "t1: no suitable node (2 nodes not available for new tasks)
             t2: no suitable node (2 nodes not available for new tasks)",
        ),
    ]);
}

#[test]
fn services_spread_over_nodes_before_totals_count() {
    // n1 has two tasks of another service, n2 one of this, n3 none.
    check_phases(&[
        (
            "node n1\nnode n2\nnode n3
             task a1..a2 s2 v=1 on=n1 running
             task b0 s1 v=1 on=n2 running
             task b1..b3 s1 v=1",
            "b1 -> n3
             b2 -> n1
             b3 -> n2",
        ),
        // All have one or two of s1; now the totals decide.
        (
            "task c1..c4 s3 v=1",
            "c1 -> n3
             c2 -> n2
             c3 -> n1
             c4 -> n3",
        ),
        (
            "node n4\ntask d1..d3 s1 v=2",
            "d1 -> n4
             d2 -> n4
             d3 -> n3",
        ),
    ]);
}

#[test]
fn tasks_on_their_way_out_do_not_count_but_hold_their_resources() {
    check(
        "node n1 cpu=2\nnode n2 cpu=2
         task a1 s1 v=1 on=n1 running desired=shutdown cpu=1
         task b1 s1 v=1 on=n2 running
         task c1 s1 v=1 cpu=2
         task d1 s1 v=1",
        "c1 -> n2
         d1 -> n1",
    );
}

#[test]
fn tasks_that_ended_free_what_they_held() {
    check_phases(&[
        (
            "node n1 cpu=2 mem=8 generic=gpu=a;gpu=b
             task t1 s1 v=1 cpu=2 mem=8 generic=gpu=2 port=80/tcp
             service s1 v=1",
            "t1 -> n1 with gpu=a,gpu=b",
        ),
        (
            "task t1 running
             task t2 s1 v=1 cpu=1 generic=gpu=1 port=80/tcp",
            "t2: no suitable node (insufficient resources on 1 node)",
        ),
        ("task t1 failed", "t2 -> n1 with gpu=a"),
        (
            "task t3 s1 v=1 cpu=2\ntask t4 s1 v=1 cpu=1",
            "t3: no suitable node (insufficient resources on 1 node)\nt4 -> n1",
        ),
        ("remove task t2\nremove task t4", "t3 -> n1"),
    ]);
}

#[test]
fn reservations_are_honoured_to_the_last_unit() {
    check(
        "node n1 cpu=3 mem=10\nnode n2 cpu=1 mem=100
         task a1 s1 v=1 cpu=2 mem=10\ntask a2 s1 v=1 cpu=2 mem=10\nservice s1 v=1
         task b1 s2 v=1 mem=100
         task b2 s2 v=1 mem=101
         service s2 v=1",
        "a1 -> n1
         a2: no suitable node (insufficient resources on 2 nodes)
         b1 -> n2
         b2: no suitable node (insufficient resources on 2 nodes)",
    );
}

#[test]
fn resources_that_a_node_loses_are_counted_from_its_new_description() {
    check_phases(&[
        ("node n1 cpu=4\ntask t1 cpu=2", "t1 -> n1"),
        (
            "node n1 cpu=3\ntask t2 cpu=2",
            "t2: no suitable node (insufficient resources on 1 node)",
        ),
        ("node n1 cpu=4", "t2 -> n1"),
    ]);
}

#[test]
fn generic_resources_are_claimed_by_amount_or_by_unit() {
    let no_room = "no suitable node (insufficient resources on 1 node)";
    check_phases(&[
        (
            "node n1 generic=ssd=3;gpu=a;gpu=b;gpu=c
             task t1 generic=ssd=2;gpu=2",
            "t1 -> n1 with gpu=a,gpu=b,ssd=2",
        ),
        ("task t2 generic=gpu=2", &format!("t2: {no_room}")),
        ("task t3 generic=ssd=1;gpu=1", "t3 -> n1 with gpu=c,ssd=1"),
        ("task t4 generic=fpga=1", &format!("t4: {no_room}")),
    ]);
    check(
        "node n1 generic=gpu=a\ntask t1 generic=gpu=a",
        "t1: no suitable node (insufficient resources on 1 node)",
    );
}

#[test]
fn one_of_two_holders_of_a_host_port_may_leave_without_freeing_it() {
    check_phases(&[
        (
            "node n1
             task a1 on=n1 running port=80/tcp\ntask a2 on=n1 running port=80/tcp",
            "",
        ),
        (
            "task a1 complete\ntask b1 port=80/tcp",
            "b1: no suitable node (host-mode port already in use on 1 node)",
        ),
        ("task a2 complete", "b1 -> n1"),
    ]);
}

#[test]
fn host_ports_are_told_apart_by_protocol() {
    check(
        "node n1
         task t1 port=80/tcp
         task t2 port=80/udp
         task t3 port=80/ingress
         task t4 port=0/tcp
         task t5 port=80/tcp",
        "t1 -> n1
         t2 -> n1
         t3 -> n1
         t4 -> n1
         t5: no suitable node (host-mode port already in use on 1 node)",
    );
}

#[test]
fn replicas_per_node_are_limited_for_each_service() {
    check(
        "node n1\nnode n2
         task a1..a5 s1 v=1 max=2
         service s1 v=1
         task b1 s2 v=1 max=2",
        "a1 -> n2
         a2 -> n1
         a3 -> n2
         a4 -> n1
         a5: no suitable node (max replicas per node limit exceed)
         b1 -> n1",
    );
}

#[test]
fn a_spread_preference_equalises_branches() {
    check(
        "node n1 label.az=a\nnode n2 label.az=a\nnode n3 label.az=a\nnode n4 label.az=b
         task t1..t4 s1 v=1 spread=node.labels.az",
        "t1 -> n1
         t2 -> n4
         t3 -> n2
         t4 -> n4",
    );
}

#[test]
fn branches_count_tasks_on_nodes_that_are_out_as_well() {
    check(
        "node n1 label.az=a\nnode n2 label.az=a drain\nnode n3 label.az=b
         task t1..t2 s1 v=1 on=n2 running
         task t3..t5 s1 v=1 spread=node.labels.az",
        "t3 -> n3
         t4 -> n3
         t5 -> n1",
    );
}

#[test]
fn preferences_nest_and_missing_labels_are_a_branch() {
    check(
        "node n1 label.az=a engine.rack=1\nnode n2 label.az=a engine.rack=2
         node n3 engine.rack=1\nnode n4 label.az=a engine.rack=1
         task t1..t6 s1 v=1 spread=Node.Labels.az spread=node.hostname spread=engine.labels.rack",
        "t1 -> n3
         t2 -> n1
         t3 -> n3
         t4 -> n2
         t5 -> n3
         t6 -> n4",
    );
}

#[test]
fn scaling_up_with_preferences_comes_to_rest_when_a_branch_is_full() {
    check_phases(&[
        (
            "node n1 label.az=a cpu=1\nnode n2 label.az=b cpu=9
             task t1..t4 s1 v=1 cpu=1 spread=node.labels.az",
            "t1 -> n1
             t2 -> n2
             t3 -> n2
             t4 -> n2",
        ),
        (
            "task t5..t7 s1 v=1 cpu=2 spread=node.labels.az\nservice s1 v=1",
            "t5 -> n2
             t6 -> n2
             t7 -> n2",
        ),
        (
            "task t8 s1 v=1 cpu=2 spread=node.labels.az",
            "t8: no suitable node (insufficient resources on 2 nodes)",
        ),
    ]);
}

#[test]
fn three_phases_of_availability_keep_services_spread() {
    check_phases(&[
        (
            "node n1\nnode n2\nnode n3\ntask t1..t6 s1 v=1",
            "t1 -> n1\nt2 -> n2\nt3 -> n3\nt4 -> n1\nt5 -> n2\nt6 -> n3",
        ),
        (
            "node n3 drain\ntask t3 shutdown\ntask t6 shutdown\ntask u1..u2 s1 v=1",
            "u1 -> n1\nu2 -> n2",
        ),
        (
            "node n3 active\ntask v1..v4 s1 v=1",
            "v1 -> n3\nv2 -> n3\nv3 -> n3\nv4 -> n1",
        ),
    ]);
}

/// Five failures of service s1 at version 1 on n1, which has no other tasks.
const FIVE_FAILURES: &str = "
    service s1 v=1
    node n1\nnode n2
    task f1..f5 s1 v=1 on=n1 running
    task g1..g9 s1 v=1 on=n2 running";

#[test]
fn a_node_where_a_spec_keeps_failing_comes_last() {
    check_phases(&[
        (FIVE_FAILURES, ""),
        ("task f1..f4 failed", ""),
        ("task t1 s1 v=1", "t1 -> n1"),
        (
            "remove task t1\ntask f5 rejected\ntask t2 s1 v=1",
            "t2 -> n2",
        ),
        ("task t3 s1 v=2", "t3 -> n1"),
        ("task t4 s9 v=1", "t4 -> n1"),
        // The only choice is still a choice.
        ("node n2 pause\ntask t5 s1 v=1", "t5 -> n1"),
    ]);
}

#[test]
fn five_minutes_later_a_node_is_trusted_again() {
    for (wait, expected) in [(299_000, "t1 -> n2"), (300_000, "t1 -> n1")] {
        let mut world = World::new();
        world.apply(FIVE_FAILURES);
        world.apply("task f1..f5 failed");
        world.run();
        // Failures count from when they were stored; the debounce is what has passed since.
        let passed = (world.now.as_nanos() - 1_000_000_000) / 1_000_000;
        world.apply(&format!("wait {}\ntask t1 s1 v=1", wait - passed - 50));
        assert_eq!(world.run(), expected, "{wait}");
    }
}

#[test]
fn tasks_that_had_no_choice_do_not_blame_their_node() {
    let mut phases = vec![(FIVE_FAILURES.replace("service s1", "service s1 global"), "")];
    phases.push(("task f1..f5 failed\ntask t1 s1 v=1".to_owned(), "t1 -> n1"));
    let phases: Vec<(&str, &str)> = phases.iter().map(|(lines, did)| (&**lines, *did)).collect();
    check_phases(&phases);
}

#[test]
fn preassigned_tasks_are_confirmed_on_their_node_before_others_are_placed() {
    check(
        "node n1 cpu=2\nnode n2 cpu=1
         task a1 cpu=2
         task p1 on=n1 cpu=1",
        "a1: no suitable node (insufficient resources on 2 nodes)
         p1 => n1",
    );
}

#[test]
fn a_preassigned_task_waits_for_its_node_and_says_why() {
    check_phases(&[
        ("task p1 on=n1", ""),
        ("node n1 down", "p1: 1 node not available for new tasks"),
        ("node n2", ""),
        ("node n1 ready cpu=1", "p1 => n1"),
        (
            "task p2 on=n1 cpu=2 generic=gpu=1",
            "p2: insufficient resources on 1 node",
        ),
        ("node n1 cpu=2 generic=gpu=x", "p2 => n1 with gpu=x"),
        (
            "task p3 on=n1 where=node.labels.disk==ssd",
            "p3: scheduling constraints not satisfied on 1 node",
        ),
        ("node n1 label.disk=SSD", "p3 => n1"),
    ]);
}

#[test]
fn waiting_preassigned_tasks_use_nothing() {
    check(
        "node n1 cpu=1 os=linux
         task p1 on=n1 cpu=1 platform=windows/amd64
         task t1 cpu=1",
        "p1: insufficient resources on 1 node
         p1: unsupported platform on 1 node
         t1 -> n1",
    );
}

#[test]
fn tasks_that_wait_and_are_no_longer_wanted_are_stopped() {
    check(
        "node n1 down
         task t1 desired=complete
         task t2 desired=shutdown
         task t3 on=n1 desired=shutdown
         task t4 desired=remove",
        "t1: no suitable node (1 node not available for new tasks)
         t2 shutdown
         t3 shutdown",
    );
    check_phases(&[
        (
            "node n1 down\nservice s1 v=1\ntask t1 s1 v=1",
            "t1: no suitable node (1 node not available for new tasks)",
        ),
        ("task t1 desired=shutdown", "t1 shutdown"),
    ]);
}

#[test]
fn tasks_of_a_deleted_service_or_an_old_spec_are_not_told() {
    check("node n1 down\ntask t1 gone v=1", "");
    check_phases(&[
        (
            "node n1 down cpu=1\nservice s1 v=2
             task t1 s1 v=1 cpu=1
             task t2 s1 v=2
             task t3 s1",
            "t2: no suitable node (1 node not available for new tasks)
             t3: no suitable node (1 node not available for new tasks)",
        ),
        (
            "remove service s1\nnode n1 ready cpu=1",
            "t1 -> n1\nt2 -> n1\nt3 -> n1",
        ),
    ]);
}

#[test]
fn tasks_of_an_old_spec_with_the_same_template_are_told() {
    check(
        "node n1 down\nservice s1 v=2\ntask t1 s1 v=1",
        "t1: no suitable node (1 node not available for new tasks)",
    );
}

#[test]
fn a_task_that_uses_nothing_still_counts_as_one_of_its_node() {
    // `check_phases` compares the cache with the store after each line.
    check_phases(&[
        ("node n1\ntask t1", "t1 -> n1"),
        ("task t1 desired=shutdown", ""),
        ("remove node n1", ""),
        ("remove task t1", ""),
    ]);
}

#[test]
fn a_new_leader_continues_from_the_store() {
    let mut world = World::new();
    world.apply(
        "node n1 cpu=2
         task r1 on=n1 running cpu=1
         task t1 cpu=1
         task t2 cpu=1
         task t3 desired=remove cpu=1",
    );
    world.restart();
    assert_eq!(
        world.run(),
        "t1 -> n1\nt2: no suitable node (insufficient resources on 1 node)"
    );
    world.restart();
    assert_eq!(world.run(), "");
    world.apply("task r1 complete");
    world.restart();
    assert_eq!(world.run(), "t2 -> n1");
}

#[test]
fn a_big_group_takes_several_transactions_and_ends_level() {
    let mut world = World::new();
    world.apply("node n1..n1\nnode n2\nnode n3\ntask t001..t450 s1 v=1");
    let mut sizes = Vec::new();
    world.restart();
    while let Some(batch) = world.poll() {
        sizes.push(batch.sets.len());
        world.commit(&batch);
    }
    assert_eq!(sizes, [200, 200, 50]);
    for node in ["n1..n1", "n2", "n3"] {
        let tasks = world.root.tasks_on_node(&node.parse().unwrap()).count();
        assert_eq!(tasks, 150, "{node}");
    }
}

#[test]
fn more_kinds_of_tasks_than_orderings_are_kept_take_more_transactions() {
    for (orderings_max, transactions) in [(1, 3), (2, 2), (3, 2), (4, 1)] {
        let scheduler = Scheduler::with_orderings_max(orderings_max);
        let mut world = World::with_scheduler(Root::default(), scheduler);
        world.apply("node n1\ntask a1 s1\ntask b1 s2\ntask c1 s3");
        world.now = swarm_types::Timestamp::from_millis(5_000);
        let mut count = 0;
        while let Some(batch) = world.poll() {
            count += 1;
            world.commit(&batch);
        }
        assert_eq!(count, transactions, "{orderings_max}");
        assert_eq!(world.root.tasks_on_node(&"n1".parse().unwrap()).count(), 3);
    }
}

#[test]
fn small_services_do_not_wait_for_large_ones() {
    let mut world = World::new();
    world.apply("node n1\ntask a001..a300 s1 v=1\ntask b1..b2 s2 v=1");
    let batch = world.poll().unwrap();
    let did = world.commit(&batch);
    assert!(
        did.contains("b1 -> n1") && did.contains("b2 -> n1"),
        "{did}"
    );
}
