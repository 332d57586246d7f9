//! How many instructions the timed part of a workload takes: the program runs itself under
//! callgrind, which counts them in the functions named [`TIMED`] and in all that they call.
//!
//! Owns the command line and the reading of callgrind's report; what to run is the caller's.

use std::io;
use std::process::{Child, Command, Stdio};

/// Part of the names of the functions that the clock covers, and of no others.
pub const TIMED: &str = "::timed_";

/// A copy of this program that runs under callgrind.
#[derive(Debug)]
pub struct Counting(Child);

/// Whether valgrind is on the path and runs.
pub fn is_available() -> bool {
    Command::new("valgrind")
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

impl Counting {
    /// Starts this program with the arguments.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(arguments: &[&str]) -> io::Result<Self> {
        Command::new("valgrind")
            .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
            .arg(format!("--toggle-collect=*{TIMED}*"))
            .arg(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map(Self)
    }

    /// Waits for the end. Returns the instructions of the timed part.
    ///
    /// # Errors
    /// When the program failed, and when callgrind counted nothing.
    pub fn finish(self) -> io::Result<u64> {
        let output = self.0.wait_with_output()?;
        let report = String::from_utf8_lossy(&output.stderr);
        collected(&report)
            .filter(|count| output.status.success() && *count > 0)
            .ok_or_else(|| {
                io::Error::other(format!(
                    "callgrind counted no instruction in `*{TIMED}*` ({}): {}",
                    output.status,
                    report.trim()
                ))
            })
    }
}

/// The count in `==4711== Collected : 123456`.
fn collected(report: &str) -> Option<u64> {
    let (_, count) = report.split_once("Collected :")?;
    count.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_read_from_callgrinds_report() {
        let report = "==7== \n==7== Events    : Ir\n==7== Collected : 1203\n==7== \n";
        assert_eq!(collected(report), Some(1_203));
        for none in ["", "==7== Collected :", "==7== Collected : many"] {
            assert_eq!(collected(none), None, "{none}");
        }
    }
}
