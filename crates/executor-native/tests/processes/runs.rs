//! Tasks that run and end by themselves, and specs that never run.

use std::sync::Arc;

use swarm_api::v1;
use swarm_executor::{ErrorClass, ExecError, Executor, Operation, Report};

use crate::world::{World, eventually, exit_of, script, script_with, within};

#[tokio::test]
async fn a_program_runs_and_its_output_is_captured_by_stream() {
    let world = World::new();
    let task = script("echo out; echo err >&2; printf last");
    let controller = world.started(&task).await;
    within(controller.wait()).await.unwrap();
    let mut output = world.output(&task);
    output.sort();
    assert_eq!(output, ["stderr F err", "stdout F last", "stdout F out"]);
    let status = controller.container_status().await.unwrap().unwrap();
    assert!(status.pid > 0);
    assert_eq!(
        (status.container_id, status.exit_code),
        (task.id.to_string(), 0)
    );
    assert!(
        controller.warnings().is_empty(),
        "{:?}",
        controller.warnings()
    );
}

#[tokio::test]
async fn output_without_a_line_end_is_captured_while_the_task_runs() {
    let world = World::new();
    let go = world.file("go");
    let task = script(&format!(
        "printf 'name: '; while [ ! -e {} ]; do sleep 0.01; done; echo me",
        go.display()
    ));
    let controller = world.started(&task).await;
    let begun = eventually("a part of a line", || {
        world.output(&task).into_iter().next()
    });
    assert_eq!(begun.await, "stdout P name: ");
    std::fs::write(&go, "").unwrap();
    within(controller.wait()).await.unwrap();
    assert_eq!(world.output(&task), ["stdout P name: ", "stdout F me"]);
}

#[tokio::test]
async fn exit_codes_and_signals_are_told() {
    let world = World::new();
    let controller = world.started(&script("exit 7")).await;
    assert_eq!(
        exit_of(within(controller.wait()).await),
        (7, false, String::new())
    );
    assert_eq!(
        controller
            .container_status()
            .await
            .unwrap()
            .unwrap()
            .exit_code,
        7
    );
    within(controller.remove()).await.unwrap();
    let controller = world.started(&script("kill -KILL $$")).await;
    let (code, oom, message) = exit_of(within(controller.wait()).await);
    assert_eq!(
        (code, oom, message.as_str()),
        (137, false, "ended by SIGKILL")
    );
}

#[tokio::test]
async fn environment_directory_and_descriptors_are_clean() {
    let world = World::new();
    let task = script_with(
        "pwd; env | sort; readlink /proc/self/fd/0; cat /proc/self/status",
        |c| {
            c.dir = "/usr".into();
            c.env = vec!["MINE=1".into()];
        },
    );
    let controller = world.started(&task).await;
    within(controller.wait()).await.unwrap();
    let output = world.output(&task);
    assert_eq!(output[0], "stdout F /usr");
    assert!(output.contains(&"stdout F MINE=1".to_owned()), "{output:?}");
    assert!(output.contains(&format!("stdout F SWARM_TASK_ID={}", task.id)));
    assert!(output.contains(&"stdout F /dev/null".to_owned()));
    assert!(
        !output.iter().any(|line| line.contains("CARGO")),
        "{output:?}"
    );
    // The shim's own blocked signals must not reach the program.
    assert!(
        output.contains(&"stdout F SigBlk:\t0000000000000000".to_owned()),
        "{output:?}"
    );
    // Nor must its deafness to broken pipes, which is Rust's default.
    let ignored = output
        .iter()
        .find_map(|line| line.strip_prefix("stdout F SigIgn:\t"))
        .unwrap();
    let ignored = u64::from_str_radix(ignored, 16).unwrap();
    let pipe = 1 << (nix::sys::signal::Signal::SIGPIPE as i32 - 1);
    assert_eq!(ignored & pipe, 0, "{output:?}");
}

