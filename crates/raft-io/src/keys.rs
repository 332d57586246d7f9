//! The data keys that log and snapshots are sealed under, and the seam behind which they are kept.
//!
//! Owns when a key is made, and that of an older version's own file becomes the one of the keeper.
//! Does not own where keys are: a node keeps them in the headers of its key file, where an unlock
//! key can guard them.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

pub use swarm_raft::seal::DataKey;
use swarm_raft::seal::Keyring;
use swarm_rt::OsIds;

use crate::disk::sync_dir;

/// The file in which older versions kept the key, in the raft directory.
const OLD_FILE: &str = "dek.key";

/// What a keeper says when it cannot.
pub type KeeperError = Box<dyn std::error::Error + Send + Sync>;

/// Keeps the data keys of one log.
pub trait KeyKeeper: fmt::Debug + Send + Sync {
    /// The keys, if there are any yet.
    ///
    /// # Errors
    /// Why they cannot be read; nothing is replaced then.
    fn load(&self) -> Result<Option<KeySet>, KeeperError>;

    /// Replaces all keys in one go. They are durable when this returns.
    ///
    /// # Errors
    /// Why not; then the old ones are still there.
    fn save(&self, keys: &KeySet) -> Result<(), KeeperError>;

    /// Where that is, for messages.
    fn place(&self) -> String;
}

/// The keys of one log.
#[derive(Clone, Debug)]
pub struct KeySet {
    /// What is in the log is sealed under it.
    pub current: DataKey,
    /// What is written since a change of keys began is sealed under this one.
    pub pending: Option<DataKey>,
}

impl KeySet {
    /// One key and no change under way.
    pub fn settled(current: DataKey) -> Self {
        Self {
            current,
            pending: None,
        }
    }

    fn ring(self) -> Keyring {
        match self.pending {
            Some(pending) => Keyring::with_older(pending, vec![self.current]),
            None => Keyring::new(self.current),
        }
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file of an older version is not a key.
    #[error("{path} is not a data key: expected 64 hexadecimal digits; restore it from a backup")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
    /// There are sealed files and no key; making a new one would lock them for ever.
    #[error(
        "{place} has no data key, and {sealed} cannot be read without it: restore {place} from a \
         backup"
    )]
    Missing {
        /// Where the key should be.
        place: String,
        /// One of the files that need it.
        sealed: String,
    },
    /// The keeper could not.
    #[error("cannot read or write the data key of the log in {place}")]
    Keeper {
        /// Where that is.
        place: String,
        /// Why.
        source: KeeperError,
    },
    /// The system refused.
    #[error("cannot read {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The keys of a raft directory, or a new one if the directory has nothing sealed in it.
pub(crate) fn load_or_create(raft_dir: &Path, keeper: &dyn KeyKeeper) -> Result<Keyring, KeyError> {
    let failed = |source| KeyError::Keeper {
        place: keeper.place(),
        source,
    };
    let old_file = raft_dir.join(OLD_FILE);
    let io = |source| KeyError::Io {
        path: old_file.clone(),
        source,
    };
    let keys = match (read_old(&old_file)?, keeper.load().map_err(failed)?) {
        (None, Some(keys)) => return Ok(keys.ring()),
        // As long as the file is there, it is the key that the log was sealed under.
        (Some(old), _) => KeySet::settled(old),
        (None, None) => match sealed_file(raft_dir)? {
            Some(sealed) => {
                let place = keeper.place();
                return Err(KeyError::Missing { place, sealed });
            }
            None => KeySet::settled(new_key()),
        },
    };
    keeper.save(&keys).map_err(failed)?;
    remove(&old_file)
        .and_then(|()| sync_dir(raft_dir))
        .map_err(io)?;
    Ok(keys.ring())
}

