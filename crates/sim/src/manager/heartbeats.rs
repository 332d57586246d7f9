//! Heartbeats, which are answered where they arrive, as in `swarm-manager`; and the checks of who
//! is lost for want of them.
//!
//! The checks count with numbers of their own, because one that borrowed those of the product would
//! follow its mistakes.

use std::collections::BTreeMap;
use std::time::Duration;

use swarm_agent::Reply;
use swarm_dispatcher::{DispatchError, Dispatcher};
use swarm_store::{Root, Write, WriteSet};
use swarm_types::{AnyObject, NodeId, NodeState, Timestamp, time};

use super::term::{admitted, refuse, rpc_error};
use super::{Io, Manager};
use crate::event::{ConnId, Payload};
use crate::invariants::{Checked, HEARD, MISSED, ensure};
use crate::time::Instant;

/// A node is lost after so many of its periods (spec 5.1).
const PERIODS: u32 = 3;
/// One that has not come back to a new leader, after so many (spec 5.3).
const GRACE_PERIODS: u32 = 6;
/// A period is that of the cluster give or take this much (spec 5.1).
const EPSILON: Duration = Duration::from_millis(500);
/// A period of the cluster that does not say one.
const PERIOD: Duration = Duration::from_secs(5);
/// Later than this a lost node is not noticed: turns come late, and deadlines are looked at now
/// and then.
const LATE_MAX: Duration = Duration::from_secs(5);

/// A manager that stands still for so much longer than a period notices that.
const STANDSTILL_NOTICED: Duration = Duration::from_secs(2);

/// From when on a node may be lost, and until when it must be.
#[derive(Clone, Copy, Debug)]
struct Window {
    from: Timestamp,
    until: Timestamp,
    /// It got more time after a standstill of the manager. Not for ever, so the second time is
    /// nothing to rely on.
    has_more: bool,
}

/// What was heard in one term.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    begun: Timestamp,
    has_more: bool,
    nodes: BTreeMap<NodeId, Window>,
    /// The shortest and the longest period that the cluster had in this term.
    periods: (Duration, Duration),
}

impl Heartbeats {
    pub(super) fn begin(now: Timestamp, view: &Root) -> Self {
        let period = period(view);
        Self {
            begun: now,
            has_more: false,
            nodes: BTreeMap::new(),
            periods: (period, period),
        }
    }

    /// The cluster may have another period.
    pub(super) fn note_period(&mut self, view: &Root) {
        let period = period(view);
        let (shortest, longest) = self.periods;
        self.periods = (shortest.min(period), longest.max(period));
    }

    /// A node has registered, with a period that only the manager knows.
    pub(super) fn registered(&mut self, now: Timestamp, node: &NodeId) {
        let window = self.window(now, PERIODS);
        self.nodes.insert(node.clone(), window);
    }

    /// A node has beaten, and was told when to do it again. That is not a whole period if it was
    /// its first time.
    fn beaten(&mut self, now: Timestamp, node: &NodeId, told: Duration) {
        let mut window = self.window(now, PERIODS);
        window.from = window.from.max(now.saturating_add(told * PERIODS));
        self.nodes.insert(node.clone(), window);
    }

    fn window(&self, now: Timestamp, periods: u32) -> Window {
        let (shortest, longest) = self.periods;
        Window {
            from: now.saturating_add(shortest.saturating_sub(EPSILON) * periods),
            until: now.saturating_add((longest + EPSILON) * periods),
            has_more: false,
        }
    }

    /// The manager stood still: every node that could not be lost before has time to be heard.
    pub(super) fn stood_still(&mut self, since: Timestamp, now: Timestamp) {
        for node in self.nodes.values_mut() {
            // Nobody was looked at meanwhile.
            node.until = node.until.max(now);
        }
        let (_, longest) = self.periods;
        if now.saturating_since(since) < longest + EPSILON + STANDSTILL_NOTICED {
            return;
        }
        let window = self.window(now, PERIODS);
        for node in self.nodes.values_mut() {
            if node.from > since && !node.has_more {
                node.from = node.from.max(window.from);
                node.has_more = true;
            }
        }
        let grace = self.window(self.begun, GRACE_PERIODS);
        if grace.from > since && !self.has_more {
            self.begun = now;
            self.has_more = true;
        }
    }

