//! Makes what a change of the cluster's root needs: asks external authorities whether they are
//! there, draws the key of a new root, and has the old root sign it.
//!
//! Does not own what is needed (`swarm-ca`), nor the write (`swarm-control-api`).

use bytes::Bytes;
use swarm_api::v1;
use swarm_ca::change::{self, CrossSigner, NewRoot, Plan, Reach, Target};
use swarm_ca::key::KeyPem;
use swarm_ca::{CA_NAME, cfssl, csr, root};
use swarm_control_api::{self as api, CaMaterial, Refusal};
use swarm_rt::chain;
use swarm_rt::tls::{Credentials, https};
use tokio::task::JoinSet;
use tonic::Status;

use crate::services::{Services, refusal};
use crate::signing::{self, Unanswered};

/// Prepares an update of the cluster. Most need nothing.
///
/// # Errors
/// The refusal of the update, or of an authority.
pub(crate) async fn prepare(
    services: &Services,
    request: &v1::UpdateClusterRequest,
) -> Result<CaMaterial, Status> {
    let view = services.store.view();
    let now = services.clock.now();
    let decision = api::decide_root(&view, request, now).map_err(|error| refusal(&error))?;
    let own = Some(&services.credentials);
    for wanted in &decision.checks {
        check(wanted, own).await.map_err(refused)?;
    }
    let new_root = match (&decision.plan, view.cluster()) {
        (Plan::Rotate { target, by }, Some(cluster)) => {
            let (cert_pem, key_pem) = material(target, services);
            let cross_signed_pem = match by {
                CrossSigner::Local => change::cross_sign(cluster, &cert_pem),
                CrossSigner::External(by) => ask_cross_sign(by, &key_pem, own).await,
            };
            Some(NewRoot {
                cross_signed_pem: cross_signed_pem.map_err(refused)?,
                cert_pem,
                key_pem,
            })
        }
        (Plan::Rotate { .. } | Plan::Keep | Plan::Adopt { .. } | Plan::ReplaceKey { .. }, _) => {
            None
        }
    };
    Ok(CaMaterial { decision, new_root })
}

fn refused(error: swarm_ca::Refusal) -> Status {
    refusal(&Refusal::from(error))
}

fn material(target: &Target, services: &Services) -> (Bytes, Bytes) {
    match target {
        Target::Given { cert_pem, key_pem } => (cert_pem.clone(), key_pem.clone()),
        Target::Generate => {
            let (cert_pem, key_pem) = root::new_root(services.clock.now());
            (cert_pem.into(), key_pem.as_bytes().to_vec().into())
        }
    }
}

/// Whether one of the authorities answers; all are asked at once.
async fn check(wanted: &Reach, own: Option<&Credentials>) -> Result<(), swarm_ca::Refusal> {
    let own = own.ok_or_else(|| no_certificate(wanted.label))?;
    let mut asked = JoinSet::new();
    for url in &wanted.urls {
        let server = signing::server(url, &wanted.trust_pem);
        let own = own.clone();
        asked.spawn(async move {
            let checked = https::check(&server, &own).await;
            checked.map_err(|error| format!("{}: {}", server.url, chain(&error)))
        });
    }
    let mut reasons = Vec::new();
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => reasons.push(reason),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    reasons.sort();
    Err(change::unreachable(wanted.label, &reasons.join("; ")))
}

/// Has the authorities of the old root sign the new one: the request is for the new root's key,
/// which shows that the new root is ours.
async fn ask_cross_sign(
    by: &Reach,
    key_pem: &[u8],
    own: Option<&Credentials>,
) -> Result<Bytes, swarm_ca::Refusal> {
    let own = own.ok_or_else(|| no_certificate(by.label))?;
    let failed = |error: &dyn std::fmt::Display| change::not_cross_signed(&error.to_string());
    let key = KeyPem::from_bytes(key_pem).map_err(|error| failed(&error))?;
    let csr = csr::request(&key).map_err(|error| failed(&error))?;
    let body = cfssl::cross_sign_request(&csr, CA_NAME);
    let mut reasons = Vec::new();
    for url in &by.urls {
        match signing::ask_one(url, &by.trust_pem, own, body.clone()).await {
            Ok(certificate) => return Ok(certificate.into()),
            Err(Unanswered::Recoverable(reason) | Unanswered::Refused(reason)) => {
                reasons.push(format!("{url}: {reason}"));
            }
        }
    }
    Err(change::not_cross_signed(&reasons.join("; ")))
}

fn no_certificate(label: &str) -> swarm_ca::Refusal {
    change::unreachable(label, "this manager has no certificate to show to it")
}
