//! `swarmd`, the node daemon: arguments and assembly.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod daemon;
mod dev;
mod join_check;
mod leave;
mod locking;
mod malloc;
mod open_files;

use std::process::ExitCode;

use clap::Parser as _;
use swarm_node::{NodeError, RemovedNode};
use swarm_rt::logging;

/// The exit code of a manager that is locked.
const LOCKED: u8 = 3;
/// The exit code of a node that was removed from its cluster.
const REMOVED: u8 = 4;

fn main() -> ExitCode {
    let args = args::Args::parse();
    // These two are other programs that this file happens to contain; a shim must be a process
    // with a single thread, so nothing is started before them.
    match &args.command {
        Some(args::Command::Shim { files, directory }) => {
            open_files::give_back(*files);
            return swarm_executor_native::shim::main(directory);
        }
        Some(args::Command::HelloWeb { arguments }) => return hello_web::main(arguments),
        Some(args::Command::Join(_) | args::Command::Leave(_)) => {}
        Some(args::Command::Dev(_)) | None => {
            malloc::set_up();
            logging::end_process_on_panic();
            if let Err(error) = swarm_rt::dumps::forbid() {
                logging::say(&format!("swarmd: core dumps cannot be forbidden: {error}"));
            }
        }
    }
    match run(args) {
        Ok(()) => {
            logging::flush();
            ExitCode::SUCCESS
        }
        Err(error) => {
            logging::say(&format!("swarmd: {error:#}"));
            exit_code(&error)
        }
    }
}

fn run(args: args::Args) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async move {
        match args.command {
            Some(args::Command::Dev(dev)) => dev::run(dev).await,
            Some(args::Command::Join(check)) => join_check::run(check).await,
            Some(args::Command::Leave(args)) => leave::run(args).await,
            Some(args::Command::Shim { .. } | args::Command::HelloWeb { .. }) | None => {
                daemon::run(args.daemon).await
            }
        }
    })
}

/// A locked manager that starts without its key will not start the next time either, and a removed
/// node is removed for good.
fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<RemovedNode>() {
        return ExitCode::from(REMOVED);
    }
    match error.downcast_ref::<NodeError>() {
        Some(error) if error.is_locked() => ExitCode::from(LOCKED),
        Some(_) | None => ExitCode::FAILURE,
    }
}
