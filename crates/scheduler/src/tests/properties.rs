//! Random worlds against the dumb twin.

use proptest::prelude::*;
use swarm_reconcile::Outcome;
use swarm_store::Root;
use swarm_types::{Node, NodeId, Task, TaskId, TaskState};

use super::twin;
use super::world::World;
use crate::Scheduler;

/// One thing that happens in a cluster.
#[derive(Clone, Debug)]
enum Event {
    /// A line of a world; those that do not apply are skipped.
    Line(String),
    /// A transaction of the scheduler: planned, then another event's line happens before it is
    /// committed.
    Step(Option<String>),
    /// A transaction that the log refuses.
    FailedStep,
    /// Events were lost.
    Lag,
    /// Time passes.
    Wait(u32),
}

fn node_line() -> impl Strategy<Value = String> {
    let name = 1..7;
    let words = prop::sample::subsequence(
        vec![
            "down",
            "ready",
            "active",
            "active",
            "drain",
            "pause",
            "cpu=3",
            "cpu=1",
            "mem=10",
            "generic=gpu=a;gpu=b;ssd=3",
            "generic=gpu=2",
            "label.az=a",
            "label.az=b",
            "label.disk=ssd",
            "label.disk=hdd",
            "os=linux",
            "arch=amd64",
            "plugin=Executor:native",
            "plugin=Volume:local",
        ],
        0..6,
    );
    (name, words).prop_map(|(name, words)| format!("node n{name} ready {}", words.join(" ")))
}

fn task_line() -> impl Strategy<Value = String> {
    let services = vec!["s1 v=1", "s1 v=2", "s2 v=1", "s3", ""];
    let service = prop::sample::select(services);
    let words = prop::sample::subsequence(
        vec![
            "cpu=1",
            "mem=4",
            "generic=gpu=1",
            "generic=ssd=2",
            "where=node.labels.disk==ssd",
            "platform=linux/amd64",
            "image=host",
            "image=nginx",
            "port=80/tcp",
            "port=80/udp",
            "max=1",
            "max=2",
            "spread=node.labels.az",
            "on=n1",
            "on=n2",
        ],
        0..3,
    );
    (0..40, service, words)
        .prop_map(|(name, service, words)| format!("task t{name:02} {service} {}", words.join(" ")))
}

fn change_line() -> impl Strategy<Value = String> {
    let words = vec![
        "accepted",
        "running",
        "complete",
        "failed",
        "rejected",
        "desired=shutdown",
        "desired=remove",
        "desired=complete",
    ];
    (0..40, prop::sample::select(words)).prop_map(|(name, word)| format!("task t{name:02} {word}"))
}

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        3 => node_line(),
        6 => task_line(),
        4 => change_line(),
        1 => (1..7).prop_map(|name| format!("remove node n{name}")),
        1 => (0..40).prop_map(|name| format!("remove task t{name:02}")),
        1 => (1..4, 1..3).prop_map(|(name, version)| format!("service s{name} v={version}")),
        1 => (1..4).prop_map(|name| format!("remove service s{name}")),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => line().prop_map(Event::Line),
        3 => prop::option::of(line()).prop_map(Event::Step),
        1 => Just(Event::FailedStep),
        1 => Just(Event::Lag),
        2 => (1u32..200).prop_map(Event::Wait),
    ]
}

/// Whether a random line makes sense here; the others are what a store would refuse, or specs that
/// change under a task, which cannot happen.
fn applies(world: &World, line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    let task = |name: &str| world.root.task(&name.parse::<TaskId>().unwrap());
    match words[..] {
        ["remove", "node", name] => world.root.node(&name.parse().unwrap()).is_some(),
        ["remove", "task", name] => task(name).is_some(),
        ["remove", "service", name] => world.root.service(&name.parse().unwrap()).is_some(),
        ["task", name, word] if !word.contains("v=") && task(name).is_some() => {
            let task = task(name).unwrap();
            match word.strip_prefix("desired=") {
                Some(desired) => task.desired_state().name() != desired && task.is_live(),
                None => {
                    task.state() >= TaskState::Assigned
                        && task.state() <= TaskState::Running
                        && state(word).is_some_and(|state| state >= task.state())
                }
            }
        }
        ["task", name, ..] => {
            task(name).is_none()
                && words
                    .last()
                    .is_some_and(|word| state(word).is_none() && !word.starts_with("desired"))
        }
        _ => true,
    }
}

