//! One fake task: a state machine whose operations say at once when they will end and how.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_api::v1::port_config::PublishMode;
use swarm_types::{Task, Timestamp};

use super::Draw;
use super::script::Script;
use crate::contract::{Operation, Report};
use crate::error::ExecError;
use crate::logs::{LogLine, LogOrigin};

/// 128 + SIGKILL.
const EXIT_KILLED: i32 = 137;

/// What [`FakeTask::begin`] promises.
#[derive(Debug, Clone, PartialEq)]
pub struct Begun {
    /// When the operation ends; `None` when it never does.
    pub completes_at: Option<Timestamp>,
    /// How it ends. The caller delivers it at `completes_at`, unless it begins another operation
    /// before: then this one was cancelled.
    pub outcome: Report,
}

/// A task on a fake node, with its process.
#[derive(Debug, Clone)]
pub struct FakeTask {
    task: Arc<Task>,
    script: Result<Script, String>,
    pid: i32,
    phase: Phase,
    /// The effect of the operation under way. It comes true by itself when its time has come, also
    /// without an agent; beginning another operation before that cancels it.
    pending: Option<(Timestamp, Phase)>,
    attempts: BTreeMap<Operation, u32>,
}

/// How much output a task has.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Written {
    pub(super) lines: u64,
    /// Whether no more will come.
    pub(super) is_over: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    New,
    Prepared,
    Running {
        since: Timestamp,
        ends_at: Option<Timestamp>,
    },
    Ended {
        code: i32,
        oom: bool,
        since: Timestamp,
        until: Timestamp,
    },
    Removed,
}

impl FakeTask {
    /// A task that nothing was done for. `pid` is the process id it will have.
    pub fn new(task: Arc<Task>, pid: i32) -> Self {
        let script = Script::from_spec(&task.spec).map_err(|error| error.to_string());
        let attempts = BTreeMap::new();
        Self {
            task,
            script,
            pid,
            phase: Phase::New,
            pending: None,
            attempts,
        }
    }

    /// Begins an operation and cancels the one that has not ended yet. Beginning
    /// [`Operation::Wait`] again is how a caller learns that [`FakeTask::kill`] ended the process.
    pub fn begin(&mut self, operation: Operation, now: Timestamp, draw: &mut dyn Draw) -> Begun {
        self.settle(now);
        self.pending = None;
        let script = match &self.script {
            Ok(script) => script.clone(),
            Err(reason) if operation == Operation::Prepare => {
                return self.done(operation, now, Err(ExecError::fatal(reason)));
            }
            Err(_) => Script::default(),
        };
        let attempt = self.attempts.entry(operation).or_default();
        *attempt += 1;
        if *attempt <= script.temporary.get(&operation).copied().unwrap_or(0) {
            let reason = format!("fake passing trouble with {operation}, attempt {attempt}");
            return self.done(operation, now, Err(ExecError::temporary(reason)));
        }
        if happens(script.hang.get(&operation), draw) {
            return Begun {
                completes_at: None,
                outcome: Report::new(Ok(())),
            };
        }
        if happens(script.fail.get(&operation), draw) {
            let reason = format!("fake failure of {operation}");
            return self.done(operation, now, Err(ExecError::fatal(reason)));
        }
        self.begin_scripted(operation, &script, now, draw)
    }

    /// Takes over a changed task, keeping the process.
    pub fn update(&mut self, task: Arc<Task>) {
        self.task = task;
    }

    /// Ends the process as if somebody killed it; nothing happens when none runs.
    pub fn kill(&mut self, now: Timestamp) {
        self.settle(now);
        if let Phase::Running { since, .. } = self.phase {
            self.phase = Phase::Ended {
                code: EXIT_KILLED,
                oom: false,
                since,
                until: now,
            };
        }
    }

    /// Whether the process runs.
    pub fn is_running(&self, now: Timestamp) -> bool {
        matches!(self.phase_at(now), Phase::Running { .. })
    }

    /// Whether the task was removed.
    pub fn is_removed(&self, now: Timestamp) -> bool {
        self.phase_at(now) == Phase::Removed
    }

