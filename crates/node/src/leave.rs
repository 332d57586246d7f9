//! Ends what a machine has of a cluster (`swarmd leave`): the tasks that run on it and its state.
//!
//! Owns the order, so that a leave that was cut short is done again by another one, and what is
//! refused. Does not own how tasks end (the executor), and tells no manager: a node that left is
//! DOWN there until somebody removes it.

use std::io;
use std::path::{Path, PathBuf};

use swarm_ca::identity;
use swarm_executor::Executor as _;
use swarm_executor_native::{NativeConfig, NativeExecutor};
use swarm_raft_io::StateDir;
use swarm_raft_io::state_dir::{LOCK_FILE, StateDirError};
use swarm_types::NodeId;

use crate::identity::MANAGER_DIRECTORY;
use crate::{joined_with, joining_key, known_managers};

/// Where the executor keeps its tasks, inside the state directory.
pub const NATIVE_DIRECTORY: &str = "native";
/// The agent's database.
pub(crate) const DATABASE: &str = "tasks.db";
const CERTIFICATES: &str = "certificates";
/// Directories of tasks that an earlier leave left running, at most.
const KEPT_MAX: u32 = 1_000;

/// What becomes of the tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tasks {
    /// They end, each within its grace period.
    End,
    /// They run on, and no agent cares for them.
    Keep,
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// The node that the directory belonged to, if its certificate says so.
    pub node: Option<NodeId>,
    /// Tasks that were ended.
    pub ended: usize,
    /// Where tasks run on, if there are any.
    pub kept: Option<PathBuf>,
    /// What was there besides a node's state, and still is.
    pub others: Vec<PathBuf>,
}

/// Why the state is still there.
#[derive(Debug, thiserror::Error)]
pub enum LeaveError {
    /// Nothing of ours.
    #[error(
        "{} holds no state of a node; name the directory of one with --state-dir", .0.display()
    )]
    NoState(PathBuf),
    /// A daemon runs, or the directory cannot be read.
    #[error(transparent)]
    StateDir(#[from] StateDirError),
    /// The log of a cluster would be gone.
    #[error(
        "{} is the state directory of a manager, and with its log the cluster is gone: its \
         services, secrets and certificates; to remove it all the same, add --force", .0.display()
    )]
    Manager(PathBuf),
    /// Tasks did not end.
    #[error("the state was not removed, because tasks could not be ended: {}", .0.join("; "))]
    Tasks(Vec<String>),
    /// Too many leaves whose tasks run on.
    #[error(
        "{KEPT_MAX} directories of tasks that run on are in {} already; end them with `swarmd \
         leave` without --tasks keep", .0.display()
    )]
    Kept(PathBuf),
    /// A file could not be removed.
    #[error("{} could not be removed", .0.display())]
    Io(PathBuf, #[source] io::Error),
}

/// Leaves.
///
/// # Errors
/// [`LeaveError`]; what is still there can be removed by another call.
pub async fn leave(state_dir: &Path, tasks: Tasks, is_forced: bool) -> Result<Left, LeaveError> {
    let entries = ours(state_dir).map_err(|error| LeaveError::Io(state_dir.to_owned(), error))?;
    if entries.is_empty() {
        return Err(LeaveError::NoState(state_dir.to_owned()));
    }
    let held = StateDir::open(state_dir)?;
    let (node, is_manager) = owner(state_dir);
    if is_manager && !is_forced {
        return Err(LeaveError::Manager(state_dir.to_owned()));
    }
    let (mut ended, mut kept) = (0, None);
    for root in roots(&entries) {
        match tasks {
            Tasks::End => ended += end(&root).await?,
            Tasks::Keep if root.ends_with(NATIVE_DIRECTORY) => kept = keep(state_dir, &root)?,
            // An earlier leave left them running.
            Tasks::Keep => {}
        }
    }
    for path in ours(state_dir).map_err(|error| LeaveError::Io(state_dir.to_owned(), error))? {
        let is_kept = tasks == Tasks::Keep && is_kept(&path);
        if !is_kept && !path.ends_with(LOCK_FILE) {
            remove(&path).map_err(|error| LeaveError::Io(path.clone(), error))?;
        }
    }
    // Last, so that no daemon starts in between.
    let lock = state_dir.join(LOCK_FILE);
    remove(&lock).map_err(|error| LeaveError::Io(lock.clone(), error))?;
    drop(held);
    let others = names(state_dir).unwrap_or_default();
    // Not when something else is in it, and not when it is the place of a mount.
    let _still_in_use = std::fs::remove_dir(state_dir);
    Ok(Left {
        node,
        ended,
        others: others.into_iter().filter(|path| !is_kept(path)).collect(),
        kept,
    })
}

/// What of a directory is the state of a node.
fn ours(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let known = [
        CERTIFICATES,
        MANAGER_DIRECTORY,
        NATIVE_DIRECTORY,
        DATABASE,
        LOCK_FILE,
        known_managers::FILE,
        joined_with::FILE,
        joining_key::FILE,
    ];
    let mut found = names(state_dir)?;
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let is_set_aside = name.starts_with(&format!("{DATABASE}."));
        let is_temporary = known.iter().any(|own| name == format!(".tmp-{own}"));
        known.contains(&&*name) || is_set_aside || is_temporary || is_kept(path)
    });
    Ok(found)
}

