//! The directory `certificates`: root, node certificate and key, in the names and forms of a Go
//! node, so that either can read what the other wrote (spec 2.6).
//!
//! Owns how files are read and replaced, and under which key the key file is sealed. In which
//! order, and what half a replacement means, is decided by [`swarm_ca::keyfile::plan`]. Every step
//! is durable before the next: the file is synced, then renamed into place, then the directory is
//! synced.

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarm_ca::identity;
use swarm_ca::key::{KeyError, KeyPem, PrivateKey};
use swarm_ca::keyfile::data_keys::{DataKeys, NONCE_BYTES};
use swarm_ca::keyfile::plan::{self, Found, Recovered, Step};
use swarm_ca::keyfile::{self, Kek, KeyFile, KeyFileError, Salt};
use swarm_ca::unlock::{Conflict, Seal};
use swarm_rt::{OsIds, private};
use zeroize::Zeroizing;

mod data_keys;
#[cfg(test)]
mod tests;

/// Name of the directory inside the state directory.
const DIRECTORY: &str = "certificates";
/// There from before the first certificate of a new cluster is written until the root's key is in
/// the cluster's store. A node that finds it starts the cluster once more under the same ids.
const FIRST_START: &str = ".first-start";
/// Largest file that is read; a chain is a few KiB. A bound on what somebody put there by mistake.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Why the directory cannot be used. Nothing in it is overwritten then.
#[derive(Debug, thiserror::Error)]
pub enum CertificatesError {
    /// A file cannot be read or written.
    #[error("certificate file {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The key cannot be read.
    #[error("key file {}", .0.display())]
    Key(PathBuf, #[source] KeyFileError),
    /// The key is sealed, and no unlock key was given.
    #[error(
        "node is locked, and needs a valid unlock key: {} is sealed, because the cluster locks its \
         managers; start once more with --unlock-key-file FILE, or with the key in \
         SWARM_UNLOCK_KEY. `swarmctl cluster unlock-key` shows it on a manager that runs",
        .0.display()
    )]
    Locked(PathBuf),
    /// The key is sealed, and the unlock key that was given is another one.
    #[error(
        "node is locked, and needs a valid unlock key: the one that was given does not open {}; if \
         it was changed shortly before the manager stopped, try the one before or after the \
         change. Nothing was written", .0.display()
    )]
    WrongUnlockKey(PathBuf),
    /// Whoever works on files is gone.
    #[error("the work on certificate files was cancelled")]
    Cancelled,
    /// The store and the file do not belong together.
    #[error("key file {}", .0.display())]
    Conflict(PathBuf, #[source] Conflict),
    /// A file is not text.
    #[error(
        "certificate file {} is damaged; restore it from a backup, or move the state directory \
         away to join as a new node", .0.display()
    )]
    Damaged(PathBuf),
}

/// What the directory holds.
#[derive(Debug, Default)]
pub(crate) struct OnDisk {
    /// The root bundle's exact text.
    pub(crate) root_pem: Option<String>,
    /// The root's key, if an operator put it there.
    pub(crate) root_key_pem: Option<KeyPem>,
    /// The node's certificate with its key.
    pub(crate) pair: Option<Pair>,
    /// Whether a first start did not get to its end.
    pub(crate) is_first_start: bool,
}

/// A certificate chain with the key of its leaf.
#[derive(Clone, Debug)]
pub(crate) struct Pair {
    /// Leaf and intermediates.
    pub(crate) chain_pem: String,
    /// The key, not encrypted.
    pub(crate) key_pem: KeyPem,
}

/// The directory. Clones share what is known of it.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    directory: PathBuf,
    /// What the key file is sealed under. Held while the file is read and replaced, so that of two
    /// changes of it none is lost.
    seal: Arc<Mutex<Seal>>,
}

/// What became of the seal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resealed {
    /// It is as wanted.
    Kept,
    /// It was open before.
    Locked,
    /// It has another key.
    Changed,
    /// It is open now.
    Opened,
}

