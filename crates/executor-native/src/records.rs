//! What agent and shim tell each other: the plan, the shim's record, the exit, and the lines on
//! the socket. Plain data; both sides run the same binary most of the time, but not after an
//! upgrade, so fields are only ever added, with a default.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use swarm_executor::ExecError;

use crate::cgroup::Group;
use crate::process::Identity;

/// Longest request line a client may send, in bytes; ours have at most 6.
pub(crate) const REQUEST_BYTES_MAX: usize = 64;
/// Longest status line the agent reads, in bytes: a few warnings of a few hundred bytes each.
pub(crate) const STATUS_BYTES_MAX: usize = 64 * 1024;

/// Everything needed to run the task, written once by the agent before the task starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Plan {
    pub(crate) task_id: String,
    /// How this binary is told to be a shim; the shim passes it on to its own children.
    pub(crate) shim_args: Vec<String>,
    pub(crate) launch: Launch,
    pub(crate) limits: Limits,
    pub(crate) stop_signal: i32,
    pub(crate) stop_grace: Duration,
    pub(crate) health: Option<HealthCheck>,
    /// Size at which a file of captured output is closed and a new one begun, in bytes.
    pub(crate) log_file_bytes_max: u64,
    /// Files of captured output that are kept, the current one included.
    pub(crate) log_files_max: u32,
    pub(crate) ports: Vec<Port>,
    /// Files with secrets and configs, below `payload_dir`. Their content is in no record.
    #[serde(default)]
    pub(crate) payloads: Vec<PayloadFile>,
    /// The task's directory in memory; removed with the end of the task.
    #[serde(default)]
    pub(crate) payload_dir: Option<PathBuf>,
    /// What the spec asked for and this node cannot give.
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
}

/// A file that holds a secret or config.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PayloadFile {
    pub(crate) kind: PayloadKind,
    /// The id of the object.
    pub(crate) id: String,
    /// Below the task's directory in memory.
    pub(crate) path: PathBuf,
    /// `None`: that of the task.
    pub(crate) uid: Option<u32>,
    /// `None`: that of the task.
    pub(crate) gid: Option<u32>,
    /// Permissions.
    pub(crate) mode: u32,
}

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PayloadKind {
    Secret,
    Config,
}

impl PayloadKind {
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Self::Secret => "secret",
            Self::Config => "config",
        }
    }
}

/// A path at which the task sees something else than the rest of the node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bind {
    pub(crate) source: PathBuf,
    pub(crate) target: PathBuf,
    /// Directories, and empty files, are made where they are missing.
    pub(crate) is_dir: bool,
}

/// What one process of the task looks like.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Launch {
    /// Program and arguments; never empty.
    pub(crate) argv: Vec<String>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) dir: PathBuf,
    /// `None`: stay who we are.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) rlimits: Vec<Rlimit>,
    /// See [`crate::process::mark`]; `None` in records of before.
    #[serde(default)]
    pub(crate) mark: Option<u64>,
    pub(crate) oom_score_adj: Option<i64>,
    pub(crate) no_new_privileges: bool,
    /// In the order in which they are made; the process gets a mount namespace if there are any.
    #[serde(default)]
    pub(crate) binds: Vec<Bind>,
}

/// Who a process of the task is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Credentials {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All supplementary groups.
    pub(crate) groups: Vec<u32>,
}

/// A limit of setrlimit(2); `None` is unlimited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rlimit {
    pub(crate) name: String,
    pub(crate) soft: Option<u64>,
    pub(crate) hard: Option<u64>,
}

/// Limits for the task as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Limits {
    /// Billionths of a processor.
    pub(crate) nano_cpus: Option<u64>,
    pub(crate) memory_bytes: Option<u64>,
    pub(crate) pids: Option<u64>,
}

/// A health check with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    pub(crate) argv: Vec<String>,
    pub(crate) interval: Duration,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) start_period: Duration,
    pub(crate) start_interval: Duration,
}

