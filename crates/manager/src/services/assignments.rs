//! `Dispatcher.Assignments` with messages that are encoded already: the dispatcher makes bytes, and
//! the stubs would want values. All other methods are the stubs'.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{BufMut as _, Bytes};
use swarm_api::codec::{BUFFER_BYTES, SmallBufferCodec, YIELD_BYTES};
use swarm_api::v1;
use swarm_api::v1::dispatcher_server::{DispatcherServer, SERVICE_NAME};
use swarm_rt::net;
use tonic::body::Body;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic::codegen::BoxFuture;
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status};
use tower::Service;

use super::dispatcher::Dispatcher;
use crate::streams::NodeStream;

const METHOD: &str = "/docker.swarmkit.v1.Dispatcher/Assignments";

/// The stubs of `Dispatcher`, but for one method.
#[derive(Clone)]
pub(crate) struct Wire {
    dispatcher: Arc<Dispatcher>,
    others: DispatcherServer<Dispatcher>,
}

impl Wire {
    pub(crate) fn new(dispatcher: Dispatcher) -> Self {
        let dispatcher = Arc::new(dispatcher);
        let others = DispatcherServer::from_arc(Arc::clone(&dispatcher))
            .max_decoding_message_size(net::SERVER_RECEIVE_BYTES_MAX)
            .max_encoding_message_size(usize::MAX);
        Self { dispatcher, others }
    }
}

impl NamedService for Wire {
    const NAME: &'static str = SERVICE_NAME;
}

type Answer = Result<http::Response<Body>, Infallible>;

impl Service<http::Request<Body>> for Wire {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Answer> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        if request.uri().path() != METHOD {
            return self.others.call(request);
        }
        let method = Method(Arc::clone(&self.dispatcher));
        Box::pin(async move {
            let mut grpc = Grpc::new(EncodedCodec).apply_max_message_size_config(
                Some(net::SERVER_RECEIVE_BYTES_MAX),
                Some(usize::MAX),
            );
            Ok(grpc.server_streaming(method, request).await)
        })
    }
}

struct Method(Arc<Dispatcher>);

impl ServerStreamingService<v1::AssignmentsRequest> for Method {
    type Response = Bytes;
    type ResponseStream = NodeStream<Bytes>;
    type Future = BoxFuture<Response<Self::ResponseStream>, Status>;

    fn call(&mut self, request: Request<v1::AssignmentsRequest>) -> Self::Future {
        let dispatcher = Arc::clone(&self.0);
        Box::pin(async move {
            let node = dispatcher.caller(&request)?;
            let session = request.into_inner().session_id;
            let stream = dispatcher.open_assignments(node, session).await?;
            Ok(Response::new(stream))
        })
    }
}

#[derive(Debug)]
struct EncodedCodec;

/// What the stubs would use.
type Stub = SmallBufferCodec<v1::AssignmentsMessage, v1::AssignmentsRequest>;

impl Codec for EncodedCodec {
    type Encode = Bytes;
    type Decode = v1::AssignmentsRequest;
    type Encoder = EncodedEncoder;
    type Decoder = <Stub as Codec>::Decoder;

    fn encoder(&mut self) -> EncodedEncoder {
        EncodedEncoder
    }

    fn decoder(&mut self) -> Self::Decoder {
        Stub::default().decoder()
    }
}

#[derive(Debug)]
struct EncodedEncoder;

impl Encoder for EncodedEncoder {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(item.len());
        buffer.put(item);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
    }
}
