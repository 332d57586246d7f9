//! Peers that stop halfway, say the wrong thing, or come in numbers.

use rustls::ClientConfig;
use rustls::pki_types::ServerName as Name;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::*;

/// A handshake that is given up soon, so that tests are quick.
fn impatient() -> Limits {
    Limits {
        handshake_timeout: Duration::from_millis(300),
        ..Limits::default()
    }
}

/// TLS of a client without a certificate that believes anybody.
pub(super) fn client(
    alpn: &[&[u8]],
    versions: &[&'static rustls::SupportedProtocolVersion],
) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Anyone))
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    config
}

async fn handshake(
    config: &Arc<ClientConfig>,
    address: SocketAddr,
    name: &'static str,
) -> std::io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await.unwrap();
    let connector = TlsConnector::from(Arc::clone(config));
    let name = Name::try_from(name).unwrap();
    within(connector.connect(name, stream)).await
}

/// Waits until the listener hangs up.
async fn hung_up(stream: &mut (impl tokio::io::AsyncRead + Unpin)) {
    let mut rest = Vec::new();
    // Both a clean end and a reset are an end.
    let _ = within(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn peers_that_stop_in_the_handshake_are_hung_up_on() {
    let authority = Authority::new();
    let listening = Rig::limited(authority.credentials("m1", MANAGER), impatient()).await;
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for (count, bytes) in (1..).zip([&b""[..], &hello[..1], &hello[..]]) {
        let mut stream = TcpStream::connect(listening.address).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        hung_up(&mut stream).await;
        listening.refused(Refused::HandshakeTimeout, count).await;
    }
    let config = Arc::new(client(&[b"h2"], rustls::ALL_VERSIONS));
    for (count, bytes) in (4..).zip([&b""[..], b"PRI * HT"]) {
        let mut stream = handshake(&config, listening.address, "x").await.unwrap();
        stream.write_all(bytes).await.unwrap();
        hung_up(&mut stream).await;
        listening.refused(Refused::HandshakeTimeout, count).await;
    }
    assert_eq!(listening.connections.count(), 0);
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}

#[tokio::test]
async fn peers_that_speak_something_else_are_hung_up_on() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let mut plain = TcpStream::connect(listening.address).await.unwrap();
    plain.write_all(b"PRI * HTTP/2.0\r\n\r\n").await.unwrap();
    hung_up(&mut plain).await;
    listening.refused(Refused::HandshakeFailed, 1).await;

    let config = Arc::new(client(&[b"http/1.1"], rustls::ALL_VERSIONS));
    handshake(&config, listening.address, "x")
        .await
        .unwrap_err();
    listening.refused(Refused::NoHttp2, 1).await;
    // Whether it named HTTP/2 or nothing, and whatever it waits for after its first words.
    for (count, (alpn, said)) in (2..).zip([
        (&[&b"h2"[..]][..], &b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"[..]),
        (&[], b"GET / HTTP/1.0\r\n\r\n"),
        (&[], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r!"),
        (&[], b"\0"),
    ]) {
        let config = Arc::new(client(alpn, rustls::ALL_VERSIONS));
        let mut stream = handshake(&config, listening.address, "x").await.unwrap();
        stream.write_all(said).await.unwrap();
        hung_up(&mut stream).await;
        listening.refused(Refused::NoHttp2, count).await;
    }
    let config = Arc::new(client(&[], rustls::ALL_VERSIONS));
    let mut stream = handshake(&config, listening.address, "x").await.unwrap();
    stream.shutdown().await.unwrap();
    hung_up(&mut stream).await;
    listening.refused(Refused::HandshakeFailed, 2).await;
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}

#[tokio::test]
async fn both_versions_of_tls_and_any_server_name_are_taken_and_nothing_is_resumed() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        // This client would resume.
        let config = Arc::new(client(&[b"h2"], &[version]));
        for name in ["swarm-manager", "swarm-ca", "example.org", "127.0.0.1"] {
            for _ in 0..2 {
                let stream = handshake(&config, listening.address, name).await.unwrap();
                let (_, session) = stream.get_ref();
                assert_eq!(session.protocol_version(), Some(version.version));
                let kind = session.handshake_kind();
                assert_ne!(kind, Some(rustls::HandshakeKind::Resumed), "{name}");
                assert_eq!(session.alpn_protocol(), Some(&b"h2"[..]));
            }
        }
    }
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}

#[tokio::test]
async fn one_address_cannot_take_all_places_among_the_handshakes() {
    let authority = Authority::new();
    let limits = Limits {
        handshakes_per_address_max: 3,
        ..Limits::default()
    };
    let listening = Rig::limited(authority.credentials("m1", MANAGER), limits).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(listening.address).await.unwrap());
    }
    let mut fourth = TcpStream::connect(listening.address).await.unwrap();
    hung_up(&mut fourth).await;
    listening.refused(Refused::TooManyHandshakes, 1).await;
    drop(held);
    within(async {
        while listening.metrics.handshakes().get() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}

#[tokio::test]
async fn a_full_listener_refuses_and_serves_again_when_there_is_room() {
    let authority = Authority::new();
    let limits = Limits {
        connections_max: 3,
        anonymous_max: 1,
        ..Limits::default()
    };
    let listening = Rig::limited(authority.credentials("m1", MANAGER), limits).await;
    let joining = Security::Verified(authority.root_pem.clone(), ServerName::Ca);
    let mut first = listening.dial(&joining);
    ask(&mut first, "/who").await.unwrap();
    listening.ask(&joining).await.unwrap_err();
    listening.refused(Refused::TooManyAnonymous, 1).await;
    let worker = node(authority.tls("w1", WORKER));
    let mut others = vec![listening.dial(&worker), listening.dial(&worker)];
    for channel in &mut others {
        ask(channel, "/who").await.unwrap();
    }
    listening.ask(&worker).await.unwrap_err();
    listening.refused(Refused::TooManyConnections, 1).await;
    let text = listening.metrics.text();
    assert!(
        text.contains("swarm_connections{peer=\"worker\"} 2"),
        "{text}"
    );
    assert!(
        text.contains("swarm_connections{peer=\"none\"} 1"),
        "{text}"
    );
    drop((first, others));
    listening.is_empty().await;
    let text = listening.metrics.text();
    assert!(
        text.contains("swarm_connections{peer=\"worker\"} 0"),
        "{text}"
    );
    listening.finish(&worker).await;
}
