use super::*;
use crate::world::{check, decide, decide_keys, observe, put, remove, take_reads, world};
use swarm_reconcile::{Outcome, Queue};
use swarm_types::TaskStatus;

#[track_caller]
fn expect(text: &str, now: u64, expected: &str) {
    check::<Replicated>(text, now, expected);
}

const NODES: &str = "
    node n1
    node n2";

#[track_caller]
fn with_nodes(text: &str, now: u64, expected: &str) {
    expect(&format!("{NODES}\n{text}"), now, expected);
}

#[test]
fn a_missing_replacement_waits_for_the_task_that_is_still_stopping() {
    for (state, desired) in [("running", "ready"), ("shutdown", "running")] {
        let task = format!("node n1\nservice web replicas=1\ntask t1 web.1 {state}/shutdown on=n1");
        expect(&task, 0, &format!("create web.1 {desired}"));
    }
}

#[test]
fn missing_replicas_take_the_lowest_free_numbers() {
    expect(
        "service web replicas=3",
        0,
        "create web.1 running\ncreate web.2 running\ncreate web.3 running",
    );
    expect(
        "service web replicas=4
         task t1 web.1 running/running
         task t3 web.3 running/running
         task t7 web.7 running/running",
        0,
        "create web.2 running",
    );
}

#[test]
fn a_service_with_as_many_replicas_as_it_wants_is_left_alone() {
    expect("service web replicas=0", 0, "");
    expect("service web replicas=1\ntask t1 web.5 new/running", 0, "");
}

#[test]
fn a_removed_task_is_created_again_in_place_of_its_history() {
    with_nodes(
        "service web replicas=2
         task t1 web.1 running/running on=n1
         task old web.2 failed/shutdown on=n1",
        0,
        "create web.2 running",
    );
}

#[test]
fn global_services_and_services_that_are_gone_are_others_business() {
    expect("node n1\nservice agent global", 0, "");
    expect("task t1 gone.1 failed/running", 0, "");
}

#[test]
fn a_task_that_ended_is_replaced_by_one_that_waits() {
    for state in ["failed", "rejected", "complete", "shutdown", "orphaned"] {
        with_nodes(
            &format!("service web\ntask t1 web.1 {state}/running on=n1"),
            0,
            "update t1 desired=shutdown\ncreate web.1 ready",
        );
    }
    with_nodes("service web\ntask t1 web.1 running/running on=n1", 0, "");
}

#[test]
fn a_replacement_starts_when_its_delay_is_over_and_not_before() {
    let world = "
        service web restart=any delay=3000
        task t1 web.1 failed/shutdown on=n1 created=0 at=900
        task t2 web.1 ready/ready on=n2 created=1000";
    with_nodes(world, 1000, "wake 4000 restart delay");
    with_nodes(world, 3999, "wake 4000 restart delay");
    with_nodes(world, 4000, "update t2 desired=running");
    let default = world.replace(" restart=any delay=3000", "");
    with_nodes(&default, 5999, "wake 6000 restart delay");
    with_nodes(&default, 6000, "update t2 desired=running");
}

#[test]
fn a_task_that_fails_in_its_start_delay_is_replaced_only_after_it() {
    let world = "
        service web
        task t1 web.1 failed/shutdown on=n1
        task t2 web.1 rejected/ready on=n2 created=1000 at=1100";
    with_nodes(world, 5999, "wake 6000 restart delay");
    with_nodes(
        world,
        6000,
        "update t2 desired=shutdown\ncreate web.1 ready",
    );
}

#[test]
fn a_clock_that_went_back_does_not_stretch_a_delay() {
    let world = "
        service web
        task t2 web.1 ready/ready on=n2 created=9000";
    with_nodes(world, 9000, "wake 14000 restart delay");
    with_nodes(world, 8999, "update t2 desired=running");
}

