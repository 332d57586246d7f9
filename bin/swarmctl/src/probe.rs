//! What listens on a socket that does not answer as the control socket of a manager does.
//!
//! Go's managers take mutual TLS there, with the certificate of their own node; the API of a Docker
//! Engine speaks HTTP/1. Both are easily named by mistake, since they are sockets of swarms too.

use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

/// How long it may take to answer; what is local answers at once.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// A record of TLS with a message that no handshake has, so that the answer is an alert; and the
/// end of a request of HTTP/1.
const QUESTION: &[u8] = b"\x16\x03\x01\x00\x04\xff\x00\x00\x00\r\n\r\n";
/// What a record of TLS begins with: an alert, or a message of the handshake.
const TLS: [u8; 2] = [0x15, 0x16];
/// What an answer of HTTP/1 begins with.
const HTTP: &[u8] = b"HTTP/1";

/// What is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// It speaks TLS.
    Tls,
    /// It speaks HTTP/1.
    Http,
}

impl Found {
    /// What to say of it, as a clause about what listens.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Tls => {
                "it speaks TLS, as the control socket of a Go manager does (that of a Docker \
                 Engine, for example), and takes calls of its own node only"
            }
            Self::Http => "it speaks HTTP/1, as the API of a Docker Engine does",
        }
    }

    /// The way out.
    pub(crate) fn hint(self) -> &'static str {
        match self {
            Self::Tls => {
                "use the commands of that manager, such as `docker node ls`; the control socket \
                 of `swarmd` is named with --socket"
            }
            Self::Http => "the control socket of `swarmd` is named with --socket",
        }
    }
}

/// Finds out; `None` if it is neither.
pub(crate) async fn look(socket: &Path) -> Option<Found> {
    let asked = tokio::time::timeout(ANSWER_MAX, ask(socket)).await;
    let answer = asked.ok()?.ok()?;
    if answer.first().is_some_and(|first| TLS.contains(first)) {
        Some(Found::Tls)
    } else if answer.starts_with(HTTP) {
        Some(Found::Http)
    } else {
        None
    }
}

async fn ask(socket: &Path) -> std::io::Result<Vec<u8>> {
    let mut stream = UnixStream::connect(socket).await?;
    stream.write_all(QUESTION).await?;
    let mut answer = [0; HTTP.len()];
    let mut length = 0;
    while length < answer.len() {
        match stream.read(&mut answer[length..]).await? {
            0 => break,
            count => length += count,
        }
        if TLS.contains(&answer[0]) {
            break;
        }
    }
    Ok(answer[..length].to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    /// What is found where everybody is answered this.
    async fn found(answer: &'static [u8]) -> Option<Found> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let listener = UnixListener::bind(&path).unwrap();
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut question = [0; QUESTION.len()];
            stream.read_exact(&mut question).await.unwrap();
            stream.write_all(answer).await.unwrap();
            drop(stream);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            found = look(&path) => found,
            () = serve => None,
        }
    }

    #[tokio::test]
    async fn tls_and_http_are_told_apart_from_anything_else() {
        assert_eq!(
            found(b"\x15\x03\x01\x00\x02\x02\x0a").await,
            Some(Found::Tls)
        );
        let bad = b"HTTP/1.1 400 Bad Request\r\n\r\n";
        assert_eq!(found(bad).await, Some(Found::Http));
        assert_eq!(found(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00").await, None);
        assert_eq!(found(b"").await, None);
        let nobody = Path::new("/nonexistent/s");
        assert_eq!(look(nobody).await, None);
    }
}
