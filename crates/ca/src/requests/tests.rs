use swarm_api::ext;
use swarm_types::NodeState;

use super::*;
use crate::world::{World, node_id};

fn request(token: &str) -> v1::IssueNodeCertificateRequest {
    v1::IssueNodeCertificateRequest {
        // One that renews asks again for the same thing.
        csr: if token.is_empty() {
            "request".into()
        } else {
            csr().into()
        },
        token: token.to_owned(),
        ..Default::default()
    }
}

/// A request like no other.
fn csr() -> String {
    static LAST: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = LAST.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    format!("request {number}")
}

fn ask(
    world: &mut World,
    requester: &Requester,
    token: &str,
) -> Result<v1::IssueNodeCertificateResponse, Refusal> {
    let view = world.root.clone();
    let (writes, reply) = issue(
        &view,
        (requester, Origin::UNKNOWN),
        request(token),
        &mut world.ctx(),
    )?;
    world.commit(&writes);
    Ok(reply)
}

fn certified(node: &str, role: &str, cluster: &str) -> Requester {
    Requester::Certified {
        node: node_id(node),
        roles: vec![role.to_owned()],
        cluster: cluster.parse().unwrap(),
    }
}

fn stored(world: &World, id: &str) -> v1::Certificate {
    let node = world.root.node(&node_id(id)).unwrap();
    *node.certificate.clone().unwrap()
}

#[track_caller]
fn check_refused(world: &mut World, requester: &Requester, token: &str, code: Code, text: &str) {
    let refusal = ask(world, requester, token).unwrap_err();
    assert_eq!(refusal.code, code, "{refusal}");
    assert!(refusal.message.starts_with(text), "{refusal}");
}

#[test]
fn a_token_makes_a_node_of_its_role_whatever_the_request_says() {
    let mut world = World::new();
    world.cluster(|cluster| cluster.vxlan_udp_port = 4790);
    let tokens = world.tokens();
    let (token, role) = (tokens.worker, v1::NodeRole::Worker);
    let view = world.root.clone();
    let wanted = v1::IssueNodeCertificateRequest {
        role: 1 - role as i32,
        availability: Availability::Drain as i32,
        ..request(&token)
    };
    let (writes, reply) = issue(
        &view,
        (&Requester::Anonymous, Origin::UNKNOWN),
        wanted,
        &mut world.ctx(),
    )
    .unwrap();
    world.commit(&writes);
    assert_eq!(reply.node_membership, Membership::Accepted as i32);
    let node = world.root.node(&node_id(&reply.node_id)).unwrap();
    assert_eq!(node.role, role);
    assert_eq!(node.spec.desired_role, role as i32);
    assert_eq!(node.spec.membership, Membership::Accepted as i32);
    assert_eq!(node.availability(), Availability::Drain);
    assert_eq!(node.vxlan_udp_port, 4790);
    assert_eq!(state(node), State::Pending);
    let certificate = node.certificate.as_ref().unwrap();
    assert_eq!(certificate.cn, reply.node_id);
    assert_eq!(certificate.role, role as i32);
    assert!(certificate.csr.starts_with(b"request"));
}

#[test]
fn callers_without_certificate_need_a_token() {
    let mut world = World::new();
    let necessary = "A valid join token is necessary to join this cluster";
    let code = Code::InvalidArgument;
    let worker = world.tokens().worker;
    let anyone = Requester::Anonymous;
    check_refused(&mut world, &anyone, "", code, necessary);
    for (token, reason) in [
        (
            worker[..worker.len() - 1].to_owned(),
            ": invalid join token",
        ),
        ("garbage".to_owned(), ": invalid join token"),
        (
            format!("{}0", &worker[..worker.len() - 1]),
            ": this one is not known here",
        ),
        (
            crate::token::JoinToken::generate(b"another root", [1; 16]).to_string(),
            ": this one is for another cluster",
        ),
    ] {
        check_refused(
            &mut world,
            &anyone,
            &token,
            code,
            &format!("{necessary}{reason}"),
        );
    }
}

