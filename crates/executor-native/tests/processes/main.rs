//! The executor with real processes: one file, so that it is linked once.

#![allow(clippy::unwrap_used, clippy::disallowed_methods, clippy::print_stderr)]

mod adoption;
mod ends;
mod health;
mod leftovers;
mod limits;
mod payloads;
mod runs;
mod standstill;
mod world;
