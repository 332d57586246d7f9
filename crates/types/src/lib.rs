//! The domain vocabulary: ids, versions, times, task states and the ten stored objects.
//!
//! # Owns
//! Every noun that crosses a crate boundary, the rules that hold for a single value (a task state
//! never goes back, an id has one canonical form, a constraint parses or is refused), the default
//! values, and the conversions to and from the wire messages of `swarm-api`.
//!
//! # Does not own
//! Rules that need two objects (`swarm-store`, the loops), validation of user requests
//! (`swarm-control-api`), and anything that reads a clock, a random source, a file or a socket.
//!
//! # Invariants
//! * I-TASK-1: the observed state of a task never decreases; [`Task::advance`] is the only mutator.
//! * I-TASK-2: the desired state of a task never decreases; [`Task::set_desired`] is the only
//!   mutator.
//! * A user's spec is kept as the wire message, unmodified, behind an `Arc` (see
//!   `docs/adr/0001-wire-specs-shared-inside-objects.md`).
//!
//! # Start reading at
//! [`task`], then [`objects`] and [`id`].
//!
//! # SwarmKit counterpart
//! `api` (without the generated part), `identity`, `manager/constraint`, `api/genericresource`,
//! `api/naming`, `api/defaults`, `template`. Intended differences: ids are a packed value type
//! instead of strings; timestamps are a single integer of nanoseconds; states are an ordered enum
//! whose mutators refuse to go back; templates are bounded.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod conditions;
pub mod constraint;
pub mod convert;
pub mod defaults;
pub mod dirty;
pub mod engine;
pub mod id;
pub mod kind;
pub mod naming;
pub mod native;
pub mod networks;
pub mod objects;
pub mod printable;
pub mod resources;
pub mod spec;
pub mod state;
pub mod task;
pub mod template;
pub mod text;
pub mod time;
pub mod timers;
pub mod weights;

pub use id::{
    CanonicalId, ClusterId, ConfigId, ExtensionId, Id, IdSource, NetworkId, NodeId, ResourceId,
    SecretId, ServiceId, SessionId, TaskId, VolumeId,
};
pub use kind::Kind;
pub use objects::{
    AnyObject, Cluster, Config, Extension, Meta, Network, Node, NodeState, NodeStatus, Object,
    Resource, Secret, Service, ServiceSpec, Slot, UpdateStatus, Version, Volume,
};
pub use state::{StateRegression, TaskState};
pub use task::{LEFT_BEHIND, Task, TaskBody, TaskStatus};
pub use text::Text;
pub use time::Timestamp;
pub use timers::Timers;
