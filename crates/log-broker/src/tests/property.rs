//! Whatever nodes, clients and the store do: a second, dumber broker agrees on who is missing and
//! when a subscription ends, and nodes know exactly the subscriptions that wait for them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use swarm_api::v1;
use swarm_types::{Kind, NodeId, Task, TaskState};

use super::rig::{Rig, change, node_id, selector, task, task_id};
use crate::{ListenerId, PUBLISH_DEADLINE, PublisherId, SubscriptionId};

const NODES: [&str; 3] = ["n1", "n2", "n3"];
const TASKS: usize = 4;

#[derive(Clone, Debug)]
enum Event {
    Subscribe {
        by_service: bool,
        nodes: Vec<usize>,
        tasks: Vec<usize>,
        follow: bool,
    },
    Unsubscribe(usize),
    Listen(usize),
    Disconnect(usize),
    Publish(usize, usize),
    End(usize, bool),
    Place(usize, usize),
    Remove(usize),
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let some = |max: usize| proptest::collection::vec(0..max, 0..3);
    prop_oneof![
        3 => (any::<bool>(), some(3), some(TASKS), any::<bool>()).prop_map(
            |(by_service, nodes, tasks, follow)| {
                Event::Subscribe { by_service, nodes, tasks, follow }
            }
        ),
        1 => (0..8usize).prop_map(Event::Unsubscribe),
        4 => (0..3usize).prop_map(Event::Listen),
        2 => (0..3usize).prop_map(Event::Disconnect),
        6 => (0..3usize, 0..8usize).prop_map(|(n, s)| Event::Publish(n, s)),
        4 => (0..8usize, any::<bool>()).prop_map(|(p, ok)| Event::End(p, ok)),
        3 => (0..TASKS, 0..4usize).prop_map(|(t, n)| Event::Place(t, n)),
        1 => (0..TASKS).prop_map(Event::Remove),
        2 => (1..12_000u64).prop_map(Event::Wait),
    ]
}

/// One subscription as the dumb broker sees it.
struct Twin {
    id: SubscriptionId,
    selector: v1::LogSelector,
    follow: bool,
    /// Nodes that a subscription without follow waits for, with the time until which.
    waits: BTreeMap<NodeId, Option<u64>>,
    /// How many things are missing.
    missing: usize,
    is_over: bool,
}

#[derive(Default)]
struct World {
    twins: Vec<Twin>,
    /// Open streams with what they are for.
    streams: Vec<(PublisherId, usize, NodeId)>,
    clock: u64,
}

impl Twin {
    fn takes(&self, task: &Task) -> bool {
        let service = task.service_id.as_ref().map(ToString::to_string);
        self.selector.task_ids.contains(&task.id.to_string())
            || service.is_some_and(|id| self.selector.service_ids.contains(&id))
    }

    /// A node ends its part; looks at nothing but its own list.
    fn settle(&mut self, node: &NodeId, is_missing: bool) {
        if self.waits.remove(node).is_some() && is_missing {
            self.missing += 1;
        }
    }
}

fn deadline() -> u64 {
    u64::try_from(PUBLISH_DEADLINE.as_millis()).unwrap()
}

impl World {
    fn apply(&mut self, rig: &mut Rig, event: &Event) {
        match event {
            Event::Subscribe {
                by_service,
                nodes,
                tasks,
                follow,
            } => self.subscribe(rig, *by_service, nodes, tasks, *follow),
            Event::Unsubscribe(number) => {
                if let Some(twin) = self.twins.get_mut(*number).filter(|twin| !twin.is_over) {
                    twin.is_over = true;
                    twin.waits.clear();
                    rig.broker.handle_unsubscribe(&twin.id.clone());
                    rig.flush();
                }
            }
            Event::Listen(number) => {
                rig.listen(NODES[*number]);
            }
            Event::Disconnect(number) => {
                let node = node_id(NODES[*number]);
                if rig.listeners.contains_key(NODES[*number]) {
                    for twin in &mut self.twins {
                        twin.settle(&node, true);
                    }
                }
                rig.disconnect(NODES[*number]);
            }
            Event::Publish(node, number) => self.publish(rig, NODES[*node], *number),
            Event::End(number, is_good) => {
                if *number < self.streams.len() {
                    let (publisher, twin, node) = self.streams.remove(*number);
                    self.twins[twin].settle(&node, !is_good);
                    rig.end(publisher, is_good.then_some(()).ok_or("broken"));
                }
            }
            Event::Place(number, place) => place_task(rig, *number, *place),
            Event::Remove(number) => {
                let id = task_id(&format!("t{number}"));
                if rig.view.task(&id).is_some() {
                    rig.commit(|transaction| transaction.delete(Kind::Task, id.as_id()).unwrap());
                }
            }
            Event::Wait(millis) => self.wait(rig, *millis),
        }
    }

    fn subscribe(
        &mut self,
        rig: &mut Rig,
        by_service: bool,
        nodes: &[usize],
        tasks: &[usize],
        follow: bool,
    ) {
        let tasks: Vec<String> = tasks.iter().map(|number| format!("t{number}")).collect();
        let tasks: Vec<&str> = tasks.iter().map(String::as_str).collect();
        let nodes: Vec<&str> = nodes.iter().map(|number| NODES[*number]).collect();
        let services: &[&str] = if by_service { &["web"] } else { &[] };
        let selector = selector(services, &nodes, &tasks);
        let is_listening = |node: &NodeId| rig.listeners.contains_key(&node.to_string());
        let mut twin = Twin {
            id: "x".parse().unwrap(),
            selector: selector.clone(),
            follow,
            waits: BTreeMap::new(),
            missing: 0,
            is_over: false,
        };
        let mut wanted: BTreeSet<NodeId> = nodes.iter().map(|node| node_id(node)).collect();
        let matching = rig.view.all::<Task>().filter(|task| twin.takes(task));
        let mut missing = 0;
        for task in matching {
            let is_named = selector.task_ids.contains(&task.id.to_string());
            match &task.node_id {
                Some(node) if is_named || task.state() >= TaskState::Running => {
                    wanted.insert(node.clone());
                }
                None if is_named => missing += 1,
                Some(_) | None => {}
            }
        }
        twin.missing = missing;
        for node in wanted {
            if is_listening(&node) {
                twin.waits.insert(node, Some(self.clock + deadline()));
            } else {
                twin.missing += 1;
            }
        }
        let options = super::rig::options(follow);
        if let Ok(id) = rig.try_subscribe(Some(selector), Some(options)) {
            twin.id = id;
            self.twins.push(twin);
        }
    }

