//! How many files the daemon and what it starts may have open.
//!
//! Each connection is one, and the limit that a process is started with is a low one, since old
//! programs break with a high one. So the daemon raises its own, and tasks get what it had.

use anyhow::Context as _;
use swarm_executor_native::NativeConfig;
use swarm_rt::files::{self, FILES_MIN};

/// Raises the limit of this process, and has tasks start with the one of before.
pub(crate) fn raise(native: &mut NativeConfig) -> anyhow::Result<()> {
    let raised = files::raise().context("find out how many files may be open")?;
    anyhow::ensure!(
        raised.now >= FILES_MIN,
        "this process may have {} files open, and a node needs {FILES_MIN} at least; raise its \
         limit (ulimit -n, LimitNOFILE=)",
        raised.now
    );
    let option = format!("--files={}", raised.before);
    native.shim_args.push(option);
    Ok(())
}

/// Takes the limit that a task is to have. One that cannot be set is left as it is.
pub(crate) fn give_back(limit: Option<u64>) {
    if let Some(limit) = limit {
        drop(files::lower(limit));
    }
}
