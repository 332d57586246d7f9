//! The replicated log on a real machine: files, a thread, a queue.
//!
//! # Owns
//!
//! - The files behind the log and the snapshots ([`disk`]), the data key ([`keys`]) and the lock on
//!   the state directory ([`state_dir`]).
//! - The thread that drives consensus, and the handle to propose through ([`driver`]).
//!
//! # Does not own
//!
//! - Any rule about order, durability, repair or membership: `swarm-raft` decides, and is tested
//!   there with a disk that fails.
//! - What an entry means: that is behind [`driver::Apply`].
//!
//! # Invariants
//!
//! - A proposer is told "applied" only after its entry is durable and applied.
//! - When the disk is full, proposals are refused with the reason and reads go on.
//! - A failed sync ends the thread; nothing is acknowledged after it. So does a state directory
//!   that was removed, renamed or replaced.
//! - One process per state directory.
//!
//! # Start reading at
//!
//! [`driver`], then its `worker`.
//!
//! # SwarmKit counterpart
//!
//! `manager/state/raft/raft.go` and `storage.go`. Differences: proposals that wait together share
//! one sync; snapshots are written beside the raft thread and in pieces; a full disk is a refusal
//! and not the end of the manager.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod disk;
pub mod driver;
pub mod keys;
pub mod replicated;
pub mod state_dir;

pub use driver::{Apply, Handle, Options, start};
pub use replicated::{LogStopped, OpenError, ReplicatedConfig, ReplicatedStore, WriteError};
pub use state_dir::StateDir;
