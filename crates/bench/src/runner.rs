//! Runs rows and prints our figure beside the recorded Go figure.

use std::io::{self, Write};

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
    /// Runs one round and returns nanoseconds per operation.
    pub round: fn() -> f64,
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
        };
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--bench" => {}
                "--strict" => options.strict = true,
                "--rounds" => {
                    options.rounds = arguments
                        .next()
                        .and_then(|text| text.parse().ok())
                        .filter(|rounds| *rounds > 0)
                        .ok_or("--rounds wants a number from 1 on")?;
                }
                flag if flag.starts_with('-') => {
                    return Err(format!(
                        "unknown argument {flag}; known are --rounds N, --strict and names of rows"
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

/// The result of one row.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Nanoseconds per operation of the fastest round.
    pub best: f64,
    /// Of the median round.
    pub median: f64,
}

impl Figure {
    /// From the rounds; an empty list counts as infinitely slow.
    pub fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        Self {
            best: rounds.first().copied().unwrap_or(f64::INFINITY),
            median: rounds
                .get(rounds.len() / 2)
                .copied()
                .unwrap_or(f64::INFINITY),
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
        "{:<44} {:>10} {:>10} {:>10} {:>8} {:>6}",
        "row", "median", "best", "Go", "ratio", "bar"
    )?;
    for row in chosen {
        let rounds = options.rounds.min(row.rounds_max);
        let figure = Figure::of((0..rounds).map(|_| (row.round)()).collect());
        let ratio = row.go / figure.median;
        let verdict = if ratio >= row.bar { "PASS" } else { "FAIL" };
        passed &= ratio >= row.bar;
        writeln!(
            out,
            "{:<44} {:>10} {:>10} {:>10} {:>7.1}x {:>5.0}x {verdict}",
            row.name,
            nanos(figure.median),
            nanos(figure.best),
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

    #[test]
    fn the_median_decides_and_a_row_below_its_bar_fails() {
        let figure = Figure::of(vec![9.0, 1.0, 2.0]);
        assert_eq!((figure.best, figure.median), (1.0, 2.0));
        let row = |go| Row {
            name: "group/row",
            go,
            bar: 5.0,
            rounds_max: 3,
            round: || 10.0,
        };
        let options = parse("").unwrap();
        let mut out = Vec::new();
        assert!(run(&[row(50.0)], &options, &mut out).unwrap());
        assert!(!run(&[row(49.0)], &options, &mut out).unwrap());
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
