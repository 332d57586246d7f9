//! The built program against a manager by script: what it prints where, and its exit codes.

#![allow(clippy::unwrap_used)]

mod fake;
mod logs;
mod nouns;
mod unwritten;

use std::future::Future;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use fake::{Fake, Running, Script};
use swarm_api::v1;
use tonic::Status;

/// Longest time for a test; all of them take a few seconds at most.
const DEADLINE: Duration = Duration::from_secs(60);

/// Runs a test with the deadline.
fn test(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let ended = runtime.block_on(async { tokio::time::timeout(DEADLINE, test).await });
    ended.expect("the test ends before its deadline");
}

fn command(running: &Running, words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_swarmctl"));
    command
        .arg("--socket")
        .arg(running.socket())
        .args(words)
        .stdin(Stdio::null());
    command
}

async fn swarmctl(running: &Running, words: &[&str]) -> Output {
    let mut command = command(running, words);
    let output = tokio::task::spawn_blocking(move || command.output());
    output.await.unwrap().unwrap()
}

/// Exit code, stdout, stderr.
fn parts(output: &Output) -> (i32, &str, &str) {
    (
        output.status.code().unwrap(),
        std::str::from_utf8(&output.stdout).unwrap(),
        std::str::from_utf8(&output.stderr).unwrap(),
    )
}

fn task(id: &str, state: v1::TaskState, desired: v1::TaskState, err: &str) -> v1::Task {
    v1::Task {
        id: id.to_owned(),
        slot: 1,
        service_id: "service-1".to_owned(),
        desired_state: desired as i32,
        status: Some(v1::TaskStatus {
            state: state as i32,
            err: err.to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn running_task(id: &str) -> v1::Task {
    task(id, v1::TaskState::Running, v1::TaskState::Running, "")
}

fn pending() -> v1::Task {
    task(
        "t1",
        v1::TaskState::Pending,
        v1::TaskState::Running,
        "no suitable node",
    )
}

const CREATE: [&str; 7] = [
    "service",
    "create",
    "--name",
    "web",
    "--monitor",
    "0s",
    "--timeout",
];

fn create<'a>(timeout: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut words = CREATE.to_vec();
    words.push(timeout);
    words.extend(more);
    words.extend(["--", "sleep", "1"]);
    words
}

#[test]
fn a_service_that_converges_is_0_and_only_its_id_is_on_stdout() {
    test(async {
        let script: Script = vec![
            Ok(vec![]),
            Ok(vec![pending()]),
            Ok(vec![running_task("t1")]),
        ];
        let running = Fake::start(script).await;
        let output = swarmctl(&running, &create("30s", &[])).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (0, "service-1\n"), "{stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "web: 0/1 running",
                "web: 0/1 running, 1 pending",
                "web: 1/1 running"
            ]
        );
        assert!(
            lines[3].starts_with("web: 1/1 running, converged after "),
            "{stderr}"
        );
        let sent = running
            .fake
            .with(|state| state.services[0].spec.clone())
            .unwrap();
        let task = sent.task.unwrap();
        let container = swarm_types::spec::container(&task).unwrap();
        assert_eq!(
            (container.image.as_str(), container.args.len()),
            ("host", 2)
        );
    });
}

#[test]
fn tasks_that_do_not_keep_running_are_not_converged() {
    test(async {
        let failed = task("t1", v1::TaskState::Failed, v1::TaskState::Shutdown, "boom");
        let next = task("t2", v1::TaskState::Ready, v1::TaskState::Ready, "");
        let script = vec![
            Ok(vec![running_task("t1")]),
            Ok(vec![failed.clone(), next]),
            Ok(vec![failed, running_task("t2")]),
        ];
        let running = Fake::start(script).await;
        let words = [
            "service",
            "create",
            "--name",
            "web",
            "--monitor",
            "700ms",
            "--",
            "sleep",
            "1",
        ];
        let output = swarmctl(&running, &words).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 0, "{stderr}");
        let lines: Vec<&str> = stderr.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "web: 1/1 running",
                "web: 0/1 running, 1 ready",
                "web: 1/1 running"
            ]
        );
    });
}

#[test]
fn a_service_that_takes_too_long_is_4_with_the_reason_and_stays() {
    test(async {
        let running = Fake::start(vec![Ok(vec![pending()])]).await;
        let output = swarmctl(&running, &create("900ms", &[])).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (4, "service-1\n"), "{stderr}");
        let end: Vec<&str> = stderr.lines().rev().take(3).collect();
        assert_eq!(
            end,
            [
                "hint: the service stays; `swarmctl service rm web` removes it",
                "hint: `swarmctl why web` says why it is where it is",
                "swarmctl: service \"web\" did not converge within 900 ms \
                 (0/1 running, 1 pending): no suitable node",
            ]
        );
        assert_eq!(
            running.fake.with(|state| state.changes.clone()),
            ["create_service"]
        );
    });
}

