//! The queue of one subscriber: bounded in bytes, so that whoever publishes too fast waits.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use swarm_api::v1;
use swarm_log_broker::SubscriptionId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio_stream::Stream;
use tonic::Status;

use super::LogEvent;

/// What may wait for one subscriber, in bytes. A larger message waits until it is alone.
const QUEUE_BYTES_MAX: usize = 1 << 20;
/// What a line takes beside its text, in bytes: ids, time, and the message around it.
const LINE_BYTES: usize = 256;
/// Notices that may wait for one subscriber; more are left out.
const NOTICES_MAX: usize = 200;
/// Lines of several publishers travel together up to so many bytes.
const MESSAGE_BYTES_MAX: usize = 64 * 1024;

/// Lines that wait, with the room that they take.
struct Item {
    lines: Vec<v1::LogMessage>,
    bytes: usize,
    _room: OwnedSemaphorePermit,
}

/// Where publishers put lines.
#[derive(Clone)]
pub(crate) struct LineSender {
    /// Unbounded in number, but each item holds a part of `room`.
    items: mpsc::UnboundedSender<Item>,
    room: Arc<Semaphore>,
}

/// The broker's hand on a subscriber.
pub(crate) struct Subscriber {
    sender: LineSender,
    notices: Arc<Semaphore>,
    end: oneshot::Sender<Result<(), Status>>,
}

/// What the client reads.
pub(crate) struct LineStream {
    items: mpsc::UnboundedReceiver<Item>,
    room: Arc<Semaphore>,
    end: oneshot::Receiver<Result<(), Status>>,
    /// `Some` once the broker said the end.
    ended: Option<Result<(), Status>>,
    is_over: bool,
    id: SubscriptionId,
    events: mpsc::UnboundedSender<LogEvent>,
}

/// Makes a queue.
pub(crate) fn open(
    id: SubscriptionId,
    events: mpsc::UnboundedSender<LogEvent>,
) -> (Subscriber, LineStream) {
    let (items, reader) = mpsc::unbounded_channel();
    let (end, ended) = oneshot::channel();
    let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX));
    let subscriber = Subscriber {
        sender: LineSender {
            items,
            room: Arc::clone(&room),
        },
        notices: Arc::new(Semaphore::new(NOTICES_MAX)),
        end,
    };
    let stream = LineStream {
        items: reader,
        room,
        end: ended,
        ended: None,
        is_over: false,
        id,
        events,
    };
    (subscriber, stream)
}

impl LineSender {
    /// A sender whose subscriber is gone.
    pub(crate) fn closed() -> Self {
        let (items, _) = mpsc::unbounded_channel();
        let room = Semaphore::new(0);
        room.close();
        Self {
            items,
            room: Arc::new(room),
        }
    }

