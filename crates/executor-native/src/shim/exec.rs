//! Stage two: a fresh process that becomes the program of the task.
//!
//! It is our own binary, started by the shim. What has to happen between fork and exec happens
//! here, in an ordinary program, instead of in code that runs inside a forked copy of the shim.

use std::fs;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use nix::sys::prctl;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::unistd::{Gid, Pid, Uid, getppid, setgid, setgroups, setsid, setuid};
use serde::{Deserialize, Serialize};

use super::{ShimError, mounts};
use crate::process;
use crate::records::{Credentials, Launch, Rlimit};

/// How long stage two may take to become the program. It only makes system calls; a disk that
/// holds the program may be slow.
const EXEC_DEADLINE: Duration = Duration::from_secs(30);
/// Longest report of a failure that is read, in bytes.
const REPORT_BYTES_MAX: u64 = 4096;
/// Exit codes of shells and container engines for a program that is missing or cannot run.
const EXIT_MISSING: u8 = 127;
const EXIT_NOT_RUNNABLE: u8 = 126;

/// What stage two reads from its standard input.
#[derive(Debug, Serialize, Deserialize)]
struct Orders {
    launch: Launch,
    shim_pid: i32,
    /// Files of control groups to enter.
    entrances: Vec<PathBuf>,
}

/// A stage two that waits for its orders. It ends without doing anything when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pid: Pid,
    link: UnixStream,
}

/// Starts stage two with these outputs.
pub(super) fn spawn(
    shim_args: &[String],
    stdout: Stdio,
    stderr: Stdio,
) -> Result<(Waiting, std::process::Child), ShimError> {
    let (link, theirs) = UnixStream::pair().map_err(ShimError::system("make a socket pair"))?;
    // The way to the binary that runs now, even when an upgrade has replaced its file.
    let child = Command::new("/proc/self/exe")
        .args(shim_args)
        .arg(super::STAGE_TWO)
        .env_clear()
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(stdout)
        .stderr(stderr)
        .spawn()
        .map_err(ShimError::system("start the first process of the task"))?;
    let pid = Pid::from_raw(process::pid_number(child.id()));
    Ok((Waiting { pid, link }, child))
}

impl Waiting {
    /// Gives the orders without waiting for what becomes of them.
    pub(super) fn order(
        mut self,
        launch: &Launch,
        entrances: Vec<PathBuf>,
    ) -> Result<Ordered, ShimError> {
        let shim_pid = process::own_pid();
        let orders = Orders {
            launch: launch.clone(),
            shim_pid,
            entrances,
        };
        let bytes = serde_json::to_vec(&orders)
            .map_err(|error| ShimError::NotStarted(error.to_string()))?;
        self.link
            .set_write_timeout(Some(EXEC_DEADLINE))
            .and_then(|()| self.link.write_all(&bytes))
            .and_then(|()| self.link.shutdown(Shutdown::Write))
            .map_err(ShimError::system(
                "give orders to the first process of the task",
            ))?;
        Ok(Ordered { link: self.link })
    }
}

/// A stage two that has its orders.
#[derive(Debug)]
pub(super) struct Ordered {
    link: UnixStream,
}

impl Ordered {
    /// Waits until stage two has become the program.
    pub(super) fn wait(self) -> Result<(), ShimError> {
        let mut report = String::new();
        self.link
            .set_read_timeout(Some(EXEC_DEADLINE))
            .and_then(|()| {
                (&self.link)
                    .take(REPORT_BYTES_MAX)
                    .read_to_string(&mut report)
            })
            .map_err(ShimError::system("hear from the first process of the task"))?;
        // The link closes on exec; silence is success.
        if report.is_empty() {
            Ok(())
        } else {
            Err(ShimError::NotStarted(report))
        }
    }
}

