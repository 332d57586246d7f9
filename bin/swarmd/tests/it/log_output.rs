//! A daemon whose log cannot be written works on.

use std::fs::File;
use std::io::pipe;
use std::os::fd::OwnedFd;

use crate::cluster::{DEADLINE, Directory, free_ports, until};
use crate::daemon::Daemon;
use crate::metrics::scrape;
use swarm_api::v1;

/// A manager whose log goes to `stderr`, and where its figures are.
fn start(directory: &Directory, stderr: OwnedFd) -> (Daemon, String) {
    let ports = free_ports(2);
    let mut arguments = directory.manager(&format!("127.0.0.1:{ports}"));
    let figures = format!("127.0.0.1:{}", ports + 1);
    let more = ["--listen-metrics", &figures, "--log-level", "trace"];
    arguments.extend(more.map(str::to_owned));
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let daemon = Daemon::start_with_stderr("manager", directory.path(), &words, stderr);
    (daemon, figures)
}

/// Lines that were dropped, by the figures.
async fn dropped(figures: &str) -> u64 {
    let text = scrape(figures).await;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("swarm_log_lines_dropped "));
    line.unwrap_or_else(|| panic!("not in {text}"))
        .parse()
        .unwrap()
}

/// Writes, of which each logs some lines, so that together they fill a pipe.
const WRITES: u32 = 100;

/// Whether lines that fail are sure to be seen in the figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counts {
    Failures,
    /// As much as fits into the queue waits in it.
    Nothing,
}

/// Writes and reads through the control socket while lines are dropped, and stops cleanly.
async fn works(directory: &Directory, mut manager: Daemon, figures: &str, counts: Counts) {
    let ready = until("the manager answers", async || {
        let nodes = directory
            .client()
            .list_nodes(v1::ListNodesRequest::default())
            .await;
        match nodes {
            Ok(nodes) if nodes.get_ref().nodes.len() == 1 => Ok(()),
            Ok(_) => Err("its node is not there yet".to_owned()),
            Err(status) => Err(status.to_string()),
        }
    });
    ready.await;
    for number in 0..WRITES {
        let spec = v1::SecretSpec {
            annotations: Some(v1::Annotations {
                name: format!("s{number}"),
                ..Default::default()
            }),
            data: b"data".to_vec().into(),
            ..Default::default()
        };
        let request = v1::CreateSecretRequest { spec: Some(spec) };
        let mut client = directory.client();
        let written = client.create_secret(request);
        let written = tokio::time::timeout(DEADLINE, written).await;
        drop(written.expect("somebody answers").unwrap());
    }
    if counts == Counts::Failures {
        assert!(dropped(figures).await > 0);
    }
    assert!(manager.exited().is_none());
    assert!(manager.stop().await.success());
}

#[tokio::test]
async fn a_daemon_starts_and_works_with_its_log_on_a_full_disk() {
    let directory = Directory::new();
    let full = File::options().write(true).open("/dev/full").unwrap();
    let (manager, figures) = start(&directory, full.into());
    works(&directory, manager, &figures, Counts::Failures).await;
}

#[tokio::test]
async fn a_daemon_works_on_when_the_pipe_of_its_log_is_closed() {
    let directory = Directory::new();
    let (reader, writer) = pipe().unwrap();
    let (manager, figures) = start(&directory, writer.into());
    drop(reader);
    works(&directory, manager, &figures, Counts::Failures).await;
}

#[tokio::test]
async fn a_daemon_works_on_when_nobody_reads_its_log() {
    let directory = Directory::new();
    let (_reader, writer) = pipe().unwrap();
    let (manager, figures) = start(&directory, writer.into());
    works(&directory, manager, &figures, Counts::Nothing).await;
}
