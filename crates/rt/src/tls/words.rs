//! What went wrong in a handshake, in words that say what to do.
//!
//! Times are shown from both sides where they matter, since a clock that is wrong looks like a
//! certificate that is wrong.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "the enums of rustls are open, and what they gain has words of its own"
)]

use std::io;

use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, CertificateError, Error};
use swarm_ca::identity::CertIdentity;
use swarm_types::Timestamp;

use crate::logging::without_link;
use crate::metrics::Refused;

/// Which side of the connection this program is.
#[derive(Clone, Copy, Debug)]
pub enum Side<'a> {
    /// The one that dials, with its own certificate if it has one.
    Client(Option<&'a CertIdentity>),
    /// The one that listens.
    Server,
}

impl Side<'_> {
    fn peer(self) -> &'static str {
        match self {
            Self::Client(_) => "the manager",
            Self::Server => "the node",
        }
    }
}

/// The error of TLS inside an error of a socket.
pub(super) fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref::<Error>()
}

/// The error of a socket that TLS has no words for.
pub(super) fn plain(error: &io::Error) -> String {
    without_link(&error.to_string()).to_owned()
}

/// The error in words; `now` is what this machine's clock says.
pub fn explain(error: &Error, side: Side<'_>, now: Timestamp) -> String {
    let peer = side.peer();
    match error {
        Error::InvalidCertificate(error) => certificate(error, peer, now),
        Error::AlertReceived(alert) => refusal(*alert, side, now),
        Error::InvalidMessage(_) => format!("{peer} does not speak TLS"),
        Error::NoApplicationProtocol => format!("{peer} does not agree to HTTP/2"),
        Error::PeerIncompatible(why) => {
            format!("{peer} offers no version or cipher of TLS that this node accepts: {why:?}")
        }
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError, peer: &str, now: Timestamp) -> String {
    match error {
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "{peer}'s certificate expired at {}, and this machine's clock says {now}; if the clock \
             is right, the certificate has to be renewed",
            time(*not_after)
        ),
        CertificateError::Expired => {
            format!("{peer}'s certificate has expired; this machine's clock says {now}")
        }
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "{peer}'s certificate is valid from {} on, and this machine's clock says {now}: the \
             clocks of the two machines differ; set them",
            time(*not_before)
        ),
        CertificateError::NotValidYet => format!(
            "{peer}'s certificate is not valid yet; this machine's clock says {now}: the clocks of \
             the two machines differ; set them"
        ),
        // All clusters name their root alike, so a foreign one shows as a bad signature.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "{peer}'s certificate is signed by an authority that this node does not trust: it \
             belongs to another cluster, or the root of the cluster changed"
        ),
        CertificateError::NotValidForNameContext {
            expected,
            presented,
        } => format!(
            "{peer}'s certificate is for [{}], not for `{}`: there is no manager at this address",
            presented.join(", "),
            expected.to_str()
        ),
        CertificateError::NotValidForName => {
            format!("{peer}'s certificate is not that of a manager")
        }
        other => format!("{peer}'s certificate cannot be used: {other}"),
    }
}

/// What the peer said about our own certificate.
fn refusal(alert: AlertDescription, side: Side<'_>, now: Timestamp) -> String {
    let peer = side.peer();
    match alert {
        AlertDescription::CertificateExpired => {
            let validity = match side {
                Side::Client(Some(own)) => {
                    format!(" from {} to {}", own.not_before, own.not_after)
                }
                Side::Client(None) | Side::Server => String::new(),
            };
            format!(
                "{peer} says that this node's certificate has expired or is not valid yet; it is \
                 valid{validity}, and this machine's clock says {now}: renew the certificate if it \
                 has expired, otherwise set the clocks of the two machines"
            )
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => format!(
            "{peer} does not trust the authority that signed this node's certificate: the node \
             belongs to another cluster, or the root of the cluster changed"
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::CertificateRevoked
        | AlertDescription::AccessDenied => {
            format!("{peer} refuses this node's certificate ({alert:?})")
        }
        AlertDescription::CertificateRequired => format!("{peer} insists on a certificate"),
        AlertDescription::NoApplicationProtocol => format!("{peer} does not speak HTTP/2"),
        AlertDescription::ProtocolVersion => {
            format!("{peer} accepts neither TLS 1.2 nor TLS 1.3")
        }
        other => format!("{peer} ended the handshake ({other:?})"),
    }
}

/// The counter of a handshake that failed for this.
pub(super) fn reason(error: &Error) -> Refused {
    match error {
        Error::InvalidCertificate(error) => match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                Refused::CertificateExpired
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Refused::CertificateNotYetValid
            }
            CertificateError::UnknownIssuer | CertificateError::BadSignature => {
                Refused::CertificateUnknownAuthority
            }
            _ => Refused::CertificateInvalid,
        },
        Error::NoApplicationProtocol => Refused::NoHttp2,
        _ => Refused::HandshakeFailed,
    }
}

/// The first line of what a peer said, escaped and cut to a length that a log line bears.
pub(super) fn first_line(said: &[u8]) -> String {
    const SHOWN_BYTES_MAX: usize = 40;
    let line = said.split(|&byte| matches!(byte, b'\r' | b'\n')).next();
    let line = line.unwrap_or_default();
    let shown = &line[..line.len().min(SHOWN_BYTES_MAX)];
    format!("`{}`", shown.escape_ascii())
}

fn time(time: UnixTime) -> Timestamp {
    let nanos = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    Timestamp::from_nanos(nanos.saturating_mul(1_000_000_000))
}
