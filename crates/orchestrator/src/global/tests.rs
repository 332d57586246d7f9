use super::*;
use crate::world::{check, decide_keys, observe, put, remove, world};

#[track_caller]
fn expect(text: &str, now: u64, expected: &str) {
    check::<Global>(text, now, expected);
}

#[test]
fn every_eligible_node_gets_a_task() {
    expect(
        "node n1
         node n2
         node n3 unknown
         node n4 disconnected
         node n5 down
         node n6 drain
         node n7 pause
         service agent global",
        0,
        "create agent.n1 running
         create agent.n2 running
         create agent.n3 running
         create agent.n4 running",
    );
}

#[test]
fn only_nodes_that_can_run_the_image_get_a_task() {
    let nodes = "node e1 plugin=Volume:local
                 node n1 plugin=Executor:native
                 node x1\n";
    for (image, created) in [
        ("nginx", "create agent.e1 running\ncreate agent.x1 running"),
        ("host", "create agent.n1 running\ncreate agent.x1 running"),
    ] {
        expect(
            &format!("{nodes}service agent global image={image}"),
            0,
            created,
        );
    }
}

#[test]
fn a_node_that_has_its_task_is_left_alone() {
    expect(
        "node n1\nservice agent global\ntask t1 agent.0 running/running on=n1",
        0,
        "",
    );
    expect("node n1\nservice web replicas=1", 0, "");
}

#[test]
fn tasks_are_shut_down_where_they_may_not_be() {
    let cases = [
        ("node n1 drain", "update t1 desired=shutdown"),
        ("node n1 down", "update t1 desired=shutdown"),
        ("node n1 down pause", "update t1 desired=shutdown"),
        ("node n1 pause", ""),
        ("node n1 unknown", ""),
        ("", "delete t1"),
    ];
    for (node, expected) in cases {
        let world = format!("{node}\nservice agent global\ntask t1 agent.0 running/running on=n1");
        expect(&world, 0, expected);
    }
}

#[test]
fn a_node_that_comes_back_waits_for_the_task_that_is_still_stopping() {
    let cases = [
        ("assigned", "ready"),
        ("running", "ready"),
        ("shutdown", "running"),
        ("pending", "running"),
    ];
    for (state, desired) in cases {
        let world =
            format!("node n1\nservice agent global\ntask t1 agent.0 {state}/shutdown on=n1");
        expect(&world, 0, &format!("create agent.n1 {desired}"));
    }
}

#[test]
fn tasks_on_a_removed_node_are_deleted_whatever_their_state() {
    expect(
        "service agent global
         task t1 agent.0 orphaned/running on=gone
         task t2 agent.0 failed/shutdown on=gone",
        0,
        "delete t1\ndelete t2",
    );
}

#[test]
fn a_task_without_a_node_is_shut_down() {
    expect(
        "service agent global\ntask t1 agent.0 pending/running",
        0,
        "update t1 desired=shutdown",
    );
}

#[test]
fn constraints_choose_the_nodes() {
    let world = "
        node n1 k=a
        node n2 k=b
        node n3
        service agent global constraint=node.labels.k==a";
    expect(world, 0, "create agent.n1 running");
    let moved = format!(
        "{world}
         task t1 agent.0 running/running on=n1
         task t2 agent.0 running/running on=n2"
    );
    expect(&moved, 0, "update t2 desired=shutdown");
}

#[test]
fn constraints_that_do_not_parse_count_as_none() {
    expect(
        "node n1\nservice agent global constraint=nonsense",
        0,
        "create agent.n1 running",
    );
}

#[test]
fn a_task_that_ended_is_restarted_on_its_node() {
    expect(
        "node n1\nservice agent global\ntask t1 agent.0 failed/running on=n1",
        0,
        "update t1 desired=shutdown\ncreate agent.n1 ready",
    );
    let delayed = "
        node n1
        service agent global
        task t1 agent.0 failed/shutdown on=n1
        task t2 agent.0 ready/ready on=n1 created=1000";
    expect(delayed, 5999, "wake 6000 restart delay");
    expect(delayed, 6000, "update t2 desired=running");
}

#[test]
fn policy_is_that_of_the_own_service() {
    // SwarmKit judges the tasks of one service by the policy of another here.
    expect(
        "node n1
         service a global restart=none
         service b global
         task t1 a.0 complete/shutdown on=n1
         task t2 b.0 complete/running on=n1",
        0,
        "update t2 desired=shutdown\ncreate b.n1 ready",
    );
    expect(
        "node n1
         service a global restart=none
         task t1 a.0 complete/running on=n1",
        0,
        "update t1 desired=shutdown",
    );
}

#[test]
fn a_task_that_ends_on_a_paused_node_is_not_replaced() {
    let world = "
        node n1 pause
        service agent global
        task t1 agent.0 failed/running on=n1";
    expect(world, 0, "update t1 desired=shutdown");
    expect(&world.replace("failed/running", "failed/shutdown"), 0, "");
    let active = world
        .replace(" pause", "")
        .replace("failed/running", "failed/shutdown");
    expect(&active, 0, "create agent.n1 running");
}

#[test]
fn a_start_delay_goes_on_while_the_node_is_paused() {
    let world = "
        node n1 pause
        service agent global
        task t2 agent.0 ready/ready on=n1 created=1000";
    expect(world, 5999, "wake 6000 restart delay");
    expect(world, 6000, "update t2 desired=running");
}

#[test]
fn a_node_that_comes_back_gets_a_new_task() {
    expect(
        "node n1
         service agent global restart=any attempts=1
         task t1 agent.0 shutdown/shutdown on=n1 created=0
         task t2 agent.0 shutdown/shutdown on=n1 created=1",
        0,
        "create agent.n1 running",
    );
}

