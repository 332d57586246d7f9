//! The wall clock, which goes on where the machine's clock jumps back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarm_types::Timestamp;

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
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let wall = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let monotonic = i64::try_from(self.monotonic().as_nanos()).unwrap_or(i64::MAX);
        let ahead = wall.saturating_sub(monotonic);
        let most = self.ahead.fetch_max(ahead, Ordering::AcqRel).max(ahead);
        Timestamp::from_nanos(most.saturating_add(monotonic))
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
