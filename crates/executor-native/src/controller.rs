//! One task, as the agent sees it.
//!
//! Every fact is in the task's directory or with its shim, so a controller made by a new agent
//! goes on where the last one was. Refuses to own: facts of its own, but for a cache of warnings.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use swarm_api::v1;
use swarm_api::v1::port_config::PublishMode;
use swarm_executor::{BoxFuture, Controller, Dependencies, ExecError};
use swarm_types::Task;
use tokio::time::{Instant, sleep};

use crate::executor::Shared;
use crate::lifecycle::{
    self, Heard, LOOK_PAUSE, Link, SHIM_SLACK, State, Waiter, blocking, refused,
};
use crate::payload;
use crate::records::{Cause, Exit, Phase, Request};
use crate::spec;
use crate::task_dir::TaskDir;

/// How long a shim may take to come up, its program included.
const START_DEADLINE: Duration = Duration::from_secs(45);

#[derive(Debug)]
pub(crate) struct NativeController {
    shared: Arc<Shared>,
    dir: TaskDir,
    task: Mutex<Arc<Task>>,
    /// In memory only: nothing of it is in a record.
    dependencies: Mutex<Dependencies>,
    warnings: Mutex<Vec<String>>,
    is_closed: AtomicBool,
}

impl NativeController {
    pub(crate) fn new(shared: Arc<Shared>, dir: TaskDir, task: Arc<Task>) -> Self {
        let (warnings, is_closed) = (Mutex::default(), AtomicBool::new(false));
        Self {
            shared,
            dir,
            task: Mutex::new(task),
            dependencies: Mutex::default(),
            warnings,
            is_closed,
        }
    }

