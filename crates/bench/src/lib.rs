//! Benchmarks: the workloads that Go SwarmKit ships, with the same sizes and the same thing inside
//! the timed part, and ratios inside our own build that must not grow.
//!
//! # Owns
//! The workloads, the recorded Go figures, the bars, and the runner that prints them side by side.
//!
//! # Does not own
//! Anything that a user runs. No other crate depends on this one.
//!
//! # Invariants
//! * The sizes of a row and what its clock covers equal those of the Go benchmark of that name.
//! * Randomness comes from fixed seeds, so that two runs measure the same work.
//!
//! # Start reading at
//! [`runner`], then [`store`].
//!
//! # SwarmKit counterpart
//! `manager/state/store/memory_test.go`, `watch/watch_test.go`, `remotes/remotes_test.go` and
//! `manager/scheduler/scheduler_test.go`, the benchmarks in them.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod instructions;
pub mod memory;
pub mod remotes;
pub mod resident;
pub mod runner;
pub mod scheduler;
pub mod store;
pub mod watch;
pub mod world;
