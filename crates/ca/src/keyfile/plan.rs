//! In which order certificate and key are written, and what to make of files after a crash.
//!
//! Owns the names and the order; the shell does one step after the other, each durable before the
//! next. At every point between two steps, [`recover`] finds a key with its certificate.

use zeroize::Zeroizing;

use super::{Kek, KeyFile, KeyFileError};
use crate::certificate::Certificate;

/// The root bundle.
pub const ROOT_CERT: &str = "swarm-root-ca.crt";
/// The root's key, read if it is there, never written.
pub const ROOT_KEY: &str = "swarm-root-ca.key";
/// The node's certificate with its intermediates.
pub const NODE_CERT: &str = "swarm-node.crt";
/// The node's key.
pub const NODE_KEY: &str = "swarm-node.key";
/// The certificate that belongs to the key that is about to be written.
pub const NODE_CERT_NEXT: &str = ".swarm-node.crt";
/// What old versions wrote before the key.
pub const NODE_KEY_OLD: &str = ".swarm-node.key";

/// Mode of certificates.
pub const CERT_MODE: u32 = 0o644;
/// Mode of keys.
pub const KEY_MODE: u32 = 0o600;

/// One durable step in the directory of certificates.
pub enum Step {
    /// Replace a file in one go: write beside it, sync, rename, sync the directory.
    Write {
        /// Its name.
        name: &'static str,
        /// Its mode.
        mode: u32,
        /// Its content.
        content: Zeroizing<Vec<u8>>,
    },
    /// Rename and sync the directory.
    Rename {
        /// The old name.
        from: &'static str,
        /// The new name, which may exist.
        to: &'static str,
    },
    /// Remove and sync the directory.
    Remove {
        /// The name.
        name: &'static str,
    },
}

impl std::fmt::Debug for Step {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Write { name, .. } => write!(out, "write {name}"),
            Self::Rename { from, to } => write!(out, "rename {from} to {to}"),
            Self::Remove { name } => write!(out, "remove {name}"),
        }
    }
}

/// The steps that replace certificate and key.
pub fn replace(cert_pem: &str, key_file: &str) -> Vec<Step> {
    let content = |text: &str| Zeroizing::new(text.as_bytes().to_vec());
    vec![
        Step::Write {
            name: NODE_CERT_NEXT,
            mode: CERT_MODE,
            content: content(cert_pem),
        },
        Step::Write {
            name: NODE_KEY,
            mode: KEY_MODE,
            content: content(key_file),
        },
        Step::Rename {
            from: NODE_CERT_NEXT,
            to: NODE_CERT,
        },
    ]
}

/// The step that replaces the key file alone, when only its headers or its encryption change.
pub fn replace_key(key_file: &str) -> Step {
    Step::Write {
        name: NODE_KEY,
        mode: KEY_MODE,
        content: Zeroizing::new(key_file.as_bytes().to_vec()),
    }
}

/// What is in the directory.
#[derive(Default)]
pub struct Found {
    /// [`NODE_CERT`].
    pub cert: Option<Vec<u8>>,
    /// [`NODE_CERT_NEXT`].
    pub cert_next: Option<Vec<u8>>,
    /// [`NODE_KEY`].
    pub key: Option<Zeroizing<Vec<u8>>>,
    /// [`NODE_KEY_OLD`].
    pub key_old: Option<Zeroizing<Vec<u8>>>,
}

/// What a directory turned out to hold.
#[derive(Debug)]
pub enum Recovered {
    /// Nothing to identify the node by: no key, or no certificate that goes with it.
    Nothing,
    /// A key with its certificate.
    Pair {
        /// The text of the certificate, with intermediates.
        cert_pem: String,
        /// The key.
        key: Box<KeyFile>,
    },
}

/// Finds the key with its certificate, and the steps that tidy up.
///
/// # Errors
/// [`KeyFileError`] if the key is there and cannot be read: then nothing may be overwritten.
pub fn recover(found: &Found, kek: Option<&Kek>) -> Result<(Recovered, Vec<Step>), KeyFileError> {
    let mut steps = Vec::new();
    let Some(text) = &found.key else {
        return recover_old(found, kek);
    };
    let key = KeyFile::read(text, kek)?;
    if let Some(cert) = matching(found.cert.as_deref(), &key) {
        if found.cert_next.is_some() {
            steps.push(Step::Remove {
                name: NODE_CERT_NEXT,
            });
        }
        if found.key_old.is_some() {
            steps.push(Step::Remove { name: NODE_KEY_OLD });
        }
        return Ok((pair(cert, key), steps));
    }
    if let Some(cert) = matching(found.cert_next.as_deref(), &key) {
        steps.push(Step::Rename {
            from: NODE_CERT_NEXT,
            to: NODE_CERT,
        });
        return Ok((pair(cert, key), steps));
    }
    recover_old(found, kek)
}

/// Old versions wrote the key to a file of its own first, and then renamed both.
fn recover_old(found: &Found, kek: Option<&Kek>) -> Result<(Recovered, Vec<Step>), KeyFileError> {
    let Some(text) = &found.key_old else {
        return Ok((Recovered::Nothing, Vec::new()));
    };
    let key = KeyFile::read(text, kek)?;
    let Some(cert) = matching(found.cert.as_deref(), &key) else {
        return Ok((Recovered::Nothing, Vec::new()));
    };
    let step = Step::Rename {
        from: NODE_KEY_OLD,
        to: NODE_KEY,
    };
    Ok((pair(cert, key), vec![step]))
}

fn pair(cert: &[u8], key: KeyFile) -> Recovered {
    Recovered::Pair {
        cert_pem: String::from_utf8_lossy(cert).into_owned(),
        key: Box::new(key),
    }
}

fn matching<'a>(cert: Option<&'a [u8]>, key: &KeyFile) -> Option<&'a [u8]> {
    let cert = cert?;
    let certificates = Certificate::all_from_pem(cert).ok()?;
    let fits = certificates.first()?.spki_der() == key.key.spki_der();
    fits.then_some(cert)
}
