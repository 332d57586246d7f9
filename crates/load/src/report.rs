//! What was measured, beside the recorded Go figure and the bar.

use std::fmt::Write as _;

use serde::Serialize;

/// What a figure must keep.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) enum Bar {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
}

/// Whether more is better; says how a ratio to Go is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum Better {
    /// Times, sizes.
    Less,
    /// Rates.
    More,
}

/// One figure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Row {
    /// The step that gave it, as on the command line.
    pub(crate) step: String,
    /// What it is.
    pub(crate) name: &'static str,
    /// In its unit.
    pub(crate) value: f64,
    /// The unit.
    pub(crate) unit: &'static str,
    /// Which way is better.
    pub(crate) better: Better,
    /// Go's figure for the same work, if it was recorded.
    pub(crate) go: Option<f64>,
    /// What it must keep.
    pub(crate) bar: Option<Bar>,
}

impl Row {
    /// How many times better than Go.
    fn ratio(&self) -> Option<f64> {
        let go = self.go?;
        Some(match self.better {
            Better::Less => go / self.value,
            Better::More => self.value / go,
        })
    }

    /// Whether it keeps its bar; one without has kept it.
    pub(crate) fn is_kept(&self) -> bool {
        match self.bar {
            None => true,
            Some(Bar::AtMost(most)) => self.value <= most,
            Some(Bar::AtLeast(least)) => self.value >= least,
        }
    }
}

/// All figures of a run.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Report {
    /// In the order in which they were measured.
    pub(crate) rows: Vec<Row>,
}

impl Report {
    /// The figures of that step and name, in the order of the steps.
    pub(crate) fn find(&self, step: &str, name: &str) -> Vec<f64> {
        let found = |row: &&Row| row.step == step && row.name == name;
        self.rows
            .iter()
            .filter(found)
            .map(|row| row.value)
            .collect()
    }

    /// The figures which miss their bars.
    pub(crate) fn missed(&self) -> usize {
        self.rows.iter().filter(|row| !row.is_kept()).count()
    }

    /// A table with a line for each figure.
    pub(crate) fn table(&self) -> String {
        let head = ["step", "figure", "ours", "unit", "Go", "ratio", "bar", ""];
        let mut lines = vec![head.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let mut widths = [0; 8];
        for line in &lines {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        let mut text = String::new();
        for line in &lines {
            let mut row = String::new();
            for (index, (cell, width)) in line.iter().zip(widths).enumerate() {
                let is_number = matches!(index, 2 | 4 | 5 | 6);
                // Writing to a string does not fail.
                let _ = if is_number {
                    write!(row, "{cell:>width$}  ")
                } else {
                    write!(row, "{cell:<width$}  ")
                };
            }
            text.push_str(row.trim_end());
            text.push('\n');
        }
        text
    }
}

fn cells(row: &Row) -> [String; 8] {
    let bar = match row.bar {
        None => String::new(),
        Some(Bar::AtMost(most)) => format!("<= {}", number(most)),
        Some(Bar::AtLeast(least)) => format!(">= {}", number(least)),
    };
    let verdict = match (row.bar, row.is_kept()) {
        (None, _) => "",
        (Some(_), true) => "ok",
        (Some(_), false) => "MISSED",
    };
    [
        row.step.clone(),
        row.name.to_owned(),
        number(row.value),
        row.unit.to_owned(),
        row.go.map(number).unwrap_or_default(),
        row.ratio()
            .map(|ratio| format!("{ratio:.1}x"))
            .unwrap_or_default(),
        bar,
        verdict.to_owned(),
    ]
}

/// Three significant digits or more.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        size if size > 0.0 => format!("{value:.4}"),
        _ => "0".to_owned(),
    }
}

/// The value below which so many hundredths of the values are; zero when there are none.
pub(crate) fn percentile(values: &mut [f64], hundredths: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() * hundredths).div_ceil(100);
    let index = rank.saturating_sub(1);
    values.get(index).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(value: f64, better: Better, bar: Option<Bar>) -> Row {
        Row {
            step: "launch:7".to_owned(),
            name: "rate",
            value,
            unit: "1/s",
            better,
            go: Some(100.0),
            bar,
        }
    }

    #[test]
    fn a_bar_is_kept_on_its_side_and_exactly_on_it() {
        let at_least = |value| row(value, Better::More, Some(Bar::AtLeast(10.0))).is_kept();
        assert!(at_least(10.0) && at_least(11.0) && !at_least(9.9));
        let at_most = |value| row(value, Better::Less, Some(Bar::AtMost(10.0))).is_kept();
        assert!(at_most(10.0) && at_most(9.0) && !at_most(10.1));
        assert!(row(1.0, Better::Less, None).is_kept());
    }

    #[test]
    fn the_table_names_what_was_missed() {
        let rows = vec![
            row(200.0, Better::More, Some(Bar::AtLeast(300.0))),
            row(200.0, Better::Less, None),
        ];
        let report = Report { rows };
        assert_eq!(report.missed(), 1);
        assert_eq!(report.find("launch:7", "rate"), [200.0, 200.0]);
        let table = report.table();
        let lines: Vec<_> = table.lines().collect();
        assert!(
            lines[1].contains("2.0x") && lines[1].ends_with("MISSED"),
            "{table}"
        );
        assert!(
            lines[2].contains("0.5x") && !lines[2].contains("MISSED"),
            "{table}"
        );
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let mut values = vec![3.0, 1.0, 2.0, 4.0];
        assert_eq!(percentile(&mut values, 50), 2.0);
        assert_eq!(percentile(&mut values, 99), 4.0);
        assert_eq!(percentile(&mut [], 50), 0.0);
    }
}
