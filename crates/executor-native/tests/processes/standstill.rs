//! Agents and shims that stand still at a bad moment, as on a machine that is busy otherwise.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::time::Duration;

use swarm_api::prost_types;
use swarm_api::v1;

use crate::payloads;
use crate::world::{World, eventually, is_alive, pid_in, script, script_with, within};

#[tokio::test]
async fn a_start_spawns_its_shim_also_when_somebody_looked_at_the_task_just_then() {
    let world = World::new();
    let task = script("exec sleep 1000");
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    // As a start that was cut off, whose look at the task goes on.
    let looking = File::open(world.task_file(&task, "lock")).unwrap();
    looking.lock().unwrap();
    let look = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(looking);
    };
    let (started, ()) = within(async { tokio::join!(controller.start(), look) }).await;
    assert_eq!(started, Ok(()));
    within(controller.remove()).await.unwrap();
}

#[tokio::test]
async fn the_socket_of_a_shim_that_was_killed_at_once_is_in_nobodys_way() {
    let world = World::new();
    let task = script("exec sleep 1000");
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    // Its file stays, as when its process is killed.
    drop(UnixListener::bind(world.task_file(&task, "socket")).unwrap());
    assert_eq!(within(controller.start()).await, Ok(()));
    within(controller.remove()).await.unwrap();
}

#[tokio::test]
async fn a_check_that_passed_while_its_shim_waited_for_the_disk_has_passed() {
    let world = World::new();
    let (probe, go, say) = (world.file("probe"), world.file("go"), world.file("say"));
    let until = |path: &Path| format!("while [ ! -e {} ]; do sleep 0.01; done", path.display());
    let text = format!("{}; echo said; exec sleep 1000", until(&say));
    let test = format!("echo $$ > {}; {}", probe.display(), until(&go));
    let task = script_with(&text, |container| {
        let of = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        container.healthcheck = Some(v1::HealthConfig {
            test: vec!["CMD-SHELL".into(), test],
            interval: of(0, 20_000_000),
            timeout: of(4, 0),
            retries: 1,
            ..Default::default()
        });
    });
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    // Whoever opens it waits for somebody who reads.
    let disk = world.task_file(&task, "output.log");
    let made = std::process::Command::new("mkfifo").arg(&disk).status();
    assert!(made.unwrap().success());
    let stand_still = async {
        let pid = pid_in(&probe).await;
        std::fs::write(&say, "").unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        std::fs::write(&go, "").unwrap();
        eventually("the check passes", || (!is_alive(pid)).then_some(())).await;
        tokio::time::sleep(Duration::from_secs(4)).await;
        File::options().read(true).write(true).open(&disk).unwrap()
    };
    let (started, disk) = within(async { tokio::join!(controller.start(), stand_still) }).await;
    assert_eq!(started, Ok(()));
    within(controller.remove()).await.unwrap();
    drop(disk);
}

#[tokio::test]
async fn a_preparation_that_was_cut_off_before_it_did_anything_does_nothing_later() {
    let world = World::new();
    let task = script("exec sleep 1000");
    let controller = world.controller(&task).await;
    let directory = world.task_file(&task, "");
    std::fs::create_dir(&directory).unwrap();
    let others = File::create(world.task_file(&task, "lock")).unwrap();
    others.lock().unwrap();
    let patience = Duration::from_millis(100);
    let cut_off = tokio::time::timeout(patience, controller.prepare()).await;
    assert!(cut_off.is_err(), "{cut_off:?}");
    drop(others);
    within(controller.remove()).await.unwrap();
    tokio::time::sleep(patience).await;
    assert!(!directory.exists());
    // Nor does it keep another one from it.
    within(controller.prepare()).await.unwrap();
    within(controller.remove()).await.unwrap();
}

/// In a runtime of its own, whose end waits for what goes on behind operations that were cut off.
#[test]
fn a_removal_leaves_nothing_of_a_preparation_that_goes_on_although_it_was_cut_off() {
    let world = World::new();
    let (task, config) = payloads::task_with_long_template();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..8 {
        let (world, task, config) = (&world, &task, config.clone());
        runtime.block_on(async move {
            let controller = world.controller(task).await;
            controller.provide(config);
            // Cut off at various moments.
            let patience = Duration::from_millis(1 << round);
            let _cut_off = tokio::time::timeout(patience, controller.prepare()).await;
            within(controller.remove()).await.unwrap();
        });
    }
    drop(runtime);
    let left: Vec<_> = std::fs::read_dir(world.file("tasks")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    let left = payloads::in_memory(&task);
    assert!(left.is_empty(), "{left:?}");
}
