//! What is to be written about a node, as an intention that can be repeated on any view.

use std::sync::Arc;

use swarm_api::v1;
use swarm_store::{Root, Write};
use swarm_types::{Node, NodeId, NodeState, NodeStatus, Text, Timestamp};

/// Of a node that must come back to the new leader.
pub(crate) const MOVED_TO_UNKNOWN: &str =
    "Node moved to \"unknown\" state due to leadership change in cluster";
/// Of a node that missed its heartbeats.
pub(crate) const HEARTBEAT_FAILURE: &str = "heartbeat failure";
/// Of a node that did not come back to the new leader.
pub(crate) const UNKNOWN_HEARTBEAT_FAILURE: &str =
    "heartbeat failure for node in \"unknown\" state";

/// The latest intention for a node replaces an earlier one that was not written yet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum NodeIntent {
    /// The leader changed.
    Unknown,
    /// It registered.
    Ready {
        /// `None` keeps the description that is stored.
        description: Option<Arc<v1::NodeDescription>>,
        addr: String,
        /// What people are to know about the node; usually nothing.
        warning: Option<String>,
    },
    /// It is lost.
    Down { message: &'static str },
}

impl NodeIntent {
    /// The write which fulfils this; `None` when the store has it already, or the node is gone.
    pub(crate) fn write(&self, view: &Root, now: Timestamp, id: &NodeId) -> Option<Write> {
        let stored = view.node(id)?;
        let mut node = self.change(stored)?;
        if node.status.state != stored.status.state {
            node.status.since = Some(now);
        }
        Some(Write::update(node))
    }

    /// Whether the store has it already.
    pub(crate) fn is_fulfilled(&self, stored: &Node) -> bool {
        self.change(stored).is_none()
    }

    fn change(&self, stored: &Node) -> Option<Node> {
        let (status, description) = match self {
            Self::Unknown => match stored.status.state {
                NodeState::Down | NodeState::Unknown => return None,
                NodeState::Ready | NodeState::Disconnected => {
                    (moved(stored, NodeState::Unknown, MOVED_TO_UNKNOWN), None)
                }
            },
            Self::Down { message } => match stored.status.state {
                NodeState::Down => return None,
                NodeState::Ready | NodeState::Disconnected | NodeState::Unknown => {
                    (moved(stored, NodeState::Down, message), None)
                }
            },
            Self::Ready {
                description,
                addr,
                warning,
            } => (ready(stored, addr, warning.as_ref()), description.as_ref()),
        };
        let is_same_description =
            description.is_none_or(|description| stored.description.as_ref() == Some(description));
        if status == stored.status && is_same_description {
            return None;
        }
        let mut node = stored.clone();
        node.status = status;
        if let Some(description) = description {
            node.description = Some(Arc::clone(description));
        }
        Some(node)
    }
}

fn moved(stored: &Node, state: NodeState, message: &'static str) -> NodeStatus {
    NodeStatus {
        state,
        message: message.into(),
        addr: stored.status.addr.clone(),
        since: stored.status.since,
    }
}

fn ready(stored: &Node, addr: &str, warning: Option<&String>) -> NodeStatus {
    NodeStatus {
        state: NodeState::Ready,
        message: warning.map_or(Text::EMPTY, |warning| warning.clone().into()),
        addr: addr.to_owned(),
        since: stored.status.since,
    }
}

/// Whether two versions of a node differ at most in status and metadata, which the node itself
/// does not act on.
pub(crate) fn same_for_the_node(a: &Node, b: &Node) -> bool {
    a.spec == b.spec
        && a.description == b.description
        && a.manager_status == b.manager_status
        && a.certificate == b.certificate
        && a.role == b.role
        && a.attachments == b.attachments
        && a.vxlan_udp_port == b.vxlan_udp_port
}
