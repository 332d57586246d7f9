//! The file that holds a node's private key, in the form that a Go node writes and reads.
//!
//! Owns the three forms of the key (plain PKCS#8, encrypted PKCS#8, and reading of the old SEC1),
//! the headers that carry the log's data keys ([`data_keys`]), and the order of writes ([`plan`]).
//! Owns no file.

pub mod data_keys;
pub mod plan;

use std::collections::BTreeMap;
use std::fmt;

use der::{Decode as _, Encode as _};
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::pkcs5::EncryptionScheme;
use pkcs8::pkcs5::pbes2::{self, Kdf, Parameters, Pbkdf2Params, Pbkdf2Prf};
use zeroize::Zeroizing;

use crate::key::{KeyError, PKCS8_LABEL, PrivateKey};
use crate::pem::{self, PemError};

/// The label of an encrypted key.
pub const ENCRYPTED_LABEL: &str = "ENCRYPTED PRIVATE KEY";
/// The header that says which version of the cluster object the encryption key came from.
pub const KEK_VERSION: &str = "kek-version";
/// The header of the log's data key.
pub const RAFT_DEK: &str = "raft-dek";
/// The header of the data key that comes next.
pub const RAFT_DEK_PENDING: &str = "raft-dek-pending";
/// The header that asks for another data key.
pub const RAFT_DEK_NEEDS_ROTATION: &str = "raft-dek-needs-rotation";
/// The header that asks for another key of the node, because this one was in the file in the clear.
/// A Go node knows none of that name, and drops it.
pub const NEEDS_RENEWAL: &str = "needs-renewal";
/// Headers of the old form of encryption (RFC 1423).
const OLD_ENCRYPTION: &str = "DEK-Info";

/// What Go writes, and the most that is computed when reading.
const ITERATIONS: u32 = 2048;
const ITERATIONS_MAX: u32 = 10_000_000;

/// The key that a key file is encrypted with: the raw bytes are the password.
#[derive(Clone, PartialEq, Eq)]
pub struct Kek(Zeroizing<Vec<u8>>);

impl Kek {
    /// Takes the bytes, 32 in a cluster.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Kek {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Kek(hidden)")
    }
}

/// Random bytes for one encryption.
#[derive(Clone, Copy, Debug)]
pub struct Salt {
    /// Eight bytes for the derivation of the key.
    pub derivation: [u8; 8],
    /// Sixteen bytes for the cipher.
    pub cipher: [u8; 16],
}

/// Why a key file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyFileError {
    /// Not PEM.
    #[error("the key file is not PEM")]
    Pem(#[from] PemError),
    /// No key in it.
    #[error("the key file holds no usable private key")]
    Key(#[from] KeyError),
    /// The key is encrypted and no key, or the wrong one, was given.
    #[error("node is locked, and needs a valid unlock key")]
    Locked,
    /// Encrypted in a way that is not read.
    #[error(
        "the key file is encrypted with {0}, which is not supported; write it again with \
         `openssl pkcs8 -topk8 -v2 aes-256-cbc -v2prf hmacWithSHA1`"
    )]
    Encryption(&'static str),
    /// A header that is no number where one is due.
    #[error("the key file has a header {KEK_VERSION} that is not a number")]
    KekVersion,
    /// A data key that is none.
    #[error("the key file's header {0} {1}; restore the file from a backup")]
    DataKey(&'static str, &'static str),
}

/// A key with its headers.
#[derive(Debug)]
pub struct KeyFile {
    /// The key.
    pub key: PrivateKey,
    /// The headers, without those of an encryption.
    pub headers: Headers,
}

/// The headers of a key file. The values of some are secrets.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Headers(pub BTreeMap<String, String>);

impl fmt::Debug for Headers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_set().entries(self.0.keys()).finish()
    }
}

impl KeyFile {
    /// A key with the one header that is always written.
    pub fn new(key: PrivateKey, kek_version: u64) -> Self {
        let headers = Headers::default();
        let mut file = Self { key, headers };
        file.set_kek_version(kek_version);
        file
    }

    /// Reads a file. A key that is not encrypted is read whether or not `kek` is given.
    ///
    /// # Errors
    /// [`KeyFileError`].
    pub fn read(text: &[u8], kek: Option<&Kek>) -> Result<Self, KeyFileError> {
        let block = pem::read_one(text)?;
        if block.headers.contains_key(OLD_ENCRYPTION) {
            return Err(KeyFileError::Encryption("the form of RFC 1423"));
        }
        let key = if block.label == ENCRYPTED_LABEL {
            let der = decrypt(&block.der, kek)?;
            // A wrong key that happens to leave valid padding shows here.
            PrivateKey::from_block(PKCS8_LABEL, &der).map_err(|error| {
                if error == KeyError::Malformed {
                    return KeyFileError::Locked;
                }
                error.into()
            })?
        } else {
            PrivateKey::from_block(&block.label, &block.der)?
        };
        let headers = Headers(block.headers);
        let file = Self { key, headers };
        file.kek_version()?;
        Ok(file)
    }

