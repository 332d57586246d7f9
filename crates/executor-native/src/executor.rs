//! The executor: its configuration, the description of the node, and what is left from before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::process::Child;
use std::sync::{Arc, Mutex, PoisonError};

use swarm_api::v1;
use swarm_executor::{BoxFuture, Controller, ExecError, Executor, LogOptions, LogStream, Recovery};
use swarm_types::{Task, TaskId, engine, networks};

use crate::conditions::Watch;
use crate::controller::NativeController;
use crate::files::FileError;
use crate::leftovers;
use crate::lifecycle::{self, State};
use crate::log_reader::NativeLogs;
use crate::machine::{self, LocalMachine};
use crate::memory::{self, Memory};
use crate::records::Request;
use crate::spec::Settings;
use crate::task_dir::TaskDir;

/// Size of one file of captured output, in bytes. With [`LOG_FILES_MAX`] this bounds what a task
/// can write to the disk of the node to 30 MiB; Docker's `local` driver has 20 MiB and 5 files.
pub const LOG_FILE_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// Files of captured output per task.
pub const LOG_FILES_MAX: u32 = 3;
/// Longest task id that can name a directory, in bytes; ours have 25. Names have 255, and control
/// groups get a prefix.
const TASK_ID_BYTES_MAX: usize = 200;

/// What an executor needs to know.
#[derive(Debug, Clone)]
pub struct NativeConfig {
    /// Where tasks have their directories. Must outlive the agent, not the machine.
    pub root: PathBuf,
    /// The program that becomes a shim.
    pub shim_program: PathBuf,
    /// Its arguments before the directory of the task. The program must then call
    /// [`crate::shim::main`] with that last argument.
    pub shim_args: Vec<String>,
    /// The name of this node; `None` for the machine's.
    pub hostname: Option<String>,
    /// Search path of tasks; `None` for the usual one. Pass the agent's own.
    pub path: Option<String>,
    /// Labels of the engine, for placement constraints.
    pub engine_labels: BTreeMap<String, String>,
    /// Generic resources of this node.
    pub generic_resources: Vec<v1::GenericResource>,
    /// Processors to offer, in billionths; `None` for all.
    pub nano_cpus: Option<i64>,
    /// Memory to offer, in bytes; `None` for all.
    pub memory_bytes: Option<i64>,
    /// Size at which a file of captured output is closed, in bytes.
    pub log_file_bytes_max: u64,
    /// Files of captured output to keep per task, at least 1.
    pub log_files_max: u32,
}

impl NativeConfig {
    /// The defaults: this very program becomes the shim by its hidden subcommand `shim`.
    pub fn new(root: PathBuf) -> Self {
        Self {
            root,
            // The link works even when the name cannot be found out.
            shim_program: std::env::current_exe().unwrap_or_else(|_| "/proc/self/exe".into()),
            shim_args: vec!["shim".to_owned()],
            hostname: None,
            path: None,
            engine_labels: BTreeMap::new(),
            generic_resources: Vec::new(),
            nano_cpus: None,
            memory_bytes: None,
            log_file_bytes_max: LOG_FILE_BYTES_MAX,
            log_files_max: LOG_FILES_MAX,
        }
    }
}

/// Runs tasks as processes of this machine.
#[derive(Debug)]
pub struct NativeExecutor {
    shared: Arc<Shared>,
}

/// What all controllers of one executor share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: NativeConfig,
    pub(crate) settings: Settings,
    pub(crate) machine: LocalMachine,
    watch: Watch,
    /// Shims this agent started, to be reaped. One per running task.
    shims: Mutex<Vec<Child>>,
    /// Says that an agent cares for these tasks, from [`Executor::recover`] on.
    held: Mutex<Option<File>>,
}

