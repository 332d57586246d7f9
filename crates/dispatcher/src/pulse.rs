//! Heartbeats, answered where they arrive.
//!
//! A heartbeat concerns nobody but its own session, and they are most of what an idle cluster does.
//! So whoever has a [`Pulses`] answers them without asking the dispatcher: each session has one
//! deadline, which a heartbeat moves and the dispatcher looks at when it may have passed. Owns the
//! rule of spec 5.5; refuses to own when the dispatcher looks (`expiry`) and what it does then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use swarm_types::{NodeId, SessionId, Timestamp};

use crate::config::{GRACE_MULTIPLIER, draw_period, draw_phase};
use crate::error::DispatchError;

/// The deadline of a session that is over.
const OVER: i64 = i64::MIN;

/// The heartbeats of one leader's term. Clones share them.
#[derive(Clone, Debug)]
pub struct Pulses {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// What the cluster asks for, in nanoseconds.
    period: AtomicU64,
    is_stopped: AtomicBool,
    /// One for each registered node.
    by_node: RwLock<HashMap<NodeId, Arc<Pulse>>>,
}

/// The heartbeats of one session.
#[derive(Debug)]
pub(crate) struct Pulse {
    session: SessionId,
    /// Until when the node must beat, or [`OVER`].
    deadline: AtomicI64,
    has_beaten: AtomicBool,
}

/// What the dispatcher finds when it looks at a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The deadline has passed, and the session is over.
    Late,
    /// The node has until then.
    Alive(Timestamp),
}

impl Pulses {
    pub(crate) fn new(period: Duration) -> Self {
        let pulses = Self {
            inner: Arc::new(Inner {
                period: AtomicU64::new(0),
                is_stopped: AtomicBool::new(false),
                by_node: RwLock::default(),
            }),
        };
        pulses.set_period(period);
        pulses
    }

    /// A registered node is alive. Returns the time until its next heartbeat.
    ///
    /// # Errors
    /// The node is not registered, or the session is not its current one, or the dispatcher is
    /// stopped.
    pub fn beat(
        &self,
        now: Timestamp,
        node: &NodeId,
        session: &str,
        draw: &mut dyn FnMut() -> u64,
    ) -> Result<Duration, DispatchError> {
        if self.inner.is_stopped.load(Ordering::Acquire) {
            return Err(DispatchError::stopped());
        }
        let pulse = self.read().get(node).cloned();
        let pulse = pulse.ok_or_else(DispatchError::node_not_registered)?;
        if !pulse.is_named(session) {
            return Err(DispatchError::session_invalid());
        }
        let configured = self.period();
        let period = draw_period(configured, draw);
        if !pulse.renew(deadline(now, period)) {
            return Err(DispatchError::node_not_registered());
        }
        if !pulse.has_beaten.swap(true, Ordering::Relaxed) {
            return Ok(draw_phase(configured, draw).min(period));
        }
        Ok(period)
    }

    /// The period that the cluster asks for.
    pub(crate) fn period(&self) -> Duration {
        Duration::from_nanos(self.inner.period.load(Ordering::Acquire))
    }

    pub(crate) fn set_period(&self, period: Duration) {
        let nanos = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
        self.inner.period.store(nanos, Ordering::Release);
    }

    /// Begins a session, in place of the one that the node had.
    pub(crate) fn begin(&self, node: &NodeId, session: SessionId, at: Timestamp) -> Arc<Pulse> {
        let pulse = Arc::new(Pulse {
            session,
            deadline: AtomicI64::new(at.as_nanos()),
            has_beaten: AtomicBool::new(false),
        });
        let before = self.write().insert(node.clone(), Arc::clone(&pulse));
        if let Some(before) = before {
            before.end();
        }
        pulse
    }

    /// Ends the session of a node.
    pub(crate) fn end(&self, node: &NodeId) {
        if let Some(pulse) = self.write().remove(node) {
            pulse.end();
        }
    }

