//! Secrets and configs as a real process finds them, and that nothing of them stays.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::sys::signal::Signal;
use swarm_api::v1;
use swarm_executor::{Controller, Dependencies, ErrorClass, ExecError};
use swarm_types::Task;

use crate::world::{World, eventually, exit_of, kill, pid_in, script_with, within};

/// What must not be found anywhere, and how the test scripts print it.
const HUSH: &str = "hushhushsecret";
const HUSH_SHIFTED: &str = "ivtiivtitfdsfu";

fn file(name: &str, mode: u32) -> v1::FileTarget {
    v1::FileTarget {
        name: name.into(),
        mode,
        ..Default::default()
    }
}

fn secret_in(target: v1::FileTarget) -> v1::SecretReference {
    v1::SecretReference {
        secret_id: "s".into(),
        secret_name: "db".into(),
        target: Some(v1::secret_reference::Target::File(target)),
    }
}

fn config_in(target: v1::FileTarget) -> v1::ConfigReference {
    v1::ConfigReference {
        config_id: "c".into(),
        config_name: "site".into(),
        target: Some(v1::config_reference::Target::File(target)),
    }
}

/// A task with the secret in the file `db`, and a config that uses it in the file `site`.
fn task(text: &str, change: impl FnOnce(&mut v1::ContainerSpec)) -> Arc<Task> {
    script_with(text, |container| {
        container.secrets.push(secret_in(file("db", 0o400)));
        container.configs.push(config_in(file("site", 0o444)));
        change(container);
    })
}

fn dependencies(task: &Task) -> Dependencies {
    let annotations = |name: &str| {
        Some(v1::Annotations {
            name: name.into(),
            ..Default::default()
        })
    };
    let secret = v1::SecretSpec {
        annotations: annotations("db"),
        data: HUSH.into(),
        ..Default::default()
    };
    let secret = Arc::new(v1::Secret {
        spec: Some(secret),
        ..Default::default()
    });
    let config = v1::ConfigSpec {
        annotations: annotations("site"),
        data: "{{.Task.ID}} {{len (secret \"db\")}}".into(),
        templating: Some(v1::Driver {
            name: "golang".into(),
            ..Default::default()
        }),
    };
    let config = Arc::new(v1::Config {
        spec: Some(config),
        ..Default::default()
    });
    Dependencies::of(
        task,
        |id| (id == "s").then(|| Arc::clone(&secret)),
        |id| (id == "c").then(|| Arc::clone(&config)),
    )
}

