//! Bounds how many log lines like events write.
//!
//! Whoever reaches a port can cause some of them as often as they like. The first ones of a period
//! are written, the others counted, and the first line of a later period says how many these were;
//! all of them are in a metric.

use std::time::Duration;

/// Lines that one kind of event writes in a period.
const LINES_MAX: u32 = 10;
/// The period.
const PERIOD: Duration = Duration::from_secs(10);

/// What one kind of event has written lately.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    since: Option<Duration>,
    written: u32,
    left_out: u64,
}

/// A line that may be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// Events before it that have none.
    pub(crate) left_out: u64,
    /// Whether it is the last of its period, so that the reader knows that there may be more.
    pub(crate) is_last: bool,
}

impl Notices {
    /// Whether an event at this time of a monotonic clock gets a line.
    pub(crate) fn ask(&mut self, now: Duration) -> Option<Line> {
        let is_over = self
            .since
            .is_none_or(|since| now.saturating_sub(since) >= PERIOD);
        if is_over {
            self.since = Some(now);
            self.written = 0;
        }
        if self.written >= LINES_MAX {
            self.left_out = self.left_out.saturating_add(1);
            return None;
        }
        self.written += 1;
        Some(Line {
            left_out: std::mem::take(&mut self.left_out),
            is_last: self.written == LINES_MAX,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_writes_a_few_lines_and_the_number_of_the_others() {
        let mut notices = Notices::default();
        let mut lines = 0;
        for event in 0..1_000_u32 {
            let line = notices.ask(Duration::from_millis(event.into()));
            assert_eq!(line.is_some(), event < LINES_MAX, "{event}");
            if let Some(line) = line {
                lines += 1;
                assert_eq!(line.left_out, 0);
                assert_eq!(line.is_last, lines == LINES_MAX);
            }
        }
        let later = notices.ask(PERIOD).unwrap();
        assert_eq!(later.left_out, u64::from(1_000 - LINES_MAX));
        assert!(!later.is_last);
        assert_eq!(notices.ask(2 * PERIOD).unwrap().left_out, 0);
    }
}
