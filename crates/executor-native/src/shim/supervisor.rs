//! The loop of the shim: one thread that polls pipes, socket and signals until the task has ended
//! and nothing of it is left.

use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::SignalFd;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::os::fd::AsFd;

use super::EXIT_NOT_STARTED;
use super::clients::Clients;
use super::health::{Health, Verdict};
use super::outputs::Output;
use super::signals;
use crate::cgroup::Group;
use crate::cleanup::{self, KILL_DEADLINE, KILL_TICK};
use crate::clock;
use crate::logs::Writer;
use crate::process::{Family, Identity};
use crate::records::{Cause, Exit, Phase, Plan, Record, Request, Status};

/// Longest time without looking around; nothing depends on it but clocks that jump.
const POLL_MAX: Duration = Duration::from_secs(60);
/// When to kill again a task that has not ended after it was killed.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// How often to look for what is left before it is said that it could not be killed. Time alone
/// does not tell: this process may have stood still.
const LOOKS_MIN: u32 = 20;
/// 128 + signal is what a shell makes of a program that a signal ended.
const EXIT_SIGNAL_BASE: i32 = 128;
/// Codes of stage two for a program that cannot run or is missing.
const EXIT_STAGE_TWO: [i32; 2] = [126, 127];

/// What a supervisor is made of.
#[derive(Debug)]
pub(super) struct Parts {
    pub(super) plan: Plan,
    pub(super) main: Identity,
    pub(super) record: Record,
    pub(super) signals: SignalFd,
    pub(super) clients: Clients,
    pub(super) outputs: [Output; 2],
    pub(super) writer: Writer,
    pub(super) health: Option<Health>,
}

/// Runs one task to its end.
#[derive(Debug)]
pub(super) struct Supervisor {
    parts: Parts,
    phase: Phase,
    /// Why the task is to end, once it is.
    ending: Option<(Cause, String)>,
    /// When to kill everything.
    kill_at: Option<Instant>,
    /// Set when the first process has ended.
    drain: Option<Drain>,
    oom_kills: u64,
}

/// The time between the end of the first process and the end of everything.
#[derive(Debug)]
struct Drain {
    code: i32,
    signal: Option<Signal>,
    deadline: Instant,
    tick_at: Instant,
    looks: u32,
    is_clean: bool,
}

impl Drain {
    fn new(code: i32, signal: Option<Signal>, now: Instant) -> Self {
        Self {
            code,
            signal,
            deadline: now + KILL_DEADLINE,
            tick_at: now,
            looks: 0,
            is_clean: false,
        }
    }

    /// One look took place, which found nothing or something.
    fn handle_look(&mut self, is_clean: bool, now: Instant) {
        self.looks = self.looks.saturating_add(1);
        self.is_clean = is_clean;
        self.tick_at = now + KILL_TICK;
    }

    /// Whether to end without having seen the end of everything.
    fn is_given_up(&self, now: Instant) -> bool {
        now >= self.deadline && self.looks >= LOOKS_MIN
    }
}

/// What poll can wake us for.
#[derive(Debug, Clone, Copy)]
enum Source {
    Signals,
    Listener,
    Output(usize),
    Probe,
    Client(usize),
}

impl Supervisor {
    pub(super) fn new(parts: Parts) -> Self {
        let phase = if parts.health.is_some() {
            Phase::Starting
        } else {
            Phase::Running
        };
        Self {
            parts,
            phase,
            ending: None,
            kill_at: None,
            drain: None,
            oom_kills: 0,
        }
    }

    /// The program could not be started; what there is of it goes.
    pub(super) fn give_up(&mut self, message: String) {
        self.phase = Phase::Stopping;
        self.ending = Some((Cause::NotStarted, message));
        self.kill_at = Some(clock::now() + KILL_TICK);
    }

    /// Until nothing is left of the task.
    pub(super) fn run(mut self) -> Exit {
        loop {
            let now = clock::now();
            // Before deadlines: what ended while this process stood still was in time, and must not
            // be taken for late.
            self.handle_signals();
            self.handle_timeouts(now);
            if let Some(exit) = self.poll_exit(now) {
                return exit;
            }
            for source in self.poll_sources(now) {
                self.handle_ready(source);
            }
        }
    }

