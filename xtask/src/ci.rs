//! `cargo xtask ci`: the steps that a change must pass, the same on a laptop and in CI.
//!
//! Owns the order of the steps, their timing and the closing line. Does not own what a step
//! checks. Ordered by what fails fastest; stops at the first failure with the command that
//! repeats it.

mod doctests;
mod tally;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::child::{Child, Watched};
use crate::{sim, tidy};
use tally::{Runner, Tally};

/// Seeds that the simulator runs for every change: enough to meet each fault several times, few
/// enough for the time of a CI run. Nightly runs take thousands.
const SIM_SEEDS: &str = "300";

/// What a step came to.
enum Outcome {
    Passed(Tally),
    /// Not run, with the reason for a person.
    Skipped(String),
    Failed(Tally),
}

struct Step {
    name: &'static str,
    /// What a person types to repeat this step alone.
    repeat: String,
    run: Box<dyn FnOnce() -> anyhow::Result<Outcome>>,
}

/// # Errors
///
/// When a step cannot be run at all. A step that runs and fails is an exit code.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    let started = Instant::now();
    let mut total = Tally::default();
    let mut report = Vec::new();
    for step in steps()? {
        let Step { name, repeat, run } = step;
        println!("==> {name}: {repeat}");
        let step_started = Instant::now();
        let outcome = run()?;
        let took = seconds(step_started.elapsed());
        match outcome {
            Outcome::Passed(tally) => {
                total += tally;
                println!("<== {name}: ok in {took}\n");
                report.push(format!("{name} {took}"));
            }
            Outcome::Skipped(why) => println!("<== {name}: skipped, {why}\n"),
            Outcome::Failed(tally) => {
                total += tally;
                println!("<== {name}: FAILED after {took}\nrepeat with: {repeat}");
                println!("{}", total.with_a_failure());
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    println!(
        "all steps: {} ({})",
        seconds(started.elapsed()),
        report.join(", ")
    );
    println!("{total}");
    Ok(ExitCode::SUCCESS)
}

fn steps() -> anyhow::Result<Vec<Step>> {
    let clippy =
        Child::cargo(["clippy", "--workspace", "--all-targets"]).args(["--", "-D", "warnings"]);
    let doc = Child::cargo(["doc", "--workspace", "--no-deps"])
        .args(["--document-private-items"])
        .env("RUSTDOCFLAGS", "-D warnings");
    let mut steps = vec![
        plain("fmt", Child::cargo(["fmt", "--all", "--", "--check"])),
        tidy_step(),
        plain("clippy", clippy),
        tests(),
    ];
    steps.extend(doctests()?);
    steps.push(plain("doc", doc));
    steps.push(deny());
    let simulation = sim(&[String::from("--seeds"), String::from(SIM_SEEDS)]);
    let repeat = format!("cargo xtask sim --seeds {SIM_SEEDS}");
    steps.push(Step {
        name: "sim",
        repeat,
        run: Box::new(move || judge(&simulation)),
    });
    Ok(steps)
}

fn plain(name: &'static str, child: Child) -> Step {
    Step {
        name,
        repeat: child.to_string(),
        run: Box::new(move || judge(&child)),
    }
}

fn judge(child: &Child) -> anyhow::Result<Outcome> {
    Ok(if child.status()?.success() {
        Outcome::Passed(Tally::default())
    } else {
        Outcome::Failed(Tally::default())
    })
}

fn tidy_step() -> Step {
    let run = || {
        let violations = tidy::violations()?;
        tidy::print(&violations);
        Ok(if violations.is_empty() {
            Outcome::Passed(Tally::default())
        } else {
            Outcome::Failed(Tally::default())
        })
    };
    Step {
        name: "tidy",
        repeat: String::from("cargo xtask tidy"),
        run: Box::new(run),
    }
}

/// Nextest where it is installed: a process for each test, and limits on time.
fn tests() -> Step {
    let nextest = Child::cargo(["nextest", "run", "--workspace", "--color", "never"]);
    let plain = Child::cargo(["test", "--workspace", "--no-fail-fast"])
        // Not the documentation, which has its own step, and not the benchmarks.
        .args(["--lib", "--bins", "--tests", "--examples"]);
    let (child, runner) = if Child::cargo(["nextest", "--version"]).succeeds() {
        (nextest, Runner::Nextest)
    } else {
        (plain, Runner::Libtest)
    };
    counted("test", child, runner)
}

/// Each package with examples in its documentation costs a compiler run for each example; the
/// others cost a start for nothing, so they are not named.
fn doctests() -> anyhow::Result<Option<Step>> {
    let packages = doctests::packages(&tidy::tracked_files()?);
    if packages.is_empty() {
        return Ok(None);
    }
    let mut child = Child::cargo(["test", "--doc"]);
    for package in &packages {
        child = child.args(["--package", package]);
    }
    Ok(Some(counted("doctest", child, Runner::Libtest)))
}

/// Nextest's summary goes to stderr, that of libtest to stdout.
fn counted(name: &'static str, child: Child, runner: Runner) -> Step {
    let repeat = child.to_string();
    let run = move || {
        let watched = match runner {
            Runner::Nextest => Watched::Stderr,
            Runner::Libtest => Watched::Stdout,
        };
        let mut tally = Tally::default();
        let status = child.watch(watched, |line| tally += Tally::of_line(runner, line))?;
        Ok(if status.success() {
            Outcome::Passed(tally)
        } else {
            Outcome::Failed(tally)
        })
    };
    Step {
        name,
        repeat,
        run: Box::new(run),
    }
}

/// Advisories come over the network, and a machine without one must be able to pass: there, what
/// the lock file alone can tell is checked.
fn deny() -> Step {
    let check = Child::cargo(["deny", "check"]);
    let repeat = check.to_string();
    let run = move || {
        if !Child::cargo(["deny", "--version"]).succeeds() {
            return Ok(Outcome::Skipped(String::from(
                "cargo-deny is not installed",
            )));
        }
        if Child::cargo(["deny", "fetch"]).succeeds() {
            return judge(&check);
        }
        println!("no network: advisories are not checked");
        judge(&check.args(["bans", "licenses", "sources"]))
    };
    Step {
        name: "deny",
        repeat,
        run: Box::new(run),
    }
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
