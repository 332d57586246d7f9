//! Brings the secrets and configs of a task into its directory in memory, and takes them away.

use bytes::Bytes;
use nix::unistd::{getegid, geteuid};
use swarm_executor::{Dependencies, ExecError};
use swarm_types::Task;

use crate::executor::Shared;
use crate::files::FileError;
use crate::lifecycle::blocking;
use crate::memory::{self, Memory, Owner, PAYLOADS_BYTES_MAX};
use crate::records::{PayloadFile, PayloadKind, Plan};

/// What is to be in each file of a plan.
///
/// # Errors
/// [`ExecError::DependencyNotReady`] for an object that has not come; [`ExecError::Fatal`] for a
/// template that cannot be expanded, and for more than fits.
pub(crate) fn contents(
    plan: &Plan,
    dependencies: &Dependencies,
    task: &Task,
    shared: &Shared,
) -> Result<Vec<(PayloadFile, Bytes)>, ExecError> {
    let node = Some(&shared.settings.node);
    let mut contents = Vec::new();
    let mut bytes = 0;
    for file in &plan.payloads {
        let payload = match file.kind {
            PayloadKind::Secret => dependencies.secret_payload(&file.id, task, node)?,
            PayloadKind::Config => dependencies.config_payload(&file.id, task, node)?,
        };
        bytes += payload.data.len();
        contents.push((file.clone(), payload.data));
    }
    if bytes > PAYLOADS_BYTES_MAX {
        return Err(ExecError::fatal(format!(
            "the secrets and configs of task {} have {bytes} bytes together, which take memory of \
             the node; at most {PAYLOADS_BYTES_MAX} are allowed, use fewer",
            task.id
        )));
    }
    Ok(contents)
}

/// Writes the files of a plan.
pub(crate) fn write(
    plan: &Plan,
    contents: Vec<(PayloadFile, Bytes)>,
    shared: &Shared,
) -> Result<(), FileError> {
    let Some(directory) = &plan.payload_dir else {
        return Ok(());
    };
    let Ok(memory) = Memory::find(&shared.config.root) else {
        let cause = std::io::Error::other("the file system in memory is gone; mount it again");
        return Err(FileError::refused("use", directory)(cause));
    };
    let credentials = plan.launch.credentials.as_ref();
    let owner = Owner {
        uid: credentials.map_or_else(|| geteuid().as_raw(), |own| own.uid),
        gid: credentials.map_or_else(|| getegid().as_raw(), |own| own.gid),
    };
    memory::write(&memory, directory, &contents, owner)
}

/// Removes the files of a task, whether or not there are any.
///
/// # Errors
/// When some are left; calling again continues.
pub(crate) async fn forget(shared: &Shared, task: &str) -> Result<(), ExecError> {
    let Ok(memory) = Memory::find(&shared.config.root) else {
        return Ok(());
    };
    let directory = memory.of_task(task);
    blocking(move || memory::remove(&directory)).await
}
