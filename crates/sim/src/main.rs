//! The command line of the simulator.
#![allow(clippy::print_stdout, reason = "a tool for a terminal")]

use std::process::ExitCode;

use clap::Parser;
use swarm_sim::{Detail, FaultMode, Options, Report, Scenario, Settings};

/// Runs simulated clusters with seeded faults and checks every step.
///
/// The seed decides everything: nodes, clocks, faults, what the user does. Exit code 0: all seeds
/// passed; 1: one failed, and the command that repeats it was printed.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Cli {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds, counted up from the first.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// So many seeds that nobody has drawn before; those that fail are printed, and become files in
    /// `crates/sim/seeds`.
    #[arg(long, conflicts_with_all = ["seed", "seeds"])]
    fresh: Option<u64>,
    /// What happens.
    #[arg(long, value_enum, default_value = "all")]
    scenario: Scenario,
    /// Which faults there are.
    #[arg(long, value_enum, default_value = "swarm")]
    faults: FaultMode,
    /// How much of what happened is printed.
    #[arg(long, value_enum, default_value = "none")]
    trace: Detail,
    /// Seeds at the same time.
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Go on after a failure, and count.
    #[arg(long)]
    keep_going: bool,
}

/// Fresh seeds have 40 bits: a million draws hardly ever meet.
const FRESH_SHIFT: u32 = 24;

fn main() -> ExitCode {
    let mut cli = Cli::parse();
    if let Some(count) = cli.fresh {
        (cli.seed, cli.seeds) = (fresh_seed(), count);
        // A run that nobody repeats has to tell everything.
        cli.keep_going = true;
        let (first, last) = (cli.seed, cli.seed + count.saturating_sub(1));
        println!(
            "fresh seeds {first} to {last} of scenario {}",
            cli.scenario.name()
        );
    }
    let options = Options {
        seed: cli.seed,
        scenario: cli.scenario,
        faults: cli.faults,
        trace: cli.trace,
    };
    if cli.seeds == 1 && cli.fresh.is_none() {
        let settings = Settings::draw(options);
        println!("{settings}");
        let report = swarm_sim::run_with(settings);
        for line in &report.printed {
            println!("{line}");
        }
        return finish(&report);
    }
    run_many(&cli, options)
}

/// A seed from the system's randomness, short enough to be typed.
fn fresh_seed() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _, RandomState};
    let random = RandomState::new().build_hasher().finish();
    (random >> FRESH_SHIFT) + 1
}

fn run_many(cli: &Cli, options: Options) -> ExitCode {
    let (mut done, mut events, mut commits, mut virtual_seconds) = (0u64, 0u64, 0u64, 0u64);
    let (mut taken, mut refused, mut double_runs) = (0u64, 0u64, 0u64);
    let mut failed = Vec::new();
    swarm_sim::run_many(options, cli.seeds, cli.threads, |report| {
        done += 1;
        events += report.events;
        commits += report.commits;
        taken += report.actions.0;
        refused += report.actions.1;
        double_runs += report.double_runs;
        virtual_seconds += report.end / 1_000_000_000;
        if done.is_multiple_of(1000) {
            println!("{done} of {} seeds", cli.seeds);
        }
        if let Some(violation) = &report.violation {
            if cli.keep_going {
                let text: String = violation.to_string().chars().take(300).collect();
                println!("seed {}: {text}", report.options.seed);
            }
            failed.push(report);
            return cli.keep_going;
        }
        true
    });
    println!(
        "{done} seeds of scenario {}, {events} events, {commits} commits, {taken} actions taken, \
         {refused} refused, {double_runs} double runs, {virtual_seconds} virtual seconds, \
         {} failed",
        cli.scenario.name(),
        failed.len()
    );
    if cli.fresh.is_some() {
        for report in &failed {
            let seed = report.options.seed;
            println!(
                "seed {seed} failed; say in crates/sim/seeds/{}-{seed}.txt what it found",
                cli.scenario.name()
            );
        }
    }
    match failed.first() {
        Some(report) => {
            println!("{}", report.settings);
            finish(report)
        }
        None => ExitCode::SUCCESS,
    }
}

/// Prints how a run ended; the last line of a failure is the command that repeats it.
fn finish(report: &Report) -> ExitCode {
    let Some(violation) = &report.violation else {
        println!("{}", report.summary());
        return ExitCode::SUCCESS;
    };
    println!("the last events:");
    for line in &report.recent {
        println!("  {line}");
    }
    println!("{}", report.summary());
    println!("violation of {violation}");
    println!("{}", report.options.command());
    ExitCode::FAILURE
}
