//! Requests about nodes (spec 21.5).
//!
//! Does not own the Raft group: who is a member of it is handed in.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_api::v1;
use swarm_ca::{expiry, policy};
use swarm_reconcile::Ctx;
use swarm_store::{By, Root, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX, Write, WriteSet};
use swarm_types::{
    Kind, LEFT_BEHIND, Node, NodeId, NodeState, TaskState, TaskStatus, Timestamp, convert, weights,
};
use v1::node_spec::{Availability, Membership};
use v1::raft_member_status::Reachability;

use crate::cluster::drop_expired;
use crate::filter::{Common, OneOf, has_labels};
use crate::plan::Plan;
use crate::refusal::{Refusal, rules};
use crate::request;

/// Tasks that are orphaned in the transaction that removes their node, at most.
const REMOVAL_TASKS_MAX: usize = TRANSACTION_CHANGES_MAX - 2;

rules! {
    PROMOTES_IN_VAIN: FailedPrecondition,
        "node {} cannot be promoted: {}; it stays a worker";
    DEMOTES_LAST_MANAGER: FailedPrecondition,
        "attempting to demote the last manager of the swarm";
    DEMOTION_LOSES_QUORUM: FailedPrecondition,
        "can't remove member from the raft: this would result in a loss of quorum";
    MANAGER_WEIGHT: InvalidArgument,
        "NodeSpec: label {} must be a whole number from 0 to {}, not {}";
    MEMBERS_UNKNOWN: FailedPrecondition,
        "node {} is a manager but cannot access node information from the raft memberlist";
    IS_MEMBER: FailedPrecondition,
        "node {} is a cluster manager and is a member of the raft cluster. It must be demoted to \
         worker before removal";
    NODE_NOT_DOWN: FailedPrecondition, "node {} is not down and can't be removed";
    CLUSTER_MISSING: Internal, "could not fetch cluster object";
}

/// A manager, as the Raft group knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its number in the group.
    pub raft_id: u64,
    /// Where its peers reach it.
    pub addr: String,
    /// Whether it leads.
    pub leader: bool,
    /// Whether the leader reaches it.
    pub reachability: Reachability,
}

/// The managers of the Raft group.
pub type Members = BTreeMap<NodeId, Member>;

/// Answers with one node.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`.
pub fn get_node(
    view: &Root,
    members: &Members,
    request: v1::GetNodeRequest,
) -> Result<v1::GetNodeResponse, Refusal> {
    let id: NodeId = request::id(&request.node_id)?;
    let node = found(view, &id)?;
    Ok(v1::GetNodeResponse {
        node: Some(shown(node, members)),
    })
}

/// Answers with the nodes that pass the filters. `labels` are those of the engine, `node_labels`
/// those of the user; the name of a node is its host name.
///
/// # Errors
/// `InvalidArgument` for an unknown role or membership.
pub fn list_nodes(
    view: &Root,
    members: &Members,
    request: v1::ListNodesRequest,
) -> Result<v1::ListNodesResponse, Refusal> {
    let filters = request.filters.unwrap_or_default();
    let common = Common::new(
        &filters.names,
        &filters.name_prefixes,
        &filters.id_prefixes,
        &filters.labels,
    );
    let roles = one_of::<v1::NodeRole>("filters.roles", &filters.roles)?;
    let memberships = one_of::<Membership>("filters.memberships", &filters.memberships)?;
    let by = common
        .lookup()
        .or_else(|| roles.lookup(|role| v1::NodeRole::try_from(*role).ok().map(By::Role)))
        .or_else(|| {
            memberships.lookup(|number| Membership::try_from(*number).ok().map(By::Membership))
        })
        .unwrap_or(By::All);
    let nodes = view.find::<Node>(&by)?;
    let admitted = nodes.iter().filter(|node| {
        let description = node.description.as_deref();
        let engine = description.and_then(|description| description.engine.as_ref());
        let own = node.spec.annotations.as_ref();
        common.admits(
            description.map(|description| description.hostname.as_str()),
            &node.id.to_string(),
            engine.map(|engine| &engine.labels),
        ) && has_labels(&filters.node_labels, own.map(|own| &own.labels))
            && roles.admits(&(node.role as i32))
            && memberships.admits(&node.spec.membership)
    });
    Ok(v1::ListNodesResponse {
        nodes: admitted.map(|node| shown(node, members)).collect(),
    })
}

