//! The session loop: open, keep alive, fail, back off, open again (spec 6.1).

use std::time::Duration;

use swarm_api::v1;
use swarm_types::Timestamp;
use v1::update_task_status_request::TaskStatusUpdate;

use crate::rpc::{AgentRpc, Call, Epoch};

/// What each failed attempt adds to twice the back-off before (spec 6.1).
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// The longest back-off; the wait itself is drawn between zero and it (spec 6.1).
pub const BACKOFF_MAX: Duration = Duration::from_secs(8);
/// Deadline for the first session message, for a heartbeat and for a report (spec 6.1).
pub const RPC_TIMEOUT: Duration = Duration::from_secs(5);

/// The connection to the managers.
#[derive(Debug)]
pub(crate) struct Session {
    epoch: Epoch,
    phase: Phase,
    backoff: Duration,
    /// The session that we had last; the manager may still know it.
    previous: String,
    /// The newest close; it covers all attempts up to its own.
    close: Option<AgentRpc>,
}

#[derive(Debug)]
enum Phase {
    /// The node has not been described yet.
    Idle,
    Backoff {
        until: Timestamp,
    },
    Opening {
        deadline: Timestamp,
        is_called: bool,
    },
    Active(Active),
    Stopped,
}

#[derive(Debug)]
struct Active {
    session: String,
    heartbeat: Heartbeat,
    assignments: Stream,
    /// Whether the stream of log subscriptions was opened; that happens once in a session.
    is_listening: bool,
    report_deadline: Option<Timestamp>,
    /// The number of the last report.
    report: u64,
}

#[derive(Debug)]
enum Heartbeat {
    At(Timestamp),
    UnderWay { deadline: Timestamp },
}

#[derive(Debug, PartialEq)]
enum Stream {
    Closed,
    /// Waits for the complete message.
    Opened {
        deadline: Timestamp,
    },
    /// The `results_in` of the last message.
    At(String),
}

/// What a session message means for the loop.
#[derive(Debug, PartialEq)]
pub(crate) enum Heard {
    /// It belongs to an earlier attempt.
    Stale,
    /// The first message of a session which the manager did not know.
    NewSession,
    /// The first message of the session of before.
    SameSession,
    /// A later message.
    News,
    /// The session must be given up.
    Broken(&'static str),
}

/// How an assignments message fits in.
#[derive(Debug, PartialEq)]
pub(crate) enum Fit {
    Stale,
    Complete,
    Incremental,
    Broken(&'static str),
}

impl Session {
    pub(crate) fn new() -> Self {
        Self {
            epoch: Epoch(0),
            phase: Phase::Idle,
            backoff: Duration::ZERO,
            previous: String::new(),
            close: None,
        }
    }

    /// The node was described for the first time.
    pub(crate) fn start(&mut self, now: Timestamp) {
        if let Phase::Idle = self.phase {
            self.open(now);
        }
    }

    pub(crate) fn stop(&mut self) {
        self.put_close("the agent stops".to_owned(), false);
        self.phase = Phase::Stopped;
    }

    /// Whether calls may be made for a session.
    pub(crate) fn is_active(&self) -> bool {
        matches!(self.phase, Phase::Active(_))
    }

    /// Whether the node was described to a manager, or is about to be.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Active(_) | Phase::Opening { .. })
    }

    pub(crate) fn is_current(&self, epoch: Epoch) -> bool {
        self.epoch == epoch && self.is_open()
    }

    /// Gives the session up and waits a while before the next attempt.
    pub(crate) fn fail(
        &mut self,
        now: Timestamp,
        reason: String,
        blame: bool,
        draw: &mut dyn FnMut() -> u64,
    ) {
        if !self.is_open() {
            return;
        }
        self.put_close(reason, blame);
        let next = BACKOFF_BASE.saturating_add(self.backoff.saturating_mul(2));
        self.backoff = next.min(BACKOFF_MAX);
        let range = u64::try_from(self.backoff.as_nanos()).unwrap_or(u64::MAX);
        let until = now.saturating_add(Duration::from_nanos(draw() % range.max(1)));
        self.phase = Phase::Backoff { until };
    }

    /// Returns why the session has to be given up, if a deadline passed.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp) -> Option<&'static str> {
        match &self.phase {
            Phase::Backoff { until } if *until <= now => {
                self.open(now);
                None
            }
            Phase::Opening { deadline, .. } if *deadline <= now => {
                Some("the manager sent no session message in time")
            }
            Phase::Active(active) => active.overdue(now),
            Phase::Idle | Phase::Stopped | Phase::Backoff { .. } | Phase::Opening { .. } => None,
        }
    }

    pub(crate) fn timeout(&self) -> Option<Timestamp> {
        match &self.phase {
            Phase::Idle | Phase::Stopped => None,
            Phase::Backoff { until } => Some(*until),
            Phase::Opening { deadline, .. } => Some(*deadline),
            Phase::Active(active) => active.timeout(),
        }
    }

    /// The next call but for reports; heartbeats go first.
    pub(crate) fn poll(
        &mut self,
        now: Timestamp,
        description: &v1::NodeDescription,
    ) -> Option<AgentRpc> {
        if let Some(close) = self.close.take() {
            return Some(close);
        }
        let call = match &mut self.phase {
            Phase::Opening { is_called, .. } if !*is_called => {
                *is_called = true;
                Call::OpenSession {
                    description: Box::new(description.clone()),
                    previous_session: self.previous.clone(),
                }
            }
            Phase::Active(active) => active.poll(now)?,
            Phase::Opening { .. } | Phase::Idle | Phase::Backoff { .. } | Phase::Stopped => {
                return None;
            }
        };
        let epoch = self.epoch;
        Some(AgentRpc { epoch, call })
    }

