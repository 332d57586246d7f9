//! One node's registration in this leader's term, with its streams.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use swarm_types::{Node, NodeId, TaskId, Timestamp};

use crate::assignments::{ASSIGNMENT_BATCH_CHANGES, Assignments};
use crate::clones::Places;
use crate::dispatcher::{PARDONS_MAX, StreamId};
use crate::error::DispatchError;
use crate::expiry::Slot;
use crate::nodes::{NodeIntent, same_for_the_node};
use crate::pulse::Pulse;

/// Registrations in a row, after the first, before a node is refused (spec 5.1).
pub const RATE_LIMIT_COUNT: u32 = 3;
/// Registrations further apart than this do not count as being in a row (spec 5.1).
pub const RATE_LIMIT_PERIOD: Duration = Duration::from_secs(8);
/// How long a registration may wait for its write. Agents give up after the same time.
pub const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Registrations that may wait for their writes at the same time; ten full transactions of the
/// log. When a whole cluster comes back at once the others are told to come again later, and their
/// back-off spreads them out.
pub const REGISTRATIONS_WAITING_MAX: usize = 2_000;

/// A registered node.
#[derive(Debug)]
pub(crate) struct Session {
    /// Its id and its heartbeats.
    pub(crate) pulse: Arc<Pulse>,
    /// Where the wheel has the node.
    pub(crate) slot: Slot,
    registered_at: Timestamp,
    /// Registrations in a row before this one.
    attempts: u32,
    /// Since when, and how often, the node has said something new about itself in this session.
    refreshes: (Timestamp, u32),
    /// Where it and the ones before it came from.
    pub(crate) places: Places,
    /// What the node object must say before the node hears from us.
    pub(crate) wanted: NodeIntent,
    /// Whether it did say so once; from then on changes of the node object are just news.
    is_confirmed: bool,
    pub(crate) control: Option<Control>,
    pub(crate) assignments: Option<AssignmentStream>,
    /// Tasks that the last stream of assignments did not send to its end.
    held: BTreeSet<TaskId>,
    /// The deadline that the last pardon set, and how many there were without a heartbeat between.
    pardoned: (Option<Timestamp>, u32),
}

/// The stream of session messages.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) stream: StreamId,
    is_under_way: bool,
    is_due: bool,
    sent: Option<Arc<Node>>,
    /// Where the node dialled this manager.
    arrived: Box<str>,
}

/// The stream of assignments.
#[derive(Debug)]
pub(crate) struct AssignmentStream {
    pub(crate) stream: StreamId,
    pub(crate) state: Assignments,
    is_under_way: bool,
    pub(crate) is_due: bool,
}

impl Session {
    /// Registers a node. `attempts` are the registrations in a row before this one.
    pub(crate) fn register(
        now: Timestamp,
        (pulse, slot): (Arc<Pulse>, Slot),
        attempts: u32,
        places: Places,
        wanted: NodeIntent,
    ) -> Self {
        Self {
            pulse,
            slot,
            registered_at: now,
            attempts,
            refreshes: (now, 0),
            places,
            wanted,
            is_confirmed: false,
            control: None,
            assignments: None,
            held: BTreeSet::new(),
            pardoned: (None, 0),
        }
    }

    /// Takes over from the session before it, whose streams have ended.
    pub(crate) fn succeed(&mut self, before: Self) {
        self.held = before.held;
    }

    /// Begins a stream of assignments; returns the one that it replaces.
    pub(crate) fn begin_assignments(&mut self, stream: StreamId) -> Option<StreamId> {
        let before = self.end_assignments();
        let held = std::mem::take(&mut self.held);
        self.assignments = Some(AssignmentStream::new(stream, held));
        before
    }

    /// Ends the stream of assignments, and remembers what the node never got.
    pub(crate) fn end_assignments(&mut self) -> Option<StreamId> {
        let ended = self.assignments.take()?;
        self.held = ended.state.into_held();
        Some(ended.stream)
    }

    /// Gives the node time until then, because nobody listened to it. False when it was silent in
    /// so many such times that it gets no more.
    pub(crate) fn pardon(&mut self, until: Timestamp) -> bool {
        let (deadline, count) = self.pardoned;
        let is_same_silence = deadline == Some(self.pulse.deadline());
        let count = if is_same_silence { count } else { 0 };
        if count >= PARDONS_MAX {
            return false;
        }
        self.pardoned = (Some(self.pulse.postpone(until)), count + 1);
        true
    }

