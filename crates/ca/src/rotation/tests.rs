use super::*;
use crate::world::{World, at, node_id, root_ca};

/// A world whose root rotates, and the issuer that nodes have to get.
fn rotating() -> (World, Issuer) {
    let mut world = World::new();
    let next = root_ca(at(0));
    let target = issuer_of(&next.ca_cert).unwrap();
    world.cluster(|cluster| {
        let root_ca = cluster.root_ca.get_or_insert_default();
        root_ca.last_forced_rotation = 7;
        root_ca.root_rotation = Some(v1::RootRotation {
            ca_cert: next.ca_cert,
            ca_key: next.ca_key,
            cross_signed_ca_cert: bytes::Bytes::from_static(b"CROSS\n"),
        });
    });
    (world, target)
}

fn put_issuer(node: &mut Node, issuer: &Issuer) {
    let tls_info = v1::NodeTlsInfo {
        cert_issuer_subject: issuer.subject.clone().into(),
        cert_issuer_public_key: issuer.public_key.clone().into(),
        ..Default::default()
    };
    let description = v1::NodeDescription {
        tls_info: Some(tls_info),
        ..Default::default()
    };
    node.description = Some(Arc::new(description));
}

fn put_state(node: &mut Node, state: State) {
    node.certificate.get_or_insert_default().status = Some(v1::IssuanceStatus {
        state: state as i32,
        err: "the reason".to_owned(),
    });
}

fn why_of(world: &World, own: Option<&NodeId>, node: &str) -> Option<Why> {
    let survey = survey(&world.root, world.now, own)?;
    let found = survey
        .rest
        .into_iter()
        .find(|(it, _)| it.id == node_id(node));
    found.map(|(_, why)| why)
}

#[test]
fn a_node_is_rotated_when_it_reports_subject_and_key_of_the_new_root() {
    let (mut world, target) = rotating();
    let old = issuer_of(
        &world
            .root
            .cluster()
            .unwrap()
            .root_ca
            .clone()
            .unwrap()
            .ca_cert,
    )
    .unwrap();
    world.node("silent", |_| {});
    world.node("old", |node| put_issuer(node, &old));
    world.node("new", |node| put_issuer(node, &target));
    let renamed = Issuer {
        subject: b"another name".to_vec(),
        ..target.clone()
    };
    world.node("renamed", |node| put_issuer(node, &renamed));
    // Every root of ours has the same name, so the key has to tell.
    assert_eq!(old.subject, target.subject);
    let survey = survey(&world.root, world.now, None).unwrap();
    assert_eq!((survey.total, survey.rotated), (4, 1));
    assert!(!survey.is_complete());
    for name in ["silent", "old", "renamed"] {
        assert_eq!(why_of(&world, None, name), Some(Why::Turn), "{name}");
    }
    assert_eq!(why_of(&world, None, "new"), None);
}

#[test]
fn every_state_has_a_reason() {
    let (mut world, _) = rotating();
    let error = "the reason".to_owned();
    let since = world.now;
    for (state, expected) in [
        (State::Unknown, Why::Turn),
        (State::Issued, Why::Turn),
        (State::Renew, Why::Signing),
        (State::Pending, Why::Signing),
        (State::Rotate, Why::Asked { since }),
        (State::Failed, Why::Failed { error }),
    ] {
        world.node("w", |node| put_state(node, state));
        assert_eq!(why_of(&world, None, "w"), Some(expected));
    }
    world.node("w", |node| {
        put_state(node, State::Pending);
        let spec = Arc::make_mut(&mut node.spec);
        spec.membership = Membership::Pending as i32;
    });
    assert_eq!(why_of(&world, None, "w"), Some(Why::NotAccepted));
}

#[test]
fn a_node_with_a_fresh_certificate_has_time_to_report_it() {
    let (mut world, _) = rotating();
    world.node("w", |node| {
        put_state(node, State::Issued);
        let certificate = node.certificate.get_or_insert_default();
        certificate.certificate = bytes::Bytes::from_static(b"LEAF\nCROSS\n");
    });
    let since = world.now;
    assert_eq!(why_of(&world, None, "w"), Some(Why::Reporting { since }));
    world.now = at(REPORT_DELAY.as_secs());
    assert_eq!(why_of(&world, None, "w"), Some(Why::Turn));
}

