//! A manager of which only the certificate services are real.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use swarm_api::{ext, v1};
use swarm_ca::cross;
use swarm_ca::csr;
use swarm_ca::identity::read_pem;
use swarm_ca::issue::{Signer, Subject};
use swarm_ca::key::KeyPem;
use swarm_ca::root;
use swarm_ca::token::JoinToken;
use swarm_rt::metrics::Metrics;
use swarm_rt::net;
use swarm_rt::tls::{self, Credentials, NodeTls};
use swarm_rt::{Clock, OnError, Shutdown, Tasks};
use swarm_types::Timestamp;
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use v1::NodeRole;
use v1::issuance_status::State;

pub(crate) const CLUSTER: &str = "c1ust3r5e7kdfcv1ayb8ifqu9";
pub(crate) const NODE: &str = "n5jq0y5e7kdfcv1ayb8ifqu92";

/// What the manager does.
pub(crate) struct Behaviour {
    pub(crate) root_pem: String,
    pub(crate) signer: Signer,
    /// Accepted tokens.
    pub(crate) tokens: Vec<String>,
    /// What it says of a token; `None` for a manager that does not know the question.
    pub(crate) about_token: Option<ext::CheckJoinTokenResponse>,
    /// The node that the next certificate is for.
    pub(crate) node: String,
    pub(crate) role: NodeRole,
    pub(crate) expiry: Duration,
    /// So many looks find the request undecided.
    pub(crate) pending_looks: u32,
    /// So many looks find the certificate of somebody else's request.
    pub(crate) foreign_looks: u32,
    /// So many requests end as failed.
    pub(crate) failing_requests: u32,
    /// So many calls for a certificate are not answered well.
    pub(crate) aborted_calls: u32,
    /// How long it takes to answer a call for a certificate, that is, to write.
    pub(crate) takes: Duration,
    /// Whether a manager that took a request answers nothing about it any more.
    pub(crate) goes_after_issuing: bool,
    /// Whether a request is forgotten as soon as it is taken, as with a node that is removed.
    pub(crate) forgets: bool,
    /// What a request that was signed stands at.
    pub(crate) signed_state: State,
    /// The cluster in certificates.
    pub(crate) cluster: &'static str,
    /// The node in certificates, whoever asked.
    pub(crate) impostor: Option<&'static str>,
    /// What was asked for: the token and the certified caller.
    pub(crate) asked: Vec<(String, Option<String>)>,
    /// The managers that took requests, by address.
    pub(crate) asked_at: Vec<String>,
    /// The requests that came, also those that were not answered well.
    pub(crate) requests_taken: Vec<Vec<u8>>,
    requests: BTreeMap<String, Vec<u8>>,
    /// The root that a rotation leads to, with the key that signs for it alone.
    next: Option<(String, Signer)>,
}

#[derive(Clone)]
pub(crate) struct Fake {
    state: Arc<Mutex<Behaviour>>,
    pub(crate) address: String,
    pub(crate) credentials: Credentials,
    tasks: Tasks,
}

/// A root and its key.
pub(crate) fn authority(now: Timestamp) -> (String, KeyPem, Signer) {
    // Old enough for certificates that have expired.
    let month = Duration::from_secs(30 * 24 * 3600);
    let (root_pem, key) = root::new_root(now.saturating_sub(month));
    let signer = Signer::new(&root_pem, &key, "").unwrap();
    (root_pem, key, signer)
}

/// A certificate with its key, valid from an hour before `at` for `expiry`.
pub(crate) fn issue(
    signer: &Signer,
    node: &str,
    role: NodeRole,
    expiry: Duration,
    at: Timestamp,
) -> (String, KeyPem) {
    issue_in(CLUSTER, signer, node, role, expiry, at)
}

/// The same of another cluster.
pub(crate) fn issue_in(
    cluster: &str,
    signer: &Signer,
    node: &str,
    role: NodeRole,
    expiry: Duration,
    at: Timestamp,
) -> (String, KeyPem) {
    let key = csr::new_key();
    let request = csr::request(&key).unwrap();
    let subject = subject(cluster, node, role);
    let chain = signer.sign(request.as_bytes(), &subject, expiry, at, [3; 20]);
    (chain.unwrap(), key)
}

fn subject(cluster: &str, node: &str, role: NodeRole) -> Subject {
    Subject {
        node: node.parse().unwrap(),
        cluster: cluster.parse().unwrap(),
        role,
    }
}

