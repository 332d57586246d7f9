//! What `swarmd` does not start with, and how it says so.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::cluster::{Cluster, Directory, free_ports, start};
use crate::daemon::SWARMD;

/// What a daemon that refuses to start says.
fn refusal(arguments: &[String]) -> String {
    let output = Command::new(SWARMD)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    text
}

fn with(mut arguments: Vec<String>, more: &[&str]) -> Vec<String> {
    arguments.extend(more.iter().map(|&word| word.to_owned()));
    arguments
}

/// The arguments of a manager on a free port.
fn manager(directory: &Directory) -> Vec<String> {
    directory.manager(&format!("127.0.0.1:{}", free_ports(1)))
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_directory_is_refused() {
    let cluster = Cluster::start(0).await;
    let state = cluster.state("manager");
    let other = cluster.path().join("other.sock");
    let second = [
        "-d",
        state.to_str().unwrap(),
        "--listen-control-api",
        other.to_str().unwrap(),
        "--listen-remote-api",
        "127.0.0.1:0",
    ];
    let text = refusal(&with(Vec::new(), &second));
    assert!(text.contains(state.to_str().unwrap()), "{text}");
    let pid = format!("process {}", cluster.manager.pid());
    assert!(text.contains(&pid), "{text}");
    cluster.nodes().await.expect("the first goes on");
    cluster.finish().await;
}

#[tokio::test]
async fn a_control_socket_or_a_port_that_is_in_use_is_refused() {
    let cluster = Cluster::start(0).await;
    let (state, socket) = (cluster.state("second"), cluster.socket());
    let (state, socket) = (state.to_str().unwrap(), socket.to_str().unwrap());
    let common = ["-d", state, "--listen-control-api"];
    let mut second = with(Vec::new(), &common);
    second.push(socket.to_owned());
    let text = refusal(&with(second, &["--listen-remote-api", "127.0.0.1:0"]));
    assert!(
        text.contains(socket) && text.contains("--listen-control-api"),
        "{text}"
    );

    let other = cluster.path().join("other.sock");
    let second = with(Vec::new(), &common);
    let second = with(second, &[other.to_str().unwrap(), "--listen-remote-api"]);
    let text = refusal(&with(second, &[cluster.address()]));
    assert!(text.contains(cluster.address()), "{text}");
    cluster.nodes().await.expect("the first goes on");
    cluster.finish().await;
}

#[test]
fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
    let directory = Directory::new();
    let deep = directory.path().join("d".repeat(110));
    let deep = deep.to_str().unwrap();
    let socket = format!("{deep}/s.sock");
    let (socket_bytes, plugin_bytes) = (socket.len().to_string(), (deep.len() + 7).to_string());
    let cases = [
        (
            "--listen-control-api",
            &*socket,
            socket_bytes,
            "/run/s.sock",
        ),
        ("--plugins-dir", deep, plugin_bytes, "/run/swarmd-plugins"),
    ];
    for (flag, value, bytes, proposal) in cases {
        let state = directory.path().join("state");
        let node = ["-d", state.to_str().unwrap(), flag, value];
        let text = refusal(&with(Vec::new(), &node));
        let bytes = format!("has {bytes} bytes");
        for part in [value, &bytes, "at most 107", &format!("{flag} {proposal}")] {
            assert!(text.contains(part), "{part}: {text}");
        }
        let made = std::fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(made, 0, "{flag}");
    }
}

