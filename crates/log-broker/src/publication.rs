//! The checks of one `PublishLogs` stream. Needs no state of the broker, so that lines never wait
//! for it.

use swarm_api::v1;
use swarm_types::NodeId;

use crate::error::BrokerError;
use crate::request::SubscriptionId;

/// One stream of published messages, for one subscription.
#[derive(Clone, Debug)]
pub struct Publication {
    node: NodeId,
    node_text: String,
    subscription: SubscriptionId,
    subscription_text: String,
}

impl Publication {
    /// Takes the first message of a stream, which fixes the subscription. The message is checked
    /// by [`Publication::check`] like all others.
    ///
    /// # Errors
    /// `InvalidArgument` without an id, `NotFound` with one that no subscription can have.
    pub fn open(node: NodeId, first: &v1::PublishLogsMessage) -> Result<Self, BrokerError> {
        if first.subscription_id.is_empty() {
            return Err(BrokerError::no_subscription_id());
        }
        let subscription = first.subscription_id.parse();
        Ok(Self {
            node_text: node.to_string(),
            node,
            subscription: subscription.map_err(|_| BrokerError::unknown_subscription())?,
            subscription_text: first.subscription_id.clone(),
        })
    }

    /// Who publishes.
    pub fn node(&self) -> &NodeId {
        &self.node
    }

    /// For which subscription.
    pub fn subscription(&self) -> &SubscriptionId {
        &self.subscription
    }

    /// Judges one message.
    ///
    /// # Errors
    /// `InvalidArgument` for another subscription than the first message had, `PermissionDenied`
    /// for a line in the name of another node.
    pub fn check(&self, message: &v1::PublishLogsMessage) -> Result<(), BrokerError> {
        if message.subscription_id.is_empty() {
            return Err(BrokerError::no_subscription_id());
        }
        if message.subscription_id != self.subscription_text {
            return Err(BrokerError::changed_subscription());
        }
        let claimed = |line: &v1::LogMessage| {
            let context = line.context.as_ref();
            context.map_or_else(String::new, |context| context.node_id.clone())
        };
        let is_foreign = |line: &&v1::LogMessage| {
            let context = line.context.as_ref();
            context.is_none_or(|context| context.node_id != self.node_text)
        };
        match message.messages.iter().find(is_foreign) {
            Some(line) => Err(BrokerError::foreign_node(&claimed(line), &self.node)),
            None => Ok(()),
        }
    }
}
