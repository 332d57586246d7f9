//! Agents that come and go while tasks run.

use nix::sys::signal::Signal;
use swarm_executor::ExecError;

use crate::world::{World, eventually, exit_of, is_alive, kill, pid_in, script, within};

#[tokio::test]
async fn a_new_agent_takes_over_a_running_task() {
    let world = World::new();
    let (ready, go) = (world.file("ready"), world.file("go"));
    let task = script(&format!(
        "echo $$ > {}; while [ ! -e {} ]; do sleep 0.01; done; exit 6",
        ready.display(),
        go.display()
    ));
    let first = world.started(&task).await;
    let pid = pid_in(&ready).await;
    first.close().await.unwrap();
    drop(first);
    let recovery = world.recover(&[&task]).await;
    assert_eq!(recovery.running, [task.id.clone()].into());
    assert!(
        recovery.removed.is_empty() && recovery.failures.is_empty(),
        "{recovery:?}"
    );
    let second = world.controller(&task).await;
    assert_eq!(
        within(second.prepare()).await,
        Err(ExecError::AlreadyPrepared)
    );
    assert_eq!(within(second.start()).await, Err(ExecError::AlreadyStarted));
    assert_eq!(second.container_status().await.unwrap().unwrap().pid, pid);
    std::fs::write(go, "").unwrap();
    assert_eq!(exit_of(within(second.wait()).await).0, 6);
}

#[tokio::test]
async fn an_end_while_the_agent_was_away_is_not_lost() {
    let world = World::new();
    let go = world.file("go");
    let task = script(&format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exit 9",
        go.display()
    ));
    drop(world.started(&task).await);
    std::fs::write(go, "").unwrap();
    eventually("the end is recorded", || {
        world.task_file(&task, "exit.json").exists().then_some(())
    })
    .await;
    assert_eq!(world.recover(&[&task]).await.idle, [task.id.clone()].into());
    let second = world.controller(&task).await;
    assert_eq!(
        within(second.prepare()).await,
        Err(ExecError::AlreadyPrepared)
    );
    assert_eq!(within(second.start()).await, Err(ExecError::AlreadyStarted));
    assert_eq!(exit_of(within(second.wait()).await).0, 9);
}

#[tokio::test]
async fn a_shim_killed_while_the_agent_was_away_leaves_nothing_running() {
    let world = World::new();
    let (main, child) = (world.file("main"), world.file("child"));
    let task = script(&format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 1000' & echo $$ > {}; wait",
        child.display(),
        main.display()
    ));
    drop(world.started(&task).await);
    let pids = [pid_in(&main).await, pid_in(&child).await];
    let shim = world.shim_record(&task)["shim"]["pid"].as_i64().unwrap();
    let shim = i32::try_from(shim).unwrap();
    kill(shim, Signal::SIGKILL);
    eventually("the shim is dead", || (!is_alive(shim)).then_some(())).await;
    assert_eq!(world.recover(&[&task]).await.idle, [task.id.clone()].into());
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
    let second = world.controller(&task).await;
    assert_eq!(exit_of(within(second.wait()).await).0, 137);
}

/// Forked twice, in a session of its own and without the environment of the task: nothing but its
/// limits tells whose it is where there are no control groups.
#[tokio::test]
async fn a_daemon_without_environment_does_not_outlive_its_killed_shim() {
    let world = World::new();
    let daemon = world.file("daemon");
    let task = script(&format!(
        "(setsid env -i /bin/sh -c 'echo $$ > {}; exec sleep 1000' &); exec sleep 1000",
        daemon.display()
    ));
    drop(world.started(&task).await);
    let pid = pid_in(&daemon).await;
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let locks = limits
        .lines()
        .find(|line| line.starts_with("Max file locks"));
    assert!(!locks.unwrap().contains("unlimited"), "{limits}");
    let shim = world.shim_record(&task)["shim"]["pid"].as_i64().unwrap();
    let shim = i32::try_from(shim).unwrap();
    kill(shim, Signal::SIGKILL);
    eventually("the shim is dead", || (!is_alive(shim)).then_some(())).await;
    world.recover(&[&task]).await;
    assert!(!is_alive(pid));
}