    /// Counts another registration of the node.
    ///
    /// # Errors
    /// When the node registers too often.
    pub(crate) fn count_attempt(
        &mut self,
        now: Timestamp,
        node: &NodeId,
    ) -> Result<u32, DispatchError> {
        if now.saturating_since(self.registered_at) > RATE_LIMIT_PERIOD {
            self.attempts = 0;
        }
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts > RATE_LIMIT_COUNT {
            return Err(DispatchError::rate_limited(node));
        }
        Ok(self.attempts)
    }

    /// Counts another description within the session. One that says nothing new costs no write.
    ///
    /// # Errors
    /// When the node says something new too often.
    pub(crate) fn count_refresh(
        &mut self,
        now: Timestamp,
        node: &NodeId,
        wanted: &NodeIntent,
    ) -> Result<(), DispatchError> {
        if self.wanted == *wanted {
            return Ok(());
        }
        let (since, count) = &mut self.refreshes;
        if now.saturating_since(*since) > RATE_LIMIT_PERIOD {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count > RATE_LIMIT_COUNT {
            return Err(DispatchError::rate_limited(node));
        }
        Ok(())
    }

    /// Whether `text` names this session.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        self.pulse.is_named(text)
    }

    /// Whether the store says what the registration asked for.
    pub(crate) fn confirm(&mut self, node: Option<&Arc<Node>>) -> bool {
        self.is_confirmed |= node.is_some_and(|node| self.wanted.is_fulfilled(node));
        self.is_confirmed
    }

    /// The node said something new about itself.
    pub(crate) fn refresh(&mut self, wanted: NodeIntent) {
        self.wanted = wanted;
        self.is_confirmed = false;
    }

    /// Whether the node still waits for its first message.
    pub(crate) fn is_waiting(&self) -> bool {
        self.control.as_ref().is_some_and(|control| {
            // The first message is what shows the node that it is registered.
            control.sent.is_none()
        })
    }
}

impl Control {
    pub(crate) fn new(stream: StreamId, arrived: &str) -> Self {
        Self {
            stream,
            is_under_way: false,
            is_due: true,
            sent: None,
            arrived: arrived.into(),
        }
    }

    /// Where the node dialled this manager; empty if nobody knows.
    pub(crate) fn arrived(&self) -> &str {
        &self.arrived
    }

    /// The node object was written; whether that is news for the node.
    pub(crate) fn handle_node(&mut self, node: &Arc<Node>) -> bool {
        match &self.sent {
            Some(sent) if same_for_the_node(sent, node) => self.sent = Some(Arc::clone(node)),
            Some(_) | None => self.is_due = true,
        }
        self.is_due
    }

    pub(crate) fn mark_due(&mut self) {
        self.is_due = true;
    }

    pub(crate) fn can_send(&self) -> bool {
        self.is_due && !self.is_under_way
    }

    pub(crate) fn sent(&mut self, node: Arc<Node>) {
        self.sent = Some(node);
        self.is_due = false;
        self.is_under_way = true;
    }

    pub(crate) fn handle_sent(&mut self) {
        self.is_under_way = false;
    }
}

impl AssignmentStream {
    pub(crate) fn new(stream: StreamId, held: BTreeSet<TaskId>) -> Self {
        Self {
            stream,
            state: Assignments::after(held),
            is_under_way: false,
            is_due: true,
        }
    }

    /// The node was removed: everything that it was sent is taken back.
    pub(crate) fn take_all_back(&mut self) {
        self.state.take_all_back();
        self.is_due = true;
    }

    /// Whether the message has waited long enough, or would be long enough.
    pub(crate) fn can_send(&self) -> bool {
        !self.is_under_way && (self.is_due || self.state.backlog() >= ASSIGNMENT_BATCH_CHANGES)
    }

    /// A message was taken; what is left follows at once.
    pub(crate) fn sent(&mut self) {
        self.is_under_way = true;
        self.is_due = self.state.backlog() > 0;
    }

    pub(crate) fn handle_sent(&mut self) {
        self.is_under_way = false;
    }
}
