//! Who a node is: written once, read at every start.
//!
//! Until the identity issue lands this is a small file; afterwards the certificate says the same.

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use swarm_rt::OsIds;
use swarm_types::{ClusterId, IdSource as _, NodeId};

const FILE: &str = "node.json";

/// The identity of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The node.
    pub(crate) node: NodeId,
    /// The cluster, on a node that has a manager.
    pub(crate) cluster: Option<ClusterId>,
}

/// What the file holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    node_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    cluster_id: Option<String>,
}

/// Whether a manager is to run here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// This node starts or continues a cluster.
    Manager,
    /// This node only works.
    Worker,
}

/// Why the identity cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file cannot be read or written.
    #[error("identity file {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// The file is not what this program writes.
    #[error(
        "identity file {} is damaged: {reason}; restore it from a backup, or move the state \
         directory away to start as a new node", .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The state directory belongs to a worker, but no manager to join was named, or the reverse.
    #[error("the state directory {} belongs to a {is}, {way_out}", .path.display())]
    OtherPart {
        /// The directory.
        path: PathBuf,
        /// What it belongs to.
        is: &'static str,
        /// How to go on.
        way_out: &'static str,
    },
}

/// Reads the identity, or makes a new one.
///
/// # Errors
/// [`IdentityError`]; nothing is overwritten.
pub(crate) fn load_or_create(
    directory: &Path,
    part: Part,
    ids: &mut OsIds,
) -> Result<Identity, IdentityError> {
    let path = directory.join(FILE);
    match std::fs::read(&path) {
        Ok(bytes) => read(&path, &bytes).and_then(|identity| fits(directory, part, identity)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => create(&path, part, ids),
        Err(error) => Err(IdentityError::Io(path, error)),
    }
}

fn read(path: &Path, bytes: &[u8]) -> Result<Identity, IdentityError> {
    let damaged = |reason: String| IdentityError::Damaged {
        path: path.to_owned(),
        reason,
    };
    let record: Record =
        serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    let node = record
        .node_id
        .parse()
        .map_err(|error| damaged(format!("node_id: {error}")))?;
    let cluster = record
        .cluster_id
        .map(|text| {
            text.parse()
                .map_err(|error| damaged(format!("cluster_id: {error}")))
        })
        .transpose()?;
    Ok(Identity { node, cluster })
}

fn fits(directory: &Path, part: Part, identity: Identity) -> Result<Identity, IdentityError> {
    let other = |is, way_out| {
        let path = directory.to_owned();
        IdentityError::OtherPart { path, is, way_out }
    };
    match (part, &identity.cluster) {
        (Part::Manager, None) => Err(other("worker", "so name its manager with --join-addr")),
        (Part::Worker, Some(_)) => Err(other(
            "manager",
            "so start it without --join-addr; it continues its cluster",
        )),
        (Part::Manager, Some(_)) | (Part::Worker, None) => Ok(identity),
    }
}

fn create(path: &Path, part: Part, ids: &mut OsIds) -> Result<Identity, IdentityError> {
    let identity = Identity {
        node: ids.next_id().into(),
        cluster: (part == Part::Manager).then(|| ids.next_id().into()),
    };
    let record = Record {
        node_id: identity.node.to_string(),
        cluster_id: identity.cluster.as_ref().map(ToString::to_string),
    };
    let failed = |error| IdentityError::Io(path.to_owned(), error);
    let bytes = serde_json::to_vec_pretty(&record).map_err(|error| failed(error.into()))?;
    write_durably(path, &bytes).map_err(failed)?;
    Ok(identity)
}

/// A crash leaves the old file or the new one, never half of it.
fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = std::fs::File::create(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&temporary, path)?;
    let directory = path.parent().unwrap_or_else(|| Path::new("."));
    std::fs::File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let mut ids = OsIds::new();
        let first = load_or_create(directory.path(), Part::Manager, &mut ids).unwrap();
        assert!(first.cluster.is_some());
        let again = load_or_create(directory.path(), Part::Manager, &mut ids).unwrap();
        assert_eq!(first, again);
        let error = load_or_create(directory.path(), Part::Worker, &mut ids).unwrap_err();
        assert!(
            error.to_string().contains("belongs to a manager"),
            "{error}"
        );
    }

    #[test]
    fn a_damaged_file_is_refused_and_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join(FILE);
        for text in [
            "",
            "{}",
            "{\"node_id\":\"\"}",
            "{\"node_id\":\"n\",\"x\":1}",
        ] {
            std::fs::write(&path, text).unwrap();
            let error = load_or_create(directory.path(), Part::Worker, &mut OsIds::new());
            assert!(
                matches!(error, Err(IdentityError::Damaged { .. })),
                "{text}"
            );
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }
}
