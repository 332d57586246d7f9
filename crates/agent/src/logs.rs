//! Which subscriptions of the managers this node serves, and with which of its tasks.
//!
//! The lines themselves never come here: a shell reads them and sends them on. Refuses to own:
//! which lines of a task are wanted (`swarm_executor::LineFilter`), and connections.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_executor::{LogOptions, Tail};
use swarm_types::{Task, Timestamp};

use crate::rpc::{Epoch, RpcError};

/// Subscriptions that one node serves at a time; a manager has at most 50. Others are left alone,
/// and their subscribers hear from the manager that this node does not publish.
pub const LOG_SUBSCRIPTIONS_MAX: usize = 256;
/// A subscription whose stream broke is kept so long, for a manager to name it again.
pub const LOG_RECLAIM: Duration = Duration::from_secs(30);
/// Lines of one task travel no faster than this, in bytes a second (the Engine: 10 MB).
pub const LOG_BYTES_PER_SECOND: u64 = 10 << 20;
/// What a task may send at once after a pause, in bytes.
pub const LOG_BURST_BYTES: u64 = 1 << 20;

/// Something for the shell to do about a subscription. `id` is the manager's name for it.
#[derive(Clone, Debug, PartialEq)]
pub enum LogAction {
    /// Open a publishing stream on the connection of this attempt.
    Begin {
        /// The subscription.
        id: String,
        /// On which connection.
        epoch: Epoch,
    },
    /// Publish the output of a task.
    Read {
        /// The subscription.
        id: String,
        /// The task.
        task: Arc<Task>,
        /// Which lines.
        options: LogOptions,
    },
    /// No task will be added: when the output of all has ended, send the close and end the stream.
    Complete {
        /// The subscription.
        id: String,
    },
    /// Go on on the connection of this attempt, with the lines that were not sent yet.
    Resume {
        /// The subscription.
        id: String,
        /// On which connection.
        epoch: Epoch,
    },
    /// Nobody wants it any more: send the close if that is possible, and forget it.
    Cancel {
        /// The subscription.
        id: String,
    },
}

#[derive(Debug)]
struct Active {
    selector: v1::LogSelector,
    options: LogOptions,
    /// The attempt on whose connection it publishes.
    epoch: Epoch,
    is_broken: bool,
}

/// What is left to do after something happened to a subscription.
#[derive(Debug, PartialEq)]
pub(crate) enum Aftermath {
    Nothing,
    /// Forget it after [`LOG_RECLAIM`].
    Wait,
    /// Tell the operator.
    Warn(String),
}

/// All subscriptions of one node.
#[derive(Debug, Default)]
pub(crate) struct Logs {
    active: BTreeMap<String, Active>,
    actions: VecDeque<LogAction>,
}

