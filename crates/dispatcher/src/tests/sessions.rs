//! Registration, heartbeats, leader start.

use std::sync::Arc;
use std::time::Duration;

use swarm_api::v1;
use swarm_reconcile::Outcome;
use swarm_types::{Node, NodeState};

use super::rig::{MIDDLE, MS, Rig, node, node_id};
use crate::expiry::SLOT;
use crate::{
    Body, Code, RATE_LIMIT_PERIOD, REGISTRATION_TIMEOUT, REGISTRATIONS_WAITING_MAX, SessionExtras,
};

const PERIOD: Duration = Duration::from_secs(5);

fn rig() -> Rig {
    Rig::new(vec![node("n", NodeState::Down)])
}

fn session_message(body: &Body) -> &v1::SessionMessage {
    match body {
        Body::Session(message) => message,
        Body::Assignments(_) | Body::End(_) => panic!("{body:?}"),
    }
}

#[test]
fn the_first_message_comes_once_the_node_is_ready_in_the_store() {
    let mut rig = rig();
    rig.dispatcher.handle_extras(SessionExtras {
        managers: vec![manager("m", "10.0.0.1:2377")],
        network_bootstrap_keys: vec![v1::EncryptionKey::default()],
        root_ca: "pem".into(),
    });
    let start = rig.open("n", "").unwrap();
    assert_eq!(rig.messages(), []);
    assert_eq!(rig.flush(), 1);
    let stored = rig.view.node(&node_id("n")).unwrap().clone();
    assert_eq!(stored.status.state, NodeState::Ready);
    assert_eq!(stored.status.addr, "10.0.0.1");
    assert_eq!(stored.hostname(), "n");
    let messages = rig.messages();
    assert_eq!(messages.len(), 1);
    let message = session_message(&messages[0].1);
    assert_eq!(message.session_id, start.session.to_string());
    assert_eq!(message.node.as_ref().unwrap().id, "n");
    assert_eq!(message.managers.len(), 1);
    assert_eq!(message.network_bootstrap_keys.len(), 1);
    assert_eq!(message.root_ca, "pem");
}

#[test]
fn a_node_that_is_ready_already_hears_at_once_and_is_not_written_again() {
    let mut rig = rig();
    rig.registered("n");
    rig.open("n", "").unwrap();
    assert_eq!(
        rig.messages().len(),
        2,
        "the end of the old stream, a start"
    );
    assert_eq!(rig.flush(), 0);
}

#[test]
fn an_unknown_node_is_refused() {
    let mut rig = rig();
    let error = rig.open("stranger", "").unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::Unknown, "node not found")
    );
    assert_eq!(rig.flush(), 0);
}

#[test]
fn registering_again_replaces_the_session_and_ends_both_old_streams() {
    let mut rig = rig();
    let first = rig.registered("n");
    let session = first.session.to_string();
    rig.dispatcher
        .handle_assignments_open(&node_id("n"), &session)
        .unwrap();
    rig.messages();
    let second = rig.open("n", "").unwrap();
    assert_ne!(first.session, second.session);
    assert_eq!(rig.ends(), ["session invalid", "session invalid"]);
    let error = rig.heartbeat("n", &session).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::InvalidArgument, "session invalid")
    );
    let error = rig.heartbeat("n", "").unwrap_err();
    assert_eq!(error.code, Code::InvalidArgument);
    rig.heartbeat("n", &second.session.to_string()).unwrap();
}

#[test]
fn coming_back_with_the_session_keeps_it_and_its_assignments() {
    let mut rig = rig();
    let first = rig.registered("n");
    let session = first.session.to_string();
    rig.dispatcher
        .handle_assignments_open(&node_id("n"), &session)
        .unwrap();
    rig.messages();
    rig.dispatcher.handle_disconnect(first.stream);
    let second = rig.open("n", &session).unwrap();
    assert_eq!(first.session, second.session);
    assert_ne!(first.stream, second.stream);
    let messages = rig.messages();
    assert!(
        matches!(messages[..], [(_, Body::Session(_))]),
        "{messages:?}"
    );
    assert_eq!(rig.dispatcher.status().streams, 2);
}

