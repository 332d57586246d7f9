//! `swarm-load`: opens thousands of simulated agents against one manager and measures it.
//!
//! Owns the method of `performance.md` 9: real connections, the real protocol, the same steps and
//! the same clocks, with the recorded Go figures and the bars beside ours. Refuses to own any part
//! of what ships: agents here are a few hundred lines which follow the wire, not our own agent.
//!
//! One process plans, starts the manager and reads its books ([`run`]); a few others hold the
//! agents ([`fleet`]) and take orders over their standard input ([`orders`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agent;
mod bars;
mod books;
mod cluster;
mod fleet;
mod gates;
mod grpc;
mod grpc_go;
mod limits;
mod manager;
mod options;
mod orders;
mod processes;
mod report;
mod run;
mod steps;
mod tally;
mod transport;

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    let options = options::Options::parse();
    let ended = limits::raise_open_files().and_then(|()| match options.command {
        Some(options::Command::Fleet(fleet)) => fleet::main(&fleet).map(|()| ExitCode::SUCCESS),
        None => run::main(&options.run),
    });
    ended.unwrap_or_else(|error| {
        anstream::eprintln!("swarm-load: {error:#}");
        ExitCode::FAILURE
    })
}
