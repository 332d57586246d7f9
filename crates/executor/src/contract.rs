//! The traits an executor implements, and the data that passes between it and the agent.
//!
//! Refuses to own: the order of operations, retries and status messages. Those are the agent's.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use swarm_api::v1;
use swarm_types::{Task, TaskId};

use crate::dependencies::Dependencies;
use crate::error::ExecError;
use crate::logs::{LogOptions, LogStream};

/// A future that can be stored and sent, without naming a runtime.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Runs tasks on one node.
pub trait Executor: Send + Sync {
    /// Describes this node: host name, platform, resources, version of the engine.
    ///
    /// # Errors
    /// When the facts cannot be read; the agent tries again.
    fn describe(&self) -> BoxFuture<'_, Result<v1::NodeDescription, ExecError>>;

    /// Takes over what the manager says about this node. Called on every change of the node object.
    ///
    /// # Errors
    /// When the node object asks for what this executor cannot do.
    fn configure<'a>(&'a self, node: &'a v1::Node) -> BoxFuture<'a, Result<(), ExecError>>;

    /// The controller for one task. For a task that runs already, the controller takes it over.
    /// It does no work on the task, and does not judge the spec beyond its runtime:
    /// [`Controller::prepare`] does, so that the reason ends in the status of the task.
    ///
    /// # Errors
    /// [`ExecError::RuntimeUnsupported`] when the spec is of a kind which this executor never runs.
    fn controller(&self, task: Arc<Task>) -> BoxFuture<'_, Result<Arc<dyn Controller>, ExecError>>;

    /// Looks for tasks left by an earlier agent. Those in `known` are kept for
    /// [`Executor::controller`]; all others are ended and removed. Called once, before the first
    /// controller is made.
    ///
    /// # Errors
    /// When the state of the executor cannot be read at all. Trouble with a single task is in
    /// [`Recovery::failures`].
    fn recover<'a>(
        &'a self,
        known: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>>;

    /// The tasks that an earlier agent left, whoever knows them. For an agent that lost its
    /// database: it keeps all of them until a manager says which are its own.
    ///
    /// # Errors
    /// When the state of the executor cannot be read at all.
    fn present(&self) -> BoxFuture<'_, Result<BTreeSet<TaskId>, ExecError>> {
        Box::pin(async { Ok(BTreeSet::new()) })
    }

    /// Ends and removes tasks that have no controller.
    ///
    /// # Errors
    /// When the state of the executor cannot be read at all. Trouble with a single task is in
    /// [`Recovery::failures`].
    fn discard<'a>(
        &'a self,
        tasks: &'a BTreeSet<TaskId>,
    ) -> BoxFuture<'a, Result<Recovery, ExecError>> {
        let _none = tasks;
        Box::pin(async { Ok(Recovery::default()) })
    }

    /// The output of a task, from before it was started until after it has ended. It needs no
    /// controller: what a task wrote is there for as long as the task is.
    ///
    /// # Errors
    /// [`ExecError::RuntimeUnsupported`] from an executor that keeps no output.
    fn logs(
        &self,
        task: Arc<Task>,
        options: LogOptions,
    ) -> BoxFuture<'_, Result<Box<dyn LogStream>, ExecError>> {
        let _unused = options;
        Box::pin(async move {
            Err(ExecError::RuntimeUnsupported {
                reason: format!("this executor keeps no output of task {}", task.id),
            })
        })
    }
}

/// What [`Executor::recover`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Known tasks which are running now.
    pub running: BTreeSet<TaskId>,
    /// Known tasks which were prepared or have ended; their controller tells the rest.
    pub idle: BTreeSet<TaskId>,
    /// Tasks nobody knows, ended and removed.
    pub removed: BTreeSet<TaskId>,
    /// What is ended that ran for a state directory which is gone, in words.
    pub leftovers: Vec<String>,
    /// What could not be cleaned up, in words, with the object and the way out.
    pub failures: Vec<String>,
}

/// Controls one task. The agent runs at most one operation at a time; a dropped future is a
/// cancelled operation.
pub trait Controller: Send + Sync {
    /// Takes a changed task. Only fields outside the spec can have changed.
    ///
    /// # Errors
    /// [`ExecError::UpdateRejected`] when the change cannot be applied to a task under way.
    fn update(&self, task: Arc<Task>) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Takes the secrets and configs of the task, before every [`Controller::prepare`]: what had
    /// not arrived the last time may be there.
    fn provide(&self, dependencies: Dependencies);

