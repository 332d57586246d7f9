//! Drives the agent machine: carries out what it asks for, and tells it what came of it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarm_agent::{
    Agent, AgentRpc, Call, NodeAction, OpId, PersistBatch, Reply, RpcError, TaskOperation,
};
use swarm_api::v1;
use swarm_api::v1::assignments_message::Type;
use swarm_executor::{Controller, Dependencies, ExecError, Executor, Operation, Recovery, Report};
use swarm_rt::tls::{Changes, Credentials};
use swarm_rt::{Clock, OsIds, Shutdown, logging};
use swarm_types::{NodeId, Task, TaskId};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::{AbortHandle, JoinError, JoinSet};

use crate::calls::{Attempt, Heard};
use crate::db::{DbError, Lost, Opened, TaskDb};
use crate::lost_lines::LostLines;
use crate::publications::Publications;
use crate::remotes::Remotes;
use crate::skew::Skew;
use crate::told::{self, Told};

/// Messages and answers that wait for the agent; the streams are held back beyond it.
const HEARD_MAX: usize = 64;
/// Inputs taken in before the machine gets its turn.
const INPUTS_PER_TURN_MAX: usize = 256;
/// How long closing the controllers may take at the end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// What an agent needs to know.
#[derive(Debug)]
pub struct Config {
    /// Its node.
    pub node: NodeId,
    /// The host name to report instead of the machine's.
    pub hostname: Option<String>,
    /// The file of the task database.
    pub database: PathBuf,
    /// The managers to begin with.
    pub remotes: Remotes,
    /// What the node proves itself with to managers on other machines.
    pub credentials: Credentials,
}

/// Why an agent ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The task database does not work; without it a task could be forgotten.
    #[error("the agent cannot go on without its task database")]
    Database(#[from] DbError),
    /// The executor cannot tell what it runs.
    #[error("the executor cannot take up the tasks of before: {0}")]
    Recover(String),
}

/// The node was removed from its cluster, and nothing of it runs any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node was removed from its cluster")]
pub struct Removed;

/// A running agent.
pub struct Runner {
    config: Config,
    executor: Arc<dyn Executor>,
    clock: Clock,
    ids: OsIds,
    agent: Agent,
    db: TaskDb,
    attempt: Option<Attempt>,
    heard: mpsc::Receiver<Heard>,
    heard_sender: mpsc::Sender<Heard>,
    /// At most one description, one configuration, one disk write, and one operation per task.
    work: JoinSet<Done>,
    operations: BTreeMap<TaskId, Running>,
    controllers: BTreeMap<TaskId, Arc<dyn Controller>>,
    publications: Publications,
    connected: watch::Sender<bool>,
    told: watch::Sender<Told>,
    renewed: Changes,
    /// Why the last session failed, so that the log says it once and not at every attempt.
    trouble: Option<String>,
    /// The last write of the task database failed.
    is_disk_failing: bool,
    skew: Skew,
    lost_lines: LostLines,
    /// A manager said that the node was removed.
    is_removed: bool,
    /// Tasks that run here while nobody knows whose they are, because the database was lost.
    unclaimed: BTreeSet<TaskId>,
}

impl std::fmt::Debug for Runner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Runner")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

/// The operation of a task that was begun last.
struct Running {
    op: OpId,
    abort: AbortHandle,
    /// Held by the operations of the task, one after the other: one that is cut off may go on until
    /// it waits for something.
    turn: Arc<Mutex<()>>,
}

/// What background work ends in.
enum Done {
    Described(Result<v1::NodeDescription, ExecError>),
    Configured(Result<(), ExecError>),
    Discarded(Result<Recovery, ExecError>),
    Persisted {
        sequence: u64,
        written: Result<(), DbError>,
    },
    Operation {
        task: TaskId,
        op: OpId,
        operation: Operation,
        controller: Option<Arc<dyn Controller>>,
        report: Report,
    },
}