    /// The version of the cluster object that the encryption key came from; 0 if not written.
    ///
    /// # Errors
    /// [`KeyFileError::KekVersion`].
    pub fn kek_version(&self) -> Result<u64, KeyFileError> {
        let text = self.headers.0.get(KEK_VERSION);
        let version = text.map(|text| text.parse().map_err(|_| KeyFileError::KekVersion));
        version.transpose().map(Option::unwrap_or_default)
    }

    /// Sets the version of the cluster object that the encryption key comes from.
    pub fn set_kek_version(&mut self, version: u64) {
        let value = version.to_string();
        self.headers.0.insert(KEK_VERSION.to_owned(), value);
    }

    /// Whether the key was in the file in the clear before it was sealed.
    pub fn needs_renewal(&self) -> bool {
        self.headers
            .0
            .get(NEEDS_RENEWAL)
            .is_some_and(|it| it == "true")
    }

    /// Notes whether another key is to take the place of this one.
    pub fn set_needs_renewal(&mut self, is_needed: bool) {
        if is_needed {
            let value = "true".to_owned();
            self.headers.0.insert(NEEDS_RENEWAL.to_owned(), value);
        } else {
            self.headers.0.remove(NEEDS_RENEWAL);
        }
    }

    /// Writes the file: encrypted if there is a key for that, with fresh random bytes.
    ///
    /// # Errors
    /// [`KeyFileError`] if the key is too long to be encoded.
    pub fn write(
        &self,
        encryption: Option<(&Kek, Salt)>,
    ) -> Result<Zeroizing<String>, KeyFileError> {
        let plain = self.key.pkcs8_der();
        let text = match encryption {
            None => pem::write_with_headers(PKCS8_LABEL, &self.headers.0, plain),
            Some((kek, salt)) => {
                let der = encrypt(plain, kek, salt).map_err(|_| KeyError::Malformed)?;
                pem::write_with_headers(ENCRYPTED_LABEL, &self.headers.0, &der)
            }
        };
        Ok(Zeroizing::new(text))
    }
}

/// Whether a key file is encrypted, without reading the key.
///
/// # Errors
/// [`KeyFileError::Pem`].
pub fn is_encrypted(text: &[u8]) -> Result<bool, KeyFileError> {
    let block = pem::read_one(text)?;
    Ok(block.label == ENCRYPTED_LABEL || block.headers.contains_key(OLD_ENCRYPTION))
}

/// PBES2 as Go's reader wants it: PBKDF2 with HMAC-SHA1 and no length (neither is encoded),
/// AES-256-CBC.
fn encrypt(plain: &[u8], kek: &Kek, salt: Salt) -> pkcs8::pkcs5::Result<Vec<u8>> {
    let parameters = Parameters {
        kdf: Kdf::Pbkdf2(Pbkdf2Params {
            salt: &salt.derivation,
            iteration_count: ITERATIONS,
            key_length: None,
            prf: Pbkdf2Prf::HmacWithSha1,
        }),
        encryption: pbes2::EncryptionScheme::Aes256Cbc { iv: &salt.cipher },
    };
    let encrypted_data = parameters.encrypt(&kek.0, plain)?;
    let info = EncryptedPrivateKeyInfo {
        encryption_algorithm: EncryptionScheme::Pbes2(parameters),
        encrypted_data: &encrypted_data,
    };
    info.to_der()
        .map_err(|_| pkcs8::pkcs5::Error::EncryptFailed)
}

fn decrypt(der: &[u8], kek: Option<&Kek>) -> Result<Zeroizing<Vec<u8>>, KeyFileError> {
    let info = EncryptedPrivateKeyInfo::from_der(der).map_err(|_| KeyError::Malformed)?;
    let parameters = info.encryption_algorithm.pbes2();
    let parameters = parameters.ok_or(KeyFileError::Encryption("PBES1"))?;
    let kdf = parameters.kdf.pbkdf2();
    let kdf = kdf.ok_or(KeyFileError::Encryption("a derivation other than PBKDF2"))?;
    if kdf.iteration_count > ITERATIONS_MAX {
        return Err(KeyFileError::Encryption("more than ten million iterations"));
    }
    let kek = kek.ok_or(KeyFileError::Locked)?;
    let plain = parameters.decrypt(&kek.0, info.encrypted_data);
    plain.map(Zeroizing::new).map_err(|_| KeyFileError::Locked)
}
