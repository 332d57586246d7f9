use super::*;
use swarm_api::authorization::METHODS;
use swarm_api::v1;

use crate::WORKER_ROLE;
use crate::world::{World, at};

const HEARTBEAT: &str = "/docker.swarmkit.v1.Dispatcher/Heartbeat";
const LIST_NODES: &str = "/docker.swarmkit.v1.Control/ListNodes";
const ISSUE: &str = "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate";

fn method(path: &str) -> &'static Method {
    swarm_api::authorization::method(path).unwrap()
}

/// Reads `node role[,role] cluster`.
fn certificate(text: &str) -> CertIdentity {
    let words: Vec<&str> = text.split(' ').collect();
    CertIdentity {
        node: words[0].parse().unwrap(),
        roles: words[1]
            .split(',')
            .map(|role| format!("swarm-{role}"))
            .collect(),
        cluster: words[2].parse().unwrap(),
        not_before: at(0),
        not_after: at(3600),
    }
}

/// Reads `node role cluster`, where `-` is nothing.
fn hop(text: &str) -> Hop {
    let words: Vec<&str> = text.split(' ').collect();
    let word = |index: usize| words[index].trim_start_matches('-').to_owned();
    let roles = words[1].split(',').filter(|role| *role != "-");
    Hop {
        is_forwarded: true,
        is_redirected: true,
        node: word(0),
        organization: word(2),
        roles: roles.map(|role| format!("swarm-{role}")).collect(),
    }
}

/// A cluster `c` with workers `w1` and `demoted`, managers `m1`, and `gone`, which was removed.
fn world() -> World {
    let mut world = World::new();
    world.node("w1", |_| {});
    world.node("m1", |node| node.role = NodeRole::Manager);
    world.node("demoted", |_| {});
    world.cluster(|cluster| {
        let entry = v1::BlacklistedCertificate::default();
        let gone = "gone".to_owned();
        cluster.blacklisted_certificates.insert(gone, entry);
    });
    world
}

fn ask(
    world: &World,
    leads: bool,
    path: &str,
    direct: Option<&str>,
    hop: &Hop,
) -> Result<Accepted, Denial> {
    let here = Here {
        cluster: &world.root.cluster().expect("the world has a cluster").id,
        leads,
    };
    let direct = direct.map(certificate);
    let arrival = Arrival {
        method: method(path),
        direct: direct.as_ref(),
        hop,
    };
    authorize(&world.root, here, arrival)
}

#[track_caller]
fn check_direct(path: &str, direct: Option<&str>, expected: Result<(), &str>) {
    let result = ask(&world(), true, path, direct, &Hop::default());
    match (result, expected) {
        (Ok(accepted), Ok(())) => assert_eq!(accepted, Accepted::Peer),
        (Err(denial), Err(text)) => {
            assert_eq!(denial.message, format!("Permission denied: {text}"));
        }
        (result, _) => panic!("{direct:?}: {result:?}"),
    }
}

#[test]
fn a_peer_needs_a_certificate_of_a_role_of_the_method_and_of_the_cluster() {
    check_direct(HEARTBEAT, Some("w1 worker c"), Ok(()));
    check_direct(HEARTBEAT, Some("m1 manager c"), Ok(()));
    check_direct(LIST_NODES, Some("m1 manager c"), Ok(()));
    check_direct(LIST_NODES, Some("new manager,worker c"), Ok(()));
    let role = "unauthorized peer role: remote certificate not part of OUs: ";
    let no_manager = format!("{role}[swarm-manager]");
    check_direct(LIST_NODES, Some("w1 worker c"), Err(&no_manager));
    let neither = format!("{role}[swarm-worker swarm-manager]");
    check_direct(HEARTBEAT, Some("w1 cook c"), Err(&neither));
    let other = "remote certificate not part of organization: c";
    check_direct(HEARTBEAT, Some("w1 worker other"), Err(other));
    let none = "unauthorized peer role: no client certificates in request";
    check_direct(HEARTBEAT, None, Err(none));
}

#[test]
fn a_removed_node_is_refused() {
    let removed = "node gone was removed from swarm";
    check_direct(HEARTBEAT, Some("gone worker c"), Err(removed));
    check_direct(LIST_NODES, Some("gone manager c"), Err(removed));
}

