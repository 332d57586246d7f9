//! Several members: who is added, who lags, and what is sent to them.

use std::collections::BTreeMap;

use super::*;

/// Members over their own disks and a network that delivers at once.
struct Group {
    machines: BTreeMap<u64, Machine>,
    disks: BTreeMap<u64, SimDisk>,
    restarts: u64,
}

impl Group {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let mut machine = Machine::open(&disk, 1, config(), 1, alone()).unwrap();
        machine.settle().unwrap();
        Group {
            machines: BTreeMap::from([(1, machine)]),
            disks: BTreeMap::from([(1, disk)]),
            restarts: 10,
        }
    }

    fn join(&mut self, id: u64) {
        self.add(id, raftpb::ConfChangeType::AddNode);
        self.tick(5);
    }

    /// Proposes a new member, which has heard nothing yet.
    fn add(&mut self, id: u64, kind: raftpb::ConfChangeType) {
        let disk = SimDisk::new(id);
        let mut machine = Machine::open(&disk, id, config(), id, Bootstrap::Join).unwrap();
        machine.member.allow_peer(1);
        self.machines.insert(id, machine);
        self.disks.insert(id, disk);
        let mut change = raftpb::ConfChange {
            node_id: Some(id),
            ..Default::default()
        };
        change.set_type(kind);
        self.leader().member.propose_conf_change(&change).unwrap();
    }

    fn leader(&mut self) -> &mut Machine {
        self.machines
            .values_mut()
            .find(|machine| machine.member.core().is_leader())
            .unwrap()
    }

    fn tick(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.machines
                .values_mut()
                .for_each(|machine| machine.member.tick());
            self.settle();
        }
    }

    fn settle(&mut self) {
        loop {
            for machine in self.machines.values_mut() {
                machine.settle().unwrap();
                machine.snapshot().unwrap();
            }
            if !self.deliver() {
                return;
            }
        }
    }

    /// Lets all do what they can without snapshots, and delivers what they have to say; whether
    /// that was anything.
    fn deliver(&mut self) -> bool {
        let mut messages = Vec::new();
        for machine in self.machines.values_mut() {
            machine.settle().unwrap();
            messages.append(&mut machine.outbox);
        }
        let is_any = !messages.is_empty();
        for message in messages {
            let (from, to) = (message.from(), message.to());
            let kind = message.r#type();
            let delivered = match self.machines.get_mut(&to) {
                Some(machine) => machine.member.step(message).is_ok(),
                None => false,
            };
            let sender = self.machines.get_mut(&from).unwrap();
            if kind == raftpb::MessageType::MsgSnap {
                let outcome = if delivered {
                    SnapshotOutcome::Delivered
                } else {
                    SnapshotOutcome::Failed
                };
                sender.member.report_snapshot(to, outcome);
            } else if !delivered {
                sender.member.report_unreachable(to);
            }
        }
        is_any
    }

    fn restart(&mut self, id: u64) {
        let disk = self.disks[&id].clone();
        self.machines.remove(&id);
        disk.crash(Loss::Power);
        self.restarts += 1;
        let machine = Machine::open(&disk, id, config(), self.restarts, Bootstrap::Join).unwrap();
        self.machines.insert(id, machine);
    }

    fn propose(&mut self, range: std::ops::Range<u64>) {
        for line in lines(range) {
            self.leader().propose(&line).unwrap();
            self.settle();
        }
    }
}

#[test]
fn three_members_with_disks_agree_through_restarts_and_snapshots() {
    let mut group = Group::new();
    group.propose(0..50);
    group.join(2);
    group.join(3);
    group.propose(50..60);
    group.tick(3);
    for id in 1..=3 {
        assert_eq!(
            group.machines[&id].state.len(),
            60,
            "member {id} has it all by snapshot"
        );
    }
    let leader = group.leader().member.identity().raft_id();
    let follower = if leader == 2 { 3 } else { 2 };
    group.machines.remove(&follower);
    group.propose(60..120);
    group.restart(follower);
    group.tick(30);
    assert_eq!(
        group.machines[&follower].state.len(),
        120,
        "caught up by snapshot"
    );
    group.restart(leader);
    group.tick(60);
    group.propose(120..125);
    group.tick(3);
    let states: Vec<_> = group
        .machines
        .values()
        .map(|machine| machine.state.clone())
        .collect();
    assert_eq!(states[0].len(), 125);
    assert!(states.iter().all(|state| *state == states[0]));
}

