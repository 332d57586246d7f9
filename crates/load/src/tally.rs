//! What the agents of one process count together.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::orders::{Counts, REASONS_MAX, Times};

/// Times kept at most between two questions; later ones are left out.
const TIMES_MAX: usize = 1_000_000;
/// How far from the period of the cluster the one told to an agent may be: the manager draws it
/// within half a second (spec 5.1); the rest is for rounding.
const PERIOD_EPSILON: Duration = Duration::from_millis(501);

/// The shared books. Agents of a process run on one thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    counts: RefCell<Counts>,
    times: RefCell<Times>,
    period: Cell<Option<(u64, Duration)>>,
    period_number: Cell<u64>,
}

impl Tally {
    /// The counts as they are.
    pub(crate) fn counts(&self) -> Counts {
        self.0.counts.borrow().clone()
    }

    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut self.0.counts.borrow_mut());
    }

    /// A session or an attempt at one ended.
    pub(crate) fn ended(&self, was_open: bool, reason: &str) {
        self.count(|counts| {
            if was_open {
                counts.sessions -= 1;
                counts.lost += 1;
            } else {
                counts.refused += 1;
            }
            let full = counts.reasons.len() >= REASONS_MAX;
            let known = !full || counts.reasons.contains_key(reason);
            let reason = if known { reason } else { "others" };
            *counts.reasons.entry(reason.to_owned()).or_default() += 1;
        });
    }

    /// An agent got its first session message.
    pub(crate) fn joined(&self, since: Instant) {
        self.count(|counts| {
            counts.sessions += 1;
            counts.opened += 1;
        });
        push(&mut self.0.times.borrow_mut().joins, since.elapsed());
    }

    /// A heartbeat was answered. `seen` is the agent's own mark of the last period it counted for.
    pub(crate) fn heartbeat(&self, took: Duration, told: Duration, seen: &mut u64) {
        self.count(|counts| counts.heartbeats += 1);
        push(&mut self.0.times.borrow_mut().heartbeats, took);
        let Some((number, wanted)) = self.0.period.get() else {
            return;
        };
        if *seen != number && told.abs_diff(wanted) <= PERIOD_EPSILON {
            *seen = number;
            self.count(|counts| counts.at_period += 1);
        }
    }

    /// Counts from now on the agents that are told this period.
    pub(crate) fn watch_period(&self, period: Duration) {
        let number = self.0.period_number.get() + 1;
        self.0.period_number.set(number);
        self.0.period.set(Some((number, period)));
        self.count(|counts| counts.at_period = 0);
    }

    /// Hands over the times.
    pub(crate) fn take_times(&self) -> Times {
        self.0.times.take()
    }
}

fn push(times: &mut Vec<u32>, took: Duration) {
    if times.len() < TIMES_MAX {
        times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_counts_once_for_each_period_that_is_watched() {
        let tally = Tally::default();
        let (took, mut seen) = (Duration::from_millis(1), 0);
        let told = |millis| Duration::from_millis(millis);
        tally.heartbeat(took, told(5_000), &mut seen);
        assert_eq!(tally.counts().at_period, 0, "nobody asked");
        tally.watch_period(told(2_000));
        tally.heartbeat(took, told(5_000), &mut seen);
        assert_eq!(tally.counts().at_period, 0, "still the old one");
        tally.heartbeat(took, told(1_600), &mut seen);
        tally.heartbeat(took, told(2_400), &mut seen);
        assert_eq!(tally.counts().at_period, 1);
        tally.watch_period(told(2_000));
        tally.heartbeat(took, told(2_400), &mut seen);
        assert_eq!(tally.counts().at_period, 1, "counted anew");
        assert_eq!(tally.take_times().heartbeats.len(), 5);
        assert!(tally.take_times().heartbeats.is_empty());
    }
}