    /// What [`crate::Controller::container_status`] answers.
    pub fn container_status(&self, now: Timestamp) -> Option<v1::ContainerStatus> {
        let exit_code = match self.phase_at(now) {
            Phase::New | Phase::Prepared | Phase::Removed => return None,
            Phase::Running { .. } => 0,
            Phase::Ended { code, .. } => code,
        };
        let container_id = self.task.id.to_string();
        Some(v1::ContainerStatus {
            container_id,
            pid: self.pid,
            exit_code,
        })
    }

    /// What [`crate::Controller::port_status`] answers.
    pub fn port_status(&self) -> Option<v1::PortStatus> {
        let endpoint = self.task.endpoint.as_ref()?;
        let on_host = |port: &&v1::PortConfig| port.publish_mode == i32::from(PublishMode::Host);
        let ports: Vec<_> = endpoint.ports.iter().filter(on_host).cloned().collect();
        (!ports.is_empty()).then_some(v1::PortStatus { ports })
    }

    /// How much output there is.
    pub(super) fn output(&self, now: Timestamp) -> Written {
        let every = self.script.as_ref().ok().and_then(|own| own.line_every);
        let (since, until, is_over) = match self.phase_at(now) {
            Phase::New | Phase::Prepared => return Written::default(),
            Phase::Removed => {
                return Written {
                    is_over: true,
                    ..Written::default()
                };
            }
            Phase::Running { since, .. } => (since, now, false),
            Phase::Ended { since, until, .. } => (since, until, true),
        };
        let Some(every) = every else {
            let lines = 0;
            return Written { lines, is_over };
        };
        let passed = until.saturating_since(since).as_nanos() / every.as_nanos();
        let lines = u64::try_from(passed).unwrap_or(u64::MAX).saturating_add(1);
        Written { lines, is_over }
    }

    /// One line of the output; every fourth goes to standard error.
    pub(super) fn line(&self, number: u64, now: Timestamp) -> Option<LogLine> {
        let every = self.script.as_ref().ok()?.line_every?;
        let since = match self.phase_at(now) {
            Phase::New | Phase::Prepared | Phase::Removed => return None,
            Phase::Running { since, .. } | Phase::Ended { since, .. } => since,
        };
        let nanos = every.as_nanos().saturating_mul(u128::from(number));
        let offset = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        Some(LogLine {
            at: Some(since.saturating_add(offset)),
            origin: if number % 4 == 3 {
                LogOrigin::Stderr
            } else {
                LogOrigin::Stdout
            },
            data: format!("line {number} of {}\n", self.task.id).into(),
        })
    }

    fn begin_scripted(
        &mut self,
        operation: Operation,
        script: &Script,
        now: Timestamp,
        draw: &mut dyn Draw,
    ) -> Begun {
        let mut after = |duration| now.saturating_add(jittered(duration, script.jitter, draw));
        match (operation, self.phase) {
            (Operation::Update | Operation::Close, _) => self.done(operation, now, Ok(())),
            (Operation::Prepare, Phase::New) => match &script.reject {
                Some(reason) => {
                    let at = after(script.prepare);
                    self.done(operation, at, Err(ExecError::fatal(reason)))
                }
                None => self.then(operation, after(script.prepare), Phase::Prepared),
            },
            (Operation::Prepare, Phase::Removed) => self.gone(operation, now),
            (Operation::Prepare, Phase::Prepared | Phase::Running { .. } | Phase::Ended { .. }) => {
                self.done(operation, now, Err(ExecError::AlreadyPrepared))
            }
            (Operation::Start, Phase::Prepared) => {
                let at = after(script.start);
                let ends_at = script
                    .run
                    .map(|run| at.saturating_add(jittered(run, script.jitter, draw)));
                self.then(operation, at, Phase::Running { since: at, ends_at })
            }
            (Operation::Start, Phase::Running { .. } | Phase::Ended { .. }) => {
                self.done(operation, now, Err(ExecError::AlreadyStarted))
            }
            (Operation::Wait, Phase::Running { ends_at, .. }) => self.wait(ends_at, script),
            (Operation::Wait, Phase::Ended { code, oom, .. }) => {
                self.done(operation, now, exit_result(code, oom))
            }
            (Operation::Start | Operation::Wait, Phase::New | Phase::Prepared | Phase::Removed) => {
                self.gone(operation, now)
            }
            (Operation::Shutdown, Phase::Running { since, .. }) => {
                let until = after(script.stop);
                let ended = Phase::Ended {
                    code: 0,
                    oom: false,
                    since,
                    until,
                };
                self.then(operation, until, ended)
            }
            (Operation::Terminate, Phase::Running { since, .. }) => self.then(
                operation,
                now,
                Phase::Ended {
                    code: EXIT_KILLED,
                    oom: false,
                    since,
                    until: now,
                },
            ),
            (Operation::Remove, _) => self.then(operation, now, Phase::Removed),
            (
                Operation::Shutdown | Operation::Terminate,
                Phase::New | Phase::Prepared | Phase::Ended { .. } | Phase::Removed,
            ) => self.done(operation, now, Ok(())),
        }
    }

