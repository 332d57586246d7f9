//! Certificate requests: what a node without certificate sends.
//!
//! Owns making a key and a request for it, and reading the public key out of a request. Everything
//! else that a request says is not looked at.

use der::asn1::{BitString, SetOfVec};
use der::{Decode as _, Encode as _};
use x509_cert::name::RdnSequence;
use x509_cert::request::{CertReq, CertReqInfo, Version};
use x509_cert::spki::{SubjectPublicKeyInfoOwned, SubjectPublicKeyInfoRef};

use crate::certificate::{self, CertificateError};
use crate::encode;
use crate::key::{KeyError, KeyPem, PrivateKey};
use crate::pem::{self, PemError};

/// Longest request that is read, in bytes of PEM. A bound on hostile input.
pub const CSR_BYTES_MAX: usize = 16 * 1024;

const LABEL: &str = "CERTIFICATE REQUEST";
/// What older tools write.
const OLD_LABEL: &str = "NEW CERTIFICATE REQUEST";

/// Why a request is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`CSR_BYTES_MAX`].
    #[error("the request has {0} bytes, at most {CSR_BYTES_MAX} are read")]
    TooLong(usize),
    /// Not PEM.
    #[error("the request is not PEM")]
    Pem(#[from] PemError),
    /// Another kind of block.
    #[error("expected a PEM block {LABEL:?}, found {0:?}")]
    Label(String),
    /// Not a request.
    #[error("the request is malformed")]
    Malformed,
    /// Its signature is not one of the key in it, so the sender may not have the private key.
    #[error("the request is not signed by its own key")]
    Signature(#[source] CertificateError),
    /// The key cannot sign.
    #[error("the request cannot be signed")]
    Key(#[from] KeyError),
}

/// Draws a fresh key for a node.
pub fn new_key() -> KeyPem {
    PrivateKey::generate().to_pem()
}

/// Writes a request for a key, with an empty subject.
///
/// # Errors
/// [`CsrError::Key`].
pub fn request(key: &KeyPem) -> Result<String, CsrError> {
    let key = PrivateKey::from_pem(key)?;
    let malformed = |_: der::Error| CsrError::Malformed;
    let info = CertReqInfo {
        version: Version::V1,
        subject: RdnSequence::default(),
        public_key: SubjectPublicKeyInfoOwned::from_der(key.spki_der()).map_err(malformed)?,
        attributes: SetOfVec::new(),
    };
    let content = info.to_der().map_err(malformed)?;
    let signature: BitString = key.sign(&content)?;
    let der = encode::signed(&content, &key.signature_algorithm(), &signature);
    Ok(pem::write(LABEL, &der.map_err(malformed)?))
}

/// The public key of a request (DER with algorithm), after checking that its owner signed it.
///
/// # Errors
/// [`CsrError`].
pub fn public_key(csr_pem: &[u8]) -> Result<Vec<u8>, CsrError> {
    if csr_pem.len() > CSR_BYTES_MAX {
        return Err(CsrError::TooLong(csr_pem.len()));
    }
    let block = pem::read_one(csr_pem)?;
    if block.label != LABEL && block.label != OLD_LABEL {
        return Err(CsrError::Label(block.label.chars().take(40).collect()));
    }
    let malformed = |_: der::Error| CsrError::Malformed;
    let csr = CertReq::from_der(&block.der).map_err(malformed)?;
    let parts = encode::parts(&block.der).map_err(malformed)?;
    let content = parts.first().ok_or(CsrError::Malformed)?;
    let signature = csr.signature.as_bytes().ok_or(CsrError::Malformed)?;
    let spki = csr.info.public_key.to_der().map_err(malformed)?;
    SubjectPublicKeyInfoRef::from_der(&spki).map_err(malformed)?;
    certificate::verify(&spki, csr.algorithm.oid, content, signature)
        .map_err(CsrError::Signature)?;
    Ok(spki)
}
