//! `cargo bench -p swarm-bench --bench memory`: what a million tasks take. A program of its own,
//! so that nothing else has grown the process before.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Instant;

use swarm_bench::memory;
use swarm_bench::runner::{Options, nanos};
use swarm_bench::world::NOW;

const TASKS: usize = 1_000_000;
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
            nanos(memory::assign(TASKS, 100_000)),
        )?;
    }
    let failed = options.strict && !passed;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

fn million(out: &mut impl Write) -> io::Result<bool> {
    let filled = memory::fill(TASKS);
    let passed = filled.resident <= RESIDENT_MAX;
    writeln!(
        out,
        "{:<44} {} MB resident, {} B per task, {} to create one; Go 9,200 MB, bar 1,200 MB {}",
        "memory/million",
        filled.resident / 1_000_000,
        filled.resident / TASKS as u64,
        nanos(filled.nanos),
        if passed { "PASS" } else { "FAIL" },
    )?;
    const UPDATES: usize = 20_000;
    let start = Instant::now();
    for index in 0..UPDATES {
        let id = &filled.tasks[index * 7_919 % TASKS];
        filled
            .store
            .update(NOW, |tx| memory::touch(tx, id))
            .expect("every task is there");
    }
    writeln!(
        out,
        "{:<44} {} for one status in one transaction; Go 112 us",
        "memory/million, update",
        nanos(start.elapsed().as_secs_f64() * 1e9 / UPDATES as f64),
    )?;
    Ok(passed)
}
