//! Changing the root of a running cluster: how far it is, who is next, when it ends (spec 2.9).
//!
//! While a rotation is under way nodes trust the old root, and everything that is signed is signed
//! by the new one together with the new root's certificate as the old root signed it. So nodes of
//! either side verify, and each node can be asked to renew in its own time: at most
//! [`NODES_PER_TICK_MAX`] every [`TICK`]. A node is rotated when it reports that the issuer of its
//! certificate is the new root. When no node is left, the root, its digest and both join tokens
//! are replaced in one write.
//!
//! # Nodes that are gone
//! A node that is not READY is not asked; it would not hear it. When it comes back while the
//! rotation lasts it is asked then. One that stays away longer than [`GONE_AFTER`] is *left
//! behind*: the rotation ends without it. Its certificate leads only to the old root, which is no
//! longer trusted after the end, since distrust of it may be the very reason for the rotation;
//! trusting it longer on behalf of absent nodes would undo that. Such a node comes back by
//! `swarmctl node readmit`: a token that is bound to the node and holds the digest of the new
//! root lets it keep its id, its labels and its role. The manager that leads is never left
//! behind.
//!
//! Difference from SwarmKit: there, one dead node blocks the end until it is removed.
//!
//! Owns the judgement and the contents of the last write. Does not own the pace (`server`), nor the
//! start, which is a request of a user (`swarm-control-api`).

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{Cluster, Node, NodeId, NodeState, Timestamp};
use v1::issuance_status::State;
use v1::node_spec::Membership;

use crate::certificate::Certificate;
use crate::chain::Issuer;
use crate::root::RootDigest;
use crate::token::JoinToken;
use crate::{advice, requests};

/// How often nodes are asked to renew.
pub const TICK: Duration = Duration::from_secs(3);
/// Nodes that are asked in one tick at most.
pub const NODES_PER_TICK_MAX: usize = 30;
/// A rotation goes on without nodes that have been gone for so long.
pub const GONE_AFTER: Duration = Duration::from_secs(3600);
/// A node whose renewal failed is asked again after this.
pub const FAILED_RETRY_DELAY: Duration = Duration::from_secs(60);
/// A node that got a certificate of the new root and does not report it is asked again after this:
/// it may have crashed before it could keep the certificate.
pub const REPORT_DELAY: Duration = Duration::from_secs(30);

/// Why a node is not rotated. In the order in which people want to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its renewal was refused.
    Failed {
        /// The reason.
        error: String,
    },
    /// Nobody accepted it into the cluster yet, so nobody signs for it.
    NotAccepted,
    /// It is gone for so long that nobody waits for it.
    LeftBehind {
        /// Since when at the latest.
        since: Timestamp,
    },
    /// It is not connected.
    Gone {
        /// Since when at the latest.
        since: Timestamp,
        /// When it will be left behind; `None` for the leader's own node.
        until: Option<Timestamp>,
    },
    /// It was asked to renew and has not begun.
    Asked {
        /// Since when at the latest.
        since: Timestamp,
    },
    /// Its request waits for a signature.
    Signing,
    /// It got a certificate of the new root and has not reported that it uses it.
    Reporting {
        /// Since when at the latest.
        since: Timestamp,
    },
    /// Its turn comes.
    Turn,
}

