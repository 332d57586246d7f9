//! Who may call which method (spec 1.5 to 1.7), as a function of the call and a view.
//!
//! Owns the rule and its texts. Does not own the table of methods (`swarm-api`), nor the proof of
//! who calls: a certificate that is given here has passed the TLS handshake.
//!
//! Intended differences from SwarmKit: a removed node is refused when its call is forwarded, too;
//! a forwarded call is refused by a manager that does not lead, since a second hop would replace
//! the caller by the first forwarder; a node that was demoted is a worker, whatever its certificate
//! still says; calls of methods that need no certificate are believed to be forwarded only if a
//! manager forwards them.

use swarm_api::authorization::{Method, Role};
use swarm_api::v1::NodeRole;
use swarm_store::Root;
use swarm_types::ClusterId;

use crate::MANAGER_ROLE;
use crate::identity::CertIdentity;
use crate::requests::is_removed;

/// A call as it arrived on the remote listener.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// The method.
    pub method: &'a Method,
    /// The certificate at the other end of the connection.
    pub direct: Option<&'a CertIdentity>,
    /// What the metadata says about an earlier hop.
    pub hop: &'a Hop,
}

/// What the metadata of a call says about an earlier hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    /// `forwarded_cert` is `true`: the caller is another one than the peer.
    pub is_forwarded: bool,
    /// `redirect` is there: some manager sent the call on, as itself or for another.
    pub is_redirected: bool,
    /// `forwarded_cert_cn`.
    pub node: String,
    /// `forwarded_cert_org`.
    pub organization: String,
    /// Every `forwarded_cert_ou`.
    pub roles: Vec<String>,
}

/// What the manager that is asked knows of itself.
#[derive(Clone, Copy, Debug)]
pub struct Here<'a> {
    /// Its cluster.
    pub cluster: &'a ClusterId,
    /// Whether it leads.
    pub leads: bool,
}

/// Who makes an accepted call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Accepted {
    /// The peer of the connection.
    Peer,
    /// The holder of this certificate, or of none, through the peer. The times of the certificate
    /// do not travel: they are those of the peer's own.
    Forwarded(Option<CertIdentity>),
}

/// Why a call is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The method needs a certificate.
    NoCertificate,
    /// The certificate, or the node by now, has none of the roles.
    WrongRole,
    /// The certificate is one of another cluster.
    WrongOrganization,
    /// The node was removed.
    RemovedNode,
    /// The forwarder may not forward, or left something out.
    BadForwarding,
    /// The call was sent on already, and this manager does not lead.
    NotLeader,
}

/// A call that is not accepted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Denial {
    /// Why.
    pub reason: Reason,
    /// The text for the caller.
    pub message: String,
}

impl Denial {
    fn new(reason: Reason, text: impl std::fmt::Display) -> Self {
        let message = format!("Permission denied: {text}");
        Self { reason, message }
    }
}

/// Whether a call is accepted, and who makes it.
///
/// # Errors
/// [`Denial`]; `PermissionDenied` on the wire, `ResourceExhausted` for [`Reason::NotLeader`].
pub fn authorize(view: &Root, here: Here<'_>, arrival: Arrival<'_>) -> Result<Accepted, Denial> {
    let Arrival {
        method,
        direct,
        hop,
    } = arrival;
    if (hop.is_forwarded || hop.is_redirected) && !here.leads {
        // SwarmKit's text.
        return Err(Denial {
            reason: Reason::NotLeader,
            message: "more than one redirect to leader: this manager does not lead".to_owned(),
        });
    }
    if hop.is_forwarded {
        return forwarded(view, here, method, direct, hop).map(Accepted::Forwarded);
    }
    if !method.insecure {
        let Some(identity) = direct else {
            let text = "unauthorized peer role: no client certificates in request";
            return Err(Denial::new(Reason::NoCertificate, text));
        };
        check(view, here, method.roles, identity, "unauthorized peer role")?;
    }
    Ok(Accepted::Peer)
}

fn forwarded(
    view: &Root,
    here: Here<'_>,
    method: &Method,
    direct: Option<&CertIdentity>,
    hop: &Hop,
) -> Result<Option<CertIdentity>, Denial> {
    let bad = |text: &str| Denial::new(Reason::BadForwarding, text);
    let Some(forwarder) = direct else {
        return Err(bad(
            "unauthorized forwarder role: no client certificates in request",
        ));
    };
    check(
        view,
        here,
        &[Role::Manager],
        forwarder,
        "unauthorized forwarder role",
    )
    .map_err(|denial| {
        if denial.reason != Reason::WrongRole {
            return denial;
        }
        Denial {
            reason: Reason::BadForwarding,
            ..denial
        }
    })?;
    let blank = hop.node.is_empty() && hop.organization.is_empty() && hop.roles.is_empty();
    if blank && method.insecure {
        return Ok(None);
    }
    let missing = || bad("missing information in forwarded request");
    if hop.node.is_empty() || hop.organization.is_empty() || hop.roles.is_empty() {
        return Err(missing());
    }
    let identity = CertIdentity {
        node: hop.node.parse().map_err(|_| missing())?,
        cluster: hop.organization.parse().map_err(|_| missing())?,
        roles: hop.roles.clone(),
        not_before: forwarder.not_before,
        not_after: forwarder.not_after,
    };
    if !method.insecure {
        let what = "unauthorized forwarded role";
        check(view, here, method.roles, &identity, what)?;
    }
    Ok(Some(identity))
}

fn check(
    view: &Root,
    here: Here<'_>,
    roles: &[Role],
    identity: &CertIdentity,
    what: &str,
) -> Result<(), Denial> {
    let names = || roles.iter().map(|role| role.organizational_unit());
    let has = |name: &str| identity.roles.iter().any(|role| role == name);
    if !names().any(has) {
        let names = names().collect::<Vec<_>>().join(" ");
        let text = format!("{what}: remote certificate not part of OUs: [{names}]");
        return Err(Denial::new(Reason::WrongRole, text));
    }
    let node = &identity.node;
    let is_blacklisted = |cluster| is_removed(cluster, node);
    if view
        .cluster()
        .is_some_and(|cluster| is_blacklisted(cluster))
    {
        let text = format!("node {node} was removed from swarm");
        return Err(Denial::new(Reason::RemovedNode, text));
    }
    if identity.cluster != *here.cluster {
        let text = format!(
            "remote certificate not part of organization: {}",
            here.cluster
        );
        return Err(Denial::new(Reason::WrongOrganization, text));
    }
    // A demoted node keeps what workers may do, which its old certificate did not have to say.
    if roles.contains(&Role::Worker) {
        return Ok(());
    }
    let is_demoted = view
        .node(node)
        .is_some_and(|node| node.role == NodeRole::Worker);
    if !is_demoted {
        return Ok(());
    }
    let text = format!(
        "{what}: node {node} was demoted, so its certificate no longer counts as part of OUs: \
         [{MANAGER_ROLE}]; it gets a new one by itself"
    );
    Err(Denial::new(Reason::WrongRole, text))
}

#[cfg(test)]
mod tests;
