//! The file `joining.key`: the key of a join that is under way, with the request for it.
//!
//! A manager finds a node again by its request, so a node that asks once more, because an answer
//! was lost or because it was ended in between, must ask for the same thing. The file goes with the
//! end of the join, whichever it is.

use std::io;
use std::path::{Path, PathBuf};

use swarm_ca::csr;
use swarm_ca::key::{KeyPem, PrivateKey};

use crate::certificates::replace;

/// Name of the file inside the state directory.
pub(crate) const FILE: &str = "joining.key";
const MODE: u32 = 0o600;
/// Where the request begins.
const REQUEST: &str = "-----BEGIN CERTIFICATE REQUEST-----";
/// Largest file that is read; ours have less than a KiB.
const FILE_BYTES_MAX: u64 = 1 << 16;

/// A key and a request for it, which are different each time they are made.
#[derive(Clone, Debug)]
pub(crate) struct KeyRequest {
    pub(crate) key_pem: KeyPem,
    pub(crate) request: String,
}

impl KeyRequest {
    /// Draws a new one.
    ///
    /// # Errors
    /// As [`csr::request`].
    pub(crate) fn draw() -> Result<Self, csr::CsrError> {
        let key_pem = csr::new_key();
        let request = csr::request(&key_pem)?;
        Ok(Self { key_pem, request })
    }

    /// The content of a file, if it belongs together.
    fn parse(text: &str) -> Option<Self> {
        let (key, request) = text.split_at(text.find(REQUEST)?);
        let key_pem = KeyPem::new(key.to_owned());
        let spki = csr::public_key(request.as_bytes()).ok()?;
        let is_same = PrivateKey::from_pem(&key_pem).ok()?.spki_der() == spki;
        let request = request.to_owned();
        is_same.then_some(Self { key_pem, request })
    }
}

/// The file of a state directory.
#[derive(Debug)]
pub(crate) struct JoiningKey {
    path: PathBuf,
}

impl JoiningKey {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
        }
    }

    /// The key of a join that was cut short, or a new one. A disk that does not take it costs no
    /// more than a second node if the join is cut short now.
    ///
    /// # Errors
    /// As [`csr::request`].
    pub(crate) fn take(&self) -> Result<KeyRequest, csr::CsrError> {
        if let Some(found) = self.load() {
            return Ok(found);
        }
        let drawn = KeyRequest::draw()?;
        let text = zeroize::Zeroizing::new(format!("{}{}", drawn.key_pem.as_str(), drawn.request));
        if let Err(error) = replace(&self.path, MODE, text.as_bytes()) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the key of the join could not be kept");
        }
        Ok(drawn)
    }

    /// The join has ended.
    pub(crate) fn forget(&self) {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                let path = self.path.display();
                tracing::warn!(%path, %error, "the key of the join could not be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn load(&self) -> Option<KeyRequest> {
        let bytes = std::fs::metadata(&self.path).ok()?.len();
        if bytes > FILE_BYTES_MAX {
            return None;
        }
        let text = zeroize::Zeroizing::new(std::fs::read_to_string(&self.path).ok()?);
        KeyRequest::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_that_was_cut_short_goes_on_with_its_key_and_a_damaged_file_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let file = JoiningKey::new(directory.path());
        let first = file.take().unwrap();
        let again = file.take().unwrap();
        assert_eq!(first.request, again.request);
        assert!(first.key_pem == again.key_pem);
        let path = directory.path().join(FILE);
        let text = std::fs::read_to_string(&path).unwrap();
        let other = KeyRequest::draw().unwrap();
        let mixed = format!("{}{}", other.key_pem.as_str(), first.request);
        for damaged in ["", &text[..text.len() / 2], &text[10..], &mixed] {
            std::fs::write(&path, damaged).unwrap();
            assert!(
                file.take().unwrap().request != first.request,
                "{}",
                damaged.len()
            );
        }
        file.forget();
        file.forget();
        assert!(!path.exists());
    }
}
