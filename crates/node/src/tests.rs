//! Joining and renewing against a manager that does what the test says.

mod checking;
pub(crate) mod fake;
mod joining;
mod renewing;
mod starting;

use std::time::Duration;

/// Longest wait for anything; only reached when a test fails.
const DEADLINE: Duration = Duration::from_secs(20);

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("nothing happened before the deadline")
}
