//! Reports about cluster volumes.

use swarm_api::v1;
use swarm_types::{NodeState, Volume, VolumeId};
use v1::update_volume_status_request::VolumeStatusUpdate;
use v1::volume_publish_status::State::{self, PendingNodeUnpublish, PendingUnpublish, Published};

use super::rig::{Rig, node, node_id};

fn volume(id: &str, published: &[(&str, State)]) -> Volume {
    let mut volume = Volume::new(id.parse().unwrap(), v1::VolumeSpec::default());
    volume.publish_status = published
        .iter()
        .map(|(node, state)| v1::VolumePublishStatus {
            node_id: (*node).to_owned(),
            state: *state as i32,
            ..Default::default()
        })
        .collect();
    volume
}

fn released(id: &str) -> VolumeStatusUpdate {
    VolumeStatusUpdate {
        id: id.to_owned(),
        unpublished: true,
    }
}

fn states(rig: &Rig, id: &str) -> Vec<State> {
    let id: VolumeId = id.parse().unwrap();
    let statuses = &rig.view.get::<Volume>(&id).unwrap().publish_status;
    statuses
        .iter()
        .map(|status| State::try_from(status.state).unwrap())
        .collect()
}

#[test]
fn a_node_lets_go_of_a_volume_that_waits_for_it_and_of_no_other() {
    let mut rig = Rig::new(vec![
        node("a", NodeState::Ready),
        node("b", NodeState::Ready),
    ]);
    rig.commit(|transaction| {
        let waiting = [("a", PendingNodeUnpublish), ("b", PendingNodeUnpublish)];
        transaction.create(volume("v", &waiting)).unwrap();
        let published = [("a", Published)];
        transaction.create(volume("p", &published)).unwrap();
        let others = [("b", PendingNodeUnpublish)];
        transaction.create(volume("o", &others)).unwrap();
    });
    let session = rig.registered("a").session.to_string();
    let mut updates = vec![
        released("v"),
        released("p"),
        released("o"),
        released("gone"),
    ];
    updates.push(released(""));
    updates.push(released("v"));
    let before = rig.view.version();
    let (now, view) = (rig.now, rig.view.clone());
    rig.dispatcher
        .handle_volume_statuses(now, &node_id("a"), &session, &updates, &view)
        .unwrap();
    rig.flush();
    assert!(rig.view.version() > before);
    assert_eq!(states(&rig, "v"), [PendingUnpublish, PendingNodeUnpublish]);
    assert_eq!(states(&rig, "p"), [Published]);
    assert_eq!(states(&rig, "o"), [PendingNodeUnpublish]);
}

#[test]
fn a_report_without_a_session_is_refused() {
    let mut rig = Rig::new(vec![node("a", NodeState::Ready)]);
    let (now, view) = (rig.now, rig.view.clone());
    let dispatcher = &mut rig.dispatcher;
    let refused =
        dispatcher.handle_volume_statuses(now, &node_id("a"), "x", &[released("v")], &view);
    assert_eq!(refused.unwrap_err().message, "node not registered");
}
