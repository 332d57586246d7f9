//! Requests about the cluster object (spec 21.2).
//!
//! Owns what an answer may show of it: everything is left out that is not named in [`redacted`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_ca::change::{self, Decision, NewRoot, Plan as RootPlan};
use swarm_ca::requests::MANAGER_SUBSYSTEM;
use swarm_ca::rotation::join_token;
use swarm_ca::{tokens, unlock};
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::{Cluster, ClusterId, Kind, Timestamp, convert, defaults};

use crate::filter::Common;
use crate::plan::Plan;
use crate::refusal::{OUT_OF_SEQUENCE, Refusal, rules};
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
    ROOT_INVALID: InvalidArgument, "{}";
    ROOT_UNUSABLE: Internal, "{}";
    ROOT_MISSING: FailedPrecondition, "{}: try again when the first manager has started";
    NOT_LOCKED: FailedPrecondition,
        "managers are not locked, so there is no unlock key to replace: switch auto-lock on, which \
         makes one";
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

/// What an update of the cluster needs that only a shell can make, for the decision that was taken
/// before it.
#[derive(Clone, Debug, PartialEq)]
pub struct CaMaterial {
    /// What [`decide_root`] said.
    pub decision: Decision,
    /// The new root, if one is needed.
    pub new_root: Option<NewRoot>,
}

impl CaMaterial {
    /// For a decision that needs nothing.
    pub fn none() -> Self {
        Self {
            decision: Decision {
                checks: Vec::new(),
                plan: RootPlan::Keep,
            },
            new_root: None,
        }
    }
}

/// What an update means for the root of the cluster. The shell checks and makes what the decision
/// needs, then calls [`update_cluster`] with it.
///
/// # Errors
/// As [`update_cluster`].
pub fn decide_root(
    view: &Root,
    request: &v1::UpdateClusterRequest,
    now: Timestamp,
) -> Result<Decision, Refusal> {
    let id: ClusterId = request::id(&request.cluster_id)?;
    request::version(request.cluster_version.as_ref())?;
    let spec = request::spec(Kind::Cluster, request.spec.clone())?;
    check_spec(&spec)?;
    decide(found(view, &id)?, &spec, now)
}

/// Replaces the spec of the cluster, rotates what is to be rotated, and drops removed nodes whose
/// certificate expired long ago.
///
/// # Errors
/// `InvalidArgument` for a malformed spec or a root that cannot be used, `NotFound`,
/// `FailedPrecondition` for a new unlock key without auto-lock, `Unknown` for a stale version.
pub fn update_cluster(
    root: &Root,
    ctx: &mut Ctx<'_>,
    request: v1::UpdateClusterRequest,
    material: &CaMaterial,
) -> Result<Plan<v1::UpdateClusterResponse>, Refusal> {
    let id: ClusterId = request::id(&request.cluster_id)?;
    let version = request::version(request.cluster_version.as_ref())?;
    let mut spec = request::spec(Kind::Cluster, request.spec)?;
    check_spec(&spec)?;
    let stored = found(root, &id)?;
    let rotation = request.rotation.unwrap_or_default();
    let decision = decide(stored, &spec, ctx.now)?;
    if decision != material.decision {
        // The cluster is not the one for which the material was made.
        return Err(OUT_OF_SEQUENCE.plain());
    }
    let mut cluster = (**stored).clone();
    cluster.meta.version = version;
    let force_rotate = forget_signing_pair(&mut spec);
    cluster.spec = Arc::new(spec);
    if let Some(root_ca) = cluster.root_ca.take() {
        let new_root = material.new_root.as_ref();
        let root_ca = change::apply(&root_ca, &decision.plan, force_rotate, new_root);
        cluster.root_ca = Some(Box::new(root_ca));
    }
    rotate_tokens(&mut cluster, &rotation, ctx)?;
    settle_unlock_key(&mut cluster, rotation.manager_unlock_key, ctx)?;
    drop_expired(&mut cluster.blacklisted_certificates, ctx.now);
    let writes = WriteSet(vec![Write::update(cluster)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let cluster = after.get::<Cluster>(&ClusterId::new(id.clone()))?;
        Some(v1::UpdateClusterResponse {
            cluster: Some(redacted(cluster)),
        })
    }))
}

