//! Addresses, sockets, and who makes a call.
//!
//! The control socket is plain HTTP/2: whoever may open it acts as the manager's own node.
//! Everything else travels in the mutual TLS of [`crate::tls`].

mod local;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use swarm_types::NodeId;
use tokio::net::{TcpListener, UnixListener, UnixStream};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::UdsConnectInfo;
use tonic::transport::{Channel, Endpoint, Server, Uri};

use crate::socket_path;
use crate::tls::Connection;
pub use crate::tls::Peer;
pub use local::LocalListener;

/// Largest message that a manager takes (spec 1.1): 4 MiB.
pub const SERVER_RECEIVE_BYTES_MAX: usize = 4 << 20;
/// Largest message that an agent or a client takes. The protocol allows any size; 1 GiB is a bound
/// against a broken manager.
pub const CLIENT_RECEIVE_BYTES_MAX: usize = 1 << 30;
/// How long a connection may take to open.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A ping after this long without traffic finds out about a dead peer.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
/// How long the answer to a ping may take.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Streams that one connection may have open; an agent needs five, and one for each log
/// subscription.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1_000;
/// The headers of one call, in bytes; ours have a few hundred.
pub const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// What a caller may send on one stream before a listener of ours has read it, in bytes. Small, for
/// two reasons: everything on a connection travels behind what was sent before, so this bounds how
/// long a heartbeat waits for bulk data; and it is what a stream that nobody reads costs.
pub const STREAM_WINDOW_BYTES: u32 = 64 << 10;
/// The same for all streams of a connection together. Streams that nobody reads take their share of
/// it for as long as they stay, and must leave room for the others: a node may have 64 calls in
/// progress, which take at most half.
pub const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Where a manager listens or is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// TCP, `host:port`.
    Tcp(String),
    /// A Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Reads `host:port`, `unix:///path` or an absolute path.
    ///
    /// # Errors
    /// When the text is none of these, in words.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Ok(Self::Unix(path.into()));
        }
        if text.starts_with('/') {
            return Ok(Self::Unix(text.into()));
        }
        match text.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(Self::Tcp(text.to_owned()))
            }
            Some(_) | None => Err(format!(
                "address `{text}` is neither host:port nor a path of a Unix socket"
            )),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => f.write_str(address),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
        }
    }
}

/// Binds a TCP listener for agents and managers.
///
/// # Errors
/// The address with what the system said.
pub async fn bind_tcp(address: &str) -> io::Result<(TcpListenerStream, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|error| io::Error::new(error.kind(), format!("listen on {address}: {error}")))?;
    let local = listener.local_addr()?;
    Ok((TcpListenerStream::new(listener), local))
}

/// Binds the control socket: its directory is made with mode 0700, a socket that nobody serves any
/// more is replaced; one that is served is an error, and so is anything that is no socket.
///
/// # Errors
/// The path with what is wrong.
pub async fn bind_unix(path: &Path) -> io::Result<LocalListener> {
    let context =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    // Before anything is made on the way to it.
    socket_path::check("--listen-control-api", path)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    if let Some(directory) = path.parent()
        && !directory.exists()
    {
        use std::os::unix::fs::DirBuilderExt as _;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(directory)
            .map_err(context)?;
    }
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        use std::os::unix::fs::FileTypeExt as _;
        if !metadata.file_type().is_socket() {
            let text = "there is something else in the place of the control socket; move it away, \
                        or choose another path with --listen-control-api";
            return Err(context(io::Error::new(io::ErrorKind::AlreadyExists, text)));
        }
        if UnixStream::connect(path).await.is_ok() {
            let text = "another process serves this control socket; stop it, or choose another \
                        path with --listen-control-api";
            return Err(context(io::Error::new(io::ErrorKind::AddrInUse, text)));
        }
        std::fs::remove_file(path).map_err(context)?;
    }
    let listener = UnixListener::bind(path).map_err(context)?;
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(context)?;
    Ok(LocalListener::new(listener))
}

/// A server with the limits and keep-alives that every listener of ours has.
pub fn server() -> Server {
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_PER_CONNECTION_MAX)
        .http2_max_header_list_size(HEADERS_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .tcp_nodelay(true)
}

