//! What the planning process and those that hold agents say to each other: one JSON object a line.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// From the planning process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Order {
    /// All agents join, so many at the same time.
    Join {
        /// At the same time.
        at_once: usize,
        /// The join token; empty where the manager takes nodes without certificates.
        token: String,
    },
    /// So many agents vanish for good.
    Vanish {
        /// How many.
        agents: usize,
    },
    /// All agents lose their connection and come back.
    Reconnect,
    /// All agents renew their certificates.
    Renew,
    /// From now on agents are counted that were told this period.
    Period {
        /// In milliseconds.
        millis: u64,
    },
    /// Hand over the times that were collected, and begin anew.
    Times,
}

/// To the planning process.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) enum Notice {
    /// The newest counts; sent when they have changed, at most every [`COUNTS_EVERY_MILLIS`].
    Counts(Counts),
    /// The answer to [`Order::Vanish`].
    Vanished {
        /// Tasks that had been reported RUNNING and were not stopped.
        running: u64,
    },
    /// The answer to [`Order::Times`].
    Times(Times),
}

/// Different reasons that are counted apart; texts may name a node each.
pub(crate) const REASONS_MAX: usize = 20;

/// The shortest time between two [`Notice::Counts`].
pub(crate) const COUNTS_EVERY_MILLIS: u64 = 10;

/// Counts of one process.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub(crate) struct Counts {
    /// Sessions that are open now.
    pub(crate) sessions: u64,
    /// Sessions that were opened ever.
    pub(crate) opened: u64,
    /// Sessions that ended against the agent's will.
    pub(crate) lost: u64,
    /// Attempts at a session that failed.
    pub(crate) refused: u64,
    /// Distinct tasks whose RUNNING was acknowledged, ever.
    pub(crate) running: u64,
    /// Tasks that agents hold now.
    pub(crate) held: u64,
    /// Agents that were told the period of [`Order::Period`].
    pub(crate) at_period: u64,
    /// Certificates that were renewed.
    pub(crate) renewed: u64,
    /// Heartbeats that were answered.
    pub(crate) heartbeats: u64,
    /// Assignments messages that asked something of tasks.
    pub(crate) messages: u64,
    /// Assignments messages that did not apply to the one before. There must be none.
    pub(crate) misapplied: u64,
    /// How often a session ended or was refused for each reason.
    pub(crate) reasons: BTreeMap<String, u64>,
}

impl Counts {
    /// Adds the counts of another process.
    pub(crate) fn add(&mut self, other: &Self) {
        self.sessions += other.sessions;
        self.opened += other.opened;
        self.lost += other.lost;
        self.refused += other.refused;
        self.running += other.running;
        self.held += other.held;
        self.at_period += other.at_period;
        self.renewed += other.renewed;
        self.heartbeats += other.heartbeats;
        self.messages += other.messages;
        self.misapplied += other.misapplied;
        for (reason, count) in &other.reasons {
            *self.reasons.entry(reason.clone()).or_default() += count;
        }
    }
}

/// Times in microseconds.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
pub(crate) struct Times {
    /// From the start of a join, or of a reconnection, to the first session message.
    pub(crate) joins: Vec<u32>,
    /// From a heartbeat to its answer.
    pub(crate) heartbeats: Vec<u32>,
}
