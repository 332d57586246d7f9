//! Runs rows and prints our figure beside the recorded Go figure.

use std::io::{self, Write};
use std::time::Instant;

use stats_alloc::INSTRUMENTED_SYSTEM;

use crate::resident;

/// Rounds of each row unless the caller says otherwise; the median of five shrugs off two that a
/// neighbour disturbed.
pub const ROUNDS: usize = 5;

/// One benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Its group and the name of the Go benchmark: `store/CreateNode`.
    pub name: &'static str,
    /// Go's median on a quiet machine, in nanoseconds (`performance.md` 2).
    pub go: f64,
    /// How many times faster we must be.
    pub bar: f64,
    /// Rounds at most, for rows that take long.
    pub rounds_max: usize,
    /// Runs one round.
    pub round: fn() -> Took,
}

/// What one operation took in one round, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Took {
    /// By the clock on the wall.
    pub wall: f64,
    /// On a processor; only where one thread does everything, for longer than a tick of the kernel.
    pub cpu: Option<f64>,
    /// Allocations; zero unless the program counts them (`gates` does).
    pub allocations: f64,
}

/// Both clocks of a workload on one thread.
#[derive(Debug)]
pub struct Clock {
    wall: Instant,
    cpu: u64,
    allocations: usize,
}

impl Clock {
    /// Starts.
    pub fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: resident::cpu_nanos(),
            allocations: INSTRUMENTED_SYSTEM.stats().allocations,
        }
    }

    /// Stops after so many operations of this thread.
    pub fn stop(&self, operations: usize) -> Took {
        let took = self.stop_threads(operations);
        let cpu = resident::cpu_nanos().saturating_sub(self.cpu);
        Took {
            // The kernel books by its tick; what is shorter shows as nothing.
            cpu: (cpu > 0).then(|| cpu as f64 / operations as f64),
            ..took
        }
    }

    /// Stops after so many operations of several threads.
    pub fn stop_threads(&self, operations: usize) -> Took {
        let allocations = INSTRUMENTED_SYSTEM.stats().allocations - self.allocations;
        Took {
            wall: self.wall.elapsed().as_secs_f64() * 1e9 / operations as f64,
            cpu: None,
            allocations: allocations as f64 / operations as f64,
        }
    }
}

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Only rows whose name contains one of these; all rows if there are none.
    pub filters: Vec<String>,
    /// Rounds of each row.
    pub rounds: usize,
    /// Whether a row below its bar is an error.
    pub strict: bool,
    /// Whether time on a processor decides where it is known: on a machine that others use, the
    /// clock on the wall tells how busy they are.
    pub cpu: bool,
}

impl Options {
    /// Reads the arguments; those that `cargo bench` adds are ignored.
    ///
    /// # Errors
    /// A sentence when an argument is unknown.
    pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            filters: Vec::new(),
            rounds: ROUNDS,
            strict: false,
            cpu: false,
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--strict" => options.strict = true,
                "--cpu" => options.cpu = true,
                "--rounds" => {
                    options.rounds = arguments
                        .next()
                        .and_then(|text| text.parse().ok())
                        .filter(|rounds| *rounds > 0)
                        .ok_or("--rounds wants a number from 1 on")?;
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "unknown argument {flag}; known are --rounds N, --strict, --cpu and names \
                         of rows"
                    ));
                }
                _ => options.filters.push(argument),
            }
        }
        Ok(options)
    }

    /// Whether the filters let a row through.
    pub fn wants(&self, name: &str) -> bool {
        self.filters.is_empty() || self.filters.iter().any(|part| name.contains(part.as_str()))
    }
}

/// The result of one row, in nanoseconds per operation.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Of the fastest round.
    pub best: f64,
    /// Of the median round.
    pub median: f64,
    /// Time on a processor of the median round by that measure.
    pub cpu: Option<f64>,
}

impl Figure {
    /// From the rounds; none at all counts as infinitely slow.
    pub fn of(rounds: &[Took]) -> Self {
        let sorted = |mut values: Vec<f64>| {
            values.sort_by(f64::total_cmp);
            values
        };
        let wall = sorted(rounds.iter().map(|took| took.wall).collect());
        let cpu = sorted(rounds.iter().filter_map(|took| took.cpu).collect());
        Self {
            best: wall.first().copied().unwrap_or(f64::INFINITY),
            median: wall.get(wall.len() / 2).copied().unwrap_or(f64::INFINITY),
            cpu: cpu.get(cpu.len() / 2).copied(),
        }
    }
}

