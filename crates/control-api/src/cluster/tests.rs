use swarm_types::{Service, ServiceSpec, Version};

use super::*;
use crate::tests::world::{CLUSTER, World, annotations, cluster_spec, id, seconds};
use crate::{Class, Code};

fn update(
    world: &mut World,
    change: impl FnOnce(&mut v1::UpdateClusterRequest),
) -> Result<v1::Cluster, Refusal> {
    let version = world.root.cluster().unwrap().meta.version;
    let mut request = v1::UpdateClusterRequest {
        cluster_id: CLUSTER.to_owned(),
        cluster_version: Some(convert::version_to_wire(version)),
        spec: Some(cluster_spec()),
        rotation: None,
    };
    change(&mut request);
    let reply = world.write(|root, ctx| update_cluster(root, ctx, request, &CaMaterial::none()))?;
    Ok(reply.cluster.unwrap())
}

fn update_spec(
    world: &mut World,
    change: impl FnOnce(&mut v1::ClusterSpec),
) -> Result<v1::Cluster, Refusal> {
    update(world, |request| change(request.spec.as_mut().unwrap()))
}

fn with_ca(config: v1::CaConfig) -> v1::ClusterSpec {
    v1::ClusterSpec {
        ca_config: Some(config),
        ..cluster_spec()
    }
}

/// A world whose cluster holds one of every secret.
fn with_secrets() -> World {
    let mut world = World::new();
    let spec = with_ca(v1::CaConfig {
        signing_ca_cert: "SECRET cert".into(),
        signing_ca_key: "SECRET signing key".into(),
        force_rotate: 3,
        ..Default::default()
    });
    let mut cluster = Cluster::new(id(CLUSTER), spec);
    cluster.root_ca = Some(Box::new(v1::RootCa {
        ca_key: "SECRET ca key".into(),
        ca_cert: "public cert".into(),
        join_tokens: Some(v1::JoinTokens {
            worker: "token-w".to_owned(),
            manager: "token-m".to_owned(),
        }),
        root_rotation: Some(v1::RootRotation {
            ca_cert: "next cert".into(),
            ca_key: "SECRET next key".into(),
            cross_signed_ca_cert: "cross".into(),
        }),
        last_forced_rotation: 3,
        ..Default::default()
    }));
    let key = v1::EncryptionKey {
        key: "SECRET bytes".into(),
        ..Default::default()
    };
    cluster.network_bootstrap_keys = vec![key.clone()];
    cluster.unlock_keys = vec![key];
    cluster.encryption_key_lamport_clock = 9;
    cluster.fips = true;
    world.put(cluster);
    world
}

#[test]
fn no_answer_holds_a_secret_of_the_cluster() {
    use prost::Message;
    let mut world = with_secrets();
    let get = v1::GetClusterRequest {
        cluster_id: CLUSTER.to_owned(),
    };
    let got = get_cluster(&world.root, get).unwrap().cluster.unwrap();
    let list = list_clusters(&world.root, v1::ListClustersRequest::default()).unwrap();
    let updated = update_spec(&mut world, |spec| {
        *spec = with_ca(v1::CaConfig {
            force_rotate: 3,
            ..Default::default()
        })
    })
    .unwrap();
    for answer in [&got, &list.clusters[0], &updated] {
        let bytes = answer.encode_to_vec();
        assert!(!bytes.windows(6).any(|window| window == b"SECRET"));
        let root_ca = answer.root_ca.as_ref().unwrap();
        assert_eq!(root_ca.ca_cert, "public cert");
        assert_eq!(root_ca.join_tokens.as_ref().unwrap().worker, "token-w");
        assert_eq!(answer.encryption_key_lamport_clock, 0);
        assert!(!answer.fips);
    }
    let stored = world.root.cluster().unwrap();
    assert_eq!(stored.unlock_keys.len(), 1, "only the answer is redacted");
    assert_eq!(stored.root_ca.as_ref().unwrap().ca_key, "SECRET ca key");
}

