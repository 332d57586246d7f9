//! Calls to a program on this machine that speaks the protocol of Docker's plugins: JSON in an HTTP
//! POST over a Unix socket.
//!
//! Owns the bounds of the exchange. Does not own what is said, nor whether to ask again.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;

use crate::socket_path::{self, SocketPathTooLong};

/// What plugins are told to answer in.
const MEDIA_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// A plugin, and how much of it is borne.
#[derive(Clone, Debug)]
pub struct Plugin {
    /// Its socket.
    pub socket: PathBuf,
    /// The longest wait for the whole exchange.
    pub timeout: Duration,
    /// The longest answer that is read, in bytes.
    pub answer_bytes_max: usize,
}

/// What a plugin answered. The body may be a secret.
pub struct Answer {
    /// The status code of HTTP.
    pub status: u16,
    /// The body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum PluginError {
    /// Nobody listens.
    #[error("no plugin listens at {}", .0.display())]
    Connect(PathBuf, #[source] io::Error),
    /// Nobody can listen there.
    #[error(transparent)]
    TooLong(#[from] SocketPathTooLong),
    /// The connection broke, or it speaks no HTTP.
    #[error("the HTTP exchange with the plugin at {} failed", .0.display())]
    Http(PathBuf, #[source] hyper::Error),
    /// The path cannot be asked for.
    #[error("{0:?} is not a path")]
    Path(String),
    /// The answer broke off or is too long.
    #[error("the answer of the plugin at {} could not be read, or has more than {max} bytes",
        socket.display())]
    Body {
        /// The socket.
        socket: PathBuf,
        /// The bound.
        max: usize,
    },
    /// It took too long.
    #[error("the plugin at {} gave no answer within {} s", socket.display(), timeout.as_secs())]
    Timeout {
        /// The socket.
        socket: PathBuf,
        /// How long was waited.
        timeout: Duration,
    },
}

/// Sends JSON to a path like `/Plugin.Activate` and reads the answer.
///
/// # Errors
/// [`PluginError`].
pub async fn post_json(plugin: &Plugin, path: &str, body: String) -> Result<Answer, PluginError> {
    let exchange = tokio::time::timeout(plugin.timeout, exchange(plugin, path, body));
    exchange.await.unwrap_or_else(|_| {
        Err(PluginError::Timeout {
            socket: plugin.socket.clone(),
            timeout: plugin.timeout,
        })
    })
}

async fn exchange(plugin: &Plugin, path: &str, body: String) -> Result<Answer, PluginError> {
    let socket = || plugin.socket.clone();
    socket_path::check_or("the plugin's socket", &plugin.socket, || {
        "a shorter name of the plugin, or a shorter --plugins-dir".to_owned()
    })?;
    let stream = UnixStream::connect(&plugin.socket)
        .await
        .map_err(|error| PluginError::Connect(socket(), error))?;
    let failed = |error| PluginError::Http(socket(), error);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    let request = Request::post(path)
        .header(http::header::HOST, "plugin")
        .header(http::header::ACCEPT, MEDIA_TYPE)
        .header(http::header::CONTENT_TYPE, MEDIA_TYPE)
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| PluginError::Path(path.to_owned()))?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(failed)?;
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), plugin.answer_bytes_max)
            .collect()
            .await;
        let body = body.map_err(|_| PluginError::Body {
            socket: socket(),
            max: plugin.answer_bytes_max,
        })?;
        Ok(Answer {
            status,
            body: body.to_bytes(),
        })
    };
    tokio::pin!(exchange, connection);
    tokio::select! {
        answer = &mut exchange => answer,
        // What was read before the connection ended is still an answer.
        _ = &mut connection => exchange.await,
    }
}
