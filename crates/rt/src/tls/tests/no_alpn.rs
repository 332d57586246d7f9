//! Peers that name no protocol in the handshake, as those of Go's SwarmKit do after they have
//! renewed their certificate.

use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tonic::transport::{Endpoint, Uri};

use super::super::listener;
use super::*;

/// A channel of a node that names no protocol.
fn silent(address: SocketAddr, credentials: &Credentials) -> Channel {
    let mut config = (*credentials.client.node).clone();
    config.alpn_protocols.clear();
    let config = Arc::new(config);
    let connect = tower::service_fn(move |_: Uri| {
        let config = Arc::clone(&config);
        async move {
            let stream = TcpStream::connect(address).await?;
            let name = rustls::pki_types::ServerName::try_from("swarm-manager").unwrap();
            let stream = TlsConnector::from(config).connect(name, stream).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), None);
            Ok::<_, std::io::Error>(TokioIo::new(stream))
        }
    });
    Endpoint::from_static("https://manager").connect_with_connector_lazy(connect)
}

#[tokio::test]
async fn a_listener_takes_workers_and_managers_that_name_no_protocol() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    for (name, role) in [("w1", WORKER), ("m2", MANAGER)] {
        let credentials = authority.credentials(name, role);
        let mut channel = silent(listening.address, &credentials);
        for _ in 0..2 {
            assert_eq!(ask(&mut channel, "/who").await.unwrap(), name);
        }
    }
    assert_eq!(listening.metrics.refused_count(Refused::NoHttp2), 0);
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}

/// What a manager that names no protocol does with one connection.
#[derive(Clone, Copy, Debug)]
enum Manager {
    /// It serves HTTP/2.
    Serves,
    /// It says this and closes.
    Says(&'static [u8]),
}

/// A manager that names no protocol; its address.
async fn manager(tasks: &Tasks, credentials: &Credentials, what: Manager) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut config = listener::config(credentials);
    config.alpn_protocols.clear();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tasks.spawn("manager", OnError::Log, async move {
        let (stream, _) = listener.accept().await?;
        let mut stream = acceptor.accept(stream).await?;
        assert_eq!(stream.get_ref().1.alpn_protocol(), None);
        match what {
            Manager::Serves => {
                let service = tower::service_fn(|_: Request<hyper::body::Incoming>| async {
                    let response = Response::builder().header("said", "served");
                    Ok::<_, std::convert::Infallible>(response.body(Body::empty()).unwrap())
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let serving = hyper::server::conn::http2::Builder::new(executor)
                    .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
                // The client hangs up in the end.
                let _ = serving.await;
            }
            Manager::Says(words) => {
                stream.write_all(words).await?;
                stream.shutdown().await?;
                // What is unread would become a reset, which may overtake the words.
                let _ = stream.read_to_end(&mut Vec::new()).await;
            }
        }
        Ok(())
    });
    address
}

#[tokio::test]
async fn a_dialer_takes_a_manager_that_names_no_protocol() {
    let authority = Authority::new();
    let tasks = Tasks::new(Shutdown::new());
    let own = authority.credentials("m1", MANAGER);
    let address = manager(&tasks, &own, Manager::Serves).await;
    let worker = node(authority.tls("w1", WORKER));
    let mut channel = dial(&address.to_string(), &worker).unwrap();
    for _ in 0..2 {
        assert_eq!(ask(&mut channel, "/who").await.unwrap(), "served");
    }
    drop(channel);
    tasks.finish(DEADLINE).await.unwrap();
}

#[tokio::test]
async fn what_answers_a_dialer_and_is_not_http_2_is_shown() {
    let authority = Authority::new();
    let tasks = Tasks::new(Shutdown::new());
    let own = authority.credentials("m1", MANAGER);
    let worker = node(authority.tls("w1", WORKER));
    for (said, words) in [
        (
            &b"HTTP/1.1 400 Bad Request\r\n\r\n"[..],
            "`HTTP/1.1 400 Bad Request`",
        ),
        (b"220 mail ESMTP\r\n", "`220 mail ESMTP`"),
    ] {
        let address = manager(&tasks, &own, Manager::Says(said)).await;
        let mut channel = dial(&address.to_string(), &worker).unwrap();
        let error = ask(&mut channel, "/who").await.unwrap_err();
        assert!(error.contains("does not speak HTTP/2"), "{error}");
        assert!(error.contains(words), "{error} lacks {words}");
    }
    tasks.finish(DEADLINE).await.unwrap();
}
