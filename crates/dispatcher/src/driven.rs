//! Secrets whose data a driver provides: what was asked for on one stream of assignments, and what
//! came of it.
//!
//! Owns the data while tasks of the stream's node use them. Refuses to own: the call itself, which
//! is the shell's, and when a task is sent (`assignments`).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use swarm_types::{SecretId, TaskId, Timestamp};

/// Bytes in the answer of a driver at most; with as many or more it is refused, as at creation
/// (spec 5.7).
pub const SECRET_BYTES_LIMIT: usize = 500 * 1024;
/// Pause after a driver failed for the first time; it doubles.
pub const SECRET_RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest such pause.
pub const SECRET_RETRY_MAX: Duration = Duration::from_secs(60);

/// What a driver said.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretAnswer {
    /// The data.
    pub value: Bytes,
    /// Whether the data are for one task alone.
    pub do_not_reuse: bool,
}

impl fmt::Debug for SecretAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretAnswer")
            .field("do_not_reuse", &self.do_not_reuse)
            .finish_non_exhaustive()
    }
}

/// A secret that a task needs.
pub(crate) type Need = (TaskId, SecretId);

/// What the drivers provided to one node.
#[derive(Default)]
pub(crate) struct Driven {
    /// Data for every task of the node.
    shared: BTreeMap<SecretId, Bytes>,
    /// Data for one task alone.
    own: BTreeMap<Need, Bytes>,
    /// What is asked for; one entry for each pair of a task and its secret at most.
    asks: BTreeMap<Need, Ask>,
    due: BTreeSet<Need>,
}

impl fmt::Debug for Driven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driven")
            .field("shared", &self.shared.len())
            .field("own", &self.own.len())
            .field("asks", &self.asks)
            .finish_non_exhaustive()
    }
}

/// How far a question is.
#[derive(Debug, Default)]
struct Ask {
    failures: u32,
    /// When to ask again; `None` while it is due or under way.
    retry_at: Option<Timestamp>,
}

/// Where the data of a secret are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Shared,
    Own,
}

impl Driven {
    /// Where the data for a task are; if they are not there they are asked for.
    pub(crate) fn place(&mut self, task: &TaskId, secret: &SecretId) -> Option<Place> {
        let need = (task.clone(), secret.clone());
        if self.own.contains_key(&need) {
            return Some(Place::Own);
        }
        if self.shared.contains_key(secret) {
            return Some(Place::Shared);
        }
        if !self.asks.contains_key(&need) {
            self.asks.insert(need.clone(), Ask::default());
            self.due.insert(need);
        }
        None
    }

    pub(crate) fn shared(&self, secret: &SecretId) -> Option<&Bytes> {
        self.shared.get(secret)
    }

    pub(crate) fn own(&self, task: &TaskId, secret: &SecretId) -> Option<&Bytes> {
        self.own.get(&(task.clone(), secret.clone()))
    }

    /// Whether any driver has to do with this stream.
    pub(crate) fn is_used(&self) -> bool {
        !self.shared.is_empty() || !self.own.is_empty() || !self.asks.is_empty()
    }

    pub(crate) fn has_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The next question that is to be asked now.
    pub(crate) fn take_due(&mut self) -> Option<Need> {
        self.due.pop_first()
    }

    /// A question cannot be asked any more.
    pub(crate) fn forget(&mut self, need: &Need) {
        self.asks.remove(need);
        self.due.remove(need);
    }

    /// Takes an answer. Returns the tasks that may be able to go out; an answer that nobody waits
    /// for is dropped.
    pub(crate) fn answer(&mut self, need: Need, answer: SecretAnswer) -> BTreeSet<TaskId> {
        if self.asks.remove(&need).is_none() {
            return BTreeSet::new();
        }
        let (task, secret) = need.clone();
        if answer.do_not_reuse {
            self.own.insert(need, answer.value);
            return [task].into();
        }
        self.shared.insert(secret.clone(), answer.value);
        let others = self.asks.keys().filter(|(_, other)| *other == secret);
        let others: Vec<Need> = others.cloned().collect();
        let mut tasks = BTreeSet::from([task]);
        for other in others {
            self.forget(&other);
            tasks.insert(other.0);
        }
        tasks
    }

    /// A question failed. Returns when it is asked again; `None` if nobody waits for it.
    pub(crate) fn fail(&mut self, now: Timestamp, need: &Need) -> Option<Timestamp> {
        let ask = self.asks.get_mut(need)?;
        let pause = SECRET_RETRY_MIN.saturating_mul(1 << ask.failures.min(16));
        let retry_at = now.saturating_add(pause.min(SECRET_RETRY_MAX));
        ask.failures = ask.failures.saturating_add(1);
        ask.retry_at = Some(retry_at);
        Some(retry_at)
    }

    /// Makes questions due whose pause is over. Returns when the next one is.
    pub(crate) fn retry(&mut self, now: Timestamp) -> Option<Timestamp> {
        let mut next = None;
        for (need, ask) in &mut self.asks {
            match ask.retry_at {
                Some(at) if at <= now => {
                    ask.retry_at = None;
                    self.due.insert(need.clone());
                }
                Some(at) => next = next.map_or(Some(at), |next: Timestamp| Some(next.min(at))),
                None => {}
            }
        }
        next
    }

    /// A task needs nothing any more.
    pub(crate) fn forget_task(&mut self, task: &TaskId) {
        if !self.is_used() {
            return;
        }
        self.own.retain(|(own, _), _| own != task);
        self.asks.retain(|(own, _), _| own != task);
        self.due.retain(|(own, _)| own != task);
    }

    /// The last user of shared data is gone; the next one asks anew.
    pub(crate) fn forget_shared(&mut self, secret: &SecretId) {
        self.shared.remove(secret);
    }
}
