//! The wire: messages, service stubs and the table of who may call which method.
//!
//! # Owns
//!
//! - The `.proto` files under `proto/`, written for this project from the wire specification.
//! - The Rust code generated from them, checked in under `src/gen/`. No build script runs and
//!   no protobuf compiler is needed to build the crate.
//! - `Debug` for the messages that hold secrets.
//! - [`authorization::METHODS`], the roles each method accepts, generated from the same files.
//!
//! # Does not own
//!
//! - Any meaning. Validation, defaults and conversions to domain types live in `swarm-types`
//!   and `swarm-control-api`; nothing here rejects a message that decodes.
//! - Transport, TLS and the authorization check itself.
//!
//! # Invariants
//!
//! - Names, numbers, types, packedness and oneofs equal the tables in `tests/tables/wire.txt`,
//!   in both directions.
//! - `src/gen/` equals what the `.proto` files generate. After an edit of a `.proto` file run
//!   `UPDATE_CODEGEN=1 cargo test -p swarm-api --test codegen`.
//! - Encoding is deterministic: maps are ordered.
//! - Enum fields are plain `i32`: a number added by a newer peer survives decode and encode.
//! - `Debug` prints no key, token, secret or log entry.
//! - An absent message and a present, empty one are both legal; readers treat them alike.
//!
//! # Start reading at
//!
//! `proto/swarmkit/objects.proto` for what is stored, `proto/swarmkit/dispatcher.proto` for
//! what reaches a worker, `tests/codegen/main.rs` for how the code is made.
//!
//! # SwarmKit counterpart
//!
//! `api/`. Differences: the raft payload types have only the fields that travel; fields marked
//! deprecated on the wire are ordinary fields in Rust, because they must be carried all the
//! same; the package [`ext`] is an addition of our own.
#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub use prost_types;

pub mod authorization;
#[cfg(feature = "grpc")]
pub mod codec;
mod generated;
mod redacted;
#[cfg(test)]
mod tests;

/// Everything in package `docker.swarmkit.v1`.
pub use generated::docker::swarmkit::v1;
/// Package `raftpb`: consensus messages and log entries as etcd encodes them.
pub use generated::raftpb;
/// Package `swarmkit_rs.v1`: services which SwarmKit does not have.
pub use generated::swarmkit_rs::v1 as ext;
