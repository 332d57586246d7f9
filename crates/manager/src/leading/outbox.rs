//! The streams of one term, on which the leader's task sends to nodes.

use std::collections::BTreeMap;

use bytes::Bytes;
use swarm_api::v1;
use swarm_dispatcher::{Body, DispatchError, StreamId};
use tokio::sync::mpsc;
use tonic::Status;

use crate::services::status_of;
use crate::streams::{NodeStream, Sink, StreamEvent};

/// Ids of streams begin anew with every term, and so do these.
pub(super) struct Outbox {
    sessions: BTreeMap<StreamId, Sink<v1::SessionMessage>>,
    /// Their messages are encoded.
    assignments: BTreeMap<StreamId, Sink<Bytes>>,
    /// Unbounded, but a stream has at most one `Sent` and one `Closed` in it.
    events: mpsc::UnboundedSender<StreamEvent>,
}

impl Outbox {
    /// With what becomes of its streams.
    pub(super) fn new() -> (Self, mpsc::UnboundedReceiver<StreamEvent>) {
        let (events, receiver) = mpsc::unbounded_channel();
        let outbox = Self {
            sessions: BTreeMap::new(),
            assignments: BTreeMap::new(),
            events,
        };
        (outbox, receiver)
    }

    /// How many session streams are open.
    pub(super) fn sessions(&self) -> usize {
        self.sessions.len()
    }

    pub(super) fn open_session(&mut self, stream: StreamId) -> NodeStream<v1::SessionMessage> {
        let (sink, reader) = Sink::open(stream, &self.events);
        self.sessions.insert(stream, sink);
        reader
    }

    pub(super) fn open_assignments(&mut self, stream: StreamId) -> NodeStream<Bytes> {
        let (sink, reader) = Sink::open(stream, &self.events);
        self.assignments.insert(stream, sink);
        reader
    }

    /// Nobody reads a stream any more.
    pub(super) fn close(&mut self, stream: StreamId) {
        self.sessions.remove(&stream);
        self.assignments.remove(&stream);
    }

    pub(super) fn deliver(&mut self, stream: StreamId, body: Body) {
        match body {
            Body::Session(message) => {
                if let Some(sink) = self.sessions.get(&stream) {
                    sink.put(Ok(*message));
                }
            }
            Body::Assignments(message) => {
                if let Some(sink) = self.assignments.get(&stream) {
                    sink.put(Ok(message.into_bytes()));
                }
            }
            Body::End(error) => self.end_stream(stream, &error),
        }
    }

    fn end_stream(&mut self, stream: StreamId, error: &DispatchError) {
        if let Some(sink) = self.sessions.remove(&stream) {
            sink.put(Err(status_of(error)));
        }
        if let Some(sink) = self.assignments.remove(&stream) {
            sink.put(Err(status_of(error)));
        }
    }

    /// Ends the session streams that are left.
    pub(super) fn end(&mut self) {
        for (_, sink) in std::mem::take(&mut self.sessions) {
            sink.put(Err(Status::aborted("node must disconnect")));
        }
    }
}
