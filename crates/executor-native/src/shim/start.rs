//! From a plan to a running program.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::setsid;

use super::ShimError;
use super::clients::Clients;
use super::exec::{self, Waiting};
use super::health::Health;
use super::outputs::Output;
use super::supervisor::{Parts, Supervisor};
use crate::cgroup::{self, Group, Tree};
use crate::clock;
use crate::leftovers::DIR_COOKIE;
use crate::logs::{Stream, Writer};
use crate::process::{self, Identity};
use crate::records::{PayloadFile, Plan, Record};
use crate::task_dir::TaskDir;

/// Starts the task. A program that could not be executed gives a supervisor as well, which has the
/// rest to clean up.
pub(super) fn start(dir: &TaskDir, mut plan: Plan) -> Result<Supervisor, ShimError> {
    if let Some(path) = dir.path().to_str() {
        plan.launch
            .env
            .insert(DIR_COOKIE.to_owned(), path.to_owned());
    }
    leave_agent(dir)?;
    refuse_lost_payloads(&plan)?;
    let signals = block_signals()?;
    let clients = Clients::listen()?;
    let (groups, mut warnings) =
        Tree::detect().plan(&format!("swarm-{}", plan.task_id), &plan.limits);
    let mut record = Record {
        boot_id: process::boot_id(),
        shim: own_identity()?,
        main: None,
        groups,
        warnings: Vec::new(),
    };
    // Before anything is made, so that whoever finds us killed knows what to look for.
    dir.write_record(&record)?;
    dir.reserve_exit()?;
    warnings.extend(cgroup::create(&mut record.groups, &plan.limits));
    warnings.extend(plan.warnings.iter().cloned());
    record.warnings = warnings;
    let (waiting, mut child) = exec::spawn(&plan.shim_args, Stdio::piped(), Stdio::piped())
        .inspect_err(|_| drop(record.groups.iter().map(Group::remove).collect::<Vec<_>>()))?;
    let pipes = (
        child.stdout.take().map(OwnedFd::from),
        child.stderr.take().map(OwnedFd::from),
    );
    let pid = waiting.pid.as_raw();
    // The process waits for its orders, or is a zombie of ours: either way it is in the table.
    let main = Identity::of(pid).unwrap_or(Identity { pid, start: 0 });
    record.main = Some(main);
    let outcome = give_orders(dir, &plan, &record, waiting);
    let entrances = record.groups.iter().map(Group::entrance).collect();
    let health = plan.health.clone().map(|check| {
        Health::new(
            check,
            &plan.launch,
            plan.shim_args.clone(),
            entrances,
            clock::now(),
        )
    });
    let mut supervisor = Supervisor::new(Parts {
        writer: Writer::new(dir.log_path(), plan.log_file_bytes_max, plan.log_files_max),
        plan,
        main,
        record,
        signals,
        clients,
        outputs: [
            Output::new(Stream::Stdout, pipes.0),
            Output::new(Stream::Stderr, pipes.1),
        ],
        health,
    });
    if let Err(error) = outcome {
        supervisor.give_up(error.to_string());
    }
    Ok(supervisor)
}

fn give_orders(
    dir: &TaskDir,
    plan: &Plan,
    record: &Record,
    waiting: Waiting,
) -> Result<(), ShimError> {
    dir.write_record(record)?;
    let entrances = record.groups.iter().map(Group::entrance).collect();
    waiting.order(&plan.launch, entrances)?.wait()
}

/// A node that was restarted after the task was prepared has forgotten what was in memory.
fn refuse_lost_payloads(plan: &Plan) -> Result<(), ShimError> {
    let is_lost = |file: &PayloadFile| {
        let directory = plan.payload_dir.as_ref();
        directory.is_none_or(|directory| !directory.join(&file.path).exists())
    };
    match plan.payloads.iter().find(|file| is_lost(file)) {
        None => Ok(()),
        Some(file) => Err(ShimError::NotStarted(format!(
            "the file of {} {} is gone, as after a restart of the node",
            file.kind.noun(),
            file.id
        ))),
    }
}

/// Signals to the agent's terminal or group must not reach the task, and what the task leaves
/// behind must become our child.
fn leave_agent(dir: &TaskDir) -> Result<(), ShimError> {
    // Fails for the leader of a session, who has left already.
    let _led_already = setsid();
    prctl::set_child_subreaper(true).map_err(ShimError::system("become the parent of orphans"))?;
    std::env::set_current_dir(dir.path()).map_err(ShimError::system("enter the task's directory"))
}

fn block_signals() -> Result<SignalFd, ShimError> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGCHLD,
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ] {
        signals.add(signal);
    }
    signals
        .thread_block()
        .map_err(ShimError::system("block signals"))?;
    SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        .map_err(ShimError::system("listen for signals"))
}

fn own_identity() -> Result<Identity, ShimError> {
    Identity::of(process::own_pid())
        .ok_or_else(|| ShimError::NotStarted("/proc is not mounted; mount it".into()))
}