#[test]
fn the_fourth_registration_in_a_row_after_the_first_is_refused() {
    for (pause, is_refused) in [(RATE_LIMIT_PERIOD, true), (RATE_LIMIT_PERIOD + MS, false)] {
        let mut rig = rig();
        for _ in 0..4 {
            rig.open("n", "").unwrap();
            rig.flush();
        }
        // Flushing took 100 ms, in which time passed for the limit as well.
        rig.now = rig.now.saturating_sub(crate::UPDATE_BATCH_DELAY);
        rig.now = rig.now.saturating_add(pause);
        let result = rig.open("n", "");
        assert_eq!(result.is_err(), is_refused, "{pause:?}");
        if let Err(error) = result {
            assert_eq!(error.code, Code::Unavailable);
            assert_eq!(
                error.message,
                "node n exceeded rate limit count of registrations"
            );
        }
    }
}

#[test]
fn a_node_without_heartbeats_is_down_after_three_periods_and_not_before() {
    let mut rig = rig();
    let start = rig.registered("n");
    rig.heartbeat("n", &start.session.to_string()).unwrap();
    let period = rig.heartbeat("n", &start.session.to_string()).unwrap();
    assert_eq!(period, PERIOD);
    rig.wait(PERIOD * 3 - MS);
    assert_eq!(rig.ends(), Vec::<String>::new());
    rig.wait(MS);
    assert_eq!(rig.ends(), ["node not registered"]);
    let error = rig.heartbeat("n", &start.session.to_string()).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (Code::NotFound, "node not registered")
    );
    assert_eq!(rig.flush(), 1);
    let stored = rig.view.node(&node_id("n")).unwrap();
    assert_eq!(stored.status.state, NodeState::Down);
    assert_eq!(&*stored.status.message, "heartbeat failure");
    assert_eq!(stored.status.addr, "10.0.0.1");
}

#[test]
fn heartbeats_keep_a_node_up_and_write_nothing() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    rig.heartbeat("n", &session).unwrap();
    for _ in 0..10 {
        rig.wait(PERIOD * 3 - MS);
        rig.heartbeat("n", &session).unwrap();
        assert_eq!(rig.transaction(), None);
    }
    assert_eq!(rig.node_state("n"), NodeState::Ready);
    assert_eq!(
        rig.dispatcher.poll_timeout().unwrap().why,
        "a node misses its heartbeats"
    );
}

#[test]
fn a_changed_heartbeat_period_holds_for_the_next_reply() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    rig.heartbeat("n", &session).unwrap();
    rig.set_period(Duration::from_secs(9));
    let period = rig.heartbeat("n", &session).unwrap();
    assert_eq!(period, Duration::from_secs(9));
}

#[test]
fn a_shorter_period_loses_a_silent_node_sooner() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    rig.heartbeat("n", &session).unwrap();
    let second = Duration::from_secs(1);
    rig.set_period(second);
    // The node was told the longer period, and has three of those.
    rig.wait(PERIOD * 3 - SLOT);
    assert_eq!(rig.ends(), Vec::<String>::new());
    assert_eq!(rig.heartbeat("n", &session), Ok(second));
    rig.wait(second * 3 - MS);
    assert_eq!(rig.ends(), Vec::<String>::new());
    rig.wait(MS);
    assert_eq!(rig.ends(), ["node not registered"]);
}

#[test]
fn a_shorter_period_counts_although_the_node_was_to_be_looked_at_later() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    let second = Duration::from_secs(1);
    rig.set_period(second);
    // A heartbeat takes back the longer deadline of the registration.
    rig.heartbeat("n", &session).unwrap();
    rig.wait(second * 3 - MS);
    assert_eq!(rig.ends(), Vec::<String>::new());
    rig.wait(MS);
    assert_eq!(rig.ends(), ["node not registered"]);
}