    /// Ends all of them, and refuses every later heartbeat.
    pub(crate) fn stop(&self) {
        self.inner.is_stopped.store(true, Ordering::Release);
        self.write().clear();
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<NodeId, Arc<Pulse>>> {
        let map = self.inner.by_node.read();
        map.unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<NodeId, Arc<Pulse>>> {
        let map = self.inner.by_node.write();
        map.unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until when a node that was told this period must beat.
pub(crate) fn deadline(now: Timestamp, period: Duration) -> Timestamp {
    now.saturating_add(period.saturating_mul(GRACE_MULTIPLIER))
}

impl Pulse {
    /// The session.
    pub(crate) fn session(&self) -> &SessionId {
        &self.session
    }

    /// Whether `text` names this session.
    pub(crate) fn is_named(&self, text: &str) -> bool {
        // Packing a text is cheaper than unpacking an id.
        text.parse::<SessionId>().is_ok_and(|it| it == self.session)
    }

    /// Moves the deadline; not if the session is over.
    pub(crate) fn renew(&self, at: Timestamp) -> bool {
        let moved = self
            .deadline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
                (before != OVER).then_some(at.as_nanos())
            });
        moved.is_ok()
    }

    /// Moves the deadline back to `at` if it is earlier; not if the session is over. Returns the
    /// deadline.
    pub(crate) fn postpone(&self, at: Timestamp) -> Timestamp {
        let at = at.as_nanos();
        let moved = self
            .deadline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |before| {
                (before != OVER && before < at).then_some(at)
            });
        Timestamp::from_nanos(moved.map_or_else(|before| before, |_| at))
    }

    /// Until when the node must beat.
    pub(crate) fn deadline(&self) -> Timestamp {
        Timestamp::from_nanos(self.deadline.load(Ordering::Acquire))
    }

    /// Ends the session if its deadline has passed. A heartbeat at the same moment comes either
    /// before this, and the node lives, or after it, and is refused.
    pub(crate) fn look(&self, now: Timestamp) -> Look {
        let ended = self
            .deadline
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |at| {
                (at <= now.as_nanos()).then_some(OVER)
            });
        ended.map_or_else(|at| Look::Alive(Timestamp::from_nanos(at)), |_| Look::Late)
    }

    fn end(&self) {
        self.deadline.store(OVER, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis)
    }

    fn node() -> NodeId {
        "n".parse().unwrap()
    }

    fn session(name: &str) -> SessionId {
        name.parse().unwrap()
    }

    /// A table with one session, which is to beat until the third second.
    fn table() -> (Pulses, Arc<Pulse>) {
        let pulses = Pulses::new(Duration::from_secs(1));
        let pulse = pulses.begin(&node(), session("s"), at(3_000));
        (pulses, pulse)
    }

    fn beat(pulses: &Pulses, millis: i64, session: &str) -> Result<Duration, DispatchError> {
        // The middle of the range from which periods are drawn.
        pulses.beat(at(millis), &node(), session, &mut || 500_000_000)
    }

    #[test]
    fn a_heartbeat_gives_three_periods_from_its_own_time() {
        let (pulses, pulse) = table();
        assert_eq!(pulse.look(at(2_999)), Look::Alive(at(3_000)));
        // The first answer of a session spreads nodes over the period.
        let half = Duration::from_millis(500);
        assert_eq!(beat(&pulses, 2_000, "s"), Ok(half));
        assert_eq!(beat(&pulses, 2_500, "s"), Ok(Duration::from_secs(1)));
        assert_eq!(pulse.look(at(5_499)), Look::Alive(at(5_500)));
        assert_eq!(pulse.look(at(5_500)), Look::Late);
    }

    #[test]
    fn a_session_that_is_over_stays_over() {
        let (pulses, pulse) = table();
        assert_eq!(pulse.look(at(3_000)), Look::Late);
        // The dispatcher has not taken it off the table yet.
        let refused = beat(&pulses, 3_000, "s").unwrap_err();
        assert_eq!(refused, DispatchError::node_not_registered());
        assert_eq!(pulse.look(at(3_001)), Look::Late);
    }

    #[test]
    fn only_the_current_session_of_a_node_may_beat() {
        let (pulses, first) = table();
        let second = pulses.begin(&node(), session("t"), at(4_000));
        assert_eq!(beat(&pulses, 0, "s"), Err(DispatchError::session_invalid()));
        assert!(!first.renew(at(9_000)), "it is over");
        assert!(beat(&pulses, 0, "t").is_ok());
        assert_eq!(second.look(at(1)), Look::Alive(at(3_000)));
        pulses.end(&node());
        let refused = beat(&pulses, 0, "t").unwrap_err();
        assert_eq!(refused, DispatchError::node_not_registered());
        assert!(pulses.read().is_empty(), "nothing is kept of it");
    }

    #[test]
    fn a_stopped_dispatcher_refuses_before_it_looks() {
        let (pulses, _) = table();
        pulses.stop();
        assert!(pulses.read().is_empty(), "nothing is kept");
        assert_eq!(beat(&pulses, 0, "s"), Err(DispatchError::stopped()));
        assert_eq!(beat(&pulses, 0, "other"), Err(DispatchError::stopped()));
    }

