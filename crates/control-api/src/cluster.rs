//! Requests about the cluster object (spec 21.2).
//!
//! Owns what an answer may show of it: everything is left out that is not named in [`redacted`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{Cluster, ClusterId, Kind, Timestamp, convert, defaults};

use crate::filter::Common;
use crate::plan::Plan;
use crate::refusal::{Refusal, rules};
use crate::request;
use crate::validate::duration;

/// The shortest life of a node certificate: one hour, in nanoseconds.
const NODE_CERT_EXPIRY_NANOS_MIN: i64 = 60 * 60 * 1_000_000_000;
/// How long the certificate of a removed node stays listed after it expired.
const EXPIRED_CERTIFICATE_GRACE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// What is shown while no address pool is set; the allocator uses the same.
const ADDRESS_POOL_SHOWN: &str = "10.0.0.0/8";
/// Prefix length that is shown while no address pool is set.
const SUBNET_SIZE_SHOWN: u32 = 24;
/// What is shown while no VXLAN port is set; the IANA number.
const VXLAN_PORT_SHOWN: u32 = 4789;

rules! {
    CERT_EXPIRY_TOO_SHORT: InvalidArgument, "minimum certificate expiry time is: 1h0m0s";
    HASHING_UNSUPPORTED: InvalidArgument, "hashing algorithm is not supported: {}";
    HEARTBEAT_NEGATIVE: InvalidArgument, "heartbeat time period cannot be a negative duration";
    CLUSTER_RENAMED: InvalidArgument, "modification of cluster name is not allowed";
    CLUSTER_CHANGE_UNIMPLEMENTED: Unimplemented,
        "UpdateCluster: {} is not implemented yet; leave it as it is";
}

/// Answers with one cluster, redacted.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn get_cluster(
    view: &Root,
    request: v1::GetClusterRequest,
) -> Result<v1::GetClusterResponse, Refusal> {
    let id: ClusterId = request::id(&request.cluster_id)?;
    let cluster = found(view, &id)?;
    Ok(v1::GetClusterResponse {
        cluster: Some(redacted(cluster)),
    })
}

/// Answers with the clusters that pass the filters, redacted.
///
/// # Errors
/// None at present.
pub fn list_clusters(
    view: &Root,
    request: v1::ListClustersRequest,
) -> Result<v1::ListClustersResponse, Refusal> {
    let filters = request.filters.unwrap_or_default();
    let common = Common::new(
        &filters.names,
        &filters.name_prefixes,
        &filters.id_prefixes,
        &filters.labels,
    );
    let clusters = view.find::<Cluster>(&common.lookup().unwrap_or(By::All))?;
    let admitted = clusters.iter().filter(|cluster| {
        let annotations = cluster.spec.annotations.as_ref();
        common.admits(
            Some(annotations.map_or("", |annotations| &annotations.name)),
            &cluster.id.to_string(),
            annotations.map(|annotations| &annotations.labels),
        )
    });
    Ok(v1::ListClustersResponse {
        clusters: admitted.map(|cluster| redacted(cluster)).collect(),
    })
}

/// Replaces the spec of the cluster, and drops removed nodes whose certificate expired long ago.
///
/// # Errors
/// `InvalidArgument` for a malformed spec, `NotFound`, `Unimplemented` for rotations and for
/// changes to the CA or to auto-lock, `Unknown` for a stale version.
pub fn update_cluster(
    root: &Root,
    ctx: &mut Ctx<'_>,
    request: v1::UpdateClusterRequest,
) -> Result<Plan<v1::UpdateClusterResponse>, Refusal> {
    let id: ClusterId = request::id(&request.cluster_id)?;
    let version = request::version(request.cluster_version.as_ref())?;
    let spec = request::spec(Kind::Cluster, request.spec)?;
    check_spec(&spec)?;
    let stored = found(root, &id)?;
    refuse_rotation(request.rotation.as_ref())?;
    refuse_identity_change(&stored.spec, &spec)?;
    let mut cluster = (**stored).clone();
    cluster.meta.version = version;
    cluster.spec = Arc::new(spec);
    drop_expired(&mut cluster.blacklisted_certificates, ctx.now);
    let writes = WriteSet(vec![Write::update(cluster)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let cluster = after.get::<Cluster>(&ClusterId::new(id.clone()))?;
        Some(v1::UpdateClusterResponse {
            cluster: Some(redacted(cluster)),
        })
    }))
}

/// Removes entries of nodes whose certificate expired more than seven days before `now`. An entry
/// without an expiry stays for ever.
pub(crate) fn drop_expired(
    certificates: &mut BTreeMap<String, v1::BlacklistedCertificate>,
    now: Timestamp,
) {
    let limit = now.saturating_sub(EXPIRED_CERTIFICATE_GRACE);
    certificates.retain(|_, certificate| {
        let expiry = certificate.expiry.as_ref().and_then(Timestamp::from_wire);
        expiry.is_none_or(|expiry| expiry >= limit)
    });
}

fn found<'a>(view: &'a Root, id: &ClusterId) -> Result<&'a Arc<Cluster>, Refusal> {
    view.get::<Cluster>(id)
        .ok_or_else(|| request::not_found(Kind::Cluster, id))
}

