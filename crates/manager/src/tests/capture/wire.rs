//! Calls as they look on the wire: headers, messages with their five bytes in front, trailers.

use std::convert::Infallible;
use std::marker::PhantomData;

use http::HeaderMap;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Bytes, Frame};
use prost::Message;
use tokio::sync::mpsc;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::transport::Channel;
use tower::{Service as _, ServiceExt as _};

use crate::tests::within;

/// Bytes in front of each message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// An answer under way.
pub(super) struct Answer<T> {
    pub(super) headers: HeaderMap,
    body: Body,
    received: Vec<u8>,
    trailers: Option<HeaderMap>,
    message: PhantomData<T>,
}

/// Calls a method with one message, as the worker of the capture did.
pub(super) async fn call<T: Message + Default>(
    channel: &Channel,
    path: &str,
    request: &impl Message,
) -> Answer<T> {
    let body = Body::new(Full::new(framed(request)));
    send(channel, path, body).await
}

/// Calls a method with a stream of messages, which ends with its sender.
pub(super) async fn call_with_stream<Q: Message + 'static, T: Message + Default>(
    channel: &Channel,
    path: &str,
    messages: mpsc::Receiver<Q>,
) -> Answer<T> {
    let frames = ReceiverStream::new(messages)
        .map(|message| Ok::<_, Infallible>(Frame::data(framed(&message))));
    send(channel, path, Body::new(StreamBody::new(frames))).await
}

fn framed(message: &impl Message) -> Bytes {
    let mut bytes = vec![0; PREFIX];
    message.encode(&mut bytes).unwrap();
    let length = u32::try_from(bytes.len() - PREFIX).unwrap();
    bytes[1..PREFIX].copy_from_slice(&length.to_be_bytes());
    bytes.into()
}

async fn send<T: Message + Default>(channel: &Channel, path: &str, body: Body) -> Answer<T> {
    let request = http::Request::post(format!("https://manager/docker.swarmkit.v1.{path}"))
        .header("content-type", "application/grpc")
        .header("user-agent", "grpc-go/1.33.3")
        .header("te", "trailers")
        .header("grpc-timeout", "19999960u")
        .body(body)
        .unwrap();
    let mut channel = channel.clone();
    let ready = within(channel.ready()).await.unwrap();
    let (head, body) = within(ready.call(request)).await.unwrap().into_parts();
    assert_eq!(head.status, 200, "{path}: {head:?}");
    Answer {
        headers: head.headers,
        body,
        received: Vec::new(),
        trailers: None,
        message: PhantomData,
    }
}

impl<T: Message + Default> Answer<T> {
    /// The next message; `None` at the end.
    pub(super) async fn message(&mut self) -> Option<T> {
        loop {
            if let Some(message) = self.take() {
                return Some(message);
            }
            match within(self.body.frame()).await?.unwrap().into_data() {
                Ok(data) => self.received.extend_from_slice(&data),
                Err(rest) => self.trailers = rest.into_trailers().ok(),
            }
        }
    }

    fn take(&mut self) -> Option<T> {
        let prefix: [u8; PREFIX] = self.received.get(..PREFIX)?.try_into().unwrap();
        let [compressed, length @ ..] = prefix;
        assert_eq!(compressed, 0, "nobody asked for compression");
        let end = PREFIX + usize::try_from(u32::from_be_bytes(length)).unwrap();
        let message = T::decode(self.received.get(PREFIX..end)?).unwrap();
        self.received.drain(..end);
        Some(message)
    }

    /// The one message of a call that went well, as the manager of the capture answered.
    pub(super) async fn only(mut self) -> T {
        let answer = self.message().await.expect("it is answered");
        assert_eq!(self.headers["content-type"], "application/grpc");
        assert!(
            !self.headers.contains_key("grpc-encoding"),
            "{:?}",
            self.headers
        );
        assert!(self.message().await.is_none(), "one message");
        let trailers = self.trailers.expect("the status comes behind the message");
        assert_eq!(trailers["grpc-status"], "0", "{trailers:?}");
        answer
    }

    /// The code and the text of a call that failed.
    pub(super) async fn refusal(mut self) -> (String, String) {
        assert!(self.message().await.is_none(), "no message");
        let status = self.trailers.unwrap_or(self.headers);
        let text = |name: &str| status[name].to_str().unwrap().to_owned();
        (text("grpc-status"), text("grpc-message"))
    }
}
