//! The session loop.

use std::time::Duration;

use swarm_api::v1;
use swarm_types::TaskState;
use v1::assignments_message::Type;

use super::rig::{Rig, put, remove, task};
use crate::{ASSIGNMENTS_TIMEOUT, Call, Epoch, NodeAction, Reply, RpcError};

const MS: Duration = Duration::from_millis(1);

fn closes(calls: &[Call]) -> Vec<&str> {
    calls
        .iter()
        .filter_map(|call| match call {
            Call::Close { reason, .. } => Some(reason.as_str()),
            Call::OpenSession { .. }
            | Call::OpenAssignments { .. }
            | Call::ListenSubscriptions
            | Call::Heartbeat { .. }
            | Call::UpdateTaskStatus { .. } => None,
        })
        .collect()
}

#[test]
fn the_session_opens_once_the_node_is_described() {
    let mut rig = Rig::new();
    assert_eq!(rig.agent.poll_node_action(), Some(NodeAction::Describe));
    assert_eq!(rig.calls(), []);
    let error = Err("no procfs".to_owned());
    rig.agent.handle_description(rig.now, error, &mut || 0);
    assert_eq!(rig.calls(), []);
    assert_eq!(
        rig.warnings(),
        ["the node could not be described: no procfs"]
    );
    rig.wait(Duration::from_secs(1));
    assert_eq!(rig.agent.poll_node_action(), Some(NodeAction::Describe));
    rig.describe("host");
    let calls = rig.calls();
    let [
        Call::OpenSession {
            description,
            previous_session,
        },
    ] = &calls[..]
    else {
        panic!("{calls:?}");
    };
    assert_eq!((&*description.hostname, &**previous_session), ("host", ""));
}

#[test]
fn the_first_session_message_must_come_within_its_deadline() {
    let mut rig = Rig::new();
    rig.describe("host");
    rig.calls();
    rig.wait(crate::RPC_TIMEOUT - MS);
    assert_eq!(rig.calls(), []);
    rig.wait(MS);
    assert_eq!(
        closes(&rig.calls()),
        ["the manager sent no session message in time"]
    );
    // The draw is 0, so the next attempt comes at once.
    rig.wait(Duration::ZERO);
    assert!(matches!(rig.calls()[..], [Call::OpenSession { .. }]));
}

#[test]
fn heartbeats_come_at_once_and_then_after_the_period() {
    let mut rig = Rig::new();
    rig.describe("host");
    rig.calls();
    rig.hear("s1");
    let session = "s1".to_owned();
    let calls = rig.calls();
    assert_eq!(calls[0], Call::Heartbeat { session });
    rig.reply(Reply::Heartbeat(Ok(Duration::from_secs(5))));
    rig.assign(Type::Complete, "", "1", vec![]);
    rig.wait(Duration::from_secs(5) - MS);
    assert_eq!(rig.calls(), []);
    rig.wait(MS);
    assert!(matches!(rig.calls()[..], [Call::Heartbeat { .. }]));
    rig.wait(crate::RPC_TIMEOUT - MS);
    assert_eq!(rig.calls(), []);
    rig.wait(MS);
    assert_eq!(
        closes(&rig.calls()),
        ["the manager did not answer a heartbeat in time"]
    );
}

#[test]
fn assignments_must_come_within_their_deadline() {
    let mut rig = Rig::connected();
    rig.wait(ASSIGNMENTS_TIMEOUT - MS);
    assert_eq!(rig.calls(), []);
    rig.wait(MS);
    assert_eq!(
        closes(&rig.calls()),
        ["the manager sent no assignments in time"]
    );
}

#[test]
fn the_back_off_doubles_up_to_its_limit_and_starts_over_after_a_registration() {
    let mut rig = Rig::new();
    rig.describe("host");
    let fail = |rig: &mut Rig| {
        rig.calls();
        let error = RpcError::new(14, "unreachable");
        // The largest draw: the wait is one nanosecond below the back-off.
        let reply = Reply::SessionEnded(error);
        let mut draw = {
            let mut first = true;
            move || {
                assert!(std::mem::replace(&mut first, false));
                u64::MAX - 1
            }
        };
        rig.agent
            .handle_rpc_result(rig.now, rig.epoch, reply, &mut draw);
        rig.calls();
    };
    for expected in [100, 300, 700, 1500, 3100, 6300, 8000, 8000] {
        fail(&mut rig);
        let until = rig.agent.poll_timeout().unwrap();
        let wait = until.saturating_since(rig.now);
        assert!(wait < expected * MS, "{wait:?} {expected}");
        rig.wait(8000 * MS);
    }
    rig.connect("s1");
    fail(&mut rig);
    let until = rig.agent.poll_timeout().unwrap();
    assert!(until.saturating_since(rig.now) < 100 * MS);
}

