//! Tells the node how its key file is to be sealed.
//!
//! Owns the watch over the cluster object. What it means is decided in `swarm-ca`, and files are
//! the node's. Runs on every manager, whether it leads or not.

use swarm_ca::requests;
use swarm_ca::unlock::Seal;
use swarm_raft_io::ReplicatedStore;
use swarm_rt::Shutdown;
use swarm_rt::tasks::TaskError;
use swarm_store::{Filter, Received, Selector};
use swarm_types::Kind;
use tokio::sync::watch;

/// Watches until the manager stops.
pub(crate) async fn run(
    store: ReplicatedStore,
    wanted: watch::Sender<Option<Seal>>,
    stop: Shutdown,
) -> Result<(), TaskError> {
    loop {
        let filter = Filter::Any(vec![Selector::kind(Kind::Cluster)]);
        let (view, mut feed) = store.store().view_and_watch(filter);
        tell(&wanted, requests::wanted_seal(&view));
        loop {
            let received = tokio::select! {
                () = stop.begun() => return Ok(()),
                received = feed.next() => received,
            };
            match received {
                Received::Event(_) => tell(&wanted, requests::wanted_seal(&store.view())),
                Received::Lagged { .. } => break,
                Received::Closed => return Ok(()),
            }
        }
    }
}

/// Most changes of the cluster are about something else: only another key is told.
fn tell(wanted: &watch::Sender<Option<Seal>>, seal: Option<Seal>) {
    wanted.send_if_modified(|told| {
        let kek = |seal: &Option<Seal>| seal.as_ref().map(|seal| seal.kek.clone());
        let is_other = kek(told) != kek(&seal);
        if is_other {
            *told = seal;
        }
        is_other
    });
}