    /// The call that brings statuses.
    pub(crate) fn report(
        &mut self,
        now: Timestamp,
        updates: Vec<TaskStatusUpdate>,
    ) -> Option<AgentRpc> {
        let Phase::Active(active) = &mut self.phase else {
            return None;
        };
        active.report_deadline = Some(now.saturating_add(RPC_TIMEOUT));
        active.report += 1;
        let (session, report) = (active.session.clone(), active.report);
        Some(AgentRpc {
            epoch: self.epoch,
            call: Call::UpdateTaskStatus {
                session,
                report,
                updates,
            },
        })
    }

    /// False if this is not the answer to the report under way.
    pub(crate) fn handle_reported(&mut self, report: u64) -> bool {
        let Phase::Active(active) = &mut self.phase else {
            return false;
        };
        active.report == report && active.report_deadline.take().is_some()
    }

    pub(crate) fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub(crate) fn handle_heartbeat(&mut self, now: Timestamp, period: Duration) {
        if let Phase::Active(active) = &mut self.phase {
            active.heartbeat = Heartbeat::At(now.saturating_add(period));
        }
    }

    pub(crate) fn hear(&mut self, now: Timestamp, epoch: Epoch, session: &str) -> Heard {
        if self.epoch != epoch {
            return Heard::Stale;
        }
        match &self.phase {
            Phase::Idle | Phase::Backoff { .. } | Phase::Stopped => return Heard::Stale,
            Phase::Active(active) if active.session == session => return Heard::News,
            Phase::Active(_) => return Heard::Broken("the manager changed the session's id"),
            Phase::Opening { .. } if session.is_empty() => {
                return Heard::Broken("the manager sent a session without an id");
            }
            Phase::Opening { .. } => {}
        }
        self.backoff = Duration::ZERO;
        self.phase = Phase::Active(Active {
            session: session.to_owned(),
            heartbeat: Heartbeat::At(now),
            assignments: Stream::Closed,
            is_listening: false,
            report_deadline: None,
            report: 0,
        });
        if self.previous == session {
            return Heard::SameSession;
        }
        session.clone_into(&mut self.previous);
        Heard::NewSession
    }

    /// Whether a message of the assignments stream continues what was applied. A second complete
    /// message is no continuation: it may be older than what followed the first one.
    pub(crate) fn fit(&mut self, epoch: Epoch, message: &v1::AssignmentsMessage) -> Fit {
        use v1::assignments_message::Type;
        let Phase::Active(active) = &mut self.phase else {
            return Fit::Stale;
        };
        if self.epoch != epoch {
            return Fit::Stale;
        }
        let fit = match (Type::try_from(message.r#type), &active.assignments) {
            (_, Stream::Closed) => return Fit::Stale,
            (Ok(Type::Complete), Stream::Opened { .. }) => Fit::Complete,
            (Ok(Type::Incremental), Stream::At(last)) if *last == message.applies_to => {
                Fit::Incremental
            }
            (Ok(Type::Complete), Stream::At(_)) => {
                return Fit::Broken("a complete message came again on one assignments stream");
            }
            (Ok(Type::Incremental), Stream::At(_) | Stream::Opened { .. }) => {
                return Fit::Broken("a message is missing on the assignments stream");
            }
            (Err(_), Stream::At(_) | Stream::Opened { .. }) => {
                return Fit::Broken("an assignments message has an unknown type");
            }
        };
        active.assignments = Stream::At(message.results_in.clone());
        fit
    }

    fn open(&mut self, now: Timestamp) {
        self.epoch = Epoch(self.epoch.0 + 1);
        self.phase = Phase::Opening {
            deadline: now.saturating_add(RPC_TIMEOUT),
            is_called: false,
        };
    }

    fn put_close(&mut self, reason: String, failed: bool) {
        self.close = Some(AgentRpc {
            epoch: self.epoch,
            call: Call::Close { reason, failed },
        });
    }
}

impl Active {
    fn overdue(&self, now: Timestamp) -> Option<&'static str> {
        if let Heartbeat::UnderWay { deadline } = self.heartbeat
            && deadline <= now
        {
            return Some("the manager did not answer a heartbeat in time");
        }
        if let Stream::Opened { deadline } = self.assignments
            && deadline <= now
        {
            return Some("the manager sent no assignments in time");
        }
        let is_late = self.report_deadline.is_some_and(|at| at <= now);
        is_late.then_some("the manager did not take a status report in time")
    }

    fn timeout(&self) -> Option<Timestamp> {
        let heartbeat = match self.heartbeat {
            Heartbeat::At(at) | Heartbeat::UnderWay { deadline: at } => at,
        };
        let assignments = match self.assignments {
            Stream::Opened { deadline } => Some(deadline),
            Stream::Closed | Stream::At(_) => None,
        };
        [Some(heartbeat), assignments, self.report_deadline]
            .into_iter()
            .flatten()
            .min()
    }

    fn poll(&mut self, now: Timestamp) -> Option<Call> {
        let session = || self.session.clone();
        if let Heartbeat::At(at) = self.heartbeat
            && at <= now
        {
            let call = Call::Heartbeat { session: session() };
            let deadline = now.saturating_add(RPC_TIMEOUT);
            self.heartbeat = Heartbeat::UnderWay { deadline };
            return Some(call);
        }
        if self.assignments == Stream::Closed {
            let call = Call::OpenAssignments { session: session() };
            let deadline = now.saturating_add(crate::agent::ASSIGNMENTS_TIMEOUT);
            self.assignments = Stream::Opened { deadline };
            return Some(call);
        }
        if !self.is_listening {
            self.is_listening = true;
            return Some(Call::ListenSubscriptions);
        }
        None
    }
}
