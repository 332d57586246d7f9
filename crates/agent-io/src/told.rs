//! What passes between the agent and the node that it is part of: what managers said about the
//! node, and what the node says about its certificate.

use std::sync::Arc;

use swarm_agent::NodeAction;
use swarm_api::v1;
use swarm_ca::chain::{self, Expiry};
use swarm_ca::root::RootBundle;
use swarm_rt::net::Address;
use swarm_rt::tls::Credentials;
use swarm_types::Timestamp;
use tokio::sync::watch;

use crate::remotes::with_session;

/// What managers said last about this node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// The node object.
    pub node: Option<Arc<v1::Node>>,
    /// The text of the cluster's roots.
    pub root_ca: Option<Arc<[u8]>>,
    /// Node ids and addresses of all managers, and where the session works.
    pub managers: Vec<(String, String)>,
}

/// Notes what concerns the node beyond the agent. `session` is where the session works that brought
/// it.
pub(crate) fn note(told: &watch::Sender<Told>, action: &NodeAction, session: Option<&Address>) {
    match action {
        NodeAction::Configure(node) => {
            let node = Arc::new((**node).clone());
            told.send_modify(|told| told.node = Some(node));
        }
        NodeAction::RootCa(pem) => {
            let pem = Arc::from(pem.to_vec());
            told.send_modify(|told| told.root_ca = Some(pem));
        }
        NodeAction::Managers(managers) => {
            let managers = with_session(managers.clone(), session);
            let peers = managers.iter().filter_map(|manager| {
                let peer = manager.peer.as_ref()?;
                Some((peer.node_id.clone(), peer.addr.clone()))
            });
            let peers = peers.collect();
            told.send_modify(|told| told.managers = peers);
        }
        NodeAction::Describe | NodeAction::NetworkKeys(_) | NodeAction::Warn(_) => {}
    }
}

/// What a node reports about its certificate; `None` if the certificate is not one of its root,
/// which shows as soon as it dials.
pub(crate) fn tls_info(credentials: &Credentials, now: Timestamp) -> Option<v1::NodeTlsInfo> {
    let (root_pem, chain_pem) = (credentials.root_pem(), credentials.chain_pem());
    let root = RootBundle::parse_any_time(root_pem.as_bytes()).ok()?;
    let validated = chain::validate(chain_pem.as_bytes(), &root, now, Expiry::Allow).ok()?;
    Some(v1::NodeTlsInfo {
        trust_root: root_pem.into_bytes().into(),
        cert_issuer_subject: validated.issuer.subject.into(),
        cert_issuer_public_key: validated.issuer.public_key.into(),
    })
}
