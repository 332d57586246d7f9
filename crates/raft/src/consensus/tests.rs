use std::collections::BTreeMap;

use super::*;
use bytes::Bytes;
use swarm_api::raftpb::MessageType;

/// Cores joined by a perfect, instant network; persistence is assumed.
struct Group {
    cores: BTreeMap<u64, Core>,
    applied: BTreeMap<u64, Vec<Committed>>,
    cut_off: BTreeSet<u64>,
}

impl Group {
    fn new(ids: &[u64]) -> Self {
        let voters = ids.to_vec();
        let conf = raftpb::ConfState {
            voters,
            ..Default::default()
        };
        let at = Position { index: 1, term: 1 };
        let cores = ids
            .iter()
            .map(|id| {
                let restored = Restored {
                    base: at,
                    hard_state: HardState {
                        term: 1,
                        vote: 0,
                        commit: 1,
                    },
                    snapshot: Some(SnapshotMeta {
                        at,
                        membership: conf.encode_to_vec(),
                    }),
                    ..Restored::default()
                };
                (*id, Core::new(CoreConfig::new(*id, 42), restored).unwrap())
            })
            .collect();
        Group {
            cores,
            applied: BTreeMap::new(),
            cut_off: BTreeSet::new(),
        }
    }

    fn settle(&mut self) {
        loop {
            let mut messages = Vec::new();
            for (id, core) in &mut self.cores {
                while core.ready().is_some() {
                    let done = core.advance();
                    messages.extend(done.messages);
                    self.applied.entry(*id).or_default().extend(done.committed);
                }
            }
            if messages.is_empty() {
                return;
            }
            for message in messages {
                let apart = |id| self.cut_off.contains(&id);
                if apart(message.from()) || apart(message.to()) {
                    continue;
                }
                if let Some(core) = self.cores.get_mut(&message.to()) {
                    core.step(message).unwrap();
                }
            }
        }
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.cores
                .values_mut()
                .for_each(|core| assert!(core.tick()));
            self.settle();
        }
    }

    fn leader(&mut self) -> &mut Core {
        let leads = |core: &&mut Core| core.is_leader() && !self.cut_off.contains(&core.raft_id());
        self.cores.values_mut().find(leads).unwrap()
    }

    fn follower(&mut self) -> &mut Core {
        self.cores
            .values_mut()
            .find(|core| !core.is_leader())
            .unwrap()
    }

    /// Five proposals, applied everywhere: the log ends at index 7.
    fn propose_five(&mut self) {
        for _ in 0..5 {
            self.leader().propose(Bytes::from_static(b"x")).unwrap();
        }
        self.settle();
    }

    fn data(&self, id: u64) -> Vec<Bytes> {
        let data = |entry: &Committed| match &entry.payload {
            Payload::Data(data) => Some(data.clone()),
            Payload::Empty | Payload::ConfChange(_) => None,
        };
        self.applied[&id].iter().filter_map(data).collect()
    }
}

fn alone() -> Core {
    let config = CoreConfig::new(7, 1);
    let mut core = Core::new(config, bootstrap(7, Bytes::from_static(b"me"))).unwrap();
    let first = settle(&mut core);
    assert!(matches!(&first[0].payload, Payload::ConfChange(change) if change.node_id() == 7));
    core.campaign_if_alone();
    settle(&mut core);
    core
}

fn settle(core: &mut Core) -> Vec<Committed> {
    let mut committed = Vec::new();
    while core.ready().is_some() {
        committed.extend(core.advance().committed);
    }
    committed
}

fn message(kind: MessageType, from: u64, to: u64, term: u64) -> raftpb::Message {
    let mut message = raftpb::Message {
        from: Some(from),
        to: Some(to),
        term: Some(term),
        ..Default::default()
    };
    message.set_type(kind);
    message
}