impl Why {
    /// A stable name for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "failed",
            Self::NotAccepted => "not-accepted",
            Self::LeftBehind { .. } => "left-behind",
            Self::Gone { .. } => "gone",
            Self::Asked { .. } => "asked",
            Self::Signing => "signing",
            Self::Reporting { .. } => "reporting",
            Self::Turn => "turn",
        }
    }

    /// In words.
    pub fn text(&self) -> String {
        match self {
            Self::Failed { error } => format!("its renewal failed: {error}; it is asked again"),
            Self::NotAccepted => "it is not accepted into the cluster".to_owned(),
            Self::LeftBehind { since } => format!(
                "it is gone since {since}; the rotation does not wait for it, and it cannot \
                 connect after the end"
            ),
            Self::Gone {
                since,
                until: Some(until),
            } => format!("it is gone since {since}; the rotation goes on without it at {until}"),
            Self::Gone { since, until: None } => {
                format!("it is gone since {since}; it is the leader's own node")
            }
            Self::Asked { since } => format!("it was asked to renew at {since}"),
            Self::Signing => "its certificate is being signed".to_owned(),
            Self::Reporting { since } => {
                format!("it got its certificate at {since} and has not reported that it uses it")
            }
            Self::Turn => "it is asked to renew when its turn comes".to_owned(),
        }
    }

    /// What the operator can do; empty when nothing is needed.
    pub fn next_step(&self, about: &Node) -> String {
        let node = &about.id;
        match self {
            Self::Failed { .. } => advice::log(about),
            Self::NotAccepted => format!("swarmctl node accept {node}, or swarmctl node rm {node}"),
            Self::LeftBehind { .. } => {
                format!("swarmctl node readmit {node} when it is back, or swarmctl node rm {node}")
            }
            Self::Gone { .. } => {
                let again = advice::start_again(about, &node.to_string());
                format!("{again}, or swarmctl node rm {node}")
            }
            Self::Asked { .. } | Self::Signing | Self::Reporting { .. } | Self::Turn => {
                String::new()
            }
        }
    }
}

/// How far a rotation is.
#[derive(Clone, Debug)]
pub struct Survey<'a> {
    /// All nodes.
    pub total: usize,
    /// Those with a certificate of the new root.
    pub rotated: usize,
    /// The others.
    pub rest: Vec<(&'a Arc<Node>, Why)>,
}

/// How far the rotation of the cluster is; `None` when there is none. `own` is the leader's node.
/// Costs one pass over the nodes.
pub fn survey<'a>(view: &'a Root, now: Timestamp, own: Option<&NodeId>) -> Option<Survey<'a>> {
    let root_ca = view.cluster()?.root_ca.as_deref()?;
    let rotation = root_ca.root_rotation.as_ref()?;
    let target = issuer_of(&rotation.ca_cert);
    let mut survey = Survey {
        total: 0,
        rotated: 0,
        rest: Vec::new(),
    };
    for node in view.all::<Node>() {
        survey.total += 1;
        if target
            .as_ref()
            .is_some_and(|target| is_issued_by(node, target))
        {
            survey.rotated += 1;
        } else {
            survey.rest.push((node, why(node, rotation, now, own)));
        }
    }
    Some(survey)
}

impl<'a> Survey<'a> {
    /// Nodes that nobody waits for.
    pub fn left_behind(&self) -> usize {
        let is_left = |(_, why): &&(_, Why)| matches!(why, Why::LeftBehind { .. });
        self.rest.iter().filter(is_left).count()
    }

    /// Whether the rotation can end. With no node rotated at all, the leader's own would lose its
    /// standing with the rest.
    pub fn is_complete(&self) -> bool {
        self.rotated > 0 && self.left_behind() == self.rest.len()
    }

    /// The nodes to ask next: those that were not asked yet before those that failed.
    pub fn next(&self, now: Timestamp) -> Vec<&'a Arc<Node>> {
        let fresh = self.rest.iter().filter(|(_, why)| *why == Why::Turn);
        let failed = self.rest.iter().filter(|(node, why)| {
            let retry_at = node.meta.updated_at.saturating_add(FAILED_RETRY_DELAY);
            matches!(why, Why::Failed { .. }) && retry_at <= now
        });
        let all = fresh.chain(failed).map(|(node, _)| *node);
        all.take(NODES_PER_TICK_MAX).collect()
    }
}

/// A node that is asked to renew.
pub(crate) fn asked(node: &Node) -> Node {
    let mut node = node.clone();
    node.certificate.get_or_insert_default().status = Some(v1::IssuanceStatus {
        state: State::Rotate as i32,
        err: String::new(),
    });
    node
}

