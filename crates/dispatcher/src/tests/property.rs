//! Whatever is committed, and however often nodes reconnect: what a node was told equals what the
//! store wants of it, once everything is delivered.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use swarm_api::v1;
use swarm_store::Transaction;
use swarm_types::convert::{Interner, task_from_wire};
use swarm_types::{Kind, NodeState, Task, TaskId, TaskState, TaskStatus, Timestamp, state};
use v1::assignment::Item;
use v1::assignments_message::Type;

use super::rig::{MS, Rig, node, node_id, task, task_id};
use crate::{ASSIGNMENT_BATCH_DELAY, Body, StreamId};

const NODES: [&str; 2] = ["n", "m"];

#[derive(Clone, Debug)]
enum Event {
    Create(u8, usize, usize),
    /// To a state, or the next possible one.
    Advance(u8, usize),
    Desire(u8, usize),
    Delete(u8),
    /// Several of the above in one commit which the dispatcher never hears of.
    Lag(Vec<Event>),
    Reconnect(usize),
    /// The messages are taken and applied but the transport is not done with them.
    Deliver {
        hand_over: bool,
    },
    Wait,
}

fn change() -> impl Strategy<Value = Event> {
    prop_oneof![
        3 => (0..12u8, 0..2usize, 0..14usize).prop_map(|(t, n, s)| Event::Create(t, n, s)),
        3 => (0..12u8, 0..14usize).prop_map(|(t, s)| Event::Advance(t, s)),
        2 => (0..12u8, 0..14usize).prop_map(|(t, s)| Event::Desire(t, s)),
        2 => (0..12u8).prop_map(Event::Delete),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        10 => change(),
        1 => proptest::collection::vec(change(), 1..6).prop_map(Event::Lag),
        1 => (0..2usize).prop_map(Event::Reconnect),
        3 => any::<bool>().prop_map(|hand_over| Event::Deliver { hand_over }),
        3 => Just(Event::Wait),
    ]
}

/// The simplest agent there can be: it does what the messages say.
#[derive(Default)]
struct Agent {
    stream: Option<StreamId>,
    last: String,
    tasks: BTreeMap<TaskId, Task>,
}

struct World {
    rig: Rig,
    agents: BTreeMap<&'static str, Agent>,
    under_way: Vec<StreamId>,
}

impl World {
    fn new() -> Self {
        let nodes = NODES.map(|name| node(name, NodeState::Down)).into();
        let mut rig = Rig::new(nodes);
        for name in NODES {
            rig.registered(name);
        }
        let mut world = Self {
            rig,
            agents: NODES.map(|name| (name, Agent::default())).into(),
            under_way: Vec::new(),
        };
        for name in NODES {
            world.reconnect(name);
        }
        world
    }

    fn run(&mut self, event: Event) {
        match event {
            Event::Create(..) | Event::Advance(..) | Event::Desire(..) | Event::Delete(_) => {
                self.rig.commit(|tx| write(tx, &event));
            }
            Event::Lag(events) => {
                let mut transaction = self.rig.view.begin(self.rig.now);
                for event in &events {
                    write(&mut transaction, event);
                }
                self.rig.view = Arc::new(transaction.finish().0);
                let view = Arc::clone(&self.rig.view);
                self.rig.dispatcher.handle_lag(self.rig.now, &view);
            }
            Event::Reconnect(index) => self.reconnect(NODES[index]),
            Event::Deliver { hand_over } => self.deliver(hand_over),
            Event::Wait => self.rig.wait(ASSIGNMENT_BATCH_DELAY / 2 + MS),
        }
        for name in NODES {
            let id = node_id(name);
            let session = self.rig.dispatcher.session_of(&id).unwrap().to_string();
            self.rig.heartbeat(name, &session).unwrap();
        }
    }

