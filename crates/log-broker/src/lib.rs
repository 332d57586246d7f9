//! Who must send which lines to whom: subscriptions to the output of tasks, on the leader.
//!
//! # Owns
//! Which nodes have to publish for a subscription, what each listening node is told, when a
//! subscription is complete and what is missing from it, which published messages are refused, and
//! the limits of all this.
//!
//! # Does not own
//! The lines themselves: they go from the stream of a publisher straight into the bounded queue of
//! the subscriber, which the shell has (`swarm-manager`). Which lines of a task are sent is the
//! node's business (`swarm-agent`); who may call is decided before (`swarm-manager`).
//!
//! # Invariants
//! * I-LINES-1: a subscription that does not follow ends when each of its nodes has ended its part;
//!   each part has a deadline or a stream that is watched, so the end always comes.
//! * I-LINES-2: whatever is missing at that end is named in the error, and nothing else is.
//! * I-LINES-3: a listener is told once of a subscription, and of its end only after that.
//! * I-LINES-4: a listener has at most one message under way, so a slow node costs no memory.
//! * I-LINES-5: a node publishes only for subscriptions that asked it, and only in its own name.
//!
//! # Start reading at
//! [`Broker`], then `subscription`.
//!
//! # SwarmKit counterpart
//! `manager/logbroker`. Intended differences: nodes named by id are counted like others (the Go
//! leader panics); a node that listens and never publishes ends by a deadline; a follower of logs
//! hears of nodes that went missing, in messages whose stream is unknown, which older clients skip;
//! the number of subscriptions and of ids in a selector is limited; a selector that names a service
//! or a task which does not exist is refused; a node that was not asked cannot publish.

#![warn(missing_docs)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod broker;
mod error;
mod listeners;
mod publication;
mod request;
mod subscription;
#[cfg(test)]
mod tests;

pub use broker::{
    Accepted, Broker, ListenerId, Output, PUBLISH_DEADLINE, PUBLISH_SILENCE_MAX, PublisherId,
    SUBSCRIPTIONS_MAX, Status,
};
pub use error::{BrokerError, Code};
pub use publication::Publication;
pub use request::{SELECTOR_IDS_MAX, SubscriptionId};