/// What an answer shows. A field that is not named here is not shown: the object also holds
/// gossip keys and unlock keys.
fn redacted(cluster: &Cluster) -> v1::Cluster {
    let wire = convert::cluster_to_wire(cluster);
    let mut spec = wire.spec.unwrap_or_default();
    if let Some(config) = &mut spec.ca_config {
        config.signing_ca_key.clear();
        // Not secret, but a client that sends the spec back would ask for a CA without a key.
        config.signing_ca_cert.clear();
    }
    let mut root_ca = wire.root_ca.unwrap_or_default();
    root_ca.ca_key.clear();
    if let Some(rotation) = &mut root_ca.root_rotation {
        rotation.ca_key.clear();
    }
    let has_pool = !wire.default_address_pool.is_empty();
    v1::Cluster {
        id: wire.id,
        meta: wire.meta,
        spec: Some(spec),
        root_ca: Some(root_ca),
        blacklisted_certificates: wire.blacklisted_certificates,
        default_address_pool: if has_pool {
            wire.default_address_pool
        } else {
            vec![ADDRESS_POOL_SHOWN.to_owned()]
        },
        subnet_size: if has_pool {
            wire.subnet_size
        } else {
            SUBNET_SIZE_SHOWN
        },
        vxlanudp_port: match wire.vxlanudp_port {
            0 => VXLAN_PORT_SHOWN,
            port => port,
        },
        ..v1::Cluster::default()
    }
}

fn check_spec(spec: &v1::ClusterSpec) -> Result<(), Refusal> {
    if let Some(expiry) = spec
        .ca_config
        .as_ref()
        .and_then(|config| config.node_cert_expiry.as_ref())
    {
        let nanos = duration::nanos(expiry).ok_or_else(|| request::INVALID_ARGUMENT.plain())?;
        if nanos < NODE_CERT_EXPIRY_NANOS_MIN {
            return Err(CERT_EXPIRY_TOO_SHORT.plain());
        }
    }
    check_acceptance_policy(spec.acceptance_policy.as_ref())?;
    if let Some(period) = spec
        .dispatcher
        .as_ref()
        .and_then(|config| config.heartbeat_period.as_ref())
    {
        let nanos = duration::nanos(period).ok_or_else(|| request::INVALID_ARGUMENT.plain())?;
        if nanos < 0 {
            return Err(HEARTBEAT_NEGATIVE.plain());
        }
    }
    let name = spec
        .annotations
        .as_ref()
        .map_or("", |annotations| &annotations.name);
    if name != defaults::CLUSTER_NAME {
        return Err(CLUSTER_RENAMED.plain());
    }
    Ok(())
}

fn check_acceptance_policy(policy: Option<&v1::AcceptancePolicy>) -> Result<(), Refusal> {
    for policy in policy.map_or(&[][..], |policy| &policy.policies) {
        request::known::<v1::NodeRole>("ClusterSpec.acceptance_policy.role", policy.role)?;
        if let Some(secret) = &policy.secret
            && !secret.alg.eq_ignore_ascii_case("bcrypt")
        {
            return Err(HASHING_UNSUPPORTED.refuse(&[&secret.alg]));
        }
    }
    Ok(())
}

fn refuse_rotation(rotation: Option<&v1::KeyRotation>) -> Result<(), Refusal> {
    let Some(rotation) = rotation else {
        return Ok(());
    };
    let asked = [
        (rotation.worker_join_token, "rotation.worker_join_token"),
        (rotation.manager_join_token, "rotation.manager_join_token"),
        (rotation.manager_unlock_key, "rotation.manager_unlock_key"),
    ];
    refuse_first(asked)
}

/// Refuses changes that only a certificate authority or a sealed log could carry out. A client
/// that sends back what it read changes none of this, because answers hide the signing pair.
fn refuse_identity_change(
    stored: &v1::ClusterSpec,
    wanted: &v1::ClusterSpec,
) -> Result<(), Refusal> {
    let ca = |spec: &v1::ClusterSpec| spec.ca_config.clone().unwrap_or_default();
    let auto_lock = |spec: &v1::ClusterSpec| {
        spec.encryption_config
            .as_ref()
            .is_some_and(|config| config.auto_lock_managers)
    };
    let (stored_ca, wanted_ca) = (ca(stored), ca(wanted));
    refuse_first([
        (
            !wanted_ca.signing_ca_cert.is_empty(),
            "ca_config.signing_ca_cert",
        ),
        (
            !wanted_ca.signing_ca_key.is_empty(),
            "ca_config.signing_ca_key",
        ),
        (
            wanted_ca.force_rotate != stored_ca.force_rotate,
            "a change of ca_config.force_rotate",
        ),
        (
            wanted_ca.external_cas != stored_ca.external_cas,
            "a change of ca_config.external_cas",
        ),
        (
            auto_lock(wanted) != auto_lock(stored),
            "a change of encryption_config.auto_lock_managers",
        ),
    ])
}

fn refuse_first<const N: usize>(asked: [(bool, &'static str); N]) -> Result<(), Refusal> {
    match asked.iter().find(|(asked, _)| *asked) {
        Some((_, field)) => Err(CLUSTER_CHANGE_UNIMPLEMENTED.refuse(&[field])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
