//! A machine: namespaces for network, processes and mounts, held by one process.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::program;
use crate::wait::until;

/// Lines of a log that are shown when a test fails.
const LOG_LINES_SHOWN: usize = 40;

/// Dropping it ends everything that runs on it, at once.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    /// Starts the holder and dies with the thread of the test.
    starter: Child,
    /// The first process of the machine, as the host numbers it.
    holder: i32,
}

impl Machine {
    /// A machine with a loopback interface.
    pub(crate) async fn start(name: &str) -> Result<Self, String> {
        let starter = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .args([
                "unshare",
                "--net",
                "--uts",
                "--pid",
                "--mount-proc",
                "--fork",
            ])
            .args(["--kill-child=SIGKILL", "--"])
            // Reaps what loses its parent, as the first process of a machine has to.
            .args(["docker-init", "-s", "--", "sleep", "infinity"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .map_err(|error| format!("setpriv: {error}"))?;
        let mut machine = Self {
            name: name.to_owned(),
            holder: 0,
            starter,
        };
        machine.holder = until("the holder of a machine runs", async || {
            if let Ok(Some(status)) = machine.starter.try_wait() {
                return Ok(Err(format!("unshare: {status}")));
            }
            let holder = first_child(machine.starter.id().cast_signed());
            let holder = holder.ok_or_else(|| "it has not started".to_owned())?;
            let command = fs::read_to_string(format!("/proc/{holder}/cmdline"));
            match command {
                Ok(command) if command.starts_with("docker-init") => Ok(Ok(holder)),
                other => Err(format!("{other:?}")),
            }
        })
        .await?;
        machine.run(&["busybox", "hostname", name]).await?;
        machine.run(&["ip", "link", "set", "lo", "up"]).await?;
        Ok(machine)
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// For `ip link set … netns`.
    pub(crate) fn holder(&self) -> String {
        self.holder.to_string()
    }

    fn entering(&self, words: &[&str]) -> Vec<String> {
        let target = format!("--target={}", self.holder);
        let enter = [
            "nsenter", &target, "--net", "--uts", "--pid", "--mount", "--",
        ];
        let all = enter.iter().chain(words);
        all.map(|word| (*word).to_owned()).collect()
    }

    /// Runs a program to its end.
    pub(crate) async fn run(&self, words: &[&str]) -> Result<String, String> {
        let words = self.entering(words);
        program::run(tokio::process::Command::new(&words[0]).args(&words[1..])).await
    }

    /// Starts a program that stays, with its output in a file.
    pub(crate) fn spawn(&self, log: &Path, words: &[&str], variables: &[(&str, &str)]) -> Running {
        let file = File::options().create(true).append(true).open(log).unwrap();
        let words = self.entering(words);
        let child = Command::new(&words[0])
            .args(&words[1..])
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Running {
            name: format!("{} on {}", words[7..].join(" "), self.name),
            child,
            log: log.to_owned(),
        }
    }

    /// Pulls the plug.
    pub(crate) fn power_off(&mut self) {
        if self.holder != 0 {
            let _ = kill(Pid::from_raw(self.holder), Signal::SIGKILL);
            self.holder = 0;
        }
        let _ = self.starter.kill();
        let _ = self.starter.wait();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.power_off();
    }
}

/// A program on a machine. It ends with the machine at the latest.
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn log(&self) -> String {
        let bytes = fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// `Err` with the end of its log when it has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        let ended = self.child.try_wait();
        match ended.map_err(|error| error.to_string())? {
            None => Ok(()),
            Some(status) => Err(format!("{} ended: {status}\n{}", self.name, self.log())),
        }
    }

    /// kill -9.
    pub(crate) async fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        until("a killed program has ended", async || {
            match self.child.try_wait().unwrap() {
                Some(_) => Ok(()),
                None => Err(format!("{} runs", self.name)),
            }
        })
        .await;
    }

    /// The program is the child of the one that entered the machine.
    fn signal(&self, signal: Signal) {
        if let Some(pid) = first_child(self.child.id().cast_signed()) {
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let text = self.log();
            let lines: Vec<&str> = text.lines().collect();
            let first = lines.len().saturating_sub(LOG_LINES_SHOWN);
            let text = lines[first..].join("\n");
            // A closed standard error must not hide the failure.
            let _ = writeln!(std::io::stderr().lock(), "=== {}\n{text}", self.name);
        }
        self.signal(Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn first_child(pid: i32) -> Option<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let text = fs::read_to_string(path).ok()?;
    text.split_whitespace().next()?.parse().ok()
}