impl Runner {
    /// Opens the database, and lets the executor take up or end what runs.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn open(
        config: Config,
        executor: Arc<dyn Executor>,
        clock: Clock,
    ) -> Result<Self, RunError> {
        let path = config.database.clone();
        let opened = tokio::task::spawn_blocking(move || TaskDb::open(&path));
        let Opened { db, tasks, lost } = opened
            .await
            .map_err(|error| RunError::Recover(error.to_string()))??;
        let agent = Agent::new(clock.now(), tasks);
        let recover = |error: ExecError| RunError::Recover(error.to_string());
        let unclaimed = match &lost {
            Some(lost) => unclaimed(&*executor, lost).await.map_err(recover)?,
            None => BTreeSet::new(),
        };
        let mut known = agent.known_tasks();
        known.extend(unclaimed.iter().cloned());
        let recovery = executor.recover(&known).await.map_err(recover)?;
        if !known.is_empty() || !recovery.removed.is_empty() {
            tracing::info!(
                running = recovery.running.len(),
                idle = recovery.idle.len(),
                removed = recovery.removed.len(),
                "took up the tasks of before"
            );
        }
        for leftover in &recovery.leftovers {
            tracing::warn!("{leftover}");
        }
        for failure in &recovery.failures {
            tracing::warn!(failure, "a leftover could not be cleaned up");
        }
        let (heard_sender, heard) = mpsc::channel(HEARD_MAX);
        let renewed = config.credentials.watch();
        let publications = Publications::new(
            config.node.clone(),
            Arc::clone(&executor),
            clock.clone(),
            heard_sender.clone(),
        );
        Ok(Self {
            config,
            executor,
            clock,
            ids: OsIds::new(),
            agent,
            db,
            attempt: None,
            heard,
            heard_sender,
            work: JoinSet::new(),
            operations: BTreeMap::new(),
            controllers: BTreeMap::new(),
            publications,
            connected: watch::Sender::new(false),
            told: watch::Sender::default(),
            renewed,
            trouble: None,
            is_disk_failing: false,
            skew: Skew::default(),
            lost_lines: LostLines::default(),
            is_removed: false,
            unclaimed,
        })
    }

    /// Tells whether the node has a session.
    pub fn connected(&self) -> watch::Receiver<bool> {
        self.connected.subscribe()
    }

    /// Tells what managers say about the node.
    pub fn told(&self) -> watch::Receiver<Told> {
        self.told.subscribe()
    }

    /// Runs until shutdown. The tasks run on afterwards.
    ///
    /// # Errors
    /// [`Removed`] when the node was removed from its cluster and all its tasks have ended.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), Removed> {
        let mut ended = Ok(());
        loop {
            self.turn();
            if self.is_removed && self.agent.is_empty() && self.work.is_empty() {
                ended = Err(Removed);
                break;
            }
            let wake = self.agent.poll_timeout();
            let input = tokio::select! {
                biased;
                () = shutdown.begun() => break,
                Some(done) = self.work.join_next() => Input::Work(Box::new(done)),
                Some(heard) = self.heard.recv() => Input::Heard(heard),
                () = self.renewed.changed() => Input::Renewed,
                () = self.clock.sleep_until(wake) => Input::Time,
            };
            self.take_all(input);
        }
        self.agent.handle_stop();
        self.close().await;
        ended
    }

    /// Takes an input and those that came with it.
    fn take_all(&mut self, first: Input) {
        let mut input = first;
        for _ in 0..INPUTS_PER_TURN_MAX {
            self.take(input);
            if let Some(done) = self.work.try_join_next() {
                input = Input::Work(Box::new(done));
            } else if let Ok(heard) = self.heard.try_recv() {
                input = Input::Heard(heard);
            } else {
                break;
            }
        }
    }

    /// Carries out everything that the machine asks for.
    fn turn(&mut self) {
        let now = self.clock.now();
        let ids = &mut self.ids;
        self.agent.handle_timeout(now, &mut || ids.next_u64());
        while let Some(batch) = self.agent.poll_persist() {
            self.persist(batch);
        }
        while let Some(operation) = self.agent.poll_operation(now) {
            self.begin(operation);
        }
        while let Some(rpc) = self.agent.poll_rpc(now) {
            self.call(rpc);
        }
        self.publications
            .turn(now, &mut self.agent, self.attempt.as_ref());
        while let Some(action) = self.agent.poll_node_action() {
            self.act(action);
        }
        self.tell_connected();
    }

    fn take(&mut self, input: Input) {
        match input {
            Input::Time => {}
            Input::Renewed => self.agent.handle_certificate_changed(self.clock.now()),
            Input::Heard(heard) => self.hear(heard),
            Input::Work(done) => match *done {
                Ok(done) => self.finish(done),
                Err(error) if error.is_cancelled() => {}
                Err(error) => self.fail(&error),
            },
        }
    }

    fn finish(&mut self, done: Done) {
        let now = self.clock.now();
        match done {
            Done::Described(description) => {
                let ids = &mut self.ids;
                let hostname = self.config.hostname.clone();
                let tls_info = told::tls_info(&self.config.credentials, now);
                self.lost_lines.count(now, logging::lines_dropped());
                let description = description
                    .map(|mut description| {
                        self.skew.describe(&mut description);
                        self.lost_lines.describe(now, &mut description);
                        v1::NodeDescription {
                            hostname: hostname.unwrap_or_else(|| description.hostname.clone()),
                            tls_info,
                            ..description
                        }
                    })
                    .map_err(|error| error.to_string());
                self.agent
                    .handle_description(now, description, &mut || ids.next_u64());
            }
            Done::Configured(configured) => {
                if let Err(error) = configured {
                    tracing::warn!(%error, "the executor refused the node's configuration");
                }
            }
            Done::Discarded(discarded) => {
                let failures = match discarded {
                    Ok(recovery) => recovery.failures,
                    Err(error) => vec![error.to_string()],
                };
                for failure in failures {
                    tracing::warn!(failure, "a task that was found could not be ended");
                }
            }
            Done::Persisted { sequence, written } => self.handle_written(sequence, written),
            Done::Operation {
                task,
                op,
                operation,
                controller,
                report,
            } => {
                let removed = operation == Operation::Remove && report.result.is_ok();
                match controller {
                    Some(controller) if !removed => {
                        self.controllers.insert(task.clone(), controller);
                    }
                    Some(_) | None => drop(self.controllers.remove(&task)),
                }
                self.agent.handle_operation_result(now, &task, op, &report);
                if removed {
                    self.operations.remove(&task);
                }
            }
        }
    }

    /// Background work panicked. Most of it comes again; an operation is over, and may have had no
    /// time limit.
    fn fail(&mut self, error: &JoinError) {
        tracing::error!(%error, "background work of the agent panicked");
        let mut running = self.operations.iter();
        let failed = running.find(|(_, running)| running.abort.id() == error.id());
        if let Some((task, running)) = failed {
            let text = "the executor panicked; the log of the node's agent says where";
            let report = Report::new(Err(ExecError::fatal(text)));
            let now = self.clock.now();
            self.agent
                .handle_operation_result(now, task, running.op, &report);
        }
    }

    /// What depends on a write that failed does not go out meanwhile, and what runs runs on.
    fn handle_written(&mut self, sequence: u64, written: Result<(), DbError>) {
        let now = self.clock.now();
        match written {
            Ok(()) => {
                if std::mem::take(&mut self.is_disk_failing) {
                    tracing::info!("the task database can be written again");
                }
                self.agent.handle_persisted(now, sequence);
            }
            Err(error) => {
                let error = swarm_rt::chain(&error).to_string();
                // Once, and not at every attempt.
                if !std::mem::replace(&mut self.is_disk_failing, true) {
                    tracing::error!(
                        error,
                        "the task database cannot be written, so this node takes no tasks; free \
                         space on its disk"
                    );
                }
                self.agent.handle_persist_failed(now, sequence, &error);
            }
        }
    }

    /// Writes a batch. The machine gives out one at a time.
    fn persist(&mut self, batch: PersistBatch) {
        let db = self.db.clone();
        self.work.spawn(async move {
            let sequence = batch.sequence;
            let written = tokio::task::spawn_blocking(move || db.write(&batch)).await;
            // A panic in the library counts as a failed write, of which nothing counts.
            let written = written.unwrap_or_else(|_| Err(DbError::Panicked));
            Done::Persisted { sequence, written }
        });
    }

    fn hear(&mut self, heard: Heard) {
        let now = self.clock.now();
        let ids = &mut self.ids;
        let draw = &mut || ids.next_u64();
        match heard {
            Heard::Session(epoch, message) => {
                if let Some(attempt) = self.attempt.as_ref().filter(|own| own.epoch == epoch) {
                    self.config.remotes.observe(&attempt.address, true);
                }
                self.agent
                    .handle_session_message(now, epoch, *message, draw);
            }
            Heard::Time(theirs) => self.skew.hear(now, theirs),
            Heard::Assignments(epoch, message) => {
                let is_complete = message.r#type() == Type::Complete;
                self.agent
                    .handle_assignments_message(now, epoch, message, draw);
                if is_complete {
                    self.discard_unclaimed();
                }
            }
            Heard::Subscription(epoch, message) => {
                self.agent.handle_subscription_message(now, epoch, message);
            }
            Heard::Reply(epoch, reply) => {
                let is_removed = reply.says_removed(&self.config.node);
                self.agent.handle_rpc_result(now, epoch, reply, draw);
                if is_removed {
                    self.leave();
                }
            }
            Heard::Published(id, epoch, ended) => {
                self.agent.handle_published(now, &id, epoch, ended);
            }
        }
    }

    /// A manager said which tasks are this node's: the others end.
    fn discard_unclaimed(&mut self) {
        let mut unclaimed = std::mem::take(&mut self.unclaimed);
        if unclaimed.is_empty() {
            return;
        }
        let (found, known) = (unclaimed.len(), self.agent.known_tasks());
        unclaimed.retain(|task| !known.contains(task));
        let kept = found - unclaimed.len();
        let ended = unclaimed.len();
        tracing::warn!(
            kept,
            ended,
            "took up the tasks that were found and are this node's"
        );
        let executor = Arc::clone(&self.executor);
        self.work
            .spawn(async move { Done::Discarded(executor.discard(&unclaimed).await) });
    }

    /// The cluster does not know the node any more, and has given its tasks to others.
    fn leave(&mut self) {
        if std::mem::replace(&mut self.is_removed, true) {
            return;
        }
        let tasks = self.agent.known_tasks().len();
        let node = &self.config.node;
        tracing::error!(%node, tasks, "this node was removed from its cluster; its tasks stop");
        self.agent.handle_leave(self.clock.now());
        self.discard_unclaimed();
    }

    fn tell_connected(&mut self) {
        let connected = self.agent.is_connected();
        let is_new = self
            .connected
            .send_if_modified(|before| std::mem::replace(before, connected) != connected);
        if is_new && connected {
            self.trouble = None;
            let manager = self.attempt.as_ref().map(|attempt| &attempt.address);
            tracing::info!(
                manager = manager.map(tracing::field::display),
                "session opened"
            );
        }
    }

    fn call(&mut self, rpc: AgentRpc) {
        if let Call::Close { reason, failed } = &rpc.call {
            self.close_attempt(reason, *failed);
            return;
        }
        let epoch = rpc.epoch;
        if matches!(rpc.call, Call::OpenSession { .. })
            && let Err(error) = self.open_attempt(&rpc)
        {
            let ids = &mut self.ids;
            let ended = Reply::SessionEnded(error);
            self.agent
                .handle_rpc_result(self.clock.now(), epoch, ended, &mut || ids.next_u64());
            return;
        }
        if let Some(attempt) = self
            .attempt
            .as_mut()
            .filter(|attempt| attempt.epoch == epoch)
        {
            attempt.make(rpc);
        }
    }

    fn close_attempt(&mut self, reason: &str, failed: bool) {
        let attempt = self.attempt.take();
        if !failed {
            tracing::debug!(reason, "session closed");
            return;
        }
        if let Some(attempt) = attempt {
            self.config.remotes.observe(&attempt.address, false);
        }
        if self.is_removed || self.trouble.as_deref() == Some(reason) {
            tracing::debug!(reason, "no session");
        } else {
            tracing::warn!(
                reason,
                "no session with a manager; trying again until there is one"
            );
            self.trouble = Some(reason.to_owned());
        }
    }

    fn open_attempt(&mut self, rpc: &AgentRpc) -> Result<(), RpcError> {
        let draw = self.ids.next_u64();
        let address =
            self.config.remotes.select(draw).ok_or_else(|| {
                RpcError::new(tonic::Code::Unavailable as i32, "no manager is known")
            })?;
        let heard = self.heard_sender.clone();
        let credentials = &self.config.credentials;
        self.attempt = Some(Attempt::new(rpc.epoch, address, credentials, heard)?);
        Ok(())
    }

    fn act(&mut self, action: NodeAction) {
        let session = self.attempt.as_ref().map(|attempt| &attempt.address);
        told::note(&self.told, &action, session);
        match action {
            NodeAction::Describe => {
                let executor = Arc::clone(&self.executor);
                self.work
                    .spawn(async move { Done::Described(executor.describe().await) });
            }
            NodeAction::Configure(node) => {
                let executor = Arc::clone(&self.executor);
                self.work
                    .spawn(async move { Done::Configured(executor.configure(&node).await) });
            }
            NodeAction::Managers(managers) => self.config.remotes.replace(&managers),
            // The node installs a root. Network keys come with the networks issue; the executors of
            // today have no use for them.
            NodeAction::RootCa(_) | NodeAction::NetworkKeys(_) => {}
            NodeAction::Warn(text) => tracing::warn!("{text}"),
        }
    }

    /// Begins an operation, in place of the one that may be under way for the task.
    fn begin(&mut self, wanted: TaskOperation) {
        let TaskOperation {
            task_id,
            op,
            operation,
            task,
        } = wanted;
        let turn = match self.operations.remove(&task_id) {
            Some(running) => {
                running.abort.abort();
                running.turn
            }
            None => Arc::default(),
        };
        let own_turn = Arc::clone(&turn);
        let known = self.controllers.get(&task_id).cloned();
        let needs = (operation == Operation::Prepare).then(|| self.agent.dependencies(&task_id));
        let dependencies = needs.flatten();
        let executor = Arc::clone(&self.executor);
        let id = task_id.clone();
        let abort = self.work.spawn(async move {
            let _turn = own_turn.lock_owned().await;
            let (controller, report) =
                operate(executor, known, operation, task, dependencies).await;
            Done::Operation {
                task: id,
                op,
                operation,
                controller,
                report,
            }
        });
        self.operations.insert(task_id, Running { op, abort, turn });
    }

    /// Lets go of all tasks without touching them.
    async fn close(mut self) {
        self.attempt = None;
        self.work.abort_all();
        while self.work.join_next().await.is_some() {}
        let controllers = std::mem::take(&mut self.controllers);
        let closing = async {
            for (task, controller) in controllers {
                if let Err(error) = controller.close().await {
                    tracing::warn!(%task, %error, "controller did not close");
                }
            }
        };
        if tokio::time::timeout(CLOSE_TIMEOUT, closing).await.is_err() {
            tracing::warn!("controllers did not close in time");
        }
    }
}

