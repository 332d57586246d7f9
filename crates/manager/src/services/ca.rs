//! `CA` and `NodeCA`: who asks, the wait for a decision, and nothing of the decision itself, which
//! is `swarm-ca`'s.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use swarm_api::v1;
use swarm_ca::requests::{self, CertificateAnswer, Requester};
use swarm_ca::waiting::Origin;
use swarm_raft_io::WriteError;
use swarm_reconcile::Ctx;
use swarm_rt::OsIds;
use swarm_rt::metrics::Refused;
use swarm_rt::net::{self, Caller, Peer};
use swarm_store::{Filter, Key, Received, Selector, Subscription, Write, WriteSet};
use swarm_types::{Kind, NodeId};
use tonic::{Request, Response, Status};

use super::Services;

/// How long a question about a certificate waits for the answer; then it gets the state as it is,
/// with the reason why it waits. Clients give up after 5 s, so a wait that is longer tells nobody.
const STATUS_WAIT_MAX: Duration = Duration::from_secs(4);
/// How long a request may take to become durable.
const WRITE_WAIT_MAX: Duration = Duration::from_secs(30);
/// The largest request. A certificate request has a few hundred bytes, and whoever sends one need
/// not be known, so the limit is far below that of other services.
pub(super) const RECEIVE_BYTES_MAX: usize = 64 << 10;
/// SwarmKit's text for a manager that stopped to lead in the middle of a call.
const STOPPED: &str = "CA signer is stopped";

pub(crate) struct Ca(pub(crate) Arc<Services>);

pub(crate) struct NodeCa(pub(crate) Arc<Services>);

#[tonic::async_trait]
impl v1::ca_server::Ca for Ca {
    async fn get_root_ca_certificate(
        &self,
        _: Request<v1::GetRootCaCertificateRequest>,
    ) -> Result<Response<v1::GetRootCaCertificateResponse>, Status> {
        self.0.gate.pass().await?;
        let answer = requests::root_certificate(&self.0.store.view());
        answer.map(Response::new).map_err(|error| refusal(&error))
    }

    async fn get_unlock_key(
        &self,
        _: Request<v1::GetUnlockKeyRequest>,
    ) -> Result<Response<v1::GetUnlockKeyResponse>, Status> {
        self.0.gate.pass().await?;
        let answer = requests::unlock_key(&self.0.store.view());
        answer.map(Response::new).map_err(|error| refusal(&error))
    }
}

#[tonic::async_trait]
impl v1::node_ca_server::NodeCa for NodeCa {
    async fn issue_node_certificate(
        &self,
        request: Request<v1::IssueNodeCertificateRequest>,
    ) -> Result<Response<v1::IssueNodeCertificateResponse>, Status> {
        let caller = net::caller(&request);
        let addr = caller.addr.clone();
        let requester = self.requester(caller);
        let mut request = request.into_inner();
        self.check_csr(&request.csr)?;
        // It stays with the node, and would hold the buffer of the whole request.
        request.csr = Bytes::copy_from_slice(&request.csr);
        self.0.gate.pass().await?;
        let written = self.0.store.write(|transaction| {
            let mut ids = OsIds::new();
            let mut ctx = Ctx {
                now: self.0.clock.now(),
                ids: &mut ids,
            };
            let origin = Origin {
                addr: &addr,
                waiting_max: self.0.waiting_nodes_max,
            };
            let from = (&requester, origin);
            let (set, reply) = requests::issue(transaction, from, request.clone(), &mut ctx)?;
            transaction.apply_set(&set).map_err(|_| conflict())?;
            Ok((reply, deletions(&set)))
        });
        match tokio::time::timeout(WRITE_WAIT_MAX, written).await {
            Ok(Ok((reply, gone))) => {
                if gone > 0 {
                    // They waited for minutes, and at most so many of them can: so can this line.
                    tracing::warn!(gone, %addr, "removed nodes that were never in session");
                }
                Ok(Response::new(reply))
            }
            Ok(Err(error)) => Err(self.not_written(error)),
            Err(_) => Err(Status::deadline_exceeded(format!(
                "the request was not durable after {} s; send it again",
                WRITE_WAIT_MAX.as_secs()
            ))),
        }
    }