    /// Gets everything ready that can fail before the task starts; judges the spec.
    ///
    /// # Errors
    /// [`ExecError::AlreadyPrepared`] counts as success. Fatal errors reject the task.
    fn prepare(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Starts the task, and waits until it is healthy if it has a health check.
    ///
    /// # Errors
    /// [`ExecError::AlreadyStarted`] counts as success. Fatal errors fail the task.
    fn start(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Waits for the task to end by itself; `Ok` means success.
    ///
    /// # Errors
    /// [`ExecError::Exited`] when it ended in any other way.
    fn wait(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Asks the task to end, and forces it after its grace period. `Ok` when nothing is running,
    /// also when nothing ever was.
    ///
    /// # Errors
    /// When the task may still be running.
    fn shutdown(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Forces the task to end at once. `Ok` when nothing is running.
    ///
    /// # Errors
    /// When the task may still be running.
    fn terminate(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Ends the task if it runs, then removes everything that belongs to it. `Ok` when nothing is
    /// left, also when nothing ever was.
    ///
    /// # Errors
    /// When something is left; calling again continues.
    fn remove(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Lets go of the task without touching it. Every later operation fails with
    /// [`ExecError::ControllerClosed`].
    ///
    /// # Errors
    /// None are expected; the agent logs them.
    fn close(&self) -> BoxFuture<'_, Result<(), ExecError>>;

    /// Process id and exit code, as far as known; `None` before the task was started.
    ///
    /// # Errors
    /// When the facts cannot be read.
    fn container_status(&self) -> BoxFuture<'_, Result<Option<v1::ContainerStatus>, ExecError>>;

    /// Ports opened on the node itself; `None` when the task has none.
    ///
    /// # Errors
    /// When the facts cannot be read.
    fn port_status(&self) -> BoxFuture<'_, Result<Option<v1::PortStatus>, ExecError>>;

    /// What the spec asked for and this node could not give, in words; the agent adds it to the
    /// message of the task's status. Empty for nearly every task.
    fn warnings(&self) -> Vec<String>;
}

/// An operation of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Operation {
    /// [`Controller::update`]
    Update,
    /// [`Controller::prepare`]
    Prepare,
    /// [`Controller::start`]
    Start,
    /// [`Controller::wait`]
    Wait,
    /// [`Controller::shutdown`]
    Shutdown,
    /// [`Controller::terminate`]
    Terminate,
    /// [`Controller::remove`]
    Remove,
    /// [`Controller::close`]
    Close,
}

impl Operation {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 8] = [
        Self::Update,
        Self::Prepare,
        Self::Start,
        Self::Wait,
        Self::Shutdown,
        Self::Terminate,
        Self::Remove,
        Self::Close,
    ];

    /// The name in lower case.
    pub fn name(self) -> &'static str {
        match self {
            Self::Update => "update",
            Self::Prepare => "prepare",
            Self::Start => "start",
            Self::Wait => "wait",
            Self::Shutdown => "shutdown",
            Self::Terminate => "terminate",
            Self::Remove => "remove",
            Self::Close => "close",
        }
    }

    /// The operation with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|operation| operation.name() == name)
    }

    /// Whether the status of the task shows the process after this operation (spec 6.3: after each
    /// step in state STARTING or later).
    fn shows_process(self) -> bool {
        match self {
            Self::Start | Self::Wait | Self::Shutdown | Self::Terminate => true,
            Self::Update | Self::Prepare | Self::Remove | Self::Close => false,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How one operation ended, with everything the agent puts into the status of the task.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// The result itself.
    pub result: Result<(), ExecError>,
    /// Process id and exit code, for operations from START on.
    pub container: Option<v1::ContainerStatus>,
    /// Ports opened on the node itself.
    pub ports: Option<v1::PortStatus>,
    /// See [`Controller::warnings`].
    pub warnings: Vec<String>,
}

impl Report {
    /// A report with a result and nothing else.
    pub fn new(result: Result<(), ExecError>) -> Self {
        Self {
            result,
            container: None,
            ports: None,
            warnings: Vec::new(),
        }
    }

    /// Runs one operation to its end and collects the report. `task` is the task as it is now;
    /// only [`Operation::Update`] looks at it. Cancel safe: see [`Controller`].
    pub async fn of(controller: &dyn Controller, operation: Operation, task: Arc<Task>) -> Self {
        let result = match operation {
            Operation::Update => controller.update(task).await,
            Operation::Prepare => controller.prepare().await,
            Operation::Start => controller.start().await,
            Operation::Wait => controller.wait().await,
            Operation::Shutdown => controller.shutdown().await,
            Operation::Terminate => controller.terminate().await,
            Operation::Remove => controller.remove().await,
            Operation::Close => controller.close().await,
        };
        let mut report = Self {
            warnings: controller.warnings(),
            ..Self::new(result)
        };
        if operation.shows_process() {
            // Facts beside the result: their absence must not turn success into failure.
            report.container = controller.container_status().await.ok().flatten();
            report.ports = controller.port_status().await.ok().flatten();
        }
        report
    }
}
