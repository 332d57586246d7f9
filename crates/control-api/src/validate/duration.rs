//! Durations as Go reads them: signed, below about 292 years, with seconds and nanoseconds of one
//! sign.

use swarm_api::prost_types;

use crate::refusal::{Refusal, rules};

/// Seconds in a wire duration at most; the limit of the protobuf type.
const SECONDS_MAX: i64 = 315_576_000_000;
const NANOS_PER_SECOND: i64 = 1_000_000_000;

rules! {
    /// SwarmKit lets this error escape without a code, so its code is Unknown.
    UNDECODABLE: Unknown,
        "{}.{}: {} seconds and {} nanoseconds are not a duration; use one sign, and less than 292 \
         years";
}

/// Nanoseconds; `None` for a message that is not a duration.
pub(crate) fn nanos(wire: &prost_types::Duration) -> Option<i64> {
    let nanos = i64::from(wire.nanos);
    let is_mixed = (wire.seconds < 0 && nanos > 0) || (wire.seconds > 0 && nanos < 0);
    if wire.seconds.abs_diff(0) > SECONDS_MAX.abs_diff(0)
        || nanos.abs() >= NANOS_PER_SECOND
        || is_mixed
    {
        return None;
    }
    wire.seconds
        .checked_mul(NANOS_PER_SECOND)?
        .checked_add(nanos)
}

/// Nanoseconds of a field that may be absent.
pub(super) fn checked(
    of: &str,
    field: &str,
    wire: Option<&prost_types::Duration>,
) -> Result<Option<i64>, Refusal> {
    let Some(wire) = wire else {
        return Ok(None);
    };
    match nanos(wire) {
        Some(nanos) => Ok(Some(nanos)),
        None => Err(UNDECODABLE.refuse(&[&of, &field, &wire.seconds, &wire.nanos])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(seconds: i64, nanos: i32) -> Option<i64> {
        super::nanos(&prost_types::Duration { seconds, nanos })
    }

    #[test]
    fn seconds_and_nanoseconds_must_agree_and_fit() {
        assert_eq!(read(1, 5), Some(1_000_000_005));
        assert_eq!(read(-1, -5), Some(-1_000_000_005));
        assert_eq!(read(0, -5), Some(-5));
        assert_eq!(read(1, -1), None);
        assert_eq!(read(-1, 1), None);
        assert_eq!(read(0, 999_999_999), Some(999_999_999));
        assert_eq!(read(0, 1_000_000_000), None);
        assert_eq!(read(0, i32::MIN), None);
        assert_eq!(read(9_223_372_036, 854_775_807), Some(i64::MAX));
        assert_eq!(read(9_223_372_036, 854_775_808), None);
        assert_eq!(read(i64::MIN, 0), None);
    }
}