#[test]
fn a_bootstrapped_member_leads_at_once() {
    let core = alone();
    assert!(core.is_leader() && core.leads_with_all_applied());
    assert_eq!(
        (core.term(), core.leader_id(), core.voters()),
        (2, Some(7), vec![7])
    );
    assert_eq!(core.applied(), Position { index: 2, term: 2 });
}

#[test]
fn proposals_are_applied_in_log_order_and_committed_by_one_ready() {
    let mut core = alone();
    let positions: Vec<Position> = (0..10_u8)
        .map(|n| core.propose(Bytes::from(vec![n])).unwrap())
        .collect();
    let ready = core.ready().unwrap();
    assert!(ready.must_sync);
    assert_eq!(ready.entries.len(), 10);
    let committed = core.advance().committed;
    assert_eq!(
        committed.iter().map(|entry| entry.at).collect::<Vec<_>>(),
        positions
    );
    assert_eq!(
        committed[9].payload,
        Payload::Data(Bytes::from_static(&[9]))
    );
    assert!(settle(&mut core).is_empty());
}

#[test]
fn the_proposal_limit_names_limit_and_size() {
    let mut core = alone();
    assert!(
        core.propose(Bytes::from(vec![1; PROPOSAL_BYTES_MAX]))
            .is_ok()
    );
    let refusal = core
        .propose(Bytes::from(vec![1; PROPOSAL_BYTES_MAX + 1]))
        .unwrap_err();
    let (size, limit) = (PROPOSAL_BYTES_MAX + 1, PROPOSAL_BYTES_MAX);
    assert_eq!(refusal, Refusal::TooLarge { size, limit });
    assert!(refusal.to_string().contains("1572865") && refusal.to_string().contains("1572864"));
    assert_eq!(core.propose(Bytes::new()), Err(Refusal::Empty));
}

#[test]
fn uncommitted_bytes_are_bounded() {
    let mut group = Group::new(&[1, 2, 3]);
    group.tick(40);
    let leader = group.leader();
    let mut taken = 0;
    let refusal = loop {
        match leader.propose(Bytes::from(vec![1; PROPOSAL_BYTES_MAX])) {
            Ok(_) => taken += 1,
            Err(refusal) => break refusal,
        }
    };
    assert!(matches!(refusal, Refusal::Backlog { .. }), "{refusal}");
    assert_eq!(taken, MAX_UNCOMMITTED_BYTES as usize / PROPOSAL_BYTES_MAX);
    group.settle();
    assert!(group.leader().propose(Bytes::from_static(b"x")).is_ok());
}

#[test]
fn three_members_agree_and_survive_the_loss_of_the_leader() {
    let mut group = Group::new(&[1, 2, 3]);
    group.tick(40);
    group.leader().propose(Bytes::from_static(b"a")).unwrap();
    group.settle();
    let old = group.leader().raft_id();
    group.cut_off.insert(old);
    group.tick(60);
    let new = group.leader();
    assert_ne!(new.raft_id(), old);
    new.propose(Bytes::from_static(b"b")).unwrap();
    group.settle();
    let lost = group.cores.get_mut(&old).unwrap();
    assert!(!lost.is_leader(), "a leader without a quorum steps down");
    group.cut_off.clear();
    group.tick(40);
    for id in 1..=3 {
        assert_eq!(group.data(id), [b"a".as_slice(), b"b"], "member {id}");
    }
}

#[test]
fn followers_refuse_proposals_and_name_the_leader() {
    let mut group = Group::new(&[1, 2, 3]);
    group.tick(40);
    let leader = group.leader().raft_id();
    let follower = group.follower();
    let refusal = follower.propose(Bytes::from_static(b"x")).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::NotLeader {
            leader: Some(leader)
        }
    );
    assert!(
        refusal
            .to_string()
            .contains(&format!("member {leader:x} is"))
    );
}

