//! Seeds that once found something, and a small number of others, must pass; and the same seed
//! gives the same trace.

use std::path::Path;

use swarm_sim::{Detail, FaultMode, Options, Report, Scenario};

/// Seeds of each scenario that run with every test run; thousands run in `cargo xtask ci`.
const SEEDS_EACH: u64 = 2;
const SCENARIOS: [Scenario; 17] = [
    Scenario::Converge,
    Scenario::Churn,
    Scenario::NodeLoss,
    Scenario::ManagerRestart,
    Scenario::Scale,
    Scenario::Drain,
    Scenario::Ports,
    Scenario::Constraints,
    Scenario::Global,
    Scenario::CertRotation,
    Scenario::RootRotation,
    Scenario::FleetRotation,
    Scenario::MassReconnect,
    Scenario::Secrets,
    Scenario::Logs,
    Scenario::Standstill,
    Scenario::All,
];

fn options(seed: u64, scenario: Scenario) -> Options {
    Options {
        seed,
        scenario,
        faults: FaultMode::Swarm,
        trace: Detail::None,
    }
}

#[track_caller]
fn expect_pass(report: &Report, why: &str) {
    if let Some(violation) = &report.violation {
        let command = report.options.command();
        panic!(
            "{why}: {violation}\n{}\n{command}",
            report.recent.join("\n")
        );
    }
}

#[test]
fn a_few_seeds_of_every_scenario_pass() {
    for scenario in SCENARIOS {
        for seed in 1..=SEEDS_EACH {
            expect_pass(&swarm_sim::run(options(seed, scenario)), "a new failure");
        }
    }
}

/// A check that refuses what the simulated user asks for would leave the simulator little to do.
#[test]
fn most_of_what_users_ask_for_is_taken() {
    let (mut taken, mut refused) = (0, 0);
    for seed in 1..=20 {
        let options = Options {
            faults: FaultMode::None,
            ..options(seed, Scenario::All)
        };
        let report = swarm_sim::run(options);
        taken += report.actions.0;
        refused += report.actions.1;
    }
    assert!(taken > 4 * refused, "{taken} taken, {refused} refused");
}

#[test]
fn seeds_pass_without_faults() {
    for seed in 1..=SEEDS_EACH {
        let options = Options {
            faults: FaultMode::None,
            ..options(seed, Scenario::All)
        };
        expect_pass(&swarm_sim::run(options), "a failure without any fault");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_and_another_seed_another_one() {
    let full = |seed| {
        swarm_sim::run(Options {
            trace: Detail::Full,
            ..options(seed, Scenario::All)
        })
    };
    let (one, again, other) = (full(11), full(11), full(12));
    assert!(one.events > 100, "{}", one.events);
    assert_eq!(one.printed, again.printed);
    assert_eq!(one.hash, again.hash);
    assert_ne!(one.hash, other.hash);
}

#[test]
fn another_process_gives_the_same_trace() {
    let summary = swarm_sim::run(options(21, Scenario::All)).summary();
    #[allow(clippy::disallowed_methods, reason = "the point is another process")]
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_swarm-sim"))
        .args(["--seed", "21"])
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(text.lines().last(), Some(summary.as_str()));
    assert!(output.status.success());
}

/// Without this the checker of the pace could not fail.
#[test]
fn a_fleet_has_more_nodes_than_may_be_asked_at_once() {
    let report = swarm_sim::run(options(2, Scenario::FleetRotation));
    expect_pass(&report, "a new failure");
    assert_eq!(report.asked_most, 30);
}

#[test]
fn several_threads_run_every_seed_once() {
    let mut seeds = Vec::new();
    swarm_sim::run_many(options(31, Scenario::Converge), 6, 3, |report| {
        seeds.push(report.options.seed);
        true
    });
    seeds.sort_unstable();
    assert_eq!(seeds, (31..37).collect::<Vec<_>>());
}

/// Each file in `seeds` is named `<scenario>-<seed>.txt` and says what the seed found.
#[test]
fn seeds_that_found_something_stay_fixed() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds");
    let mut count = 0;
    let mut files: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    for file in files {
        let name = file.file_stem().unwrap().to_str().unwrap();
        let (scenario, seed) = name.rsplit_once('-').unwrap();
        let scenario = SCENARIOS
            .into_iter()
            .find(|own| own.name() == scenario)
            .unwrap();
        let found = std::fs::read_to_string(&file).unwrap();
        assert!(
            !found.trim().is_empty(),
            "{name} does not say what it found"
        );
        let report = swarm_sim::run(options(seed.parse().unwrap(), scenario));
        expect_pass(&report, found.trim());
        count += 1;
    }
    assert!(count > 0);
}
