//! gRPC calls on one HTTP/2 connection: requests, answers and streams of messages.
//!
//! Owns the framing of messages and the reading of statuses, and nothing else: no balancing, no
//! reconnecting, no queue, so that an agent costs little more than its connection. Deadlines are
//! the caller's.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::grpc_go::{GrpcGo, LIBRARY_WINDOW_BYTES};

/// A message has a flag and its length in front.
const PREFIX_BYTES: usize = 5;
/// Largest message that is taken; a list of 100,000 tasks is 56 MB.
const MESSAGE_BYTES_MAX: usize = 1 << 30;
/// How much a manager may send ahead on one stream, and on the connection of a plain client.
const WINDOW_BYTES: u32 = 1 << 20;

/// What a client of the time that the figures are of says of itself.
const GRPC_GO: &str = "grpc-go/1.71.0";

/// How a call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub(crate) struct Status {
    /// The number of the gRPC code.
    pub(crate) code: i32,
    /// What the server said, or what happened to the connection.
    pub(crate) message: String,
}

/// gRPC's code for a method that the server does not have.
pub(crate) const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;
const UNAVAILABLE: i32 = 14;
const DEADLINE_EXCEEDED: i32 = 4;

impl Status {
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        let message = message.into();
        Self {
            code: UNAVAILABLE,
            message,
        }
    }

    pub(crate) fn late(what: &str) -> Self {
        let message = format!("no answer in time: {what}");
        Self {
            code: DEADLINE_EXCEEDED,
            message,
        }
    }

    /// Says which of the calls of a session it was.
    pub(crate) fn of(self, call: &str) -> Self {
        let message = format!("{call}: {}", self.message);
        Self { message, ..self }
    }

    fn internal(message: String) -> Self {
        Self {
            code: INTERNAL,
            message,
        }
    }
}

impl From<h2::Error> for Status {
    fn from(error: h2::Error) -> Self {
        Self::unavailable(error.to_string())
    }
}

/// A connection; clones share it.
#[derive(Clone)]
pub(crate) struct Channel {
    requests: SendRequest<Bytes>,
    /// What it says that it is; nothing if it is a plain client.
    agent: Option<&'static str>,
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channel").finish_non_exhaustive()
    }
}

/// Moves the bytes of a connection; nothing happens on it while this is not polled.
pub(crate) type Driver<I> = h2::client::Connection<I, Bytes>;

impl Channel {
    /// Opens HTTP/2 on a connection.
    ///
    /// # Errors
    /// [`Status`] when the connection is broken.
    pub(crate) async fn open<I>(io: I) -> Result<(Self, Driver<I>), Status>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let (requests, driver) = builder(WINDOW_BYTES).handshake(io).await?;
        let agent = None;
        Ok((Self { requests, agent }, driver))
    }

    /// Opens HTTP/2 on a connection, and uses it as grpc-go does.
    ///
    /// # Errors
    /// As [`Channel::open`].
    pub(crate) async fn open_as_grpc_go<I>(io: I) -> Result<(Self, Driver<GrpcGo<I>>), Status>
    where
        I: AsyncRead + AsyncWrite + Unpin,
    {
        let library = builder(LIBRARY_WINDOW_BYTES);
        let (requests, driver) = library.handshake(GrpcGo::new(io)).await?;
        let agent = Some(GRPC_GO);
        Ok((Self { requests, agent }, driver))
    }

    /// One request, one answer, within the time.
    ///
    /// # Errors
    /// [`Status`] as the server or the connection gave it.
    pub(crate) async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        limit: Duration,
    ) -> Result<A, Status> {
        let call = self.ask(method, request, Some(limit));
        let called = tokio::time::timeout(limit, call).await;
        called.unwrap_or_else(|_| Err(Status::late(method)))
    }

    /// The same, within a time of which the server is told or not.
    ///
    /// # Errors
    /// As [`Channel::call`].
    pub(crate) async fn ask<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        told: Option<Duration>,
    ) -> Result<A, Status> {
        let answers = self.begin::<Q, A>(method, request, told);
        let mut answers = answers.await?;
        let Some(answer) = answers.next().await? else {
            return Err(Status::internal(format!("{method}: no answer")));
        };
        // The status comes behind the message, and may still say that the call failed.
        match answers.next().await? {
            None => Ok(answer),
            Some(_) => Err(Status::internal(format!("{method}: more than one answer"))),
        }
    }

    /// One request, many answers. Waits until the server has accepted the call.
    ///
    /// # Errors
    /// As [`Channel::call`].
    pub(crate) async fn stream<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
    ) -> Result<Answers<A>, Status> {
        self.begin(method, request, None).await
    }

    async fn begin<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        limit: Option<Duration>,
    ) -> Result<Answers<A>, Status> {
        let scheme = if self.agent.is_some() {
            "https"
        } else {
            "http"
        };
        let mut head = Request::post(format!("{scheme}://manager{method}"));
        if let Some(headers) = head.headers_mut() {
            let fixed = HeaderValue::from_static;
            headers.insert("te", fixed("trailers"));
            headers.insert("content-type", fixed("application/grpc"));
            if let Some(agent) = self.agent {
                headers.insert("user-agent", fixed(agent));
                if let Some(left) = limit.and_then(timeout_header) {
                    headers.insert("grpc-timeout", left);
                }
            }
        }
        let head = head
            .body(())
            .map_err(|error| Status::internal(error.to_string()))?;
        let mut requests = self.requests.clone().ready().await?;
        let (answer, mut body) = requests.send_request(head, false)?;
        body.send_data(frame(request), true)?;
        Answers::begin(answer).await
    }
}