#[tokio::test]
async fn orphans_are_stopped_and_removed_and_known_tasks_kept() {
    let world = World::new();
    let nap = |name: &str| {
        script(&format!(
            "echo $$ > {}; exec sleep 1000",
            world.file(name).display()
        ))
    };
    let (known, orphan, ended) = (nap("known"), nap("orphan"), script("true"));
    drop(world.started(&known).await);
    drop(world.started(&orphan).await);
    within(world.started(&ended).await.wait()).await.unwrap();
    let known_pid = pid_in(&world.file("known")).await;
    let orphan_pid = pid_in(&world.file("orphan")).await;
    std::fs::create_dir(world.file("tasks/half-prepared")).unwrap();
    let recovery = world.recover(&[&known]).await;
    assert!(recovery.failures.is_empty(), "{recovery:?}");
    assert_eq!(recovery.running, [known.id.clone()].into());
    let half = "half-prepared".parse().unwrap();
    assert_eq!(
        recovery.removed,
        [orphan.id.clone(), ended.id.clone(), half].into()
    );
    assert!(is_alive(known_pid));
    assert!(!is_alive(orphan_pid));
    let left: Vec<_> = std::fs::read_dir(world.file("tasks")).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    within(world.controller(&known).await.remove())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_process_with_a_recycled_id_is_left_alone() {
    let world = World::new();
    let task = script("exec sleep 1000");
    drop(world.started(&task).await);
    let mut record = world.shim_record(&task);
    let shim = i32::try_from(record["shim"]["pid"].as_i64().unwrap()).unwrap();
    kill(shim, Signal::SIGKILL);
    eventually("the shim is dead", || (!is_alive(shim)).then_some(())).await;
    // As if the ids of shim and task now belonged to somebody else: this very test.
    let me = i64::from(std::process::id());
    for role in ["shim", "main"] {
        record[role] = serde_json::json!({ "pid": me, "start": 1 });
    }
    std::fs::write(world.task_file(&task, "shim.json"), record.to_string()).unwrap();
    let recovery = world.recover(&[]).await;
    assert_eq!(recovery.removed, [task.id.clone()].into(), "{recovery:?}");
}

#[tokio::test]
async fn a_start_that_was_cancelled_and_repeated_runs_the_program_once() {
    let world = World::new();
    for round in 0..5 {
        let runs = world.file(&format!("runs{round}"));
        let text = format!("echo run >> {}; exec sleep 1000", runs.display());
        let task = script(&text);
        let controller = world.controller(&task).await;
        within(controller.prepare()).await.unwrap();
        // Cut off at various moments.
        let patience = std::time::Duration::from_millis(round * 2);
        let _cut_off = tokio::time::timeout(patience, controller.start()).await;
        match within(controller.start()).await {
            Ok(()) | Err(ExecError::AlreadyStarted) => {}
            Err(error) => panic!("round {round}: {error}"),
        }
        // Not only the file, which is there before its text.
        eventually("it runs", || {
            std::fs::read(&runs).ok().filter(|text| !text.is_empty())
        })
        .await;
        within(controller.remove()).await.unwrap();
        assert_eq!(
            std::fs::read_to_string(runs).unwrap(),
            "run\n",
            "round {round}"
        );
    }
}

#[tokio::test]
async fn a_shim_waits_long_for_an_agent_that_looks_and_leaves_to_another_shim_what_that_runs() {
    let world = World::new();
    let task = script("exec sleep 1000");
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let shim = || {
        let mut command = std::process::Command::new(world.config().shim_program);
        command.arg(world.task_file(&task, "")).spawn().unwrap()
    };
    let looking = std::fs::File::open(world.task_file(&task, "lock")).unwrap();
    looking.lock().unwrap();
    let mut first = shim();
    // As an agent on a machine that is busy with other things.
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    drop(looking);
    let record = world.task_file(&task, "shim.json");
    eventually("the shim goes on", || record.exists().then_some(())).await;
    assert_eq!(
        within(controller.start()).await,
        Err(ExecError::AlreadyStarted)
    );
    let mut second = shim();
    eventually("the second shim leaves", || second.try_wait().unwrap()).await;
    assert_eq!(first.try_wait().unwrap(), None);
    within(controller.remove()).await.unwrap();
    eventually("the first shim has ended", || first.try_wait().unwrap()).await;
}

#[tokio::test]
async fn a_removal_during_a_start_leaves_nothing_running() {
    let world = World::new();
    for round in 0..8 {
        let task = script("exec sleep 1000");
        let controller = world.controller(&task).await;
        within(controller.prepare()).await.unwrap();
        let patience = std::time::Duration::from_millis(round);
        let _cut_off = tokio::time::timeout(patience, controller.start()).await;
        within(controller.remove()).await.unwrap();
        assert!(!world.task_file(&task, "").exists());
        let cookie = format!("SWARM_TASK_ID={}", task.id);
        eventually("nothing runs", || {
            (!any_process_with(&cookie)).then_some(())
        })
        .await;
    }
}

fn any_process_with(entry: &str) -> bool {
    std::fs::read_dir("/proc").unwrap().any(|process| {
        let environ = process.unwrap().path().join("environ");
        let text = std::fs::read(environ).unwrap_or_default();
        text.split(|byte| *byte == 0)
            .any(|found| found == entry.as_bytes())
    })
}
