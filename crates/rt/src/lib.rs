//! What every shell needs of the machine: clock, ids, supervised tasks, shutdown, sockets, logs.
//!
//! # Owns
//! The only places where the clock is read, random bytes are drawn, tasks are spawned and sockets
//! are opened. [`net`] has the addresses and who calls, [`tls`] the connections between nodes, and
//! [`metrics`] the figures that a node shows; [`lanes`] are threads for many quiet connections, and
//! [`files`] are what all of these use up. [`private`] makes files and directories that nobody else
//! may read, and [`dumps`] keeps memory out of core dumps.
//!
//! # Does not own
//! Any decision. A shell asks a pure crate what to do and comes here to do it.
//!
//! # Invariants
//! * The clock never goes back within a process.
//! * Every task is supervised: what happens when it fails is said where it is spawned.
//! * Every wait for a connection has a deadline.
//!
//! # Start reading at
//! [`tasks`], then [`net`] and [`tls`].
//!
//! # SwarmKit counterpart
//! `xnet`, `connectionbroker`, `log`, `identity`, `ca/transport.go`. Intended difference:
//! goroutines are replaced by tasks whose end is always noticed.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod clock;
mod crowd;
pub mod dumps;
pub mod files;
pub mod lanes;
pub mod logging;
pub mod metrics;
pub mod net;
mod notices;
pub mod plugin;
pub mod private;
pub mod random;
pub mod shutdown;
pub mod socket_path;
pub mod tasks;
pub mod tls;

pub use clock::Clock;
pub use logging::chain;
pub use random::OsIds;
pub use shutdown::Shutdown;
pub use tasks::{OnError, Tasks};
