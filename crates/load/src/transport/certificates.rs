//! TLS settings from certificates. Those that agents share are made once for each root.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{self, CryptoProvider};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme};
use swarm_api::v1;
use swarm_ca::root::RootBundle;

use crate::grpc::Status;

/// The protocol of all connections.
const ALPN: &[u8] = b"h2";

/// The roots that agents of this process have met.
#[derive(Debug)]
pub(crate) struct Roots {
    provider: Arc<CryptoProvider>,
    unverified: Arc<ClientConfig>,
    /// There is one cluster, so there is one root, until it is rotated.
    last: RefCell<Option<(Vec<u8>, Rc<Trusted>)>>,
}

/// What follows from a root.
#[derive(Debug)]
pub(crate) struct Trusted {
    provider: Arc<CryptoProvider>,
    store: RootCertStore,
    anonymous: Arc<ClientConfig>,
    info: Arc<v1::NodeTlsInfo>,
}

impl Roots {
    pub(crate) fn new() -> Self {
        let provider = Arc::new(crypto::ring::default_provider());
        let anybody = Arc::new(Anybody(Arc::clone(&provider)));
        let config = versions(&provider)
            .dangerous()
            .with_custom_certificate_verifier(anybody)
            .with_no_client_auth();
        Self {
            unverified: tuned(config, Protocol::Named),
            provider,
            last: RefCell::default(),
        }
    }

    /// For the question after the root, whose answer is checked by its digest.
    pub(crate) fn unverified(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.unverified)
    }

    /// Settings under a root that was checked.
    ///
    /// # Errors
    /// When it is no bundle of roots.
    pub(crate) fn trust(&self, pem: &[u8]) -> Result<Rc<Trusted>, Status> {
        if let Some((known, trusted)) = &*self.last.borrow()
            && known == pem
        {
            return Ok(Rc::clone(trusted));
        }
        let trusted = Rc::new(Trusted::new(&self.provider, pem)?);
        *self.last.borrow_mut() = Some((pem.to_vec(), Rc::clone(&trusted)));
        Ok(trusted)
    }
}

impl Trusted {
    fn new(provider: &Arc<CryptoProvider>, pem: &[u8]) -> Result<Self, Status> {
        let bundle = RootBundle::parse_any_time(pem).map_err(|error| failed(&error))?;
        let mut store = RootCertStore::empty();
        for der in bundle.ders() {
            store.add(der.into()).map_err(|error| failed(&error))?;
        }
        let builder = versions(provider).with_root_certificates(store.clone());
        let info = v1::NodeTlsInfo {
            trust_root: pem.to_vec().into(),
            ..Default::default()
        };
        Ok(Self {
            provider: Arc::clone(provider),
            store,
            anonymous: tuned(builder.with_no_client_auth(), Protocol::Named),
            info: Arc::new(info),
        })
    }

    /// For a node without a certificate.
    pub(crate) fn anonymous(&self) -> Arc<ClientConfig> {
        Arc::clone(&self.anonymous)
    }

    /// What a node says of its trust.
    pub(crate) fn info(&self) -> Arc<v1::NodeTlsInfo> {
        Arc::clone(&self.info)
    }

    /// For a node with this certificate and key, both PEM.
    ///
    /// # Errors
    /// When they are not PEM, or do not belong together.
    pub(crate) fn with_certificate(
        &self,
        chain: &[u8],
        key: &[u8],
        protocol: Protocol,
    ) -> Result<Arc<ClientConfig>, Status> {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain).collect();
        let chain = chain.map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| failed(&error))?;
        let builder = versions(&self.provider).with_root_certificates(self.store.clone());
        let config = builder.with_client_auth_cert(chain, key);
        let config = config.map_err(|error| failed(&error))?;
        Ok(tuned(config, protocol))
    }
}

/// Whether connections say in the handshake that they will speak HTTP/2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Named,
    Unnamed,
}

fn versions(provider: &Arc<CryptoProvider>) -> ConfigBuilder<ClientConfig, rustls::WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::clone(provider))
        .with_safe_default_protocol_versions()
        .expect("ring offers both versions of the protocol")
}

fn tuned(mut config: ClientConfig, protocol: Protocol) -> Arc<ClientConfig> {
    config.alpn_protocols = match protocol {
        Protocol::Named => vec![ALPN.to_vec()],
        Protocol::Unnamed => Vec::new(),
    };
    // Managers issue no tickets; a cache for each agent would only cost memory.
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

fn failed(error: &dyn std::error::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// Takes any certificate. What comes over such a connection is checked by its digest.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
