use super::*;
use crate::world::{check, decide, decide_keys, ms, observe, put, world};

#[track_caller]
fn expect(text: &str, now: u64, expected: &str) {
    check::<Reaper>(text, now, expected);
}

#[test]
fn removed_tasks_are_deleted_unless_they_may_still_run() {
    let cases = [
        ("new/remove", true),
        ("pending/remove", true),
        ("assigned/remove", false),
        ("running/remove", false),
        ("complete/remove", true),
        ("shutdown/remove", true),
        ("failed/remove", true),
        ("rejected/remove", true),
        ("orphaned/remove", true),
        ("pending/shutdown", false),
        ("failed/shutdown", false),
        ("new/running", false),
    ];
    for (states, deleted) in cases {
        let expected = if deleted { "delete t1" } else { "" };
        expect(&format!("task t1 web.1 {states}"), 1000, expected);
        expect(
            &format!("service web\ntask t1 web.1 {states}"),
            1000,
            expected,
        );
    }
}

#[test]
fn orphans_are_deleted_if_they_have_no_service() {
    expect("task t1 -.0 orphaned/running", 1000, "delete t1");
    expect("task t1 -.0 failed/running", 1000, "");
    expect("service web\ntask t1 web.1 orphaned/shutdown", 1000, "");
}

#[test]
fn deletions_wait_for_the_end_of_a_batch() {
    let world = "
        task t1 -.0 failed/remove created=1000
        task t2 -.0 failed/remove created=1249";
    let wait = "wake 1250 collects old tasks to delete them together";
    expect(world, 1249, wait);
    expect(world, 1250, "delete t1\ndelete t2");
    // A time from a faster clock is not waited for.
    expect("task t1 -.0 failed/remove created=1000", 999, "delete t1");
}

#[test]
fn more_than_a_thousand_deletions_do_not_wait() {
    let world = |count: usize| {
        let line = |number| format!("task t{number:04} -.0 failed/remove created=1000");
        world(&(0..count).map(line).collect::<Vec<_>>().join("\n"))
    };
    let wait = "wake 1250 collects old tasks to delete them together\n";
    assert_eq!(decide(Reaper::default(), &world(1000), 1000), wait);
    let decided = decide(Reaper::default(), &world(1001), 1000);
    assert_eq!(decided.lines().count(), 201);
    assert!(decided.ends_with("more\n"));
}

/// A replica with old tasks created at 1, 2, … and a running one.
fn history(old: u64, cluster: &str, service: &str) -> String {
    let tasks: Vec<String> = (1..=old)
        .map(|age| format!("task t{age} web.1 failed/shutdown on=n1 created={age}"))
        .collect();
    format!(
        "{cluster}\nnode n1\nservice web {service}\n{}
         task live web.1 running/running on=n1 created=90",
        tasks.join("\n")
    )
}

#[test]
fn the_retention_limit_counts_the_present_task_too() {
    expect(&history(4, "", ""), 1000, "");
    expect(&history(5, "", ""), 1000, "delete t1");
    expect(&history(2, "cluster keep=3", ""), 1000, "");
    expect(&history(3, "cluster keep=3", ""), 1000, "delete t1");
    expect(
        &history(2, "cluster keep=0", ""),
        1000,
        "delete t1\ndelete t2",
    );
    expect(&history(9, "cluster keep=-1", ""), 1000, "");
}

#[test]
fn restart_attempts_keep_the_history_that_they_are_counted_from() {
    let service = "restart=any attempts=3";
    expect(&history(3, "cluster keep=1", service), 1000, "");
    expect(&history(4, "cluster keep=1", service), 1000, "delete t1");
    let more = "restart=any attempts=7";
    expect(&history(7, "cluster keep=1", more), 1000, "");
}

#[test]
fn history_waits_for_a_batch_too() {
    let world = history(1, "cluster keep=1", "");
    let wait = "wake 250 collects old tasks to delete them together";
    expect(&world, 249, wait);
    expect(&world, 250, "delete t1");
}

