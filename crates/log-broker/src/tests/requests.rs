//! What is refused, with which code and text.

use swarm_api::{prost_types, v1};
use swarm_types::TaskState;

use super::rig::{Rig, options, selector, task};
use crate::{Code, SELECTOR_IDS_MAX, SUBSCRIPTIONS_MAX};

fn rig() -> Rig {
    Rig::new(vec![task("t1", "n1", TaskState::Running)])
}

#[track_caller]
fn check_refused(
    selector: Option<v1::LogSelector>,
    options: Option<v1::LogSubscriptionOptions>,
    code: Code,
    text: &str,
) {
    let error = rig().try_subscribe(selector, options).unwrap_err();
    assert_eq!(error.code, code);
    assert!(error.message.contains(text), "{error}");
}

#[test]
fn requests_that_cannot_be_served_are_refused() {
    let web = || Some(selector(&["web"], &[], &[]));
    let invalid = Code::InvalidArgument;
    check_refused(None, None, invalid, "log selector must be provided");
    let empty = Some(selector(&[], &[], &[]));
    check_refused(empty, None, invalid, "log selector must not be empty");
    let gone = Some(selector(&["web", "gone"], &[], &[]));
    check_refused(gone, None, Code::NotFound, "service gone not found");
    let gone = Some(selector(&[], &[], &["t2"]));
    check_refused(gone, None, Code::NotFound, "task t2 not found");
    let blank = Some(selector(&[], &[""], &[]));
    check_refused(
        blank,
        None,
        invalid,
        "node id \"\": an id must not be empty",
    );
    let streams = v1::LogSubscriptionOptions {
        streams: vec![1, 3],
        ..Default::default()
    };
    check_refused(web(), Some(streams), invalid, "log stream 3 is neither");
    let since = v1::LogSubscriptionOptions {
        since: Some(prost_types::Timestamp {
            seconds: 1,
            nanos: -1,
        }),
        ..Default::default()
    };
    check_refused(web(), Some(since), invalid, "since is not a time");
    assert!(rig().try_subscribe(web(), None).is_ok());
}

#[test]
fn a_selector_has_a_limit() {
    let ids: Vec<String> = (0..=SELECTOR_IDS_MAX).map(|n| format!("n{n}")).collect();
    let mut wanted = selector(&[], &[], &[]);
    wanted.node_ids = ids;
    check_refused(
        Some(wanted.clone()),
        None,
        Code::InvalidArgument,
        "names 1001 objects, at most 1000 are allowed",
    );
    wanted.node_ids.pop();
    assert!(rig().try_subscribe(Some(wanted), None).is_ok());
}

#[test]
fn subscriptions_have_a_limit_and_the_end_of_one_makes_room() {
    let mut rig = rig();
    let mut last = None;
    for _ in 0..SUBSCRIPTIONS_MAX {
        last = Some(rig.subscribe(selector(&["web"], &[], &[]), true));
    }
    let refused = rig
        .try_subscribe(Some(selector(&["web"], &[], &[])), Some(options(false)))
        .unwrap_err();
    assert_eq!(refused.code, Code::ResourceExhausted);
    assert!(
        refused.message.contains("serves 50 log subscriptions"),
        "{refused}"
    );
    rig.broker.handle_unsubscribe(&last.unwrap());
    rig.subscribe(selector(&["web"], &[], &[]), true);
}

#[test]
fn nodes_get_selector_and_options_untouched_and_never_absent() {
    let mut rig = rig();
    rig.broker.handle_listen(rig.now, "n1".parse().unwrap());
    let request = v1::SubscribeLogsRequest {
        selector: Some(selector(&["web", "web"], &[], &["t1"])),
        options: None,
    };
    let id = rig
        .broker
        .handle_subscribe(
            rig.now,
            request.clone(),
            &rig.view,
            &mut super::rig::Ids::default(),
        )
        .unwrap();
    let Some(crate::Output::Tell { message, .. }) = rig.broker.poll_output() else {
        panic!("the node is told");
    };
    assert_eq!(message.id, id.to_string());
    assert_eq!(message.selector, request.selector);
    assert_eq!(message.options, Some(v1::LogSubscriptionOptions::default()));
    assert!(!message.close);
}
