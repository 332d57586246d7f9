//! Virtual time, and the clocks of nodes that differ from it.

use std::fmt;

use swarm_types::Timestamp;

/// Nanoseconds in a millisecond.
pub(crate) const MS: u64 = 1_000_000;
/// Nanoseconds in a second.
pub(crate) const S: u64 = 1_000 * MS;

/// The virtual time at which every clock begins, so that times look like times in a trace.
const EPOCH_NANOS: i64 = 1_700_000_000_000_000_000;

/// True time of the run: nanoseconds since its beginning. No component sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Instant(pub(crate) u64);

impl Instant {
    pub(crate) fn plus(self, nanos: u64) -> Self {
        Self(self.0.saturating_add(nanos))
    }

    /// As a time that a fake executor understands: processes live in true time.
    pub(crate) fn as_timestamp(self) -> Timestamp {
        Timestamp::from_nanos(i64::try_from(self.0).unwrap_or(i64::MAX))
    }

    pub(crate) fn from_timestamp(at: Timestamp) -> Self {
        Self(u64::try_from(at.as_nanos()).unwrap_or(0))
    }
}

impl fmt::Display for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>4}.{:06}", self.0 / S, self.0 % S / 1000)
    }
}

/// The clock of one machine: wrong by an offset and by its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// How far it was ahead at the beginning, in nanoseconds.
    pub(crate) offset: i64,
    /// How much too fast it runs, in parts per million.
    pub(crate) drift_ppm: i64,
}

impl Clock {
    /// What it shows.
    pub(crate) fn read(&self, at: Instant) -> Timestamp {
        let passed = i128::from(at.0);
        let drift = passed * i128::from(self.drift_ppm) / 1_000_000;
        let shown = i128::from(EPOCH_NANOS) + i128::from(self.offset) + passed + drift;
        Timestamp::from_nanos(i64::try_from(shown).unwrap_or(i64::MAX))
    }

    /// The first instant at which it shows `wanted` or later; `now` if it does already.
    pub(crate) fn when(&self, wanted: Timestamp, now: Instant) -> Instant {
        if self.read(now) >= wanted {
            return now;
        }
        // Independent of `now`, so that asking twice gives the same instant.
        let shown =
            i128::from(wanted.as_nanos()) - i128::from(EPOCH_NANOS) - i128::from(self.offset);
        let rate = 1_000_000 + i128::from(self.drift_ppm);
        let nanos = (shown * 1_000_000).div_euclid(rate) + 2;
        Instant(u64::try_from(nanos).unwrap_or(u64::MAX)).max(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_never_fires_before_the_clock_shows_its_time() {
        for drift_ppm in [-50_000, -1, 0, 1, 50_000] {
            let clock = Clock {
                offset: -77,
                drift_ppm,
            };
            for (now, wait) in [(0, 1), (5, 999_999_999), (S * 7 + 3, 5 * S as i64)] {
                let now = Instant(now);
                let wanted = Timestamp::from_nanos(clock.read(now).as_nanos() + wait);
                let at = clock.when(wanted, now);
                assert!(clock.read(at) >= wanted, "{drift_ppm} {now}");
                assert!(at.0 <= now.0 + 2 * wait as u64 + 4, "not much later");
            }
        }
    }
}