#[test]
fn the_oldest_by_the_time_of_their_end_go_first() {
    expect(
        "cluster keep=2
         node n1
         service web
         task t1 web.1 failed/shutdown on=n1 created=1 at=80
         task t2 web.1 failed/shutdown on=n1 created=2 at=70
         task t3 web.1 running/running on=n1 created=90",
        1000,
        "delete t2",
    );
}

#[test]
fn only_tasks_that_are_over_are_history() {
    let cases = [
        ("failed/shutdown", true),
        ("complete/shutdown", true),
        ("shutdown/shutdown", true),
        ("orphaned/shutdown", true),
        ("new/shutdown", true),
        ("pending/shutdown", true),
        ("assigned/shutdown", false),
        ("running/shutdown", false),
        ("failed/running", false),
        ("pending/running", false),
    ];
    for (states, deleted) in cases {
        let world = format!(
            "cluster keep=1
             node n1
             service web
             task t1 web.1 {states} on=n1 created=1
             task t2 web.1 running/running on=n1 created=2"
        );
        expect(&world, 1000, if deleted { "delete t1" } else { "" });
    }
}

#[test]
fn the_last_task_of_a_replica_that_is_not_restarted_stays() {
    expect(
        "cluster keep=0
         node n1
         service web restart=none
         task t1 web.1 failed/shutdown on=n1 created=1
         task t2 web.1 complete/shutdown on=n1 created=2",
        1000,
        "delete t1",
    );
}

#[test]
fn history_of_a_global_service_is_kept_for_each_node() {
    expect(
        "cluster keep=1
         node n1
         node n2
         service agent global
         task t1 agent.0 failed/shutdown on=n1 created=1
         task t2 agent.0 running/running on=n1 created=2
         task t3 agent.0 running/running on=n2 created=3",
        1000,
        "delete t1",
    );
}

#[test]
fn a_lower_limit_prunes_at_once() {
    let text = history(3, "cluster keep=9", "");
    let root = world(&text);
    let mut reaper = Reaper::default();
    reaper.resync(&root, &mut BTreeSet::new());
    let (root, commit) = put(&root, "cluster keep=2");
    let keys = observe(&mut reaper, &root, &commit);
    assert_eq!(
        decide_keys(&reaper, &root, keys, 1000),
        "delete t1\ndelete t2\n"
    );
    let (root, commit) = put(&root, "cluster keep=2");
    assert_eq!(observe(&mut reaper, &root, &commit).len(), 0);
}

#[test]
fn fewer_attempts_prune_at_once() {
    let root = world(&history(3, "", "restart=any attempts=9"));
    let mut reaper = Reaper::default();
    reaper.resync(&root, &mut BTreeSet::new());
    let (root, commit) = put(&root, "service web restart=any attempts=1");
    let keys = observe(&mut reaper, &root, &commit);
    assert_eq!(
        decide_keys(&reaper, &root, keys, 1000),
        "delete t1\ndelete t2\n"
    );
}

#[test]
fn a_replacement_and_the_end_of_a_task_mark_the_history_and_progress_does_not() {
    let root = world("node n1\nservice web");
    let mut reaper = Reaper::default();
    let mut marks = |root: &Root, line: &str| {
        let (root, commit) = put(root, line);
        (observe(&mut reaper, &root, &commit).len(), root)
    };
    let (count, root) = marks(&root, "task t1 web.1 new/running");
    assert_eq!(count, 1);
    let (count, root) = marks(&root, "task t1 web.1 running/running on=n1");
    assert_eq!(count, 0);
    let (count, root) = marks(&root, "task t1 web.1 failed/running on=n1");
    assert_eq!(count, 1);
    let (count, _) = marks(&root, "task t1 web.1 failed/shutdown on=n1");
    assert_eq!(count, 1);
}

#[test]
fn what_is_gone_already_is_not_deleted_again() {
    let root = world("task t1 -.0 failed/remove");
    let mut reaper = Reaper::default();
    let mut keys = BTreeSet::new();
    reaper.resync(&root, &mut keys);
    assert_eq!(decide_keys(&reaper, &world(""), keys, 1000), "");
    assert_eq!(not_yet(ms(0), ms(250)), None);
}
