//! What runs on this machine for a state directory that is not there any more: it was wiped, or
//! moved away and another one made in its place.
//!
//! Nothing in the new directory names these tasks, so they are found by their marks: a shim carries
//! the directory of its task in its arguments and works in it, and every process of a task carries
//! it in its environment ([`DIR_COOKIE`]). A shim is asked to stop its task as on any other day,
//! within the grace period. Processes without a shim are killed, as at the end of any task.
//!
//! Owns which processes these are. Refuses to own: tasks whose directory is in its place
//! (`executor`, `lifecycle`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::cgroup::Tree;
use crate::cleanup::{self, KILL_DEADLINE, KILL_TICK};
use crate::clock;
use crate::process::{self, Identity};

/// The variable that says where the task of a process has its directory.
pub(crate) const DIR_COOKIE: &str = "SWARM_TASK_DIR";
/// Held by the agent whose tasks are below.
const LOCK: &str = "lock";
/// There when the tasks below are to run on without an agent.
const KEPT: &str = "kept";
/// Tasks that are named in one line of words.
const NAMED_MAX: usize = 10;

/// What was found and what became of it, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    pub(crate) told: Vec<String>,
    pub(crate) failures: Vec<String>,
}

/// Where a shim works that is not in its place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Whereabouts {
    /// Its directory was deleted.
    Wiped,
    /// Its state directory is at another place.
    Moved(PathBuf),
}

/// The lock of a directory of tasks, so that others see that an agent cares for them.
///
/// # Errors
/// What the system said. `None` when another agent has it.
pub(crate) fn hold(root: &Path) -> io::Result<Option<File>> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    let lock = options.open(root.join(LOCK))?;
    match lock.try_lock() {
        Ok(()) => {
            let _was_not_kept = fs::remove_file(root.join(KEPT));
            Ok(Some(lock))
        }
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Marks a directory of tasks, which is about to be moved: they are to run on without an agent. The
/// mark goes when an agent takes them up again.
///
/// # Errors
/// What the system said.
pub fn keep_running(root: &Path) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false).mode(0o600);
    options.open(root.join(KEPT)).map(drop)
}

/// Ends what runs for a directory that was at this place. Blocks.
pub(crate) fn sweep(root: &Path) -> Swept {
    let tasks = root.join("tasks");
    let shims = shims(&tasks);
    let mut swept = Swept::default();
    let mut stopped: BTreeMap<Whereabouts, Vec<String>> = BTreeMap::new();
    for (shim, dir) in &shims {
        let Some(place) = whereabouts(*shim, dir) else {
            continue;
        };
        if let Whereabouts::Moved(other) = &place
            && (is_in_use(other) || other.join(KEPT).exists())
        {
            continue;
        }
        // What it does with the signal is what it does with a request to stop.
        shim.terminate();
        stopped.entry(place).or_default().push(name_of(dir));
    }
    for (place, names) in stopped {
        swept.told.push(stopping(root, &place, &names));
    }
    let strays = strays(&tasks, &shims);
    if !strays.is_empty() {
        kill(&strays, &mut swept);
    }
    swept
}

/// The shims that were started for tasks below this directory, whether it is the same one or not.
fn shims(tasks: &Path) -> BTreeMap<Identity, PathBuf> {
    let mut shims = BTreeMap::new();
    for identity in process::all() {
        let Some(last) = process::arguments(identity.pid).pop().map(PathBuf::from) else {
            continue;
        };
        if last.parent() == Some(tasks) && works_in(identity.pid, &name_of(&last)) {
            shims.insert(identity, last);
        }
    }
    shims
}

/// A shim enters the directory of its task; whoever else names it in its arguments does not.
fn works_in(pid: i32, name: &str) -> bool {
    let Ok(cwd) = fs::read_link(cwd_link(pid)) else {
        return false;
    };
    let found = name_of(&cwd);
    found.strip_suffix(" (deleted)").unwrap_or(&found) == name
}

fn cwd_link(pid: i32) -> String {
    format!("/proc/{pid}/cwd")
}

/// Where a shim is if it is not in the directory that its arguments name.
fn whereabouts(shim: Identity, dir: &Path) -> Option<Whereabouts> {
    // Through the link, which leads to the directory even after it was deleted.
    let own = fs::metadata(cwd_link(shim.pid)).ok()?;
    let is_same = |other: Metadata| (other.dev(), other.ino()) == (own.dev(), own.ino());
    if fs::metadata(dir).is_ok_and(is_same) {
        return None;
    }
    if own.nlink() == 0 {
        return Some(Whereabouts::Wiped);
    }
    let cwd = fs::read_link(cwd_link(shim.pid)).ok()?;
    let root = cwd.parent()?.parent()?;
    Some(Whereabouts::Moved(root.to_owned()))
}

/// Whether an agent cares for the tasks of this directory.
fn is_in_use(root: &Path) -> bool {
    let Ok(lock) = File::open(root.join(LOCK)) else {
        return false;
    };
    matches!(lock.try_lock(), Err(TryLockError::WouldBlock))
}

/// Processes of tasks that have neither a directory nor a shim.
fn strays(tasks: &Path, shims: &BTreeMap<Identity, PathBuf>) -> BTreeMap<String, Vec<Identity>> {
    let with_shim: BTreeSet<&Path> = shims.values().map(PathBuf::as_path).collect();
    let mut strays: BTreeMap<String, Vec<Identity>> = BTreeMap::new();
    for identity in process::all() {
        let Some(dir) = process::variable(identity.pid, DIR_COOKIE).map(PathBuf::from) else {
            continue;
        };
        let is_ours = dir.parent() == Some(tasks);
        if is_ours && !with_shim.contains(dir.as_path()) && !dir.exists() {
            strays.entry(name_of(&dir)).or_default().push(identity);
        }
    }
    strays
}

/// Kills processes and whatever is in the control groups of their tasks.
fn kill(strays: &BTreeMap<String, Vec<Identity>>, swept: &mut Swept) {
    let tree = Tree::detect();
    let deadline = clock::now() + KILL_DEADLINE;
    let names: Vec<String> = strays.keys().cloned().collect();
    let mut groups: Vec<_> = names
        .iter()
        .flat_map(|name| tree.existing(&format!("swarm-{name}")))
        .collect();
    loop {
        let mut left = cleanup::kill_all(&groups, None);
        for identity in strays.values().flatten().filter(|it| it.is_alive()) {
            identity.kill();
            left.push(*identity);
        }
        let is_clean = cleanup::remove_groups(&mut groups);
        if left.is_empty() && is_clean {
            break;
        }
        if clock::now() >= deadline {
            swept.failures.push(format!(
                "{} processes of tasks that are gone did not end within {KILL_DEADLINE:?} of being \
                 killed: {}",
                left.len(),
                some(&names)
            ));
            return;
        }
        clock::pause(KILL_TICK);
    }
    swept.told.push(format!(
        "ended what was left of {} tasks whose directory and shim are gone: {}",
        names.len(),
        some(&names)
    ));
}

fn stopping(root: &Path, place: &Whereabouts, names: &[String]) -> String {
    let what = match place {
        Whereabouts::Wiped => "was deleted".to_owned(),
        Whereabouts::Moved(other) => format!("was moved to {}", other.display()),
    };
    format!(
        "stopping {} tasks, each within its grace period, that run for a state directory which \
         was at {} and {what}: {}",
        names.len(),
        root.display(),
        some(names)
    )
}

fn some(names: &[String]) -> String {
    let mut text = names[..names.len().min(NAMED_MAX)].join(", ");
    if names.len() > NAMED_MAX {
        text.push_str(", …");
    }
    text
}

fn name_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
