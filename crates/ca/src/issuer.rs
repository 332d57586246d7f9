//! Who signs for a cluster: the key that the managers have, or external authorities.
//!
//! Owns the choice and what is appended to a certificate. Does not own the connection to an
//! external authority (`swarm-manager`), nor the rotation that changes the choice (`rotation`).

use std::fmt;

use bytes::Bytes;
use swarm_api::v1;
use swarm_types::{Cluster, Timestamp};
use v1::external_ca::CaProtocol;

use crate::chain::{self, Expiry};
use crate::csr;
use crate::identity::CertIdentity;
use crate::issue::{self, SignError, Signer, Subject};
use crate::key::KeyPem;
use crate::pem;
use crate::refusal::shown;
use crate::root::RootBundle;

/// External authorities of one root that are asked at most, in order.
pub const EXTERNAL_URLS_MAX: usize = 8;

/// The authority that signs.
#[derive(Clone, PartialEq, Eq)]
pub enum Issuer {
    /// A key that the managers have.
    Local(LocalIssuer),
    /// Others, over HTTPS.
    External(ExternalIssuer),
}

/// A key and its certificate.
#[derive(Clone, PartialEq, Eq)]
pub struct LocalIssuer {
    /// The certificate that the key belongs to.
    pub cert_pem: Bytes,
    /// The key.
    pub key_pem: Bytes,
    /// What is appended to each certificate; empty but during a rotation.
    pub intermediates_pem: Bytes,
}

/// Authorities that speak CFSSL.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExternalIssuer {
    /// Where, in the order in which they are asked.
    pub urls: Vec<String>,
    /// The roots that their own certificates may lead to.
    pub trust_pem: String,
    /// What is appended to each certificate; empty but during a rotation.
    pub intermediates_pem: String,
}

impl fmt::Debug for Issuer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(_) => out.write_str("Issuer::Local(hidden)"),
            Self::External(external) => write!(out, "Issuer::External({:?})", external.urls),
        }
    }
}

impl fmt::Debug for LocalIssuer {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("LocalIssuer(hidden)")
    }
}

impl LocalIssuer {
    /// Reads the key.
    ///
    /// # Errors
    /// [`SignError`] when key and certificates do not belong together.
    pub fn signer(&self) -> Result<Signer, SignError> {
        let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
        let key = KeyPem::from_bytes(&self.key_pem)?;
        Signer::new(&text(&self.cert_pem), &key, &text(&self.intermediates_pem))
    }
}

impl Issuer {
    /// Who signs at present: during a rotation the new root, whose certificate the old one signed,
    /// so that nodes of either side accept the result. External authorities come first, as in
    /// SwarmKit. `None` when the cluster has neither a key nor an authority.
    pub fn of(cluster: &Cluster) -> Option<Self> {
        let root_ca = cluster.root_ca.as_deref()?;
        match &root_ca.root_rotation {
            None => Self::choose(cluster, root_ca, &root_ca.ca_cert, &root_ca.ca_key, None),
            Some(rotation) => Self::choose(
                cluster,
                root_ca,
                &rotation.ca_cert,
                &rotation.ca_key,
                Some(&rotation.cross_signed_ca_cert),
            ),
        }
    }

    fn choose(
        cluster: &Cluster,
        root_ca: &v1::RootCa,
        cert: &Bytes,
        key: &Bytes,
        cross_signed: Option<&Bytes>,
    ) -> Option<Self> {
        let urls = external_urls(cluster, cert);
        if !urls.is_empty() {
            let mut trust_pem = text(&root_ca.ca_cert);
            if cross_signed.is_some() {
                trust_pem.push_str(&text(cert));
            }
            return Some(Self::External(ExternalIssuer {
                urls,
                trust_pem,
                intermediates_pem: cross_signed.map(text).unwrap_or_default(),
            }));
        }
        if key.is_empty() {
            return None;
        }
        Some(Self::Local(LocalIssuer {
            cert_pem: cross_signed.unwrap_or(cert).clone(),
            key_pem: key.clone(),
            intermediates_pem: cross_signed.cloned().unwrap_or_default(),
        }))
    }
}

