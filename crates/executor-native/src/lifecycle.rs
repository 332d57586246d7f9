//! Where a task is, as its directory tells, and the ways to its end. Nothing here depends on which
//! agent started the task.

use std::fs::File;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use swarm_executor::ExecError;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Take};
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout};

use crate::cleanup::{self, KILL_DEADLINE, KILL_TICK};
use crate::clock;
use crate::files::FileError;
use crate::memory;
use crate::process::{self, Family, Identity};
use crate::records::{Cause, Exit, Record, Request, STATUS_BYTES_MAX, Status};
use crate::task_dir::{Lock, TaskDir};

/// How long one step on files may take, a slow disk included.
const FILES_DEADLINE: Duration = Duration::from_secs(60);
/// What a shim may need beyond the time it was told: to look, to write, to be scheduled.
pub(crate) const SHIM_SLACK: Duration = Duration::from_secs(10);
/// How often to look while waiting for a shim to appear or to go. Both take milliseconds.
pub(crate) const LOOK_PAUSE: Duration = Duration::from_millis(5);
/// How often a silent shim is asked whether it is still there.
const PING_PAUSE: Duration = Duration::from_secs(30);
/// 128 + SIGKILL: what ended the processes of a lost task.
const EXIT_LOST: i32 = 137;

/// Where a task is.
#[derive(Debug)]
pub(crate) enum State {
    /// Nothing was prepared.
    Absent,
    /// Prepared and not started. The lock is free for a shim, which may be on its way.
    Prepared,
    /// A shim runs it.
    Alive,
    /// It was started and its shim is gone without a record of the end.
    Lost(File, Box<Record>),
    /// It has ended.
    Ended(Exit),
}

/// Where the task is now.
pub(crate) async fn examine(dir: &TaskDir) -> Result<State, ExecError> {
    let dir = dir.clone();
    blocking(move || examine_now(&dir)).await
}

fn examine_now(dir: &TaskDir) -> Result<State, FileError> {
    if let Some(exit) = dir.exit()? {
        return Ok(State::Ended(exit));
    }
    let lock = match dir.try_lock()? {
        Lock::Absent => return Ok(State::Absent),
        Lock::Held => return Ok(State::Alive),
        Lock::Taken(lock) => lock,
    };
    // The shim may have ended between the two looks.
    if let Some(exit) = dir.exit()? {
        return Ok(State::Ended(exit));
    }
    if let Some(record) = dir.record()? {
        return Ok(State::Lost(lock, Box::new(record)));
    }
    // Here and not where the result is looked at, for which a busy machine may take its time.
    drop(lock);
    Ok(match dir.plan()? {
        Some(_) => State::Prepared,
        None => State::Absent,
    })
}

/// Like [`examine`], but a lost task is brought to its end first.
pub(crate) async fn settled(dir: &TaskDir) -> Result<State, ExecError> {
    match examine(dir).await? {
        State::Lost(lock, record) => settle(dir, lock, *record).await.map(State::Ended),
        state @ (State::Absent | State::Prepared | State::Alive | State::Ended(_)) => Ok(state),
    }
}

/// Ends what is left of a task whose shim is gone, and records the end.
async fn settle(dir: &TaskDir, lock: File, mut record: Record) -> Result<Exit, ExecError> {
    let deadline = Instant::now() + KILL_DEADLINE;
    let was_restarted = record.boot_id != process::boot_id();
    let plan = dir.plan().map_err(refused)?;
    let payload_dir = plan.as_ref().and_then(|plan| plan.payload_dir.clone());
    let task_id = plan.map(|plan| plan.task_id).unwrap_or_default();
    loop {
        let (id, groups, main) = (task_id.clone(), record.groups.clone(), record.main);
        let found = if was_restarted {
            Vec::new()
        } else {
            let family = move |main| cleanup::kill_all(&groups, Some(&family(&id, main)));
            let groups = record.groups.clone();
            let kill = move || main.map_or_else(|| cleanup::kill_all(&groups, None), family);
            blocking(move || Ok(kill())).await?
        };
        if found.is_empty() && cleanup::remove_groups(&mut record.groups) {
            break;
        }
        if Instant::now() >= deadline {
            return Err(ExecError::temporary(unkillable(dir, &found)));
        }
        sleep(KILL_TICK).await;
    }
    if let Some(directory) = payload_dir {
        // What cannot be removed now is tried again with the task itself.
        let _tried_again = blocking(move || memory::remove(&directory)).await;
    }
    let message = match was_restarted {
        true => "the node was restarted while it ran",
        false => "its shim was killed, so it was ended too",
    };
    let exit = ended(EXIT_LOST, Cause::Lost, message);
    // A disk that is full now has the same question answered the same way next time.
    let _found_again = write_exit(dir, lock, exit.clone()).await;
    Ok(exit)
}

