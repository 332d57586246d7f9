//! A certificate that was read: its fields, and the bytes that they were read from.
//!
//! Owns reading, validity in time, and the check of one signature. Owns no trust: see
//! [`crate::chain`].

use std::fmt;

use der::Decode as _;
use der::oid::ObjectIdentifier;
use ring::signature::{self, UnparsedPublicKey, VerificationAlgorithm};
use swarm_types::Timestamp;
use x509_cert::ext::pkix::{BasicConstraints, SubjectKeyIdentifier};
use x509_cert::spki::SubjectPublicKeyInfoRef;

use crate::encode::{self, oids};
use crate::pem::{self, PemError};

/// Longest certificate that is read, in bytes. A bound on hostile input.
pub const DER_BYTES_MAX: usize = 64 * 1024;

/// Why a certificate cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Not PEM.
    #[error("the certificate is not PEM")]
    Pem(#[from] PemError),
    /// The bytes are no certificate.
    #[error("the certificate is malformed")]
    Malformed,
    /// Longer than [`DER_BYTES_MAX`].
    #[error("the certificate has {0} bytes, at most {DER_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not valid yet.
    #[error("the certificate is not valid before {not_before}; the clock says {now}")]
    NotYetValid {
        /// From when it is.
        not_before: Timestamp,
        /// What was taken for the time.
        now: Timestamp,
    },
    /// Not valid any more.
    #[error("the certificate has expired at {not_after}; the clock says {now}")]
    Expired {
        /// Until when it was.
        not_after: Timestamp,
        /// What was taken for the time.
        now: Timestamp,
    },
    /// A signature that cannot be checked.
    #[error(
        "the certificate is signed with {0}, which is not accepted; accepted are RSA with \
         SHA-256, SHA-384 or SHA-512, and ECDSA with SHA-256 or SHA-384 on P-256 or P-384"
    )]
    Algorithm(String),
    /// A signature that is wrong.
    #[error("the signature of the certificate does not match the key of its issuer")]
    Signature,
}

/// A certificate.
#[derive(Clone)]
pub struct Certificate {
    der: Vec<u8>,
    tbs: Vec<u8>,
    fields: x509_cert::Certificate,
    serial: Vec<u8>,
    issuer: Vec<u8>,
    subject: Vec<u8>,
    spki: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Certificate({})", self.fields.tbs_certificate.subject)
    }
}

impl Certificate {
    /// Reads one certificate.
    ///
    /// # Errors
    /// [`CertificateError::Malformed`] or [`CertificateError::TooLong`].
    pub fn from_der(der: &[u8]) -> Result<Self, CertificateError> {
        if der.len() > DER_BYTES_MAX {
            return Err(CertificateError::TooLong(der.len()));
        }
        let malformed = |_: der::Error| CertificateError::Malformed;
        let fields = x509_cert::Certificate::from_der(der).map_err(malformed)?;
        let tbs = *encode::parts(der)
            .map_err(malformed)?
            .first()
            .ok_or(CertificateError::Malformed)?;
        let parts = encode::parts(tbs).map_err(malformed)?;
        // Version 1 has no version field.
        let first = usize::from(parts.first().is_some_and(|part| part[0] == 0xa0));
        let part = |index: usize| -> Result<Vec<u8>, CertificateError> {
            let part = parts.get(first + index);
            part.map(|part| part.to_vec())
                .ok_or(CertificateError::Malformed)
        };
        Ok(Self {
            serial: part(0)?,
            issuer: part(2)?,
            subject: part(4)?,
            spki: part(5)?,
            tbs: tbs.to_vec(),
            der: der.to_vec(),
            fields,
        })
    }

    /// Reads PEM text of one or more certificates.
    ///
    /// # Errors
    /// [`CertificateError`].
    pub fn all_from_pem(text: &[u8]) -> Result<Vec<Self>, CertificateError> {
        let ders = pem::read_certificates(text)?;
        ders.iter().map(|der| Self::from_der(der)).collect()
    }

    /// The bytes of the whole.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// PEM text.
    pub fn to_pem(&self) -> String {
        pem::write(pem::CERTIFICATE, &self.der)
    }

    /// The bytes that are signed.
    pub(crate) fn tbs_der(&self) -> &[u8] {
        &self.tbs
    }

    pub(crate) fn fields(&self) -> &x509_cert::TbsCertificate {
        &self.fields.tbs_certificate
    }

    /// DER of the serial number.
    pub fn serial_der(&self) -> &[u8] {
        &self.serial
    }

    /// DER of the subject.
    pub fn subject_der(&self) -> &[u8] {
        &self.subject
    }

    /// DER of the issuer's name.
    pub fn issuer_der(&self) -> &[u8] {
        &self.issuer
    }

