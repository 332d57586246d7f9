//! Secrets whose data a driver provides.

use std::time::Duration;

use swarm_types::{Kind, TaskState, TaskStatus, Timestamp};
use v1::assignment::Item;

use super::assignments::{after_delay, create_secrets, open, rig, texts, with_secrets};
use super::rig::{MS, Rig, task_id};
use crate::{Body, SECRET_REQUESTS_MAX, SECRET_RETRY_MIN, SecretAnswer, SecretRequest};
use swarm_api::v1;

const ASSIGNED: TaskState = TaskState::Assigned;

fn request(rig: &mut Rig) -> Option<SecretRequest> {
    rig.dispatcher.poll_secret_request(&rig.view)
}

fn answer(rig: &mut Rig, request: &SecretRequest, value: &str, do_not_reuse: bool) {
    let answer = SecretAnswer {
        value: value.to_owned().into(),
        do_not_reuse,
    };
    rig.dispatcher
        .handle_secret(rig.now, request.id, Ok(answer), &rig.view);
}

fn fail(rig: &mut Rig, request: &SecretRequest, reason: &str) {
    let answer = Err(reason.to_owned());
    rig.dispatcher
        .handle_secret(rig.now, request.id, answer, &rig.view);
}

fn create(rig: &mut Rig, name: &str, state: TaskState) {
    rig.commit(|tx| tx.create(with_secrets(name, state, &["driven"])).unwrap());
}

fn delete(rig: &mut Rig, name: &str) {
    let id = task_id(name);
    rig.commit(|tx| tx.delete(Kind::Task, id.as_id()).unwrap());
}

/// A task on the node that waits for the driver, with the question.
fn waiting(name: &str) -> (Rig, SecretRequest) {
    let mut rig = rig(&[]);
    create_secrets(&mut rig);
    create(&mut rig, name, ASSIGNED);
    assert_eq!(after_delay(&mut rig), [""; 0], "nothing without the secret");
    let request = request(&mut rig).unwrap();
    (rig, request)
}

/// The secret that a message brings.
fn secret_in(message: &v1::AssignmentsMessage) -> v1::Secret {
    let changes = message.changes.iter();
    let items = changes.filter_map(|change| change.assignment.clone()?.item);
    let mut secrets = items.filter_map(|item| match item {
        Item::Secret(secret) => Some(secret),
        Item::Task(_) | Item::Config(_) | Item::Volume(_) => None,
    });
    secrets.next().unwrap()
}

#[test]
fn a_task_goes_out_with_its_secret_once_the_driver_answered() {
    let (mut rig, first) = waiting("a");
    assert_eq!(first.driver, "vault");
    assert_eq!(first.task.id, task_id("a"));
    assert!(request(&mut rig).is_none(), "asked once");
    answer(&mut rig, &first, "hush", false);
    let messages = rig.messages();
    let [(_, Body::Assignments(bytes))] = &messages[..] else {
        panic!("{messages:?}");
    };
    let secret = secret_in(&bytes.message());
    assert_eq!(secret.spec.unwrap().data, "hush");
    assert!(!secret.internal);
    assert!(!format!("{:?} {messages:?}", rig.dispatcher).contains("hush"));
}

#[test]
fn shared_data_serve_all_tasks_of_a_node_and_go_with_the_last() {
    let (mut rig, first) = waiting("a");
    answer(&mut rig, &first, "hush", false);
    assert_eq!(
        texts(&mut rig),
        ["incremental 1>2 +secret:driven +config:c +a"]
    );
    create(&mut rig, "b", ASSIGNED);
    assert_eq!(after_delay(&mut rig), ["incremental 2>3 +b"]);
    assert!(request(&mut rig).is_none(), "it is here already");
    delete(&mut rig, "a");
    delete(&mut rig, "b");
    assert_eq!(
        after_delay(&mut rig),
        ["incremental 3>4 -secret:driven -config:c -a -b"]
    );
    create(&mut rig, "d", ASSIGNED);
    assert_eq!(after_delay(&mut rig), [""; 0]);
    assert!(request(&mut rig).is_some(), "asked anew");
}

#[test]
fn an_answer_that_can_be_reused_releases_all_who_wait_for_it() {
    let (mut rig, first) = waiting("a");
    create(&mut rig, "b", ASSIGNED);
    assert_eq!(after_delay(&mut rig), [""; 0]);
    let second = request(&mut rig).unwrap();
    answer(&mut rig, &first, "hush", false);
    let expected = ["incremental 1>2 +secret:driven +config:c +a +b"];
    assert_eq!(texts(&mut rig), expected);
    answer(&mut rig, &second, "late", false);
    assert_eq!(
        texts(&mut rig),
        [""; 0],
        "nobody waits for the other answer"
    );
}

