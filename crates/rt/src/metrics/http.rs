//! Shows the figures over HTTP/1.1, read-only.
//!
//! A scraper gets the text for `GET /metrics`; everything else is refused by its status code. What
//! a client sends is read up to a bound and within a deadline, and each connection serves one
//! request, so nobody can hold the node by this port. Nor can slow readers hold the page: whoever
//! comes when all places are taken gets that of an old one.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use super::{Metrics, Refused};
use crate::crowd::{Crowd, Origin};
use crate::notices::Notices;
use crate::{Clock, OnError, Shutdown, Tasks, files};

/// Clients served at once. A scraper takes a few milliseconds, so the oldest is none.
const CLIENTS_MAX: usize = 16;
/// The head of a request; scrapers send a few hundred bytes.
const REQUEST_BYTES_MAX: usize = 8 << 10;
/// For the whole exchange.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to accept when the system refuses, for want of descriptors for example.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

const TEXT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the figures on an open listener until the tasks are told to stop.
pub fn serve(tasks: &Tasks, listener: TcpListener, metrics: Metrics) {
    let stop = tasks.shutdown().clone();
    tasks.spawn("metrics listener", OnError::Log, async move {
        accept(&listener, &metrics, &stop).await;
        Ok(())
    });
}

async fn accept(listener: &TcpListener, metrics: &Metrics, stop: &Shutdown) {
    let mut clients = Clients::default();
    let (mut notices, clock) = (Notices::default(), Clock::new());
    loop {
        let accepted = tokio::select! {
            () = stop.begun() => return,
            Some(ended) = clients.set.join_next() => {
                clients.forget(ended);
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, remote)) => clients.serve(stream, remote, metrics),
            Err(error) => {
                if notices.ask(clock.monotonic()).is_some() {
                    let error = files::in_words(&error);
                    tracing::warn!(error, "scrapers have to wait");
                }
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Those who are being served; they end with the listener.
#[derive(Default)]
struct Clients {
    set: JoinSet<u64>,
    by_number: BTreeMap<u64, (Origin, AbortHandle)>,
    crowd: Crowd,
    next: u64,
}

impl Clients {
    fn serve(&mut self, mut stream: TcpStream, remote: SocketAddr, metrics: &Metrics) {
        let origin = Origin::from(remote.ip());
        if self.crowd.count() >= CLIENTS_MAX {
            metrics.refused(Refused::SlowScraper);
            self.displace(origin);
        }
        let number = self.next;
        self.next += 1;
        let metrics = metrics.clone();
        let handle = self.set.spawn(async move {
            // A client that is slow, or gone, is no failure of ours.
            let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, answer(&mut stream, &metrics)).await;
            number
        });
        self.crowd.enter(origin, number);
        self.by_number.insert(number, (origin, handle));
    }

    /// Ends one that is old, of those that are many if there are such.
    fn displace(&mut self, newcomer: Origin) {
        let oldest = self.by_number.keys().next().copied();
        if let Some(number) = self.crowd.give_way(newcomer).or(oldest) {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) {
        if let Some((origin, handle)) = self.by_number.remove(&number) {
            handle.abort();
            self.crowd.leave(origin, number);
        }
    }

    fn forget(&mut self, ended: Result<u64, JoinError>) {
        match ended {
            Ok(number) => self.remove(number),
            Err(error) if error.is_cancelled() => {}
            Err(error) => {
                tracing::error!(error = %crate::chain(&error), "a scraper was not served");
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, metrics: &Metrics) -> io::Result<()> {
    let head = read_head(stream).await?;
    let response = match head.as_deref().map(request_line) {
        Some(Some(("GET", "/metrics"))) => response("200 OK", TEXT_TYPE, &metrics.text()),
        Some(Some(("GET", _))) => {
            response("404 Not Found", "text/plain", "figures are at /metrics\n")
        }
        Some(Some(_)) => response(
            "405 Method Not Allowed",
            "text/plain",
            "figures can only be read: GET /metrics\n",
        ),
        Some(None) => response("400 Bad Request", "text/plain", "not an HTTP request\n"),
        None => response(
            "431 Request Header Fields Too Large",
            "text/plain",
            "the head of the request is larger than 8 KiB\n",
        ),
    };
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// The head of a request; `None` when it is larger than the bound.
async fn read_head(stream: &mut TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::with_capacity(1024);
    let mut limited = stream.take(REQUEST_BYTES_MAX as u64);
    loop {
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Some(head));
        }
        if limited.read_buf(&mut head).await? == 0 {
            let is_full = limited.limit() == 0;
            return Ok((!is_full).then_some(head));
        }
    }
}

/// Method and path of a request.
fn request_line(head: &[u8]) -> Option<(&str, &str)> {
    let line = head.split(|&byte| byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    let (method, target, version) = (words.next()?, words.next()?, words.next()?);
    let path = target.split('?').next()?;
    (version.starts_with("HTTP/1.") && words.next().is_none()).then_some((method, path))
}

fn response(status: &str, content_type: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\
         Connection: close\r\n\r\n{body}",
        body.len()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        // A peer that is refused early may see a reset behind the answer.
        let _ = tokio::time::timeout(EXCHANGE_TIMEOUT, read).await.unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn figures_are_read_and_nothing_else_is_served() {
        let tasks = Tasks::new(Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        serve(&tasks, listener, Metrics::new());
        let long = format!("GET /metrics HTTP/1.1\r\nA: {}", "x".repeat(9 << 10));
        for (request, expected) in [
            ("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK"),
            ("GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200 OK"),
            ("GET / HTTP/1.1\r\n\r\n", "404 "),
            ("POST /metrics HTTP/1.1\r\n\r\n", "405 "),
            ("\x16\x03\x01\r\n\r\n", "400 "),
            (&long, "431 "),
        ] {
            let answer = ask(address, request.as_bytes()).await;
            let status = format!("HTTP/1.1 {expected}");
            assert!(answer.starts_with(&status), "{expected}: {answer}");
        }
        let answer = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(answer.contains("swarm_refused_total{"), "{answer}");
        assert!(answer.ends_with("# EOF\n"), "{answer}");
        tasks.finish(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test]
    async fn clients_that_are_silent_or_slow_do_not_keep_others_waiting() {
        let tasks = Tasks::new(Shutdown::new());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let metrics = Metrics::new();
        serve(&tasks, listener, metrics.clone());
        let mut held = Vec::new();
        // The first half says nothing, the other does not read.
        for number in 0..2 * CLIENTS_MAX {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number >= CLIENTS_MAX {
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\n\r").await;
            }
            held.push(stream);
        }
        let answer = ask(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let displaced = metrics.refused_count(Refused::SlowScraper);
        assert!(displaced > 0);
        drop(held);
        tasks.finish(Duration::from_secs(5)).await.unwrap();
    }
}
