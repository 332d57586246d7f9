use std::collections::BTreeMap;

use swarm_types::TaskState;
use v1::port_config::PublishMode;

use super::*;
use crate::tests::world::{
    World, id, ids, port, replicated, web, with, with_container, with_ports, with_task,
};
use crate::{Class, Code};

fn labelled(name: &str, key: &str) -> v1::ServiceSpec {
    with(web(name), |spec| {
        let annotations = spec.annotations.as_mut().unwrap();
        annotations.labels = BTreeMap::from([(key.to_owned(), "1".to_owned())]);
    })
}

fn scaled(replicas: u64) -> v1::ServiceSpec {
    with(web("web"), |spec| spec.mode = Some(replicated(replicas)))
}

#[test]
fn a_created_service_is_answered_as_it_is_stored() {
    let mut world = World::new();
    let answer = world.create(web("web")).unwrap();
    let stored = world.service(&answer.id);
    assert_eq!(answer, convert::service_to_wire(stored));
    assert_eq!(answer.spec, Some(web("web")), "the spec is not altered");
    assert_eq!(answer.spec_version, Some(v1::Version { index: 0 }));
    let meta = answer.meta.unwrap();
    assert_eq!(meta.version.unwrap().index, world.root.version().0);
    assert_eq!(meta.created_at, Some(world.now().to_wire()));
    assert_eq!(answer.previous_spec, None);
}

#[test]
fn a_taken_name_is_refused_in_any_case_with_the_phrase_that_clients_match() {
    let mut world = World::new();
    world.create(web("web")).unwrap();
    let refusal = world.create(web("WEB")).unwrap_err();
    assert_eq!(refusal.code(), Code::AlreadyExists);
    assert_eq!(
        refusal.message(),
        "name conflicts with an existing object: service WEB already exists"
    );
    world.create(web("web2")).unwrap();
}

#[test]
fn a_name_that_is_taken_between_plan_and_write_gets_the_same_refusal() {
    let mut world = World::new();
    let request = v1::CreateServiceRequest {
        spec: Some(web("web")),
    };
    let mut ids = NextId(1);
    let mut ctx = Ctx {
        now: world.now(),
        ids: &mut ids,
    };
    let request = check_new_service(request).unwrap();
    let plan = create_service(&world.root, &mut ctx, request).unwrap();
    world.create(web("web")).unwrap();
    let mut transaction = world.root.begin(world.now());
    let refusal = plan.apply(&mut transaction).unwrap_err();
    assert_eq!(refusal.rule(), SERVICE_NAME_CONFLICT);
    assert!(transaction.is_empty());
}

struct NextId(u8);

impl swarm_types::IdSource for NextId {
    fn next_id(&mut self) -> swarm_types::Id {
        self.0 += 100;
        swarm_types::Id::from_random([self.0; 17])
    }
}

#[test]
fn defaults_are_shown_on_request_only_and_never_stored() {
    let mut world = World::new();
    let stored = world.create(web("web")).unwrap();
    let get = |insert_defaults| {
        let request = v1::GetServiceRequest {
            service_id: stored.id.clone(),
            insert_defaults,
        };
        get_service(&world.root, request).unwrap().service.unwrap()
    };
    assert_eq!(get(false).spec, Some(web("web")));
    let spec = get(true).spec.unwrap();
    assert_eq!(spec.update.unwrap().parallelism, 1);
    let restart = spec.task.unwrap().restart.unwrap();
    assert_eq!(restart.delay.unwrap().seconds, 5);
    assert_eq!(get(false).spec, Some(web("web")));
}

#[test]
fn an_update_keeps_the_previous_spec_and_takes_the_version_that_was_seen() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    let seen = created.meta.unwrap().version.unwrap();
    let answer = world.update(&created.id, scaled(3)).unwrap();
    assert_eq!(answer.spec, Some(scaled(3)));
    assert_eq!(answer.previous_spec, Some(web("web")));
    assert_eq!(answer.spec_version, Some(seen));
    assert_eq!(answer.previous_spec_version, Some(v1::Version { index: 0 }));
    assert!(answer.meta.unwrap().version.unwrap().index > seen.index);
    let again = world.update(&created.id, scaled(4)).unwrap();
    assert_eq!(again.previous_spec, Some(scaled(3)));
    assert_eq!(again.previous_spec_version, Some(seen));
}

#[test]
fn an_update_forgets_the_status_of_the_one_before() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    let mut service = world.service(&created.id).clone();
    service.update_status = Some(Box::new(v1::UpdateStatus::default()));
    world.put(service);
    assert!(world.service(&created.id).update_status.is_some());
    world.update(&created.id, scaled(2)).unwrap();
    assert!(world.service(&created.id).update_status.is_none());
}

