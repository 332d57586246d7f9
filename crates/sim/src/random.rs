//! Randomness of a run: one stream for each purpose, all from the one seed.
//!
//! Streams are apart so that a draw more in one place does not shift every other place: a shorter
//! run of the same seed stays a prefix of the longer one.

use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use swarm_types::{Id, IdSource};

/// Purposes with a stream of their own; the number is part of the trace's identity.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The settings of the run.
    Settings = 1,
    /// Latency, loss, duplication.
    Network = 2,
    /// Ids that the manager hands out.
    Ids = 3,
    /// Back-off and heartbeat periods.
    Draws = 4,
    /// What fake tasks do.
    Executor = 5,
    /// When which fault strikes.
    Faults = 6,
    /// What the user does.
    User = 7,
    /// How long the manager and its disk take.
    Manager = 8,
    /// Salts of the log's records.
    Salts = 9,
    /// Which secrets and configs there are, and who refers to them.
    Payloads = 10,
    /// Who reads logs.
    Reader = 11,
    /// When the manager stands still.
    Standstills = 12,
    /// What is too large.
    Oversize = 13,
    /// When the disk of a worker is full.
    WorkerDisks = 14,
    /// What befalls copies of the log.
    Damage = 15,
}

/// A stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Random(ChaCha8Rng);

impl Random {
    /// The stream of a purpose in the run with this seed.
    pub(crate) fn new(seed: u64, purpose: Purpose) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        rng.set_stream(purpose as u64);
        Self(rng)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// Below `bound`, which must not be 0. The bias is far below what any run could show.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// From `low` to `high`, both included.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True in so many of a thousand cases. A chance of 0 draws nothing.
    pub(crate) fn happens(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.below(1000) < u64::from(per_mille)
    }

    /// One of them.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> Option<&'a T> {
        if choices.is_empty() {
            return None;
        }
        choices.get(usize::try_from(self.below(choices.len() as u64)).unwrap_or(0))
    }

    /// A whole number of microseconds in this range, in nanoseconds.
    pub(crate) fn span(&mut self, low: Duration, high: Duration) -> u64 {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.between(micros(low), micros(high)) * 1000
    }
}

impl IdSource for Random {
    fn next_id(&mut self) -> Id {
        let mut bytes = [0; 17];
        self.0.fill_bytes(&mut bytes);
        Id::from_random(bytes)
    }
}