#[test]
fn a_replacement_waits_for_the_old_task_for_a_minute_at_most() {
    let world = "
        service web
        task t1 web.1 running/shutdown on=n1
        task t2 web.1 ready/ready on=n2 created=1000";
    let waits = "wake 61000 the task before it is still stopping";
    with_nodes(world, 5999, "wake 6000 restart delay");
    with_nodes(world, 6000, waits);
    with_nodes(world, 60999, waits);
    with_nodes(world, 61000, "update t2 desired=running");
    let stopped = world.replace("running/shutdown", "shutdown/shutdown");
    with_nodes(&stopped, 6000, "update t2 desired=running");
}

#[test]
fn a_replacement_waits_as_long_as_the_old_task_may_take_to_stop() {
    // The grace periods are the tasks' own; the service may have got another since.
    let world = |grace: &str| {
        format!(
            "service web {grace}
             task t1 web.1 running/shutdown on=n1
             service web
             task t2 web.1 ready/ready on=n2 created=1000"
        )
    };
    let start = "update t2 desired=running";
    let waits = "wake 261000 the task before it is still stopping";
    with_nodes(&world("grace=240000"), 61000, waits);
    with_nodes(&world("grace=240000"), 260999, waits);
    with_nodes(&world("grace=240000"), 261000, start);
    let stopped = world("grace=240000").replace("running/shutdown", "shutdown/shutdown");
    with_nodes(&stopped, 6000, start);
    // A minute is the floor, and the margin counts from there.
    with_nodes(&world("grace=40000"), 61000, start);
    let waits = "wake 61001 the task before it is still stopping";
    with_nodes(&world("grace=40001"), 61000, waits);
    // Of two, the one that takes longer.
    let two = format!(
        "{}\n{}",
        world("grace=240000"),
        "task t3 web.1 running/shutdown on=n3"
    );
    with_nodes(
        &two,
        61000,
        "wake 261000 the task before it is still stopping",
    );
}

#[test]
fn an_old_task_that_nobody_can_stop_is_not_waited_for() {
    let world = |node: &str, old: &str| {
        format!(
            "node n2\n{node}
             service web
             task t1 web.1 {old}
             task t2 web.1 ready/ready on=n2 created=1000"
        )
    };
    let start = "update t2 desired=running";
    expect(
        &world("node n1 down", "running/shutdown on=n1"),
        6000,
        start,
    );
    expect(&world("", "running/shutdown on=n1"), 6000, start);
    expect(&world("node n1", "pending/shutdown"), 6000, start);
    let waits = "wake 61000 the task before it is still stopping";
    expect(
        &world("node n1 unknown", "running/shutdown on=n1"),
        6000,
        waits,
    );
    expect(&world("node n1", "assigned/shutdown on=n1"), 6000, waits);
}

#[test]
fn tasks_leave_nodes_that_are_down_drained_or_gone_and_stay_on_others() {
    let leaves = "update t1 desired=shutdown\ncreate web.1 ready";
    let cases = [
        ("node n1 down", leaves),
        ("node n1 drain", leaves),
        ("node n1 unknown drain", leaves),
        ("", leaves),
        ("node n1 unknown", ""),
        ("node n1 disconnected", ""),
        ("node n1 pause", ""),
    ];
    for (node, expected) in cases {
        let world = format!("{node}\nservice web\ntask t1 web.1 running/running on=n1");
        expect(&world, 0, expected);
    }
}

#[test]
fn a_task_that_is_only_assigned_to_a_drained_node_leaves_too() {
    expect(
        "node n1 drain\nservice web\ntask t1 web.1 assigned/running on=n1",
        0,
        "update t1 desired=shutdown\ncreate web.1 ready",
    );
}

#[test]
fn a_drained_node_means_no_delay_but_waiting_for_the_old_task() {
    let world = |node: &str, old: &str| {
        format!(
            "{node}\nnode n2\nservice web
             task t1 web.1 {old}/shutdown on=n1
             task t2 web.1 ready/ready on=n2 created=1000"
        )
    };
    let waits = "wake 61000 the task before it is still stopping";
    expect(&world("node n1 drain", "running"), 1000, waits);
    expect(
        &world("node n1 drain", "shutdown"),
        1000,
        "update t2 desired=running",
    );
    expect(
        &world("node n1 down", "running"),
        1000,
        "wake 6000 restart delay",
    );
}

