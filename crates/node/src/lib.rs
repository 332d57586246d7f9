//! A node: who it is, its manager if it has one, and its agent.
//!
//! # Owns
//! The node's identity, the layout of its state directory, and the order in which manager and agent
//! start and stop.
//!
//! # Does not own
//! What manager and agent do. Arguments of the command line are parsed by `swarmd`.
//!
//! # Invariants
//! * Nothing in the state directory is overwritten that was not read first.
//! * Stopping a node never stops its tasks.
//!
//! # Start reading at
//! [`Node::start`].
//!
//! # SwarmKit counterpart
//! `node/node.go`. Intended difference, until the identity issue lands: there are no certificates,
//! and a manager does not change into a worker or back.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod identity;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use swarm_agent_io::{Remotes, RunError, Runner};
use swarm_api::v1;
use swarm_executor::Executor;
use swarm_manager::{LogConfig, Manager, StartError};
use swarm_rt::tasks::TaskError;
use swarm_rt::{Clock, OnError, OsIds, Shutdown, Tasks, net};
use swarm_types::NodeId;
use tokio::sync::watch;

pub use identity::IdentityError;

use identity::Part;

/// How long the agent may take to let go of its tasks.
const STOP_GRACE: Duration = Duration::from_secs(10);

/// What a node needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Everything that the node keeps; made with mode 0700.
    pub state_dir: PathBuf,
    /// The host name to report; `None` for the machine's.
    pub hostname: Option<String>,
    /// The manager to join; `None` starts or continues a cluster.
    pub join_addr: Option<String>,
    /// Where the manager listens for agents.
    pub listen_remote: String,
    /// What nodes are told to dial instead.
    pub advertise_remote: Option<String>,
    /// Path of the control socket.
    pub control_socket: PathBuf,
    /// Whether the manager's node takes tasks; counts on a fresh cluster only.
    pub availability: v1::node_spec::Availability,
    /// Settings of log and consensus.
    pub log: LogConfig,
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
    /// The identity cannot be used.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The manager did not start.
    #[error(transparent)]
    Manager(#[from] StartError),
    /// The agent did not start.
    #[error(transparent)]
    Agent(#[from] RunError),
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
    /// Starts the manager, if this node has one, then the agent.
    ///
    /// # Errors
    /// [`NodeError`]; what had started is stopped again.
    pub async fn start(
        config: Config,
        executor: Arc<dyn Executor>,
        shutdown: Shutdown,
    ) -> Result<Self, NodeError> {
        make_private(&config.state_dir)
            .map_err(|error| NodeError::StateDir(config.state_dir.clone(), error))?;
        let held = swarm_raft_io::StateDir::open(&config.state_dir)?;
        let part = if config.join_addr.is_some() {
            Part::Worker
        } else {
            Part::Manager
        };
        let identity = identity::load_or_create(&config.state_dir, part, &mut OsIds::new())?;
        let manager = match &identity.cluster {
            Some(cluster) => {
                let manager = manager_config(&config, identity.node.clone(), cluster.clone());
                Some(Manager::start(manager, shutdown.clone()).await?)
            }
            None => None,
        };
        let agent = agent_config(&config, identity.node.clone());
        let runner = match Runner::open(agent, executor, Clock::new()).await {
            Ok(runner) => runner,
            Err(error) => {
                // Its own failure, if it has one as well, is in the log.
                if let Some(manager) = manager {
                    drop(manager.stop().await);
                }
                return Err(error.into());
            }
        };
        let connected = runner.connected();
        let tasks = Tasks::new(shutdown);
        let stop = tasks.shutdown().clone();
        tasks.spawn("agent", OnError::Stop, async move {
            runner.run(stop).await;
            Ok(())
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

fn manager_config(
    config: &Config,
    node: NodeId,
    cluster: swarm_types::ClusterId,
) -> swarm_manager::Config {
    swarm_manager::Config {
        node,
        cluster,
        availability: config.availability,
        directory: config.state_dir.join("manager"),
        log: config.log.clone(),
        listen_remote: config.listen_remote.clone(),
        advertise_remote: config.advertise_remote.clone(),
        control_socket: config.control_socket.clone(),
    }
}

fn agent_config(config: &Config, node: NodeId) -> swarm_agent_io::Config {
    swarm_agent_io::Config {
        node,
        hostname: config.hostname.clone(),
        database: config.state_dir.join("tasks.db"),
        remotes: match &config.join_addr {
            Some(address) => Remotes::new([address.clone()]),
            None => Remotes::local(config.control_socket.clone()),
        },
    }
}

/// Makes a directory that only its owner may look into.
fn make_private(directory: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
}

/// Whether a listen address is safe without certificates; the reason if it is not.
///
/// # Errors
/// In words, with the way out.
pub fn check_listen_address(address: &str, insecure: bool) -> Result<(), String> {
    if insecure || net::is_loopback(address) {
        return Ok(());
    }
    Err(format!(
        "--listen-remote-api {address} is reachable from other machines, and connections are not \
         encrypted or authenticated yet: anyone who reaches the address can run commands on \
         every node; listen on a loopback address, or add --insecure if the network is trusted"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_reach_a_manager_only_if_the_user_says_so() {
        assert!(check_listen_address("127.0.0.1:4242", false).is_ok());
        assert!(check_listen_address("0.0.0.0:4242", true).is_ok());
        let refusal = check_listen_address("0.0.0.0:4242", false).unwrap_err();
        assert!(refusal.contains("0.0.0.0:4242") && refusal.contains("--insecure"));
    }
    fn executor(directory: &Path) -> Arc<dyn Executor> {
        use swarm_executor_native::{NativeConfig, NativeExecutor};
        let config = NativeConfig::new(directory.join("native"));
        Arc::new(NativeExecutor::new(config).unwrap())
    }

    fn config(directory: &Path) -> Config {
        let mut log = LogConfig::default();
        log.member.segment_bytes = 1 << 20;
        Config {
            state_dir: directory.join("state"),
            hostname: None,
            join_addr: None,
            listen_remote: "127.0.0.1:0".to_owned(),
            advertise_remote: None,
            control_socket: directory.join("control.sock"),
            availability: v1::node_spec::Availability::Drain,
            log,
        }
    }

    #[tokio::test]
    async fn a_node_that_failed_to_start_can_be_started_when_the_reason_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let executor = executor(directory.path());
        std::fs::create_dir(&config.state_dir).unwrap();
        let database = config.state_dir.join("tasks.db");
        std::fs::write(&database, "not a database").unwrap();
        let refused = Node::start(config.clone(), Arc::clone(&executor), Shutdown::new()).await;
        assert!(matches!(refused, Err(NodeError::Agent(_))), "{refused:?}");

        std::fs::remove_file(&database).unwrap();
        let node = Node::start(config, executor, Shutdown::new())
            .await
            .unwrap();
        let ready = tokio::time::timeout(Duration::from_secs(20), node.ready());
        ready.await.expect("it is ready before the deadline");
        assert!(!node.shutdown().has_begun());
        node.stop().await.unwrap();
    }
}
