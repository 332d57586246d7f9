//! Assignments and what they depend on.

use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{Config, Kind, NodeState, Secret, TaskState, TaskStatus, Timestamp};
use v1::assignment::Item;
use v1::assignments_message::Type;
use v1::task_spec::Runtime;

use super::rig::{MS, Rig, node, node_id, task, task_id};
use crate::{
    ASSIGNMENT_BATCH_CHANGES, ASSIGNMENT_BATCH_DELAY, ASSIGNMENT_MESSAGE_TASKS_MAX, Body, Code,
    StreamId,
};

/// A message as text: type, sequence, then `+` or `-` with kind and id.
fn text(message: &v1::AssignmentsMessage) -> String {
    let kind = match message.r#type() {
        Type::Complete => "complete",
        Type::Incremental => "incremental",
    };
    let mut words = vec![format!(
        "{kind} {}>{}",
        message.applies_to, message.results_in
    )];
    for change in &message.changes {
        let sign = if change.action == 0 { '+' } else { '-' };
        let item = change.assignment.as_ref().unwrap().item.as_ref().unwrap();
        words.push(match item {
            Item::Task(task) => format!("{sign}{}", task.id),
            Item::Secret(secret) => format!("{sign}secret:{}", secret.id),
            Item::Config(config) => format!("{sign}config:{}", config.id),
            Item::Volume(volume) => format!("{sign}volume:{}", volume.id),
        });
    }
    words.join(" ")
}

pub(super) fn texts(rig: &mut Rig) -> Vec<String> {
    let messages = rig.messages().into_iter();
    messages
        .map(|(_, body)| match body {
            Body::Assignments(bytes) => text(&bytes.message()),
            Body::Session(_) => "session".to_owned(),
            Body::End(error) => format!("end {error}"),
        })
        .collect()
}

pub(super) fn open(rig: &mut Rig) -> StreamId {
    let session = rig
        .dispatcher
        .session_of(&node_id("n"))
        .unwrap()
        .to_string();
    rig.dispatcher
        .handle_assignments_open(&node_id("n"), &session)
        .unwrap()
}

/// Node `n` in session, with these tasks, and the complete message taken.
pub(super) fn rig(tasks: &[(&str, TaskState)]) -> Rig {
    let nodes = vec![node("n", NodeState::Down), node("m", NodeState::Down)];
    let mut rig = Rig::new(nodes);
    rig.registered("n");
    rig.commit(|tx| {
        for (name, state) in tasks {
            tx.create(task(name, "n", *state)).unwrap();
        }
    });
    open(&mut rig);
    let first = texts(&mut rig);
    assert!(first[0].starts_with("complete >1"), "{first:?}");
    rig
}

pub(super) fn after_delay(rig: &mut Rig) -> Vec<String> {
    rig.wait(ASSIGNMENT_BATCH_DELAY);
    texts(rig)
}

#[test]
fn the_first_message_has_all_tasks_from_assigned_on_in_order() {
    let mut rig = Rig::new(vec![node("n", NodeState::Down), node("m", NodeState::Down)]);
    rig.registered("n");
    rig.commit(|tx| {
        for (name, on, state) in [
            ("d", "n", TaskState::Failed),
            ("c", "n", TaskState::Assigned),
            ("b", "n", TaskState::Pending),
            ("a", "n", TaskState::Running),
            ("e", "m", TaskState::Running),
        ] {
            tx.create(task(name, on, state)).unwrap();
        }
    });
    open(&mut rig);
    assert_eq!(texts(&mut rig), ["complete >1 +a +c +d"]);
}

#[test]
fn assignments_need_the_current_session() {
    let mut rig = Rig::new(vec![node("n", NodeState::Down)]);
    let id = node_id("n");
    let error = rig
        .dispatcher
        .handle_assignments_open(&id, "s")
        .unwrap_err();
    assert_eq!(error.code, Code::NotFound);
    rig.registered("n");
    let error = rig
        .dispatcher
        .handle_assignments_open(&id, "s")
        .unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
}

