//! The last words to a node that was removed: that it has no tasks any more.
//!
//! Agents drop what a message of the assignments stream takes back, and keep everything when a
//! stream just ends. So the streams of a removed node stay open until the message is out and the
//! node has had time to read it, and end then, with the reason.

use std::time::Duration;

use swarm_store::Root;
use swarm_types::{NodeId, Timestamp};

use super::{Body, Dispatcher, Message, StreamId, Timer};
use crate::error::DispatchError;
use crate::sessions::AssignmentStream;

/// How long the streams of a removed node stay open. Agents of other programs read the two streams
/// side by side and forget an assignment when the session ends first, so they do not end at once.
pub const FAREWELL_TIMEOUT: Duration = Duration::from_secs(3);

/// A removed node that still listens.
#[derive(Debug)]
pub(super) struct Farewell {
    control: Option<StreamId>,
    assignments: AssignmentStream,
}

impl Dispatcher {
    /// Ends the registration of a node that was removed. If it listens to assignments, all of them
    /// are taken back first.
    pub(super) fn remove_node(&mut self, now: Timestamp, node: &NodeId) {
        if let Some(session) = self.sessions.get_mut(node) {
            let control = session.control.take().map(|control| control.stream);
            match session.assignments.take() {
                Some(mut assignments) => {
                    assignments.take_all_back();
                    let farewell = Farewell {
                        control,
                        assignments,
                    };
                    self.farewells.insert(node.clone(), farewell);
                    let until = now.saturating_add(FAREWELL_TIMEOUT);
                    self.timers.set(Timer::Farewell(node.clone()), until);
                    self.ready.insert(node.clone());
                }
                // It was told nothing, or does not listen; it learns when it dials again.
                None => self.end_all(node, control),
            }
        }
        self.unregister(node);
        self.intake.forget_node(node);
        self.awaited.remove(node);
        self.timers.clear(&Timer::Assignments(node.clone()));
        self.timers.clear(&Timer::Grace(node.clone()));
        self.timers.clear(&Timer::Orphan(node.clone()));
    }

    /// The next message that takes tasks back.
    pub(super) fn farewell_message_for(&mut self, node: &NodeId, view: &Root) -> Option<Message> {
        let farewell = self.farewells.get_mut(node)?;
        let assignments = &mut farewell.assignments;
        if !assignments.can_send() {
            return None;
        }
        let stream = assignments.stream;
        // What was held back and never sent makes no message.
        let message = loop {
            match assignments.state.next_message(view, node) {
                None if assignments.state.backlog() > 0 => {}
                message => break message,
            }
        };
        assignments.is_due = false;
        let message = message?;
        assignments.sent();
        Some(Message {
            node: node.clone(),
            stream,
            body: Body::Assignments(message),
        })
    }

    /// The transport took a message of a stream.
    pub(super) fn farewell_sent(&mut self, node: &NodeId, stream: StreamId) {
        if let Some(farewell) = self.farewells.get_mut(node)
            && farewell.assignments.stream == stream
        {
            farewell.assignments.handle_sent();
            self.ready.insert(node.clone());
        }
    }

    /// A stream is closed by the node, which waits for nothing more then.
    pub(super) fn farewell_closed(&mut self, node: &NodeId, stream: StreamId) {
        let Some(farewell) = self.farewells.get_mut(node) else {
            return;
        };
        farewell.control = farewell.control.filter(|own| *own != stream);
        if farewell.assignments.stream == stream {
            self.end_farewell(node);
        }
    }

    /// Ends the streams of a removed node.
    pub(super) fn end_farewell(&mut self, node: &NodeId) {
        self.timers.clear(&Timer::Farewell(node.clone()));
        if let Some(farewell) = self.farewells.remove(node) {
            let streams = farewell.control.into_iter();
            self.end_all(node, streams.chain([farewell.assignments.stream]));
        }
    }

    fn end_all(&mut self, node: &NodeId, streams: impl IntoIterator<Item = StreamId>) {
        for stream in streams {
            self.end_stream(node, stream, DispatchError::node_removed(node));
        }
    }
}
