use swarm_types::{Task, TaskId};

use super::*;
use crate::tests::world::{CLUSTER, World, annotations, id, ids, web};
use crate::{Class, Code};

fn update(
    world: &mut World,
    node_id: &str,
    change: impl FnOnce(&mut v1::UpdateNodeRequest),
) -> Result<v1::Node, Refusal> {
    let version = world.root.node(&id(node_id)).unwrap().meta.version;
    let mut request = v1::UpdateNodeRequest {
        node_id: node_id.to_owned(),
        node_version: Some(convert::version_to_wire(version)),
        spec: Some(v1::NodeSpec::default()),
    };
    change(&mut request);
    let members = member("m");
    let reply = world.write(|root, _| update_node(root, &members, request))?;
    Ok(reply.node.unwrap())
}

fn remove(
    world: &mut World,
    members: Option<&Members>,
    node_id: &str,
    force: bool,
) -> Result<(), Refusal> {
    let request = v1::RemoveNodeRequest {
        node_id: node_id.to_owned(),
        force,
    };
    world
        .write(|root, ctx| remove_node(root, members, ctx, request))
        .map(|_| ())
}

fn manager(world: &mut World, node_id: &str) {
    let mut node = world.node(node_id);
    node.role = v1::NodeRole::Manager;
    node.spec = Arc::new(v1::NodeSpec {
        desired_role: v1::NodeRole::Manager as i32,
        ..Default::default()
    });
    world.put(node);
}

fn member(node_id: &str) -> Members {
    Members::from([(
        id(node_id),
        Member {
            raft_id: 7,
            addr: "10.0.0.1:4242".to_owned(),
            leader: true,
            reachability: Reachability::Reachable,
        },
    )])
}

fn down(world: &mut World, node_id: &str) {
    let mut node = world.node(node_id);
    node.status.state = NodeState::Down;
    world.put(node);
}

#[test]
fn answers_show_the_part_in_the_raft_group_as_it_is_now() {
    let mut world = World::new();
    world.node("m");
    world.node("w");
    let members = member("m");
    let get = |node_id: &str| {
        let request = v1::GetNodeRequest {
            node_id: node_id.to_owned(),
        };
        get_node(&world.root, &members, request)
            .unwrap()
            .node
            .unwrap()
    };
    let status = get("m").manager_status.unwrap();
    assert_eq!((status.raft_id, status.leader), (7, true));
    assert_eq!(status.addr, "10.0.0.1:4242");
    assert_eq!(status.reachability, Reachability::Reachable as i32);
    assert_eq!(get("w").manager_status, None);
    let all = list_nodes(&world.root, &members, v1::ListNodesRequest::default()).unwrap();
    assert_eq!(ids(&all.nodes, |node| &node.id), ["m", "w"]);
    assert!(all.nodes[0].manager_status.is_some());
    assert!(all.nodes[1].manager_status.is_none());
}

/// Three nodes: `a` described with engine and user labels, `b` a manager, `c` never described.
fn filtered(change: impl FnOnce(&mut v1::list_nodes_request::Filters)) -> Vec<String> {
    let mut world = World::new();
    let label = |key: &str, value: &str| BTreeMap::from([(key.to_owned(), value.to_owned())]);
    let mut a = world.node("a");
    a.description = Some(Arc::new(v1::NodeDescription {
        hostname: "Alpha".to_owned(),
        engine: Some(v1::EngineDescription {
            labels: label("engine", "x"),
            ..Default::default()
        }),
        ..Default::default()
    }));
    a.spec = Arc::new(v1::NodeSpec {
        annotations: Some(v1::Annotations {
            labels: label("user", "y"),
            ..Default::default()
        }),
        membership: Membership::Accepted as i32,
        ..Default::default()
    });
    world.put(a);
    manager(&mut world, "b");
    world.node("c");
    let mut filters = v1::list_nodes_request::Filters::default();
    change(&mut filters);
    let request = v1::ListNodesRequest {
        filters: Some(filters),
    };
    let answer = list_nodes(&world.root, &Members::new(), request).unwrap();
    ids(&answer.nodes, |node| &node.id)
}

