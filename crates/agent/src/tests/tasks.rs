//! The life of tasks.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_executor::{Dependencies, ExecError, Operation};
use swarm_types::{Task, TaskState, TaskStatus, Timestamp};
use v1::assignment::Item;
use v1::assignment_change::AssignmentAction;
use v1::assignments_message::Type;
use v1::task_spec::Runtime;

use super::rig::{Rig, change, failed, id, ok, put, remove, task};
use crate::{CLEANUP_TIMEOUT, PersistedTask, RETRY_BASE, RETRY_MAX, SHUTDOWN_MARGIN};

const MS: Duration = Duration::from_millis(1);

/// A rig with one task that has come to RUNNING.
fn running() -> Rig {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.pass(Operation::Prepare);
    rig.pass(Operation::Start);
    assert_eq!(rig.state("a"), TaskState::Running);
    rig
}

#[test]
fn a_task_goes_from_assigned_to_complete() {
    let mut rig = running();
    rig.pass(Operation::Wait);
    assert_eq!(rig.state("a"), TaskState::Complete);
    rig.no_operation();
    assert_eq!(rig.disk[&id("a")].status, rig.status("a"));
}

#[test]
fn a_task_wanted_ready_pauses_there_until_it_may_start() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Ready))],
    );
    rig.pass(Operation::Prepare);
    assert_eq!(rig.state("a"), TaskState::Ready);
    rig.no_operation();
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.pass(Operation::Update);
    rig.pass(Operation::Start);
}

#[test]
fn nothing_begins_and_nothing_is_reported_before_it_is_on_disk() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.wait(crate::REPORT_DELAY);
    assert_eq!(rig.agent.poll_operation(rig.now), None);
    assert_eq!(rig.calls(), []);
    let batch = rig.agent.poll_persist().unwrap();
    assert_eq!(rig.agent.poll_persist(), None, "one at a time");
    assert_eq!(rig.agent.poll_operation(rig.now), None);
    rig.agent.handle_persisted(rig.now, batch.sequence + 1);
    assert_eq!(rig.agent.poll_operation(rig.now), None);
    rig.agent.handle_persisted(rig.now, batch.sequence);
    let operation = rig.agent.poll_operation(rig.now).unwrap();
    assert_eq!(operation.operation, Operation::Prepare);
    assert_eq!(rig.calls().len(), 1);
    // The next state is not on disk yet.
    rig.finish(&operation, &ok());
    assert_eq!(rig.state("a"), TaskState::Starting);
    assert_eq!(rig.agent.poll_operation(rig.now), None);
}

#[test]
fn a_recovered_running_task_is_waited_for_and_not_started() {
    let persisted = |text: &str, state, is_assigned| PersistedTask {
        task: task(text, TaskState::Running),
        status: TaskStatus::new(state, Timestamp::EPOCH, ""),
        is_assigned,
    };
    for (state, expected) in [
        (TaskState::Preparing, Operation::Prepare),
        (TaskState::Starting, Operation::Start),
        (TaskState::Running, Operation::Wait),
    ] {
        let mut rig = Rig::recovered(vec![persisted("a", state, true)]);
        assert_eq!(rig.agent.known_tasks(), BTreeSet::from([id("a")]));
        let operation = rig.agent.poll_operation(rig.now).unwrap();
        assert_eq!(operation.operation, expected);
    }
    let mut rig = Rig::recovered(vec![persisted("a", TaskState::Complete, true)]);
    assert_eq!(rig.agent.poll_operation(rig.now), None);
    let mut rig = Rig::recovered(vec![persisted("a", TaskState::Running, false)]);
    let operation = rig.agent.poll_operation(rig.now).unwrap();
    assert_eq!(operation.operation, Operation::Shutdown);
    let mut rig = Rig::recovered(vec![persisted("a", TaskState::Failed, false)]);
    let operation = rig.agent.poll_operation(rig.now).unwrap();
    assert_eq!(operation.operation, Operation::Remove);
}

#[test]
fn the_status_of_the_node_wins_over_the_one_that_the_managers_have() {
    let mut rig = running();
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![put(&task("a", TaskState::Shutdown))],
    );
    assert_eq!(rig.state("a"), TaskState::Running);
}

