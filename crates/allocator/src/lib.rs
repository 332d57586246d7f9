//! Allocation: published ports, the ingress network with its addresses, the predefined networks,
//! and the step of tasks from NEW to PENDING.
//!
//! # Owns
//! The endpoint of a service, the copy of it on tasks, the numbers of published ports, virtual
//! addresses; driver state and subnets of the ingress and the predefined networks; the attachments
//! of tasks and nodes; the status of a task until it is PENDING, with the reason when it cannot get
//! there.
//!
//! # Does not own
//! Overlay networks of users, which are not supported yet: a task whose spec names one stays NEW
//! and says so. Host ports (`swarm-scheduler` keeps apart what shares a node), validation of
//! requests (`swarm-control-api`).
//!
//! # Invariants
//! * I-ALLOC-1: no two services hold the same INGRESS port of a protocol.
//! * I-ALLOC-2: a task is PENDING only after its service's endpoint agreed with its spec.
//! * I-ALLOC-3: a task that stays NEW has the reason in its status.
//! * I-ALLOC-4: no two of services, nodes and tasks that have not ended hold the same address.
//! * I-ALLOC-5: an attachment holds the whole network with driver state and address driver.
//! * I-LOOP-4: the cache is a function of the store, but for where the search for the next address
//!   begins.
//!
//! # Start reading at
//! [`ports::allocate`], then [`Allocator`].
//!
//! # SwarmKit counterpart
//! `manager/allocator`, and the allocator of the Docker Engine (`libnetwork/cnmallocator`).
//! Intended differences: no votes (there is one voter); whoever is parked is retried when what it
//! waits for changes instead of every five minutes, and tasks say why they wait; a change costs
//! O(log n), where Go reads all tasks of a node again; bad ports are refused where Go panics; only
//! nodes that have the overlay driver get an address on ingress. See also [`ports`].

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod addresses;
mod allocator;
mod attachments;
mod cache;
mod networks;
mod pass;
pub mod ports;
mod subnet;

pub use allocator::{Allocator, Key, PENDING_MESSAGE, PORTS_ERR_PREFIX};
pub use cache::{ADDRESSES_ERR_PREFIX, is_waiting};
pub use networks::{NetworkError, POOL_DEFAULT, SUBNET_SIZE_DEFAULT, VXLAN_ID_FIRST};
