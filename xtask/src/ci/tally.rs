//! Counts of tests, read from the summaries of `cargo nextest` and `cargo test`.
//!
//! Owns the closing line of `cargo xtask ci`, by which a run is judged. Does not run anything.

use std::fmt;
use std::ops::AddAssign;

/// How many tests passed and failed. Prints as `12 passed, 0 failed`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    passed: u64,
    failed: u64,
}

/// Whose summary to look for. Nextest shows what a failed test printed, and that contains a summary
/// of the other kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `Summary [ 0.1s] 3/4 tests run: 1 passed (1 slow), 1 failed, 1 timed out, 0 skipped`
    Nextest,
    /// `test result: ok. 2 passed; 0 failed; 0 ignored; …`, once for each program.
    Libtest,
}

impl Tally {
    /// Reads a summary line, which is a list of a number and words; any other line counts nothing.
    pub(crate) fn of_line(runner: Runner, line: &str) -> Tally {
        let line = line.trim();
        let counts = match runner {
            Runner::Nextest => line
                .strip_prefix("Summary [")
                .and_then(|l| l.split_once(" run: ")),
            Runner::Libtest => line
                .strip_prefix("test result: ")
                .and_then(|line| line.split_once(". ")),
        };
        let counts = counts.map(|(_, counts)| counts);
        let mut tally = Tally::default();
        for part in counts
            .into_iter()
            .flat_map(|counts| counts.split([',', ';']))
        {
            let part = part.trim();
            let Some((number, what)) = part.split_once(' ') else {
                continue;
            };
            let Ok(number) = number.parse::<u64>() else {
                continue;
            };
            if what.starts_with("passed") {
                tally.passed += number;
            } else if ["failed", "timed out", "exec failed"]
                .iter()
                .any(|f| what.starts_with(f))
            {
                tally.failed += number;
            }
        }
        tally
    }

    /// The tally of a run that failed: at least one failure, even where the failing step counts
    /// nothing itself.
    pub(crate) fn with_a_failure(self) -> Tally {
        Tally {
            failed: self.failed.max(1),
            ..self
        }
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Tally) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(runner: Runner, line: &str, expected: &str) {
        assert_eq!(Tally::of_line(runner, line).to_string(), expected, "{line}");
    }

    #[test]
    fn nextest_has_one_summary() {
        let check = |line: &str, expected: &str| check(Runner::Nextest, line, expected);
        check(
            "     Summary [   0.123s] 12 tests run: 12 passed, 0 skipped",
            "12 passed, 0 failed",
        );
        check(
            "     Summary [   0.1s] 1 test run: 1 passed, 0 skipped",
            "1 passed, 0 failed",
        );
        check(
            "     Summary [  61.0s] 6/9 tests run: 3 passed (1 slow), 2 failed, 1 timed out, \
             0 skipped",
            "3 passed, 3 failed",
        );
        check(
            "    test result: FAILED. 0 passed; 1 failed; 0 ignored",
            "0 passed, 0 failed",
        );
        check(
            "        PASS [   0.010s] (1/1) a::b 7 passed, c",
            "0 passed, 0 failed",
        );
        check("", "0 passed, 0 failed");
    }

    #[test]
    fn libtest_has_a_summary_for_each_program() {
        let check = |line: &str, expected: &str| check(Runner::Libtest, line, expected);
        check(
            "test result: ok. 4 passed; 0 failed; 0 ignored; 0 measured",
            "4 passed, 0 failed",
        );
        check(
            "test result: FAILED. 1 passed; 2 failed; 0 ignored",
            "1 passed, 2 failed",
        );
        check("running 3 tests", "0 passed, 0 failed");
        check("log: 7 passed, 2 failed", "0 passed, 0 failed");
    }

    #[test]
    fn tallies_of_several_programs_add_up() {
        let mut total = Tally::default();
        total += Tally::of_line(Runner::Libtest, "test result: ok. 4 passed; 0 failed");
        total += Tally::of_line(Runner::Libtest, "test result: FAILED. 1 passed; 2 failed");
        assert_eq!(
            total,
            Tally {
                passed: 5,
                failed: 2
            }
        );
    }

    #[test]
    fn failed_run_never_ends_with_no_failure() {
        assert_eq!(
            Tally {
                passed: 3,
                failed: 0
            }
            .with_a_failure()
            .to_string(),
            "3 passed, 1 failed"
        );
        assert_eq!(
            Tally {
                passed: 3,
                failed: 2
            }
            .with_a_failure()
            .to_string(),
            "3 passed, 2 failed"
        );
    }
}
