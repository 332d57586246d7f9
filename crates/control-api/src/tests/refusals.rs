//! All texts of refusals, as users see them, against the golden list in `tests/refusals.txt`.
//!
//! Each line there is one request of [`cases`]: the rule, the code, and the whole text. A rule that
//! no request reaches fails the test, so a text cannot change or appear unseen.

use std::collections::BTreeSet;

use swarm_api::v1;
use swarm_store::{FindError, StoreError};
use swarm_types::{Kind, Network, TaskState};
use v1::port_config::PublishMode::{Host, Ingress};
use v1::service_spec::Mode;
use v1::task_spec::Runtime;

use super::world::*;
use crate::refusal::{self, OUT_OF_SEQUENCE, Rule};
use crate::{Members, Refusal, cluster, node, payload, request, rpc, secret, service, validate};

mod payload_cases;

const GOLDEN: &str = include_str!("../../tests/refusals.txt");

#[test]
fn every_rule_is_reached_and_every_text_is_in_the_golden_list() {
    let refusals = cases();
    let reached: BTreeSet<&str> = refusals.iter().map(|case| case.rule().name()).collect();
    let declared: BTreeSet<&str> = rules().into_iter().map(Rule::name).collect();
    assert_eq!(
        reached, declared,
        "the left misses a case for a rule of the right"
    );
    let list: String = refusals.iter().map(|case| line(case) + "\n").collect();
    assert!(list == GOLDEN, "the golden list should be:\n{list}");
}

#[test]
fn rule_names_are_unique() {
    let names: Vec<&str> = rules().into_iter().map(Rule::name).collect();
    assert_eq!(names.len(), names.iter().collect::<BTreeSet<_>>().len());
}

fn line(refusal: &Refusal) -> String {
    format!(
        "{} {}: {}",
        refusal.rule().name(),
        refusal.code().name(),
        refusal.message()
    )
}

fn rules() -> Vec<Rule> {
    let mut rules = vec![OUT_OF_SEQUENCE];
    rules.extend(refusal::RULES);
    rules.extend(request::RULES);
    rules.extend(rpc::RULES);
    rules.extend(cluster::RULES);
    rules.extend(node::RULES);
    rules.extend(payload::RULES);
    rules.extend(secret::RULES);
    rules.extend(service::all_rules());
    rules.extend(validate::all_rules());
    rules
}

/// One refusal for each text, in the order of the golden list.
fn cases() -> Vec<Refusal> {
    let mut cases = store_cases();
    cases.extend(request_cases());
    cases.extend(cluster_cases());
    cases.extend(node_cases());
    cases.extend(service_cases());
    cases.extend(spec_cases());
    cases.extend(task_cases());
    cases.extend(container_cases());
    cases.extend(reference_cases());
    cases.extend(later_cases());
    cases.extend(payload_cases::cases());
    cases
}

fn created(spec: v1::ServiceSpec) -> Refusal {
    World::new().create(spec).unwrap_err()
}

/// What the store refuses when a check of this crate missed it.
fn store_cases() -> Vec<Refusal> {
    let (kind, at) = (Kind::Service, id::<swarm_types::Id>("s"));
    let regression = swarm_types::StateRegression {
        from: TaskState::Running,
        to: TaskState::New,
    };
    let name = "web".to_owned();
    vec![
        StoreError::Exists {
            kind,
            id: at.clone(),
        }
        .into(),
        StoreError::NotExists {
            kind,
            id: at.clone(),
        }
        .into(),
        StoreError::NameConflict {
            kind: Kind::Secret,
            name: name.clone(),
        }
        .into(),
        StoreError::NameConflict { kind, name }.into(),
        StoreError::OutOfSequence { kind, id: at }.into(),
        StoreError::Regression(regression).into(),
        FindError {
            kind,
            selector: "slot",
        }
        .into(),
        refusal::GONE_AFTER_WRITE.refuse(&[&"s"]),
    ]
}

fn request_cases() -> Vec<Refusal> {
    let get = |service_id: &str| {
        let request = v1::GetServiceRequest {
            service_id: service_id.to_owned(),
            insert_defaults: false,
        };
        crate::get_service(&World::new().root, request).unwrap_err()
    };
    let large = with(web("web"), |spec| {
        spec.annotations.as_mut().unwrap().labels =
            [("k".to_owned(), "v".repeat(crate::SPEC_BYTES_MAX))].into();
    });
    vec![
        get(""),
        get(&"x".repeat(257)),
        get("s"),
        created(large),
        rpc::unimplemented("CreateNetwork"),
    ]
}

