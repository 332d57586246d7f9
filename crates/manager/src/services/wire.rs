//! The streams to nodes, with messages that are encoded one by one: all other methods are the
//! stubs'.
//!
//! Each of thousands of nodes has three streams, which are silent nearly always. The stubs keep the
//! buffer of a stream for as long as it is open, as large as its largest message was; here a
//! message has a buffer of its own, which is gone when it was sent. Assignments are bytes already,
//! where the stubs would want values.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderMap, Response};
use hyper::body::{Body as HttpBody, Frame};
use prost::Message;
use swarm_api::codec::SmallBufferCodec;
use swarm_api::v1;
use swarm_api::v1::dispatcher_server::{self, DispatcherServer};
use swarm_api::v1::log_broker_server::{self, LogBrokerServer};
use swarm_rt::net;
use swarm_types::time::MANAGER_TIME_HEADER;
use tokio_stream::Stream;
use tonic::body::Body;
use tonic::codec::Codec as _;
use tonic::metadata::MetadataMap;
use tonic::server::NamedService;
use tonic::{Request, Status, Streaming};
use tower::Service;

use super::dispatcher::Dispatcher;
use super::logs::LogBroker;
use crate::streams::NodeStream;

const SESSION: &str = "/docker.swarmkit.v1.Dispatcher/Session";
const ASSIGNMENTS: &str = "/docker.swarmkit.v1.Dispatcher/Assignments";
const LISTEN: &str = "/docker.swarmkit.v1.LogBroker/ListenSubscriptions";
/// A flag for compression and the length of the message.
const PREFIX_BYTES: usize = 5;

type Called = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

/// The stubs of `Dispatcher`, but for its streams.
#[derive(Clone)]
pub(crate) struct DispatcherWire {
    dispatcher: Arc<Dispatcher>,
    others: DispatcherServer<Dispatcher>,
}

impl DispatcherWire {
    pub(crate) fn new(dispatcher: Dispatcher) -> Self {
        let dispatcher = Arc::new(dispatcher);
        let others = DispatcherServer::from_arc(Arc::clone(&dispatcher))
            .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        Self { dispatcher, others }
    }
}

impl NamedService for DispatcherWire {
    const NAME: &'static str = dispatcher_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for DispatcherWire {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Called;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Called {
        let dispatcher = Arc::clone(&self.dispatcher);
        match request.uri().path() {
            SESSION if is_plain(&request) => Box::pin(async move {
                let open = async |request| dispatcher.open_session(request).await;
                let mut response = answer(request, open).await;
                // So that a node can tell how far its clock is off; others pass over it.
                let now = HeaderValue::from(dispatcher.0.clock.now().as_nanos());
                response.headers_mut().insert(MANAGER_TIME_HEADER, now);
                Ok(response)
            }),
            ASSIGNMENTS if is_plain(&request) => Box::pin(async move {
                let open = async |request| dispatcher.open_assignments(request).await;
                Ok(answer(request, open).await)
            }),
            _ => self.others.call(request),
        }
    }
}

/// The stubs of `LogBroker`, but for its stream.
#[derive(Clone)]
pub(crate) struct LogBrokerWire {
    broker: Arc<LogBroker>,
    others: LogBrokerServer<LogBroker>,
}

impl LogBrokerWire {
    pub(crate) fn new(broker: LogBroker) -> Self {
        let broker = Arc::new(broker);
        let others = LogBrokerServer::from_arc(Arc::clone(&broker))
            .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX);
        Self { broker, others }
    }
}

impl NamedService for LogBrokerWire {
    const NAME: &'static str = log_broker_server::SERVICE_NAME;
}

impl Service<http::Request<Body>> for LogBrokerWire {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Called;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Called {
        if request.uri().path() != LISTEN || !is_plain(&request) {
            return self.others.call(request);
        }
        let broker = Arc::clone(&self.broker);
        Box::pin(async move {
            let open = async |request| broker.open_subscriptions(&request).await;
            Ok(answer(request, open).await)
        })
    }
}

/// The stubs refuse what is compressed, in words of their own.
fn is_plain<B>(request: &http::Request<B>) -> bool {
    !request.headers().contains_key("grpc-encoding")
}

async fn answer<Q, T>(
    request: http::Request<Body>,
    open: impl AsyncFnOnce(Request<Q>) -> Result<NodeStream<T>, Status>,
) -> Response<Body>
where
    Q: Message + Default + 'static,
    T: Outgoing,
{
    let opened = match only_message(request).await {
        Ok(request) => open(request).await,
        Err(status) => Err(status),
    };
    match opened {
        Ok(stream) => {
            let messages = Messages {
                stream,
                is_over: false,
            };
            let mut response = Response::new(Body::new(messages));
            let content = HeaderValue::from_static("application/grpc");
            response.headers_mut().insert(CONTENT_TYPE, content);
            response
        }
        Err(status) => status.into_http(),
    }
}

