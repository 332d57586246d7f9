//! What a user may ask for: each request of the Control service as a pure function.
//!
//! A read is `(view, request) -> Result<response, Refusal>`. A write is
//! `(root, ctx, request) -> Result<Plan<response>, Refusal>` and is called *inside* the transaction
//! that will carry it, on the transaction's own root, so that what was checked still holds when it
//! is written:
//!
//! ```text
//! let request = check_new_service(request)?; // what needs no cluster, and may take long
//! let mut transaction = pipeline.begin(now);
//! let plan = create_service(&transaction, &mut ctx, request)?;
//! let reply = plan.apply(&mut transaction)?;
//! pipeline.stage(transaction); // answer with `reply` once the commit is durable
//! ```
//!
//! # Owns
//! The rules for requests, their order, the codes and the texts of refusals; list filters; what an
//! answer shows and what it hides.
//!
//! # Does not own
//! Transport, authorization, forwarding to the leader and the wait for a commit (`swarm-manager`);
//! what happens to an accepted spec (the loops).
//!
//! # Invariants
//! * I-CONTROL-1: a request is accepted whole or refused whole. What a later version will do is
//!   refused by name, never stored and ignored.
//! * I-CONTROL-2: no answer holds a private key, an unlock key, a gossip key or the data of a
//!   secret.
//! * I-CONTROL-3: lists are in the order of ids; equal inputs give equal answers.
//! * I-CONTROL-4: no request, however malformed, panics, and none costs more than a fixed number of
//!   passes over the stored objects.
//!
//! # Start reading at
//! [`create_service`] and [`update_service`], then the order of checks in `validate.rs`.
//!
//! # SwarmKit counterpart
//! `manager/controlapi`, `api/validation`. Intended differences: port conflicts and the need for
//! the ingress network are checked in the transaction that writes; enum numbers, port ranges,
//! rollback configs and named generic reservations are checked; replica counts and specs have an
//! upper bound; lists are ordered.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cluster;
mod config;
mod filter;
mod image;
mod node;
mod payload;
mod plan;
mod refusal;
mod request;
mod rpc;
mod secret;
mod service;
mod task;
#[cfg(test)]
mod tests;
mod up_to_date;
mod validate;

pub use cluster::{CaMaterial, decide_root, get_cluster, list_clusters, update_cluster};
pub use config::{
    CONFIG_BYTES_LIMIT, create_config, get_config, list_configs, remove_config, update_config,
};
pub use node::{Member, Members, get_node, list_nodes, remove_node, update_node};
pub use payload::{PAYLOAD_ENVELOPE_BYTES_MAX, PAYLOAD_NAME_BYTES_MAX, TEMPLATE_DRIVER};
pub use plan::Plan;
pub use refusal::{Class, Code, Refusal};
pub use request::SPEC_BYTES_MAX;
pub use rpc::{IMPLEMENTED, UNIMPLEMENTED, unimplemented};
pub use secret::{
    SECRET_BYTES_LIMIT, create_secret, get_secret, list_secrets, remove_secret, update_secret,
};
pub use service::{
    Checked, check_changed_service, check_new_service, create_service, get_service,
    list_service_statuses, list_services, remove_service, update_service,
};
pub use task::{get_task, list_tasks, remove_task};
pub use validate::{
    CPU_NANOS_MIN, ENDPOINT_BYTES_MAX, HEALTH_NANOS_MIN, MEMORY_BYTES_MIN, NAME_BYTES_MAX,
    REPLICAS_MAX,
};
