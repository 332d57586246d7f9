//! The manager under test: one of our own, or one that runs already.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::{Child, Command};

use crate::books;
use crate::options::Run;

/// How long a manager may take to stop before it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(20);

/// A manager; one of our own ends when this is dropped.
pub(crate) struct Manager {
    /// Where agents reach it.
    pub(crate) addr: SocketAddr,
    /// Where clients reach it.
    pub(crate) socket: PathBuf,
    process: u32,
    own: Option<Own>,
}

struct Own {
    child: Child,
    directory: PathBuf,
    keep: bool,
}

impl Manager {
    /// Starts a manager on a fresh directory, or takes the one that the options name.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(run: &Run) -> anyhow::Result<Self> {
        if let (Some(socket), Some(addr), Some(process)) = (&run.attach, run.addr, run.pid) {
            let socket = socket.clone();
            return Ok(Self {
                addr,
                socket,
                process,
                own: None,
            });
        }
        let program = match &run.swarmd {
            Some(program) => program.clone(),
            None => beside_this_program("swarmd")?,
        };
        let directory = fresh_directory(&run.state_dir)?;
        let addr = free_address()?;
        // The path of a socket is short, that of a directory may be long.
        let socket = std::env::temp_dir().join(format!("swarm-load-{}.sock", addr.port()));
        let log = std::fs::File::create(directory.join("manager.log")).context("open a log")?;
        let child = Command::new(&program)
            .arg("--state-dir")
            .arg(directory.join("state"))
            .args(["--hostname", "manager"])
            .args(["--listen-remote-api", &addr.to_string()])
            .arg("--listen-control-api")
            .arg(&socket)
            .args(["--availability", "drain"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("open a log")?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("start {}", program.display()))?;
        let process = child.id().context("the manager ended at once")?;
        let keep = run.keep;
        Ok(Self {
            addr,
            socket,
            process,
            own: Some(Own {
                child,
                directory,
                keep,
            }),
        })
    }

    /// Seconds of processor time that it has used.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn cpu(&self) -> anyhow::Result<f64> {
        books::cpu(self.process).context("the manager is gone; its log tells why")
    }

    /// Bytes of it that are resident.
    ///
    /// # Errors
    /// When it is gone.
    pub(crate) fn resident(&self) -> anyhow::Result<u64> {
        books::resident(self.process).context("the manager is gone; its log tells why")
    }

    /// Where its log and state are, if it is one of our own.
    pub(crate) fn directory(&self) -> Option<&Path> {
        self.own.as_ref().map(|own| own.directory.as_path())
    }

    /// Stops it, if it is one of our own, and removes its directory.
    pub(crate) async fn stop(mut self) {
        let Some(mut own) = self.own.take() else {
            return;
        };
        let process = i32::try_from(self.process)
            .ok()
            .map(nix::unistd::Pid::from_raw);
        if let Some(process) = process {
            // Fails only when it has ended.
            let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM);
        }
        if tokio::time::timeout(STOP_TIMEOUT, own.child.wait())
            .await
            .is_err()
        {
            anstream::eprintln!("swarm-load: the manager does not stop; it is killed");
            drop(own.child.kill().await);
        }
        drop(std::fs::remove_file(&self.socket));
        if own.keep {
            anstream::eprintln!("swarm-load: kept {}", own.directory.display());
        } else {
            drop(std::fs::remove_dir_all(&own.directory));
        }
    }
}

fn beside_this_program(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe().context("find this program")?;
    let program = own.with_file_name(name);
    anyhow::ensure!(
        program.exists(),
        "{} does not exist; build it with `cargo build --release -p swarmd`, or use --swarmd",
        program.display()
    );
    Ok(program)
}

fn fresh_directory(parent: &Path) -> anyhow::Result<PathBuf> {
    // A number that grows keeps the directories of one process apart.
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let directory = parent.join(format!("{}-{number}", std::process::id()));
    let made = std::fs::create_dir_all(&directory);
    made.with_context(|| format!("create {}", directory.display()))?;
    std::fs::canonicalize(&directory).with_context(|| format!("find {}", directory.display()))
}

/// An address that nobody uses at this moment.
fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    listener.local_addr().context("find a free port")
}

/// Until when something must be done.
pub(crate) fn deadline(limit: Duration) -> Instant {
    Instant::now() + limit
}
