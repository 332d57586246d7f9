//! References to secrets and configs, and templates.

use super::*;

fn file(name: &str) -> v1::FileTarget {
    v1::FileTarget {
        name: name.into(),
        mode: 0o440,
        ..Default::default()
    }
}

fn secret(id: &str, file: v1::FileTarget) -> v1::SecretReference {
    v1::SecretReference {
        secret_id: id.into(),
        secret_name: id.into(),
        target: Some(v1::secret_reference::Target::File(file)),
    }
}

fn config(id: &str, file: v1::FileTarget) -> v1::ConfigReference {
    v1::ConfigReference {
        config_id: id.into(),
        config_name: id.into(),
        target: Some(v1::config_reference::Target::File(file)),
    }
}

fn judged(
    is_root: bool,
    secrets: Vec<v1::SecretReference>,
    configs: Vec<v1::ConfigReference>,
) -> Result<Plan, String> {
    let mut container = container();
    container.secrets = secrets;
    container.configs = configs;
    judge_on(&task(container), &FakeMachine { is_root })
}

#[test]
fn relative_targets_are_below_directories_that_the_environment_names() {
    let secrets = vec![secret("s", file("db")), secret("t", file("tls/key"))];
    let plan = judged(false, secrets, vec![config("c", file("site.conf"))]).unwrap();
    let paths: Vec<_> = plan.payloads.iter().map(|own| own.path.clone()).collect();
    assert_eq!(
        paths,
        ["secrets/db", "secrets/tls/key", "configs/site.conf"].map(PathBuf::from)
    );
    assert_eq!(plan.payload_dir, Some("/memory/t1".into()));
    assert_eq!(plan.launch.env["SWARM_SECRETS_DIR"], "/memory/t1/secrets");
    assert_eq!(
        plan.launch.env["CREDENTIALS_DIRECTORY"],
        "/memory/t1/secrets"
    );
    assert_eq!(plan.launch.env["SWARM_CONFIGS_DIR"], "/memory/t1/configs");
    assert!(plan.launch.binds.is_empty());
    assert!(plan.warnings[0].contains("same user can read"), "{plan:?}");
}

#[test]
fn an_agent_of_root_shows_secrets_where_docker_does_and_serves_absolute_targets() {
    let secrets = vec![secret("s", file("db")), secret("t", file("/etc/key"))];
    let plan = judged(true, secrets, Vec::new()).unwrap();
    assert_eq!(plan.launch.binds[0].target, PathBuf::from("/run/secrets"));
    assert!(plan.launch.binds[0].is_dir);
    assert_eq!(plan.launch.binds[1].target, PathBuf::from("/etc/key"));
    assert_eq!(
        plan.launch.binds[1].source,
        PathBuf::from("/memory/t1/elsewhere/1")
    );
    assert!(plan.warnings.is_empty());
    let only_absolute = judged(true, vec![secret("t", file("/etc/key"))], Vec::new()).unwrap();
    assert_eq!(only_absolute.launch.binds.len(), 1);
}

#[test]
fn a_task_without_references_gets_nothing() {
    let plan = judged(true, Vec::new(), Vec::new()).unwrap();
    assert_eq!(plan.payload_dir, None);
    assert!(plan.launch.binds.is_empty());
    assert!(!plan.launch.env.contains_key("SWARM_SECRETS_DIR"));
}

#[test]
fn targets_that_cannot_be_files_here_are_refused_by_name() {
    let with = |change: &dyn Fn(&mut v1::FileTarget)| {
        let mut file = file("db");
        change(&mut file);
        judged(false, vec![secret("s", file)], Vec::new()).unwrap_err()
    };
    for (error, wanted) in [
        (
            with(&|own| own.name = "../x".into()),
            "secret \"s\": \"../x\" is not the path of a file",
        ),
        (
            with(&|own| own.name = "a\0".into()),
            "is not the path of a file",
        ),
        (
            with(&|own| own.name = "/etc/x".into()),
            "only an agent of root",
        ),
        (
            with(&|own| own.mode = 0o4444),
            "mode 4444 has more than permissions",
        ),
        (
            with(&|own| own.uid = "root".into()),
            "uid \"root\" is not a number",
        ),
        (
            with(&|own| own.uid = "1".into()),
            "secret \"s\": it is not us",
        ),
    ] {
        assert!(error.contains(wanted), "{error}");
    }
    let for_runtime = v1::ConfigReference {
        target: Some(v1::config_reference::Target::Runtime(v1::RuntimeTarget {})),
        ..config("c", file("x"))
    };
    let error = judged(true, Vec::new(), vec![for_runtime]).unwrap_err();
    assert!(error.contains("no runtime here"), "{error}");
}

#[test]
fn a_file_cannot_be_a_directory_of_another_one() {
    let pair = |one: &str, two: &str| {
        judged(
            false,
            vec![secret("s", file(one)), secret("t", file(two))],
            Vec::new(),
        )
    };
    assert!(pair("a", "b").is_ok());
    assert!(
        pair("a", "a/b")
            .unwrap_err()
            .contains("cannot be a file and hold")
    );
    assert!(
        pair("a", "a")
            .unwrap_err()
            .contains("two have the same file")
    );
}

#[test]
fn the_environment_is_expanded_and_an_error_names_the_variable() {
    let plan = judge_with(|c| c.env = vec!["A={{.Node.Hostname}}-{{.Task.ID}}".into()]).unwrap();
    assert_eq!(plan.launch.env["A"], "host1-t1");
    let error = judge_with(|c| c.env = vec!["A={{.Nope}}".into()]).unwrap_err();
    assert!(error.starts_with("template env A:1:3: "), "{error}");
}
