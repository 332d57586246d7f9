//! How an agent gets its connection: the only place that knows of addresses and certificates.
//!
//! Until nodes have certificates a connection is plain and the agent names itself in each call.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::AbortHandle;

use crate::grpc::{self, Channel, Driver, Status};
use crate::limits;

/// How long a connection may take to open.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Who an agent is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// Its node id.
    pub(crate) node: String,
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

/// Makes the identity of an agent.
///
/// # Errors
/// [`Status`] when the manager refuses it.
pub(crate) async fn join(agent: usize, _: SocketAddr, _: &str) -> Result<Identity, Status> {
    // Ids of nodes have 25 characters of base 36; digits are among them.
    let node = format!("{agent:025}");
    std::future::ready(Ok(Identity { node })).await
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
    let socket = tokio::time::timeout(CONNECT_TIMEOUT, dial(agent, manager));
    let socket = socket.await.map_err(|_| Status::late("connecting"))??;
    let (channel, driver) = Channel::open(socket).await?;
    Ok(Connection {
        channel: channel.named(&identity.node),
        driver: drive(driver),
    })
}

/// Opens a connection to a control socket.
///
/// # Errors
/// [`Status`] when nobody serves it.
pub(crate) async fn control(path: &std::path::Path) -> Result<Connection, Status> {
    let socket = UnixStream::connect(path).await;
    let socket =
        socket.map_err(|error| Status::unavailable(format!("{}: {error}", path.display())))?;
    let (channel, driver) = Channel::open(socket).await?;
    Ok(Connection {
        channel,
        driver: drive(driver),
    })
}

fn drive<I>(driver: Driver<I>) -> AbortHandle
where
    I: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + 'static,
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
        // The port is chosen when the other end is known, so that one may serve many connections.
        socket.set_reuseaddr(true).map_err(failed)?;
        socket.bind(SocketAddr::new(source, 0)).map_err(failed)?;
    }
    let stream = socket.connect(manager).await.map_err(failed)?;
    stream.set_nodelay(true).map_err(failed)?;
    Ok(stream)
}
