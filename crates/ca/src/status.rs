//! Tells people how the root and the certificates of a cluster stand.
//!
//! Owns the words. Does not own the judgement, which is that of `rotation`, `expiry` and `issuer`.

use swarm_api::ext;
use swarm_store::Root;
use swarm_types::{Cluster, Node, NodeId, Timestamp};

use crate::certificate::Certificate;
use crate::chain::Issuer as IssuerName;
use crate::issuer;
use crate::refusal::Refusal;
use crate::root::RootDigest;
use crate::{expiry, requests, rotation, tokens};

/// The root, the progress of its rotation, and the certificate of every node. `own` is the
/// leader's node. Costs one reading of every certificate.
///
/// # Errors
/// `Aborted` before the cluster has a root.
pub fn of(
    view: &Root,
    now: Timestamp,
    own: Option<&NodeId>,
) -> Result<ext::CaStatusResponse, Refusal> {
    let cluster = view.cluster().ok_or_else(Refusal::still_starting)?;
    let root_ca = cluster
        .root_ca
        .as_deref()
        .ok_or_else(Refusal::still_starting)?;
    let target = root_ca.root_rotation.as_ref();
    let known = Known {
        current: rotation::issuer_of(&root_ca.ca_cert),
        next: target.and_then(|rotation| rotation::issuer_of(&rotation.ca_cert)),
    };
    let nodes = view.all::<Node>().map(|node| known.certificate(node, now));
    Ok(ext::CaStatusResponse {
        root: Some(root(cluster, &root_ca.ca_cert, !root_ca.ca_key.is_empty())),
        rotation: target.and_then(|target| {
            let survey = rotation::survey(view, now, own)?;
            let target = root(cluster, &target.ca_cert, !target.ca_key.is_empty());
            Some(progress(survey, target))
        }),
        nodes: nodes.collect(),
    })
}

fn root(cluster: &Cluster, cert_pem: &[u8], has_key: bool) -> ext::RootStatus {
    let certificates = Certificate::all_from_pem(cert_pem).unwrap_or_default();
    let ends = certificates.iter().map(Certificate::not_after);
    let external_urls = issuer::external_urls(cluster, cert_pem);
    let signer = match (external_urls.is_empty(), has_key) {
        (false, _) => "an external CA",
        (true, true) => "this cluster",
        (true, false) => "nobody",
    };
    ext::RootStatus {
        digest: RootDigest::of(cert_pem).to_string(),
        not_after: ends.min().map(Timestamp::to_wire),
        signer: signer.to_owned(),
        external_urls,
    }
}

fn progress(survey: rotation::Survey<'_>, target: ext::RootStatus) -> ext::RotationStatus {
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let left_behind = survey.left_behind();
    let mut rest = survey.rest;
    rest.sort_by(|(a, a_why), (b, b_why)| (a_why, &a.id).cmp(&(b_why, &b.id)));
    let node = |(node, why): (&std::sync::Arc<Node>, rotation::Why)| ext::NodeToRotate {
        node_id: node.id.to_string(),
        hostname: node.hostname().to_owned(),
        code: why.code().to_owned(),
        reason: why.text(),
        next_step: why.next_step(&node.id),
    };
    ext::RotationStatus {
        target: Some(target),
        nodes_total: count(survey.total),
        nodes_rotated: count(survey.rotated),
        nodes_left_behind: count(left_behind),
        nodes: rest.into_iter().map(node).collect(),
    }
}

/// Who a node's certificate may be from.
struct Known {
    current: Option<IssuerName>,
    next: Option<IssuerName>,
}

impl Known {
    fn certificate(&self, node: &Node, now: Timestamp) -> ext::NodeCertificate {
        let issuer = self.issuer(node);
        let status = node.certificate.as_ref().and_then(|it| it.status.clone());
        let warning = expiry::warning(node, now).or_else(|| self.stranded(node, issuer));
        let (warning, next_step) =
            warning.map_or_else(Default::default, |it| (it.text, it.next_step));
        ext::NodeCertificate {
            node_id: node.id.to_string(),
            hostname: node.hostname().to_owned(),
            role: tokens::role_name(node.role).to_owned(),
            state: requests::state(node).as_str_name().to_ascii_lowercase(),
            error: status.unwrap_or_default().err,
            not_after: expiry::validity(node).map(|(_, end)| end.to_wire()),
            issuer: issuer.to_owned(),
            warning,
            next_step,
        }
    }