#[tokio::test]
async fn only_the_three_standard_descriptors_are_open() {
    let world = World::new();
    let task = script("ls /proc/$$/fd");
    within(world.started(&task).await.wait()).await.unwrap();
    assert_eq!(
        world.output(&task),
        ["stdout F 0", "stdout F 1", "stdout F 2"]
    );
}

#[tokio::test]
async fn a_task_leads_a_session_of_its_own() {
    let world = World::new();
    let task = script("cut -d' ' -f1,5,6 /proc/$$/stat");
    within(world.started(&task).await.wait()).await.unwrap();
    let line = world.output(&task).remove(0);
    let ids: Vec<&str> = line.strip_prefix("stdout F ").unwrap().split(' ').collect();
    assert!(ids[0] == ids[1] && ids[1] == ids[2], "{line}");
}

#[tokio::test]
async fn repeated_operations_say_so() {
    let world = World::new();
    let task = script("exec sleep 1000");
    let controller = world.started(&task).await;
    assert_eq!(
        within(controller.prepare()).await,
        Err(ExecError::AlreadyPrepared)
    );
    assert_eq!(
        within(controller.start()).await,
        Err(ExecError::AlreadyStarted)
    );
    within(controller.remove()).await.unwrap();
    within(controller.remove()).await.unwrap();
    controller.close().await.unwrap();
    assert_eq!(
        within(controller.start()).await,
        Err(ExecError::ControllerClosed)
    );
}

#[tokio::test]
async fn operations_out_of_order_are_refused() {
    let world = World::new();
    let task = script("echo ran");
    let controller = world.controller(&task).await;
    assert_eq!(
        controller.start().await.unwrap_err().class(),
        ErrorClass::Fatal
    );
    assert_eq!(
        controller.wait().await.unwrap_err().class(),
        ErrorClass::Fatal
    );
    assert_eq!(controller.container_status().await, Ok(None));
    within(controller.prepare()).await.unwrap();
    assert_eq!(
        controller.wait().await.unwrap_err().class(),
        ErrorClass::Fatal
    );
    within(controller.shutdown()).await.unwrap();
    // Stopped before it started: it must not run any more.
    assert_eq!(
        within(controller.start()).await,
        Err(ExecError::AlreadyStarted)
    );
    assert_eq!(within(controller.wait()).await, Ok(()));
    assert!(world.output(&task).is_empty());
}

#[tokio::test]
async fn a_program_that_does_not_exist_fails_the_start_with_its_name() {
    let world = World::new();
    let task = script_with("", |c| c.command = vec!["no-such-program".into()]);
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let (code, _, message) = exit_of(within(controller.start()).await);
    assert_eq!(code, 127);
    assert!(
        message.contains("cannot execute \"no-such-program\""),
        "{message}"
    );
    within(controller.remove()).await.unwrap();
    let task = script_with("", |c| c.command = vec!["/etc/passwd".into()]);
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let (code, _, message) = exit_of(within(controller.start()).await);
    assert_eq!(code, 126, "{message}");
    within(controller.remove()).await.unwrap();
    let task = script_with("true", |c| c.dir = "/no/such/dir".into());
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let (_, _, message) = exit_of(within(controller.start()).await);
    assert!(message.contains("/no/such/dir"), "{message}");
}

#[tokio::test]
async fn a_spec_that_cannot_be_honoured_is_rejected_and_leaves_nothing() {
    let world = World::new();
    let task = script_with("true", |c| {
        c.image = "nginx:latest".into();
        c.tty = true;
    });
    let controller = world.controller(&task).await;
    let error = within(controller.prepare()).await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::Fatal);
    let text = error.to_string();
    assert!(
        text.contains("image: \"nginx:latest\"") && text.contains("tty: "),
        "{text}"
    );
    assert!(!world.task_file(&task, "").exists());
}

#[tokio::test]
async fn a_missing_shim_program_is_named() {
    let world = World::new();
    let mut config = world.config();
    config.shim_program = "/no/such/shim".into();
    let executor = swarm_executor_native::NativeExecutor::new(config).unwrap();
    let controller = executor.controller(script("true")).await.unwrap();
    within(controller.prepare()).await.unwrap();
    let error = within(controller.start()).await.unwrap_err().to_string();
    assert!(error.contains("/no/such/shim"), "{error}");
}

