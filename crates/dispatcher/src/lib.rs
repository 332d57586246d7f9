//! The manager's side of a node: sessions, heartbeats, assignments and the intake of statuses.
//!
//! # Owns
//! Who is registered in this leader's term; when a node counts as READY, UNKNOWN or DOWN; what each
//! node was told to run and the difference to what it should run; which reported statuses reach the
//! store, in which batches; when the tasks of a lost node count as orphaned.
//!
//! # Does not own
//! Where a task runs (`swarm-scheduler`), whether it should run (`swarm-orchestrator`), who may
//! call (the identity is an argument), streams and sockets (`swarm-manager`), and what the agent
//! does with an assignment (`swarm-agent`).
//!
//! # Invariants
//! * I-DISP-1: a node has at most one session, a session at most one stream of each kind; the older
//!   one ends with an error.
//! * I-DISP-2: an incremental message applies to the message sent before it on the same stream.
//! * I-DISP-3: what was sent equals the tasks of the node from ASSIGNED on, once the stream is
//!   idle.
//! * I-DISP-4: a status from a node changes only a task which is assigned to that node, and never
//!   moves its state back.
//! * I-DISP-5: a stream has at most one message under way, so a slow node costs no memory: what it
//!   missed is computed when it asks again.
//! * I-DISP-6: a secret or config goes out with its first user on the node, once.
//! * I-DISP-7: it is taken back with its last user.
//! * I-DISP-8: a task goes out with what it refers to, or waits for its driver. One that the node
//!   may have had before goes out at once: what the first message leaves out would be removed
//!   there.
//! * I-DISP-12: a node that was removed while it listened is told that it has no task, before its
//!   streams end.
//!
//! # Start reading at
//! [`Dispatcher`], then `assignments` and `intake`.
//!
//! # SwarmKit counterpart
//! `manager/dispatcher`. Intended differences: registration waits for a state instead of a signal
//! and cannot hang; a status that the store has already is not written again; messages about a
//! change of the node's own status are not sent; the orphan timer counts from the time which the
//! store has for the node, so a new leader does not start it anew; a refused write concerns one
//! task, not the whole pass; what has ended keeps the state in which it ended; grace timers start
//! when nodes can reach the new leader, not before; the first heartbeat of a session is answered
//! with any part of the period, so that nodes which come back together do not beat together;
//! registrations that wait for their write are bounded, and wait less than statuses do; nodes get
//! more time after the manager itself stood still; a node that is removed is told so.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allowance;
mod assignments;
mod bounds;
mod clones;
mod config;
mod dispatcher;
mod driven;
mod error;
mod expiry;
mod hostname;
mod intake;
mod lean;
mod nodes;
mod notices;
mod orphans;
mod pulse;
mod sessions;
mod statuses;
#[cfg(test)]
mod tests;
mod volumes;
mod wire;

pub use allowance::{REFRESH_BURST_BYTES, REFRESH_BYTES_PER_SECOND};
pub use assignments::{
    ASSIGNMENT_BATCH_CHANGES, ASSIGNMENT_BATCH_DELAY, ASSIGNMENT_MESSAGE_TASKS_MAX,
};
pub use bounds::{
    CutStatus, DESCRIPTION_PART_BYTES_MAX, HOSTNAME_BYTES_MAX, PLATFORM_BYTES_MAX,
    STATUS_CONTAINER_BYTES_MAX, STATUS_PORTS_BYTES_MIN, STATUS_TEXT_BYTES_MAX,
};
pub use config::{
    Config, GRACE_MULTIPLIER, HEARTBEAT_EPSILON, HEARTBEAT_PERIOD_MIN, SessionExtras,
    UNKNOWN_GRACE_MULTIPLIER,
};
pub use dispatcher::{
    Body, Dispatcher, FAREWELL_TIMEOUT, Message, PARDONS_MAX, SECRET_REQUESTS_MAX, STANDSTILL_MIN,
    SecretRequest, SecretRequestId, SessionOpen, SessionStart, Status, StreamId,
};
pub use driven::{SECRET_BYTES_LIMIT, SECRET_RETRY_MAX, SECRET_RETRY_MIN, SecretAnswer};
pub use error::{Code, DispatchError};
pub use intake::{NODE_BATCH_DELAY, UPDATE_BATCH_DELAY, UPDATE_BATCH_ITEMS, UPDATE_RETRY_DELAY};
pub use notices::{NOTICES_MAX, Notices};
pub use orphans::NODE_DOWN_PERIOD;
pub use pulse::Pulses;
pub use sessions::{
    RATE_LIMIT_COUNT, RATE_LIMIT_PERIOD, REGISTRATION_TIMEOUT, REGISTRATIONS_WAITING_MAX,
};
pub use wire::AssignmentsBytes;
