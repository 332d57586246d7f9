//! The shim as a program of its own, for the tests of this crate. `swarmd shim` does the same.

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    match std::env::args_os().nth(1) {
        Some(dir) => swarm_executor_native::shim::main(&PathBuf::from(dir)),
        None => ExitCode::from(2),
    }
}
