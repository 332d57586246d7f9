//! The real thing: a stock Docker Engine as our worker, and machines with networks of their own.
//!
//! Owns the proof that what we serve is what others dereference. Each machine is a set of
//! namespaces with one process that holds them; when that process is killed, or the test is,
//! nothing of the machine is left: no process, no mount, no interface.
//!
//! Needs root and the packages that `.ci/run` installs. Without them the tests say what is missing
//! and pass, unless `SWARM_LIVE=required` is set.
//!
//! Start reading at [`lab`], then [`engine`] and [`works`].

#![allow(clippy::unwrap_used)]

mod created;
mod engine;
mod lab;
mod machine;
mod manager;
mod program;
mod renewal;
mod specs;
mod three_machines;
mod wait;
mod works;