/// Replaces the spec of a node.
///
/// # Errors
/// `InvalidArgument` for a malformed request, `NotFound`, `FailedPrecondition` for a promotion, and
/// for the demotion of the last manager or of one without which the others have no quorum,
/// `Unknown` for a stale version.
pub fn update_node(
    root: &Root,
    members: &Members,
    request: v1::UpdateNodeRequest,
) -> Result<Plan<v1::UpdateNodeResponse>, Refusal> {
    let id: NodeId = request::id(&request.node_id)?;
    let version = request::version(request.node_version.as_ref())?;
    let spec = request::spec(Kind::Node, request.spec)?;
    request::known::<v1::NodeRole>("NodeSpec.desired_role", spec.desired_role)?;
    request::known::<Membership>("NodeSpec.membership", spec.membership)?;
    request::known::<Availability>("NodeSpec.availability", spec.availability)?;
    check_weight(&spec)?;
    let stored = found(root, &id)?;
    check_role_change(root, members, stored, &spec)?;
    let mut node = (**stored).clone();
    node.meta.version = version;
    node.spec = Arc::new(spec);
    let writes = WriteSet(vec![Write::update(node)]);
    Ok(Plan::new(writes, id.as_id(), |after, id| {
        let node = after.node(&NodeId::new(id.clone()))?;
        Some(v1::UpdateNodeResponse {
            node: Some(convert::node_to_wire(node)),
        })
    }))
}

/// The label that says how much nodes prefer this manager, if there is one.
fn check_weight(spec: &v1::NodeSpec) -> Result<(), Refusal> {
    match weights::label(spec) {
        Some(text) if weights::parse(text).is_none() => {
            let (label, most) = (weights::MANAGER_WEIGHT_LABEL, weights::MANAGER_WEIGHT_MAX);
            Err(MANAGER_WEIGHT.refuse(&[&label, &most, &text]))
        }
        Some(_) | None => Ok(()),
    }
}

/// Removes a node: lists its certificate as removed, orphans its tasks that have not ended, and
/// deletes it, all in one transaction. Of more tasks than fit one the dispatcher orphans the rest,
/// in as many as it takes; so it does after a change of leader. `members` is `None` while the Raft
/// group is unavailable.
///
/// The entry for its certificate is dropped a week after the certificate ended; without a
/// certificate that can be read it stays for ever.
///
/// # Errors
/// `InvalidArgument` without an id, `NotFound`, `FailedPrecondition` for a member of the Raft group
/// and, unless forced, for a node that is READY.
pub fn remove_node(
    root: &Root,
    members: Option<&Members>,
    ctx: &mut Ctx<'_>,
    request: v1::RemoveNodeRequest,
) -> Result<Plan<v1::RemoveNodeResponse>, Refusal> {
    let id: NodeId = request::id(&request.node_id)?;
    let node = found(root, &id)?;
    if node.spec.desired_role == v1::NodeRole::Manager as i32 {
        let members = members.ok_or_else(|| MEMBERS_UNKNOWN.refuse(&[&id]))?;
        if members.contains_key(&id) {
            return Err(IS_MEMBER.refuse(&[&id]));
        }
    }
    if !request.force && node.status.state == NodeState::Ready {
        return Err(NODE_NOT_DOWN.refuse(&[&id]));
    }
    let cluster = root.cluster().ok_or_else(|| CLUSTER_MISSING.plain())?;
    let mut cluster = (**cluster).clone();
    let entry = v1::BlacklistedCertificate {
        expiry: expiry::validity(node).map(|(_, not_after)| not_after.to_wire()),
    };
    cluster
        .blacklisted_certificates
        .insert(id.to_string(), entry);
    drop_expired(&mut cluster.blacklisted_certificates, ctx.now);
    let mut writes = vec![Write::update(cluster), Write::delete(&**node)];
    let left = TRANSACTION_BYTES_MAX.saturating_sub(writes.iter().map(Write::bytes).sum());
    writes.extend(orphaned_tasks(root, &id, ctx.now, left));
    Ok(Plan::new(WriteSet(writes), id.as_id(), |_, _| {
        Some(v1::RemoveNodeResponse {})
    }))
}

