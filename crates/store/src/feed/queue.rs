//! The queue of one filtered subscriber.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

use swarm_types::Version;

use super::{Event, Rest};

#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<Event>,
    weight: usize,
    limit: usize,
    delivered: Version,
    lagged: bool,
    closed: bool,
    waker: Option<Waker>,
}

impl Queue {
    /// An empty queue for the events after `start`.
    pub(super) fn new(start: Version, limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                limit,
                delivered: start,
                ..State::default()
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is valid between any two statements, so a panic elsewhere cannot break it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands an event over; `false` when the subscriber was cut off, now or before.
    pub(super) fn push(&self, event: Event) -> bool {
        let (waker, kept) = {
            let mut state = self.lock();
            if state.closed || state.lagged {
                return false;
            }
            if state.weight + event.weight() > state.limit && !state.events.is_empty() {
                // What waits is dropped whole: a gap in the middle would be worse than a restart.
                state.events = VecDeque::new();
                state.weight = 0;
                state.lagged = true;
            } else {
                state.weight += event.weight();
                state.events.push_back(event);
            }
            (state.waker.take(), !state.lagged)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        kept
    }

    /// Nothing follows what waits.
    pub(super) fn close(&self) {
        let waker = {
            let mut state = self.lock();
            state.closed = true;
            state.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The subscriber's side. Dropping it tells the hub.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) queue: Arc<Queue>,
    pub(super) id: u64,
    pub(super) gone: Arc<Mutex<Vec<u64>>>,
}

impl Reader {
    /// Takes all that waits in one go.
    pub(super) fn refill(&mut self, local: &mut VecDeque<Event>) -> Rest {
        let mut state = self.queue.lock();
        if let Some(last) = state.events.back() {
            state.delivered = last.version();
            state.weight = 0;
            std::mem::swap(local, &mut state.events);
        }
        if state.lagged {
            Rest::Lagged(state.delivered)
        } else if state.closed {
            Rest::Closed
        } else {
            Rest::Waiting
        }
    }

    /// Leaves a waker; `false` when there is something to read instead.
    pub(super) fn park(&mut self, waker: &Waker) -> bool {
        let mut state = self.queue.lock();
        if !state.events.is_empty() || state.lagged || state.closed {
            return false;
        }
        state.waker = Some(waker.clone());
        true
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        gone.push(self.id);
    }
}
