//! What a user's wish about the root of the cluster means (node-and-wire spec 2.9, control-plane
//! spec 21.3).
//!
//! The decision needs facts and material that a pure function cannot have: whether an external
//! authority answers, a fresh key, a signature of somebody else. So it is taken in two steps.
//! [`decide`] says what is wanted and what is needed for it; the shell gets that; [`apply`] makes
//! the new root object inside the transaction, after `decide` there came to the same result.
//!
//! Owns the table and the texts. Does not own the rest of the cluster spec (`swarm-control-api`),
//! nor what follows from a rotation (`rotation`).

use std::time::Duration;

use bytes::Bytes;
use swarm_api::v1;
use swarm_types::{Cluster, Timestamp};

use crate::certificate::Certificate;
use crate::cross;
use crate::issue::Signer;
use crate::issuer::{LocalIssuer, same_pem, urls_for};
use crate::key::KeyPem;
use crate::refusal::{Code, Refusal, shown};
use crate::root::RootBundle;

/// A root that is brought must be valid for so long: one year.
pub const LIFE_LEFT_MIN: Duration = Duration::from_secs(365 * 24 * 3600);
/// External authorities that a cluster lists at most.
pub const EXTERNAL_CAS_MAX: usize = 16;
/// Bytes of a URL at most.
const URL_BYTES_MAX: usize = 2_048;

/// What is to be done, and what has to hold for it.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// External authorities one of which must answer; for each entry.
    pub checks: Vec<Reach>,
    /// What happens.
    pub plan: Plan,
}

/// External authorities of one root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Which root they belong to, as the text calls it: `current`, `next` or `desired`.
    pub label: &'static str,
    /// Where they are.
    pub urls: Vec<String>,
    /// The roots that their certificates may lead to.
    pub trust_pem: String,
}

/// What happens to the root.
#[derive(Clone, PartialEq)]
pub enum Plan {
    /// Nothing.
    Keep,
    /// The current root stays, with this key or, if it is empty, without one. A rotation under way
    /// is called off.
    Adopt {
        /// The key.
        key_pem: Bytes,
    },
    /// The target of the rotation under way stays, with another key.
    ReplaceKey {
        /// The key.
        key_pem: Bytes,
    },
    /// A rotation begins, in place of any that is under way.
    Rotate {
        /// To which root.
        target: Target,
        /// Who signs its certificate on behalf of the old root.
        by: CrossSigner,
    },
}

/// The root that is rotated to.
#[derive(Clone, PartialEq)]
pub enum Target {
    /// A new one is made.
    Generate,
    /// The user brings it.
    Given {
        /// The certificate.
        cert_pem: Bytes,
        /// Its key; empty when external authorities have it.
        key_pem: Bytes,
    },
}

/// Who has the key of the old root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrossSigner {
    /// The cluster.
    Local,
    /// External authorities.
    External(Reach),
}

/// What a rotation needs, made by the shell.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRoot {
    /// The certificate of the new root.
    pub cert_pem: Bytes,
    /// Its key; empty when external authorities have it.
    pub key_pem: Bytes,
    /// The certificate as the old root signed it.
    pub cross_signed_pem: Bytes,
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(match self {
            Self::Keep => "Keep",
            Self::Adopt { .. } => "Adopt(hidden)",
            Self::ReplaceKey { .. } => "ReplaceKey(hidden)",
            Self::Rotate { .. } => "Rotate(hidden)",
        })
    }
}

impl std::fmt::Debug for NewRoot {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("NewRoot(hidden)")
    }
}

/// What a wanted configuration means for the root that the cluster has.
///
/// # Errors
/// `InvalidArgument` for what cannot be done, `Internal` for a stored root that cannot be read,
/// `Aborted` before the cluster has a root.
pub fn decide(
    cluster: &Cluster,
    wanted: &v1::CaConfig,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let (cert, key) = (&wanted.signing_ca_cert, &wanted.signing_ca_key);
    if cert.is_empty() && !key.is_empty() {
        return Err(Refusal::invalid(
            "if a signing CA key is provided, the signing CA cert must also be provided",
        ));
    }
    check_externals(&wanted.external_cas)?;
    let root_ca = cluster
        .root_ca
        .as_deref()
        .ok_or_else(Refusal::still_starting)?;
    let mut checks = Vec::new();
    if root_ca.ca_key.is_empty() {
        if !key.is_empty() && same_pem(cert, &root_ca.ca_cert) {
            check_given(cert, key, now)?;
            let key_pem = key.clone();
            let plan = Plan::Adopt { key_pem };
            return Ok(Decision { checks, plan });
        }
        checks.push(reach("current", wanted, root_ca, &root_ca.ca_cert)?);
    }
    let plan = if cert.is_empty() {
        without_cert(wanted, root_ca, &mut checks)?
    } else {
        with_cert(wanted, root_ca, now, &mut checks)?
    };
    Ok(Decision { checks, plan })
}