#[test]
fn a_node_is_looked_at_twice_in_a_deadline_however_often_it_beats() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    let (mut looks, mut last) = (0, None);
    for _ in 0..1_000 {
        rig.heartbeat("n", &session).unwrap();
        rig.wait(PERIOD / 10);
        let next = rig.dispatcher.poll_timeout().unwrap();
        let is_look = next.why == "a node misses its heartbeats";
        looks += u32::from(is_look && last.replace(next.at) != Some(next.at));
    }
    // Five hundred seconds, and a look each thirteen and a half.
    assert!((30..=40).contains(&looks), "{looks}");
}

#[test]
fn nodes_that_come_together_do_not_beat_together() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    // A draw of half a second: a tenth of the period, and the middle of its range.
    assert_eq!(rig.heartbeat("n", &session), Ok(PERIOD / 10));
    assert_eq!(rig.heartbeat("n", &session), Ok(PERIOD));
    rig.wait(PERIOD * 3 - MS);
    assert_eq!(
        rig.ends(),
        Vec::<String>::new(),
        "the grace is that of a whole period"
    );
    let session = rig.open("n", &session).unwrap().session.to_string();
    assert_eq!(
        rig.heartbeat("n", &session),
        Ok(PERIOD),
        "the same session goes on"
    );
}

#[test]
fn too_many_registrations_at_once_are_told_to_come_later() {
    let names = |range: std::ops::Range<usize>| range.map(|number| format!("n{number}"));
    let nodes = names(0..REGISTRATIONS_WAITING_MAX + 1).map(|name| node(&name, NodeState::Ready));
    let mut rig = Rig::new(nodes.collect());
    for name in names(0..REGISTRATIONS_WAITING_MAX) {
        rig.open(&name, "").unwrap();
    }
    let last = format!("n{REGISTRATIONS_WAITING_MAX}");
    let error = rig.open(&last, "").unwrap_err();
    assert_eq!(error.code, Code::Unavailable);
    assert!(error.message.contains(&last), "{error:?}");
    // One that is waiting already only repeats itself.
    rig.open("n0", "").unwrap();
    while rig.flush() > 0 {}
    rig.messages();
    rig.open(&last, "").unwrap();
}

#[test]
fn a_period_beyond_all_measure_is_taken_as_it_is() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    rig.set_period(Duration::MAX);
    rig.heartbeat("n", &session).unwrap();
    rig.wait(PERIOD * 1_000);
    rig.heartbeat("n", &session).unwrap();
    rig.open("n", "").unwrap();
}

#[test]
fn a_registration_that_is_not_written_is_answered_and_the_node_can_come_again() {
    let mut rig = rig();
    let start = rig.open("n", "").unwrap();
    rig.wait(REGISTRATION_TIMEOUT - MS);
    assert_eq!(rig.messages(), []);
    rig.wait(MS);
    let messages = rig.messages();
    let [(_, Body::End(error))] = &messages[..] else {
        panic!("{messages:?}");
    };
    assert_eq!(error.code, Code::Unavailable);
    let again = rig.open("n", &start.session.to_string()).unwrap();
    assert_eq!(start.session, again.session);
    rig.flush();
    assert_eq!(rig.messages().len(), 1);
    // Somebody watches over the node although its first stream ended.
    rig.dispatcher.handle_disconnect(again.stream);
    rig.wait(PERIOD * 3);
    rig.flush();
    assert_eq!(rig.node_state("n"), NodeState::Down);
}

#[test]
fn a_refused_or_failed_write_of_a_registration_is_repeated() {
    let mut rig = rig();
    rig.open("n", "").unwrap();
    rig.wait(crate::UPDATE_BATCH_DELAY);
    let batch = rig.transaction().unwrap();
    assert_eq!(rig.apply(&batch.sets, &[0]), 0);
    assert!(rig.transaction().is_some(), "a conflict does not wait");
    let failed = Outcome::Failed;
    rig.dispatcher.handle_outcome(rig.now, &failed);
    assert_eq!(rig.transaction(), None, "a failure of the log does");
    assert_eq!(rig.messages(), []);
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.messages().len(), 1);
}

