//! The data keys of a manager's log in the headers of its key file (spec 2.7 and 4.8).
//!
//! Owns the form of the values, which is a Go node's: a record that is plain, or sealed with
//! XSalsa20 and Poly1305 under the key that the file itself is encrypted with. Random nonces are
//! arguments.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_secretbox::aead::Aead as _;
use crypto_secretbox::{Key, KeyInit as _, Nonce, XSalsa20Poly1305};
use prost::Message as _;
use swarm_api::v1::MaybeEncryptedRecord;
use swarm_api::v1::maybe_encrypted_record::Algorithm;
use zeroize::Zeroizing;

use super::{Headers, Kek, KeyFileError, RAFT_DEK, RAFT_DEK_NEEDS_ROTATION, RAFT_DEK_PENDING};

/// Bytes of a data key.
pub const KEY_BYTES: usize = 32;
/// Bytes of a nonce.
pub const NONCE_BYTES: usize = 24;

/// The secret bytes of a data key.
pub type Secret = Zeroizing<[u8; KEY_BYTES]>;

/// What the headers say about the log's data keys.
#[derive(Clone, PartialEq, Eq)]
pub struct DataKeys {
    /// The key of what is in the log.
    pub current: Secret,
    /// The key of what is written since a change began.
    pub pending: Option<Secret>,
    /// Whether a change has to begin: the current key was in the file in the clear.
    pub needs_rotation: bool,
}

impl fmt::Debug for DataKeys {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DataKeys")
            .field("is_pending", &self.pending.is_some())
            .field("needs_rotation", &self.needs_rotation)
            .finish_non_exhaustive()
    }
}

impl DataKeys {
    /// Reads the headers; `None` when the file belongs to a node that has no log.
    ///
    /// # Errors
    /// [`KeyFileError::Locked`] when `kek` is not the key that sealed them, and
    /// [`KeyFileError::DataKey`] when they are malformed.
    pub fn read(headers: &Headers, kek: Option<&Kek>) -> Result<Option<Self>, KeyFileError> {
        let value = |name: &'static str| {
            let text = headers.0.get(name);
            text.map(|text| open(name, text, kek)).transpose()
        };
        let pending = value(RAFT_DEK_PENDING)?;
        let Some(current) = value(RAFT_DEK)? else {
            return match pending {
                Some(_) => Err(KeyFileError::DataKey(RAFT_DEK, "is missing")),
                None => Ok(None),
            };
        };
        let needs_rotation = headers.0.get(RAFT_DEK_NEEDS_ROTATION);
        Ok(Some(Self {
            current,
            pending,
            needs_rotation: needs_rotation.is_some_and(|text| text == "true"),
        }))
    }

    /// Writes the headers, sealed if there is a key for that.
    pub fn write(
        &self,
        headers: &mut Headers,
        kek: Option<&Kek>,
        nonce: &mut dyn FnMut() -> [u8; NONCE_BYTES],
    ) {
        let mut set = |name: &str, secret: Option<&Secret>| {
            let value = secret.map(|secret| seal(secret, kek.map(|kek| (kek, nonce()))));
            put(headers, name, value);
        };
        set(RAFT_DEK, Some(&self.current));
        set(RAFT_DEK_PENDING, self.pending.as_ref());
        let flag = self.needs_rotation.then(|| "true".to_owned());
        put(headers, RAFT_DEK_NEEDS_ROTATION, flag);
    }
}

fn put(headers: &mut Headers, name: &str, value: Option<String>) {
    match value {
        Some(value) => headers.0.insert(name.to_owned(), value),
        None => headers.0.remove(name),
    };
}

fn seal(secret: &Secret, under: Option<(&Kek, [u8; NONCE_BYTES])>) -> String {
    let record = match under {
        None => MaybeEncryptedRecord {
            algorithm: Algorithm::None as i32,
            data: secret.to_vec().into(),
            ..Default::default()
        },
        Some((kek, nonce)) => {
            let sealed = cipher(kek).encrypt(Nonce::from_slice(&nonce), secret.as_slice());
            MaybeEncryptedRecord {
                algorithm: Algorithm::SecretboxSalsa20Poly1305 as i32,
                data: sealed.expect("32 bytes are below every limit").into(),
                nonce: nonce.to_vec().into(),
            }
        }
    };
    STANDARD.encode(record.encode_to_vec())
}

