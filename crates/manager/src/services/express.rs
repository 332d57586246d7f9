//! Answers heartbeats without the machinery of a gRPC server.
//!
//! Most calls of a cluster are heartbeats: one field in, one field out, no waiting. Routing one to
//! its service and back through the codec costs several times what answering it does. Owns the
//! framing of this one call; everything that is not a plain heartbeat goes the usual way.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message as _;
use swarm_api::v1;
use swarm_rt::net::{Caller, SERVER_RECEIVE_BYTES_MAX};
use tonic::Status;
use tonic::body::Body;
use tower::Service;

use super::dispatcher::Dispatcher;

const HEARTBEAT: &str = "/docker.swarmkit.v1.Dispatcher/Heartbeat";
const CONTENT: &str = "application/grpc";
/// A flag for compression and the length of the message.
const PREFIX_BYTES: usize = 5;

/// All services, with a way of their own for heartbeats.
#[derive(Clone)]
pub(crate) struct Express<S> {
    dispatcher: Arc<Dispatcher>,
    others: S,
}

impl<S> Express<S> {
    pub(crate) fn new(dispatcher: Dispatcher, others: S) -> Self {
        let dispatcher = Arc::new(dispatcher);
        Self { dispatcher, others }
    }
}

impl<S> Service<Request<Body>> for Express<S>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.others.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let caller = is_plain(&request)
            .then(|| request.extensions_mut().remove::<Caller>())
            .flatten();
        let Some(caller) = caller else {
            return Box::pin(self.others.call(request));
        };
        let dispatcher = Arc::clone(&self.dispatcher);
        Box::pin(async move {
            let answer = heartbeat(&dispatcher, &caller, request.into_body()).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

fn is_plain<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.uri().path() == HEARTBEAT
        && request.method() == Method::POST
        && !headers.contains_key("grpc-encoding")
        && headers.get(CONTENT_TYPE).is_some_and(|it| it == CONTENT)
}

async fn heartbeat(
    dispatcher: &Dispatcher,
    caller: &Caller,
    body: Body,
) -> Result<Response<Body>, Status> {
    let request = v1::HeartbeatRequest::decode(message(body).await?);
    let request = request.map_err(|error| Status::internal(error.to_string()))?;
    let answer = dispatcher.beat(caller, &request.session_id).await?;
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + answer.encoded_len());
    data.put_u8(0);
    data.put_u32(u32::try_from(answer.encoded_len()).unwrap_or(u32::MAX));
    // There is room for it.
    let _ = answer.encode(&mut data);
    let mut response = Response::new(Body::new(Answer::Message(data.freeze())));
    let content = HeaderValue::from_static(CONTENT);
    response.headers_mut().insert(CONTENT_TYPE, content);
    Ok(response)
}

/// The one message of a call.
async fn message(mut body: Body) -> Result<Bytes, Status> {
    let mut all = Bytes::new();
    loop {
        let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
        let Some(frame) = frame.transpose()? else {
            break;
        };
        if let Ok(data) = frame.into_data() {
            all = joined(all, data);
        }
        check(&all)?;
    }
    if all.len() < PREFIX_BYTES {
        return Err(Status::internal("Missing request message."));
    }
    let length = length(&all);
    all.advance(PREFIX_BYTES);
    if all.len() != length {
        return Err(Status::internal("Unexpected EOF decoding stream."));
    }
    Ok(all)
}

/// Nearly always there is one frame only.
fn joined(all: Bytes, data: Bytes) -> Bytes {
    if all.is_empty() {
        return data;
    }
    let mut both = BytesMut::from(all);
    both.extend_from_slice(&data);
    both.freeze()
}

fn length(all: &[u8]) -> usize {
    let length = all.get(1..PREFIX_BYTES).and_then(|it| it.try_into().ok());
    length.map_or(0, |it| u32::from_be_bytes(it) as usize)
}

/// Refuses what will not be a message of ours as soon as that is known.
fn check(all: &[u8]) -> Result<(), Status> {
    if all.len() < PREFIX_BYTES {
        return Ok(());
    }
    if all.first() != Some(&0) {
        return Err(Status::internal(
            "protocol error: received message with compressed-flag but no grpc-encoding was \
             specified",
        ));
    }
    let (length, limit) = (length(all), SERVER_RECEIVE_BYTES_MAX);
    if length > limit {
        return Err(Status::out_of_range(format!(
            "Error, decoded message length too large: found {length} bytes, the limit is: {limit} \
             bytes"
        )));
    }
    if all.len() > PREFIX_BYTES + length {
        return Err(Status::internal(
            "a heartbeat is one message, and there are more",
        ));
    }
    Ok(())
}

/// A message, then the trailers of a call that went well.
enum Answer {
    Message(Bytes),
    Trailers,
    Over,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = match std::mem::replace(&mut *self, Self::Over) {
            Self::Message(data) => {
                *self = Self::Trailers;
                Frame::data(data)
            }
            Self::Trailers => {
                let mut trailers = HeaderMap::with_capacity(1);
                trailers.insert("grpc-status", HeaderValue::from_static("0"));
                Frame::trailers(trailers)
            }
            Self::Over => return Poll::Ready(None),
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A message of three bytes, cut into frames of so many bytes.
    async fn read(bytes: &'static [u8], frame: usize) -> Result<Bytes, Status> {
        struct Frames(std::slice::Chunks<'static, u8>);
        impl HttpBody for Frames {
            type Data = Bytes;
            type Error = Infallible;
            fn poll_frame(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                let data = self.0.next().map(Bytes::from_static);
                Poll::Ready(data.map(|data| Ok(Frame::data(data))))
            }
        }
        message(Body::new(Frames(bytes.chunks(frame)))).await
    }

    #[tokio::test]
    async fn a_message_is_read_however_it_is_cut() {
        for frame in 1..9 {
            let read = read(b"\0\0\0\0\x03abc", frame).await;
            assert_eq!(&*read.unwrap(), b"abc", "{frame}");
        }
        assert!(read(b"\0\0\0\0\0", 9).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_not_one_message_is_refused() {
        for (bytes, words) in [
            (&b""[..], "Missing"),
            (b"\0\0\0", "Missing"),
            (b"\0\0\0\0\x03ab", "EOF"),
            (b"\0\0\0\0\x03abcd", "one message"),
            (b"\x01\0\0\0\x03abc", "compressed"),
            (b"\0\x7f\0\0\0a", "too large"),
        ] {
            let refused = read(bytes, 2_usize.max(bytes.len())).await.unwrap_err();
            assert!(refused.message().contains(words), "{refused:?}");
        }
    }
}
