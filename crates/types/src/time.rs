//! Wall time as a value: nanoseconds since the Unix epoch.
//!
//! Nothing here reads a clock; "now" is an argument everywhere below the shells.

use std::fmt;
use std::time::Duration;

use swarm_api::prost_types;

/// The header of a session's answer with the manager's time: nanoseconds since 1970.
pub const MANAGER_TIME_HEADER: &str = "swarmkit-rs-time";

const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// Nanoseconds since 1970-01-01T00:00:00Z; covers the years 1678 to 2262.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The Unix epoch.
    pub const EPOCH: Self = Self(0);

    /// From nanoseconds since the epoch.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// From milliseconds since the epoch, saturating.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Time passed since `earlier`; zero if `earlier` lies in the future.
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let nanos = self.0.saturating_sub(earlier.0);
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(0))
    }

    /// This time plus `duration`, saturating at the end of the range.
    pub fn saturating_add(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// This time minus `duration`, saturating at the start of the range.
    pub fn saturating_sub(self, duration: Duration) -> Self {
        let nanos = i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// To the wire message.
    pub fn to_wire(self) -> prost_types::Timestamp {
        prost_types::Timestamp {
            seconds: self.0.div_euclid(NANOS_PER_SECOND),
            nanos: i32::try_from(self.0.rem_euclid(NANOS_PER_SECOND))
                .expect("a remainder below a billion fits an i32"),
        }
    }

    /// From the wire message; `None` when it is malformed or outside the range of this type.
    pub fn from_wire(wire: &prost_types::Timestamp) -> Option<Self> {
        if !(0..NANOS_PER_SECOND).contains(&i64::from(wire.nanos)) {
            return None;
        }
        let nanos = wire.seconds.checked_mul(NANOS_PER_SECOND)?;
        nanos.checked_add(i64::from(wire.nanos)).map(Self)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.to_wire())
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // prost-types prints RFC 3339.
        write!(f, "{}", self.to_wire())
    }
}

/// Reads a wire duration that must not be negative; `None` when malformed or negative.
pub fn duration_from_wire(wire: &prost_types::Duration) -> Option<Duration> {
    Duration::try_from(*wire).ok()
}

/// To the wire message, saturating far beyond any real value.
pub fn duration_to_wire(duration: Duration) -> prost_types::Duration {
    prost_types::Duration {
        seconds: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(duration.subsec_nanos()).expect("below a billion"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wire_times_round_trip_before_and_after_the_epoch() {
        for nanos in [0, 1, -1, 1_700_000_000_123_456_789, i64::MIN, i64::MAX] {
            let time = Timestamp::from_nanos(nanos);
            let wire = time.to_wire();
            // The most negative value has seconds whose product leaves the range; all others hold.
            if nanos != i64::MIN {
                assert_eq!(Timestamp::from_wire(&wire), Some(time), "{nanos}");
            }
        }
    }

    #[test]
    fn malformed_wire_times_are_refused() {
        let wire = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(Timestamp::from_wire(&wire(0, -1)), None);
        assert_eq!(Timestamp::from_wire(&wire(0, 1_000_000_000)), None);
        assert!(Timestamp::from_wire(&wire(0, 999_999_999)).is_some());
        assert_eq!(Timestamp::from_wire(&wire(i64::MAX, 0)), None);
    }

    #[test]
    fn arithmetic_saturates() {
        let now = Timestamp::from_millis(5);
        assert_eq!(
            now.saturating_since(Timestamp::from_millis(6)),
            Duration::ZERO
        );
        assert_eq!(
            now.saturating_since(Timestamp::from_millis(3)),
            Duration::from_millis(2)
        );
        assert_eq!(now.saturating_add(Duration::MAX).as_nanos(), i64::MAX);
    }
}