#[test]
fn filters_by_name_and_id() {
    assert_eq!(filtered(|_| {}), ["a", "b", "c"]);
    assert_eq!(filtered(|f| f.names = vec!["Alpha".to_owned()]), ["a"]);
    assert_eq!(filtered(|f| f.names = vec!["alpha".to_owned()]), [""; 0]);
    assert_eq!(filtered(|f| f.name_prefixes = vec!["Al".to_owned()]), ["a"]);
    assert_eq!(
        filtered(|f| f.name_prefixes = vec!["al".to_owned()]),
        [""; 0]
    );
    let by_id = filtered(|f| f.id_prefixes = vec!["b".to_owned(), "c".to_owned()]);
    assert_eq!(by_id, ["b", "c"]);
}

#[test]
fn filters_by_engine_labels_and_by_user_labels() {
    let labels = |key: &str| BTreeMap::from([(key.to_owned(), String::new())]);
    assert_eq!(filtered(|f| f.labels = labels("engine")), ["a"]);
    assert_eq!(filtered(|f| f.labels = labels("user")), [""; 0]);
    assert_eq!(filtered(|f| f.node_labels = labels("user")), ["a"]);
    assert_eq!(filtered(|f| f.node_labels = labels("engine")), [""; 0]);
}

#[test]
fn filters_by_actual_role_and_by_membership() {
    assert_eq!(filtered(|f| f.roles = vec![1]), ["b"]);
    assert_eq!(filtered(|f| f.roles = vec![0, 1]), ["a", "b", "c"]);
    assert_eq!(filtered(|f| f.memberships = vec![1]), ["a"]);
    let both = filtered(|f| {
        f.roles = vec![1];
        f.memberships = vec![1];
    });
    assert_eq!(both, [""; 0], "fields are combined");
}

#[test]
fn unknown_numbers_in_filters_are_refused() {
    let world = World::new();
    for change in [
        v1::list_nodes_request::Filters {
            roles: vec![2],
            ..Default::default()
        },
        v1::list_nodes_request::Filters {
            memberships: vec![-1],
            ..Default::default()
        },
    ] {
        let request = v1::ListNodesRequest {
            filters: Some(change),
        };
        let refusal = list_nodes(&world.root, &Members::new(), request).unwrap_err();
        assert_eq!(refusal.code(), Code::InvalidArgument);
    }
}

#[test]
fn an_update_replaces_the_spec() {
    let mut world = World::new();
    world.node("n");
    let spec = v1::NodeSpec {
        annotations: Some(annotations("name")),
        availability: Availability::Drain as i32,
        ..Default::default()
    };
    let answer = update(&mut world, "n", |request| request.spec = Some(spec.clone())).unwrap();
    assert_eq!(answer.spec, Some(spec.clone()));
    assert_eq!(*world.root.node(&id("n")).unwrap().spec, spec);
    let stale = update(&mut world, "n", |request| {
        request.node_version = Some(v1::Version { index: 1 });
    });
    let refusal = stale.unwrap_err();
    assert_eq!(refusal.message(), "update out of sequence");
    assert_eq!(refusal.class(), Class::Conflict);
}

#[test]
fn numbers_of_a_node_spec_are_checked() {
    let try_spec = |spec| {
        let mut world = World::new();
        world.node("n");
        update(&mut world, "n", |request| request.spec = Some(spec))
    };
    for (good, bad) in [(2, 3), (0, -1)] {
        let spec = |availability| v1::NodeSpec {
            availability,
            ..Default::default()
        };
        assert!(try_spec(spec(good)).is_ok());
        assert_eq!(
            try_spec(spec(bad)).unwrap_err().code(),
            Code::InvalidArgument
        );
    }
    let spec = |membership| v1::NodeSpec {
        membership,
        ..Default::default()
    };
    assert!(try_spec(spec(1)).is_ok());
    assert_eq!(try_spec(spec(2)).unwrap_err().code(), Code::InvalidArgument);
    let role = v1::NodeSpec {
        desired_role: 2,
        ..Default::default()
    };
    assert_eq!(try_spec(role).unwrap_err().code(), Code::InvalidArgument);
}

fn promoted() -> v1::NodeSpec {
    v1::NodeSpec {
        desired_role: v1::NodeRole::Manager as i32,
        ..Default::default()
    }
}