#[tokio::test]
async fn task_ids_that_would_leave_the_directory_are_refused() {
    let world = World::new();
    for id in ["../x", "a/b", ".", "a b"] {
        let mut task = Arc::unwrap_or_clone(script("true"));
        task.id = id.parse().unwrap();
        let task = Arc::new(task);
        assert!(world.executor().controller(task).await.is_err(), "{id}");
    }
}

#[tokio::test]
async fn ports_in_host_mode_are_chosen_passed_on_and_reported() {
    let world = World::new();
    let mut task = Arc::unwrap_or_clone(script("echo $SWARM_PORT_80 $SWARM_PORT_81"));
    let port = |target_port, published_port| v1::PortConfig {
        target_port,
        published_port,
        publish_mode: 1,
        ..Default::default()
    };
    let ports = vec![port(80, 0), port(81, 4567)];
    task.endpoint = Some(Arc::new(v1::Endpoint {
        ports,
        ..Default::default()
    }));
    let task = Arc::new(task);
    let controller = world.started(&task).await;
    let report = within(Report::of(&*controller, Operation::Wait, task.clone())).await;
    report.result.unwrap();
    let ports = report.ports.unwrap().ports;
    let chosen = ports[0].published_port;
    assert_ne!(chosen, 0);
    assert_eq!(ports[1].published_port, 4567);
    assert_eq!(world.output(&task), [format!("stdout F {chosen} 4567")]);
}

#[tokio::test]
async fn the_node_is_described_from_its_own_facts_and_the_configuration() {
    let world = World::new();
    let description = world.executor().describe().await.unwrap();
    assert!(!description.hostname.is_empty());
    let resources = description.resources.unwrap();
    assert!(resources.nano_cpus >= 1_000_000_000);
    assert!(resources.memory_bytes > 1 << 20);
    assert_eq!(description.platform.unwrap().os, "linux");
    assert!(
        description
            .engine
            .unwrap()
            .engine_version
            .starts_with("swarmkit-rs ")
    );
    let config = swarm_executor_native::NativeConfig {
        hostname: Some("node-7".into()),
        nano_cpus: Some(5),
        memory_bytes: Some(6),
        ..world.config()
    };
    let executor = swarm_executor_native::NativeExecutor::new(config).unwrap();
    let description = executor.describe().await.unwrap();
    assert_eq!(description.hostname, "node-7");
    let resources = description.resources.unwrap();
    assert_eq!((resources.nano_cpus, resources.memory_bytes), (5, 6));
}

#[tokio::test]
async fn output_rotates_and_stays_within_its_bound() {
    let world = World::new();
    let mut config = world.config();
    config.log_file_bytes_max = 4096;
    config.log_files_max = 2;
    let executor = swarm_executor_native::NativeExecutor::new(config).unwrap();
    let task = script("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done");
    let controller = executor.controller(task.clone()).await.unwrap();
    within(controller.prepare()).await.unwrap();
    within(controller.start()).await.unwrap();
    within(controller.wait()).await.unwrap();
    assert_eq!(world.output(&task).last().unwrap(), "stdout F line 1999");
    assert!(world.task_file(&task, "output.log.1").exists());
    assert!(!world.task_file(&task, "output.log.2").exists());
}

#[tokio::test]
async fn a_long_state_directory_does_not_break_the_socket() {
    let world = World::new();
    let root = world.file(&format!("{}/{}", "d".repeat(120), "e".repeat(120)));
    let config = swarm_executor_native::NativeConfig {
        root,
        ..world.config()
    };
    let executor = swarm_executor_native::NativeExecutor::new(config).unwrap();
    let controller = executor
        .controller(script("exec sleep 1000"))
        .await
        .unwrap();
    within(controller.prepare()).await.unwrap();
    within(controller.start()).await.unwrap();
    within(controller.remove()).await.unwrap();
}