/// Checks what an authority answered to a request: that it is about the key and the subject that
/// were asked for, and leads to a root that is trusted. `chain_pem` has the intermediates.
///
/// # Errors
/// What is wrong with it, in words.
pub fn check_issued(
    chain_pem: &str,
    csr_pem: &[u8],
    subject: &Subject,
    trust_pem: &str,
    now: Timestamp,
) -> Result<(), String> {
    let roots = RootBundle::parse(trust_pem.as_bytes(), now).map_err(|error| error.to_string())?;
    let found = chain::validate(chain_pem.as_bytes(), &roots, now, Expiry::Enforce);
    let leaf = found.map_err(|error| error.to_string())?.leaf;
    let wanted_key = csr::public_key(csr_pem).map_err(|error| error.to_string())?;
    if leaf.spki_der() != wanted_key {
        return Err("it has another public key than was asked for".to_owned());
    }
    let identity = CertIdentity::of(&leaf).map_err(|error| error.to_string())?;
    let role = issue::role_name(subject.role);
    let is_wanted = identity.node == subject.node && identity.cluster == subject.cluster;
    if !is_wanted || identity.roles != [role] {
        let (node, roles) = (shown(&identity.node), identity.roles.join(", "));
        return Err(format!(
            "it is for {node} as {roles}; asked for was {} as {role}",
            subject.node
        ));
    }
    Ok(())
}

/// The external authorities of a root: those that name it, or that name none if it is the
/// cluster's current one.
pub fn external_urls(cluster: &Cluster, root_pem: &[u8]) -> Vec<String> {
    let current = cluster
        .root_ca
        .as_deref()
        .map(|root_ca| &root_ca.ca_cert[..]);
    let spec = cluster.spec.ca_config.as_ref();
    let listed = spec.map_or(&[][..], |config| &config.external_cas);
    urls_for(listed, current.unwrap_or_default(), root_pem)
}

/// As [`external_urls`], for a list that is not stored yet.
pub fn urls_for(listed: &[v1::ExternalCa], current_pem: &[u8], root_pem: &[u8]) -> Vec<String> {
    let fits = |listed: &&v1::ExternalCa| {
        let named = if listed.ca_cert.is_empty() {
            current_pem
        } else {
            &listed.ca_cert
        };
        listed.protocol == CaProtocol::Cfssl as i32 && same_pem(named, root_pem)
    };
    let fitting = listed.iter().filter(fits).map(|listed| listed.url.clone());
    fitting.take(EXTERNAL_URLS_MAX).collect()
}

