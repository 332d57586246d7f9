//! Until when a caller waits, as it says itself (`grpc-timeout`).

use std::time::Duration;

use http::HeaderMap;
use tokio::time::{Instant, timeout_at};
use tonic::Status;

const HEADER: &str = "grpc-timeout";
/// Digits of the number at most.
const DIGITS_MAX: usize = 8;

/// A header that says no time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Until when the caller of a call that has just come waits; `None` is for ever.
///
/// # Errors
/// [`Malformed`].
pub(super) fn read(headers: &HeaderMap) -> Result<Option<Instant>, Malformed> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let time = value.to_str().ok().and_then(parse).ok_or(Malformed)?;
    Ok(Instant::now().checked_add(time))
}

/// Who has waited long enough.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// The caller.
    Caller,
    /// This manager.
    Manager,
}

/// Waits for an answer: the caller until then, and this manager for so long.
///
/// # Errors
/// [`Over`] when one of them waits no longer.
pub(super) async fn wait<T>(
    answer: impl Future<Output = T>,
    caller: Option<Instant>,
    manager: Option<Duration>,
) -> Result<T, Over> {
    let manager = manager.map(|time| Instant::now() + time);
    let Some(until) = caller.into_iter().chain(manager).min() else {
        return Ok(answer.await);
    };
    let answer = timeout_at(until, answer).await;
    answer.map_err(|_| match caller {
        Some(caller) if caller <= until => Over::Caller,
        Some(_) | None => Over::Manager,
    })
}

/// What a caller is told that waits no longer.
pub(super) fn over() -> Status {
    Status::deadline_exceeded("the time that the caller gave the call is over")
}

fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let number = text.strip_suffix(unit)?;
    // A sign would pass for a digit.
    let are_digits = number.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = number.parse().ok()?;
    if !are_digits || text.len() > DIGITS_MAX + 1 {
        return None;
    }
    Some(match unit {
        'H' => Duration::from_secs(number * 3600),
        'M' => Duration::from_secs(number * 60),
        'S' => Duration::from_secs(number),
        'm' => Duration::from_millis(number),
        'u' => Duration::from_micros(number),
        'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_has_less_time_ends_the_wait() {
        let second = Duration::from_secs(1);
        let caller = |time: Duration| Some(Instant::now() + time);
        let begun = Instant::now();
        let over = wait(pending::<()>(), caller(second), Some(2 * second)).await;
        assert_eq!((over, begun.elapsed()), (Err(Over::Caller), second));
        let over = wait(pending::<()>(), caller(second), None).await;
        assert_eq!((over, begun.elapsed()), (Err(Over::Caller), 2 * second));
        let over = wait(pending::<()>(), caller(2 * second), Some(second)).await;
        assert_eq!((over, begun.elapsed()), (Err(Over::Manager), 3 * second));
        let over = wait(pending::<()>(), None, Some(second)).await;
        assert_eq!((over, begun.elapsed()), (Err(Over::Manager), 4 * second));
        for manager in [None, Some(second)] {
            assert_eq!(wait(ready(7), None, manager).await, Ok(7));
            assert_eq!(wait(ready(7), caller(second), manager).await, Ok(7));
        }
    }

    #[test]
    fn times_have_a_number_of_eight_digits_and_a_unit() {
        for (text, expected) in [
            ("2H", Duration::from_secs(7200)),
            ("3M", Duration::from_secs(180)),
            ("0S", Duration::ZERO),
            ("15m", Duration::from_millis(15)),
            ("99999999u", Duration::from_micros(99_999_999)),
            ("7n", Duration::from_nanos(7)),
            ("99999999H", Duration::from_secs(99_999_999 * 3600)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "S",
            "1",
            "1s",
            "-1S",
            "+1S",
            " 1S",
            "1.5S",
            "123456789S",
            "1µ",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