    /// DER of the public key with its algorithm.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// From when it is valid.
    pub fn not_before(&self) -> Timestamp {
        encode::timestamp(&self.fields().validity.not_before)
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> Timestamp {
        encode::timestamp(&self.fields().validity.not_after)
    }

    /// Whether it may sign certificates.
    pub fn is_ca(&self) -> bool {
        let constraints = self.fields().get::<BasicConstraints>();
        constraints.is_ok_and(|found| found.is_some_and(|(_, content)| content.ca))
    }

    /// The identifier of its key, or the usual one if the certificate does not say.
    pub(crate) fn subject_key_id(&self) -> Vec<u8> {
        match self.fields().get::<SubjectKeyIdentifier>() {
            Ok(Some((_, id))) => id.0.as_bytes().to_vec(),
            Ok(None) | Err(_) => key_id(&self.spki).unwrap_or_default(),
        }
    }

    /// Checks the time.
    ///
    /// # Errors
    /// [`CertificateError::NotYetValid`] or [`CertificateError::Expired`].
    pub fn check_time(&self, now: Timestamp) -> Result<(), CertificateError> {
        let (not_before, not_after) = (self.not_before(), self.not_after());
        if now < not_before {
            return Err(CertificateError::NotYetValid { not_before, now });
        }
        if now > not_after {
            return Err(CertificateError::Expired { not_after, now });
        }
        Ok(())
    }

    /// Whether names and signature say that `issuer` signed this certificate.
    ///
    /// # Errors
    /// [`CertificateError::Algorithm`] or [`CertificateError::Signature`].
    pub fn check_signed_by(&self, issuer: &Self) -> Result<(), CertificateError> {
        if self.issuer != issuer.subject {
            return Err(CertificateError::Signature);
        }
        // The algorithm is written twice and only one of the two is signed.
        if self.fields().signature != self.fields.signature_algorithm {
            return Err(CertificateError::Malformed);
        }
        let signature = self.fields.signature.as_bytes();
        verify(
            &issuer.spki,
            self.fields.signature_algorithm.oid,
            &self.tbs,
            signature.ok_or(CertificateError::Malformed)?,
        )
    }
}

/// SHA-1 over the bits of the public key (RFC 5280, 4.2.1.2, method 1).
pub(crate) fn key_id(spki: &[u8]) -> Option<Vec<u8>> {
    let spki = SubjectPublicKeyInfoRef::from_der(spki).ok()?;
    let bits = spki.subject_public_key.as_bytes()?;
    let digest = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, bits);
    Some(digest.as_ref().to_vec())
}

/// Checks a signature of any algorithm that is accepted.
pub(crate) fn verify(
    spki: &[u8],
    algorithm: ObjectIdentifier,
    message: &[u8],
    signature: &[u8],
) -> Result<(), CertificateError> {
    let key = SubjectPublicKeyInfoRef::from_der(spki).map_err(|_| CertificateError::Malformed)?;
    let with = verification(&key, algorithm)?;
    let bits = key.subject_public_key.as_bytes();
    UnparsedPublicKey::new(with, bits.ok_or(CertificateError::Malformed)?)
        .verify(message, signature)
        .map_err(|_| CertificateError::Signature)
}

fn verification(
    key: &SubjectPublicKeyInfoRef<'_>,
    algorithm: ObjectIdentifier,
) -> Result<&'static dyn VerificationAlgorithm, CertificateError> {
    if key.algorithm.oid == oids::RSA {
        return match algorithm {
            oids::RSA_SHA256 => Ok(&signature::RSA_PKCS1_2048_8192_SHA256),
            oids::RSA_SHA384 => Ok(&signature::RSA_PKCS1_2048_8192_SHA384),
            oids::RSA_SHA512 => Ok(&signature::RSA_PKCS1_2048_8192_SHA512),
            other => Err(CertificateError::Algorithm(algorithm_name(other, None))),
        };
    }
    let curve = key.algorithm.parameters_oid().ok();
    match (algorithm, curve) {
        (oids::ECDSA_SHA256, Some(oids::P256)) => Ok(&signature::ECDSA_P256_SHA256_ASN1),
        (oids::ECDSA_SHA384, Some(oids::P256)) => Ok(&signature::ECDSA_P256_SHA384_ASN1),
        (oids::ECDSA_SHA256, Some(oids::P384)) => Ok(&signature::ECDSA_P384_SHA256_ASN1),
        (oids::ECDSA_SHA384, Some(oids::P384)) => Ok(&signature::ECDSA_P384_SHA384_ASN1),
        (other, curve) => Err(CertificateError::Algorithm(algorithm_name(other, curve))),
    }
}

fn algorithm_name(algorithm: ObjectIdentifier, curve: Option<ObjectIdentifier>) -> String {
    let algorithm = match algorithm {
        oids::ECDSA_SHA256 => "ECDSA with SHA-256".to_owned(),
        oids::ECDSA_SHA384 => "ECDSA with SHA-384".to_owned(),
        oids::ECDSA_SHA512 => "ECDSA with SHA-512".to_owned(),
        other => format!("algorithm {other}"),
    };
    match curve {
        Some(oids::P521) => format!("{algorithm} on curve P-521"),
        Some(curve) => format!("{algorithm} on curve {curve}"),
        None => algorithm,
    }
}
