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
                error,
                retry_s = pause.as_secs(),
                "the key file is not sealed as the cluster wants it; the unlock key of before \
                 still opens it"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_LAST);
        }
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
            if resealed == Resealed::Locked {
                renew.notify_one();
            }
            Ok(())
        });
        done.await.unwrap_or(Err(CertificatesError::Cancelled))
    }

    async fn renew_data_key(&self) -> Result<(), TaskError> {
        let files = self.certificates.clone();
        let wants = tokio::task::spawn_blocking(move || files.wants_data_key()).await??;
        if wants {
            self.store.rotate_data_key().await?;
            tracing::info!("the log is sealed under a new data key");
        }
        Ok(())
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