impl NativeExecutor {
    /// An executor for this machine.
    ///
    /// # Errors
    /// When the directory of the tasks cannot be made.
    pub fn new(mut config: NativeConfig) -> Result<Self, ExecError> {
        let refused = |cause| {
            let error = FileError::refused("create", &config.root)(cause);
            ExecError::fatal(error.to_string())
        };
        // Shims leave the agent's directory.
        let root = std::path::absolute(&config.root).map_err(refused)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root.join("tasks"))
            .map_err(refused)?;
        config.root = root;
        let settings = Settings {
            node: description(&config),
            shim_args: config.shim_args.clone(),
            log_file_bytes_max: config.log_file_bytes_max,
            log_files_max: config.log_files_max.max(1),
        };
        let machine = LocalMachine {
            path: config.path.clone(),
            root: config.root.clone(),
        };
        let shims = Mutex::default();
        let watch = Watch::new(&config.root);
        Ok(Self {
            shared: Arc::new(Shared {
                config,
                settings,
                machine,
                watch,
                shims,
                held: Mutex::default(),
            }),
        })
    }

    /// Removes secrets and configs of tasks that nobody knows.
    async fn forget_payloads(&self, known: &BTreeSet<TaskId>) -> Option<String> {
        let memory = Memory::find(&self.shared.config.root).ok()?;
        let known: BTreeSet<String> = known.iter().map(ToString::to_string).collect();
        let removed = lifecycle::blocking(move || {
            let names = memory.names()?;
            let mut gone = names.iter().filter(|name| !known.contains(*name));
            gone.try_for_each(|name| memory::remove(&memory.of_task(name)))
        });
        removed.await.err().map(|error| error.to_string())
    }

    async fn recover_all(&self, known: &BTreeSet<TaskId>) -> Result<Recovery, ExecError> {
        let mut recovery = Recovery::default();
        recovery.failures.extend(self.forget_payloads(known).await);
        self.sweep(&mut recovery).await?;
        let mut orphans = Vec::new();
        for (name, dir) in self.shared.task_dirs()? {
            match name.parse::<TaskId>() {
                Ok(id) if known.contains(&id) => match lifecycle::settled(&dir).await {
                    Ok(State::Alive) => drop(recovery.running.insert(id)),
                    Ok(State::Absent | State::Prepared | State::Lost(..) | State::Ended(_)) => {
                        recovery.idle.insert(id);
                    }
                    Err(error) => recovery.failures.push(format!("task {id}: {error}")),
                },
                Ok(id) => orphans.push((Some(id), dir)),
                Err(_) => orphans.push((None, dir)),
            }
        }
        remove_orphans(orphans, &mut recovery).await;
        Ok(recovery)
    }

    /// Takes this directory, and ends what runs for one that was in its place.
    async fn sweep(&self, recovery: &mut Recovery) -> Result<(), ExecError> {
        let shared = Arc::clone(&self.shared);
        let root = self.shared.config.root.clone();
        let swept = lifecycle::blocking(move || {
            let held = leftovers::hold(&root).map_err(FileError::refused("lock", &root))?;
            if held.is_some() {
                *shared.held.lock().unwrap_or_else(PoisonError::into_inner) = held;
            }
            Ok(leftovers::sweep(&root))
        });
        let swept = swept.await?;
        recovery.leftovers.extend(swept.told);
        recovery.failures.extend(swept.failures);
        Ok(())
    }

    fn present_now(&self) -> Result<BTreeSet<TaskId>, ExecError> {
        let dirs = self.shared.task_dirs()?.into_iter();
        Ok(dirs.filter_map(|(name, _)| name.parse().ok()).collect())
    }

    async fn discard_all(&self, tasks: &BTreeSet<TaskId>) -> Result<Recovery, ExecError> {
        let mut recovery = Recovery::default();
        let mut orphans = Vec::new();
        for id in tasks {
            orphans.push((Some(id.clone()), self.shared.task_dir(id)?));
        }
        remove_orphans(orphans, &mut recovery).await;
        Ok(recovery)
    }
}

