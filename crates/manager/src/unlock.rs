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
                // Also after the store was replaced by a snapshot of the leader's.
                Received::Lagged { .. } | Received::Closed => break,
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use swarm_api::v1;
    use swarm_ca::keyfile::Kek;
    use swarm_rt::{Clock, OnError, Tasks};
    use swarm_store::Root;
    use swarm_types::Cluster;

    use super::*;

    fn root(key: &'static [u8]) -> Root {
        let spec = swarm_types::defaults::cluster_spec();
        let mut cluster = Cluster::new("cluster".parse().unwrap(), spec);
        cluster.unlock_keys.push(v1::EncryptionKey {
            subsystem: requests::MANAGER_SUBSYSTEM.to_owned(),
            key: key.into(),
            ..Default::default()
        });
        let mut transaction = Root::default().begin(Clock::new().now());
        transaction.create(cluster).unwrap();
        transaction.finish().0
    }

    #[tokio::test]
    async fn the_watch_goes_on_after_the_store_was_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let config = crate::tests::config(directory.path());
        let store = ReplicatedStore::open(
            &config.directory,
            config.log.clone(),
            &config.cluster,
            Clock::new(),
            1,
            config.data_keys.clone(),
        );
        let store = store.await.unwrap();
        let tasks = Tasks::new(Shutdown::new());
        let (sender, mut wanted) = watch::channel(None);
        let watching = run(store.clone(), sender, tasks.shutdown().clone());
        tasks.spawn("unlock key", OnError::Stop, watching);
        for key in [&b"one"[..], b"two", b"three"] {
            store.store().reset(root(key));
            let kek = Some(Kek::new(key.to_vec()));
            let told = wanted.wait_for(|seal| seal.as_ref().is_some_and(|seal| seal.kek == kek));
            let told = tokio::time::timeout(Duration::from_secs(30), told).await;
            told.expect("the new key is told").unwrap();
        }
        tasks.finish(Duration::from_secs(30)).await.unwrap();
        store.close().await.unwrap();
    }
}