#[test]
fn data_for_one_task_have_an_id_of_their_own_and_go_with_the_task() {
    let (mut rig, first) = waiting("a");
    answer(&mut rig, &first, "one", true);
    let messages = rig.messages();
    let [(_, Body::Assignments(bytes))] = &messages[..] else {
        panic!("{messages:?}");
    };
    let secret = secret_in(&bytes.message());
    assert_eq!(secret.id, "driven.a");
    assert_eq!(secret.spec.unwrap().data, "one");
    assert!(secret.internal, "it is no object of the cluster");
    create(&mut rig, "b", ASSIGNED);
    assert_eq!(after_delay(&mut rig), [""; 0]);
    let second = request(&mut rig).unwrap();
    assert_eq!(second.task.id, task_id("b"), "each task asks");
    answer(&mut rig, &second, "two", true);
    assert_eq!(texts(&mut rig), ["incremental 2>3 +secret:driven.b +b"]);
    // SwarmKit leaves it with the node for ever.
    rig.update_task("a", |task| {
        let status = TaskStatus::new(TaskState::Failed, Timestamp::EPOCH, "");
        task.advance(status).unwrap();
    });
    assert_eq!(after_delay(&mut rig), ["incremental 3>4 -secret:driven.a"]);
    delete(&mut rig, "b");
    assert_eq!(
        after_delay(&mut rig),
        ["incremental 4>5 -secret:driven.b -config:c -b"]
    );
}

#[test]
fn a_failing_driver_is_asked_again_later_and_the_task_says_why_it_waits() {
    let (mut rig, first) = waiting("a");
    fail(&mut rig, &first, "sealed");
    assert_eq!(rig.flush(), 1);
    let status = rig.view.task(&task_id("a")).unwrap().status().clone();
    assert_eq!(status.state, ASSIGNED);
    assert_eq!(&*status.message, "waiting for secret driven");
    assert_eq!(&*status.err, "secret driven: sealed");
    rig.wait(SECRET_RETRY_MIN - 101 * MS);
    assert!(request(&mut rig).is_none(), "too early");
    rig.wait(MS);
    let second = request(&mut rig).unwrap();
    assert_ne!(second.id, first.id);
    fail(&mut rig, &second, "sealed");
    assert_eq!(rig.flush(), 0, "the same words are not written again");
    rig.wait(SECRET_RETRY_MIN);
    assert!(request(&mut rig).is_none(), "the pause doubles");
    rig.wait(SECRET_RETRY_MIN);
    let third = request(&mut rig).unwrap();
    answer(&mut rig, &third, "hush", false);
    assert_eq!(
        texts(&mut rig),
        ["incremental 1>2 +secret:driven +config:c +a"]
    );
}

#[test]
fn answers_of_the_wrong_size_are_refused() {
    for (size, is_taken) in [(0, false), (1, true), (511_999, true), (512_000, false)] {
        let (mut rig, first) = waiting("a");
        answer(&mut rig, &first, &"x".repeat(size), false);
        assert_eq!(!texts(&mut rig).is_empty(), is_taken, "{size} bytes");
    }
}

#[test]
fn a_task_that_goes_while_it_waits_is_never_sent() {
    let (mut rig, first) = waiting("a");
    delete(&mut rig, "a");
    assert_eq!(after_delay(&mut rig), [""; 0]);
    answer(&mut rig, &first, "hush", false);
    assert_eq!(texts(&mut rig), [""; 0]);
}

#[test]
fn a_node_that_comes_back_keeps_its_running_task_and_gets_the_secret_after_it() {
    let (mut rig, first) = waiting("a");
    answer(&mut rig, &first, "hush", false);
    texts(&mut rig);
    rig.update_task("a", |task| {
        let status = TaskStatus::new(TaskState::Running, Timestamp::EPOCH, "");
        task.advance(status).unwrap();
    });
    open(&mut rig);
    let messages = texts(&mut rig);
    assert_eq!(messages[1..], ["complete >1 +config:c +a"], "{messages:?}");
    let again = request(&mut rig).unwrap();
    answer(&mut rig, &again, "hush", false);
    assert_eq!(texts(&mut rig), ["incremental 1>2 +secret:driven"]);
}