/// A leader that has forgotten most of its log and never wrote a snapshot.
fn forgetful() -> Group {
    let mut group = Group::new();
    let never = MemberConfig {
        snapshot_interval: 0,
        applied_bytes_alone: 1000,
        ..config()
    };
    let disk = group.disks[&1].clone();
    group.machines.clear();
    let mut machine = Machine::open(&disk, 1, never, 2, alone()).unwrap();
    machine.settle().unwrap();
    group.machines.insert(1, machine);
    group.propose(0..50);
    let leader = group.leader();
    assert!(leader.member.core().cached_entries() < 20);
    assert_eq!(leader.member.newest_snapshot().index, 0);
    group
}

#[test]
fn a_member_alone_needs_its_applied_entries_only_on_disk() {
    let group = forgetful();
    let expected = group.machines[&1].state.clone();
    let disk = group.disks[&1].clone();
    drop(group);
    let mut again = Machine::open(&disk, 1, config(), 3, alone()).unwrap();
    again.settle().unwrap();
    assert_eq!(again.state, expected);
}

#[test]
fn a_peer_that_is_added_later_has_a_snapshot_made_and_the_log_is_kept_from_then_on() {
    let mut group = forgetful();
    group.join(2);
    group.tick(3);
    assert_eq!(group.machines[&2].state.len(), 50);
    let snapshot = group.leader().member.newest_snapshot();
    assert!(snapshot.index > 0);
    group.join(3);
    group.tick(3);
    assert_eq!(group.machines[&3].state.len(), 50);

    let lagging = group.machines.remove(&3).unwrap();
    group.propose(50..120);
    assert!(group.leader().member.core().cached_entries() > 70);
    group.machines.insert(3, lagging);
    group.tick(3);
    assert_eq!(group.machines[&3].state.len(), 120);
    let newest = group.leader().member.newest_snapshot();
    assert_eq!(newest, snapshot, "both were served from the log");
}

#[test]
fn a_snapshot_for_a_peer_that_fails_is_tried_again_with_the_next_heartbeat() {
    let mut group = forgetful();
    let mut wants = 0;
    let fail = |group: &mut Group| {
        let member = &mut group.leader().member;
        let is_due = member.snapshot_due();
        if is_due {
            member.begin_snapshot().unwrap();
            assert!(!member.snapshot_due(), "one at a time");
            member.fail_snapshot();
            assert!(!member.snapshot_due(), "nobody asks at once");
        }
        is_due
    };
    group.add(2, raftpb::ConfChangeType::AddNode);
    for _ in 0..10 {
        group.machines.values_mut().for_each(|it| it.member.tick());
        group.deliver();
        wants += u32::from(fail(&mut group));
    }
    assert!(wants > 3, "{wants}");
    group.tick(3);
    assert_eq!(group.machines[&2].state.len(), 50);
    let before = group.leader().member.core().cached_entries();
    group.propose(50..80);
    let after = group.leader().member.core().cached_entries();
    assert_eq!(after, before + 30, "the log is kept from here on");
}

#[test]
fn a_snapshot_that_is_replaced_before_it_is_sent_is_sent_as_the_newer_one() {
    let mut group = Group::new();
    group.propose(0..50);
    group.add(2, raftpb::ConfChangeType::AddNode);
    // The leader learns that the log does not reach back far enough, and names its snapshot.
    let mut machine = group.machines.remove(&2).unwrap();
    while group.machines[&1].outbox.is_empty() {
        group.leader().member.tick();
        group.leader().settle().unwrap();
    }
    for message in std::mem::take(&mut group.leader().outbox) {
        machine.member.step(message).unwrap();
    }
    machine.settle().unwrap();
    for message in std::mem::take(&mut machine.outbox) {
        group.leader().member.step(message).unwrap();
    }
    let leader = group.leader();
    let before = leader.member.newest_snapshot();
    let ticket = leader.member.begin_snapshot().unwrap();
    leader.write_out(&ticket).unwrap();
    leader.member.finish_snapshot(&ticket.meta).unwrap();
    leader.settle().unwrap();
    let sent = leader.outbox.iter().find_map(|it| it.snapshot.as_ref());
    let sent = sent.unwrap().metadata.as_ref().unwrap().index();
    assert!(sent > before.index, "{sent}");
    group.machines.insert(2, machine);
    group.tick(3);
    assert_eq!(group.machines[&2].state.len(), 50);
}