impl HealthCheck {
    /// The longest time until a task is either healthy or given up.
    pub(crate) fn verdict_within(&self) -> Duration {
        let slowest = self
            .interval
            .max(self.start_interval)
            .saturating_add(self.timeout);
        self.start_period
            .saturating_add(slowest.saturating_mul(self.retries.saturating_add(1)))
    }
}

/// A port opened on the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// Number of the wire enum.
    pub(crate) protocol: i32,
    pub(crate) target: u32,
    pub(crate) published: u32,
}

/// Written by the shim: what there is to clean up should the shim be killed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// Process ids mean nothing after a reboot.
    pub(crate) boot_id: String,
    pub(crate) shim: Identity,
    /// The first process of the task, once there is one.
    pub(crate) main: Option<Identity>,
    pub(crate) groups: Vec<Group>,
    pub(crate) warnings: Vec<String>,
}

/// Written once, when the task has ended and nothing of it runs any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) oom: bool,
    pub(crate) cause: Cause,
    /// What else is known; may be empty.
    pub(crate) message: String,
    /// Nanoseconds since 1970.
    pub(crate) ended_at: u64,
    /// Captured output that could not be written, in bytes.
    #[serde(default)]
    pub(crate) log_bytes_lost: u64,
}

/// Why a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Cause {
    /// By itself.
    Exited,
    /// It never ran.
    NotStarted,
    /// The health check gave it up.
    Unhealthy,
    /// It was asked to.
    Stopped,
    /// Its shim was killed.
    Lost,
}

impl Exit {
    /// What [`swarm_executor::Controller::wait`] answers.
    pub(crate) fn result(&self) -> Result<(), ExecError> {
        match self.cause {
            Cause::Exited | Cause::Stopped if self.code == 0 && !self.oom => Ok(()),
            Cause::Exited | Cause::Stopped | Cause::NotStarted | Cause::Unhealthy | Cause::Lost => {
                Err(ExecError::Exited {
                    code: self.code,
                    oom: self.oom,
                    message: self.message.clone(),
                })
            }
        }
    }
}

/// A line from the shim: sent when a client connects, asks, and on every change.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Status {
    pub(crate) phase: Phase,
    pub(crate) pid: i32,
    pub(crate) warnings: Vec<String>,
}

/// Where a task is, while its shim lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Phase {
    /// Running, not yet healthy.
    Starting,
    /// Running, and healthy if it has a health check.
    Running,
    /// Asked to end.
    Stopping,
}

/// A line to the shim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Request {
    /// Send the status.
    Status,
    /// Send the stop signal, and kill after the grace period.
    Stop,
    /// Kill at once.
    Kill,
}

impl Request {
    pub(crate) fn line(self) -> &'static str {
        match self {
            Self::Status => "status\n",
            Self::Stop => "stop\n",
            Self::Kill => "kill\n",
        }
    }

    pub(crate) fn from_line(line: &[u8]) -> Option<Self> {
        [Self::Status, Self::Stop, Self::Kill]
            .into_iter()
            .find(|request| request.line().as_bytes() == line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_of_its_own_or_on_request_with_code_0_is_success() {
        let exit = |cause, code, oom| {
            let message = String::new();
            Exit {
                code,
                oom,
                cause,
                message,
                ended_at: 0,
                log_bytes_lost: 0,
            }
            .result()
        };
        assert!(exit(Cause::Exited, 0, false).is_ok());
        assert!(exit(Cause::Stopped, 0, false).is_ok());
        assert!(exit(Cause::Exited, 1, false).is_err());
        assert!(exit(Cause::Exited, 0, true).is_err());
        for cause in [Cause::NotStarted, Cause::Unhealthy, Cause::Lost] {
            assert!(exit(cause, 0, false).is_err(), "{cause:?}");
        }
    }

    #[test]
    fn requests_are_whole_lines() {
        assert_eq!(Request::from_line(b"stop\n"), Some(Request::Stop));
        for line in [&b"stop"[..], b"STOP\n", b"stop \n", b"\n", b"\xff\n"] {
            assert_eq!(Request::from_line(line), None);
        }
    }
}