#[test]
fn changes_are_collected_until_the_delay_after_the_last_one() {
    let mut rig = rig(&[("a", TaskState::Assigned)]);
    rig.commit(|tx| tx.create(task("c", "n", TaskState::Assigned)).unwrap());
    rig.wait(ASSIGNMENT_BATCH_DELAY - MS);
    rig.commit(|tx| tx.create(task("b", "n", TaskState::Assigned)).unwrap());
    rig.wait(ASSIGNMENT_BATCH_DELAY - MS);
    assert_eq!(texts(&mut rig), Vec::<String>::new());
    rig.wait(MS);
    assert_eq!(texts(&mut rig), ["incremental 1>2 +b +c"]);
    let id = task_id("b");
    rig.commit(|tx| tx.delete(Kind::Task, id.as_id()).unwrap());
    assert_eq!(after_delay(&mut rig), ["incremental 2>3 -b"]);
}

#[test]
fn so_many_changes_go_out_at_once() {
    for (count, expected) in [
        (ASSIGNMENT_BATCH_CHANGES - 1, 0),
        (ASSIGNMENT_BATCH_CHANGES, 1),
    ] {
        let mut rig = rig(&[]);
        rig.commit(|tx| {
            for n in 0..count {
                tx.create(task(&format!("t{n}"), "n", TaskState::Assigned))
                    .unwrap();
            }
        });
        assert_eq!(texts(&mut rig).len(), expected);
    }
}

#[test]
fn an_incremental_message_is_bounded_and_the_rest_follows() {
    let mut rig = rig(&[]);
    rig.commit(|tx| {
        for n in 0..=ASSIGNMENT_MESSAGE_TASKS_MAX {
            tx.create(task(&format!("t{n}"), "n", TaskState::Assigned))
                .unwrap();
        }
    });
    let sizes: Vec<_> = texts(&mut rig)
        .iter()
        .map(|text| text.matches('+').count())
        .collect();
    assert_eq!(sizes, [ASSIGNMENT_MESSAGE_TASKS_MAX, 1]);
}

#[test]
fn a_status_alone_is_not_sent_and_a_desired_state_is() {
    let mut rig = rig(&[("a", TaskState::Accepted)]);
    rig.update_task("a", |task| {
        let status = TaskStatus::new(TaskState::Running, Timestamp::EPOCH, "started");
        task.advance(status).unwrap();
    });
    let before = rig.dispatcher.status().timers;
    assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    assert_eq!(rig.dispatcher.status().timers, before, "not even a timer");
    rig.update_task("a", |task| task.set_desired(TaskState::Shutdown).unwrap());
    assert_eq!(after_delay(&mut rig), ["incremental 1>2 +a"]);
}

#[test]
fn a_task_becomes_known_when_it_reaches_assigned() {
    let mut rig = rig(&[]);
    rig.commit(|tx| tx.create(task("a", "n", TaskState::Pending)).unwrap());
    assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    rig.update_task("a", |task| {
        let status = TaskStatus::new(TaskState::Assigned, Timestamp::EPOCH, "");
        task.advance(status).unwrap();
    });
    assert_eq!(after_delay(&mut rig), ["incremental 1>2 +a"]);
}

#[test]
fn a_task_that_comes_and_goes_between_two_messages_is_not_sent() {
    let mut rig = rig(&[]);
    rig.commit(|tx| tx.create(task("a", "n", TaskState::Assigned)).unwrap());
    let id = task_id("a");
    rig.commit(|tx| tx.delete(Kind::Task, id.as_id()).unwrap());
    assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    rig.commit(|tx| tx.create(task("b", "n", TaskState::Assigned)).unwrap());
    assert_eq!(after_delay(&mut rig), ["incremental 1>2 +b"]);
}