/// Runs the rows and writes a table; `false` when one that ran missed its bar.
///
/// # Errors
/// When the table cannot be written.
pub fn run(rows: &[Row], options: &Options, out: &mut impl Write) -> io::Result<bool> {
    let mut passed = true;
    let chosen: Vec<&Row> = rows.iter().filter(|row| options.wants(row.name)).collect();
    if chosen.is_empty() {
        return Ok(true);
    }
    writeln!(
        out,
        "{:<44} {:>10} {:>10} {:>10} {:>10} {:>8} {:>6}",
        "row", "median", "best", "cpu", "Go", "ratio", "bar"
    )?;
    for row in chosen {
        let rounds = options.rounds.min(row.rounds_max);
        let rounds: Vec<Took> = (0..rounds).map(|_| (row.round)()).collect();
        let figure = Figure::of(&rounds);
        let decides = figure.cpu.filter(|_| options.cpu).unwrap_or(figure.median);
        let ratio = row.go / decides;
        let verdict = if ratio >= row.bar { "PASS" } else { "FAIL" };
        passed &= ratio >= row.bar;
        writeln!(
            out,
            "{:<44} {:>10} {:>10} {:>10} {:>10} {:>7.1}x {:>5.0}x {verdict}",
            row.name,
            nanos(figure.median),
            nanos(figure.best),
            figure.cpu.map_or_else(String::new, nanos),
            nanos(row.go),
            ratio,
            row.bar,
        )?;
    }
    Ok(passed)
}

/// A time with a fitting unit and three digits.
pub fn nanos(value: f64) -> String {
    let (value, unit) = match value {
        v if v < 1e3 => (v, "ns"),
        v if v < 1e6 => (v / 1e3, "us"),
        v if v < 1e9 => (v / 1e6, "ms"),
        v => (v / 1e9, "s"),
    };
    let digits = if value < 10.0 {
        2
    } else {
        usize::from(value < 100.0)
    };
    format!("{value:.digits$} {unit}")
}

/// The body of a bench target: reads the arguments, runs, prints, and says how to exit.
pub fn main(rows: &[Row]) -> std::process::ExitCode {
    let mut out = io::stdout().lock();
    let outcome = Options::parse(std::env::args().skip(1)).and_then(|options| {
        let passed = run(rows, &options, &mut out).map_err(|error| error.to_string())?;
        if passed || !options.strict {
            return Ok(());
        }
        Err("at least one row missed its bar".to_owned())
    });
    match outcome {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(message) => {
            // Nothing is left to tell if even this fails.
            drop(writeln!(io::stderr(), "bench: {message}"));
            std::process::ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn arguments_choose_rows_and_rounds() {
        let options = parse("--bench store --rounds 3 --strict").unwrap();
        assert_eq!((options.rounds, options.strict), (3, true));
        assert!(options.wants("store/GetNode") && !options.wants("watch/Publish10"));
        assert!(parse("").unwrap().wants("anything"));
        for wrong in ["--rounds", "--rounds 0", "--rounds x", "--fast"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    fn took(wall: f64) -> Took {
        Took {
            wall,
            cpu: Some(wall / 2.0),
            allocations: 0.0,
        }
    }

    #[test]
    fn the_median_decides_and_a_row_below_its_bar_fails() {
        let figure = Figure::of(&[took(9.0), took(1.0), took(2.0)]);
        let expected = Figure {
            best: 1.0,
            median: 2.0,
            cpu: Some(1.0),
        };
        assert_eq!(figure, expected);
        let row = |go| Row {
            name: "group/row",
            go,
            bar: 5.0,
            rounds_max: 3,
            round: || took(10.0),
        };
        let mut out = Vec::new();
        let mut passes = |go, words| run(&[row(go)], &parse(words).unwrap(), &mut out).unwrap();
        assert!(passes(50.0, ""));
        assert!(!passes(49.0, ""));
        assert!(passes(25.0, "--cpu") && !passes(24.0, "--cpu"));
        assert!(passes(0.0, "other-row"));
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("PASS") && text.contains("FAIL"), "{text}");
    }

    #[test]
    fn times_get_a_fitting_unit() {
        for (value, text) in [
            (0.5, "0.50 ns"),
            (999.0, "999 ns"),
            (1_500.0, "1.50 us"),
            (23_400_000.0, "23.4 ms"),
            (12e9, "12.0 s"),
        ] {
            assert_eq!(nanos(value), text);
        }
    }
}
