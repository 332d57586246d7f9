//! Between the gRPC streams of nodes and the leader's task.
//!
//! A stream is a channel that holds one message. When the transport has taken it the leader is
//! told, and makes the next one from the state of that moment.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use swarm_api::v1;
use swarm_dispatcher::{DispatchError, StreamId};
use swarm_types::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

/// Calls that wait for the leader's task; each holds its caller back.
const CALLS_MAX: usize = 4_096;
/// One message and the end of the stream.
const STREAM_ITEMS_MAX: usize = 2;

/// Boxed, because a channel sets memory aside for 32 items whatever its size.
type Item<T> = Box<Result<T, Status>>;

/// A call of a node.
pub(crate) enum Call {
    Session {
        node: NodeId,
        addr: String,
        /// Boxed, because the description makes it much larger than the other calls.
        request: Box<v1::SessionRequest>,
        reply: oneshot::Sender<Result<NodeStream<v1::SessionMessage>, DispatchError>>,
    },
    Statuses {
        node: NodeId,
        session: String,
        updates: Vec<v1::update_task_status_request::TaskStatusUpdate>,
        reply: oneshot::Sender<Result<(), DispatchError>>,
    },
    Volumes {
        node: NodeId,
        session: String,
        updates: Vec<v1::update_volume_status_request::VolumeStatusUpdate>,
        reply: oneshot::Sender<Result<(), DispatchError>>,
    },
    Assignments {
        node: NodeId,
        session: String,
        /// The messages are encoded.
        reply: oneshot::Sender<Result<NodeStream<Bytes>, DispatchError>>,
    },
}

/// What became of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) enum StreamEvent {
    /// The transport took the message.
    Sent(StreamId),
    /// Nobody reads it any more.
    Closed(StreamId),
}

/// The leader's side of the channel.
pub(crate) type Incoming = mpsc::Receiver<Call>;

/// The services' side.
pub(crate) type Calls = mpsc::Sender<Call>;

pub(crate) fn channel() -> (Calls, Incoming) {
    mpsc::channel(CALLS_MAX)
}

/// What a gRPC handler returns.
pub(crate) struct NodeStream<T> {
    items: mpsc::Receiver<Item<T>>,
    stream: StreamId,
    events: mpsc::UnboundedSender<StreamEvent>,
}

/// Where the leader's task puts messages.
#[derive(Debug)]
pub(crate) struct Sink<T> {
    items: mpsc::Sender<Item<T>>,
}

impl<T> Sink<T> {
    pub(crate) fn open(
        stream: StreamId,
        events: &mpsc::UnboundedSender<StreamEvent>,
    ) -> (Self, NodeStream<T>) {
        let (sender, items) = mpsc::channel(STREAM_ITEMS_MAX);
        (
            Self { items: sender },
            NodeStream {
                items,
                stream,
                events: events.clone(),
            },
        )
    }

    /// Puts an item. The dispatcher waits for `Sent` before the next message, so there is room; a
    /// stream that nobody reads any more is reported by its other half.
    pub(crate) fn put(&self, item: Result<T, Status>) {
        let _ = self.items.try_send(Box::new(item));
    }
}

impl<T> Stream for NodeStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.items.poll_recv(context).map(|item| {
            if item.as_ref().is_some_and(|item| item.is_ok()) {
                let _ = self.events.send(StreamEvent::Sent(self.stream));
            }
            item.map(|item| *item)
        })
    }
}

impl<T> Drop for NodeStream<T> {
    fn drop(&mut self) {
        // Fails only when the leader's task is gone, and its streams with it.
        let _ = self.events.send(StreamEvent::Closed(self.stream));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_stream::StreamExt as _;

    type Events = mpsc::UnboundedReceiver<StreamEvent>;

    fn open() -> (Sink<u32>, NodeStream<u32>, Events) {
        let (sender, events) = mpsc::unbounded_channel();
        let (sink, stream) = Sink::open(StreamId(7), &sender);
        (sink, stream, events)
    }

    fn next(events: &mut Events) -> Option<StreamEvent> {
        events.try_recv().ok()
    }

    #[tokio::test]
    async fn the_leader_learns_of_each_message_that_the_transport_took() {
        let (sink, mut stream, mut events) = open();
        sink.put(Ok(1));
        assert!(next(&mut events).is_none(), "nobody has taken it");
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert!(matches!(
            next(&mut events),
            Some(StreamEvent::Sent(StreamId(7)))
        ));
        assert!(next(&mut events).is_none());
    }

    #[tokio::test]
    async fn an_end_fits_behind_a_message_that_nobody_has_taken() {
        let (sink, mut stream, mut events) = open();
        sink.put(Ok(1));
        sink.put(Err(Status::aborted("over")));
        drop(sink);
        assert_eq!(stream.next().await.unwrap().unwrap(), 1);
        assert_eq!(stream.next().await.unwrap().unwrap_err().message(), "over");
        assert!(stream.next().await.is_none());
        assert!(matches!(next(&mut events), Some(StreamEvent::Sent(_))));
        assert!(next(&mut events).is_none(), "an end is not a message");
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_any_more_is_reported_and_takes_nothing() {
        let (sink, stream, mut events) = open();
        sink.put(Ok(1));
        drop(stream);
        assert!(matches!(
            next(&mut events),
            Some(StreamEvent::Closed(StreamId(7)))
        ));
        sink.put(Ok(2));
        assert!(next(&mut events).is_none());
    }

    #[tokio::test]
    async fn a_stream_of_a_term_that_is_over_ends() {
        let (sink, mut stream, events) = open();
        drop((sink, events));
        assert!(stream.next().await.is_none());
    }
}