/// 256 bits from the operating system.
pub(crate) fn new_key() -> DataKey {
    let mut secret = [0; 32];
    let mut random = OsIds::new();
    for bytes in secret.chunks_mut(8) {
        bytes.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    DataKey::new(secret)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn read_old(path: &Path) -> Result<Option<DataKey>, KeyError> {
    let path = path.to_owned();
    match fs::read(&path) {
        Ok(text) => match decode(&text) {
            Some(key) => Ok(Some(key)),
            None => Err(KeyError::Malformed { path }),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KeyError::Io { path, source }),
    }
}

fn decode(text: &[u8]) -> Option<DataKey> {
    let text = std::str::from_utf8(text).ok()?.trim_end();
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut secret = [0; 32];
    for (at, byte) in secret.iter_mut().enumerate() {
        let digits = text.get(at * 2..at * 2 + 2)?;
        // A sign would pass for a digit.
        if !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return None;
        }
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(DataKey::new(secret))
}

/// The name of a file that was sealed, if there is one.
fn sealed_file(raft_dir: &Path) -> Result<Option<String>, KeyError> {
    let io = |source| KeyError::Io {
        path: raft_dir.to_owned(),
        source,
    };
    for entry in fs::read_dir(raft_dir).map_err(io)? {
        let name = entry
            .map_err(io)?
            .file_name()
            .to_string_lossy()
            .into_owned();
        if name.ends_with(".seg") || name.ends_with(".snap") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Keys that are kept nowhere, for tests: whoever opens a log again has to bring them along.
#[derive(Debug, Default)]
pub struct InMemory(Mutex<Option<KeySet>>);

impl InMemory {
    /// Keeps these keys to begin with.
    pub fn with(keys: KeySet) -> Self {
        Self(Mutex::new(Some(keys)))
    }
}

impl KeyKeeper for InMemory {
    fn load(&self) -> Result<Option<KeySet>, KeeperError> {
        Ok(self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    fn save(&self, keys: &KeySet) -> Result<(), KeeperError> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(keys.clone());
        Ok(())
    }

    fn place(&self) -> String {
        "memory".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, keeper: &InMemory) -> Keyring {
        load_or_create(dir, keeper).unwrap()
    }

    #[test]
    fn a_key_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let keeper = InMemory::default();
        let id = open(dir.path(), &keeper).current().id();
        assert_eq!(open(dir.path(), &keeper).current().id(), id);
        assert_ne!(open(dir.path(), &InMemory::default()).current().id(), id);
    }

    #[test]
    fn a_pending_key_is_for_new_files_and_the_current_one_still_opens_old_ones() {
        let dir = tempfile::tempdir().unwrap();
        let (current, pending) = (DataKey::new([1; 32]), DataKey::new([2; 32]));
        let keeper = InMemory::with(KeySet {
            current: current.clone(),
            pending: Some(pending.clone()),
        });
        let ring = open(dir.path(), &keeper);
        assert_eq!(ring.current().id(), pending.id());
        assert!(ring.find(current.id()).is_some());
    }

    #[test]
    fn the_file_of_an_older_version_is_moved_to_the_keeper_once_it_is_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OLD_FILE);
        fs::write(dir.path().join("log-1.seg"), "x").unwrap();
        let expected = DataKey::new([0xaa; 32]).id();
        // The keeper may have the key of a Go node's log, and so it is after a crash in between.
        for keeper in [
            InMemory::default(),
            InMemory::with(KeySet::settled(new_key())),
        ] {
            fs::write(&path, "a".repeat(64)).unwrap();
            assert_eq!(open(dir.path(), &keeper).current().id(), expected);
            assert!(!path.exists());
            assert_eq!(open(dir.path(), &keeper).current().id(), expected);
        }
    }

    #[derive(Debug)]
    struct Full;

    impl KeyKeeper for Full {
        fn load(&self) -> Result<Option<KeySet>, KeeperError> {
            Ok(None)
        }

        fn save(&self, _: &KeySet) -> Result<(), KeeperError> {
            Err("no space".into())
        }

        fn place(&self) -> String {
            "the file".to_owned()
        }
    }

    #[test]
    fn the_file_of_an_older_version_stays_until_the_keeper_has_the_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OLD_FILE);
        fs::write(&path, "a".repeat(64)).unwrap();
        let error = load_or_create(dir.path(), &Full).unwrap_err();
        assert!(error.to_string().contains("the file"), "{error}");
        assert!(path.exists());
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(OLD_FILE);
        for text in [
            "",
            "abc",
            &"g".repeat(64),
            &"a".repeat(63),
            &"a".repeat(65),
            &"+a".repeat(32),
        ] {
            fs::write(&path, text).unwrap();
            let error = load_or_create(dir.path(), &InMemory::default()).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn no_key_is_made_where_sealed_files_wait_for_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log-1.seg"), "x").unwrap();
        let keeper = InMemory::default();
        let error = load_or_create(dir.path(), &keeper).unwrap_err();
        assert!(error.to_string().contains("log-1.seg"), "{error}");
        assert!(keeper.load().unwrap().is_none());
    }
}
