//! When a node renews its certificate by itself (spec 2.5).
//!
//! Owns the arithmetic. Does not own the clock, the draws or the attempt itself (`swarm-node`).

use std::time::Duration;

use swarm_types::Timestamp;

const MINUTE: Duration = Duration::from_secs(60);
/// The wait after the first failed attempt is drawn from twice this, and the range doubles.
const BACKOFF_BASE: Duration = Duration::from_secs(5);
/// No wait between two attempts is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(3600);
/// After so many failures the range has reached its end.
const BACKOFF_DOUBLINGS_MAX: u32 = 16;

/// A forced renewal waits this long first, so that the manager can change the node's role.
pub const FORCED_RENEWAL_DELAY: Duration = Duration::from_millis(500);
/// The wait after a certificate could not be read.
pub const UNREADABLE_RETRY: Duration = Duration::from_secs(300);

/// When to renew a certificate next: at a whole minute drawn from the range between 50 and 80 % of
/// its life, or at once if that is past. Every node draws for itself, so that nodes which joined
/// together do not renew together.
pub fn due(not_before: Timestamp, not_after: Timestamp, draw: u64) -> Timestamp {
    let life = not_after.saturating_since(not_before);
    let earliest = minutes(life / 2);
    let latest = minutes(life * 4 / 5);
    let range = latest.saturating_sub(earliest);
    let offset = if range == 0 { 0 } else { draw % range };
    not_before.saturating_add(MINUTE.saturating_mul(saturated(earliest + offset)))
}

/// How long to wait after so many failed attempts in a row (from 1): drawn from 0 to 5 s plus
/// 5 s * 2^(n-1), at most one hour.
pub fn backoff(failures: u32, draw: u64) -> Duration {
    let doublings = failures.saturating_sub(1).min(BACKOFF_DOUBLINGS_MAX);
    let range = (BACKOFF_BASE + BACKOFF_BASE * 2u32.pow(doublings)).min(BACKOFF_MAX);
    let nanos = u64::try_from(range.as_nanos()).unwrap_or(u64::MAX);
    Duration::from_nanos(draw % nanos)
}

fn minutes(duration: Duration) -> u64 {
    duration.as_secs() / MINUTE.as_secs()
}

fn saturated(minutes: u64) -> u32 {
    u32::try_from(minutes).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::EPOCH.saturating_add(Duration::from_secs(minutes * 60))
    }

    #[test]
    fn renewals_fall_on_whole_minutes_from_half_to_four_fifths_of_the_life() {
        assert_eq!(due(at(10), at(110), 0), at(60));
        assert_eq!(due(at(10), at(110), 29), at(89));
        assert_eq!(due(at(10), at(110), 30), at(60));
        assert_eq!(due(at(10), at(10), 7), at(10));
        assert_eq!(due(at(10), at(11), 7), at(10));
    }

    #[test]
    fn waits_double_up_to_an_hour() {
        let longest = |failures| {
            let nanos = (BACKOFF_BASE + BACKOFF_BASE * 2u32.pow(failures - 1)).as_nanos();
            backoff(failures, u64::try_from(nanos).unwrap() - 1)
        };
        assert_eq!(backoff(1, 0), Duration::ZERO);
        assert_eq!(
            longest(1),
            Duration::from_secs(10) - Duration::from_nanos(1)
        );
        assert_eq!(
            longest(3),
            Duration::from_secs(25) - Duration::from_nanos(1)
        );
        for draw in [0, 1, u64::MAX] {
            assert!(backoff(u32::MAX, draw) < BACKOFF_MAX);
        }
    }
}