/// A task with one config, a template that takes a while to be expanded; and that config.
pub(crate) fn task_with_long_template() -> (Arc<Task>, Dependencies) {
    let task = script_with("exec sleep 1000", |container| {
        container.configs.push(config_in(file("site", 0o444)));
    });
    let config = Arc::new(v1::Config {
        spec: Some(v1::ConfigSpec {
            data: "{{.Task.ID}}".repeat(20_000).into(),
            templating: Some(v1::Driver {
                name: "golang".into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    });
    let dependencies = Dependencies::of(&task, |_| None, |_| Some(Arc::clone(&config)));
    (task, dependencies)
}

/// Directories of a task on the file systems in memory, of any executor.
pub(crate) fn in_memory(task: &Task) -> Vec<PathBuf> {
    let user = format!("/run/user/{}", nix::unistd::geteuid());
    let places = ["/run", &user, "/dev/shm"].map(std::fs::read_dir);
    let places = places.into_iter().flatten().flatten().flatten();
    let directories = places.map(|place| place.path().join(task.id.to_string()));
    directories.filter(|path| path.exists()).collect()
}

async fn prepared(world: &World, task: &Arc<Task>) -> Arc<dyn Controller> {
    let controller = world.controller(task).await;
    controller.provide(dependencies(task));
    within(controller.prepare()).await.unwrap();
    controller
}

/// The task's directory in memory, from its plan.
fn payload_dir(world: &World, task: &Task) -> PathBuf {
    let text = std::fs::read_to_string(world.task_file(task, "plan.json")).unwrap();
    let plan: serde_json::Value = serde_json::from_str(&text).unwrap();
    plan["payload_dir"].as_str().unwrap().into()
}

/// Whether a file below the directory holds the secret.
fn holds_secret(directory: &Path) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return holds_secret(&path);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes
            .windows(HUSH.len())
            .any(|part| part == HUSH.as_bytes())
    })
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[tokio::test]
async fn a_task_reads_its_files_and_nothing_of_them_reaches_a_disk_or_stays() {
    let world = World::new();
    let text = "tr a-z b-za < $SWARM_SECRETS_DIR/db; echo; cat $SWARM_CONFIGS_DIR/site; echo
                stat -c %a $SWARM_SECRETS_DIR/db $SWARM_CONFIGS_DIR/site
                test $CREDENTIALS_DIRECTORY = $SWARM_SECRETS_DIR && echo same
                stat -f -c %T $SWARM_SECRETS_DIR";
    let task = task(text, |_| {});
    let controller = prepared(&world, &task).await;
    let directory = payload_dir(&world, &task);
    assert!(directory.join("secrets/db").exists());
    assert!(!holds_secret(&world.file("")), "before the start");
    within(controller.start()).await.unwrap();
    within(controller.wait()).await.unwrap();
    let length = HUSH.len();
    let wanted = [
        HUSH_SHIFTED.to_owned(),
        format!("{} {length}", task.id),
        "400".to_owned(),
        "444".to_owned(),
        "same".to_owned(),
        "tmpfs".to_owned(),
    ];
    let wanted: Vec<_> = wanted
        .iter()
        .map(|line| format!("stdout F {line}"))
        .collect();
    assert_eq!(world.output(&task), wanted);
    assert!(!directory.exists(), "gone with the end of the task");
    assert!(!directory.parent().unwrap().exists(), "it was the only one");
    assert!(!holds_secret(&world.file("")), "after the end");
    assert!(!format!("{controller:?}", controller = controller.warnings()).contains(HUSH));
}

#[tokio::test]
async fn a_task_waits_for_a_secret_that_has_not_come() {
    let world = World::new();
    let task = task("true", |_| {});
    let controller = world.controller(&task).await;
    controller.provide(Dependencies::of(&task, |_| None, |_| None));
    let error = within(controller.prepare()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Retry, "{error}");
    assert!(
        error.to_string().contains("secret s has not come"),
        "{error}"
    );
    controller.provide(dependencies(&task));
    within(controller.prepare()).await.unwrap();
    let again = within(controller.prepare()).await;
    assert_eq!(again, Err(ExecError::AlreadyPrepared));
    within(controller.remove()).await.unwrap();
}

#[tokio::test]
async fn the_files_belong_to_the_user_of_the_task() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let text = "id -un; tr a-z b-za < /run/secrets/db; echo; stat -c %U $SWARM_SECRETS_DIR/db
                (echo x > $SWARM_SECRETS_DIR/new) 2>/dev/null || echo sealed
                rm -f /run/secrets/db 2>/dev/null || echo kept";
    let task = task(text, |container| container.user = "nobody".into());
    let controller = prepared(&world, &task).await;
    let directory = payload_dir(&world, &task);
    let mode = |path: &str| {
        let found = std::fs::metadata(directory.join(path)).unwrap();
        found.permissions().mode() & 0o777
    };
    assert_eq!(
        (mode(""), mode("secrets"), mode("secrets/db")),
        (0o500, 0o500, 0o400)
    );
    within(controller.start()).await.unwrap();
    within(controller.wait()).await.unwrap();
    let shifted = format!("stdout F {HUSH_SHIFTED}");
    let output = world.output(&task);
    let output: Vec<_> = output
        .iter()
        .filter(|line| line.starts_with("stdout"))
        .collect();
    assert_eq!(
        output,
        [
            "stdout F nobody",
            &shifted,
            "stdout F nobody",
            "stdout F sealed",
            "stdout F kept"
        ]
    );
}

#[tokio::test]
async fn an_absolute_target_is_seen_by_the_task_alone() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let place = world.file("place");
    std::fs::write(&place, "of the node").unwrap();
    let path = place.display().to_string();
    let task = task(&format!("tr a-z b-za < {path}"), |container| {
        container.secrets = vec![secret_in(file(&path, 0o444))];
        container.configs.clear();
    });
    let controller = prepared(&world, &task).await;
    within(controller.start()).await.unwrap();
    within(controller.wait()).await.unwrap();
    assert_eq!(world.output(&task), [format!("stdout F {HUSH_SHIFTED}")]);
    assert_eq!(std::fs::read_to_string(&place).unwrap(), "of the node");
}

