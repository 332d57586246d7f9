//! Calls that are answered on the spot, and those that look like them.

use std::future::poll_fn;
use std::pin::Pin;

use http::HeaderMap;
use http::header::CONTENT_TYPE;
use http_body_util::{Full, StreamBody};
use hyper::body::{Body as _, Bytes, Frame};
use rustls::pki_types::ServerName as Name;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
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

/// Frames of HTTP/2, by their number.
const DATA: u8 = 0;
const HEADERS: u8 = 1;
pub(super) const SETTINGS: u8 = 4;
const PING: u8 = 6;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A client that decides what goes out together: with that of hyper, the end of a body comes with
/// the rest or after it as the machine finds time.
pub(super) struct Wire(pub(super) TlsStream<TcpStream>);

impl Wire {
    pub(super) async fn open(rig: &Rig, credentials: &Credentials) -> Self {
        let stream = TcpStream::connect(rig.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let connector = TlsConnector::from(Arc::clone(&credentials.client.node));
        let name = Name::try_from("swarm-manager").unwrap();
        let mut stream = within(connector.connect(name, stream)).await.unwrap();
        let mut start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        start.extend(frame(SETTINGS, 0, 0, b""));
        stream.write_all(&start).await.unwrap();
        Self(stream)
    }

    fn head(stream: u32) -> Vec<u8> {
        // POST and https, then the path, the authority and the content type as they are.
        let mut head = b"\x83\x87\x04\x05/spot\x01\x07manager".to_vec();
        head.extend(b"\x0f\x10\x10application/grpc");
        frame(HEADERS, END_HEADERS, stream, &head)
    }

    /// Makes a call in one piece, with these frames of data of which the last says that it is.
    /// The data of the answer.
    pub(super) async fn call(&mut self, stream: u32, pieces: &[&[u8]]) -> Vec<u8> {
        let mut call = Self::head(stream);
        for (left, piece) in (0..pieces.len()).rev().zip(pieces) {
            let flags = if left == 0 { END_STREAM } else { 0 };
            call.extend(frame(DATA, flags, stream, piece));
        }
        self.0.write_all(&call).await.unwrap();
        self.answer(stream).await
    }

    /// Makes a call whose message goes out when its head was read.
    async fn call_in_two(&mut self, stream: u32, message: &[u8]) -> Vec<u8> {
        let mut head = Self::head(stream);
        head.extend(frame(PING, 0, 0, &[7; 8]));
        self.0.write_all(&head).await.unwrap();
        while self.frame().await.0 != PING {}
        let message = frame(DATA, END_STREAM, stream, message);
        self.0.write_all(&message).await.unwrap();
        self.answer(stream).await
    }

    /// The kind of the next frame, its flags, its stream and what is in it.
    async fn frame(&mut self) -> (u8, u8, u32, Vec<u8>) {
        let mut head = [0; 9];
        within(self.0.read_exact(&mut head)).await.unwrap();
        let [a, b, c, kind, flags, id @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        within(self.0.read_exact(&mut payload)).await.unwrap();
        (kind, flags, u32::from_be_bytes(id), payload)
    }

    async fn answer(&mut self, stream: u32) -> Vec<u8> {
        let mut answer = Vec::new();
        loop {
            let (kind, flags, id, payload) = self.frame().await;
            if id != stream {
                continue;
            }
            if kind == DATA {
                answer.extend(payload);
            }
            if flags & END_STREAM != 0 {
                return answer;
            }
        }
    }
}

#[tokio::test]
async fn a_small_whole_message_is_answered_on_the_spot() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let credentials = authority.credentials("w1", WORKER);
    let mut wire = Wire::open(&listening, &credentials).await;
    // Go's clients say with the message that it was the last, those of tonic after it.
    let message = &b"\0\0\0\0\x03abc"[..];
    let whole = [&[message][..], &[message, b""], &[b"", message]];
    for (stream, pieces) in (1..).step_by(2).zip(whole.iter().cycle().take(6)) {
        assert_eq!(wire.call(stream, pieces).await, b"\0\0\0\0\x03cba");
    }
    // The service behind answers without data.
    assert_eq!(wire.call(101, &[&message[..4], &message[4..]]).await, b"");
    drop(wire);
    let worker = Security::Node(credentials, ServerName::Manager);
    listening.finish(&worker).await;
}

#[tokio::test]
async fn a_message_that_comes_after_its_head_ends_no_pause() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let credentials = authority.credentials("w1", WORKER);
    let mut wire = Wire::open(&listening, &credentials).await;
    let hurries = || {
        let mut lanes = listening.lanes.iter();
        lanes.any(|lane| lane.gatherer().is_in_a_hurry())
    };
    within(async {
        while hurries() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    // The service behind answers, without data.
    let answer = wire.call_in_two(1, b"\0\0\0\0\x03abc").await;
    assert_eq!(answer, b"");
    assert!(!hurries(), "it is small, and there is nothing else");
    let message = [&b"\0\0\0\0\x05"[..], OTHER].concat();
    assert_eq!(wire.call(3, &[&message]).await, b"");
    assert!(hurries(), "somebody wants something else");
    drop(wire);
    let worker = Security::Node(credentials, ServerName::Manager);
    listening.finish(&worker).await;
}

#[tokio::test]
async fn what_is_not_small_and_whole_is_answered_by_the_service() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let worker = node(authority.tls("w1", WORKER));
    let mut channel = listening.dial(&worker);
    let grpc = "application/grpc";
    let whole = || Body::new(Full::new(Bytes::from_static(b"\0\0\0\0\x03abc")));
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