fn without_cert(
    wanted: &v1::CaConfig,
    root_ca: &v1::RootCa,
    checks: &mut Vec<Reach>,
) -> Result<Plan, Refusal> {
    if wanted.force_rotate != root_ca.last_forced_rotation {
        return Ok(Plan::Rotate {
            target: Target::Generate,
            by: cross_signer(wanted, root_ca)?,
        });
    }
    if let Some(rotation) = &root_ca.root_rotation
        && rotation.ca_key.is_empty()
    {
        checks.push(reach("next", wanted, root_ca, &rotation.ca_cert)?);
    }
    Ok(Plan::Keep)
}

fn with_cert(
    wanted: &v1::CaConfig,
    root_ca: &v1::RootCa,
    now: Timestamp,
    checks: &mut Vec<Reach>,
) -> Result<Plan, Refusal> {
    let cert_pem = normalized(&wanted.signing_ca_cert);
    let key_pem = wanted.signing_ca_key.clone();
    let given = check_given(&cert_pem, &key_pem, now)?;
    if key_pem.is_empty() {
        checks.push(reach("desired", wanted, root_ca, &cert_pem)?);
    }
    if same_pem(&cert_pem, &root_ca.ca_cert) {
        return Ok(Plan::Adopt { key_pem });
    }
    let current = Certificate::all_from_pem(&root_ca.ca_cert).map_err(|error| {
        Refusal::new(
            Code::Internal,
            format!("the stored root CA cannot be read: {}", in_full(&error)),
        )
    })?;
    if current
        .iter()
        .any(|root| root.spki_der() == given.spki_der())
    {
        return Err(Refusal::invalid(
            "Cannot update to a cert with an identical key",
        ));
    }
    if let Some(rotation) = &root_ca.root_rotation
        && same_pem(&cert_pem, &rotation.ca_cert)
    {
        return Ok(Plan::ReplaceKey { key_pem });
    }
    if key_pem.is_empty() && root_ca.ca_key.is_empty() {
        return Err(Refusal::invalid(
            "rotating from one external CA to a different external CA is not supported: one of \
             the two keys is needed",
        ));
    }
    let by = cross_signer(wanted, root_ca)?;
    let target = Target::Given { cert_pem, key_pem };
    Ok(Plan::Rotate { target, by })
}

/// The old root signs, wherever its key is, even if a rotation is under way already.
fn cross_signer(wanted: &v1::CaConfig, root_ca: &v1::RootCa) -> Result<CrossSigner, Refusal> {
    if !root_ca.ca_key.is_empty() {
        return Ok(CrossSigner::Local);
    }
    reach("current", wanted, root_ca, &root_ca.ca_cert).map(CrossSigner::External)
}

/// The authorities of a root among the wanted ones.
fn reach(
    label: &'static str,
    wanted: &v1::CaConfig,
    root_ca: &v1::RootCa,
    root_pem: &[u8],
) -> Result<Reach, Refusal> {
    let urls = urls_for(&wanted.external_cas, &root_ca.ca_cert, root_pem);
    if urls.is_empty() {
        return Err(unreachable(label, "none is listed"));
    }
    let mut trust_pem = String::from_utf8_lossy(&root_ca.ca_cert).into_owned();
    if !same_pem(root_pem, &root_ca.ca_cert) {
        trust_pem.push_str(&String::from_utf8_lossy(root_pem));
    }
    Ok(Reach {
        label,
        urls,
        trust_pem,
    })
}

/// The refusal when no authority of a root answers.
pub fn unreachable(label: &str, reason: &str) -> Refusal {
    Refusal::invalid(format!(
        "there must be at least one valid, reachable external CA corresponding to the {label} CA \
         certificate: {reason}"
    ))
}

/// The refusal when the old root did not sign the new one.
pub fn not_cross_signed(reason: &str) -> Refusal {
    Refusal::new(
        Code::Internal,
        format!("could not cross-sign the new CA certificate with the current one: {reason}"),
    )
}

/// The certificate of a new root, signed with the key that the cluster has for its current one.
///
/// # Errors
/// `Internal` when the stored key cannot sign.
pub fn cross_sign(cluster: &Cluster, new_cert_pem: &[u8]) -> Result<Bytes, Refusal> {
    let root_ca = cluster
        .root_ca
        .as_deref()
        .ok_or_else(Refusal::still_starting)?;
    let local = LocalIssuer {
        cert_pem: root_ca.ca_cert.clone(),
        key_pem: root_ca.ca_key.clone(),
        intermediates_pem: Bytes::new(),
    };
    let new_cert_pem = String::from_utf8_lossy(new_cert_pem);
    let signed = local
        .signer()
        .and_then(|signer| cross::cross_sign(&new_cert_pem, &signer));
    let signed = signed.map_err(|error| not_cross_signed(&in_full(&error)))?;
    Ok(signed.into())
}