#[test]
fn a_changed_task_cancels_the_operation_and_an_equal_or_older_one_does_not() {
    let mut rig = running();
    let wait = rig.operation();
    assert_eq!(wait.operation, Operation::Wait);
    let same = put(&task("a", TaskState::Running));
    let older = put(&task("a", TaskState::Ready));
    rig.assign(Type::Incremental, "1", "2", vec![same]);
    rig.assign(Type::Incremental, "2", "3", vec![older]);
    rig.no_operation();
    rig.assign(
        Type::Incremental,
        "3",
        "4",
        vec![put(&task("a", TaskState::Shutdown))],
    );
    let update = rig.operation();
    assert_eq!(update.operation, Operation::Update);
    assert_eq!(update.task.desired_state(), TaskState::Shutdown);
    // The result of the cancelled operation arrives late.
    rig.finish(&wait, &failed(ExecError::fatal("late")));
    assert_eq!(rig.state("a"), TaskState::Running);
    assert_eq!(&*rig.status("a").err, "");
    rig.no_operation();
    rig.finish(&update, &ok());
    rig.pass(Operation::Shutdown);
    assert_eq!(rig.state("a"), TaskState::Shutdown);
    rig.no_operation();
}

#[test]
fn a_refused_update_is_shown_and_does_not_keep_the_task_alive() {
    let mut rig = running();
    rig.operation();
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![put(&task("a", TaskState::Remove))],
    );
    let update = rig.operation();
    rig.finish(
        &update,
        &failed(ExecError::UpdateRejected {
            reason: "networks".into(),
        }),
    );
    assert_eq!(&*rig.status("a").err, "task update rejected: networks");
    rig.pass(Operation::Shutdown);
    assert_eq!(rig.state("a"), TaskState::Shutdown);
}

#[test]
fn passing_trouble_is_retried_with_doubling_pauses_up_to_the_limit() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    let trouble = failed(ExecError::temporary("no space"));
    for seconds in [1, 2, 4, 8, 16, 30, 30] {
        let prepare = rig.operation();
        assert_eq!(prepare.operation, Operation::Prepare);
        rig.finish(&prepare, &trouble);
        assert_eq!(&*rig.status("a").err, "no space");
        rig.wait(Duration::from_secs(seconds) - MS);
        rig.no_operation();
        rig.wait(MS);
    }
    assert_eq!((RETRY_BASE.as_secs(), RETRY_MAX.as_secs()), (1, 30));
    rig.pass(Operation::Prepare);
    let start = rig.operation();
    rig.finish(&start, &trouble);
    rig.wait(RETRY_BASE);
    rig.pass(Operation::Start);
    assert_eq!(&*rig.status("a").err, "");
}

#[test]
fn a_task_that_does_not_stop_in_time_is_terminated() {
    let mut rig = running();
    rig.operation();
    let mut stop = task("a", TaskState::Shutdown);
    let container = v1::ContainerSpec {
        stop_grace_period: Some(swarm_types::time::duration_to_wire(Duration::from_secs(3))),
        ..Default::default()
    };
    stop.spec = Arc::new(v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        ..Default::default()
    });
    rig.assign(Type::Incremental, "1", "2", vec![put(&stop)]);
    rig.pass(Operation::Update);
    assert_eq!(rig.operation().operation, Operation::Shutdown);
    rig.wait(Duration::from_secs(3) + SHUTDOWN_MARGIN - MS);
    rig.no_operation();
    rig.wait(MS);
    assert_eq!(rig.operation().operation, Operation::Terminate);
    rig.wait(CLEANUP_TIMEOUT);
    rig.no_operation();
    rig.wait(RETRY_BASE);
    rig.pass(Operation::Terminate);
    assert_eq!(rig.state("a"), TaskState::Shutdown);
}

#[test]
fn a_failed_shutdown_is_followed_by_a_termination_before_the_task_counts_as_ended() {
    let mut rig = running();
    rig.operation();
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![put(&task("a", TaskState::Shutdown))],
    );
    rig.pass(Operation::Update);
    let shutdown = rig.operation();
    rig.finish(&shutdown, &failed(ExecError::fatal("no such signal")));
    assert_eq!(rig.state("a"), TaskState::Running);
    let terminate = rig.operation();
    assert_eq!(terminate.operation, Operation::Terminate);
    rig.finish(&terminate, &failed(ExecError::fatal("stuck")));
    assert_eq!(rig.state("a"), TaskState::Failed);
}

#[test]
fn an_unassigned_task_is_stopped_and_removed_and_forgotten_last() {
    let mut rig = running();
    rig.operation();
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    assert_eq!(rig.agent.poll_operation(rig.now), None, "not on disk yet");
    rig.pass(Operation::Shutdown);
    let removal = rig.operation();
    assert_eq!(removal.operation, Operation::Remove);
    rig.finish(&removal, &failed(ExecError::fatal("busy")));
    rig.sync();
    assert!(!rig.disk[&id("a")].is_assigned);
    assert!(!rig.agent.is_empty());
    rig.wait(RETRY_BASE);
    rig.pass(Operation::Remove);
    rig.sync();
    assert!(rig.disk.is_empty());
    assert!(rig.agent.is_empty());
}