#[test]
fn what_is_shown_can_be_sent_back() {
    let mut world = with_secrets();
    let get = v1::GetClusterRequest {
        cluster_id: CLUSTER.to_owned(),
    };
    let shown = get_cluster(&world.root, get).unwrap().cluster.unwrap();
    update(&mut world, |request| request.spec = shown.spec).unwrap();
}

#[test]
fn an_unset_address_pool_and_port_are_shown_as_what_is_used() {
    let mut world = World::new();
    let shown = |world: &World| {
        let all = list_clusters(&world.root, v1::ListClustersRequest::default()).unwrap();
        let cluster = all.clusters.into_iter().next().unwrap();
        (
            cluster.default_address_pool,
            cluster.subnet_size,
            cluster.vxlanudp_port,
        )
    };
    assert_eq!(shown(&world), (vec!["10.0.0.0/8".to_owned()], 24, 4789));
    let mut cluster = Cluster::new(id(CLUSTER), cluster_spec());
    cluster.default_address_pool = vec!["192.168.0.0/16".to_owned()];
    cluster.subnet_size = 28;
    cluster.vxlan_udp_port = 4800;
    world.put(cluster);
    assert_eq!(shown(&world), (vec!["192.168.0.0/16".to_owned()], 28, 4800));
}

#[test]
fn an_update_replaces_the_spec_and_stamps_the_answer() {
    let mut world = World::new();
    let before = world.root.cluster().unwrap().meta;
    let answer = update_spec(&mut world, |spec| {
        spec.orchestration = Some(v1::OrchestrationConfig {
            task_history_retention_limit: 2,
        });
        spec.task_defaults = Some(v1::TaskDefaults::default());
    })
    .unwrap();
    let stored = world.root.cluster().unwrap();
    assert_eq!(answer.spec.as_ref(), Some(&*stored.spec));
    let orchestration = stored.spec.orchestration.as_ref().unwrap();
    assert_eq!(orchestration.task_history_retention_limit, 2);
    assert!(stored.meta.version > before.version);
    let meta = answer.meta.unwrap();
    assert_eq!(meta.version.unwrap().index, stored.meta.version.0);
    assert_eq!(meta.updated_at, Some(world.now().to_wire()));
    assert_eq!(meta.created_at, Some(before.created_at.to_wire()));
}

#[test]
fn a_stale_version_is_refused_with_the_text_that_clients_match() {
    let mut world = World::new();
    let refusal = update(&mut world, |request| {
        request.cluster_version = Some(v1::Version { index: 0 });
    })
    .unwrap_err();
    assert_eq!(refusal.message(), "update out of sequence");
    assert_eq!(
        (refusal.code(), refusal.class()),
        (Code::Unknown, Class::Conflict)
    );
}

#[test]
fn certificate_expiry_and_heartbeat_have_lower_bounds() {
    let expiry = |duration| {
        update_spec(&mut World::new(), |spec| {
            spec.ca_config = Some(v1::CaConfig {
                node_cert_expiry: Some(duration),
                ..Default::default()
            });
        })
    };
    assert!(expiry(seconds(3600)).is_ok());
    let just_below = prost_types::Duration {
        seconds: 3599,
        nanos: 999_999_999,
    };
    assert_eq!(
        expiry(just_below).unwrap_err().rule(),
        CERT_EXPIRY_TOO_SHORT
    );
    assert_eq!(
        expiry(seconds(i64::MAX)).unwrap_err().message(),
        "invalid argument"
    );
    let heartbeat = |duration| {
        update_spec(&mut World::new(), |spec| {
            spec.dispatcher = Some(v1::DispatcherConfig {
                heartbeat_period: Some(duration),
            });
        })
    };
    assert!(heartbeat(seconds(0)).is_ok());
    assert_eq!(
        heartbeat(seconds(-1)).unwrap_err().rule(),
        HEARTBEAT_NEGATIVE
    );
    assert_eq!(
        heartbeat(seconds(i64::MIN)).unwrap_err().message(),
        "invalid argument"
    );
}

