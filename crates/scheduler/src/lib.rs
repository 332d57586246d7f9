//! Places tasks: filters, spread preferences, node ranking, and the reasons why nothing fits.
//!
//! # Owns
//! The choice of a node for a task that waits for one, the confirmation of a node that an
//! orchestrator chose, the claim on generic resources, the step from PENDING to ASSIGNED, and the
//! text that says why a task has to wait.
//!
//! # Does not own
//! How many tasks there are (the orchestrators), networks and ports (the allocator), and what
//! becomes of a task whose node stops fitting (the constraint enforcer). Cluster volumes have no
//! home yet: a task that mounts one waits, and its status says so.
//!
//! # Invariants
//! * I-SCHED-1: no task is placed on a node that a filter rejects.
//! * I-SCHED-2: reservations of the tasks on a node never exceed what the node describes, host
//!   ports are never shared, and replicas per node stay within their limit.
//! * I-SCHED-3: each placement requires the node as it was judged; a node that changed meanwhile
//!   refuses that placement and no other.
//! * I-SCHED-4: the cost of placing a task does not depend on the number of nodes beyond a
//!   logarithm; judging all nodes happens once per kind of task.
//! * I-LOOP-4: [`Scheduler::check_cache`] compares the cache with one built from the view. Recent
//!   failures are the exception: they are not in the store.
//!
//! # Start reading at
//! [`Scheduler`], then `cluster` (the cache), `candidates` (the order of nodes for one kind of
//! task), `plan` (one transaction).
//!
//! # SwarmKit counterpart
//! `manager/scheduler`. Intended differences:
//! * The order of nodes is kept between passes instead of being rebuilt for each group.
//! * Each task goes to the best node at that moment, ties by id, so that counts end level; SwarmKit
//!   walks a sorted list once and can leave them uneven.
//! * Explanations count every node that a filter rejected, also when some node fitted earlier.
//! * Host ports are counted, so that one of two holders may leave.
//! * A task that waits and is no longer wanted is stopped at once, not only when nothing fits it.
//! * Failures of tasks without a service say nothing about other tasks, and are not recorded.
//! * Whether a task came with its node is read from its service's mode instead of being remembered,
//!   so that it holds after a change of leader.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod candidates;
mod cluster;
mod counts;
mod due;
mod explain;
mod failures;
mod filter;
mod layered;
mod load;
mod node_log;
mod numbered;
mod plan;
mod pool;
mod requirements;
mod scheduler;
mod seating;
mod waiting;

pub use cluster::CacheDrift;
pub use explain::{Nearest, Rejection, Report, explain};
pub use failures::{FAILURE_WINDOW, FAILURES_MIN};
pub use filter::Filter;
pub use scheduler::{DEBOUNCE_MAX, DEBOUNCE_QUIET, Key, Scheduler};

#[cfg(test)]
mod tests;
