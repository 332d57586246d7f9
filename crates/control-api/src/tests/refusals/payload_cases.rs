//! Refusals about secrets and configs.

use super::*;

pub(super) fn cases() -> Vec<Refusal> {
    let mut cases = create_cases();
    cases.extend(change_cases());
    cases
}

fn create_cases() -> Vec<Refusal> {
    let secret = |change: &dyn Fn(&mut v1::SecretSpec)| {
        let mut spec = secret_spec("db");
        change(&mut spec);
        World::new().create_secret(spec).unwrap_err()
    };
    let config = |change: &dyn Fn(&mut v1::ConfigSpec)| {
        let mut spec = config_spec("db");
        change(&mut spec);
        World::new().create_config(spec).unwrap_err()
    };
    let name = |annotations: &mut Option<v1::Annotations>, name: &str| {
        annotations.get_or_insert_default().name = name.to_owned();
    };
    let driver = |name: &str| {
        Some(v1::Driver {
            name: name.to_owned(),
            ..Default::default()
        })
    };
    let long = || [("k".to_owned(), "v".repeat(64 * 1024))].into();
    let mut twice = World::new();
    twice.create_secret(secret_spec("db")).unwrap();
    vec![
        secret(&|spec| name(&mut spec.annotations, "")),
        config(&|spec| name(&mut spec.annotations, ".db")),
        secret(&|spec| spec.data.clear()),
        config(&|spec| spec.data = vec![b'x'; crate::CONFIG_BYTES_LIMIT].into()),
        secret(&|spec| spec.annotations.as_mut().unwrap().labels = long()),
        config(&|spec| spec.templating = driver("jinja")),
        secret(&|spec| spec.driver = driver("")),
        secret(&|spec| spec.driver = driver("none")),
        secret(&|spec| spec.driver = driver("vault")),
        twice.create_secret(secret_spec("DB")).unwrap_err(),
    ]
}

fn change_cases() -> Vec<Refusal> {
    let mut world = World::new();
    let stored = world.create_secret(secret_spec("db")).unwrap();
    let mut other = secret_spec("db");
    other.data = b"another".to_vec().into();
    let changed = world.update_secret(&stored.id, other).unwrap_err();
    let file = v1::FileTarget {
        name: "f".to_owned(),
        ..Default::default()
    };
    let reference = v1::SecretReference {
        secret_id: stored.id.clone(),
        secret_name: "db".to_owned(),
        target: Some(v1::secret_reference::Target::File(file)),
    };
    let spec = with_container(|container| container.secrets = vec![reference]);
    world.create(spec.clone()).unwrap();
    let in_use = world.remove_secret(&stored.id).unwrap_err();
    let also = with(spec, |spec| {
        spec.annotations.as_mut().unwrap().name = "api".to_owned();
    });
    world.create(also).unwrap();
    let in_use_twice = world.remove_secret(&stored.id).unwrap_err();
    let no_id = world.remove_secret("").unwrap_err();
    let gone = world.remove_secret("gone").unwrap_err();
    vec![no_id, changed, gone, in_use, in_use_twice]
}