impl Fake {
    pub(crate) async fn start() -> Self {
        let now = Clock::new().now();
        let (root_pem, _, signer) = authority(now);
        let day = Duration::from_secs(24 * 3600);
        let (chain_pem, key_pem) = issue(&signer, "manager", NodeRole::Manager, day, now);
        let credentials = Credentials::new(NodeTls {
            chain_pem,
            key_pem,
            root_pem: root_pem.clone(),
        })
        .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let token = JoinToken::generate(root_pem.as_bytes(), [1; 16]);
        let state = Behaviour {
            root_pem,
            signer,
            tokens: vec![token.to_string()],
            about_token: None,
            node: NODE.to_owned(),
            role: NodeRole::Worker,
            expiry: day,
            pending_looks: 0,
            foreign_looks: 0,
            failing_requests: 0,
            aborted_calls: 0,
            takes: Duration::ZERO,
            goes_after_issuing: false,
            forgets: false,
            signed_state: State::Issued,
            cluster: CLUSTER,
            impostor: None,
            asked: Vec::new(),
            asked_at: Vec::new(),
            requests_taken: Vec::new(),
            requests: BTreeMap::new(),
            next: None,
        };
        let fake = Self {
            state: Arc::new(Mutex::new(state)),
            address,
            credentials,
            tasks: Tasks::new(Shutdown::new()),
        };
        fake.serve(listener);
        fake
    }

    fn serve(&self, listener: TcpListener) {
        let limits = tls::Limits::default();
        let listening = tls::listen(
            &self.tasks,
            listener,
            &self.credentials,
            limits,
            Metrics::new(),
            Vec::new(),
        );
        let incoming = listening.others;
        let router = net::server()
            .add_service(v1::ca_server::CaServer::new(self.clone()))
            .add_service(v1::node_ca_server::NodeCaServer::new(self.clone()))
            .add_service(ext::identity_server::IdentityServer::new(self.clone()));
        self.tasks.spawn("fake manager", OnError::Stop, async move {
            Ok(router.serve_with_incoming(incoming).await?)
        });
    }

    /// Another manager of the same cluster.
    pub(crate) async fn second(&self) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let second = Self {
            address: listener.local_addr().unwrap().to_string(),
            ..self.clone()
        };
        second.serve(listener);
        second
    }

    /// Serves a control socket as well.
    pub(crate) async fn serve_local(&self, socket: &Path) {
        let incoming = net::bind_unix(socket).await.unwrap();
        let router = net::server().add_service(v1::node_ca_server::NodeCaServer::new(self.clone()));
        let router = router.add_service(v1::ca_server::CaServer::new(self.clone()));
        self.tasks.spawn("fake socket", OnError::Stop, async move {
            Ok(router.serve_with_incoming(incoming).await?)
        });
    }

    pub(crate) fn behaviour(&self) -> MutexGuard<'_, Behaviour> {
        self.state.lock().unwrap()
    }

    pub(crate) fn token(&self) -> String {
        self.behaviour().tokens[0].clone()
    }

    /// Changes to another root as a rotation that is over has done, for the manager as well.
    pub(crate) fn change_root(&self) {
        let now = Clock::new().now();
        let (root_pem, _, signer) = authority(now);
        let day = Duration::from_secs(24 * 3600);
        let (chain_pem, key_pem) = issue(&signer, "manager", NodeRole::Manager, day, now);
        self.credentials
            .update(NodeTls {
                chain_pem,
                key_pem,
                root_pem: root_pem.clone(),
            })
            .unwrap();
        let mut state = self.behaviour();
        state.tokens = vec![JoinToken::generate(root_pem.as_bytes(), [2; 16]).to_string()];
        state.root_pem = root_pem;
        state.signer = signer;
    }

    /// Changes to another root as a rotation does, first half: leaves come with a cross-signed
    /// intermediate. Returns the text of the new root.
    pub(crate) fn begin_rotation(&self, now: Timestamp) -> String {
        let mut state = self.behaviour();
        let (new_pem, new_key, _) = authority(now);
        let crossed = cross::cross_sign(&new_pem, &state.signer).unwrap();
        state.signer = Signer::new(&crossed, &new_key, &crossed).unwrap();
        let alone = Signer::new(&new_pem, &new_key, "").unwrap();
        state.next = Some((new_pem.clone(), alone));
        new_pem
    }

    /// Second half: the new root is the only one, and leaves come without an intermediate. The
    /// manager's own certificate is one that nodes of either side believe.
    pub(crate) fn end_rotation(&self, now: Timestamp) {
        let mut state = self.behaviour();
        let (root_pem, alone) = state.next.take().unwrap();
        let day = Duration::from_secs(24 * 3600);
        let manager = NodeRole::Manager;
        let (chain_pem, key_pem) = issue(&state.signer, "manager", manager, day, now);
        self.credentials
            .update(NodeTls {
                chain_pem,
                key_pem,
                root_pem: root_pem.clone(),
            })
            .unwrap();
        state.root_pem = root_pem;
        state.signer = alone;
    }
}