enum Input {
    Time,
    /// The node has another certificate or root.
    Renewed,
    Heard(Heard),
    Work(Box<Result<Done, JoinError>>),
}

/// The tasks that the executor has while the database says nothing of any.
async fn unclaimed(executor: &dyn Executor, lost: &Lost) -> Result<BTreeSet<TaskId>, ExecError> {
    let present = executor.present().await?;
    // A first start has neither.
    if !present.is_empty() || matches!(lost, Lost::SetAside(_)) {
        tracing::error!(
            tasks = present.len(),
            "{lost}; the tasks that were found here run on until a manager says whose they are"
        );
    }
    Ok(present)
}

/// Runs one operation, with a fresh controller if the task has none yet.
async fn operate(
    executor: Arc<dyn Executor>,
    known: Option<Arc<dyn Controller>>,
    operation: Operation,
    task: Arc<Task>,
    dependencies: Option<Dependencies>,
) -> (Option<Arc<dyn Controller>>, Report) {
    let controller = match known {
        Some(controller) => controller,
        None => match executor.controller(Arc::clone(&task)).await {
            Ok(controller) => controller,
            Err(error) => return (None, Report::new(Err(error))),
        },
    };
    if let Some(dependencies) = dependencies {
        controller.provide(dependencies);
    }
    let report = Report::of(&*controller, operation, task).await;
    (Some(controller), report)
}

#[cfg(test)]
mod tests;
