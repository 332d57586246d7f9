//! What is wrong with this machine, or cannot be had on it (`swarm_types::conditions`).
//!
//! The text of a condition stays the same for as long as it lasts, and it ends at twice the amount
//! at which it began: a description that changes costs a new session.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use nix::sys::statvfs::statvfs;
use nix::unistd::geteuid;
use swarm_api::v1;
use swarm_types::conditions::{self, Kind};

use crate::cgroup::{self, Tree};
use crate::machine;

/// A disk with less free space than this is full; on a small one, a fiftieth of it.
pub(crate) const DISK_FREE_BYTES_MIN: u64 = 64 * 1024 * 1024;
/// The share of a small disk that has to be free is one in so many.
const DISK_SHARE: u64 = 50;
/// Files that have to fit on the disk; on a small one, a fiftieth of what it can hold.
pub(crate) const DISK_FREE_FILES_MIN: u64 = 1_000;
/// The share of memory that has to be available is one in so many.
const MEMORY_SHARE: u64 = 20;

/// Looks at the machine again and again.
#[derive(Debug)]
pub(crate) struct Watch {
    root: PathBuf,
    /// What does not change while the agent runs.
    fixed: Vec<(Kind, String)>,
    /// What was so at the last look.
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    disk: Option<String>,
    files: Option<String>,
    memory: Option<String>,
}

impl Watch {
    /// `root` is where the executor keeps its files.
    pub(crate) fn new(root: &Path) -> Self {
        let probe = format!("swarm-probe-{}", std::process::id());
        let mut fixed = Vec::new();
        for (kind, reason) in cgroup::missing(&Tree::detect(), &probe) {
            let what = match kind {
                Kind::LimitCpu => "CPU",
                Kind::LimitMemory => "memory",
                Kind::LimitPids => "processes",
                Kind::Disk | Kind::Memory | Kind::Log | Kind::Clock | Kind::Rootless => continue,
            };
            fixed.push((kind, format!("limits of {what} do not apply: {reason}")));
        }
        if !geteuid().is_root() {
            let text = format!(
                "swarmd is not root: tasks run as its user {}, and cannot have another user, \
                 group, or absolute targets of secrets and configs",
                geteuid()
            );
            fixed.push((Kind::Rootless, text));
        }
        Self {
            root: root.to_owned(),
            fixed,
            last: Mutex::default(),
        }
    }

    /// Adds to a description what is so now.
    pub(crate) fn describe(&self, description: &mut v1::NodeDescription) {
        for (kind, text) in &self.fixed {
            conditions::add(description, *kind, text);
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.look(&mut last);
        if let Some(text) = last.disk.as_ref().or(last.files.as_ref()) {
            conditions::add(description, Kind::Disk, text);
        }
        if let Some(text) = &last.memory {
            conditions::add(description, Kind::Memory, text);
        }
    }

    fn look(&self, last: &mut Last) {
        let root = self.root.display();
        // What cannot be asked for is not known to be wrong.
        if let Ok(disk) = statvfs(&self.root) {
            let unit = disk.fragment_size();
            let (free, total) = (disk.blocks_available() * unit, disk.blocks() * unit);
            let enough = DISK_FREE_BYTES_MIN.min(total / DISK_SHARE);
            last.disk = low(last.disk.take(), free, enough, || {
                let (free, total) = (mebibytes(free), mebibytes(total));
                format!("the disk of {root} is full: {free} of {total} free")
            });
            let (free, total) = (disk.files_available(), disk.files());
            let enough = DISK_FREE_FILES_MIN.min(total / DISK_SHARE);
            last.files = low(last.files.take(), free, enough, || {
                format!("the disk of {root} is full: it takes {free} more files of {total}")
            });
        }
        if let Some((free, total)) = machine::memory_available() {
            last.memory = low(last.memory.take(), free, total / MEMORY_SHARE, || {
                let (free, total) = (mebibytes(free), mebibytes(total));
                format!("memory is short: {free} of {total} available")
            });
        }
    }
}

/// Whether too little is free, after what was said at the last look.
fn low(
    before: Option<String>,
    free: u64,
    enough: u64,
    words: impl FnOnce() -> String,
) -> Option<String> {
    match before {
        Some(text) => (free < enough.saturating_mul(2)).then_some(text),
        None => (free < enough).then(words),
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_begins_below_enough_ends_at_twice_and_keeps_its_words() {
        let mut said = None;
        let mut look = |free: u64| {
            said = low(said.take(), free, 10, || format!("{free} free"));
            said.clone()
        };
        assert_eq!(look(10), None);
        assert_eq!(look(9).as_deref(), Some("9 free"));
        assert_eq!(look(5).as_deref(), Some("9 free"));
        assert_eq!(look(19).as_deref(), Some("9 free"));
        assert_eq!(look(20), None);
        assert_eq!(look(19), None);
    }

    #[test]
    fn a_disk_that_does_not_count_files_is_not_full() {
        assert_eq!(low(None, 0, 0, || unreachable!()), None);
    }

    #[test]
    fn this_machine_is_described_the_same_twice() {
        let root = tempfile::tempdir().unwrap();
        let watch = Watch::new(root.path());
        let described = || {
            let mut description = v1::NodeDescription::default();
            watch.describe(&mut description);
            conditions::of(&description)
                .filter(|condition| condition.kind != Some(Kind::Memory))
                .map(|condition| condition.text.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(described(), described());
    }
}