#[tonic::async_trait]
impl v1::ca_server::Ca for Fake {
    async fn get_root_ca_certificate(
        &self,
        _: Request<v1::GetRootCaCertificateRequest>,
    ) -> Result<Response<v1::GetRootCaCertificateResponse>, Status> {
        let certificate = self.behaviour().root_pem.clone().into_bytes().into();
        Ok(Response::new(v1::GetRootCaCertificateResponse {
            certificate,
        }))
    }
}

#[tonic::async_trait]
impl v1::node_ca_server::NodeCa for Fake {
    async fn issue_node_certificate(
        &self,
        request: Request<v1::IssueNodeCertificateRequest>,
    ) -> Result<Response<v1::IssueNodeCertificateResponse>, Status> {
        let caller = net::caller(&request).node().map(ToString::to_string);
        let message = request.into_inner();
        let takes = self.behaviour().takes;
        self.behaviour()
            .asked
            .push((message.token.clone(), caller.clone()));
        tokio::time::sleep(takes).await;
        let mut state = self.behaviour();
        state.asked_at.push(self.address.clone());
        state.requests_taken.push(message.csr.to_vec());
        if state.aborted_calls > 0 {
            state.aborted_calls -= 1;
            return Err(Status::aborted("CA signer is still starting"));
        }
        if caller.is_none() && !state.tokens.contains(&message.token) {
            let text = "A valid join token is necessary to join this cluster";
            return Err(Status::invalid_argument(text));
        }
        let node_id = caller.unwrap_or_else(|| state.node.clone());
        state.requests.insert(node_id.clone(), message.csr.to_vec());
        Ok(Response::new(v1::IssueNodeCertificateResponse {
            node_id,
            ..Default::default()
        }))
    }

    async fn node_certificate_status(
        &self,
        request: Request<v1::NodeCertificateStatusRequest>,
    ) -> Result<Response<v1::NodeCertificateStatusResponse>, Status> {
        let node_id = request.into_inner().node_id;
        let mut state = self.behaviour();
        if state.goes_after_issuing && state.asked_at.contains(&self.address) {
            return Err(Status::unavailable("the manager stops"));
        }
        let forgets = state.forgets;
        let csr = state.requests.get(&node_id).filter(|_| !forgets).cloned();
        let csr = csr.ok_or_else(|| Status::not_found("node not found"))?;
        let answer = |state: State, csr: Vec<u8>, pem: String| {
            Response::new(v1::NodeCertificateStatusResponse {
                status: Some(v1::IssuanceStatus {
                    state: state as i32,
                    err: "no ink".to_owned(),
                }),
                certificate: Some(v1::Certificate {
                    csr: csr.into(),
                    certificate: pem.into_bytes().into(),
                    ..Default::default()
                }),
            })
        };
        if state.pending_looks > 0 {
            state.pending_looks -= 1;
            return Ok(answer(State::Pending, csr, String::new()));
        }
        let now = Clock::new().now();
        if state.foreign_looks > 0 {
            state.foreign_looks -= 1;
            let (pem, _) = issue(&state.signer, &node_id, state.role, state.expiry, now);
            let other = csr::request(&csr::new_key()).unwrap();
            return Ok(answer(State::Issued, other.into_bytes(), pem));
        }
        if state.failing_requests > 0 {
            state.failing_requests -= 1;
            return Ok(answer(State::Failed, csr, String::new()));
        }
        let subject = subject(
            state.cluster,
            state.impostor.unwrap_or(&node_id),
            state.role,
        );
        let pem = state
            .signer
            .sign(&csr, &subject, state.expiry, now, [9; 20])
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(answer(state.signed_state, csr, pem))
    }
}

#[tonic::async_trait]
impl ext::identity_server::Identity for Fake {
    async fn check_join_token(
        &self,
        _: Request<ext::CheckJoinTokenRequest>,
    ) -> Result<Response<ext::CheckJoinTokenResponse>, Status> {
        let about = self.behaviour().about_token.clone();
        about
            .map(Response::new)
            .ok_or_else(|| Status::unimplemented("unknown service"))
    }
}

/// The node in the first certificate of a text.
pub(crate) fn node_of(chain_pem: &str) -> String {
    read_pem(chain_pem.as_bytes()).unwrap().node.to_string()
}

/// A node object with the two things that a renewal looks at.
pub(crate) fn node_object(state: State, wanted: NodeRole) -> v1::Node {
    v1::Node {
        spec: Some(v1::NodeSpec {
            desired_role: wanted as i32,
            ..Default::default()
        }),
        certificate: Some(v1::Certificate {
            status: Some(v1::IssuanceStatus {
                state: state as i32,
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}
