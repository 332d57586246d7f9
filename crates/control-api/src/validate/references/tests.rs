use super::*;
use crate::refusal::Rule;

type Target = v1::config_reference::Target;

fn file(name: &str) -> v1::FileTarget {
    v1::FileTarget {
        name: name.to_owned(),
        ..Default::default()
    }
}

fn secret(id: &str, name: &str, target: Option<&str>) -> v1::SecretReference {
    v1::SecretReference {
        secret_id: id.to_owned(),
        secret_name: name.to_owned(),
        target: target.map(|name| v1::secret_reference::Target::File(file(name))),
    }
}

fn config(id: &str, name: &str, target: Option<Target>) -> v1::ConfigReference {
    v1::ConfigReference {
        config_id: id.to_owned(),
        config_name: name.to_owned(),
        target,
    }
}

fn in_file(name: &str) -> Option<Target> {
    Some(Target::File(file(name)))
}

fn for_runtime() -> Option<Target> {
    Some(Target::Runtime(v1::RuntimeTarget {}))
}

fn secrets(secrets: Vec<v1::SecretReference>) -> Option<Rule> {
    let container = v1::ContainerSpec {
        secrets,
        ..Default::default()
    };
    check_secrets(&container)
        .err()
        .map(|refusal| refusal.rule())
}

fn configs(configs: Vec<v1::ConfigReference>, credentials: Option<Source>) -> Option<Rule> {
    let container = v1::ContainerSpec {
        configs,
        privileges: Some(v1::Privileges {
            credential_spec: Some(v1::privileges::CredentialSpec {
                source: credentials,
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    check_configs(&container)
        .err()
        .map(|refusal| refusal.rule())
}

#[test]
fn a_secret_has_an_id_a_name_and_a_file() {
    assert_eq!(secrets(vec![secret("i", "n", Some("f"))]), None);
    assert_eq!(
        secrets(vec![secret("", "n", Some("f"))]),
        Some(SECRET_MALFORMED)
    );
    assert_eq!(
        secrets(vec![secret("i", "", Some("f"))]),
        Some(SECRET_MALFORMED)
    );
    assert_eq!(
        secrets(vec![secret("i", "n", None)]),
        Some(SECRET_NO_TARGET)
    );
    assert_eq!(
        secrets(vec![secret("i", "n", Some(""))]),
        Some(SECRET_NO_FILE)
    );
}

#[test]
fn two_secrets_cannot_have_one_file() {
    let pair = |first, second| {
        secrets(vec![
            secret("1", "a", Some(first)),
            secret("2", "b", Some(second)),
        ])
    };
    assert_eq!(pair("f", "g"), None);
    assert_eq!(pair("f", "f"), Some(SECRET_COLLISION));
}

#[test]
fn a_config_has_an_id_a_name_and_a_target() {
    let one = |config| configs(vec![config], None);
    assert_eq!(one(config("i", "n", in_file("f"))), None);
    assert_eq!(one(config("i", "n", for_runtime())), None);
    assert_eq!(one(config("", "n", in_file("f"))), Some(CONFIG_MALFORMED));
    assert_eq!(one(config("i", "", in_file("f"))), Some(CONFIG_MALFORMED));
    assert_eq!(one(config("i", "n", None)), Some(CONFIG_NO_TARGET));
    assert_eq!(one(config("i", "n", in_file(""))), Some(CONFIG_NO_FILE));
}

#[test]
fn two_configs_cannot_have_one_file() {
    let pair = |second| {
        configs(
            vec![config("1", "a", in_file("f")), config("2", "b", second)],
            None,
        )
    };
    assert_eq!(pair(in_file("g")), None);
    assert_eq!(pair(for_runtime()), None);
    assert_eq!(pair(in_file("f")), Some(CONFIG_COLLISION));
}

#[test]
fn the_config_of_the_credentials_must_be_for_the_runtime() {
    let credentials = || Some(Source::Config("c".to_owned()));
    let one = |target, credentials| configs(vec![config("c", "n", target)], credentials);
    assert_eq!(one(for_runtime(), credentials()), None);
    assert_eq!(one(in_file("f"), credentials()), Some(CREDENTIAL_CONFIG));
    assert_eq!(configs(Vec::new(), credentials()), Some(CREDENTIAL_CONFIG));
    assert_eq!(
        configs(Vec::new(), Some(Source::Config(String::new()))),
        None
    );
    assert_eq!(
        configs(Vec::new(), Some(Source::File("f".to_owned()))),
        None
    );
    assert_eq!(configs(Vec::new(), None), None);
}
