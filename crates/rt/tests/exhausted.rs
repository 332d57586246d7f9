//! A process that has all the files open that it may. One test: its limit is that of the process.

#![allow(clippy::unwrap_used)]

use std::fs::File;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use swarm_rt::{files, net};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio_stream::StreamExt as _;

/// Longest wait for anything; only reached when the test fails.
const DEADLINE: Duration = Duration::from_secs(20);

#[tokio::test]
async fn the_control_socket_is_served_without_a_file_left_and_waits_without_a_spare() {
    let directory = std::env::temp_dir().join(format!("swarm-files-{}", std::process::id()));
    let path = directory.join("control.sock");
    let mut listener = net::bind_unix(&path).await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..7 {
        clients.push(UnixStream::connect(&path).await.unwrap());
    }
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 64, most).unwrap();
    let mut eaten = Vec::new();
    let error = loop {
        match File::open("/dev/null") {
            Ok(file) => eaten.push(file),
            Err(error) => break error,
        }
    };
    assert!(files::is_exhausted(&error), "{error}");

    let mut served = Vec::new();
    for _ in 0..4 {
        let next = tokio::time::timeout(DEADLINE, listener.next());
        served.push(next.await.unwrap().unwrap().unwrap());
    }
    served[0].write_all(b"x").await.unwrap();
    assert_eq!(clients[0].read_u8().await.unwrap(), b'x');
    // The fifth waits until somebody gives a file back.
    let next = tokio::time::timeout(Duration::from_millis(300), listener.next());
    next.await.unwrap_err();
    eaten.pop();
    let next = tokio::time::timeout(DEADLINE, listener.next());
    served.push(next.await.unwrap().unwrap().unwrap());
    // When there are files again the spares are replaced, so that they are there the next time.
    served.clear();
    let next = tokio::time::timeout(DEADLINE, listener.next());
    served.push(next.await.unwrap().unwrap().unwrap());
    while let Ok(file) = File::open("/dev/null") {
        eaten.push(file);
    }
    let next = tokio::time::timeout(DEADLINE, listener.next());
    served.push(next.await.unwrap().unwrap().unwrap());
    eaten.clear();
    std::fs::remove_dir_all(directory).unwrap();
}