    fn handle_timeouts(&mut self, now: Instant) {
        for output in &mut self.parts.outputs {
            output.handle_timeout(now, &mut self.parts.writer);
        }
        if self.drain.is_none() && self.kill_at.is_some_and(|at| now >= at) {
            self.kill_at = Some(now + KILL_AGAIN);
            self.kill_all();
            // A process that has not become the program yet is in no group and no session.
            let _gone = kill(Pid::from_raw(self.parts.main.pid), Signal::SIGKILL);
        }
        if self
            .drain
            .as_ref()
            .is_some_and(|drain| now >= drain.tick_at)
        {
            self.tick(now);
        }
        if self.phase != Phase::Stopping
            && self.drain.is_none()
            && let Some(health) = &mut self.parts.health
        {
            let verdict = health.handle_timeout(now);
            self.handle_verdict(verdict, now);
        }
    }

    /// Kills what is left after the first process, and clears up when nothing is.
    fn tick(&mut self, now: Instant) {
        let found = self.kill_all();
        // A group that holds nothing is counted for the last time, then it goes.
        let kills: u64 = self.parts.record.groups.iter().map(Group::oom_kills).sum();
        self.oom_kills = self.oom_kills.max(kills);
        let is_clean = found.is_empty() && cleanup::remove_groups(&mut self.parts.record.groups);
        if let Some(drain) = &mut self.drain {
            drain.handle_look(is_clean, now);
        }
    }

    fn kill_all(&self) -> Vec<Identity> {
        let family = Family {
            task_id: &self.parts.plan.task_id,
            main: self.parts.main,
            shim_pid: Some(self.parts.record.shim.pid),
        };
        cleanup::kill_all(&self.parts.record.groups, Some(&family))
    }

    fn poll_exit(&mut self, now: Instant) -> Option<Exit> {
        let drain = self.drain.as_ref()?;
        let is_read = self
            .parts
            .outputs
            .iter()
            .all(|output| output.fd().is_none());
        if !(drain.is_given_up(now) || drain.is_clean && is_read) {
            return None;
        }
        let is_clean = drain.is_clean;
        let (code, signal) = (drain.code, drain.signal);
        for output in &mut self.parts.outputs {
            output.finish(&mut self.parts.writer);
        }
        let (cause, mut message) = match self.ending.take() {
            Some(ending) => ending,
            None => (Cause::Exited, signal.map(ended_by).unwrap_or_default()),
        };
        if !is_clean {
            let note = format!("some of its processes could not be killed in {KILL_DEADLINE:?}");
            message = [message, note].join("; ");
        }
        let code = match cause {
            Cause::NotStarted if !EXIT_STAGE_TWO.contains(&code) => EXIT_NOT_STARTED,
            Cause::NotStarted | Cause::Exited | Cause::Unhealthy | Cause::Stopped | Cause::Lost => {
                code
            }
        };
        Some(Exit {
            code,
            oom: self.oom_kills > 0 && code != 0,
            cause,
            message,
            ended_at: clock::wall_nanos(),
            log_bytes_lost: self.parts.writer.bytes_lost(),
        })
    }

    fn poll_sources(&self, now: Instant) -> Vec<Source> {
        let readable = PollFlags::POLLIN;
        let mut sources = vec![Source::Signals, Source::Listener];
        let mut fds = vec![
            PollFd::new(self.parts.signals.as_fd(), readable),
            PollFd::new(self.parts.clients.listener_fd(), readable),
        ];
        for (number, output) in self.parts.outputs.iter().enumerate() {
            if let Some(fd) = output.fd() {
                sources.push(Source::Output(number));
                fds.push(PollFd::new(fd, readable));
            }
        }
        if let Some(fd) = self.parts.health.as_ref().and_then(Health::fd) {
            sources.push(Source::Probe);
            fds.push(PollFd::new(fd, readable));
        }
        for (number, fd) in self.parts.clients.fds().enumerate() {
            sources.push(Source::Client(number));
            fds.push(PollFd::new(fd, readable));
        }
        match poll(&mut fds, self.poll_timeout(now)) {
            Ok(_) => {}
            // Out of memory or interrupted: look at the clock and try again.
            Err(_) => return Vec::new(),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| is_ready(fd));
        // Clients last and from the highest number on: serving one may remove it.
        let mut ready: Vec<Source> = ready.map(|(source, _)| source).collect();
        ready.reverse();
        ready.sort_by_key(|source| matches!(source, Source::Client(_)));
        ready
    }

    fn poll_timeout(&self, now: Instant) -> PollTimeout {
        let health = match self.phase {
            Phase::Starting | Phase::Running => self.parts.health.as_ref(),
            Phase::Stopping => None,
        };
        let next = match &self.drain {
            Some(drain) => Some(drain.tick_at),
            None => [self.kill_at, health.map(Health::poll_timeout)]
                .into_iter()
                .flatten()
                .min(),
        };
        let flush = self.parts.outputs.iter().filter_map(Output::timeout).min();
        let next = next.into_iter().chain(flush).min();
        let pause = next.map_or(POLL_MAX, |at| {
            at.saturating_duration_since(now).min(POLL_MAX)
        });
        // Rounded up: waking a moment early would mean to spin through that moment.
        let millis = pause.as_micros().div_ceil(1000);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }

