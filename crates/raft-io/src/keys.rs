//! The data key that log and snapshots are sealed under, and where it is kept.
//!
//! The key lies beside the log in a file that only its owner can read. That protects backups of
//! single log files and nothing more; the identity issue moves the key into the headers of the
//! node's TLS key, where a passphrase can guard it.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use swarm_raft::seal::DataKey;
use swarm_rt::OsIds;

use crate::disk::sync_dir;

/// Name of the key file in the raft directory.
pub const KEY_FILE: &str = "dek.key";

const KEY_FILE_TEMP: &str = "dek.key.tmp";

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file is not a key.
    #[error("{path} is not a data key: expected 64 hexadecimal digits; restore it from a backup")]
    Malformed {
        /// The key file.
        path: PathBuf,
    },
    /// There are sealed files and no key; making a new one would lock them for ever.
    #[error(
        "{path} is missing, and {sealed} cannot be read without it: restore the key from a backup"
    )]
    Missing {
        /// Where the key should be.
        path: PathBuf,
        /// One of the files that need it.
        sealed: String,
    },
    /// The system refused.
    #[error("cannot read or write the data key {path}")]
    Io {
        /// The key file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Reads the key of a raft directory, or makes one if the directory has nothing sealed in it.
pub fn load_or_create(raft_dir: &Path) -> Result<DataKey, KeyError> {
    let path = raft_dir.join(KEY_FILE);
    let io = |source| KeyError::Io {
        path: path.clone(),
        source,
    };
    match fs::read(&path) {
        Ok(text) => decode(&text).ok_or(KeyError::Malformed { path }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(sealed) = sealed_file(raft_dir).map_err(io)? {
                return Err(KeyError::Missing { path, sealed });
            }
            create(raft_dir).map_err(io)
        }
        Err(error) => Err(io(error)),
    }
}

fn create(raft_dir: &Path) -> io::Result<DataKey> {
    let mut secret = [0; 32];
    let mut random = OsIds::new();
    for bytes in secret.chunks_mut(8) {
        bytes.copy_from_slice(&random.next_u64().to_le_bytes());
    }
    let temp = raft_dir.join(KEY_FILE_TEMP);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temp)?;
    file.write_all(encode(&secret).as_bytes())?;
    file.sync_all()?;
    fs::rename(&temp, raft_dir.join(KEY_FILE))?;
    sync_dir(raft_dir)?;
    Ok(DataKey::new(secret))
}

fn encode(secret: &[u8; 32]) -> String {
    let mut text = String::with_capacity(65);
    for byte in secret {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(digit.into(), 16).expect("four bits are one digit"));
        }
    }
    text.push('\n');
    text
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
fn sealed_file(raft_dir: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(raft_dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".seg") || name.ends_with(".snap") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_private() {
        let dir = tempfile::tempdir().unwrap();
        let key = load_or_create(dir.path()).unwrap();
        assert_eq!(load_or_create(dir.path()).unwrap().id(), key.id());
        let mode = fs::metadata(dir.path().join(KEY_FILE))
            .unwrap()
            .permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(load_or_create(other.path()).unwrap().id(), key.id());
    }

    #[test]
    fn a_file_that_is_no_key_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(KEY_FILE);
        for text in [
            "",
            "abc",
            &"g".repeat(64),
            &"a".repeat(63),
            &"a".repeat(65),
            &"+a".repeat(32),
        ] {
            fs::write(&path, text).unwrap();
            let error = load_or_create(dir.path()).unwrap_err();
            assert!(matches!(error, KeyError::Malformed { .. }), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        fs::write(&path, "a".repeat(64)).unwrap();
        assert!(load_or_create(dir.path()).is_ok());
    }

    #[test]
    fn no_key_is_made_where_sealed_files_wait_for_the_old_one() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("log-1.seg"), "x").unwrap();
        let error = load_or_create(dir.path()).unwrap_err();
        assert!(error.to_string().contains("log-1.seg"), "{error}");
        assert!(!dir.path().join(KEY_FILE).exists());
    }
}