#[test]
fn a_new_leader_takes_every_node_that_is_not_down_for_unknown() {
    let nodes = vec![
        node("a", NodeState::Ready),
        node("b", NodeState::Down),
        node("c", NodeState::Disconnected),
        node("d", NodeState::Unknown),
    ];
    let mut rig = Rig::unstarted(nodes);
    assert_eq!(rig.flush(), 2);
    for (name, state) in [
        ("a", NodeState::Unknown),
        ("b", NodeState::Down),
        ("c", NodeState::Unknown),
        ("d", NodeState::Unknown),
    ] {
        assert_eq!(rig.node_state(name), state, "{name}");
    }
    assert_eq!(
        &*rig.view.node(&node_id("a")).unwrap().status.message,
        "Node moved to \"unknown\" state due to leadership change in cluster"
    );
}

#[test]
fn nodes_have_six_periods_to_come_back_from_when_they_can() {
    let nodes = vec![node("a", NodeState::Ready), node("b", NodeState::Ready)];
    let mut rig = Rig::unstarted(nodes);
    rig.flush();
    // Nobody can register yet, so no time runs.
    rig.wait(PERIOD * 100);
    assert_eq!(rig.flush(), 0);
    rig.dispatcher.handle_serving(rig.now, &mut || MIDDLE);
    rig.wait(PERIOD * 3);
    let session = rig.registered("a").session.to_string();
    rig.heartbeat("a", &session).unwrap();
    rig.wait(PERIOD * 3 - crate::UPDATE_BATCH_DELAY - MS);
    assert_eq!(rig.transaction(), None);
    rig.heartbeat("a", &session).unwrap();
    rig.wait(MS);
    assert_eq!(rig.flush(), 1);
    assert_eq!(rig.node_state("a"), NodeState::Ready);
    let lost = rig.view.node(&node_id("b")).unwrap();
    assert_eq!(lost.status.state, NodeState::Down);
    assert_eq!(
        &*lost.status.message,
        "heartbeat failure for node in \"unknown\" state"
    );
}

#[test]
fn a_node_that_registers_before_it_was_written_unknown_ends_as_ready() {
    let mut rig = Rig::unstarted(vec![node("n", NodeState::Ready)]);
    rig.wait(crate::UPDATE_BATCH_DELAY);
    let unknown = rig.transaction().unwrap();
    rig.open("n", "").unwrap();
    rig.apply(&unknown.sets, &[]);
    assert_eq!(rig.node_state("n"), NodeState::Unknown);
    rig.flush();
    assert_eq!(rig.node_state("n"), NodeState::Ready);
    assert_eq!(rig.messages().len(), 1);
}

#[test]
fn a_deleted_node_is_told_and_forgotten() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    let id = node_id("n");
    rig.commit(|tx| tx.delete(swarm_types::Kind::Node, id.as_id()).unwrap());
    assert_eq!(
        rig.ends(),
        ["Permission denied: node n was removed from swarm"]
    );
    assert_eq!(
        rig.heartbeat("n", &session).unwrap_err().code,
        Code::NotFound
    );
    // Its place in the wheel is empty when its time comes.
    rig.wait(PERIOD * 4);
    assert_eq!(rig.ends(), Vec::<String>::new());
    assert_eq!(rig.dispatcher.poll_timeout(), None);
}