#[test]
fn a_gap_in_the_assignments_makes_a_new_session_with_the_old_id() {
    let mut rig = Rig::connected();
    rig.assign(Type::Complete, "", "1", vec![]);
    rig.assign(Type::Incremental, "1", "2", vec![]);
    assert_eq!(rig.calls(), []);
    rig.assign(Type::Incremental, "3", "4", vec![]);
    assert_eq!(
        closes(&rig.calls()),
        ["a message is missing on the assignments stream"]
    );
    rig.wait(Duration::ZERO);
    let calls = rig.calls();
    let [
        Call::OpenSession {
            previous_session, ..
        },
    ] = &calls[..]
    else {
        panic!("{calls:?}");
    };
    assert_eq!(previous_session, "s1");
}

#[test]
fn repeated_and_reordered_assignments_never_undo_newer_ones() {
    for (kind, applies_to, results_in) in [
        (Type::Complete, "", "1"),
        (Type::Incremental, "1", "2"),
        (Type::Incremental, "", "1"),
    ] {
        let mut rig = Rig::connected();
        rig.assign(Type::Complete, "", "1", vec![]);
        let running = task("a", TaskState::Running);
        rig.assign(Type::Incremental, "1", "2", vec![put(&running)]);
        rig.assign(kind, applies_to, results_in, vec![remove("a")]);
        assert_eq!(rig.agent.assigned_tasks().count(), 1);
        assert_eq!(closes(&rig.calls()).len(), 1);
    }
    let mut rig = Rig::connected();
    rig.assign(Type::Incremental, "", "1", vec![]);
    assert_eq!(closes(&rig.calls()).len(), 1);
}

#[test]
fn what_belongs_to_an_earlier_attempt_changes_nothing() {
    let mut rig = Rig::connected();
    let old = rig.epoch;
    let error = RpcError::new(14, "gone");
    rig.reply(Reply::SessionEnded(error.clone()));
    rig.calls();
    rig.wait(Duration::ZERO);
    rig.connect("s2");
    assert_ne!(rig.epoch, old);
    let new = std::mem::replace(&mut rig.epoch, old);
    rig.hear("s1");
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.reply(Reply::AssignmentsEnded(error));
    rig.epoch = new;
    assert_eq!(rig.agent.assigned_tasks().count(), 0);
    assert_eq!(rig.calls(), []);
    assert!(rig.agent.is_connected());
    rig.epoch = Epoch(new.0 + 1);
    rig.hear("s9");
    assert!(rig.agent.is_connected());
}

#[test]
fn a_session_that_changes_its_id_is_given_up() {
    let mut rig = Rig::connected();
    rig.hear("s1");
    assert_eq!(rig.calls(), []);
    rig.hear("s2");
    assert_eq!(
        closes(&rig.calls()),
        ["the manager changed the session's id"]
    );
}

#[test]
fn a_changed_description_opens_the_session_again_and_an_equal_one_does_not() {
    let mut rig = Rig::connected();
    rig.warnings();
    rig.wait(crate::DESCRIBE_INTERVAL);
    assert_eq!(rig.agent.poll_node_action(), Some(NodeAction::Describe));
    rig.describe("host");
    assert_eq!(rig.calls(), []);
    rig.describe("other");
    let calls = rig.calls();
    assert!(
        matches!(calls[..], [Call::Close { failed: false, .. }]),
        "{calls:?}"
    );
    rig.wait(Duration::ZERO);
    let calls = rig.calls();
    let [Call::OpenSession { description, .. }] = &calls[..] else {
        panic!("{calls:?}");
    };
    assert_eq!(description.hostname, "other");
}

#[test]
fn news_is_passed_on_once_and_status_alone_is_no_news() {
    let mut rig = Rig::connected();
    rig.warnings();
    let node = v1::Node {
        id: "n".into(),
        ..Default::default()
    };
    let key = |lamport_time| v1::EncryptionKey {
        lamport_time,
        ..Default::default()
    };
    let manager = |addr: &str| v1::WeightedPeer {
        peer: Some(v1::Peer {
            addr: addr.into(),
            ..Default::default()
        }),
        weight: 10,
    };
    let mut message = v1::SessionMessage {
        session_id: "s1".into(),
        node: Some(node.clone()),
        managers: vec![manager("m:1")],
        network_bootstrap_keys: vec![key(1)],
        root_ca: "pem".into(),
    };
    let send = |rig: &mut Rig, message: &v1::SessionMessage| -> Vec<NodeAction> {
        rig.agent
            .handle_session_message(rig.now, rig.epoch, message.clone(), &mut || 0);
        std::iter::from_fn(|| rig.agent.poll_node_action()).collect()
    };
    let all = [
        NodeAction::Managers(vec![manager("m:1")]),
        NodeAction::RootCa("pem".into()),
        NodeAction::NetworkKeys(vec![key(1)]),
        NodeAction::Configure(Box::new(node)),
    ];
    assert_eq!(send(&mut rig, &message), all);
    message.node.as_mut().unwrap().status = Some(v1::NodeStatus::default());
    assert_eq!(send(&mut rig, &message), []);
    message.root_ca = bytes::Bytes::new();
    assert_eq!(send(&mut rig, &message), []);
    message.network_bootstrap_keys = vec![key(1), key(2)];
    let keys = NodeAction::NetworkKeys(vec![key(1), key(2)]);
    assert_eq!(send(&mut rig, &message), [keys]);
    // No keys mean that there is nothing to say about them.
    message.network_bootstrap_keys.clear();
    assert_eq!(send(&mut rig, &message), []);
    message.managers.push(manager("m:2"));
    let managers = NodeAction::Managers(vec![manager("m:1"), manager("m:2")]);
    assert_eq!(send(&mut rig, &message), [managers]);
    message.node.as_mut().unwrap().role = 1;
    let told = send(&mut rig, &message);
    assert!(matches!(&told[..], [NodeAction::Configure(node)] if node.role == 1));
}