#[test]
fn a_slow_node_gets_one_message_for_everything_it_missed() {
    let mut rig = rig(&[]);
    rig.commit(|tx| tx.create(task("a", "n", TaskState::Assigned)).unwrap());
    rig.wait(ASSIGNMENT_BATCH_DELAY);
    let view = Arc::clone(&rig.view);
    let under_way = rig.dispatcher.poll_message(&view).unwrap();
    for name in ["b", "c", "d"] {
        rig.commit(|tx| tx.create(task(name, "n", TaskState::Assigned)).unwrap());
        assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    }
    let id = task_id("c");
    rig.commit(|tx| tx.delete(Kind::Task, id.as_id()).unwrap());
    rig.wait(ASSIGNMENT_BATCH_DELAY);
    rig.dispatcher.handle_sent(under_way.stream);
    assert_eq!(texts(&mut rig), ["incremental 2>3 +b +d"]);
}

#[test]
fn a_second_stream_ends_the_first_and_starts_with_everything() {
    let mut rig = rig(&[("a", TaskState::Running)]);
    let second = open(&mut rig);
    assert_eq!(texts(&mut rig), ["end session invalid", "complete >1 +a"]);
    rig.dispatcher.handle_disconnect(second);
    rig.commit(|tx| tx.create(task("b", "n", TaskState::Assigned)).unwrap());
    assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    open(&mut rig);
    assert_eq!(texts(&mut rig), ["complete >1 +a +b"]);
}

#[test]
fn nothing_is_decided_on_a_view_older_than_what_was_seen() {
    let mut rig = rig(&[]);
    let old = Arc::clone(&rig.view);
    rig.commit(|tx| tx.create(task("a", "n", TaskState::Assigned)).unwrap());
    rig.wait(ASSIGNMENT_BATCH_DELAY);
    assert_eq!(rig.dispatcher.poll_message(&old), None);
    assert_eq!(texts(&mut rig), ["incremental 1>2 +a"]);
}

#[test]
fn missed_commits_are_made_good_by_comparing_everything() {
    let mut rig = rig(&[("a", TaskState::Running), ("b", TaskState::Running)]);
    let mut transaction = rig.view.begin(rig.now);
    transaction
        .delete(Kind::Task, task_id("a").as_id())
        .unwrap();
    transaction
        .create(task("c", "n", TaskState::Assigned))
        .unwrap();
    rig.view = Arc::new(transaction.finish().0);
    let view = Arc::clone(&rig.view);
    rig.dispatcher.handle_lag(rig.now, &view);
    assert_eq!(texts(&mut rig), ["incremental 1>2 -a +c"]);
}

pub(super) fn with_secrets(name: &str, state: TaskState, secrets: &[&str]) -> swarm_types::Task {
    let reference = |id: &&str| v1::SecretReference {
        secret_id: (*id).to_owned(),
        ..Default::default()
    };
    let config = v1::ResourceReference {
        resource_id: "c".into(),
        resource_type: v1::ResourceType::Config as i32,
    };
    let container = v1::ContainerSpec {
        secrets: secrets.iter().map(reference).collect(),
        ..Default::default()
    };
    let mut task = task(name, "n", state);
    task.spec = Arc::new(v1::TaskSpec {
        runtime: Some(Runtime::Container(container)),
        resource_references: vec![config],
        ..Default::default()
    });
    task
}