    fn wait(&self, ends_at: Option<Timestamp>, script: &Script) -> Begun {
        let code = if script.oom { EXIT_KILLED } else { script.exit };
        let outcome = Report {
            container: Some(v1::ContainerStatus {
                container_id: self.task.id.to_string(),
                pid: self.pid,
                exit_code: code,
            }),
            ports: self.port_status(),
            ..Report::new(exit_result(code, script.oom))
        };
        Begun {
            completes_at: ends_at,
            outcome,
        }
    }

    /// The operation succeeds at `at` and leaves the task in `phase`.
    fn then(&mut self, operation: Operation, at: Timestamp, phase: Phase) -> Begun {
        self.pending = Some((at, phase));
        self.done(operation, at, Ok(()))
    }

    fn gone(&self, operation: Operation, now: Timestamp) -> Begun {
        let reason = format!(
            "cannot {operation} fake task {}: prepare it first",
            self.task.id
        );
        self.done(operation, now, Err(ExecError::fatal(reason)))
    }

    fn done(&self, operation: Operation, at: Timestamp, result: Result<(), ExecError>) -> Begun {
        let mut outcome = Report::new(result);
        match operation {
            Operation::Start | Operation::Wait | Operation::Shutdown | Operation::Terminate => {
                outcome.container = self.container_status(at);
                outcome.ports = self.port_status();
            }
            Operation::Update | Operation::Prepare | Operation::Remove | Operation::Close => {}
        }
        Begun {
            completes_at: Some(at),
            outcome,
        }
    }

    /// Lets everything come true that is due.
    fn settle(&mut self, now: Timestamp) {
        self.phase = self.phase_at(now);
        if self.pending.is_some_and(|(at, _)| at <= now) {
            self.pending = None;
        }
    }

    fn phase_at(&self, now: Timestamp) -> Phase {
        let mut phase = match self.pending {
            Some((at, phase)) if at <= now => phase,
            Some(_) | None => self.phase,
        };
        if let Phase::Running {
            since,
            ends_at: Some(at),
        } = phase
            && at <= now
        {
            let (code, oom) = match &self.script {
                Ok(script) if script.oom => (EXIT_KILLED, true),
                Ok(script) => (script.exit, false),
                Err(_) => (0, false),
            };
            phase = Phase::Ended {
                code,
                oom,
                since,
                until: at,
            };
        }
        phase
    }
}

fn exit_result(code: i32, oom: bool) -> Result<(), ExecError> {
    if code == 0 && !oom {
        return Ok(());
    }
    Err(ExecError::Exited {
        code,
        oom,
        message: String::new(),
    })
}

/// Draws only when the outcome is open, so a script without chances consumes no randomness.
fn happens(percent: Option<&u8>, draw: &mut dyn Draw) -> bool {
    match percent.copied().unwrap_or(0) {
        0 => false,
        100.. => true,
        percent => draw.next_u64() % 100 < u64::from(percent),
    }
}

fn jittered(duration: Duration, jitter: Duration, draw: &mut dyn Draw) -> Duration {
    let jitter_nanos = u64::try_from(jitter.as_nanos()).unwrap_or(u64::MAX);
    if jitter_nanos == 0 {
        return duration;
    }
    duration.saturating_add(Duration::from_nanos(draw.next_u64() % jitter_nanos))
}

#[cfg(test)]
mod tests;
