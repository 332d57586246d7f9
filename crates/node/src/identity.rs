//! Who this node is: found on disk, founded, or obtained from a cluster (spec 3.1).
//!
//! Owns the decision between the three and what is refused. Owns neither files
//! ([`crate::certificates`]) nor calls ([`crate::obtain`]).

mod question;
mod refusal;

use std::path::Path;

use swarm_agent_io::Remotes;
use swarm_api::v1;
use swarm_ca::chain::{self, Expiry};
use swarm_ca::identity::CertIdentity;
use swarm_ca::issue::{SignError, Signer, Subject};
use swarm_ca::key::KeyPem;
use swarm_ca::keyfile::Kek;
use swarm_ca::root::{self, RootBundle};
use swarm_ca::token::JoinToken;
use swarm_ca::{csr, issue};
use swarm_rt::tls::{Credentials, CredentialsError, NodeTls, Security, ServerName};
use swarm_rt::{Clock, OsIds};
use swarm_types::{ClusterId, IdSource as _, NodeId};

use crate::certificates::{Certificates, CertificatesError, OnDisk, Pair};
use crate::joined_with::{JoinedWith, Known};
use crate::joining_key::{JoiningKey, KeyRequest};
use crate::known_managers::{KnownManagers, Peer};
use crate::obtain::{Asker, ObtainError, Obtained, Wish};

pub use refusal::IdentityError;

/// What versions without certificates kept an identity in.
const OLD_FILE: &str = "node.json";
/// Where the manager's log is, inside the state directory.
pub(crate) const MANAGER_DIRECTORY: &str = "manager";
/// Organisations of clusters that admit nodes in FIPS mode only.
const FIPS_PREFIX: &str = "FIPS.";

/// How to get into a cluster.
#[derive(Clone, Default)]
pub struct Join {
    /// A manager of it, `host:port`.
    pub address: Option<String>,
    /// The join token's text.
    pub token: Option<String>,
}

impl std::fmt::Debug for Join {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Join")
            .field("address", &self.address)
            .field("token", &self.token.as_ref().map(|_| "hidden"))
            .finish()
    }
}

/// The root of a new cluster.
#[derive(Clone, Debug)]
pub(crate) struct FirstRoot {
    pub(crate) cert_pem: String,
    /// Without it, an external authority signs.
    pub(crate) key_pem: Option<KeyPem>,
}

/// Who the node is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) part: Part,
    pub(crate) credentials: Credentials,
    /// The managers to begin with.
    pub(crate) managers: Vec<String>,
}

/// Whether a manager runs here.
#[derive(Debug)]
pub(crate) enum Part {
    /// The cluster's manager. With a root, the cluster begins here; its key goes into the cluster's
    /// store and nowhere else.
    Manager(Option<FirstRoot>),
    /// This node only works.
    Worker,
}

/// What is known at the start.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) join: &'a Join,
    pub(crate) availability: v1::node_spec::Availability,
    /// Whether somebody else signs for the root.
    pub(crate) has_external_ca: bool,
    pub(crate) certificates: &'a Certificates,
    /// What the key file may be sealed under.
    pub(crate) unlock_key: Option<&'a Kek>,
    pub(crate) clock: &'a Clock,
}

