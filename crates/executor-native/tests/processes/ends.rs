//! Ends on request, and the end of everything a task started.

use nix::sys::signal::Signal;
use swarm_api::prost_types;
use swarm_executor::ErrorClass;

use crate::world::{
    World, eventually, exit_of, is_alive, kill, pid_in, script, script_with, within,
};

#[tokio::test]
async fn shutdown_sends_the_stop_signal_and_lets_the_task_end_itself() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!(
        "trap 'echo bye; exit 3' USR1; echo $$ > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let task = script_with(&text, |c| c.stop_signal = "SIGUSR1".into());
    let controller = world.started(&task).await;
    let pid = pid_in(&ready).await;
    within(controller.shutdown()).await.unwrap();
    assert!(!is_alive(pid));
    assert_eq!(world.output(&task).last().unwrap(), "stdout F bye");
    let (code, _, message) = exit_of(within(controller.wait()).await);
    assert_eq!((code, message.as_str()), (3, "it was asked to stop"));
}

#[tokio::test]
async fn a_real_time_signal_stops_a_task() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!(
        "trap 'exit 3' 37; echo $$ > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let task = script_with(&text, |c| c.stop_signal = "SIGRTMIN+3".into());
    let controller = world.started(&task).await;
    pid_in(&ready).await;
    within(controller.shutdown()).await.unwrap();
    let (code, _, message) = exit_of(within(controller.wait()).await);
    assert_eq!((code, message.as_str()), (3, "it was asked to stop"));
}

#[tokio::test]
async fn a_task_that_ignores_its_stop_signal_is_killed_after_the_grace_period() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!(
        "trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let task = script_with(&text, |c| {
        c.stop_grace_period = Some(prost_types::Duration {
            seconds: 0,
            nanos: 200_000_000,
        });
    });
    let controller = world.started(&task).await;
    let pid = pid_in(&ready).await;
    within(controller.shutdown()).await.unwrap();
    assert!(!is_alive(pid));
    assert_eq!(
        controller
            .container_status()
            .await
            .unwrap()
            .unwrap()
            .exit_code,
        137
    );
}

#[tokio::test]
async fn terminate_does_not_wait_for_the_grace_period() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!(
        "trap '' TERM; echo $$ > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let task = script_with(&text, |c| {
        c.stop_grace_period = Some(prost_types::Duration {
            seconds: 3600,
            nanos: 0,
        });
    });
    let controller = world.started(&task).await;
    let pid = pid_in(&ready).await;
    within(controller.terminate()).await.unwrap();
    assert!(!is_alive(pid));
    within(controller.remove()).await.unwrap();
    assert!(!world.task_file(&task, "").exists());
}

/// A script that leaves a child, a child in another session, and an orphan of an orphan, each
/// writing its pid, and then runs `rest`.
fn with_descendants(world: &World, rest: &str) -> String {
    let file = |name: &str| world.file(name).display().to_string();
    let nap = "exec sleep 1000";
    format!(
        "sh -c 'echo $$ > {}; {nap}' & setsid sh -c 'echo $$ > {}; {nap}' & \
         (setsid sh -c '(sh -c \"echo \\$\\$ > {}; {nap}\") & exit' &) ; {rest}",
        file("child"),
        file("session"),
        file("orphan"),
    )
}

async fn descendants(world: &World) -> Vec<i32> {
    let mut pids = Vec::new();
    for name in ["child", "session", "orphan"] {
        pids.push(pid_in(&world.file(name)).await);
    }
    pids
}

