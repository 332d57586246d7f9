//! Allocation: published ports of services, and the step of tasks from NEW to PENDING.
//!
//! # Owns
//! The endpoint of a service, the copy of it on tasks, the numbers of published ports, and the
//! status of a task until it is PENDING, with the reason when it cannot get there.
//!
//! # Does not own
//! Networks, addresses and load-balancer attachments, which are not supported yet: a task whose
//! spec has networks stays NEW and says so. Host ports (`swarm-scheduler` keeps apart what shares a
//! node), validation of requests (`swarm-control-api`).
//!
//! # Invariants
//! * I-ALLOC-1: no two services hold the same INGRESS port of a protocol.
//! * I-ALLOC-2: a task is PENDING only after its service's endpoint agreed with its spec.
//! * I-ALLOC-3: a task that stays NEW has the reason in its status.
//! * I-LOOP-4 holds trivially: there is no cache.
//!
//! # Start reading at
//! [`ports::allocate`], then [`Allocator`].
//!
//! # SwarmKit counterpart
//! `manager/allocator`. Intended differences: no votes (there is one voter); a parked service is
//! retried when what it waits for changes instead of every five minutes, and its tasks say why they
//! wait; bad ports are refused where Go panics. See also [`ports`].

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocator;
pub mod ports;

pub use allocator::{Allocator, Key, NETWORKS_ERR, PENDING_MESSAGE, PORTS_ERR_PREFIX, is_waiting};
