//! The scaling gates of `performance.md` 8 F that concern store and scheduler: ratios inside this
//! build, so that they hold on any machine. `cargo xtask bench --gates` runs them.
//!
//! Instructions decide: the program runs itself once more for each world under callgrind (`gates
//! --one <gate> <large|small>`), which counts those of the timed part, and no neighbour and no
//! cache changes that count. Allocations and time on a processor stand beside them for
//! information: allocations of a copy-on-write tree come in steps, one more for each level, and a
//! larger world is slower for caches that are finite, whatever the code does.
//!
//! Without valgrind on the path, a row passes if its allocations keep the same bound; if they do
//! not, it is skipped and says so, because they alone do not prove it wrong. Where a bound on
//! allocations is part of the promise, it holds with valgrind and without.

use std::alloc::System;
use std::io::{self, Write};
use std::process::ExitCode;

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use swarm_bench::instructions::{self, Counting};
use swarm_bench::memory::{self, Filled, Size};
use swarm_bench::runner::{Took, nanos};
use swarm_bench::scheduler::{Shape, schedule};
use swarm_bench::world::Ids;
use swarm_store::{Filter, Key, Selector, Subscription};
use swarm_types::{IdSource, Kind, NodeId};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Rounds of which the fastest counts: what disturbs only ever adds time.
const ROUNDS: usize = 3;

/// Status reports in one round.
const REPORTS: usize = 20_000;

/// One ratio: the same work in a large world and in a small one.
struct Gate {
    name: &'static str,
    /// Bound on the ratio of instructions per operation.
    max: f64,
    /// Bound on the ratio of allocations, where it is part of the promise.
    allocations_max: Option<f64>,
    large: Work,
    small: Work,
}

/// What is measured.
#[derive(Clone, Copy)]
enum Work {
    /// The scheduler places so many tasks on so many nodes; the operation is a task.
    Schedule {
        shape: Shape,
        nodes: usize,
        tasks: usize,
    },
    /// Status reports among so many tasks; the operation is a report.
    Report { tasks: usize },
    /// Status reports while so many agents watch tasks that do not change.
    Watched { watchers: usize },
}

const fn one_off(nodes: usize, tasks: usize) -> Work {
    Work::Schedule {
        shape: Shape::OneOff,
        nodes,
        tasks,
    }
}

const fn service(nodes: usize, tasks: usize) -> Work {
    Work::Schedule {
        shape: Shape::GroupedReserved,
        nodes,
        tasks,
    }
}

const GATES: &[Gate] = &[
    Gate {
        name: "scheduler: 10k one-off tasks, 1,000 / 100 nodes",
        max: 1.3,
        allocations_max: None,
        large: one_off(1_000, 10_000),
        small: one_off(100, 10_000),
    },
    Gate {
        name: "scheduler: 10k one-off tasks, 10,000 / 1,000 nodes",
        max: 1.3,
        allocations_max: None,
        large: one_off(10_000, 10_000),
        small: one_off(1_000, 10_000),
    },
    Gate {
        name: "scheduler: 1k nodes, 100k / 10k one-off tasks",
        max: 1.2,
        allocations_max: None,
        large: one_off(1_000, 100_000),
        small: one_off(1_000, 10_000),
    },
    Gate {
        name: "scheduler: 1k nodes, 100k / 10k tasks of a service",
        max: 1.2,
        allocations_max: None,
        large: service(1_000, 100_000),
        small: service(1_000, 10_000),
    },
    Gate {
        name: "store: a status report among 1M / 100k tasks",
        max: 1.3,
        allocations_max: None,
        large: Work::Report { tasks: 1_000_000 },
        small: Work::Report { tasks: 100_000 },
    },
    Gate {
        name: "store: an update with 10,000 / 1 idle watchers",
        // `performance.md` 8 F has no bound for this one. Who does not match costs nothing but a
        // place in a table.
        max: 1.1,
        allocations_max: Some(1.0),
        large: Work::Watched { watchers: 10_000 },
        small: Work::Watched { watchers: 1 },
    },
];

