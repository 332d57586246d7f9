//! What is to come: a queue by time, and by the order of entry where times are equal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use crate::event::Event;
use crate::time::Instant;

/// Events at one instant beyond which the run counts as stuck: somebody works without waiting.
const EVENTS_AT_ONE_INSTANT_MAX: u32 = 20_000;

/// The queue of events.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    now: Instant,
    sequence: u64,
    order: BinaryHeap<Reverse<(Instant, u64)>>,
    events: BTreeMap<u64, Event>,
    at_this_instant: u32,
}

impl Agenda {
    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    /// Plans an event so many nanoseconds from now.
    pub(crate) fn after(&mut self, nanos: u64, event: Event) {
        self.at(self.now.plus(nanos), event);
    }

    /// Plans an event; one in the past happens now.
    pub(crate) fn at(&mut self, at: Instant, event: Event) {
        self.sequence += 1;
        self.order.push(Reverse((at.max(self.now), self.sequence)));
        self.events.insert(self.sequence, event);
    }

    /// The next event; time goes forward to it.
    pub(crate) fn pop(&mut self) -> Option<Event> {
        let Reverse((at, sequence)) = self.order.pop()?;
        if at > self.now {
            self.at_this_instant = 0;
        }
        self.at_this_instant += 1;
        self.now = at;
        self.events.remove(&sequence)
    }

    /// Whether time does not go forward any more.
    pub(crate) fn is_stuck(&self) -> bool {
        self.at_this_instant > EVENTS_AT_ONE_INSTANT_MAX
    }
}
