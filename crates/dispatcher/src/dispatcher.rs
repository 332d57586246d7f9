//! The dispatcher: calls of nodes, commits and time go in; messages and transactions come out.
//!
//! A shell hands in every commit in order, then turns until both are empty:
//! [`Dispatcher::poll_message`], which it routes by stream, and [`Dispatcher::poll_transaction`],
//! whose result it hands back. It calls [`Dispatcher::handle_sent`] when the transport of a stream
//! has room again, and sleeps until [`Dispatcher::poll_timeout`].

mod farewell;
mod lost;
mod messages;
mod observe;
mod registration;
mod secrets;
mod standstill;
mod streams;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm_api::v1;
use swarm_reconcile::{Batch, Outcome, Wake};
use swarm_store::{Commit, Root};
use swarm_types::{Node, NodeId, NodeState, SessionId, Timers, Timestamp, Version};
use v1::update_task_status_request::TaskStatusUpdate;
use v1::update_volume_status_request::VolumeStatusUpdate;

use crate::config::{
    Config, SessionExtras, UNKNOWN_GRACE_MULTIPLIER, draw_period, heartbeat_period,
};
use crate::error::DispatchError;
use crate::expiry::Wheel;
use crate::intake::Intake;
use crate::lean::Lean;
use crate::nodes::NodeIntent;
use crate::notices::Notices;
use crate::orphans;
use crate::pulse::Pulses;
use crate::sessions::Session;
use crate::statuses;
use crate::volumes;
use crate::wire::AssignmentsBytes;
pub use farewell::FAREWELL_TIMEOUT;
pub use secrets::{SECRET_REQUESTS_MAX, SecretRequest, SecretRequestId};
pub use standstill::{PARDONS_MAX, STANDSTILL_MIN};

/// Names one stream of messages to a node; never used twice by one dispatcher.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// A call of `Dispatcher.Session`.
#[derive(Clone, Debug)]
pub struct SessionOpen<'a> {
    /// Who calls, as its certificate says.
    pub node: &'a NodeId,
    /// What the node says of itself; `None` keeps what is stored.
    pub description: Option<v1::NodeDescription>,
    /// The address that the call came from, without the port.
    pub addr: &'a str,
    /// The address at which it arrived, `host:port`: where the node can dial this manager. Empty if
    /// nobody knows.
    pub arrived: &'a str,
    /// The session that the node had before; empty if none.
    pub previous_session: &'a str,
}

/// An accepted session. Its first message comes from [`Dispatcher::poll_message`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionStart {
    /// The session.
    pub session: SessionId,
    /// The stream on which its messages travel.
    pub stream: StreamId,
    /// What people are to know about the node: that two machines use its certificate.
    pub warning: Option<String>,
}

/// Something for a node.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// The node.
    pub node: NodeId,
    /// On which of its streams.
    pub stream: StreamId,
    /// What.
    pub body: Body,
}

/// The content of a [`Message`].
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// For a session stream.
    Session(Box<v1::SessionMessage>),
    /// For an assignments stream.
    Assignments(AssignmentsBytes),
    /// The stream ends; nothing follows on it.
    End(DispatchError),
}

/// How much there is to do, for status pages and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Registered nodes.
    pub sessions: usize,
    /// Open streams.
    pub streams: usize,
    /// Node states that wait to be written.
    pub nodes_queued: usize,
    /// Task statuses that wait to be written.
    pub statuses_queued: usize,
    /// Timers that are set.
    pub timers: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// A node from before this leader must register until then.
    Grace(NodeId),
    /// The tasks of a lost node are given up then.
    Orphan(NodeId),
    /// Changes of assignments are collected until then.
    Assignments(NodeId),
    /// Drivers that failed are asked again then.
    Secrets(NodeId),
    /// The streams of a removed node end then.
    Farewell(NodeId),
}

