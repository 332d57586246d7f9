//! A manager that starts a cluster of its own, and everybody who may come to it.

use std::time::Duration;

use swarm_api::v1::NodeRole;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::{csr, root};
use swarm_rt::metrics::Refused;
use swarm_rt::tls::{self, NodeTls, Security, ServerName};
use swarm_types::Timestamp;
use tempfile::TempDir;
use v1::ca_client::CaClient;
use v1::node_ca_client::NodeCaClient;

use super::*;

pub(super) const MANAGER: NodeRole = NodeRole::Manager;
pub(super) const WORKER: NodeRole = NodeRole::Worker;
pub(super) const HOUR: Duration = Duration::from_secs(3600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);
/// The organization of the world's certificates.
pub(super) const CLUSTER: &str = "cluster";

/// A root and its key.
pub(super) struct Authority {
    pub(super) root_pem: String,
    key_pem: KeyPem,
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

    /// For a manager that starts the cluster.
    pub(super) fn material(&self) -> RootMaterial {
        RootMaterial {
            cert_pem: self.root_pem.clone(),
            key_pem: Some(self.key_pem.clone()),
            external_cas: Vec::new(),
            autolock: false,
        }
    }

    /// A certificate for a day.
    pub(super) fn tls(&self, node: &str, role: NodeRole, cluster: &str) -> NodeTls {
        let start = Clock::new().now().saturating_sub(HOUR);
        self.tls_valid(node, role, cluster, (start, DAY))
    }

    pub(super) fn tls_valid(
        &self,
        node: &str,
        role: NodeRole,
        cluster: &str,
        (start, life): (Timestamp, Duration),
    ) -> NodeTls {
        let key_pem = csr::new_key();
        let request = csr::request(&key_pem).unwrap();
        let spki = csr::public_key(request.as_bytes()).unwrap();
        let subject = Subject {
            node: node.parse().unwrap(),
            cluster: cluster.parse().unwrap(),
            role,
        };
        let mut serial = [0; 20];
        serial[1..9].copy_from_slice(&OsIds::new().next_u64().to_be_bytes());
        let validity = (start, start.saturating_add(life));
        let signed = self.signer.sign_spki(&spki, &subject, validity, serial);
        NodeTls {
            chain_pem: signed.unwrap(),
            key_pem,
            root_pem: self.root_pem.clone(),
        }
    }
}

/// The root of the cluster of every manager here.
pub(super) fn authority() -> &'static Authority {
    static AUTHORITY: std::sync::LazyLock<Authority> = std::sync::LazyLock::new(Authority::new);
    &AUTHORITY
}

/// A manager of a cluster that nobody else has joined.
pub(super) struct World {
    pub(super) authority: &'static Authority,
    pub(super) manager: Manager,
    pub(super) metrics: Metrics,
    directory: TempDir,
}

impl World {
    pub(super) async fn start() -> Self {
        Self::start_within(Bounds::default()).await
    }

    /// With bounds of its own for the listener.
    pub(super) async fn start_within(bounds: Bounds) -> Self {
        Self::start_with(bounds, |_| {}).await
    }

    /// With settings of its own.
    pub(super) async fn start_with(bounds: Bounds, change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut config = config(directory.path());
        change(&mut config);
        let metrics = config.metrics.clone();
        let manager = within(Manager::start_within(config, bounds, Shutdown::new())).await;
        let manager = manager.unwrap();
        within(manager.ready()).await;
        Self {
            authority: authority(),
            manager,
            metrics,
            directory,
        }
    }

    pub(super) fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn control(&self) -> ControlClient<Channel> {
        ControlClient::new(local(self.directory.path()))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.manager.remote_addr()
    }

    pub(super) fn dial(&self, security: &Security) -> Channel {
        tls::dial(&self.address().to_string(), security).unwrap()
    }

    /// As a node with this certificate.
    pub(super) fn dial_as(&self, tls: NodeTls) -> Channel {
        let credentials = Credentials::new(tls).unwrap();
        self.dial(&Security::Node(credentials, ServerName::Manager))
    }