#[test]
fn elections_depend_on_the_seed_only() {
    let run = || {
        let mut group = Group::new(&[1, 2, 3]);
        (0..40)
            .map(|_| {
                group.tick(1);
                group
                    .cores
                    .values()
                    .map(|core| (core.term(), core.role()))
                    .collect::<Vec<_>>()
            })
            .collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn membership_changes_are_adopted_when_committed_and_one_at_a_time() {
    let mut core = alone();
    let mut change = raftpb::ConfChange {
        node_id: Some(9),
        ..Default::default()
    };
    change.set_type(raftpb::ConfChangeType::AddNode);
    core.propose_conf_change(&change).unwrap();
    assert_eq!(
        core.propose_conf_change(&change),
        Err(Refusal::ConfChangePending)
    );
    settle(&mut core);
    assert_eq!(core.voters(), [7, 9]);
}

#[test]
fn an_address_change_keeps_the_vote() {
    let mut core = alone();
    let mut change = raftpb::ConfChange {
        node_id: Some(7),
        ..Default::default()
    };
    change.set_type(raftpb::ConfChangeType::UpdateNode);
    core.propose_conf_change(&change).unwrap();
    let committed = settle(&mut core);
    assert_eq!(committed[0].payload, Payload::ConfChange(change));
    assert_eq!(core.voters(), [7]);
    assert!(core.is_leader());
}

/// The library's own numbers of the kinds are others.
#[test]
fn every_kind_of_membership_change_can_be_proposed() {
    use raftpb::ConfChangeType as Kind;
    let mut core = alone();
    let mut propose = |kind, node| {
        let mut change = raftpb::ConfChange {
            node_id: Some(node),
            ..Default::default()
        };
        change.set_type(kind);
        let at = core.propose_conf_change(&change).unwrap();
        let busy = core.propose_conf_change(&change);
        assert_eq!(busy, Err(Refusal::ConfChangePending), "{kind:?}");
        let committed = settle(&mut core);
        assert_eq!(committed[0].at, at);
        assert_eq!(committed[0].payload, Payload::ConfChange(change));
        core.conf_state()
    };
    assert_eq!(propose(Kind::AddLearnerNode, 9).learners, [9]);
    assert_eq!(propose(Kind::UpdateNode, 9).learners, [9]);
    assert_eq!(propose(Kind::RemoveNode, 9).learners, []);
    propose(Kind::AddNode, 8);
    assert_eq!(core.voters(), [7, 8]);
}

#[test]
fn nothing_is_touched_while_a_write_is_retried() {
    let mut core = alone();
    core.propose(Bytes::from_static(b"x")).unwrap();
    let first = core.ready().unwrap().clone();
    assert!(!core.tick());
    assert!(matches!(
        core.propose(Bytes::from_static(b"y")),
        Err(Refusal::DiskFull(_))
    ));
    let heartbeat = message(MessageType::MsgHeartbeat, 9, 7, 9);
    assert_eq!(core.step(heartbeat), Err(MessageError::Stalled));
    assert_eq!(core.ready().unwrap().entries, first.entries);
    assert_eq!(core.advance().committed.len(), 1);
}

/// Checks what a follower with five entries of term 1 says to a message.
fn check(edit: impl FnOnce(&mut raftpb::Message), kind: MessageType) -> Result<(), MessageError> {
    let mut group = Group::new(&[1, 2, 3]);
    group.tick(40);
    group.propose_five();
    let leader = group.leader();
    let (from, term) = (leader.raft_id(), leader.term());
    let follower = group.follower();
    let mut message = message(kind, from, follower.raft_id(), term);
    edit(&mut message);
    let result = follower.step(message);
    settle(follower);
    result
}

fn entry(index: u64, term: u64) -> raftpb::Entry {
    raftpb::Entry {
        r#type: Some(0),
        term: Some(term),
        index: Some(index),
        data: None,
    }
}

#[test]
fn messages_that_no_peer_may_send_are_refused() {
    use MessageError as E;
    let ok = check(|_| {}, MessageType::MsgHeartbeat);
    assert_eq!(ok, Ok(()));
    let number = |number| {
        check(
            move |message| message.r#type = Some(number),
            MessageType::MsgHup,
        )
    };
    for kind in [0, 1, 2, 10, 11, 12, 13, 15, 16, 17, 18, 19, 20, 21, 22, 23] {
        assert!(
            matches!(number(kind), Err(E::NotForPeers(_))),
            "type {kind}"
        );
    }
    assert_eq!(number(24), Err(E::UnknownType(24)));
    assert_eq!(number(-1), Err(E::UnknownType(-1)));
    let kind = MessageType::MsgHeartbeat;
    assert!(matches!(
        check(|m| m.to = Some(99), kind),
        Err(E::WrongRecipient { to: 99, .. })
    ));
    assert_eq!(
        check(|m| m.from = Some(99), kind),
        Err(E::UnknownSender(99))
    );
    assert_eq!(check(|m| m.from = None, kind), Err(E::UnknownSender(0)));
    assert!(matches!(
        check(|m| m.from = m.to, kind),
        Err(E::UnknownSender(_))
    ));
    assert_eq!(check(|m| m.term = None, kind), Err(E::NoTerm(kind)));
    assert_eq!(
        check(|m| m.entries = vec![entry(1, 1)], kind),
        Err(E::Surplus(kind))
    );
    assert_eq!(
        check(|m| m.responses = vec![m.clone()], kind),
        Err(E::Surplus(kind))
    );
    let snapshot = |m: &mut raftpb::Message| m.snapshot = Some(raftpb::Snapshot::default());
    assert_eq!(check(snapshot, kind), Err(E::Surplus(kind)));
}

#[test]
fn a_member_that_lost_its_log_refuses_instead_of_falling_over() {
    let kind = MessageType::MsgHeartbeat;
    let at = |commit| check(move |message| message.commit = Some(commit), kind);
    assert_eq!(at(7), Ok(()));
    assert_eq!(at(8), Err(MessageError::LogLost { commit: 8, last: 7 }));
    assert_eq!(
        at(u64::MAX),
        Err(MessageError::LogLost {
            commit: u64::MAX,
            last: 7
        })
    );
}

#[test]
fn entries_that_cannot_be_in_a_log_are_refused() {
    let append = |entries: Vec<raftpb::Entry>| {
        check(
            move |message| {
                (message.index, message.log_term) = (Some(7), Some(2));
                message.entries = entries;
            },
            MessageType::MsgApp,
        )
    };
    let bad = |entries| matches!(append(entries), Err(MessageError::BadEntry { .. }));
    assert_eq!(append(vec![entry(8, 2), entry(9, 2)]), Ok(()));
    assert!(bad(vec![entry(9, 2)]));
    assert!(bad(vec![entry(8, 2), entry(8, 2)]));
    assert!(bad(vec![entry(8, 0)]));
    assert!(bad(vec![entry(8, 1)]));
    assert!(bad(vec![entry(8, 99)]));
    for kind in [1, 2, 3, -1] {
        assert!(
            bad(vec![raftpb::Entry {
                r#type: Some(kind),
                ..entry(8, 2)
            }]),
            "type {kind}"
        );
    }
    let data = |len| raftpb::Entry {
        data: Some(vec![1; len].into()),
        ..entry(8, 2)
    };
    let limit = PROPOSAL_BYTES_MAX + ENTRY_BYTES_SLACK;
    assert_eq!(append(vec![data(limit)]), Ok(()));
    assert!(bad(vec![data(limit + 1)]));
    let overflow = check(
        |message| (message.index, message.entries) = (Some(u64::MAX), vec![entry(0, 2)]),
        MessageType::MsgApp,
    );
    assert!(matches!(overflow, Err(MessageError::BadEntry { .. })));
}

#[test]
fn snapshots_that_cannot_have_been_taken_are_refused() {
    let send = |index, term, conf: Option<raftpb::ConfState>| {
        check(
            move |message| {
                message.snapshot = Some(raftpb::Snapshot {
                    data: None,
                    metadata: Some(raftpb::SnapshotMetadata {
                        conf_state: conf,
                        index: Some(index),
                        term: Some(term),
                    }),
                });
            },
            MessageType::MsgSnap,
        )
    };
    let conf = |voters: &[u64]| raftpb::ConfState {
        voters: voters.to_vec(),
        ..Default::default()
    };
    let bad = |result| matches!(result, Err(MessageError::BadSnapshot(_)));
    assert_eq!(send(50, 2, Some(conf(&[1, 2, 3]))), Ok(()));
    assert!(bad(send(0, 2, Some(conf(&[1])))));
    assert!(bad(send(50, 0, Some(conf(&[1])))));
    assert!(bad(send(50, 99, Some(conf(&[1])))));
    assert!(bad(send(50, 2, None)));
    assert!(bad(send(50, 2, Some(conf(&[])))));
    assert!(bad(send(50, 2, Some(conf(&[1, 1])))));
    assert!(bad(send(50, 2, Some(conf(&[0, 1])))));
    let twice = raftpb::ConfState {
        learners: vec![1],
        ..conf(&[1])
    };
    assert!(bad(send(50, 2, Some(twice))));
    let joint = raftpb::ConfState {
        voters_outgoing: vec![1],
        ..conf(&[1])
    };
    assert!(bad(send(50, 2, Some(joint))));
    assert!(bad(check(|_| {}, MessageType::MsgSnap)));
}

#[test]
fn answers_about_entries_never_sent_and_stale_rejections_are_refused() {
    let mut group = Group::new(&[1, 2, 3]);
    group.tick(40);
    let leader = group.leader();
    let peer = if leader.raft_id() == 1 { 2 } else { 1 };
    let (last, term) = (leader.last().index, leader.term());
    let mut answer = message(MessageType::MsgAppResp, peer, leader.raft_id(), term);
    answer.index = Some(last + 1);
    let beyond = MessageError::BeyondLog {
        index: last + 1,
        last,
    };
    assert_eq!(leader.step(answer.clone()), Err(beyond));
    answer.index = Some(last);
    assert_eq!(leader.step(answer.clone()), Ok(()));
    answer.reject = Some(true);
    let stale = MessageError::StaleRejection {
        index: last,
        matched: last,
    };
    assert_eq!(leader.step(answer), Err(stale));
}

#[test]
fn a_restored_state_with_a_hole_is_refused() {
    let mut restored = bootstrap(7, Bytes::new());
    restored.entries[0].at.index = 2;
    assert!(Core::new(CoreConfig::new(7, 1), restored).is_err());
    let mut restored = bootstrap(7, Bytes::new());
    restored.hard_state.commit = 2;
    assert!(Core::new(CoreConfig::new(7, 1), restored).is_err());
    assert!(Core::new(CoreConfig::new(0, 1), bootstrap(7, Bytes::new())).is_err());
}

#[test]
fn applied_entries_are_kept_for_peers_that_have_no_vote_as_well() {
    let kept = |learners: Vec<u64>| {
        let membership = raftpb::ConfState {
            voters: vec![7],
            learners,
            ..Default::default()
        };
        let at = Position { index: 5, term: 1 };
        let restored = Restored {
            base: at,
            hard_state: HardState {
                term: 1,
                vote: 0,
                commit: 5,
            },
            snapshot: Some(SnapshotMeta {
                at,
                membership: membership.encode_to_vec(),
            }),
            ..Restored::default()
        };
        let config = CoreConfig {
            applied_bytes_alone: 0,
            ..CoreConfig::new(7, 1)
        };
        let mut core = Core::new(config, restored).unwrap();
        core.campaign_if_alone();
        settle(&mut core);
        core.propose(Bytes::from_static(b"data")).unwrap();
        assert_eq!(settle(&mut core).len(), 1);
        core.cached_entries()
    };
    assert_eq!(kept(vec![]), 0);
    assert_eq!(
        kept(vec![8]),
        2,
        "the first entry of the term, and the data"
    );
}