fn builder(window: u32) -> h2::client::Builder {
    let mut builder = h2::client::Builder::new();
    builder
        .initial_window_size(window)
        .initial_connection_window_size(window)
        .enable_push(false);
    builder
}

/// What is left of a deadline when the call goes out, as grpc-go says it: in microseconds, so that
/// it is hardly ever the same twice and the manager has to read it anew each time.
fn timeout_header(limit: Duration) -> Option<HeaderValue> {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    // What passes in a Go program until the header is written: between 20 and 230 of them.
    let way = 20 + CALLS.fetch_add(37, Ordering::Relaxed) % 211;
    let left = limit.as_micros().saturating_sub(u128::from(way));
    HeaderValue::from_maybe_shared(Bytes::from(format!("{left}u"))).ok()
}

/// A message with its prefix. Compression is off.
fn frame(message: &impl Message) -> Bytes {
    let size = message.encoded_len();
    let mut bytes = BytesMut::with_capacity(PREFIX_BYTES + size);
    bytes.put_u8(0);
    bytes.put_u32(u32::try_from(size).expect("requests of this tool are far below 4 GiB"));
    message
        .encode(&mut bytes)
        .expect("there is room for the length that the message itself gave");
    bytes.freeze()
}

/// The answers to one call.
#[derive(Debug)]
pub(crate) struct Answers<A> {
    body: RecvStream,
    buffer: BytesMut,
    kind: std::marker::PhantomData<A>,
}

impl<A: Message + Default> Answers<A> {
    async fn begin(answer: ResponseFuture) -> Result<Self, Status> {
        let (head, body) = answer.await?.into_parts();
        if head.status != http::StatusCode::OK {
            return Err(Status::unavailable(format!("HTTP status {}", head.status)));
        }
        // A refusal without any message comes in the headers.
        if head.headers.contains_key("grpc-status") {
            check(&head.headers)?;
        }
        Ok(Self {
            body,
            buffer: BytesMut::new(),
            kind: std::marker::PhantomData,
        })
    }

    /// The next answer; `None` when there are no more. Cancel safe.
    ///
    /// # Errors
    /// [`Status`] as the server or the connection gave it.
    pub(crate) async fn next(&mut self) -> Result<Option<A>, Status> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            match self.body.data().await {
                Some(data) => {
                    let data = data?;
                    self.body.flow_control().release_capacity(data.len())?;
                    self.buffer.extend_from_slice(&data);
                }
                None => {
                    return match self.body.trailers().await? {
                        Some(trailers) => check(&trailers).map(|()| None),
                        None => Ok(None),
                    };
                }
            }
        }
    }

    fn take(&mut self) -> Result<Option<A>, Status> {
        let Some(prefix) = self.buffer.first_chunk::<PREFIX_BYTES>() else {
            return Ok(None);
        };
        let [flag, a, b, c, d] = *prefix;
        let size = u32::from_be_bytes([a, b, c, d]) as usize;
        if flag != 0 || size > MESSAGE_BYTES_MAX {
            let text = format!("a message of {size} bytes with flag {flag}");
            return Err(Status::internal(text));
        }
        if self.buffer.len() < PREFIX_BYTES + size {
            self.buffer.reserve(PREFIX_BYTES + size - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(PREFIX_BYTES);
        let bytes = self.buffer.split_to(size);
        if self.buffer.is_empty() {
            // An agent whose streams are silent keeps no buffer.
            self.buffer = BytesMut::new();
        }
        let message = A::decode(bytes.freeze());
        message
            .map(Some)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

/// Whether trailers say that the call succeeded.
fn check(headers: &HeaderMap) -> Result<(), Status> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(Status {
            code,
            message: text("grpc-message").unwrap_or_default().replace("%20", " "),
        }),
        None => Err(Status::internal("the answer has no status".to_owned())),
    }
}

/// Whether the error means that the other side closed the connection on purpose.
pub(crate) fn is_ordinary_end(error: &h2::Error) -> bool {
    error.is_io() || error.reason() == Some(Reason::NO_ERROR)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderMap;

    #[test]
    fn a_message_is_framed_with_its_length() {
        let framed = frame(&"abc".to_owned());
        assert_eq!(framed[..5], [0, 0, 0, 0, 5]);
        assert_eq!(String::decode(&framed[5..]).unwrap(), "abc");
    }

    #[test]
    fn a_status_is_read_from_trailers() {
        let mut trailers = HeaderMap::new();
        assert_eq!(check(&trailers).unwrap_err().code, INTERNAL);
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        assert_eq!(check(&trailers), Ok(()));
        trailers.insert("grpc-status", HeaderValue::from_static("5"));
        trailers.insert("grpc-message", HeaderValue::from_static("not%20here"));
        let status = check(&trailers).unwrap_err();
        assert_eq!(status.to_string(), "not here (code 5)");
    }
}