#[test]
fn acceptance_secrets_must_be_hashed_with_bcrypt_in_any_case() {
    let policy = |alg: &str| {
        update_spec(&mut World::new(), |spec| {
            let secret = v1::acceptance_policy::role_admission_policy::Secret {
                alg: alg.to_owned(),
                ..Default::default()
            };
            spec.acceptance_policy = Some(v1::AcceptancePolicy {
                policies: vec![v1::acceptance_policy::RoleAdmissionPolicy {
                    secret: Some(secret),
                    ..Default::default()
                }],
            });
        })
    };
    assert!(policy("bcrypt").is_ok());
    assert!(policy("BCrypt").is_ok());
    assert_eq!(policy("md5").unwrap_err().rule(), HASHING_UNSUPPORTED);
}

fn managers_key(world: &World) -> Option<Vec<u8>> {
    let keys = &world.root.cluster()?.unlock_keys;
    let mut keys = keys.iter().filter(|key| key.subsystem == MANAGER_SUBSYSTEM);
    let key = keys.next().map(|key| key.key.to_vec());
    assert!(keys.next().is_none(), "one key at most");
    key
}

/// Updates with auto-lock and rotation as given.
fn lock(world: &mut World, autolock: bool, is_rotated: bool) -> Result<v1::Cluster, Refusal> {
    update(world, |request| {
        request.spec.as_mut().unwrap().encryption_config = Some(v1::EncryptionConfig {
            auto_lock_managers: autolock,
        });
        request.rotation = Some(v1::KeyRotation {
            manager_unlock_key: is_rotated,
            ..Default::default()
        });
    })
}

#[test]
fn an_unlock_key_comes_and_goes_with_auto_lock_and_changes_when_asked_for() {
    let mut world = World::new();
    let mut cluster = (**world.root.cluster().unwrap()).clone();
    let other = v1::EncryptionKey {
        subsystem: "other".to_owned(),
        key: "theirs".into(),
        ..Default::default()
    };
    cluster.unlock_keys = vec![other.clone()];
    world.put(cluster);

    lock(&mut world, false, false).unwrap();
    assert_eq!(managers_key(&world), None);
    let answer = lock(&mut world, true, false).unwrap();
    assert!(answer.unlock_keys.is_empty(), "answers hold no key");
    let first = managers_key(&world).unwrap();
    assert_eq!(first.len(), 32);
    lock(&mut world, true, false).unwrap();
    assert_eq!(managers_key(&world), Some(first.clone()));
    lock(&mut world, true, true).unwrap();
    let second = managers_key(&world).unwrap();
    assert_ne!(second, first);
    let refused = lock(&mut world, false, true).unwrap_err();
    assert_eq!(refused.rule(), NOT_LOCKED);
    assert_eq!(managers_key(&world), Some(second));
    lock(&mut world, false, false).unwrap();
    assert_eq!(managers_key(&world), None);
    // Switching on and replacing in one request makes one key.
    lock(&mut world, true, true).unwrap();
    assert!(managers_key(&world).is_some());
    let keys = &world.root.cluster().unwrap().unlock_keys;
    assert_eq!((keys.len(), &keys[0]), (2, &other), "others are left alone");
}

/// A world whose cluster has a root with its key.
fn with_root() -> World {
    let mut world = World::new();
    let (cert, key) = swarm_ca::root::new_root(world.now());
    let mut cluster = Cluster::new(id(CLUSTER), cluster_spec());
    cluster.root_ca = Some(Box::new(v1::RootCa {
        ca_cert_hash: swarm_ca::root::RootDigest::of(cert.as_bytes()).to_string(),
        ca_cert: cert.into(),
        ca_key: key.as_bytes().to_vec().into(),
        join_tokens: Some(v1::JoinTokens {
            worker: "token-w".to_owned(),
            manager: "token-m".to_owned(),
        }),
        ..Default::default()
    }));
    world.put(cluster);
    world
}