#[test]
fn news_about_the_node_or_the_managers_is_sent_and_its_own_status_is_not() {
    let mut rig = rig();
    rig.registered("n");
    let id = node_id("n");
    let mut stored = rig.view.node(&id).unwrap().as_ref().clone();
    stored.status.message = "hello".into();
    rig.commit(|tx| tx.update(stored).unwrap());
    assert_eq!(rig.messages(), []);
    let mut stored = rig.view.node(&id).unwrap().as_ref().clone();
    Arc::make_mut(&mut stored.spec).availability = 2;
    rig.commit(|tx| tx.update(stored).unwrap());
    assert_eq!(rig.messages().len(), 1);
    let extras = SessionExtras {
        managers: vec![v1::WeightedPeer::default()],
        ..SessionExtras::default()
    };
    rig.dispatcher.handle_extras(extras.clone());
    assert_eq!(rig.messages().len(), 1);
    rig.dispatcher.handle_extras(extras);
    assert_eq!(rig.messages(), []);
}

/// A node acts on each of these; it renews its certificate when that is to be rotated.
#[test]
fn every_part_of_a_node_that_it_acts_on_is_news() {
    type Change = fn(&mut Node);
    let changes: [(&str, Change); 7] = [
        ("spec", |node| {
            Arc::make_mut(&mut node.spec).desired_role = 1
        }),
        ("description", |node| {
            let description = v1::NodeDescription::default();
            node.description = Some(Arc::new(description));
        }),
        ("manager status", |node| {
            node.manager_status = Some(Box::default());
        }),
        ("certificate", |node| {
            let rotate = v1::issuance_status::State::Rotate as i32;
            let certificate = node.certificate.get_or_insert_default();
            certificate.status.get_or_insert_default().state = rotate;
        }),
        ("role", |node| node.role = v1::NodeRole::Manager),
        ("attachments", |node| {
            node.attachments = vec![v1::NetworkAttachment::default()];
        }),
        ("port", |node| node.vxlan_udp_port = 4790),
    ];
    for (what, change) in changes {
        let mut rig = rig();
        rig.registered("n");
        let mut stored = rig.view.node(&node_id("n")).unwrap().as_ref().clone();
        change(&mut stored);
        rig.commit(|tx| tx.update(stored).unwrap());
        assert_eq!(rig.messages().len(), 1, "{what}");
    }
}

#[test]
fn a_node_that_says_nothing_about_itself_stays_as_it_is() {
    let mut rig = rig();
    rig.registered("n");
    let described = rig.view.node(&node_id("n")).unwrap().clone();
    let open = crate::SessionOpen {
        node: &node_id("n"),
        description: None,
        addr: "10.0.0.1",
        arrived: "",
        previous_session: "",
    };
    let ids = &mut rig.ids;
    rig.dispatcher
        .handle_session(rig.now, open, &rig.view, ids, &mut || MIDDLE)
        .unwrap();
    assert_eq!(rig.messages().len(), 2, "the end of one, the start of one");
    assert_eq!(rig.flush(), 0);
    let stored = rig.view.node(&node_id("n")).unwrap();
    assert_eq!(stored.description, described.description);
    assert_eq!(stored.hostname(), "n");
}

#[test]
fn news_for_a_slow_node_is_sent_once_in_its_latest_form() {
    let mut rig = rig();
    rig.registered("n");
    let view = Arc::clone(&rig.view);
    let with_managers = |count| SessionExtras {
        managers: vec![manager("m", "10.0.0.1:2377"); count],
        ..SessionExtras::default()
    };
    rig.dispatcher.handle_extras(with_managers(1));
    let under_way = rig.dispatcher.poll_message(&view).unwrap();
    for count in [2, 3] {
        rig.dispatcher.handle_extras(with_managers(count));
        assert_eq!(rig.dispatcher.poll_message(&view), None);
    }
    rig.dispatcher.handle_sent(under_way.stream);
    let messages = rig.messages();
    assert_eq!(messages.len(), 1);
    assert_eq!(session_message(&messages[0].1).managers.len(), 3);
}

