//! Connections to managers.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use swarm_ca::identity::CertIdentity;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};

use super::greeting::Greeting;
use super::{ALPN_H2, Credentials, CredentialsError, State, provider, verify, words};
use crate::Clock;
use crate::net::{CONNECT_TIMEOUT, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT};

/// The name that a manager's certificate must carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// For all connections of nodes: `swarm-manager`.
    Manager,
    /// For the first request for a certificate and for the unlock key: `swarm-ca`.
    Ca,
}

impl ServerName {
    /// As it stands in the certificate.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "swarm-manager",
            Self::Ca => "swarm-ca",
        }
    }

    fn to_rustls(self) -> rustls::pki_types::ServerName<'static> {
        rustls::pki_types::ServerName::try_from(self.as_str()).expect("both are DNS names")
    }
}

/// How the two ends of a connection know each other.
#[derive(Clone, Debug)]
pub enum Security {
    /// The node shows its certificate, and the manager must have one of the same cluster.
    Node(Credentials, ServerName),
    /// The manager must have a certificate under these roots (PEM); the node has none yet.
    Verified(String, ServerName),
    /// Anybody may answer. For `GetRootCACertificate` alone, whose answer is checked by its digest.
    Unverified,
}

/// Why an address cannot be dialled.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// It is not an address.
    #[error("address `{0}` is not host:port")]
    Address(String),
    /// The roots cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// The configuration of connections that show the node's certificate: one for all of them, which
/// looks the credentials up at each handshake.
pub(super) struct Configs {
    pub(super) node: Arc<ClientConfig>,
}

impl Configs {
    pub(super) fn new(state: &watch::Sender<Arc<State>>) -> Self {
        let live = || Arc::new(verify::Live(state.subscribe()));
        let config = builder(live()).with_client_cert_resolver(live());
        Self {
            node: Arc::new(finished(config)),
        }
    }
}

pub(super) fn builder(
    verifier: Arc<dyn ServerCertVerifier>,
) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12, &rustls::version::TLS13])
        .expect("ring has cipher suites for both versions")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
}

fn finished(mut config: ClientConfig) -> ClientConfig {
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    config
}

/// A connection to a manager at `host:port`; it opens with the first call and again whenever it
/// broke, each time with the credentials of that moment.
///
/// # Errors
/// [`DialError`]; what goes wrong later is the error of a call, whose sources say it in words.
pub fn dial(address: &str, security: &Security) -> Result<Channel, DialError> {
    let malformed = || DialError::Address(address.to_owned());
    if !matches!(
        crate::net::Address::parse(address),
        Ok(crate::net::Address::Tcp(_))
    ) {
        return Err(malformed());
    }
    let endpoint = Endpoint::from_shared(format!("https://{address}")).map_err(|_| malformed())?;
    let endpoint = endpoint
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let dialer = Arc::new(Dialer::new(address, security)?);
    let connect = tower::service_fn(move |_: Uri| {
        let dialer = Arc::clone(&dialer);
        async move { dialer.connect().await.map(TokioIo::new) }
    });
    Ok(endpoint.connect_with_connector_lazy(connect))
}

struct Dialer {
    address: String,
    config: Arc<ClientConfig>,
    name: ServerName,
    /// For words about the node's own certificate.
    credentials: Option<Credentials>,
    clock: Clock,
}

impl Dialer {
    fn new(address: &str, security: &Security) -> Result<Self, DialError> {
        let (config, name, credentials) = match security {
            Security::Node(credentials, name) => (
                Arc::clone(&credentials.client.node),
                *name,
                Some(credentials.clone()),
            ),
            Security::Verified(root_pem, name) => {
                let config = builder(verify::fixed(root_pem)?).with_no_client_auth();
                (Arc::new(finished(config)), *name, None)
            }
            Security::Unverified => {
                let config = builder(Arc::new(verify::Anyone)).with_no_client_auth();
                (Arc::new(finished(config)), ServerName::Ca, None)
            }
        };
        Ok(Self {
            address: address.to_owned(),
            config,
            name,
            credentials,
            clock: Clock::new(),
        })
    }

    async fn connect(&self) -> io::Result<Spoken> {
        let mut has_tcp = false;
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, self.open(&mut has_tcp)).await;
        opened.unwrap_or_else(|_| {
            let (after, what) = (CONNECT_TIMEOUT.as_secs(), &self.address);
            let text = if has_tcp {
                format!("{what} took the connection, but no TLS handshake within {after} s")
            } else {
                format!("{what} did not take the connection within {after} s")
            };
            Err(io::Error::new(io::ErrorKind::TimedOut, text))
        })
    }

    async fn open(&self, has_tcp: &mut bool) -> io::Result<Spoken> {
        let tcp = TcpStream::connect(&self.address).await?;
        *has_tcp = true;
        // Small messages go out at once; a socket that refuses this works as well.
        let _ = tcp.set_nodelay(true);
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let connecting = connector.connect(self.name.to_rustls(), tcp);
        let stream = connecting.await.map_err(|error| self.in_words(error))?;
        // A manager that names no protocol speaks HTTP/2, or its greeting shows that it does not:
        // those of older builds of Go's SwarmKit name none after they have renewed their
        // certificate.
        Ok(Spoken {
            stream: Box::new(stream),
            greeting: Greeting::default(),
            own: self.own(),
            clock: self.clock.clone(),
        })
    }

    fn own(&self) -> Option<Arc<CertIdentity>> {
        self.credentials.as_ref().map(Credentials::identity)
    }

    fn in_words(&self, error: io::Error) -> io::Error {
        in_words(error, self.own().as_deref(), &self.clock)
    }
}

fn in_words(error: io::Error, own: Option<&CertIdentity>, clock: &Clock) -> io::Error {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        let text = "the connection was closed during the handshake: there is no manager at this \
                    address, or it takes no more connections";
        return io::Error::new(error.kind(), text);
    }
    match words::tls_error(&error) {
        Some(tls) => {
            let text = words::explain(tls, words::Side::Client(own), clock.now());
            io::Error::new(error.kind(), text)
        }
        None => error,
    }
}

/// A connection whose failures are put into words: with TLS 1.3 a manager refuses a certificate
/// only after the client has finished its handshake, so the refusal is an error of the first read.
/// Whether the other end speaks HTTP/2 shows in its first read as well.
struct Spoken {
    stream: Box<TlsStream<TcpStream>>,
    greeting: Greeting,
    own: Option<Arc<CertIdentity>>,
    clock: Clock,
}

impl AsyncRead for Spoken {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut *self.stream).poll_read(context, buffer));
        Poll::Ready(match read {
            Ok(()) => self.greeting.check(&buffer.filled()[before..]),
            Err(error) if words::tls_error(&error).is_some() => {
                Err(in_words(error, self.own.as_deref(), &self.clock))
            }
            Err(error) => Err(error),
        })
    }
}

impl AsyncWrite for Spoken {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(context)
    }
}
