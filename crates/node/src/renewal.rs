//! Renews the node's certificate while the node runs (spec 2.5, 3.2).
//!
//! Owns when a certificate is renewed (by plan, because a manager asks for it, or because the role
//! changed), what is done with the answer, and the installation of a new root. When exactly is
//! computed in [`swarm_ca::renewal`]; calls are in [`crate::obtain`]. New credentials count for new
//! connections; those that are open, and the streams on them, go on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_io::{Remotes, Told};
use swarm_api::v1;
use swarm_ca::chain::{self, Expiry};
use swarm_ca::identity::CertIdentity;
use swarm_ca::policy;
use swarm_ca::renewal::{self, FORCED_RENEWAL_DELAY};
use swarm_ca::root::RootBundle;
use swarm_rt::tls::{Credentials, Security, ServerName};
use swarm_rt::{Clock, OsIds};
use swarm_types::Timestamp;
use tokio::sync::{Notify, watch};
use v1::NodeRole;
use v1::issuance_status::State;

use crate::certificates::Certificates;
use crate::identity::node_tls;
use crate::known_managers::{KnownManagers, Peer};
use crate::obtain::{self, Asker, ObtainError, Obtained, Wish};

/// From this part of its life on, a certificate that could not be renewed is warned about.
const WARN_PART: u32 = 4;
/// Longest time that one attempt may take.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(330);

/// How managers are asked.
#[derive(Clone, Debug)]
pub(crate) enum Way {
    /// Through this node's own control socket.
    Local(PathBuf),
    /// With the certificate that is to be renewed.
    Remote,
}

/// Renews.
#[derive(Debug)]
pub(crate) struct Renewer {
    credentials: Credentials,
    certificates: Certificates,
    known: KnownManagers,
    way: Way,
    clock: Clock,
    ids: OsIds,
    told: watch::Receiver<Told>,
    hurry: Arc<Notify>,
    managers: Vec<String>,
    /// What is in the file.
    noted: Vec<Peer>,
    /// The role that the cluster wanted when it was last heard.
    wanted: NodeRole,
    /// The role that the next certificate must have, once the wanted one changed.
    expected: Option<NodeRole>,
    is_forced: bool,
    failures: u32,
    due: Timestamp,
}

/// What a renewer works with.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) credentials: Credentials,
    pub(crate) certificates: Certificates,
    pub(crate) known: KnownManagers,
    pub(crate) way: Way,
    pub(crate) clock: Clock,
    pub(crate) told: watch::Receiver<Told>,
    /// Notified when the key was in the clear on the disk for too long.
    pub(crate) hurry: Arc<Notify>,
    pub(crate) managers: Vec<String>,
}

