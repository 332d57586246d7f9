//! Tells people how the root and the certificates of a cluster stand.
//!
//! Owns the words. Does not own the judgement, which is that of `rotation`, `expiry` and `issuer`.

use swarm_api::ext;
use swarm_store::Root;
use swarm_types::{Cluster, Node, NodeId, Timestamp};

use crate::certificate::Certificate;
use crate::chain::{self, Expiry, Issuer as IssuerName};
use crate::issuer;
use crate::refusal::Refusal;
use crate::root::{RootBundle, RootDigest};
use crate::{advice, expiry, policy, requests, rotation, tokens};

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
        roots: RootBundle::parse_any_time(&root_ca.ca_cert).ok(),
        current: rotation::issuer_of(&root_ca.ca_cert),
        next: target.and_then(|rotation| rotation::issuer_of(&rotation.ca_cert)),
    };
    let nodes = view.all::<Node>();
    let nodes = nodes.map(|node| known.certificate(node, own, now));
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
        next_step: why.next_step(node),
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
    roots: Option<RootBundle>,
    current: Option<IssuerName>,
    next: Option<IssuerName>,
}

impl Known {
    fn certificate(
        &self,
        node: &Node,
        own: Option<&NodeId>,
        now: Timestamp,
    ) -> ext::NodeCertificate {
        let issuer = self.issuer(node);
        let status = node.certificate.as_ref().and_then(|it| it.status.clone());
        let warning = expiry::warning(node, now)
            .or_else(|| self.stranded(node, issuer, now))
            .or_else(|| promoted(node, own));
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

    /// Whether the last certificate that was made for a node counts under the root of today.
    fn is_given_a_good_one(&self, node: &Node, now: Timestamp) -> bool {
        let Some(certificate) = node.certificate.as_ref() else {
            return false;
        };
        let (Some(roots), pem) = (&self.roots, &certificate.certificate) else {
            return false;
        };
        // Whether it has expired is another matter.
        chain::validate(pem, roots, now, Expiry::Allow).is_ok()
    }

    /// A node that was away when a rotation ended.
    fn stranded(&self, node: &Node, issuer: &str, now: Timestamp) -> Option<expiry::Warning> {
        if issuer != "another root" || node.status.state == swarm_types::NodeState::Ready {
            return None;
        }
        // What it reported last may be older than what it was given since, and an authority in the
        // middle has a name of its own.
        let (text, next_step) = if self.is_given_a_good_one(node, now) {
            let again = advice::start_again(node, &node.id.to_string());
            (
                "it was away when the root CA changed, and has been given a certificate of the \
                 new one",
                format!("{again}; if it never took that: {}", advice::readmit(node)),
            )
        } else {
            (
                "its certificate is from an earlier root CA, so it cannot connect",
                advice::readmit(node),
            )
        };
        Some(expiry::Warning {
            node: node.id.clone(),
            not_after: Timestamp::EPOCH,
            text: text.to_owned(),
            next_step,
        })
    }
}

/// A node that is to be a manager and cannot.
fn promoted(node: &Node, own: Option<&NodeId>) -> Option<expiry::Warning> {
    let text = policy::promoted(node, own)?;
    Some(expiry::Warning {
        node: node.id.clone(),
        not_after: Timestamp::EPOCH,
        text: format!("it {text}"),
        next_step: format!("swarmctl node demote {}", node.id),
    })
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

    /// A node that did not report since is told from one that was given nothing since.
    #[test]
    fn only_a_node_without_a_good_certificate_cannot_connect() {
        let mut world = World::new();
        let (own, other) = (
            *world.root.cluster().unwrap().root_ca.clone().unwrap(),
            root_ca(at(0)),
        );
        let certify = |root: &v1::RootCa| {
            let key = crate::key::KeyPem::from_bytes(&root.ca_key).unwrap();
            let pem = String::from_utf8(root.ca_cert.to_vec()).unwrap();
            let signer = crate::issue::Signer::new(&pem, &key, "").unwrap();
            let request = crate::csr::request(&crate::csr::new_key()).unwrap();
            let subject = crate::issue::Subject {
                node: "w".parse().unwrap(),
                cluster: "c".parse().unwrap(),
                role: v1::NodeRole::Worker,
            };
            let life = std::time::Duration::from_secs(90 * 24 * 3600);
            let chain = signer.sign(request.as_bytes(), &subject, life, at(0), [1; 20]);
            v1::Certificate {
                certificate: chain.unwrap().into(),
                ..Default::default()
            }
        };
        for (root, text, step) in [
            (
                &own,
                "has been given a certificate",
                "start `swarmd` on w again; if",
            ),
            (
                &other,
                "so it cannot connect",
                "swarmctl node readmit w, and start",
            ),
        ] {
            let certificate = certify(root);
            world.node("w", |node| {
                report(node, &other.ca_cert);
                node.status.state = NodeState::Down;
                node.certificate = Some(Box::new(certificate));
            });
            let status = of(&world.root, world.now, None).unwrap();
            let told = &status.nodes[0];
            assert!(told.warning.contains(text), "{}", told.warning);
            assert!(told.next_step.starts_with(step), "{}", told.next_step);
        }
    }

    #[test]
    fn a_node_that_is_promoted_in_vain_is_to_be_demoted() {
        let mut world = World::new();
        for name in ["m", "w"] {
            world.node(name, |node| {
                Arc::make_mut(&mut node.spec).desired_role = v1::NodeRole::Manager as i32;
            });
        }
        let own = "m".parse().unwrap();
        let status = of(&world.root, world.now, Some(&own)).unwrap();
        assert_eq!(status.nodes[0].warning, "");
        let told = &status.nodes[1];
        assert!(
            told.warning.contains("a second manager cannot run"),
            "{}",
            told.warning
        );
        assert_eq!(told.next_step, "swarmctl node demote w");
    }
}
