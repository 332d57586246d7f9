//! Requests made of arbitrary bytes: an answer, never a panic.

use proptest::prelude::*;
use prost::Message;
use swarm_api::v1;

use super::world::{World, web};

/// Decodes bytes as a message if they are one.
fn decoded<T: Message + Default>(bytes: &[u8]) -> Option<T> {
    T::decode(bytes).ok()
}

/// A spec in which every byte but a few is that of a valid one.
fn damaged_spec() -> impl Strategy<Value = Vec<u8>> {
    let valid = with_everything().encode_to_vec();
    let len = valid.len();
    prop::collection::vec((0..len, any::<u8>()), 1..6).prop_map(move |edits| {
        let mut bytes = valid.clone();
        for (at, byte) in edits {
            bytes[at] = byte;
        }
        bytes
    })
}

/// A spec with as many kinds of fields as fit.
fn with_everything() -> v1::ServiceSpec {
    use super::world::{port, seconds, with_container};
    use v1::port_config::PublishMode;
    let mut spec = with_container(|container| {
        container.env = vec!["A={{.Node.ID}}".to_owned()];
        container.mounts = vec![v1::Mount {
            target: "/t".to_owned(),
            bind_options: Some(v1::mount::BindOptions::default()),
            ..Default::default()
        }];
        container.healthcheck = Some(v1::HealthConfig {
            interval: Some(seconds(1)),
            retries: 1,
            ..Default::default()
        });
        container.secrets = vec![v1::SecretReference {
            secret_id: "i".to_owned(),
            secret_name: "n".to_owned(),
            target: None,
        }];
    });
    let task = spec.task.as_mut().unwrap();
    task.placement = Some(v1::Placement {
        constraints: vec!["node.id == a".to_owned()],
        ..Default::default()
    });
    task.restart = Some(v1::RestartPolicy {
        delay: Some(seconds(3)),
        ..Default::default()
    });
    task.resources = Some(v1::ResourceRequirements {
        limits: Some(v1::Resources {
            nano_cpus: 1_000_000_000,
            memory_bytes: 1 << 30,
            generic: vec![swarm_types::resources::discrete("gpu", 1)],
        }),
        ..Default::default()
    });
    spec.update = Some(v1::UpdateConfig {
        delay: Some(seconds(1)),
        ..Default::default()
    });
    spec.endpoint = Some(v1::EndpointSpec {
        mode: 0,
        ports: vec![port(PublishMode::Host, 8080)],
    });
    spec
}

fn send_service(spec: v1::ServiceSpec) {
    let mut world = World::new();
    let stored = world.create(web("web")).unwrap();
    // Whether it is accepted does not matter here; that there is an answer does.
    let accepted = world.create(spec.clone()).is_ok();
    let updated = world.update(&stored.id, spec).is_ok();
    assert_eq!(
        world.root.count::<swarm_types::Service>(),
        1 + usize::from(accepted),
        "a refused request writes nothing (the update: {updated})"
    );
}

proptest! {
    #[test]
    fn damaged_service_specs_are_answered(bytes in damaged_spec()) {
        if let Some(spec) = decoded(&bytes) {
            send_service(spec);
        }
    }

    #[test]
    fn arbitrary_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(spec) = decoded(&bytes) {
            send_service(spec);
        }
        let mut world = World::new();
        let members = crate::Members::new();
        // Results are of no interest: none of these may panic.
        if let Some(request) = decoded(&bytes) {
            drop(crate::list_tasks(&world.root, request));
        }
        if let Some(request) = decoded(&bytes) {
            drop(crate::list_nodes(&world.root, &members, request));
        }
        if let Some(request) = decoded(&bytes) {
            drop(crate::list_services(&world.root, request));
        }
        if let Some(request) = decoded(&bytes) {
            drop(crate::list_service_statuses(&world.root, request));
        }
        if let Some(request) = decoded(&bytes) {
            drop(crate::list_clusters(&world.root, request));
        }
        if let Some(request) = decoded(&bytes) {
            let none = crate::CaMaterial::none();
            drop(world.write(|root, ctx| crate::update_cluster(root, ctx, request, &none)));
        }
        if let Some(request) = decoded(&bytes) {
            drop(world.write(|root, _| crate::update_node(root, &crate::Members::new(), request)));
        }
        if let Some(request) = decoded(&bytes) {
            drop(world.write(|root, ctx| crate::remove_node(root, None, ctx, request)));
        }
        if let Some(request) = decoded(&bytes) {
            drop(world.write(|root, ctx| crate::create_secret(root, ctx, &|_| true, request)));
        }
        if let Some(request) = decoded(&bytes) {
            drop(world.write(|root, _| crate::update_secret(root, request)));
        }
        if let Some(request) = decoded(&bytes) {
            drop(crate::list_secrets(&world.root, request));
        }
        if let Some(request) = decoded(&bytes) {
            drop(world.write(|root, ctx| crate::create_config(root, ctx, request)));
        }
        if let Some(request) = decoded(&bytes) {
            drop(world.write(|root, _| crate::update_config(root, request)));
        }
    }

    #[test]
    fn arbitrary_image_references_and_names_are_answered(text in any::<String>()) {
        let mut spec = super::world::with_container(|container| container.image = text.clone());
        spec.annotations.as_mut().unwrap().name = text;
        send_service(spec);
    }
}
