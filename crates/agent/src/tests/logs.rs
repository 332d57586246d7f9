//! Subscriptions to the output of tasks.

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_executor::Tail;
use swarm_types::{TaskState, Timestamp};
use v1::assignments_message::Type;

use super::rig::{Rig, put, remove, task};
use crate::{
    Call, Epoch, LOG_BURST_BYTES, LOG_BYTES_PER_SECOND, LOG_RECLAIM, LOG_SUBSCRIPTIONS_MAX,
    LogAction, LogPace, Reply, RpcError,
};

const UNAVAILABLE: i32 = 14;
const UNIMPLEMENTED: i32 = 12;

fn subscription(id: &str, follow: bool) -> v1::SubscriptionMessage {
    v1::SubscriptionMessage {
        id: id.to_owned(),
        selector: Some(v1::LogSelector {
            service_ids: vec!["web".to_owned()],
            ..Default::default()
        }),
        options: Some(v1::LogSubscriptionOptions {
            follow,
            tail: -1,
            ..Default::default()
        }),
        close: false,
    }
}

fn closed(id: &str) -> v1::SubscriptionMessage {
    v1::SubscriptionMessage {
        close: true,
        ..subscription(id, false)
    }
}

fn web(id: &str) -> swarm_types::Task {
    let mut task = task(id, TaskState::Running);
    task.service_id = Some("web".parse().unwrap());
    task.node_id = Some("n1".parse().unwrap());
    task
}

/// A node with tasks `a` and `b` of service `web`, and `c` of none.
fn rig() -> Rig {
    let mut rig = Rig::connected();
    let changes = vec![
        put(&web("a")),
        put(&web("b")),
        put(&task("c", TaskState::Running)),
    ];
    rig.assign(Type::Complete, "", "1", changes);
    rig
}

impl Rig {
    fn subscribe(&mut self, message: v1::SubscriptionMessage) {
        self.agent
            .handle_subscription_message(self.now, self.epoch, message);
    }

    fn published(&mut self, id: &str, epoch: Epoch, ended: Result<(), i32>) {
        let ended = ended.map_err(|code| RpcError::new(code, "no"));
        self.agent.handle_published(self.now, id, epoch, ended);
    }

    /// The actions that wait, as short words.
    fn actions(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        while let Some(action) = self.agent.poll_log_action() {
            words.push(match action {
                LogAction::Begin { id, .. } => format!("begin {id}"),
                LogAction::Read { id, task, options } => match options.tail {
                    Tail::All => format!("read {id} {}", task.id),
                    Tail::Last(_) | Tail::Skip(_) => format!("read {id} {} tail", task.id),
                },
                LogAction::Complete { id } => format!("complete {id}"),
                LogAction::Resume { id, .. } => format!("resume {id}"),
                LogAction::Cancel { id } => format!("cancel {id}"),
            });
        }
        words
    }

    fn reconnect(&mut self, session: &str) {
        self.reply(Reply::SessionEnded(RpcError::new(UNAVAILABLE, "gone")));
        self.calls();
        self.wait(Duration::ZERO);
        self.connect(session);
    }
}

#[test]
fn the_listen_stream_opens_with_the_session_and_an_old_manager_may_not_know_it() {
    let mut rig = Rig::new();
    rig.describe("host");
    rig.calls();
    rig.hear("s1");
    let calls = rig.calls();
    let listens = |calls: &[Call]| calls.contains(&Call::ListenSubscriptions);
    assert!(listens(&calls), "{calls:?}");
    let ended = |code| Reply::SubscriptionsEnded(RpcError::new(code, "ended"));
    rig.reply(ended(UNIMPLEMENTED));
    assert!(rig.agent.is_connected());
    assert!(!listens(&rig.calls()), "once in a session is enough");
    rig.reply(ended(UNAVAILABLE));
    assert!(!rig.agent.is_connected(), "any other end ends the session");
}

#[test]
fn without_follow_the_tasks_of_now_are_read_and_then_it_closes() {
    let mut rig = rig();
    rig.subscribe(subscription("s", false));
    let expected = ["begin s", "read s a tail", "read s b tail", "complete s"];
    assert_eq!(rig.actions(), expected);
    rig.assign(Type::Incremental, "1", "2", vec![put(&web("d"))]);
    assert!(rig.actions().is_empty());
    rig.published("s", rig.epoch, Ok(()));
    assert_eq!(rig.actions(), ["cancel s"]);
    // The id is free again, though managers never use one twice.
    rig.subscribe(subscription("s", false));
    assert_eq!(rig.actions().len(), 5);
}

#[test]
fn following_takes_in_new_tasks_from_their_first_line() {
    let mut rig = rig();
    rig.subscribe(subscription("s", true));
    assert_eq!(rig.actions(), ["begin s", "read s a tail", "read s b tail"]);
    let changes = vec![
        put(&web("d")),
        put(&web("a")),
        put(&task("e", TaskState::Running)),
        remove("b"),
    ];
    rig.assign(Type::Incremental, "1", "2", changes);
    assert_eq!(rig.actions(), ["read s d"]);
    rig.subscribe(closed("s"));
    assert_eq!(rig.actions(), ["cancel s"]);
    rig.subscribe(closed("s"));
    assert!(rig.actions().is_empty());
}

