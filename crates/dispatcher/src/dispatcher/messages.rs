//! Builds the messages of both streams from the view.

use std::sync::Arc;

use swarm_api::v1;
use swarm_store::Root;
use swarm_types::{Node, NodeId, SessionId, convert};

use super::{Body, Dispatcher, Message, Timer};

impl Dispatcher {
    pub(super) fn message_for(&mut self, node: &NodeId, view: &Root) -> Option<Message> {
        self.farewell_message_for(node, view)
            .or_else(|| self.session_message_for(node, view))
            .or_else(|| self.assignments_message_for(node, view))
    }

    fn session_message_for(&mut self, node: &NodeId, view: &Root) -> Option<Message> {
        let stored = view.node(node)?;
        let session = self.sessions.get_mut(node)?;
        let is_confirmed = session.confirm(Some(stored));
        let control = session.control.as_mut()?;
        if !is_confirmed || !control.can_send() {
            return None;
        }
        control.sent(Arc::clone(stored));
        let managers = self.extras.managers_for(control.arrived());
        let (id, stream) = (session.pulse.session().clone(), control.stream);
        self.registrations.clear(node);
        let body = self.session_message(&id, stored, managers);
        Some(Message {
            node: node.clone(),
            stream,
            body,
        })
    }

    pub(super) fn session_message(
        &self,
        session: &SessionId,
        node: &Node,
        managers: Vec<v1::WeightedPeer>,
    ) -> Body {
        Body::Session(Box::new(v1::SessionMessage {
            session_id: session.to_string(),
            node: Some(convert::node_to_wire(node)),
            managers,
            network_bootstrap_keys: self.extras.network_bootstrap_keys.clone(),
            root_ca: self.extras.root_ca.clone(),
        }))
    }

    fn assignments_message_for(&mut self, node: &NodeId, view: &Root) -> Option<Message> {
        let session = self.sessions.get_mut(node)?;
        let assignments = session.assignments.as_mut()?;
        if !assignments.can_send() {
            return None;
        }
        let message = assignments.state.next_message(view, node);
        if assignments.state.driven().has_due() {
            self.secrets.look_at(node, view.version());
        }
        if message.is_some() {
            assignments.sent();
        } else {
            assignments.is_due = assignments.state.backlog() > 0;
        }
        let stream = assignments.stream;
        self.timers.clear(&Timer::Assignments(node.clone()));
        Some(Message {
            node: node.clone(),
            stream,
            body: Body::Assignments(message?),
        })
    }
}