#[test]
fn the_restart_condition_decides_about_a_replacement() {
    let (replaced, given_up) = (
        "update t1 desired=shutdown\ncreate web.1 ready",
        "update t1 desired=shutdown",
    );
    let cases = [
        ("any", "complete", replaced),
        ("any", "failed", replaced),
        ("on-failure", "complete", given_up),
        ("on-failure", "failed", replaced),
        ("on-failure", "rejected", replaced),
        ("none", "complete", given_up),
        ("none", "failed", given_up),
    ];
    for (condition, state, expected) in cases {
        let world = format!("service web restart={condition}\ntask t1 web.1 {state}/running on=n1");
        with_nodes(&world, 0, expected);
    }
}

#[test]
fn a_replica_that_must_not_be_restarted_counts_and_keeps_its_task() {
    with_nodes(
        "service web restart=none\ntask t1 web.1 complete/shutdown on=n1",
        0,
        "",
    );
    with_nodes(
        "service web restart=on-failure\ntask t1 web.1 failed/shutdown on=n1",
        0,
        "create web.1 running",
    );
}

#[test]
fn a_rollback_creates_a_replica_anew_that_policy_had_given_up() {
    with_nodes(
        "service web restart=none rollback\ntask t1 web.1 complete/shutdown on=n1",
        0,
        "create web.1 running",
    );
}

#[test]
fn attempts_do_not_count_the_first_start() {
    let first = "
        service web restart=any attempts=1 version=1
        task t1 web.1 failed/running on=n1 created=0 version=1";
    with_nodes(first, 0, "update t1 desired=shutdown\ncreate web.1 ready");
    let second = "
        service web restart=any attempts=1 version=1
        task t1 web.1 failed/shutdown on=n1 created=0 version=1
        task t2 web.1 failed/running on=n1 created=9 version=1";
    with_nodes(second, 90000, "update t2 desired=shutdown");
    let spent = second.replace("failed/running", "failed/shutdown");
    with_nodes(&spent, 90000, "");
}

#[test]
fn attempts_start_over_with_another_spec_version() {
    with_nodes(
        "service web restart=any attempts=1 version=2
         task t1 web.1 failed/shutdown on=n1 created=0 version=1
         task t2 web.1 failed/running on=n1 created=9 version=2",
        90000,
        "update t2 desired=shutdown\ncreate web.1 ready",
    );
}

#[test]
fn attempts_are_counted_for_each_slot() {
    with_nodes(
        "service web replicas=2 restart=any attempts=1 version=1
         task t1 web.1 failed/shutdown on=n1 created=0 version=1
         task t2 web.1 running/running on=n1 created=9 version=1
         task t3 web.2 failed/running on=n1 created=9 version=1",
        90000,
        "update t3 desired=shutdown\ncreate web.2 ready",
    );
}

#[test]
fn a_window_forgets_restarts_that_lie_before_it() {
    let world = |ended: u64| {
        format!(
            "service web restart=any attempts=1 window=10000 version=1
             task t1 web.1 failed/shutdown on=n1 created=0 version=1
             task t2 web.1 failed/running on=n1 created=20000 at={ended} version=1"
        )
    };
    // The restart at 20 s is in the window until the task ends 10 s after it.
    with_nodes(&world(29_999), 90000, "update t2 desired=shutdown");
    let replaced = "update t2 desired=shutdown\ncreate web.1 ready";
    with_nodes(&world(30_000), 90000, replaced);
    // A restart that did not lie before the end is not counted.
    with_nodes(&world(20_000), 90000, replaced);
    with_nodes(&world(20_001), 90000, "update t2 desired=shutdown");
}

#[test]
fn of_two_live_tasks_the_one_in_trouble_goes_without_replacement() {
    with_nodes(
        "service web
         task t1 web.1 failed/running on=n1
         task t2 web.1 running/running on=n2",
        0,
        "update t1 desired=shutdown",
    );
    with_nodes(
        "service web
         task t1 web.1 failed/running on=n1
         task t2 web.1 failed/running on=n2",
        0,
        "update t1 desired=shutdown\nupdate t2 desired=shutdown\ncreate web.1 ready",
    );
}

