//! How the C library's allocator works in the daemon (ADR 0018).
//!
//! By default it leaves small pieces that were freed lying apart until somebody asks for a large
//! one. After a large service went, that is one thread of the manager merging a million of them
//! while all others wait for it. The setting against it is read when a program starts, so the
//! daemon starts itself once more with it.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// The C library's variable, and what is wanted of it.
const TUNABLES: &str = "GLIBC_TUNABLES";
const NO_FAST_BINS: &str = "glibc.malloc.mxfast";
/// Set in the process that was started with it, so that nobody starts itself for ever.
const DONE: &str = "SWARMD_MALLOC";

/// Puts a process with the setting in the place of this one, with the same number, arguments and
/// files; returns where it is set already or cannot be.
#[expect(
    clippy::disallowed_methods,
    reason = "these two variables are none of the daemon's configuration: one is the C library's, \
              and the other goes from this process to itself"
)]
pub(crate) fn set_up() {
    if !cfg!(target_env = "gnu") || env::var_os(DONE).is_some() {
        return;
    }
    let Some(tunables) = with_setting(env::var_os(TUNABLES)) else {
        return;
    };
    let mut arguments = env::args_os();
    let (Some(name), Ok(program)) = (arguments.next(), env::current_exe()) else {
        return;
    };
    let error = Command::new(program)
        .arg0(name)
        .args(arguments)
        .env(TUNABLES, tunables)
        .env(DONE, "set")
        .exec();
    swarm_rt::logging::say(&format!(
        "swarmd: goes on with the allocator as it is: {error}"
    ));
}

/// The variable with the setting; `None` if the operator has decided on it.
fn with_setting(tunables: Option<OsString>) -> Option<OsString> {
    let mut tunables = tunables.unwrap_or_default();
    if tunables.to_string_lossy().contains(NO_FAST_BINS) {
        return None;
    }
    if !tunables.is_empty() {
        tunables.push(":");
    }
    tunables.push(NO_FAST_BINS);
    tunables.push("=0");
    Some(tunables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_operator_set_stays() {
        let with = |text: &str| with_setting(Some(text.into()));
        let alone = Some("glibc.malloc.mxfast=0".into());
        assert_eq!(with_setting(None), alone);
        assert_eq!(with(""), alone);
        let both = with("glibc.malloc.arena_max=2").unwrap();
        assert_eq!(both, "glibc.malloc.arena_max=2:glibc.malloc.mxfast=0");
        assert_eq!(with("glibc.malloc.mxfast=64"), None);
    }
}