fn family(task_id: &str, main: Identity) -> Family<'_> {
    Family {
        task_id,
        main,
        shim_pid: None,
    }
}

fn unkillable(dir: &TaskDir, found: &[Identity]) -> String {
    let pids: Vec<String> = found
        .iter()
        .map(|identity| identity.pid.to_string())
        .collect();
    let (path, pids) = (dir.path().display(), pids.join(", "));
    format!("processes [{pids}] of {path} did not end within {KILL_DEADLINE:?} of being killed")
}

/// Brings the task to its end: by its stop signal and grace period ([`Request::Stop`]) or at once
/// ([`Request::Kill`]). A shim that does not do it is killed.
pub(crate) async fn end(dir: &TaskDir, how: Request) -> Result<(), ExecError> {
    let grace = dir
        .plan()
        .map_err(refused)?
        .map(|plan| plan.stop_grace)
        .unwrap_or_default();
    let attempts = match how {
        Request::Stop => vec![(how, grace), (Request::Kill, Duration::ZERO)],
        Request::Kill | Request::Status => vec![(Request::Kill, Duration::ZERO)],
    };
    for (request, patience) in attempts {
        if is_ended(dir).await? {
            return Ok(());
        }
        let deadline = Instant::now() + patience + KILL_DEADLINE + SHIM_SLACK;
        while Instant::now() < deadline {
            if let Ok(mut link) = Link::connect(dir).await
                && link.send(request).await.is_ok()
            {
                link.drain(deadline).await;
            }
            if is_ended(dir).await? {
                return Ok(());
            }
            sleep(LOOK_PAUSE).await;
        }
    }
    kill_shim(dir).await
}

/// Sends a request if there is a shim to take it; whether it did shows later.
pub(crate) async fn request(dir: &TaskDir, request: Request) {
    if let Ok(mut link) = Link::connect(dir).await {
        let _shows_later = link.send(request).await;
    }
}

/// Whether nothing of the task runs, and nothing ever will.
async fn is_ended(dir: &TaskDir) -> Result<bool, ExecError> {
    match settled(dir).await? {
        State::Absent | State::Ended(_) => Ok(true),
        State::Alive | State::Lost(..) => Ok(false),
        State::Prepared => {
            let dir = dir.clone();
            blocking(move || turn_back(&dir)).await
        }
    }
}

/// Records an end that turns back a shim which may be on its way. Not when one has come already.
fn turn_back(dir: &TaskDir) -> Result<bool, FileError> {
    let Lock::Taken(_lock) = dir.try_lock()? else {
        return Ok(false);
    };
    if dir.exit()?.is_some() || dir.record()?.is_some() {
        return Ok(false);
    }
    let exit = ended(0, Cause::Stopped, "it was stopped before it started");
    dir.write_exit(&exit).map(|()| true)
}

async fn kill_shim(dir: &TaskDir) -> Result<(), ExecError> {
    let deadline = Instant::now() + KILL_DEADLINE;
    while Instant::now() < deadline {
        if let Some(record) = dir.record().map_err(refused)?
            && record.boot_id == process::boot_id()
        {
            record.shim.kill();
        }
        if is_ended(dir).await? {
            return Ok(());
        }
        sleep(LOOK_PAUSE).await;
    }
    let path = dir.path().display();
    Err(ExecError::temporary(format!(
        "the shim of {path} did not end within {KILL_DEADLINE:?} of being killed"
    )))
}

