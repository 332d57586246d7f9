//! An example of an external certificate authority for a cluster (CFSSL's protocol).
//!
//! # Owns
//! A root with its key in a directory of its own, the HTTPS endpoint that managers ask, and the
//! rules of who gets what: only managers of one cluster are answered, and what they may ask for is
//! a certificate of a node of their own cluster.
//!
//! # Does not own
//! What a certificate of a node contains; that is `swarm-ca`'s, as for the cluster's own authority.
//!
//! # Invariants
//! * Nobody without a certificate of a manager of the cluster gets an answer.
//! * Of a request, only the public key and the id and role of the node reach a certificate.
//! * Another root is signed only if the server was started for that.
//!
//! # Start reading at
//! `Authority::sign`, then [`Server`].
//!
//! # SwarmKit counterpart
//! `cmd/external-ca-example` and `ca/testutils/externalutils.go`. Intended differences: it is a
//! program to run, not a test's helper: it keeps its root, and it refuses other clusters.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod authority;
mod http;
mod request;
mod server;

pub use authority::{Authority, ClientRule, FirstManager};
pub use server::{Options, Server};
