//! Calls that are answered on the spot, and those that look like them.

use std::future::poll_fn;
use std::pin::Pin;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{Full, StreamBody};
use hyper::body::{Body as _, Bytes, Frame};
use tokio_stream::StreamExt as _;

use super::*;
use crate::lanes::Express;

pub(super) const PATH: &str = "/spot";
/// A message that is not answered on the spot.
const OTHER: &[u8] = b"other";

/// Answers a message with its bytes from the last to the first.
#[derive(Clone)]
pub(super) struct Backwards;

impl Express for Backwards {
    fn is_meant(&self, path: &str) -> bool {
        path == PATH
    }

    fn answer(&self, _: &Arc<Connection>, _: &HeaderMap, message: Bytes) -> Option<Bytes> {
        (message != OTHER).then(|| message.iter().rev().copied().collect())
    }
}

/// How the service behind answers: with what it read.
pub(super) async fn usual(request: Request<Body>) -> String {
    let read = whole(request.into_body()).await.unwrap();
    format!("usual {:?}", read.escape_ascii().to_string())
}

/// The data of a body, if it comes to its end.
async fn whole(mut body: Body) -> Option<Vec<u8>> {
    let mut all = Vec::new();
    let mut status = None;
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        match frame.ok()?.into_data() {
            Ok(data) => all.extend_from_slice(&data),
            Err(frame) => status = frame.into_trailers().ok()?.remove("grpc-status"),
        }
    }
    assert!(status.is_none_or(|it| it == "0"));
    Some(all)
}

/// A body of these pieces, each of which goes out by itself.
fn pieces(pieces: &[&'static [u8]]) -> Body {
    let frames = pieces
        .iter()
        .map(|it| Ok(Frame::data(Bytes::from_static(it))));
    let frames: Vec<Result<_, tonic::Status>> = frames.collect();
    let paced = tokio_stream::iter(frames).then(|frame| async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        frame
    });
    Body::new(StreamBody::new(paced))
}

async fn call(channel: &mut Channel, content: &str, body: Body) -> Result<Vec<u8>, String> {
    let channel = within(channel.ready()).await.unwrap();
    let request = Request::post(format!("https://manager{PATH}")).header(CONTENT_TYPE, content);
    let response = within(channel.call(request.body(body).unwrap()))
        .await
        .unwrap();
    match response.headers().get("said") {
        Some(said) => Err(said.to_str().unwrap().to_owned()),
        None => Ok(within(whole(response.into_body())).await.unwrap()),
    }
}

#[tokio::test]
async fn a_small_whole_message_is_answered_on_the_spot_and_all_others_by_the_service() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let worker = node(authority.tls("w1", WORKER));
    let mut channel = listening.dial(&worker);
    let grpc = "application/grpc";
    let whole = || Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\x03abc")));
    for _ in 0..3 {
        let answer = call(&mut channel, grpc, whole()).await;
        assert_eq!(answer.unwrap(), b"\0\0\0\0\x03cba");
    }
    // A client of tonic says after the message that it was the last.
    let frame = Ok::<_, tonic::Status>(Frame::data(Bytes::from_static(b"\0\0\0\0\x03abc")));
    let streamed = Body::new(StreamBody::new(tokio_stream::iter([frame])));
    let answer = call(&mut channel, grpc, streamed).await;
    assert_eq!(answer.unwrap(), b"\0\0\0\0\x03cba");
    // More at a time than one read takes: those that it cuts are for the service.
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..300 {
        let (mut channel, body) = (channel.clone(), whole());
        calls.spawn(async move { call(&mut channel, grpc, body).await });
    }
    while let Some(answer) = calls.join_next().await {
        match answer.unwrap() {
            Ok(answer) => assert_eq!(answer, b"\0\0\0\0\x03cba"),
            Err(usual) => assert_eq!(usual, format!("usual {:?}", r"\x00\x00\x00\x00\x03abc")),
        }
    }
    for (content, body, read) in [
        (
            grpc,
            &[&b"\0\0\0\0\x05other"[..]][..],
            r"\x00\x00\x00\x00\x05other",
        ),
        (
            grpc,
            &[b"\0\0\0", b"\0\x03", b"abc"],
            r"\x00\x00\x00\x00\x03abc",
        ),
        (grpc, &[b"\x01\0\0\0\x03abc"], r"\x01\x00\x00\x00\x03abc"),
        (grpc, &[b"\0\0\0\0\x09abc"], r"\x00\x00\x00\x00\tabc"),
        (grpc, &[], ""),
        (
            "text/plain",
            &[b"\0\0\0\0\x03abc"],
            r"\x00\x00\x00\x00\x03abc",
        ),
    ] {
        let refused = call(&mut channel, content, pieces(body)).await.unwrap_err();
        assert_eq!(refused, format!("usual {:?}", read), "{body:?}");
    }
    listening.finish(&worker).await;
}