/// In the same transaction as the removal, as many as fit. Tasks that have ended stay as they are.
fn orphaned_tasks(root: &Root, id: &NodeId, now: Timestamp, bytes_max: usize) -> Vec<Write> {
    let live = root
        .tasks_on_node(id)
        .filter(|task| task.state() < TaskState::Complete);
    let mut left = bytes_max;
    live.map(|task| {
        let mut task = (**task).clone();
        let status = TaskStatus::new(TaskState::Orphaned, now, LEFT_BEHIND);
        task.advance(status)
            .expect("I-TASK-1: ORPHANED is the last of the states");
        Write::update(task)
    })
    .take(REMOVAL_TASKS_MAX)
    .take_while(|write| {
        let fits = write.bytes() <= left;
        left = left.saturating_sub(write.bytes());
        fits
    })
    .collect()
}

fn found<'a>(view: &'a Root, id: &NodeId) -> Result<&'a Arc<Node>, Refusal> {
    view.node(id)
        .ok_or_else(|| request::not_found(Kind::Node, id))
}

/// The node with its part in the Raft group as it is now, which the store does not hold.
fn shown(node: &Node, members: &Members) -> v1::Node {
    let mut wire = convert::node_to_wire(node);
    if let Some(member) = members.get(&node.id) {
        wire.manager_status = Some(v1::ManagerStatus {
            raft_id: member.raft_id,
            addr: member.addr.clone(),
            leader: member.leader,
            reachability: member.reachability as i32,
        });
    }
    wire
}

/// No node is promoted as long as no second manager can run: a Go node would stop to be a worker
/// and never be a manager. One that was promoted before can be demoted as it is (SwarmKit wants it
/// to join the group first).
fn check_role_change(
    root: &Root,
    members: &Members,
    node: &Node,
    wanted: &v1::NodeSpec,
) -> Result<(), Refusal> {
    let wants_manager = |spec: &v1::NodeSpec| spec.desired_role == v1::NodeRole::Manager as i32;
    if wants_manager(wanted) && !wants_manager(&node.spec) {
        return Err(PROMOTES_IN_VAIN.refuse(&[&node.id, &policy::NO_SECOND_MANAGER]));
    }
    let is_demoted = node.spec.desired_role == v1::NodeRole::Manager as i32
        && wanted.desired_role == v1::NodeRole::Worker as i32;
    if !is_demoted {
        return Ok(());
    }
    let managers = root.find::<Node>(&By::Role(v1::NodeRole::Manager))?;
    if managers.len() == 1 && managers[0].id == node.id {
        return Err(DEMOTES_LAST_MANAGER.plain());
    }
    let others = members
        .iter()
        .filter(|(id, member)| **id != node.id && member.reachability == Reachability::Reachable);
    if members.contains_key(&node.id) && others.count() < (members.len() - 1) / 2 + 1 {
        return Err(DEMOTION_LOSES_QUORUM.plain());
    }
    Ok(())
}

fn one_of<E: TryFrom<i32>>(field: &str, numbers: &[i32]) -> Result<OneOf<i32>, Refusal> {
    for number in numbers {
        request::known::<E>(field, *number)?;
    }
    Ok(OneOf::new(numbers.iter().copied()))
}

#[cfg(test)]
mod tests;
