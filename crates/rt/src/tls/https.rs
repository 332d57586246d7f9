//! One request over HTTPS to a server that is no manager: an external certificate authority.
//!
//! Owns the bounds of the exchange. Does not own what is said (`swarm-ca`), nor whether to ask
//! again. Environment proxies are not used, as with all connections of a node.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{Credentials, CredentialsError, dial, verify};

const ALPN_HTTP1: &[u8] = b"http/1.1";
const HTTPS_PORT: u16 = 443;

/// A server, and how much of it is borne.
#[derive(Clone, Debug)]
pub struct Server {
    /// Where: an `https` URL.
    pub url: String,
    /// The roots (PEM) that its certificate may lead to.
    pub trust_pem: String,
    /// The longest wait for the whole exchange.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub answer_bytes_max: usize,
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpsError {
    /// The URL cannot be used.
    #[error("`{0}` is not an https URL with a host")]
    Url(String),
    /// The roots or the own certificate cannot be used.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// There is no connection, or no TLS on it.
    #[error("no TLS connection to {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The connection broke, or it speaks no HTTP.
    #[error("the HTTP exchange with {0} failed")]
    Http(String, #[source] hyper::Error),
    /// The answer broke off or is too long.
    #[error("the answer of {host} could not be read, or has more than {max} bytes")]
    Body {
        /// Host and port.
        host: String,
        /// The bound.
        max: usize,
    },
    /// It took too long.
    #[error("{host} gave no answer within {} s", timeout.as_secs())]
    Timeout {
        /// Host and port.
        host: String,
        /// How long was waited.
        timeout: Duration,
    },
}

/// Sends JSON with the node's own certificate and reads the answer.
///
/// # Errors
/// [`HttpsError`].
pub async fn post_json(
    server: &Server,
    credentials: &Credentials,
    body: String,
) -> Result<Answer, HttpsError> {
    let target = Target::of(server)?;
    within(server, &target, async {
        let stream = target.connect(server, credentials).await?;
        exchange(&target, stream, body, server.answer_bytes_max).await
    })
    .await
}

/// Only connects, to see whether the server is there and whose it is.
///
/// # Errors
/// [`HttpsError`].
pub async fn check(server: &Server, credentials: &Credentials) -> Result<(), HttpsError> {
    let target = Target::of(server)?;
    within(server, &target, async {
        target.connect(server, credentials).await.map(drop)
    })
    .await
}

async fn within<T>(
    server: &Server,
    target: &Target,
    work: impl Future<Output = Result<T, HttpsError>>,
) -> Result<T, HttpsError> {
    let timed = tokio::time::timeout(server.timeout, work).await;
    timed.unwrap_or_else(|_| {
        Err(HttpsError::Timeout {
            host: target.address.clone(),
            timeout: server.timeout,
        })
    })
}

struct Target {
    uri: Uri,
    /// Host and port, as they are dialled.
    address: String,
    name: ServerName<'static>,
}

impl Target {
    fn of(server: &Server) -> Result<Self, HttpsError> {
        let malformed = || HttpsError::Url(server.url.clone());
        let uri: Uri = server.url.parse().map_err(|_| malformed())?;
        let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
        let host = host.ok_or_else(malformed)?.to_owned();
        let bare = host
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let port = uri.port_u16().unwrap_or(HTTPS_PORT);
        Ok(Self {
            uri,
            address: format!("{host}:{port}"),
            name: ServerName::try_from(bare).map_err(|_| malformed())?,
        })
    }

    async fn connect(
        &self,
        server: &Server,
        credentials: &Credentials,
    ) -> Result<TlsStream<TcpStream>, HttpsError> {
        let config = Arc::new(config(server, credentials)?);
        let opened = async {
            let tcp = TcpStream::connect(&self.address).await?;
            TlsConnector::from(config)
                .connect(self.name.clone(), tcp)
                .await
        };
        opened.await.map_err(|source| HttpsError::Connect {
            host: self.address.clone(),
            source,
        })
    }
}

fn config(server: &Server, credentials: &Credentials) -> Result<ClientConfig, HttpsError> {
    let live = Arc::new(verify::Live(credentials.state.subscribe()));
    let builder = dial::builder(verify::fixed(&server.trust_pem)?);
    let mut config = builder.with_client_cert_resolver(live);
    config.alpn_protocols = vec![ALPN_HTTP1.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}

async fn exchange(
    target: &Target,
    stream: TlsStream<TcpStream>,
    body: String,
    answer_bytes_max: usize,
) -> Result<Answer, HttpsError> {
    let failed = |error| HttpsError::Http(target.address.clone(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let path = target
        .uri
        .path_and_query()
        .map_or("/", |path| path.as_str());
    let request = Request::post(path)
        .header(http::header::HOST, &target.address)
        .header(http::header::CONTENT_TYPE, "application/json")
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| HttpsError::Url(target.uri.to_string()))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), answer_bytes_max)
            .collect()
            .await;
        let body = body.map_err(|_| HttpsError::Body {
            host: target.address.clone(),
            max: answer_bytes_max,
        })?;
        let body = body.to_bytes().to_vec();
        Ok(Answer { status, body })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // What was read before the connection ended is still an answer.
        _ = &mut connection => exchange.await,
    }
}
