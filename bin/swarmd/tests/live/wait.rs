//! Waiting for a condition, with a deadline and the last reason why not.

use std::time::{Duration, Instant};

/// Longest wait for anything but where a test says otherwise; only reached when a test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// Looks again and again until there is an answer; fails with the last reason why not.
pub(crate) async fn until<T>(what: &str, look: impl AsyncFnMut() -> Result<T, String>) -> T {
    until_in(DEADLINE, what, look).await
}

/// The same with a deadline of its own.
pub(crate) async fn until_in<T>(
    deadline: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> T {
    let start = Instant::now();
    loop {
        let reason = match tokio::time::timeout(deadline, look()).await {
            Ok(Ok(found)) => return found,
            Ok(Err(reason)) => reason,
            Err(_) => "the look itself takes too long".to_owned(),
        };
        assert!(start.elapsed() < deadline, "not in time: {what}; {reason}");
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// Fails if the condition ends to hold within a time.
pub(crate) async fn stays(
    period: Duration,
    what: &str,
    mut look: impl AsyncFnMut() -> Result<(), String>,
) {
    let start = Instant::now();
    while start.elapsed() < period {
        if let Err(reason) = look().await {
            panic!("{what}: {reason}");
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}
