//! Seals the manager's key file as the cluster wants it (spec 2.7).
//!
//! Owns the order: the file is sealed first, and what was in the clear until then is replaced after
//! that, the log's data key and the node's certificate. Whether the cluster's key counts is decided
//! in [`swarm_ca::unlock`]; files are replaced in [`crate::certificates`].

use std::sync::Arc;
use std::time::Duration;

use swarm_ca::unlock::{self, Seal};
use swarm_raft_io::ReplicatedStore;
use swarm_rt::tasks::TaskError;
use tokio::sync::{Notify, watch};

use crate::certificates::{Certificates, CertificatesError, Resealed};

/// Between two attempts to write the file, doubling up to the second.
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_LAST: Duration = Duration::from_secs(30);

/// How the key file is sealed, for others to look at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sealed {
    /// Whether the file is as the cluster last wanted it.
    pub(crate) is_settled: bool,
}

/// What seals.
#[derive(Debug)]
pub(crate) struct Lock {
    pub(crate) certificates: Certificates,
    pub(crate) store: ReplicatedStore,
    /// What the cluster wants.
    pub(crate) wanted: watch::Receiver<Option<Seal>>,
    /// Shows the key of a cluster that begins here, before anything is sealed under it.
    pub(crate) show: Option<fn(&str)>,
    /// Asks for another certificate.
    pub(crate) renew: Arc<Notify>,
    pub(crate) sealed: watch::Sender<Sealed>,
    /// Why the file is not sealed as wanted, for people.
    pub(crate) unsealed: watch::Sender<Option<String>>,
}

