//! The contract between the agent and whatever runs tasks.
//!
//! # Owns
//! The traits [`Executor`] and [`Controller`], the eight [`Operation`]s of a controller with the
//! [`Report`] that each of them ends in, the errors ([`ExecError`]) with what the agent must do
//! about each, the output of tasks ([`logs`]), and [`fake`]: an executor that is a scripted, seeded
//! state machine.
//!
//! # Does not own
//! Which operation comes next (`swarm-agent`), how a program is started (`swarm-executor-native`),
//! and any runtime: the futures here are boxed standard-library futures, and nothing in this crate
//! waits, reads a clock or draws a random number by itself.
//!
//! # Invariants
//! * A future of a controller may be dropped at any point; calling the operation again continues
//!   where it was. Operations that were already done answer [`ExecError::AlreadyPrepared`] or
//!   [`ExecError::AlreadyStarted`], which the agent counts as success.
//! * Closing or dropping a controller never ends the task: tasks survive their agent.
//! * Errors and reports are plain data, so a simulator and a real agent treat them alike.
//!
//! # Start reading at
//! [`contract`], then [`error`], then [`fake`].
//!
//! # SwarmKit counterpart
//! `agent/exec` and `agent/testutils`. Intended differences: an executor can list what it already
//! runs ([`Executor::recover`]), so orphans are found; a controller says which limits it could not
//! apply ([`Controller::warnings`]); errors are one closed enum instead of interface probing.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod contract;
pub mod dependencies;
pub mod error;
pub mod fake;
pub mod logs;

pub use contract::{BoxFuture, Controller, Executor, Operation, Recovery, Report};
pub use dependencies::Dependencies;
pub use error::{ErrorClass, ExecError};
pub use logs::{LineFilter, LogLine, LogOptions, LogOrigin, LogStream, Tail};
