//! What nodes ask of the certificate authority (spec 2.4), as functions of a view.
//!
//! Owns who gets a certificate for which identity, and the order of the rules. Does not own the
//! signature (`server`), who the caller is (the transport says so), nor the wait for a commit.

use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::{Root, Write, WriteSet};
use swarm_types::{Cluster, ClusterId, Node, NodeId, convert};
use v1::issuance_status::State;
use v1::node_spec::{Availability, Membership};

use crate::csr::CSR_BYTES_MAX;
use crate::keyfile::Kek;
use crate::refusal::{Code, Refusal, shown};
use crate::tokens::{self, Admission};
use crate::unlock::Seal;
use crate::waiting::{self, Origin};
use crate::{MANAGER_ROLE, WORKER_ROLE, policy};

/// Ids that are drawn for a new node at most, should one be taken (SwarmKit: 3 more attempts).
pub const NODE_ID_DRAWS_MAX: usize = 4;
/// The entry of the unlock keys that concerns managers.
pub const MANAGER_SUBSYSTEM: &str = MANAGER_ROLE;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requester {
    /// Whoever may open the control socket of a manager; acts as the manager's own node.
    Local {
        /// The manager's node.
        node: NodeId,
    },
    /// The holder of a certificate that verified against the cluster's root, itself or through a
    /// manager that forwards the call.
    Certified {
        /// Common name.
        node: NodeId,
        /// Organizational units.
        roles: Vec<String>,
        /// Organization.
        cluster: ClusterId,
    },
    /// Nobody that could prove it.
    Anonymous,
}

/// The answer to a question about a certificate.
#[derive(Clone, Debug, PartialEq)]
pub enum CertificateAnswer {
    /// The certificate is issued, refused, or to be renewed: this is the answer.
    Final(v1::NodeCertificateStatusResponse),
    /// It is not decided yet: ask again after the next change of the node. This is the answer for
    /// a caller that cannot wait longer.
    Pending(v1::NodeCertificateStatusResponse),
}

/// Takes a certificate request: a renewal for a node that proves who it is or that an operator
/// readmits, a new node for anyone with a join token.
///
/// To be called inside the transaction that carries the writes, so that a token with limits is
/// counted once for each node. What the writes delete are nodes that made room for a new one.
///
/// # Errors
/// `InvalidArgument` without a usable request or token, `NotFound` for a node that is gone,
/// `PermissionDenied` for a removed node, `FailedPrecondition` for a second manager,
/// `ResourceExhausted` when too many nodes were made that never came, `Aborted` before the cluster
/// has a root.
pub fn issue(
    view: &Root,
    (requester, origin): (&Requester, Origin<'_>),
    request: v1::IssueNodeCertificateRequest,
    ctx: &mut Ctx<'_>,
) -> Result<(WriteSet, v1::IssueNodeCertificateResponse), Refusal> {
    check_csr(&request.csr)?;
    let cluster = cluster(view)?;
    if let Some(node) = renewing(cluster, requester, &request.token)? {
        let node = known(view, &node)?;
        let role = match requester {
            Requester::Local { .. } => node.role,
            Requester::Certified { .. } | Requester::Anonymous => policy::role_elsewhere(),
        };
        return Ok(renewal((node, role), &request, Vec::new()));
    }
    // Before the token is looked at, which this very request may have used up.
    if let Some(node) = waiting::made_for(view, &request.csr).filter(|_| !request.token.is_empty())
    {
        return Ok(again(node, &request));
    }
    let admission = tokens::admit(view, &request.token, ctx.now)?;
    if let Some(id) = &admission.node {
        let node = known(view, id)?;
        let count = admission.counted.iter().map(|stored| stored.count(id));
        let role = policy::role_elsewhere();
        return Ok(renewal((node, role), &request, count.collect()));
    }
    new_node(view, (cluster, origin), request, admission, ctx)
}

/// How the certificate of a node stands.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn certificate_status(
    view: &Root,
    request: &v1::NodeCertificateStatusRequest,
) -> Result<CertificateAnswer, Refusal> {
    if request.node_id.is_empty() {
        return Err(Refusal::invalid(
            "NodeCertificateStatus: node_id is missing",
        ));
    }
    let not_found = || Refusal::not_found(format!("node {} not found", shown(&request.node_id)));
    let id: NodeId = request.node_id.parse().map_err(|_| not_found())?;
    let node = view.node(&id).ok_or_else(not_found)?;
    let certificate = node.certificate.as_deref().cloned().unwrap_or_default();
    let answer = v1::NodeCertificateStatusResponse {
        status: Some(certificate.status.clone().unwrap_or_default()),
        certificate: Some(certificate),
    };
    Ok(match state(node) {
        State::Issued | State::Failed | State::Rotate => CertificateAnswer::Final(answer),
        State::Unknown | State::Renew | State::Pending => CertificateAnswer::Pending(answer),
    })
}