impl Lock {
    /// Follows the cluster until the manager is gone. Cancel safe: each step leaves a file that the
    /// key of before or the new one opens, and the next start goes on.
    pub(crate) async fn run(mut self) -> Result<(), TaskError> {
        loop {
            let wanted = self.wanted.borrow_and_update().clone();
            let mut newer = self.wanted.clone();
            if let Some(wanted) = wanted {
                tokio::select! {
                    () = self.settle(&wanted) => {}
                    changed = newer.changed() => {
                        if changed.is_err() {
                            return Ok(());
                        }
                        continue;
                    }
                }
            }
            if self.wanted.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    async fn settle(&mut self, wanted: &Seal) {
        self.sealed.send_replace(Sealed { is_settled: false });
        if let (Some(show), Some(kek)) = (self.show.take(), &wanted.kek) {
            show(&unlock::human(kek));
        }
        let mut pause = RETRY_FIRST;
        while let Err(error) = self.reseal(wanted).await {
            let error = swarm_rt::chain(&error).to_string();
            tracing::error!(
                error = &*error,
                retry_s = pause.as_secs(),
                "the key file is not sealed as the cluster wants it; the unlock key of before \
                 still opens it"
            );
            self.unsealed.send_replace(Some(error));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
        self.unsealed.send_replace(None);
        self.sealed.send_replace(Sealed { is_settled: true });
        let mut pause = RETRY_FIRST;
        while let Err(error) = self.renew_data_key().await {
            let error = swarm_rt::chain(&*error).to_string();
            tracing::error!(
                error,
                retry_s = pause.as_secs(),
                "the log is not sealed under a new data key yet"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
    }

    async fn reseal(&self, wanted: &Seal) -> Result<(), CertificatesError> {
        let (files, wanted) = (self.certificates.clone(), wanted.clone());
        let renew = Arc::clone(&self.renew);
        // What follows from the change is told where it is made, whatever becomes of this task.
        let done = tokio::task::spawn_blocking(move || {
            let resealed = files.reseal(&wanted)?;
            tell(resealed, wanted.version);
            // Also when the change was made before this start, and the renewal was not.
            if files.wants_renewal()? {
                renew.notify_one();
            }
            Ok(())
        });
        done.await.unwrap_or(Err(CertificatesError::Cancelled))
    }

    async fn renew_data_key(&self) -> Result<(), TaskError> {
        // Twice at most: a change that was under way already may be one to a key that was in the
        // clear as well.
        while self.wants_data_key().await? {
            self.store.rotate_data_key().await?;
            tracing::info!("the log is sealed under a new data key");
        }
        Ok(())
    }

    async fn wants_data_key(&self) -> Result<bool, TaskError> {
        let files = self.certificates.clone();
        Ok(tokio::task::spawn_blocking(move || files.wants_data_key()).await??)
    }
}

fn tell(resealed: Resealed, version: u64) {
    match resealed {
        Resealed::Kept => {}
        Resealed::Locked => tracing::warn!(
            version,
            "this manager is locked: from its next start on it needs the unlock key, which \
             `swarmctl cluster unlock-key` shows as long as a manager runs; keep it in another \
             place"
        ),
        Resealed::Changed => tracing::info!(
            version,
            "the key file is sealed under the new unlock key; the one of before is worthless here"
        ),
        Resealed::Opened => tracing::warn!(version, "this manager is not locked any more"),
    }
}

#[cfg(test)]
mod tests {
    use swarm_ca::keyfile::Kek;
    use swarm_raft_io::ReplicatedConfig;
    use swarm_raft_io::keys::{DataKey, KeyKeeper, KeySet};
    use swarm_rt::Clock;

    use super::*;
    use crate::certificates::Pair;
    use crate::tests::fake;

    fn manager(directory: &std::path::Path) -> Certificates {
        let clock = Clock::new();
        let (_, _, signer) = fake::authority(clock.now());
        let day = Duration::from_secs(24 * 3600);
        let role = swarm_api::v1::NodeRole::Manager;
        let (chain_pem, key_pem) = fake::issue(&signer, fake::NODE, role, day, clock.now());
        let certificates = Certificates::open(directory).unwrap();
        certificates.save(&Pair { chain_pem, key_pem }).unwrap();
        certificates
    }

    fn seal(byte: Option<u8>, version: u64) -> Seal {
        Seal {
            kek: byte.map(|byte| Kek::new(vec![byte; 32])),
            version,
        }
    }

    async fn lock(directory: &std::path::Path, certificates: &Certificates) -> Lock {
        let cluster = "cluster".parse().unwrap();
        let opening = ReplicatedStore::open(
            directory,
            ReplicatedConfig::default(),
            &cluster,
            Clock::new(),
            100,
            Arc::new(certificates.clone()),
        );
        let store = opening.await.unwrap();
        store.leadership_gained().await.unwrap();
        Lock {
            certificates: certificates.clone(),
            store,
            wanted: watch::channel(None).1,
            show: None,
            renew: Arc::default(),
            sealed: watch::channel(Sealed::default()).0,
            unsealed: watch::channel(None).0,
        }
    }

    #[tokio::test]
    async fn a_data_key_that_lay_open_while_it_was_changed_to_is_changed_as_well() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = manager(directory.path());
        let mut lock = lock(directory.path(), &certificates).await;
        // Locked, unlocked and locked again while the log is given another key.
        let first = KeyKeeper::load(&certificates).unwrap().unwrap().current;
        let pending = DataKey::new([7; 32]);
        let keys = KeySet {
            current: first,
            pending: Some(pending.clone()),
        };
        KeyKeeper::save(&certificates, &keys).unwrap();
        tokio::time::timeout(Duration::from_secs(20), lock.settle(&seal(Some(1), 9)))
            .await
            .unwrap();
        let kept = KeyKeeper::load(&certificates).unwrap().unwrap();
        assert!(kept.pending.is_none() && kept.current.id() != pending.id());
        assert!(lock.sealed.borrow().is_settled);
        lock.store.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_renewal_that_a_kill_forestalled_is_asked_for_by_the_next_start() {
        let directory = tempfile::tempdir().unwrap();
        manager(directory.path()).reseal(&seal(Some(1), 9)).unwrap();
        let certificates = Certificates::open(directory.path()).unwrap();
        certificates.load(Some(&Kek::new(vec![1; 32]))).unwrap();
        let mut lock = lock(directory.path(), &certificates).await;
        lock.settle(&seal(Some(1), 9)).await;
        tokio::time::timeout(Duration::from_secs(20), lock.renew.notified())
            .await
            .unwrap();
        lock.store.close().await.unwrap();
    }

    #[tokio::test]
    async fn why_a_file_is_not_sealed_is_told_until_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = manager(directory.path());
        let mut lock = lock(directory.path(), &certificates).await;
        let mut unsealed = lock.unsealed.subscribe();
        let path = directory.path().join("certificates/swarm-node.key");
        let key = std::fs::read(&path).unwrap();
        std::fs::write(&path, "nonsense").unwrap();
        let wanted = seal(Some(1), 9);
        let repair = async {
            let told = unsealed.wait_for(Option::is_some).await.unwrap().clone();
            assert!(told.unwrap().contains("swarm-node.key"));
            std::fs::write(&path, key).unwrap();
        };
        let settled = async { tokio::join!(lock.settle(&wanted), repair) };
        tokio::time::timeout(Duration::from_secs(20), settled)
            .await
            .unwrap();
        assert_eq!(*unsealed.borrow(), None);
        lock.store.close().await.unwrap();
    }
}
