use super::*;
use crate::slot::{Tuple, standing};
use crate::world::{ms, world};

/// The verdict about a task of service `web`, slot 1, or of `agent` on n1.
fn judge(text: &str, id: &str, now: u64) -> Verdict {
    let root = world(text);
    let task = root.task(&id.parse().unwrap()).unwrap();
    let service = root.service(task.service_id.as_ref().unwrap()).unwrap();
    let tasks = Tuple::of(service, task).unwrap().tasks(&root);
    verdict(&root, task, &tasks, ms(now))
}

#[test]
fn a_verdict_names_cause_and_rule() {
    let world = |rest: &str| format!("node n1 drain\nservice web {rest}");
    let task = "task t1 web.1 running/running on=n1";
    assert_eq!(
        judge(&world(&format!("\n{task}")), "t1", 0),
        Verdict::Replace(Cause::NodeDrained)
    );
    assert_eq!(
        judge(&world(&format!("restart=none\n{task}")), "t1", 0),
        Verdict::GiveUp(Cause::NodeDrained, NoRestart::Never)
    );
    let completed = "restart=on-failure\ntask t1 web.1 complete/running on=n1";
    assert_eq!(
        judge(&world(completed), "t1", 0),
        Verdict::GiveUp(Cause::Ended, NoRestart::Completed)
    );
    let again = "restart=any attempts=1
        task t0 web.1 failed/shutdown on=n1 created=0
        task t1 web.1 failed/running on=n1 created=1";
    assert_eq!(
        judge(&world(again), "t1", 0),
        Verdict::GiveUp(Cause::Ended, NoRestart::AttemptsUsed { max: 1 })
    );
}

#[test]
fn rules_read_well() {
    assert_eq!(
        NoRestart::AttemptsUsed { max: 3 }.to_string(),
        "all 3 restart attempts are used up"
    );
    assert_eq!(Cause::NodeGone.to_string(), "its node was removed");
}

#[test]
fn a_task_without_a_node_is_in_no_trouble() {
    assert_eq!(
        judge("service web\ntask t1 web.1 pending/running", "t1", 0),
        Verdict::Keep
    );
}

#[test]
fn the_last_attempt_is_allowed_and_the_next_is_not() {
    let world = |runs: u64| {
        let runs: Vec<String> = (0..runs)
            .map(|run| format!("task t{run} web.1 failed/shutdown on=n1 created={run}"))
            .collect();
        format!(
            "node n1\nservice web restart=any attempts=3
             task t9 web.1 failed/running on=n1 created=9\n{}",
            runs.join("\n")
        )
    };
    let replace = Verdict::Replace(Cause::Ended);
    assert_eq!(judge(&world(2), "t9", 90000), replace);
    let used = NoRestart::AttemptsUsed { max: 3 };
    assert_eq!(
        judge(&world(3), "t9", 90000),
        Verdict::GiveUp(Cause::Ended, used)
    );
}

#[test]
fn tasks_that_are_to_be_removed_are_no_attempts() {
    let world = "
        node n1
        service web restart=any attempts=1
        task t0 web.1 shutdown/remove on=n1 created=0
        task t1 web.1 failed/running on=n1 created=1";
    assert_eq!(judge(world, "t1", 90000), Verdict::Replace(Cause::Ended));
}

#[test]
fn a_global_task_that_came_back_with_its_node_is_no_attempt() {
    let world = |first: &str| {
        format!(
            "node n1
             service agent global restart=any attempts=1
             task t0 agent.0 {first}/shutdown on=n1 created=0
             task t1 agent.0 failed/running on=n1 created=1"
        )
    };
    let replace = Verdict::Replace(Cause::Ended);
    assert_eq!(judge(&world("shutdown"), "t1", 90000), replace);
    let used = NoRestart::AttemptsUsed { max: 1 };
    assert_eq!(
        judge(&world("failed"), "t1", 90000),
        Verdict::GiveUp(Cause::Ended, used)
    );
}

#[test]
fn the_newest_task_by_creation_speaks_for_a_replica() {
    // The older task was declared an orphan later than the newer one completed.
    let root = world(
        "node n1
         service web restart=on-failure
         task t0 web.1 orphaned/shutdown on=n1 created=0 at=900
         task t1 web.1 complete/shutdown on=n1 created=1 at=100",
    );
    let service = root.service(&"web".parse().unwrap()).unwrap();
    let tasks = Tuple::Slot(service.id.clone(), Slot(1)).tasks(&root);
    assert_eq!(
        standing(service, &tasks),
        crate::slot::Standing::Spent(NoRestart::Completed)
    );
}

#[test]
fn history_is_ordered_by_the_managers_time_before_the_reporters() {
    use swarm_types::{Task, TaskStatus};
    let task = |reported: Option<u64>, applied: Option<u64>| {
        let status = TaskStatus {
            timestamp: reported.map(ms),
            applied_at: applied.map(ms),
            ..TaskStatus::default()
        };
        let task = Task::new("t".parse().unwrap(), Arc::default());
        task.with_states(status, TaskState::Running)
    };
    let sorted = [
        task(None, None),
        task(Some(9), Some(1)),
        task(Some(2), None),
        task(None, Some(3)),
    ];
    for pair in sorted.windows(2) {
        let key = crate::slot::history_key;
        assert!(key(&pair[0]) < key(&pair[1]));
    }
}