#[test]
fn a_complete_message_unassigns_what_it_does_not_name() {
    let mut rig = Rig::connected();
    let [a, b] = ["a", "b"].map(|text| put(&task(text, TaskState::Ready)));
    rig.assign(Type::Complete, "", "1", vec![a.clone(), b]);
    assert_eq!(rig.agent.assigned_tasks().count(), 2);
    rig.reply(crate::Reply::SessionEnded(crate::RpcError::new(14, "x")));
    rig.wait(Duration::ZERO);
    rig.connect("s1");
    rig.assign(Type::Complete, "", "1", vec![a]);
    let assigned: Vec<_> = rig.agent.assigned_tasks().map(|task| &task.id).collect();
    assert_eq!(assigned, [&id("a")]);
}

#[test]
fn a_task_given_back_before_its_removal_began_goes_on() {
    let mut rig = Rig::connected();
    let a = put(&task("a", TaskState::Running));
    rig.assign(Type::Complete, "", "1", vec![a.clone()]);
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    rig.assign(Type::Incremental, "2", "3", vec![a]);
    rig.pass(Operation::Prepare);
    assert!(rig.disk[&id("a")].is_assigned);
    assert_eq!(rig.state("a"), TaskState::Starting);
}

#[test]
fn a_task_given_back_is_wanted_no_more_than_before() {
    let mut rig = Rig::connected();
    let [stop, run] =
        [TaskState::Shutdown, TaskState::Running].map(|desired| put(&task("a", desired)));
    rig.assign(Type::Complete, "", "1", vec![stop]);
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    rig.assign(Type::Incremental, "2", "3", vec![run]);
    rig.pass(Operation::Shutdown);
    assert_eq!(rig.state("a"), TaskState::Shutdown);
    rig.no_operation();
}

#[test]
fn a_task_given_back_and_taken_away_again_during_its_removal_is_gone() {
    let mut rig = running();
    rig.operation();
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    rig.pass(Operation::Shutdown);
    let removal = rig.operation();
    let back = put(&task("a", TaskState::Running));
    rig.assign(Type::Incremental, "2", "3", vec![back]);
    rig.assign(Type::Incremental, "3", "4", vec![remove("a")]);
    rig.finish(&removal, &ok());
    rig.no_operation();
    assert!(rig.agent.is_empty());
    assert!(rig.disk.is_empty());
}

#[test]
fn a_task_given_back_during_its_removal_ends_as_failed() {
    let mut rig = running();
    rig.operation();
    rig.assign(Type::Incremental, "1", "2", vec![remove("a")]);
    rig.pass(Operation::Shutdown);
    let removal = rig.operation();
    rig.assign(
        Type::Incremental,
        "2",
        "3",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.finish(&removal, &ok());
    rig.no_operation();
    assert_eq!(rig.state("a"), TaskState::Failed);
    assert!(rig.status("a").err.contains("given back"));
    assert!(rig.disk[&id("a")].is_assigned);
    assert_eq!(rig.disk[&id("a")].status.state, TaskState::Failed);
    rig.wait(crate::REPORT_DELAY);
    assert_eq!(rig.reported().len(), 1);
}

#[test]
fn a_leaving_node_removes_everything_and_takes_nothing() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Ready))],
    );
    rig.agent.handle_leave(rig.now);
    rig.assign(
        Type::Incremental,
        "1",
        "2",
        vec![put(&task("b", TaskState::Running))],
    );
    rig.pass(Operation::Remove);
    rig.sync();
    assert!(rig.agent.is_empty());
    assert!(rig.disk.is_empty());
}

#[test]
fn unreadable_assignments_are_logged_and_keep_what_is_there() {
    let mut rig = running();
    rig.warnings();
    let broken = v1::Task {
        id: "a".into(),
        desired_state: 7,
        ..Default::default()
    };
    let nameless = v1::Task::default();
    let volume = v1::VolumeAssignment {
        id: "v".into(),
        ..Default::default()
    };
    let mut unknown = put(&task("b", TaskState::Running));
    unknown.action = 9;
    let update = AssignmentAction::Update;
    let changes = vec![
        change(Item::Task(broken), update),
        change(Item::Task(nameless), update),
        change(Item::Volume(volume), update),
        unknown,
        v1::AssignmentChange::default(),
    ];
    rig.reply(crate::Reply::SessionEnded(crate::RpcError::new(14, "x")));
    rig.wait(Duration::ZERO);
    rig.connect("s1");
    rig.assign(Type::Complete, "", "1", changes);
    assert_eq!(rig.warnings().len(), 5);
    let assigned: Vec<_> = rig.agent.assigned_tasks().map(|task| &task.id).collect();
    assert_eq!(assigned, [&id("a")]);
}