    fn task(&self) -> Arc<Task> {
        self.task
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn warnings_now(&self) -> MutexGuard<'_, Vec<String>> {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dependencies_now(&self) -> MutexGuard<'_, Dependencies> {
        let dependencies = self.dependencies.lock();
        dependencies.unwrap_or_else(PoisonError::into_inner)
    }

    fn check_open(&self) -> Result<(), ExecError> {
        match self.is_closed.load(Ordering::Relaxed) {
            true => Err(ExecError::ControllerClosed),
            false => Ok(()),
        }
    }

    async fn do_prepare(&self) -> Result<(), ExecError> {
        let (dir, shared, task) = (self.dir.clone(), self.shared.clone(), self.task());
        let dependencies = self.dependencies_now().clone();
        let waiter = Waiter::default();
        let is_wanted = waiter.watch();
        // The inner result is the judgement, the outer one that of the disk.
        let prepared = blocking(move || {
            if dir.plan()?.is_some() {
                return Ok(Err(ExecError::AlreadyPrepared));
            }
            let plan = match spec::plan(&task, &shared.settings, &shared.machine) {
                Ok(plan) => plan,
                Err(reason) => return Ok(Err(ExecError::fatal(reason))),
            };
            let contents = match payload::contents(&plan, &dependencies, &task, &shared) {
                Ok(contents) => contents,
                Err(error) => return Ok(Err(error)),
            };
            // Cut off, this goes on. With the lock, whoever removes the task waits for it; and what
            // was cut off before it had the lock finds out here, when nobody removes any more.
            let Some(_lock) = dir.create_locked(&is_wanted)? else {
                return Ok(Err(cut_off()));
            };
            if dir.plan()?.is_some() {
                return Ok(Err(ExecError::AlreadyPrepared));
            }
            if !is_wanted() {
                dir.remove()?;
                return Ok(Err(cut_off()));
            }
            payload::write(&plan, contents, &shared)?;
            dir.write_plan(&plan).map(Ok)
        });
        prepared.await?
    }

    async fn do_start(&self) -> Result<(), ExecError> {
        let mut is_spawned = false;
        let mut is_heard = false;
        let mut deadline = Instant::now() + START_DEADLINE;
        loop {
            match lifecycle::settled(&self.dir).await? {
                State::Absent => return Err(self.not("prepared")),
                State::Ended(exit) => return self.ended_in_start(&exit, is_spawned),
                // Or somebody looks: a start that was cut off, whose look goes on. So this says
                // nothing about who starts the task.
                State::Alive => {
                    if let Ok(link) = Link::connect(&self.dir).await {
                        if !std::mem::replace(&mut is_heard, true) {
                            let verdict_at = Instant::now() + self.verdict_within().await?;
                            deadline = deadline.max(verdict_at);
                        }
                        if self.is_up(link, deadline).await {
                            return started(is_spawned);
                        }
                    }
                }
                State::Lost(..) => {}
                State::Prepared => {
                    if !std::mem::replace(&mut is_spawned, true) {
                        self.spawn_shim().await?;
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(self.never_came_up().await);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// How long a health check and the end of an unhealthy task may take.
    async fn verdict_within(&self) -> Result<Duration, ExecError> {
        let dir = self.dir.clone();
        let Some(plan) = blocking(move || dir.plan()).await? else {
            return Ok(SHIM_SLACK);
        };
        let verdict = plan
            .health
            .map(|check| check.verdict_within())
            .unwrap_or_default();
        Ok(verdict
            .saturating_add(plan.stop_grace)
            .saturating_add(SHIM_SLACK))
    }

    /// Waits until the task is up; `false` when the shim went away.
    async fn is_up(&self, mut link: Link, deadline: Instant) -> bool {
        let up = async {
            loop {
                match link.hear().await {
                    Heard::Status(status) => {
                        *self.warnings_now() = status.warnings;
                        match status.phase {
                            Phase::Running => return true,
                            Phase::Starting | Phase::Stopping => {}
                        }
                    }
                    Heard::End | Heard::Silence => return false,
                }
            }
        };
        tokio::time::timeout_at(deadline, up).await.unwrap_or(false)
    }

    fn ended_in_start(&self, exit: &Exit, is_spawned: bool) -> Result<(), ExecError> {
        match exit.cause {
            // It ran; the wait tells how it ended.
            Cause::Exited | Cause::Stopped | Cause::Lost => started(is_spawned),
            Cause::NotStarted | Cause::Unhealthy => exit.result(),
        }
    }

    async fn never_came_up(&self) -> ExecError {
        // Not to be found running later, when the task counts as failed.
        let ended = lifecycle::end(&self.dir, Request::Kill).await;
        let log = self.dir.path().join("shim.log");
        let reason = format!(
            "task {} did not come up within {START_DEADLINE:?}; see {}",
            self.task().id,
            log.display()
        );
        ended.err().unwrap_or(ExecError::Fatal { reason })
    }

    async fn spawn_shim(&self) -> Result<(), ExecError> {
        let (dir, shared) = (self.dir.clone(), self.shared.clone());
        let spawned = blocking(move || {
            let log = dir.open_shim_log()?;
            let errors = log.try_clone();
            let mut command = Command::new(&shared.config.shim_program);
            command.args(&shared.config.shim_args).arg(dir.path());
            // Nothing of the agent's secrets; and not in its group, whose signals are not for us.
            command
                .env_clear()
                .current_dir("/")
                .process_group(0)
                .stdin(Stdio::null());
            command
                .stdout(log)
                .stderr(errors.map_or_else(|_| Stdio::null(), Stdio::from));
            Ok(command.spawn().map(|shim| shared.adopt_shim(shim)))
        });
        spawned.await?.map_err(|error| {
            ExecError::fatal(format!(
                "cannot run the shim {}: {error}; restart the agent with a program that exists",
                self.shared.config.shim_program.display()
            ))
        })
    }

    async fn do_wait(&self) -> Result<(), ExecError> {
        let mut deadline = Instant::now() + START_DEADLINE;
        loop {
            match lifecycle::settled(&self.dir).await? {
                State::Absent | State::Prepared => return Err(self.not("started")),
                State::Ended(exit) => {
                    self.shared.reap_shims();
                    return exit.result();
                }
                State::Lost(..) => {}
                State::Alive => {
                    if let Ok(link) = Link::connect(&self.dir).await {
                        self.follow(link).await?;
                        deadline = Instant::now() + START_DEADLINE;
                    }
                }
            }
            if Instant::now() >= deadline {
                return Err(self.silent());
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// Listens until the shim is gone. This may take as long as the task lives; that the shim still
    /// lives is asked for now and then.
    async fn follow(&self, mut link: Link) -> Result<(), ExecError> {
        loop {
            match link.hear().await {
                Heard::Status(status) => *self.warnings_now() = status.warnings,
                Heard::End => return Ok(()),
                Heard::Silence => return Err(self.silent()),
            }
        }
    }

    async fn do_end(&self, how: Request) -> Result<(), ExecError> {
        lifecycle::end(&self.dir, how).await?;
        self.shared.reap_shims();
        Ok(())
    }

    async fn do_remove(&self) -> Result<(), ExecError> {
        let ended = lifecycle::end(&self.dir, Request::Kill).await;
        // Even when the end could not be recorded: a full disk must not keep tasks from going. A
        // task that still runs holds its lock and stays.
        let name = self.task().id.to_string();
        let forgotten = payload::forget(&self.shared, &name).await;
        let removed = lifecycle::remove(&self.dir).await.and(forgotten);
        self.shared.reap_shims();
        match removed {
            Ok(()) => Ok(()),
            Err(error) => Err(ended.err().unwrap_or(error)),
        }
    }

    fn read_container_status(&self) -> Result<Option<v1::ContainerStatus>, ExecError> {
        let record = self.dir.record().map_err(refused)?;
        let exit = self.dir.exit().map_err(refused)?;
        let pid = record.and_then(|record| record.main).map(|main| main.pid);
        if pid.is_none() && exit.is_none() {
            return Ok(None);
        }
        Ok(Some(v1::ContainerStatus {
            container_id: self.task().id.to_string(),
            pid: pid.unwrap_or(0),
            exit_code: exit.map_or(0, |exit| exit.code),
        }))
    }

    fn read_port_status(&self) -> Result<Option<v1::PortStatus>, ExecError> {
        let Some(plan) = self.dir.plan().map_err(refused)? else {
            return Ok(None);
        };
        let ports = plan.ports.into_iter().map(|port| v1::PortConfig {
            name: port.name,
            protocol: port.protocol,
            target_port: port.target,
            published_port: port.published,
            publish_mode: i32::from(PublishMode::Host),
        });
        let ports: Vec<_> = ports.collect();
        Ok((!ports.is_empty()).then_some(v1::PortStatus { ports }))
    }

    fn not(&self, done: &str) -> ExecError {
        let path = self.dir.path().display();
        ExecError::fatal(format!(
            "task {} was never {done}: see {path}",
            self.task().id
        ))
    }

    fn silent(&self) -> ExecError {
        let path = self.dir.path().display();
        ExecError::temporary(format!(
            "the shim of task {} does not answer within {SHIM_SLACK:?}: see {path}",
            self.task().id
        ))
    }
}

/// Nobody hears it.
fn cut_off() -> ExecError {
    ExecError::Cancelled {
        operation: "prepare",
        reason: "it was cut off".to_owned(),
    }
}

/// `is_spawned`: by this call, and not by an earlier one.
fn started(is_spawned: bool) -> Result<(), ExecError> {
    match is_spawned {
        true => Ok(()),
        false => Err(ExecError::AlreadyStarted),
    }
}

impl Controller for NativeController {
    fn update(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            *self.task.lock().unwrap_or_else(PoisonError::into_inner) = task;
            Ok(())
        })
    }
    fn provide(&self, dependencies: Dependencies) {
        *self.dependencies_now() = dependencies;
    }
    fn prepare(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            self.do_prepare().await
        })
    }
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            self.do_start().await
        })
    }
    fn wait(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            self.do_wait().await
        })
    }
    fn shutdown(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            self.do_end(Request::Stop).await
        })
    }
    fn terminate(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            self.do_end(Request::Kill).await
        })
    }
    fn remove(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        Box::pin(async {
            self.check_open()?;
            self.do_remove().await
        })
    }
    fn close(&self) -> BoxFuture<'_, Result<(), ExecError>> {
        self.is_closed.store(true, Ordering::Relaxed);
        Box::pin(async { Ok(()) })
    }
    fn container_status(&self) -> BoxFuture<'_, Result<Option<v1::ContainerStatus>, ExecError>> {
        Box::pin(async { self.read_container_status() })
    }
    fn port_status(&self) -> BoxFuture<'_, Result<Option<v1::PortStatus>, ExecError>> {
        Box::pin(async { self.read_port_status() })
    }
    fn warnings(&self) -> Vec<String> {
        self.warnings_now().clone()
    }
}