/// The state of the dispatcher in one leader's term.
#[derive(Debug)]
pub struct Dispatcher {
    config: Config,
    extras: SessionExtras,
    /// Shared with whoever answers heartbeats.
    pulses: Pulses,
    is_stopped: bool,
    sessions: BTreeMap<NodeId, Session>,
    /// Nodes that were removed and still listen.
    farewells: BTreeMap<NodeId, farewell::Farewell>,
    streams: BTreeMap<StreamId, NodeId>,
    stream_last: u64,
    /// Nodes from before this term that have not registered yet.
    awaited: BTreeSet<NodeId>,
    /// When registered nodes are looked at.
    wheel: Wheel,
    /// Until when the writes of registrations must be committed.
    registrations: Timers<NodeId>,
    timers: Timers<Timer>,
    looks: standstill::Looks,
    intake: Intake,
    secrets: secrets::SecretRequests,
    lean: Lean,
    notices: Notices,
    /// Ends of streams; one for each stream at most.
    ends: VecDeque<Message>,
    /// Nodes that may have a message to be sent.
    ready: BTreeSet<NodeId>,
    /// Views below this version would show a node less than it knows.
    version_min: Version,
}

impl Dispatcher {
    /// Starts a term: every node that is not DOWN becomes UNKNOWN until it registers (spec 5.3).
    pub fn new(now: Timestamp, view: &Root, config: Config, extras: SessionExtras) -> Self {
        let mut dispatcher = Self {
            config,
            extras,
            pulses: Pulses::new(heartbeat_period(view)),
            is_stopped: false,
            sessions: BTreeMap::new(),
            farewells: BTreeMap::new(),
            streams: BTreeMap::new(),
            stream_last: 0,
            awaited: BTreeSet::new(),
            wheel: Wheel::default(),
            registrations: Timers::new(),
            timers: Timers::new(),
            looks: standstill::Looks::new(now),
            intake: Intake::default(),
            secrets: secrets::SecretRequests::default(),
            lean: Lean::default(),
            notices: Notices::default(),
            ends: VecDeque::new(),
            ready: BTreeSet::new(),
            version_min: view.version(),
        };
        dispatcher.intake.require(view.version());
        for node in view.all::<Node>() {
            if node.status.state != NodeState::Down {
                dispatcher.awaited.insert(node.id.clone());
                let id = node.id.clone();
                dispatcher.intake.put_node(now, id, NodeIntent::Unknown);
            }
            if let Some(at) = orphans::deadline(node) {
                dispatcher.timers.set(Timer::Orphan(node.id.clone()), at);
            }
        }
        dispatcher.find_left_behind(now, view);
        dispatcher
    }

    /// Nodes can reach this dispatcher from now on, so the time in which they have to come back
    /// begins.
    pub fn handle_serving(&mut self, now: Timestamp, draw: &mut dyn FnMut() -> u64) {
        self.looks = standstill::Looks::new(now);
        for node in &self.awaited {
            let grace =
                draw_period(self.pulses.period(), draw).saturating_mul(UNKNOWN_GRACE_MULTIPLIER);
            self.timers
                .set(Timer::Grace(node.clone()), now.saturating_add(grace));
        }
    }

    /// Managers, keys or the trust root changed.
    pub fn handle_extras(&mut self, extras: SessionExtras) {
        if self.extras == extras {
            return;
        }
        self.extras = extras;
        for (node, session) in &mut self.sessions {
            if let Some(control) = &mut session.control {
                control.mark_due();
                self.ready.insert(node.clone());
            }
        }
    }

    /// What nodes are told beside their own objects.
    pub fn extras(&self) -> &SessionExtras {
        &self.extras
    }

    /// The heartbeats of this term, for whoever answers them.
    pub fn pulses(&self) -> &Pulses {
        &self.pulses
    }

