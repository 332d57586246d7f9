//! An executor in a temporary directory, and tasks that run shell scripts.

use std::collections::BTreeSet;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use swarm_api::prost_types;
use swarm_api::v1;
use swarm_api::v1::task_spec::Runtime;
use swarm_executor::{Controller, ExecError, Executor, Recovery};
use swarm_executor_native::{NativeConfig, NativeExecutor};
use swarm_types::{Task, TaskId};

/// No step of a test takes longer on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    root: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            root: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn config(&self) -> NativeConfig {
        NativeConfig {
            shim_program: env!("CARGO_BIN_EXE_swarm-shim").into(),
            shim_args: Vec::new(),
            ..NativeConfig::new(self.root.path().to_owned())
        }
    }

    /// A new agent on the same state.
    pub(crate) fn executor(&self) -> NativeExecutor {
        NativeExecutor::new(self.config()).unwrap()
    }

    pub(crate) async fn controller(&self, task: &Arc<Task>) -> Arc<dyn Controller> {
        self.executor().controller(task.clone()).await.unwrap()
    }

    /// A prepared and started task.
    pub(crate) async fn started(&self, task: &Arc<Task>) -> Arc<dyn Controller> {
        let controller = self.controller(task).await;
        within(controller.prepare()).await.unwrap();
        within(controller.start()).await.unwrap();
        controller
    }

    pub(crate) async fn recover(&self, known: &[&Arc<Task>]) -> Recovery {
        let known: BTreeSet<TaskId> = known.iter().map(|task| task.id.clone()).collect();
        let executor = self.executor();
        within(executor.recover(&known)).await.unwrap()
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn task_file(&self, task: &Task, name: &str) -> PathBuf {
        self.file("tasks").join(task.id.to_string()).join(name)
    }

    /// A field of a record that the shim wrote, by path.
    pub(crate) fn shim_record(&self, task: &Task) -> serde_json::Value {
        let text = std::fs::read_to_string(self.task_file(task, "shim.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    /// The captured output without its times.
    pub(crate) fn output(&self, task: &Task) -> Vec<String> {
        let text = std::fs::read_to_string(self.task_file(task, "output.log")).unwrap_or_default();
        text.lines()
            .map(|line| line.split_once(' ').unwrap().1.to_owned())
            .collect()
    }
}

/// A task that runs a shell script.
pub(crate) fn script(text: &str) -> Arc<Task> {
    script_with(text, |_| {})
}

pub(crate) fn script_with(text: &str, change: impl FnOnce(&mut v1::ContainerSpec)) -> Arc<Task> {
    let mut container = v1::ContainerSpec {
        image: "host".into(),
        command: vec!["/bin/sh".into(), "-c".into(), text.into()],
        // Short, so that a test which needs the kill does not wait.
        stop_grace_period: Some(prost_types::Duration {
            seconds: 30,
            nanos: 0,
        }),
        ..Default::default()
    };
    change(&mut container);
    let runtime = Some(Runtime::Container(container));
    let spec = Arc::new(v1::TaskSpec {
        runtime,
        ..Default::default()
    });
    // Control groups are named after tasks, and tests share a machine.
    static LAST: AtomicU32 = AtomicU32::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    let id = format!("test{}x{number}", std::process::id());
    Arc::new(Task::new(id.parse().unwrap(), spec))
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future)
        .await
        .expect("the deadline of the test")
}

/// Waits until `read` has a value.
pub(crate) async fn eventually<T>(what: &str, mut read: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(value) = read() {
            return value;
        }
        assert!(Instant::now() < deadline, "{what}: not within {DEADLINE:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The number that a script wrote to a file, once it is complete.
pub(crate) async fn pid_in(path: &Path) -> i32 {
    eventually(&format!("a pid in {}", path.display()), || {
        let text = std::fs::read_to_string(path).ok()?;
        text.strip_suffix('\n')?.parse().ok()
    })
    .await
}

/// Whether a process runs; a zombie does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return false;
    };
    !text
        .rsplit_once(')')
        .unwrap()
        .1
        .trim_start()
        .starts_with(['Z', 'X'])
}

pub(crate) fn kill(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

pub(crate) fn exit_of(result: Result<(), ExecError>) -> (i32, bool, String) {
    match result {
        Err(ExecError::Exited { code, oom, message }) => (code, oom, message),
        other => panic!("not an exit: {other:?}"),
    }
}
