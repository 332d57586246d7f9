//! What the crate promises, tried from outside: against the files of a Go node, against `openssl`,
//! and against bytes from anywhere.
#![allow(clippy::unwrap_used, reason = "tests")]

mod chains;
mod golden;
mod hostile;
mod issuing;
mod key_files;
mod openssl;
mod roots;

use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::key::KeyPem;
use swarm_ca::{csr, root};
use swarm_types::Timestamp;

/// 2026-11-26T12:00:29Z: rounds down to a whole minute.
fn now() -> Timestamp {
    Timestamp::from_millis(1_795_694_429_000)
}

fn hours(count: u64) -> Duration {
    Duration::from_secs(count * 3600)
}

/// A root with its signer.
struct Authority {
    cert_pem: String,
    key: KeyPem,
    signer: Signer,
}

impl Authority {
    fn new() -> Self {
        let (cert_pem, key) = root::new_root(now());
        Self::from_parts(cert_pem, key)
    }

    fn from_parts(cert_pem: String, key: KeyPem) -> Self {
        let signer = Signer::new(&cert_pem, &key, "").unwrap();
        Self {
            cert_pem,
            key,
            signer,
        }
    }

    fn roots(&self) -> root::RootBundle {
        root::RootBundle::parse(self.cert_pem.as_bytes(), now()).unwrap()
    }

    /// Issues a certificate for 90 days at `at`.
    fn issue_at(&self, role: NodeRole, at: Timestamp) -> String {
        let request = csr::request(&csr::new_key()).unwrap();
        let expiry = hours(24 * 90);
        self.signer
            .sign(request.as_bytes(), &subject(role), expiry, at, [7; 20])
            .unwrap()
    }

    fn issue(&self, role: NodeRole) -> String {
        self.issue_at(role, now())
    }
}

fn subject(role: NodeRole) -> Subject {
    Subject {
        node: "n5jq0y5e7kdfcv1ayb8ifqu92".parse().unwrap(),
        cluster: "c1ust3r5e7kdfcv1ayb8ifqu9".parse().unwrap(),
        role,
    }
}
