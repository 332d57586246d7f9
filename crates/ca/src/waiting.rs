//! Nodes that have asked for a certificate and were never in session.
//!
//! Whoever has a join token can make as many of them as it likes, so they are bounded for each
//! token and for each address, and the oldest make room for new ones. A node that comes does not
//! count any more. Each says in its status what it came with; one that does not, because a leader
//! changed meanwhile, counts for every token.
//!
//! Owns which nodes these are, and who has to go. Does not own who is admitted (`tokens`).

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_store::{Root, Write};
use swarm_types::{Node, NodeState, NodeStatus, Timestamp};

use crate::refusal::{Code, Refusal, shown};

/// Nodes of one token, and of one address, that wait at most, unless another number is set.
pub const WAITING_MAX: usize = 1_000;
/// A node that waits for so long may have to make room.
pub const WAITING_KEPT: Duration = Duration::from_secs(600);
/// Nodes that make room in one transaction at most.
const GONE_MAX: usize = 100;
/// How the status of a node begins that waits.
const PREFIX: &str = "waiting for its first session; it came with ";

/// Where a request comes from, and how many nodes may wait.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// The address of the caller; empty if nobody knows.
    pub addr: &'a str,
    /// Nodes of one token, and of one address, that may wait.
    pub waiting_max: usize,
}

impl Origin<'_> {
    /// A caller of whom nothing is known, and the usual bound.
    pub const UNKNOWN: Origin<'static> = Origin {
        addr: "",
        waiting_max: WAITING_MAX,
    };
}

/// The status of a node that came with this token.
pub(crate) fn status(token: &str, origin: Origin<'_>) -> NodeStatus {
    NodeStatus {
        state: NodeState::Unknown,
        message: format!("{PREFIX}{token}").into(),
        addr: origin.addr.to_owned(),
        ..NodeStatus::default()
    }
}

/// The node that was made for this very request, if it still waits.
pub(crate) fn made_for<'a>(view: &'a Root, csr: &[u8]) -> Option<&'a Arc<Node>> {
    view.nodes_that_never_came().find(|node| {
        let certificate = node.certificate.as_ref();
        certificate.is_some_and(|certificate| certificate.csr == csr)
    })
}

/// Makes room for one more node; the nodes that go for it.
///
/// # Errors
/// `ResourceExhausted` when nobody waits for long enough.
pub(crate) fn make_room(
    view: &Root,
    token: &str,
    origin: Origin<'_>,
    now: Timestamp,
) -> Result<Vec<Write>, Refusal> {
    let of_token: Vec<_> = view
        .nodes_that_never_came()
        .filter(|node| is_of(node, token))
        .collect();
    let of_address: Vec<_> = view
        .nodes_that_never_came()
        .filter(|node| !origin.addr.is_empty() && node.status.addr == origin.addr)
        .collect();
    let address = format!("the address {}", shown(origin.addr));
    let mut gone = Vec::new();
    for (mut waiting, whose) in [(of_token, token), (of_address, &*address)] {
        if waiting.len() < origin.waiting_max {
            continue;
        }
        let count = waiting.len();
        waiting.sort_by_key(|node| node.meta.created_at);
        waiting.retain(|node| now.saturating_since(node.meta.created_at) >= WAITING_KEPT);
        waiting.truncate(GONE_MAX);
        if count - waiting.len() >= origin.waiting_max {
            return Err(full(whose, count, origin.waiting_max));
        }
        gone.extend(waiting);
    }
    gone.sort_by(|one, other| one.id.cmp(&other.id));
    gone.dedup_by(|one, other| one.id == other.id);
    Ok(gone
        .into_iter()
        .map(|node| Write::delete(&**node))
        .collect())
}

/// Whether a node came with this token, as far as is known.
fn is_of(node: &Node, token: &str) -> bool {
    let told = node.status.message.strip_prefix(PREFIX);
    told.is_none_or(|told| told == token)
}

/// How the token of a role is named.
pub(crate) fn cluster_token(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Manager => "the manager token",
        v1::NodeRole::Worker => "the worker token",
    }
}