#[test]
fn a_task_of_an_older_spec_is_left_alone_until_it_ends() {
    with_nodes(
        "service web version=2\ntask t1 web.1 running/running on=n1 version=1",
        0,
        "",
    );
}

#[test]
fn scaling_down_takes_unassigned_replicas_first_and_then_balances() {
    let seven = "
        node n1
        node n2
        node n3
        task t1 web.1 running/running on=n1
        task t2 web.2 running/running on=n1
        task t3 web.3 running/running on=n2
        task t4 web.4 running/running on=n2
        task t5 web.5 running/running on=n2
        task t6 web.6 running/running on=n3
        task t7 web.7 pending/running";
    let cases = [
        (6, "t7"),
        (5, "t7 t5"),
        (4, "t7 t5 t4"),
        (3, "t7 t5 t4 t2"),
        (2, "t7 t5 t4 t2 t6"),
        (1, "t7 t5 t4 t2 t6 t3"),
        (0, "t1 t2 t3 t4 t5 t6 t7"),
    ];
    for (replicas, victims) in cases {
        let expected: Vec<String> = victims
            .split(' ')
            .map(|task| format!("update {task} desired=remove"))
            .collect();
        let world = format!("service web replicas={replicas}\n{seven}");
        expect(&world, 0, &expected.join("\n"));
    }
}

#[test]
fn scaling_down_takes_replicas_that_do_not_run_before_those_that_do() {
    with_nodes(
        "service web replicas=1
         task t1 web.1 starting/running on=n1
         task t2 web.2 running/running on=n1",
        0,
        "update t1 desired=remove",
    );
}

#[test]
fn scaling_down_takes_replicas_with_several_live_tasks_first() {
    with_nodes(
        "service web replicas=1
         task t1 web.1 running/running on=n1
         task t2 web.1 running/running on=n2
         task t3 web.2 running/running on=n1",
        0,
        "update t1 desired=remove\nupdate t2 desired=remove",
    );
}

#[test]
fn scaling_down_takes_the_history_of_a_victim_along() {
    with_nodes(
        "service web replicas=0
         task t1 web.1 failed/shutdown on=n1
         task t2 web.1 running/running on=n1 created=5",
        0,
        "update t1 desired=remove\nupdate t2 desired=remove",
    );
}

#[test]
fn tasks_that_are_to_be_removed_do_not_count_but_are_waited_for() {
    let world = |old: &str| format!("service web restart=none replicas=1\ntask t1 web.1 {old}");
    with_nodes(&world("running/remove on=n1"), 0, "create web.1 ready");
    for old in [
        "shutdown/remove on=n1",
        "running/remove on=n3",
        "pending/remove",
    ] {
        with_nodes(&world(old), 0, "create web.1 running");
    }
    // The new one is no restart, so that it starts as soon as the old one has stopped.
    let next = "task t2 web.1 ready/ready on=n2 created=1000";
    let waits = "wake 61000 the task before it is still stopping";
    let start = "update t2 desired=running";
    with_nodes(
        &format!("{}\n{next}", world("running/remove on=n1")),
        1001,
        waits,
    );
    with_nodes(
        &format!("{}\n{next}", world("shutdown/remove on=n1")),
        1001,
        start,
    );
}

#[test]
fn the_history_of_dead_slots_is_deleted_once_it_has_stopped() {
    let world = |old: &str| {
        format!(
            "service web replicas=1
             task t1 web.1 running/running on=n1
             task t2 web.2 {old} on=n1"
        )
    };
    with_nodes(&world("failed/shutdown"), 0, "delete t2");
    with_nodes(&world("running/shutdown"), 0, "");
    // As long as replicas are missing, their numbers may be needed again.
    let missing = world("failed/shutdown").replace("replicas=1", "replicas=2");
    with_nodes(&missing, 0, "create web.2 running");
}