fn cluster_cases() -> Vec<Refusal> {
    let update = |change: &dyn Fn(&mut v1::UpdateClusterRequest)| {
        let mut request = v1::UpdateClusterRequest {
            cluster_id: CLUSTER.to_owned(),
            cluster_version: Some(v1::Version::default()),
            spec: Some(cluster_spec()),
            rotation: None,
        };
        change(&mut request);
        World::new()
            .write(|root, ctx| {
                let none = crate::CaMaterial::none();
                crate::update_cluster(root, ctx, request, &none)
            })
            .unwrap_err()
    };
    let spec = |change: &dyn Fn(&mut v1::ClusterSpec)| {
        update(&|request| change(request.spec.as_mut().unwrap()))
    };
    vec![
        spec(&|spec| {
            spec.ca_config = Some(v1::CaConfig {
                node_cert_expiry: Some(seconds(1)),
                ..Default::default()
            });
        }),
        spec(&|spec| {
            let secret = v1::acceptance_policy::role_admission_policy::Secret {
                alg: "md5".to_owned(),
                ..Default::default()
            };
            spec.acceptance_policy = Some(v1::AcceptancePolicy {
                policies: vec![v1::acceptance_policy::RoleAdmissionPolicy {
                    secret: Some(secret),
                    ..Default::default()
                }],
            });
        }),
        spec(&|spec| {
            spec.dispatcher = Some(v1::DispatcherConfig {
                heartbeat_period: Some(seconds(-1)),
            });
        }),
        spec(&|spec| spec.annotations = Some(annotations("other"))),
        spec(&|spec| {
            spec.ca_config = Some(v1::CaConfig {
                signing_ca_key: "key".into(),
                ..Default::default()
            });
        }),
        broken_root(),
        update(&|request| {
            request.rotation = Some(v1::KeyRotation {
                worker_join_token: true,
                ..Default::default()
            });
        }),
        update(&|request| {
            request.rotation = Some(v1::KeyRotation {
                manager_unlock_key: true,
                ..Default::default()
            });
        }),
    ]
}

/// A stored root that cannot be read, when another is wanted in its place.
fn broken_root() -> Refusal {
    let mut world = World::new();
    let mut cluster = (**world.root.cluster().unwrap()).clone();
    cluster.root_ca = Some(Box::new(v1::RootCa {
        ca_cert: "garbage".into(),
        ca_key: "key".into(),
        ..Default::default()
    }));
    world.put(cluster);
    let (cert, key) = swarm_ca::root::new_root(world.now());
    let request = v1::UpdateClusterRequest {
        cluster_id: CLUSTER.to_owned(),
        cluster_version: Some(v1::Version::default()),
        spec: Some(v1::ClusterSpec {
            ca_config: Some(v1::CaConfig {
                signing_ca_cert: cert.into(),
                signing_ca_key: key.as_bytes().to_vec().into(),
                ..Default::default()
            }),
            ..cluster_spec()
        }),
        rotation: None,
    };
    crate::decide_root(&world.root, &request, world.now()).unwrap_err()
}

fn node_cases() -> Vec<Refusal> {
    let manager = || v1::NodeSpec {
        desired_role: v1::NodeRole::Manager as i32,
        ..Default::default()
    };
    let mut world = World::new();
    world.node("w");
    let mut last = world.node("m");
    last.role = v1::NodeRole::Manager;
    last.spec = std::sync::Arc::new(manager());
    world.put(last);
    let mut heavy = v1::NodeSpec::default();
    let labels = &mut heavy.annotations.get_or_insert_default().labels;
    let label = swarm_types::weights::MANAGER_WEIGHT_LABEL;
    labels.insert(label.to_owned(), "257".to_owned());
    let members = Members::from([(
        id("m"),
        crate::Member {
            raft_id: 1,
            addr: String::new(),
            leader: true,
            reachability: v1::raft_member_status::Reachability::Reachable,
        },
    )]);
    let update = |world: &mut World, node_id: &str, spec| {
        let request = v1::UpdateNodeRequest {
            node_id: node_id.to_owned(),
            node_version: Some(v1::Version::default()),
            spec: Some(spec),
        };
        world
            .write(|root, _| crate::update_node(root, &members, request))
            .unwrap_err()
    };
    let remove = |world: &mut World, node_id: &str, members: Option<&Members>, force| {
        let request = v1::RemoveNodeRequest {
            node_id: node_id.to_owned(),
            force,
        };
        world
            .write(|root, ctx| crate::remove_node(root, members, ctx, request))
            .unwrap_err()
    };
    let mut without_cluster = World::new();
    without_cluster.root = swarm_store::Root::default();
    without_cluster.node("w");
    vec![
        update(&mut world, "w", manager()),
        update(&mut world, "m", v1::NodeSpec::default()),
        two_managers(&members),
        update(&mut world, "w", heavy),
        remove(&mut world, "m", None, true),
        remove(&mut world, "m", Some(&members), true),
        remove(&mut world, "w", None, false),
        remove(&mut without_cluster, "w", None, true),
    ]
}

