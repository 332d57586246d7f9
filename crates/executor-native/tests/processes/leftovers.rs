//! Tasks whose state directory was wiped or moved away.

use std::path::Path;

use nix::sys::signal::Signal;
use swarm_executor::Executor;
use swarm_executor_native::{NativeConfig, NativeExecutor};

use crate::world::{World, eventually, is_alive, kill, pid_in, script, within};

async fn gone(what: &str, pid: i32) {
    eventually(what, || (!is_alive(pid)).then_some(())).await;
}

/// An agent on a directory that is at another place now.
fn agent_at(world: &World, root: &Path) -> NativeExecutor {
    let config = NativeConfig {
        root: root.to_owned(),
        ..world.config()
    };
    NativeExecutor::new(config).unwrap()
}

#[tokio::test]
async fn what_ran_under_a_wiped_directory_is_stopped_by_its_own_signal() {
    let (world, notes) = (World::new(), World::new());
    let (main, said) = (notes.file("main"), notes.file("said"));
    let task = script(&format!(
        "trap 'echo stopped > {}; exit 0' TERM; echo $$ > {}; while :; do sleep 0.01; done",
        said.display(),
        main.display()
    ));
    let other = World::new();
    let others_pid = other.file("main");
    let others = script(&format!(
        "echo $$ > {}; exec sleep 1000",
        others_pid.display()
    ));
    drop(world.started(&task).await);
    drop(other.started(&others).await);
    let (pid, others_pid) = (pid_in(&main).await, pid_in(&others_pid).await);
    let shim = i32::try_from(world.shim_record(&task)["shim"]["pid"].as_i64().unwrap()).unwrap();
    std::fs::remove_dir_all(world.file("tasks")).unwrap();

    let recovery = world.recover(&[]).await;
    assert_eq!(recovery.failures, Vec::<String>::new());
    let [told] = &recovery.leftovers[..] else {
        panic!("{recovery:?}");
    };
    assert!(told.contains("was deleted"), "{told}");
    assert!(told.contains(&task.id.to_string()), "{told}");
    gone("the task", pid).await;
    gone("its shim", shim).await;
    assert_eq!(std::fs::read_to_string(said).unwrap(), "stopped\n");
    assert!(is_alive(others_pid), "that of another directory runs on");
    assert_eq!(world.recover(&[]).await.leftovers, Vec::<String>::new());
    within(other.controller(&others).await.remove())
        .await
        .unwrap();
}

#[tokio::test]
async fn what_ran_under_a_directory_that_was_moved_away_is_stopped_unless_an_agent_has_it() {
    let (world, notes) = (World::new(), World::new());
    let main = notes.file("main");
    let task = script(&format!("echo $$ > {}; exec sleep 1000", main.display()));
    drop(world.started(&task).await);
    let pid = pid_in(&main).await;
    let moved = notes.file("moved");
    std::fs::create_dir(&moved).unwrap();
    std::fs::rename(world.file("tasks"), moved.join("tasks")).unwrap();

    let agent = agent_at(&world, &moved);
    let kept = within(agent.recover(&[task.id.clone()].into()))
        .await
        .unwrap();
    assert_eq!(kept.running, [task.id.clone()].into());
    assert_eq!(world.recover(&[]).await.leftovers, Vec::<String>::new());
    assert!(is_alive(pid), "the agent at the other place has it");
    drop(agent);

    let recovery = world.recover(&[]).await;
    let told = recovery.leftovers.join("\n");
    assert!(
        told.contains(&format!("was moved to {}", moved.display())),
        "{told}"
    );
    gone("the task", pid).await;
}

#[tokio::test]
async fn processes_without_directory_and_shim_are_killed() {
    let (world, notes) = (World::new(), World::new());
    let (main, child) = (notes.file("main"), notes.file("child"));
    let task = script(&format!(
        "setsid sh -c 'echo $$ > {}; exec sleep 1000' & echo $$ > {}; wait",
        child.display(),
        main.display()
    ));
    drop(world.started(&task).await);
    let pids = [pid_in(&main).await, pid_in(&child).await];
    let shim = i32::try_from(world.shim_record(&task)["shim"]["pid"].as_i64().unwrap()).unwrap();
    kill(shim, Signal::SIGKILL);
    gone("the shim", shim).await;
    std::fs::remove_dir_all(world.file("tasks")).unwrap();
    let recovery = world.recover(&[]).await;
    let told = recovery.leftovers.join("\n");
    assert!(
        told.contains("ended what was left of 1 tasks"),
        "{recovery:?}"
    );
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn tasks_that_nobody_knows_yet_can_be_kept_and_discarded() {
    let world = World::new();
    let nap = |name: &str| {
        let file = world.file(name);
        script(&format!("echo $$ > {}; exec sleep 1000", file.display()))
    };
    let (kept, dropped) = (nap("kept"), nap("dropped"));
    drop(world.started(&kept).await);
    drop(world.started(&dropped).await);
    let pids = (
        pid_in(&world.file("kept")).await,
        pid_in(&world.file("dropped")).await,
    );
    let executor = world.executor();
    let present = within(executor.present()).await.unwrap();
    assert_eq!(present, [kept.id.clone(), dropped.id.clone()].into());
    let recovery = within(executor.recover(&present)).await.unwrap();
    assert_eq!(recovery.running, present);
    let discarded = [dropped.id.clone()].into();
    let recovery = within(executor.discard(&discarded)).await.unwrap();
    assert_eq!(recovery.removed, discarded);
    assert_eq!((is_alive(pids.0), is_alive(pids.1)), (true, false));
    within(world.controller(&kept).await.remove())
        .await
        .unwrap();
}