#[test]
fn certificate_requests_are_bounded_on_both_sides() {
    let mut world = World::new();
    let token = world.tokens().worker;
    for (bytes, is_taken) in [
        (0, false),
        (1, true),
        (CSR_BYTES_MAX, true),
        (CSR_BYTES_MAX + 1, false),
    ] {
        let view = world.root.clone();
        let mut request = request(&token);
        request.csr = vec![b'x'; bytes].into();
        let taken = issue(
            &view,
            (&Requester::Anonymous, Origin::UNKNOWN),
            request,
            &mut world.ctx(),
        );
        assert_eq!(taken.is_ok(), is_taken, "{bytes}");
    }
}

#[test]
fn an_unknown_availability_is_refused() {
    let mut world = World::new();
    let token = world.tokens().worker;
    let view = world.root.clone();
    let request = v1::IssueNodeCertificateRequest {
        availability: 7,
        ..request(&token)
    };
    let refusal = issue(
        &view,
        (&Requester::Anonymous, Origin::UNKNOWN),
        request,
        &mut world.ctx(),
    )
    .unwrap_err();
    assert!(
        refusal.message.contains("7 is not an availability"),
        "{refusal}"
    );
}

#[test]
fn a_token_that_admits_managers_makes_no_node_as_long_as_no_second_one_can_run() {
    let mut world = World::new();
    let token = world.tokens().manager;
    let text = "this join token admits managers, and a second manager cannot run yet";
    let code = Code::FailedPrecondition;
    check_refused(&mut world, &Requester::Anonymous, &token, code, text);
    assert_eq!(world.root.count::<Node>(), 0);
}

#[test]
fn only_the_managers_own_node_gets_a_certificate_of_a_manager() {
    let mut world = World::new();
    world.node("w", |node| node.role = v1::NodeRole::Manager);
    for role in [WORKER_ROLE, MANAGER_ROLE] {
        let reply = ask(&mut world, &certified("w", role, "c"), "").unwrap();
        assert_eq!(reply.node_id, "w");
        let certificate = stored(&world, "w");
        assert_eq!(certificate.role, v1::NodeRole::Worker as i32);
        assert_eq!(certificate.status.unwrap().state, State::Renew as i32);
    }
    let local = Requester::Local { node: node_id("w") };
    assert_eq!(ask(&mut world, &local, "").unwrap().node_id, "w");
    assert_eq!(stored(&world, "w").role, v1::NodeRole::Manager as i32);
    let view = world.root.clone();
    let (writes, _) = issue(
        &view,
        (&local, Origin::UNKNOWN),
        request(""),
        &mut world.ctx(),
    )
    .unwrap();
    assert_eq!(
        writes,
        WriteSet::default(),
        "a repeated request writes nothing"
    );
}

#[test]
fn a_renewal_drops_the_certificate_that_it_replaces() {
    let mut world = World::new();
    world.node("w", |node| {
        node.certificate = Some(Box::new(v1::Certificate {
            certificate: bytes::Bytes::from_static(b"old"),
            ..Default::default()
        }));
    });
    ask(&mut world, &certified("w", WORKER_ROLE, "c"), "").unwrap();
    assert!(stored(&world, "w").certificate.is_empty());
}

#[test]
fn a_node_that_is_gone_cannot_renew() {
    let mut world = World::new();
    let text = "node gone not found when attempting to renew certificate";
    let gone = certified("gone", WORKER_ROLE, "c");
    check_refused(&mut world, &gone, "", Code::NotFound, text);
    let local = Requester::Local {
        node: node_id("gone"),
    };
    check_refused(&mut world, &local, "", Code::NotFound, text);
}