/// The only member of the group is demoted, while another node is a manager without being one.
fn two_managers(members: &Members) -> Refusal {
    let mut world = World::new();
    for name in ["m", "p"] {
        let mut node = world.node(name);
        node.role = v1::NodeRole::Manager;
        let spec = std::sync::Arc::make_mut(&mut node.spec);
        spec.desired_role = v1::NodeRole::Manager as i32;
        world.put(node);
    }
    let request = v1::UpdateNodeRequest {
        node_id: "m".to_owned(),
        node_version: Some(v1::Version::default()),
        spec: Some(v1::NodeSpec::default()),
    };
    world
        .write(|root, _| crate::update_node(root, members, request))
        .unwrap_err()
}

fn service_cases() -> Vec<Refusal> {
    let mut world = World::new();
    let stored = world
        .create(with_ports("a", vec![port(Ingress, 80)]))
        .unwrap();
    world.create(with_ports("b", vec![port(Host, 81)])).unwrap();
    let own = with_ports("a", vec![port(Ingress, 80)]);
    let global = with(own.clone(), |spec| {
        spec.mode = Some(Mode::Global(v1::GlobalService {}))
    });
    let changed_mode = world.update(&stored.id, global).unwrap_err();
    let renamed = with(own.clone(), |spec| {
        spec.annotations = Some(annotations("c"))
    });
    let renamed = world.update(&stored.id, renamed).unwrap_err();
    let mut rollback = world.update_request(&stored.id, own.clone());
    rollback.rollback = 1;
    let rollback = world
        .write(|root, _| crate::update_service(root, crate::check_changed_service(rollback)?))
        .unwrap_err();
    world.task("t", &stored.id, "n", TaskState::Running);
    let other = with(own, |spec| spec.task.as_mut().unwrap().force_update = 1);
    let rolling = world.update(&stored.id, other).unwrap_err();
    let taken = world
        .create(with_ports("c", vec![port(Host, 80)]))
        .unwrap_err();
    let host_taken = world
        .create(with_ports("c", vec![port(Ingress, 81)]))
        .unwrap_err();
    let attached = world.create(with_task(|task| {
        task.networks = vec![v1::NetworkAttachmentConfig {
            target: INGRESS.to_owned(),
            ..Default::default()
        }];
    }));
    let on = |target: &str| {
        with(web("other"), |spec| {
            spec.networks = vec![v1::NetworkAttachmentConfig {
                target: target.to_owned(),
                ..Default::default()
            }];
        })
    };
    let unknown = world.create(on("nowhere")).unwrap_err();
    world.put(Network::new(id("mine"), v1::NetworkSpec::default()));
    let later = world.create(on("mine")).unwrap_err();
    let native = world
        .create(with_container(|it| it.tty = true))
        .unwrap_err();
    let many = with_container(|it| {
        it.tty = true;
        it.stop_signal = "SIGNOPE".to_owned();
    });
    let native_many = world.create(many).unwrap_err();
    world.put(Network::new(id("bridge-id"), predefined("bridge")));
    let native_network = world.create(on("bridge-id")).unwrap_err();
    world.put(Network::new(id(INGRESS), v1::NetworkSpec::default()));
    let no_ingress = world
        .create(with_ports("c", vec![port(Ingress, 82)]))
        .unwrap_err();
    vec![
        changed_mode,
        renamed,
        rollback,
        rolling,
        taken,
        host_taken,
        attached.unwrap_err(),
        unknown,
        later,
        no_ingress,
        native,
        native_many,
        native_network,
    ]
}

fn predefined(name: &str) -> v1::NetworkSpec {
    let mut annotations = annotations(name);
    let label = swarm_types::networks::PREDEFINED_LABEL.to_owned();
    annotations.labels.insert(label, "true".to_owned());
    v1::NetworkSpec {
        annotations: Some(annotations),
        ..Default::default()
    }
}

