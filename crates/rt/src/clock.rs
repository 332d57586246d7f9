//! The wall clock, which goes on where the machine's clock jumps back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarm_types::Timestamp;

/// From when on a reading of the machine's clock is no time: the year 2200. Timestamps end in 2262,
/// and at their end every deadline is over at once and for ever; so a clock that is so far off is
/// not followed, and time goes on from where it was.
const WALL_END: Duration = Duration::from_secs(7_258_118_400);

/// Reads the time. Clones share the offset that keeps it from going back.
#[derive(Clone, Debug)]
pub struct Clock {
    /// The wall clock less the monotonic one in nanoseconds, at the most that was seen. When the
    /// machine's clock is set back, time goes on at its usual pace from where it was: timers must
    /// not stand still until the machine has caught up.
    ahead: Arc<AtomicI64>,
}

impl Default for Clock {
    fn default() -> Self {
        Self {
            ahead: Arc::new(AtomicI64::new(i64::MIN)),
        }
    }
}

impl Clock {
    /// A clock of its own.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time; never earlier than an answer before.
    pub fn now(&self) -> Timestamp {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        self.at(wall, self.monotonic())
    }

    /// The time at these readings.
    fn at(&self, wall: Duration, monotonic: Duration) -> Timestamp {
        let nanos = |it: Duration| i64::try_from(it.as_nanos()).unwrap_or(i64::MAX);
        let ahead = |wall| nanos(wall).saturating_sub(nanos(monotonic));
        let before = self.ahead.load(Ordering::Acquire);
        let most = if wall < WALL_END {
            let ahead = ahead(wall);
            self.ahead.fetch_max(ahead, Ordering::AcqRel).max(ahead)
        } else if before == i64::MIN {
            // There was no time yet, and some has to be.
            let ahead = ahead(WALL_END);
            self.ahead.fetch_max(ahead, Ordering::AcqRel).max(ahead)
        } else {
            before
        };
        Timestamp::from_nanos(most.saturating_add(nanos(monotonic)))
    }

    /// Waits until `at`; for ever if there is no such time.
    pub async fn sleep_until(&self, at: Option<Timestamp>) {
        match at {
            None => std::future::pending().await,
            Some(at) => tokio::time::sleep(at.saturating_since(self.now())).await,
        }
    }

    /// A monotonic reading, for measuring how long something took.
    pub fn monotonic(&self) -> Duration {
        // Only differences count; the anchor is the first reading of the process.
        static ANCHOR: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        ANCHOR.get_or_init(std::time::Instant::now).elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_is_centuries_ahead_is_not_followed() {
        let second = Duration::from_secs(1);
        let today = Duration::from_secs(1_800_000_000);
        let year = Duration::from_secs(31_557_600);
        let clock = Clock::new();
        let before = clock.at(today, second);
        // As if nothing had happened, during the jump and after it.
        for (passed, wall) in [
            (2, today + 300 * year),
            (3, Duration::MAX),
            (4, today + 3 * second),
        ] {
            let now = clock.at(wall, second * passed);
            assert_eq!(now, before.saturating_add(second * (passed - 1)));
        }
        // A machine whose clock was at its beginning when it started is followed.
        let booted = Clock::new();
        booted.at(Duration::ZERO, second);
        assert_eq!(
            booted.at(today, 2 * second).to_wire().seconds,
            1_800_000_000
        );
        // Who starts so far ahead has time left all the same.
        let lost = Clock::new();
        let first = lost.at(today + 300 * year, second);
        assert_eq!(lost.at(today, 2 * second), first.saturating_add(second));
        assert!(first.saturating_add(10 * year) > first.saturating_add(year));
    }

    #[test]
    fn the_clock_goes_on_when_the_machine_is_set_back() {
        let clock = Clock::new();
        let hour = Duration::from_secs(3600);
        let before = clock.now();
        clock
            .ahead
            .fetch_add(i64::try_from(hour.as_nanos()).unwrap(), Ordering::AcqRel);
        let future = clock.now();
        assert!(future >= before.saturating_add(hour));
        let same = clock.clone();
        let deadline = clock.monotonic() + Duration::from_secs(10);
        while same.now() == future {
            assert!(clock.monotonic() < deadline, "time stands still");
        }
        assert!(clock.now() > future);
    }
}
