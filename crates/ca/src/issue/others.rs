//! Certificates that an external authority signs besides those of nodes: its server's own, and that
//! of another root.

use std::net::IpAddr;

use der::asn1::OctetString;
use swarm_types::Timestamp;
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName, SubjectKeyIdentifier,
};
use x509_cert::name::RdnSequence;

use super::{Contents, SignError, Signer, authority_key_id, sign_contents};
use crate::certificate::key_id;
use crate::csr;
use crate::encode::{self, oids};

impl Signer {
    /// Signs the public key of a request for a server that is no node, under the names and
    /// addresses by which it is dialled. The first one is its common name.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign_server(
        &self,
        csr_pem: &[u8],
        names: &[String],
        validity: (Timestamp, Timestamp),
        serial: [u8; 20],
    ) -> Result<String, SignError> {
        let common = names.first().ok_or(SignError::Encode)?;
        let subject = encode::name(&[(oids::COMMON_NAME, common)])?;
        let usage = KeyUsage(KeyUsages::DigitalSignature.into());
        let names = names.iter().map(|name| match name.parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => {
                OctetString::new(address.octets()).map(GeneralName::IpAddress)
            }
            Ok(IpAddr::V6(address)) => {
                OctetString::new(address.octets()).map(GeneralName::IpAddress)
            }
            Err(_) => encode::dns_name(name),
        });
        let names = names.collect::<der::Result<Vec<_>>>()?;
        let extensions = vec![
            encode::extension(&usage, true)?,
            encode::extension(&ExtendedKeyUsage(vec![oids::SERVER_AUTH]), false)?,
            constraints(false)?,
            encode::extension(&SubjectAltName(names), false)?,
        ];
        self.sign_other(csr_pem, subject, validity, serial, extensions)
    }

    /// Signs the public key of another root's request, so that whoever trusts this signer trusts
    /// what the other root signs. [`crate::cross`] does it from the other's certificate; here only
    /// its request and name are known, as an external authority knows them.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign_authority(
        &self,
        csr_pem: &[u8],
        common_name: &str,
        validity: (Timestamp, Timestamp),
        serial: [u8; 20],
    ) -> Result<String, SignError> {
        let subject = encode::name(&[(oids::COMMON_NAME, common_name)])?;
        let usage = KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign);
        let extensions = vec![encode::extension(&usage, true)?, constraints(true)?];
        self.sign_other(csr_pem, subject, validity, serial, extensions)
    }

    fn sign_other(
        &self,
        csr_pem: &[u8],
        subject: RdnSequence,
        (not_before, not_after): (Timestamp, Timestamp),
        serial: [u8; 20],
        mut extensions: Vec<Extension>,
    ) -> Result<String, SignError> {
        let spki = csr::public_key(csr_pem)?;
        let id = OctetString::new(key_id(&spki).ok_or(SignError::Encode)?)?;
        extensions.push(encode::extension(&SubjectKeyIdentifier(id), false)?);
        extensions.push(authority_key_id(self.certificate())?);
        let contents = Contents {
            serial,
            issuer: self.certificate().subject_der().to_vec(),
            subject,
            not_before,
            not_after,
            spki: &spki,
            extensions,
        };
        sign_contents(contents, self.key())
    }
}

fn constraints(ca: bool) -> der::Result<Extension> {
    let constraints = BasicConstraints {
        ca,
        path_len_constraint: None,
    };
    encode::extension(&constraints, true)
}