#[test]
fn a_stale_version_is_refused_with_the_text_that_clients_match() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    let mut request = world.update_request(&created.id, scaled(2));
    world.update(&created.id, scaled(3)).unwrap();
    let mut send = |request: &v1::UpdateServiceRequest| {
        let request = check_changed_service(request.clone())?;
        world.write(|root, _| update_service(root, request))
    };
    let refusal = send(&request).unwrap_err();
    assert_eq!(refusal.message(), "update out of sequence");
    assert_eq!(
        (refusal.code(), refusal.class()),
        (Code::Unknown, Class::Conflict)
    );
    request.service_version = None;
    assert_eq!(send(&request).unwrap_err().message(), "invalid argument");
    request.service_version = Some(v1::Version::default());
    request.spec = None;
    assert_eq!(send(&request).unwrap_err().message(), "invalid argument");
    request.spec = Some(scaled(2));
    request.service_id = "gone".to_owned();
    assert_eq!(
        send(&request).unwrap_err().message(),
        "service gone not found"
    );
}

#[test]
fn mode_and_name_cannot_change() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    let global = with(web("web"), |spec| {
        spec.mode = Some(v1::service_spec::Mode::Global(v1::GlobalService {}));
    });
    let refusal = world.update(&created.id, global).unwrap_err();
    assert_eq!(refusal.rule(), MODE_CHANGED);
    let refusal = world.update(&created.id, web("Web")).unwrap_err();
    assert_eq!(refusal.rule(), RENAMED);
}

#[test]
fn a_rollback_is_refused_by_name_and_an_unknown_one_as_invalid() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    for (number, code) in [(1, Code::Unimplemented), (2, Code::InvalidArgument)] {
        let mut request = world.update_request(&created.id, web("web"));
        request.rollback = number;
        let refusal = world
            .write(|root, _| update_service(root, check_changed_service(request)?))
            .unwrap_err();
        assert_eq!(refusal.code(), code);
    }
}

#[test]
fn an_update_that_would_replace_a_live_task_is_refused_and_names_field_and_task() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    world.node("n");
    let other_image = with_container(|container| container.image = "other".to_owned());
    // Without live tasks there is nothing to replace.
    let ended = world
        .task_of("ended", &created.id, "n", TaskState::Failed)
        .with_states(Default::default(), TaskState::Shutdown);
    world.put(ended);
    world.update(&created.id, other_image.clone()).unwrap();
    let answer = world.update(&created.id, web("web")).unwrap();
    let live = world.task("live", &created.id, "n", TaskState::Running);
    let refusal = world.update(&created.id, other_image.clone()).unwrap_err();
    assert_eq!(refusal.code(), Code::Unimplemented);
    for part in [
        "task.container.image",
        "task live",
        &created.id,
        "rolling updates",
    ] {
        assert!(refusal.message().contains(part), "{refusal} names {part}");
    }
    let unchanged = world.service(&created.id);
    assert_eq!(
        convert::service_to_wire(unchanged),
        answer,
        "nothing was written"
    );
    // On its way down it is not live any more.
    world.put(live.with_states(Default::default(), TaskState::Shutdown));
    world.update(&created.id, other_image).unwrap();
}

#[test]
fn an_update_that_leaves_live_tasks_as_they_are_is_accepted() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    world.node("n");
    world.task("live", &created.id, "n", TaskState::Running);
    let constrained = |expression: &str| {
        with_task(|task| {
            task.placement = Some(v1::Placement {
                constraints: vec![expression.to_owned()],
                ..Default::default()
            });
        })
    };
    for spec in [
        scaled(5),
        labelled("web", "new"),
        with(web("web"), |spec| {
            spec.update = Some(v1::UpdateConfig::default());
            spec.rollback = Some(v1::UpdateConfig::default());
        }),
        constrained("node.id == n"),
        with_container(|container| {
            container.pull_options = Some(v1::container_spec::PullOptions::default());
        }),
    ] {
        world.update(&created.id, spec).unwrap();
    }
    let refusal = world.update(&created.id, constrained("node.id != n"));
    assert_eq!(refusal.unwrap_err().code(), Code::Unimplemented);
}

#[test]
fn new_ports_need_new_tasks_even_if_the_tasks_had_none() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    let published = with_ports("web", vec![port(PublishMode::Host, 80)]);
    world.task("live", &created.id, "n", TaskState::Running);
    let refusal = world.update(&created.id, published).unwrap_err();
    assert!(refusal.message().contains("endpoint.ports"), "{refusal}");
    let no_ports = with_ports("web", Vec::new());
    world.update(&created.id, no_ports).unwrap();
}

