//! Limits: by setrlimit always, by control groups where this machine permits.

use std::sync::Arc;

use swarm_api::v1;
use swarm_types::Task;

use crate::world::{World, exit_of, script, script_with, within};

fn with_limits(task: Arc<Task>, nano_cpus: i64, memory_bytes: i64) -> Arc<Task> {
    let mut task = Arc::unwrap_or_clone(task);
    let limits = Some(v1::Resources {
        nano_cpus,
        memory_bytes,
        generic: Vec::new(),
    });
    Arc::make_mut(&mut task.spec).resources = Some(v1::ResourceRequirements {
        limits,
        ..Default::default()
    });
    Arc::new(task)
}

/// Prints why a test does not apply here, so that a green run says what it left out.
fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
}

#[tokio::test]
async fn ulimits_and_privileges_reach_the_program() {
    let world = World::new();
    let task = script_with("ulimit -n; grep NoNewPrivs /proc/self/status", |c| {
        c.ulimits = vec![v1::container_spec::Ulimit {
            name: "nofile".into(),
            soft: 77,
            hard: 88,
        }];
        c.privileges = Some(v1::Privileges {
            no_new_privileges: true,
            ..Default::default()
        });
    });
    within(world.started(&task).await.wait()).await.unwrap();
    assert_eq!(
        world.output(&task),
        ["stdout F 77", "stdout F NoNewPrivs:\t1"]
    );
}

#[tokio::test]
async fn the_out_of_memory_score_reaches_the_program() {
    let world = World::new();
    let task = script_with("cat /proc/self/oom_score_adj", |c| c.oom_score_adj = 500);
    within(world.started(&task).await.wait()).await.unwrap();
    assert_eq!(world.output(&task), ["stdout F 500"]);
}

#[tokio::test]
async fn another_user_runs_the_program_when_the_agent_is_root() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become somebody else");
    }
    let world = World::new();
    let task = script_with("id -u; id -g; id -G; echo $HOME", |c| {
        c.user = "65534:1234".into();
        c.groups = vec!["77".into()];
    });
    within(world.started(&task).await.wait()).await.unwrap();
    let output = world.output(&task);
    assert_eq!(output[..2], ["stdout F 65534", "stdout F 1234"]);
    let mut groups: Vec<&str> = output[2]
        .strip_prefix("stdout F ")
        .unwrap()
        .split(' ')
        .collect();
    groups.sort_unstable();
    assert_eq!(groups, ["1234", "77"]);
}

#[tokio::test]
async fn a_killed_shim_takes_a_task_of_another_user_with_it() {
    if !nix::unistd::geteuid().is_root() {
        return skip("only root can become somebody else");
    }
    let world = World::new();
    let task = script_with("exec sleep 1000", |c| c.user = "65534".into());
    let controller = world.started(&task).await;
    let record = world.shim_record(&task);
    let pid = |role: &str| i32::try_from(record[role]["pid"].as_i64().unwrap()).unwrap();
    crate::world::kill(pid("shim"), nix::sys::signal::Signal::SIGKILL);
    // By the kernel: no agent looks yet.
    crate::world::eventually("the program ends", || {
        (!crate::world::is_alive(pid("main"))).then_some(())
    })
    .await;
    assert_eq!(exit_of(within(controller.wait()).await).0, 137);
}

#[tokio::test]
async fn too_much_memory_ends_the_task_with_the_reason() {
    let world = World::new();
    // A shell that doubles a string until there is no room.
    let task = with_limits(
        script("x=0123456789; while :; do x=$x$x; done"),
        0,
        16 << 20,
    );
    let controller = world.started(&task).await;
    if !controller.warnings().is_empty() {
        within(controller.remove()).await.unwrap();
        return skip(&controller.warnings().join("; "));
    }
    let (code, oom, _) = exit_of(within(controller.wait()).await);
    assert_eq!((code, oom), (137, true));
    let error = within(controller.wait()).await.unwrap_err().to_string();
    assert!(error.contains("out of memory"), "{error}");
}

#[tokio::test]
async fn processors_and_processes_are_limited_and_the_groups_go_with_the_task() {
    let world = World::new();
    let mut task = Arc::unwrap_or_clone(with_limits(script("exec sleep 1000"), 500_000_000, 0));
    if let Some(v1::task_spec::Runtime::Container(container)) =
        &mut Arc::make_mut(&mut task.spec).runtime
    {
        container.pids_limit = 7;
    }
    let task = Arc::new(task);
    let controller = world.started(&task).await;
    if !controller.warnings().is_empty() {
        within(controller.remove()).await.unwrap();
        return skip(&controller.warnings().join("; "));
    }
    let record = world.shim_record(&task);
    let groups: Vec<std::path::PathBuf> = record["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["dir"].as_str().unwrap().into())
        .collect();
    let read = |file: &str| {
        let found = groups
            .iter()
            .find_map(|group| std::fs::read_to_string(group.join(file)).ok());
        found.map(|text| text.trim().to_owned())
    };
    assert_eq!(read("pids.max").as_deref(), Some("7"));
    let quota = read("cpu.cfs_quota_us").or_else(|| read("cpu.max"));
    assert!(
        matches!(quota.as_deref(), Some("50000" | "50000 100000")),
        "{quota:?}"
    );
    within(controller.shutdown()).await.unwrap();
    assert!(!groups.iter().any(|group| group.exists()), "{groups:?}");
    within(controller.remove()).await.unwrap();
}