#[test]
fn a_service_that_is_stuck_shows_the_manager_s_explanation() {
    test(async {
        let running = Fake::start(vec![Ok(vec![pending()])]).await;
        let output = swarmctl(&running, &create("3s", &[])).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 4, "{stderr}");
        let line = "web: 0/1 running, 1 pending; the explanation of the manager\n";
        assert!(stderr.contains(line), "{stderr}");
    });
}

#[test]
fn a_service_that_gives_up_is_5_with_its_last_error() {
    test(async {
        let mut failed = task("t1", v1::TaskState::Failed, v1::TaskState::Shutdown, "boom");
        failed.spec.get_or_insert_default().restart = Some(v1::RestartPolicy::default());
        let running = Fake::start(vec![Ok(vec![failed])]).await;
        let output = swarmctl(&running, &create("30s", &["--restart-condition", "none"])).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 5, "{stderr}");
        assert!(
            stderr.contains(
                "swarmctl: service \"web\" failed to converge (0/1 running, 1 given up): \
                 replica 1 is failed (boom) and its restart policy allows no more attempts\n"
            ),
            "{stderr}"
        );
    });
}

#[test]
fn a_service_that_is_removed_meanwhile_is_5() {
    test(async {
        let running = Fake::start(vec![Ok(vec![pending()])]).await;
        running.fake.with(|state| state.vanishes_after = Some(2));
        let output = swarmctl(&running, &create("30s", &[])).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 5, "{stderr}");
        assert!(stderr.contains(": it was removed\n"), "{stderr}");
    });
}

#[test]
fn a_manager_that_is_away_for_a_while_does_not_end_the_wait() {
    test(async {
        let away = || Err(Status::unavailable("the manager restarts"));
        let script = vec![
            Ok(vec![pending()]),
            away(),
            away(),
            Ok(vec![running_task("t1")]),
        ];
        let running = Fake::start(script).await;
        let output = swarmctl(&running, &create("30s", &[])).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains("; the manager restarts\n"), "{stderr}");
    });
}

#[test]
fn a_refused_request_is_1_and_waits_for_nothing() {
    test(async {
        let running = Fake::start(vec![]).await;
        let refusal = Status::already_exists("name conflicts with an existing object");
        running.fake.with(|state| state.refusal = Some(refusal));
        let output = swarmctl(&running, &create("30s", &[])).await;
        let expected = "swarmctl: name conflicts with an existing object\n";
        assert_eq!(parts(&output), (1, "", expected));
    });
}

#[test]
fn a_wrong_line_is_2_and_nothing_is_sent() {
    test(async {
        let running = Fake::start(vec![]).await;
        for words in [
            create("soon", &[]),
            create("30s", &["--add-capability", "CAP_NET_RAW"]),
            create("30s", &["--ports", "80"]),
            create("30s", &["--mode", "global", "--replicas", "2"]),
            vec!["service", "create", "--name", "web"],
            vec!["service", "update", "web", "--name", "other"],
        ] {
            let output = swarmctl(&running, &words).await;
            let (code, stdout, stderr) = parts(&output);
            assert_eq!((code, stdout), (2, ""), "{words:?}: {stderr}");
            assert!(!stderr.is_empty(), "{words:?}");
        }
        assert!(running.fake.with(|state| state.changes.is_empty()));
    });
}

#[test]
fn ctrl_c_during_the_wait_is_130_and_the_service_stays() {
    test(async {
        let running = Fake::start(vec![Ok(vec![pending()])]).await;
        let child = command(&running, &create("30s", &[]))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        running.fake.polled(1).await;
        let id = child.id().to_string();
        let signalled = Command::new("kill").args(["-INT", &id]).status();
        assert!(signalled.unwrap().success());
        let output = tokio::task::spawn_blocking(move || child.wait_with_output());
        let output = output.await.unwrap().unwrap();
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (130, "service-1\n"), "{stderr}");
        assert!(
            stderr.contains("stays, only the wait was interrupted"),
            "{stderr}"
        );
        assert_eq!(
            running.fake.with(|state| state.changes.clone()),
            ["create_service"]
        );
    });
}

#[test]
fn detached_it_returns_at_once() {
    test(async {
        let running = Fake::start(vec![Ok(vec![pending()])]).await;
        let output = swarmctl(&running, &create("30s", &["--detach"])).await;
        assert_eq!(parts(&output), (0, "service-1\n", ""));
    });
}