#[test]
fn a_task_sees_only_the_secrets_and_configs_that_its_spec_names() {
    let secret = |name: &str, data: &'static str| v1::Secret {
        id: name.into(),
        spec: Some(v1::SecretSpec {
            data: data.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let config = v1::Config {
        id: "c".into(),
        ..Default::default()
    };
    let container = v1::ContainerSpec {
        secrets: vec![v1::SecretReference {
            secret_id: "s".into(),
            ..Default::default()
        }],
        configs: vec![v1::ConfigReference {
            config_id: "c".into(),
            ..Default::default()
        }],
        ..Default::default()
    };
    let spec = Arc::new(v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        ..Default::default()
    });
    let mut own = task("a", TaskState::Ready);
    own.spec = spec;
    let update = AssignmentAction::Update;
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![
            put(&own),
            change(Item::Secret(secret("s", "shared")), update),
            change(Item::Secret(secret("other", "hidden")), update),
            change(Item::Config(config), update),
        ],
    );
    let seen = rig.agent.dependencies(&id("a")).unwrap();
    let data = |seen: &Dependencies| seen.secret("s").unwrap().spec.clone().unwrap().data;
    assert_eq!(data(&seen), "shared");
    assert!(seen.config("c").is_ok());
    let refused = seen.secret("other").unwrap_err().to_string();
    assert_eq!(refused, "task not authorized to access secret other");
    let specific = change(Item::Secret(secret("s.a", "own")), update);
    rig.assign(Type::Incremental, "1", "2", vec![specific]);
    let seen = rig.agent.dependencies(&id("a")).unwrap();
    assert_eq!(data(&seen), "own");
    let gone = change(Item::Secret(secret("s.a", "")), AssignmentAction::Remove);
    rig.assign(Type::Incremental, "2", "3", vec![gone]);
    let seen = rig.agent.dependencies(&id("a")).unwrap();
    assert_eq!(data(&seen), "shared");
}

/// What a complete message does not name is gone, as with tasks: the manager has forgotten it.
#[test]
fn a_complete_message_replaces_all_secrets_and_configs() {
    let secret = |id: &str| {
        let id = id.into();
        Item::Secret(v1::Secret {
            id,
            ..Default::default()
        })
    };
    let config = |id: &str| {
        let id = id.into();
        Item::Config(v1::Config {
            id,
            ..Default::default()
        })
    };
    let secret_named = |id: &str| v1::SecretReference {
        secret_id: id.into(),
        ..Default::default()
    };
    let config_named = |id: &str| v1::ConfigReference {
        config_id: id.into(),
        ..Default::default()
    };
    let container = v1::ContainerSpec {
        secrets: ["s1", "s2"].map(secret_named).into(),
        configs: ["c1", "c2"].map(config_named).into(),
        ..Default::default()
    };
    let mut own = task("a", TaskState::Ready);
    own.spec = Arc::new(v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        ..Default::default()
    });
    let update = AssignmentAction::Update;
    let mut rig = Rig::connected();
    let first = [secret("s1"), config("c1")].map(|item| change(item, update));
    let first = [vec![put(&own)], first.into()].concat();
    rig.assign(Type::Complete, "", "1", first);
    let has = |rig: &Rig| {
        let seen = rig.agent.dependencies(&id("a")).unwrap();
        let secrets = ["s1", "s2"].map(|id| seen.secret(id).is_ok());
        (secrets, ["c1", "c2"].map(|id| seen.config(id).is_ok()))
    };
    assert_eq!(has(&rig), ([true, false], [true, false]));
    rig.reply(crate::Reply::SessionEnded(crate::RpcError::new(14, "x")));
    rig.wait(Duration::ZERO);
    rig.connect("s2");
    // Until the manager has spoken, what was there counts.
    assert_eq!(has(&rig), ([true, false], [true, false]));
    let second = [secret("s2"), config("c2")].map(|item| change(item, update));
    let second = [vec![put(&own)], second.into()].concat();
    rig.assign(Type::Complete, "", "1", second);
    assert_eq!(has(&rig), ([false, true], [false, true]));
    let gone = change(config("c2"), AssignmentAction::Remove);
    rig.assign(Type::Incremental, "1", "2", vec![gone]);
    assert_eq!(has(&rig), ([false, true], [false, false]));
}

#[test]
fn a_task_of_a_lost_database_is_judged_by_the_executor() {
    let mut rig = Rig::connected();
    let status = TaskStatus::new(TaskState::Running, Timestamp::EPOCH, "started");
    let known: Task = task("a", TaskState::Running).with_states(status, TaskState::Running);
    rig.assign(Type::Complete, "", "1", vec![put(&known)]);
    let wait = rig.operation();
    assert_eq!(wait.operation, Operation::Wait);
    rig.finish(&wait, &failed(ExecError::fatal("prepare it first")));
    assert_eq!(rig.state("a"), TaskState::Failed);
}
