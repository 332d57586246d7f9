//! All log subscriptions that this node serves: starts, steers and ends their publications.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarm_agent::{Agent, Epoch, LogAction, RpcError};
use swarm_executor::Executor;
use swarm_rt::Clock;
use swarm_types::{NodeId, Timestamp};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use crate::calls::{Attempt, Heard};
use crate::publish::{Command, Publication, READERS_MAX};

/// The gRPC code for "cannot be reached".
const UNAVAILABLE: i32 = 14;

/// The publications of one agent. Dropping it ends all of them.
pub(crate) struct Publications {
    node: NodeId,
    executor: Arc<dyn Executor>,
    clock: Clock,
    readers: Arc<Semaphore>,
    heard: mpsc::Sender<Heard>,
    /// By subscription. Unbounded channels, but with one message for each task of the node at most.
    active: BTreeMap<String, mpsc::UnboundedSender<Command>>,
    tasks: JoinSet<()>,
}

impl Publications {
    pub(crate) fn new(
        node: NodeId,
        executor: Arc<dyn Executor>,
        clock: Clock,
        heard: mpsc::Sender<Heard>,
    ) -> Self {
        Self {
            node,
            executor,
            clock,
            readers: Arc::new(Semaphore::new(READERS_MAX)),
            heard,
            active: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Does what the machine asks for, on the connection of the attempt that there is.
    pub(crate) fn turn(&mut self, now: Timestamp, agent: &mut Agent, attempt: Option<&Attempt>) {
        while self.tasks.try_join_next().is_some() {}
        while let Some(action) = agent.poll_log_action() {
            match action {
                LogAction::Begin { id, epoch } => {
                    self.begin(id.clone());
                    self.connect(now, agent, (&id, epoch), attempt);
                }
                LogAction::Resume { id, epoch } => {
                    self.connect(now, agent, (&id, epoch), attempt);
                }
                LogAction::Read { id, task, options } => {
                    self.command(&id, Command::Read(task, options));
                }
                LogAction::Complete { id } => self.command(&id, Command::Complete),
                LogAction::Cancel { id } => {
                    self.command(&id, Command::Cancel);
                    self.active.remove(&id);
                }
            }
        }
    }

    /// Gives a publication the connection of an attempt, if that is still the one that there is.
    fn connect(
        &self,
        now: Timestamp,
        agent: &mut Agent,
        (id, epoch): (&str, Epoch),
        attempt: Option<&Attempt>,
    ) {
        match attempt.filter(|attempt| attempt.epoch == epoch) {
            Some(attempt) => self.command(id, Command::Connect(attempt.logs())),
            None => {
                let error = RpcError::new(UNAVAILABLE, "the connection is gone");
                agent.handle_published(now, id, epoch, Err(error));
            }
        }
    }

    fn begin(&mut self, id: String) {
        let (sender, commands) = mpsc::unbounded_channel();
        let publication = Publication {
            id: id.clone(),
            node: self.node.clone(),
            executor: Arc::clone(&self.executor),
            clock: self.clock.clone(),
            readers: Arc::clone(&self.readers),
            heard: self.heard.clone(),
            commands,
        };
        self.active.insert(id, sender);
        self.tasks.spawn(publication.run());
    }

    fn command(&self, id: &str, command: Command) {
        if let Some(sender) = self.active.get(id) {
            // Fails only when the publication has ended by itself, and it says so.
            drop(sender.send(command));
        }
    }
}
