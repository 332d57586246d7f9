//! The file `state.json`: the managers that this node knows, for the next start (spec 2.6, 3.5).
//!
//! Owns form and durability. Which manager is dialled is decided in `swarm-agent-io`.

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::certificates::{replace, sync_directory};

pub(crate) const FILE: &str = "state.json";
const MODE: u32 = 0o600;
/// Most managers that are kept; a cluster has seven or fewer. A bound on a manager that sends
/// nonsense.
const MANAGERS_MAX: usize = 1_000;

/// A manager.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Peer {
    /// Its node; empty if it is known by its address only.
    #[serde(default)]
    pub(crate) node_id: String,
    /// `host:port`.
    pub(crate) addr: String,
}

/// The file.
#[derive(Clone, Debug)]
pub(crate) struct KnownManagers {
    path: PathBuf,
}

impl KnownManagers {
    pub(crate) fn new(state_dir: &Path) -> Self {
        Self {
            path: state_dir.join(FILE),
        }
    }

    /// The managers of before. A file that cannot be read costs no more than knowing none, so it
    /// is reported and counts as empty.
    pub(crate) fn load(&self) -> Vec<Peer> {
        let read = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(error) => Err(error),
        };
        read.unwrap_or_else(|error: io::Error| {
            let path = self.path.display();
            tracing::warn!(%path, %error, "the list of managers cannot be read");
            Vec::new()
        })
    }

    /// Replaces the list.
    ///
    /// # Errors
    /// What the system said.
    pub(crate) fn save(&self, managers: &[Peer]) -> io::Result<()> {
        let mut managers = managers.to_vec();
        managers.sort();
        managers.dedup();
        managers.truncate(MANAGERS_MAX);
        let text = serde_json::to_vec(&managers)?;
        replace(&self.path, MODE, &text)?;
        sync_directory(self.path.parent().unwrap_or_else(|| Path::new(".")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_the_form_of_a_go_node() {
        let directory = tempfile::tempdir().unwrap();
        let file = KnownManagers::new(directory.path());
        assert_eq!(file.load(), []);
        let peer = |node_id: &str, addr: &str| Peer {
            node_id: node_id.to_owned(),
            addr: addr.to_owned(),
        };
        file.save(&[peer("b", "h:2"), peer("a", "h:1"), peer("b", "h:2")])
            .unwrap();
        let text = std::fs::read_to_string(directory.path().join(FILE)).unwrap();
        let expected = r#"[{"node_id":"a","addr":"h:1"},{"node_id":"b","addr":"h:2"}]"#;
        assert_eq!(text, expected);
        assert_eq!(file.load(), [peer("a", "h:1"), peer("b", "h:2")]);
    }

    #[test]
    fn a_damaged_list_counts_as_empty() {
        let directory = tempfile::tempdir().unwrap();
        let file = KnownManagers::new(directory.path());
        for text in ["", "{}", "[{}]", "\u{0}"] {
            std::fs::write(directory.path().join(FILE), text).unwrap();
            assert_eq!(file.load(), []);
        }
    }
}
