use super::*;
use v1::restart_policy::RestartCondition as Condition;
use v1::service_spec::Mode;

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A question with its answer.
fn at(time: u64) -> Range<Duration> {
    seconds(time)..seconds(time)
}

fn service(replicas: u64) -> v1::Service {
    v1::Service {
        id: "s".to_owned(),
        spec: Some(v1::ServiceSpec {
            mode: Some(Mode::Replicated(v1::ReplicatedService { replicas })),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A task from `id slot observed/desired`.
fn task(line: &str) -> v1::Task {
    let words: Vec<&str> = line.split(' ').collect();
    let (observed, desired) = words[2].split_once('/').unwrap();
    let number = |name: &str| v1::TaskState::from_str_name(&name.to_uppercase()).unwrap() as i32;
    v1::Task {
        id: words[0].to_owned(),
        slot: words[1].parse().unwrap(),
        node_id: "n1".to_owned(),
        desired_state: number(desired),
        status: Some(v1::TaskStatus {
            state: number(observed),
            err: words[3..].join(" "),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn with_policy(mut task: v1::Task, condition: Condition, max_attempts: u64) -> v1::Task {
    task.spec.get_or_insert_default().restart = Some(v1::RestartPolicy {
        condition: condition as i32,
        max_attempts,
        ..Default::default()
    });
    task
}

fn measured(replicas: u64, lines: &[&str]) -> Progress {
    let tasks: Vec<v1::Task> = lines.iter().map(|line| task(line)).collect();
    Progress::measure(&service(replicas), &tasks, &[])
}

#[test]
fn tasks_are_counted_by_state() {
    let progress = measured(
        4,
        &[
            "a 1 running/running",
            "b 2 pending/running no suitable node",
            "c 3 starting/running",
            "d 1 failed/shutdown boom",
        ],
    );
    assert_eq!(progress.text(), "1/4 running, 1 pending, 1 starting");
    assert_eq!(progress.problem(), "no suitable node");
}

#[test]
fn a_task_in_its_delay_shows_why_the_one_before_failed() {
    let progress = measured(1, &["b 1 ready/ready", "a 1 failed/shutdown exit code 1"]);
    assert_eq!(progress.text(), "0/1 running, 1 ready");
    assert_eq!(progress.problem(), "exit code 1");
}

#[test]
fn a_running_task_on_a_down_node_does_not_count() {
    let mut node = v1::Node {
        id: "n1".to_owned(),
        ..Default::default()
    };
    let progress = |node: &v1::Node| {
        let tasks = [task("a 1 running/running")];
        Progress::measure(&service(1), &tasks, std::slice::from_ref(node))
    };
    assert!(progress(&node).is_complete());
    node.status.get_or_insert_default().state = v1::node_status::State::Down as i32;
    assert!(!progress(&node).is_complete());
}

#[test]
fn a_service_is_scaled_down_when_no_other_task_is_wanted() {
    let both = ["a 1 running/running", "b 2 running/running"];
    assert!(!measured(1, &both).is_complete());
    let one = ["a 1 running/running", "b 2 running/remove"];
    assert!(measured(1, &one).is_complete());
    assert!(measured(0, &[]).is_complete());
}

#[test]
fn a_global_service_wants_a_task_on_each_eligible_node() {
    let node = |id: &str, availability: Availability, state: v1::node_status::State| v1::Node {
        id: id.to_owned(),
        spec: Some(v1::NodeSpec {
            availability: availability as i32,
            ..Default::default()
        }),
        status: Some(v1::NodeStatus {
            state: state as i32,
            ..Default::default()
        }),
        ..Default::default()
    };
    use v1::node_status::State::{Down, Ready};
    let nodes = [
        node("n1", Availability::Active, Ready),
        node("n2", Availability::Pause, Ready),
        node("n3", Availability::Drain, Ready),
        node("n4", Availability::Active, Down),
        node("n5", Availability::Active, Ready),
    ];
    let mut service = service(0);
    let spec = service.spec.as_mut().unwrap();
    spec.mode = Some(Mode::Global(v1::GlobalService {}));
    assert_eq!(Progress::measure(&service, &[], &nodes).desired, 2);
    let spec = service.spec.as_mut().unwrap();
    let placement = spec
        .task
        .get_or_insert_default()
        .placement
        .get_or_insert_default();
    placement.constraints = vec!["node.id==n5".to_owned()];
    assert_eq!(Progress::measure(&service, &[], &nodes).desired, 1);
}

#[test]
fn it_is_converged_when_the_same_tasks_ran_for_the_monitor_time() {
    let mut judge = Judge::new(seconds(5));
    let well = measured(1, &["a 1 running/running"]);
    let other = measured(1, &["b 1 running/running"]);
    assert_eq!(judge.judge(&measured(1, &[]), at(0)), Verdict::Waiting);
    let left = Verdict::Watching { left: seconds(5) };
    assert_eq!(judge.judge(&well, at(1)), left);
    // The task was replaced between two looks.
    assert_eq!(judge.judge(&other, at(5)), left);
    let left = Verdict::Watching { left: seconds(1) };
    assert_eq!(judge.judge(&other, at(9)), left);
    assert_eq!(judge.judge(&other, at(10)), Verdict::Converged);
}

#[test]
fn an_answer_that_was_read_late_says_nothing_of_the_time_until_then() {
    let mut judge = Judge::new(seconds(5));
    let well = measured(1, &["a 1 running/running"]);
    let left = |left| Verdict::Watching {
        left: seconds(left),
    };
    assert_eq!(judge.judge(&well, seconds(0)..seconds(3)), left(5));
    assert_eq!(judge.judge(&well, seconds(4)..seconds(60)), left(4));
    assert_eq!(judge.judge(&well, at(60)), Verdict::Converged);

    let failed = with_policy(task("a 1 failed/shutdown boom"), Condition::Any, 2);
    let failed = Progress::measure(&service(1), &[failed], &[]);
    let mut judge = Judge::new(seconds(5));
    for asked in [0, 3] {
        let asked = seconds(asked)..seconds(asked + 3);
        assert_eq!(judge.judge(&failed, asked), Verdict::Waiting);
    }
    assert!(matches!(judge.judge(&failed, at(6)), Verdict::Hopeless(_)));
}

#[test]
fn without_a_monitor_time_it_is_converged_at_once() {
    let mut judge = Judge::new(Duration::ZERO);
    let well = measured(1, &["a 1 running/running"]);
    assert_eq!(judge.judge(&well, at(0)), Verdict::Converged);
}

#[test]
fn it_is_hopeless_when_the_policy_allows_no_more_attempts() {
    let failed = || task("a 1 failed/shutdown boom");
    let measure = |task| Progress::measure(&service(1), &[task], &[]);
    for (condition, attempts) in [
        (Condition::None, 0),
        (Condition::OnFailure, 2),
        (Condition::Any, 2),
    ] {
        let progress = measure(with_policy(failed(), condition, attempts));
        let mut judge = Judge::new(seconds(5));
        assert_eq!(judge.judge(&progress, at(0)), Verdict::Waiting);
        let verdict = judge.judge(&progress, at(1));
        let expected = "replica 1 is failed (boom) and its restart policy allows no more attempts";
        assert_eq!(verdict, Verdict::Hopeless(expected.to_owned()));
    }
    for condition in [Condition::OnFailure, Condition::Any] {
        let progress = measure(with_policy(failed(), condition, 0));
        assert_eq!(
            Judge::new(seconds(5)).judge(&progress, at(9)),
            Verdict::Waiting
        );
        assert!(progress.gave_up.is_empty(), "a replacement is on its way");
    }
}

#[test]
fn a_task_that_did_its_work_counts_unless_it_should_run_for_ever() {
    let done = || task("a 1 complete/shutdown");
    let measure = |task| Progress::measure(&service(1), &[task], &[]);
    assert!(measure(with_policy(done(), Condition::None, 0)).is_complete());
    assert!(measure(with_policy(done(), Condition::OnFailure, 3)).is_complete());
    let forever = measure(with_policy(done(), Condition::Any, 3));
    assert_eq!(forever.text(), "0/1 running, 1 given up");
}
