//! What runs on this machine, as `/proc` tells.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Rounds of killing before giving up; a round that finds nothing ends it.
const KILL_ROUNDS_MAX: usize = 10_000;

/// A live process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    pub(crate) command: String,
    environment: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let text = |name: &str| {
            let bytes = fs::read(format!("/proc/{pid}/{name}")).ok()?;
            Some(String::from_utf8_lossy(&bytes).replace('\0', "\n"))
        };
        Some(Self {
            pid,
            command: text("cmdline")?.replace('\n', " "),
            environment: text("environ")?,
        })
    }

    fn variable(&self, name: &str) -> Option<&str> {
        self.environment
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('='))
    }

    /// Whether it is the program of a task, not what watches over it.
    fn is_program(&self) -> bool {
        self.variable("SWARM_TASK_ID").is_some() && !self.command.contains(" shim ")
    }
}

/// The processes that have something to do with a directory: it stands in their arguments or in
/// their environment. Processes that only wait to be reaped have neither.
pub(crate) fn of(directory: &Path) -> Vec<Process> {
    let directory = directory.to_str().expect("temporary directories are text");
    let entries = fs::read_dir("/proc").expect("/proc can be read");
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != std::process::id().cast_signed())
        .filter_map(Process::read)
        .filter(|process| {
            process.command.contains(directory) || process.environment.contains(directory)
        })
        .collect()
}

/// Programs of tasks, by service and slot: the tasks that have a live process.
pub(crate) fn slots(processes: &[Process]) -> BTreeMap<(String, String), BTreeSet<String>> {
    let mut slots: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for process in processes.iter().filter(|process| process.is_program()) {
        let field = |name| process.variable(name).unwrap_or_default().to_owned();
        let key = (field("SWARM_SERVICE_NAME"), field("SWARM_TASK_SLOT"));
        slots.entry(key).or_default().insert(field("SWARM_TASK_ID"));
    }
    slots
}

/// The processes of the programs of a service.
pub(crate) fn programs(directory: &Path, service: &str) -> BTreeSet<i32> {
    of(directory)
        .iter()
        .filter(|process| process.is_program())
        .filter(|process| process.variable("SWARM_SERVICE_NAME") == Some(service))
        .map(|process| process.pid)
        .collect()
}

/// Sends a signal; a process that is gone already is fine.
pub(crate) fn signal(pid: i32, signal: Signal) {
    match kill(Pid::from_raw(pid), signal) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(error) => panic!("{signal} to {pid}: {error}"),
    }
}

pub(crate) fn kill_hard(pid: i32) {
    signal(pid, Signal::SIGKILL);
}

/// Kills everything that has to do with a directory, and what it starts meanwhile.
pub(crate) fn kill_all(directory: &Path) {
    for _ in 0..KILL_ROUNDS_MAX {
        let left = of(directory);
        if left.is_empty() {
            return;
        }
        for process in left {
            kill_hard(process.pid);
        }
    }
}