    fn handle_ready(&mut self, source: Source) {
        match source {
            Source::Signals => self.handle_signals(),
            Source::Listener => {
                let status = self.status();
                self.parts.clients.handle_connections(&status);
            }
            Source::Output(number) => {
                let Parts {
                    outputs, writer, ..
                } = &mut self.parts;
                outputs[number].handle_readable(writer);
            }
            Source::Probe => {
                if let Some(health) = &mut self.parts.health {
                    health.handle_readable();
                }
            }
            Source::Client(number) => {
                let status = self.status();
                for request in self.parts.clients.handle_readable(number, &status) {
                    self.handle_request(request);
                }
            }
        }
    }

    fn handle_request(&mut self, request: Request) {
        let now = clock::now();
        match request {
            // Answered where it was read.
            Request::Status => {}
            Request::Stop => self.stop(Cause::Stopped, "it was asked to stop".into(), now),
            Request::Kill => {
                self.stop(Cause::Stopped, "it was killed on request".into(), now);
                self.kill_at = Some(now);
            }
        }
    }

    fn handle_signals(&mut self) {
        let mut was_asked_to_end = false;
        // Bounded by the signals that can be pending: one of each kind.
        while let Ok(Some(info)) = self.parts.signals.read_signal() {
            was_asked_to_end |= i32::try_from(info.ssi_signo) != Ok(Signal::SIGCHLD as i32);
        }
        let now = clock::now();
        if was_asked_to_end {
            self.stop(Cause::Stopped, "its shim got a signal to end".into(), now);
        }
        self.reap(now);
    }

    fn reap(&mut self, now: Instant) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.handle_exit(pid, code, None, now),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    let code = EXIT_SIGNAL_BASE + signal as i32;
                    self.handle_exit(pid, code, Some(signal), now);
                }
                Ok(
                    WaitStatus::Stopped(..)
                    | WaitStatus::Continued(_)
                    | WaitStatus::PtraceEvent(..)
                    | WaitStatus::PtraceSyscall(_),
                )
                | Err(Errno::EINTR) => {}
                Ok(WaitStatus::StillAlive) | Err(_) => return,
            }
        }
    }

    fn handle_exit(&mut self, pid: Pid, code: i32, signal: Option<Signal>, now: Instant) {
        if pid.as_raw() == self.parts.main.pid {
            self.drain = Some(Drain::new(code, signal, now));
            return;
        }
        if let Some(health) = &mut self.parts.health {
            let code = signal.is_none().then_some(code);
            let verdict = health.handle_exit(pid, code, now);
            self.handle_verdict(verdict, now);
        }
    }

    fn handle_verdict(&mut self, verdict: Verdict, now: Instant) {
        match verdict {
            Verdict::Same => {}
            Verdict::Healthy => {
                if self.phase == Phase::Starting {
                    self.phase = Phase::Running;
                    self.broadcast();
                }
            }
            Verdict::Unhealthy(text) => self.stop(Cause::Unhealthy, text, now),
        }
    }

    /// Begins the end of the task; the first reason counts.
    fn stop(&mut self, cause: Cause, message: String, now: Instant) {
        if self.phase == Phase::Stopping || self.drain.is_some() {
            return;
        }
        self.phase = Phase::Stopping;
        self.ending = Some((cause, message));
        self.kill_at = Some(now + self.parts.plan.stop_grace);
        // The first process is not reaped yet, so its group is still its own.
        signals::send(self.parts.main.pid, self.parts.plan.stop_signal);
        self.broadcast();
    }

    fn broadcast(&mut self) {
        let status = self.status();
        self.parts.clients.broadcast(&status);
    }

    fn status(&self) -> Status {
        let warnings = self.parts.record.warnings.clone();
        Status {
            phase: self.phase,
            pid: self.parts.main.pid,
            warnings,
        }
    }
}

fn ended_by(signal: Signal) -> String {
    format!("ended by {signal}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_stood_still_looks_again_before_it_gives_up() {
        let begun = clock::now();
        let mut drain = Drain::new(0, None, begun);
        drain.handle_look(false, begun);
        let late = begun + KILL_DEADLINE * 2;
        for _ in 1..LOOKS_MIN {
            assert!(!drain.is_given_up(late));
            drain.handle_look(false, late);
        }
        assert!(drain.is_given_up(late));
        assert!(!drain.is_given_up(begun));
    }
}
