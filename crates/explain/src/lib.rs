//! Says in words why a service, a task or a node is in the state it is in.
//!
//! # Owns
//! The answer to `Explain.Why`: which object is meant, one sentence, the reasons behind it with
//! their times, when the manager tries again by itself, and what an operator can do.
//!
//! # Does not own
//! Any rule. Each reason is a verdict of the crate that decides: `swarm-scheduler` for nodes that
//! do not fit, `swarm-orchestrator` for restarts and eligibility; errors of the allocator and the
//! agents stand on the tasks. Does not own the wire either (`swarm-manager`).
//!
//! # Invariants
//! * An answer is read off one view and a time; the same two give the same answer.
//! * An answer is bounded: reasons, names in a reason and next steps have limits, however many
//!   tasks there are, and the scheduler is asked once for each reason.
//! * A next step that names an object was tried on a copy of it, and helped.
//! * Codes of reasons never change their meaning; texts may.
//!
//! # Start reading at
//! [`why`], then `cause` (what one task waits for), then `service`.
//!
//! # SwarmKit counterpart
//! None. SwarmKit leaves one string on a task, and no time, cause or next step anywhere else.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cause;
mod dependency;
mod finding;
mod health;
mod node;
mod place;
mod resolve;
mod revive;
mod service;
mod task;
#[cfg(test)]
mod tests;
mod trial;
mod words;

use swarm_api::ext;
use swarm_store::Root;
use swarm_types::{NodeId, Timestamp};

pub use finding::Code;
pub use resolve::{CANDIDATES_MAX, Candidate, Subject, Unanswered};
pub use service::REASONS_MAX;

/// Explains one object: id first, then name, then a beginning that only one id has. Without a kind
/// the object may be of any. `own` is the node of the manager that answers.
///
/// All times are computed from the view, since the loops keep nothing else (I-ORCH-2), so no timer
/// is asked.
///
/// # Errors
/// [`Unanswered`] when nothing or more than one thing is meant.
pub fn why(
    view: &Root,
    now: Timestamp,
    own: Option<&NodeId>,
    subject: Option<Subject>,
    object: &str,
) -> Result<ext::WhyResponse, Unanswered> {
    Ok(match resolve::resolve(view, subject, object)? {
        resolve::Found::Service(it) => service::explain(view, now, &it),
        resolve::Found::Task(it) => task::explain(view, now, &it),
        resolve::Found::Node(it) => node::explain(view, now, own, &it),
    })
}

/// Adds to the answer about a manager's own node that its key file is not sealed as the cluster
/// wants it, and why: the store does not know that.
pub fn add_unsealed(answer: &mut ext::WhyResponse, error: &str) {
    finding::add(answer, node::unsealed(error));
}
