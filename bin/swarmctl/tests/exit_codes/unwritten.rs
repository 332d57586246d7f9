//! Output that cannot be written, names that a worker chose, and verbs with several names.

use std::fs::File;
use std::process::{Output, Stdio};

use swarm_api::v1;

use crate::fake::{Fake, Running};
use crate::{command, create, parts, running_task, swarmctl, task, test};

/// Standard output or standard error that takes nothing.
fn full() -> Stdio {
    Stdio::from(File::options().write(true).open("/dev/full").unwrap())
}

/// A pipe that nobody reads.
fn closed() -> Stdio {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Stdio::from(writer)
}

async fn run_into(
    running: &Running,
    words: &[&str],
    (stdout, stderr): (Stdio, Stdio),
) -> (i32, String, String) {
    let mut command = command(running, words);
    command.stdout(stdout).stderr(stderr);
    let child = command.spawn().unwrap();
    let output = tokio::task::spawn_blocking(move || child.wait_with_output());
    let output: Output = output.await.unwrap().unwrap();
    let (code, stdout, stderr) = parts(&output);
    assert!(!stderr.contains("panicked"), "{words:?}: {stderr}");
    (code, stdout.to_owned(), stderr.to_owned())
}

fn changes(running: &Running) -> Vec<&'static str> {
    running
        .fake
        .with(|state| std::mem::take(&mut state.changes))
}

#[test]
fn what_is_done_is_7_when_it_cannot_be_printed_and_never_a_refusal() {
    test(async {
        let running = Fake::start(vec![Ok(vec![running_task("t1")])]).await;
        let words = create("30s", &[]);
        let (code, _, stderr) = run_into(&running, &words, (full(), Stdio::piped())).await;
        assert_eq!(code, 7, "{stderr}");
        assert_eq!(changes(&running), ["create_service"]);
        // It was waited for all the same.
        assert!(stderr.contains("converged after"), "{stderr}");
        assert!(
            stderr.contains("swarmctl: done, but the output cannot be written: "),
            "{stderr}"
        );
        let (code, _, stderr) =
            run_into(&running, &["service", "ls"], (full(), Stdio::piped())).await;
        assert_eq!(code, 7, "{stderr}");
        let (code, _, _) = run_into(&running, &["service", "ls"], (closed(), Stdio::piped())).await;
        assert_eq!(code, 0);
    });
}

#[test]
fn a_wait_that_fails_says_so_whether_the_id_could_be_printed_or_not() {
    test(async {
        let failed = task("t1", v1::TaskState::Failed, v1::TaskState::Shutdown, "boom");
        for stdout in [full(), closed()] {
            let running = Fake::start(vec![Ok(vec![failed.clone()])]).await;
            let words = create("1s", &["--restart-condition", "none"]);
            let (code, _, stderr) = run_into(&running, &words, (stdout, Stdio::piped())).await;
            assert!(matches!(code, 4 | 5), "{code}: {stderr}");
            assert_eq!(changes(&running), ["create_service"]);
        }
    });
}

#[test]
fn a_full_standard_error_changes_no_code() {
    test(async {
        for stderr in [full(), closed()] {
            let running = Fake::start(vec![Ok(vec![running_task("t1")])]).await;
            let words = create("30s", &[]);
            let (code, stdout, _) = run_into(&running, &words, (Stdio::piped(), stderr)).await;
            assert_eq!((code, stdout.as_str()), (0, "service-1\n"));
        }
        let running = Fake::start(vec![]).await;
        let missing = ["service", "rm", "nothing"];
        let (code, _, _) = run_into(&running, &missing, (Stdio::piped(), full())).await;
        assert_eq!(code, 3);
    });
}

#[test]
fn several_names_are_removed_each_and_the_first_refusal_is_the_code() {
    test(async {
        let running = Fake::start(vec![]).await;
        running.fake.with(|state| {
            state.services = ["a", "b"]
                .map(|name| v1::Service {
                    id: format!("id-{name}"),
                    spec: Some(v1::ServiceSpec {
                        annotations: Some(v1::Annotations {
                            name: name.to_owned(),
                            ..Default::default()
                        }),
                        ..Default::default()
                    }),
                    ..Default::default()
                })
                .into();
        });
        let output = swarmctl(&running, &["service", "rm", "a", "missing", "b"]).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (3, "a\nb\n"), "{stderr}");
        assert!(stderr.contains("missing"), "{stderr}");
        assert_eq!(changes(&running), ["remove_service", "remove_service"]);
    });
}

#[test]
fn a_worker_does_not_write_to_the_terminal() {
    test(async {
        let running = Fake::start(vec![]).await;
        running.fake.with(|state| {
            state.nodes = vec![v1::Node {
                id: "n1".to_owned(),
                description: Some(v1::NodeDescription {
                    hostname: "\u{1b}[2Jx\nroot  READY\u{9b}1A\u{202e}".to_owned(),
                    ..Default::default()
                }),
                ..Default::default()
            }];
        });
        let output = swarmctl(&running, &["node", "ls"]).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!(code, 0, "{stderr}");
        assert!(
            stdout.contains("  \\u{1b}[2Jx\\nroot  READY\\u{9b}1A\\u{202e}  "),
            "{stdout}"
        );
        assert_eq!(stdout.lines().count(), 3, "{stdout}");
        let output = swarmctl(&running, &["node", "ls", "--format", "json"]).await;
        let (_, stdout, _) = parts(&output);
        assert!(stdout.contains(r"\u009b1A\u202e"), "{stdout}");
        let json: serde_json::Value = serde_json::from_str(stdout).unwrap();
        assert!(json.to_string().contains('\u{202e}'), "{json}");
    });
}

#[test]
fn errors_about_the_line_do_not_advise_what_would_do_something_else() {
    test(async {
        let running = Fake::start(vec![]).await;
        for words in [
            // After `--` it would be a word of the program.
            &["service", "create", "--name", "web", "--networkk", "x"][..],
            &["node", "delete", "n"],
            &["service", "create", "--name", "web", "--replicas-max", "1"],
        ] {
            let output = swarmctl(&running, words).await;
            let (code, _, stderr) = parts(&output);
            assert_eq!(code, 2, "{stderr}");
            assert!(!stderr.contains("tip:"), "{stderr}");
            assert!(!stderr.contains("--network <NETWORK>"), "{stderr}");
        }
    });
}
