//! The flags of `logs`, and what they mean on the wire.

use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use swarm_api::{prost_types, v1};
use swarm_types::Timestamp;

use crate::cli::Format;
use crate::failure::Failure;
use crate::units;

/// Flags of `service logs` and `task logs`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LogFlags {
    /// Ids, names, or beginnings of ids that no other has.
    #[arg(required = true, value_name = "OBJECT",
          value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) objects: Vec<String>,
    /// Wait for more, until Ctrl-C.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only the last so many lines of each task, or `all`.
    #[arg(long, default_value = "all", value_parser = tail, value_name = "LINES")]
    pub(crate) tail: Tail,
    /// Only lines since then: a duration such as 10m, a time such as 2026-01-02T15:04:05Z, or
    /// seconds since 1970.
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Only lines of this output; repeat it for both.
    #[arg(long, value_enum, value_name = "OUTPUT")]
    pub(crate) stream: Vec<Output>,
    /// Print when each line was written.
    #[arg(short, long)]
    pub(crate) timestamps: bool,
    /// Print the lines alone, without service, slot and node.
    #[arg(long)]
    pub(crate) raw: bool,
    /// Print what the log driver adds to a line.
    #[arg(long)]
    pub(crate) details: bool,
    /// How to print; `json` is one document for each line.
    #[arg(long, value_enum, default_value = "table")]
    pub(crate) format: Format,
}

/// How many lines of each task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    All,
    Last(u32),
}

/// An output of a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

fn tail(text: &str) -> Result<Tail, String> {
    match text {
        "all" => Ok(Tail::All),
        number => number
            .parse()
            .map(Tail::Last)
            .map_err(|_| "write a number of lines, or all".to_owned()),
    }
}

impl LogFlags {
    /// The options of the subscription.
    ///
    /// # Errors
    /// When `--since` is no time.
    pub(crate) fn options(&self, now: Timestamp) -> Result<v1::LogSubscriptionOptions, Failure> {
        let since = self.since.as_deref().map(|text| since(text, now));
        let streams = self.stream.iter().map(|output| match output {
            Output::Stdout => v1::LogStream::Stdout as i32,
            Output::Stderr => v1::LogStream::Stderr as i32,
        });
        Ok(v1::LogSubscriptionOptions {
            streams: streams.collect(),
            follow: self.follow,
            // Spec 7.2: 0 is all, and a negative number the last -n-1 lines.
            tail: match self.tail {
                Tail::All => 0,
                Tail::Last(count) => -i64::from(count) - 1,
            },
            since: since.transpose().map_err(Failure::usage)?,
        })
    }
}

fn since(text: &str, now: Timestamp) -> Result<prost_types::Timestamp, String> {
    if let Ok(ago) = units::duration(text) {
        return Ok(now.saturating_sub(ago).to_wire());
    }
    if let Some(at) = seconds(text) {
        return Ok(at.to_wire());
    }
    let at = prost_types::Timestamp::from_str(text).ok();
    let at = at.filter(|at| text.contains('T') && Timestamp::from_wire(at).is_some());
    at.ok_or_else(|| {
        format!(
            "--since {text:?} is no time; write it like 10m, 2026-01-02T15:04:05Z or 1767366245"
        )
    })
}

/// Seconds since 1970, perhaps with decimals.
fn seconds(text: &str) -> Option<Timestamp> {
    let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if !is_number(whole) || !is_number(decimals) || decimals.len() > 9 {
        return None;
    }
    let nanos: u64 = format!("{decimals:0<9}").parse().ok()?;
    let since = Duration::from_secs(whole.parse().ok()?) + Duration::from_nanos(nanos);
    Some(Timestamp::EPOCH.saturating_add(since))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tails_count_from_the_end() {
        assert_eq!(tail("all"), Ok(Tail::All));
        assert_eq!(tail("0"), Ok(Tail::Last(0)));
        assert_eq!(tail("12"), Ok(Tail::Last(12)));
        for bad in ["", "-1", "1.5", "ALL", "99999999999"] {
            assert!(tail(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn since_is_a_duration_a_time_or_seconds() {
        let now = Timestamp::from_millis(1_000_000);
        let at = |text: &str| since(text, now).map(|at| Timestamp::from_wire(&at).unwrap());
        let millis = Timestamp::from_millis;
        assert_eq!(at("10s"), Ok(millis(990_000)));
        assert_eq!(at("1m30s"), Ok(millis(910_000)));
        assert_eq!(at("1970-01-01T00:00:07.5Z"), Ok(millis(7_500)));
        assert_eq!(at("1970-01-01T01:00:07+01:00"), Ok(millis(7_000)));
        assert_eq!(at("900"), Ok(millis(900_000)));
        assert_eq!(at("900.25"), Ok(millis(900_250)));
        for bad in ["", "soon", "1970-13-01T00:00:00Z", "1.", ".5", "5 s", "-5s"] {
            assert!(at(bad).unwrap_err().contains("is no time"), "{bad}");
        }
    }
}
