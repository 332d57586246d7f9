//! The roots that a cluster trusts, and making one.
//!
//! Owns what a root must be like, its exact text, and the digest of that text. Owns no key: see
//! [`crate::issue`] for signing.

use std::fmt;
use std::time::Duration;

use der::Encode as _;
use swarm_types::Timestamp;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier};

use crate::CA_NAME;
use crate::certificate::{Certificate, CertificateError, key_id};
use crate::encode::{self, oids};
use crate::issue::{self, Contents};
use crate::key::{KeyPem, PrivateKey};

/// How long a root that is made here is valid: 20 years of 365 days (`RootCAExpiration`).
pub const ROOT_VALIDITY: Duration = Duration::from_secs(630_720_000);
/// How far back a root's validity starts, for clocks that lag.
pub const ROOT_BACKDATE: Duration = Duration::from_secs(5 * 60);
/// Most roots in one bundle.
pub const ROOTS_MAX: usize = 16;

/// SHA-256 over the exact text of a bundle.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RootDigest([u8; 32]);

impl RootDigest {
    /// Of a bundle's text.
    pub fn of(pem: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, pem);
        let bytes = digest.as_ref().try_into();
        Self(bytes.expect("SHA-256 has 32 bytes"))
    }

    /// From its bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for RootDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for RootDigest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// Why a bundle is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// A certificate cannot be used.
    #[error("root certificate {index} of the bundle is not accepted")]
    Certificate {
        /// Which one, from 1.
        index: usize,
        /// Why.
        source: CertificateError,
    },
    /// The text is not a bundle of certificates.
    #[error("the root bundle cannot be read")]
    Text(#[from] CertificateError),
    /// A certificate that somebody else signed.
    #[error("root certificate {0} of the bundle is not self-signed")]
    NotSelfSigned(usize),
    /// Too many of them.
    #[error("the bundle has {0} root certificates, at most {ROOTS_MAX} are accepted")]
    TooMany(usize),
}

/// One or more roots, with the text that they came in.
#[derive(Clone)]
pub struct RootBundle {
    pem: String,
    roots: Vec<Certificate>,
}

impl fmt::Debug for RootBundle {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "RootBundle({}, {})", self.roots.len(), self.digest())
    }
}

impl PartialEq for RootBundle {
    fn eq(&self, other: &Self) -> bool {
        self.pem == other.pem
    }
}

impl Eq for RootBundle {}

impl RootBundle {
    /// Reads a bundle: every certificate is self-signed, valid at `now`, and signed with an
    /// algorithm that is accepted.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn parse(pem: &[u8], now: Timestamp) -> Result<Self, RootError> {
        let bundle = Self::parse_any_time(pem)?;
        for (index, root) in (1..).zip(&bundle.roots) {
            root.check_time(now)
                .map_err(|source| RootError::Certificate { index, source })?;
        }
        Ok(bundle)
    }

    /// Like [`RootBundle::parse`] without the check of the time: what is on disk must be readable
    /// even by a clock that is wrong, to say which of the two it is.
    ///
    /// # Errors
    /// [`RootError`].
    pub fn parse_any_time(pem: &[u8]) -> Result<Self, RootError> {
        let roots = Certificate::all_from_pem(pem)?;
        if roots.len() > ROOTS_MAX {
            return Err(RootError::TooMany(roots.len()));
        }
        for (index, root) in (1..).zip(&roots) {
            if root.subject_der() != root.issuer_der() {
                return Err(RootError::NotSelfSigned(index));
            }
            root.check_signed_by(root).map_err(|source| {
                if source == CertificateError::Signature {
                    return RootError::NotSelfSigned(index);
                }
                RootError::Certificate { index, source }
            })?;
        }
        let pem = std::str::from_utf8(pem).map_err(|_| CertificateError::Malformed)?;
        Ok(Self {
            pem: pem.to_owned(),
            roots,
        })
    }

    /// The exact text.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// The digest of the exact text.
    pub fn digest(&self) -> RootDigest {
        RootDigest::of(self.pem.as_bytes())
    }

    /// The certificates.
    pub fn certificates(&self) -> &[Certificate] {
        &self.roots
    }

    /// The bytes of the certificates.
    pub fn ders(&self) -> Vec<Vec<u8>> {
        self.roots.iter().map(|root| root.der().to_vec()).collect()
    }
}

/// Makes a root of its own: P-256, 20 years, named `swarm-ca`. Returns certificate and key as PEM.
///
/// Its serial number is taken from the digest of its key, so it needs no random number more.
pub fn new_root(now: Timestamp) -> (String, KeyPem) {
    let key = PrivateKey::generate();
    let pem = self_sign(&key, now).expect("a root of fixed shape can be written and signed");
    (pem, key.to_pem())
}

/// Makes the certificate of a root for a key.
///
/// # Errors
/// If the key cannot sign.
pub fn self_sign(key: &PrivateKey, now: Timestamp) -> Result<String, issue::SignError> {
    let digest = ring::digest::digest(&ring::digest::SHA256, key.spki_der());
    let mut serial = [0; 20];
    serial.copy_from_slice(&digest.as_ref()[..20]);
    let not_before = encode::to_minute(now).saturating_sub(ROOT_BACKDATE);
    let name = encode::name(&[(oids::COMMON_NAME, CA_NAME)])?;
    let id = key_id(key.spki_der()).ok_or(issue::SignError::Encode)?;
    let constraints = BasicConstraints {
        ca: true,
        path_len_constraint: None,
    };
    let contents = Contents {
        serial,
        issuer: name.to_der()?,
        subject: name,
        not_before,
        not_after: not_before.saturating_add(ROOT_VALIDITY),
        spki: key.spki_der(),
        extensions: vec![
            encode::extension(&KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign), true)?,
            encode::extension(&constraints, true)?,
            encode::extension(
                &SubjectKeyIdentifier(der::asn1::OctetString::new(id)?),
                false,
            )?,
        ],
    };
    issue::sign_contents(contents, key)
}