fn spec_cases() -> Vec<Refusal> {
    let change = |change: &dyn Fn(&mut v1::ServiceSpec)| {
        let mut spec = web("web");
        change(&mut spec);
        created(spec)
    };
    let job = |max_concurrent, total_completions| {
        Some(Mode::ReplicatedJob(v1::ReplicatedJob {
            max_concurrent,
            total_completions,
        }))
    };
    let update = |config: v1::UpdateConfig| change(&|spec| spec.update = Some(config));
    let ports = |mode, ports: Vec<v1::PortConfig>| {
        change(&|spec| {
            spec.endpoint = Some(v1::EndpointSpec {
                mode,
                ports: ports.clone(),
            });
        })
    };
    let no_target = v1::PortConfig::default();
    vec![
        created(web("")),
        created(web("a.b")),
        created(web(&"a".repeat(64))),
        change(&|spec| spec.mode = None),
        change(&|spec| spec.mode = Some(replicated(u64::MAX))),
        change(&|spec| spec.mode = Some(replicated(2_000_000))),
        change(&|spec| spec.mode = job(u64::MAX, 1)),
        change(&|spec| spec.mode = job(1, u64::MAX)),
        change(&|spec| {
            spec.mode = job(1, 1);
            spec.update = Some(v1::UpdateConfig::default());
        }),
        update(v1::UpdateConfig {
            delay: Some(seconds(-1)),
            ..Default::default()
        }),
        update(v1::UpdateConfig {
            monitor: Some(seconds(-1)),
            ..Default::default()
        }),
        update(v1::UpdateConfig {
            max_failure_ratio: 1.5,
            ..Default::default()
        }),
        update(v1::UpdateConfig {
            order: 7,
            ..Default::default()
        }),
        ports(0, (1..=18_800).map(|number| port(Host, number)).collect()),
        ports(1, vec![port(Ingress, 80)]),
        ports(0, vec![port(Ingress, 80), port(Host, 80)]),
        ports(0, vec![no_target]),
        ports(0, vec![port(Host, 70_000)]),
    ]
}

fn task_cases() -> Vec<Refusal> {
    let change = |change: &dyn Fn(&mut v1::TaskSpec)| created(with_task(|task| change(task)));
    let limits = |limits: v1::Resources| {
        change(&|task| {
            task.resources = Some(v1::ResourceRequirements {
                limits: Some(limits.clone()),
                ..Default::default()
            });
        })
    };
    let generic_resource = |resource: v1::GenericResource| {
        limits(v1::Resources {
            generic: vec![resource],
            ..Default::default()
        })
    };
    let restart = |policy: v1::RestartPolicy| change(&|task| task.restart = Some(policy));
    let placement =
        |placement: v1::Placement| change(&|task| task.placement = Some(placement.clone()));
    let constraint = |expression: &str| {
        placement(v1::Placement {
            constraints: vec![expression.to_owned()],
            ..Default::default()
        })
    };
    let runtime = |kind: &str, payload: Option<(&str, &str)>| {
        let payload = payload.map(|(type_url, value)| prost_types::Any {
            type_url: type_url.to_owned(),
            value: value.as_bytes().to_vec(),
        });
        let generic = v1::GenericRuntimeSpec {
            kind: kind.to_owned(),
            payload,
        };
        change(&|task| task.runtime = Some(Runtime::Generic(generic.clone())))
    };
    let attachment = v1::NetworkAttachmentSpec::default();
    vec![
        limits(v1::Resources {
            nano_cpus: 50_000,
            ..Default::default()
        }),
        limits(v1::Resources {
            memory_bytes: 4_194_303,
            ..Default::default()
        }),
        generic_resource(swarm_types::resources::named("gpu", "a")),
        generic_resource(swarm_types::resources::discrete("gpu", -1)),
        generic_resource(v1::GenericResource::default()),
        restart(v1::RestartPolicy {
            delay: Some(seconds(-1)),
            ..Default::default()
        }),
        restart(v1::RestartPolicy {
            window: Some(seconds(-1)),
            ..Default::default()
        }),
        restart(v1::RestartPolicy {
            delay: Some(seconds(i64::MAX)),
            ..Default::default()
        }),
        constraint("node.hostname"),
        constraint("n ode == a"),
        constraint("node.id == é"),
        placement(v1::Placement {
            preferences: vec![Default::default()],
            ..Default::default()
        }),
        created(with_container(|container| {
            container.env = vec!["APP={{.Service.Labels.none}}".to_owned()];
        })),
        change(&|task| task.runtime = None),
        change(&|task| task.runtime = Some(Runtime::Attachment(attachment.clone()))),
        runtime("ab", None),
        runtime("Container", None),
        runtime("plugin", None),
        runtime("plugin", Some(("", "v"))),
        runtime("plugin", Some(("t", ""))),
    ]
}

