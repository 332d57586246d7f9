//! One HTTP request, to see whether a replica answers.

use std::time::Duration;

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// How long a replica may take until it listens, and then to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to connect.
const RETRY: Duration = Duration::from_millis(50);
/// The example's answers are far smaller.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// The body of `GET /`.
pub(crate) async fn get(address: &str) -> anyhow::Result<String> {
    tokio::time::timeout(TIMEOUT, request(address))
        .await
        .with_context(|| format!("{address} did not answer within {} s", TIMEOUT.as_secs()))?
}

async fn request(address: &str) -> anyhow::Result<String> {
    let mut stream = loop {
        match TcpStream::connect(address).await {
            Ok(stream) => break stream,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    };
    let head = format!("GET / HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    let mut answer = String::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_string(&mut answer)
        .await?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no body")?;
    let status = head.lines().next().unwrap_or_default();
    anyhow::ensure!(status.contains(" 200 "), "{address} answered {status}");
    Ok(body.to_owned())
}
