//! `swarmd dev`.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;

use crate::cluster::{Directory, free_ports, until};
use crate::daemon::{Daemon, SWARMD};
use crate::processes;

/// What uses a base of ports: the tasks of a `swarmd dev`.
fn tasks_on(base: u16) -> Vec<String> {
    let text = format!("--port-base {base}");
    let everything = processes::of(std::path::Path::new("hello-web"));
    let mine = everything
        .into_iter()
        .filter(|process| process.command.contains(&text));
    mine.map(|process| process.command).collect()
}

fn start(directory: &Directory, base: u16, more: &[&str]) -> Daemon {
    let base = base.to_string();
    let mut words = vec![
        "dev",
        "--nodes",
        "2",
        "--replicas",
        "3",
        "--port-base",
        &base,
    ];
    words.extend(more);
    Daemon::start("dev", directory.path(), &words)
}

#[tokio::test]
async fn the_check_of_dev_succeeds_and_leaves_nothing_behind() {
    let directory = Directory::new();
    let base = free_ports(20);
    let mut dev = start(&directory, base, &["--check"]);
    let status = dev.end().await;
    let log = dev.log();
    assert!(status.success(), "{log}");
    assert!(log.contains("3 replicas on 2 nodes answer HTTP"), "{log}");
    assert_nothing_left(&log, base);
}

#[tokio::test]
async fn dev_takes_everything_down_when_it_is_interrupted() {
    let directory = Directory::new();
    let base = free_ports(20);
    let mut dev = start(&directory, base, &[]);
    until("dev says what to type", async || {
        let log = dev.log();
        if log.contains("until you press Ctrl-C") {
            Ok(())
        } else {
            Err(log)
        }
    })
    .await;
    assert!(!tasks_on(base).is_empty(), "its tasks run");
    processes::signal(dev.pid(), Signal::SIGINT);
    let status = dev.end().await;
    assert!(status.success(), "{}", dev.log());
    assert_nothing_left(&dev.log(), base);
}

fn assert_nothing_left(log: &str, base: u16) {
    let state = log
        .lines()
        .find_map(|line| line.split_once("workers in ").map(|(_, path)| path.trim()))
        .expect("it says where its state is");
    assert!(
        !std::path::Path::new(state).exists(),
        "{state} is still there"
    );
    let left = processes::of(std::path::Path::new(state));
    assert!(left.is_empty(), "{left:#?}");
    assert_eq!(tasks_on(base), Vec::<String>::new());
}

#[test]
fn a_range_without_free_ports_is_refused() {
    let output = Command::new(SWARMD)
        .args(["dev", "--check", "--port-base", "70000"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(!output.status.success());
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("--port-base"), "{text}");
}