#[test]
fn tasks_are_selected_by_task_service_or_node() {
    let mut rig = rig();
    let mut select = |services: &[&str], nodes: &[&str], tasks: &[&str]| {
        let texts = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let mut message = subscription("s", false);
        message.selector = Some(v1::LogSelector {
            service_ids: texts(services),
            node_ids: texts(nodes),
            task_ids: texts(tasks),
        });
        rig.subscribe(message);
        let actions = rig.actions();
        rig.published("s", rig.epoch, Ok(()));
        rig.actions();
        actions.len() - 2
    };
    assert_eq!(select(&[], &["n1"], &[]), 2);
    assert_eq!(select(&[], &["n2"], &[]), 0);
    assert_eq!(select(&[], &[], &["c"]), 1);
    assert_eq!(select(&["web"], &["n1"], &["c"]), 3);
}

#[test]
fn a_message_without_selector_and_options_is_closed_at_once() {
    let mut rig = rig();
    rig.subscribe(v1::SubscriptionMessage {
        id: "s".to_owned(),
        ..Default::default()
    });
    assert_eq!(rig.actions(), ["begin s", "complete s"]);
}

#[test]
fn a_repetition_is_ignored_and_a_new_session_resumes() {
    let mut rig = rig();
    rig.subscribe(subscription("s", true));
    rig.actions();
    rig.subscribe(subscription("s", true));
    assert!(rig.actions().is_empty());
    let before = rig.epoch;
    rig.reconnect("s2");
    rig.subscribe(subscription("s", true));
    assert_eq!(rig.actions(), ["resume s"]);
    // The old stream breaks late; the new one is not concerned.
    rig.published("s", before, Err(UNAVAILABLE));
    rig.wait(LOG_RECLAIM);
    assert!(rig.actions().is_empty());
}

#[test]
fn a_broken_stream_waits_to_be_named_again_and_is_given_up_in_the_end() {
    let mut rig = rig();
    rig.subscribe(subscription("s", true));
    rig.subscribe(subscription("t", true));
    rig.actions();
    rig.published("s", rig.epoch, Err(UNAVAILABLE));
    rig.published("t", rig.epoch, Err(UNAVAILABLE));
    rig.wait(LOG_RECLAIM - Duration::from_millis(1));
    assert!(rig.actions().is_empty());
    rig.subscribe(subscription("s", true));
    assert_eq!(rig.actions(), ["resume s"]);
    rig.wait(Duration::from_millis(1));
    assert_eq!(rig.actions(), ["cancel t"]);
}

#[test]
fn a_refusal_of_the_manager_ends_it() {
    let mut rig = rig();
    rig.warnings();
    for (code, warns) in [(RpcError::NOT_FOUND, false), (7, true)] {
        rig.subscribe(subscription("s", true));
        rig.actions();
        rig.published("s", rig.epoch, Err(code));
        assert_eq!(rig.actions(), ["cancel s"]);
        assert_eq!(!rig.warnings().is_empty(), warns, "{code}");
    }
}

#[test]
fn the_number_of_subscriptions_is_limited() {
    let mut rig = rig();
    rig.warnings();
    for number in 0..LOG_SUBSCRIPTIONS_MAX {
        rig.subscribe(subscription(&number.to_string(), true));
    }
    assert_eq!(rig.actions().len(), 3 * LOG_SUBSCRIPTIONS_MAX);
    assert!(rig.warnings().is_empty());
    rig.subscribe(subscription("more", true));
    assert!(rig.actions().is_empty());
    assert!(rig.warnings()[0].contains("log subscription more is left alone"));
}

#[test]
fn a_node_that_leaves_publishes_nothing_more() {
    let mut rig = rig();
    rig.subscribe(subscription("s", true));
    rig.actions();
    rig.agent.handle_leave(rig.now);
    assert_eq!(rig.actions(), ["cancel s"]);
}

#[test]
fn the_pace_lets_a_burst_pass_and_then_the_rate() {
    let mut now = Timestamp::from_millis(5);
    let mut pace = LogPace::new(now);
    assert_eq!(pace.take(now, LOG_BURST_BYTES), Duration::ZERO);
    let wait = pace.take(now, LOG_BYTES_PER_SECOND);
    assert_eq!(wait, Duration::from_secs(1));
    now = now.saturating_add(Duration::from_secs(1));
    let wait = pace.take(now, LOG_BYTES_PER_SECOND / 10);
    assert_eq!(wait, Duration::from_millis(100));
    now = now.saturating_add(Duration::from_secs(60));
    assert_eq!(pace.take(now, LOG_BURST_BYTES), Duration::ZERO);
    assert!(
        pace.take(now, 1) > Duration::ZERO,
        "a pause saves up no more than a burst"
    );
}

#[test]
fn actions_carry_the_task_as_it_was_assigned() {
    let mut rig = rig();
    rig.subscribe(subscription("s", true));
    let mut tasks = Vec::new();
    while let Some(action) = rig.agent.poll_log_action() {
        if let LogAction::Read { task, .. } = action {
            tasks.push(task);
        }
    }
    let known = rig.agent.task(&"a".parse().unwrap()).unwrap();
    assert!(Arc::ptr_eq(known, &tasks[0]));
}