#[test]
fn status_updates_of_healthy_tasks_mark_nothing() {
    let mut root = world("node n1\nservice web\ntask t1 web.1 new/running");
    let mut replicated = Replicated::default();
    replicated.resync(&root, &mut BTreeSet::new());
    let mut keys_after = |line: &str| {
        let (next, commit) = put(&root, line);
        root = next;
        observe(&mut replicated, &root, &commit)
    };
    assert_eq!(keys_after("task t1 web.1 pending/running").len(), 0);
    assert_eq!(keys_after("task t1 web.1 assigned/running on=n1").len(), 0);
    assert_eq!(keys_after("task t1 web.1 starting/running on=n1").len(), 0);
    assert_eq!(keys_after("task t1 web.1 running/running on=n1").len(), 0);
    assert_eq!(keys_after("node n1 unknown").len(), 0);
    assert_eq!(keys_after("node n1 k=v").len(), 0);
    assert_eq!(keys_after("node n1 down").len(), 1);
    assert_eq!(keys_after("node n1").len(), 1);
    assert_eq!(keys_after("task t1 web.1 failed/running on=n1").len(), 2);
}

#[test]
fn a_task_that_was_placed_on_a_node_which_will_not_do_is_looked_at() {
    for node in ["node n1 down", "node n1 drain", ""] {
        let text = format!("{node}\nservice web\ntask t1 web.1 pending/running");
        let root = world(&text);
        let mut replicated = Replicated::default();
        replicated.resync(&root, &mut BTreeSet::new());
        let (root, commit) = put(&root, "task t1 web.1 assigned/running on=n1");
        assert_eq!(observe(&mut replicated, &root, &commit).len(), 2, "{node}");
    }
}

#[test]
fn a_status_of_a_task_on_its_way_out_marks_its_slot() {
    // A window of attempts ends with the time of that status.
    let mut root = world("node n1\nservice web\ntask t1 web.1 assigned/shutdown on=n1");
    let mut replicated = Replicated::default();
    replicated.resync(&root, &mut BTreeSet::new());
    let (next, commit) = put(&root, "task t1 web.1 starting/shutdown on=n1");
    root = next;
    let keys = observe(&mut replicated, &root, &commit);
    let id: ServiceId = "web".parse().unwrap();
    assert!(keys.contains(&Key::Slot(id, Slot(1))), "{keys:?}");
}

#[test]
fn a_node_marks_the_slots_on_it_and_no_others() {
    let root = world(
        "node n1\nnode n2\nservice web replicas=2
         task t1 web.1 running/running on=n1
         task t2 web.2 running/running on=n2",
    );
    let mut replicated = Replicated::default();
    replicated.resync(&root, &mut BTreeSet::new());
    let node = root.node(&"n1".parse().unwrap()).unwrap().clone();
    let (root, commit) = remove(&root, &node.into());
    let keys = observe(&mut replicated, &root, &commit);
    assert_eq!(
        keys,
        BTreeSet::from([Key::Slot("web".parse().unwrap(), Slot(1))])
    );
    assert_eq!(
        decide_keys(&replicated, &root, keys, 0),
        "update t1 desired=shutdown\ncreate web.1 ready\n"
    );
}

#[test]
fn the_end_of_an_old_task_lets_the_replacement_start() {
    let root = world(
        "node n1\nnode n2\nservice web
         task t1 web.1 running/shutdown on=n1
         task t2 web.1 ready/ready on=n2 created=0",
    );
    let mut replicated = Replicated::default();
    replicated.resync(&root, &mut BTreeSet::new());
    for line in ["task t1 web.1 shutdown/shutdown on=n1", "node n1 down"] {
        let (root, commit) = put(&root, line);
        let keys = observe(&mut replicated.clone(), &root, &commit);
        let decided = decide_keys(&replicated, &root, keys, 5000);
        assert_eq!(decided, "update t2 desired=running\n", "{line}");
    }
}

/// Commits a batch as a store would, and tells the queue.
fn commit(queue: &mut Queue<Replicated>, root: &mut Root, now: u64) -> bool {
    let now = crate::world::ms(now);
    let mut ids = crate::world::Ids::starting(root.version().0 * 1_000);
    let Some(batch) = queue.poll_transaction(root, now, &mut ids) else {
        return false;
    };
    assert!(batch.sets.len() <= 200);
    let mut transaction = root.begin(now);
    for set in &batch.sets {
        transaction.apply_set(set).unwrap();
    }
    let (next, commit) = transaction.finish();
    *root = next;
    queue.handle_outcome(&Outcome::Committed {
        version: root.version(),
        refused: vec![],
    });
    queue.handle_commit(&commit, root);
    true
}

