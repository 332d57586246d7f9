//! Cross-signing: the certificate of a new root, signed by the old one.
//!
//! Owns the copy, which is exact: subject, key, serial number, validity and extensions keep their
//! bytes. Only the issuer, the algorithm and the identifier of the authority's key change.

use der::{Decode as _, Encode as _, Tag, TagNumber};
use x509_cert::ext::Extension;

use crate::certificate::Certificate;
use crate::encode::{self, oids};
use crate::issue::{self, SignError, Signer};
use crate::pem;

/// Signs the certificate of a new root (one, PEM) with the old signer. Nodes that trust the old
/// root then trust what the new root signs, if they are shown this certificate with it.
///
/// # Errors
/// [`SignError`].
pub fn cross_sign(new_root_pem: &str, old_signer: &Signer) -> Result<String, SignError> {
    let mut certificates = Certificate::all_from_pem(new_root_pem.as_bytes())?;
    let (certificate, others) = (certificates.pop(), certificates.len());
    let certificate = certificate
        .filter(|_| others == 0)
        .ok_or(SignError::NotOne(others + 1))?;
    if !certificate.is_ca() {
        return Err(SignError::NotCa);
    }
    let tbs = rewrite(&certificate, old_signer)?;
    let key = old_signer.key();
    let der = encode::signed(&tbs, &key.signature_algorithm(), &key.sign(&tbs)?)?;
    Ok(pem::write(pem::CERTIFICATE, &der))
}

fn rewrite(certificate: &Certificate, signer: &Signer) -> Result<Vec<u8>, SignError> {
    let parts = encode::parts(certificate.tbs_der())?;
    let algorithm = signer.key().signature_algorithm().to_der()?;
    let extensions = extensions(&parts, signer)?;
    // version, serial number, signature, issuer, validity, subject, key, further fields.
    let [version, serial, _, _, rest @ ..] = parts.as_slice() else {
        return Err(SignError::Encode);
    };
    if version.first() != Some(&0xa0) {
        // Only version 3 has extensions, and a CA is one by an extension.
        return Err(SignError::NotCa);
    }
    let issuer = signer.certificate().subject_der();
    let mut all: Vec<&[u8]> = vec![version, serial, &algorithm, issuer];
    all.extend(rest.iter().filter(|part| part.first() != Some(&0xa3)));
    all.push(&extensions);
    Ok(encode::sequence(&all)?)
}

/// The extensions with the identifier of the signer's key in place of any other.
fn extensions(parts: &[&[u8]], signer: &Signer) -> Result<Vec<u8>, SignError> {
    let field = parts.iter().find(|part| part.first() == Some(&0xa3));
    let list = encode::parts(field.ok_or(SignError::NotCa)?)?;
    let [list] = list.as_slice() else {
        return Err(SignError::Encode);
    };
    let authority = issue::authority_key_id(signer.certificate())?.to_der()?;
    let mut kept: Vec<&[u8]> = Vec::new();
    for extension in encode::parts(list)? {
        if Extension::from_der(extension)?.extn_id != oids::AUTHORITY_KEY_ID {
            kept.push(extension);
        }
    }
    kept.push(&authority);
    let list = encode::sequence(&kept)?;
    let tag = Tag::ContextSpecific {
        constructed: true,
        number: TagNumber::N3,
    };
    Ok(encode::tagged(tag, &[&list])?)
}
