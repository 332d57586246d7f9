//! Log subscriptions as part of the agent: they look at its tasks, and outlive its sessions.

use swarm_api::v1;
use swarm_types::Timestamp;

use super::{Agent, Timer};
use crate::logs::{Aftermath, LOG_RECLAIM, LogAction};
use crate::rpc::{Epoch, RpcError};

impl Agent {
    /// A message of the stream of log subscriptions.
    pub fn handle_subscription_message(
        &mut self,
        now: Timestamp,
        epoch: Epoch,
        message: v1::SubscriptionMessage,
    ) {
        if !self.session.is_current(epoch) || self.is_leaving {
            return;
        }
        let id = message.id.clone();
        let machines = self.machines.values().filter(|own| own.is_assigned());
        let tasks = machines.map(|own| own.task());
        let aftermath = self.logs.handle_message(epoch, message, tasks);
        self.timers.clear(&Timer::Log(id.clone()));
        self.follow_up(now, id, aftermath);
    }

    /// The publishing stream of a subscription ended: `Ok` after its close, or when the manager
    /// ended it in order.
    pub fn handle_published(
        &mut self,
        now: Timestamp,
        id: &str,
        epoch: Epoch,
        ended: Result<(), RpcError>,
    ) {
        let aftermath = self.logs.handle_published(id, epoch, ended);
        self.follow_up(now, id.to_owned(), aftermath);
    }

    /// The next thing to do about a log subscription.
    pub fn poll_log_action(&mut self) -> Option<LogAction> {
        self.logs.poll()
    }

    fn follow_up(&mut self, now: Timestamp, id: String, aftermath: Aftermath) {
        match aftermath {
            Aftermath::Nothing => {}
            Aftermath::Wait => {
                let at = now.saturating_add(LOG_RECLAIM);
                self.timers.set(Timer::Log(id), at);
            }
            Aftermath::Warn(text) => self.warn(text),
        }
    }
}