#[test]
fn no_node_is_promoted_and_one_that_was_is_demoted() {
    let mut world = World::new();
    manager(&mut world, "m");
    world.node("w");
    let refusal = update(&mut world, "w", |request| request.spec = Some(promoted())).unwrap_err();
    assert_eq!(refusal.code(), Code::FailedPrecondition);
    let text = "node w cannot be promoted: a second manager cannot run yet; it stays a worker";
    assert_eq!(refusal.message(), text);
    // It was promoted before, and never became a member of the group of managers. Anything else
    // about it can be changed meanwhile.
    manager(&mut world, "w");
    let paused = v1::NodeSpec {
        availability: Availability::Pause as i32,
        ..promoted()
    };
    update(&mut world, "w", |request| request.spec = Some(paused)).unwrap();
    let node = update(&mut world, "w", |_| {}).unwrap();
    assert_eq!(node.spec.unwrap().desired_role, v1::NodeRole::Worker as i32);
}

#[test]
fn the_last_manager_and_one_that_the_others_need_stay_managers() {
    let mut world = World::new();
    manager(&mut world, "m");
    let refusal = update(&mut world, "m", |_| {}).unwrap_err();
    assert_eq!(refusal.rule(), DEMOTES_LAST_MANAGER);
    update(&mut world, "m", |request| request.spec = Some(promoted())).unwrap();
    manager(&mut world, "m2");
    let refusal = update(&mut world, "m", |_| {}).unwrap_err();
    assert_eq!(refusal.rule(), DEMOTION_LOSES_QUORUM);
}

/// Demotes `a`, one of several members, of which the named ones do not answer.
fn demote_of(members: usize, silent: &[&str]) -> Result<(), Refusal> {
    let mut world = World::new();
    let names = ["a", "b", "c", "d", "e"];
    let group: Members = names[..members]
        .iter()
        .flat_map(|name| {
            manager(&mut world, name);
            let mut group = member(name);
            if silent.contains(name) {
                group.get_mut(&id(name)).unwrap().reachability = Reachability::Unreachable;
            }
            group
        })
        .collect();
    let version = world.root.node(&id("a")).unwrap().meta.version;
    let request = v1::UpdateNodeRequest {
        node_id: "a".to_owned(),
        node_version: Some(convert::version_to_wire(version)),
        spec: Some(v1::NodeSpec::default()),
    };
    world
        .write(|root, _| update_node(root, &group, request))
        .map(drop)
}

#[test]
fn a_demotion_leaves_a_quorum_of_members_that_answer() {
    assert!(demote_of(3, &[]).is_ok());
    assert!(demote_of(3, &["a"]).is_ok());
    assert_eq!(
        demote_of(3, &["b"]).unwrap_err().rule(),
        DEMOTION_LOSES_QUORUM
    );
    assert!(demote_of(5, &["b"]).is_ok());
    assert_eq!(
        demote_of(5, &["b", "c"]).unwrap_err().rule(),
        DEMOTION_LOSES_QUORUM
    );
}

#[test]
fn only_a_node_that_is_not_ready_is_removed_without_force() {
    let mut world = World::new();
    world.node("n");
    let refusal = remove(&mut world, None, "n", false).unwrap_err();
    assert_eq!(refusal.rule(), NODE_NOT_DOWN);
    remove(&mut world, None, "n", true).unwrap();
    assert!(world.root.node(&id("n")).is_none());
    down(&mut world, "d");
    remove(&mut world, None, "d", false).unwrap();
    let refusal = remove(&mut world, None, "d", true).unwrap_err();
    assert_eq!(refusal.message(), "node d not found");
}

#[test]
fn a_manager_is_removed_only_after_it_left_the_raft_group() {
    let mut world = World::new();
    manager(&mut world, "m");
    let refusal = remove(&mut world, None, "m", true).unwrap_err();
    assert_eq!(refusal.rule(), MEMBERS_UNKNOWN);
    let refusal = remove(&mut world, Some(&member("m")), "m", true).unwrap_err();
    assert_eq!(refusal.rule(), IS_MEMBER);
    remove(&mut world, Some(&member("other")), "m", true).unwrap();
}