#[test]
fn of_several_tasks_on_a_node_the_oldest_healthy_one_stays() {
    expect(
        "node n1
         service agent global
         task t1 agent.0 failed/running on=n1 created=0
         task t2 agent.0 running/running on=n1 created=2
         task t3 agent.0 running/running on=n1 created=1",
        0,
        "update t2 desired=shutdown\nupdate t1 desired=shutdown",
    );
}

#[test]
fn a_task_of_an_older_spec_is_left_alone() {
    expect(
        "node n1
         service agent global version=2
         task t1 agent.0 running/running on=n1 version=1",
        0,
        "",
    );
}

/// A loop that knows the world, and the keys that a line marks.
fn keys_after(text: &str, line: &str) -> (Global, Root, BTreeSet<Key>) {
    let root = world(text);
    let mut global = Global::default();
    global.resync(&root, &mut BTreeSet::new());
    let (root, commit) = put(&root, line);
    let keys = observe(&mut global, &root, &commit);
    (global, root, keys)
}

#[test]
fn a_node_marks_itself_and_heartbeats_mark_nothing() {
    let text = "
        node n1
        node n2
        service a global
        service b global
        service web replicas=1";
    let count = |line| keys_after(text, line).2.len();
    assert_eq!(count("node n1"), 0);
    assert_eq!(count("node n1 unknown"), 0);
    assert_eq!(count("node n1 down"), 2);
    assert_eq!(count("node n1 drain"), 2);
    assert_eq!(count("node n1 k=v"), 2);
    assert_eq!(count("node n3"), 2);
}

#[test]
fn a_new_service_marks_every_node() {
    let (global, root, keys) = keys_after("node n1\nnode n2", "service agent global");
    assert_eq!(
        decide_keys(&global, &root, keys, 0),
        "create agent.n1 running\ncreate agent.n2 running\n"
    );
}

#[test]
fn an_update_that_concerns_no_task_marks_nothing() {
    let text = "node n1\nservice agent global";
    let root = world(text);
    let mut global = Global::default();
    global.resync(&root, &mut BTreeSet::new());
    let mut service = (**root.service(&"agent".parse().unwrap()).unwrap()).clone();
    service.endpoint = Some(Arc::default());
    let mut transaction = root.begin(crate::world::ms(0));
    transaction.update(service).unwrap();
    let (root, commit) = transaction.finish();
    assert_eq!(observe(&mut global, &root, &commit).len(), 0);
    assert_eq!(
        keys_after(text, "service agent global restart=none")
            .2
            .len(),
        1
    );
}

#[test]
fn a_task_that_an_operator_removed_is_created_again() {
    let root = world("node n1\nservice agent global\ntask t1 agent.0 running/running on=n1");
    let mut global = Global::default();
    global.resync(&root, &mut BTreeSet::new());
    let task = root.task(&"t1".parse().unwrap()).unwrap().clone();
    let (root, commit) = remove(&root, &task.into());
    let keys = observe(&mut global, &root, &commit);
    assert_eq!(
        decide_keys(&global, &root, keys, 0),
        "create agent.n1 running\n"
    );
}

#[test]
fn a_removed_node_marks_the_global_tasks_on_it() {
    let root = world(
        "node n1
         service a global
         service b global
         service web replicas=1
         task t1 a.0 running/running on=n1
         task t2 web.1 running/running on=n1",
    );
    let mut global = Global::default();
    global.resync(&root, &mut BTreeSet::new());
    let node = root.node(&"n1".parse().unwrap()).unwrap().clone();
    let (root, commit) = remove(&root, &node.into());
    let keys = observe(&mut global, &root, &commit);
    assert_eq!(decide_keys(&global, &root, keys, 0), "delete t1\n");
}

#[test]
fn a_removed_service_is_forgotten() {
    let root = world("node n1\nservice agent global");
    let mut global = Global::default();
    global.resync(&root, &mut BTreeSet::new());
    let service = root.service(&"agent".parse().unwrap()).unwrap().clone();
    let (root, commit) = remove(&root, &service.into());
    observe(&mut global, &root, &commit);
    assert_eq!(global, Global::default());
    assert_eq!(keys_after("", "node n1").2.len(), 0);
}

#[test]
fn a_task_is_created_for_the_node_that_was_seen_or_not_at_all() {
    let root = world("node n1\nservice agent global");
    let mut queue = swarm_reconcile::Queue::new(Global::default(), &root);
    let (now, mut ids) = (crate::world::ms(0), crate::world::Ids::default());
    let batch = queue.poll_transaction(&root, now, &mut ids).unwrap();
    for line in ["node n1 drain", "service agent global version=2"] {
        let (changed, _) = put(&root, line);
        assert!(
            changed.begin(now).apply_set(&batch.sets[0]).is_err(),
            "{line}"
        );
    }
    root.begin(now).apply_set(&batch.sets[0]).unwrap();
}

#[test]
fn an_update_starts_what_gave_up() {
    let gave_up = world(
        "node n1
         service agent global restart=none version=1
         task t1 agent.0 failed/shutdown on=n1 version=1",
    );
    let mut global = Global::default();
    let mut keys = BTreeSet::new();
    global.resync(&gave_up, &mut keys);
    assert_eq!(decide_keys(&global, &gave_up, keys, 0), "");
    let (root, commit) = put(
        &gave_up,
        "service agent global restart=none memory=1 version=2",
    );
    let keys = observe(&mut global, &root, &commit);
    assert_eq!(
        decide_keys(&global, &root, keys, 0),
        "create agent.n1 running\n"
    );
}