#[test]
fn nodes_that_are_gone_are_waited_for_one_hour() {
    let (mut world, target) = rotating();
    world.node("alive", |node| put_issuer(node, &target));
    for (name, state) in [
        ("down", NodeState::Down),
        ("never came", NodeState::Unknown),
    ] {
        world.node(name, |node| node.status.state = state);
    }
    let gone = |until| Why::Gone {
        since: at(0),
        until,
    };
    world.now = at(GONE_AFTER.as_secs() - 1);
    for name in ["down", "never came"] {
        let until = Some(at(GONE_AFTER.as_secs()));
        assert_eq!(why_of(&world, None, name), Some(gone(until)));
    }
    assert!(!survey(&world.root, world.now, None).unwrap().is_complete());
    world.now = at(GONE_AFTER.as_secs());
    assert_eq!(
        why_of(&world, None, "down"),
        Some(Why::LeftBehind { since: at(0) })
    );
    let survey = survey(&world.root, world.now, None).unwrap();
    assert!(survey.is_complete());
    assert_eq!((survey.left_behind(), survey.next(world.now).len()), (2, 0));
    let own = node_id("down");
    assert_eq!(why_of(&world, Some(&own), "down"), Some(gone(None)));
}

#[test]
fn nobody_ends_a_rotation_for_which_no_node_is_ready() {
    let (mut world, _) = rotating();
    world.node("down", |node| node.status.state = NodeState::Down);
    world.now = at(2 * GONE_AFTER.as_secs());
    assert!(!survey(&world.root, world.now, None).unwrap().is_complete());
}

#[test]
fn at_most_thirty_nodes_are_asked_at_once_and_failed_ones_last() {
    let (mut world, _) = rotating();
    world.node("000", |node| put_state(node, State::Failed));
    for number in 1..NODES_PER_TICK_MAX {
        world.node(&format!("{number:03}"), |_| {});
    }
    let names = |world: &World| -> Vec<String> {
        let survey = survey(&world.root, world.now, None).unwrap();
        survey
            .next(world.now)
            .iter()
            .map(|node| node.id.to_string())
            .collect()
    };
    assert_eq!(
        names(&world).len(),
        NODES_PER_TICK_MAX - 1,
        "the failed one waits"
    );
    world.now = at(FAILED_RETRY_DELAY.as_secs());
    assert_eq!(names(&world).last().unwrap(), "000");
    world.node("zzz", |_| {});
    assert_eq!(names(&world).len(), NODES_PER_TICK_MAX);
    assert!(!names(&world).contains(&"000".to_owned()));
}

#[test]
fn the_end_replaces_root_digest_and_both_tokens_and_keeps_the_rest() {
    let (mut world, _) = rotating();
    let before = (**world.root.cluster().unwrap()).clone();
    let rotation = before.root_ca.clone().unwrap().root_rotation.unwrap();
    let after = completed(&before, [[1; 16], [2; 16]]).unwrap();
    let root_ca = after.root_ca.clone().unwrap();
    assert_eq!(
        (root_ca.ca_cert, root_ca.ca_key),
        (rotation.ca_cert, rotation.ca_key)
    );
    assert_eq!(root_ca.root_rotation, None);
    assert_eq!(root_ca.last_forced_rotation, 7);
    let tokens = root_ca.join_tokens.unwrap();
    for token in [&tokens.worker, &tokens.manager] {
        let token = JoinToken::parse(token).unwrap();
        assert_eq!(token.root_digest().to_string(), root_ca.ca_cert_hash);
        assert!(!token.requires_fips());
    }
    assert_ne!(tokens.worker, tokens.manager);
    assert_eq!(
        (after.spec.clone(), after.meta),
        (before.spec.clone(), before.meta)
    );
    world.cluster(|cluster| cluster.fips = true);
    let after = completed(world.root.cluster().unwrap(), [[1; 16], [2; 16]]).unwrap();
    let tokens = after.root_ca.clone().unwrap().join_tokens.unwrap();
    assert!(JoinToken::parse(&tokens.worker).unwrap().requires_fips());
    assert_eq!(completed(&after, [[1; 16], [2; 16]]), None);
}
