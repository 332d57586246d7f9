//! Who may join: the two tokens of the cluster object, and tokens with limits.
//!
//! A token with limits expires, counts its uses, or belongs to one node that cannot renew its
//! certificate. It is stored as a resource of kind [`KIND`] that holds the token's hash, never the
//! token (`docs/adr/0012-join-tokens-with-limits.md`). SwarmKit has only the two of the cluster.
//!
//! Owns which token admits whom. Does not own the form of a token (`token`), nor what is written
//! for the node that it admits (`requests`).

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use swarm_api::prost_types::{self, Any};
use swarm_api::{ext, v1};
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, Write, WriteSet};
use swarm_types::time::{duration_from_wire, duration_to_wire};
use swarm_types::{IdSource, NodeId, NodeState, Resource, Timestamp};

use crate::policy;
use crate::refusal::{Code, Refusal, shown};
use crate::token::{self, JoinToken};
use crate::waiting;

/// The kind of the resources that hold tokens with limits. No extension may take this name.
pub const KIND: &str = "swarmkit-rs.join-token";
/// Names of these resources begin so; names of resources are unique across all kinds.
const NAME_PREFIX: &str = "swarmkit-rs.join-token.";
/// What the payload is.
const TYPE_URL: &str = "type.googleapis.com/swarmkit_rs.v1.StoredJoinToken";

/// Tokens with limits that a cluster holds at most. Each is compared when a node joins.
pub const TOKENS_MAX: usize = 1_000;
/// Dead tokens are shown for so long, so that people see what became of them. The next creation
/// after that deletes them.
pub const DEAD_TOKENS_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Dead tokens that one creation deletes at most; they share a transaction.
const PURGED_MAX: usize = 100;
/// The longest life that can be asked for: ten years.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// The life of a token for one node, unless another is asked for.
pub const READMISSION_TTL: Duration = Duration::from_secs(3600);
/// Bytes of a note at most.
pub const DESCRIPTION_BYTES_MAX: usize = 256;
/// How many of the nodes that came with a token are remembered.
const USED_BY_MAX: usize = 16;

/// SwarmKit's text; clients show it.
const NECESSARY: &str = "A valid join token is necessary to join this cluster";
/// The names of the roles in requests and answers.
const WORKER: &str = "worker";
const MANAGER: &str = "manager";

/// What a token allows.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Admission {
    /// The role of a new node; that of the node itself, if there is one.
    pub(crate) role: v1::NodeRole,
    /// The only node that may come.
    pub(crate) node: Option<NodeId>,
    /// The token with limits whose uses must be counted.
    pub(crate) counted: Option<Stored>,
}

impl Admission {
    /// What the token is called in words.
    pub(crate) fn name(&self) -> String {
        match &self.counted {
            Some(stored) => format!("token {}", stored.resource.id),
            None => waiting::cluster_token(self.role).to_owned(),
        }
    }
}

/// A token with limits and the object that holds it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Stored {
    resource: Arc<Resource>,
    content: ext::StoredJoinToken,
}

/// Whether a token with limits is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Validity {
    Valid,
    Expired,
    UsedUp,
    OtherRoot,
}

impl Validity {
    fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Expired => "expired",
            Self::UsedUp => "used up",
            Self::OtherRoot => "made for another root CA",
        }
    }
}

impl Stored {
    fn read(resource: &Arc<Resource>) -> Option<Self> {
        let payload = resource.payload.as_ref()?;
        let content = ext::StoredJoinToken::decode(&*payload.value).ok()?;
        Some(Self {
            resource: Arc::clone(resource),
            content,
        })
    }

    fn expires_at(&self) -> Option<Timestamp> {
        self.content
            .expires_at
            .as_ref()
            .and_then(Timestamp::from_wire)
    }

    fn uses_left(&self) -> Option<u32> {
        let allowed = self.content.uses_allowed;
        (allowed > 0).then(|| allowed.saturating_sub(self.content.uses))
    }

    fn validity(&self, root_digest: &str, now: Timestamp) -> Validity {
        if self.content.root_digest != root_digest {
            Validity::OtherRoot
        } else if self.uses_left() == Some(0) {
            Validity::UsedUp
        } else if self.expires_at().is_some_and(|at| at <= now) {
            Validity::Expired
        } else {
            Validity::Valid
        }
    }

    /// Since when it is dead; `None` while it is valid.
    fn dead_since(&self, root_digest: &str, now: Timestamp) -> Option<Timestamp> {
        match self.validity(root_digest, now) {
            Validity::Valid => None,
            Validity::Expired => self.expires_at(),
            Validity::UsedUp | Validity::OtherRoot => Some(self.resource.meta.updated_at),
        }
    }

