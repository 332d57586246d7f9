//! How an agent gets its identity and its connection: the only place that knows of addresses and
//! certificates.
//!
//! Joining takes three connections, as in `performance.md` 9: one without verification for the
//! root, whose digest the token holds; one verified against that root, without a certificate, for
//! the certificate; and the one that the agent keeps.

mod certificates;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use swarm_api::v1;
use swarm_ca::root::RootDigest;
use swarm_ca::token::JoinToken;
use swarm_ca::{csr, identity};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use certificates::Protocol;
pub(crate) use certificates::Roots;

use crate::grpc::{self, Channel, Driver, Status};
use crate::limits;
use crate::options::Client;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a call without a session may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at a certificate that is not issued yet. The manager answers a look when there
/// is something new, so this rarely counts.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks before the agent gives up and starts again.
const LOOKS_MAX: usize = 200;
/// Names in certificates of managers (spec 1.8).
const MANAGER_NAME: &str = "swarm-manager";
const CA_NAME: &str = "swarm-ca";

/// Who an agent is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its own certificate and the roots, as its connections need them.
    config: Arc<ClientConfig>,
    /// What it tells the manager about its trust.
    pub(crate) trust: Arc<v1::NodeTlsInfo>,
    client: Client,
}

/// An open connection. It closes when this is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    /// For calls.
    pub(crate) channel: Channel,
    driver: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Makes the identity of an agent: a key of its own and a certificate from the cluster.
///
/// # Errors
/// [`Status`] when the manager refuses it, or is not of the token's cluster.
pub(crate) async fn join(
    agent: usize,
    manager: SocketAddr,
    token: &str,
    roots: &Roots,
    client: Client,
) -> Result<Identity, Status> {
    let parsed = JoinToken::parse(token);
    let parsed = parsed.map_err(|error| Status::unavailable(format!("join token: {error}")))?;
    let root = {
        let config = roots.unverified();
        let first = open(agent, manager, config, MANAGER_NAME, client).await?;
        let answer: v1::GetRootCaCertificateResponse = call(
            &first.channel,
            "/docker.swarmkit.v1.CA/GetRootCACertificate",
            &v1::GetRootCaCertificateRequest {},
        )
        .await?;
        answer.certificate
    };
    if RootDigest::of(&root) != parsed.root_digest() {
        return Err(Status::unavailable("the root is not that of the token"));
    }
    let trusted = roots.trust(&root)?;
    let key = csr::new_key();
    let request = csr::request(&key).map_err(|error| Status::unavailable(error.to_string()))?;
    let second = open(agent, manager, trusted.anonymous(), CA_NAME, client).await?;
    let chain = certificate(&second.channel, &request, token).await?;
    drop(second);
    let config = trusted.with_certificate(&chain, key.as_bytes(), Protocol::Named)?;
    let trust = trusted.info();
    Ok(Identity {
        config,
        trust,
        client,
    })
}

/// Makes a new key and asks for its certificate as the node that the agent is. The connections that
/// a Go agent opens with it name no protocol.
///
/// # Errors
/// [`Status`] when the manager refuses it.
pub(crate) async fn renew(
    agent: usize,
    manager: SocketAddr,
    identity: &Identity,
    roots: &Roots,
    client: Client,
) -> Result<Identity, Status> {
    let trusted = roots.trust(&identity.trust.trust_root)?;
    let key = csr::new_key();
    let request = csr::request(&key).map_err(|error| Status::unavailable(error.to_string()))?;
    let config = Arc::clone(&identity.config);
    let connection = open(agent, manager, config, CA_NAME, client).await?;
    let chain = certificate(&connection.channel, &request, "").await?;
    let protocol = match client {
        Client::GrpcGo => Protocol::Unnamed,
        Client::Plain => Protocol::Named,
    };
    Ok(Identity {
        config: trusted.with_certificate(&chain, key.as_bytes(), protocol)?,
        trust: Arc::clone(&identity.trust),
        client,
    })
}

