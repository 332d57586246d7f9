//! What nodes report about cluster volumes: that they have let go of one (spec 5.6).
//!
//! A report counts only while the volume waits for this node to let go. Unknown volumes, nodes that
//! do not have the volume, and late reports are skipped: agents repeat a report until it is taken,
//! and SwarmKit's leader dies of one about a volume that is gone.

use swarm_api::v1;
use swarm_store::{Root, Write};
use swarm_types::{NodeId, Volume, VolumeId};
use v1::update_volume_status_request::VolumeStatusUpdate;
use v1::volume_publish_status::State;

/// The volumes of a report that a node has let go of, and that wait for it.
pub(crate) fn check(node: &NodeId, updates: &[VolumeStatusUpdate], view: &Root) -> Vec<VolumeId> {
    let released = updates.iter().filter(|update| update.unpublished);
    released
        .filter_map(|update| update.id.parse().ok())
        .filter(|volume| write(volume, node, view).is_some())
        .collect()
}

/// The write that says so; `None` when the volume does not wait for the node.
pub(crate) fn write(volume: &VolumeId, node: &NodeId, view: &Root) -> Option<Write> {
    let mut volume = (**view.get::<Volume>(volume)?).clone();
    let id = node.to_string();
    let status = volume
        .publish_status
        .iter_mut()
        .find(|it| it.node_id == id)?;
    if status.state != State::PendingNodeUnpublish as i32 {
        return None;
    }
    status.state = State::PendingUnpublish as i32;
    Some(Write::update(volume))
}
