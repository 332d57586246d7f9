//! Whether a certificate is to be believed.
//!
//! Owns the walk from a leaf through intermediates to a root, and the check of times on the way.
//! Used for what comes from disk or is to be installed; handshakes are checked by the TLS library.

use swarm_types::Timestamp;

use crate::certificate::{Certificate, CertificateError};
use crate::root::RootBundle;

/// Most certificates in a chain.
pub const CHAIN_MAX: usize = 8;

/// Whether expired certificates count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expiry {
    /// All must be valid at the given time.
    Enforce,
    /// There must be some time at which all of them, with a root, were valid.
    Allow,
}

/// Why a chain is not believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// A certificate cannot be read.
    #[error("the certificate chain cannot be read")]
    Text(#[from] CertificateError),
    /// Too long.
    #[error("the certificate chain has {0} certificates, at most {CHAIN_MAX} are accepted")]
    TooLong(usize),
    /// A certificate is outside its time.
    #[error("certificate {index} of the chain is not valid")]
    Time {
        /// Which one, from 1.
        index: usize,
        /// Why.
        source: CertificateError,
    },
    /// Two neighbours do not belong together.
    #[error("certificate {0} of the chain is not signed by the next one")]
    Order(usize),
    /// No root signed it.
    #[error("certificate signed by unknown authority")]
    UnknownAuthority,
    /// There is no time at which everything was valid.
    #[error("there is no time at which the whole chain and its root were valid")]
    NeverValid,
}

/// Who signed a leaf, as nodes report it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuer {
    /// DER of the name.
    pub subject: Vec<u8>,
    /// DER of the public key with its algorithm.
    pub public_key: Vec<u8>,
}

/// A chain that was believed.
#[derive(Clone, Debug)]
pub struct Validated {
    /// The first certificate.
    pub leaf: Certificate,
    /// Who signed it.
    pub issuer: Issuer,
}

/// Checks a chain, leaf first: times, that each is signed by the next, and that it leads to a root.
///
/// # Errors
/// [`ChainError`].
pub fn validate(
    chain_pem: &[u8],
    roots: &RootBundle,
    now: Timestamp,
    expiry: Expiry,
) -> Result<Validated, ChainError> {
    let certificates = Certificate::all_from_pem(chain_pem)?;
    if certificates.len() > CHAIN_MAX {
        return Err(ChainError::TooLong(certificates.len()));
    }
    for (index, pair) in (1..).zip(certificates.windows(2)) {
        let signed = pair[0].check_signed_by(&pair[1]);
        signed.map_err(|_| ChainError::Order(index))?;
    }
    if expiry == Expiry::Enforce {
        for (index, certificate) in (1..).zip(&certificates) {
            certificate
                .check_time(now)
                .map_err(|source| ChainError::Time { index, source })?;
        }
    }
    let issuer = leads_to(&certificates, roots, now, expiry)?;
    let mut certificates = certificates;
    let leaf = certificates.swap_remove(0);
    Ok(Validated { leaf, issuer })
}

/// Walks from the first certificate to a root. The shortest way is preferred: a root that signed a
/// certificate counts before the next certificate of the chain.
///
/// # Errors
/// [`ChainError::UnknownAuthority`], or what is wrong with the time.
pub(crate) fn leads_to(
    chain: &[Certificate],
    roots: &RootBundle,
    now: Timestamp,
    expiry: Expiry,
) -> Result<Issuer, ChainError> {
    let mut failure = ChainError::UnknownAuthority;
    for length in 1..=chain.len() {
        let part = &chain[..length];
        // Everything after the leaf signs, so it must be allowed to.
        if part[1..].iter().any(|certificate| !certificate.is_ca()) {
            break;
        }
        for root in roots.certificates() {
            let last = &part[length - 1];
            if last.check_signed_by(root).is_err() {
                continue;
            }
            match check_times(part, root, now, expiry) {
                Ok(()) => return Ok(issuer_of(part.get(1).unwrap_or(root))),
                Err(error) => failure = error,
            }
        }
    }
    Err(failure)
}

fn issuer_of(certificate: &Certificate) -> Issuer {
    Issuer {
        subject: certificate.subject_der().to_vec(),
        public_key: certificate.spki_der().to_vec(),
    }
}

fn check_times(
    part: &[Certificate],
    root: &Certificate,
    now: Timestamp,
    expiry: Expiry,
) -> Result<(), ChainError> {
    let all = || part.iter().chain([root]);
    match expiry {
        Expiry::Enforce => (1..).zip(all()).try_for_each(|(index, certificate)| {
            certificate
                .check_time(now)
                .map_err(|source| ChainError::Time { index, source })
        }),
        Expiry::Allow => {
            let from = all().map(Certificate::not_before).max();
            let until = all().map(Certificate::not_after).min();
            if from <= until {
                return Ok(());
            }
            Err(ChainError::NeverValid)
        }
    }
}
