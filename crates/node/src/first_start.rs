//! The end of the first start of a cluster: its root's key is in the store.
//!
//! The key of a new root is in memory only until the first leader has written it. A process that
//! dies before leaves a node certificate under a root that nobody can sign for, so the next start
//! makes another root and offers it once more. Whichever of the two the store has is the cluster's;
//! here the node takes it over.
//!
//! Owns that comparison. What is offered is made in [`crate::identity`].

use std::path::PathBuf;
use std::time::Duration;

use swarm_agent_io::Remotes;
use swarm_ca::root::RootBundle;
use swarm_raft_io::ReplicatedStore;
use swarm_rt::Clock;
use swarm_rt::tasks::TaskError;
use swarm_rt::tls::{Credentials, Security};
use tokio::sync::watch;

use crate::certificates::Certificates;
use crate::identity::node_tls;
use crate::joining_key::KeyRequest;
use crate::lock::Sealed;
use crate::obtain::{Asker, Wish};

/// Between two looks whether the cluster object is there.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a first start works with.
#[derive(Debug)]
pub(crate) struct FirstStart {
    pub(crate) certificates: Certificates,
    pub(crate) credentials: Credentials,
    pub(crate) socket: PathBuf,
    pub(crate) clock: Clock,
    /// Says when the key file is sealed as the cluster wants it.
    pub(crate) sealed: watch::Receiver<Sealed>,
}

impl FirstStart {
    /// Waits for the cluster's root, takes it over if it is not the one that was offered, and notes
    /// that nothing of the first start is left to do. Cancel safe.
    pub(crate) async fn finish(
        self,
        ready: impl Future<Output = ()>,
        store: ReplicatedStore,
    ) -> Result<(), TaskError> {
        ready.await;
        let root_pem = loop {
            let root = store.view().cluster().and_then(|it| it.root_ca.clone());
            match root {
                Some(root) if !root.ca_cert.is_empty() => break root.ca_cert,
                Some(_) | None => tokio::time::sleep(LOOK_INTERVAL).await,
            }
        };
        if root_pem != self.credentials.root_pem().as_bytes() {
            self.take_over(&root_pem).await?;
        }
        // The unlock key was shown by then, which only a first start does.
        let mut sealed = self.sealed;
        sealed.wait_for(|sealed| sealed.is_settled).await?;
        Ok(self.certificates.end_first_start()?)
    }

    async fn take_over(&self, root_pem: &[u8]) -> Result<(), TaskError> {
        let root = RootBundle::parse(root_pem, self.clock.now())?;
        let mut asker = Asker::new(Remotes::local(self.socket.clone()), self.clock.clone());
        // The control socket has no TLS, so how its other end is known does not matter.
        let wish = Wish::renewal();
        let key = KeyRequest::draw()?;
        let obtained = asker
            .certificate(&root, &Security::Unverified, &wish, &key)
            .await?;
        self.certificates.save_root(root.pem())?;
        self.certificates.save(&obtained.pair)?;
        self.credentials
            .update(node_tls(&obtained.pair, root.pem()))?;
        tracing::info!(root = %root.digest(), "took over the root of the first start");
        Ok(())
    }
}
