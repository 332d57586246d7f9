//! The health check: a command that runs again and again, with the counting rules of Docker.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::exec;
use crate::records::{HealthCheck, Launch};

/// How much of a failed check's output is kept for the status, in bytes.
const OUTPUT_BYTES_MAX: usize = 512;
/// When to kill again a check that has not ended after it was killed.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// What follows from a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing new.
    Same,
    /// The first success.
    Healthy,
    /// Too many failures in a row; says how many and how the last one went.
    Unhealthy(String),
}

/// Counts results. No clock, no processes: those are [`Health`]'s.
#[derive(Debug)]
struct Tally {
    retries: u32,
    failures: u32,
    was_healthy: bool,
}

impl Tally {
    /// `in_start_period`: failures do not count before the first success.
    fn handle_result(&mut self, failure: Option<&str>, in_start_period: bool) -> Verdict {
        let Some(failure) = failure else {
            self.failures = 0;
            return match std::mem::replace(&mut self.was_healthy, true) {
                true => Verdict::Same,
                false => Verdict::Healthy,
            };
        };
        if in_start_period && !self.was_healthy {
            return Verdict::Same;
        }
        self.failures += 1;
        if self.failures < self.retries {
            return Verdict::Same;
        }
        let count = self.failures;
        Verdict::Unhealthy(format!(
            "unhealthy container: {count} health checks failed: {failure}"
        ))
    }
}

/// The health check of one task.
#[derive(Debug)]
pub(super) struct Health {
    check: HealthCheck,
    launch: Launch,
    shim_args: Vec<String>,
    entrances: Vec<PathBuf>,
    tally: Tally,
    start_period_end: Instant,
    next_at: Instant,
    probe: Option<Probe>,
}

/// A check under way.
#[derive(Debug)]
struct Probe {
    pid: Pid,
    deadline: Instant,
    timed_out: bool,
    pipe: Option<File>,
    output: Vec<u8>,
}

impl Health {
    pub(super) fn new(
        check: HealthCheck,
        task: &Launch,
        shim_args: Vec<String>,
        entrances: Vec<PathBuf>,
        now: Instant,
    ) -> Self {
        let launch = Launch {
            argv: check.argv.clone(),
            ..task.clone()
        };
        let tally = Tally {
            retries: check.retries,
            failures: 0,
            was_healthy: false,
        };
        let mut health = Self {
            start_period_end: now + check.start_period,
            check,
            launch,
            shim_args,
            entrances,
            tally,
            next_at: now,
            probe: None,
        };
        health.schedule(now);
        health
    }

    /// When [`Health::handle_timeout`] wants to be called.
    pub(super) fn poll_timeout(&self) -> Instant {
        match &self.probe {
            Some(probe) => probe.deadline,
            None => self.next_at,
        }
    }

