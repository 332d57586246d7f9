//! A manager that sends anything at all.

use std::time::Duration;

use proptest::prelude::*;
use swarm_api::v1;
use swarm_executor::{ExecError, Report};
use swarm_types::Timestamp;
use v1::assignment::Item;

use super::rig::{Rig, id};
use crate::{Epoch, OpId, Reply, RpcError};

fn number() -> impl Strategy<Value = i32> {
    prop_oneof![-1..3i32, Just(192), Just(512), Just(640), any::<i32>()]
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[ab]", ".{0,300}"]
}

fn task() -> impl Strategy<Value = v1::Task> {
    (name(), number(), number(), any::<i64>()).prop_map(|(id, desired_state, state, seconds)| {
        let timestamp = Some(swarm_api::prost_types::Timestamp { seconds, nanos: -1 });
        v1::Task {
            id,
            desired_state,
            status: Some(v1::TaskStatus {
                state,
                timestamp,
                ..Default::default()
            }),
            ..Default::default()
        }
    })
}

fn change() -> impl Strategy<Value = v1::AssignmentChange> {
    let secret = name().prop_map(|id| {
        Item::Secret(v1::Secret {
            id,
            ..Default::default()
        })
    });
    let item = prop_oneof![task().prop_map(Item::Task), secret];
    (proptest::option::of(item), number()).prop_map(|(item, action)| v1::AssignmentChange {
        assignment: Some(v1::Assignment { item }),
        action,
    })
}

#[derive(Clone, Debug)]
enum Input {
    Session(String),
    Assignments(i32, String, String, Vec<v1::AssignmentChange>),
    Reply(Reply),
    Result(u64),
    Wait(u64),
}

fn input() -> impl Strategy<Value = Input> {
    let sequence = || prop_oneof![Just(String::new()), "[123]", name()];
    let changes = proptest::collection::vec(change(), 0..4);
    let period = prop_oneof![Just(Duration::ZERO), Just(Duration::MAX)];
    prop_oneof![
        name().prop_map(Input::Session),
        (number(), sequence(), sequence(), changes)
            .prop_map(|(kind, from, to, changes)| Input::Assignments(kind, from, to, changes)),
        period.prop_map(|period| Input::Reply(Reply::Heartbeat(Ok(period)))),
        (0..3u64).prop_map(|report| Input::Reply(Reply::StatusesTaken(report, Ok(())))),
        number().prop_map(|code| Input::Reply(Reply::SessionEnded(RpcError::new(code, "x")))),
        (0..9u64).prop_map(Input::Result),
        (0..40_000u64).prop_map(Input::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_input_makes_the_agent_panic_or_spin(inputs in proptest::collection::vec(input(), 1..60)) {
        let mut rig = Rig::new();
        rig.describe("host");
        for input in inputs {
            match input {
                Input::Session(session) => rig.hear(&session),
                Input::Assignments(kind, applies_to, results_in, changes) => {
                    let message = v1::AssignmentsMessage {
                        r#type: kind,
                        applies_to,
                        results_in,
                        changes,
                    };
                    let epoch = rig.epoch;
                    rig.agent
                        .handle_assignments_message(rig.now, epoch, message, &mut || 0);
                }
                Input::Reply(reply) => rig.reply(reply),
                Input::Result(op) => {
                    let report = Report::new(Err(ExecError::fatal("x")));
                    rig.agent
                        .handle_operation_result(rig.now, &id("a"), OpId(op), &report);
                }
                Input::Wait(millis) => rig.wait(Duration::from_millis(millis)),
            }
            rig.sync();
            rig.calls();
            rig.warnings();
            while rig.agent.poll_operation(rig.now).is_some() {}
            // Whoever did everything has something to wait for, in the future.
            rig.agent.handle_timeout(rig.now, &mut || u64::MAX);
            rig.calls();
            let next = rig.agent.poll_timeout();
            prop_assert!(next > Some(rig.now), "{next:?} at {}", rig.now);
        }
        let far = Timestamp::from_nanos(i64::MAX);
        rig.agent.handle_timeout(far, &mut || 0);
        rig.epoch = Epoch(u64::MAX);
        rig.hear("x");
    }
}