#[test]
fn a_heartbeat_goes_before_a_waiting_report() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.sync();
    rig.wait(Duration::from_secs(1000));
    let calls = rig.calls();
    assert!(
        matches!(
            calls[..],
            [Call::Heartbeat { .. }, Call::UpdateTaskStatus { .. }]
        ),
        "{calls:?}"
    );
}

#[test]
fn statuses_wait_for_others_and_only_the_latest_goes_out() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.wait(crate::REPORT_DELAY - MS);
    assert_eq!(rig.reported(), []);
    rig.pass(swarm_executor::Operation::Prepare);
    rig.wait(MS);
    let states = vec![("a".to_owned(), TaskState::Starting)];
    assert_eq!(rig.reported(), [(1, states)]);
}

#[test]
fn a_report_without_an_answer_is_repeated_in_the_next_session_and_an_answered_one_is_not() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Ready))],
    );
    rig.wait(crate::REPORT_DELAY);
    assert_eq!(rig.reported().len(), 1);
    // The answer is lost.
    rig.wait(crate::RPC_TIMEOUT - MS);
    assert_eq!(rig.calls(), []);
    rig.wait(MS);
    assert_eq!(
        closes(&rig.calls()),
        ["the manager did not take a status report in time"]
    );
    rig.wait(Duration::ZERO);
    rig.calls();
    rig.hear("s1");
    let states = vec![("a".to_owned(), TaskState::Preparing)];
    assert_eq!(rig.reported(), [(1, states.clone())]);
    // A late answer to an older report is no answer to this one.
    rig.reply(Reply::StatusesTaken(0, Ok(())));
    rig.reply(Reply::StatusesTaken(1, Ok(())));
    rig.wait(MS);
    assert_eq!(rig.reported(), []);

    let lost = || Reply::SessionEnded(RpcError::new(14, "gone"));
    rig.reply(lost());
    rig.calls();
    rig.wait(Duration::ZERO);
    rig.calls();
    rig.hear("s1");
    assert_eq!(rig.reported(), [], "the manager has it already");
    rig.reply(lost());
    rig.calls();
    rig.wait(Duration::ZERO);
    rig.calls();
    rig.hear("s2");
    assert_eq!(rig.reported(), [(1, states)], "a new manager may not");
}

#[test]
fn not_found_counts_as_reported_and_any_other_error_ends_the_session() {
    for (code, is_connected) in [(RpcError::NOT_FOUND, true), (7, false)] {
        let mut rig = Rig::connected();
        rig.assign(
            Type::Complete,
            "",
            "1",
            vec![put(&task("a", TaskState::Ready))],
        );
        rig.wait(crate::REPORT_DELAY);
        let report = rig.reported()[0].0;
        rig.reply(Reply::StatusesTaken(report, Err(RpcError::new(code, "x"))));
        assert_eq!(rig.agent.is_connected(), is_connected);
    }
}

#[test]
fn large_reports_are_cut_into_chunks() {
    let mut rig = Rig::connected();
    let count = crate::REPORT_CHUNK_MAX + 1;
    let tasks = (0..count).map(|n| put(&task(&format!("t{n}"), TaskState::Ready)));
    let tasks = tasks.collect();
    rig.assign(Type::Complete, "", "1", tasks);
    let first = rig.reported();
    assert_eq!(first.len(), 1, "a full chunk does not wait");
    assert_eq!(first[0].1.len(), crate::REPORT_CHUNK_MAX);
    rig.reply(Reply::StatusesTaken(1, Ok(())));
    let second = rig.reported();
    assert_eq!(second[0].1.len(), 1);
    assert_eq!(second[0].0, 2);
}

#[test]
fn a_stopped_agent_closes_its_session_and_begins_nothing() {
    let mut rig = Rig::connected();
    rig.assign(
        Type::Complete,
        "",
        "1",
        vec![put(&task("a", TaskState::Running))],
    );
    rig.sync();
    rig.agent.handle_stop();
    assert_eq!(closes(&rig.calls()), ["the agent stops"]);
    rig.no_operation();
    rig.wait(Duration::from_secs(60));
    assert_eq!(rig.calls(), []);
}
