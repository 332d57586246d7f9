//! `cargo bench -p swarm-bench --bench memory`: what a million tasks take. A program of its own,
//! so that nothing else has grown the process before.

use std::io::{self, Write};
use std::process::ExitCode;

use swarm_bench::memory::{self, Size};
use swarm_bench::runner::{Options, nanos};

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
    let failed = options.strict && !passed;
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
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
