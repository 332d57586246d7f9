//! The stop signal, to the process group of a task.

use std::process::{Command, Stdio};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Sends a signal to a process group. One that cannot be sent becomes SIGTERM, so that the task
/// hears of its end; what has ended meanwhile hears nothing.
pub(super) fn send(group: i32, number: i32) {
    let signal = match Signal::try_from(number) {
        Ok(signal) => signal,
        Err(_) if send_real_time(group, number) => return,
        Err(_) => Signal::SIGTERM,
    };
    let _ended_meanwhile = killpg(Pid::from_raw(group), signal);
}

/// Safe Rust has no number for real-time signals, every shell has. Takes milliseconds, once in the
/// life of a task.
fn send_real_time(group: i32, number: i32) -> bool {
    let sent = Command::new("/bin/sh")
        .arg("-c")
        .arg(format!("kill -{number} -{group}"))
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    sent.is_ok_and(|status| status.success())
}