/// The one message of a request.
async fn only_message<Q>(request: http::Request<Body>) -> Result<Request<Q>, Status>
where
    Q: Message + Default + 'static,
{
    let (parts, body) = request.into_parts();
    let decoder = SmallBufferCodec::<(), Q>::default().decoder();
    let limit = Some(net::SERVER_RECEIVE_BYTES_MAX);
    let mut messages = Streaming::new_request(decoder, body, None, limit);
    let message = messages.message().await?;
    let message = message.ok_or_else(|| Status::internal("Missing request message."))?;
    let metadata = MetadataMap::from_headers(parts.headers);
    Ok(Request::from_parts(metadata, parts.extensions, message))
}

/// What travels to a node.
trait Outgoing: Send + Unpin + 'static {
    fn size(&self) -> usize;
    fn put(self, buffer: &mut BytesMut);
}

/// A message that is encoded already.
impl Outgoing for Bytes {
    fn size(&self) -> usize {
        self.len()
    }

    fn put(self, buffer: &mut BytesMut) {
        buffer.put(self);
    }
}

macro_rules! outgoing {
    ($($message:ty),*) => {$(
        impl Outgoing for $message {
            fn size(&self) -> usize {
                self.encoded_len()
            }

            fn put(self, buffer: &mut BytesMut) {
                self.encode_raw(buffer);
            }
        }
    )*};
}

outgoing!(v1::SessionMessage, v1::SubscriptionMessage);

/// A message in the framing of gRPC.
fn framed(message: impl Outgoing) -> Result<Bytes, Status> {
    let size = message.size();
    let Ok(length) = u32::try_from(size) else {
        return Err(Status::resource_exhausted(format!(
            "Cannot return body with more than 4GB of data but got {size} bytes"
        )));
    };
    let mut buffer = BytesMut::with_capacity(PREFIX_BYTES + size);
    buffer.put_u8(0);
    buffer.put_u32(length);
    message.put(&mut buffer);
    Ok(buffer.freeze())
}

/// The messages of a stream, then how it ended.
struct Messages<T> {
    stream: NodeStream<T>,
    is_over: bool,
}

impl<T: Outgoing> HttpBody for Messages<T> {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        let next = ready!(Pin::new(&mut self.stream).poll_next(context));
        let status = match next.map(|item| item.and_then(framed)) {
            Some(Ok(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
            Some(Err(status)) => status,
            None => Status::ok(""),
        };
        self.is_over = true;
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.is_over
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::streams::Sink;
    use http_body_util::BodyExt as _;
    use swarm_dispatcher::StreamId;
    use tokio::sync::mpsc;

    fn open<T: Outgoing>() -> (Sink<T>, Messages<T>) {
        let (events, _) = mpsc::unbounded_channel();
        let (sink, stream) = Sink::open(StreamId(1), &events);
        let messages = Messages {
            stream,
            is_over: false,
        };
        (sink, messages)
    }

    #[tokio::test]
    async fn messages_travel_in_frames_of_their_own_and_the_end_in_trailers() {
        let (sink, mut messages) = open();
        sink.put(Ok(v1::SubscriptionMessage {
            id: "abc".to_owned(),
            ..Default::default()
        }));
        let frame = messages.frame().await.unwrap().unwrap();
        assert_eq!(&*frame.into_data().unwrap(), b"\0\0\0\0\x05\n\x03abc");
        sink.put(Err(Status::aborted("over and out")));
        let frame = messages.frame().await.unwrap().unwrap();
        let status = Status::from_header_map(&frame.into_trailers().unwrap()).unwrap();
        assert_eq!(status.code(), tonic::Code::Aborted);
        assert_eq!(status.message(), "over and out");
        assert!(messages.is_end_stream() && messages.frame().await.is_none());
    }

    #[tokio::test]
    async fn bytes_travel_as_they_are_and_a_term_that_is_over_ends_well() {
        let (sink, mut messages) = open();
        sink.put(Ok(Bytes::from_static(b"xyz")));
        let frame = messages.frame().await.unwrap().unwrap();
        let data = frame.into_data().unwrap();
        assert_eq!(&*data, b"\0\0\0\0\x03xyz");
        drop(sink);
        let trailers = messages.frame().await.unwrap().unwrap().into_trailers();
        assert_eq!(trailers.unwrap().get("grpc-status").unwrap(), "0");
    }

    #[tokio::test]
    async fn a_request_without_a_message_is_refused() {
        let request = http::Request::new(Body::empty());
        let refused = only_message::<v1::SessionRequest>(request).await;
        assert!(refused.unwrap_err().message().contains("Missing"));
    }
}
