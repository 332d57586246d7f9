//! Streams begin, carry lines, and end.

use tonic::Code;

use super::world::{World, all, heard, text};
use crate::tests::within;

#[tokio::test]
async fn lines_go_from_nodes_to_the_client_and_then_it_ends() {
    let world = World::start().await;
    let (one, two) = (world.node("n1"), world.node("n2"));
    let mut first = one.listen().await;
    // A node that comes later than the subscription is told as well, if it is waited for.
    let mut second = two.listen().await;
    let lines = world.subscribe(&["n1", "n2"], false).await;
    let id = heard(&mut first).await.id;
    let told = heard(&mut second).await;
    assert_eq!(told.id, id);
    assert!(told.selector.is_some() && told.options.is_some() && !told.close);

    let mut from_one = one.publish(1);
    from_one
        .put(&id, vec![one.line("a\n"), one.line("b\n")])
        .await;
    from_one.close(&id).await;
    from_one.answer().await.unwrap();
    let mut from_two = two.publish(1);
    from_two.put(&id, vec![two.line("c\n")]).await;
    // The end of the stream is as good as a close.
    drop(from_two.messages);
    let answer = within(from_two.answer.join_next()).await;
    answer.unwrap().unwrap().unwrap();
    let (texts, end) = all(lines).await;
    assert_eq!(texts, ["a\n", "b\n", "c\n"]);
    end.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_said_at_the_end() {
    let world = World::start().await;
    let node = world.node("n1");
    let mut listener = node.listen().await;
    let lines = world.subscribe(&["n1", "gone"], false).await;
    let id = heard(&mut listener).await.id;
    let publisher = node.publish(1);
    publisher.put(&id, vec![node.line("a\n")]).await;
    // Wait until the line is there: a stream that is cut off takes with it what was under way.
    let mut lines = lines;
    let message = within(lines.message()).await.unwrap().unwrap();
    assert_eq!(text(&message.messages[0]), "a\n");
    drop((publisher, listener));
    let (_, end) = all(lines).await;
    let status = end.unwrap_err();
    assert_eq!(status.code(), Code::Unknown);
    let message = status.message();
    assert!(
        message.starts_with("warning: incomplete log stream. some logs could not be retrieved"),
        "{message}"
    );
    assert!(message.contains("node gone is not available"), "{message}");
    assert!(message.contains("node n1 "), "{message}");
    world.stop().await;
}

#[tokio::test]
async fn messages_in_the_wrong_name_or_for_the_wrong_subscription_are_refused() {
    let world = World::start().await;
    let (node, other) = (world.node("n1"), world.node("n2"));
    let mut listener = node.listen().await;
    let lines = world.subscribe(&["n1"], false).await;
    let id = heard(&mut listener).await.id;
    let refused = async |id: &str, line| {
        let mut publisher = node.publish(1);
        publisher.put(id, vec![line]).await;
        publisher.answer().await.unwrap_err().code()
    };
    assert_eq!(refused("", node.line("x")).await, Code::InvalidArgument);
    assert_eq!(refused("nobody", node.line("x")).await, Code::NotFound);
    let mut foreign = other.publish(1);
    foreign.put(&id, vec![other.line("x")]).await;
    let status = foreign.answer().await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound, "it was not asked: {status}");
    assert_eq!(refused(&id, other.line("x")).await, Code::PermissionDenied);
    // That ended the node's part, and the client is told why.
    let (texts, end) = all(lines).await;
    assert!(texts.is_empty());
    let status = end.unwrap_err();
    assert!(
        status.message().contains("cannot be published by node n1"),
        "{status}"
    );
    world.stop().await;
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_work_of_the_node() {
    let world = World::start().await;
    let node = world.node("n1");
    let mut listener = node.listen().await;
    let mut lines = world.subscribe(&["n1"], true).await;
    let id = heard(&mut listener).await.id;
    let mut publisher = node.publish(1);
    publisher.put(&id, vec![node.line("a\n")]).await;
    within(lines.message()).await.unwrap().unwrap();
    drop(lines);
    let told = heard(&mut listener).await;
    assert!(told.close && told.id == id);
    publisher.close(&id).await;
    publisher.answer().await.unwrap();
    world.stop().await;
}

#[tokio::test]
async fn a_node_that_listens_again_ends_its_stream_of_before() {
    let world = World::start().await;
    let node = world.node("n1");
    let mut before = node.listen().await;
    let mut listener = node.listen().await;
    let ended = within(before.message()).await.unwrap_err();
    assert_eq!(ended.code(), Code::Aborted);
    let _lines = world.subscribe(&["n1"], true).await;
    assert!(!heard(&mut listener).await.close);
    world.stop().await;
}

#[tokio::test]
async fn everything_ends_when_the_manager_stops() {
    let world = World::start().await;
    let node = world.node("n1");
    let mut listener = node.listen().await;
    let lines = world.subscribe(&["n1"], true).await;
    heard(&mut listener).await;
    let ((), (_, end), listened) =
        tokio::join!(world.stop(), all(lines), within(listener.message()));
    assert_eq!(end.unwrap_err().code(), Code::Unavailable);
    assert_eq!(listened.unwrap_err().code(), Code::Aborted);
}

#[tokio::test]
async fn a_malformed_request_is_refused() {
    let world = World::start().await;
    let refused = world.try_subscribe(&[], false).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "log selector must not be empty");
    world.stop().await;
}
