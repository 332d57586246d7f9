//! Who a certificate says that somebody is.
//!
//! Owns reading a node, its cluster and its roles from a subject. Whether the certificate is to be
//! believed is for the TLS handshake and [`crate::chain`] to find out.

use swarm_types::{ClusterId, NodeId, Timestamp};

use crate::certificate::{Certificate, CertificateError};
use crate::encode::oids;
use crate::{MANAGER_ROLE, WORKER_ROLE};

/// The identity in a node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertIdentity {
    /// The node: common name.
    pub node: NodeId,
    /// The cluster: first organisation.
    pub cluster: ClusterId,
    /// The roles: organisational units.
    pub roles: Vec<String>,
    /// From when the certificate is valid.
    pub not_before: Timestamp,
    /// Until when the certificate is valid.
    pub not_after: Timestamp,
}

impl CertIdentity {
    /// Whether it may act as a manager.
    pub fn is_manager(&self) -> bool {
        self.roles.iter().any(|role| role == MANAGER_ROLE)
    }

    /// Whether it may act as a worker.
    pub fn is_worker(&self) -> bool {
        self.roles.iter().any(|role| role == WORKER_ROLE)
    }

    /// What the subject of a certificate says.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn of(certificate: &Certificate) -> Result<Self, IdentityError> {
        let mut node = None;
        let mut cluster = None;
        let mut roles = Vec::new();
        for rdn in &certificate.fields().subject.0 {
            for attribute in rdn.0.iter() {
                let slot = match attribute.oid {
                    oids::COMMON_NAME => &mut node,
                    oids::ORGANIZATION => &mut cluster,
                    oids::ORGANIZATIONAL_UNIT => {
                        roles.push(text(&attribute.value).ok_or(IdentityError::Subject)?);
                        continue;
                    }
                    _ => continue,
                };
                if slot.is_none() {
                    *slot = Some(text(&attribute.value).ok_or(IdentityError::Subject)?);
                }
            }
        }
        if roles.is_empty() {
            return Err(IdentityError::Missing("role (OU)"));
        }
        let node = node.ok_or(IdentityError::Missing("node id (CN)"))?;
        let cluster = cluster.ok_or(IdentityError::Missing("cluster id (O)"))?;
        Ok(Self {
            node: node.parse().map_err(|_| IdentityError::Subject)?,
            cluster: cluster.parse().map_err(|_| IdentityError::Subject)?,
            roles,
            not_before: certificate.not_before(),
            not_after: certificate.not_after(),
        })
    }
}

/// Why a certificate is not one of a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Certificate(#[from] CertificateError),
    /// A part of the name is not there.
    #[error("the subject of the certificate has no {0}")]
    Missing(&'static str),
    /// A part of the name is not text, or not an id.
    #[error("the subject of the certificate has a part that is not an id or a role")]
    Subject,
}

/// Reads the identity from the bytes of a certificate.
///
/// # Errors
/// [`IdentityError`].
pub fn read_der(der: &[u8]) -> Result<CertIdentity, IdentityError> {
    CertIdentity::of(&Certificate::from_der(der)?)
}

/// Reads the identity from the first certificate of a PEM text.
///
/// # Errors
/// [`IdentityError`].
pub fn read_pem(text: &[u8]) -> Result<CertIdentity, IdentityError> {
    let certificates = Certificate::all_from_pem(text)?;
    let first = certificates.first();
    CertIdentity::of(first.ok_or(CertificateError::Malformed)?)
}

/// The string types that appear in names.
fn text(value: &der::Any) -> Option<String> {
    use der::asn1::{Ia5StringRef, PrintableStringRef, TeletexStringRef, Utf8StringRef};
    let printable = value.decode_as::<PrintableStringRef<'_>>();
    let text = printable.map(|text| text.to_string());
    text.or_else(|_| {
        value
            .decode_as::<Utf8StringRef<'_>>()
            .map(|t| t.to_string())
    })
    .or_else(|_| value.decode_as::<Ia5StringRef<'_>>().map(|t| t.to_string()))
    .or_else(|_| {
        value
            .decode_as::<TeletexStringRef<'_>>()
            .map(|t| t.to_string())
    })
    .ok()
}