impl Start<'_> {
    /// Finds out who the node is. May wait for a manager for ever; cancel safe.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub(crate) async fn identity(&self) -> Result<Identity, IdentityError> {
        let token = self.join.token.as_deref().map(JoinToken::parse);
        let token = token.transpose()?;
        if token.as_ref().is_some_and(JoinToken::requires_fips) {
            return Err(IdentityError::Fips);
        }
        let disk = self.certificates.load(self.unlock_key)?;
        match (&disk.pair, &self.join.address) {
            (Some(pair), _) => self.read_disk(&disk, pair, token.as_ref()).await,
            (None, Some(address)) => self.join(&disk, address, token.as_ref()).await,
            (None, None) => self.found(token.as_ref()),
        }
    }

    /// A start like all others.
    async fn read_disk(
        &self,
        disk: &OnDisk,
        pair: &Pair,
        token: Option<&JoinToken>,
    ) -> Result<Identity, IdentityError> {
        let now = self.clock.now();
        let path = || self.certificates.node_path();
        let root_pem = disk.root_pem.clone();
        let root_pem = root_pem.ok_or_else(|| CertificatesError::Damaged(path()))?;
        let root = RootBundle::parse_any_time(root_pem.as_bytes())
            .map_err(|error| IdentityError::Root(self.certificates.root_path(), error))?;
        let chain = pair.chain_pem.as_bytes();
        let validated = chain::validate(chain, &root, now, Expiry::Allow)
            .map_err(|error| IdentityError::Chain(path(), error))?;
        let identity = CertIdentity::of(&validated.leaf)
            .map_err(|error| IdentityError::Certificate(path(), error))?;
        self.check_part(&identity)?;
        if now < identity.not_before {
            return Err(IdentityError::NotYetValid {
                node: identity.node,
                not_before: identity.not_before,
                now,
            });
        }
        if identity.is_manager() {
            return self.manager(disk, pair, &root, identity);
        }
        self.refuse_external()?;
        let managers = self.known_managers();
        if managers.is_empty() {
            return Err(ObtainError::NoManager.into());
        }
        let is_left_behind = match token {
            // It may also be the token of long ago, from before the root was rotated.
            Some(token) if token.root_digest() != root.digest() => {
                question::readmits(&managers, token, &identity.node, now).await
            }
            Some(_) | None => false,
        };
        if now > identity.not_after || is_left_behind {
            let (pair, root) = self.readmit(&root, &identity, &managers, token).await?;
            return self.worker(pair, &root, managers);
        }
        if let Some(token) = token {
            self.check_token(token, &identity, &managers).await?;
        }
        self.worker(pair.clone(), &root, managers)
    }

    /// A node that has its certificate needs no token, so one that it did not come with is meant
    /// for something else.
    async fn check_token(
        &self,
        token: &JoinToken,
        identity: &CertIdentity,
        managers: &[String],
    ) -> Result<(), IdentityError> {
        let joined_with = JoinedWith::new(self.state_dir);
        match joined_with.know(token) {
            Known::Used => {}
            Known::Untold => joined_with.note(token),
            Known::New => {
                let now = self.clock.now();
                if !question::readmits(managers, token, &identity.node, now).await {
                    return Err(IdentityError::OtherToken {
                        path: self.state_dir.to_owned(),
                        node: identity.node.clone(),
                    });
                }
            }
        }
        tracing::info!("this node has a certificate already; the join token is not needed");
        Ok(())
    }

    fn manager(
        &self,
        disk: &OnDisk,
        pair: &Pair,
        root: &RootBundle,
        identity: CertIdentity,
    ) -> Result<Identity, IdentityError> {
        if disk.is_first_start {
            // The root's key was in memory only. If it reached the store, the store wins.
            return self.found_as(identity.node, identity.cluster);
        }
        if self.clock.now() > identity.not_after {
            tracing::warn!(
                not_after = %identity.not_after,
                "this manager's certificate has expired; it renews it through its own log"
            );
        }
        let first = if self.state_dir.join(MANAGER_DIRECTORY).exists() {
            self.refuse_external()?;
            None
        } else {
            Some(self.prepared_root(disk, root)?)
        };
        Ok(Identity {
            node: identity.node,
            cluster: identity.cluster,
            part: Part::Manager(first),
            credentials: credentials(pair, root)?,
            managers: Vec::new(),
        })
    }

    /// The root of a cluster whose first manager was given its certificate beforehand.
    fn prepared_root(&self, disk: &OnDisk, root: &RootBundle) -> Result<FirstRoot, IdentityError> {
        let key_pem = disk.root_key_pem.clone();
        if let Some(key_pem) = &key_pem {
            Signer::new(root.pem(), key_pem, "")?;
        } else if !self.has_external_ca {
            return Err(IdentityError::NoSigner(self.certificates.root_path()));
        }
        Ok(FirstRoot {
            cert_pem: root.pem().to_owned(),
            key_pem,
        })
    }

    /// External authorities are a setting of the cluster once there is one.
    fn refuse_external(&self) -> Result<(), IdentityError> {
        if self.has_external_ca {
            return Err(IdentityError::LateExternal);
        }
        Ok(())
    }

    /// A directory keeps its part, and nothing that was asked for is ignored in silence.
    fn check_part(&self, identity: &CertIdentity) -> Result<(), IdentityError> {
        let other = |is, way_out| IdentityError::OtherPart {
            path: self.state_dir.to_owned(),
            is,
            way_out,
        };
        if identity.cluster.to_string().starts_with(FIPS_PREFIX) {
            return Err(IdentityError::Fips);
        }
        let names_manager = self.join.address.is_some();
        if identity.is_manager() && names_manager {
            return Err(other(
                "manager",
                "so start it without --join-addr; it continues its cluster",
            ));
        }
        if identity.is_manager() && self.join.token.is_some() {
            return Err(other(
                "manager",
                "so start it without --join-token; it continues its cluster",
            ));
        }
        if !identity.is_manager() && !names_manager && self.known_managers().is_empty() {
            return Err(other("worker", "so name its manager with --join-addr"));
        }
        Ok(())
    }

    /// The named manager, or those of before.
    fn known_managers(&self) -> Vec<String> {
        match &self.join.address {
            Some(address) => vec![address.clone()],
            None => {
                let known = KnownManagers::new(self.state_dir).load();
                known.into_iter().map(|peer| peer.addr).collect()
            }
        }
    }

    fn worker(
        &self,
        pair: Pair,
        root: &RootBundle,
        managers: Vec<String>,
    ) -> Result<Identity, IdentityError> {
        let credentials = credentials(&pair, root)?;
        let identity = credentials.identity();
        Ok(Identity {
            node: identity.node.clone(),
            cluster: identity.cluster.clone(),
            part: Part::Worker,
            credentials,
            managers,
        })
    }

    /// Gets a certificate for a node whose last one expired, or whose root was given up, while it
    /// was off.
    async fn readmit(
        &self,
        root: &RootBundle,
        old: &CertIdentity,
        managers: &[String],
        token: Option<&JoinToken>,
    ) -> Result<(Pair, RootBundle), IdentityError> {
        let Some(token) = token else {
            return Err(IdentityError::Expired {
                node: old.node.clone(),
                not_after: old.not_after,
                now: self.clock.now(),
            });
        };
        let readmitted = self.readmit_with(root, old, managers, token).await;
        readmitted.map_err(|error| IdentityError::NotReadmitted {
            node: old.node.clone(),
            not_after: old.not_after,
            source: Box::new(error),
        })
    }

    async fn readmit_with(
        &self,
        root: &RootBundle,
        old: &CertIdentity,
        managers: &[String],
        token: &JoinToken,
    ) -> Result<(Pair, RootBundle), IdentityError> {
        let mut asker = self.asker(managers);
        let root = self.root_of(token, root, &mut asker).await?;
        question::check(&root, managers, token, Some(&old.node)).await?;
        let obtained = self.ask(&mut asker, &root, token.to_string(), None).await?;
        if obtained.identity.node != old.node {
            return Err(IdentityError::OtherNode {
                old: old.node.clone(),
                new: obtained.identity.node,
            });
        }
        JoinedWith::new(self.state_dir).note(token);
        self.certificates.save_root(root.pem())?;
        self.certificates.save(&obtained.pair)?;
        tracing::info!(node = %old.node, until = %obtained.identity.not_after, "readmitted");
        Ok((obtained.pair, root))
    }

    /// The root on disk, or the one that the token names if the cluster has another by now.
    async fn root_of(
        &self,
        token: &JoinToken,
        known: &RootBundle,
        asker: &mut Asker,
    ) -> Result<RootBundle, IdentityError> {
        if token.root_digest() == known.digest() {
            return Ok(known.clone());
        }
        Ok(asker.root(Some(token)).await?)
    }

    /// A node that was in no cluster.
    async fn join(
        &self,
        disk: &OnDisk,
        address: &str,
        token: Option<&JoinToken>,
    ) -> Result<Identity, IdentityError> {
        self.check_empty()?;
        self.refuse_external()?;
        let managers = vec![address.to_owned()];
        let mut asker = self.asker(&managers);
        if token.is_none() {
            tracing::warn!(
                address,
                "joining without a join token: whoever answers at this address is believed; use \
                 --join-token, which names the cluster"
            );
        }
        let root = match &disk.root_pem {
            Some(pem) => self.root_on_disk(pem, token)?,
            None => asker.root(token).await?,
        };
        if let Some(token) = token {
            question::check(&root, &managers, token, None).await?;
        }
        let text = token.map(ToString::to_string).unwrap_or_default();
        let key = JoiningKey::new(self.state_dir);
        let obtained = self.ask(&mut asker, &root, text, Some(&key)).await;
        if obtained.is_err() {
            key.forget();
        }
        let obtained = obtained?;
        // Not before, so that a join that was refused leaves nothing behind.
        if let Some(token) = token {
            JoinedWith::new(self.state_dir).note(token);
        }
        self.certificates.save_root(root.pem())?;
        self.certificates.save(&obtained.pair)?;
        key.forget();
        self.note_manager(address);
        let identity = &obtained.identity;
        tracing::info!(
            node = %identity.node,
            cluster = %identity.cluster,
            until = %identity.not_after,
            "joined the cluster"
        );
        self.worker(obtained.pair, &root, managers)
    }

    /// So that the next start needs no address, even if no session comes about before.
    fn note_manager(&self, address: &str) {
        let peer = Peer {
            node_id: String::new(),
            addr: address.to_owned(),
        };
        if let Err(error) = KnownManagers::new(self.state_dir).save(&[peer]) {
            tracing::warn!(%error, "the list of managers could not be written");
        }
    }

    /// The root that was left by a join that did not get to its end, or put there beforehand.
    fn root_on_disk(
        &self,
        pem: &str,
        token: Option<&JoinToken>,
    ) -> Result<RootBundle, IdentityError> {
        let path = self.certificates.root_path();
        let root = RootBundle::parse(pem.as_bytes(), self.clock.now())
            .map_err(|error| IdentityError::Root(path.clone(), error))?;
        match token {
            Some(token) if token.root_digest() != root.digest() => {
                Err(IdentityError::RootConflict {
                    path,
                    found: root.digest(),
                    expected: token.root_digest(),
                })
            }
            Some(_) | None => Ok(root),
        }
    }

    async fn ask(
        &self,
        asker: &mut Asker,
        root: &RootBundle,
        token: String,
        key: Option<&JoiningKey>,
    ) -> Result<Obtained, IdentityError> {
        let security = Security::Verified(root.pem().to_owned(), ServerName::Ca);
        let wish = Wish {
            token,
            availability: self.availability,
        };
        let key = key.map_or_else(KeyRequest::draw, JoiningKey::take);
        let key = key.map_err(ObtainError::from)?;
        let obtained = asker.certificate(root, &security, &wish, &key).await?;
        let identity = &obtained.identity;
        if identity.is_manager() {
            return Err(IdentityError::SecondManager(Some(identity.node.clone())));
        }
        if identity.cluster.to_string().starts_with(FIPS_PREFIX) {
            return Err(IdentityError::Fips);
        }
        Ok(obtained)
    }

    /// A new cluster.
    fn found(&self, token: Option<&JoinToken>) -> Result<Identity, IdentityError> {
        self.check_empty()?;
        if token.is_some() {
            return Err(ObtainError::NoManager.into());
        }
        let mut ids = OsIds::new();
        self.found_as(ids.next_id().into(), ids.next_id().into())
    }

    fn found_as(&self, node: NodeId, cluster: ClusterId) -> Result<Identity, IdentityError> {
        let now = self.clock.now();
        let (cert_pem, key_pem) = root::new_root(now);
        let signer = Signer::new(&cert_pem, &key_pem, "")?;
        let node_key = csr::new_key();
        let request = csr::request(&node_key).map_err(SignError::from)?;
        let subject = Subject {
            node: node.clone(),
            cluster: cluster.clone(),
            role: v1::NodeRole::Manager,
        };
        let serial = random_serial();
        let chain_pem = signer.sign(
            request.as_bytes(),
            &subject,
            issue::DEFAULT_EXPIRY,
            now,
            serial,
        )?;
        let pair = Pair {
            chain_pem,
            key_pem: node_key,
        };
        let root = RootBundle::parse(cert_pem.as_bytes(), now)
            .map_err(|error| IdentityError::Root(self.certificates.root_path(), error))?;
        self.certificates.begin_first_start()?;
        self.certificates.save_root(&cert_pem)?;
        self.certificates.save(&pair)?;
        tracing::info!(%node, %cluster, root = %root.digest(), "founded a cluster");
        Ok(Identity {
            node,
            cluster,
            part: Part::Manager(Some(FirstRoot {
                cert_pem,
                key_pem: Some(key_pem),
            })),
            credentials: credentials(&pair, &root)?,
            managers: Vec::new(),
        })
    }

    /// Without a certificate there must be nothing that needs one.
    fn check_empty(&self) -> Result<(), IdentityError> {
        for name in [OLD_FILE, MANAGER_DIRECTORY] {
            let path = self.state_dir.join(name);
            if path.exists() {
                return Err(IdentityError::NoCertificate(path));
            }
        }
        Ok(())
    }

    fn asker(&self, managers: &[String]) -> Asker {
        Asker::new(Remotes::new(managers.to_vec()), self.clock.clone())
    }
}

fn credentials(pair: &Pair, root: &RootBundle) -> Result<Credentials, CredentialsError> {
    Credentials::new(node_tls(pair, root.pem()))
}

pub(crate) fn node_tls(pair: &Pair, root_pem: &str) -> NodeTls {
    NodeTls {
        chain_pem: pair.chain_pem.clone(),
        key_pem: pair.key_pem.clone(),
        root_pem: root_pem.to_owned(),
    }
}

fn random_serial() -> [u8; 20] {
    let mut ids = OsIds::new();
    let mut serial = [0; 20];
    for chunk in serial.chunks_mut(8) {
        chunk.copy_from_slice(&ids.next_u64().to_be_bytes()[..chunk.len()]);
    }
    serial
}