/// Moves every task of the service one state on, as allocator, scheduler and agents do.
fn advance_all(queue: &mut Queue<Replicated>, root: &mut Root, state: TaskState) {
    let mut transaction = root.begin(crate::world::ms(0));
    for task in root.all::<Task>() {
        let mut task = (**task).clone();
        task.advance(TaskStatus::new(state, crate::world::ms(0), ""))
            .unwrap();
        task.node_id = Some("n1".parse().unwrap());
        transaction.update(task).unwrap();
    }
    let (next, commit) = transaction.finish();
    *root = next;
    queue.handle_commit(&commit, root);
}

#[test]
fn launching_a_large_service_reads_each_task_a_few_times_only() {
    const REPLICAS: usize = 10_000;
    let mut root = world(&format!("node n1\nservice web replicas={REPLICAS}"));
    let mut queue = Queue::new(Replicated::default(), &root);
    take_reads();
    let mut transactions = 0;
    while commit(&mut queue, &mut root, 0) {
        transactions += 1;
    }
    assert_eq!(root.count::<Task>(), REPLICAS);
    assert_eq!(transactions, REPLICAS / 200);
    let steps = queue.status().steps;
    assert!(steps <= 2 * transactions as u64, "{steps} steps");
    for state in [
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Starting,
        TaskState::Running,
    ] {
        advance_all(&mut queue, &mut root, state);
        while commit(&mut queue, &mut root, 0) {}
    }
    let reads = take_reads();
    assert!(reads <= 5 * REPLICAS, "{reads} reads");
    let steps = queue.status().steps;
    assert!(steps <= REPLICAS as u64 + 400, "{steps} steps");
    let mut fresh = Replicated::default();
    fresh.resync(&root, &mut BTreeSet::new());
    assert_eq!(&fresh, queue.reconciler());
}

#[test]
fn a_step_that_is_asked_for_a_million_replicas_stays_small() {
    let decided = decide(
        Replicated::default(),
        &world("service web replicas=1000000"),
        0,
    );
    assert_eq!(decided.lines().count(), 201);
    assert!(decided.ends_with("create web.200 running\nmore\n"));
}

#[test]
fn a_slot_that_was_filled_behind_the_back_of_the_cache_is_not_filled_again() {
    let before = world("service web replicas=2");
    let mut replicated = Replicated::default();
    let mut keys = BTreeSet::new();
    replicated.resync(&before, &mut keys);
    let (after, _) = put(&before, "task t1 web.1 new/running");
    assert_eq!(
        decide_keys(&replicated, &after, keys, 0),
        "create web.2 running\n"
    );
}

#[test]
fn tasks_are_created_for_the_spec_that_was_seen_or_not_at_all() {
    let texts = [
        "service web",
        "node n1\nservice web\ntask t1 web.1 failed/running on=n1",
    ];
    for text in texts {
        let root = world(text);
        let mut queue = Queue::new(Replicated::default(), &root);
        let mut ids = crate::world::Ids::default();
        let batch = queue
            .poll_transaction(&root, crate::world::ms(0), &mut ids)
            .unwrap();
        let (changed, _) = put(&root, "service web replicas=2");
        let mut transaction = changed.begin(crate::world::ms(0));
        assert!(transaction.apply_set(&batch.sets[0]).is_err());
        assert!(transaction.is_empty());
        let mut transaction = root.begin(crate::world::ms(0));
        transaction.apply_set(&batch.sets[0]).unwrap();
    }
}

#[test]
fn scaling_a_large_service_to_zero_reads_each_task_a_few_times_only() {
    const REPLICAS: usize = 5_000;
    let mut root = world(&format!("service web replicas={REPLICAS}"));
    let mut queue = Queue::new(Replicated::default(), &root);
    while commit(&mut queue, &mut root, 0) {}
    let (next, change) = put(&root, "service web replicas=0");
    root = next;
    queue.handle_commit(&change, &root);
    take_reads();
    while commit(&mut queue, &mut root, 0) {}
    let reads = take_reads();
    assert!(reads <= 4 * REPLICAS, "{reads} reads");
    let left = root.all::<Task>().filter(|task| task.is_live()).count();
    assert_eq!(left, 0);
}

