//! The wall clock, held back where the machine's clock jumps back.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use swarm_types::Timestamp;

/// Reads the time. Clones share the mark below which it never goes.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    latest: Arc<AtomicI64>,
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
        let nanos = i64::try_from(since.as_nanos()).unwrap_or(i64::MAX);
        let before = self.latest.fetch_max(nanos, Ordering::AcqRel);
        Timestamp::from_nanos(before.max(nanos))
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
    fn the_clock_never_goes_back() {
        let clock = Clock::new();
        let future = clock.now().saturating_add(Duration::from_secs(3600));
        clock.latest.store(future.as_nanos(), Ordering::Release);
        assert_eq!(clock.now(), future);
        let same = clock.clone();
        assert_eq!((clock.now(), same.now()), (future, future));
    }
}
