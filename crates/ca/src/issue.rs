//! Signing certificates of nodes.
//!
//! Owns what such a certificate contains and how long it is valid. Owns no decision about who gets
//! one. Of the request, only the public key is used.

mod others;

use std::fmt;
use std::time::Duration;

use der::asn1::OctetString;
use der::{Decode as _, Encode as _};
use swarm_api::v1::NodeRole;
use swarm_types::{ClusterId, NodeId, Timestamp};
use x509_cert::certificate::{TbsCertificate, Version};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages,
    SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::RdnSequence;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Validity;

use crate::certificate::{Certificate, CertificateError, key_id};
use crate::chain::{self, ChainError, Expiry};
use crate::csr::{self, CsrError};
use crate::encode::{self, oids};
use crate::key::{KeyError, KeyPem, PrivateKey};
use crate::root::RootBundle;
use crate::{CA_NAME, MANAGER_ROLE, WORKER_ROLE};

/// Validity of a node's certificate unless the cluster says otherwise
/// (`DefaultNodeCertExpiration`).
pub const DEFAULT_EXPIRY: Duration = Duration::from_secs(90 * 24 * 3600);
/// The shortest validity; what is configured below it counts as [`DEFAULT_EXPIRY`]
/// (`MinNodeCertExpiration`).
pub const MIN_EXPIRY: Duration = Duration::from_secs(3600);
/// How far back the validity starts, for clocks that lag (`CertBackdate`).
pub const BACKDATE: Duration = Duration::from_secs(3600);

/// Whom a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The node.
    pub node: NodeId,
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its role.
    pub role: NodeRole,
}

/// Why something was not signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// The request.
    #[error("the certificate request is not accepted")]
    Csr(#[from] CsrError),
    /// The key of the signer.
    #[error("the key of the certificate authority cannot be used")]
    Key(#[from] KeyError),
    /// The certificate of the signer.
    #[error("the certificate of the certificate authority cannot be used")]
    Certificate(#[from] CertificateError),
    /// The signer's certificate is not a single one.
    #[error("the certificate authority must have one certificate to sign with, not {0}")]
    NotOne(usize),
    /// Key and certificate of the signer are of different pairs.
    #[error("certificate key mismatch")]
    KeyMismatch,
    /// The intermediates do not start with the signer.
    #[error(
        "the first intermediate certificate must have the subject and public key of the signing \
         certificate"
    )]
    Intermediates,
    /// The signer is not trusted by the cluster's own nodes.
    #[error("the signing certificate does not lead to a root of the cluster")]
    NotTrusted(#[source] ChainError),
    /// A certificate that may not sign others.
    #[error("certificate not a CA")]
    NotCa,
    /// The subject does not fit into a certificate.
    #[error("the certificate cannot be encoded")]
    Encode,
}

impl From<der::Error> for SignError {
    fn from(_: der::Error) -> Self {
        Self::Encode
    }
}

/// A certificate authority that signs with a key in memory.
#[derive(Clone)]
pub struct Signer {
    certificate: std::sync::Arc<Certificate>,
    key: std::sync::Arc<PrivateKey>,
    intermediates_pem: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Signer({:?})", self.key.kind())
    }
}