#[test]
fn a_demoted_manager_is_a_worker_whatever_its_certificate_says() {
    check_direct(HEARTBEAT, Some("demoted worker c"), Ok(()));
    check_direct(HEARTBEAT, Some("demoted manager c"), Ok(()));
    check_direct(LIST_NODES, Some("demoted manager c"), {
        Err(
            "unauthorized peer role: node demoted was demoted, so its certificate no longer \
             counts as part of OUs: [swarm-manager]; it gets a new one by itself",
        )
    });
}

#[test]
fn methods_without_a_certificate_accept_everybody() {
    for direct in [None, Some("gone worker c"), Some("w1 worker other")] {
        check_direct(ISSUE, direct, Ok(()));
    }
}

#[track_caller]
fn check_hop(path: &str, direct: Option<&str>, by: &str, expected: Result<&str, Reason>) {
    let result = ask(&world(), true, path, direct, &hop(by));
    match expected {
        Ok(node) => {
            let Ok(Accepted::Forwarded(identity)) = &result else {
                panic!("{by}: {result:?}");
            };
            let is = identity
                .as_ref()
                .map_or_else(|| "nobody".to_owned(), |it| it.node.to_string());
            assert_eq!(is, node, "{by}");
        }
        Err(reason) => assert_eq!(result.unwrap_err().reason, reason, "{by}"),
    }
}

#[test]
fn a_manager_forwards_for_others_and_nobody_else_does() {
    let m1 = Some("m1 manager c");
    check_hop(HEARTBEAT, m1, "w1 worker c", Ok("w1"));
    check_hop(ISSUE, m1, "w1 worker c", Ok("w1"));
    check_hop(ISSUE, m1, "- - -", Ok("nobody"));
    for direct in [None, Some("w1 worker c"), Some("demoted manager c")] {
        check_hop(HEARTBEAT, direct, "w1 worker c", Err(Reason::BadForwarding));
        check_hop(ISSUE, direct, "- - -", Err(Reason::BadForwarding));
        check_hop(
            LIST_NODES,
            direct,
            "m1 manager c",
            Err(Reason::BadForwarding),
        );
    }
    let gone = Some("gone manager c");
    check_hop(HEARTBEAT, gone, "w1 worker c", Err(Reason::RemovedNode));
    let other = Some("m1 manager other");
    check_hop(
        HEARTBEAT,
        other,
        "w1 worker c",
        Err(Reason::WrongOrganization),
    );
}

#[test]
fn a_forwarded_caller_is_checked_like_a_direct_one() {
    let m1 = Some("m1 manager c");
    check_hop(HEARTBEAT, m1, "gone worker c", Err(Reason::RemovedNode));
    check_hop(
        HEARTBEAT,
        m1,
        "w1 worker other",
        Err(Reason::WrongOrganization),
    );
    check_hop(LIST_NODES, m1, "w1 worker c", Err(Reason::WrongRole));
    check_hop(LIST_NODES, m1, "demoted manager c", Err(Reason::WrongRole));
    for part in ["- worker c", "w1 - c", "w1 worker -", "- - -"] {
        check_hop(HEARTBEAT, m1, part, Err(Reason::BadForwarding));
    }
    check_hop(ISSUE, m1, "w1 worker -", Err(Reason::BadForwarding));
}

#[test]
fn a_call_that_was_sent_on_ends_at_the_leader() {
    let world = world();
    let redirected = Hop {
        is_redirected: true,
        ..Hop::default()
    };
    for hop in [hop("w1 worker c"), redirected] {
        for path in [HEARTBEAT, ISSUE, LIST_NODES] {
            let refused = ask(&world, false, path, Some("m1 manager c"), &hop).unwrap_err();
            assert_eq!(refused.reason, Reason::NotLeader);
            assert!(refused.message.contains("more than one redirect to leader"));
        }
    }
    ask(
        &world,
        false,
        HEARTBEAT,
        Some("w1 worker c"),
        &Hop::default(),
    )
    .unwrap();
}

#[test]
fn no_method_is_open_to_a_worker_that_forwards_or_to_a_removed_node() {
    let world = world();
    for method in METHODS {
        for by in ["m1 manager c", "w1 worker c", "- - -"] {
            let forged = ask(&world, true, method.path, Some("w1 worker c"), &hop(by));
            assert!(forged.is_err(), "{}", method.path);
        }
        if !method.insecure {
            for role in [MANAGER_ROLE, WORKER_ROLE] {
                let role = role.trim_start_matches("swarm-");
                let gone = format!("gone {role} c");
                let refused = ask(&world, true, method.path, Some(&gone), &Hop::default());
                assert!(refused.is_err(), "{}", method.path);
            }
        }
    }
}