/// Bound on the ratio of live bytes per task at 100k and at 10k tasks.
const BYTES_MAX: f64 = 1.1;

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let passed = match arguments[..] {
        [] => all(&mut out)?,
        ["--one", name, world] => one(name, world).is_some(),
        _ => false,
    };
    if !passed && !arguments.is_empty() {
        writeln!(
            io::stderr(),
            "gates: {arguments:?} is not `--one <name of a gate> <large|small>`"
        )?;
    }
    Ok(if passed {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Runs one world of one gate once; `None` when there is no such.
fn one(name: &str, world: &str) -> Option<Took> {
    let gate = GATES.iter().find(|gate| gate.name == name)?;
    let work = match world {
        "large" => gate.large,
        "small" => gate.small,
        _ => return None,
    };
    Some(work.prepare()())
}

/// Runs every gate and prints the table; `false` when one failed.
fn all(out: &mut impl Write) -> io::Result<bool> {
    let counts = instructions::is_available();
    let mut passed = true;
    let mut skipped = false;
    writeln!(
        out,
        "{:<52} {:>19} {:>6} {:>6} {:<4}   {:>13} {:>6}   {:>17} {:>6}",
        "gate", "instructions", "ratio", "bound", "", "allocations", "ratio", "time", "ratio"
    )?;
    for gate in GATES {
        let counted = if counts {
            Some(gate.instructions()?)
        } else {
            None
        };
        let [large, small] = gate.in_turn();
        let allocations = large.allocations / small.allocations;
        let ratio = counted.map(|[large, small]| large / small);
        let verdict = verdict(gate.max, gate.allocations_max, ratio, allocations);
        passed &= verdict != Verdict::Fail;
        skipped |= verdict == Verdict::Skip;
        let time = cpu(large) / cpu(small);
        writeln!(
            out,
            "{:<52} {:>19} {:>6} {:>6.1} {}   {:>13} {:>6.2}   {:>17} {:>6.2}",
            gate.name,
            counted.map_or_else(String::new, |[large, small]| format!(
                "{large:.0} / {small:.0}"
            )),
            ratio.map_or_else(String::new, |ratio| format!("{ratio:.3}")),
            gate.max,
            verdict.text(),
            format!("{:.1} / {:.1}", large.allocations, small.allocations),
            allocations,
            format!("{} / {}", nanos(cpu(large)), nanos(cpu(small))),
            time,
        )?;
    }
    let (large, small) = (bytes_per_task(100_000), bytes_per_task(10_000));
    let ratio = large / small;
    let verdict = verdict(BYTES_MAX, None, Some(ratio), 1.0);
    passed &= verdict != Verdict::Fail;
    writeln!(
        out,
        "{:<52} {:>19} {ratio:>6.3} {BYTES_MAX:>6.1} {}",
        "store: bytes per task at 100k / 10k tasks",
        format!("{large:.0} B / {small:.0} B"),
        verdict.text(),
    )?;
    if !counts {
        writeln!(out, "No valgrind on the path: allocations decided.")?;
    }
    if skipped {
        writeln!(out, "SKIP: not checked; the row needs valgrind.")?;
    }
    Ok(passed)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Pass,
    Fail,
    /// Nobody counted instructions, and allocations prove nothing.
    Skip,
}

impl Verdict {
    fn text(self) -> &'static str {
        match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Skip => "SKIP",
        }
    }
}

/// Instructions decide; where nobody counted them, allocations can only acquit.
fn verdict(
    max: f64,
    allocations_max: Option<f64>,
    instructions: Option<f64>,
    allocations: f64,
) -> Verdict {
    if allocations_max.is_some_and(|max| allocations > max) {
        return Verdict::Fail;
    }
    match instructions {
        Some(ratio) if ratio <= max => Verdict::Pass,
        Some(_) => Verdict::Fail,
        None if allocations <= max => Verdict::Pass,
        None => Verdict::Skip,
    }
}

