//! Control groups, version 1, version 2 and both at once: one group per task below the group of
//! the agent, for limits, for the count of out-of-memory kills, and for killing everything at once.
//!
//! Nothing here is an error: what cannot be had becomes a warning in the status of the task.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use swarm_types::conditions::Kind;

use crate::process::Identity;
use crate::records::Limits;

/// Length of the period in which processor time is counted, in microseconds; the kernel's default.
const CPU_PERIOD_MICROS: u64 = 100_000;
/// Smallest quota the kernel accepts, in microseconds.
const CPU_QUOTA_MICROS_MIN: u64 = 1_000;

/// Between a limit and the reason why it does not apply.
const NOT_APPLIED: &str = " not applied: ";
const WAY_OUT: &str =
    "run swarmd as root or with a delegated cgroup, or remove the limit from the service";

/// A group of a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) dir: PathBuf,
    /// Which limits are set in it; empty for a group that only serves to kill.
    controllers: BTreeSet<Controller>,
    version: Version,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Version {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }
}

/// The directories of the group this process is in, in every hierarchy.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Tree {
    v2: Option<PathBuf>,
    v1: BTreeMap<String, PathBuf>,
}

impl Tree {
    /// The tree of this process.
    pub(crate) fn detect() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
    }

    /// From the texts of proc_pid_mountinfo(5) and cgroups(7).
    fn parse(mountinfo: &str, own_groups: &str) -> Self {
        let mut tree = Self::default();
        for line in mountinfo.lines() {
            let Some((left, right)) = line.split_once(" - ") else {
                continue;
            };
            let left: Vec<&str> = left.split(' ').collect();
            let right: Vec<&str> = right.split(' ').collect();
            let ([_, _, _, root, mount, ..], [kind, _, options, ..]) = (&left[..], &right[..])
            else {
                continue;
            };
            match *kind {
                "cgroup2" => {
                    let own = own_groups.lines().find_map(|line| line.strip_prefix("0::"));
                    tree.v2 = own.map(|path| below(mount, root, path));
                }
                "cgroup" => {
                    for name in options.split(',') {
                        if let Some(path) = own_v1_group(own_groups, name) {
                            tree.v1.insert(name.to_owned(), below(mount, root, path));
                        }
                    }
                }
                _ => {}
            }
        }
        tree
    }

    /// The groups a task of this name needs for these limits, none of them made yet, and a
    /// warning for each limit that has no home.
    pub(crate) fn plan(&self, name: &str, limits: &Limits) -> (Vec<Group>, Vec<String>) {
        let mut groups = Vec::new();
        let mut warnings = Vec::new();
        let mut in_v2 = BTreeSet::new();
        for (controller, what) in wanted(limits) {
            if let Some(own) = self.v1.get(controller.name()) {
                let controllers = BTreeSet::from([controller]);
                groups.push(Group {
                    dir: own.join(name),
                    controllers,
                    version: Version::V1,
                });
            } else if self.has_v2(controller) {
                in_v2.insert(controller);
            } else {
                let reason = format!("no cgroup controller {:?} here", controller.name());
                warnings.push(format!("{what}{NOT_APPLIED}{reason}; {WAY_OUT}"));
            }
        }
        if let Some(own) = &self.v2 {
            let dir = v2_parent(own, &in_v2).join(name);
            groups.push(Group {
                dir,
                controllers: in_v2,
                version: Version::V2,
            });
        }
        (groups, warnings)
    }

    /// The groups of this name that are there, whatever limits they have.
    pub(crate) fn existing(&self, name: &str) -> Vec<Group> {
        let group = |dir: PathBuf, version| Group {
            dir,
            controllers: BTreeSet::new(),
            version,
        };
        let parents = self
            .v2
            .iter()
            .flat_map(|own| [Some(own.as_path()), own.parent()]);
        let v2 = parents
            .flatten()
            .map(|dir| group(dir.join(name), Version::V2));
        let v1 = self
            .v1
            .values()
            .map(|dir| group(dir.join(name), Version::V1));
        v2.chain(v1).filter(|group| group.dir.is_dir()).collect()
    }

    fn has_v2(&self, controller: Controller) -> bool {
        let Some(own) = &self.v2 else { return false };
        let text = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
        text.split_ascii_whitespace()
            .any(|name| name == controller.name())
    }
}

/// Makes the groups and sets the limits. What failed is taken out of the list and warned of.
pub(crate) fn create(groups: &mut Vec<Group>, limits: &Limits) -> Vec<String> {
    let mut warnings = Vec::new();
    groups.retain(|group| match group.create(limits) {
        Ok(()) => true,
        Err((path, error)) => {
            group.remove();
            // Without a group for killing, the process table serves; nobody needs to know.
            for (controller, what) in wanted(limits) {
                if group.controllers.contains(&controller) {
                    let path = path.display();
                    warnings.push(format!("{what}{NOT_APPLIED}{path}: {error}; {WAY_OUT}"));
                }
            }
            false
        }
    });
    warnings
}

impl Group {
    /// The file through which a process enters.
    pub(crate) fn entrance(&self) -> PathBuf {
        self.dir.join("cgroup.procs")
    }

