//! The output of a task, as an executor hands it out.
//!
//! Owns which lines are wanted ([`LogOptions`], [`LineFilter`]). Refuses to own: where an executor
//! keeps them, and how fast they travel.

use bytes::Bytes;
use swarm_api::v1;
use swarm_types::Timestamp;

use crate::contract::BoxFuture;
use crate::error::ExecError;

/// Which of the lines of a task are wanted, counted from one end of its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Tail {
    /// All that there are.
    #[default]
    All,
    /// The last so many.
    Last(u64),
    /// All but the first so many.
    Skip(u64),
}

impl Tail {
    /// From the wire (spec 7.2): 0 is all, a negative n the last -n-1, a positive one skips.
    pub fn from_wire(tail: i64) -> Self {
        match tail {
            0 => Self::All,
            1.. => Self::Skip(tail.unsigned_abs()),
            i64::MIN..0 => Self::Last(tail.unsigned_abs() - 1),
        }
    }
}

/// What is wanted of the output of a task. Streams and time choose first, then `tail` counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// Whether lines of standard output are wanted.
    pub stdout: bool,
    /// Whether lines of standard error are wanted.
    pub stderr: bool,
    /// Whether to wait for more at the end, until the task has ended.
    pub follow: bool,
    /// See [`Tail`].
    pub tail: Tail,
    /// Nothing older than this.
    pub since: Option<Timestamp>,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            stdout: true,
            stderr: true,
            follow: false,
            tail: Tail::All,
            since: None,
        }
    }
}

impl LogOptions {
    /// From the wire. No streams means both; a time out of range means no limit, since managers
    /// judge it.
    pub fn from_wire(wire: &v1::LogSubscriptionOptions) -> Self {
        let has = |stream: v1::LogStream| {
            wire.streams.is_empty() || wire.streams.contains(&(stream as i32))
        };
        Self {
            stdout: has(v1::LogStream::Stdout),
            stderr: has(v1::LogStream::Stderr),
            follow: wire.follow,
            tail: Tail::from_wire(wire.tail),
            since: wire.since.as_ref().and_then(Timestamp::from_wire),
        }
    }

    /// Whether a line is wanted, wherever it stands.
    fn takes(&self, origin: LogOrigin, at: Option<Timestamp>) -> bool {
        let is_wanted = match origin {
            LogOrigin::Stdout => self.stdout,
            LogOrigin::Stderr => self.stderr,
            LogOrigin::Notice => return true,
        };
        is_wanted
            && self
                .since
                .is_none_or(|since| at.is_none_or(|at| at >= since))
    }
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LogOrigin {
    /// The task's standard output.
    Stdout,
    /// The task's standard error.
    Stderr,
    /// The executor itself: something about the lines, such as that some are lost.
    Notice,
}

impl LogOrigin {
    /// The wire enum. A notice has the unknown stream, which clients of SwarmKit skip.
    pub fn to_wire(self) -> v1::LogStream {
        match self {
            Self::Stdout => v1::LogStream::Stdout,
            Self::Stderr => v1::LogStream::Stderr,
            Self::Notice => v1::LogStream::Unknown,
        }
    }
}

/// A line, or a part of a long one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// When it was written.
    pub at: Option<Timestamp>,
    /// By whom.
    pub origin: LogOrigin,
    /// The bytes, with the line feed at the end; without it the line goes on in the next one of
    /// the same origin.
    pub data: Bytes,
}

impl LogLine {
    /// A line of the executor itself.
    pub fn notice(text: &str) -> Self {
        Self {
            at: None,
            origin: LogOrigin::Notice,
            data: Bytes::from(format!("{text}\n")),
        }
    }
}

/// Lines in the order in which they were written.
pub trait LogStream: Send {
    /// The next lines, at least one; `None` at the end. Dropping the future ends the stream: the
    /// lines it was about to return are lost.
    ///
    /// # Errors
    /// When the output cannot be read; the stream has ended then.
    fn next(&mut self) -> BoxFuture<'_, Result<Option<Vec<LogLine>>, ExecError>>;
}

/// Chooses lines one by one, in the order of the output.
///
/// [`Tail::Last`] needs to know how many lines there are: send all of them through a filter made by
/// [`LineFilter::counting`], and make the one that counts with its [`LineFilter::lines`].
#[derive(Clone, Debug)]
pub struct LineFilter {
    options: LogOptions,
    skip: u64,
    lines: u64,
    /// By origin: whether the line that has begun is taken; `None` between lines.
    begun: [Option<bool>; 3],
}

impl LineFilter {
    /// Takes every line that streams and time choose.
    pub fn counting(options: LogOptions) -> Self {
        Self::skipping(options, 0)
    }

    /// Takes what `options` ask for, of an output that has `lines` lines by now.
    pub fn new(options: LogOptions, lines: u64) -> Self {
        let skip = match options.tail {
            Tail::All => 0,
            Tail::Last(count) => lines.saturating_sub(count),
            Tail::Skip(count) => count,
        };
        Self::skipping(options, skip)
    }

