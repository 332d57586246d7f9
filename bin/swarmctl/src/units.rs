//! Durations, sizes, CPUs and times, as people write and read them.

use std::time::Duration;

use swarm_api::prost_types;
use swarm_types::Timestamp;

const NANOS_PER_CPU: u128 = 1_000_000_000;
/// Units of a duration with their nanoseconds; longer names first, so that `ms` is not `m`.
const DURATION_UNITS: [(&str, u64); 7] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// Letters of binary sizes; each is 1024 times the one before.
const SIZE_LETTERS: &str = "kmgtp";

/// Reads a duration such as `1h30m`, `1.5s` or `0`.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let problem = || format!("{text:?} is not a duration; write it like 500ms, 5s or 1h30m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut nanos: u128 = 0;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .ok_or_else(problem)?;
        let (number, tail) = rest.split_at(digits);
        let end = tail
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        let (_, factor) = DURATION_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .ok_or_else(problem)?;
        nanos += scaled(number, u128::from(*factor)).ok_or_else(problem)?;
        rest = tail;
    }
    // The wire carries an i64 of nanoseconds in SwarmKit's clients: 292 years.
    match i64::try_from(nanos) {
        Ok(nanos) if !text.is_empty() => Ok(Duration::from_nanos(nanos.unsigned_abs())),
        Ok(_) | Err(_) => Err(problem()),
    }
}

/// Reads a size such as `512m`, `1.5GiB` or `1048576`, in bytes; the letters are binary.
///
/// # Errors
/// What is wrong, in words.
pub(crate) fn bytes(text: &str) -> Result<i64, String> {
    let problem = || format!("{text:?} is not a size; write it like 512m or 1.5g");
    let lower = text.to_ascii_lowercase();
    let end = lower
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(lower.len());
    let (number, unit) = lower.split_at(end);
    let unit = unit.trim_start();
    let letter = unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(unit);
    let power = match letter {
        "" if unit != "ib" => 0,
        letter if letter.len() == 1 => SIZE_LETTERS.find(letter).ok_or_else(problem)? + 1,
        _ => return Err(problem()),
    };
    let size = scaled(number, 1u128 << (10 * power)).ok_or_else(problem)?;
    i64::try_from(size).map_err(|_| problem())
}

/// Reads a number of CPUs such as `2`, `0.5` or `1/4`, in billionths.
///
/// # Errors
/// What is wrong, in words; among it more than nine decimals.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, String> {
    let problem =
        || format!("{text:?} is not a number of CPUs with at most 9 decimals; write it like 0.5");
    let exact = |number: &str| {
        let decimals = number.split_once('.').map_or("", |(_, decimals)| decimals);
        if decimals.trim_end_matches('0').len() > 9 {
            return None;
        }
        scaled(number, NANOS_PER_CPU)
    };
    let nanos = match text.split_once('/') {
        None => exact(text).ok_or_else(problem)?,
        Some((top, bottom)) => {
            let top = exact(top).ok_or_else(problem)?;
            let bottom: u128 = bottom.parse().map_err(|_| problem())?;
            if bottom == 0 || top % bottom != 0 {
                return Err(problem());
            }
            top / bottom
        }
    };
    i64::try_from(nanos).map_err(|_| problem())
}

/// A decimal number times a factor, cut to a whole number; `None` if it is no number or too large.
fn scaled(number: &str, factor: u128) -> Option<u128> {
    /// More digits than this overflow with the largest factor.
    const DIGITS_MAX: usize = 18;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() && decimals.is_empty()
        || !is_number(whole)
        || !is_number(decimals)
        || whole.len() > DIGITS_MAX
    {
        return None;
    }
    let decimals = &decimals[..decimals.len().min(DIGITS_MAX)];
    let read = |text: &str| {
        if text.is_empty() {
            Some(0)
        } else {
            text.parse::<u128>().ok()
        }
    };
    let fraction = read(decimals)? * factor / 10u128.pow(u32::try_from(decimals.len()).ok()?);
    read(whole)?.checked_mul(factor)?.checked_add(fraction)
}

/// A duration as in `1 h 5 min` or `1.5 s`, at most two units.
pub(crate) fn show_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    let pair = |big: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{big} {unit}"),
        small => format!("{big} {unit} {small} {small_unit}"),
    };
    match seconds {
        0 if duration.subsec_millis() > 0 => format!("{} ms", duration.subsec_millis()),
        0..60 => format!("{seconds} s"),
        60..3600 => pair(seconds / 60, "min", seconds % 60, "s"),
        3600..86_400 => pair(seconds / 3600, "h", seconds % 3600 / 60, "min"),
        _ => pair(seconds / 86_400, "d", seconds % 86_400 / 3600, "h"),
    }
}

/// A binary size, as in `512 MiB`.
pub(crate) fn show_bytes(bytes: i64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut size = bytes as f64 / 1024.0;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < UNITS.len() {
        size /= 1024.0;
        unit += 1;
    }
    format!("{} {}", rounded(size), UNITS[unit])
}

/// CPUs from billionths.
pub(crate) fn show_cpus(nanos: i64) -> String {
    rounded(nanos as f64 / NANOS_PER_CPU as f64)
}

fn rounded(number: f64) -> String {
    let text = format!("{number:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How long ago a time was, as in `5 seconds ago`.
pub(crate) fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.saturating_since(at).as_secs();
    let (count, unit) = match seconds {
        0 => return "just now".to_owned(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..172_800 => (seconds / 3600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// A time of the wire; `None` if absent or malformed.
pub(crate) fn time(wire: Option<&prost_types::Timestamp>) -> Option<Timestamp> {
    wire.and_then(Timestamp::from_wire)
}

/// A time in UTC, to the second.
pub(crate) fn show_time(at: Timestamp) -> String {
    let mut wire = at.to_wire();
    wire.nanos = 0;
    wire.to_string()
}

/// A time in UTC with its age, or nothing.
pub(crate) fn time_and_age(wire: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    time(wire).map_or_else(String::new, |at| {
        format!("{} ({})", show_time(at), ago(at, now))
    })
}

#[cfg(test)]
mod tests;