fn root_ca(world: &World) -> v1::RootCa {
    *world.root.cluster().unwrap().root_ca.clone().unwrap()
}

#[test]
fn only_the_join_tokens_that_are_asked_for_are_rotated() {
    for (worker_join_token, manager_join_token) in [(true, false), (false, true), (true, true)] {
        let mut world = with_root();
        let answer = update(&mut world, |request| {
            request.rotation = Some(v1::KeyRotation {
                worker_join_token,
                manager_join_token,
                ..Default::default()
            });
        });
        let shown = answer.unwrap().root_ca.unwrap().join_tokens.unwrap();
        let stored = root_ca(&world);
        let tokens = stored.join_tokens.unwrap();
        assert_eq!(shown, tokens);
        assert_ne!(tokens.worker, tokens.manager);
        for (is_rotated, token, old) in [
            (worker_join_token, tokens.worker, "token-w"),
            (manager_join_token, tokens.manager, "token-m"),
        ] {
            assert_eq!(token != old, is_rotated);
            if is_rotated {
                let token = swarm_ca::token::JoinToken::parse(&token).unwrap();
                assert_eq!(token.root_digest().to_string(), stored.ca_cert_hash);
            }
        }
    }
}

/// Asks for a change of the root, with material for the decision unless `made` is another.
fn change_root(
    world: &mut World,
    config: v1::CaConfig,
    made: impl FnOnce(Decision) -> CaMaterial,
) -> Result<v1::Cluster, Refusal> {
    let version = world.root.cluster().unwrap().meta.version;
    let request = v1::UpdateClusterRequest {
        cluster_id: CLUSTER.to_owned(),
        cluster_version: Some(convert::version_to_wire(version)),
        spec: Some(with_ca(config)),
        rotation: None,
    };
    let material = made(decide_root(&world.root, &request, world.now())?);
    let reply = world.write(|root, ctx| update_cluster(root, ctx, request, &material))?;
    Ok(reply.cluster.unwrap())
}

fn new_root() -> NewRoot {
    NewRoot {
        cert_pem: "NEW".into(),
        key_pem: "SECRET".into(),
        cross_signed_pem: "CROSS".into(),
    }
}

#[test]
fn a_forced_rotation_begins_once() {
    let mut world = with_root();
    let forced = v1::CaConfig {
        force_rotate: 1,
        ..Default::default()
    };
    let made = |decision| CaMaterial {
        decision,
        new_root: Some(new_root()),
    };
    let answer = change_root(&mut world, forced.clone(), made).unwrap();
    let shown = answer.root_ca.unwrap().root_rotation.unwrap();
    assert_eq!((&shown.ca_cert[..], shown.ca_key.len()), (&b"NEW"[..], 0));
    let rotation = root_ca(&world).root_rotation.unwrap();
    assert_eq!(
        (&rotation.ca_key[..], &rotation.cross_signed_ca_cert[..]),
        (&b"SECRET"[..], &b"CROSS"[..])
    );
    assert_eq!(root_ca(&world).last_forced_rotation, 1);
    let kept = |decision: Decision| {
        assert_eq!(decision.plan, RootPlan::Keep);
        CaMaterial::none()
    };
    change_root(&mut world, forced, kept).unwrap();
    assert_eq!(root_ca(&world).root_rotation, Some(rotation));
}

