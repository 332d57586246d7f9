//! A view of the file system that only the task has: its secrets and configs at the paths where the
//! spec wants them. The rest is the node's.

use std::fs;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::records::Bind;

/// Leaves the node's mount namespace and makes the binds in order; nothing happens without any.
pub(super) fn make(binds: &[Bind]) -> Result<(), String> {
    if binds.is_empty() {
        return Ok(());
    }
    unshare(CloneFlags::CLONE_NEWNS)
        .map_err(|cause| format!("cannot make a mount namespace: {cause}"))?;
    // What the node mounts later still reaches the task; what is mounted here stays here.
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(|cause| format!("cannot keep mounts to the task: {cause}"))?;
    binds.iter().try_for_each(bind)
}

fn bind(bind: &Bind) -> Result<(), String> {
    let (source, target) = (&bind.source, &bind.target);
    prepare(bind)?;
    let refused = |cause| {
        format!(
            "cannot bind {} to {}: {cause}",
            source.display(),
            target.display()
        )
    };
    let none = None::<&Path>;
    mount(Some(source), target, none, MsFlags::MS_BIND, none).map_err(refused)?;
    // A bind takes its flags only when it is mounted again.
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(
        none,
        target,
        none,
        flags | MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        none,
    )
    .map_err(refused)
}

fn prepare(bind: &Bind) -> Result<(), String> {
    let target = bind.target.display();
    if bind.is_dir {
        return fs::create_dir_all(&bind.target)
            .map_err(|cause| format!("cannot create {target}: {cause}"));
    }
    // Making the file would write to the node's disk and outlive the task.
    let is_file = fs::metadata(&bind.target).is_ok_and(|found| found.is_file());
    if is_file {
        return Ok(());
    }
    Err(format!(
        "there is no file {target} on the node to put a secret or config over; create an empty \
         one, or use a relative target"
    ))
}
