//! The agent on a real machine: its connection, its database, its controllers.
//!
//! # Owns
//! The task database, the calls to a manager, the controllers of the executor and the tasks that
//! run their operations, the streams on which output is published; which manager is dialled.
//!
//! # Does not own
//! What to call, run or store next: `swarm-agent` decides, and is tested in the simulator.
//!
//! # Invariants
//! * A status leaves this node only after it is in the database, but for the end of a task while
//!   the database cannot be written.
//! * A dropped operation is a cancelled operation; the program that it started lives on.
//! * Ending the agent never ends a task; removing its node ends them all.
//!
//! # Start reading at
//! [`Runner::run`].
//!
//! # SwarmKit counterpart
//! `agent/agent.go`, `agent/session.go`, `agent/worker.go`, `agent/storage.go`, `remotes`. Intended
//! difference: one task owns the whole agent, so there is no lock and no ordering to get wrong.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod calls;
mod db;
mod lost_lines;
mod publications;
mod publish;
mod remotes;
mod runner;
mod skew;
mod told;

pub use db::{DbError, Lost, Opened, TaskDb};

pub use remotes::Remotes;
pub use runner::{Config, Removed, RunError, Runner};
pub use skew::CLOCK_SKEW_MAX;
pub use told::Told;
