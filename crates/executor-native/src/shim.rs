//! The process that stands between the agent and one task, so that the task survives the agent.
//!
//! The agent starts one shim per task, which leaves the agent's session and becomes the parent of
//! everything the task starts. It is synchronous and single-threaded, and does not fork: the first
//! process of a task is this same binary again (stage two, `exec`), which turns into the program.
//!
//! Owns: the life of one task from its plan to its exit record. Refuses to own: what the plan says
//! and when a task is to start or end.

mod clients;
mod exec;
mod health;
mod mounts;
mod outputs;
mod signals;
mod start;
mod supervisor;

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use thiserror::Error;

use crate::clock;
use crate::files::FileError;
use crate::memory;
use crate::records::{Cause, Exit};
use crate::task_dir::{LOCK_PAUSE, Lock, TaskDir};

#[cfg(test)]
pub(crate) use exec::resource;

/// In place of a directory: be stage two and read the rest from standard input.
const STAGE_TWO: &str = "-";

/// Exit code of a task that never became the program it should be, as shells have it.
const EXIT_NOT_STARTED: i32 = 127;

/// How long to try for the lock of the task: longer than an agent waits for a shim,
/// which records an end when it gives up.
const LOCK_PATIENCE: Duration = Duration::from_secs(60);

/// How often to try to record the end of the task, and how long to wait between: ten minutes.
const EXIT_ATTEMPTS_MAX: u32 = 600;
const EXIT_PAUSE: Duration = Duration::from_secs(1);

/// Why a shim could not do its work.
#[derive(Debug, Error)]
enum ShimError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("cannot {action}: {cause}")]
    System {
        action: &'static str,
        cause: std::io::Error,
    },
    #[error("{0}")]
    NotStarted(String),
}

impl ShimError {
    /// For `map_err`.
    fn system<E: Into<std::io::Error>>(action: &'static str) -> impl FnOnce(E) -> Self {
        move |cause| Self::System {
            action,
            cause: cause.into(),
        }
    }
}

/// Runs the shim for the task in `dir`, to the end of the task. The caller's process must have a
/// single thread and do nothing else; its exit code is what this returns.
pub fn main(dir: &Path) -> ExitCode {
    close_inherited();
    if dir == Path::new(STAGE_TWO) {
        return exec::main();
    }
    match run(&TaskDir::new(dir.to_owned())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Standard error is `shim.log` in the directory of the task.
            let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

/// Closes what a careless ancestor of the agent left open; the task must not inherit it.
fn close_inherited() {
    let Ok(entries) = std::fs::read_dir("/proc/self/fd") else {
        return;
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let fds: Vec<i32> = names.filter_map(|name| name.parse().ok()).collect();
    // Nothing is open in this process yet but what it was started with.
    for fd in fds.into_iter().filter(|fd| *fd > 2) {
        let _closed_with_the_listing = nix::unistd::close(fd);
    }
}

/// Takes the lock, unless another shim runs the task or the task is over or gone. An agent that
/// looks holds it for a moment, which is a long one when the machine is busy.
fn lock(dir: &TaskDir) -> Result<Option<File>, ShimError> {
    let deadline = clock::now() + LOCK_PATIENCE;
    loop {
        let lock = dir.try_lock()?;
        if matches!(lock, Lock::Absent) || dir.exit()?.is_some() || dir.record()?.is_some() {
            return Ok(None);
        }
        match lock {
            Lock::Taken(lock) => return Ok(Some(lock)),
            Lock::Absent => return Ok(None),
            Lock::Held if clock::now() >= deadline => {
                let after = LOCK_PATIENCE.as_secs();
                return Err(ShimError::NotStarted(format!(
                    "the lock of the task was held by somebody else for {after} s"
                )));
            }
            Lock::Held => clock::pause(LOCK_PAUSE),
        }
    }
}

fn run(dir: &TaskDir) -> Result<(), ShimError> {
    let Some(_lock) = lock(dir)? else {
        return Ok(());
    };
    let Some(plan) = dir.plan()? else {
        return Ok(());
    };
    let payload_dir = plan.payload_dir.clone();
    let exit = match start::start(dir, plan) {
        Ok(supervisor) => supervisor.run(),
        Err(error) => Exit {
            code: EXIT_NOT_STARTED,
            oom: false,
            cause: Cause::NotStarted,
            message: error.to_string(),
            ended_at: clock::wall_nanos(),
            log_bytes_lost: 0,
        },
    };
    if let Some(directory) = payload_dir
        && let Err(error) = memory::remove(&directory)
    {
        // The agent tries again when it removes the task.
        let _nowhere_else_to_say_it = writeln!(std::io::stderr(), "{error}");
    }
    record_end(dir, &exit)
}

/// Writes down the end, for as long as a full disk may reasonably take to have room again.
fn record_end(dir: &TaskDir, exit: &Exit) -> Result<(), ShimError> {
    for _ in 1..EXIT_ATTEMPTS_MAX {
        // Without its directory the task was removed, and nobody asks any more.
        if dir.write_exit(exit).is_ok() || !dir.path().exists() {
            return Ok(());
        }
        clock::pause(EXIT_PAUSE);
    }
    dir.write_exit(exit)?;
    Ok(())
}