#[test]
fn a_temporary_directory_too_deep_for_a_development_cluster_is_refused() {
    let directory = Directory::new();
    let deep = directory.path().join("d".repeat(90));
    std::fs::create_dir(&deep).unwrap();
    let dev = Command::new(SWARMD)
        .arg("dev")
        .env("TMPDIR", &deep)
        .output();
    let output = dev.unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{text}");
    for part in ["at most 107", "TMPDIR=/tmp swarmd dev"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let left = std::fs::read_dir(&deep).unwrap().count();
    assert_eq!(left, 0, "nothing stays");
}

#[test]
fn a_file_in_the_place_of_the_control_socket_is_left_alone() {
    let directory = Directory::new();
    let arguments = manager(&directory);
    let path = directory.path().join("control.sock");
    std::fs::write(&path, "precious").unwrap();
    let text = refusal(&arguments);
    assert!(text.contains(path.to_str().unwrap()), "{text}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn flags_without_an_implementation_are_refused_by_name() {
    let directory = Directory::new();
    for flag in [
        &["--engine-addr", "x"][..],
        &["--listen-debug", "x"],
        &["--force-new-cluster"],
    ] {
        let text = refusal(&with(manager(&directory), flag));
        assert!(
            text.contains(flag[0]) && text.contains("not implemented"),
            "{text}"
        );
    }
    assert!(
        !directory.path().join("manager").exists(),
        "nothing was made"
    );
}

#[test]
fn an_address_that_this_machine_does_not_have_is_refused() {
    let directory = Directory::new();
    let text = refusal(&directory.manager("192.0.2.1:4242"));
    assert!(text.contains("192.0.2.1:4242"), "{text}");
    // What was made for the new cluster serves the next start.
    for address in ["nonsense", "127.0.0.1", "127.0.0.1:99999"] {
        let text = refusal(&directory.manager(address));
        assert!(text.contains(address), "{text}");
    }
}

#[test]
fn addresses_and_resources_that_cannot_be_read_are_refused() {
    let directory = Directory::new();
    let state = directory.path().join("worker");
    let worker = with(Vec::new(), &["-d", state.to_str().unwrap(), "--join-addr"]);
    for address in ["nonsense", "/a/path", "host:port", ":1"] {
        let text = refusal(&with(worker.clone(), &[address]));
        assert!(text.contains(address), "{text}");
    }
    let resources = with(manager(&directory), &["--generic-node-resources", "gpu"]);
    let text = refusal(&resources);
    assert!(text.contains("--generic-node-resources gpu"), "{text}");
    for level in ["swarm==", "wanr", "info,swarm_agent"] {
        let text = refusal(&with(manager(&directory), &["--log-level", level]));
        assert!(text.contains(&format!("--log-level {level}")), "{text}");
        assert!(text.contains("warning, error, fatal"), "{text}");
    }
}

#[tokio::test]
async fn a_damaged_identity_is_refused_and_left_alone() {
    let mut cluster = Cluster::start(0).await;
    assert!(cluster.manager.stop().await.success());
    let arguments = cluster.directory().manager(cluster.address());
    for name in ["swarm-node.crt", "swarm-node.key", "swarm-root-ca.crt"] {
        let file = cluster.state("manager").join("certificates").join(name);
        let good = std::fs::read(&file).unwrap();
        for content in [
            &b""[..],
            b"nonsense",
            b"\xff\xfe\x00",
            &good[..good.len() / 2],
        ] {
            std::fs::write(&file, content).unwrap();
            let text = refusal(&arguments);
            assert!(text.contains("certificates/swarm-"), "{text}");
            assert_eq!(std::fs::read(&file).unwrap(), content);
        }
        std::fs::write(&file, good).unwrap();
    }
    cluster.manager.start_again();
    cluster.manager.ready().await;
    cluster.finish().await;
}

#[test]
fn a_directory_from_before_there_were_certificates_is_left_alone() {
    let directory = Directory::new();
    let state = directory.path().join("manager");
    std::fs::create_dir(&state).unwrap();
    let file = state.join("node.json");
    std::fs::write(&file, "{}").unwrap();
    let text = refusal(&manager(&directory));
    assert!(text.contains(file.to_str().unwrap()), "{text}");
}

#[tokio::test]
async fn a_state_directory_keeps_its_part() {
    let cluster = Cluster::start(1).await;
    let (worker, manager) = (cluster.state("worker-1"), cluster.state("manager"));
    let address = cluster.address().to_owned();
    let directory = cluster.finish().await;
    let as_worker = ["-d", manager.to_str().unwrap(), "--join-addr", &address];
    let text = refusal(&with(Vec::new(), &as_worker));
    assert!(text.contains("belongs to a manager"), "{text}");
    // A worker that knows no manager any more does not become one.
    std::fs::remove_file(worker.join("state.json")).unwrap();
    let text = refusal(&directory.known_worker("worker-1"));
    assert!(
        text.contains("belongs to a worker") && text.contains("--join-addr"),
        "{text}"
    );
}

#[test]
fn a_state_directory_that_cannot_be_used_is_named() {
    let directory = Directory::new();
    let state = directory.path().join("manager");
    std::fs::write(&state, "a file").unwrap();
    let text = refusal(&manager(&directory));
    assert!(text.contains(state.to_str().unwrap()), "{text}");
    std::fs::remove_file(&state).unwrap();

    // The superuser may look everywhere, so this half shows nothing then.
    std::fs::create_dir(&state).unwrap();
    set_mode(&state, 0o000);
    if std::fs::read_dir(&state).is_err() {
        let text = refusal(&manager(&directory));
        assert!(text.contains(state.to_str().unwrap()), "{text}");
    }
    set_mode(&state, 0o700);
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

#[tokio::test]
async fn a_socket_that_nobody_serves_any_more_is_replaced() {
    let directory = Directory::new();
    let arguments = manager(&directory);
    let mut first = start("manager", &directory, &arguments);
    first.ready().await;
    first.kill();
    assert!(directory.path().join("control.sock").exists());
    first.start_again();
    first.ready().await;
    assert!(first.stop().await.success());
}