    fn issuer(&self, node: &Node) -> &'static str {
        let description = node.description.as_deref();
        let tls = description.and_then(|description| description.tls_info.as_ref());
        if tls.is_none_or(|tls| tls.cert_issuer_public_key.is_empty()) {
            return "unknown";
        }
        let is = |issuer: &Option<IssuerName>| {
            let issuer = issuer.as_ref();
            issuer.is_some_and(|issuer| rotation::is_issued_by(node, issuer))
        };
        if is(&self.current) {
            "current root"
        } else if is(&self.next) {
            "next root"
        } else {
            "another root"
        }
    }

    /// A node that was away when a rotation ended.
    fn stranded(&self, node: &Node, issuer: &str) -> Option<expiry::Warning> {
        if issuer != "another root" || node.status.state == swarm_types::NodeState::Ready {
            return None;
        }
        let id = &node.id;
        Some(expiry::Warning {
            node: id.clone(),
            not_after: Timestamp::EPOCH,
            text: "its certificate is from an earlier root CA, so it cannot connect".to_owned(),
            next_step: format!(
                "swarmctl node readmit {id}, and start swarmd there with the token that it prints"
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{World, at, root_ca};
    use std::sync::Arc;
    use swarm_api::v1;
    use swarm_types::NodeState;

    fn report(node: &mut Node, root_pem: &[u8]) {
        let issuer = rotation::issuer_of(root_pem).unwrap();
        let mut description = v1::NodeDescription {
            hostname: format!("host-{}", node.id),
            ..Default::default()
        };
        description.tls_info = Some(v1::NodeTlsInfo {
            cert_issuer_subject: issuer.subject.into(),
            cert_issuer_public_key: issuer.public_key.into(),
            ..Default::default()
        });
        node.description = Some(Arc::new(description));
    }

    #[test]
    fn progress_names_every_node_that_is_not_rotated_and_why() {
        let mut world = World::new();
        let (old, next) = (
            world.root.cluster().unwrap().root_ca.clone().unwrap(),
            root_ca(at(0)),
        );
        let other = root_ca(at(0));
        world.node("a", |node| report(node, &old.ca_cert));
        world.node("b", |node| report(node, &next.ca_cert));
        world.node("c", |node| {
            report(node, &other.ca_cert);
            node.status.state = NodeState::Down;
        });
        world.node("d", |_| {});
        let status = of(&world.root, world.now, None).unwrap();
        assert_eq!(status.rotation, None);
        let root = status.root.unwrap();
        assert_eq!(
            (root.digest, root.signer.as_str()),
            (old.ca_cert_hash.clone(), "this cluster")
        );
        world.cluster(|cluster| {
            let root_ca = cluster.root_ca.get_or_insert_default();
            root_ca.root_rotation = Some(v1::RootRotation {
                ca_cert: next.ca_cert.clone(),
                ..Default::default()
            });
        });
        let status = of(&world.root, world.now, None).unwrap();
        let issuers: Vec<&str> = status
            .nodes
            .iter()
            .map(|node| node.issuer.as_str())
            .collect();
        assert_eq!(
            issuers,
            ["current root", "next root", "another root", "unknown"]
        );
        assert!(status.nodes[2].warning.contains("an earlier root CA"));
        let rotation = status.rotation.unwrap();
        assert_eq!((rotation.nodes_total, rotation.nodes_rotated), (4, 1));
        let rest: Vec<String> = rotation
            .nodes
            .iter()
            .map(|node| format!("{} {} {}", node.node_id, node.hostname, node.code))
            .collect();
        assert_eq!(rest, ["c host-c gone", "a host-a turn", "d  turn"]);
        assert!(rotation.nodes[0].next_step.contains("swarmctl node rm c"));
        let target = rotation.target.unwrap();
        assert_eq!(
            (target.digest, target.signer.as_str()),
            (next.ca_cert_hash, "nobody")
        );
        world.now = at(rotation::GONE_AFTER.as_secs());
        let status = of(&world.root, world.now, None).unwrap();
        assert_eq!(status.rotation.unwrap().nodes_left_behind, 1);
    }
}
