//! `cargo bench -p swarm-bench --bench memory`: what a million tasks take. A program of its own,
//! so that nothing else has grown the process before.

use std::hint::black_box;
use std::io::{self, Write};
use std::process::ExitCode;

use swarm_api::v1::ClusterSnapshot;
use swarm_bench::memory::{self, Size};
use swarm_bench::runner::{Clock, Options, nanos};
use swarm_bench::world::NOW;
use swarm_store::{encode_commit, read_snapshot, write_snapshot};
use swarm_types::Task;

/// The bar of resident memory, in bytes; Go needs nine billion.
const RESIDENT_MAX: u64 = 1_200_000_000;

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(message) => {
            writeln!(io::stderr(), "bench: {message}")?;
            return Ok(ExitCode::FAILURE);
        }
    };
    let mut passed = true;
    if options.wants("memory/million") {
        passed = million(&mut out)?;
    }
    if options.wants("memory/assign") {
        writeln!(
            out,
            "{:<44} {} for each of 1M tasks in batches of 200 onto 100k nodes",
            "memory/assign",
            nanos(memory::assign(Size::MILLION.tasks, 100_000).wall),
        )?;
    }
    if options.wants("memory/snapshot") {
        snapshot(&mut out)?;
    }
    let failed = options.strict && !passed;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

/// A snapshot of 100,000 tasks, written and read, and the log entry of a transaction of 200.
fn snapshot(out: &mut impl Write) -> io::Result<()> {
    const TASKS: usize = 100_000;
    let root = memory::fill(Size::of(TASKS, 200)).store.view();
    let clock = Clock::start();
    let bytes = write_snapshot(&root, ClusterSnapshot::default());
    let written = clock.stop(TASKS);
    drop(root);
    let clock = Clock::start();
    let (read, _) = read_snapshot(&bytes).map_err(io::Error::other)?;
    let took = clock.stop(TASKS);
    writeln!(
        out,
        "{:<44} {} B per task; {} of a processor to write one, {} to read one",
        "memory/snapshot",
        bytes.len() / TASKS,
        nanos(written.cpu.unwrap_or(written.wall)),
        nanos(took.cpu.unwrap_or(took.wall)),
    )?;
    let mut transaction = read.begin(NOW);
    for task in read.all::<Task>().take(200) {
        transaction
            .update(Task::clone(task))
            .map_err(io::Error::other)?;
    }
    let commit = transaction.finish().1;
    const ROUNDS: usize = 1_000;
    let clock = Clock::start();
    for round in 0..ROUNDS {
        black_box(encode_commit(round as u64, &commit));
    }
    let took = clock.stop(ROUNDS * 200);
    writeln!(
        out,
        "{:<44} {} for each task of a log entry",
        "memory/encode",
        nanos(took.cpu.unwrap_or(took.wall)),
    )
}

fn million(out: &mut impl Write) -> io::Result<bool> {
    let filled = memory::fill(Size::MILLION);
    let passed = filled.resident <= RESIDENT_MAX;
    writeln!(
        out,
        "{:<44} {} MB resident, {} B per task, {} to create one; Go 9,200 MB, bar 1,200 MB {}",
        "memory/million",
        filled.resident / 1_000_000,
        filled.resident / Size::MILLION.tasks as u64,
        nanos(filled.took.wall),
        if passed { "PASS" } else { "FAIL" },
    )?;
    writeln!(
        out,
        "{:<44} {} for one status in one transaction; Go 112 us",
        "memory/million, update",
        nanos(filled.report(20_000).wall),
    )?;
    Ok(passed)
}