/// Why a renewal did not count.
#[derive(Debug, thiserror::Error)]
enum RenewalError {
    #[error(transparent)]
    Obtain(#[from] ObtainError),
    #[error("the manager issued a certificate for {0}, which is not this node")]
    OtherNode(String),
    #[error("the certificate still has the role {0} and not {1}")]
    OtherRole(&'static str, &'static str),
    #[error(transparent)]
    Files(#[from] crate::certificates::CertificatesError),
    #[error(transparent)]
    Credentials(#[from] swarm_rt::tls::CredentialsError),
    #[error("the manager did not decide within {} s", ATTEMPT_TIMEOUT.as_secs())]
    Slow,
    #[error("the root certificate on this node is not accepted")]
    Root(#[from] swarm_ca::root::RootError),
    #[error("the new root of the cluster does not vouch for this node's certificate")]
    RootMismatch(#[source] chain::ChainError),
    #[error("files could not be written")]
    Panicked,
}

impl Renewer {
    pub(crate) fn new(parts: Parts) -> Self {
        let mut ids = OsIds::new();
        let identity = parts.credentials.identity();
        let wanted = role_of(&identity);
        Self {
            due: renewal::due(identity.not_before, identity.not_after, ids.next_u64()),
            credentials: parts.credentials,
            certificates: parts.certificates,
            noted: parts.known.load(),
            known: parts.known,
            way: parts.way,
            clock: parts.clock,
            ids,
            told: parts.told,
            hurry: parts.hurry,
            managers: parts.managers,
            wanted,
            expected: None,
            is_forced: false,
            failures: 0,
        }
    }

    /// Runs until it is dropped. Cancel safe: files are replaced in steps of which each leaves a
    /// usable pair.
    pub(crate) async fn run(mut self) {
        tracing::debug!(due = %self.due, "next renewal of the certificate");
        loop {
            tokio::select! {
                heard = self.told.changed() => {
                    if heard.is_err() {
                        // The agent is gone, and the node with it.
                        return;
                    }
                    self.hear().await;
                }
                () = self.hurry.notified() => self.force(),
                () = self.clock.sleep_until(Some(self.due)) => self.attempt().await,
            }
        }
    }

    /// Takes in what a manager said.
    async fn hear(&mut self) {
        let told = self.told.borrow_and_update().clone();
        self.note_managers(&told).await;
        if let Some(root_pem) = &told.root_ca
            && **root_pem != *self.credentials.root_pem().as_bytes()
            && let Err(error) = self.install_root(root_pem).await
        {
            let error = swarm_rt::chain(&error);
            tracing::warn!(%error, "a new root of the cluster is not installed");
        }
        let Some(node) = &told.node else {
            return;
        };
        let wanted = node.spec.as_ref().map(v1::NodeSpec::desired_role);
        if let Some(wanted) = wanted
            && wanted != self.wanted
        {
            self.wanted = wanted;
            self.change_role(wanted);
        }
        let state = node.certificate.as_ref().and_then(|it| it.status.as_ref());
        if state.is_some_and(|status| status.state() == State::Rotate) {
            self.force();
        }
    }

    fn change_role(&mut self, wanted: NodeRole) {
        if matches!(self.way, Way::Remote) && wanted == NodeRole::Manager {
            // Go's managers do not demote a node that never became one of them.
            tracing::warn!(
                "this node was promoted, and {}; it stays a worker. A manager that does not \
                 demote it removes it with `node rm --force`; then join it anew with a token for \
                 workers and an empty state directory",
                policy::NO_SECOND_MANAGER
            );
            return;
        }
        self.expected = Some(wanted);
        self.force();
    }

    /// Renews soon, but not before the manager has had time to change the node's role.
    fn force(&mut self) {
        self.is_forced = true;
        let soon = self.clock.now().saturating_add(FORCED_RENEWAL_DELAY);
        self.due = self.due.min(soon);
    }

    async fn note_managers(&mut self, told: &Told) {
        let peers = told.managers.iter().map(|(node_id, addr)| Peer {
            node_id: node_id.clone(),
            addr: addr.clone(),
        });
        let mut peers: Vec<Peer> = peers.filter(|peer| !peer.addr.is_empty()).collect();
        peers.sort();
        if peers.is_empty() || peers == self.noted {
            return;
        }
        self.managers = peers.iter().map(|peer| peer.addr.clone()).collect();
        self.noted.clone_from(&peers);
        let file = self.known.clone();
        let saved = tokio::task::spawn_blocking(move || file.save(&peers)).await;
        if let Ok(Err(error)) = saved {
            tracing::warn!(%error, "the list of managers could not be written");
        }
    }

    async fn attempt(&mut self) {
        let renewed = tokio::time::timeout(ATTEMPT_TIMEOUT, self.renew()).await;
        match renewed.unwrap_or(Err(RenewalError::Slow)) {
            Ok(()) => {
                self.failures = 0;
                self.is_forced = false;
                self.expected = None;
                let identity = self.credentials.identity();
                let draw = self.ids.next_u64();
                self.due = renewal::due(identity.not_before, identity.not_after, draw);
                tracing::info!(
                    until = %identity.not_after,
                    next = %self.due,
                    "renewed the certificate"
                );
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                let pause = obtain::renewal_pause(self.failures, self.ids.next_u64());
                self.due = self.clock.now().saturating_add(pause);
                self.tell(&error, pause);
            }
        }
    }

    /// Says what a failure means for the node.
    fn tell(&self, error: &RenewalError, pause: Duration) {
        let identity = self.credentials.identity();
        let (now, until) = (self.clock.now(), identity.not_after);
        let error = swarm_rt::chain(error);
        let retry_s = pause.as_secs();
        let life = until.saturating_since(identity.not_before);
        let left = until.saturating_since(now);
        if left.is_zero() {
            tracing::error!(
                %error, %until, retry_s,
                "the certificate has expired; run `swarmctl node readmit {node}` on a manager, \
                 and start this node again with `--join-token` and the token that it prints",
                node = identity.node
            );
        } else if left <= life / WARN_PART {
            tracing::warn!(
                %error, %until, retry_s, left_s = left.as_secs(),
                "the certificate expires soon and could not be renewed"
            );
        } else if self.is_forced || self.failures == 1 {
            tracing::warn!(%error, retry_s, "the certificate could not be renewed");
        } else {
            tracing::debug!(%error, retry_s, "the certificate could not be renewed");
        }
    }

    async fn renew(&mut self) -> Result<(), RenewalError> {
        let obtained = match self.request().await {
            Err(RenewalError::Obtain(error))
                if error.is_unknown_authority() && matches!(self.way, Way::Remote) =>
            {
                // The root changed while this node did not listen.
                self.fetch_root().await?;
                self.request().await?
            }
            obtained => obtained?,
        };
        let own = self.credentials.identity();
        if obtained.identity.node != own.node || obtained.identity.cluster != own.cluster {
            let other = obtained.identity.node.to_string();
            return Err(RenewalError::OtherNode(other));
        }
        let root_pem = self.credentials.root_pem();
        let (files, pair) = (self.certificates.clone(), obtained.pair.clone());
        in_files(move || files.save(&pair)).await?;
        self.credentials
            .update(node_tls(&obtained.pair, &root_pem))?;
        let role = role_of(&obtained.identity);
        match self.expected {
            Some(expected) if expected != role => Err(RenewalError::OtherRole(
                swarm_ca::issue::role_name(role),
                swarm_ca::issue::role_name(expected),
            )),
            Some(_) | None => Ok(()),
        }
    }

    async fn request(&self) -> Result<Obtained, RenewalError> {
        let root_pem = self.credentials.root_pem();
        let root = RootBundle::parse(root_pem.as_bytes(), self.clock.now())?;
        let security = Security::Node(self.credentials.clone(), ServerName::Manager);
        let (mut asker, wish) = (self.asker(), Wish::renewal());
        Ok(asker.request(&root, &security, &wish).await?)
    }

    fn asker(&self) -> Asker {
        let remotes = match &self.way {
            Way::Local(socket) => Remotes::local(socket.clone()),
            Way::Remote => Remotes::new(self.managers.clone()),
        };
        Asker::new(remotes, self.clock.clone())
    }

    /// Downloads the root again. It is believed only if it vouches for the certificate that this
    /// node has.
    async fn fetch_root(&self) -> Result<(), RenewalError> {
        let root = self.asker().root(None).await?;
        self.install_root(root.pem().as_bytes()).await
    }

    async fn install_root(&self, root_pem: &[u8]) -> Result<(), RenewalError> {
        let now = self.clock.now();
        let root = RootBundle::parse(root_pem, now)?;
        let own = self.credentials.chain_pem();
        // An expired certificate is none that somebody else could have.
        chain::validate(own.as_bytes(), &root, now, Expiry::Allow)
            .map_err(RenewalError::RootMismatch)?;
        let (files, pem) = (self.certificates.clone(), root.pem().to_owned());
        in_files(move || files.save_root(&pem)).await?;
        self.credentials.update_root(root.pem())?;
        tracing::info!(root = %root.digest(), "installed a new root of the cluster");
        Ok(())
    }
}

async fn in_files(
    work: impl FnOnce() -> Result<(), crate::certificates::CertificatesError> + Send + 'static,
) -> Result<(), RenewalError> {
    let done = tokio::task::spawn_blocking(work).await;
    Ok(done.map_err(|_| RenewalError::Panicked)??)
}

pub(crate) fn role_of(identity: &CertIdentity) -> NodeRole {
    if identity.is_manager() {
        NodeRole::Manager
    } else {
        NodeRole::Worker
    }
}

#[cfg(test)]
mod tests;