impl Gate {
    /// Instructions of an operation in the large and in the small world. Both run at once: they
    /// do not disturb each other's count.
    fn instructions(&self) -> io::Result<[f64; 2]> {
        let [large, small] =
            ["large", "small"].map(|world| Counting::start(&["--one", self.name, world]));
        let (large, small) = (large?, small?);
        let (large, small) = (large.finish(), small.finish());
        Ok([
            large? as f64 / self.large.operations() as f64,
            small? as f64 / self.small.operations() as f64,
        ])
    }

    /// Measures both worlds in turn, so that a busy minute hits both.
    fn in_turn(&self) -> [Took; 2] {
        let (mut large, mut small) = (self.large.prepare(), self.small.prepare());
        let (large, small): (Vec<Took>, Vec<Took>) =
            (0..ROUNDS).map(|_| (large(), small())).unzip();
        [best(&large), best(&small)]
    }
}

impl Work {
    /// Operations in one round.
    fn operations(self) -> usize {
        match self {
            Self::Schedule { tasks, .. } => tasks,
            Self::Report { .. } | Self::Watched { .. } => REPORTS,
        }
    }

    /// Sets the world up. Each call of what it returns is a round and tells what an operation took.
    fn prepare(self) -> Box<dyn FnMut() -> Took> {
        match self {
            Self::Schedule {
                shape,
                nodes,
                tasks,
            } => Box::new(move || per_task(schedule(shape, nodes, tasks), tasks)),
            Self::Report { tasks } => {
                let filled = memory::fill(Size::of(tasks, tasks));
                Box::new(move || filled.report(REPORTS))
            }
            Self::Watched { watchers } => {
                let filled = memory::fill(Size::of(10_000, 10_000));
                let watchers = idle_watchers(&filled, watchers);
                Box::new(move || {
                    let took = filled.report(REPORTS);
                    assert!(!watchers.is_empty(), "they watch until the end");
                    took
                })
            }
        }
    }
}

fn cpu(took: Took) -> f64 {
    took.cpu.unwrap_or(took.wall)
}

/// The fastest of some rounds, with the fewest allocations.
fn best(rounds: &[Took]) -> Took {
    let worst = Took {
        wall: f64::INFINITY,
        cpu: None,
        allocations: f64::INFINITY,
    };
    rounds.iter().fold(worst, |best, round| Took {
        wall: best.wall.min(round.wall),
        cpu: Some(cpu(best).min(cpu(*round))),
        allocations: best.allocations.min(round.allocations),
    })
}

fn per_task(took: Took, tasks: usize) -> Took {
    let tasks = tasks as f64;
    Took {
        wall: took.wall / tasks,
        cpu: took.cpu.map(|cpu| cpu / tasks),
        allocations: took.allocations / tasks,
    }
}

/// Agents whose tasks do not change.
fn idle_watchers(filled: &Filled, watchers: usize) -> Vec<Subscription> {
    let mut ids = Ids::new(6);
    (0..watchers)
        .map(|_| {
            let other = Key::TasksOnNode(NodeId::new(ids.next_id()));
            let filter = Filter::Any(vec![Selector::kind(Kind::Task).key(other)]);
            filled.store.view_and_watch(filter).1
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_decide_and_allocations_only_acquit() {
        assert_eq!(verdict(1.2, None, Some(1.2), 9.0), Verdict::Pass);
        assert_eq!(verdict(1.2, None, Some(1.21), 1.0), Verdict::Fail);
        assert_eq!(verdict(1.2, None, None, 1.2), Verdict::Pass);
        assert_eq!(verdict(1.2, None, None, 1.21), Verdict::Skip);
    }

    #[test]
    fn promised_allocations_decide_beside_instructions() {
        assert_eq!(verdict(1.1, Some(1.0), Some(1.1), 1.0), Verdict::Pass);
        for counted in [Some(1.0), None] {
            assert_eq!(verdict(1.1, Some(1.0), counted, 1.01), Verdict::Fail);
        }
    }

    #[test]
    fn a_gate_is_found_by_its_name_and_world() {
        assert!(one("store: no such gate", "large").is_none());
        assert!(one(GATES[0].name, "medium").is_none());
    }
}