#[test]
fn a_certificate_of_another_organization_or_role_falls_through_to_the_token() {
    let mut world = World::new();
    world.node("w", |_| {});
    let worker = world.tokens().worker;
    for stranger in [
        certified("w", WORKER_ROLE, "other"),
        certified("w", "swarm-ca", "c"),
    ] {
        let text = "A valid join token is necessary";
        check_refused(&mut world, &stranger, "", Code::InvalidArgument, text);
        let reply = ask(&mut world, &stranger, &worker).unwrap();
        assert_ne!(reply.node_id, "w");
    }
}

#[test]
fn a_removed_node_is_refused_and_may_join_anew_with_a_token() {
    let mut world = World::new();
    world.node("w", |_| {});
    world.cluster(|cluster| {
        let entry = v1::BlacklistedCertificate::default();
        cluster
            .blacklisted_certificates
            .insert("w".to_owned(), entry);
    });
    let removed = certified("w", WORKER_ROLE, "c");
    let text = "Permission denied: node w was removed from swarm";
    check_refused(&mut world, &removed, "", Code::PermissionDenied, text);
    let worker = world.tokens().worker;
    let reply = ask(&mut world, &removed, &worker).unwrap();
    assert_ne!(reply.node_id, "w");
}

#[test]
fn ids_that_are_taken_or_were_removed_are_drawn_again_a_few_times() {
    let mut world = World::new();
    let token = world.tokens().worker;
    let ids: Vec<String> = {
        let mut ids = crate::world::Counter(0);
        use swarm_types::IdSource;
        (0..NODE_ID_DRAWS_MAX)
            .map(|_| ids.next_id().to_string())
            .collect()
    };
    let (last, taken) = ids.split_last().unwrap();
    for id in &taken[1..] {
        world.node(id, |_| {});
    }
    world.cluster(|cluster| {
        let entry = v1::BlacklistedCertificate::default();
        cluster
            .blacklisted_certificates
            .insert(taken[0].clone(), entry);
    });
    world.ids.0 = 0;
    let reply = ask(&mut world, &Requester::Anonymous, &token).unwrap();
    assert_eq!(reply.node_id, *last);
    world.ids.0 = 0;
    let text = "no free node id in 4 draws";
    check_refused(
        &mut world,
        &Requester::Anonymous,
        &token,
        Code::Aborted,
        text,
    );
}

#[test]
fn before_the_cluster_has_a_root_nothing_is_issued() {
    let mut world = World::new();
    world.cluster(|cluster| cluster.root_ca = None);
    let text = "CA signer is still starting";
    check_refused(&mut world, &Requester::Anonymous, "x", Code::Aborted, text);
    assert_eq!(
        root_certificate(&world.root).unwrap_err().code,
        Code::Aborted
    );
    assert_eq!(unlock_key(&Root::default()).unwrap_err().message, text);
}

/// Nodes that join meanwhile trust the old root, and get a certificate that leads to it.
#[test]
fn the_root_that_is_told_is_the_old_one_until_a_rotation_is_over() {
    let mut world = World::new();
    let old = world.root.cluster().unwrap().root_ca.clone().unwrap();
    let next = crate::world::root_ca(world.now);
    world.cluster(|cluster| {
        cluster.root_ca.get_or_insert_default().root_rotation = Some(v1::RootRotation {
            ca_cert: next.ca_cert.clone(),
            ca_key: next.ca_key,
            cross_signed_ca_cert: bytes::Bytes::from_static(b"CROSS\n"),
        });
    });
    let told = |world: &World| root_certificate(&world.root).unwrap().certificate;
    assert_eq!(told(&world), old.ca_cert);
    let cluster = world.root.cluster().unwrap();
    let after = crate::rotation::completed(cluster, [[1; 16], [2; 16]]).unwrap();
    world.cluster(|cluster| cluster.root_ca.clone_from(&after.root_ca));
    assert_eq!(told(&world), next.ca_cert);
}

