//! `swarmctl`, the command line of a cluster: arguments, one connection, and what people read.
//!
//! Owns the flags, the tables and JSON documents, the wait for a service to converge, and the exit
//! codes (`docs/exit-codes.md`). Decides nothing about the cluster: every rule is the manager's.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ca;
mod cli;
mod cluster;
mod connect;
mod failure;
mod later;
mod logs;
mod lookup;
mod node;
mod output;
mod payload;
mod probe;
mod service;
mod table;
mod task;
mod tokens;
mod units;
mod unlock;
mod view;
mod why;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use clap::error::{ContextKind, ErrorKind};

use cli::{Cli, Command};
use failure::Failure;

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| without_tips(error).exit());
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _nobody_to_tell = std::io::stderr().write_all(failure.text().as_bytes());
            ExitCode::from(failure.exit() as u8)
        }
    }
}

/// Takes away what is only a guess: it would pass a mistyped flag on to the program of a service,
/// or name another verb that sounds alike.
fn without_tips(mut error: clap::Error) -> clap::Error {
    for kind in [
        ContextKind::Suggested,
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
    ] {
        error.remove(kind);
    }
    if error.kind() == ErrorKind::UnknownArgument {
        // It shows the guess as if it had to be given.
        error.remove(ContextKind::Usage);
    }
    error
}

fn run(cli: Cli) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::refused(format!("the runtime does not start: {error}")))?;
    runtime.block_on(dispatch(cli))
}

async fn dispatch(cli: Cli) -> Result<(), Failure> {
    let context = output::Context::new(&cli)?;
    match cli.command {
        Command::Cluster(command) => cluster::run(&context, command).await,
        Command::Node(command) => node::run(&context, command).await,
        Command::Service(command) => service::run(&context, command).await,
        Command::Task(command) => task::run(&context, command).await,
        Command::Why(command) => why::run(&context, command).await,
        Command::Version => output::emit(&format!("swarmctl {}\n", env!("CARGO_PKG_VERSION"))),
        Command::Network(_) => Err(later::noun("network", later::NO_NETWORKS)),
        Command::Secret(command) => payload::run_secret(&context, command).await,
        Command::Config(command) => payload::run_config(&context, command).await,
    }
}
