//! Who waits for whom when somebody does not read.

use std::time::Duration;

use swarm_api::v1;
use tokio::time::timeout;

use super::world::{Publisher, World, heard};
use crate::tests::within;

/// Subscribers that do not read; a manager takes at most 50.
const SUBSCRIBERS: usize = 40;
const MESSAGE_BYTES: usize = 16 * 1024;
/// A publisher that cannot send for so long is held back.
const STUCK: Duration = Duration::from_millis(300);

/// Sends until the stream is held back; how many bytes it took.
async fn fill(publisher: &Publisher, id: &str, line: &v1::LogMessage) -> usize {
    let mut bytes = 0;
    loop {
        let message = v1::PublishLogsMessage {
            subscription_id: id.to_owned(),
            messages: vec![line.clone()],
            close: false,
        };
        match timeout(STUCK, publisher.messages.send(message)).await {
            Ok(sent) => sent.unwrap(),
            Err(_) => return bytes,
        }
        bytes += line.data.len();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn heartbeats_pass_streams_that_nobody_reads() {
    let world = World::start().await;
    let node = world.node("n1");
    let (session, _stream) = node.session().await;
    let mut listener = node.listen().await;
    let mut line = node.line("");
    line.data = vec![b'x'; MESSAGE_BYTES].into();
    let mut streams = Vec::new();
    for _ in 0..SUBSCRIBERS {
        let lines = world.subscribe(&["n1"], true).await;
        let id = heard(&mut listener).await.id;
        streams.push((lines, node.publish(1), id));
    }
    let filling = streams
        .iter()
        .map(|(_, publisher, id)| fill(publisher, id, &line));
    let mut total = 0;
    for bytes in join(filling).await {
        assert!(bytes > 0);
        total += bytes;
    }
    // Queues, windows and the buffers of the transport, for each of them; nothing grows.
    let bound = SUBSCRIBERS * (6 << 20);
    assert!(total < bound, "{total} bytes were taken, {bound} expected");
    // Whoever waited for one of the streams would wait for ever.
    for _ in 0..20 {
        within(node.beat(&session)).await;
    }
    // A node can still do everything else on the same connection.
    let more = world.subscribe(&["n1"], true).await;
    heard(&mut listener).await;
    drop((streams, more));
    world.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_publisher_waits_for_a_slow_client_and_loses_nothing() {
    let world = World::start().await;
    let node = world.node("n1");
    let mut listener = node.listen().await;
    let mut lines = world.subscribe(&["n1"], true).await;
    let id = heard(&mut listener).await.id;
    let publisher = node.publish(1);
    let mut line = node.line("");
    line.data = vec![b'x'; MESSAGE_BYTES].into();
    let mut sent = fill(&publisher, &id, &line).await;
    let mut received = 0;
    // It reads a little, and the publisher goes on a little.
    while received < 2 * sent / 3 {
        let message = within(lines.message()).await.unwrap().unwrap();
        received += message
            .messages
            .iter()
            .map(|one| one.data.len())
            .sum::<usize>();
    }
    sent += fill(&publisher, &id, &line).await;
    while received < sent {
        let message = within(lines.message()).await.unwrap().unwrap();
        received += message
            .messages
            .iter()
            .map(|one| one.data.len())
            .sum::<usize>();
    }
    assert_eq!(received, sent);
    drop(lines);
    world.stop().await;
}

/// Runs futures side by side.
async fn join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(Box::pin).collect();
    let mut values: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_done = true;
        for (future, value) in futures.iter_mut().zip(&mut values) {
            if value.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *value = Some(ready),
                    std::task::Poll::Pending => is_done = false,
                }
            }
        }
        match is_done {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    values.into_iter().flatten().collect()
}