fn full(whose: &str, count: usize, max: usize) -> Refusal {
    let minutes = WAITING_KEPT.as_secs() / 60;
    let text = format!(
        "{count} nodes of {whose} have a certificate and were never in session, at most {max} may; \
         the oldest go {minutes} minutes after they came. If they are not yours, rotate the token \
         with `swarmctl cluster join-token --rotate`; if they are, start them, or raise \
         --waiting-nodes-max of the manager"
    );
    Refusal::new(Code::ResourceExhausted, text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::requests::{Requester, issue};
    use crate::world::World;

    fn request(token: &str, number: usize) -> v1::IssueNodeCertificateRequest {
        v1::IssueNodeCertificateRequest {
            csr: format!("request {number}").into(),
            token: token.to_owned(),
            ..Default::default()
        }
    }

    fn origin(addr: &str) -> Origin<'_> {
        Origin {
            addr,
            waiting_max: 3,
        }
    }

    fn ask(world: &mut World, token: &str, number: usize, addr: &str) -> Result<String, Refusal> {
        let view = world.root.clone();
        let from = (&Requester::Anonymous, origin(addr));
        let (writes, reply) = issue(&view, from, request(token, number), &mut world.ctx())?;
        world.commit(&writes);
        Ok(reply.node_id)
    }

    fn waiting(world: &World) -> usize {
        world.root.nodes_that_never_came().count()
    }

    fn come(world: &mut World, id: &str) {
        world.node(id, |node| {
            node.description = Some(Arc::default());
            node.status.state = NodeState::Ready;
        });
    }

    #[test]
    fn nodes_that_never_come_are_bounded_for_each_token_and_each_address() {
        let mut world = World::new();
        let tokens = world.tokens();
        for number in 0..3 {
            ask(&mut world, &tokens.worker, number, "a").unwrap();
        }
        let refusal = ask(&mut world, &tokens.worker, 3, "b").unwrap_err();
        assert_eq!(refusal.code, Code::ResourceExhausted);
        assert!(
            refusal.message.contains("3 nodes of the worker token"),
            "{refusal}"
        );
        let limited = swarm_api::ext::CreateJoinTokenRequest {
            role: "worker".to_owned(),
            uses: 9,
            ..Default::default()
        };
        let view = world.root.clone();
        let (writes, other) = crate::tokens::create(&view, limited, &mut world.ctx()).unwrap();
        world.commit(&writes);
        let refusal = ask(&mut world, &other.token, 3, "a").unwrap_err();
        assert!(refusal.message.contains("the address a"), "{refusal}");
        ask(&mut world, &other.token, 3, "b").unwrap();
        assert_eq!(waiting(&world), 4);
    }

    #[test]
    fn nodes_that_come_are_not_slowed() {
        let mut world = World::new();
        let token = world.tokens().worker;
        for number in 0..20 {
            let id = ask(&mut world, &token, number, "a").unwrap();
            come(&mut world, &id);
        }
        assert_eq!(waiting(&world), 0);
    }

    #[test]
    fn the_oldest_make_room_after_ten_minutes_and_no_others() {
        let mut world = World::new();
        let token = world.tokens().worker;
        let old = ask(&mut world, &token, 0, "a").unwrap();
        let came = ask(&mut world, &token, 1, "a").unwrap();
        come(&mut world, &came);
        world.now = world.now.saturating_add(WAITING_KEPT);
        let young = ask(&mut world, &token, 2, "a").unwrap();
        ask(&mut world, &token, 3, "a").unwrap();
        assert_eq!(waiting(&world), 3, "nobody goes while there is room");
        ask(&mut world, &token, 4, "a").unwrap();
        assert_eq!(waiting(&world), 3);
        let is_there = |id: &str| world.root.node(&crate::world::node_id(id)).is_some();
        assert!(!is_there(&old) && is_there(&young) && is_there(&came));
    }

    #[test]
    fn a_request_that_was_taken_finds_its_node_again() {
        let mut world = World::new();
        let token = world.tokens().worker;
        let first = ask(&mut world, &token, 7, "a").unwrap();
        for _ in 0..5 {
            assert_eq!(ask(&mut world, &token, 7, "b").unwrap(), first);
        }
        assert_eq!(waiting(&world), 1);
        world.node(&first, |node| {
            let certificate = node.certificate.as_mut().unwrap();
            certificate.status.as_mut().unwrap().state = 4;
        });
        assert_eq!(ask(&mut world, &token, 7, "a").unwrap(), first);
        come(&mut world, &first);
        assert_ne!(
            ask(&mut world, &token, 7, "a").unwrap(),
            first,
            "its place is taken"
        );
        let refusal = ask(&mut world, "", 7, "a").unwrap_err();
        assert_eq!(refusal.code, Code::InvalidArgument);
    }
}