    /// As somebody who has the root and no certificate.
    pub(super) fn dial_anonymously(&self) -> Channel {
        let root = self.authority.root_pem.clone();
        self.dial(&Security::Verified(root, ServerName::Ca))
    }

    pub(super) async fn tokens(&self) -> v1::JoinTokens {
        let request = v1::ListClustersRequest::default();
        let listed = within(self.control().list_clusters(request)).await;
        let cluster = listed.unwrap().into_inner().clusters.remove(0);
        cluster.root_ca.unwrap().join_tokens.unwrap()
    }

    /// Joins with a token as a node does; its id and what it proves itself with.
    pub(super) async fn join(&self, token: &str) -> (String, NodeTls) {
        let mut ca = CaClient::new(self.dial(&Security::Unverified));
        let request = v1::GetRootCaCertificateRequest {};
        let root = within(ca.get_root_ca_certificate(request)).await.unwrap();
        let root = String::from_utf8(root.into_inner().certificate.to_vec()).unwrap();
        assert_eq!(root, self.authority.root_pem);
        let key_pem = csr::new_key();
        let mut client = NodeCaClient::new(self.dial_anonymously());
        let request = v1::IssueNodeCertificateRequest {
            csr: csr::request(&key_pem).unwrap().into(),
            token: token.to_owned(),
            ..Default::default()
        };
        let issued = within(client.issue_node_certificate(request)).await;
        let node_id = issued.unwrap().into_inner().node_id;
        let chain_pem = self.issued(&mut client, &node_id).await;
        let tls = NodeTls {
            chain_pem,
            key_pem,
            root_pem: root,
        };
        (node_id, tls)
    }

    /// The certificate of a node, once it is issued.
    async fn issued(&self, client: &mut NodeCaClient<Channel>, node: &str) -> String {
        let request = v1::NodeCertificateStatusRequest {
            node_id: node.to_owned(),
        };
        let answer = within(client.node_certificate_status(request)).await;
        let answer = answer.unwrap().into_inner();
        let state = answer.status.unwrap();
        assert_eq!(
            state.state(),
            v1::issuance_status::State::Issued,
            "{state:?}"
        );
        let certificate = answer.certificate.unwrap().certificate;
        String::from_utf8(certificate.to_vec()).unwrap()
    }

    /// A worker that joined with the cluster's token.
    pub(super) async fn worker(&self) -> (String, NodeTls) {
        let token = self.tokens().await.worker;
        self.join(&token).await
    }

    /// Waits until this was refused so often.
    pub(super) async fn refused(&self, reason: Refused, times: u64) {
        within(async {
            while self.metrics.refused_count(reason) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        assert_eq!(self.metrics.refused_count(reason), times, "{reason:?}");
    }

    /// The manager still takes a worker in and answers its client; then it stops.
    pub(super) async fn finish(self) {
        let (_, tls) = self.worker().await;
        let mut client = DispatcherClient::new(self.dial_as(tls));
        let (first, stream) = begin(&mut client, "").await;
        let beat = v1::HeartbeatRequest {
            session_id: first.session_id,
        };
        within(client.heartbeat(beat)).await.unwrap();
        let request = v1::ListNodesRequest::default();
        within(self.control().list_nodes(request)).await.unwrap();
        drop((stream, client));
        within(self.manager.stop()).await.unwrap();
    }
}

/// Opens a session over a connection that says who calls.
pub(super) async fn begin(
    client: &mut DispatcherClient<Channel>,
    previous: &str,
) -> (v1::SessionMessage, Streaming<v1::SessionMessage>) {
    let request = v1::SessionRequest {
        description: Some(v1::NodeDescription {
            hostname: "host".to_owned(),
            ..Default::default()
        }),
        session_id: previous.to_owned(),
    };
    let opened = within(client.session(request)).await;
    let mut stream = opened.unwrap().into_inner();
    (message(&mut stream).await, stream)
}

/// The words of an error of a call, with everything behind it.
pub(super) fn words(status: &tonic::Status) -> String {
    swarm_rt::chain(status).to_string()
}
