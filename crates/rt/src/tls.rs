//! Mutual TLS of a node: what it proves itself with, whom it believes, and how both change while
//! connections are open.
//!
//! Owns [`Credentials`], which listener and dialer share, and the configuration of TLS: versions
//! 1.2 and 1.3, HTTP/2 (offered by ALPN, and meant where a peer names no protocol), no resumption
//! (a resumed connection keeps the chain that was checked under an older root). Does not own what
//! certificates mean: names, roles and validity are read by `swarm-ca`.
//!
//! New credentials count for new handshakes; connections that are open keep the identity that they
//! were opened with until they end, or until [`Connections`] closes them.

mod connection;
mod dial;
mod greeting;
pub mod https;
mod listener;
mod meter;
mod refusals;
#[cfg(test)]
mod tests;
mod verify;
mod words;

use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use swarm_ca::identity::{self, CertIdentity, IdentityError};
use swarm_ca::key::KeyPem;
use swarm_ca::root::{RootBundle, RootError};
use tokio::sync::watch;

use crate::Clock;

pub use connection::{
    ANONYMOUS_LIFETIME, CallPlace, Connection, Connections, LAST_WORDS, Peer, TlsIo,
};
pub use dial::{DialError, Security, ServerName, dial};
pub use listener::{Incoming, Limits, Listening, listen};
pub use words::explain;

/// The application protocol that both sides speak. Ours name it; a peer may name none, and is held
/// to HTTP/2 by its first words.
const ALPN_H2: &[u8] = b"h2";

/// What a node proves itself with, and the roots that it believes, as PEM.
#[derive(Clone, Debug)]
pub struct NodeTls {
    /// The node's certificate, followed by intermediates if there are any.
    pub chain_pem: String,
    /// The private key of the certificate, not encrypted.
    pub key_pem: KeyPem,
    /// The roots of the cluster.
    pub root_pem: String,
}

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The chain is not PEM, or holds no certificate.
    #[error("the certificate chain cannot be read: {0}")]
    Chain(String),
    /// The leaf does not name a node of a cluster.
    #[error("the node's certificate cannot be used")]
    Identity(#[from] IdentityError),
    /// The key is not PEM, or of a kind that is not supported.
    #[error("the private key cannot be read: {0}")]
    Key(String),
    /// The key is not that of the certificate.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The roots cannot be used.
    #[error("the root certificates cannot be used")]
    Roots(#[from] RootError),
    /// The roots cannot be used by the TLS library.
    #[error("the root certificates cannot be used: {0}")]
    Verifier(String),
}

/// Credentials that can be replaced while they are used. Clones share them.
#[derive(Clone)]
pub struct Credentials {
    state: watch::Sender<Arc<State>>,
    client: Arc<dial::Configs>,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity())
            .finish_non_exhaustive()
    }
}

/// One set of credentials, ready for handshakes.
struct State {
    identity: Arc<CertIdentity>,
    certified: Arc<CertifiedKey>,
    chain_pem: String,
    root_pem: String,
    verify: verify::Verifiers,
}

impl Credentials {
    /// Reads credentials. An expired certificate is accepted here: a node needs it to ask for the
    /// next one.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(tls: NodeTls) -> Result<Self, CredentialsError> {
        let state = watch::Sender::new(Arc::new(State::read(tls)?));
        let client = Arc::new(dial::Configs::new(&state));
        Ok(Self { state, client })
    }

    /// Replaces certificate, key and roots at once; open connections go on with the old ones.
    ///
    /// # Errors
    /// [`CredentialsError`]; the old credentials stay.
    pub fn update(&self, tls: NodeTls) -> Result<(), CredentialsError> {
        let state = Arc::new(State::read(tls)?);
        self.state.send_replace(state);
        Ok(())
    }

    /// Replaces the roots and keeps the certificate.
    ///
    /// # Errors
    /// [`CredentialsError::Roots`]; the old roots stay.
    pub fn update_root(&self, root_pem: &str) -> Result<(), CredentialsError> {
        let verify = verify::Verifiers::new(root_pem)?;
        self.state.send_modify(|state| {
            *state = Arc::new(State {
                identity: Arc::clone(&state.identity),
                certified: Arc::clone(&state.certified),
                chain_pem: state.chain_pem.clone(),
                root_pem: root_pem.to_owned(),
                verify,
            });
        });
        Ok(())
    }

    /// Who the node is.
    pub fn identity(&self) -> Arc<CertIdentity> {
        Arc::clone(&self.state.borrow().identity)
    }

    /// The certificate chain as it was given.
    pub fn chain_pem(&self) -> String {
        self.state.borrow().chain_pem.clone()
    }

    /// The roots as they were given.
    pub fn root_pem(&self) -> String {
        self.state.borrow().root_pem.clone()
    }

    /// Tells of every replacement from now on.
    pub fn watch(&self) -> Changes {
        Changes(self.state.subscribe())
    }
}

/// Waits for the next replacement of [`Credentials`].
#[derive(Clone)]
pub struct Changes(watch::Receiver<Arc<State>>);

impl std::fmt::Debug for Changes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Changes").finish_non_exhaustive()
    }
}

impl Changes {
    /// Returns after the next replacement; never when the credentials are gone. Cancel safe.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl State {
    fn read(tls: NodeTls) -> Result<Self, CredentialsError> {
        let chain = CertificateDer::pem_slice_iter(tls.chain_pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| CredentialsError::Chain(error.to_string()))?;
        let leaf = chain
            .first()
            .ok_or_else(|| CredentialsError::Chain("it holds no certificate".to_owned()))?;
        let identity = identity::read_der(leaf)?;
        let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes())
            .map_err(|error| CredentialsError::Key(error.to_string()))?;
        let key = provider()
            .key_provider
            .load_private_key(key)
            .map_err(|error| CredentialsError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        match certified.keys_match() {
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(_) => return Err(CredentialsError::KeyMismatch),
        }
        Ok(Self {
            identity: Arc::new(identity),
            certified: Arc::new(certified),
            verify: verify::Verifiers::new(&tls.root_pem)?,
            chain_pem: tls.chain_pem,
            root_pem: tls.root_pem,
        })
    }
}

/// Checks that roots can be used, as of the machine's clock.
fn roots(root_pem: &str) -> Result<Arc<rustls::RootCertStore>, CredentialsError> {
    let bundle = RootBundle::parse(root_pem.as_bytes(), Clock::new().now())?;
    let mut store = rustls::RootCertStore::empty();
    for der in bundle.ders() {
        store
            .add(CertificateDer::from(der))
            .map_err(|error| CredentialsError::Verifier(error.to_string()))?;
    }
    Ok(Arc::new(store))
}

/// The one implementation of cryptography.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    Arc::clone(PROVIDER.get_or_init(|| Arc::new(rustls::crypto::ring::default_provider())))
}