    fn reconnect(&mut self, name: &'static str) {
        let id = node_id(name);
        let session = self.rig.dispatcher.session_of(&id).unwrap().to_string();
        let dispatcher = &mut self.rig.dispatcher;
        let stream = dispatcher.handle_assignments_open(&id, &session).unwrap();
        // What the agent has stays until the complete message replaces it.
        self.agents.get_mut(name).unwrap().stream = Some(stream);
    }

    fn deliver(&mut self, hand_over: bool) {
        loop {
            if hand_over {
                for stream in self.under_way.drain(..) {
                    self.rig.dispatcher.handle_sent(stream);
                }
            }
            let Some(message) = self.rig.dispatcher.poll_message(&self.rig.view) else {
                return;
            };
            let name = NODES.into_iter().find(|name| node_id(name) == message.node);
            let agent = self.agents.get_mut(name.unwrap()).unwrap();
            if agent.stream == Some(message.stream)
                && let Body::Assignments(bytes) = message.body
            {
                agent.apply(bytes.message());
            }
            self.under_way.push(message.stream);
        }
    }

    fn check(&self) {
        for (name, agent) in &self.agents {
            let wanted: BTreeMap<_, _> = self
                .rig
                .view
                .tasks_on_node(&node_id(name))
                .filter(|task| task.state() >= TaskState::Assigned)
                .map(|task| (task.id.clone(), Arc::clone(task)))
                .collect();
            let told: Vec<_> = agent.tasks.keys().collect();
            assert_eq!(told, wanted.keys().collect::<Vec<_>>(), "{name}");
            for (id, task) in &wanted {
                assert!(task.is_same_assignment(&agent.tasks[id]), "{id}");
            }
        }
    }
}

impl Agent {
    fn apply(&mut self, message: v1::AssignmentsMessage) {
        if message.r#type() == Type::Complete {
            assert_eq!(message.applies_to, "");
            self.tasks.clear();
        } else {
            assert_eq!(message.applies_to, self.last);
            assert!(!message.changes.is_empty());
        }
        self.last = message.results_in;
        for change in message.changes {
            let item = change.assignment.unwrap().item.unwrap();
            let Item::Task(wire) = item else {
                panic!("{item:?}");
            };
            let id: TaskId = wire.id.parse().unwrap();
            if change.action == 0 {
                let task = task_from_wire(wire, &mut Interner::new()).unwrap();
                self.tasks.insert(id, task);
            } else {
                self.tasks.remove(&id).expect("it was sent");
            }
        }
    }
}

/// Writes one change if it is possible.
fn write(tx: &mut Transaction, event: &Event) {
    let stored = |tx: &Transaction, number: u8| {
        let id = task_id(&format!("t{number}"));
        tx.task(&id).map(|task| Task::clone(task))
    };
    match event {
        Event::Create(number, index, state) => {
            if stored(tx, *number).is_none() {
                let name = format!("t{number}");
                let task = task(&name, NODES[*index], state::ALL[*state]);
                tx.create(task).unwrap();
            }
        }
        Event::Advance(number, state) => {
            if let Some(mut task) = stored(tx, *number) {
                let status = TaskStatus::new(state::ALL[*state], Timestamp::EPOCH, "x");
                if task.advance(status).is_ok() {
                    tx.update(task).unwrap();
                }
            }
        }
        Event::Desire(number, state) => {
            if let Some(mut task) = stored(tx, *number)
                && task.set_desired(state::ALL[*state]).is_ok()
            {
                tx.update(task).unwrap();
            }
        }
        Event::Delete(number) => {
            if let Some(task) = stored(tx, *number) {
                tx.delete(Kind::Task, task.id.as_id()).unwrap();
            }
        }
        Event::Lag(_) | Event::Reconnect(_) | Event::Deliver { .. } | Event::Wait => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nodes_end_up_with_what_the_store_wants(
        events in proptest::collection::vec(event(), 1..80),
    ) {
        let mut world = World::new();
        for event in events {
            world.run(event);
        }
        for _ in 0..3 {
            world.rig.wait(ASSIGNMENT_BATCH_DELAY);
            world.deliver(true);
        }
        world.check();
    }
}
