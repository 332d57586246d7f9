//! Health checks with real commands.

use std::sync::Arc;

use swarm_api::prost_types;
use swarm_api::v1;
use swarm_types::Task;

use crate::world::{World, exit_of, is_alive, pid_in, script_with, within};

/// A task with a health check every 20 ms.
fn checked(text: &str, test: &[&str], retries: i32) -> Arc<Task> {
    let millis = |millis: i32| {
        Some(prost_types::Duration {
            seconds: 0,
            nanos: millis * 1_000_000,
        })
    };
    script_with(text, |c| {
        c.healthcheck = Some(v1::HealthConfig {
            test: test.iter().map(|word| (*word).to_owned()).collect(),
            interval: millis(20),
            timeout: Some(prost_types::Duration {
                seconds: 20,
                nanos: 0,
            }),
            retries,
            ..Default::default()
        });
    })
}

#[tokio::test]
async fn start_waits_until_the_task_is_healthy() {
    let world = World::new();
    let up = world.file("up");
    let test = format!("test -e {}", up.display());
    let task = checked("exec sleep 1000", &["CMD-SHELL", &test], 10_000);
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let start = tokio::spawn({
        let controller = controller.clone();
        async move { controller.start().await }
    });
    crate::world::eventually("it runs", || {
        world.task_file(&task, "shim.json").exists().then_some(())
    })
    .await;
    // Not a proof that it waits, but a start that does not wait fails here now and then.
    let early = tokio::time::timeout(std::time::Duration::from_millis(200), async {
        while !start.is_finished() {
            tokio::task::yield_now().await;
        }
    });
    assert!(early.await.is_err(), "the start must wait for the check");
    std::fs::write(up, "").unwrap();
    within(start).await.unwrap().unwrap();
    within(controller.remove()).await.unwrap();
}

#[tokio::test]
async fn an_unhealthy_task_fails_its_start_and_ends() {
    let world = World::new();
    let ready = world.file("ready");
    let text = format!("echo $$ > {}; exec sleep 1000", ready.display());
    let task = checked(&text, &["CMD-SHELL", "echo not well; exit 2"], 2);
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let (_, _, message) = exit_of(within(controller.start()).await);
    let expected = "unhealthy container: 2 health checks failed: exit code 2: not well";
    assert_eq!(message, expected);
    assert!(!is_alive(pid_in(&ready).await));
}

#[tokio::test]
async fn a_task_that_becomes_unhealthy_fails_its_wait() {
    let world = World::new();
    let bad = world.file("bad");
    let path = bad.display().to_string();
    let task = checked("exec sleep 1000", &["CMD", "test", "!", "-e", &path], 1);
    let controller = world.started(&task).await;
    std::fs::write(bad, "").unwrap();
    let (code, _, message) = exit_of(within(controller.wait()).await);
    assert_eq!(code, 143);
    assert!(
        message.starts_with("unhealthy container: 1 health checks failed"),
        "{message}"
    );
}

#[tokio::test]
async fn a_check_that_hangs_is_killed_and_counts_as_a_failure() {
    let world = World::new();
    let probe = world.file("probe");
    let test = format!("echo $$ > {}; exec sleep 1000", probe.display());
    let mut task = Arc::unwrap_or_clone(checked("exec sleep 1000", &["CMD-SHELL", &test], 1));
    let spec = Arc::make_mut(&mut task.spec);
    if let Some(v1::task_spec::Runtime::Container(container)) = &mut spec.runtime {
        container.healthcheck.as_mut().unwrap().timeout = Some(prost_types::Duration {
            seconds: 0,
            nanos: 300_000_000,
        });
    }
    let task = Arc::new(task);
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let (_, _, message) = exit_of(within(controller.start()).await);
    assert!(message.ends_with("no answer within 300ms"), "{message}");
    assert!(!is_alive(pid_in(&probe).await));
}

#[tokio::test]
async fn a_check_that_cannot_run_is_a_failure_with_its_code() {
    let world = World::new();
    let task = checked("exec sleep 1000", &["CMD", "no-such-check"], 1);
    let controller = world.controller(&task).await;
    within(controller.prepare()).await.unwrap();
    let (_, _, message) = exit_of(within(controller.start()).await);
    assert!(message.ends_with("exit code 127"), "{message}");
}

#[tokio::test]
async fn a_program_that_ends_before_it_is_healthy_reports_its_own_end() {
    let world = World::new();
    let task = checked("exit 8", &["CMD", "false"], 10_000);
    let controller = world.started(&task).await;
    assert_eq!(exit_of(within(controller.wait()).await).0, 8);
}
