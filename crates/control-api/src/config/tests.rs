use super::*;
use crate::tests::world::{World, config_spec, id};

#[test]
fn answers_hold_the_data() {
    let mut world = World::new();
    let created = world.create_config(config_spec("db")).unwrap();
    assert_eq!(&created.spec.as_ref().unwrap().data[..], b"port = 80");
    let config_id = created.id.clone();
    let got = get_config(&world.root, v1::GetConfigRequest { config_id }).unwrap();
    assert_eq!(got.config.unwrap(), created);
    let list = list_configs(&world.root, v1::ListConfigsRequest::default()).unwrap();
    assert_eq!(list.configs, [created]);
}

#[test]
fn sizes_are_allowed_up_to_the_limit_and_fit_a_transaction() {
    let mut world = World::new();
    let mut create = |bytes: usize| {
        let mut spec = config_spec(&format!("s{bytes}"));
        spec.data = vec![0; bytes].into();
        world.create_config(spec)
    };
    assert!(create(0).is_err());
    assert!(create(1).is_ok());
    let largest = create(1_023_999).unwrap();
    assert!(create(1_024_000).is_err());
    let stored = world.root.get::<Config>(&id(&largest.id)).unwrap();
    let bytes = Write::create((**stored).clone()).bytes();
    assert!(bytes + crate::PAYLOAD_ENVELOPE_BYTES_MAX < swarm_store::TRANSACTION_BYTES_MAX);
}

#[test]
fn only_labels_can_be_updated() {
    let mut world = World::new();
    let created = world.create_config(config_spec("db")).unwrap();
    let mut update = |change: &dyn Fn(&mut v1::ConfigSpec)| {
        let mut spec = config_spec("db");
        change(&mut spec);
        let stored = world.root.get::<Config>(&id(&created.id)).unwrap();
        let request = v1::UpdateConfigRequest {
            config_id: created.id.clone(),
            config_version: Some(convert::version_to_wire(stored.meta.version)),
            spec: Some(spec),
        };
        let reply = world.write(|root, _| update_config(root, request))?;
        Ok::<_, Refusal>(reply.config.unwrap())
    };
    let labelled = |spec: &mut v1::ConfigSpec| {
        let labels = &mut spec.annotations.as_mut().unwrap().labels;
        labels.insert("a".to_owned(), "1".to_owned());
    };
    let updated = update(&labelled).unwrap().spec.unwrap();
    assert_eq!(updated.annotations.unwrap().labels["a"], "1");
    assert_eq!(&updated.data[..], b"port = 80");
    assert!(update(&|spec| spec.data = b"port = 81".to_vec().into()).is_err());
    assert!(update(&|spec| spec.templating = Some(v1::Driver::default())).is_err());
    assert!(update(&|spec| *spec = config_spec("other")).is_err());
}

#[test]
fn a_config_in_use_is_kept_until_its_service_is_gone() {
    use crate::tests::world::with_container;
    let mut world = World::new();
    let created = world.create_config(config_spec("db")).unwrap();
    let reference = v1::ConfigReference {
        config_id: created.id.clone(),
        config_name: "db".to_owned(),
        target: Some(v1::config_reference::Target::Runtime(v1::RuntimeTarget {})),
    };
    let service = world
        .create(with_container(|container| {
            container.configs = vec![reference]
        }))
        .unwrap();
    let remove = |world: &mut World| {
        let config_id = created.id.clone();
        let request = v1::RemoveConfigRequest { config_id };
        world.write(|root, _| remove_config(root, request))
    };
    let refusal = remove(&mut world).unwrap_err();
    assert_eq!(
        refusal.message(),
        "config 'db' is in use by the following service: web"
    );
    let service_id = service.id;
    let request = v1::RemoveServiceRequest { service_id };
    world
        .write(|root, _| crate::remove_service(root, request))
        .unwrap();
    assert!(remove(&mut world).is_ok());
}
