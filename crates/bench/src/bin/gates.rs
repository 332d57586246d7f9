//! The scaling gates of `performance.md` 8 F that concern store and scheduler: ratios inside this
//! build, so that they hold on any machine. `cargo xtask bench --gates` runs them.
//!
//! Allocations decide, because they are the same in every run. Time on a processor has a wider
//! bound: caches are finite, so a larger world is slower for reasons that no code has; the bound
//! only has to catch what grows with the world, which a tenfold world shows as a factor near ten.

use std::alloc::System;
use std::io::{self, Write};
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use swarm_bench::memory::{self, Filled, Size};
use swarm_bench::runner::{Took, nanos};
use swarm_bench::scheduler::{Shape, schedule};
use swarm_bench::world::Ids;
use swarm_store::{Filter, Key, Selector, Subscription};
use swarm_types::{IdSource, Kind, NodeId};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds of which the fastest counts: what disturbs only ever adds time.
const ROUNDS: usize = 9;

/// One ratio: the same work in a large world and in a small one.
struct Gate {
    name: &'static str,
    /// Bound on the ratio of allocations.
    allocations_max: f64,
    /// So many more allocations are fine whatever the ratio: each tree that is a level deeper in
    /// the larger world has one more node to copy, and the ratio only tells how few there were.
    deeper_trees: f64,
    /// Bound on the ratio of time on a processor.
    time_max: f64,
    measure: fn() -> Ratio,
}

impl Gate {
    fn bound(&self) -> String {
        if self.deeper_trees == 0.0 {
            format!("{:.1}", self.allocations_max)
        } else {
            format!("{:.1}, +{:.0}", self.allocations_max, self.deeper_trees)
        }
    }
}

/// What one operation took.
struct Ratio {
    large: Took,
    small: Took,
}

const GATES: &[Gate] = &[
    Gate {
        name: "scheduler: 10k one-off tasks, 1,000 / 100 nodes",
        allocations_max: 1.3,
        deeper_trees: 0.0,
        time_max: 1.3,
        measure: || per_task(Shape::OneOff, [1_000, 100], [10_000, 10_000]),
    },
    Gate {
        name: "scheduler: 10k one-off tasks, 10,000 / 1,000 nodes",
        allocations_max: 1.3,
        deeper_trees: 0.0,
        time_max: 2.0,
        measure: || per_task(Shape::OneOff, [10_000, 1_000], [10_000, 10_000]),
    },
    Gate {
        name: "scheduler: 1k nodes, 100k / 10k one-off tasks",
        allocations_max: 1.2,
        deeper_trees: 2.0,
        time_max: 2.0,
        measure: || per_task(Shape::OneOff, [1_000, 1_000], [100_000, 10_000]),
    },
    Gate {
        name: "scheduler: 1k nodes, 100k / 10k tasks of a service",
        allocations_max: 1.2,
        deeper_trees: 2.0,
        time_max: 2.0,
        measure: || per_task(Shape::GroupedReserved, [1_000, 1_000], [100_000, 10_000]),
    },
    Gate {
        name: "store: a status report among 1M / 100k tasks",
        allocations_max: 1.3,
        deeper_trees: 0.0,
        time_max: 3.0,
        measure: reports,
    },
    Gate {
        name: "store: an update with 10,000 / 1 idle watchers",
        allocations_max: 1.0,
        deeper_trees: 0.0,
        time_max: 1.3,
        measure: idle_watchers,
    },
];

