use super::*;
use crate::tests::world::{World, id, secret_spec};

fn stored<'a>(world: &'a World, secret: &v1::Secret) -> &'a Secret {
    world.root.get::<Secret>(&id(&secret.id)).unwrap()
}

fn data(secret: &v1::Secret) -> &[u8] {
    &secret.spec.as_ref().unwrap().data
}

#[test]
fn no_answer_holds_the_data_and_the_store_does() {
    let mut world = World::new();
    let created = world.create_secret(secret_spec("db")).unwrap();
    assert_eq!(data(&created), b"");
    assert_eq!(&stored(&world, &created).spec.data[..], b"hush");
    let secret_id = created.id.clone();
    let got = get_secret(&world.root, v1::GetSecretRequest { secret_id }).unwrap();
    assert_eq!(got.secret.unwrap(), created);
    let list = list_secrets(&world.root, v1::ListSecretsRequest::default()).unwrap();
    assert_eq!(list.secrets, [created]);
}

#[test]
fn sizes_are_allowed_up_to_the_limit() {
    let mut world = World::new();
    let mut create = |bytes: usize| {
        let mut spec = secret_spec(&format!("s{bytes}"));
        spec.data = vec![0; bytes].into();
        world.create_secret(spec).is_ok()
    };
    assert_eq!(
        [0, 1, 511_999, 512_000].map(&mut create),
        [false, true, true, false]
    );
}

#[test]
fn an_update_replaces_the_labels_and_keeps_the_data() {
    let mut world = World::new();
    let created = world.create_secret(secret_spec("db")).unwrap();
    // As a client sends back what it got.
    let mut spec = created.spec.clone().unwrap();
    let labels = &mut spec.annotations.as_mut().unwrap().labels;
    labels.insert("a".to_owned(), "1".to_owned());
    let updated = world.update_secret(&created.id, spec.clone()).unwrap();
    assert_eq!(data(&updated), b"");
    assert_eq!(updated.spec.unwrap().annotations, spec.annotations);
    assert_eq!(&stored(&world, &created).spec.data[..], b"hush");
    // With the data repeated.
    spec.data = b"hush".to_vec().into();
    assert!(world.update_secret(&created.id, spec).is_ok());
}

#[test]
fn nothing_but_labels_can_change() {
    let mut world = World::new();
    let created = world.create_secret(secret_spec("db")).unwrap();
    let driver = || Some(v1::Driver::default());
    let with_data = v1::SecretSpec {
        data: b"HUSH".to_vec().into(),
        ..secret_spec("db")
    };
    let changes = [("name", secret_spec("other")), ("data", with_data)];
    for (part, spec) in changes {
        let refusal = world.update_secret(&created.id, spec).unwrap_err();
        let text = refusal.message();
        assert!(
            text.starts_with("only updates to Labels are allowed"),
            "{text}"
        );
        assert!(text.contains(part), "{text}");
        assert!(!text.contains("hush"), "{text}");
    }
    let with_driver = v1::SecretSpec {
        driver: driver(),
        ..secret_spec("db")
    };
    assert!(world.update_secret(&created.id, with_driver).is_err());
    let with_templating = v1::SecretSpec {
        templating: driver(),
        ..secret_spec("db")
    };
    assert!(world.update_secret(&created.id, with_templating).is_err());
}

#[test]
fn updates_without_a_spec_or_with_a_stale_version_are_refused() {
    let mut world = World::new();
    let created = world.create_secret(secret_spec("db")).unwrap();
    let mut update = |index: u64, spec| {
        let request = v1::UpdateSecretRequest {
            secret_id: created.id.clone(),
            secret_version: Some(v1::Version { index }),
            spec,
        };
        let refusal = world.write(|root, _| update_secret(root, request));
        refusal.unwrap_err().message().to_owned()
    };
    assert_eq!(update(1, None), "invalid argument");
    assert_eq!(update(0, Some(secret_spec("db"))), "update out of sequence");
}

#[test]
fn internal_secrets_are_not_listed() {
    let mut world = World::new();
    let mut secret = Secret::new(id("internal"), secret_spec("db"));
    secret.internal = true;
    world.put(secret);
    let list = list_secrets(&world.root, v1::ListSecretsRequest::default()).unwrap();
    assert!(list.secrets.is_empty());
}

#[test]
fn a_removed_secret_is_gone_and_an_unknown_one_is_not_found() {
    let mut world = World::new();
    let created = world.create_secret(secret_spec("db")).unwrap();
    world.remove_secret(&created.id).unwrap();
    let refusal = world.remove_secret(&created.id).unwrap_err();
    assert_eq!(refusal.code(), crate::Code::NotFound);
    assert_eq!(
        refusal.message(),
        format!("could not find secret {}", created.id)
    );
    // The name is free again.
    assert!(world.create_secret(secret_spec("db")).is_ok());
}

#[test]
fn a_secret_with_a_driver_has_no_data_and_needs_the_driver_only_to_be_created() {
    let mut world = World::new();
    let driven = |name: &str| v1::SecretSpec {
        data: Default::default(),
        driver: Some(v1::Driver {
            name: name.to_owned(),
            ..Default::default()
        }),
        ..secret_spec("db")
    };
    assert!(world.create_secret(driven("none")).is_err());
    let created = world.create_secret(driven("vault")).unwrap();
    // The labels can change wherever the driver is.
    assert!(world.update_secret(&created.id, driven("vault")).is_ok());
    assert!(world.update_secret(&created.id, driven("other")).is_err());
}
