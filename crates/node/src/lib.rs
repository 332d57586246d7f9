//! A node: who it is, its manager if it has one, and its agent.
//!
//! # Owns
//! The node's certificate from the first request to every renewal, the layout of its state
//! directory, and the order in which manager and agent start and stop.
//!
//! # Does not own
//! What manager and agent do. Form and validity of certificates are decided in `swarm-ca`, and
//! arguments of the command line are parsed by `swarmd`.
//!
//! # Invariants
//! * Nothing in the state directory is overwritten that was not read first.
//! * At every moment the directory holds a key with its certificate, or nothing.
//! * The key of a new cluster's root is never in the directory of certificates.
//! * Stopping a node never stops its tasks; removing it from the cluster does.
//!
//! # Start reading at
//! [`Node::start`], then `identity`, then `renewal`.
//!
//! # SwarmKit counterpart
//! `node/node.go`, and the half of `ca/config.go` and `ca/renewer.go` that runs on nodes. Intended
//! differences: a worker waits for its manager as long as it takes; a token is asked about before
//! it is used; a first start that was cut short is done again instead of leaving a cluster without
//! a root; a manager does not change into a worker or back yet.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod certificates;
pub mod check;
mod first_start;
mod identity;
mod joined_with;
mod joining_key;
mod known_managers;
pub mod leave;
mod lock;
mod obtain;
mod renewal;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_io::{Remotes, Removed, RunError, Runner};
use swarm_api::v1;
use swarm_ca::keyfile::Kek;
use swarm_executor::Executor;
use swarm_manager::{LogConfig, Manager, RootMaterial, StartError};
use swarm_rt::metrics::Metrics;
use swarm_rt::tasks::TaskError;
use swarm_rt::{Clock, OnError, Shutdown, Tasks, private};
use swarm_types::NodeId;
use tokio::sync::{Notify, watch};

pub use certificates::CertificatesError;
pub use identity::{IdentityError, Join};
pub use obtain::ObtainError;

use certificates::Certificates;
use identity::{FirstRoot, Identity, MANAGER_DIRECTORY, Part, Start};
use known_managers::KnownManagers;
use lock::{Lock, Sealed};
use renewal::{Parts, Renewer, Way};

/// How long the agent may take to let go of its tasks.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything that the node keeps; made with mode 0700.
    pub state_dir: PathBuf,
    /// The host name to report; `None` for the machine's.
    pub hostname: Option<String>,
    /// The cluster to join; without an address the node starts or continues one.
    pub join: Join,
    /// Where the manager listens for agents.
    pub listen_remote: String,
    /// What nodes are told to dial instead.
    pub advertise_remote: Option<String>,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// Whether the node takes tasks; counts when it comes into the cluster only.
    pub availability: v1::node_spec::Availability,
    /// External authorities that sign for the root of a new cluster.
    pub external_cas: Vec<v1::ExternalCa>,
    /// What locks and unlocks a manager.
    pub locking: Locking,
    /// Settings of log and consensus.
    pub log: LogConfig,
    /// Where the node's figures go.
    pub metrics: Metrics,
    /// Directory with the sockets of plugins, of which a manager asks secret drivers.
    pub plugins_dir: PathBuf,
    /// Nodes of one token, and of one address, that may wait for their first session.
    pub waiting_nodes_max: usize,
}