/// Bound on the ratio of live bytes per task at 100k and at 10k tasks.
const BYTES_MAX: f64 = 1.1;

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let mut passed = true;
    let mut verdict = |holds: bool| {
        passed &= holds;
        if holds { "PASS" } else { "FAIL" }
    };
    writeln!(
        out,
        "{:<52} {:>16} {:>6} {:>8}   {:>20} {:>6} {:>6}",
        "gate", "allocations", "ratio", "bound", "time", "ratio", "bound"
    )?;
    for gate in GATES {
        let Ratio { large, small } = (gate.measure)();
        let allocations = large.allocations / small.allocations;
        let (large_cpu, small_cpu) = (cpu(large), cpu(small));
        let time = large_cpu / small_cpu;
        let more = large.allocations - small.allocations;
        let few = allocations <= gate.allocations_max || more <= gate.deeper_trees;
        let holds = few && time <= gate.time_max;
        writeln!(
            out,
            "{:<52} {:>16} {:>6.2} {:>8}   {:>20} {:>6.2} {:>6.1} {}",
            gate.name,
            format!("{:.1} / {:.1}", large.allocations, small.allocations),
            allocations,
            gate.bound(),
            format!("{} / {}", nanos(large_cpu), nanos(small_cpu)),
            time,
            gate.time_max,
            verdict(holds),
        )?;
    }
    let (large, small) = (bytes_per_task(100_000), bytes_per_task(10_000));
    let ratio = large / small;
    writeln!(
        out,
        "{:<52} {:>16} {ratio:>6.2} {BYTES_MAX:>8.1} {}",
        "store: bytes per task at 100k / 10k tasks",
        format!("{large:.0} B / {small:.0} B"),
        verdict(ratio <= BYTES_MAX),
    )?;
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn cpu(took: Took) -> f64 {
    took.cpu.unwrap_or(took.wall)
}

/// The fastest of some rounds, with the fewest allocations.
fn best(rounds: impl Iterator<Item = Took>) -> Took {
    let worst = Took {
        wall: f64::INFINITY,
        cpu: None,
        allocations: f64::INFINITY,
    };
    rounds.fold(worst, |best, round| Took {
        wall: best.wall.min(round.wall),
        cpu: Some(cpu(best).min(cpu(round))),
        allocations: best.allocations.min(round.allocations),
    })
}

/// Measures both worlds in turn, so that a busy minute hits both.
fn in_turn(mut large: impl FnMut() -> Took, mut small: impl FnMut() -> Took) -> Ratio {
    let (large, small): (Vec<Took>, Vec<Took>) = (0..ROUNDS).map(|_| (large(), small())).unzip();
    Ratio {
        large: best(large.into_iter()),
        small: best(small.into_iter()),
    }
}

/// The scheduler's cost per task in a large and in a small world.
fn per_task(shape: Shape, nodes: [usize; 2], tasks: [usize; 2]) -> Ratio {
    let one = |place: usize| {
        let took = schedule(shape, nodes[place], tasks[place]);
        let tasks = tasks[place] as f64;
        Took {
            wall: took.wall / tasks,
            cpu: took.cpu.map(|cpu| cpu / tasks),
            allocations: took.allocations / tasks,
        }
    };
    in_turn(|| one(0), || one(1))
}

fn reports() -> Ratio {
    const REPORTS: usize = 20_000;
    let filled = |tasks| memory::fill(Size::of(tasks, tasks));
    let (large, small): (Filled, Filled) = (filled(1_000_000), filled(100_000));
    in_turn(|| large.report(REPORTS), || small.report(REPORTS))
}

/// Ten thousand agents whose tasks do not change.
fn idle_watchers() -> Ratio {
    const REPORTS: usize = 20_000;
    let (watched, alone) = (
        memory::fill(Size::of(10_000, 10_000)),
        memory::fill(Size::of(10_000, 10_000)),
    );
    let mut ids = Ids::new(6);
    let watchers: Vec<Subscription> = (0..10_000)
        .map(|_| {
            let other = Key::TasksOnNode(NodeId::new(ids.next_id()));
            let filter = Filter::Any(vec![Selector::kind(Kind::Task).key(other)]);
            watched.store.view_and_watch(filter).1
        })
        .collect();
    // One watcher here too: what the first one costs is not what this gate is about.
    let one = Key::TasksOnNode(NodeId::new(ids.next_id()));
    let one = alone
        .store
        .view_and_watch(Filter::Any(vec![Selector::kind(Kind::Task).key(one)]));
    let ratio = in_turn(|| watched.report(REPORTS), || alone.report(REPORTS));
    drop((watchers, one));
    ratio
}

/// Live bytes of a filled store, by the allocator's books.
fn bytes_per_task(tasks: usize) -> f64 {
    let live = || {
        let stats = INSTRUMENTED_SYSTEM.stats();
        stats.bytes_allocated as f64 - stats.bytes_deallocated as f64
    };
    let before = live();
    let filled = memory::fill(Size::of(tasks, 200));
    // The ids that the workload keeps for itself do not count.
    let own = filled.tasks.capacity() * size_of::<swarm_types::TaskId>();
    (live() - before - own as f64) / tasks as f64
}
