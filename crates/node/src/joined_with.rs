//! The file `joined-with`: with which tokens this directory's node came into its cluster. They are
//! digests, which tell a token that was used from a new one and let nobody in.

use std::io;
use std::path::{Path, PathBuf};

use swarm_ca::token::JoinToken;

use crate::certificates::{replace, sync_directory};

/// Name of the file inside the state directory.
pub(crate) const FILE: &str = "joined-with";
const MODE: u32 = 0o600;
/// Tokens that are remembered; the first one and those that readmitted the node. Older ones go.
const TOKENS_MAX: usize = 16;

/// What is known of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    /// The node came with it.
    Used,
    /// The node came with others.
    New,
    /// Nobody wrote down what the node came with.
    Untold,
}

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct JoinedWith {
    path: PathBuf,
}

impl JoinedWith {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
        }
    }

    /// Whether the node came with this token.
    pub(crate) fn know(&self, token: &JoinToken) -> Known {
        match self.load() {
            lines if lines.is_empty() => Known::Untold,
            lines if lines.contains(&token.fingerprint()) => Known::Used,
            _ => Known::New,
        }
    }

    /// Notes a token. Without it the next start takes any token, so trouble is only told.
    pub(crate) fn note(&self, token: &JoinToken) {
        let mut lines = self.load();
        let fingerprint = token.fingerprint();
        if lines.contains(&fingerprint) {
            return;
        }
        lines.push(fingerprint);
        let surplus = lines.len().saturating_sub(TOKENS_MAX);
        lines.drain(..surplus);
        if let Err(error) = self.save(&lines) {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the token that was used could not be noted");
        }
    }

    fn load(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.path).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn save(&self, lines: &[String]) -> io::Result<()> {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        replace(&self.path, MODE, text.as_bytes())?;
        sync_directory(self.path.parent().unwrap_or_else(|| Path::new(".")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(number: u8) -> JoinToken {
        JoinToken::generate(b"root", [number; 16])
    }

    #[test]
    fn a_token_is_known_by_its_digest_and_old_ones_go() {
        let directory = tempfile::tempdir().unwrap();
        let file = JoinedWith::new(directory.path());
        assert_eq!(file.know(&token(1)), Known::Untold);
        file.note(&token(1));
        file.note(&token(1));
        assert_eq!(file.know(&token(1)), Known::Used);
        assert_eq!(file.know(&token(2)), Known::New);
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        assert_eq!(text.lines().count(), 1);
        assert!(!token(1).to_string().contains(text.trim()));
        for number in 2..40 {
            file.note(&token(number));
        }
        assert_eq!(file.load().len(), TOKENS_MAX);
        assert_eq!(file.know(&token(39)), Known::Used);
        assert_eq!(file.know(&token(1)), Known::New);
    }
}