    /// All processes in the group.
    pub(crate) fn members(&self) -> Vec<Identity> {
        let text = fs::read_to_string(self.entrance()).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse().ok());
        pids.filter_map(Identity::of)
            .filter(|identity| identity.is_alive())
            .collect()
    }

    /// Kills everything in the group in one step, where the kernel can. The caller looks at
    /// [`Group::members`] anyway.
    pub(crate) fn kill(&self) {
        match self.version {
            Version::V1 => {}
            Version::V2 => {
                let _older_kernel_or_gone = fs::write(self.dir.join("cgroup.kill"), "1");
            }
        }
    }

    /// How many processes the kernel killed for want of memory.
    pub(crate) fn oom_kills(&self) -> u64 {
        if !self.controllers.contains(&Controller::Memory) {
            return 0;
        }
        let file = match self.version {
            Version::V1 => "memory.oom_control",
            Version::V2 => "memory.events",
        };
        let text = fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        let count = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        count
            .and_then(|count| count.trim().parse().ok())
            .unwrap_or(0)
    }

    /// Removes the group; `false` while something is left in it.
    pub(crate) fn remove(&self) -> bool {
        match fs::remove_dir(&self.dir) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn create(&self, limits: &Limits) -> Result<(), (PathBuf, io::Error)> {
        match fs::create_dir(&self.dir) {
            Ok(()) => {}
            // From a shim that was killed before it could clean up.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err((self.dir.clone(), error)),
        }
        for (file, value) in self.settings(limits) {
            let path = self.dir.join(file);
            fs::write(&path, value).map_err(|error| (path, error))?;
        }
        Ok(())
    }

    /// Files of this group with their values.
    fn settings(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let mut settings = Vec::new();
        for controller in &self.controllers {
            let (value, v1, v2) = match controller {
                Controller::Memory => (limits.memory_bytes, "memory.limit_in_bytes", "memory.max"),
                Controller::Pids => (limits.pids, "pids.max", "pids.max"),
                Controller::Cpu => {
                    settings.extend(self.cpu_settings(limits));
                    continue;
                }
            };
            let file = match self.version {
                Version::V1 => v1,
                Version::V2 => v2,
            };
            settings.extend(value.map(|value| (file, value.to_string())));
        }
        settings
    }

    fn cpu_settings(&self, limits: &Limits) -> Vec<(&'static str, String)> {
        let Some(nano_cpus) = limits.nano_cpus else {
            return Vec::new();
        };
        let nanos_per_cpu = 1_000_000_000 / CPU_PERIOD_MICROS;
        let quota = (nano_cpus / nanos_per_cpu).max(CPU_QUOTA_MICROS_MIN);
        match self.version {
            Version::V1 => vec![
                ("cpu.cfs_period_us", CPU_PERIOD_MICROS.to_string()),
                ("cpu.cfs_quota_us", quota.to_string()),
            ],
            Version::V2 => vec![("cpu.max", format!("{quota} {CPU_PERIOD_MICROS}"))],
        }
    }
}

/// Which limits cannot apply here, each with the reason: makes a group with every limit, one after
/// the other, and removes it. `name` must be one that no task has.
pub(crate) fn missing(tree: &Tree, name: &str) -> Vec<(Kind, String)> {
    // Larger than any machine: nothing is in the group, and the values are only to be taken.
    let all = Limits {
        nano_cpus: Some(1_000_000_000),
        memory_bytes: Some(1 << 40),
        pids: Some(1 << 16),
    };
    let alone = [
        (
            Kind::LimitCpu,
            Limits {
                memory_bytes: None,
                pids: None,
                ..all
            },
        ),
        (
            Kind::LimitMemory,
            Limits {
                nano_cpus: None,
                pids: None,
                ..all
            },
        ),
        (
            Kind::LimitPids,
            Limits {
                nano_cpus: None,
                memory_bytes: None,
                ..all
            },
        ),
    ];
    let mut missing = Vec::new();
    for (kind, limits) in alone {
        let (mut groups, mut reasons) = tree.plan(name, &limits);
        reasons.extend(create(&mut groups, &limits));
        for group in &groups {
            group.remove();
        }
        let reason = reasons
            .first()
            .and_then(|text| text.split_once(NOT_APPLIED));
        missing.extend(reason.map(|(_, reason)| (kind, reason.to_owned())));
    }
    missing
}

/// The controllers needed for these limits, with words for each.
fn wanted(limits: &Limits) -> Vec<(Controller, String)> {
    let mut wanted = Vec::new();
    if let Some(nanos) = limits.nano_cpus {
        wanted.push((
            Controller::Cpu,
            format!("CPU limit of {nanos} billionths of a CPU"),
        ));
    }
    if let Some(bytes) = limits.memory_bytes {
        wanted.push((Controller::Memory, format!("memory limit of {bytes} bytes")));
    }
    if let Some(count) = limits.pids {
        wanted.push((Controller::Pids, format!("limit of {count} processes")));
    }
    wanted
}

/// Where a group with these controllers can be made. In version 2 a group that holds processes, as
/// ours does, cannot hand out controllers unless it is the root, so the parent is tried as well.
fn v2_parent<'a>(own: &'a Path, controllers: &BTreeSet<Controller>) -> &'a Path {
    if controllers.is_empty() {
        return own;
    }
    let request: Vec<String> = controllers
        .iter()
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    let hands_out =
        |dir: &&Path| fs::write(dir.join("cgroup.subtree_control"), request.join(" ")).is_ok();
    // With neither, setting the limit in our own group fails, and that gives the warning.
    [Some(own), own.parent()]
        .into_iter()
        .flatten()
        .find(hands_out)
        .unwrap_or(own)
}

/// The group of `path` under a mount that shows the hierarchy from `root` on.
fn below(mount: &str, root: &str, path: &str) -> PathBuf {
    // Outside of what the mount shows we see nothing but the mount point.
    let relative = Path::new(path)
        .strip_prefix(root)
        .unwrap_or_else(|_| Path::new(""));
    Path::new(mount).join(relative)
}

fn own_v1_group<'a>(own_groups: &'a str, controller: &str) -> Option<&'a str> {
    own_groups.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (_, names, path) = (fields.next()?, fields.next()?, fields.next()?);
        names
            .split(',')
            .any(|name| name == controller)
            .then_some(path)
    })
}

#[cfg(test)]
mod tests;
