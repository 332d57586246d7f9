//! The directory `certificates`: root, node certificate and key, in the names and forms of a Go
//! node, so that either can read what the other wrote (spec 2.6).
//!
//! Owns how files are read and replaced. In which order, and what half a replacement means, is
//! decided by [`swarm_ca::keyfile::plan`]. Every step is durable before the next: the file is
//! synced, then renamed into place, then the directory is synced.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use swarm_ca::key::{KeyError, KeyPem, PrivateKey};
use swarm_ca::keyfile::plan::{self, Found, Recovered, Step};
use swarm_ca::keyfile::{Headers, KeyFile, KeyFileError};
use zeroize::Zeroizing;

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

/// The directory.
#[derive(Clone, Debug)]
pub(crate) struct Certificates {
    directory: PathBuf,
}

impl Certificates {
    /// Makes the directory if it is missing.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, CertificatesError> {
        let directory = state_dir.join(DIRECTORY);
        let failed = |error| CertificatesError::Io(directory.clone(), error);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(failed)?;
        sync_directory(state_dir).map_err(failed)?;
        Ok(Self { directory })
    }

    /// Where the root bundle is.
    pub(crate) fn root_path(&self) -> PathBuf {
        self.directory.join(plan::ROOT_CERT)
    }

    /// Where the node's certificate is.
    pub(crate) fn node_path(&self) -> PathBuf {
        self.directory.join(plan::NODE_CERT)
    }

    /// Reads everything, and finishes or undoes a replacement that was cut short.
    pub(crate) fn load(&self) -> Result<OnDisk, CertificatesError> {
        let found = Found {
            cert: self.read(plan::NODE_CERT)?,
            cert_next: self.read(plan::NODE_CERT_NEXT)?,
            key: self.read(plan::NODE_KEY)?.map(Zeroizing::new),
            key_old: self.read(plan::NODE_KEY_OLD)?.map(Zeroizing::new),
        };
        let key_path = || self.directory.join(plan::NODE_KEY);
        let (recovered, steps) = plan::recover(&found, None)
            .map_err(|error| CertificatesError::Key(key_path(), error))?;
        for step in &steps {
            self.apply(step)?;
        }
        let pair = match recovered {
            Recovered::Pair { cert_pem, key } => Some(Pair {
                chain_pem: cert_pem,
                key_pem: key.key.to_pem(),
            }),
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

    /// Replaces certificate and key; the headers of the key file stay.
    pub(crate) fn save(&self, pair: &Pair) -> Result<(), CertificatesError> {
        let path = self.directory.join(plan::NODE_KEY);
        let failed = |error: KeyFileError| CertificatesError::Key(path.clone(), error);
        let key =
            PrivateKey::from_pem(&pair.key_pem).map_err(|error: KeyError| failed(error.into()))?;
        let mut file = KeyFile::new(key, 0);
        if let Some(headers) = self.headers()? {
            file.headers.0.extend(headers.0);
        }
        let text = file.write(None).map_err(failed)?;
        for step in plan::replace(&pair.chain_pem, &text) {
            self.apply(&step)?;
        }
        Ok(())
    }

    /// The headers of the key file that is there, if one is.
    fn headers(&self) -> Result<Option<Headers>, CertificatesError> {
        let Some(text) = self.read(plan::NODE_KEY)? else {
            return Ok(None);
        };
        // A key that cannot be read was refused at the start.
        Ok(KeyFile::read(&text, None).ok().map(|file| file.headers))
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;
    use std::time::Duration;

    use swarm_api::v1::NodeRole;
    use swarm_ca::issue::{Signer, Subject};
    use swarm_ca::{csr, root};
    use swarm_types::Timestamp;

    use super::*;

    fn pair() -> Pair {
        let now = Timestamp::from_millis(1_795_694_429_000);
        let (root_pem, key) = root::new_root(now);
        let signer = Signer::new(&root_pem, &key, "").unwrap();
        let key_pem = csr::new_key();
        let request = csr::request(&key_pem).unwrap();
        let subject = Subject {
            node: "n".parse().unwrap(),
            cluster: "c".parse().unwrap(),
            role: NodeRole::Worker,
        };
        let day = Duration::from_secs(24 * 3600);
        let chain_pem = signer
            .sign(request.as_bytes(), &subject, day, now, [1; 20])
            .unwrap();
        Pair { chain_pem, key_pem }
    }

    fn names(directory: &Path) -> Vec<(String, u32)> {
        let entries = std::fs::read_dir(directory.join(DIRECTORY)).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| {
                let entry = entry.unwrap();
                let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
                (entry.file_name().into_string().unwrap(), mode)
            })
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_is_saved_is_loaded_under_the_names_and_modes_of_a_go_node() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::open(directory.path()).unwrap();
        assert!(certificates.load().unwrap().pair.is_none());
        let pair = pair();
        certificates.begin_first_start().unwrap();
        certificates.save_root("root\n").unwrap();
        certificates.save(&pair).unwrap();
        let loaded = certificates.load().unwrap();
        assert!(loaded.is_first_start);
        assert_eq!(loaded.root_pem.as_deref(), Some("root\n"));
        assert_eq!(loaded.pair.unwrap().chain_pem, pair.chain_pem);
        certificates.end_first_start().unwrap();
        certificates.end_first_start().unwrap();
        assert!(!certificates.load().unwrap().is_first_start);
        let expected = [
            ("swarm-node.crt", 0o644),
            ("swarm-node.key", 0o600),
            ("swarm-root-ca.crt", 0o644),
        ];
        let expected = expected.map(|(name, mode)| (name.to_owned(), mode));
        assert_eq!(names(directory.path()), expected);
    }

    #[test]
    fn headers_of_the_key_file_outlive_a_renewal() {
        let directory = tempfile::tempdir().unwrap();
        let certificates = Certificates::open(directory.path()).unwrap();
        let first = pair();
        let key = PrivateKey::from_pem(&first.key_pem).unwrap();
        let mut file = KeyFile::new(key, 9);
        file.headers.0.insert("raft-dek".into(), "c2VjcmV0".into());
        let text = file.write(None).unwrap();
        for step in plan::replace(&first.chain_pem, &text) {
            certificates.apply(&step).unwrap();
        }
        certificates.save(&pair()).unwrap();
        let text = certificates.read(plan::NODE_KEY).unwrap().unwrap();
        let file = KeyFile::read(&text, None).unwrap();
        assert_eq!(file.headers.0["raft-dek"], "c2VjcmV0");
        assert_eq!(file.kek_version(), Ok(9));
    }

    #[test]
    fn a_crash_between_any_two_steps_leaves_a_pair_that_loads() {
        let (old, new) = (pair(), pair());
        let key = PrivateKey::from_pem(&new.key_pem).unwrap();
        let text = KeyFile::new(key, 0).write(None).unwrap();
        let steps = plan::replace(&new.chain_pem, &text);
        for done in 0..=steps.len() {
            let directory = tempfile::tempdir().unwrap();
            let certificates = Certificates::open(directory.path()).unwrap();
            certificates.save(&old).unwrap();
            for step in &steps[..done] {
                certificates.apply(step).unwrap();
            }
            // A write that was cut short leaves such a file.
            let half = directory.path().join(DIRECTORY).join(".tmp-swarm-node.key");
            std::fs::write(half, "half").unwrap();
            let expected = if done < 2 { &old } else { &new };
            for _ in 0..2 {
                let loaded = certificates.load().unwrap().pair.unwrap();
                assert_eq!(loaded.chain_pem, expected.chain_pem, "after {done} steps");
            }
            certificates.save(&old).unwrap();
            let loaded = certificates.load().unwrap().pair.unwrap();
            assert_eq!(loaded.chain_pem, old.chain_pem);
        }
    }

    #[test]
    fn what_is_damaged_or_locked_is_refused_and_left_alone() {
        let pair = pair();
        let locked =
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMAA=\n-----END ENCRYPTED PRIVATE KEY-----\n";
        for (name, content) in [
            (plan::NODE_KEY, "nonsense"),
            (plan::NODE_KEY, locked),
            (plan::NODE_CERT, "nonsense"),
            (plan::NODE_CERT, ""),
        ] {
            let directory = tempfile::tempdir().unwrap();
            let certificates = Certificates::open(directory.path()).unwrap();
            certificates.save(&pair).unwrap();
            let path = directory.path().join(DIRECTORY).join(name);
            std::fs::write(&path, content).unwrap();
            let error = certificates.load().unwrap_err();
            assert!(error.to_string().contains("swarm-node"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), content);
        }
    }
}
