//! Log lines of the daemon that could not be written, as a condition of the node.

use std::time::Duration;

use swarm_api::v1;
use swarm_types::Timestamp;
use swarm_types::conditions::{self, Kind};

/// The condition stays for so long after the last line that was lost: a description that changes
/// costs a session, and a log that takes every other line is no better than one that takes none.
const LOST_LINES_KEPT: Duration = Duration::from_secs(60);

/// The same words whatever the number, which is in a metric.
const TEXT: &str = "lines of the daemon's log cannot be written and are dropped";

/// What is known of lines that were lost.
#[derive(Debug, Default)]
pub(crate) struct LostLines {
    lines: u64,
    last: Option<Timestamp>,
}

impl LostLines {
    /// Takes how many lines the process has lost since its start.
    pub(crate) fn count(&mut self, now: Timestamp, lines: u64) {
        if lines > self.lines {
            self.lines = lines;
            self.last = Some(now);
        }
    }

    /// Adds to a description what is so.
    pub(crate) fn describe(&self, now: Timestamp, description: &mut v1::NodeDescription) {
        let is_recent = |last| now.saturating_since(last) < LOST_LINES_KEPT;
        if self.last.is_some_and(is_recent) {
            conditions::add(description, Kind::Log, TEXT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_lines_are_told_until_a_minute_has_passed_without_any() {
        let mut lost = LostLines::default();
        let mut told = |seconds: i64, lines: u64| {
            let now = Timestamp::from_millis(seconds * 1000);
            lost.count(now, lines);
            let mut description = v1::NodeDescription::default();
            lost.describe(now, &mut description);
            let told = conditions::of(&description).next();
            told.and_then(|condition| condition.kind)
        };
        let log = Some(Kind::Log);
        assert_eq!(told(0, 0), None);
        assert_eq!(told(100, 3), log);
        assert_eq!(told(159, 3), log);
        assert_eq!(told(160, 3), None);
        assert_eq!(told(170, 4), log);
    }
}
