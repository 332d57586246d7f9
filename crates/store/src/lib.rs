//! An in-memory object store with versions: snapshot reads, one writer, indices, a change feed and
//! the history of every object.
//!
//! # Owns
//! The tables of the ten kinds and their indices, transactions with compare-and-set, the rule that
//! names are unique, commits as lists of changes, subscriptions with filters, the bounded history,
//! and how commits and whole snapshots are written as bytes.
//!
//! # Does not own
//! Replication and durability: this crate does not know that it is replicated. It makes a commit
//! and publishes one; between the two, `swarm-raft-io` puts the commit through the log. It decides
//! nothing about tasks, nodes or services.
//!
//! # Invariants
//! * I-STORE-1: a published [`Root`] never changes; readers share it and never wait for the writer.
//! * I-STORE-2: every commit has a version one above the root it was made from.
//! * I-STORE-3: every index holds exactly the ids whose object has the value.
//! * I-STORE-4: a subscriber gets every matching change after its view, once, in order, or is told
//!   that it lagged.
//! * I-TASK-1 and I-TASK-2 are checked again on each write.
//!
//! # Start reading at
//! [`Root`], then [`Transaction`], then [`Store`].
//!
//! # SwarmKit counterpart
//! `manager/state/store`, `watch`. Intended differences: reads return shared objects instead of
//! copies; the version counts transactions; subscribers have bounded queues and are told when they
//! lagged; a write that would move a task state back is refused.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod encode;
mod error;
mod feed;
mod find;
mod history;
mod index;
mod map;
mod pipeline;
mod room;
mod root;
mod store;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod weight;
mod write;

pub use encode::{
    DecodeError, TaskEncoder, decode_commit, encode_commit, read_snapshot, snapshot_parts,
    write_snapshot,
};
pub use error::{FindError, StoreError};
pub use feed::{Event, Filter, Hub, Key, Received, SUBSCRIBER_CHANGES_MAX, Selector, Subscription};
pub use find::By;
pub use history::{Compacted, History, HistoryLimits};
pub use pipeline::{Applied, ApplyError, PIPELINE_COMMITS_MAX, Packed, Pipeline, Staged};
pub use room::{Fit, Oversize, Room};
pub use root::{Root, View};
pub use store::Store;
pub use transaction::{Action, Change, Commit, Transaction};
pub use weight::CHANGE_BYTES;
pub use write::{
    Conflict, ENTRY_BYTES_MAX, SET_BYTES_MAX, TRANSACTION_BYTES_MAX, TRANSACTION_CHANGES_MAX,
    Write, WriteSet, batches,
};