#[test]
fn an_update_may_keep_its_own_ports() {
    let mut world = World::new();
    let spec = with_ports("web", vec![port(PublishMode::Ingress, 80)]);
    let created = world.create(spec.clone()).unwrap();
    let scaled = with(spec, |spec| {
        spec.mode = Some(replicated(2));
        let endpoint = spec.endpoint.as_mut().unwrap();
        endpoint.ports[0].name = "renamed".to_owned();
    });
    world.update(&created.id, scaled).unwrap();
}

#[test]
fn a_removed_service_is_gone_at_once() {
    let mut world = World::new();
    let created = world.create(web("web")).unwrap();
    let request = v1::RemoveServiceRequest {
        service_id: created.id.clone(),
    };
    world
        .write(|root, _| remove_service(root, request.clone()))
        .unwrap();
    assert!(world.root.service(&id(&created.id)).is_none());
    let refusal = world
        .write(|root, _| remove_service(root, request))
        .unwrap_err();
    assert_eq!(
        refusal.message(),
        format!("service {} not found", created.id)
    );
}

#[test]
fn services_are_filtered_by_every_field() {
    let mut world = World::new();
    let a = world.create(labelled("Alpha", "x")).unwrap().id;
    let b = world.create(web("beta")).unwrap().id;
    type Filters = v1::list_services_request::Filters;
    let listed = |filters: Filters| {
        let request = v1::ListServicesRequest {
            filters: Some(filters),
        };
        let answer = list_services(&world.root, request).unwrap();
        ids(&answer.services, |service| &service.id)
    };
    let filters = Filters::default;
    let text = |text: &str| vec![text.to_owned()];
    assert_eq!(listed(filters()), [a.as_str(), b.as_str()]);
    assert_eq!(
        listed(Filters {
            names: text("Alpha"),
            ..filters()
        }),
        [a.as_str()]
    );
    assert_eq!(
        listed(Filters {
            names: text("alpha"),
            ..filters()
        }),
        [""; 0]
    );
    assert_eq!(
        listed(Filters {
            name_prefixes: text("be"),
            ..filters()
        }),
        [b.as_str()]
    );
    assert_eq!(
        listed(Filters {
            id_prefixes: vec![a.clone()],
            ..filters()
        }),
        [a.as_str()]
    );
    let labels = BTreeMap::from([("x".to_owned(), String::new())]);
    assert_eq!(
        listed(Filters {
            labels,
            ..filters()
        }),
        [a.as_str()]
    );
    assert_eq!(
        listed(Filters {
            runtimes: text("container"),
            ..filters()
        }),
        [a, b]
    );
    assert_eq!(
        listed(Filters {
            runtimes: text("attachment"),
            ..filters()
        }),
        [""; 0]
    );
}

#[test]
fn a_spec_has_a_largest_size() {
    let sized = |bytes: usize| {
        with(web("web"), |spec| {
            let annotations = spec.annotations.as_mut().unwrap();
            annotations.labels = BTreeMap::from([("k".to_owned(), "v".repeat(bytes))]);
        })
    };
    let overhead = {
        use prost::Message;
        sized(crate::SPEC_BYTES_MAX / 2).encoded_len() - crate::SPEC_BYTES_MAX / 2
    };
    let largest = sized(crate::SPEC_BYTES_MAX - overhead);
    World::new().create(largest).unwrap();
    let too_large = sized(crate::SPEC_BYTES_MAX - overhead + 1);
    let refusal = World::new().create(too_large).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
    assert!(refusal.message().contains("524289 bytes"), "{refusal}");
}

#[test]
fn a_spec_with_a_task_on_the_ingress_network_is_refused() {
    let spec = with_task(|task| {
        task.networks = vec![v1::NetworkAttachmentConfig {
            target: crate::tests::world::INGRESS.to_owned(),
            ..Default::default()
        }];
    });
    let refusal = World::new().create(spec).unwrap_err();
    assert_eq!(refusal.code(), Code::InvalidArgument);
}

#[test]
fn a_service_on_a_predefined_network_is_taken_by_name_and_by_id() {
    let mut world = World::new();
    let mut host = v1::NetworkSpec::default();
    let annotations = host.annotations.get_or_insert_default();
    annotations.name = "host".to_owned();
    let label = swarm_types::networks::PREDEFINED_LABEL;
    annotations
        .labels
        .insert(label.to_owned(), "true".to_owned());
    world.put(swarm_types::Network::new("host-id".parse().unwrap(), host));
    for (name, target) in [("a", "host"), ("b", "host-id")] {
        let mut spec = web(name);
        spec.task.as_mut().unwrap().networks = vec![v1::NetworkAttachmentConfig {
            target: target.to_owned(),
            ..Default::default()
        }];
        world.create(spec).unwrap();
    }
}