/// A plain connection, which only the control socket takes; it opens with the first call and again
/// whenever it broke.
///
/// # Errors
/// When the address is malformed.
pub fn dial(address: &Address) -> Result<Channel, tonic::transport::Error> {
    let tune = |endpoint: Endpoint| {
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true)
    };
    match address {
        Address::Tcp(address) => {
            let endpoint = Endpoint::from_shared(format!("http://{address}"))?;
            Ok(tune(endpoint).connect_lazy())
        }
        Address::Unix(path) => {
            let path = path.clone();
            let endpoint = tune(Endpoint::from_static("http://control.sock"));
            Ok(
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
                    let path = path.clone();
                    async move {
                        let open = UnixStream::connect(&path);
                        let stream = tokio::time::timeout(CONNECT_TIMEOUT, open).await??;
                        Ok::<_, io::Error>(TokioIo::new(stream))
                    }
                })),
            )
        }
    }
}

/// Who makes a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// Who it is, whichever way the call came.
    pub peer: Peer,
    /// The address that the connection comes from, without the port; empty on the control socket.
    pub addr: String,
    /// The address of this machine that the caller dialled; `None` on the control socket, and for
    /// a call that another manager handed on.
    pub arrived: Option<SocketAddr>,
    /// The manager that handed the call on, if one did.
    pub forwarded_by: Option<NodeId>,
}

impl Caller {
    /// The calling node, unless it is this one or nobody knows.
    pub fn node(&self) -> Option<&NodeId> {
        self.peer.node()
    }

    /// Whether the call came through the control socket.
    pub fn is_local(&self) -> bool {
        self.peer == Peer::Local
    }
}

/// Who makes this call: whom the listener's authorization found, else who is at the other end of
/// the connection.
pub fn caller<T>(request: &tonic::Request<T>) -> Caller {
    let extensions = request.extensions();
    if let Some(caller) = extensions.get::<Caller>() {
        return caller.clone();
    }
    if let Some(connection) = extensions.get::<Arc<Connection>>() {
        return Caller {
            peer: connection.peer().clone(),
            addr: connection.remote().ip().to_string(),
            arrived: connection.local(),
            forwarded_by: None,
        };
    }
    let peer = if extensions.get::<UdsConnectInfo>().is_some() {
        Peer::Local
    } else {
        Peer::Anonymous
    };
    Caller {
        peer,
        addr: String::new(),
        arrived: None,
        forwarded_by: None,
    }
}

/// Whether every host that the address may name is this machine.
pub fn is_loopback(address: &str) -> bool {
    let host = host(address);
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// Whether the address stands for all of a machine, so that it leads nowhere from another one.
pub fn is_unspecified(address: &str) -> bool {
    let host = host(address).parse::<std::net::IpAddr>();
    host.is_ok_and(|address| address.is_unspecified())
}

fn host(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_tcp_or_unix_or_refused() {
        assert_eq!(Address::parse("h:1"), Ok(Address::Tcp("h:1".into())));
        assert_eq!(
            Address::parse("[::1]:4242"),
            Ok(Address::Tcp("[::1]:4242".into()))
        );
        assert_eq!(
            Address::parse("unix:///a/b"),
            Ok(Address::Unix("/a/b".into()))
        );
        assert_eq!(Address::parse("/a/b"), Ok(Address::Unix("/a/b".into())));
        for bad in ["", "h", "h:", ":1", "h:65536", "h:x"] {
            assert!(Address::parse(bad).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for own in ["127.0.0.1:1", "localhost:1", "[::1]:1", "127.9.9.9:1"] {
            assert!(is_loopback(own), "{own}");
        }
        for other in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "example:1"] {
            assert!(!is_loopback(other), "{other}");
        }
    }

    #[tokio::test]
    async fn a_stale_control_socket_is_replaced_and_a_served_one_is_not() {
        let directory = std::env::temp_dir().join(format!("swarm-net-{}", std::process::id()));
        let path = directory.join("control.sock");
        let first = bind_unix(&path).await.unwrap();
        let error = bind_unix(&path).await.unwrap_err();
        assert!(
            error.to_string().contains("another process serves"),
            "{error}"
        );
        drop(first);
        drop(bind_unix(&path).await.unwrap());

        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "precious").unwrap();
        let error = bind_unix(&path).await.unwrap_err();
        assert!(error.to_string().contains("move it away"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_dir_all(directory).unwrap();
    }
}