fn open(name: &'static str, text: &str, kek: Option<&Kek>) -> Result<Secret, KeyFileError> {
    let malformed = |why| KeyFileError::DataKey(name, why);
    let bytes = STANDARD.decode(text);
    let bytes = Zeroizing::new(bytes.map_err(|_| malformed("is not base64"))?);
    let record = MaybeEncryptedRecord::decode(bytes.as_slice());
    let record = record.map_err(|_| malformed("is not a record"))?;
    let plain = match Algorithm::try_from(record.algorithm) {
        Ok(Algorithm::None) => Zeroizing::new(record.data.to_vec()),
        Ok(Algorithm::SecretboxSalsa20Poly1305) => {
            let kek = kek.ok_or(KeyFileError::Locked)?;
            if record.nonce.len() != NONCE_BYTES {
                return Err(malformed("has a nonce of the wrong length"));
            }
            let nonce = Nonce::from_slice(&record.nonce);
            let plain = cipher(kek).decrypt(nonce, &*record.data);
            Zeroizing::new(plain.map_err(|_| KeyFileError::Locked)?)
        }
        Ok(Algorithm::FernetAes128Cbc) => {
            return Err(malformed("is encrypted with Fernet, for FIPS mode only"));
        }
        Err(_) => return Err(malformed("is encrypted in an unknown way")),
    };
    let secret = plain.as_slice().try_into();
    secret
        .map(Zeroizing::new)
        .map_err(|_| malformed("is not a key of 32 bytes"))
}

/// Keys that are shorter are filled up with zeros, longer ones are cut, as Go does.
fn cipher(kek: &Kek) -> XSalsa20Poly1305 {
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    for (to, from) in key.iter_mut().zip(kek.bytes()) {
        *to = *from;
    }
    XSalsa20Poly1305::new(Key::from_slice(key.as_slice()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> DataKeys {
        DataKeys {
            current: Zeroizing::new([1; 32]),
            pending: Some(Zeroizing::new([2; 32])),
            needs_rotation: true,
        }
    }

    fn written(keys: &DataKeys, kek: Option<&Kek>) -> Headers {
        let mut headers = Headers::default();
        let mut count = 0;
        keys.write(&mut headers, kek, &mut || {
            count += 1;
            [count; NONCE_BYTES]
        });
        headers
    }

    #[test]
    fn keys_round_trip_with_and_without_a_seal() {
        let kek = Kek::new(vec![9; 32]);
        for kek in [None, Some(&kek)] {
            let headers = written(&keys(), kek);
            assert_eq!(DataKeys::read(&headers, kek), Ok(Some(keys())));
        }
        let mut settled = keys();
        (settled.pending, settled.needs_rotation) = (None, false);
        let mut headers = written(&keys(), None);
        settled.write(&mut headers, None, &mut || [0; NONCE_BYTES]);
        assert_eq!(headers.0.len(), 1, "{headers:?}");
        assert_eq!(DataKeys::read(&headers, None), Ok(Some(settled)));
        assert_eq!(DataKeys::read(&Headers::default(), None), Ok(None));
    }

    #[test]
    fn sealed_keys_open_with_their_key_only_and_never_show_themselves() {
        let kek = Kek::new(vec![9; 32]);
        let headers = written(&keys(), Some(&kek));
        for wrong in [None, Some(Kek::new(vec![8; 32])), Some(Kek::new(vec![]))] {
            let refused = DataKeys::read(&headers, wrong.as_ref());
            assert_eq!(refused, Err(KeyFileError::Locked));
        }
        let shown = format!("{:?} {headers:?}", keys());
        assert!(!shown.contains("[1") && !shown.contains(&headers.0[RAFT_DEK]));
    }

    #[test]
    fn malformed_headers_are_named() {
        let kek = Kek::new(vec![9; 32]);
        let record = |algorithm: i32, bytes: usize, nonce: usize| {
            let record = MaybeEncryptedRecord {
                algorithm,
                data: vec![0; bytes].into(),
                nonce: vec![0; nonce].into(),
            };
            STANDARD.encode(record.encode_to_vec())
        };
        for value in [
            "?".to_owned(),
            "AAAA".to_owned(),
            record(0, 31, 0),
            record(1, 48, 23),
            record(2, 100, 0),
            record(7, 32, 0),
        ] {
            let mut headers = Headers::default();
            headers.0.insert(RAFT_DEK.to_owned(), value.clone());
            let error = DataKeys::read(&headers, Some(&kek)).unwrap_err();
            assert!(error.to_string().contains(RAFT_DEK), "{value}: {error}");
        }
        let mut headers = written(&keys(), None);
        headers.0.remove(RAFT_DEK);
        let error = DataKeys::read(&headers, None).unwrap_err();
        assert_eq!(error, KeyFileError::DataKey(RAFT_DEK, "is missing"));
    }
}