    /// Waits for room, in the order of the calls. `false` when nobody reads any more.
    pub(crate) async fn put(&self, lines: Vec<v1::LogMessage>) -> bool {
        let bytes = size(&lines);
        let share = u32::try_from(bytes.min(QUEUE_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = Arc::clone(&self.room).acquire_many_owned(share).await;
        let Ok(room) = room else {
            return false;
        };
        let item = Item {
            lines,
            bytes,
            _room: room,
        };
        self.items.send(item).is_ok()
    }

    /// Waits until nobody reads any more. Cancel safe.
    pub(crate) async fn unwanted(&self) {
        self.items.closed().await;
    }
}

fn size(lines: &[v1::LogMessage]) -> usize {
    lines.iter().map(|line| line.data.len() + LINE_BYTES).sum()
}

impl Subscriber {
    pub(crate) fn sender(&self) -> LineSender {
        self.sender.clone()
    }

    /// Puts a line of the broker itself, which cannot wait.
    pub(crate) fn notice(&self, line: v1::LogMessage) {
        let Ok(room) = Arc::clone(&self.notices).try_acquire_owned() else {
            tracing::debug!("a subscriber of logs reads too slowly, a notice is left out");
            return;
        };
        let lines = vec![line];
        let bytes = size(&lines);
        // Fails only when nobody reads any more, which that half reports.
        let _ = self.sender.items.send(Item {
            lines,
            bytes,
            _room: room,
        });
    }

    /// Ends the stream behind everything that is in the queue.
    pub(crate) fn end(self, result: Result<(), Status>) {
        // As above.
        let _ = self.end.send(result);
    }
}

impl LineStream {
    /// The lines at the head of the queue, as one message.
    fn poll_lines(&mut self, context: &mut Context<'_>) -> Poll<Option<v1::SubscribeLogsMessage>> {
        let item = match self.items.poll_recv(context) {
            Poll::Ready(Some(item)) => item,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return Poll::Pending,
        };
        let (mut messages, mut bytes) = (item.lines, item.bytes);
        while bytes < MESSAGE_BYTES_MAX
            && let Ok(item) = self.items.try_recv()
        {
            bytes += item.bytes;
            messages.extend(item.lines);
        }
        Poll::Ready(Some(v1::SubscribeLogsMessage { messages }))
    }
}

impl Stream for LineStream {
    type Item = Result<v1::SubscribeLogsMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        // The end first: what was put before it is in the queue when it is seen.
        if self.ended.is_none()
            && let Poll::Ready(end) = Pin::new(&mut self.end).poll(context)
        {
            let gone = || Status::unavailable("the manager stops; subscribe again");
            self.ended = Some(end.unwrap_or_else(|_| Err(gone())));
        }
        match self.poll_lines(context) {
            Poll::Ready(Some(message)) => return Poll::Ready(Some(Ok(message))),
            Poll::Ready(None) => {}
            Poll::Pending if self.ended.is_none() => return Poll::Pending,
            Poll::Pending => {}
        }
        self.is_over = true;
        match self.ended.take() {
            Some(Err(status)) => Poll::Ready(Some(Err(status))),
            Some(Ok(())) | None => Poll::Ready(None),
        }
    }
}

impl Drop for LineStream {
    fn drop(&mut self) {
        // Publishers that wait for room learn at once that nobody reads.
        self.room.close();
        // Fails only when the broker's term is over, and its subscriptions with it.
        let _ = self.events.send(LogEvent::Unsubscribed(self.id.clone()));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use tokio_stream::StreamExt as _;

    fn lines(text: &str, bytes: usize) -> Vec<v1::LogMessage> {
        let mut data = text.as_bytes().to_vec();
        data.resize(bytes - LINE_BYTES, b'.');
        vec![v1::LogMessage {
            data: data.into(),
            ..Default::default()
        }]
    }

    fn new() -> (Subscriber, LineStream, mpsc::UnboundedReceiver<LogEvent>) {
        let (events, received) = mpsc::unbounded_channel();
        let (subscriber, stream) = open("s".parse().unwrap(), events);
        (subscriber, stream, received)
    }

    async fn is_stuck(future: impl Future<Output = bool>) -> bool {
        tokio::time::timeout(Duration::from_secs(1), future)
            .await
            .is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_holds_publishers_back_until_the_client_reads() {
        let (subscriber, mut stream, _events) = new();
        let sender = subscriber.sender();
        assert!(sender.put(lines("a", QUEUE_BYTES_MAX)).await);
        assert!(is_stuck(sender.put(lines("b", 1_000))).await);
        let (put, read) = tokio::join!(sender.put(lines("b", 1_000)), stream.next());
        assert!(put);
        assert_eq!(read.unwrap().unwrap().messages.len(), 1);
        // What is larger than the whole queue goes through alone.
        let (put, _) = tokio::join!(sender.put(lines("c", 3 * QUEUE_BYTES_MAX)), stream.next());
        assert!(put);
    }

    #[tokio::test(start_paused = true)]
    async fn everything_that_was_put_comes_before_the_end() {
        let (subscriber, mut stream, _events) = new();
        let sender = subscriber.sender();
        for _ in 0..3 {
            assert!(sender.put(lines("a", MESSAGE_BYTES_MAX)).await);
        }
        subscriber.notice(v1::LogMessage::default());
        subscriber.end(Err(Status::unknown("incomplete")));
        let mut count = 0;
        let status = loop {
            match stream.next().await.unwrap() {
                Ok(message) => count += message.messages.len(),
                Err(status) => break status,
            }
        };
        assert_eq!((count, status.message()), (4, "incomplete"));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn small_lines_travel_together() {
        let (subscriber, mut stream, _events) = new();
        let sender = subscriber.sender();
        for _ in 0..10 {
            assert!(sender.put(lines("a", 1_000)).await);
        }
        let message = stream.next().await.unwrap().unwrap();
        assert_eq!(message.messages.len(), 10);
        subscriber.end(Ok(()));
        assert!(stream.next().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_away_frees_publishers_and_is_reported() {
        let (subscriber, stream, mut events) = new();
        let sender = subscriber.sender();
        assert!(sender.put(lines("a", QUEUE_BYTES_MAX)).await);
        let waiting = sender.put(lines("b", 1_000));
        let (put, ()) = tokio::join!(waiting, async { drop(stream) });
        assert!(!put);
        sender.unwanted().await;
        assert!(matches!(
            events.try_recv(),
            Ok(LogEvent::Unsubscribed(id)) if id.to_string() == "s"
        ));
        assert!(!LineSender::closed().put(lines("c", 1_000)).await);
    }

    #[tokio::test(start_paused = true)]
    async fn notices_need_no_room_and_have_a_limit_of_their_own() {
        let (subscriber, mut stream, _events) = new();
        assert!(subscriber.sender().put(lines("a", QUEUE_BYTES_MAX)).await);
        for _ in 0..2 * NOTICES_MAX {
            subscriber.notice(v1::LogMessage::default());
        }
        subscriber.end(Ok(()));
        let mut count = 0;
        while let Some(message) = stream.next().await {
            count += message.unwrap().messages.len();
        }
        assert_eq!(count, 1 + NOTICES_MAX);
    }

    #[tokio::test(start_paused = true)]
    async fn a_term_that_is_over_ends_its_streams_with_an_error() {
        let (subscriber, mut stream, _events) = new();
        drop(subscriber);
        let status = stream.next().await.unwrap().unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
    }
}
