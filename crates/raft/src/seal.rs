//! Encryption at rest: data keys in, sealed bytes out.
//!
//! Owns key identifiers, the key derived per file, and how a nonce is formed. Owns no random
//! source (keys and salts are arguments) and no place where keys are kept.
//!
//! Every file has its own AES-256-GCM key: HKDF-SHA256 over the data key, with the random salt
//! of that file and its whole header as the context. So a changed header opens nothing, and a
//! counter is a safe nonce as long as one file has one writer that never counts back.

use std::fmt;

use ring::{aead, hkdf};

/// Bytes that sealing adds to a payload.
pub const TAG_BYTES: usize = 16;

/// Bytes of a salt.
pub const SALT_BYTES: usize = 16;

/// Sixteen fresh random bytes, one draw per file.
pub type Salt = [u8; SALT_BYTES];

/// Where salts come from: the operating system in production, a seed in simulation.
/// A salt that comes twice under one data key breaks the encryption.
pub type SaltSource = Box<dyn FnMut() -> Salt + Send>;

/// Names a data key without revealing it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyId(pub [u8; 8]);

impl fmt::Display for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for KeyId {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "KeyId({self})")
    }
}

/// The 32 secret bytes that log and snapshots of one manager are sealed under.
#[derive(Clone)]
pub struct DataKey {
    secret: [u8; 32],
    id: KeyId,
}

impl fmt::Debug for DataKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "DataKey({})", self.id)
    }
}

impl DataKey {
    /// Takes 32 random bytes.
    pub fn new(secret: [u8; 32]) -> Self {
        let mut id = [0; 8];
        derive(
            &secret,
            &[],
            b"swarmkit-rs data key id",
            HkdfLen(8),
            &mut id,
        );
        DataKey {
            secret,
            id: KeyId(id),
        }
    }

    /// The public name of this key.
    pub fn id(&self) -> KeyId {
        self.id
    }

    /// The secret bytes, for whoever keeps them.
    pub fn secret(&self) -> &[u8; 32] {
        &self.secret
    }
}

/// The key that new files are sealed under, and older ones that may still be met on disk.
#[derive(Clone, Debug)]
pub struct Keyring {
    current: DataKey,
    older: Vec<DataKey>,
}

impl Keyring {
    /// One key and no history.
    pub fn new(current: DataKey) -> Self {
        Keyring {
            current,
            older: Vec::new(),
        }
    }

    /// A rotation under way: files under `older` keys can be read, none is written.
    pub fn with_older(current: DataKey, older: Vec<DataKey>) -> Self {
        Keyring { current, older }
    }

    /// The key for new files.
    pub fn current(&self) -> &DataKey {
        &self.current
    }

    /// All keys but the one of that name.
    pub(crate) fn all_but(&self, id: KeyId) -> Vec<DataKey> {
        let all = std::iter::once(&self.current).chain(&self.older);
        all.filter(|key| key.id != id).cloned().collect()
    }

    /// The key of that name, if it is here.
    pub fn find(&self, id: KeyId) -> Option<&DataKey> {
        std::iter::once(&self.current)
            .chain(&self.older)
            .find(|key| key.id == id)
    }
}

/// The key of one file.
pub(crate) struct FileKey {
    key: aead::LessSafeKey,
}

impl FileKey {
    /// Derives the key of the file which has this salt and this header.
    pub(crate) fn derive(data_key: &DataKey, salt: &Salt, header: &[u8]) -> Self {
        let salted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(&data_key.secret);
        let info = [b"swarmkit-rs file key".as_slice(), header];
        let expanded = salted
            .expand(&info, &aead::AES_256_GCM)
            .expect("the key length of AES-256-GCM is below the limit of HKDF");
        FileKey {
            key: aead::LessSafeKey::new(aead::UnboundKey::from(expanded)),
        }
    }

    /// Seals `bytes[from..]` in place and appends the tag.
    pub(crate) fn seal(&self, counter: u64, aad: &[u8], bytes: &mut Vec<u8>, from: usize) {
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce(counter), aead::Aad::from(aad), &mut bytes[from..])
            .expect("a payload is far below the 64 GiB limit of GCM");
        bytes.extend_from_slice(tag.as_ref());
    }

    /// Opens sealed bytes; `None` when key, counter, context or content do not belong together.
    pub(crate) fn open(&self, counter: u64, aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let mut bytes = sealed.to_vec();
        let plain = self
            .key
            .open_in_place(nonce(counter), aead::Aad::from(aad), &mut bytes)
            .ok()?
            .len();
        bytes.truncate(plain);
        Some(bytes)
    }
}

/// The counter, big endian, in the last eight bytes. Unique because a file's counter only grows.
fn nonce(counter: u64) -> aead::Nonce {
    let mut bytes = [0; aead::NONCE_LEN];
    bytes[aead::NONCE_LEN - 8..].copy_from_slice(&counter.to_be_bytes());
    aead::Nonce::assume_unique_for_key(bytes)
}

struct HkdfLen(usize);

impl hkdf::KeyType for HkdfLen {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(secret: &[u8; 32], salt: &[u8], info: &[u8], len: HkdfLen, out: &mut [u8]) {
    hkdf::Salt::new(hkdf::HKDF_SHA256, salt)
        .extract(secret)
        .expand(&[info], len)
        .and_then(|okm| okm.fill(out))
        .expect("the output length equals the length asked for and is below the limit of HKDF");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: &FileKey, counter: u64, aad: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut bytes = plain.to_vec();
        key.seal(counter, aad, &mut bytes, 0);
        bytes
    }

    #[test]
    fn opens_only_with_the_same_key_counter_and_context() {
        let data_key = DataKey::new([7; 32]);
        let key = FileKey::derive(&data_key, &[1; 16], b"header");
        let bytes = sealed(&key, 5, b"aad", b"secret");
        assert_eq!(bytes.len(), 6 + TAG_BYTES);
        assert_eq!(
            key.open(5, b"aad", &bytes).as_deref(),
            Some(b"secret".as_slice())
        );
        assert_eq!(key.open(6, b"aad", &bytes), None);
        assert_eq!(key.open(5, b"aae", &bytes), None);
        assert_eq!(key.open(5, b"aad", &bytes[..TAG_BYTES - 1]), None);
        let others = [
            FileKey::derive(&DataKey::new([8; 32]), &[1; 16], b"header"),
            FileKey::derive(&data_key, &[2; 16], b"header"),
            FileKey::derive(&data_key, &[1; 16], b"headex"),
        ];
        for other in others {
            assert_eq!(other.open(5, b"aad", &bytes), None);
        }
    }

    #[test]
    fn a_key_is_printed_by_its_id_only() {
        let key = DataKey::new([0x5A; 32]);
        assert_eq!(format!("{key:?}"), format!("DataKey({})", key.id()));
        assert!(!format!("{:?}", Keyring::new(key)).contains("90"));
    }

    #[test]
    fn a_keyring_finds_current_and_older_keys() {
        let (new, old) = (DataKey::new([1; 32]), DataKey::new([2; 32]));
        let ring = Keyring::with_older(new.clone(), vec![old.clone()]);
        assert_eq!(ring.find(new.id()).map(DataKey::id), Some(new.id()));
        assert_eq!(ring.find(old.id()).map(DataKey::id), Some(old.id()));
        assert!(ring.find(DataKey::new([3; 32]).id()).is_none());
        assert_eq!(ring.current().id(), new.id());
    }
}
