//! Who this node is: found on disk, founded, or obtained from a cluster (spec 3.1).
//!
//! Owns the decision between the three and what is refused. Owns neither files
//! ([`crate::certificates`]) nor calls ([`crate::obtain`]).

use std::path::{Path, PathBuf};

use swarm_agent_io::Remotes;
use swarm_api::{ext, v1};
use swarm_ca::chain::{self, ChainError, Expiry};
use swarm_ca::identity::{CertIdentity, IdentityError as NoIdentity};
use swarm_ca::issue::{SignError, Signer, Subject};
use swarm_ca::key::KeyPem;
use swarm_ca::root::{self, RootBundle, RootDigest, RootError};
use swarm_ca::token::{JoinToken, TokenError};
use swarm_ca::{csr, issue};
use swarm_rt::net::Address;
use swarm_rt::tls::{Credentials, CredentialsError, NodeTls, Security, ServerName};
use swarm_rt::{Clock, OsIds};
use swarm_types::{ClusterId, IdSource as _, NodeId, Timestamp};

use crate::certificates::{Certificates, CertificatesError, OnDisk, Pair};
use crate::known_managers::{KnownManagers, Peer};
use crate::obtain::{self, Asker, ObtainError, Obtained, Wish};

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
    pub(crate) key_pem: KeyPem,
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

/// Why there is no identity. Nothing on disk was overwritten.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The files.
    #[error(transparent)]
    Files(#[from] CertificatesError),
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A cluster did not let the node in.
    #[error("cannot join the cluster")]
    Obtain(#[from] ObtainError),
    /// A new root or certificate could not be made.
    #[error("cannot found a cluster")]
    Found(#[from] SignError),
    /// The certificate's root.
    #[error("root certificate {}", .0.display())]
    Root(PathBuf, #[source] RootError),
    /// The certificate is not believed under the root beside it.
    #[error(
        "node certificate {} is not accepted; restore the directory from a backup, or move the \
         state directory away to join as a new node", .0.display()
    )]
    Chain(PathBuf, #[source] ChainError),
    /// The certificate is not one of a node.
    #[error("node certificate {}", .0.display())]
    Certificate(PathBuf, #[source] NoIdentity),
    /// Certificate, key and root cannot be used together.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// The certificate has expired while the node was off.
    #[error(
        "the certificate of node {node} expired at {not_after}, and this machine's clock says \
         {now}: if the clock is right, run `swarmctl node readmit {node}` on a manager, and start \
         this node once more with `--join-token` and the token that it prints; the node keeps its \
         id and its state"
    )]
    Expired {
        /// The node.
        node: NodeId,
        /// Until when the certificate was valid.
        not_after: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// The certificate has expired, and the token did not help.
    #[error(
        "the certificate of node {node} expired at {not_after}, and the given join token does not \
         renew it: run `swarmctl node readmit {node}` on a manager, and start this node once more \
         with `--join-token` and the token that it prints"
    )]
    NotReadmitted {
        /// The node.
        node: NodeId,
        /// Until when the certificate was valid.
        not_after: Timestamp,
        /// What is wrong with the token.
        source: Box<IdentityError>,
    },
    /// The certificate is from the future.
    #[error(
        "the certificate of node {node} is valid from {not_before} on, and this machine's clock \
         says {now}: set the clock"
    )]
    NotYetValid {
        /// The node.
        node: NodeId,
        /// From when the certificate is valid.
        not_before: Timestamp,
        /// What the clock says.
        now: Timestamp,
    },
    /// A token gave an identity other than the one on disk.
    #[error(
        "the join token made a new node {new} instead of renewing the certificate of {old}, whose \
         state is in this directory; use a token of `swarmctl node readmit {old}`, and remove the \
         new node with `swarmctl node rm {new}`"
    )]
    OtherNode {
        /// The node on disk.
        old: NodeId,
        /// The node in the new certificate.
        new: NodeId,
    },
    /// The state directory belongs to the other kind of node.
    #[error("the state directory {} belongs to a {is}, {way_out}", .path.display())]
    OtherPart {
        /// The directory.
        path: PathBuf,
        /// What it belongs to.
        is: &'static str,
        /// How to go on.
        way_out: &'static str,
    },
    /// Files of a cluster without the certificate that goes with them.
    #[error(
        "{} is there, but the node has no certificate; restore `certificates` from a backup, or \
         move the state directory away to start as a new node", .0.display()
    )]
    NoCertificate(PathBuf),
    /// A second manager.
    #[error(
        "the join token admits managers, and a second manager cannot run yet; join as a worker \
         with the token of `swarmctl cluster join-token worker`{}", rest(.0.as_ref())
    )]
    SecondManager(Option<NodeId>),
    /// A root that was there already is not the one of the token.
    #[error(
        "the root certificate {} has the digest {found}, and the join token is for {expected}; \
         remove the file to join the cluster of the token", .path.display()
    )]
    RootConflict {
        /// The file.
        path: PathBuf,
        /// Its digest.
        found: RootDigest,
        /// The digest in the token.
        expected: RootDigest,
    },
    /// FIPS.
    #[error("node is not FIPS-enabled but cluster requires FIPS")]
    Fips,
}

