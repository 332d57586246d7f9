//! The consensus core and the formats of its files: bytes in, bytes out.
//!
//! # Owns
//!
//! - The consensus state machine behind [`Core`]: ticks, messages and proposals in; entries to
//!   persist, messages to send and entries to apply out. The checks that stand between a peer's
//!   message and that machine.
//! - The log on disk ([`log`]), the snapshot files ([`snapshot`]), how they are sealed ([`seal`])
//!   and what may be repaired after a crash.
//! - [`Member`], which puts these together in the only safe order.
//!
//! # Does not own
//!
//! - What an entry means: data is bytes from proposal to apply.
//! - Files, threads, clocks, sockets, random numbers: a [`disk::Disk`], ticks, messages, seeds and
//!   salts are arguments. The machine's side is `swarm-raft-io`.
//! - Who may be a member. The sender of a message is checked against ids that were handed in.
//!
//! # Invariants
//!
//! - An entry is acknowledged only after it is durable, and is applied in log order, once.
//! - What was durable is read back, or the start is refused with file and offset.
//! - A sync that failed is final. No nonce is ever used twice under one key.
//! - No byte from a peer or a disk can panic this crate, and none reaches the protobuf 2 parser.
//! - Everything is deterministic: same seed, same calls, same result.
//!
//! # Start reading at
//!
//! [`member`] for the order of things, then [`consensus`], then [`log`].
//!
//! # SwarmKit counterpart
//!
//! `manager/state/raft` and `manager/state/raft/storage`, `manager/encryption`. Differences: the
//! files are our own format, because etcd's cannot tell a torn write from a wrong key and syncs a
//! growing file; every record is sealed with its place in the log; a message is checked before
//! the consensus library sees it, because that library panics on some of what a peer can send;
//! snapshots are streamed in chunks.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cache;
mod checks;
pub mod consensus;
mod convert;
pub mod disk;
pub mod log;
pub mod member;
mod mix;
pub mod seal;
pub mod simdisk;
pub mod snapshot;

pub use checks::MessageError;
pub use consensus::{Committed, Core, Payload, Refusal, Role};
pub use log::{Identity, LogError, Position};
pub use member::{Member, MemberConfig, MemberStart};