impl Certificates {
    /// Makes the directory if it is missing.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, CertificatesError> {
        let directory = state_dir.join(DIRECTORY);
        let failed = |error| CertificatesError::Io(directory.clone(), error);
        private::subdirectory(&directory).map_err(failed)?;
        sync_directory(state_dir).map_err(failed)?;
        Ok(Self {
            directory,
            seal: Arc::default(),
        })
    }

    /// Where the root bundle is.
    pub(crate) fn root_path(&self) -> PathBuf {
        self.directory.join(plan::ROOT_CERT)
    }

    /// Where the node's certificate is.
    pub(crate) fn node_path(&self) -> PathBuf {
        self.directory.join(plan::NODE_CERT)
    }

    /// Reads everything, and finishes or undoes a replacement that was cut short. From here on the
    /// key file is sealed as it was found.
    pub(crate) fn load(&self, unlock_key: Option<&Kek>) -> Result<OnDisk, CertificatesError> {
        let found = Found {
            cert: self.read(plan::NODE_CERT)?,
            cert_next: self.read(plan::NODE_CERT_NEXT)?,
            key: self.read(plan::NODE_KEY)?.map(Zeroizing::new),
            key_old: self.read(plan::NODE_KEY_OLD)?.map(Zeroizing::new),
        };
        let (recovered, steps) = plan::recover(&found, unlock_key)
            .map_err(|error| self.unreadable(error, unlock_key))?;
        for step in &steps {
            self.apply(step)?;
        }
        let pair = match recovered {
            Recovered::Pair { cert_pem, key } => {
                self.find_seal(&key, unlock_key)?;
                Some(Pair {
                    chain_pem: cert_pem,
                    key_pem: key.key.to_pem(),
                })
            }
            // The first of the two writes of a first certificate may be all that there is; a key
            // without its certificate, or the reverse, is something else.
            Recovered::Nothing if found.key.is_some() || found.cert.is_some() => {
                return Err(CertificatesError::Damaged(self.node_path()));
            }
            Recovered::Nothing => None,
        };
        let root_pem = self.read(plan::ROOT_CERT)?.map(String::from_utf8);
        let root_pem = root_pem
            .transpose()
            .map_err(|_| CertificatesError::Damaged(self.root_path()))?;
        let root_key_pem = self.read(plan::ROOT_KEY)?.map(Zeroizing::new);
        let root_key_pem = root_key_pem
            .map(|text| KeyPem::from_bytes(&text))
            .transpose()
            .map_err(|error| {
                CertificatesError::Key(self.directory.join(plan::ROOT_KEY), error.into())
            })?;
        Ok(OnDisk {
            root_pem,
            root_key_pem,
            pair,
            is_first_start: self.read(FIRST_START)?.is_some(),
        })
    }

    /// Replaces the root bundle.
    pub(crate) fn save_root(&self, root_pem: &str) -> Result<(), CertificatesError> {
        self.apply(&Step::Write {
            name: plan::ROOT_CERT,
            mode: plan::CERT_MODE,
            content: Zeroizing::new(root_pem.as_bytes().to_vec()),
        })
    }

    /// Takes note of how the key file is sealed; an unlock key must open all of it.
    fn find_seal(&self, key: &KeyFile, unlock_key: Option<&Kek>) -> Result<(), CertificatesError> {
        let failed = |error| self.unreadable(error, unlock_key);
        // Not what was found: half a replacement may have left another file in the place of it.
        let text = self.read(plan::NODE_KEY)?.map(Zeroizing::new);
        let is_sealed = text.map(|text| keyfile::is_encrypted(&text)).transpose();
        let is_sealed = is_sealed.map_err(failed)?.unwrap_or(false);
        let seal = Seal {
            kek: unlock_key.filter(|_| is_sealed).cloned(),
            version: key.kek_version().map_err(failed)?,
        };
        DataKeys::read(&key.headers, seal.kek.as_ref()).map_err(failed)?;
        if unlock_key.is_some() && !is_sealed {
            tracing::warn!("this node is not locked; the unlock key that was given is not used");
        }
        *self.seal() = seal;
        Ok(())
    }

    fn unreadable(&self, error: KeyFileError, unlock_key: Option<&Kek>) -> CertificatesError {
        let path = self.key_path();
        if error != KeyFileError::Locked {
            return CertificatesError::Key(path, error);
        }
        match unlock_key {
            None => CertificatesError::Locked(path),
            Some(_) => CertificatesError::WrongUnlockKey(path),
        }
    }

    /// Whether the key file is sealed.
    pub(crate) fn is_sealed(&self) -> bool {
        self.seal().kek.is_some()
    }

    fn seal(&self) -> MutexGuard<'_, Seal> {
        // A panic leaves the seal of before, which is that of the file unless the file says else.
        self.seal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_path(&self) -> PathBuf {
        self.directory.join(plan::NODE_KEY)
    }

    /// Replaces certificate and key. The headers of the key file stay, and so does its seal, unless
    /// the certificate is a worker's: workers are not locked, and keep no log.
    pub(crate) fn save(&self, pair: &Pair) -> Result<(), CertificatesError> {
        let failed = |error| CertificatesError::Key(self.key_path(), error);
        let mut seal = self.seal();
        let key =
            PrivateKey::from_pem(&pair.key_pem).map_err(|error: KeyError| failed(error.into()))?;
        let mut file = KeyFile::new(key, seal.version);
        let mut next = seal.clone();
        if identity::read_pem(pair.chain_pem.as_bytes()).is_ok_and(|it| it.is_worker()) {
            next = Seal::default();
            file.set_kek_version(0);
        } else if let Some(before) = self.key_file(&seal)? {
            file.headers.0.extend(before.headers.0);
            file.set_needs_renewal(false);
        }
        let text = sealed_text(&file, &next).map_err(failed)?;
        for step in plan::replace(&pair.chain_pem, &text) {
            self.apply(&step)?;
        }
        *seal = next;
        Ok(())
    }

    /// Seals the key file, with the data keys in it, as the cluster wants it, if that is newer than
    /// what is there. The file is replaced in one go: at each moment it opens with the key of
    /// before or with the new one.
    pub(crate) fn reseal(&self, wanted: &Seal) -> Result<Resealed, CertificatesError> {
        let failed = |error| CertificatesError::Key(self.key_path(), error);
        let mut seal = self.seal();
        let conflict = |error| CertificatesError::Conflict(self.key_path(), error);
        if !seal.yields_to(wanted).map_err(conflict)? {
            return Ok(Resealed::Kept);
        }
        let (mut file, kek) = self.before_or_after(&seal, wanted)?;
        let was_open = seal.kek.is_none();
        let keys = DataKeys::read(&file.headers, kek).map_err(failed)?;
        if let Some(mut keys) = keys {
            // Whoever read the file while it was open can open the log as well.
            keys.needs_rotation |= was_open;
            keys.write(&mut file.headers, wanted.kek.as_ref(), &mut nonce);
        }
        file.set_kek_version(wanted.version);
        file.set_needs_renewal(wanted.kek.is_some() && (was_open || file.needs_renewal()));
        let text = sealed_text(&file, wanted).map_err(failed)?;
        self.apply(&plan::replace_key(&text))?;
        *seal = wanted.clone();
        Ok(match (was_open, wanted.kek.is_none()) {
            (true, _) => Resealed::Locked,
            (false, true) => Resealed::Opened,
            (false, false) => Resealed::Changed,
        })
    }

    /// The key file, and the key that opens it. That is the wanted one after an attempt of which
    /// only the end failed, when the file had its new name and that was not durable yet.
    fn before_or_after<'a>(
        &self,
        before: &'a Seal,
        after: &'a Seal,
    ) -> Result<(KeyFile, Option<&'a Kek>), CertificatesError> {
        use CertificatesError::{Locked, WrongUnlockKey};
        let (file, seal) = match self.key_file(before) {
            Err(Locked(_) | WrongUnlockKey(_)) => (self.key_file(after)?, after),
            file => (file?, before),
        };
        let file = file.ok_or_else(|| CertificatesError::Damaged(self.key_path()))?;
        Ok((file, seal.kek.as_ref()))
    }

    /// Whether the node has to get another certificate, because its key was in the clear.
    pub(crate) fn wants_renewal(&self) -> Result<bool, CertificatesError> {
        let seal = self.seal();
        Ok(self
            .key_file(&seal)?
            .is_some_and(|file| file.needs_renewal()))
    }

    /// The key file that is there, if one is. One that cannot be read is an error: its headers hold
    /// keys that nothing else has.
    fn key_file(&self, seal: &Seal) -> Result<Option<KeyFile>, CertificatesError> {
        let Some(text) = self.read(plan::NODE_KEY)?.map(Zeroizing::new) else {
            return Ok(None);
        };
        KeyFile::read(&text, seal.kek.as_ref())
            .map(Some)
            .map_err(|error| self.unreadable(error, seal.kek.as_ref()))
    }

    /// Notes that a new cluster begins here.
    pub(crate) fn begin_first_start(&self) -> Result<(), CertificatesError> {
        self.apply(&Step::Write {
            name: FIRST_START,
            mode: plan::KEY_MODE,
            content: Zeroizing::new(Vec::new()),
        })
    }

    /// Notes that the new cluster has everything.
    pub(crate) fn end_first_start(&self) -> Result<(), CertificatesError> {
        self.apply(&Step::Remove { name: FIRST_START })
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, CertificatesError> {
        let path = self.directory.join(name);
        let bytes = match File::open(&path) {
            Ok(file) => read_bounded(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => Err(error),
        };
        bytes
            .map(Some)
            .map_err(|error| CertificatesError::Io(path, error))
    }

    fn apply(&self, step: &Step) -> Result<(), CertificatesError> {
        let path = |name: &str| self.directory.join(name);
        let (done, name) = match step {
            Step::Write {
                name,
                mode,
                content,
            } => (replace(&path(name), *mode, content), *name),
            Step::Rename { from, to } => (std::fs::rename(path(from), path(to)), *to),
            Step::Remove { name } => (remove(&path(name)), *name),
        };
        done.and_then(|()| sync_directory(&self.directory))
            .map_err(|error| CertificatesError::Io(path(name), error))
    }
}

fn sealed_text(file: &KeyFile, seal: &Seal) -> Result<Zeroizing<String>, KeyFileError> {
    file.write(seal.kek.as_ref().map(|kek| (kek, salt())))
}

fn salt() -> Salt {
    Salt {
        derivation: random(),
        cipher: random(),
    }
}

fn nonce() -> [u8; NONCE_BYTES] {
    random()
}

fn random<const N: usize>() -> [u8; N] {
    let mut ids = OsIds::new();
    let mut bytes = [0; N];
    for chunk in bytes.chunks_mut(8) {
        chunk.copy_from_slice(&ids.next_u64().to_be_bytes()[..chunk.len()]);
    }
    bytes
}

fn read_bounded(file: File) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        let text = format!("it has more than {FILE_BYTES_MAX} bytes");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(bytes)
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Replaces a file: a crash leaves the old one or the new one, never half of it. The caller syncs
/// the directory.
pub(crate) fn replace(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".tmp-{name}"));
    // One that a crash left may have another mode.
    remove(&temporary)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)
}

/// Makes renames in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}