/// A cluster of nodes without certificates has no root, and none can be changed.
fn decide(cluster: &Cluster, spec: &v1::ClusterSpec, now: Timestamp) -> Result<Decision, Refusal> {
    let wanted = spec.ca_config.clone().unwrap_or_default();
    let is_plain = v1::CaConfig {
        node_cert_expiry: None,
        ..wanted.clone()
    } == v1::CaConfig::default();
    if cluster.root_ca.is_none() && is_plain {
        return Ok(CaMaterial::none().decision);
    }
    Ok(change::decide(cluster, &wanted, now)?)
}

impl From<swarm_ca::Refusal> for Refusal {
    fn from(refusal: swarm_ca::Refusal) -> Self {
        let rule = match refusal.code {
            swarm_ca::Code::Internal => ROOT_UNUSABLE,
            swarm_ca::Code::Aborted => ROOT_MISSING,
            swarm_ca::Code::InvalidArgument
            | swarm_ca::Code::NotFound
            | swarm_ca::Code::PermissionDenied
            | swarm_ca::Code::FailedPrecondition
            | swarm_ca::Code::ResourceExhausted => ROOT_INVALID,
        };
        rule.refuse(&[&refusal.message])
    }
}

/// The pair that a user brings is kept with the root alone: a spec is shown, changed and sent back,
/// and nobody needs the key in there.
fn forget_signing_pair(spec: &mut v1::ClusterSpec) -> u64 {
    let Some(config) = &mut spec.ca_config else {
        return 0;
    };
    config.signing_ca_cert.clear();
    config.signing_ca_key.clear();
    config.force_rotate
}

/// New secrets for the tokens that are asked for; they hold the digest of the root that nodes trust
/// at present, also during a rotation.
fn rotate_tokens(
    cluster: &mut Cluster,
    rotation: &v1::KeyRotation,
    ctx: &mut Ctx<'_>,
) -> Result<(), Refusal> {
    if !rotation.worker_join_token && !rotation.manager_join_token {
        return Ok(());
    }
    let Some(mut root_ca) = cluster.root_ca.take() else {
        return Err(ROOT_MISSING.refuse(&[&"the cluster has no root CA yet"]));
    };
    let mut token = || join_token(cluster, &root_ca.ca_cert, tokens::secret(ctx.ids));
    let worker = rotation.worker_join_token.then(&mut token);
    let manager = rotation.manager_join_token.then(&mut token);
    let tokens = root_ca.join_tokens.get_or_insert_default();
    tokens.worker = worker.unwrap_or_else(|| std::mem::take(&mut tokens.worker));
    tokens.manager = manager.unwrap_or_else(|| std::mem::take(&mut tokens.manager));
    cluster.root_ca = Some(root_ca);
    Ok(())
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

/// The unlock key of managers: there is one while auto-lock is on, and another when that is asked
/// for. Keys of other subsystems are not looked at.
fn settle_unlock_key(
    cluster: &mut Cluster,
    is_rotated: bool,
    ctx: &mut Ctx<'_>,
) -> Result<(), Refusal> {
    let config = cluster.spec.encryption_config.as_ref();
    let is_managers = |key: &v1::EncryptionKey| key.subsystem == MANAGER_SUBSYSTEM;
    if !config.is_some_and(|config| config.auto_lock_managers) {
        if is_rotated {
            return Err(NOT_LOCKED.plain());
        }
        cluster.unlock_keys.retain(|key| !is_managers(key));
        return Ok(());
    }
    let place = cluster.unlock_keys.iter().position(is_managers);
    if place.is_some() && !is_rotated {
        return Ok(());
    }
    let key = v1::EncryptionKey {
        subsystem: MANAGER_SUBSYSTEM.to_owned(),
        key: unlock::draw(ctx.ids).to_vec().into(),
        ..Default::default()
    };
    match place.and_then(|at| cluster.unlock_keys.get_mut(at)) {
        Some(place) => *place = key,
        None => cluster.unlock_keys.push(key),
    }
    Ok(())
}

#[cfg(test)]
mod tests;