/// Its report may be on its way, so the store does not say yet that it has begun.
#[test]
fn a_node_that_comes_back_keeps_a_task_that_it_got_whatever_is_stored() {
    let (mut rig, first) = waiting("a");
    answer(&mut rig, &first, "hush", false);
    assert_eq!(
        texts(&mut rig),
        ["incremental 1>2 +secret:driven +config:c +a"]
    );
    create(&mut rig, "b", ASSIGNED);
    open(&mut rig);
    let messages = texts(&mut rig);
    assert_eq!(
        messages.last().unwrap(),
        "complete >1 +config:c +a",
        "{messages:?}"
    );
    let again = request(&mut rig).unwrap();
    answer(&mut rig, &again, "hush", false);
    assert_eq!(texts(&mut rig), ["incremental 1>2 +secret:driven +b"]);
}

/// Also when the stream was lost and came back without a new session.
#[test]
fn a_task_that_was_never_sent_is_held_back_on_the_next_stream_as_well() {
    let (mut rig, _) = waiting("a");
    for _ in 0..2 {
        open(&mut rig);
        assert_eq!(texts(&mut rig).last().unwrap(), "complete >1");
        let again = request(&mut rig).unwrap();
        fail(&mut rig, &again, "sealed");
    }
    rig.wait(SECRET_RETRY_MIN);
    let again = request(&mut rig).unwrap();
    answer(&mut rig, &again, "hush", false);
    let expected = ["incremental 1>2 +secret:driven +config:c +a"];
    assert_eq!(texts(&mut rig), expected);
}

#[test]
fn a_question_is_not_given_up_on_a_view_in_which_its_task_is_missing() {
    let mut rig = rig(&[]);
    create_secrets(&mut rig);
    let older = rig.view.clone();
    create(&mut rig, "a", ASSIGNED);
    assert_eq!(after_delay(&mut rig), [""; 0]);
    assert!(rig.dispatcher.poll_secret_request(&older).is_none());
    let first = request(&mut rig).unwrap();
    answer(&mut rig, &first, "hush", false);
    let expected = ["incremental 1>2 +secret:driven +config:c +a"];
    assert_eq!(texts(&mut rig), expected);
}

#[test]
fn an_answer_for_a_stream_that_is_gone_is_dropped() {
    let (mut rig, first) = waiting("a");
    open(&mut rig);
    assert_eq!(texts(&mut rig).last().unwrap(), "complete >1");
    answer(&mut rig, &first, "hush", false);
    assert_eq!(texts(&mut rig), [""; 0]);
    assert!(
        request(&mut rig).is_some(),
        "the new stream asks for itself"
    );
}

#[test]
fn questions_under_way_are_bounded() {
    let mut rig = rig(&[]);
    create_secrets(&mut rig);
    let count = SECRET_REQUESTS_MAX + 1;
    rig.commit(|tx| {
        for number in 0..count {
            let name = format!("t{number}");
            tx.create(with_secrets(&name, ASSIGNED, &["driven"]))
                .unwrap();
        }
    });
    rig.wait(Duration::from_secs(1));
    texts(&mut rig);
    let asked: Vec<_> = std::iter::from_fn(|| request(&mut rig)).collect();
    assert_eq!(asked.len(), SECRET_REQUESTS_MAX);
    answer(&mut rig, &asked[0], "one", true);
    assert!(request(&mut rig).is_some(), "one place is free");
}

#[test]
fn a_task_that_is_to_stop_goes_out_without_what_it_waited_for() {
    let (mut rig, first) = waiting("a");
    fail(&mut rig, &first, "sealed");
    rig.flush();
    rig.update_task("a", |task| task.set_desired(TaskState::Remove).unwrap());
    // Only the node can say that it has stopped.
    assert_eq!(after_delay(&mut rig), ["incremental 1>2 +config:c +a"]);
    rig.wait(SECRET_RETRY_MIN);
    answer(&mut rig, &first, "late", false);
    assert_eq!(texts(&mut rig), [""; 0]);
}

#[test]
fn a_task_whose_secret_is_gone_does_not_wait_for_the_driver() {
    let (mut rig, first) = waiting("a");
    fail(&mut rig, &first, "sealed");
    let secret = first.secret.clone();
    rig.commit(|tx| tx.delete(Kind::Secret, secret.id.as_id()).unwrap());
    rig.wait(SECRET_RETRY_MIN);
    assert!(request(&mut rig).is_none());
    let expected = ["incremental 1>2 +config:c +a"];
    assert_eq!(
        texts(&mut rig),
        expected,
        "the node says that it is missing"
    );
}
