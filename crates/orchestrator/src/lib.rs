//! The loops that keep services as their specs say: how many tasks there are, which are replaced,
//! and when old ones are deleted.
//!
//! # Owns
//! Creation of tasks, their desired state, the REJECTED status of tasks that lost their place, and
//! deletion of tasks that nobody needs: [`replicated`] and [`global`] services, the [`restart`]
//! rules that both share, tasks whose service is gone ([`init`]), the [`reaper`], the
//! [`constraints`] enforcer, and the [`network_keys`] with which nodes encrypt among themselves.
//!
//! # Does not own
//! The choice of nodes (`swarm-scheduler`), networks and ports (`swarm-allocator`), the status of
//! tasks on nodes and the state of nodes (`swarm-dispatcher`, which also orphans the tasks of lost
//! nodes), and rolling updates: a task made from an older spec is left alone until it ends.
//!
//! # Invariants
//! * I-ORCH-1: a replica never has two live tasks (start-first updates will be the exception).
//! * I-ORCH-2: a loop remembers nothing. Delays, attempts, windows and "wait for the old task" are
//!   computed from the tasks in the store, of which the reaper keeps as many as that needs.
//! * I-ORCH-3: a step writes at most 200 objects and one transaction's bytes, then asks for more.
//! * I-LOOP-4: the caches of [`Replicated`], [`Global`], [`Init`] and [`Reaper`] equal what
//!   `resync` builds.
//!
//! # Start reading at
//! [`slot`] (what a replica is), then [`restart::verdict`], then [`Replicated`].
//!
//! # SwarmKit counterpart
//! `manager/orchestrator/*` but for jobs, volumes and updates. Intended differences: restart
//! history is not kept in memory (I-ORCH-2); history of scaled-away replicas is deleted when its
//! tasks have stopped, not under the agent; tasks of a deleted service are asked to leave, at
//! leader start as at any other time, and deleted by the reaper; sorts are stable. Each module
//! names its own.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod constraints;
#[cfg(test)]
mod converge;
pub mod global;
pub mod init;
pub mod network_keys;
mod plan;
pub mod reaper;
pub mod replicated;
pub mod restart;
pub mod roles;
pub mod slot;
mod slot_set;
pub mod task;
#[cfg(test)]
mod world;

pub use constraints::ConstraintEnforcer;
pub use global::Global;
pub use init::Init;
pub use network_keys::NetworkKeys;
pub use reaper::Reaper;
pub use replicated::Replicated;
pub use roles::Roles;
pub use swarm_types::dirty::is_dirty;
pub use task::new_task;
