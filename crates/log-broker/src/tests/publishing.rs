//! Which published messages are refused.

use swarm_types::TaskState;

use super::rig::{Rig, line, node_id, published, selector, task};
use crate::{Code, Publication};

#[test]
fn a_stream_belongs_to_one_subscription_and_one_node() {
    let mut rig = Rig::new(vec![task("t1", "n1", TaskState::Running)]);
    rig.listen("n1");
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    let other = rig.subscribe(selector(&["web"], &[], &[]), false);
    let node = || node_id("n1");

    let mut nameless = published(&id, Vec::new());
    nameless.subscription_id.clear();
    let error = Publication::open(node(), &nameless).unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    nameless.subscription_id = "x".repeat(1_000);
    let error = Publication::open(node(), &nameless).unwrap_err();
    assert_eq!(error.code, Code::NotFound);

    let publication = Publication::open(node(), &published(&id, Vec::new())).unwrap();
    let good = published(&id, vec![line("n1", "a"), line("n1", "b")]);
    assert_eq!(publication.check(&good), Ok(()));
    let code = |message| publication.check(&message).unwrap_err().code;
    assert_eq!(code(published(&other, Vec::new())), Code::InvalidArgument);
    let mixed = published(&id, vec![line("n1", "a"), line("n2", "b")]);
    assert_eq!(code(mixed), Code::PermissionDenied);
    let mut anonymous = line("n1", "a");
    anonymous.context = None;
    assert_eq!(
        code(published(&id, vec![anonymous])),
        Code::PermissionDenied
    );
}

#[test]
fn only_nodes_that_were_asked_publish() {
    let mut rig = Rig::new(vec![task("t1", "n1", TaskState::Running)]);
    rig.listen("n1");
    rig.listen("n2");
    let id = rig.subscribe(selector(&["web"], &[], &[]), false);
    let error = rig.try_publish("n2", &id).unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (Code::NotFound, "unknown subscription ID")
    );
    let accepted = rig.try_publish("n1", &id).unwrap();
    assert!(!accepted.follow);
    rig.end(accepted.publisher, Ok(()));
    let error = rig.try_publish("n1", &id).unwrap_err();
    assert_eq!(error.code, Code::NotFound, "the subscription has ended");
}