    #[test]
    fn another_period_counts_from_the_next_heartbeat_on() {
        let (pulses, pulse) = table();
        drop(beat(&pulses, 0, "s"));
        pulses.set_period(Duration::from_secs(10));
        assert_eq!(pulse.look(at(0)), Look::Alive(at(3_000)));
        assert_eq!(beat(&pulses, 1_000, "s"), Ok(Duration::from_secs(10)));
        assert_eq!(pulse.look(at(0)), Look::Alive(at(31_000)));
    }

    #[test]
    fn a_node_beats_in_its_own_session_and_by_its_whole_name() {
        let (pulses, _) = table();
        let other: NodeId = "m".parse().unwrap();
        let theirs = pulses.begin(&other, session("of-m"), at(3_000));
        let beat_as = |node: &NodeId, session: &str| {
            let drawn = pulses.beat(at(2_000), node, session, &mut || 500_000_000);
            drawn.map(drop)
        };
        for (node, session) in [
            (&other, "s"),
            (&node(), "of-m"),
            (&other, "of"),
            (&other, ""),
        ] {
            let refused = beat_as(node, session);
            assert_eq!(refused, Err(DispatchError::session_invalid()), "{session}");
        }
        assert_eq!(theirs.look(at(0)), Look::Alive(at(3_000)));
        let stranger: NodeId = "x".parse().unwrap();
        let refused = beat_as(&stranger, "s");
        assert_eq!(refused, Err(DispatchError::node_not_registered()));
        beat_as(&other, "of-m").unwrap();
        assert_eq!(theirs.look(at(0)), Look::Alive(at(5_000)));
    }

    #[test]
    fn each_answer_draws_a_period_of_its_own_and_the_deadline_is_three_of_that() {
        let (pulses, pulse) = table();
        // The phase of the first heartbeat may be longer than what is drawn for the period.
        let mut draws = [0, 900_000_000, 0, 999_999_999].into_iter();
        let mut beat = |millis| {
            let draw = &mut || draws.next().unwrap();
            pulses.beat(at(millis), &node(), "s", draw).unwrap()
        };
        assert_eq!(beat(0), Duration::from_millis(500), "not beyond the period");
        assert_eq!(pulse.look(at(0)), Look::Alive(at(1_500)));
        assert_eq!(beat(1_000), Duration::from_millis(500));
        assert_eq!(pulse.look(at(0)), Look::Alive(at(2_500)));
        assert_eq!(beat(2_000), Duration::from_nanos(1_499_999_999));
        let until = at(2_000).saturating_add(Duration::from_nanos(3 * 1_499_999_999));
        assert_eq!(pulse.look(at(0)), Look::Alive(until));
    }

    /// Two threads, a great many times: of a heartbeat and the loss of its node at the same moment
    /// exactly one happens.
    #[test]
    fn a_heartbeat_and_the_loss_of_its_node_exclude_each_other() {
        const ROUNDS: usize = 30_000;
        let pulse = || Pulse {
            session: session("s"),
            deadline: AtomicI64::new(at(1_000).as_nanos()),
            has_beaten: AtomicBool::new(true),
        };
        let pulses: Vec<Pulse> = (0..ROUNDS).map(|_| pulse()).collect();
        let arrived = AtomicU64::new(0);
        // Both come to each round together.
        let meet = |round: usize| {
            arrived.fetch_add(1, Ordering::AcqRel);
            while arrived.load(Ordering::Acquire) < 2 * (round as u64 + 1) {
                std::hint::spin_loop();
            }
        };
        let each = |act: &(dyn Fn(&Pulse) -> bool + Sync)| -> Vec<bool> {
            let rounds = pulses.iter().enumerate();
            let happened = rounds.map(|(round, pulse)| {
                meet(round);
                act(pulse)
            });
            happened.collect()
        };
        let (beaten, lost) = std::thread::scope(|scope| {
            let beats = scope.spawn(|| each(&|pulse| pulse.renew(at(9_000))));
            let lost = each(&|pulse| pulse.look(at(1_000)) == Look::Late);
            (beats.join().unwrap(), lost)
        });
        let both = beaten
            .iter()
            .zip(&lost)
            .filter(|(beaten, lost)| beaten == lost);
        assert_eq!(both.count(), 0);
    }
}
