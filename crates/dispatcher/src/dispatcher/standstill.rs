//! What it means for nodes that this manager stood still: a process that was stopped, a machine
//! that had no time for it, a clock that jumped.
//!
//! Nobody answered heartbeats in that time, and those that came wait unread. A node must not be
//! taken for lost because of that, so it gets time to be heard again. Owns how a standstill is told
//! from a sleep: the dispatcher asks to be called at least once in a period, and was not.

use std::time::Duration;

use swarm_types::Timestamp;

use super::{Dispatcher, Timer};
use crate::config::{UNKNOWN_GRACE_MULTIPLIER, period_max};
use crate::pulse::deadline;
use crate::sessions::REGISTRATION_TIMEOUT;

/// Whoever is called so much later than it asked to be stood still.
pub const STANDSTILL_MIN: Duration = Duration::from_secs(1);
/// How often a silent node gets more time. On a manager that always stands still a node that is
/// gone would never be noticed otherwise.
pub const PARDONS_MAX: u32 = 3;

/// When the dispatcher was called, and what came of it.
#[derive(Debug)]
pub(super) struct Looks {
    last: Timestamp,
    /// How often nodes of the term before got more time.
    pardons: u32,
    /// A standstill that nobody was told of.
    news: Option<Duration>,
}

impl Looks {
    pub(super) fn new(now: Timestamp) -> Self {
        Self {
            last: now,
            pardons: 0,
            news: None,
        }
    }
}

impl Dispatcher {
    /// How long this manager stood still, if it did since this was asked last.
    pub fn poll_standstill(&mut self) -> Option<Duration> {
        self.looks.news.take()
    }

    /// When to call at the latest, so that a standstill is noticed.
    pub(super) fn look_by(&self) -> Option<Timestamp> {
        let is_anybody_watched = !self.sessions.is_empty() || !self.awaited.is_empty();
        let by = || self.looks.last.saturating_add(self.pulses.period());
        (is_anybody_watched && !self.is_stopped).then(by)
    }

    /// The dispatcher is called. If it should have been long ago, nodes get more time.
    pub(super) fn notice_standstill(&mut self, now: Timestamp) {
        let due = [
            self.look_by(),
            self.wheel.next(),
            self.registrations.next().map(|(at, _)| at),
            self.timers.next().map(|(at, _)| at),
        ];
        // A timer may have been set for a time that was over already.
        let due = due.into_iter().flatten().min().unwrap_or(now);
        let late = now.saturating_since(due.max(self.looks.last));
        self.looks.last = now;
        if late >= STANDSTILL_MIN {
            self.looks.news = Some(late);
            self.pardon(now);
        }
    }

    /// Gives nodes as much time as if they had just been heard. Costs as much as there are nodes.
    fn pardon(&mut self, now: Timestamp) {
        let period = period_max(self.pulses.period());
        let until = deadline(now, period);
        let registration = now.saturating_add(REGISTRATION_TIMEOUT);
        for (node, session) in &mut self.sessions {
            if session.pardon(until) && self.registrations.get(node).is_some() {
                self.registrations.set(node.clone(), registration);
            }
        }
        if self.looks.pardons >= PARDONS_MAX {
            return;
        }
        self.looks.pardons += 1;
        let grace = now.saturating_add(period.saturating_mul(UNKNOWN_GRACE_MULTIPLIER));
        for node in &self.awaited {
            let timer = Timer::Grace(node.clone());
            if self.timers.get(&timer).is_some() {
                self.timers.set(timer, grace);
            }
        }
    }
}
