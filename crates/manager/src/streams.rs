//! Between the gRPC streams of nodes and the leader's task.
//!
//! A stream holds one message and its end. When the transport has taken the message the leader is
//! told, and makes the next one from the state of that moment.
//!
//! Each node has three streams, which are empty nearly always. A channel of the runtime would take
//! a KiB for each of them.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use swarm_api::v1;
use swarm_dispatcher::{DispatchError, StreamId};
use swarm_types::NodeId;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

/// Calls that wait for the leader's task; each holds its caller back.
const CALLS_MAX: usize = 4_096;
/// A call of a node.
pub(crate) enum Call {
    Session {
        node: NodeId,
        addr: String,
        /// Where it dialled this manager.
        arrived: String,
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

impl Call {
    /// Whether it is to open a stream that nobody waits for any more. It would take the place of
    /// one that the node opened since: after this manager stood still, those which the node gave up
    /// come together with the one that it wants.
    pub(crate) fn is_given_up(&self) -> bool {
        match self {
            Self::Session { reply, .. } => reply.is_closed(),
            Self::Assignments { reply, .. } => reply.is_closed(),
            // What they say is so whether somebody waits or not.
            Self::Statuses { .. } | Self::Volumes { .. } => false,
        }
    }
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

/// What both ends of a stream share.
#[derive(Debug)]
struct Slot<T> {
    message: Option<Box<T>>,
    end: Option<Box<Status>>,
    /// Nobody puts anything any more.
    is_last: bool,
    /// Nobody reads any more.
    is_closed: bool,
    reader: Option<Waker>,
}

type Shared<T> = Arc<Mutex<Slot<T>>>;

fn lock<T>(slot: &Shared<T>) -> MutexGuard<'_, Slot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a gRPC handler returns.
pub(crate) struct NodeStream<T> {
    slot: Shared<T>,
    stream: StreamId,
    events: mpsc::UnboundedSender<StreamEvent>,
}

/// Where the leader's task puts messages.
#[derive(Debug)]
pub(crate) struct Sink<T> {
    slot: Shared<T>,
}

impl<T> Sink<T> {
    pub(crate) fn open(
        stream: StreamId,
        events: &mpsc::UnboundedSender<StreamEvent>,
    ) -> (Self, NodeStream<T>) {
        let slot = Arc::new(Mutex::new(Slot {
            message: None,
            end: None,
            is_last: false,
            is_closed: false,
            reader: None,
        }));
        let reader = NodeStream {
            slot: Arc::clone(&slot),
            stream,
            events: events.clone(),
        };
        (Self { slot }, reader)
    }

    /// Puts an item. The dispatcher waits for `Sent` before the next message, so there is room. The
    /// last session message of a term does not wait, and says all that one before it would have
    /// said. A stream that nobody reads any more is reported by its other half.
    pub(crate) fn put(&self, item: Result<T, Status>) {
        let waker = {
            let mut slot = lock(&self.slot);
            match item {
                _ if slot.is_closed => {}
                Ok(message) => slot.message = Some(Box::new(message)),
                Err(status) => slot.end = Some(Box::new(status)),
            }
            slot.reader.take()
        };
        wake(waker);
    }
}

impl<T> Drop for Sink<T> {
    fn drop(&mut self) {
        let waker = {
            let mut slot = lock(&self.slot);
            slot.is_last = true;
            slot.reader.take()
        };
        wake(waker);
    }
}

/// Outside of the lock, as the reader may run at once.
fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}

impl<T> NodeStream<T> {
    fn poll_take(&self, context: &mut Context<'_>) -> Poll<Option<Result<T, Status>>> {
        let mut slot = lock(&self.slot);
        if let Some(message) = slot.message.take() {
            return Poll::Ready(Some(Ok(*message)));
        }
        if let Some(status) = slot.end.take() {
            return Poll::Ready(Some(Err(*status)));
        }
        if slot.is_last {
            return Poll::Ready(None);
        }
        let is_known = |reader: &Waker| reader.will_wake(context.waker());
        if !slot.reader.as_ref().is_some_and(is_known) {
            slot.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

impl<T> Stream for NodeStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let polled = self.poll_take(context);
        if matches!(polled, Poll::Ready(Some(Ok(_)))) {
            let _ = self.events.send(StreamEvent::Sent(self.stream));
        }
        polled
    }
}

impl<T> Drop for NodeStream<T> {
    fn drop(&mut self) {
        let dropped = {
            let mut slot = lock(&self.slot);
            slot.is_closed = true;
            (slot.message.take(), slot.end.take(), slot.reader.take())
        };
        drop(dropped);
        // Fails only when the leader's task is gone, and its streams with it.
        let _ = self.events.send(StreamEvent::Closed(self.stream));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

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
    async fn the_last_message_and_an_end_fit_behind_a_message_that_nobody_has_taken() {
        let (sink, mut stream, mut events) = open();
        sink.put(Ok(1));
        sink.put(Ok(2));
        sink.put(Err(Status::aborted("over")));
        drop(sink);
        let last = stream.next().await.unwrap().unwrap();
        assert_eq!(last, 2, "the last message of a term does not wait");
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

    #[test]
    fn a_reader_that_waits_is_woken_once_by_each_message_and_by_the_end() {
        #[derive(Default)]
        struct Count(AtomicU32);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::Relaxed);
            }
        }
        let count = Arc::new(Count::default());
        let waker = Waker::from(Arc::clone(&count));
        let mut context = Context::from_waker(&waker);
        let (sink, mut stream, _events) = open();
        let woken = || count.0.load(Ordering::Relaxed);
        for number in 1..3 {
            assert!(Pin::new(&mut stream).poll_next(&mut context).is_pending());
            assert!(Pin::new(&mut stream).poll_next(&mut context).is_pending());
            sink.put(Ok(number));
            assert_eq!(woken(), number);
            let polled = Pin::new(&mut stream).poll_next(&mut context);
            assert!(matches!(polled, Poll::Ready(Some(Ok(it))) if it == number));
        }
        assert!(Pin::new(&mut stream).poll_next(&mut context).is_pending());
        drop(sink);
        assert_eq!(woken(), 3);
        let polled = Pin::new(&mut stream).poll_next(&mut context);
        assert!(matches!(polled, Poll::Ready(None)));
    }

    #[tokio::test]
    async fn a_stream_of_a_term_that_is_over_ends() {
        let (sink, mut stream, events) = open();
        drop((sink, events));
        assert!(stream.next().await.is_none());
    }
}
