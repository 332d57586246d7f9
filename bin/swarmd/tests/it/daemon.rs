//! One `swarmd` process that can be killed and started again.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::Signal;

use crate::cluster::until;
use crate::processes;

/// The program under test.
pub(crate) const SWARMD: &str = env!("CARGO_BIN_EXE_swarmd");
/// Lines of a log that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 60;

/// A daemon, running or not. Dropping it kills it.
#[derive(Debug)]
pub(crate) struct Daemon {
    name: String,
    arguments: Vec<String>,
    /// How many files it may have open, if not as many as this process.
    files: Option<u32>,
    log: PathBuf,
    /// Where the log of this run begins.
    log_start: usize,
    /// Where it logs to instead of its file.
    stderr: Option<OwnedFd>,
    child: Option<Child>,
}

impl Daemon {
    pub(crate) fn start(name: &str, directory: &Path, arguments: &[&str]) -> Self {
        Self::start_with(name, directory, arguments, None, None)
    }

    /// The same with a limit on open files that it cannot raise.
    pub(crate) fn start_with_files(
        name: &str,
        directory: &Path,
        arguments: &[&str],
        files: Option<u32>,
    ) -> Self {
        Self::start_with(name, directory, arguments, files, None)
    }

    /// Starts one whose log goes elsewhere, so that only its socket tells that it is ready.
    pub(crate) fn start_with_stderr(
        name: &str,
        directory: &Path,
        arguments: &[&str],
        stderr: OwnedFd,
    ) -> Self {
        Self::start_with(name, directory, arguments, None, Some(stderr))
    }

    fn start_with(
        name: &str,
        directory: &Path,
        arguments: &[&str],
        files: Option<u32>,
        stderr: Option<OwnedFd>,
    ) -> Self {
        let mut daemon = Self {
            name: name.to_owned(),
            arguments: arguments.iter().map(|&word| word.to_owned()).collect(),
            files,
            log: directory.join(format!("{name}.log")),
            log_start: 0,
            stderr,
            child: None,
        };
        daemon.start_again();
        daemon
    }

    /// Starts it with the same arguments.
    pub(crate) fn start_again(&mut self) {
        assert!(self.child.is_none(), "{} is running", self.name);
        let mut log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        writeln!(log, "--- start of {}", self.name).unwrap();
        self.log_start = usize::try_from(log.metadata().unwrap().len()).unwrap();
        let stderr = match &self.stderr {
            Some(other) => Stdio::from(other.try_clone().unwrap()),
            None => Stdio::from(log.try_clone().unwrap()),
        };
        let child = self
            .program()
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    fn program(&self) -> Command {
        let Some(files) = self.files else {
            return Command::new(SWARMD);
        };
        let mut shell = Command::new("sh");
        let script = format!("ulimit -n {files}; exec \"$0\" \"$@\"");
        shell.args(["-c", &script, SWARMD]);
        shell
    }

    pub(crate) fn pid(&self) -> i32 {
        let child = self.child.as_ref().expect("the daemon runs");
        child.id().cast_signed()
    }

    /// What it has logged since its last start.
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[self.log_start.min(bytes.len())..]).into_owned()
    }

    /// Waits until it says that it is ready.
    pub(crate) async fn ready(&mut self) {
        until(&format!("{} is ready", self.name), async || {
            match self.log().contains("node is ready") {
                true => Ok(()),
                false => Err(self.log()),
            }
        })
        .await;
        assert!(
            self.exited().is_none(),
            "{} ended: {}",
            self.name,
            self.log()
        );
    }

    /// How it ended, if it did.
    pub(crate) fn exited(&mut self) -> Option<ExitStatus> {
        let child = self.child.as_mut()?;
        child.try_wait().unwrap()
    }

    /// kill -9 of the daemon alone; what it started lives on.
    pub(crate) fn kill(&mut self) {
        let mut child = self.child.take().expect("the daemon runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop and waits for its end.
    pub(crate) async fn stop(&mut self) -> ExitStatus {
        processes::signal(self.pid(), Signal::SIGTERM);
        self.end().await
    }

    /// Waits until it has ended by itself.
    pub(crate) async fn end(&mut self) -> ExitStatus {
        let what = format!("{} has ended", self.name);
        let status = until(&what, async || self.exited().ok_or_else(|| self.log())).await;
        self.child = None;
        status
    }

    fn show_log(&self) {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
        let mut out = std::io::stderr().lock();
        // A closed standard error must not hide the failure.
        let _ = writeln!(out, "=== {}\n{}", self.name, lines[first..].join("\n"));
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            self.show_log();
        }
    }
}
