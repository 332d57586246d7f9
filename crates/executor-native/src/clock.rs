//! The one place of this crate that reads clocks: the shim runs below any runtime, so nobody can
//! hand it the time.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is the outermost shell of its process"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Blocks this thread. For the shim, which has no other.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is the outermost shell of its process"
)]
pub(crate) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

/// Nanoseconds since 1970; zero before.
#[expect(
    clippy::disallowed_methods,
    reason = "the shim is the outermost shell of its process"
)]
pub(crate) fn wall_nanos() -> u64 {
    let passed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX)
}