#[tokio::test]
async fn an_absolute_target_that_is_not_there_is_made_and_stays_empty() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let place = world.file("etc").join("below").join("site.conf");
    let path = place.display().to_string();
    let task = task(&format!("tr a-z b-za < {path}"), |container| {
        container.secrets = vec![secret_in(file(&path, 0o444))];
        container.configs.clear();
    });
    let controller = prepared(&world, &task).await;
    within(controller.start()).await.unwrap();
    within(controller.wait()).await.unwrap();
    assert_eq!(world.output(&task), [format!("stdout F {HUSH_SHIFTED}")]);
    assert_eq!(std::fs::read(&place).unwrap(), b"");
}

#[tokio::test]
async fn an_absolute_target_that_is_no_file_is_refused_with_the_way_out() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let place = world.file("directory");
    std::fs::create_dir(&place).unwrap();
    let path = place.display().to_string();
    let task = task("true", |container| {
        container.secrets = vec![secret_in(file(&path, 0o444))];
        container.configs.clear();
    });
    let controller = prepared(&world, &task).await;
    let (_, _, message) = exit_of(within(controller.start()).await);
    assert!(message.contains("use another target"), "{message}");
    assert!(!payload_dir(&world, &task).exists());
}

#[tokio::test]
async fn a_task_that_was_never_started_leaves_nothing_when_it_is_removed() {
    let world = World::new();
    let task = task("true", |_| {});
    let controller = prepared(&world, &task).await;
    let directory = payload_dir(&world, &task);
    within(controller.remove()).await.unwrap();
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_killed_shim_leaves_nothing_once_somebody_looks() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!("echo $$ > {}; sleep 1000", ready.display());
    let task = task(&text, |_| {});
    let controller = prepared(&world, &task).await;
    within(controller.start()).await.unwrap();
    let directory = payload_dir(&world, &task);
    pid_in(&ready).await;
    let shim = world.shim_record(&task)["shim"]["pid"].as_i64().unwrap();
    kill(i32::try_from(shim).unwrap(), Signal::SIGKILL);
    exit_of(within(controller.wait()).await);
    assert!(!directory.exists());
}

#[tokio::test]
async fn recovery_removes_what_nobody_knows_and_keeps_the_rest() {
    let world = World::new();
    let (known, unknown) = (task("true", |_| {}), task("true", |_| {}));
    prepared(&world, &known).await;
    prepared(&world, &unknown).await;
    let directories = [&known, &unknown].map(|task| payload_dir(&world, task));
    let recovery = world.recover(&[&known]).await;
    assert_eq!(recovery.failures, Vec::<String>::new());
    assert_eq!(
        directories.each_ref().map(|path| path.exists()),
        [true, false]
    );
    let controller = world.controller(&known).await;
    within(controller.start()).await.unwrap();
    eventually("the end", || (!directories[0].exists()).then_some(())).await;
}

#[tokio::test]
async fn a_task_whose_files_are_gone_does_not_start_without_them() {
    let world = World::new();
    let task = task("true", |_| {});
    let controller = prepared(&world, &task).await;
    // As after a restart of the node.
    let directory = payload_dir(&world, &task);
    std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::set_permissions(
        directory.join("secrets"),
        std::fs::Permissions::from_mode(0o700),
    )
    .unwrap();
    std::fs::remove_file(directory.join("secrets/db")).unwrap();
    let (_, _, message) = exit_of(within(controller.start()).await);
    assert!(
        message.contains("the file of secret s is gone"),
        "{message}"
    );
}