/// Removes an ended task.
pub(crate) async fn remove(dir: &TaskDir) -> Result<(), ExecError> {
    let deadline = Instant::now() + SHIM_SLACK;
    loop {
        let own = dir.clone();
        let is_removed = blocking(move || {
            // A shim holds its lock a moment longer than its record of the end tells.
            let lock = own.try_lock()?;
            if matches!(lock, Lock::Held) {
                Ok(false)
            } else {
                own.remove().map(|()| true)
            }
        })
        .await?;
        if is_removed {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let path = dir.path().display();
            let reason = format!("the shim of {path} has not ended after {SHIM_SLACK:?}; kill it");
            return Err(ExecError::temporary(reason));
        }
        sleep(LOOK_PAUSE).await;
    }
}

async fn write_exit(dir: &TaskDir, lock: File, exit: Exit) -> Result<(), ExecError> {
    let dir = dir.clone();
    blocking(move || {
        dir.write_exit(&exit)?;
        drop(lock);
        Ok(())
    })
    .await
}

fn ended(code: i32, cause: Cause, message: &str) -> Exit {
    let ended_at = clock::wall_nanos();
    Exit {
        code,
        oom: false,
        cause,
        message: message.to_owned(),
        ended_at,
        log_bytes_lost: 0,
    }
}

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct Link {
    stream: BufReader<UnixStream>,
}

/// What came over a link.
#[derive(Debug)]
pub(crate) enum Heard {
    Status(Status),
    /// The shim is gone, or speaks another language.
    End,
    /// It said nothing, also when it was asked.
    Silence,
}

impl Link {
    pub(crate) async fn connect(dir: &TaskDir) -> std::io::Result<Self> {
        let stream = timeout(SHIM_SLACK, dir.connect()).await??;
        Ok(Self {
            stream: BufReader::new(stream),
        })
    }

    pub(crate) async fn send(&mut self, request: Request) -> std::io::Result<()> {
        let line = request.line().as_bytes();
        timeout(SHIM_SLACK, self.stream.get_mut().write_all(line)).await?
    }

    /// The next status. Asks when nothing comes for long. Cancelled in the middle of a line, the
    /// link is of no more use; make a new one.
    pub(crate) async fn hear(&mut self) -> Heard {
        if let Ok(heard) = timeout(PING_PAUSE, self.read_status()).await {
            return heard;
        }
        if self.send(Request::Status).await.is_err() {
            return Heard::End;
        }
        timeout(SHIM_SLACK, self.read_status())
            .await
            .unwrap_or(Heard::Silence)
    }

    /// Reads until the shim is gone or the deadline has come.
    async fn drain(&mut self, deadline: Instant) {
        let gone = async { while let Heard::Status(_) = self.read_status().await {} };
        let _either_way = tokio::time::timeout_at(deadline, gone).await;
    }

    async fn read_status(&mut self) -> Heard {
        let mut line = Vec::new();
        let limit = u64::try_from(STATUS_BYTES_MAX).unwrap_or(u64::MAX);
        let mut bounded: Take<_> = (&mut self.stream).take(limit);
        match bounded.read_until(b'\n', &mut line).await {
            Ok(_) if line.ends_with(b"\n") => {
                serde_json::from_slice(&line).map_or(Heard::End, Heard::Status)
            }
            Ok(_) | Err(_) => Heard::End,
        }
    }
}

/// Held by an operation while it waits for a step on files. The step goes on when the operation is
/// cut off, and can find that out.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    is_gone: Arc<AtomicBool>,
}

impl Waiter {
    /// For the step: whether it is still waited for.
    pub(crate) fn watch(&self) -> impl Fn() -> bool + Send + use<> {
        let is_gone = Arc::clone(&self.is_gone);
        move || !is_gone.load(Ordering::SeqCst)
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.is_gone.store(true, Ordering::SeqCst);
    }
}

/// Runs a step on files off the runtime's threads.
pub(crate) async fn blocking<T: Send + 'static>(
    step: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, ExecError> {
    match timeout(FILES_DEADLINE, tokio::task::spawn_blocking(step)).await {
        Ok(Ok(result)) => result.map_err(refused),
        Ok(Err(error)) => Err(ExecError::fatal(format!(
            "a step on files was aborted: {error}"
        ))),
        Err(_) => Err(ExecError::temporary(format!(
            "a step on files took more than {FILES_DEADLINE:?}; the disk of the node hangs"
        ))),
    }
}

pub(crate) fn refused(error: FileError) -> ExecError {
    ExecError::fatal(error.to_string())
}
