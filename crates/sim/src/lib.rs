//! A whole cluster in one thread under virtual time: the very loops, dispatcher, agents, fake
//! executors and log of production, with seeded faults, and checkers after each step.
//!
//! # Owns
//! The simulated machines, network, disks and clocks; the faults; what the user does; the list of
//! invariants and their checkers; the program that runs seeds.
//!
//! # Does not own
//! Any behaviour of the cluster. The order in which the pure machines are driven mirrors the shells
//! (`swarm-manager`, `swarm-raft-io`, `swarm-agent-io`); a difference between the two is a bug
//! here.
//!
//! # Invariants
//! * The same seed gives the same trace, byte for byte, in every process.
//! * `docs/invariants.md` lists what is checked.
//!
//! # Start reading at
//! `world` (the loop over events), then `check`, then `settings` for what a seed draws.
//!
//! # SwarmKit counterpart
//! `design/tla` states what must hold; there is no simulator.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod agenda;
mod check;
mod event;
mod faults;
mod identity;
mod invariants;
mod manager;
mod network;
mod node;
mod random;
mod reader;
mod runner;
mod settings;
mod standstill;
mod tell;
mod time;
mod trace;
mod user;
mod world;

pub use invariants::{ALL, Invariant, Violation};
pub use runner::{Report, run, run_many, run_with};
pub use settings::{Actions, FaultMode, Faults, Options, Scenario, Services, Settings};
pub use trace::Detail;
