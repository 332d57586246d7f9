use std::collections::VecDeque;

use swarm_dispatcher::RATE_LIMIT_COUNT;
use tokio::sync::oneshot;

use super::*;

#[test]
fn every_input_that_is_received_is_taken() {
    let queued = 3 * INPUTS_PER_TURN_MAX + 7;
    let mut state: (VecDeque<usize>, Vec<usize>) = ((0..queued).collect(), Vec::new());
    while let Some(first) = state.0.pop_front() {
        let before = state.1.len();
        take_turn(
            &mut state,
            first,
            |(queue, _)| queue.pop_front(),
            |(_, taken), input| taken.push(input),
        );
        assert!(state.1.len() - before <= INPUTS_PER_TURN_MAX);
    }
    assert!(state.1.into_iter().eq(0..queued));
}

/// A leader of a cluster of its own, whose turns a test takes.
async fn term(directory: &std::path::Path) -> Term {
    let config = crate::tests::config(directory);
    let clock = Clock::new();
    let store = ReplicatedStore::open(
        &config.directory,
        config.log.clone(),
        &config.cluster,
        clock.clone(),
        1,
        Arc::clone(&config.data_keys),
    );
    let store = store.await.unwrap();
    store.leadership_gained().await.unwrap();
    let me = config.me(String::new(), Plugins::new(config.plugins.clone()));
    Term::begin(&store, &me, &clock).await.unwrap()
}

/// The first object of a cluster is its manager's node.
fn session() -> (
    Call,
    oneshot::Receiver<Result<NodeStream<v1::SessionMessage>, DispatchError>>,
) {
    let (reply, answer) = oneshot::channel();
    let call = Call::Session {
        node: "manager".parse().unwrap(),
        addr: "10.0.0.1".to_owned(),
        arrived: String::new(),
        request: Box::default(),
        reply,
    };
    (call, answer)
}

#[tokio::test]
async fn calls_that_a_node_gave_up_while_we_stood_still_do_not_get_in_the_way_of_its_last_one() {
    let directory = tempfile::tempdir().unwrap();
    let mut term = term(directory.path()).await;
    let node: NodeId = "manager".parse().unwrap();
    let (wanted, answer) = session();
    let given_up = |term: &mut Term| {
        for _ in 0..=2 * RATE_LIMIT_COUNT {
            let (call, answer) = session();
            drop(answer);
            term.take(Input::Call(Box::new(call)));
        }
    };
    given_up(&mut term);
    assert_eq!(term.leader.dispatcher().session_of(&node), None);
    term.take(Input::Call(Box::new(wanted)));
    let _stream = answer
        .await
        .unwrap()
        .map_err(|error| error.message)
        .unwrap();
    let begun = term.leader.dispatcher().session_of(&node).cloned();
    assert!(begun.is_some());
    given_up(&mut term);
    let (reply, _) = oneshot::channel();
    let session = begun.clone().unwrap().to_string();
    let assignments = Call::Assignments {
        node: node.clone(),
        session,
        reply,
    };
    let streams = term.leader.dispatcher().status().streams;
    term.take(Input::Call(Box::new(assignments)));
    assert_eq!(term.leader.dispatcher().status().streams, streams);
    assert_eq!(term.leader.dispatcher().session_of(&node), begun.as_ref());
    term.store.close().await.unwrap();
}