pub(super) fn create_secrets(rig: &mut Rig) {
    let secret = |id: &str, driver: bool| {
        let spec = v1::SecretSpec {
            annotations: Some(v1::Annotations {
                name: id.to_owned(),
                ..Default::default()
            }),
            driver: driver.then(|| v1::Driver {
                name: "vault".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        Secret::new(id.parse().unwrap(), spec)
    };
    rig.commit(|tx| {
        tx.create(secret("s1", false)).unwrap();
        tx.create(secret("s2", false)).unwrap();
        tx.create(secret("driven", true)).unwrap();
        let config = Config::new("c".parse().unwrap(), v1::ConfigSpec::default());
        tx.create(config).unwrap();
    });
}

#[test]
fn secrets_and_configs_come_with_their_first_user_and_go_with_their_last() {
    let mut rig = rig(&[]);
    create_secrets(&mut rig);
    let assigned = TaskState::Assigned;
    rig.commit(|tx| tx.create(with_secrets("a", assigned, &["s1"])).unwrap());
    assert_eq!(
        after_delay(&mut rig),
        ["incremental 1>2 +secret:s1 +config:c +a"]
    );
    rig.commit(|tx| {
        tx.create(with_secrets("b", assigned, &["s1", "s2"]))
            .unwrap()
    });
    assert_eq!(after_delay(&mut rig), ["incremental 2>3 +secret:s2 +b"]);
    // The last user of s1 goes while another one comes: nothing changes for it.
    let (a, b) = (task_id("a"), task_id("b"));
    rig.commit(|tx| {
        tx.delete(Kind::Task, a.as_id()).unwrap();
        tx.delete(Kind::Task, b.as_id()).unwrap();
        tx.create(with_secrets("d", assigned, &["s1"])).unwrap();
    });
    assert_eq!(
        after_delay(&mut rig),
        ["incremental 3>4 -secret:s2 -a -b +d"]
    );
    rig.update_task("d", |task| {
        let status = TaskStatus::new(TaskState::Failed, Timestamp::EPOCH, "");
        task.advance(status).unwrap();
    });
    assert_eq!(
        after_delay(&mut rig),
        ["incremental 4>5 -secret:s1 -config:c"]
    );
    let d = task_id("d");
    rig.commit(|tx| tx.delete(Kind::Task, d.as_id()).unwrap());
    assert_eq!(after_delay(&mut rig), ["incremental 5>6 -d"]);
}

#[test]
fn a_task_goes_out_without_what_is_missing() {
    let mut rig = rig(&[]);
    create_secrets(&mut rig);
    let assigned = TaskState::Assigned;
    let names = &["missing"];
    rig.commit(|tx| tx.create(with_secrets("a", assigned, names)).unwrap());
    assert_eq!(after_delay(&mut rig), ["incremental 1>2 +config:c +a"]);
    let a = task_id("a");
    rig.commit(|tx| tx.delete(Kind::Task, a.as_id()).unwrap());
    assert_eq!(after_delay(&mut rig), ["incremental 2>3 -config:c -a"]);
}

#[test]
fn an_ended_task_is_sent_without_what_it_needed() {
    let mut rig = Rig::new(vec![node("n", NodeState::Down)]);
    rig.registered("n");
    create_secrets(&mut rig);
    rig.commit(|tx| {
        tx.create(with_secrets("a", TaskState::Failed, &["s1"]))
            .unwrap();
    });
    open(&mut rig);
    assert_eq!(texts(&mut rig), ["complete >1 +a"]);
}

#[test]
fn changes_and_the_end_of_a_secret_or_config_are_not_passed_on() {
    let mut rig = rig(&[]);
    create_secrets(&mut rig);
    rig.commit(|tx| {
        tx.create(with_secrets("a", TaskState::Assigned, &["s1"]))
            .unwrap();
    });
    after_delay(&mut rig);
    let mut secret = Secret::clone(rig.view.get::<Secret>(&"s1".parse().unwrap()).unwrap());
    let mut config = Config::clone(rig.view.get::<Config>(&"c".parse().unwrap()).unwrap());
    Arc::make_mut(&mut secret.spec).data = "another".into();
    Arc::make_mut(&mut config.spec).data = "another".into();
    let (secret_id, config_id) = (secret.id.clone(), config.id.clone());
    rig.commit(|tx| {
        tx.update(secret).unwrap();
        tx.update(config).unwrap();
    });
    assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    rig.commit(|tx| {
        tx.delete(Kind::Secret, secret_id.as_id()).unwrap();
        tx.delete(Kind::Config, config_id.as_id()).unwrap();
    });
    assert_eq!(after_delay(&mut rig), Vec::<String>::new());
    // The node is told to forget them when their task goes.
    let a = task_id("a");
    rig.commit(|tx| tx.delete(Kind::Task, a.as_id()).unwrap());
    assert_eq!(
        after_delay(&mut rig),
        ["incremental 2>3 -secret:s1 -config:c -a"]
    );
}
