//! `cargo xtask`: everything that is done to this repository by command.
//!
//! Owns the command line and nothing else: each command is a module. Never part of what ships.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for a terminal"
)]

mod child;
mod ci;
mod tidy;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};

use child::Child;

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "Build, check and measure this repository"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that a change must pass, in the order of what fails fastest.
    Ci,
    /// The house rules that the compiler does not know.
    Tidy,
    /// Run the simulator; every argument is passed on to it.
    #[command(disable_help_flag = true)]
    Sim(PassedOn),
    /// Run the benchmarks; arguments are passed on to `cargo bench`.
    #[command(disable_help_flag = true)]
    Bench(PassedOn),
}

#[derive(Args)]
struct PassedOn {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    let root = workspace_root();
    std::env::set_current_dir(&root).with_context(|| format!("enter {}", root.display()))?;
    match command {
        Command::Ci => ci::run(),
        Command::Tidy => tidy::run(),
        Command::Sim(passed_on) => sim(&passed_on.args).exit_code(),
        Command::Bench(passed_on) => bench(&passed_on.args).exit_code(),
    }
}

/// The simulator, built for speed: seeds are counted in thousands.
fn sim(args: &[String]) -> Child {
    Child::cargo([
        "run",
        "--quiet",
        "--release",
        "--package",
        "swarm-sim",
        "--",
    ])
    .args(args)
}

/// `--gates` runs the scaling gates; anything else is for `cargo bench`.
fn bench(args: &[String]) -> Child {
    let rest: Vec<String> = args
        .iter()
        .filter(|arg| *arg != "--gates")
        .cloned()
        .collect();
    if rest.len() == args.len() {
        return Child::cargo(["bench", "--package", "swarm-bench"]).args(&rest);
    }
    Child::cargo(["run", "--quiet", "--release", "--package", "swarm-bench"])
        .args(["--bin", "gates", "--"])
        .args(&rest)
}

/// The directory above this package. Cargo names it at run time, so that a moved checkout works.
fn workspace_root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map(PathBuf::from).unwrap_or(package)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(String::from).collect()
    }

    #[test]
    fn command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn sim_gets_every_argument_even_help() {
        let cli = Cli::try_parse_from(["xtask", "sim", "--seed", "7", "--help"]).unwrap();
        let Command::Sim(passed_on) = cli.command else {
            panic!("not sim")
        };
        assert_eq!(passed_on.args, words("--seed 7 --help"));
    }

    #[test]
    fn gates_choose_the_gates_program() {
        let check = |args: &str, expected: &str| {
            assert_eq!(bench(&words(args)).to_string(), expected);
        };
        check("", "cargo bench --package swarm-bench");
        check(
            "--bench store",
            "cargo bench --package swarm-bench --bench store",
        );
        let gates = "cargo run --quiet --release --package swarm-bench --bin gates --";
        check("--gates", gates);
        check("--gates --nodes 9", &format!("{gates} --nodes 9"));
    }
}
