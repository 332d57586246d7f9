//! Processes by identity: a process id alone may belong to somebody else a moment later.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// The variable that marks every process of a task.
pub(crate) const COOKIE: &str = "SWARM_TASK_ID";

/// The mark of a task: the value of a resource limit that the kernel keeps and has no use for
/// (`RLIMIT_LOCKS`). Children inherit it, whatever they do to their session and environment, and
/// everybody can read it, so it finds them where there is no control group.
pub(crate) fn mark(task_id: &str) -> u64 {
    // FNV-1a. Large, so that nobody means it as a limit, and not unlimited.
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = task_id.bytes().fold(BASIS, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(PRIME)
    });
    hash >> 2 | 1 << 61
}

/// A process: its id, and when it started in clock ticks since boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Identity {
    pub(crate) pid: i32,
    pub(crate) start: u64,
}

impl Identity {
    /// The process that has this id now.
    pub(crate) fn of(pid: i32) -> Option<Self> {
        Stat::read(pid).map(|stat| Self {
            pid,
            start: stat.start,
        })
    }

    /// Whether it still runs; a zombie does not.
    pub(crate) fn is_alive(self) -> bool {
        Stat::read(self.pid).is_some_and(|stat| stat.start == self.start && !stat.is_zombie)
    }

    /// Asks it to end unless it is gone.
    pub(crate) fn terminate(self) {
        if self.is_alive() {
            let _gone_or_foreign = kill(Pid::from_raw(self.pid), Signal::SIGTERM);
        }
    }

    /// Kills it unless it is gone. Trouble is ignored: the caller looks again.
    pub(crate) fn kill(self) {
        if self.is_alive() {
            let _gone_or_foreign = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

/// What tells the processes of one task from all others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Family<'a> {
    pub(crate) task_id: &'a str,
    /// The first process, which leads the session of the others.
    pub(crate) main: Identity,
    /// The shim while it lives: it inherits orphans of the task as children.
    pub(crate) shim_pid: Option<i32>,
}

impl Family<'_> {
    /// All living processes of the task that the process table shows, whatever cgroup they are in:
    /// those in the session of the first one, children of the shim, and those with the mark of the
    /// task or whose environment names it.
    pub(crate) fn members(&self) -> Vec<Identity> {
        let leader_is_ours = match Stat::read(self.main.pid) {
            Some(leader) => leader.start == self.main.start,
            // A session whose leader is gone keeps its number until its last process is gone.
            None => true,
        };
        let cookie = format!("{COOKIE}={}", self.task_id);
        let mark = mark(self.task_id).to_string();
        let mut members = Vec::new();
        for pid in process_ids() {
            let Some(stat) = Stat::read(pid) else {
                continue;
            };
            if stat.is_zombie || Some(pid) == self.shim_pid || stat.start < self.main.start {
                continue;
            }
            let in_session = leader_is_ours && stat.session == self.main.pid;
            let is_child = self.shim_pid == Some(stat.parent);
            if in_session || is_child || has_mark(pid, &mark) || has_variable(pid, &cookie) {
                members.push(Identity {
                    pid,
                    start: stat.start,
                });
            }
        }
        members
    }
}

/// The id of this process.
pub(crate) fn own_pid() -> i32 {
    pid_number(std::process::id())
}

/// A process id as the kernel has it; the standard library has it unsigned.
pub(crate) fn pid_number(pid: u32) -> i32 {
    i32::try_from(pid).expect("the kernel's largest process id is 2^22")
}

/// The id of this boot; empty when the kernel does not tell.
pub(crate) fn boot_id() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    text.trim().to_owned()
}

struct Stat {
    parent: i32,
    session: i32,
    start: u64,
    is_zombie: bool,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
    }

    /// The fields of proc_pid_stat(5). The second is the program's name in parentheses, which may
    /// itself hold blanks and parentheses.
    fn parse(text: &str) -> Option<Self> {
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        Some(Self {
            parent: fields.get(1)?.parse().ok()?,
            session: fields.get(3)?.parse().ok()?,
            start: fields.get(19)?.parse().ok()?,
            is_zombie: matches!(*fields.first()?, "Z" | "X"),
        })
    }
}

fn process_ids() -> Vec<i32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut pids: Vec<i32> = names.filter_map(|name| name.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// All processes that live.
pub(crate) fn all() -> Vec<Identity> {
    let known = process_ids().into_iter().filter_map(Identity::of);
    known.filter(|identity| identity.is_alive()).collect()
}

/// The arguments of a process; none for one of somebody else, or one that is gone.
pub(crate) fn arguments(pid: i32) -> Vec<OsString> {
    let text = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = text.split(|byte| *byte == 0).filter(|it| !it.is_empty());
    words.map(|it| OsString::from_vec(it.to_vec())).collect()
}

/// A variable of a process as it was started.
pub(crate) fn variable(pid: i32, name: &str) -> Option<OsString> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| {
        let rest = entry.strip_prefix(name.as_bytes())?;
        rest.strip_prefix(b"=")
    })?;
    Some(OsString::from_vec(value.to_vec()))
}

fn has_variable(pid: i32, entry: &str) -> bool {
    let Ok(environment) = fs::read(format!("/proc/{pid}/environ")) else {
        return false;
    };
    environment
        .split(|byte| *byte == 0)
        .any(|found| found == entry.as_bytes())
}

/// Whether the limits of a process, as in proc_pid_limits(5), carry a mark.
fn has_mark(pid: i32, mark: &str) -> bool {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default();
    marked(&limits) == Some(mark)
}

fn marked(limits: &str) -> Option<&str> {
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max file locks"))?;
    line.split_ascii_whitespace().nth(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_differ_and_are_read_back() {
        assert_ne!(mark("a"), mark("b"));
        assert!(mark("") >= 1 << 61 && mark("task") < 1 << 63);
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
                      Max locked memory         1                    2                    bytes\n\
                      Max file locks            7                    8                    locks\n";
        assert_eq!(marked(limits), Some("8"));
        assert_eq!(marked(""), None);
    }

    #[test]
    fn names_with_parentheses_do_not_shift_the_fields() {
        let fields = "S 7 8 9 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 555 1000 2";
        let stat = Stat::parse(&format!("12 (a) b (c)) {fields}")).unwrap();
        assert_eq!((stat.parent, stat.session, stat.start), (7, 9, 555));
        assert!(!stat.is_zombie);
        assert!(Stat::parse("12 (a) S 7").is_none());
        assert!(Stat::parse("").is_none());
    }

    #[test]
    fn a_process_is_alive_only_under_its_own_start_time() {
        let me = Identity::of(own_pid()).unwrap();
        assert!(me.is_alive());
        assert!(
            !Identity {
                start: me.start + 1,
                ..me
            }
            .is_alive()
        );
        // Would end this test if the start time were not compared.
        Identity {
            start: me.start + 1,
            ..me
        }
        .kill();
    }
}