/// The cluster after the end of its rotation: the new root, its digest and new join tokens, whose
/// secrets are given. `None` when there is no rotation.
pub(crate) fn completed(cluster: &Cluster, secrets: [[u8; 16]; 2]) -> Option<Cluster> {
    let root_ca = cluster.root_ca.as_deref()?;
    let rotation = root_ca.root_rotation.as_ref()?;
    let mut next = cluster.clone();
    let [worker, manager] = secrets;
    next.root_ca = Some(Box::new(v1::RootCa {
        ca_key: rotation.ca_key.clone(),
        ca_cert: rotation.ca_cert.clone(),
        ca_cert_hash: RootDigest::of(&rotation.ca_cert).to_string(),
        join_tokens: Some(v1::JoinTokens {
            worker: join_token(cluster, &rotation.ca_cert, worker),
            manager: join_token(cluster, &rotation.ca_cert, manager),
        }),
        root_rotation: None,
        last_forced_rotation: root_ca.last_forced_rotation,
    }));
    Some(next)
}

/// A join token of the cluster for a root, from 16 random bytes.
pub fn join_token(cluster: &Cluster, root_pem: &[u8], secret: [u8; 16]) -> String {
    let token = if cluster.fips {
        JoinToken::generate_fips(root_pem, secret)
    } else {
        JoinToken::generate(root_pem, secret)
    };
    token.to_string()
}

/// The name and key under which a root signs; `None` when the root cannot be read.
pub fn issuer_of(root_pem: &[u8]) -> Option<Issuer> {
    let roots = Certificate::all_from_pem(root_pem).ok()?;
    let root = roots.first()?;
    Some(Issuer {
        subject: root.subject_der().to_vec(),
        public_key: root.spki_der().to_vec(),
    })
}

/// Whether a node reports that its certificate was signed by `issuer`.
pub fn is_issued_by(node: &Node, issuer: &Issuer) -> bool {
    let description = node.description.as_deref();
    let tls = description.and_then(|description| description.tls_info.as_ref());
    tls.is_some_and(|tls| {
        tls.cert_issuer_subject == issuer.subject && tls.cert_issuer_public_key == issuer.public_key
    })
}

fn why(node: &Node, rotation: &v1::RootRotation, now: Timestamp, own: Option<&NodeId>) -> Why {
    let since = node.state_since();
    let state = requests::state(node);
    if state == State::Pending && node.spec.membership != Membership::Accepted as i32 {
        return Why::NotAccepted;
    }
    if node.status.state != NodeState::Ready {
        let until = since.saturating_add(GONE_AFTER);
        return match own {
            Some(own) if *own == node.id => Why::Gone { since, until: None },
            Some(_) | None if until <= now => Why::LeftBehind { since },
            Some(_) | None => Why::Gone {
                since,
                until: Some(until),
            },
        };
    }
    match state {
        State::Failed => {
            let certificate = node.certificate.as_ref();
            let status = certificate.and_then(|certificate| certificate.status.clone());
            let error = status.unwrap_or_default().err;
            Why::Failed { error }
        }
        State::Rotate => Why::Asked { since },
        State::Renew | State::Pending => Why::Signing,
        State::Issued if is_from(node, rotation) && now < since.saturating_add(REPORT_DELAY) => {
            Why::Reporting { since }
        }
        State::Issued | State::Unknown => Why::Turn,
    }
}

/// Whether the last certificate of a node was issued in this rotation: only then it ends with the
/// new root as the old one signed it.
fn is_from(node: &Node, rotation: &v1::RootRotation) -> bool {
    let cross_signed = rotation.cross_signed_ca_cert.trim_ascii();
    let certificate = node.certificate.as_ref();
    certificate.is_some_and(|it| it.certificate.trim_ascii_end().ends_with(cross_signed))
}

#[cfg(test)]
mod tests;
