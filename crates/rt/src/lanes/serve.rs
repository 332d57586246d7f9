//! Serves HTTP/2 on the connections of a lane.
//!
//! A call is begun by the task of its connection, and gets a task of its own only when it has to
//! wait. A heartbeat does not even become a future ([`Express`]): reading, answering and writing it
//! are one turn of one task.
//!
//! Owns how calls and connections end. Does not own what is answered, nor the bounds of HTTP/2,
//! which are those of every listener ([`crate::net`]).

mod body;
mod cork;
mod express;
mod keepalive;
mod knock;

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::server::{Builder, SendResponse};
use h2::{Reason, SendStream};
use http::{Request, Response};
use hyper::body::Body as _;
use tokio::task::JoinSet;
use tokio_stream::StreamExt as _;
use tonic::body::Body;
use tower::Service;

pub use express::Express;
pub use keepalive::Keepalive;

use super::Lane;
use crate::Shutdown;
use crate::net::{
    CONNECTION_WINDOW_BYTES, HEADERS_BYTES_MAX, STREAM_WINDOW_BYTES, STREAMS_PER_CONNECTION_MAX,
};
use crate::tls::{Connection, Incoming, TlsIo};
use cork::{Cork, Corked};
use keepalive::Watch;
use knock::Knock;

/// Serves connections on the lane that they were handed to, until the signal is given, and then
/// until their calls are over. Services find the connection of a request in its extensions.
pub async fn serve<S, E: Express>(
    lane: &Lane,
    mut incoming: Incoming,
    express: E,
    service: S,
    keepalive: Keepalive,
    stop: Shutdown,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    // As many as the listener admits.
    let mut connections = JoinSet::new();
    let mut stopping = pin!(stop.begun());
    loop {
        let io = tokio::select! {
            () = &mut stopping => break,
            Some(_) = connections.join_next() => continue,
            io = incoming.next() => io,
        };
        match io {
            Some(Ok(io)) => {
                let (lane, express, service) = (lane.clone(), express.clone(), service.clone());
                connections.spawn(connection(
                    lane,
                    io,
                    express,
                    service,
                    keepalive,
                    stop.clone(),
                ));
            }
            Some(Err(error)) => tracing::debug!(%error, "no connection"),
            None => break,
        }
    }
    while connections.join_next().await.is_some() {}
}

async fn connection<S, E: Express>(
    lane: Lane,
    io: TlsIo,
    express: E,
    service: S,
    keepalive: Keepalive,
    stop: Shutdown,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let about = Arc::clone(io.shared());
    // Apart, as its state is as large as that of the connection, and is needed once.
    let cork = Cork::default();
    let io = Corked::new(io, cork.clone());
    let handshake = Box::pin(http2().handshake::<_, Bytes>(io));
    match handshake.await {
        Ok(http) => calls(lane, (http, cork), about, express, service, keepalive, stop).await,
        Err(error) => {
            let error = crate::chain(&error);
            tracing::debug!(%error, remote = %about.remote(), "no HTTP/2");
        }
    }
}