    fn role(&self) -> Option<v1::NodeRole> {
        role(&self.content.role)
    }

    fn node(&self) -> Option<NodeId> {
        self.content.node_id.parse().ok()
    }

    fn info(&self, root_digest: &str, now: Timestamp) -> ext::JoinToken {
        let content = self.content.clone();
        ext::JoinToken {
            id: self.resource.id.to_string(),
            role: content.role,
            node_id: content.node_id,
            description: content.description,
            created_at: Some(self.resource.meta.created_at.to_wire()),
            expires_at: content.expires_at,
            uses_allowed: content.uses_allowed,
            uses: content.uses,
            used_by: content.used_by,
            state: self.validity(root_digest, now).name().to_owned(),
        }
    }

    /// The write that counts one use, in the same transaction as the node that it admits.
    pub(crate) fn count(&self, node: &NodeId) -> Write {
        let mut content = self.content.clone();
        content.uses = content.uses.saturating_add(1);
        content.used_by.push(node.to_string());
        let surplus = content.used_by.len().saturating_sub(USED_BY_MAX);
        content.used_by.drain(..surplus);
        let mut resource = (*self.resource).clone();
        resource.payload = Some(payload(&content));
        Write::update(resource)
    }
}

/// Makes a token with limits. The answer is the only place where the token appears.
///
/// # Errors
/// `InvalidArgument` for a malformed request, `NotFound` for an unknown node,
/// `FailedPrecondition` for a node that needs no token, `ResourceExhausted` at [`TOKENS_MAX`].
pub fn create(
    view: &Root,
    request: ext::CreateJoinTokenRequest,
    ctx: &mut Ctx<'_>,
) -> Result<(WriteSet, ext::CreateJoinTokenResponse), Refusal> {
    let root_ca = root_ca(view)?;
    let (role, node) = check_subject(view, &request)?;
    let ttl = check_ttl(request.ttl.as_ref())?;
    if request.description.len() > DESCRIPTION_BYTES_MAX {
        let bytes = request.description.len();
        return Err(Refusal::invalid(format!(
            "the description has {bytes} bytes, at most {DESCRIPTION_BYTES_MAX} are kept; \
             shorten it"
        )));
    }
    let mut writes = make_room(view, &root_ca.ca_cert_hash, ctx.now)?;
    let ttl = ttl.or_else(|| node.is_some().then_some(READMISSION_TTL));
    let uses_allowed = match (&node, request.uses) {
        (Some(_), 0) => 1,
        (_, uses) => uses,
    };
    let token = JoinToken::generate(&root_ca.ca_cert, secret(ctx.ids)).to_string();
    let content = ext::StoredJoinToken {
        role: role_name(role).to_owned(),
        token_sha256: hash(&token).to_vec().into(),
        root_digest: root_ca.ca_cert_hash.clone(),
        expires_at: ttl.map(|ttl| ctx.now.saturating_add(ttl).to_wire()),
        uses_allowed,
        uses: 0,
        node_id: node.map(|node| node.to_string()).unwrap_or_default(),
        description: request.description,
        used_by: Vec::new(),
    };
    let id = ctx.ids.next_id();
    let annotations = v1::Annotations {
        name: format!("{NAME_PREFIX}{id}"),
        ..Default::default()
    };
    let mut resource = Resource::new(id.into(), annotations);
    resource.kind = KIND.to_owned();
    resource.payload = Some(payload(&content));
    resource.meta.created_at = ctx.now;
    let resource = Arc::new(resource);
    writes.push(Write::create(Arc::clone(&resource)));
    let stored = Stored { resource, content };
    let info = Some(stored.info(&root_ca.ca_cert_hash, ctx.now));
    Ok((
        WriteSet(writes),
        ext::CreateJoinTokenResponse { token, info },
    ))
}

/// All tokens with limits, in the order of their ids.
pub fn list(view: &Root, now: Timestamp) -> ext::ListJoinTokensResponse {
    let digest = root_ca(view).map_or("", |root_ca| &root_ca.ca_cert_hash);
    let tokens = all(view).map(|stored| stored.info(digest, now)).collect();
    ext::ListJoinTokensResponse { tokens }
}