fn names(state_dir: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(state_dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut paths = Vec::new();
    for entry in entries {
        paths.push(entry?.path());
    }
    paths.sort();
    Ok(paths)
}

fn is_kept(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let number = name.strip_prefix(&format!("{NATIVE_DIRECTORY}-kept-"));
    number.is_some_and(|number| number.parse::<u32>().is_ok())
}

fn roots(entries: &[PathBuf]) -> Vec<PathBuf> {
    let is_root = |path: &&PathBuf| path.ends_with(NATIVE_DIRECTORY) || is_kept(path);
    entries.iter().filter(is_root).cloned().collect()
}

/// Whose directory it is, and whether it has the log of a cluster. Its key is not looked at: a
/// manager that is locked can be given up as well.
fn owner(state_dir: &Path) -> (Option<NodeId>, bool) {
    let path = state_dir.join(CERTIFICATES).join("swarm-node.crt");
    let pem = std::fs::read(path).unwrap_or_default();
    let identity = identity::read_pem(&pem).ok();
    let is_manager = identity.as_ref().is_some_and(|it| it.is_manager());
    let has_log = state_dir.join(MANAGER_DIRECTORY).exists();
    (identity.map(|it| it.node), is_manager || has_log)
}

async fn end(root: &Path) -> Result<usize, LeaveError> {
    let refused = |error: swarm_executor::ExecError| LeaveError::Tasks(vec![error.to_string()]);
    let executor = NativeExecutor::new(NativeConfig::new(root.to_owned())).map_err(refused)?;
    let recovery = executor.recover(&std::collections::BTreeSet::new()).await;
    let recovery = recovery.map_err(refused)?;
    for told in &recovery.leftovers {
        tracing::warn!("{told}");
    }
    if recovery.failures.is_empty() {
        Ok(recovery.removed.len())
    } else {
        Err(LeaveError::Tasks(recovery.failures))
    }
}

/// Moves the tasks to where the next agent does not look for its own; nothing is moved if none is
/// there.
fn keep(state_dir: &Path, root: &Path) -> Result<Option<PathBuf>, LeaveError> {
    let moved = |error| LeaveError::Io(root.to_owned(), error);
    if names(&root.join("tasks")).map_err(moved)?.is_empty() {
        return Ok(None);
    }
    let mut places = (1..=KEPT_MAX)
        .map(|number| state_dir.join(format!("{NATIVE_DIRECTORY}-kept-{number}")))
        .filter(|path| !path.exists());
    let place = places.next();
    let place = place.ok_or_else(|| LeaveError::Kept(state_dir.to_owned()))?;
    swarm_executor_native::keep_running(root).map_err(moved)?;
    std::fs::rename(root, &place).map_err(moved)?;
    Ok(Some(place))
}

fn remove(path: &Path) -> io::Result<()> {
    let is_directory = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        metadata => metadata?.is_dir(),
    };
    if is_directory {
        std::fs::remove_dir_all(path)
    } else {
        std::fs::remove_file(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_state_goes_and_what_else_is_there_stays() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("state");
        let missing = leave(&dir, Tasks::End, false).await.unwrap_err();
        assert!(missing.to_string().contains("--state-dir"), "{missing}");
        std::fs::create_dir_all(dir.join("certificates")).unwrap();
        std::fs::create_dir_all(dir.join("native/tasks")).unwrap();
        for name in [
            "tasks.db",
            "tasks.db.damaged-1",
            "state.json",
            "joined-with",
            "mine.txt",
        ] {
            std::fs::write(dir.join(name), "x").unwrap();
        }
        let held = StateDir::open(&dir).unwrap();
        let in_use = leave(&dir, Tasks::End, false).await.unwrap_err();
        assert!(matches!(in_use, LeaveError::StateDir(_)), "{in_use:?}");
        drop(held);
        let left = leave(&dir, Tasks::Keep, false).await.unwrap();
        assert_eq!((left.node, left.ended, left.kept), (None, 0, None));
        assert_eq!(left.others, [dir.join("mine.txt")]);
        assert_eq!(names(&dir).unwrap(), [dir.join("mine.txt")]);
        let again = leave(&dir, Tasks::End, false).await.unwrap_err();
        assert!(matches!(again, LeaveError::NoState(_)), "{again:?}");
    }

    #[tokio::test]
    async fn a_log_goes_only_by_force() {
        let place = tempfile::tempdir().unwrap();
        let dir = place.path().join("state");
        std::fs::create_dir_all(dir.join("manager")).unwrap();
        let refused = leave(&dir, Tasks::End, false).await.unwrap_err();
        assert!(refused.to_string().contains("--force"), "{refused}");
        assert!(dir.join("manager").exists());
        leave(&dir, Tasks::End, true).await.unwrap();
        assert!(!dir.exists());
    }
}