/// Asks for a certificate and waits until it is issued.
async fn certificate(channel: &Channel, request: &str, token: &str) -> Result<Vec<u8>, Status> {
    let issue = v1::IssueNodeCertificateRequest {
        csr: request.as_bytes().to_vec().into(),
        token: token.to_owned(),
        ..Default::default()
    };
    let answer: v1::IssueNodeCertificateResponse = call(
        channel,
        "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate",
        &issue,
    )
    .await?;
    let look = v1::NodeCertificateStatusRequest {
        node_id: answer.node_id,
    };
    for _ in 0..LOOKS_MAX {
        let answer: v1::NodeCertificateStatusResponse = call(
            channel,
            "/docker.swarmkit.v1.NodeCA/NodeCertificateStatus",
            &look,
        )
        .await?;
        let state = answer.status.as_ref().map_or(0, |status| status.state);
        let issued = state == v1::issuance_status::State::Issued as i32;
        match answer.certificate.filter(|_| issued) {
            Some(certificate) => {
                let chain = certificate.certificate.to_vec();
                let named = identity::read_pem(&chain);
                named.map_err(|error| Status::unavailable(error.to_string()))?;
                return Ok(chain);
            }
            None if state == v1::issuance_status::State::Failed as i32 => {
                return Err(Status::unavailable("the certificate was refused"));
            }
            None => tokio::time::sleep(LOOK_EVERY).await,
        }
    }
    Err(Status::late("NodeCertificateStatus"))
}

async fn call<Q: prost::Message, A: prost::Message + Default>(
    channel: &Channel,
    method: &'static str,
    request: &Q,
) -> Result<A, Status> {
    let called = channel.call(method, request, CALL_TIMEOUT).await;
    called.map_err(|status| status.of(method))
}

/// Opens the connection of an agent that has an identity.
///
/// # Errors
/// [`Status`] when the manager cannot be reached.
pub(crate) async fn connect(
    agent: usize,
    manager: SocketAddr,
    identity: &Identity,
) -> Result<Connection, Status> {
    let config = Arc::clone(&identity.config);
    open(agent, manager, config, MANAGER_NAME, identity.client).await
}

/// Opens a connection to a control socket.
///
/// # Errors
/// [`Status`] when nobody serves it.
pub(crate) async fn control(path: &Path) -> Result<Connection, Status> {
    let socket = UnixStream::connect(path).await;
    let socket =
        socket.map_err(|error| Status::unavailable(format!("{}: {error}", path.display())))?;
    let (channel, driver) = Channel::open(socket).await?;
    let driver = drive(driver);
    Ok(Connection { channel, driver })
}

async fn open(
    agent: usize,
    manager: SocketAddr,
    config: Arc<ClientConfig>,
    name: &'static str,
    client: Client,
) -> Result<Connection, Status> {
    let opened = tokio::time::timeout(CONNECT_TIMEOUT, async {
        let socket = dial(agent, manager).await?;
        let name = rustls::pki_types::ServerName::try_from(name)
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let secure = TlsConnector::from(config).connect(name, socket).await;
        let secure = secure.map_err(|error| Status::unavailable(format!("TLS: {error}")))?;
        Ok(match client {
            Client::GrpcGo => {
                let (channel, driver) = Channel::open_as_grpc_go(secure).await?;
                let driver = drive(driver);
                Connection { channel, driver }
            }
            Client::Plain => {
                let (channel, driver) = Channel::open(secure).await?;
                let driver = drive(driver);
                Connection { channel, driver }
            }
        })
    });
    opened.await.map_err(|_| Status::late("connecting"))?
}

fn drive<I>(driver: Driver<I>) -> AbortHandle
where
    I: AsyncRead + AsyncWrite + Unpin + 'static,
{
    let life = async move {
        if let Err(error) = driver.await
            && !grpc::is_ordinary_end(&error)
        {
            // The calls on it fail as well and are counted with their reasons.
            anstream::eprintln!("swarm-load: connection: {error}");
        }
    };
    tokio::task::spawn_local(life).abort_handle()
}

async fn dial(agent: usize, manager: SocketAddr) -> Result<TcpStream, Status> {
    let failed = |error: std::io::Error| Status::unavailable(format!("dial {manager}: {error}"));
    let socket = match manager {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    };
    let socket = socket.map_err(failed)?;
    if let Some(source) = limits::source(agent, manager.ip()) {
        // Without this the system would refuse a port that waits after an earlier connection.
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(SocketAddr::new(source, 0)).map_err(failed)?;
    }
    let stream = socket.connect(manager).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