/// Revokes a token with limits.
///
/// # Errors
/// `NotFound` for an unknown id, `InvalidArgument` for none or for a beginning of several.
pub fn remove(
    view: &Root,
    request: &ext::RemoveJoinTokenRequest,
) -> Result<(WriteSet, ext::RemoveJoinTokenResponse), Refusal> {
    if request.id.is_empty() {
        return Err(Refusal::invalid(
            "RemoveJoinToken: the id of a token is missing",
        ));
    }
    let mut found = all(view).filter(|it| it.resource.id.to_string().starts_with(&request.id));
    let Some(stored) = found.next() else {
        let id = shown(&request.id);
        return Err(Refusal::not_found(format!("join token {id} not found")));
    };
    let id = stored.resource.id.to_string();
    if id != request.id && found.next().is_some() {
        let prefix = shown(&request.id);
        return Err(Refusal::invalid(format!(
            "several join tokens have ids that begin with {prefix}; give more of it"
        )));
    }
    let writes = WriteSet(vec![Write::delete(&*stored.resource)]);
    Ok((writes, ext::RemoveJoinTokenResponse { id }))
}

/// Whether a token would be accepted. Uses nothing up and tells nothing about a secret that the
/// caller does not have.
pub fn check(
    view: &Root,
    request: &ext::CheckJoinTokenRequest,
    now: Timestamp,
) -> ext::CheckJoinTokenResponse {
    let manager_time = Some(now.to_wire());
    match admit(view, &request.token, now) {
        Ok(admission) => {
            let counted = admission.counted.as_ref();
            ext::CheckJoinTokenResponse {
                valid: true,
                reason: String::new(),
                role: role_name(admission.role).to_owned(),
                node_id: admission
                    .node
                    .map(|node| node.to_string())
                    .unwrap_or_default(),
                expires_at: counted.and_then(|stored| stored.content.expires_at),
                uses_left: counted.and_then(Stored::uses_left),
                manager_time,
            }
        }
        Err(refusal) => ext::CheckJoinTokenResponse {
            reason: refusal.message,
            manager_time,
            ..Default::default()
        },
    }
}

/// What a presented token allows. The tokens of the cluster are compared in constant time; those
/// with limits by their hash, which says nothing about the token.
///
/// # Errors
/// `InvalidArgument` with SwarmKit's text and the reason; `FailedPrecondition` for a token that
/// admits managers, as long as no second one can run; `Aborted` before the cluster has a root.
pub(crate) fn admit(view: &Root, text: &str, now: Timestamp) -> Result<Admission, Refusal> {
    let root_ca = root_ca(view)?;
    let tokens = root_ca
        .join_tokens
        .as_ref()
        .ok_or_else(Refusal::still_starting)?;
    if text.is_empty() {
        return Err(Refusal::invalid(NECESSARY));
    }
    let plain = |role| Admission {
        role,
        node: None,
        counted: None,
    };
    let is_manager = token::same(text, &tokens.manager);
    let is_worker = token::same(text, &tokens.worker);
    if is_manager {
        policy::check_new_role(v1::NodeRole::Manager)?;
        return Ok(plain(v1::NodeRole::Manager));
    }
    if is_worker {
        return Ok(plain(v1::NodeRole::Worker));
    }
    let hash = hash(text);
    let known = all(view).find(|stored| stored.content.token_sha256[..] == hash);
    let Some(stored) = known else {
        return Err(unknown(text, &root_ca.ca_cert_hash));
    };
    match stored.validity(&root_ca.ca_cert_hash, now) {
        Validity::Valid => {}
        Validity::Expired => {
            let at = stored.expires_at().unwrap_or_default();
            return Err(necessary(&format!("this one expired at {at}")));
        }
        Validity::UsedUp => {
            let uses = match stored.content.uses_allowed {
                1 => "one use".to_owned(),
                uses => format!("{uses} uses"),
            };
            return Err(necessary(&format!(
                "this one is used up, it was made for {uses}"
            )));
        }
        Validity::OtherRoot => return Err(other_root()),
    }
    let role = stored.role();
    let role = role.ok_or_else(|| necessary("this one names no role that this version knows"))?;
    let node = stored.node();
    let role = match &node {
        Some(_) => policy::role_elsewhere(),
        None => role,
    };
    policy::check_new_role(role)?;
    Ok(Admission {
        role,
        node,
        counted: Some(stored),
    })
}

/// 128 random bits for a token, from ids, which have 129 each.
pub fn secret(ids: &mut dyn IdSource) -> [u8; 16] {
    let digest = hash(&format!("{}{}", ids.next_id(), ids.next_id()));
    let mut secret = [0; 16];
    secret.copy_from_slice(&digest[..16]);
    secret
}

fn root_ca(view: &Root) -> Result<&v1::RootCa, Refusal> {
    view.cluster()
        .and_then(|cluster| cluster.root_ca.as_deref())
        .ok_or_else(Refusal::still_starting)
}