#[test]
fn removal_lists_the_certificate_and_orphans_tasks_that_have_not_ended() {
    let mut world = World::new();
    down(&mut world, "n");
    world.node("other");
    let service = world.create(web("web")).unwrap().id;
    let tasks = [
        ("t-running", "n", TaskState::Running),
        ("t-assigned", "n", TaskState::Assigned),
        ("t-complete", "n", TaskState::Complete),
        ("t-failed", "n", TaskState::Failed),
        ("t-elsewhere", "other", TaskState::Running),
    ];
    for (task, node, state) in tasks {
        world.task(task, &service, node, state);
    }
    remove(&mut world, Some(&Members::new()), "n", false).unwrap();
    let states: Vec<_> = tasks
        .iter()
        .map(|(task, ..)| world.root.task(&id::<TaskId>(task)).unwrap().state())
        .collect();
    assert_eq!(
        states,
        [
            TaskState::Orphaned,
            TaskState::Orphaned,
            TaskState::Complete,
            TaskState::Failed,
            TaskState::Running
        ]
    );
    let orphan: &Arc<Task> = world.root.task(&id("t-running")).unwrap();
    assert_eq!(&*orphan.status().message, LEFT_BEHIND);
    assert_eq!(orphan.status().timestamp, Some(world.now()));
    assert_eq!(orphan.desired_state(), TaskState::Running);
    let cluster = world.root.cluster().unwrap();
    assert_eq!(
        cluster.blacklisted_certificates.get("n"),
        Some(&v1::BlacklistedCertificate::default())
    );
}

#[test]
fn removal_of_a_node_with_many_tasks_fits_one_transaction() {
    for (count, bytes) in [(3_000, 0), (12, 400_000)] {
        let mut world = World::new();
        down(&mut world, "n");
        let service = world.create(web("web")).unwrap().id;
        for number in 0..count {
            let name = format!("t{number}");
            world.task(&name, &service, "n", TaskState::Running);
            let mut task = (**world.root.task(&id::<TaskId>(&name)).unwrap()).clone();
            task.annotations = Some(Box::new(v1::Annotations {
                name: "x".repeat(bytes),
                ..Default::default()
            }));
            world.put(task);
        }
        let request = v1::RemoveNodeRequest {
            node_id: "n".to_owned(),
            force: false,
        };
        let mut writes = Vec::new();
        let removed = world.write(|root, ctx| {
            let plan = remove_node(root, None, ctx, request)?;
            writes.clone_from(&plan.writes().0);
            Ok(plan)
        });
        removed.unwrap();
        assert!(writes.len() <= TRANSACTION_CHANGES_MAX);
        let sum: usize = writes.iter().map(Write::bytes).sum();
        assert!(sum <= TRANSACTION_BYTES_MAX, "{sum} bytes");
        assert!(writes.len() > 3, "as many tasks as fit");
    }
}

#[test]
fn a_removed_certificate_is_listed_with_its_end() {
    use swarm_ca::{csr, issue, root};
    let mut world = World::new();
    let (cert, key) = root::new_root(world.now());
    let signer = issue::Signer::new(&cert, &key, "").unwrap();
    let subject = issue::Subject {
        node: id("n"),
        cluster: id(CLUSTER),
        role: v1::NodeRole::Worker,
    };
    let csr = csr::request(&csr::new_key()).unwrap();
    let life = std::time::Duration::from_secs(7200);
    let chain = signer.sign(csr.as_bytes(), &subject, life, world.now(), [1; 20]);
    let mut node = world.node("n");
    node.certificate = Some(Box::new(v1::Certificate {
        certificate: chain.unwrap().into(),
        ..Default::default()
    }));
    world.put(node);
    let (_, end) = expiry::validity(world.root.node(&id("n")).unwrap()).unwrap();
    remove(&mut world, None, "n", true).unwrap();
    let cluster = world.root.cluster().unwrap();
    let expiry = cluster.blacklisted_certificates["n"].expiry;
    assert_eq!(expiry, Some(end.to_wire()));
}

#[test]
fn a_refused_removal_writes_nothing() {
    let mut world = World::new();
    let service = world.create(web("web")).unwrap().id;
    world.node("n");
    world.task("t", &service, "n", TaskState::Running);
    let before = world.root.version();
    remove(&mut world, None, "n", false).unwrap_err();
    assert_eq!(world.root.version(), before);
    assert_eq!(world.root.cluster().unwrap().id, id(CLUSTER));
    assert!(
        world
            .root
            .cluster()
            .unwrap()
            .blacklisted_certificates
            .is_empty()
    );
}
