use super::*;
use crate::world::{check, observe, put, world};

const REJECTED: &str = "state=rejected (assigned node no longer meets constraints)";

#[track_caller]
fn expect(text: &str, rejected: &[&str]) {
    let lines: Vec<String> = rejected
        .iter()
        .map(|task| format!("update {task} {REJECTED}"))
        .collect();
    check::<ConstraintEnforcer>(text, 0, &lines.join("\n"));
}

#[test]
fn a_task_whose_constraint_does_not_hold_any_more_is_rejected() {
    let world = |node: &str| {
        format!(
            "{node}\nservice web constraint=node.labels.k==a
             task t1 web.1 running/running on=n1"
        )
    };
    expect(&world("node n1 k=a"), &[]);
    expect(&world("node n1 k=b"), &["t1"]);
    expect(&world("node n1"), &["t1"]);
    expect(&world("node n1 down"), &["t1"]);
    expect(&world("node n1 pause"), &[]);
    expect(&world("node n1 drain"), &[]);
}

#[test]
fn a_change_of_role_counts() {
    let world = |node: &str| {
        format!(
            "{node}\nservice web constraint=node.role==manager
             task t1 web.1 running/running on=n1"
        )
    };
    expect(&world("node n1 manager"), &[]);
    expect(&world("node n1"), &["t1"]);
}

#[test]
fn the_constraints_of_the_service_count_where_those_of_the_task_are_stale() {
    let stale = world(
        "node n1 k=b
         service web constraint=node.labels.k==a
         task t1 web.1 running/running on=n1",
    );
    let (root, _) = put(&stale, "service web constraint=node.labels.k==b");
    assert_eq!(crate::world::decide(ConstraintEnforcer, &root, 0), "");
    let service = root.service(&"web".parse().unwrap()).unwrap().clone();
    let (root, _) = crate::world::remove(&root, &service.into());
    let decided = crate::world::decide(ConstraintEnforcer, &root, 0);
    assert_eq!(decided, format!("update t1 {REJECTED}\n"));
}

#[test]
fn only_tasks_that_are_to_run_here_and_have_not_ended_are_judged() {
    let cases = [
        ("assigned/running", true),
        ("running/running", true),
        ("ready/ready", true),
        ("running/complete", true),
        ("running/shutdown", false),
        ("complete/running", false),
        ("failed/running", false),
    ];
    for (states, judged) in cases {
        let world = format!(
            "node n1\nservice web constraint=node.labels.k==a
             task t1 web.1 {states} on=n1"
        );
        expect(&world, if judged { &["t1"] } else { &[] });
    }
}

#[test]
fn reservations_that_do_not_fit_any_more_are_rejected_one_by_one() {
    let world = |node: &str| {
        format!(
            "{node}
             service big cpu=3 memory=30
             service small cpu=1 memory=10
             task t1 small.1 running/running on=n1
             task t2 big.1 running/running on=n1
             task t3 small.2 running/running on=n1"
        )
    };
    expect(&world("node n1 cpu=5 memory=50"), &[]);
    expect(&world("node n1 cpu=4 memory=50"), &["t3"]);
    expect(&world("node n1 cpu=3 memory=50"), &["t2"]);
    expect(&world("node n1 cpu=5 memory=39"), &["t2"]);
    expect(&world("node n1"), &["t1", "t2", "t3"]);
}

#[test]
fn a_task_that_ended_takes_no_room() {
    expect(
        "node n1 cpu=1
         service web cpu=1
         task t1 web.1 complete/complete on=n1
         task t2 web.2 running/running on=n1",
        &[],
    );
}

#[test]
fn a_lost_generic_resource_rejects_its_task_and_the_check_goes_on() {
    let tasks = "
        service web
        service placed constraint=node.labels.k==a
        task t1 web.1 running/running on=n1 gpu=2
        task t2 web.2 running/running on=n1 gpu=1
        task t3 placed.1 running/running on=n1";
    expect(&format!("node n1 gpu=3 k=a\n{tasks}"), &[]);
    expect(&format!("node n1 gpu=2 k=a\n{tasks}"), &["t2"]);
    expect(&format!("node n1 gpu=1 k=a\n{tasks}"), &["t1"]);
    // SwarmKit does not look at t2 and t3 once t1 has failed.
    expect(&format!("node n1\n{tasks}"), &["t1", "t2", "t3"]);
}

#[test]
fn a_lost_named_resource_rejects_the_task_that_has_it() {
    let tasks = "
        service web
        task t1 web.1 running/running on=n1 gpu=red
        task t2 web.2 running/running on=n1 gpu=blue";
    expect(&format!("node n1 gpu=blue\n{tasks}"), &["t1"]);
}

#[test]
fn a_rejection_says_why_and_when() {
    let root = world(
        "node n1\nservice web constraint=node.labels.k==a
         task t1 web.1 running/running on=n1",
    );
    let (task, misfit) = misfits(&root, &"n1".parse().unwrap())[0];
    assert_eq!(misfit, Misfit::Constraint);
    let mut plan = Plan::default();
    assert!(reject(task, Timestamp::from_millis(5), &mut plan));
    let step = plan.finish();
    let Write::Update(AnyObject::Task(task)) = &step.sets[0].0[0] else {
        panic!("a rejection is an update");
    };
    let status = task.status();
    assert_eq!(
        status.message.as_str(),
        "task rejected by constraint enforcer"
    );
    assert_eq!(
        status.err.as_str(),
        "assigned node no longer meets constraints"
    );
    assert_eq!(status.timestamp, Some(Timestamp::from_millis(5)));
    assert_eq!(task.desired_state(), TaskState::Running);
}

#[test]
fn heartbeats_mark_nothing_and_changes_of_the_node_do() {
    let root = world("node n1 k=a cpu=1");
    let marks = |line: &str| {
        let (root, commit) = put(&root, line);
        observe(&mut ConstraintEnforcer, &root, &commit).len()
    };
    assert_eq!(marks("node n1 k=a cpu=1"), 0);
    assert_eq!(marks("node n1 k=a cpu=1 down"), 0);
    assert_eq!(marks("node n1 k=b cpu=1"), 1);
    assert_eq!(marks("node n1 k=a cpu=2"), 1);
    assert_eq!(marks("node n1 k=a cpu=1 manager"), 1);
    assert_eq!(marks("node n1 k=a cpu=1 pause"), 1);
}
