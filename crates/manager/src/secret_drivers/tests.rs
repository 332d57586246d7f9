use std::sync::Arc;

use swarm_api::v1;
use swarm_types::Slot;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixListener;

use super::*;

/// A plugin that answers each request with the next of these bodies, and tells what it was asked.
fn plugin(directory: &Path, answers: Vec<String>) -> JoinSet<Vec<String>> {
    let listener = UnixListener::bind(directory.join("vault.sock")).unwrap();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut asked = Vec::new();
        for body in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            asked.push(read_request(&mut stream).await);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            // A client that has read enough may hang up.
            let _ = stream.write_all((head + &body).as_bytes()).await;
        }
        asked
    });
    serving
}

async fn read_request(stream: &mut tokio::net::UnixStream) -> String {
    let mut text = Vec::new();
    loop {
        let mut part = [0; 4096];
        let count = stream.read(&mut part).await.unwrap();
        text.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&text);
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let head = head.to_lowercase();
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.map_or(0, |length| length.trim().parse().unwrap());
        if body.len() >= length {
            return text.into_owned();
        }
    }
}

fn request() -> SecretRequest {
    let annotations = |name: &str| v1::Annotations {
        name: name.to_owned(),
        labels: [("tier".to_owned(), "front".to_owned())].into(),
        ..Default::default()
    };
    let spec = v1::SecretSpec {
        annotations: Some(annotations("db")),
        driver: Some(v1::Driver {
            name: "vault".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let container = v1::ContainerSpec {
        image: "host".to_owned(),
        ..Default::default()
    };
    let mut task = Task::new(
        "task1".parse().unwrap(),
        Arc::new(v1::TaskSpec {
            runtime: Some(v1::task_spec::Runtime::Container(container)),
            ..Default::default()
        }),
    );
    task.slot = Slot(2);
    task.node_id = "node1".parse().ok();
    task.service_id = "service1".parse().ok();
    task.service_annotations = Arc::new(annotations("web"));
    SecretRequest {
        id: SecretRequestId(7),
        driver: "vault".to_owned(),
        secret: Arc::new(Secret::new("s".parse().unwrap(), spec)),
        task: Arc::new(task),
    }
}

const ACTIVE: &str = r#"{"Implements": ["secretprovider"]}"#;

/// What comes of a question to a plugin with these answers, and what the plugin was asked.
async fn asked(answers: &[&str]) -> (Answer, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let answers = answers.iter().map(|answer| (*answer).to_owned()).collect();
    let mut plugin = plugin(directory.path(), answers);
    let mut drivers = SecretDrivers::new(Plugins::new(directory.path().to_owned()));
    drivers.begin(request());
    let (id, answer) = drivers.done().await;
    assert_eq!(id, SecretRequestId(7));
    assert!(drivers.try_done().is_none());
    (answer, plugin.join_next().await.unwrap().unwrap())
}

#[tokio::test]
async fn a_plugin_is_asked_in_the_words_of_docker() {
    // "hush" in base64.
    let reply = r#"{"Value": "aHVzaA==", "DoNotReuse": true}"#;
    let (answer, asked) = asked(&[ACTIVE, reply]).await;
    let answer = answer.unwrap();
    assert_eq!(
        (&answer.value[..], answer.do_not_reuse),
        (&b"hush"[..], true)
    );
    assert!(!format!("{answer:?}").contains("hush"));
    assert!(
        asked[0].starts_with("POST /Plugin.Activate HTTP/1.1\r\n"),
        "{}",
        asked[0]
    );
    let (head, body) = asked[1].split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("POST /SecretProvider.GetSecret HTTP/1.1\r\n"),
        "{head}"
    );
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    let wanted = serde_json::json!({
        "SecretName": "db", "SecretLabels": {"tier": "front"}, "ServiceID": "service1",
        "ServiceName": "web", "ServiceLabels": {"tier": "front"}, "TaskID": "task1",
        "TaskName": "web.2.task1", "TaskImage": "host", "NodeID": "node1",
    });
    assert_eq!(body, wanted);
}

#[tokio::test]
async fn whatever_a_plugin_does_wrong_is_told_without_its_words_but_its_error() {
    let cases: [(&[&str], &str); 6] = [
        (
            &[r#"{"Implements": ["volumedriver"]}"#],
            "does not implement secretprovider",
        ),
        (&[ACTIVE, r#"{"Err": "sealed"}"#], "driver vault: sealed"),
        (
            &[ACTIVE, r#"{"Value": "%hush%"}"#],
            "its value is not base64",
        ),
        (&[ACTIVE, "hush"], "is not what the protocol says"),
        (&["hush"], "answer to /Plugin.Activate is not"),
        (&[ACTIVE, r#"{"Value": null}"#], ""),
    ];
    for (answers, wanted) in cases {
        match asked(answers).await.0 {
            Err(reason) => {
                assert!(reason.contains(wanted), "{reason}");
                assert!(!reason.contains("hush"), "{reason}");
            }
            // The dispatcher refuses an answer without data.
            Ok(answer) => assert!(answer.value.is_empty() && wanted.is_empty()),
        }
    }
}

#[tokio::test]
async fn answers_are_bounded() {
    let huge = format!(r#"{{"Value": "{}"}}"#, "A".repeat(ANSWER_BYTES_MAX));
    let reason = asked(&[ACTIVE, &huge]).await.0.unwrap_err();
    assert!(
        reason.contains("could not be read, or has more than"),
        "{reason}"
    );
}

#[tokio::test]
async fn a_plugin_that_is_not_there_is_named_with_the_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let plugins = Plugins::new(directory.path().to_owned());
    let reason = ask(&plugins, &request()).await.unwrap_err();
    assert!(reason.contains("driver vault has no socket in"), "{reason}");
    assert!(reason.contains("start its plugin"), "{reason}");
}

#[tokio::test]
async fn names_that_lead_elsewhere_are_no_plugins() {
    let directory = tempfile::tempdir().unwrap();
    let own = tempfile::Builder::new()
        .prefix("own")
        .rand_bytes(0)
        .tempdir_in(directory.path())
        .unwrap();
    let _vault = UnixListener::bind(directory.path().join("vault.sock")).unwrap();
    let _own = UnixListener::bind(own.path().join("own.sock")).unwrap();
    let plugins = Plugins::new(own.path().to_owned());
    assert!(plugins.has("own"));
    for name in ["../vault", "", ".", "..", "a/b", "vault"] {
        assert!(!plugins.has(name), "{name}");
    }
    let outer = Plugins::new(directory.path().to_owned());
    assert!(outer.has("own"), "in a directory of its own");
}