/// The root object after a decision. `new_root` is what a rotation needs; without it a rotation
/// changes nothing.
pub fn apply(
    root_ca: &v1::RootCa,
    plan: &Plan,
    force_rotate: u64,
    new_root: Option<&NewRoot>,
) -> v1::RootCa {
    let mut next = root_ca.clone();
    match (plan, new_root) {
        (Plan::Keep, _) | (Plan::Rotate { .. }, None) => {}
        (Plan::Adopt { key_pem }, _) => {
            next.ca_key.clone_from(key_pem);
            next.root_rotation = None;
            next.last_forced_rotation = force_rotate;
        }
        (Plan::ReplaceKey { key_pem }, _) => {
            if let Some(rotation) = &mut next.root_rotation {
                rotation.ca_key.clone_from(key_pem);
            }
            next.last_forced_rotation = force_rotate;
        }
        (Plan::Rotate { .. }, Some(new_root)) => {
            next.root_rotation = Some(v1::RootRotation {
                ca_cert: new_root.cert_pem.clone(),
                ca_key: new_root.key_pem.clone(),
                cross_signed_ca_cert: new_root.cross_signed_pem.clone(),
            });
            next.last_forced_rotation = force_rotate;
        }
    }
    next
}

/// A root that a user brings: one certificate, self-signed, valid long enough, with its own key.
fn check_given(cert: &[u8], key: &[u8], now: Timestamp) -> Result<Certificate, Refusal> {
    let invalid = |reason: String| Refusal::invalid(format!("invalid CA certificate: {reason}"));
    let bundle = RootBundle::parse(cert, now).map_err(|error| invalid(in_full(&error)))?;
    let [root] = bundle.certificates() else {
        let count = bundle.certificates().len();
        return Err(invalid(format!("it must be a single one, not {count}")));
    };
    if !root.is_ca() {
        return Err(invalid("certificate not a CA".to_owned()));
    }
    if root.not_after() < now.saturating_add(LIFE_LEFT_MIN) {
        let until = root.not_after();
        return Err(invalid(format!(
            "it ends at {until}; it must be valid for one more year at least"
        )));
    }
    if !key.is_empty() {
        let key = KeyPem::from_bytes(key).map_err(|error| invalid(in_full(&error)))?;
        let cert = String::from_utf8_lossy(cert);
        Signer::new(&cert, &key, "").map_err(|error| invalid(in_full(&error)))?;
    }
    Ok(root.clone())
}

/// An error with its sources: a refusal is all that its reader gets.
fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(&format!(": {error}"));
        source = error.source();
    }
    text
}

fn check_externals(listed: &[v1::ExternalCa]) -> Result<(), Refusal> {
    if listed.len() > EXTERNAL_CAS_MAX {
        let count = listed.len();
        return Err(Refusal::invalid(format!(
            "there are {count} external CAs, at most {EXTERNAL_CAS_MAX} can be listed"
        )));
    }
    for external in listed {
        let url = shown(&external.url);
        if v1::external_ca::CaProtocol::try_from(external.protocol).is_err() {
            let number = external.protocol;
            return Err(Refusal::invalid(format!(
                "external CA {url}: {number} is not a protocol that this version knows"
            )));
        }
        let host = external.url.strip_prefix("https://").unwrap_or_default();
        let is_usable = !host.is_empty() && !host.starts_with('/');
        if !is_usable || external.url.len() > URL_BYTES_MAX {
            return Err(Refusal::invalid(format!(
                "external CA {url}: it must be an https URL of at most {URL_BYTES_MAX} bytes"
            )));
        }
        let cert = &external.ca_cert;
        if !cert.is_empty() && Certificate::all_from_pem(cert).is_err() {
            return Err(Refusal::invalid(format!(
                "external CA {url}: its CA certificate cannot be read; give PEM, or none for the \
                 current root"
            )));
        }
    }
    Ok(())
}

/// PEM as it is stored: the blocks alone, since join tokens hold a digest of this very text. What
/// cannot be read is left as it is, to be refused.
fn normalized(pem: &Bytes) -> Bytes {
    let Ok(certificates) = Certificate::all_from_pem(pem) else {
        return pem.clone();
    };
    let text: String = certificates.iter().map(Certificate::to_pem).collect();
    text.into()
}

#[cfg(test)]
mod tests;
