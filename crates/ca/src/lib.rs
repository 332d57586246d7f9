//! Who may be in the cluster: certificates, join tokens, key files.
//!
//! # Owns
//! The form of root and node certificates and how they are signed, checked and cross-signed; join
//! tokens; the file that a node's key is kept in; the messages that an external CA is asked with.
//!
//! # Does not own
//! Connections (`swarm-rt`), files (`swarm-node`), and who is asked when (`swarm-manager`). Time,
//! serial numbers, salts and secrets are arguments. Keys and the numbers inside signatures are
//! drawn by `ring`, which takes no other source (`docs/adr/0008-keys-are-drawn-inside-ring.md`).
//!
//! # Invariants
//! * What a requester wrote into a request never reaches a certificate, except its public key.
//! * Bytes that come from outside never make this crate panic.
//! * Private keys and secrets of tokens are not in the output of `Debug`, nor in errors.
//! * The text of a root bundle is kept byte for byte, because join tokens hold its digest.
//!
//! # Start reading at
//! [`issue`], then [`chain`], [`root`] and [`token`].
//!
//! # SwarmKit counterpart
//! `ca` (`certificates.go`, `config.go`, `keyreadwriter.go`, `external.go`, `pkcs8`, `keyutils`).
//! Intended differences: P-521 keys and ECDSA with SHA-512 are refused, because `ring` has neither;
//! an old key file that is encrypted in the form of RFC 1423 is refused with the way out.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod advice;
pub mod authorization;
pub mod certificate;
pub mod cfssl;
pub mod chain;
pub mod change;
pub mod cross;
pub mod csr;
pub mod expiry;
pub mod identity;
pub mod issue;
pub mod issuer;
pub mod key;
pub mod keyfile;
pub mod pem;
pub mod policy;
mod refusal;
pub mod renewal;
pub mod requests;
pub mod root;
pub mod rotation;
pub mod server;
pub mod status;
pub mod token;
pub mod tokens;
pub mod unlock;
pub mod waiting;

mod encode;
#[cfg(test)]
mod world;

pub use refusal::{Code, Refusal};

/// The subject of every root that this crate makes, and the name that a node without certificate
/// asks for.
pub const CA_NAME: &str = "swarm-ca";
/// The role of managers in certificates, and the name under which nodes dial them.
pub const MANAGER_ROLE: &str = "swarm-manager";
/// The role of workers in certificates.
pub const WORKER_ROLE: &str = "swarm-worker";
