//! The root, its key, and what is signed with it.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use swarm_api::v1::NodeRole;
use swarm_ca::identity::{self, CertIdentity};
use swarm_ca::issue::{Signer, Subject, role_name};
use swarm_ca::key::KeyPem;
use swarm_ca::keyfile::{KeyFile, plan};
use swarm_ca::{csr, root};
use swarm_rt::{Clock, OsIds};
use swarm_types::{IdSource as _, Timestamp};

use crate::request::{Request, Wish};

/// The root certificate, in the authority's directory.
const ROOT_CERT: &str = "root.crt";
/// Its key.
const ROOT_KEY: &str = "root.key";
/// What a first manager starts with, in the authority's directory.
const CERTIFICATES: &str = "certificates";
/// How long the certificate of the server itself is valid; it gets another one with each start.
const SERVER_EXPIRY: Duration = Duration::from_secs(365 * 24 * 3600);
/// How far back validities start, for clocks that lag.
const BACKDATE: Duration = Duration::from_secs(3600);
/// How long another root is valid by this one's signature. Longer than any rotation takes.
const CROSS_SIGNED_EXPIRY: Duration = Duration::from_secs(5 * 365 * 24 * 3600);

/// Whose requests are answered.
#[derive(Clone, Debug)]
pub struct ClientRule {
    /// The cluster whose managers may ask.
    pub cluster: String,
    /// Whether they may have another root signed, for a rotation of the root to it.
    pub cross_sign: bool,
}

/// What was made for the first manager of a new cluster.
#[derive(Clone, Debug)]
pub struct FirstManager {
    /// The cluster's id.
    pub cluster: String,
    /// The manager's id.
    pub node: String,
}

/// A root with its key.
#[derive(Clone)]
pub struct Authority {
    root_pem: String,
    signer: Signer,
    clock: Clock,
    expiry: Duration,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a root with its key in a directory that has none.
    ///
    /// # Errors
    /// There is one, or files cannot be written.
    pub fn create(directory: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(directory).with_context(|| show(directory))?;
        let (cert, key) = root::new_root(Clock::new().now());
        write_new(&directory.join(ROOT_KEY), 0o600, key.as_bytes())?;
        write_new(&directory.join(ROOT_CERT), 0o644, cert.as_bytes())
    }