#[tokio::test]
async fn all_descendants_end_with_the_first_process() {
    let world = World::new();
    let go = world.file("go");
    let rest = format!(
        "while [ ! -e {} ]; do sleep 0.01; done; exit 4",
        go.display()
    );
    let task = script(&with_descendants(&world, &rest));
    let controller = world.started(&task).await;
    let pids = descendants(&world).await;
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    std::fs::write(go, "").unwrap();
    assert_eq!(exit_of(within(controller.wait()).await).0, 4);
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn all_descendants_end_with_a_shutdown() {
    let world = World::new();
    let task = script(&with_descendants(&world, "wait"));
    let controller = world.started(&task).await;
    let pids = descendants(&world).await;
    within(controller.shutdown()).await.unwrap();
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn a_killed_shim_ends_its_task_which_is_reported() {
    let world = World::new();
    let main = world.file("main");
    let rest = format!("echo $$ > {}; wait", main.display());
    let task = script(&with_descendants(&world, &rest));
    let controller = world.started(&task).await;
    let mut pids = descendants(&world).await;
    pids.push(pid_in(&main).await);
    let shim = world.shim_record(&task)["shim"]["pid"].as_i64().unwrap();
    let waiting = tokio::spawn({
        let controller = controller.clone();
        async move { controller.wait().await }
    });
    kill(i32::try_from(shim).unwrap(), Signal::SIGKILL);
    let (code, _, message) = exit_of(within(waiting).await.unwrap());
    assert_eq!(code, 137);
    assert!(message.contains("shim was killed"), "{message}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)));
}

#[tokio::test]
async fn a_shim_that_is_asked_to_end_ends_its_task_in_order() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!(
        "trap 'exit 5' TERM; echo $$ > {}; while :; do sleep 0.01; done",
        ready.display()
    );
    let task = script(&text);
    let controller = world.started(&task).await;
    pid_in(&ready).await;
    let shim = world.shim_record(&task)["shim"]["pid"].as_i64().unwrap();
    kill(i32::try_from(shim).unwrap(), Signal::SIGTERM);
    assert_eq!(exit_of(within(controller.wait()).await).0, 5);
}

#[tokio::test]
async fn a_stopped_shim_does_not_keep_its_task_from_ending() {
    let world = World::new();
    let task = script_with("exec sleep 1000", |c| {
        c.stop_grace_period = Some(prost_types::Duration {
            seconds: 0,
            nanos: 1_000_000,
        });
    });
    let controller = world.started(&task).await;
    let record = world.shim_record(&task);
    let shim = i32::try_from(record["shim"]["pid"].as_i64().unwrap()).unwrap();
    kill(shim, Signal::SIGSTOP);
    // Two attempts of 20 s each at a shim that never answers, then it is killed.
    within(controller.remove()).await.unwrap();
    assert!(!is_alive(shim));
    assert!(!is_alive(
        i32::try_from(record["main"]["pid"].as_i64().unwrap()).unwrap()
    ));
}

#[tokio::test]
async fn garbage_on_the_socket_does_not_disturb_the_task() {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;
    let world = World::new();
    let task = script("exec sleep 1000");
    let controller = world.started(&task).await;
    let path = world.task_file(&task, "socket");
    let garbage: [&[u8]; 5] = [
        b"\xff\xfe\x00\n",
        b"STOP\n",
        b"stop please\n",
        &[b'x'; 10_000],
        b"\n\n\n",
    ];
    for bytes in garbage {
        let mut stream = UnixStream::connect(&path).unwrap();
        stream
            .set_read_timeout(Some(crate::world::DEADLINE))
            .unwrap();
        let _may_be_closed_early = stream.write_all(bytes);
        let mut answer = Vec::new();
        // Ends because the shim drops the client; a timeout would be an error of another kind.
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
        }
    }
    // More clients than there is room for, silent and half a word.
    let mut crowd: Vec<UnixStream> = (0..40)
        .map(|_| UnixStream::connect(&path).unwrap())
        .collect();
    for stream in &mut crowd {
        let _may_be_turned_away = stream.write_all(b"sto");
    }
    drop(crowd);
    let status = controller.container_status().await.unwrap().unwrap();
    assert!(is_alive(status.pid));
    within(controller.shutdown()).await.unwrap();
    assert!(!is_alive(status.pid));
}

#[tokio::test]
async fn a_damaged_plan_fails_the_task_with_the_file_named() {
    let world = World::new();
    let task = script("true");
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    std::fs::write(world.task_file(&task, "plan.json"), b"{ garbage").unwrap();
    let error = within(controller.start()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    assert!(
        error.to_string().contains("plan.json is damaged"),
        "{error}"
    );
}

#[tokio::test]
async fn ended_shims_are_reaped() {
    let world = World::new();
    let executor = world.executor();
    let task = script("true");
    let controller = swarm_executor::Executor::controller(&executor, task.clone())
        .await
        .unwrap();
    within(controller.prepare()).await.unwrap();
    within(controller.start()).await.unwrap();
    within(controller.wait()).await.unwrap();
    let shim = world.shim_record(&task)["shim"]["pid"].as_i64().unwrap();
    // A shim ends a moment after its record of the end; removing waits for that moment.
    within(controller.remove()).await.unwrap();
    eventually("the shim is reaped", || {
        let gone = !std::path::Path::new(&format!("/proc/{shim}")).exists();
        if !gone {
            // Any operation reaps.
            drop(tokio::task::spawn({
                let controller = controller.clone();
                async move { controller.remove().await }
            }));
        }
        gone.then_some(())
    })
    .await;
}