fn state(word: &str) -> Option<TaskState> {
    let mut states = swarm_types::state::ALL.into_iter();
    states.find(|state| state.name() == word)
}

fn apply(world: &mut World, line: &str) {
    if applies(world, line) {
        world.apply(line);
    }
}

fn step(world: &mut World, between: Option<&String>) {
    let Some(batch) = world.poll() else {
        return;
    };
    if let Some(line) = between {
        apply(world, line);
    }
    world.commit(&batch);
}

fn handle(world: &mut World, event: &Event) {
    match event {
        Event::Line(line) => apply(world, line),
        Event::Step(between) => step(world, between.as_ref()),
        Event::FailedStep => {
            if world.poll().is_some() {
                world.queue.handle_outcome(&Outcome::Failed);
            }
        }
        Event::Lag => world.queue.handle_lag(&world.root),
        Event::Wait(millis) => world.apply(&format!("wait {millis}")),
    }
}

/// Nothing that could be placed waits.
fn check_complete(world: &World) {
    let waiting = |task: &&std::sync::Arc<Task>| {
        task.state() == TaskState::Pending && task.desired_state() <= TaskState::Complete
    };
    for task in world.root.all::<Task>().filter(waiting) {
        for node in world.root.all::<Node>() {
            let is_allowed = task.node_id.as_ref().is_none_or(|own| *own == node.id);
            assert!(
                !is_allowed || !twin::fits(&world.root, node, task),
                "{} waits although {} fits it",
                task.id,
                node.id
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// `World` compares the cache with a fresh one after each commit (I-LOOP-4), and judges each
    /// placement by what must hold (I-SCHED-1, I-SCHED-2).
    #[test]
    fn whatever_happens_the_cache_is_true_and_everything_ends_placed_or_explained(
        events in prop::collection::vec(event(), 1..60),
        orderings_max in prop::sample::select(vec![0usize, 12, usize::MAX]),
    ) {
        let scheduler = Scheduler::with_orderings_max(orderings_max);
        let mut world = World::with_scheduler(Root::default(), scheduler);
        for event in &events {
            handle(&mut world, event);
            world.queue.reconciler().check_orderings();
        }
        world.run();
        check_complete(&world);
        // What a pass left alone is what a new leader leaves alone.
        world.restart();
        let did = world.run();
        prop_assert!(!did.contains("->") && !did.contains("=>"), "{}", did);
        check_complete(&world);
    }

    /// Each task goes where the twin would put it.
    #[test]
    fn tasks_of_a_service_go_one_by_one_to_the_best_node(
        nodes in prop::collection::vec((0usize..3, 0usize..3, 0i64..6, any::<bool>()), 1..7),
        there in prop::collection::vec((0usize..6, any::<bool>()), 0..8),
        tasks in 1usize..12,
        needs_cpu in any::<bool>(),
        levels in 0usize..3,
    ) {
        let mut world = World::new();
        for (number, (az, rack, cpus, is_ready)) in nodes.iter().enumerate() {
            let state = if *is_ready { "ready" } else { "pause" };
            let labels = format!("label.az={az} label.rack={rack}");
            world.apply(&format!("node n{number} {state} cpu={cpus} {labels}"));
        }
        for (number, (node, same)) in there.iter().enumerate() {
            let service = if *same { "s1" } else { "s2" };
            world.apply(&format!("task a{number} {service} v=1 on=n{node} running"));
        }
        let spread: String = ["az", "rack"][..levels]
            .iter()
            .map(|label| format!(" spread=node.labels.{label}"))
            .collect();
        let cpu = if needs_cpu { " cpu=1" } else { "" };
        let last = tasks + 9;
        let line = format!("task t10..t{last} s1 v=1{cpu}{spread}");
        let mut twin_world = World::over(world.root.clone());
        world.apply(&line);
        world.run();
        twin_world.apply(&line);
        for number in 10..=last {
            let task = twin_world.task(&format!("t{number}")).clone();
            let best = twin::best(&twin_world.root, &task, &["az", "rack"][..levels]);
            let placed: Option<NodeId> = world.task(&format!("t{number}")).node_id.clone();
            prop_assert_eq!(&placed, &best, "t{}", number);
            if let Some(best) = best {
                twin_world.apply(&format!("task t{number} on={best} assigned"));
            }
        }
    }
}