/// Whether two PEM texts hold the same certificates in the same order. Line ends, headers and what
/// tools write before a block do not count.
pub fn same_pem(left: &[u8], right: &[u8]) -> bool {
    if left.trim_ascii() == right.trim_ascii() {
        return true;
    }
    match (pem::read_certificates(left), pem::read_certificates(right)) {
        (Ok(left), Ok(right)) => left == right,
        (Err(_), _) | (_, Err(_)) => false,
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_types::defaults;

    fn cluster(key: &'static str, externals: &[(&'static str, &'static str)]) -> Cluster {
        let mut spec = defaults::cluster_spec();
        let external = |(url, cert): &(&'static str, &'static str)| v1::ExternalCa {
            url: (*url).to_owned(),
            ca_cert: Bytes::from_static(cert.as_bytes()),
            ..Default::default()
        };
        spec.ca_config.get_or_insert_default().external_cas =
            externals.iter().map(external).collect();
        let mut cluster = Cluster::new("c".parse().unwrap(), spec);
        cluster.root_ca = Some(Box::new(v1::RootCa {
            ca_cert: Bytes::from_static(b"OLD\n"),
            ca_key: Bytes::from_static(key.as_bytes()),
            ..Default::default()
        }));
        cluster
    }

    fn rotating(mut cluster: Cluster, key: &'static str) -> Cluster {
        let root_ca = cluster.root_ca.get_or_insert_default();
        root_ca.root_rotation = Some(v1::RootRotation {
            ca_cert: Bytes::from_static(b"NEW\n"),
            ca_key: Bytes::from_static(key.as_bytes()),
            cross_signed_ca_cert: Bytes::from_static(b"CROSS\n"),
        });
        cluster
    }

    #[track_caller]
    fn check(cluster: &Cluster, expected: &str) {
        let text = match Issuer::of(cluster) {
            None => "nobody".to_owned(),
            Some(Issuer::Local(local)) => {
                let parts = [&local.cert_pem, &local.key_pem, &local.intermediates_pem];
                let parts = parts.map(|part| String::from_utf8_lossy(part).trim().to_owned());
                format!("local {}", parts.join(" "))
            }
            Some(Issuer::External(external)) => format!(
                "external {:?} {:?} {:?}",
                external.urls, external.trust_pem, external.intermediates_pem
            ),
        };
        assert_eq!(text.trim_end(), expected);
    }

    #[test]
    fn the_target_of_a_rotation_signs_with_the_certificate_that_the_old_root_signed() {
        check(&cluster("key", &[]), "local OLD key");
        check(
            &rotating(cluster("key", &[]), "next"),
            "local CROSS next CROSS",
        );
        check(&rotating(cluster("key", &[]), ""), "nobody");
        check(&cluster("", &[]), "nobody");
    }

    #[test]
    fn external_authorities_of_the_wanted_root_come_before_a_key() {
        let externals = [("a", ""), ("b", "NEW"), ("c", " OLD ")];
        check(
            &cluster("key", &externals),
            r#"external ["a", "c"] "OLD\n" """#,
        );
        check(
            &rotating(cluster("key", &externals), "next"),
            r#"external ["b"] "OLD\nNEW\n" "CROSS\n""#,
        );
        check(
            &rotating(cluster("key", &externals[..1]), "next"),
            "local CROSS next CROSS",
        );
    }

    #[test]
    fn the_same_certificates_are_the_same_however_they_are_written() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let (one, other) = (crate::root::new_root(now).0, crate::root::new_root(now).0);
        let lines = one.replace('\n', "\r\n");
        let shown = format!("Certificate:\n    Data: made by a tool\n{one}\n");
        let header = one.replacen("-----\n", "-----\nfriendly: yes\n\n", 1);
        for text in [&one, &lines, &shown, &header] {
            assert!(same_pem(one.as_bytes(), text.as_bytes()), "{text}");
            assert!(!same_pem(text.as_bytes(), other.as_bytes()), "{text}");
        }
        let both = [format!("{one}{other}"), format!("{other}{one}")];
        assert!(!same_pem(both[0].as_bytes(), both[1].as_bytes()));
        assert!(!same_pem(one.as_bytes(), both[0].as_bytes()));
        // What cannot be read is the same only as itself.
        assert!(same_pem(b"OLD", b" OLD\n") && !same_pem(b"OLD", one.as_bytes()));
    }

    #[test]
    fn an_answer_must_be_about_what_was_asked_for() {
        let now = Timestamp::from_millis(1_700_000_000_000);
        let ((root, key), (other_root, _)) =
            (crate::root::new_root(now), crate::root::new_root(now));
        let signer = Signer::new(&root, &key, "").unwrap();
        let (csr, other) = (csr::new_key(), csr::new_key());
        let (csr, other) = (csr::request(&csr).unwrap(), csr::request(&other).unwrap());
        let subject = |node: &str, cluster: &str, role| Subject {
            node: node.parse().unwrap(),
            cluster: cluster.parse().unwrap(),
            role,
        };
        let wanted = subject("n", "c", v1::NodeRole::Worker);
        let chain = signer
            .sign(csr.as_bytes(), &wanted, issue::MIN_EXPIRY, now, [1; 20])
            .unwrap();
        let check = |csr: &str, subject: &Subject, root: &str| {
            check_issued(&chain, csr.as_bytes(), subject, root, now)
        };
        check(&csr, &wanted, &root).unwrap();
        for (subject, csr, root, text) in [
            (wanted.clone(), &csr, &other_root, "unknown authority"),
            (wanted, &other, &root, "another public key"),
            (
                subject("m", "c", v1::NodeRole::Worker),
                &csr,
                &root,
                "it is for n as swarm-worker",
            ),
            (
                subject("n", "d", v1::NodeRole::Worker),
                &csr,
                &root,
                "it is for n",
            ),
            (
                subject("n", "c", v1::NodeRole::Manager),
                &csr,
                &root,
                "was n as swarm-manager",
            ),
        ] {
            let error = check(csr, &subject, root).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn keys_are_not_in_debug_output() {
        let issuer = Issuer::of(&cluster("hunter2", &[])).unwrap();
        assert!(!format!("{issuer:?}").contains("hunter2"));
    }
}