fn rest(node: Option<&NodeId>) -> String {
    node.map_or_else(String::new, |node| {
        format!("; remove the node that it made with `swarmctl node rm {node}`")
    })
}

/// What is known at the start.
#[derive(Debug)]
pub(crate) struct Start<'a> {
    pub(crate) state_dir: &'a Path,
    pub(crate) join: &'a Join,
    pub(crate) availability: v1::node_spec::Availability,
    pub(crate) certificates: &'a Certificates,
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
        let disk = self.certificates.load()?;
        match (&disk.pair, &self.join.address) {
            (Some(pair), _) => self.from_disk(&disk, pair, token.as_ref()).await,
            (None, Some(address)) => self.join(&disk, address, token.as_ref()).await,
            (None, None) => self.found(token.as_ref()),
        }
    }

    /// A start like all others.
    async fn from_disk(
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
            return self.manager_from_disk(disk, pair, &root, identity);
        }
        let managers = self.known_managers();
        if managers.is_empty() {
            return Err(ObtainError::NoManager.into());
        }
        let mut pair = pair.clone();
        if now > identity.not_after {
            pair = self.readmit(&root, &identity, &managers, token).await?;
        } else if token.is_some() {
            tracing::info!("this node has a certificate already; the join token is not used");
        }
        self.worker(pair, &root, managers)
    }

    fn manager_from_disk(
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
        Ok(Identity {
            node: identity.node,
            cluster: identity.cluster,
            part: Part::Manager(None),
            credentials: credentials(pair, root)?,
            managers: Vec::new(),
        })
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

    /// Gets a certificate for a node whose last one expired while it was off.
    async fn readmit(
        &self,
        root: &RootBundle,
        old: &CertIdentity,
        managers: &[String],
        token: Option<&JoinToken>,
    ) -> Result<Pair, IdentityError> {
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
    ) -> Result<Pair, IdentityError> {
        let mut asker = self.asker(managers);
        let root = self.root_of(token, root, &mut asker).await?;
        self.check_token(&root, managers, token, Some(&old.node))
            .await?;
        let obtained = self.ask(&mut asker, &root, token.to_string()).await?;
        if obtained.identity.node != old.node {
            return Err(IdentityError::OtherNode {
                old: old.node.clone(),
                new: obtained.identity.node,
            });
        }
        self.certificates.save_root(root.pem())?;
        self.certificates.save(&obtained.pair)?;
        tracing::info!(node = %old.node, until = %obtained.identity.not_after, "readmitted");
        Ok(obtained.pair)
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
        let managers = vec![address.to_owned()];
        let mut asker = self.asker(&managers);
        if token.is_none() {
            tracing::warn!(
                address,
                "joining without a join token: whoever answers at this address is believed, and \
                 the cluster refuses to admit the node unless it admits anyone"
            );
        }
        let root = match &disk.root_pem {
            Some(pem) => self.root_on_disk(pem, token)?,
            None => asker.root(token).await?,
        };
        if let Some(token) = token {
            self.check_token(&root, &managers, token, None).await?;
        }
        let text = token.map(ToString::to_string).unwrap_or_default();
        let obtained = self.ask(&mut asker, &root, text).await?;
        // Not before, so that a join that was refused leaves nothing behind.
        self.certificates.save_root(root.pem())?;
        self.certificates.save(&obtained.pair)?;
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
    ) -> Result<Obtained, IdentityError> {
        let security = Security::Verified(root.pem().to_owned(), ServerName::Ca);
        let wish = Wish {
            token,
            availability: self.availability,
        };
        let obtained = asker.certificate(root, &security, &wish).await?;
        let identity = &obtained.identity;
        if identity.is_manager() {
            return Err(IdentityError::SecondManager(Some(identity.node.clone())));
        }
        if identity.cluster.to_string().starts_with(FIPS_PREFIX) {
            return Err(IdentityError::Fips);
        }
        Ok(obtained)
    }

    /// Asks what the token is good for before it is used. Managers of other programs do not know
    /// the question; then its use shows it.
    async fn check_token(
        &self,
        root: &RootBundle,
        managers: &[String],
        token: &JoinToken,
        readmitted: Option<&NodeId>,
    ) -> Result<(), IdentityError> {
        let security = Security::Verified(root.pem().to_owned(), ServerName::Ca);
        for address in managers {
            let address = Address::Tcp(address.clone());
            let Some(answer) = ask_about(&address, &security, token).await else {
                continue;
            };
            if !answer.valid {
                let reason = answer.reason;
                let address = address.to_string();
                return Err(ObtainError::Refused { address, reason }.into());
            }
            if answer.role == "manager" {
                return Err(IdentityError::SecondManager(None));
            }
            let is_for: Option<NodeId> = answer.node_id.parse().ok();
            return match (readmitted, is_for) {
                (Some(node), Some(is_for)) if *node == is_for => Ok(()),
                (None, None) => Ok(()),
                (readmitted, is_for) => Err(wrong_token(&address, readmitted, is_for.as_ref())),
            };
        }
        Ok(())
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
            part: Part::Manager(Some(FirstRoot { cert_pem, key_pem })),
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

/// What a manager says of a token; `None` if it does not say.
pub(crate) async fn ask_about(
    address: &Address,
    security: &Security,
    token: &JoinToken,
) -> Option<ext::CheckJoinTokenResponse> {
    let channel = obtain::connect(address, security).ok()?;
    let mut client = ext::identity_client::IdentityClient::new(channel);
    let request = ext::CheckJoinTokenRequest {
        token: token.to_string(),
    };
    let answer = obtain::limited(client.check_join_token(request)).await;
    answer.ok().map(tonic::Response::into_inner)
}

fn wrong_token(
    address: &Address,
    readmitted: Option<&NodeId>,
    is_for: Option<&NodeId>,
) -> IdentityError {
    let reason = match (readmitted, is_for) {
        (Some(node), Some(other)) => format!(
            "the join token readmits node {other}, and this is node {node}; make one with \
             `swarmctl node readmit {node}`"
        ),
        (Some(node), None) => format!(
            "the join token admits new nodes, and this directory has the state of node {node}, \
             whose certificate has expired; make a token that renews it with `swarmctl node \
             readmit {node}`, or move the state directory away to join as a new node"
        ),
        (None, other) => format!(
            "the join token readmits node {}, whose state is not in this directory; get a token \
             for new nodes with `swarmctl cluster join-token worker`",
            other.map(ToString::to_string).unwrap_or_default()
        ),
    };
    let address = address.to_string();
    ObtainError::Refused { address, reason }.into()
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