    fn publish(&mut self, rig: &mut Rig, node: &str, number: usize) {
        let Some(twin) = self.twins.get_mut(number) else {
            return;
        };
        let accepted = rig.try_publish(node, &twin.id.clone());
        let node = node_id(node);
        if !twin.follow {
            assert_eq!(accepted.is_ok(), twin.waits.contains_key(&node));
        }
        let Ok(accepted) = accepted else { return };
        let replaced = self.streams.iter();
        let replaced: Vec<usize> = replaced
            .enumerate()
            .filter(|(_, (_, of, by))| *of == number && *by == node)
            .map(|(index, _)| index)
            .collect();
        for index in replaced.into_iter().rev() {
            self.streams.remove(index);
            twin.missing += 1;
        }
        if !twin.follow {
            twin.waits.insert(node.clone(), None);
        }
        self.streams.push((accepted.publisher, number, node));
    }

    fn wait(&mut self, rig: &mut Rig, millis: u64) {
        self.clock += millis;
        for twin in &mut self.twins {
            let late = twin.waits.iter();
            let late = late.filter(|(_, at)| at.is_some_and(|at| at <= self.clock));
            for node in late.map(|(node, _)| node.clone()).collect::<Vec<_>>() {
                twin.settle(&node, true);
            }
        }
        rig.pass(Duration::from_millis(millis));
    }

    /// Streams of nodes that the broker gave up are of no account any more.
    fn prune(&mut self) {
        let twins = &self.twins;
        self.streams.retain(|(_, number, node)| {
            let twin = &twins[*number];
            !twin.is_over && (twin.follow || twin.waits.contains_key(node))
        });
    }

    fn check(&mut self, rig: &Rig) {
        for twin in &mut self.twins {
            let verdict = rig.verdict(&twin.id);
            if twin.follow || (twin.is_over && verdict.is_none()) {
                assert_eq!(verdict, None);
                continue;
            }
            assert_eq!(verdict.is_some(), twin.waits.is_empty(), "{:?}", twin.id);
            if let Some(reasons) = verdict {
                let count = reasons.split(", ").filter(|text| !text.is_empty()).count();
                // "began to publish anew, lines may be missing" has a comma of its own.
                let commas = reasons.matches("anew, ").count();
                assert_eq!(count - commas, twin.missing, "{reasons}");
                twin.is_over = true;
            }
        }
        self.prune();
        self.check_nodes(rig);
    }

    /// What a node knows from its stream alone: every subscription once, and each that waits for
    /// it.
    fn check_nodes(&self, rig: &Rig) {
        for (name, listener) in &rig.listeners {
            let known = known(&rig.told, *listener);
            for twin in self.twins.iter().filter(|twin| !twin.is_over) {
                let waits = twin.waits.contains_key(&node_id(name));
                if !twin.follow && waits {
                    assert!(known.contains(&twin.id), "{name} was not told");
                }
            }
        }
    }
}

fn known(
    told: &[(ListenerId, SubscriptionId, bool)],
    listener: ListenerId,
) -> BTreeSet<SubscriptionId> {
    let mut known = BTreeSet::new();
    for (_, id, is_open) in told.iter().filter(|(to, ..)| *to == listener) {
        if *is_open {
            assert!(known.insert(id.clone()), "told twice");
        } else {
            assert!(known.remove(id), "closed before it was told");
        }
    }
    known
}

fn place_task(rig: &mut Rig, number: usize, place: usize) {
    let id = format!("t{number}");
    let node = NODES.get(place).copied().unwrap_or("");
    let state = if node.is_empty() {
        TaskState::Pending
    } else {
        TaskState::Running
    };
    let wanted = task(&id, node, state);
    rig.commit(|transaction| {
        match transaction.task(&wanted.id).cloned() {
            None => transaction.create(wanted).unwrap(),
            // Tasks never change their node.
            Some(old) if old.node_id.is_none() => change(transaction, wanted),
            Some(_) => {}
        }
    });
}

proptest! {
    #[test]
    fn a_second_broker_agrees(events in proptest::collection::vec(event(), 1..80)) {
        let mut rig = Rig::new(vec![
            task("t0", "n1", TaskState::Running),
            task("t1", "n2", TaskState::Complete),
            task("t2", "n2", TaskState::Starting),
        ]);
        let mut world = World::default();
        for event in &events {
            world.apply(&mut rig, event);
            world.check(&rig);
        }
        // Left alone, everything that does not follow ends.
        for (publisher, twin, node) in std::mem::take(&mut world.streams) {
            world.twins[twin].settle(&node, false);
            rig.end(publisher, Ok(()));
        }
        world.wait(&mut rig, deadline());
        world.check(&rig);
        for twin in &world.twins {
            prop_assert!(twin.follow || twin.is_over);
            rig.broker.handle_unsubscribe(&twin.id);
        }
        rig.assert_nothing_left();
    }
}