    /// Reads the root and its key. Certificates of nodes will be valid for `expiry`.
    ///
    /// # Errors
    /// Files that are missing or do not belong together.
    pub fn load(directory: &Path, expiry: Duration) -> anyhow::Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            std::fs::read_to_string(&path).with_context(|| show(&path))
        };
        let (root_pem, key) = (read(ROOT_CERT)?, KeyPem::new(read(ROOT_KEY)?));
        let signer = Signer::new(&root_pem, &key, "").with_context(|| show(directory))?;
        Ok(Self {
            root_pem,
            signer,
            clock: Clock::new(),
            expiry,
        })
    }

    /// The root certificate.
    pub fn root_pem(&self) -> &str {
        &self.root_pem
    }

    /// Makes ids for a new cluster and its first manager, and writes what that starts with into
    /// `certificates` of the directory.
    ///
    /// # Errors
    /// Files that are there already, or cannot be written.
    pub fn first_manager(&self, directory: &Path) -> anyhow::Result<FirstManager> {
        let mut ids = OsIds::new();
        let subject = Subject {
            node: ids.next_id().into(),
            cluster: ids.next_id().into(),
            role: NodeRole::Manager,
        };
        let key = csr::new_key();
        let chain = self.sign_node(csr::request(&key)?.as_bytes(), &subject)?;
        let key = swarm_ca::key::PrivateKey::from_pem(&key)?;
        let key_file = KeyFile::new(key, 0).write(None)?;
        let directory = directory.join(CERTIFICATES);
        std::fs::create_dir_all(&directory).with_context(|| show(&directory))?;
        write_new(
            &directory.join(plan::NODE_KEY),
            plan::KEY_MODE,
            key_file.as_bytes(),
        )?;
        write_new(
            &directory.join(plan::NODE_CERT),
            plan::CERT_MODE,
            chain.as_bytes(),
        )?;
        let root = self.root_pem.as_bytes();
        write_new(&directory.join(plan::ROOT_CERT), plan::CERT_MODE, root)?;
        Ok(FirstManager {
            cluster: subject.cluster.to_string(),
            node: subject.node.to_string(),
        })
    }

    /// A certificate and key for the server itself.
    ///
    /// # Errors
    /// Names that do not fit into a certificate.
    pub(crate) fn server(&self, names: &[String]) -> anyhow::Result<(String, KeyPem)> {
        let key = csr::new_key();
        let request = csr::request(&key)?;
        let validity = self.validity(SERVER_EXPIRY);
        let signed = self
            .signer
            .sign_server(request.as_bytes(), names, validity, serial());
        Ok((signed.context("the server's own certificate")?, key))
    }

    /// What a manager asked for, signed.
    ///
    /// # Errors
    /// Why not, in words that are sent back.
    pub(crate) fn sign(
        &self,
        request: &Request,
        caller: &CertIdentity,
        rule: &ClientRule,
    ) -> anyhow::Result<String> {
        let csr = request.certificate_request.as_bytes();
        match request.wish()? {
            Wish::Node {
                node,
                cluster,
                role,
            } => {
                ensure!(
                    cluster == caller.cluster.to_string(),
                    "the request is for cluster {cluster:?}, and its sender is of another one"
                );
                let role = [NodeRole::Manager, NodeRole::Worker]
                    .into_iter()
                    .find(|known| role_name(*known) == role)
                    .with_context(|| format!("the role {role:?} is not known"))?;
                let node = node.parse().with_context(|| format!("node id {node:?}"))?;
                let cluster = caller.cluster.clone();
                let subject = Subject {
                    node,
                    cluster,
                    role,
                };
                let chain = self.sign_node(csr, &subject)?;
                check_hosts(&request.hosts, &chain)?;
                Ok(chain)
            }
            Wish::Root { .. } if !rule.cross_sign => bail!(
                "this authority signs no other root; start it with --cross-sign for a rotation"
            ),
            Wish::Root { name } => {
                let validity = self.validity(CROSS_SIGNED_EXPIRY);
                Ok(self.signer.sign_authority(csr, &name, validity, serial())?)
            }
        }
    }

    fn sign_node(&self, csr: &[u8], subject: &Subject) -> anyhow::Result<String> {
        let now = self.clock.now();
        Ok(self.signer.sign(csr, subject, self.expiry, now, serial())?)
    }

    fn validity(&self, expiry: Duration) -> (Timestamp, Timestamp) {
        let now = self.clock.now();
        let until = now.saturating_add(expiry);
        let end = self.signer.certificate().not_after();
        (now.saturating_sub(BACKDATE), until.min(end))
    }
}

/// Names follow from id and role; a request that has others wants something else.
fn check_hosts(hosts: &[String], chain: &str) -> anyhow::Result<()> {
    let identity = identity::read_pem(chain.as_bytes())?;
    let mut names = identity.roles.clone();
    names.push(identity.node.to_string());
    if identity.is_manager() {
        names.push(swarm_ca::CA_NAME.to_owned());
    }
    let foreign = hosts.iter().find(|host| !names.contains(host));
    match foreign {
        Some(host) => bail!("{host:?} is not a name of this node"),
        None => Ok(()),
    }
}

fn serial() -> [u8; 20] {
    let mut ids = OsIds::new();
    let mut serial = [0; 20];
    for part in serial.chunks_mut(8) {
        part.copy_from_slice(&ids.next_u64().to_be_bytes()[..part.len()]);
    }
    serial
}

fn show(path: &Path) -> String {
    path.display().to_string()
}

/// Writes a file that must not be there yet.
fn write_new(path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    let written = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        });
    written.with_context(|| show(path))
}