    /// A node reports what became of its tasks. Unknown tasks are skipped; a task of another node
    /// makes the whole call fail.
    ///
    /// # Errors
    /// As [`Pulses::beat`]; a foreign task; a malformed status.
    pub fn handle_task_statuses(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        session: &str,
        updates: Vec<TaskStatusUpdate>,
        view: &Root,
    ) -> Result<(), DispatchError> {
        self.check_session(node, session)?;
        let (reports, cuts) = statuses::check(node, updates, view)?;
        self.notices.cut(cuts);
        for report in reports {
            self.intake.put_status(now, report);
        }
        Ok(())
    }

    /// A node reports which cluster volumes it has let go of. Those which do not wait for it are
    /// skipped.
    ///
    /// # Errors
    /// As [`Pulses::beat`].
    pub fn handle_volume_statuses(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        session: &str,
        updates: &[VolumeStatusUpdate],
        view: &Root,
    ) -> Result<(), DispatchError> {
        self.check_session(node, session)?;
        for volume in volumes::check(node, updates, view) {
            self.intake.put_volume(now, volume, node.clone());
        }
        Ok(())
    }

    /// Takes notice of a commit; `view` is at or after it.
    pub fn handle_commit(&mut self, now: Timestamp, commit: &Commit, view: &Root) {
        self.require(commit.version);
        for change in &commit.changes {
            self.observe(now, change, view);
        }
    }

