//! The executor with real processes: one file, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

#[path = "processes/adoption.rs"]
mod adoption;
#[path = "processes/ends.rs"]
mod ends;
#[path = "processes/health.rs"]
mod health;
#[path = "processes/limits.rs"]
mod limits;
#[path = "processes/runs.rs"]
mod runs;
#[path = "processes/world.rs"]
mod world;