impl Logs {
    /// A manager names a subscription, or ends it. Named again on the same connection it is a
    /// repetition; on another one its stream of before is of no use any more.
    pub(crate) fn handle_message<'a>(
        &mut self,
        epoch: Epoch,
        message: v1::SubscriptionMessage,
        tasks: impl Iterator<Item = &'a Arc<Task>>,
    ) -> Aftermath {
        let id = message.id;
        if message.close {
            self.cancel(&id);
            return Aftermath::Nothing;
        }
        if let Some(known) = self.active.get_mut(&id) {
            if known.is_broken || known.epoch != epoch {
                (known.is_broken, known.epoch) = (false, epoch);
                self.actions.push_back(LogAction::Resume { id, epoch });
            }
            return Aftermath::Nothing;
        }
        if self.active.len() >= LOG_SUBSCRIPTIONS_MAX {
            return Aftermath::Warn(format!(
                "log subscription {id} is left alone: this node serves {LOG_SUBSCRIPTIONS_MAX} \
                 already, the most that it can"
            ));
        }
        let active = Active {
            selector: message.selector.unwrap_or_default(),
            options: LogOptions::from_wire(&message.options.unwrap_or_default()),
            epoch,
            is_broken: false,
        };
        let begin = LogAction::Begin {
            id: id.clone(),
            epoch,
        };
        self.actions.push_back(begin);
        for task in tasks.filter(|task| is_selected(&active.selector, task)) {
            self.actions.push_back(LogAction::Read {
                id: id.clone(),
                task: Arc::clone(task),
                options: active.options,
            });
        }
        if !active.options.follow {
            self.actions
                .push_back(LogAction::Complete { id: id.clone() });
        }
        self.active.insert(id, active);
        Aftermath::Nothing
    }

    /// A task was assigned: subscriptions that follow take it in, from its first line on.
    pub(crate) fn handle_task(&mut self, task: &Arc<Task>) {
        for (id, active) in &self.active {
            if active.options.follow && is_selected(&active.selector, task) {
                self.actions.push_back(LogAction::Read {
                    id: id.clone(),
                    task: Arc::clone(task),
                    options: LogOptions {
                        tail: Tail::All,
                        ..active.options
                    },
                });
            }
        }
    }

    /// A publishing stream ended: `Ok` after the close, or when the manager ended it in order.
    pub(crate) fn handle_published(
        &mut self,
        id: &str,
        epoch: Epoch,
        ended: Result<(), RpcError>,
    ) -> Aftermath {
        let Some(active) = self.active.get_mut(id).filter(|own| own.epoch == epoch) else {
            return Aftermath::Nothing;
        };
        let error = match ended {
            Ok(()) => {
                self.cancel(id);
                return Aftermath::Nothing;
            }
            Err(error) => error,
        };
        if error.is_refusal() {
            self.cancel(id);
            // The subscriber went away before the first line; that is nobody's trouble.
            if error.code == RpcError::NOT_FOUND {
                return Aftermath::Nothing;
            }
            return Aftermath::Warn(format!("log subscription {id}: {error}"));
        }
        active.is_broken = true;
        Aftermath::Wait
    }

    /// The time in which a manager could name a broken subscription again is over.
    pub(crate) fn give_up(&mut self, id: &str) {
        if self.active.get(id).is_some_and(|active| active.is_broken) {
            self.cancel(id);
        }
    }

    /// The node leaves: nothing is published any more.
    pub(crate) fn cancel_all(&mut self) {
        let all: BTreeSet<String> = self.active.keys().cloned().collect();
        for id in all {
            self.cancel(&id);
        }
    }

    pub(crate) fn poll(&mut self) -> Option<LogAction> {
        self.actions.pop_front()
    }

    fn cancel(&mut self, id: &str) {
        if self.active.remove(id).is_some() {
            let id = id.to_owned();
            self.actions.push_back(LogAction::Cancel { id });
        }
    }
}

/// Whether a selector names the task, its service or its node.
fn is_selected(selector: &v1::LogSelector, task: &Task) -> bool {
    let has = |ids: &[String], id: &str| ids.iter().any(|own| own == id);
    let service = task.service_id.as_ref();
    let node = task.node_id.as_ref();
    has(&selector.task_ids, &task.id.to_string())
        || service.is_some_and(|id| has(&selector.service_ids, &id.to_string()))
        || node.is_some_and(|id| has(&selector.node_ids, &id.to_string()))
}

/// Spreads the bytes of one task over time: a bucket that fills with time and never overflows.
#[derive(Clone, Copy, Debug)]
pub struct LogPace {
    /// When the bucket will have been full again.
    full_at: Timestamp,
}

impl LogPace {
    /// A full bucket.
    pub fn new(now: Timestamp) -> Self {
        Self { full_at: now }
    }

    /// Takes bytes; returns how long to wait before they are sent.
    pub fn take(&mut self, now: Timestamp, bytes: u64) -> Duration {
        let nanos = |bytes: u64| {
            let nanos = u128::from(bytes) * 1_000_000_000 / u128::from(LOG_BYTES_PER_SECOND);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        };
        let from = self.full_at.max(now);
        self.full_at = from.saturating_add(nanos(bytes));
        let debt = self.full_at.saturating_since(now);
        debt.saturating_sub(nanos(LOG_BURST_BYTES))
    }
}
