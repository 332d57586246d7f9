//! A stock Docker Engine on a machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::lab::Lab;
use crate::machine::{Machine, Running};
use crate::program;
use crate::wait::until_in;

/// The only image there is; a static busybox.
pub(crate) const IMAGE: &str = "bb:1";
/// How long an Engine may take to start.
const START_MAX: Duration = Duration::from_secs(60);

/// Dropping it, or its machine, ends it with all containers and mounts.
#[derive(Debug)]
pub(crate) struct Engine {
    daemon: Running,
    words: Vec<String>,
    log: PathBuf,
    socket: String,
    /// Removed after the daemon is gone.
    _cgroups: Cgroups,
}

impl Engine {
    /// Starts it with the image in it.
    pub(crate) async fn start(lab: &Lab, machine: &Machine) -> Self {
        let directory = lab.path(machine.name());
        let path = |name: &str| text(&directory.join(name));
        let socket = format!("unix://{}", path("docker.sock"));
        let cgroups = Cgroups::new(machine.name());
        let words = [
            "dockerd",
            "--data-root",
            &path("root"),
            "--exec-root",
            &path("exec"),
            "--pidfile",
            &path("docker.pid"),
            "--host",
            &socket,
            "--cgroup-parent",
            &format!("/{}", cgroups.0),
        ];
        let words = words.map(str::to_owned).to_vec();
        let log = directory.join("engine.log");
        let mut engine = Self {
            daemon: spawn(machine, &log, &words),
            words,
            log,
            socket,
            _cgroups: cgroups,
        };
        engine.answers().await;
        engine.import(lab).await;
        engine
    }

    /// kill -9, and a start with what it has.
    pub(crate) async fn restart(&mut self, machine: &Machine) {
        self.daemon.kill().await;
        self.daemon = spawn(machine, &self.log, &self.words);
        self.answers().await;
    }

    async fn answers(&mut self) {
        until_in(START_MAX, "the engine answers", async || {
            self.daemon.check()?;
            self.docker(&["version"]).await.map(|_| ())
        })
        .await;
    }

    async fn import(&self, lab: &Lab) {
        let root = lab.path("image");
        for name in ["bin", "etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir_all(root.join(name)).unwrap();
        }
        let script = format!(
            "set -e; cd {0}; cp \"$(command -v busybox)\" bin/busybox; \
             for name in $(bin/busybox --list); do [ -e bin/$name ] || ln -s busybox bin/$name; \
             done; tar -c . | docker -H {1} import - {IMAGE}",
            text(&root),
            self.socket,
        );
        program::host(&["bash", "-c", &script]).await.unwrap();
    }

    /// The client of the engine.
    pub(crate) async fn docker(&self, words: &[&str]) -> Result<String, String> {
        let mut all = vec!["docker", "-H", &self.socket];
        all.extend_from_slice(words);
        program::host(&all).await
    }

    /// One line of the client's answer.
    pub(crate) async fn ask(&self, words: &[&str]) -> String {
        self.docker(words).await.unwrap().trim().to_owned()
    }

    /// The containers that run, by name.
    pub(crate) async fn containers(&self) -> Vec<String> {
        let list = self.ask(&["ps", "--format", "{{.Names}}"]).await;
        let mut names: Vec<String> = list.lines().map(str::to_owned).collect();
        names.sort();
        names
    }

    /// `Err` when it has ended or has complained of a panic.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        self.daemon.check()?;
        let log = self.daemon.log();
        match log.lines().find(|line| line.contains("panic")) {
            Some(line) => Err(line.to_owned()),
            None => Ok(()),
        }
    }

    pub(crate) fn log(&self) -> String {
        self.daemon.log()
    }
}

fn spawn(machine: &Machine, log: &Path, words: &[String]) -> Running {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let variables = [("DOCKER_SERVICE_PREFER_OFFLINE_IMAGE", "1")];
    machine.spawn(log, &words, &variables)
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

/// The control groups of an engine's containers, which outlive a killed engine.
#[derive(Debug)]
struct Cgroups(String);

impl Cgroups {
    fn new(machine: &str) -> Self {
        Self(format!("swarm-live-{}-{machine}", std::process::id()))
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        let root = PathBuf::from("/sys/fs/cgroup");
        remove_groups(&root.join(&self.0));
        let hierarchies = std::fs::read_dir(&root).into_iter().flatten().flatten();
        for hierarchy in hierarchies {
            remove_groups(&hierarchy.path().join(&self.0));
        }
    }
}

/// Groups are removed from the leaves on; one that is in use stays.
fn remove_groups(group: &Path) {
    let children = std::fs::read_dir(group).into_iter().flatten().flatten();
    for child in children {
        if child.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_groups(&child.path());
        }
    }
    let _ = std::fs::remove_dir(group);
}