/// What locks and unlocks a manager.
#[derive(Clone, Debug, Default)]
pub struct Locking {
    /// Whether the managers of a new cluster are locked.
    pub autolock: bool,
    /// Shows people the unlock key of a new cluster, once, before anything is sealed under it.
    pub show: Option<fn(&str)>,
    /// What opens a manager that is locked.
    pub unlock_key: Option<Kek>,
}

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The state directory cannot be made.
    #[error("state directory {}", .0.display())]
    StateDir(PathBuf, #[source] std::io::Error),
    /// Another process uses the state directory.
    #[error(transparent)]
    InUse(#[from] swarm_raft_io::state_dir::StateDirError),
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The manager did not start.
    #[error(transparent)]
    Manager(#[from] StartError),
    /// The agent did not start.
    #[error(transparent)]
    Agent(#[from] RunError),
}

impl NodeError {
    /// Whether all that is missing is the unlock key.
    pub fn is_locked(&self) -> bool {
        let Self::Identity(IdentityError::Files(error)) = self else {
            return false;
        };
        matches!(
            error,
            CertificatesError::Locked(_) | CertificatesError::WrongUnlockKey(_)
        )
    }
}

/// Why a node stopped for good: its cluster does not know it any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "node {node} was removed from its cluster, and its tasks have ended; to join again as a new \
     node, remove its state with `swarmd leave --state-dir {}` and start swarmd with --join-addr \
     and the token of `swarmctl cluster join-token worker`", .state_dir.display()
)]
pub struct RemovedNode {
    /// The node.
    pub node: NodeId,
    /// Where its state is.
    pub state_dir: PathBuf,
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    tasks: Tasks,
    manager: Option<Manager>,
    connected: watch::Receiver<bool>,
    _held: swarm_raft_io::StateDir,
}

impl Node {
    /// Finds out who the node is, which may wait for a manager, starts the manager, if this node
    /// has one, then the agent. Cancel safe.
    ///
    /// # Errors
    /// [`NodeError`]; what had started is stopped again.
    pub async fn start(
        config: Config,
        executor: Arc<dyn Executor>,
        shutdown: Shutdown,
    ) -> Result<Self, NodeError> {
        private::directory(&config.state_dir)
            .map_err(|error| NodeError::StateDir(config.state_dir.clone(), error))?;
        let held = swarm_raft_io::StateDir::open(&config.state_dir)?;
        let clock = Clock::new();
        let certificates = Certificates::open(&config.state_dir).map_err(IdentityError::from)?;
        let start = Start {
            state_dir: &config.state_dir,
            join: &config.join,
            availability: config.availability,
            has_external_ca: !config.external_cas.is_empty(),
            certificates: &certificates,
            unlock_key: config.locking.unlock_key.as_ref(),
            clock: &clock,
        };
        let identity = start.identity().await?;
        warn_of_autolock(&config, &identity, &certificates);
        let manager = start_manager(&config, &identity, &certificates, &shutdown).await?;
        let agent = agent_config(&config, &identity);
        let runner = match Runner::open(agent, executor, clock.clone()).await {
            Ok(runner) => runner,
            Err(error) => {
                // Its own failure, if it has one as well, is in the log.
                if let Some(manager) = manager {
                    drop(manager.stop().await);
                }
                return Err(error.into());
            }
        };
        let (connected, tasks) = (runner.connected(), Tasks::new(shutdown));
        let hurry = Arc::default();
        let renewer = renewer(&config, &identity, &certificates, &runner, &clock, &hurry);
        if let Some(manager) = &manager {
            let files = Files {
                certificates,
                clock,
                hurry,
            };
            files.follow(&tasks, &config, &identity, manager);
        }
        let renewing = async move {
            renewer.run().await;
            Ok(())
        };
        tasks.spawn(
            "certificate renewal",
            OnError::Stop,
            until(tasks.shutdown().clone(), renewing),
        );
        let stop = tasks.shutdown().clone();
        let gone = RemovedNode {
            node: identity.node.clone(),
            state_dir: config.state_dir.clone(),
        };
        tasks.spawn("agent", OnError::Stop, async move {
            let ended = runner.run(stop).await;
            ended.map_err(|Removed| TaskError::from(gone))
        });
        Ok(Self {
            id: identity.node,
            tasks,
            manager,
            connected,
            _held: held,
        })
    }

    /// The node's id.
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// Where agents reach this node's manager, if it has one.
    pub fn remote_addr(&self) -> Option<SocketAddr> {
        self.manager.as_ref().map(Manager::remote_addr)
    }

    /// Waits until the node has a session and its manager, if it has one, answers; or until it
    /// stops by itself. Cancel safe.
    pub async fn ready(&self) {
        if let Some(manager) = &self.manager {
            manager.ready().await;
        }
        let mut connected = self.connected.clone();
        tokio::select! {
            // An error means that the agent ended, which the shutdown tells as well.
            _ = connected.wait_for(|connected| *connected) => {}
            () = self.tasks.shutdown().begun() => {}
        }
    }

    /// The signal that is given when the node stops by itself.
    pub fn shutdown(&self) -> &Shutdown {
        self.tasks.shutdown()
    }

    /// Stops the agent, which lets its tasks run on, then the manager.
    ///
    /// # Errors
    /// The error of the part that failed first, if the node stopped because of one.
    pub async fn stop(self) -> Result<(), TaskError> {
        let agent = self.tasks.finish(STOP_GRACE).await;
        let manager = match self.manager {
            Some(manager) => manager.stop().await,
            None => Ok(()),
        };
        agent.and(manager)
    }
}

/// Work that ends when the node stops.
async fn until(
    stop: Shutdown,
    work: impl Future<Output = Result<(), TaskError>>,
) -> Result<(), TaskError> {
    tokio::select! {
        done = work => done,
        () = stop.begun() => Ok(()),
    }
}

/// What a manager's files are kept with.
struct Files {
    certificates: Certificates,
    clock: Clock,
    hurry: Arc<Notify>,
}

impl Files {
    /// Keeps them as the cluster wants them, and ends the first start.
    fn follow(self, tasks: &Tasks, config: &Config, identity: &Identity, manager: &Manager) {
        let is_first = matches!(identity.part, Part::Manager(Some(_)));
        let (sealed, watched) = watch::channel(Sealed::default());
        let lock = Lock {
            certificates: self.certificates.clone(),
            store: manager.store().clone(),
            wanted: manager.wanted_seal(),
            show: config.locking.show.filter(|_| is_first),
            renew: self.hurry,
            sealed,
            unsealed: manager.unsealed(),
        };
        let stop = tasks.shutdown().clone();
        tasks.spawn("lock", OnError::Stop, until(stop, lock.run()));
        if is_first {
            let first = first_start::FirstStart {
                certificates: self.certificates,
                credentials: identity.credentials.clone(),
                socket: config.control_socket.clone(),
                clock: self.clock,
                sealed: watched,
            };
            let finished = first.finish(manager.when_ready(), manager.store().clone());
            let stop = tasks.shutdown().clone();
            tasks.spawn("first start", OnError::Stop, until(stop, finished));
        }
    }
}

/// What a flag of the first start means on later ones: nothing, and that is said.
fn warn_of_autolock(config: &Config, identity: &Identity, certificates: &Certificates) {
    let is_first = matches!(identity.part, Part::Manager(Some(_)));
    if config.locking.autolock && !is_first && !certificates.is_sealed() {
        tracing::warn!(
            "--autolock counts only when a cluster is founded; use `swarmctl cluster update \
             default --autolock=true`"
        );
    }
}

async fn start_manager(
    config: &Config,
    identity: &Identity,
    certificates: &Certificates,
    shutdown: &Shutdown,
) -> Result<Option<Manager>, NodeError> {
    let Part::Manager(first) = &identity.part else {
        return Ok(None);
    };
    let directory = config.state_dir.join(MANAGER_DIRECTORY);
    private::subdirectory(&directory)
        .map_err(|error| NodeError::StateDir(directory.clone(), error))?;
    let manager = swarm_manager::Config {
        node: identity.node.clone(),
        cluster: identity.cluster.clone(),
        availability: config.availability,
        directory,
        log: config.log.clone(),
        listen_remote: config.listen_remote.clone(),
        advertise_remote: config.advertise_remote.clone(),
        control_socket: config.control_socket.clone(),
        security: identity.credentials.clone(),
        first_root: first
            .clone()
            .map(|FirstRoot { cert_pem, key_pem }| RootMaterial {
                cert_pem,
                key_pem,
                external_cas: config.external_cas.clone(),
                autolock: config.locking.autolock,
            }),
        data_keys: Arc::new(certificates.clone()),
        metrics: config.metrics.clone(),
        plugins: config.plugins_dir.clone(),
        waiting_nodes_max: config.waiting_nodes_max,
    };
    Ok(Some(Manager::start(manager, shutdown.clone()).await?))
}

fn agent_config(config: &Config, identity: &Identity) -> swarm_agent_io::Config {
    swarm_agent_io::Config {
        node: identity.node.clone(),
        hostname: config.hostname.clone(),
        database: config.state_dir.join(leave::DATABASE),
        remotes: match &identity.part {
            Part::Worker => Remotes::new(identity.managers.clone()),
            Part::Manager(_) => Remotes::local(config.control_socket.clone()),
        },
        credentials: identity.credentials.clone(),
    }
}

fn renewer(
    config: &Config,
    identity: &Identity,
    certificates: &Certificates,
    runner: &Runner,
    clock: &Clock,
    hurry: &Arc<Notify>,
) -> Renewer {
    Renewer::new(Parts {
        credentials: identity.credentials.clone(),
        certificates: certificates.clone(),
        known: KnownManagers::new(&config.state_dir),
        way: match &identity.part {
            Part::Worker => Way::Remote,
            Part::Manager(_) => Way::Local(config.control_socket.clone()),
        },
        clock: clock.clone(),
        told: runner.told(),
        hurry: Arc::clone(hurry),
        managers: identity.managers.clone(),
    })
}
