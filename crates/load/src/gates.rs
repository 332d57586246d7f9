//! The scaling gates of `performance.md` 8 F that need a whole manager: ratios between runs of
//! several sizes on this machine. Those of store and scheduler alone are in `swarm-bench`.

use std::time::Duration;

use crate::options::{Run, Step};
use crate::report::{Bar, Better, Report, Row, percentile};
use crate::run;

/// One ratio of the same figure in two runs.
struct Gate {
    name: &'static str,
    large: (u32, &'static str),
    small: (u32, &'static str),
    figure: &'static str,
    max: f64,
    go: Option<f64>,
}

const CPU: &str = "manager CPU per task";
const MEMORY: &str = "resident per task";

const GATES: &[Gate] = &[
    Gate {
        name: "CPU per task, 3,000 agents to 100",
        large: (3_000, "launch:10000"),
        small: (100, "launch:10000"),
        figure: CPU,
        max: 1.2,
        go: Some(2.9),
    },
    Gate {
        name: "CPU per task, 10,000 agents to 1,000",
        large: (10_000, "launch:10000"),
        small: (1_000, "launch:10000"),
        figure: CPU,
        max: 1.2,
        go: None,
    },
    Gate {
        name: "CPU per task, ten tasks per agent, 10,000 agents to 1,000",
        large: (10_000, "launch:100000"),
        small: (1_000, "launch:10000"),
        figure: CPU,
        max: 1.2,
        go: None,
    },
    Gate {
        name: "CPU per task, 100,000 tasks to 10,000",
        large: (1_000, "launch:100000"),
        small: (1_000, "launch:10000"),
        figure: CPU,
        max: 1.2,
        go: Some(1.6),
    },
    Gate {
        name: "memory per task, 100,000 tasks to 10,000",
        large: (1_000, "launch:100000"),
        small: (1_000, "launch:10000"),
        figure: MEMORY,
        max: 1.1,
        go: None,
    },
    Gate {
        name: "CPU per join, 10,000 agents to 1,000",
        large: (10_000, "join"),
        small: (1_000, "join"),
        figure: "manager CPU per join",
        max: 1.2,
        go: None,
    },
    Gate {
        name: "memory per agent, 10,000 agents to 1,000",
        large: (10_000, "join"),
        small: (1_000, "join"),
        figure: "resident per agent",
        max: 1.2,
        go: None,
    },
    Gate {
        name: "idle CPU per agent, 10,000 agents to 1,000",
        large: (10_000, "idle"),
        small: (1_000, "idle"),
        figure: IDLE,
        max: 1.2,
        go: None,
    },
];

const IDLE: &str = "manager CPU per 1,000 agents";
const IDLE_TIME: Duration = Duration::from_secs(20);

/// How many agents the runs have, in the order in which they are made.
const SIZES: [u32; 4] = [100, 1_000, 3_000, 10_000];

/// The steps of a run. Launches of 10,000 tasks take half a second of processor time, which the
/// system counts in hundredths and everything around disturbs, so there are three of them.
fn steps(agents: u32) -> Vec<Step> {
    let idle = Step::Idle(IDLE_TIME);
    let launch = Step::Launch(10_000);
    let launches = [launch, Step::Remove, launch, Step::Remove, launch];
    let mut steps = vec![Step::Join];
    if agents == 1_000 || agents == 10_000 {
        steps.push(idle);
    }
    steps.extend(launches);
    if agents == 1_000 {
        steps.extend([Step::Remove, Step::Launch(100_000), idle]);
    }
    if agents == 10_000 {
        steps.extend([Step::Remove, Step::Launch(100_000)]);
    }
    steps
}

/// Makes the runs; the report holds their figures and then the ratios.
///
/// # Errors
/// When a run fails.
pub(crate) async fn all(options: &Run, agents_max: u32) -> anyhow::Result<Report> {
    let mut runs = Vec::new();
    for agents in SIZES.into_iter().filter(|agents| *agents <= agents_max) {
        let one = Run {
            agents,
            ..options.clone()
        };
        runs.push((agents, run::one(&one, &steps(agents)).await?));
    }
    let mut rows: Vec<Row> = GATES.iter().filter_map(|gate| ratio(gate, &runs)).collect();
    rows.extend(idle_after(&runs));
    let mut all = Report::default();
    for (agents, report) in runs {
        all.rows.extend(report.rows.into_iter().map(|row| Row {
            step: format!("{agents} {}", row.step),
            ..row
        }));
    }
    all.rows.append(&mut rows);
    Ok(all)
}

fn ratio(gate: &Gate, runs: &[(u32, Report)]) -> Option<Row> {
    let find = |(agents, step): (u32, &str)| {
        let (_, report) = runs.iter().find(|(size, _)| *size == agents)?;
        let mut figures = report.find(step, gate.figure);
        if gate.figure == MEMORY {
            // Later launches find memory that earlier ones left.
            return figures.first().copied();
        }
        (!figures.is_empty()).then(|| percentile(&mut figures, 50))
    };
    let value = find(gate.large)? / find(gate.small)?;
    Some(row(gate.name, value, gate.max, gate.go))
}

/// What is left to do after the work is done must be nothing.
fn idle_after(runs: &[(u32, Report)]) -> Option<Row> {
    let (_, report) = runs.iter().find(|(agents, _)| *agents == 1_000)?;
    let mut idle = report.rows.iter().filter(|row| row.name == IDLE);
    let (before, after) = (idle.next()?.value, idle.next()?.value);
    Some(row(
        "idle CPU, after 110,000 tasks to before",
        after / before,
        1.2,
        None,
    ))
}

fn row(name: &'static str, value: f64, max: f64, go: Option<f64>) -> Row {
    Row {
        step: "gate".to_owned(),
        name,
        value,
        unit: "",
        better: Better::Less,
        go,
        bar: Some(Bar::AtMost(max)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(step: &str, name: &'static str, value: f64) -> Report {
        let mut report = Report::default();
        report.rows.push(Row {
            step: step.to_owned(),
            ..row(name, value, 1.0, None)
        });
        report
    }

    #[test]
    fn a_gate_is_the_ratio_of_the_same_figure_in_two_runs() {
        let mut small = report("launch:10000", CPU, 0.09);
        for value in [0.05, 0.04] {
            let more = report("launch:10000", CPU, value);
            small.rows.extend(more.rows);
        }
        let runs = [(100, small), (3_000, report("launch:10000", CPU, 0.1))];
        let found = ratio(&GATES[0], &runs).unwrap();
        assert_eq!(found.value, 2.0, "the median of several launches");
        assert!(!found.is_kept());
        assert!(ratio(&GATES[1], &runs).is_none(), "its runs were not made");
    }

    #[test]
    fn every_gate_names_a_step_of_its_runs() {
        for gate in GATES {
            for (agents, step) in [gate.large, gate.small] {
                let step: Step = step.parse().unwrap();
                assert!(steps(agents).contains(&step), "{}", gate.name);
            }
        }
    }
}
