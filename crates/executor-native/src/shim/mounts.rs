//! A view of the file system that only the task has: its secrets and configs at the paths where the
//! spec wants them. The rest is the node's.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::records::Bind;

/// Mode of the empty files that are made to mount over.
const PLACE_MODE: u32 = 0o444;

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
    match fs::metadata(&bind.target) {
        Ok(found) if found.is_file() => return Ok(()),
        Ok(_) => {
            return Err(format!(
                "{target} on the node is no file, so no secret or config can be shown there; use \
                 another target"
            ));
        }
        Err(_) => {}
    }
    make_place(&bind.target).map_err(|cause| {
        format!(
            "cannot make an empty file {target} on the node to show a secret or config at: \
             {cause}; use a relative target, or make the file"
        )
    })
}

/// Makes an empty file to mount over. It stays: another task may use the place, and to delete it
/// would take the file from under that task. What is shown there is not in it.
fn make_place(target: &Path) -> io::Result<()> {
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(PLACE_MODE)
        .open(target);
    match made {
        // Another task was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}