fn all(view: &Root) -> impl Iterator<Item = Stored> {
    let found = view.find::<Resource>(&By::Kind(KIND.to_owned()));
    // Resources can be found by kind, so this is never an error.
    let found = found.unwrap_or_default();
    found
        .into_iter()
        .filter_map(|resource| Stored::read(&resource))
}

fn check_subject(
    view: &Root,
    request: &ext::CreateJoinTokenRequest,
) -> Result<(v1::NodeRole, Option<NodeId>), Refusal> {
    if request.node_id.is_empty() {
        let known = role(&request.role).ok_or_else(|| {
            let role = shown(&request.role);
            Refusal::invalid(format!(
                "CreateJoinToken: the role is `{role}`; it must be `{WORKER}` or `{MANAGER}`"
            ))
        })?;
        policy::check_new_role(known)?;
        return Ok((known, None));
    }
    let shown = shown(&request.node_id);
    if !request.role.is_empty() {
        return Err(Refusal::invalid(format!(
            "CreateJoinToken: node {shown} keeps the role that it has; leave the role empty"
        )));
    }
    let not_found = || Refusal::not_found(format!("node {shown} not found"));
    let id: NodeId = request.node_id.parse().map_err(|_| not_found())?;
    let node = view.node(&id).ok_or_else(not_found)?;
    if node.status.state == NodeState::Ready {
        return Err(Refusal::new(
            Code::FailedPrecondition,
            format!(
                "node {shown} is READY and renews its certificate by itself; a token to readmit \
                 it would only serve a copy of it"
            ),
        ));
    }
    Ok((policy::role_elsewhere(), Some(id)))
}

fn check_ttl(wire: Option<&prost_types::Duration>) -> Result<Option<Duration>, Refusal> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    let ttl = duration_from_wire(wire).filter(|ttl| !ttl.is_zero() && *ttl <= TTL_MAX);
    let ttl = ttl.ok_or_else(|| {
        let max = duration_to_wire(TTL_MAX);
        Refusal::invalid(format!(
            "CreateJoinToken: the ttl is {wire}; it must be more than 0 and at most {max}"
        ))
    })?;
    Ok(Some(ttl))
}

/// Deletes tokens that are dead for long.
fn make_room(view: &Root, root_digest: &str, now: Timestamp) -> Result<Vec<Write>, Refusal> {
    let limit = now.saturating_sub(DEAD_TOKENS_KEPT);
    let mut count = 0;
    let mut old = Vec::new();
    let mut dead = 0;
    for stored in all(view) {
        count += 1;
        let Some(since) = stored.dead_since(root_digest, now) else {
            continue;
        };
        dead += 1;
        if since < limit && old.len() < PURGED_MAX {
            old.push(Write::delete(&*stored.resource));
        }
    }
    if count - old.len() >= TOKENS_MAX {
        return Err(Refusal::new(
            Code::ResourceExhausted,
            format!(
                "there are {count} join tokens with limits ({dead} of them no longer valid), at \
                 most {TOKENS_MAX} are kept; remove some with `swarmctl cluster tokens rm`"
            ),
        ));
    }
    Ok(old)
}

fn unknown(text: &str, root_digest: &str) -> Refusal {
    match JoinToken::parse(text) {
        Err(error) => necessary(&error.to_string()),
        Ok(token) if token.root_digest().to_string() != root_digest => other_root(),
        Ok(_) => necessary("this one is not known here; it was rotated or revoked, or is mistyped"),
    }
}

fn other_root() -> Refusal {
    necessary("this one is for another cluster, or for an earlier root CA of this one")
}

fn necessary(reason: &str) -> Refusal {
    Refusal::invalid(format!("{NECESSARY}: {reason}"))
}

fn hash(text: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest.as_ref());
    bytes
}

fn payload(content: &ext::StoredJoinToken) -> Any {
    Any {
        type_url: TYPE_URL.to_owned(),
        value: content.encode_to_vec(),
    }
}

fn role(name: &str) -> Option<v1::NodeRole> {
    match name {
        WORKER => Some(v1::NodeRole::Worker),
        MANAGER => Some(v1::NodeRole::Manager),
        _ => None,
    }
}

/// The name of a role in requests and answers.
pub(crate) fn role_name(role: v1::NodeRole) -> &'static str {
    match role {
        v1::NodeRole::Worker => WORKER,
        v1::NodeRole::Manager => MANAGER,
    }
}

#[cfg(test)]
mod tests;