    fn skipping(options: LogOptions, skip: u64) -> Self {
        Self {
            options,
            skip,
            lines: 0,
            begun: [None; 3],
        }
    }

    /// Whether to take a line or a part of one. `is_end` says that the line ends with it. Parts of
    /// one line share its fate.
    pub fn takes(&mut self, origin: LogOrigin, at: Option<Timestamp>, is_end: bool) -> bool {
        let slot = origin as usize;
        let taken = match self.begun[slot] {
            Some(taken) => taken,
            None => self.begin(origin, at),
        };
        self.begun[slot] = (!is_end).then_some(taken);
        taken
    }

    /// How many lines streams and time have chosen.
    pub fn lines(&self) -> u64 {
        self.lines
    }

    fn begin(&mut self, origin: LogOrigin, at: Option<Timestamp>) -> bool {
        if !self.options.takes(origin, at) {
            return false;
        }
        self.lines += 1;
        self.lines > self.skip
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use LogOrigin::{Stderr, Stdout};

    fn all() -> LogOptions {
        LogOptions::default()
    }

    /// Sends lines through a filter that knows how many there are; what is left, by number.
    #[track_caller]
    fn check(options: LogOptions, lines: &[(LogOrigin, i64, bool)], expected: &[usize]) {
        let at = |millis: i64| Some(Timestamp::from_millis(millis));
        let mut counter = LineFilter::counting(options);
        for (origin, millis, is_end) in lines {
            counter.takes(*origin, at(*millis), *is_end);
        }
        let mut filter = LineFilter::new(options, counter.lines());
        let mut left = Vec::new();
        for (number, (origin, millis, is_end)) in lines.iter().enumerate() {
            if filter.takes(*origin, at(*millis), *is_end) {
                left.push(number);
            }
        }
        assert_eq!(left, expected, "{options:?}");
    }

    #[test]
    fn tail_on_the_wire_counts_from_either_end() {
        for (wire, tail) in [
            (0, Tail::All),
            (-1, Tail::Last(0)),
            (-2, Tail::Last(1)),
            (i64::MIN, Tail::Last(i64::MAX.unsigned_abs())),
            (1, Tail::Skip(1)),
            (i64::MAX, Tail::Skip(i64::MAX.unsigned_abs())),
        ] {
            assert_eq!(Tail::from_wire(wire), tail, "{wire}");
        }
    }

    #[test]
    fn options_without_streams_mean_both() {
        let wire = |streams: &[i32]| v1::LogSubscriptionOptions {
            streams: streams.to_vec(),
            ..Default::default()
        };
        let both = |streams: &[i32]| {
            let options = LogOptions::from_wire(&wire(streams));
            (options.stdout, options.stderr)
        };
        assert_eq!(both(&[]), (true, true));
        assert_eq!(both(&[1]), (true, false));
        assert_eq!(both(&[2]), (false, true));
        assert_eq!(both(&[2, 1]), (true, true));
    }

    #[test]
    fn streams_and_time_choose_before_the_tail_counts() {
        let lines = [
            (Stdout, 1, true),
            (Stderr, 2, true),
            (Stdout, 3, true),
            (Stderr, 4, true),
            (Stderr, 5, true),
        ];
        check(all(), &lines, &[0, 1, 2, 3, 4]);
        let stderr = LogOptions {
            stdout: false,
            ..all()
        };
        check(stderr, &lines, &[1, 3, 4]);
        let tail = |tail, options: LogOptions| LogOptions { tail, ..options };
        check(tail(Tail::Last(2), stderr), &lines, &[3, 4]);
        check(tail(Tail::Last(9), stderr), &lines, &[1, 3, 4]);
        check(tail(Tail::Last(0), all()), &lines, &[]);
        check(tail(Tail::Skip(2), stderr), &lines, &[4]);
        check(tail(Tail::Skip(9), all()), &lines, &[]);
        let since = LogOptions {
            since: Some(Timestamp::from_millis(4)),
            ..all()
        };
        check(since, &lines, &[3, 4]);
        check(tail(Tail::Last(1), since), &lines, &[4]);
    }

    #[test]
    fn a_line_in_parts_is_one_line_also_between_those_of_the_other_stream() {
        let lines = [
            (Stdout, 1, false),
            (Stderr, 2, true),
            (Stdout, 3, false),
            (Stdout, 4, true),
            (Stderr, 5, true),
        ];
        let last = |count| LogOptions {
            tail: Tail::Last(count),
            ..all()
        };
        check(last(1), &lines, &[4]);
        check(last(2), &lines, &[1, 4]);
        check(last(3), &lines, &[0, 1, 2, 3, 4]);
        // Parts that came later do not make an old line young.
        let since = LogOptions {
            since: Some(Timestamp::from_millis(3)),
            ..all()
        };
        check(since, &lines, &[4]);
    }
}
