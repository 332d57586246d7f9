//! `service logs` and `task logs`: what they ask for, what they print where, and how they end.

use std::io::Read as _;
use std::process::{Command, Stdio};

use swarm_api::v1;
use tonic::Status;

use super::fake::{self, Fake, Running};
use super::{command, parts, running_task, swarmctl, test};

fn line(stream: v1::LogStream, text: &str) -> v1::LogMessage {
    v1::LogMessage {
        context: Some(v1::LogContext {
            service_id: "service-1".to_owned(),
            node_id: "n1".to_owned(),
            task_id: "t1".to_owned(),
        }),
        stream: stream as i32,
        data: text.to_owned().into(),
        ..Default::default()
    }
}

/// A manager with service `web`, its task, and two lines; log streams end like this.
async fn start(end: Option<Result<(), Status>>) -> Running {
    let mut task = running_task("t1");
    task.service_annotations = Some(v1::Annotations {
        name: "web".to_owned(),
        ..Default::default()
    });
    let running = Fake::start(vec![Ok(vec![task])]).await;
    running.fake.with(|state| {
        let mut spec = v1::ServiceSpec::default();
        spec.annotations.get_or_insert_default().name = "web".to_owned();
        state.services.push(fake::service(spec));
        state.lines = vec![
            line(v1::LogStream::Stdout, "to stdout\n"),
            line(v1::LogStream::Stderr, "to stderr\n"),
        ];
        state.end = end;
    });
    running
}

#[test]
fn lines_go_to_their_own_output_and_a_complete_stream_is_0() {
    test(async {
        let running = start(Some(Ok(()))).await;
        let words = [
            "service", "logs", "web", "--tail", "7", "--stream", "stdout",
        ];
        let output = swarmctl(&running, &words).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout, "web.1@n1 | to stdout\n");
        assert_eq!(stderr, "web.1@n1 | to stderr\n");
        let asked = running
            .fake
            .with(|state| state.subscriptions.pop().unwrap());
        assert_eq!(asked.selector.unwrap().service_ids, ["service-1"]);
        let options = asked.options.unwrap();
        assert_eq!((options.tail, options.follow), (-8, false));
        assert_eq!(options.streams, [1]);
    });
}

#[test]
fn several_services_are_asked_for_at_once_and_each_once() {
    test(async {
        let running = start(Some(Ok(()))).await;
        running.fake.with(|state| {
            let mut spec = v1::ServiceSpec::default();
            spec.annotations.get_or_insert_default().name = "db".to_owned();
            let mut second = fake::service(spec);
            second.id = "service-2".to_owned();
            state.services.push(second);
        });
        let words = ["service", "logs", "web", "db", "web", "--tail", "0"];
        let output = swarmctl(&running, &words).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!(code, 0, "{stderr}");
        assert_eq!(stdout, "web.1@n1 | to stdout\n");
        let asked = running.fake.with(|state| state.subscriptions.clone());
        assert_eq!(asked.len(), 1);
        let mut services = asked[0].selector.clone().unwrap().service_ids;
        services.sort();
        assert_eq!(services, ["service-1", "service-2"]);
        // No line of before: that is the last none of them.
        assert_eq!(asked[0].options.as_ref().unwrap().tail, -1);
    });
}

#[test]
fn an_incomplete_stream_is_6_with_the_reasons() {
    test(async {
        let text = "warning: incomplete log stream. some logs could not be retrieved for the \
                    following reasons: node n2 is not available";
        let running = start(Some(Err(Status::unknown(text)))).await;
        let output = swarmctl(&running, &["service", "logs", "web", "--raw"]).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (6, "to stdout\n"), "{stderr}");
        assert!(stderr.contains("node n2 is not available"), "{stderr}");
        assert!(stderr.contains("hint: "), "{stderr}");
    });
}

#[test]
fn a_notice_makes_a_stream_incomplete() {
    test(async {
        let running = start(Some(Ok(()))).await;
        running.fake.with(|state| {
            state.lines = vec![line(v1::LogStream::Unknown, "output was lost\n")];
        });
        let output = swarmctl(&running, &["task", "logs", "t1"]).await;
        let (code, stdout, stderr) = parts(&output);
        assert_eq!((code, stdout), (6, ""), "{stderr}");
        assert!(
            stderr.contains("notice from n1: output was lost"),
            "{stderr}"
        );
    });
}

#[test]
fn a_refusal_is_1_and_an_unknown_service_3_and_a_bad_time_2() {
    test(async {
        let running = start(Some(Err(Status::resource_exhausted("too many")))).await;
        let output = swarmctl(&running, &["service", "logs", "web"]).await;
        assert_eq!(output.status.code(), Some(1));
        let output = swarmctl(&running, &["service", "logs", "gone"]).await;
        assert_eq!(output.status.code(), Some(3));
        let words = ["service", "logs", "web", "--since", "soon"];
        let output = swarmctl(&running, &words).await;
        let (code, _, stderr) = parts(&output);
        assert_eq!(code, 2);
        assert!(stderr.contains("write it like 10m"), "{stderr}");
    });
}

/// Starts a follower and waits until it has printed the first line.
fn follow(mut command: Command) -> (std::process::Child, std::process::ChildStdout) {
    let spawned = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut child = spawned.unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut line = [0; 9];
    stdout.read_exact(&mut line).unwrap();
    assert_eq!(&line, b"to stdout");
    (child, stdout)
}

#[test]
fn ctrl_c_ends_following_with_130() {
    test(async {
        let running = start(None).await;
        let command = command(&running, &["service", "logs", "-f", "--raw", "web"]);
        let ended = tokio::task::spawn_blocking(move || {
            let (mut child, _stdout) = follow(command);
            let interrupt = Command::new("/bin/kill")
                .args(["-INT", &child.id().to_string()])
                .status();
            assert!(interrupt.unwrap().success());
            child.wait().unwrap()
        });
        assert_eq!(ended.await.unwrap().code(), Some(130));
    });
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    test(async {
        let running = start(Some(Ok(()))).await;
        let text = "x".repeat(1 << 20);
        running.fake.with(|state| {
            state.lines.push(line(v1::LogStream::Stdout, &text));
        });
        let command = command(&running, &["service", "logs", "--raw", "web"]);
        let ended = tokio::task::spawn_blocking(move || {
            let (mut child, stdout) = follow(command);
            drop(stdout);
            child.wait().unwrap()
        });
        assert_eq!(ended.await.unwrap().code(), Some(0));
    });
}