#[test]
fn an_update_is_sent_with_the_version_seen_and_waited_for() {
    test(async {
        let both = vec![running_task("t1"), {
            let mut second = running_task("t2");
            second.slot = 2;
            second
        }];
        let running = Fake::start(vec![Ok(vec![running_task("t1")]), Ok(both)]).await;
        swarmctl(&running, &create("30s", &["--detach"])).await;
        let words = [
            "service",
            "update",
            "web",
            "--replicas",
            "2",
            "--monitor",
            "0s",
        ];
        let output = swarmctl(&running, &words).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (0, "service-1\n"), "{stderr}");
        assert!(
            stderr.starts_with("web: 1/2 running\nweb: 2/2 running\n"),
            "{stderr}"
        );
        let output = swarmctl(&running, &words).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 1);
        assert!(
            stderr.starts_with("swarmctl: no changes detected\nhint: "),
            "{stderr}"
        );
    });
}

#[test]
fn what_is_missing_or_ambiguous_is_3() {
    test(async {
        let running = Fake::start(vec![]).await;
        let output = swarmctl(&running, &["service", "rm", "web"]).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (3, ""));
        assert!(
            stderr.starts_with("swarmctl: service \"web\" not found\nhint: "),
            "{stderr}"
        );
        let named = |id: &str| {
            let mut service = fake::service(v1::ServiceSpec::default());
            service.id = id.to_owned();
            service
        };
        running.fake.with(|state| {
            state.services = vec![named("abc1"), named("abd2")];
        });
        let output = swarmctl(&running, &["service", "rm", "ab"]).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 3);
        assert!(
            stderr.contains("is ambiguous: it fits abc1 (), abd2 ()"),
            "{stderr}"
        );
        assert!(running.fake.with(|state| state.changes.is_empty()));
        let output = swarmctl(&running, &["service", "rm", "abc"]).await;
        assert_eq!(output.status.code(), Some(0));
        let left = running.fake.with(|state| state.services[0].id.clone());
        assert_eq!(left, "abd2");
        let output = swarmctl(&running, &["why", "nobody"]).await;
        assert_eq!(
            parts(&output),
            (3, "", "swarmctl: nothing is called \"nobody\"\n")
        );
    });
}

#[test]
fn lists_are_tables_ids_or_json() {
    test(async {
        let running = Fake::start(vec![Ok(vec![running_task("t1")])]).await;
        swarmctl(&running, &create("30s", &["--detach"])).await;
        let output = swarmctl(&running, &["service", "ls"]).await;
        let table = "ID         Name  Image  Replicas\n\
                     --         ----  -----  --------\n\
                     service-1  web   host   1/1\n";
        assert_eq!(parts(&output), (0, table, ""));
        let output = swarmctl(&running, &["service", "ls", "-q"]).await;
        assert_eq!(parts(&output), (0, "service-1\n", ""));
        let output = swarmctl(&running, &["service", "ls", "--format", "json"]).await;
        let services: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(services[0]["spec"]["annotations"]["name"], "web");
        assert_eq!(services[0]["status"]["running_tasks"], 1);
    });
}

#[test]
fn requests_that_the_manager_does_not_know_are_1_by_name() {
    test(async {
        let running = Fake::start(vec![]).await;
        let output = swarmctl(&running, &["cluster", "ls"]).await;
        let expected = "swarmctl: list_clusters is not played\n";
        assert_eq!(parts(&output), (1, "", expected));
    });
}

#[test]
fn without_a_manager_it_is_1_and_names_the_socket() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("none.sock");
    let output = Command::new(env!("CARGO_BIN_EXE_swarmctl"))
        .env("SWARM_SOCKET", &socket)
        .args(["node", "ls"])
        .output()
        .unwrap();
    let (code, stdout, stderr) = parts(&output);
    assert_eq!((code, stdout), (1, ""));
    let beginning = format!("swarmctl: cannot reach a manager at {}: ", socket.display());
    assert!(stderr.starts_with(&beginning), "{stderr}");
    assert!(
        stderr.contains("\nhint: start one with `swarmd`"),
        "{stderr}"
    );
}

#[test]
fn a_socket_whose_path_is_too_long_is_2_with_a_shorter_one() {
    let socket = format!("/tmp/{}/s.sock", "d".repeat(120));
    let output = Command::new(env!("CARGO_BIN_EXE_swarmctl"))
        .args(["--socket", &socket, "node", "ls"])
        .output()
        .unwrap();
    let (code, stdout, stderr) = parts(&output);
    assert_eq!((code, stdout), (2, ""), "{stderr}");
    for part in ["132 bytes", "at most 107", "--socket /run/s.sock"] {
        assert!(stderr.contains(part), "{part}: {stderr}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarmctl"))
        .arg("version")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(parts(&output), (0, "", ""));
}
