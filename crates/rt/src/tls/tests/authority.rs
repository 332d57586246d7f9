//! Certificates for tests.

use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::key::KeyPem;
use swarm_ca::{csr, root};
use swarm_types::Timestamp;

use super::super::{Credentials, NodeTls};
use crate::{Clock, OsIds};

pub(super) const MANAGER: NodeRole = NodeRole::Manager;
pub(super) const WORKER: NodeRole = NodeRole::Worker;
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

/// A cluster's root.
pub(super) struct Authority {
    pub(super) root_pem: String,
    pub(super) key_pem: KeyPem,
    signer: Signer,
}

impl Authority {
    pub(super) fn new() -> Self {
        let (root_pem, key_pem) = root::new_root(Clock::new().now());
        let signer = Signer::new(&root_pem, &key_pem, "").unwrap();
        Self {
            root_pem,
            key_pem,
            signer,
        }
    }

    pub(super) fn tls(&self, node: &str, role: NodeRole) -> NodeTls {
        let start = Clock::new().now().saturating_sub(HOUR);
        self.tls_valid(node, role, start, DAY)
    }

    pub(super) fn tls_valid(
        &self,
        node: &str,
        role: NodeRole,
        start: Timestamp,
        validity: Duration,
    ) -> NodeTls {
        let key_pem = csr::new_key();
        let request = csr::request(&key_pem).unwrap();
        let spki = csr::public_key(request.as_bytes()).unwrap();
        let subject = Subject {
            node: node.parse().unwrap(),
            cluster: "cluster".parse().unwrap(),
            role,
        };
        let mut serial = [0; 20];
        serial[1..9].copy_from_slice(&OsIds::new().next_u64().to_be_bytes());
        let validity = (start, start.saturating_add(validity));
        let signed = self.signer.sign_spki(&spki, &subject, validity, serial);
        NodeTls {
            chain_pem: signed.unwrap(),
            key_pem,
            root_pem: self.root_pem.clone(),
        }
    }

    pub(super) fn credentials(&self, node: &str, role: NodeRole) -> Credentials {
        Credentials::new(self.tls(node, role)).unwrap()
    }
}