#[test]
fn the_status_of_a_certificate_is_final_once_it_is_decided() {
    let mut world = World::new();
    let ask = |world: &World, id: &str| {
        let node_id = id.to_owned();
        certificate_status(&world.root, &v1::NodeCertificateStatusRequest { node_id })
    };
    assert_eq!(ask(&world, "").unwrap_err().code, Code::InvalidArgument);
    assert_eq!(ask(&world, "w").unwrap_err().code, Code::NotFound);
    world.node("w", |_| {});
    for (number, is_final) in [
        (0, false),
        (1, false),
        (2, false),
        (3, true),
        (4, true),
        (5, true),
    ] {
        world.node("w", |node| {
            let status = v1::IssuanceStatus {
                state: number,
                err: "why".to_owned(),
            };
            node.certificate.get_or_insert_default().status = Some(status);
        });
        let answer = ask(&world, "w").unwrap();
        assert_eq!(
            matches!(answer, CertificateAnswer::Final(_)),
            is_final,
            "{number}"
        );
        let (CertificateAnswer::Final(reply) | CertificateAnswer::Pending(reply)) = answer;
        assert_eq!(reply.status.unwrap().state, number);
        assert_eq!(reply.certificate.unwrap(), stored(&world, "w"));
    }
}

#[test]
fn the_unlock_key_is_told_only_while_managers_are_locked() {
    let mut world = World::new();
    world.cluster(|cluster| {
        cluster.unlock_keys = [("other", "a"), (MANAGER_SUBSYSTEM, "b")]
            .map(|(subsystem, key)| v1::EncryptionKey {
                subsystem: subsystem.to_owned(),
                key: key.into(),
                ..Default::default()
            })
            .into();
    });
    assert!(unlock_key(&world.root).unwrap().unlock_key.is_empty());
    world.cluster(|cluster| {
        let spec = std::sync::Arc::make_mut(&mut cluster.spec);
        spec.encryption_config = Some(v1::EncryptionConfig {
            auto_lock_managers: true,
        });
    });
    let reply = unlock_key(&world.root).unwrap();
    assert_eq!(&reply.unlock_key[..], b"b");
    assert_eq!(reply.version.unwrap().index, world.root.version().0);
}

#[test]
fn key_files_are_sealed_under_the_key_of_the_managers_while_there_is_one() {
    let mut world = World::new();
    let open = wanted_seal(&world.root).unwrap();
    assert_eq!(open.kek, None);
    assert_eq!(open.version, world.root.version().0);
    let key = |subsystem: &str, key: &'static str| v1::EncryptionKey {
        subsystem: subsystem.to_owned(),
        key: key.into(),
        ..Default::default()
    };
    world.cluster(|cluster| cluster.unlock_keys = vec![key("other", "a")]);
    assert_eq!(wanted_seal(&world.root).unwrap().kek, None);
    // The setting is off, and does not matter: the entry goes with it.
    world.cluster(|cluster| cluster.unlock_keys.push(key(MANAGER_SUBSYSTEM, "b")));
    let sealed = wanted_seal(&world.root).unwrap();
    assert_eq!(sealed.kek, Some(Kek::new(b"b".to_vec())));
    assert!(sealed.version > open.version);
    assert_eq!(wanted_seal(&Root::default()), None);
}

#[test]
fn an_operator_readmits_a_node_that_cannot_renew() {
    let mut world = World::new();
    world.node("w", |node| node.status.state = NodeState::Down);
    let view = world.root.clone();
    let wanted = ext::CreateJoinTokenRequest {
        node_id: "w".to_owned(),
        ..Default::default()
    };
    let (writes, made) = tokens::create(&view, wanted, &mut world.ctx()).unwrap();
    world.commit(&writes);
    let reply = ask(&mut world, &Requester::Anonymous, &made.token).unwrap();
    assert_eq!(reply.node_id, "w");
    assert_eq!(state(world.root.node(&node_id("w")).unwrap()), State::Renew);
    let text = "A valid join token is necessary to join this cluster: this one is used up";
    let anyone = Requester::Anonymous;
    check_refused(
        &mut world,
        &anyone,
        &made.token,
        Code::InvalidArgument,
        text,
    );
}