/// The life of stage two. Returns only if it could not become the program.
pub(super) fn main() -> ExitCode {
    let Ok(link) = io::stdin().as_fd().try_clone_to_owned() else {
        return ExitCode::FAILURE;
    };
    let mut link = UnixStream::from(link);
    let failure = match become_program(&mut link) {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    let _shim_is_gone = link.write_all(failure.report.as_bytes());
    ExitCode::from(failure.code)
}

enum Never {}

struct Failure {
    code: u8,
    report: String,
}

/// For `map_err`.
fn cannot<E: std::fmt::Display>(action: String) -> impl FnOnce(E) -> Failure {
    move |cause| Failure {
        code: EXIT_NOT_RUNNABLE,
        report: format!("cannot {action}: {cause}"),
    }
}

fn become_program(link: &mut UnixStream) -> Result<Never, Failure> {
    die_with_shim()?;
    let mut bytes = Vec::new();
    link.read_to_end(&mut bytes)
        .map_err(cannot("read the orders of the shim".into()))?;
    if bytes.is_empty() {
        // The shim gave up.
        return Err(Failure {
            code: EXIT_NOT_RUNNABLE,
            report: String::new(),
        });
    }
    let orders: Orders =
        serde_json::from_slice(&bytes).map_err(cannot("read the orders of the shim".into()))?;
    if getppid() != Pid::from_raw(orders.shim_pid) {
        return Err(Failure {
            code: EXIT_NOT_RUNNABLE,
            report: "the shim is gone".into(),
        });
    }
    setsid().map_err(cannot("begin a session".into()))?;
    for entrance in &orders.entrances {
        let action = format!("enter {}", entrance.display());
        fs::write(entrance, "0").map_err(cannot(action))?;
    }
    let launch = orders.launch;
    mounts::make(&launch.binds).map_err(|report| Failure {
        code: EXIT_NOT_RUNNABLE,
        report,
    })?;
    if let Some(score) = launch.oom_score_adj {
        let action =
            format!("set the out-of-memory score to {score}; use 0 or more, or run as root");
        fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(cannot(action))?;
    }
    if let Some(mark) = launch.mark {
        // A limit of our own below it keeps it from being set; then the environment tells.
        let _marked = setrlimit(Resource::RLIMIT_LOCKS, mark, mark);
    }
    for rlimit in &launch.rlimits {
        apply_rlimit(rlimit)?;
    }
    if let Some(credentials) = &launch.credentials {
        take_credentials(credentials)?;
        // The kernel forgets it when credentials change.
        die_with_shim()?;
    }
    if launch.no_new_privileges {
        prctl::set_no_new_privs().map_err(cannot("set no_new_privileges".into()))?;
    }
    let action = format!("enter directory {}", launch.dir.display());
    std::env::set_current_dir(&launch.dir).map_err(cannot(action))?;
    // The shim blocks signals for its own use, and a mask is inherited.
    SigSet::empty()
        .thread_set_mask()
        .map_err(cannot("unblock signals".into()))?;
    exec(&launch)
}

/// A killed shim must not leave the task behind.
fn die_with_shim() -> Result<(), Failure> {
    prctl::set_pdeathsig(Signal::SIGKILL).map_err(cannot("tie the task to its shim".into()))
}

fn exec(launch: &Launch) -> Result<Never, Failure> {
    let Some((program, args)) = launch.argv.split_first() else {
        return Err(Failure {
            code: EXIT_MISSING,
            report: "the plan names no program".into(),
        });
    };
    let mut command = Command::new(program);
    let cause = command
        .args(args)
        .env_clear()
        .envs(&launch.env)
        .stdin(Stdio::null())
        .exec();
    let (code, hint) = if cause.kind() == io::ErrorKind::NotFound {
        (
            EXIT_MISSING,
            "; with image \"host\" the program must exist on the node itself",
        )
    } else {
        (EXIT_NOT_RUNNABLE, "")
    };
    Err(Failure {
        code,
        report: format!("cannot execute {program:?}: {cause}{hint}"),
    })
}

fn apply_rlimit(rlimit: &Rlimit) -> Result<(), Failure> {
    let Some(resource) = resource(&rlimit.name) else {
        let report = format!("there is no ulimit {:?}", rlimit.name);
        return Err(Failure {
            code: EXIT_NOT_RUNNABLE,
            report,
        });
    };
    let (soft, hard) = (
        rlimit.soft.unwrap_or(RLIM_INFINITY),
        rlimit.hard.unwrap_or(RLIM_INFINITY),
    );
    let action = format!(
        "set ulimit {} to {soft}:{hard}; lower it, or run as root",
        rlimit.name
    );
    setrlimit(resource, soft, hard).map_err(cannot(action))
}

/// The limit with this name, as in Docker's `--ulimit`.
pub(crate) fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "as" => Resource::RLIMIT_AS,
        "core" => Resource::RLIMIT_CORE,
        "cpu" => Resource::RLIMIT_CPU,
        "data" => Resource::RLIMIT_DATA,
        "fsize" => Resource::RLIMIT_FSIZE,
        "locks" => Resource::RLIMIT_LOCKS,
        "memlock" => Resource::RLIMIT_MEMLOCK,
        "msgqueue" => Resource::RLIMIT_MSGQUEUE,
        "nice" => Resource::RLIMIT_NICE,
        "nofile" => Resource::RLIMIT_NOFILE,
        "nproc" => Resource::RLIMIT_NPROC,
        "rss" => Resource::RLIMIT_RSS,
        "rtprio" => Resource::RLIMIT_RTPRIO,
        "rttime" => Resource::RLIMIT_RTTIME,
        "sigpending" => Resource::RLIMIT_SIGPENDING,
        "stack" => Resource::RLIMIT_STACK,
        _ => return None,
    })
}

fn take_credentials(credentials: &Credentials) -> Result<(), Failure> {
    let groups: Vec<Gid> = credentials
        .groups
        .iter()
        .copied()
        .map(Gid::from_raw)
        .collect();
    setgroups(&groups).map_err(cannot(format!("take groups {:?}", credentials.groups)))?;
    setgid(Gid::from_raw(credentials.gid))
        .map_err(cannot(format!("take group {}", credentials.gid)))?;
    setuid(Uid::from_raw(credentials.uid)).map_err(cannot(format!("take user {}", credentials.uid)))
}
