//! Few files, and strangers who want all of them: the manager goes on, and so does who is meant.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use swarm_api::v1;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::cluster::{DEADLINE, Directory, free_ports, start, until};
use crate::daemon::Daemon;
use crate::specs;

/// What the manager may open, and cannot raise.
const FILES: u32 = 256;
/// Strangers at a time.
const STRANGERS: usize = 1_001;
/// Addresses that they come from.
const ADDRESSES: usize = 8;
/// A stranger that was hung up on comes back after this time.
const COMEBACK: Duration = Duration::from_secs(2);
/// More than a segment of the log holds.
const WRITES: usize = 140;
const WRITE_BYTES: usize = 500 << 10;
/// A preface of HTTP/2, and settings.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

#[tokio::test(flavor = "multi_thread")]
async fn strangers_who_want_every_file_do_not_end_a_manager_that_writes() {
    let directory = Directory::new();
    let address = format!("127.0.0.1:{}", free_ports(1));
    let arguments = directory.manager(&address);
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let path = directory.path();
    let mut manager = Daemon::start_with_files("manager", path, &words, Some(FILES));
    manager.ready().await;
    assert!(
        manager.log().contains("few files may be open"),
        "{}",
        manager.log()
    );

    let strangers = Strangers::come(address.parse().unwrap());
    until("all strangers have come", async || strangers.have_come()).await;
    for number in 0..WRITES {
        store(&directory, number).await.unwrap_or_else(|refused| {
            panic!("write {number}: {refused}\n{}", manager.log());
        });
    }
    strangers.check();
    let token = worker_token(&directory).await;
    let worker = directory.worker("worker-1", &address, &token);
    let mut worker = start("worker-1", &directory, &worker);
    worker.ready().await;
    drop(strangers);

    let log = manager.log();
    assert!(log.contains("too_many_anonymous"), "{log}");
    assert!(!log.contains("panicked"), "{log}");
    let lines = log.matches("reason=\"too_many_anonymous\"").count();
    assert!(lines < STRANGERS, "{lines} lines");
    assert!(worker.stop().await.success());
    assert!(manager.stop().await.success());
}

/// Peers without a certificate that open a connection each, and another one when it is closed.
struct Strangers {
    /// They end with this.
    set: JoinSet<()>,
    opened: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

impl Strangers {
    fn come(manager: SocketAddr) -> Self {
        let mut strangers = Self {
            set: JoinSet::new(),
            opened: Arc::default(),
            gone: Arc::default(),
        };
        let connector = TlsConnector::from(Arc::new(config()));
        for number in 0..STRANGERS {
            let last = u8::try_from(2 + number % ADDRESSES).unwrap();
            let source = SocketAddr::from(([127, 0, 0, last], 0));
            let connector = connector.clone();
            let opened = Arc::clone(&strangers.opened);
            let gone = Arc::clone(&strangers.gone);
            strangers.set.spawn(async move {
                let mut is_first = true;
                loop {
                    // However it ends, the next one follows.
                    let _ = stay(manager, source, &connector, || {
                        opened.fetch_add(
                            usize::from(std::mem::take(&mut is_first)),
                            Ordering::Relaxed,
                        );
                    })
                    .await;
                    gone.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(COMEBACK).await;
                }
            });
        }
        strangers
    }

    fn have_come(&self) -> Result<(), String> {
        match self.opened.load(Ordering::Relaxed) {
            STRANGERS => Ok(()),
            some => Err(format!("{some} of {STRANGERS}")),
        }
    }

    /// The manager hung up on those for whom there was no room.
    fn check(&self) {
        let gone = self.gone.load(Ordering::Relaxed);
        assert!(gone > STRANGERS / 2, "{gone}");
    }
}

/// Opens a connection and stays on it until it is closed.
async fn stay(
    manager: SocketAddr,
    source: SocketAddr,
    connector: &TlsConnector,
    begun: impl FnOnce(),
) -> std::io::Result<()> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(source)?;
    let stream = socket.connect(manager).await?;
    begun();
    let name = ServerName::try_from("swarm-ca").unwrap();
    let mut stream = connector.connect(name, stream).await?;
    stream.write_all(GREETING).await?;
    stream.read_to_end(&mut Vec::new()).await?;
    Ok(())
}

/// TLS of somebody who shows nothing and believes anything.
fn config() -> rustls::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

#[derive(Debug)]
struct Anyone;

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

/// Stores a large service that runs nowhere.
async fn store(directory: &Directory, number: usize) -> Result<(), String> {
    let container = v1::ContainerSpec {
        image: "host".to_owned(),
        command: vec!["true".to_owned()],
        env: vec![format!("A={}", "x".repeat(WRITE_BYTES))],
        ..Default::default()
    };
    let spec = specs::service(&format!("large-{number}"), 0, container);
    let request = v1::CreateServiceRequest { spec: Some(spec) };
    let mut client = directory.client();
    let created = tokio::time::timeout(DEADLINE, client.create_service(request)).await;
    let created = created.map_err(|_| "no answer".to_owned())?;
    created.map(|_| ()).map_err(|status| status.to_string())
}

async fn worker_token(directory: &Directory) -> String {
    let request = v1::ListClustersRequest::default();
    let clusters = directory.client().list_clusters(request).await.unwrap();
    let mut clusters = clusters.into_inner().clusters.into_iter();
    let root = clusters.next().unwrap().root_ca.unwrap();
    root.join_tokens.unwrap().worker
}