/// The root that nodes trust: during a rotation still the old one.
///
/// # Errors
/// `Aborted` before the cluster has a root.
pub fn root_certificate(view: &Root) -> Result<v1::GetRootCaCertificateResponse, Refusal> {
    let root_ca = cluster(view)?.root_ca.as_deref();
    let root_ca = root_ca.ok_or_else(Refusal::still_starting)?;
    Ok(v1::GetRootCaCertificateResponse {
        certificate: root_ca.ca_cert.clone(),
    })
}

/// What the key files of managers are to be sealed under; `None` before the cluster exists. The
/// entry counts, not the setting, as in SwarmKit; it goes when the setting is switched off.
pub fn wanted_seal(view: &Root) -> Option<Seal> {
    let cluster = view.cluster()?;
    let mut keys = cluster.unlock_keys.iter();
    let key = keys.find(|key| key.subsystem == MANAGER_SUBSYSTEM);
    Some(Seal {
        kek: key.map(|key| Kek::new(key.key.to_vec())),
        version: cluster.meta.version.0,
    })
}

/// The key that seals the managers' private keys; empty unless auto-lock is on.
///
/// # Errors
/// `Aborted` before the cluster exists.
pub fn unlock_key(view: &Root) -> Result<v1::GetUnlockKeyResponse, Refusal> {
    let cluster = cluster(view)?;
    let encryption = cluster.spec.encryption_config.as_ref();
    let is_locked = encryption.is_some_and(|config| config.auto_lock_managers);
    let keys = cluster.unlock_keys.iter();
    let mut keys = keys.filter(|key| is_locked && key.subsystem == MANAGER_SUBSYSTEM);
    Ok(v1::GetUnlockKeyResponse {
        unlock_key: keys.next().map(|key| key.key.clone()).unwrap_or_default(),
        version: Some(convert::version_to_wire(cluster.meta.version)),
    })
}

/// Where the issuance of a node's certificate stands. An unknown number counts as UNKNOWN.
pub fn state(node: &Node) -> State {
    let status = node.certificate.as_ref().and_then(|it| it.status.as_ref());
    status.map_or(State::Unknown, |status| {
        State::try_from(status.state).unwrap_or(State::Unknown)
    })
}

fn check_csr(csr: &[u8]) -> Result<(), Refusal> {
    match csr.len() {
        0 => Err(Refusal::invalid(
            "IssueNodeCertificate: the certificate request is empty; send one in PEM",
        )),
        bytes if bytes > CSR_BYTES_MAX => Err(Refusal::invalid(format!(
            "IssueNodeCertificate: the certificate request has {bytes} bytes, at most \
             {CSR_BYTES_MAX} are accepted"
        ))),
        _ => Ok(()),
    }
}

/// The node whose certificate is renewed; `None` for a caller that needs a token. A certificate of
/// another organization proves nothing here, and its holder may still have a token; so may the
/// owner of a machine whose node was removed, since it could as well hide the certificate.
fn renewing(
    cluster: &Cluster,
    requester: &Requester,
    token: &str,
) -> Result<Option<NodeId>, Refusal> {
    match requester {
        Requester::Local { node } => Ok(Some(node.clone())),
        Requester::Anonymous => Ok(None),
        Requester::Certified {
            node,
            roles,
            cluster: organization,
        } => {
            let has_role = roles
                .iter()
                .any(|role| role == WORKER_ROLE || role == MANAGER_ROLE);
            if !has_role || *organization != cluster.id {
                return Ok(None);
            }
            if !is_removed(cluster, node) {
                return Ok(Some(node.clone()));
            }
            if token.is_empty() {
                let text = format!("Permission denied: node {node} was removed from swarm");
                return Err(Refusal::new(Code::PermissionDenied, text));
            }
            Ok(None)
        }
    }
}

/// Whether a node was removed and its certificate must not be accepted any more.
pub fn is_removed(cluster: &Cluster, node: &NodeId) -> bool {
    let removed = &cluster.blacklisted_certificates;
    // Asked for each call of a node, so the usual answer is a cheap one.
    !removed.is_empty() && node.as_id().with_str(|node| removed.contains_key(node))
}

