//! The figures that a daemon shows.

use std::process::{Command, Stdio};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::{Directory, free_ports, start, until};
use crate::daemon::SWARMD;

pub(crate) async fn scrape(address: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_manager_shows_its_objects_connections_and_refusals() {
    let directory = Directory::new();
    let ports = free_ports(2);
    let (remote, figures) = (
        format!("127.0.0.1:{ports}"),
        format!("127.0.0.1:{}", ports + 1),
    );
    let mut arguments = directory.manager(&remote);
    arguments.extend(["--listen-metrics".to_owned(), figures.clone()]);
    let mut manager = start("manager", &directory, &arguments);
    manager.ready().await;
    let text = scrape(&figures).await;
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    for line in [
        "swarm_manager_leader 1",
        "swarm_node_manager 1",
        "swarm_manager_nodes{state=\"ready\"} 1",
        "swarm_manager_services_total 0",
        "swarm_manager_tasks_total{state=\"running\"} 0",
        "swarm_refused_total{reason=\"bad_token\"} 0",
        "swarm_connections{peer=\"none\"} ",
    ] {
        assert!(text.contains(&format!("\n{line}")), "{line}: {text}");
    }
    // Somebody who does not speak TLS.
    let mut stranger = TcpStream::connect(&remote).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let line = "swarm_refused_total{reason=\"handshake_failed\"} 1";
    until("the stranger is counted", async || {
        let text = scrape(&figures).await;
        if text.contains(line) {
            Ok(())
        } else {
            Err(text)
        }
    })
    .await;
    assert!(manager.stop().await.success());
}

#[test]
fn an_address_that_cannot_be_listened_on_is_refused_by_its_flag() {
    let directory = Directory::new();
    let ports = free_ports(2);
    let _held = std::net::TcpListener::bind(("127.0.0.1", ports + 1)).unwrap();
    for address in ["nonsense".to_owned(), format!("127.0.0.1:{}", ports + 1)] {
        let mut arguments = directory.manager(&format!("127.0.0.1:{ports}"));
        arguments.extend(["--listen-metrics".to_owned(), address.clone()]);
        let output = Command::new(SWARMD)
            .args(&arguments)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let flag = format!("--listen-metrics {address}");
        assert!(text.contains(&flag), "{text}");
    }
}
