//! Certificates of the simulated world, and how a machine gets one. Mirrors `swarm-node`.
//!
//! Roots are real certificates, because the leader reads them; nobody has their keys. What they
//! sign is a line of text that says who signed it, and a signature takes as long as the seed says.
//! Not simulated: whether a node believes the manager, and the end of certificates, which live
//! longer than any run.

use std::sync::OnceLock;

use bytes::Bytes;
use swarm_api::v1;
use swarm_ca::issuer::Issuer;
use swarm_ca::rotation::issuer_of;
use swarm_ca::server::{SignJob, Signed};
use swarm_types::NodeId;

use crate::event::ConnId;

const ROOTS: &str = include_str!("../fixtures/roots.pem");
const END: &str = "-----END CERTIFICATE-----\n";

/// A root by its place in the list. A cluster begins with the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RootIx(pub(crate) usize);

impl RootIx {
    /// The root with this certificate.
    pub(crate) fn of(pem: &[u8]) -> Option<Self> {
        roots().iter().position(|root| root.pem == pem).map(Self)
    }

    /// The root after this one, if there is another.
    pub(crate) fn next(self) -> Option<Self> {
        (self.0 + 1 < roots().len()).then_some(Self(self.0 + 1))
    }

    pub(crate) fn pem(self) -> Bytes {
        roots()[self.0].pem.clone()
    }

    /// What stands for its key.
    pub(crate) fn key(self) -> Bytes {
        format!("SIM KEY {}\n", self.0).into()
    }

    /// What stands for its certificate signed by an older root.
    pub(crate) fn cross_signed(self, by: Self) -> Bytes {
        format!("SIM CROSS {} {}\n", self.0, by.0).into()
    }
}

struct KnownRoot {
    pem: Bytes,
    subject: Bytes,
    public_key: Bytes,
}

fn roots() -> &'static [KnownRoot] {
    static KNOWN: OnceLock<Vec<KnownRoot>> = OnceLock::new();
    KNOWN.get_or_init(|| {
        let read = |text: &str| {
            let pem = Bytes::from(format!("{text}{END}"));
            let issuer = issuer_of(&pem)?;
            Some(KnownRoot {
                pem,
                subject: issuer.subject.into(),
                public_key: issuer.public_key.into(),
            })
        };
        ROOTS.split(END).filter_map(read).collect()
    })
}

/// A node's certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certificate {
    pub(crate) node: NodeId,
    pub(crate) root: RootIx,
    /// The older root that signed the issuer, if the certificate was issued in a rotation.
    pub(crate) by: Option<RootIx>,
}

impl Certificate {
    /// Whether somebody who trusts this root believes it.
    pub(crate) fn is_covered_by(&self, root: RootIx) -> bool {
        self.root == root || self.by == Some(root)
    }

    fn write(&self) -> String {
        format!("SIM CERTIFICATE {} {}\n", self.root.0, self.node)
    }

    /// Reads what [`sign`] wrote.
    pub(crate) fn read(pem: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(pem).ok()?;
        let mut lines = text.lines();
        let mut words = lines.next()?.strip_prefix("SIM CERTIFICATE ")?.split(' ');
        let root = RootIx(words.next()?.parse().ok()?);
        let node = words.next()?.parse().ok()?;
        let by = lines
            .next()
            .and_then(|line| line.rsplit(' ').next()?.parse().ok());
        Some(Self {
            node,
            root,
            by: by.map(RootIx),
        })
    }

    /// What a node reports about it.
    pub(crate) fn tls_info(&self) -> v1::NodeTlsInfo {
        let root = &roots()[self.root.0];
        v1::NodeTlsInfo {
            cert_issuer_subject: root.subject.clone(),
            cert_issuer_public_key: root.public_key.clone(),
            ..Default::default()
        }
    }
}

/// Signs as the job says.
pub(crate) fn sign(job: &SignJob) -> Signed {
    let Issuer::Local(local) = &*job.issuer else {
        return Signed::Recoverable("there are no external authorities here".to_owned());
    };
    let key = std::str::from_utf8(&local.key_pem).unwrap_or_default();
    let number = key.trim_end().strip_prefix("SIM KEY ");
    let Some(root) = number.and_then(|number| number.parse().ok()).map(RootIx) else {
        return Signed::Recoverable("the key is none".to_owned());
    };
    let leaf = Certificate {
        node: job.subject.node.clone(),
        root,
        by: None,
    };
    let intermediates = String::from_utf8_lossy(&local.intermediates_pem);
    Signed::Issued(format!("{}{intermediates}", leaf.write()))
}

/// Where a request for a certificate stands.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) csr: Bytes,
    /// How often it was sent, or asked about.
    pub(crate) attempts: u64,
    /// The connection of the last attempt.
    pub(crate) conn: ConnId,
    /// Whom the certificate will be for, once the manager said so.
    pub(crate) node: Option<String>,
}

/// What a machine is known by. It survives crashes; a request under way does not.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identity {
    pub(crate) certificate: Option<Certificate>,
    pub(crate) ask: Option<Ask>,
    /// The manager wants it to renew once more after the request under way, whose certificate may
    /// be from before.
    pub(crate) is_wanted: bool,
    /// Requests so far, so that no two are alike.
    pub(crate) requests: u64,
    /// How often it got a certificate.
    pub(crate) issued: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_read_as_they_were_written() {
        let certificate = Certificate {
            node: "n".parse().unwrap(),
            root: RootIx(1),
            by: None,
        };
        assert_eq!(
            Certificate::read(certificate.write().as_bytes()),
            Some(certificate.clone())
        );
        let crossed = RootIx(1).cross_signed(RootIx(0));
        let text = [certificate.write().as_bytes(), &crossed].concat();
        let read = Certificate::read(&text).unwrap();
        assert!(read.is_covered_by(RootIx(0)) && read.is_covered_by(RootIx(1)));
        assert!(!certificate.is_covered_by(RootIx(0)));
    }

    #[test]
    fn every_root_is_another_one() {
        assert_eq!(roots().len(), 6);
        for ix in 0..roots().len() {
            assert_eq!(RootIx::of(&RootIx(ix).pem()), Some(RootIx(ix)));
            assert_eq!(RootIx(ix).next().is_none(), ix == 5);
        }
        let keys: std::collections::BTreeSet<_> = roots().iter().map(|it| &it.public_key).collect();
        assert_eq!(keys.len(), roots().len());
    }
}