fn renewal(
    (node, role): (&Node, v1::NodeRole),
    request: &v1::IssueNodeCertificateRequest,
    mut writes: Vec<Write>,
) -> (WriteSet, v1::IssueNodeCertificateResponse) {
    let wanted = certificate(role, request, &node.id, State::Renew);
    // A call that is repeated before anyone signed changes nothing.
    if node.certificate.as_deref() != Some(&wanted) {
        let mut node = node.clone();
        node.certificate = Some(Box::new(wanted));
        writes.push(Write::update(node));
    }
    (WriteSet(writes), reply(node))
}

/// The answer to a request that was taken already; one that failed is looked at again.
fn again(
    node: &Node,
    request: &v1::IssueNodeCertificateRequest,
) -> (WriteSet, v1::IssueNodeCertificateResponse) {
    if state(node) == State::Failed {
        let mut node = node.clone();
        node.certificate = Some(Box::new(certificate(
            policy::role_elsewhere(),
            request,
            &node.id,
            State::Pending,
        )));
        return (WriteSet(vec![Write::update(node.clone())]), reply(&node));
    }
    (WriteSet::default(), reply(node))
}

fn reply(node: &Node) -> v1::IssueNodeCertificateResponse {
    v1::IssueNodeCertificateResponse {
        node_id: node.id.to_string(),
        node_membership: node.spec.membership,
    }
}

fn new_node(
    view: &Root,
    (cluster, origin): (&Cluster, Origin<'_>),
    request: v1::IssueNodeCertificateRequest,
    admission: Admission,
    ctx: &mut Ctx<'_>,
) -> Result<(WriteSet, v1::IssueNodeCertificateResponse), Refusal> {
    if Availability::try_from(request.availability).is_err() {
        return Err(Refusal::invalid(format!(
            "IssueNodeCertificate: {} is not an availability that this version knows",
            request.availability
        )));
    }
    let role = admission.role;
    let token = admission.name();
    let gone = waiting::make_room(view, &token, origin, ctx.now)?;
    let id = free_id(view, cluster, ctx)?;
    let spec = v1::NodeSpec {
        desired_role: role as i32,
        membership: Membership::Accepted as i32,
        availability: request.availability,
        ..Default::default()
    };
    let mut node = Node::new(id.clone(), spec);
    node.role = role;
    node.certificate = Some(Box::new(certificate(role, &request, &id, State::Pending)));
    node.vxlan_udp_port = cluster.vxlan_udp_port;
    node.status = waiting::status(&token, origin);
    let mut writes = gone;
    writes.push(Write::create(node));
    writes.extend(admission.counted.map(|stored| stored.count(&id)));
    let reply = v1::IssueNodeCertificateResponse {
        node_id: id.to_string(),
        node_membership: Membership::Accepted as i32,
    };
    Ok((WriteSet(writes), reply))
}

/// An id that no node has and that no removed node had: its certificates would be refused.
fn free_id(view: &Root, cluster: &Cluster, ctx: &mut Ctx<'_>) -> Result<NodeId, Refusal> {
    let draws = (0..NODE_ID_DRAWS_MAX).map(|_| NodeId::new(ctx.ids.next_id()));
    let mut free = draws.filter(|id| view.node(id).is_none() && !is_removed(cluster, id));
    free.next().ok_or_else(|| {
        let text = format!("no free node id in {NODE_ID_DRAWS_MAX} draws; try again");
        Refusal::new(Code::Aborted, text)
    })
}

fn certificate(
    role: v1::NodeRole,
    request: &v1::IssueNodeCertificateRequest,
    node: &NodeId,
    state: State,
) -> v1::Certificate {
    v1::Certificate {
        role: role as i32,
        csr: request.csr.clone(),
        status: Some(v1::IssuanceStatus {
            state: state as i32,
            err: String::new(),
        }),
        certificate: bytes::Bytes::new(),
        cn: node.to_string(),
    }
}

fn known<'a>(view: &'a Root, id: &NodeId) -> Result<&'a Node, Refusal> {
    view.node(id).map(|node| &**node).ok_or_else(|| {
        let id = shown(id);
        Refusal::not_found(format!(
            "node {id} not found when attempting to renew certificate"
        ))
    })
}

fn cluster(view: &Root) -> Result<&Cluster, Refusal> {
    let cluster = view.cluster().ok_or_else(Refusal::still_starting)?;
    Ok(cluster)
}

#[cfg(test)]
mod tests;