fn container_cases() -> Vec<Refusal> {
    let change = |change: &dyn Fn(&mut v1::ContainerSpec)| {
        created(with_container(|container| change(container)))
    };
    let health = |health: v1::HealthConfig| {
        change(&|container| container.healthcheck = Some(health.clone()))
    };
    let mount = || v1::Mount {
        target: "/t".to_owned(),
        ..Default::default()
    };
    let short = || Some(nanoseconds(1));
    vec![
        change(&|container| container.image.clear()),
        change(&|container| container.image = "Bad Image".to_owned()),
        change(&|container| container.mounts = vec![mount(), mount()]),
        health(v1::HealthConfig {
            interval: short(),
            ..Default::default()
        }),
        health(v1::HealthConfig {
            timeout: short(),
            ..Default::default()
        }),
        health(v1::HealthConfig {
            start_period: short(),
            ..Default::default()
        }),
        health(v1::HealthConfig {
            start_interval: short(),
            ..Default::default()
        }),
        health(v1::HealthConfig {
            retries: -1,
            ..Default::default()
        }),
        change(&|container| container.stop_grace_period = Some(seconds(-1))),
    ]
}

fn reference_cases() -> Vec<Refusal> {
    use v1::{config_reference, secret_reference};
    let file = |name: &str| v1::FileTarget {
        name: name.to_owned(),
        ..Default::default()
    };
    let secret = |name: &str, target: Option<&str>| v1::SecretReference {
        secret_id: "1".to_owned(),
        secret_name: name.to_owned(),
        target: target.map(|name| secret_reference::Target::File(file(name))),
    };
    let config = |name: &str, target: Option<&str>| v1::ConfigReference {
        config_id: "1".to_owned(),
        config_name: name.to_owned(),
        target: target.map(|name| config_reference::Target::File(file(name))),
    };
    let secrets =
        |secrets: Vec<_>| created(with_container(|container| container.secrets = secrets));
    let configs =
        |configs: Vec<_>| created(with_container(|container| container.configs = configs));
    let credentials = v1::Privileges {
        credential_spec: Some(v1::privileges::CredentialSpec {
            source: Some(v1::privileges::credential_spec::Source::Config(
                "c".to_owned(),
            )),
        }),
        ..Default::default()
    };
    vec![
        secrets(vec![secret("", Some("f"))]),
        secrets(vec![secret("a", None)]),
        secrets(vec![secret("a", Some(""))]),
        secrets(vec![secret("a", Some("f")), secret("b", Some("f"))]),
        configs(vec![config("", Some("f"))]),
        configs(vec![config("a", None)]),
        configs(vec![config("a", Some(""))]),
        configs(vec![config("a", Some("f")), config("b", Some("f"))]),
        created(with_container(|container| {
            container.privileges = Some(credentials)
        })),
        created(with_container(|container| {
            container.secrets = vec![secret("a", Some("f"))];
            container.configs = vec![config("b", Some("/run/secrets/f"))];
        })),
        created(with_container(|container| {
            container.secrets = vec![secret("a", Some("f"))];
        })),
        created(with_container(|container| {
            container.configs = vec![config("a", Some("f")), config("b", Some("g"))];
        })),
    ]
}

fn later_cases() -> Vec<Refusal> {
    let mounted = |mount: v1::Mount| with_container(|container| container.mounts = vec![mount]);
    let specs = vec![
        with(web("web"), |spec| {
            spec.mode = Some(Mode::ReplicatedJob(v1::ReplicatedJob::default()));
        }),
        with(web("web"), |spec| {
            spec.mode = Some(Mode::GlobalJob(v1::GlobalJob {}))
        }),
        with_task(|task| task.resource_references = vec![v1::ResourceReference::default()]),
        mounted(v1::Mount {
            r#type: v1::mount::Type::Cluster as i32,
            ..Default::default()
        }),
    ];
    specs.into_iter().map(created).collect()
}