impl Signer {
    /// Reads certificate and key, which must belong together. The intermediates are appended to
    /// what is issued; they are empty except during a rotation of the root.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn new(cert_pem: &str, key_pem: &KeyPem, intermediates: &str) -> Result<Self, SignError> {
        let mut certificates = Certificate::all_from_pem(cert_pem.as_bytes())?;
        let (certificate, others) = (certificates.pop(), certificates.len());
        let certificate = certificate
            .filter(|_| others == 0)
            .ok_or(SignError::NotOne(others + 1))?;
        let key = PrivateKey::from_pem(key_pem)?;
        if key.spki_der() != certificate.spki_der() {
            return Err(SignError::KeyMismatch);
        }
        let mut intermediates_pem = String::new();
        if !intermediates.trim().is_empty() {
            let intermediates = Certificate::all_from_pem(intermediates.as_bytes())?;
            let same = intermediates.first().is_some_and(|first| {
                first.subject_der() == certificate.subject_der()
                    && first.spki_der() == certificate.spki_der()
            });
            if !same {
                return Err(SignError::Intermediates);
            }
            intermediates_pem.extend(intermediates.iter().map(Certificate::to_pem));
        }
        Ok(Self {
            certificate: certificate.into(),
            key: key.into(),
            intermediates_pem,
        })
    }

    /// Checks that what it signs is trusted by those who trust `roots`.
    ///
    /// # Errors
    /// [`SignError::NotTrusted`].
    pub fn check_trusted(&self, roots: &RootBundle, now: Timestamp) -> Result<(), SignError> {
        let chain = format!("{}{}", self.certificate.to_pem(), self.intermediates_pem);
        let certificates = Certificate::all_from_pem(chain.as_bytes())?;
        let known = roots.certificates();
        if known
            .iter()
            .any(|root| root.der() == self.certificate.der())
        {
            return Ok(());
        }
        chain::leads_to(&certificates, roots, now, Expiry::Enforce)
            .map(drop)
            .map_err(SignError::NotTrusted)
    }

    /// Signs the public key of a request for a subject. Returns the certificate, followed by the
    /// intermediates, as PEM. `serial` is 20 random bytes.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(
        &self,
        csr_pem: &[u8],
        subject: &Subject,
        expiry: Duration,
        now: Timestamp,
        serial: [u8; 20],
    ) -> Result<String, SignError> {
        let spki = csr::public_key(csr_pem)?;
        let expiry = if expiry < MIN_EXPIRY {
            DEFAULT_EXPIRY
        } else {
            expiry
        };
        let not_before = encode::to_minute(now).saturating_sub(BACKDATE);
        let validity = (
            not_before,
            not_before.saturating_add(expiry).saturating_add(BACKDATE),
        );
        self.sign_spki(&spki, subject, validity, serial)
    }

    /// Signs a public key with an exact validity, for certificates that are wanted expired or not
    /// yet valid; [`Signer::sign`] is what an authority calls.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign_spki(
        &self,
        spki: &[u8],
        subject: &Subject,
        (not_before, not_after): (Timestamp, Timestamp),
        serial: [u8; 20],
    ) -> Result<String, SignError> {
        let (cluster, node) = (subject.cluster.to_string(), subject.node.to_string());
        let role = role_name(subject.role);
        let name = encode::name(&[
            (oids::ORGANIZATION, &cluster),
            (oids::ORGANIZATIONAL_UNIT, role),
            (oids::COMMON_NAME, &node),
        ])?;
        let contents = Contents {
            serial,
            issuer: self.certificate.subject_der().to_vec(),
            subject: name,
            not_before,
            not_after,
            spki,
            extensions: self.extensions(spki, role, &node)?,
        };
        let mut pem = sign_contents(contents, &self.key)?;
        pem.push_str(&self.intermediates_pem);
        Ok(pem)
    }

    /// In the order in which Go writes them.
    fn extensions(&self, spki: &[u8], role: &str, node: &str) -> Result<Vec<Extension>, SignError> {
        let usage = KeyUsage(KeyUsages::DigitalSignature | KeyUsages::KeyEncipherment);
        let extended = ExtendedKeyUsage(vec![oids::SERVER_AUTH, oids::CLIENT_AUTH]);
        let constraints = BasicConstraints {
            ca: false,
            path_len_constraint: None,
        };
        let id = key_id(spki).ok_or(SignError::Encode)?;
        let mut names = vec![encode::dns_name(role)?, encode::dns_name(node)?];
        if role == MANAGER_ROLE {
            names.push(encode::dns_name(CA_NAME)?);
        }
        Ok(vec![
            encode::extension(&usage, true)?,
            encode::extension(&extended, false)?,
            encode::extension(&constraints, true)?,
            encode::extension(&SubjectKeyIdentifier(OctetString::new(id)?), false)?,
            authority_key_id(&self.certificate)?,
            encode::extension(&SubjectAltName(names), false)?,
        ])
    }

    /// The certificate that it signs with.
    pub fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(crate) fn key(&self) -> &PrivateKey {
        &self.key
    }
}

/// How a role is called in certificates.
pub const fn role_name(role: NodeRole) -> &'static str {
    match role {
        NodeRole::Manager => MANAGER_ROLE,
        NodeRole::Worker => WORKER_ROLE,
    }
}

pub(crate) fn authority_key_id(issuer: &Certificate) -> der::Result<Extension> {
    let content = AuthorityKeyIdentifier {
        key_identifier: Some(OctetString::new(issuer.subject_key_id())?),
        authority_cert_issuer: None,
        authority_cert_serial_number: None,
    };
    encode::extension(&content, false)
}

/// Everything of a certificate except its signature.
pub(crate) struct Contents<'a> {
    pub(crate) serial: [u8; 20],
    /// DER, copied as it is in the issuer's certificate.
    pub(crate) issuer: Vec<u8>,
    pub(crate) subject: RdnSequence,
    pub(crate) not_before: Timestamp,
    pub(crate) not_after: Timestamp,
    pub(crate) spki: &'a [u8],
    pub(crate) extensions: Vec<Extension>,
}

pub(crate) fn sign_contents(contents: Contents<'_>, key: &PrivateKey) -> Result<String, SignError> {
    let algorithm = key.signature_algorithm();
    let tbs = TbsCertificate {
        version: Version::V3,
        serial_number: encode::serial(contents.serial)?,
        signature: algorithm.clone(),
        issuer: RdnSequence::from_der(&contents.issuer)?,
        validity: Validity {
            not_before: encode::time(contents.not_before)?,
            not_after: encode::time(contents.not_after)?,
        },
        subject: contents.subject,
        subject_public_key_info: SubjectPublicKeyInfoOwned::from_der(contents.spki)?,
        issuer_unique_id: None,
        subject_unique_id: None,
        extensions: Some(contents.extensions),
    };
    let tbs = tbs.to_der()?;
    let der = encode::signed(&tbs, &algorithm, &key.sign(&tbs)?)?;
    Ok(crate::pem::write(crate::pem::CERTIFICATE, &der))
}