#[test]
fn a_task_that_came_and_went_between_two_looks_is_created_again() {
    let mut root = world("service web");
    let mut queue = Queue::new(Replicated::default(), &root);
    let mut ids = crate::world::Ids::default();
    let now = crate::world::ms(0);
    let batch = queue.poll_transaction(&root, now, &mut ids).unwrap();
    let mut transaction = root.begin(now);
    transaction.apply_set(&batch.sets[0]).unwrap();
    let (created, first) = transaction.finish();
    let task = created.all::<Task>().next().unwrap().clone();
    let (removed, second) = remove(&created, &task.into());
    root = removed;
    queue.handle_outcome(&Outcome::Committed {
        version: first.version,
        refused: vec![],
    });
    queue.handle_commit(&first, &root);
    queue.handle_commit(&second, &root);
    assert!(queue.poll_transaction(&root, now, &mut ids).is_some());
}

#[test]
fn an_update_starts_what_gave_up() {
    let gave_up = |restart: &str, state: &str| {
        format!(
            "node n1
             service web {restart} replicas=2 version=1
             task t1 web.1 {state}/shutdown on=n1 version=1
             task t2 web.2 running/running on=n1 version=1"
        )
    };
    for (restart, state) in [
        ("restart=none", "failed"),
        ("restart=on-failure", "complete"),
    ] {
        let root = world(&gave_up(restart, state));
        let mut replicated = Replicated::default();
        let mut keys = BTreeSet::new();
        replicated.resync(&root, &mut keys);
        assert_eq!(decide_keys(&replicated, &root, keys, 0), "");
        // Scaling is no other chance.
        let scaled = format!("service web {restart} replicas=3 version=2");
        let (scaled, commit) = put(&root, &scaled);
        let mut of_scaled = replicated.clone();
        let keys = observe(&mut of_scaled, &scaled, &commit);
        assert_eq!(
            decide_keys(&of_scaled, &scaled, keys, 0),
            "create web.3 running\n"
        );
        let updated = format!("service web {restart} replicas=2 memory=1 version=2");
        let (updated, commit) = put(&root, &updated);
        let keys = observe(&mut replicated, &updated, &commit);
        assert_eq!(
            decide_keys(&replicated, &updated, keys, 0),
            "create web.1 running\n"
        );
        let mut fresh = Replicated::default();
        fresh.resync(&updated, &mut BTreeSet::new());
        assert_eq!(fresh, replicated, "the cache follows an update");
    }
}

#[test]
fn a_replacement_knows_how_often_its_replica_failed() {
    let failures = |state: &str, before: u32| {
        let root = world(&format!(
            "node n1 down
             service web
             task t1 web.1 {state}/running on=n1"
        ));
        let mut task = (**root.task(&"t1".parse().unwrap()).unwrap()).clone();
        task.failures_before = before;
        let mut transaction = root.begin(crate::world::ms(0));
        transaction.update(task).unwrap();
        let (root, _) = transaction.finish();
        let mut ids = crate::world::Ids::default();
        let mut ctx = Ctx {
            now: crate::world::ms(0),
            ids: &mut ids,
        };
        let step = Replicated::default().reconcile(
            &root,
            &Key::Slot("web".parse().unwrap(), Slot(1)),
            &mut ctx,
        );
        let writes = step.sets.iter().flat_map(|set| &set.0);
        let mut made = writes.filter_map(|write| match write {
            Write::Create(AnyObject::Task(task)) => Some(task.failures_before),
            Write::Create(_) | Write::Update(_) | Write::Delete { .. } | Write::Require { .. } => {
                None
            }
        });
        made.next_back().unwrap()
    };
    assert_eq!(failures("failed", 0), 1);
    assert_eq!(failures("rejected", 41), 42);
    // Its node is down, which is no failure of its own.
    assert_eq!(failures("running", 7), 7);
    assert_eq!(failures("failed", u32::MAX), u32::MAX);
}
