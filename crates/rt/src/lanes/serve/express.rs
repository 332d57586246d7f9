//! Answers small calls on the spot.
//!
//! Most calls of a cluster are heartbeats: one field in, one field out, and nothing to wait for.
//! Making a future of each, routing it to its service and taking it through the codec and back
//! costs several times what answering it does. Owns the gRPC framing of such calls and when one is
//! not answered here; everything that is in any way unusual goes the usual way.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h2::server::SendResponse;
use h2::{Reason, RecvStream};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Method, Request, Response};

use crate::tls::Connection;

const CONTENT: &str = "application/grpc";
/// A flag for compression and the length of the message.
const PREFIX_BYTES: usize = 5;
/// Longest message that is answered here. Answers are as small, so one fits into what any peer
/// takes at once, and nothing has to wait for room.
const MESSAGE_BYTES_MAX: usize = 512;

/// Knows calls of one small message each way, for which nobody has to wait.
pub trait Express: Clone + Send + 'static {
    /// Whether the calls of a path can be such.
    fn is_meant(&self, path: &str) -> bool;

    /// The answer to a message. `None` if this is not the place to answer: the call is made in the
    /// usual way then, and nothing may have been done yet.
    fn answer(
        &self,
        connection: &Arc<Connection>,
        headers: &HeaderMap,
        message: Bytes,
    ) -> Option<Bytes>;
}

/// A call for the usual way.
pub(super) struct Usual {
    pub(super) request: Request<RecvStream>,
    /// What was taken out of its body.
    pub(super) first: Option<Bytes>,
    /// It is one of those that are meant for this place and has not come whole yet. Some clients
    /// send the message of a call in a write of its own: nothing hurries about its answer.
    is_on_its_way: bool,
}

impl Usual {
    /// Whether there is more to do than to answer small calls.
    pub(super) fn is_urgent(&self) -> bool {
        !self.is_on_its_way
    }
}

/// Answers a call, or gives it back if that cannot be done at once.
pub(super) fn attempt(
    express: &impl Express,
    connection: &Arc<Connection>,
    mut request: Request<RecvStream>,
    respond: &mut SendResponse<Bytes>,
    context: &mut Context<'_>,
) -> Option<Usual> {
    if !express.is_meant(request.uri().path()) || !is_plain(&request) {
        return Some(Usual {
            request,
            first: None,
            is_on_its_way: false,
        });
    }
    // What is not here yet, broken or in pieces is for those who can wait for the rest.
    let (data, is_all) = arrived(request.body_mut(), context);
    let answer = is_all
        .then(|| message(data.clone()))
        .flatten()
        .and_then(|message| express.answer(connection, request.headers(), message));
    let Some(answer) = answer else {
        return Some(Usual {
            request,
            is_on_its_way: !is_all && data.len() <= MESSAGE_BYTES_MAX,
            first: Some(data),
        });
    };
    if send(respond, &answer).is_err() {
        // Nobody waits for the answer any more.
        respond.send_reset(Reason::CANCEL);
    }
    None
}

/// What has come of a body, one piece or two, and whether that is all. Many clients say only after
/// their message that it was the last.
fn arrived(body: &mut RecvStream, context: &mut Context<'_>) -> (Bytes, bool) {
    let mut first = Bytes::new();
    while !body.is_end_stream() {
        let data = match body.poll_data(context) {
            Poll::Ready(Some(Ok(data))) => data,
            Poll::Ready(None) => break,
            Poll::Ready(Some(Err(_))) | Poll::Pending => return (first, false),
        };
        // Fails only for more than came.
        let _ = body.flow_control().release_capacity(data.len());
        if first.is_empty() {
            first = data;
        } else if !data.is_empty() {
            let mut both = BytesMut::from(first);
            both.put_slice(&data);
            return (both.freeze(), false);
        }
    }
    (first, true)
}

fn is_plain<B>(request: &Request<B>) -> bool {
    let headers = request.headers();
    request.method() == Method::POST
        && headers.get(CONTENT_TYPE).is_some_and(|it| it == CONTENT)
        && !headers.contains_key("grpc-encoding")
}

/// The message of a body, if that is one whole small message as it is.
fn message(mut body: Bytes) -> Option<Bytes> {
    let (flag, length) = body.get(..PREFIX_BYTES)?.split_first()?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let is_whole = body.len().checked_sub(PREFIX_BYTES) == usize::try_from(length).ok();
    if *flag != 0 || !is_whole || body.len() > MESSAGE_BYTES_MAX {
        return None;
    }
    body.advance(PREFIX_BYTES);
    Some(body)
}

/// A message, and the trailers of a call that went well.
fn send(respond: &mut SendResponse<Bytes>, answer: &[u8]) -> Result<(), h2::Error> {
    let mut data = BytesMut::with_capacity(PREFIX_BYTES + answer.len());
    data.put_u8(0);
    data.put_u32(u32::try_from(answer.len()).unwrap_or(u32::MAX));
    data.put_slice(answer);
    let mut head = Response::new(());
    let content = HeaderValue::from_static(CONTENT);
    head.headers_mut().insert(CONTENT_TYPE, content);
    let mut stream = respond.send_response(head, false)?;
    stream.send_data(data.freeze(), false)?;
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    stream.send_trailers(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_whole_small_message_is_answered() {
        let whole = message(Bytes::from_static(b"\0\0\0\0\x03abc"));
        assert_eq!(whole.as_deref(), Some(&b"abc"[..]));
        let empty = message(Bytes::from_static(b"\0\0\0\0\0"));
        assert_eq!(empty.as_deref(), Some(&b""[..]));
        for body in [
            &b""[..],
            b"\0\0\0",
            b"\0\0\0\0\x03ab",
            b"\0\0\0\0\x03abcd",
            b"\x01\0\0\0\x03abc",
            b"\0\x7f\0\0\0a",
            b"\0\xff\xff\xff\xff",
        ] {
            assert_eq!(message(Bytes::from_static(body)), None, "{body:?}");
        }
        let sized = |length: usize| {
            let mut body = vec![0; length];
            let rest = u32::try_from(length - PREFIX_BYTES).unwrap();
            body[1..PREFIX_BYTES].copy_from_slice(&rest.to_be_bytes());
            Bytes::from(body)
        };
        assert!(message(sized(MESSAGE_BYTES_MAX)).is_some());
        assert!(message(sized(MESSAGE_BYTES_MAX + 1)).is_none());
    }
}