#[test]
fn a_stopping_dispatcher_sends_a_last_message_and_refuses_everything() {
    let mut rig = rig();
    let session = rig.registered("n").session.to_string();
    rig.dispatcher
        .handle_assignments_open(&node_id("n"), &session)
        .unwrap();
    rig.messages();
    let view = Arc::clone(&rig.view);
    rig.dispatcher.handle_stop(&view);
    let messages = rig.messages();
    assert_eq!(messages.len(), 3);
    session_message(&messages[0].1);
    for (_, body) in &messages[1..] {
        let Body::End(error) = body else {
            panic!("{body:?}");
        };
        assert_eq!(
            (error.code, &*error.message),
            (Code::Aborted, "node must disconnect")
        );
    }
    for error in [
        rig.heartbeat("n", &session).unwrap_err(),
        rig.open("n", "").unwrap_err(),
    ] {
        assert_eq!(
            (error.code, &*error.message),
            (Code::Aborted, "dispatcher is stopped")
        );
    }
}

fn named(hostname: &str) -> v1::NodeDescription {
    v1::NodeDescription {
        hostname: hostname.to_owned(),
        ..Default::default()
    }
}

fn manager(node_id: &str, addr: &str) -> v1::WeightedPeer {
    v1::WeightedPeer {
        peer: Some(v1::Peer {
            node_id: node_id.to_owned(),
            addr: addr.to_owned(),
        }),
        weight: 10,
    }
}

#[test]
fn a_node_registers_only_with_a_host_name_that_can_be_seen() {
    let mut rig = rig();
    let mut refusal = |hostname: &str| {
        let open = crate::SessionOpen {
            node: &node_id("n"),
            description: Some(named(hostname)),
            addr: "10.0.0.1",
            arrived: "",
            previous_session: "",
        };
        let (now, view) = (rig.now, rig.view.clone());
        rig.dispatcher
            .handle_session(now, open, &view, &mut rig.ids, &mut || MIDDLE)
            .err()
    };
    for (hostname, part) in [
        ("", "has no host name"),
        (" \t", "has no host name"),
        ("a\u{1b}[2J", "\"a\\u{1b}[2J\""),
        ("a\nroot  READY", "\"a\\nroot  READY\""),
        ("a\u{202e}b", "control characters"),
    ] {
        let error = refusal(hostname).unwrap();
        assert_eq!(error.code, Code::InvalidArgument);
        assert!(error.message.contains(part), "{error} says {part}");
        assert!(
            error.message.contains("node n has"),
            "{error} names the node"
        );
        assert!(
            error.message.contains("--hostname"),
            "{error} says the way out"
        );
    }
    assert_eq!(refusal("größe-1"), None);
}

#[test]
fn each_node_is_told_the_address_at_which_its_session_arrived_when_no_other_is_known() {
    let mut rig = rig();
    let extras = SessionExtras {
        managers: vec![manager("m", ""), manager("o", "10.0.0.7:2377")],
        ..SessionExtras::default()
    };
    rig.dispatcher.handle_extras(extras);
    let told = |rig: &mut Rig, arrived: &str| -> Vec<String> {
        let open = crate::SessionOpen {
            node: &node_id("n"),
            description: Some(named("n")),
            addr: "10.0.0.1",
            arrived,
            previous_session: "",
        };
        let ids = &mut rig.ids;
        rig.dispatcher
            .handle_session(rig.now, open, &rig.view, ids, &mut || MIDDLE)
            .unwrap();
        rig.flush();
        let messages = rig.messages();
        let (_, last) = messages.last().unwrap();
        let managers = session_message(last).managers.iter();
        managers.map(|it| it.peer.clone().unwrap().addr).collect()
    };
    assert_eq!(
        told(&mut rig, "10.0.0.3:4242"),
        ["10.0.0.3:4242", "10.0.0.7:2377"]
    );
    assert_eq!(
        told(&mut rig, "[fd00::3]:4242"),
        ["[fd00::3]:4242", "10.0.0.7:2377"]
    );
    // One that cannot be dialled is not in a list.
    assert_eq!(told(&mut rig, ""), ["10.0.0.7:2377"]);
    let view = Arc::clone(&rig.view);
    rig.dispatcher.handle_stop(&view);
    let last = rig.messages();
    assert_eq!(
        session_message(&last[0].1).managers.len(),
        1,
        "the last message as well"
    );
}
