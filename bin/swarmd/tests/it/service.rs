//! The main job: a declared service becomes processes on several nodes.

use std::collections::BTreeSet;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, free_ports, until};
use crate::{processes, specs};

/// The body of `GET /`, or why there is none.
async fn get(port: u16) -> Result<String, String> {
    let request = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        std::io::Result::Ok(answer)
    };
    let answer = request.await.map_err(|error| error.to_string())?;
    match answer.strip_prefix("HTTP/1.1 200 ") {
        Some(rest) => Ok(rest.to_owned()),
        None => Err(answer),
    }
}

#[tokio::test]
async fn replicas_answer_http_on_several_nodes_and_follow_the_number_asked_for() {
    let cluster = Cluster::start(2).await;
    let base = free_ports(8);
    let id = cluster.create(specs::web(&cluster, "web", 4, base)).await;
    let running = cluster.converged("web", 4).await;
    let nodes: BTreeSet<&str> = running.iter().map(|task| task.node.as_str()).collect();
    assert_eq!(nodes.len(), 2, "{running:?}");
    for task in &running {
        let port = base + u16::try_from(task.slot).unwrap();
        let answer = until("a replica answers", async || get(port).await).await;
        let has = |line: String| answer.contains(&line);
        assert!(has(format!("\nslot {}\n", task.slot)), "{answer}");
        assert!(has(format!("\ntask {}\n", task.task)), "{answer}");
        assert!(has(format!("\nnode {}\n", task.node)), "{answer}");
        assert!(has(format!("\npid {}\n", task.pid)), "{answer}");
    }

    // The setting of the allocator is the daemon's own (ADR 0018).
    let is_set = |pid: i32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap();
        String::from_utf8_lossy(&environment).contains("glibc.malloc.mxfast=0")
    };
    assert_eq!(is_set(cluster.manager.pid()), cfg!(target_env = "gnu"));
    assert!(!running.iter().any(|task| is_set(task.pid)));

    cluster.scale(&id, 6).await;
    let more = cluster.converged("web", 6).await;
    assert!(
        running.is_subset(&more),
        "scaling up left the others alone: {more:?}"
    );
    cluster.scale(&id, 2).await;
    let fewer = cluster.converged("web", 2).await;
    assert!(
        fewer.is_subset(&more),
        "scaling down started nothing: {fewer:?}"
    );

    cluster.remove(&id).await;
    until("the processes of a removed service are gone", async || {
        let left = processes::programs(cluster.path(), "web");
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    })
    .await;
    cluster.finish().await;
}