    /// The manager says that it stood still, which may be a turn that came late, and takes nobody
    /// for lost for a while.
    pub(super) fn note_standstill(&mut self, now: Timestamp) {
        let window = self.window(now, PERIODS);
        for node in self.nodes.values_mut() {
            node.until = node.until.max(window.until);
        }
    }

    /// I-DISP-10: what the dispatcher is about to write takes nobody for lost too early.
    pub(super) fn check_lost(&self, now: Timestamp, view: &Root, sets: &[WriteSet]) -> Checked {
        for write in sets.iter().flat_map(|set| &set.0) {
            let Write::Update(AnyObject::Node(node)) = write else {
                continue;
            };
            let before = view.node(&node.id).map(|node| node.status.state);
            let is_lost = node.status.state == NodeState::Down && before != Some(NodeState::Down);
            let window = self.nodes.get(&node.id).copied();
            let window = window.unwrap_or_else(|| self.window(self.begun, GRACE_PERIODS));
            ensure(!is_lost || now >= window.from, HEARD, || {
                let (id, message) = (&node.id, &node.status.message);
                format!("{id} is taken for lost at {now} ({message}): {window:?}")
            })?;
        }
        Ok(())
    }

    /// I-DISP-11: nobody is in session who was silent for too long.
    pub(super) fn check_kept(&self, now: Timestamp, dispatcher: &Dispatcher) -> Checked {
        let is_overdue = |window: &Window| now > window.until.saturating_add(LATE_MAX);
        let kept = self
            .nodes
            .iter()
            .find(|(node, window)| is_overdue(window) && dispatcher.session_of(node).is_some());
        ensure(kept.is_none(), MISSED, || {
            format!("a node is in session at {now}: {kept:?}")
        })
    }
}

/// The period that the cluster asks for.
fn period(view: &Root) -> Duration {
    let dispatcher = view.cluster().and_then(|it| it.spec.dispatcher.as_ref());
    let period = dispatcher.and_then(|it| it.heartbeat_period.as_ref());
    period.and_then(time::duration_from_wire).unwrap_or(PERIOD)
}

impl Manager {
    /// Answers a heartbeat, whatever the leader's task is doing.
    pub(super) fn beat(&mut self, io: &mut Io<'_>, (conn, is_copy): (ConnId, bool), session: &str) {
        let now = self.now(io.agenda);
        let draws = &mut self.draws;
        let Some(process) = &mut self.process else {
            return;
        };
        let Some(term) = &mut process.term else {
            return;
        };
        let view = process.replica.store.view();
        let node = match admitted(io.network.certificate(conn), &view) {
            Ok(node) => node,
            Err(error) => return refuse(io, conn, error),
        };
        let pulses = term.leader.dispatcher().pulses();
        let told = pulses.beat(now, &node, session, &mut || draws.next());
        if let Ok(told) = told {
            term.heartbeats.beaten(now, &node, told);
        }
        if !is_copy {
            let told = told.map_err(|error: DispatchError| rpc_error(&error));
            let payload = Payload::Reply(Reply::Heartbeat(told));
            io.network.send_message(io.agenda, conn, None, payload);
        }
    }

    /// The process goes on after it stood still.
    pub(crate) fn goes_on(&mut self, io: &mut Io<'_>, since: Instant, leads_first: bool) {
        let (since, now) = (self.clock.read(since), self.now(io.agenda));
        let Some(process) = &mut self.process else {
            return;
        };
        // A timer that was to fire meanwhile fires now.
        process.wake = None;
        if let Some(term) = &mut process.term {
            term.heartbeats.stood_still(since, now);
        }
        if leads_first {
            self.turn(io);
        }
        self.plan(io);
    }

    /// The slow check of sessions.
    pub(crate) fn check_sessions(&mut self, at: Instant) -> Checked {
        let now = self.clock.read(at);
        std::mem::replace(&mut self.lost_seen, Ok(()))?;
        let term = self.process.as_mut().and_then(|it| it.term.as_mut());
        term.map_or(Ok(()), |term| {
            term.heartbeats.check_kept(now, term.leader.dispatcher())
        })
    }
}
