//! Peers that are slow on purpose, or gone without a word.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Body as HttpBody, Bytes, Frame};
use swarm_rt::metrics::Refused;
use swarm_rt::tls::{self, Security, ServerName};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tower::{Service as _, ServiceExt as _};

use super::world::{World, begin};
use super::*;

/// A request that begins and never ends.
struct Endless(Option<Bytes>);

impl HttpBody for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            None => Poll::Pending,
        }
    }
}

#[tokio::test]
async fn a_request_that_never_ends_is_given_up() {
    let bounds = Bounds {
        call_timeout: Duration::from_secs(1),
        ..Bounds::default()
    };
    let world = World::start_within(bounds).await;
    let (_, tls) = world.worker().await;
    let mut channel = world.dial_as(tls);
    let mut count = 0;
    for beginning in [&b""[..], b"\0\0\0", b"\0\0\x10\0\0abc"] {
        let body = tonic::body::Body::new(Endless(Some(Bytes::from_static(beginning))));
        let request = http::Request::post("https://m/docker.swarmkit.v1.Dispatcher/Heartbeat")
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let ready = within(channel.ready()).await.unwrap();
        let answer = within(ready.call(request)).await.unwrap();
        let status = tonic::Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        count += 1;
        world.refused(Refused::CallTimeout, count).await;
    }
    drop(channel);
    world.finish().await;
}

/// Carries connections to an address, until it is told to let everything lie.
async fn carrier(to: SocketAddr) -> (SocketAddr, watch::Sender<bool>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (frozen, is_frozen) = watch::channel(false);
    let tasks = Tasks::new(Shutdown::new());
    let carriers = tasks.clone();
    tasks.spawn("carrier", OnError::Log, async move {
        loop {
            let (mut near, _) = listener.accept().await?;
            let mut is_frozen = is_frozen.clone();
            carriers.spawn("connection", OnError::Log, async move {
                let mut far = TcpStream::connect(to).await?;
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    () = async { drop(is_frozen.wait_for(|frozen| *frozen).await) } => {
                        // Both sockets stay open, and nobody says anything any more.
                        std::future::pending::<()>().await;
                    }
                }
                far.shutdown().await?;
                Ok(())
            });
        }
    });
    (address, frozen)
}

#[tokio::test]
async fn a_connection_whose_other_end_is_gone_is_closed() {
    let bounds = Bounds {
        worker_keepalive_interval: Duration::from_millis(200),
        keepalive_timeout: Duration::from_millis(200),
        ..Bounds::default()
    };
    let world = World::start_within(bounds).await;
    let (_, tls) = world.worker().await;
    let (address, frozen) = carrier(world.address()).await;
    let credentials = Credentials::new(tls).unwrap();
    let security = Security::Node(credentials, ServerName::Manager);
    let channel = tls::dial(&address.to_string(), &security).unwrap();
    let mut client = DispatcherClient::new(channel);
    let (_, stream) = begin(&mut client, "").await;
    let open = "swarm_connections{peer=\"worker\"} 1";
    let sessions = "swarm_dispatcher_sessions 1";
    let text = world.metrics.text();
    assert!(text.contains(open) && text.contains(sessions), "{text}");
    frozen.send_replace(true);
    within(async {
        loop {
            let text = world.metrics.text();
            if !text.contains(open) && !text.contains(sessions) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    world.refused(Refused::HalfOpen, 1).await;
    drop((client, stream));
    world.finish().await;
}

/// A request that is complete and says how long its caller waits.
fn limited<T>(message: T, time: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(time);
    request
}

#[tokio::test]
async fn a_stream_ends_when_its_caller_waits_no_longer() {
    let world = World::start().await;
    let (_, worker) = world.worker().await;
    let manager = world.authority.tls("manager", MANAGER, CLUSTER);
    let until_it_ends = async |tls| {
        let mut client = DispatcherClient::new(world.dial_as(tls));
        // Long enough for a first message on a machine that has no time for the manager.
        let request = limited(v1::SessionRequest::default(), Duration::from_secs(5));
        let mut stream = within(client.session(request)).await.unwrap().into_inner();
        message(&mut stream).await;
        let status = ended(stream).await;
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        assert!(status.message().contains("caller"), "{status:?}");
    };
    // Workers are served on lanes, and managers are not.
    tokio::join!(until_it_ends(worker), until_it_ends(manager));
    world.finish().await;
}

#[tokio::test]
async fn a_time_that_is_none_is_refused() {
    let world = World::start().await;
    let (_, tls) = world.worker().await;
    let mut client = DispatcherClient::new(world.dial_as(tls));
    for (count, time) in (1..).zip(["soon", "-1S", ""]) {
        let mut request = Request::new(v1::HeartbeatRequest::default());
        let time = time.parse().unwrap();
        request.metadata_mut().insert("grpc-timeout", time);
        let refused = within(client.heartbeat(request)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Internal, "{refused:?}");
        assert!(refused.message().contains("grpc-timeout"), "{refused:?}");
        world.refused(Refused::BadDeadline, count).await;
    }
    drop(client);
    world.finish().await;
}