fn description(config: &NativeConfig) -> v1::NodeDescription {
    v1::NodeDescription {
        hostname: config.hostname.clone().unwrap_or_else(machine::hostname),
        platform: Some(v1::Platform {
            architecture: std::env::consts::ARCH.to_owned(),
            os: std::env::consts::OS.to_owned(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: config.nano_cpus.unwrap_or_else(machine::nano_cpus),
            memory_bytes: config.memory_bytes.unwrap_or_else(machine::memory_bytes),
            generic: config.generic_resources.clone(),
        }),
        engine: Some(v1::EngineDescription {
            engine_version: format!("swarmkit-rs {}", env!("CARGO_PKG_VERSION")),
            labels: config.engine_labels.clone(),
            plugins: [
                // The only network that tasks can be on is the machine's own.
                (networks::NETWORK_PLUGIN, "host"),
                (engine::EXECUTOR_PLUGIN, engine::NATIVE_EXECUTOR),
            ]
            .map(|(kind, name)| v1::PluginDescription {
                r#type: kind.to_owned(),
                name: name.to_owned(),
            })
            .into(),
        }),
        ..v1::NodeDescription::default()
    }
}

/// Ends and removes tasks.
async fn remove_orphans(orphans: Vec<(Option<TaskId>, TaskDir)>, recovery: &mut Recovery) {
    // All of them first, so that their grace periods pass together.
    for (_, dir) in &orphans {
        lifecycle::request(dir, Request::Stop).await;
    }
    for (id, dir) in orphans {
        let path = dir.path().display().to_string();
        match remove_orphan(&dir).await {
            Ok(()) => recovery.removed.extend(id),
            Err(error) => recovery.failures.push(format!("orphan in {path}: {error}")),
        }
    }
}

async fn remove_orphan(dir: &TaskDir) -> Result<(), ExecError> {
    lifecycle::end(dir, Request::Stop).await?;
    lifecycle::remove(dir).await
}

impl Shared {
    fn task_dir(&self, id: &TaskId) -> Result<TaskDir, ExecError> {
        let name = id.to_string();
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if name.len() > TASK_ID_BYTES_MAX || !name.bytes().all(is_plain) {
            return Err(ExecError::fatal(format!(
                "task id {name:?} cannot name a directory: at most {TASK_ID_BYTES_MAX} letters, \
                 digits, - and _ can; create the task anew"
            )));
        }
        Ok(TaskDir::new(self.config.root.join("tasks").join(name)))
    }

    fn task_dirs(&self) -> Result<Vec<(String, TaskDir)>, ExecError> {
        let tasks = self.config.root.join("tasks");
        let refused =
            |cause| ExecError::temporary(FileError::refused("list", &tasks)(cause).to_string());
        let mut dirs = Vec::new();
        for entry in std::fs::read_dir(&tasks).map_err(refused)? {
            let entry = entry.map_err(refused)?;
            // A name that is no text cannot be ours; it is an orphan like any other.
            let name = entry.file_name().to_string_lossy().into_owned();
            dirs.push((name, TaskDir::new(entry.path())));
        }
        dirs.sort_by(|one, other| one.0.cmp(&other.0));
        Ok(dirs)
    }

    /// Keeps a shim to be reaped.
    pub(crate) fn adopt_shim(&self, shim: Child) {
        self.reap_shims();
        self.shims
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(shim);
    }

    /// Reaps shims that have ended.
    pub(crate) fn reap_shims(&self) {
        let mut shims = self.shims.lock().unwrap_or_else(PoisonError::into_inner);
        shims.retain_mut(|shim| matches!(shim.try_wait(), Ok(None)));
    }
}

impl Executor for NativeExecutor {
    fn describe(&self) -> BoxFuture<'_, Result<v1::NodeDescription, ExecError>> {
        Box::pin(async {
            let mut description = description(&self.shared.config);
            let shared = Arc::clone(&self.shared);
            let looked = lifecycle::blocking(move || {
                shared.watch.describe(&mut description);
                Ok(description)
            });
            looked.await
        })
    }

    fn configure<'a>(&'a self, _node: &'a v1::Node) -> BoxFuture<'a, Result<(), ExecError>> {
        // What a node object configures is networks, of which this executor has none.
        Box::pin(async { Ok(()) })
    }

    fn controller(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Arc<dyn Controller>, ExecError>> {
        Box::pin(async move {
            if task.container().is_none() {
                let reason = "the native executor runs container specs with image \"host\" only";
                return Err(ExecError::RuntimeUnsupported {
                    reason: reason.to_owned(),
                });
            }
            let dir = self.shared.task_dir(&task.id)?;
            let controller: Arc<dyn Controller> =
                Arc::new(NativeController::new(self.shared.clone(), dir, task));
            Ok(controller)
        })
    }

    fn recover<'a>(
        &'a self,
        known: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        Box::pin(self.recover_all(known))
    }

    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, ExecError>> {
        Box::pin(async { self.present_now() })
    }

    fn discard<'a>(
        &'a self,
        tasks: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        Box::pin(self.discard_all(tasks))
    }

    fn logs(
        &self,
        task: Arc<Task>,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<Box<dyn LogStream>, ExecError>> {
        Box::pin(async move {
            let dir = self.shared.task_dir(&task.id)?;
            let files_max = self.shared.settings.log_files_max;
            let stream: Box<dyn LogStream> = Box::new(NativeLogs::new(dir, files_max, options));
            Ok(stream)
        })
    }
}
