//! `swarmd` as its users have it: real processes, real sockets, real files.
//!
//! Owns the proof that a cluster of processes does what it promises when processes are killed,
//! disks fill up and sockets get garbage. Does not own what the simulator and the tests of the
//! crates show already.
//!
//! Start reading at [`cluster`], then [`service`].

#![allow(clippy::unwrap_used)]

mod cluster;
mod daemon;
mod damage;
mod dev;
mod external_ca;
mod few_files;
mod full_disk;
mod identity;
mod joining;
mod kills;
mod leaving;
mod locking;
mod log_output;
mod logs;
mod manager_kills;
mod metrics;
mod nodes;
mod processes;
mod refusals;
mod secrets;
mod service;
mod sockets;
mod specs;
