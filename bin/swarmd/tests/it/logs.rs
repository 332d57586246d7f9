//! The output of real tasks on real nodes, as a client of the control socket gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::PathBuf;

use swarm_api::v1;
use swarm_rt::net::{self, Address};
use tonic::{Status, Streaming};
use v1::logs_client::LogsClient;

use crate::cluster::{Cluster, DEADLINE, until};
use crate::specs;

/// The file whose lines every task of the test service prints, also those that come later.
fn feed(cluster: &Cluster) -> PathBuf {
    cluster.path().join("feed")
}

fn append(cluster: &Cluster, text: &str) {
    let mut options = OpenOptions::new();
    let mut file = options
        .append(true)
        .create(true)
        .open(feed(cluster))
        .unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

/// A service whose tasks print the feed, and one line on standard error.
async fn create(cluster: &Cluster, replicas: u64) -> String {
    append(cluster, "one\ntwo\nthree\n");
    let mut spec = specs::idle(cluster, "printer", replicas);
    let container = specs::container(&mut spec);
    let feed = feed(cluster).display().to_string();
    let script = "echo oops >&2; exec tail -n +1 -f \"$0\"";
    container.command = ["/bin/sh", "-c", script, &feed].map(str::to_owned).into();
    container.args = Vec::new();
    cluster.create(spec).await
}

type Lines = Streaming<v1::SubscribeLogsMessage>;

fn options(follow: bool) -> v1::LogSubscriptionOptions {
    v1::LogSubscriptionOptions {
        follow,
        ..Default::default()
    }
}

async fn subscribe(cluster: &Cluster, service: &str, options: v1::LogSubscriptionOptions) -> Lines {
    let mut client = LogsClient::new(net::dial(&Address::Unix(cluster.socket())).unwrap());
    let request = v1::SubscribeLogsRequest {
        selector: Some(v1::LogSelector {
            service_ids: vec![service.to_owned()],
            ..Default::default()
        }),
        options: Some(options),
    };
    client.subscribe_logs(request).await.unwrap().into_inner()
}

/// What came, by task: the lines of each output, in order.
#[derive(Debug, Default)]
struct Heard {
    stdout: BTreeMap<String, Vec<String>>,
    stderr: BTreeMap<String, Vec<String>>,
    notices: Vec<String>,
    nodes: BTreeSet<String>,
}

impl Heard {
    fn take(&mut self, message: v1::SubscribeLogsMessage) {
        for line in message.messages {
            let stream = line.stream();
            let text = String::from_utf8(line.data.to_vec()).unwrap();
            let text = text.strip_suffix('\n').expect("whole lines").to_owned();
            let context = line.context.expect("every line has one");
            let outputs = match stream {
                v1::LogStream::Stdout => &mut self.stdout,
                v1::LogStream::Stderr => &mut self.stderr,
                v1::LogStream::Unknown => {
                    self.notices.push(text);
                    continue;
                }
            };
            assert!(line.timestamp.is_some());
            self.nodes.insert(context.node_id);
            outputs.entry(context.task_id).or_default().push(text);
        }
    }

    /// How many tasks have printed exactly this.
    fn count(&self, lines: &[&str]) -> usize {
        self.stdout.values().filter(|own| **own == *lines).count()
    }
}

/// Everything up to the end.
async fn all(mut lines: Lines) -> (Heard, Result<(), Status>) {
    let mut heard = Heard::default();
    let end = loop {
        let next = tokio::time::timeout(DEADLINE, lines.message()).await;
        match next.expect("logs never hang") {
            Ok(Some(message)) => heard.take(message),
            Ok(None) => break Ok(()),
            Err(status) => break Err(status),
        }
    };
    (heard, end)
}

/// Listens until something holds.
async fn listen(lines: &mut Lines, heard: &mut Heard, what: &str, holds: impl Fn(&Heard) -> bool) {
    while !holds(heard) {
        let next = tokio::time::timeout(DEADLINE, lines.message()).await;
        let next = next.unwrap_or_else(|_| panic!("not in time: {what}; {heard:#?}"));
        heard.take(next.unwrap().expect("it follows"));
    }
}

#[tokio::test]
async fn the_output_of_a_service_comes_from_every_node_and_ends() {
    let cluster = Cluster::start(2).await;
    let service = create(&cluster, 4).await;
    cluster.converged("printer", 4).await;
    let three = ["one", "two", "three"];
    let heard = until("everything was printed", async || {
        let (heard, end) = all(subscribe(&cluster, &service, options(false)).await).await;
        end.unwrap();
        match heard.count(&three) == 4 && heard.stderr.len() == 4 {
            true => Ok(heard),
            false => Err(format!("{heard:#?}")),
        }
    })
    .await;
    assert_eq!(heard.nodes.len(), 2);
    assert!(heard.stderr.values().all(|lines| lines == &["oops"]));
    assert!(heard.notices.is_empty());

    let last_of_stdout = v1::LogSubscriptionOptions {
        streams: vec![v1::LogStream::Stdout as i32],
        tail: -3,
        ..Default::default()
    };
    let (heard, end) = all(subscribe(&cluster, &service, last_of_stdout).await).await;
    end.unwrap();
    assert_eq!(heard.count(&["two", "three"]), 4, "{heard:#?}");
    assert!(heard.stderr.is_empty());

    let future = v1::LogSubscriptionOptions {
        since: Some(swarm_types::Timestamp::from_nanos(i64::MAX).to_wire()),
        ..Default::default()
    };
    let (heard, end) = all(subscribe(&cluster, &service, future).await).await;
    end.unwrap();
    assert!(heard.stdout.is_empty(), "{heard:#?}");
    cluster.finish().await;
}

#[tokio::test]
async fn following_takes_in_new_lines_and_new_tasks() {
    let cluster = Cluster::start(2).await;
    let service = create(&cluster, 2).await;
    cluster.converged("printer", 2).await;
    let mut lines = subscribe(&cluster, &service, options(true)).await;
    let mut heard = Heard::default();
    let three = ["one", "two", "three"];
    listen(&mut lines, &mut heard, "what there is", |heard| {
        heard.count(&three) == 2
    })
    .await;
    append(&cluster, "four\n");
    let four = ["one", "two", "three", "four"];
    listen(&mut lines, &mut heard, "a new line", |heard| {
        heard.count(&four) == 2
    })
    .await;
    cluster.scale(&service, 4).await;
    listen(&mut lines, &mut heard, "new tasks", |heard| {
        heard.count(&four) == 4
    })
    .await;
    assert!(heard.notices.is_empty(), "{heard:#?}");
    cluster.finish().await;
}

#[tokio::test]
async fn a_killed_node_gives_a_notice_and_its_lines_come_again_with_it() {
    let mut cluster = Cluster::start(2).await;
    let service = create(&cluster, 2).await;
    let running = cluster.converged("printer", 2).await;
    let mut lines = subscribe(&cluster, &service, options(true)).await;
    let mut heard = Heard::default();
    let three = ["one", "two", "three"];
    listen(&mut lines, &mut heard, "what there is", |heard| {
        heard.count(&three) == 2
    })
    .await;

    let nodes = cluster.nodes().await.unwrap();
    let lost = &nodes["worker-1"].id;
    let lost_task = running.iter().find(|task| task.node == *lost).unwrap();
    cluster.workers[0].kill();
    let notice = format!("node {lost} disconnected unexpectedly");
    listen(&mut lines, &mut heard, "a notice", |heard| {
        heard.notices.iter().any(|text| text.starts_with("node "))
    })
    .await;
    assert!(
        heard
            .notices
            .iter()
            .any(|text| *text == notice
                || text.starts_with(&format!("node {lost} stopped publishing"))),
        "{heard:#?}"
    );
    // Without follow there is an end, with everything that the other node has.
    let (partial, end) = all(subscribe(&cluster, &service, options(false)).await).await;
    let status = end.unwrap_err();
    // The manager hears of the broken streams of a node one after the other, and asks it until the
    // last of them.
    let reasons = ["is not available", "disconnected unexpectedly"];
    let is_named = |reason| status.message().contains(&format!("node {lost} {reason}"));
    assert!(reasons.into_iter().any(is_named), "{status}");
    assert_eq!(partial.count(&three), 1, "{partial:#?}");

    // The task of the lost node runs on, and so does its output when the node is back.
    cluster.workers[0].start_again();
    cluster.workers[0].ready().await;
    append(&cluster, "four\n");
    listen(&mut lines, &mut heard, "lines of the node", |heard| {
        let own = heard.stdout.get(&lost_task.task);
        own.is_some_and(|lines| lines.last().is_some_and(|line| line == "four"))
    })
    .await;
    drop(lines);
    cluster.finish().await;
}