    /// Commits were missed: compares everything. Costs as much as there are nodes and tasks.
    pub fn handle_lag(&mut self, now: Timestamp, view: &Root) {
        self.require(view.version());
        self.observe_period(now, view);
        let registered: Vec<NodeId> = self.sessions.keys().cloned().collect();
        for id in registered {
            if view.node(&id).is_none() && !self.is_waiting(&id) {
                self.remove_node(now, &id);
                continue;
            }
            if let Some(session) = self.sessions.get_mut(&id)
                && let Some(assignments) = &mut session.assignments
            {
                assignments.state.handle_lag(view, &id);
                assignments.is_due = true;
            }
            self.ready.insert(id);
        }
        for node in view.all::<Node>() {
            self.observe_node(now, node);
        }
        self.find_left_behind(now, view);
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.notice_standstill(now);
        while let Some((slot, nodes)) = self.wheel.pop_due(now) {
            for node in nodes {
                self.look(now, slot, &node);
            }
        }
        while let Some(node) = self.registrations.pop_due(now) {
            self.refuse_registration(&node);
        }
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Grace(node) => self.give_up(now, node),
                Timer::Orphan(node) => {
                    self.intake.orphans.handle_overdue(&node);
                    self.intake.arm(now);
                }
                Timer::Secrets(node) => self.retry_secrets(now, node),
                Timer::Farewell(node) => self.end_farewell(&node),
                Timer::Assignments(node) => {
                    if let Some(session) = self.sessions.get_mut(&node)
                        && let Some(assignments) = &mut session.assignments
                    {
                        assignments.is_due = true;
                        self.ready.insert(node);
                    }
                }
            }
        }
    }

    /// Leadership is gone, or the process stops: every node gets a last message and is told to
    /// find another manager. Every later call is refused.
    pub fn handle_stop(&mut self, view: &Root) {
        self.is_stopped = true;
        self.pulses.stop();
        for (node, mut session) in std::mem::take(&mut self.sessions) {
            if let Some(control) = session.control.take()
                && let Some(stored) = view.node(&node)
            {
                let managers = self.extras.managers_for(control.arrived());
                let body = self.session_message(session.pulse.session(), stored, managers);
                let stream = control.stream;
                self.ends.push_back(Message {
                    node: node.clone(),
                    stream,
                    body,
                });
                self.end_stream(&node, stream, DispatchError::must_disconnect());
            }
            if let Some(assignments) = session.assignments {
                let stream = assignments.stream;
                self.end_stream(&node, stream, DispatchError::must_disconnect());
            }
        }
        while let Some((node, _)) = self.farewells.first_key_value() {
            let node = node.clone();
            self.end_farewell(&node);
        }
        self.timers = Timers::new();
        self.registrations = Timers::new();
        self.wheel = Wheel::default();
        self.ready.clear();
    }

    /// The next message for a node. A stream gets its next one after [`Dispatcher::handle_sent`];
    /// ends of streams come regardless.
    pub fn poll_message(&mut self, view: &Root) -> Option<Message> {
        if let Some(end) = self.ends.pop_front() {
            return Some(end);
        }
        if view.version() < self.version_min {
            return None;
        }
        while let Some(node) = self.ready.pop_first() {
            let Some(message) = self.message_for(&node, view) else {
                continue;
            };
            // The other stream of the node may have one as well.
            self.ready.insert(node);
            return Some(message);
        }
        None
    }

    /// The next batch of writes, at most one at a time. Its result must be handed to
    /// [`Dispatcher::handle_outcome`].
    pub fn poll_transaction(&mut self, view: &Root, now: Timestamp) -> Option<Batch> {
        self.intake.poll(view, now, &self.config)
    }

    /// Takes the result of the batch in flight.
    pub fn handle_outcome(&mut self, now: Timestamp, outcome: &Outcome) {
        self.intake.handle_outcome(now, outcome);
    }

    /// What was given up or cut since somebody asked last.
    pub fn take_notices(&mut self) -> Notices {
        let mut notices = std::mem::take(&mut self.notices);
        notices.oversize = std::mem::take(&mut self.intake.oversize);
        notices
    }

    /// When something is due next, and what.
    pub fn poll_timeout(&self) -> Option<Wake> {
        let flush = self.intake.timeout().map(|at| Wake {
            at,
            why: "batch of status updates",
        });
        let timer = self.timers.next().map(|(at, timer)| Wake {
            at,
            why: timer.why(),
        });
        let registration = self.registrations.next().map(|(at, _)| Wake {
            at,
            why: "a registration is not written",
        });
        let heartbeat = self.wheel.next().map(|at| Wake {
            at,
            why: "a node misses its heartbeats",
        });
        let look = self.look_by().map(|at| Wake {
            at,
            why: "a standstill is to be noticed",
        });
        [flush, timer, registration, heartbeat, look]
            .into_iter()
            .flatten()
            .min_by_key(|wake| wake.at)
    }

    /// How much there is to do.
    pub fn status(&self) -> Status {
        let (nodes_queued, statuses_queued) = self.intake.backlog();
        Status {
            sessions: self.sessions.len(),
            streams: self.streams.len(),
            nodes_queued,
            statuses_queued,
            timers: self.timers.len() + self.registrations.len(),
        }
    }

    /// The current session of a node, to answer "is it connected".
    pub fn session_of(&self, node: &NodeId) -> Option<&SessionId> {
        self.sessions
            .get(node)
            .map(|session| session.pulse.session())
    }

    fn check_running(&self) -> Result<(), DispatchError> {
        if self.is_stopped {
            return Err(DispatchError::stopped());
        }
        Ok(())
    }

    fn check_session(&self, node: &NodeId, session: &str) -> Result<(), DispatchError> {
        self.check_running()?;
        let registered = self.sessions.get(node);
        let registered = registered.ok_or_else(DispatchError::node_not_registered)?;
        if !registered.is_named(session) {
            return Err(DispatchError::session_invalid());
        }
        Ok(())
    }

    fn require(&mut self, version: Version) {
        self.version_min = self.version_min.max(version);
        self.intake.require(version);
    }

    fn is_waiting(&self, node: &NodeId) -> bool {
        self.sessions.get(node).is_some_and(Session::is_waiting)
    }
}

impl Timer {
    fn why(&self) -> &'static str {
        match self {
            Self::Grace(_) => "a node does not come back to the new leader",
            Self::Orphan(_) => "the tasks of a lost node are orphaned",
            Self::Assignments(_) => "changes of assignments are sent",
            Self::Secrets(_) => "a secret driver is asked again",
            Self::Farewell(_) => "the streams of a removed node end",
        }
    }
}
