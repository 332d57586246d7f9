//! Reading logs, once and followed.

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::wire::call_with_stream;
use super::*;

pub(super) type Told = Answer<v1::SubscriptionMessage>;

/// `logs`, then `logs --follow` until the client goes away.
pub(super) async fn logs(
    world: &World,
    engine: &Engine,
    mut listening: Told,
    service: &v1::Service,
    task: &v1::Task,
) {
    let selector = v1::LogSelector {
        service_ids: vec![service.id.clone()],
        ..Default::default()
    };
    for follow in [false, true] {
        let options = v1::LogSubscriptionOptions {
            streams: vec![v1::LogStream::Stdout as i32, v1::LogStream::Stderr as i32],
            follow,
            ..Default::default()
        };
        let mut client = v1::logs_client::LogsClient::new(local(world.directory()));
        let request = v1::SubscribeLogsRequest {
            selector: Some(selector.clone()),
            options: Some(options.clone()),
        };
        let mut lines = within(client.subscribe_logs(request))
            .await
            .unwrap()
            .into_inner();
        let told = listening.message().await.unwrap();
        assert!(is_id(&told.id) && !told.close, "{told:?}");
        assert_eq!(
            told.selector.as_ref(),
            Some(&selector),
            "engines look into it"
        );
        assert_eq!(
            told.options.as_ref(),
            Some(&options),
            "engines look into it"
        );
        let (messages, received) = mpsc::channel(2);
        let channel = engine.channel.clone();
        let mut publishing = JoinSet::new();
        publishing.spawn(async move {
            call_with_stream(&channel, "LogBroker/PublishLogs", received).await
        });
        let sent = line(engine, task, &told.id);
        within(messages.send(sent.clone())).await.unwrap();
        let close = v1::PublishLogsMessage {
            subscription_id: told.id.clone(),
            close: true,
            ..Default::default()
        };
        let read = message(&mut lines).await;
        assert_eq!(read.messages, sent.messages);
        if follow {
            drop(lines);
            let ended = listening.message().await.unwrap();
            let expected = v1::SubscriptionMessage {
                close: true,
                ..told
            };
            assert_eq!(ended, expected, "the whole subscription once more");
            // The engine sends a close and resets the stream; both may come too late.
            let _ = messages.send(close).await;
        } else {
            within(messages.send(close)).await.unwrap();
            drop(messages);
            let answer = within(publishing.join_next()).await.unwrap();
            let answer: Answer<v1::PublishLogsResponse> = answer.unwrap();
            answer.only().await;
            assert!(within(lines.message()).await.unwrap().is_none(), "complete");
        }
    }
}

pub(super) fn line(engine: &Engine, task: &v1::Task, subscription: &str) -> v1::PublishLogsMessage {
    let context = v1::LogContext {
        service_id: task.service_id.clone(),
        node_id: engine.id.clone(),
        task_id: task.id.clone(),
    };
    v1::PublishLogsMessage {
        subscription_id: subscription.to_owned(),
        messages: vec![v1::LogMessage {
            context: Some(context),
            timestamp: Some(Clock::new().now().to_wire()),
            stream: v1::LogStream::Stdout as i32,
            data: "hi\n".into(),
            attrs: Vec::new(),
        }],
        close: false,
    }
}