#[test]
fn a_pair_that_is_brought_is_not_kept_in_the_spec() {
    let mut world = with_root();
    let (cert, key) = swarm_ca::root::new_root(world.now());
    let config = v1::CaConfig {
        signing_ca_cert: cert.into(),
        signing_ca_key: key.as_bytes().to_vec().into(),
        ..Default::default()
    };
    let made = |decision| CaMaterial {
        decision,
        new_root: Some(new_root()),
    };
    change_root(&mut world, config, made).unwrap();
    let spec = world
        .root
        .cluster()
        .unwrap()
        .spec
        .ca_config
        .clone()
        .unwrap();
    assert!(spec.signing_ca_cert.is_empty() && spec.signing_ca_key.is_empty());
    assert!(root_ca(&world).root_rotation.is_some());
}

#[test]
fn material_for_another_cluster_is_out_of_sequence() {
    let mut world = with_root();
    let forced = v1::CaConfig {
        force_rotate: 1,
        ..Default::default()
    };
    let refusal = change_root(&mut world, forced, |_| CaMaterial::none()).unwrap_err();
    assert_eq!(refusal.message(), "update out of sequence");
    assert_eq!(root_ca(&world).root_rotation, None);
}

#[test]
fn a_cluster_without_a_root_takes_no_wish_about_one() {
    let forced = v1::CaConfig {
        force_rotate: 1,
        ..Default::default()
    };
    let refusal = change_root(&mut World::new(), forced, |_| CaMaterial::none()).unwrap_err();
    assert_eq!(refusal.rule(), ROOT_MISSING);
}

#[test]
fn removed_certificates_are_dropped_more_than_seven_days_after_their_expiry() {
    let now = Timestamp::from_millis(1_000_000_000);
    let listed = |expiry: Option<Timestamp>| v1::BlacklistedCertificate {
        expiry: expiry.map(Timestamp::to_wire),
    };
    let week = Duration::from_secs(7 * 24 * 60 * 60);
    let edge = now.saturating_sub(week);
    let mut certificates = BTreeMap::from([
        ("at the edge".to_owned(), listed(Some(edge))),
        (
            "beyond".to_owned(),
            listed(Some(Timestamp::from_nanos(edge.as_nanos() - 1))),
        ),
        ("for ever".to_owned(), listed(None)),
    ]);
    drop_expired(&mut certificates, now);
    let left: Vec<_> = certificates.keys().map(String::as_str).collect();
    assert_eq!(left, ["at the edge", "for ever"]);
}

#[test]
fn filters_select_the_cluster_or_nothing() {
    let world = World::new();
    let count = |change: &dyn Fn(&mut v1::list_clusters_request::Filters)| {
        let mut filters = v1::list_clusters_request::Filters::default();
        change(&mut filters);
        let request = v1::ListClustersRequest {
            filters: Some(filters),
        };
        list_clusters(&world.root, request).unwrap().clusters.len()
    };
    assert_eq!(count(&|_| {}), 1);
    assert_eq!(
        count(&|filters| filters.names = vec!["default".to_owned()]),
        1
    );
    assert_eq!(
        count(&|filters| filters.names = vec!["DEFAULT".to_owned()]),
        0
    );
    assert_eq!(
        count(&|filters| filters.name_prefixes = vec!["def".to_owned()]),
        1
    );
    assert_eq!(
        count(&|filters| filters.id_prefixes = vec!["clu".to_owned()]),
        1
    );
    assert_eq!(
        count(&|filters| filters.id_prefixes = vec!["x".to_owned()]),
        0
    );
    assert_eq!(
        count(&|filters| {
            filters.labels.insert("a".to_owned(), String::new());
        }),
        0
    );
}

#[test]
fn other_objects_are_not_touched_by_an_update() {
    let mut world = World::new();
    let spec = v1::ServiceSpec {
        annotations: Some(annotations("s")),
        ..Default::default()
    };
    world.put(Service::new(id("s"), ServiceSpec::new(spec)));
    let version = world.service("s").meta.version;
    update_spec(&mut world, |_| {}).unwrap();
    assert_eq!(world.service("s").meta.version, version);
    assert_ne!(version, Version(0));
}