    async fn node_certificate_status(
        &self,
        request: Request<v1::NodeCertificateStatusRequest>,
    ) -> Result<Response<v1::NodeCertificateStatusResponse>, Status> {
        self.0.gate.pass().await?;
        let request = request.into_inner();
        // An id that is none is refused by the first look, which needs no feed.
        let node = request.node_id.parse::<NodeId>().ok();
        let waited = self.decided(&request, node);
        match tokio::time::timeout(STATUS_WAIT_MAX, waited).await {
            Ok(answer) => answer.map(Response::new),
            Err(_) => match self.look(&request)? {
                CertificateAnswer::Final(answer) | CertificateAnswer::Pending(answer) => {
                    Ok(Response::new(answer))
                }
            },
        }
    }
}

impl NodeCa {
    fn requester(&self, caller: Caller) -> Requester {
        match caller.peer {
            Peer::Local => Requester::Local {
                node: self.0.own_node.clone(),
            },
            Peer::Certified(identity) => Requester::Certified {
                node: identity.node.clone(),
                roles: identity.roles.clone(),
                cluster: identity.cluster.clone(),
            },
            Peer::Anonymous => Requester::Anonymous,
        }
    }

    /// Refuses early what the signer would refuse, so that garbage never makes a node object.
    fn check_csr(&self, csr: &[u8]) -> Result<(), Status> {
        if csr.is_empty() {
            // The rule for this has its own text.
            return Ok(());
        }
        swarm_ca::csr::public_key(csr).map(drop).map_err(|error| {
            self.0.metrics.refused(Refused::BadRequest);
            Status::invalid_argument(format!("IssueNodeCertificate: {}", swarm_rt::chain(&error)))
        })
    }

    fn look(
        &self,
        request: &v1::NodeCertificateStatusRequest,
    ) -> Result<CertificateAnswer, Status> {
        requests::certificate_status(&self.0.store.view(), request).map_err(|error| refusal(&error))
    }

    /// Waits until the node's certificate is decided.
    async fn decided(
        &self,
        request: &v1::NodeCertificateStatusRequest,
        node: Option<NodeId>,
    ) -> Result<v1::NodeCertificateStatusResponse, Status> {
        if let CertificateAnswer::Final(answer) = self.look(request)? {
            return Ok(answer);
        }
        let mut feed: Option<Subscription> = None;
        loop {
            let waiting = feed.get_or_insert_with(|| self.feed(node.as_ref()));
            // After the feed was opened, so that nothing happens in between.
            if let CertificateAnswer::Final(answer) = self.look(request)? {
                return Ok(answer);
            }
            match waiting.next().await {
                Received::Event(_) => {}
                Received::Lagged { .. } | Received::Closed => feed = None,
            }
        }
    }

    fn feed(&self, node: Option<&NodeId>) -> Subscription {
        let selector = Selector::kind(Kind::Node);
        let selector = match node {
            Some(node) => selector.key(Key::Object(node.as_id().clone())),
            None => selector,
        };
        let filter = Filter::Any(vec![selector]);
        let (_, feed) = self.0.store.store().view_and_watch(filter);
        feed
    }

    fn not_written(&self, error: WriteError<swarm_ca::Refusal>) -> Status {
        let text = error.to_string();
        match error {
            WriteError::Refused(reason) => {
                if reason.code == swarm_ca::Code::ResourceExhausted {
                    self.0.metrics.refused(Refused::TooManyWaiting);
                }
                if reason.message.contains("join token") {
                    self.0.metrics.refused(Refused::BadToken);
                }
                refusal(&reason)
            }
            WriteError::TooLarge { .. } => Status::invalid_argument(text),
            WriteError::DiskFull | WriteError::Stalled | WriteError::Busy => {
                Status::resource_exhausted(text)
            }
            WriteError::NotLeader | WriteError::LostLeadership | WriteError::Stopped => {
                Status::aborted(STOPPED)
            }
        }
    }
}

/// The nodes that made room.
fn deletions(set: &WriteSet) -> usize {
    let is_deletion = |write: &&Write| matches!(write, Write::Delete { .. });
    set.0.iter().filter(is_deletion).count()
}

fn conflict() -> swarm_ca::Refusal {
    swarm_ca::Refusal {
        code: swarm_ca::Code::Aborted,
        message: "the node changed in the meantime; send the request again".to_owned(),
    }
}

/// A refusal of the certificate authority as a gRPC status.
fn refusal(refusal: &swarm_ca::Refusal) -> Status {
    let code = tonic::Code::from_i32(refusal.code.number());
    Status::new(code, refusal.message.clone())
}