/// Takes the calls of a connection until its end.
fn calls<S, E: Express>(
    lane: Lane,
    (mut http, cork): (h2::server::Connection<Corked<TlsIo>, Bytes>, Cork),
    about: Arc<Connection>,
    express: E,
    service: S,
    keepalive: Keepalive,
    stop: Shutdown,
) -> impl Future<Output = ()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut watch = http.ping_pong().map(|pings| Watch::new(keepalive, pings));
    // As many as the bound on streams; they end with the connection.
    let mut calls = JoinSet::new();
    let mut stopping = Box::pin(async move { stop.begun().await });
    let mut is_stopping = false;
    let mut knock = Knock::default();
    poll_fn(move |context| {
        let waker = knock.waker(context.waker());
        let context = &mut Context::from_waker(&waker);
        // Until all that has come is read.
        cork.put_in();
        loop {
            // What follows sees all that the answers so far have left to do.
            knock.forget();
            while let Poll::Ready(Some(_)) = calls.poll_join_next(context) {}
            if !is_stopping && stopping.as_mut().poll(context).is_ready() {
                is_stopping = true;
                // The end waits for the peer's answer to a PING.
                lane.gatherer.hurry();
                http.graceful_shutdown();
            }
            if is_gone(&mut watch, &lane, context) {
                about.note_half_open();
                return Poll::Ready(());
            }
            let (request, mut respond) = match http.poll_accept(context) {
                Poll::Ready(Some(Ok(call))) => call,
                Poll::Ready(Some(Err(error))) => {
                    note_break(&about, &error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending if cork.take_out() => continue,
                Poll::Pending => {
                    knock.pass_on();
                    return Poll::Pending;
                }
            };
            cork.take_out();
            if let Some(watch) = &mut watch {
                watch.heard();
            }
            let usual = express::attempt(&express, &about, request, &mut respond, context);
            let Some(usual) = usual else { continue };
            if usual.is_urgent() {
                lane.gatherer.hurry();
            }
            let first = usual.first;
            let request = usual.request.map(|stream| body::received(first, stream));
            let call = answer(service.clone(), request, respond, Arc::clone(&about));
            begin(&mut calls, Box::pin(call), context);
        }
    })
}

/// Whether the peer does not answer any more.
fn is_gone(watch: &mut Option<Watch>, lane: &Lane, context: &mut Context<'_>) -> bool {
    let Some(watch) = watch else { return false };
    let is_gone = watch.poll(context).is_ready();
    if watch.awaits_answer() {
        // It comes soon after the question, and must not be taken for a mere reaction.
        lane.gatherer.hurry();
    }
    is_gone
}

/// With the bounds of every listener.
fn http2() -> Builder {
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .initial_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
    builder
}

fn note_break(about: &Connection, error: &h2::Error) {
    let kind = error.get_io().map(std::io::Error::kind);
    if kind == Some(std::io::ErrorKind::TimedOut) {
        // The kernel found out that nobody is there.
        about.note_half_open();
    }
    let error = crate::chain(error);
    tracing::debug!(%error, remote = %about.remote(), "connection broken");
}

/// Takes a call as far as it goes, and gives it a task if that is not to its end. What finds the
/// answer is much larger than what sends it, and gone while a stream is open.
fn begin(
    calls: &mut JoinSet<()>,
    mut call: Pin<Box<impl Future<Output = Option<Rest>> + Send + 'static>>,
    context: &mut Context<'_>,
) {
    match call.as_mut().poll(context) {
        Poll::Ready(None) => {}
        Poll::Ready(Some(rest)) => {
            drop(call);
            let mut sending = Box::pin(send(rest));
            if sending.as_mut().poll(context).is_pending() {
                calls.spawn(sending);
            }
        }
        Poll::Pending => {
            calls.spawn(async move {
                let rest = call.await;
                if let Some(rest) = rest {
                    send(rest).await;
                }
            });
        }
    }
}

/// What is still to be sent of an answer, after its head.
struct Rest {
    stream: SendStream<Bytes>,
    body: Body,
}

/// The caller does not want the rest, or cannot have it.
struct Gone;

async fn answer<S>(
    mut service: S,
    mut request: Request<Body>,
    mut respond: SendResponse<Bytes>,
    connection: Arc<Connection>,
) -> Option<Rest>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
{
    request.extensions_mut().insert(connection);
    let Ok(()) = poll_fn(|context| service.poll_ready(context)).await;
    let response = {
        let mut answer = pin!(service.call(request));
        poll_fn(|context| match answer.as_mut().poll(context) {
            Poll::Ready(Ok(response)) => Poll::Ready(Some(response)),
            Poll::Pending => respond.poll_reset(context).map(|_| None),
        })
        .await
    };
    let (head, body) = response?.into_parts();
    let is_end = body.is_end_stream();
    let head = Response::from_parts(head, ());
    // An error means that nobody waits for the answer.
    let stream = respond.send_response(head, is_end).ok()?;
    (!is_end).then_some(Rest { stream, body })
}

async fn send(rest: Rest) {
    // As above.
    drop(send_all(rest).await);
}

async fn send_all(rest: Rest) -> Result<(), Gone> {
    let Rest {
        mut stream,
        mut body,
    } = rest;
    loop {
        // Nothing is taken out of the body that could not go out: a slow peer costs no memory.
        room(&mut stream, 1).await?;
        let frame = poll_fn(|context| {
            if let Poll::Ready(frame) = Pin::new(&mut body).poll_frame(context) {
                return Poll::Ready(Ok(frame));
            }
            stream.poll_reset(context).map(|_| Err(Gone))
        });
        let frame = match frame.await? {
            Some(Ok(frame)) => frame,
            Some(Err(_)) => {
                stream.send_reset(Reason::INTERNAL_ERROR);
                return Err(Gone);
            }
            None => return stream.send_data(Bytes::new(), true).map_err(|_| Gone),
        };
        let frame = match frame.into_data() {
            Ok(data) => {
                send_data(&mut stream, data).await?;
                continue;
            }
            Err(frame) => frame,
        };
        if let Ok(trailers) = frame.into_trailers() {
            return stream.send_trailers(trailers).map_err(|_| Gone);
        }
    }
}

async fn send_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), Gone> {
    while !data.is_empty() {
        let room = room(stream, data.len()).await?;
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, false).map_err(|_| Gone)?;
    }
    Ok(())
}

/// Waits until the peer takes something. How much, if so many bytes are at hand.
async fn room(stream: &mut SendStream<Bytes>, bytes: usize) -> Result<usize, Gone> {
    stream.reserve_capacity(bytes);
    poll_fn(|context| {
        loop {
            let room = stream.capacity();
            if room > 0 {
                return Poll::Ready(Ok(room));
            }
            match stream.poll_capacity(context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Err(Gone)),
                Poll::Pending => return stream.poll_reset(context).map(|_| Err(Gone)),
            }
        }
    })
    .await
}
