//! Peers without a certificate that stay, and certificates that name no node.

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName as Name};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::*;

#[tokio::test]
async fn a_connection_without_a_certificate_may_not_stay() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let joining = Security::Verified(authority.root_pem.clone(), ServerName::Ca);
    let mut stranger = listening.dial(&joining);
    assert_eq!(ask(&mut stranger, "/who").await.unwrap(), "nobody");
    let worker = node(authority.tls("w1", WORKER));
    let mut kept = listening.dial(&worker);
    assert_eq!(ask(&mut kept, "/who").await.unwrap(), "w1");
    assert_eq!(listening.connections.count(), 2);
    tokio::time::pause();
    tokio::time::advance(ANONYMOUS_LIFETIME + Duration::from_secs(1)).await;
    tokio::time::resume();
    listening.refused(Refused::AnonymousTooLong, 1).await;
    within(async {
        while listening.connections.count() > 1 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!(ask(&mut kept, "/who").await.unwrap(), "w1");
    drop((stranger, kept));
    listening.finish(&worker).await;
}

/// The root itself, which its holder may show as well: it is no node.
#[tokio::test]
async fn a_certificate_that_names_no_node_is_refused() {
    let authority = Authority::new();
    let listening = Rig::start(authority.credentials("m1", MANAGER)).await;
    let root = CertificateDer::from_pem_slice(authority.root_pem.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(authority.key_pem.as_bytes()).unwrap();
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verify::Anyone))
        .with_client_auth_cert(vec![root], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(listening.address).await.unwrap();
    let name = Name::try_from("swarm-manager").unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    // With TLS 1.3 the client learns of it only when it reads.
    if let Ok(mut stream) = within(connector.connect(name, stream)).await {
        let mut rest = Vec::new();
        within(stream.read_to_end(&mut rest)).await.unwrap_err();
    }
    listening.refused(Refused::CertificateInvalid, 1).await;
    assert_eq!(listening.connections.count(), 0);
    listening.finish(&node(authority.tls("w1", WORKER))).await;
}
