//! The streams to nodes: how they begin, when the next message may go out on one, how they end.

use swarm_types::NodeId;

use super::{Body, Dispatcher, Message, StreamId, Timer};
use crate::error::DispatchError;

impl Dispatcher {
    /// A node asks for its assignments. The first message comes from
    /// [`Dispatcher::poll_message`]; an older stream of the node ends.
    ///
    /// # Errors
    /// As [`crate::Pulses::beat`].
    pub fn handle_assignments_open(
        &mut self,
        node: &NodeId,
        session: &str,
    ) -> Result<StreamId, DispatchError> {
        self.check_session(node, session)?;
        let stream = self.new_stream(node);
        let entry = self.sessions.get_mut(node);
        let entry = entry.ok_or_else(DispatchError::node_not_registered)?;
        if let Some(before) = entry.begin_assignments(stream) {
            self.end_stream(node, before, DispatchError::session_invalid());
        }
        self.timers.clear(&Timer::Assignments(node.clone()));
        self.ready.insert(node.clone());
        Ok(stream)
    }

    /// The message taken last for a stream was handed to the transport: the next one may come.
    pub fn handle_sent(&mut self, stream: StreamId) {
        let Some(node) = self.streams.get(&stream).cloned() else {
            return;
        };
        self.farewell_sent(&node, stream);
        let Some(session) = self.sessions.get_mut(&node) else {
            return;
        };
        if let Some(control) = &mut session.control
            && control.stream == stream
        {
            control.handle_sent();
        }
        if let Some(assignments) = &mut session.assignments
            && assignments.stream == stream
        {
            assignments.handle_sent();
        }
        self.ready.insert(node);
    }

    /// The node closed a stream, or its connection is gone. Its registration stays until its
    /// heartbeats are missed, so that it can come back with the same session.
    pub fn handle_disconnect(&mut self, stream: StreamId) {
        let Some(node) = self.streams.remove(&stream) else {
            return;
        };
        self.farewell_closed(&node, stream);
        let Some(session) = self.sessions.get_mut(&node) else {
            return;
        };
        session.control = session.control.take().filter(|own| own.stream != stream);
        let assignments = session.assignments.as_ref();
        if assignments.is_some_and(|own| own.stream == stream) {
            session.end_assignments();
        }
    }

    /// Who has this stream.
    pub fn node_of(&self, stream: StreamId) -> Option<&NodeId> {
        self.streams.get(&stream)
    }

    pub(super) fn new_stream(&mut self, node: &NodeId) -> StreamId {
        self.stream_last += 1;
        let stream = StreamId(self.stream_last);
        self.streams.insert(stream, node.clone());
        stream
    }

    pub(super) fn end_stream(&mut self, node: &NodeId, stream: StreamId, error: DispatchError) {
        if self.streams.remove(&stream).is_some() {
            self.ends.push_back(Message {
                node: node.clone(),
                stream,
                body: Body::End(error),
            });
        }
    }

    pub(super) fn end_streams(&mut self, node: &NodeId, error: &DispatchError) {
        let Some(session) = self.sessions.get_mut(node) else {
            return;
        };
        let control = session.control.take().map(|control| control.stream);
        let assignments = session.end_assignments();
        for stream in control.into_iter().chain(assignments) {
            self.end_stream(node, stream, error.clone());
        }
        self.timers.clear(&Timer::Assignments(node.clone()));
    }
}