    /// Begins a check, or ends one that takes too long.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Verdict {
        match &mut self.probe {
            Some(probe) if now >= probe.deadline => {
                probe.timed_out = true;
                probe.deadline = now + KILL_AGAIN;
                probe.kill();
            }
            None if now >= self.next_at => return self.begin(now),
            Some(_) | None => {}
        }
        Verdict::Same
    }

    /// The output of the check, to poll.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.probe.as_ref()?.pipe.as_ref().map(AsFd::as_fd)
    }

    pub(super) fn handle_readable(&mut self) {
        let Some(probe) = &mut self.probe else { return };
        let Some(pipe) = &mut probe.pipe else { return };
        let mut buffer = [0; 4096];
        match pipe.read(&mut buffer) {
            Ok(count) if count > 0 => {
                let room = OUTPUT_BYTES_MAX - probe.output.len();
                probe.output.extend_from_slice(&buffer[..count.min(room)]);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => probe.pipe = None,
        }
    }

    /// A child of the shim has ended; `code` is `None` for a signal.
    pub(super) fn handle_exit(&mut self, pid: Pid, code: Option<i32>, now: Instant) -> Verdict {
        match &self.probe {
            Some(probe) if probe.pid == pid => {}
            Some(_) | None => return Verdict::Same,
        }
        self.handle_readable();
        let Some(probe) = self.probe.take() else {
            return Verdict::Same;
        };
        let failure = probe.failure(code, &self.check);
        self.conclude(failure.as_deref(), now)
    }

    fn begin(&mut self, now: Instant) -> Verdict {
        match self.spawn(now) {
            Ok(probe) => {
                self.probe = Some(probe);
                Verdict::Same
            }
            Err(error) => self.conclude(Some(&error), now),
        }
    }

    fn spawn(&self, now: Instant) -> Result<Probe, String> {
        let (mine, theirs) = std::io::pipe().map_err(|error| error.to_string())?;
        // A child that the check leaves behind may keep the pipe open for ever.
        fcntl(&mine, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|error| error.to_string())?;
        let both = theirs.try_clone().map_err(|error| error.to_string())?;
        let (waiting, _reaped_by_the_supervisor) =
            exec::spawn(&self.shim_args, Stdio::from(theirs), Stdio::from(both))
                .map_err(|error| error.to_string())?;
        let pid = waiting.pid;
        // Not waited for: a check that cannot run ends with a code, and its output tells nothing.
        waiting
            .order(&self.launch, self.entrances.clone())
            .map_err(|error| error.to_string())?;
        let pipe = Some(File::from(OwnedFd::from(mine)));
        let deadline = now + self.check.timeout;
        Ok(Probe {
            pid,
            deadline,
            timed_out: false,
            pipe,
            output: Vec::new(),
        })
    }

    fn conclude(&mut self, failure: Option<&str>, now: Instant) -> Verdict {
        let verdict = self
            .tally
            .handle_result(failure, now < self.start_period_end);
        self.schedule(now);
        verdict
    }

    fn schedule(&mut self, now: Instant) {
        let is_starting = now < self.start_period_end && !self.tally.was_healthy;
        let pause = if is_starting {
            self.check.start_interval
        } else {
            self.check.interval
        };
        self.next_at = now + pause;
    }
}

impl Probe {
    fn kill(&self) {
        // Stage two leads its own session, once it got that far; before, it is alone.
        let _not_yet_or_gone = killpg(self.pid, Signal::SIGKILL);
        let _gone = kill(self.pid, Signal::SIGKILL);
    }

    fn failure(&self, code: Option<i32>, check: &HealthCheck) -> Option<String> {
        if self.timed_out {
            return Some(format!("no answer within {:?}", check.timeout));
        }
        let ended = match code {
            Some(0) => return None,
            Some(code) => format!("exit code {code}"),
            None => "ended by a signal".to_owned(),
        };
        let output = String::from_utf8_lossy(&self.output);
        match output.trim() {
            "" => Some(ended),
            output => Some(format!("{ended}: {output}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally() -> Tally {
        Tally {
            retries: 2,
            failures: 0,
            was_healthy: false,
        }
    }

    #[test]
    fn failures_in_a_row_count_and_a_success_forgives_them() {
        let mut tally = tally();
        assert_eq!(tally.handle_result(Some("x"), false), Verdict::Same);
        assert_eq!(tally.handle_result(None, false), Verdict::Healthy);
        assert_eq!(tally.handle_result(Some("x"), false), Verdict::Same);
        assert_eq!(tally.handle_result(None, false), Verdict::Same);
        assert_eq!(tally.handle_result(Some("x"), false), Verdict::Same);
        let verdict = tally.handle_result(Some("exit code 1"), false);
        let text = "unhealthy container: 2 health checks failed: exit code 1";
        assert_eq!(verdict, Verdict::Unhealthy(text.to_owned()));
    }

    #[test]
    fn the_start_period_forgives_until_the_first_success() {
        let mut tally = tally();
        for _ in 0..5 {
            assert_eq!(tally.handle_result(Some("x"), true), Verdict::Same);
        }
        assert_eq!(tally.handle_result(None, true), Verdict::Healthy);
        assert_eq!(tally.handle_result(Some("x"), true), Verdict::Same);
        assert!(matches!(
            tally.handle_result(Some("x"), true),
            Verdict::Unhealthy(_)
        ));
    }
}
